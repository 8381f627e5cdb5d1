"""`grokkit report`."""

from __future__ import annotations

import click

from grokkit_cli import render
from grokkit_cli.session import CassetteRef, Session, verb


@verb
@click.argument("refs", nargs=-1, required=True, type=CassetteRef())
@click.option("-o", "--output", required=True, metavar="FILE", type=click.Path(), help="The page, an .html file.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the samples that are drawn.")
def report_(session: Session, as_json: bool, refs: tuple[str, ...], output: str, seed: int) -> None:
    """Write one HTML page that needs no network: card, certificate, pictures and lineage of each cassette."""
    from grokkit_core.reporting.page import report

    with render.working("drawing"):
        made = report(refs, output, seed=seed, library=session.workspace)
    if as_json:
        render.as_json(made.to_json())
    else:
        render.reported(made)


command = report_
