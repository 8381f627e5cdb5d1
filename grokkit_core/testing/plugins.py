"""Laws of plugins: describing them costs nothing, their ids are their own, and every name in them means something."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from grokkit_core.architecture import Architecture
from grokkit_core.errors import GrokkitError
from grokkit_core.fusion.fusion import Fusion
from grokkit_core.fusion.gate import Gate
from grokkit_core.loading import describe
from grokkit_core.plugins import CORE, Plugin, resolved
from grokkit_core.specs import (
    REQUIRED,
    ArchitectureSpec,
    CassetteRoot,
    Component,
    FusionSpec,
    GateSpec,
    RecipeSpec,
    TaskSpec,
    TransferSpec,
    check_settings,
)
from grokkit_core.task import Task
from grokkit_core.testing.laws import Laws, applies, require
from grokkit_core.testing.workbench import Workbench
from grokkit_core.training.recipe import Recipe
from grokkit_core.transfer.operator import TransferOperator

LAWS = Laws("plugin")

INTERFACES: dict[type[Any], type[Any]] = {
    TaskSpec: Task,
    ArchitectureSpec: Architecture,
    RecipeSpec: Recipe,
    TransferSpec: TransferOperator,
    FusionSpec: Fusion,
    GateSpec: Gate,
}
HEAVY = ("torch", "numpy")
DESCRIBE = """
import importlib, sys
sys.path[:] = {path!r}
module = importlib.import_module({name!r})
list(getattr(module, "grokkit_components", lambda: ())() or ())
print(*[name for name in {heavy!r} if name in sys.modules])
"""
"""What `grokkit list` does with a plugin, in a process of its own."""


def aimed(plugin: Plugin) -> list[Any]:
    """The components with code behind them."""
    return [spec for spec in plugin.components if not isinstance(spec, CassetteRoot)]


@LAWS(
    "loads",
    "it is loaded without a fault and without printing",
    mend="see `grokkit plugins` and `grokkit doctor`; no print while a plugin module is imported",
)
def _(plugin: Plugin, bench: Workbench) -> None:
    require(plugin.healthy, plugin.complaint, "status ok")


@LAWS(
    "light",
    "describing it imports neither torch nor numpy",
    mend="keep the plugin module to specs: heavy code stands behind import strings",
)
def _(plugin: Plugin, bench: Workbench) -> None:
    module = plugin.module
    applies(bool(module and getattr(module, "__file__", None)), "its module is no file")
    name = str(module.__name__ if module else "")
    code = DESCRIBE.format(path=[os.getcwd() if part == "" else part for part in sys.path], name=name, heavy=HEAVY)
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=False)
    require(done.returncode == 0, f"importing {name} alone fails: {done.stderr.strip()[-200:]}", "no error")
    require(not done.stdout.split(), f"importing {name} imports {done.stdout.strip()}", "neither torch nor numpy")


@LAWS(
    "targets",
    "every target names code of the right kind",
    mend="write `package.module:Class`, and derive the class from the interface of its kind",
)
def _(plugin: Plugin, bench: Workbench) -> None:
    for spec in aimed(plugin):
        wanted = INTERFACES[type(spec)]
        try:
            found = resolved(spec.target)
        except Exception as error:
            require(False, f"target '{spec.target}' of {spec.id}: {describe(error)}", "code that can be imported")
        kind = found if isinstance(found, type) else type(bench.plugins.build(spec))
        require(issubclass(kind, wanted), f"{spec.target} of {spec.id} is a {kind.__name__}", f"a {wanted.__name__}")
        left = sorted(getattr(kind, "__abstractmethods__", ()))
        require(not left, f"{spec.target} of {spec.id} does not define {', '.join(left)}", f"a whole {wanted.__name__}")


@LAWS(
    "ids",
    "ids carry their package, recipes their task, and tasks are bare words",
    mend="name components `package/name` after the package of their code, and recipes `task/name`",
)
def _(plugin: Plugin, bench: Workbench) -> None:
    for spec in aimed(plugin):
        owner, slash, _ = spec.id.rpartition("/")
        package = spec.target.partition(":")[0].partition(".")[0]
        if isinstance(spec, RecipeSpec):
            require(owner == spec.task, f"recipe {spec.id} of task {spec.task}", f"{spec.task}/...")
        elif slash:
            require(owner == package, f"{spec.kind} {spec.id} of package {package}", f"{package}/...")
        elif not isinstance(spec, TaskSpec):
            require(plugin.name == CORE, f"{spec.kind} {spec.id} is a bare word", f"{package}/{spec.id}")


@LAWS(
    "recipes",
    "every recipe names a task and an architecture that exist, and constants that the task has",
    mend="correct the names, or depend on the distribution that brings them",
)
def _(plugin: Plugin, bench: Workbench) -> None:
    for spec in aimed(plugin):
        if isinstance(spec, RecipeSpec):
            task = _found(bench, TaskSpec, spec.task, spec)
            _found(bench, ArchitectureSpec, spec.architecture, spec)
            try:
                check_settings(task.parameters, spec.law, f"task {task.id}")
            except GrokkitError as error:
                require(False, f"law of recipe {spec.id}: {error}", f"constants of task {task.id}")
        if isinstance(spec, TaskSpec) and spec.recipe:
            trains = _found(bench, RecipeSpec, spec.recipe, spec).task
            require(trains == spec.id, f"{spec.recipe}, the recipe of task {spec.id}, trains {trains}", spec.id)


def _found(bench: Workbench, kind: type[Any], name: str, spec: Component) -> Any:
    known = {other.id: other for other in bench.plugins.specs(kind)}
    require(name in known, f"{spec.kind} {spec.id} names the {kind.kind} {name}", f"one of {', '.join(known)}")
    return known[name]


@LAWS(
    "settings",
    "declared settings have distinct names, and their defaults lie in their own range",
    mend="correct `default`, `low`, `high` or `choices` of the `Field`",
)
def _(plugin: Plugin, bench: Workbench) -> None:
    for spec in aimed(plugin):
        for group in ("parameters", "config", "options"):
            fields = getattr(spec, group, ())
            names = [field.name for field in fields]
            require(len(set(names)) == len(names), f"{spec.id} declares {', '.join(names)}", "distinct names")
            for field in fields:
                absent = field.default is REQUIRED or field.default in (None, (), "")
                good = absent or field.admits(field.default)
                require(good, f"{field.name} of {spec.id} is {field.default!r} by default", field.expected)


@LAWS(
    "summaries",
    "every component says in one line what it is",
    mend="fill in `summary`",
)
def _(plugin: Plugin, bench: Workbench) -> None:
    for spec in aimed(plugin):
        good = bool(spec.summary.strip()) and "\n" not in spec.summary
        require(good, f"the summary of {spec.kind} {spec.id} is '{spec.summary}'", "one line")


@LAWS(
    "plain",
    "specs can be printed: `grokkit tasks --json` shows them",
    mend="use numbers, strings, lists and mappings as defaults",
)
def _(plugin: Plugin, bench: Workbench) -> None:
    for spec in aimed(plugin):
        for group in ("parameters", "config", "options"):
            for field in getattr(spec, group, ()):
                if field.default is not REQUIRED:
                    try:
                        json.dumps(field.default)
                    except (TypeError, ValueError):
                        require(False, f"the default of {field.name} of {spec.id} is {field.default!r}", "plain JSON")


@LAWS(
    "cassettes",
    "every cassette root holds cassettes",
    mend="put the folder into the wheel: `NAME/VERSION/manifest.json` and `weights.safetensors` below it",
)
def _(plugin: Plugin, bench: Workbench) -> None:
    roots = [component for component in plugin.components if isinstance(component, CassetteRoot)]
    applies(bool(roots), "it brings no cassettes")
    held = bench.entries(plugin)
    for root in roots:
        require(bool(held), f"no cassette is found in {root.id}", "at least one")
