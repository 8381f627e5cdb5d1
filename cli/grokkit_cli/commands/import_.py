"""`grokkit import`."""

from __future__ import annotations

import click

from grokkit_cli import render
from grokkit_cli.session import Session, verb
from grokkit_core.workspace import import_cassette


@verb
@click.argument("path", type=click.Path())
@click.option("--as", "name", metavar="NAME", help="Reissue it under a new name.")
def import_(session: Session, as_json: bool, path: str, name: str | None) -> None:
    """Copy a cassette folder into the library after checking it; bytes, name and version are kept."""
    manifest = import_cassette(path, name=name, library=session.workspace)
    render.done("imported", manifest, as_json=as_json)


command = import_
