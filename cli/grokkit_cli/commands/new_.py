"""`grokkit new`."""

from __future__ import annotations

import click

from grokkit_cli import render
from grokkit_cli.session import Session, verb


@verb
@click.argument("what", type=click.Choice(["plugin"]))
@click.argument("name")
@click.option("--path", type=click.Path(), metavar="DIR", help="Where to write it; default: ./grokkit-NAME.")
def new_(session: Session, as_json: bool, what: str, name: str, path: str | None) -> None:
    """Write an installable plugin: a law that works at once, its network, its recipe, its tests."""
    from grokkit_core.scaffold.new_plugin import new_plugin

    made = new_plugin(name, path, plugins=session.host)
    return render.as_json(made.to_json()) if as_json else render.scaffolded(made, name)


command = new_
