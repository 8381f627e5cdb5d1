"""The two hooks of Grokkit: one registers everything a plugin brings, one observes."""

from __future__ import annotations

from collections.abc import Iterable

import pluggy

from grokkit_core.specs import Component, Event

API = 1
"""The hook interface that this version speaks. A plugin module may state `GROKKIT_API = 1`."""

hookspec = pluggy.HookspecMarker("grokkit")
hookimpl = pluggy.HookimplMarker("grokkit")


@hookspec
def grokkit_components() -> Iterable[Component]:  # type: ignore[empty-body]
    """Specs of what the plugin brings: tasks, architectures, recipes, transfer operators, fusions, gates, cassette roots."""


@hookspec
def grokkit_event(event: Event) -> None:
    """Called on progress: training step, checkpoint, certificate, composition."""
