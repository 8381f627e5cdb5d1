"""`grokkit show`."""

from __future__ import annotations

import click

from grokkit_cli import render
from grokkit_cli.session import CassetteRef, Session, verb
from grokkit_core.workspace import show


@verb
@click.argument("ref", type=CassetteRef())
@click.option("--plot", metavar="FILE", type=click.Path(), help="Also draw it, as .svg or .png (needs grokkit[plot]).")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the samples that are drawn.")
def show_(session: Session, as_json: bool, ref: str, plot: str | None, seed: int) -> None:
    """The card of a cassette: what it computes, for which inputs, how well beside its baselines, where it came from."""
    if plot is not None:
        from grokkit_core.pictures.plot import plot as draw

        with render.working("drawing"):
            picture = draw(ref, plot, seed=seed, library=session.workspace)
        render.picture(picture)
    manifest = show(ref, library=session.workspace)
    if as_json:
        render.as_json(manifest.to_json())
    else:
        render.card(manifest)


command = show_
