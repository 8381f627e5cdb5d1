"""`grokkit tasks`."""

from __future__ import annotations

from typing import Any

from grokkit_cli import render
from grokkit_cli.session import Session, verb
from grokkit_core.specs import FusionSpec, GateSpec, RecipeSpec, TaskSpec, TransferSpec

KINDS = {
    "tasks": TaskSpec,
    "recipes": RecipeSpec,
    "operators": TransferSpec,
    "fusions": FusionSpec,
    "gates": GateSpec,
}


@verb
def tasks_(session: Session, as_json: bool) -> None:
    """The tasks, recipes, transfer operators, fusions and gates that the installed plugins bring."""
    found: dict[str, list[dict[str, Any]]] = {
        title: [
            {"name": spec.id, "summary": spec.summary, "plugin": session.host.owner(spec).name}
            for spec in session.host.specs(kind)
        ]
        for title, kind in KINDS.items()
    }
    if as_json:
        render.as_json(found)
    else:
        render.components(found)


command = tasks_
