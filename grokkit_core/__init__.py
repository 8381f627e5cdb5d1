"""Grokkit: small networks that learned an exact rule, packaged so that they can be found, checked, grown and combined.

This is the table of contents of the public API. Names are imported when they are first used, so that `import
grokkit_core` and everything that only describes cassettes stays free of torch.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from grokkit_core.architecture import Architecture as Architecture
    from grokkit_core.architecture import Layer as Layer
    from grokkit_core.benchmark import bench as bench
    from grokkit_core.cassette import Cassette as Cassette
    from grokkit_core.cassette import load as load
    from grokkit_core.certify.verify import verify as verify
    from grokkit_core.errors import GrokkitError as GrokkitError
    from grokkit_core.exporting import export as export
    from grokkit_core.fusion.compose import compose as compose
    from grokkit_core.fusion.compose import plan_composition
    from grokkit_core.hookspecs import hookimpl as hookimpl
    from grokkit_core.manifest import Manifest as Manifest
    from grokkit_core.pictures.plot import plot as plot
    from grokkit_core.prediction import run as run
    from grokkit_core.reporting.page import report as report
    from grokkit_core.scaffold.new_plugin import new_plugin as new_plugin
    from grokkit_core.task import Batch as Batch
    from grokkit_core.task import Task as Task
    from grokkit_core.training.train import train as train
    from grokkit_core.transfer.grow import grow as grow
    from grokkit_core.workspace import Workspace as Workspace
    from grokkit_core.workspace import import_cassette as import_cassette
    from grokkit_core.workspace import list_cassettes
    from grokkit_core.workspace import remove as remove
    from grokkit_core.workspace import show as show

    list = list_cassettes  # assigned, since a type checker takes an import under another name for private
    plan = plan_composition

_HOME = {
    "Architecture": "architecture:Architecture",
    "Batch": "task:Batch",
    "Cassette": "cassette:Cassette",
    "GrokkitError": "errors:GrokkitError",
    "Layer": "architecture:Layer",
    "Manifest": "manifest:Manifest",
    "Task": "task:Task",
    "Workspace": "workspace:Workspace",
    "bench": "benchmark:bench",
    "compose": "fusion.compose:compose",
    "export": "exporting:export",
    "grow": "transfer.grow:grow",
    "hookimpl": "hookspecs:hookimpl",
    "import_cassette": "workspace:import_cassette",
    "list": "workspace:list_cassettes",
    "load": "cassette:load",
    "new_plugin": "scaffold.new_plugin:new_plugin",
    "plan": "fusion.compose:plan_composition",
    "plot": "pictures.plot:plot",
    "remove": "workspace:remove",
    "report": "reporting.page:report",
    "run": "prediction:run",
    "show": "workspace:show",
    "train": "training.train:train",
    "verify": "certify.verify:verify",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("grokkit")
    if name not in _HOME:
        raise AttributeError(f"module 'grokkit_core' has no attribute '{name}'")
    module, _, attribute = _HOME[name].partition(":")
    return getattr(importlib.import_module(f"grokkit_core.{module}"), attribute)


def __dir__() -> Iterable[str]:
    return [*__all__, "__version__"]
