"""`grokkit doctor`."""

from __future__ import annotations

from grokkit_cli import render
from grokkit_cli.session import Session, verb
from grokkit_core.doctor import examine


@verb
def doctor_(session: Session, as_json: bool) -> int:
    """Check versions, libraries and their permissions, plugins, cassettes and writing; exit 1 on a fault."""
    checks = examine(session.workspace)
    if as_json:
        render.as_json({"checks": [check.to_json() for check in checks]})
    else:
        render.checks(checks)
    return 0 if all(check.ok for check in checks) else 1


command = doctor_
