"""Every law of plugins catches one that breaks it, and nothing in a healthy one."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from probes import SPECS, Mutant, assert_broken, bench_with, broken_laws

from grokkit_core.plugins import Plugin
from grokkit_core.specs import ArchitectureSpec, CassetteRoot, Field, GateSpec, RecipeSpec, TaskSpec
from grokkit_core.testing import Workbench


def probe(bench: Workbench) -> Plugin:
    return bench.plugins.plugins[-1]


def bringing(**specs: Any) -> Callable[[Plugin], Plugin]:
    """The plugin with other components."""
    return lambda plugin: replace(plugin, components=tuple({**SPECS, **specs}.values()))


TASK, ARCHITECTURE, GATE, RECIPE = (SPECS[name] for name in ("task", "architecture", "gate", "recipe"))
assert isinstance(TASK, TaskSpec)
assert isinstance(ARCHITECTURE, ArchitectureSpec)
assert isinstance(GATE, GateSpec)
assert isinstance(RECIPE, RecipeSpec)
TOO_LOW = Field("width", "int", 0, low=1, high=64)
CASES: list[tuple[Mutant, Callable[[Plugin], Plugin]]] = [
    (
        Mutant("broken", "plugin.loads", "cannot be imported"),
        lambda plugin: replace(plugin, status="broken", reason="it cannot be imported"),
    ),
    (Mutant("it prints", "plugin.loads", "remove the print"), lambda plugin: replace(plugin, noisy=True, remark="hi")),
    (
        Mutant("code that is not there", "plugin.targets", "no_such_class"),
        bringing(task=replace(TASK, target="grokkit_probe:no_such_class")),
    ),
    (
        Mutant("code of another kind", "plugin.targets", "is a Turn"),
        bringing(gate=replace(GATE, target="grokkit_probe:Turn")),
    ),
    (
        Mutant("the id of another package", "plugin.ids", "of package grokkit_probe"),
        bringing(gate=replace(GATE, id="grokkit_other/odds")),
    ),
    (Mutant("a bare word", "plugin.ids", "is a bare word"), bringing(gate=replace(GATE, id="odds"))),
    (
        Mutant("a recipe of nothing", "plugin.recipes", "grokkit_probe/lost"),
        bringing(recipe=replace(RECIPE, architecture="grokkit_probe/lost")),
    ),
    (
        Mutant("a recipe of another law", "plugin.recipes", "speed"),
        bringing(recipe=replace(RECIPE, law={"speed": 1.0})),
    ),
    (
        Mutant("a default out of range", "plugin.settings", "width"),
        bringing(architecture=replace(ARCHITECTURE, config=[TOO_LOW])),
    ),
    (Mutant("no summary", "plugin.summaries", "is ''"), bringing(gate=replace(GATE, summary=""))),
    (
        Mutant("a default that is no JSON", "plugin.plain", "object"),
        bringing(architecture=replace(ARCHITECTURE, config=[Field("any", "json", object())])),
    ),
    (
        Mutant("an empty folder", "plugin.cassettes", "no cassette"),
        bringing(root=CassetteRoot("grokkit_core", "testing")),
    ),
]


def test_a_healthy_plugin_breaks_no_law() -> None:
    with bench_with() as bench:
        assert broken_laws("plugin", probe(bench), bench) == {}


@pytest.mark.parametrize(("mutant", "change"), CASES, ids=str)
def test_a_mutant_is_caught_by_its_law_alone(mutant: Mutant, change: Callable[[Plugin], Plugin]) -> None:
    with bench_with() as bench:
        changed = change(probe(bench))
        bench.plugins.plugins = (*bench.plugins.plugins[:-1], changed)
        assert_broken(mutant, "probe", broken_laws("plugin", changed, bench))


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """A plugin module in a file, imported."""

    def write(text: str) -> ModuleType:
        (tmp_path / "grokkit_probe_file.py").write_text(text)
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.delitem(sys.modules, "grokkit_probe_file", raising=False)
        return importlib.import_module("grokkit_probe_file")

    return write


HEAVY = Mutant("torch while it is described", "plugin.light", "importing grokkit_probe_file imports torch")
ALONE = Mutant("it needs somebody else's import", "plugin.light", "importing grokkit_probe_file alone fails")


@pytest.mark.parametrize(
    ("mutant", "text"),
    [
        (HEAVY, "def grokkit_components():\n    import torch\n    return []\n"),
        (ALONE, "import sys\nif 'pytest' not in sys.modules:\n    raise ImportError('only in tests')\n"),
    ],
    ids=str,
)
def test_what_a_description_costs_is_seen_in_a_process_of_its_own(
    mutant: Mutant, text: str, module: Callable[[str], ModuleType]
) -> None:
    with bench_with() as bench:
        plugin = replace(probe(bench), module=module(text))
        assert_broken(mutant, "probe", broken_laws("plugin", plugin, bench))


def test_a_plugin_that_describes_itself_lightly_is_left_alone(module: Callable[[str], ModuleType]) -> None:
    with bench_with() as bench:
        plugin = replace(probe(bench), module=module("def grokkit_components():\n    return []\n"))
        assert broken_laws("plugin", plugin, bench) == {}


PLUGIN_MUTANTS = [mutant for mutant, _ in CASES] + [HEAVY, ALONE]
