"""`grokkit remove`."""

from __future__ import annotations

import click

from grokkit_cli import render
from grokkit_cli.session import CassetteRef, Session, verb
from grokkit_core.workspace import remove


@verb
@click.argument("ref", type=CassetteRef())
def remove_(session: Session, as_json: bool, ref: str) -> None:
    """Delete one version (without a pin the highest); its number is never used again."""
    manifest = remove(ref, library=session.workspace)
    render.done("removed", manifest, as_json=as_json)


command = remove_
