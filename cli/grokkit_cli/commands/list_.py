"""`grokkit list`."""

from __future__ import annotations

import click

from grokkit_cli import render
from grokkit_cli.session import ComponentName, Session, verb
from grokkit_core.specs import TaskSpec
from grokkit_core.workspace import list_cassettes


@verb
@click.option("--task", type=ComponentName("task"), help="Only cassettes of this task.")
def list_(session: Session, as_json: bool, task: str | None) -> None:
    """The cassettes of all libraries, read from their manifests alone."""
    entries = list_cassettes(task=task, library=session.workspace)
    if task is not None and not entries:
        session.host.spec(TaskSpec, task)  # raises for a name that is no task
    if as_json:
        render.as_json({"cassettes": [entry.to_json() for entry in entries]})
    else:
        render.entries(entries)


command = list_
