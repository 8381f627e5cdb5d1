"""`grokkit tasks` and `grokkit plugins`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

Cli = Callable[..., Any]
Package = Callable[..., None]
KINDS = ["tasks", "recipes", "operators", "fusions", "gates"]

GATE = """
    from grokkit_core import hookimpl
    from grokkit_core.specs import GateSpec

    @hookimpl
    def grokkit_components():
        yield GateSpec("planted/flat", target="planted:Flat", summary="a gate from elsewhere")
"""


def states(cli: Cli) -> dict[str, Any]:
    return {row["name"]: row for row in cli("plugins", "--json").json["plugins"]}


def test_tasks_has_the_documented_json_keys(cli: Cli) -> None:
    found = cli("tasks", "--json")
    assert (found.code, found.err) == (0, "")
    assert list(found.json) == KINDS
    assert all(set(item) >= {"name", "summary", "plugin"} for kind in KINDS for item in found.json[kind])


def test_tasks_names_what_comes_with_grokkit(cli: Cli) -> None:
    found = cli("tasks", "--json").json
    names = {kind: {item["name"] for item in found[kind]} for kind in KINDS}
    assert "cyclotron" in names["tasks"]
    assert "cyclotron/published" in names["recipes"]
    assert "ensemble" in names["fusions"]
    assert names["gates"] >= {"spectral", "uniform"}


def test_tasks_prints_names_summaries_and_plugins(cli: Cli) -> None:
    shown = cli("tasks")
    assert (shown.code, shown.err) == (0, "")
    for word in ("cyclotron/published", "equal weights", "uniform", "core"):
        assert word in shown.out


def test_tasks_without_plugins_are_those_of_the_core(cli: Cli) -> None:
    found = cli("tasks", "--json", "--no-plugins").json
    assert {item["plugin"] for kind in KINDS for item in found[kind]} == {"core"}


def test_a_plugin_brings_its_gate(cli: Cli, package: Package) -> None:
    package("planted", GATE)
    assert {"name": "planted/flat", "summary": "a gate from elsewhere", "plugin": "planted"} in cli(
        "tasks", "--json"
    ).json["gates"]


def test_plugins_has_the_documented_json_keys(cli: Cli) -> None:
    found = cli("plugins", "--json")
    assert (found.code, found.err) == (0, "")
    assert list(found.json) == ["plugins"]
    keys = {"name", "distribution", "version", "status", "reason", "components"}
    assert all(set(row) >= keys for row in found.json["plugins"])


def test_plugins_prints_distribution_version_and_state(cli: Cli, package: Package) -> None:
    package("planted", GATE, distribution="Planted-Dist", version="3.2.1")
    shown = cli("plugins")
    assert (shown.code, shown.err) == (0, "")
    for word in ("core", "cyclotron", "planted", "Planted-Dist", "3.2.1", "ok"):
        assert word in shown.out


def test_a_plugin_that_fails_at_import_is_broken_and_named_on_stderr(cli: Cli, package: Package) -> None:
    package("planted", "raise RuntimeError('out of order')")
    found = cli("plugins", "--json")
    row = next(row for row in found.json["plugins"] if row["name"] == "planted")
    assert (found.code, row["status"]) == (0, "broken")
    assert "out of order" in row["reason"]
    assert len(found.err.splitlines()) == 1
    for word in ("planted", "out of order", "pip uninstall"):
        assert word in found.err


def test_a_plugin_that_exits_at_import_does_not_end_the_command(cli: Cli, package: Package) -> None:
    package("planted", "import sys\nsys.exit(7)")
    assert cli("list").code == 0
    assert states(cli)["planted"]["status"] == "broken"


def test_a_plugin_of_another_api_is_incompatible(cli: Cli, package: Package) -> None:
    package("planted", "GROKKIT_API = 99")
    assert states(cli)["planted"]["status"] == "incompatible"
    assert "upgrade grokkit" in cli("plugins").err


def test_two_distributions_of_one_entry_point_name_clash(cli: Cli, package: Package) -> None:
    package("planted", GATE, distribution="first")
    package("planted", GATE, distribution="second")
    found = [row for row in cli("plugins", "--json").json["plugins"] if row["name"] == "planted"]
    assert [row["status"] for row in found] == ["clash", "clash"]
    assert "second" in found[0]["reason"]


def test_a_plugin_outside_the_allow_list_is_disabled_without_a_word(
    cli: Cli, package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    package("planted", GATE)
    monkeypatch.setenv("GROKKIT_PLUGINS", "grokkit")
    found = cli("plugins", "--json")
    row = next(row for row in found.json["plugins"] if row["name"] == "planted")
    assert (row["status"], found.err) == ("disabled", "")


def test_what_a_plugin_prints_does_not_reach_stdout(cli: Cli, package: Package) -> None:
    package("planted", "import os\nprint('hello')\nos.write(1, b'raw')")
    found = cli("plugins", "--json")
    assert found.json
    assert "hello" in found.err
