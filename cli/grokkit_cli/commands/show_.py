"""`grokkit show`."""

from __future__ import annotations

import click

from grokkit_cli import render
from grokkit_cli.session import CassetteRef, Session, verb
from grokkit_core.workspace import show


@verb
@click.argument("ref", type=CassetteRef())
def show_(session: Session, as_json: bool, ref: str) -> None:
    """The card of a cassette: what it computes, for which inputs, how well beside its baselines, where it came from."""
    manifest = show(ref, library=session.workspace)
    if as_json:
        render.as_json(manifest.to_json())
    else:
        render.card(manifest)


command = show_
