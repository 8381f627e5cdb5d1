"""`grokkit plugins`."""

from __future__ import annotations

from grokkit_cli import render
from grokkit_cli.session import Session, verb


@verb
def plugins_(session: Session, as_json: bool) -> None:
    """The plugins with their distribution, version, state and, where something is wrong, the reason."""
    rows = [plugin.to_json() for plugin in session.host.plugins]
    if as_json:
        render.as_json({"plugins": rows})
    else:
        render.plugins(rows)


command = plugins_
