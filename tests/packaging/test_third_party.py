"""A package by somebody else, built, installed and used: it has every right that a built-in plugin has."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.conftest import Outcome

    Cli = Callable[..., Outcome]

SOURCE = Path(__file__).parent.parent / "third_party" / "grokkit-example"
GATE = "grokkit_example/inverse-error"
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "--quiet")
SLOW, FAST = "slow-member", "fast-member"
"""Cyclotron cassettes trained at 0.8 and at 2.2 rad/s."""

pytestmark = pytest.mark.install


def pip(*arguments: object) -> None:
    subprocess.run([*PIP, *map(str, arguments)], check=True, capture_output=True, timeout=120)


def grokkit(*arguments: object, path: Path, library: Path | None = None) -> subprocess.CompletedProcess[str]:
    """`grokkit ARGUMENTS` in a process of its own, with the folder `path` of packages."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(path)}
    chosen = ["--library", str(library)] if library is not None else []
    command = [sys.executable, "-m", "grokkit_cli", *chosen, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)


def answer(*arguments: object, path: Path, library: Path | None = None) -> Any:
    """What `grokkit ARGUMENTS --json` says; it must succeed in silence."""
    done = grokkit(*arguments, "--json", path=path, library=library)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module", autouse=True)
def at_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The user's folders are empty for the fixtures of this module too."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME"):
            patch.setenv(name, str(tmp_path_factory.mktemp("home")))
        for name in ("GROKKIT_LIBRARY", "GROKKIT_PLUGINS", "GROKKIT_DISABLE_PLUGINS"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", folder, SOURCE)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the installed package, for PYTHONPATH."""
    folder = tmp_path_factory.mktemp("site")
    pip("install", "--no-deps", "--no-index", "--no-compile", "--target", folder, wheel)
    return folder


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library with two cyclotron cassettes, each of which is better where the other is worse."""
    from grokkit_cli.__main__ import run

    folder = tmp_path_factory.mktemp("shelf")
    for name, omega in ((SLOW, 0.8), (FAST, 2.2)):
        settings = ("epochs=2", "samples=512", f"omega={omega}")
        options = [part for setting in settings for part in ("--set", setting)]
        assert run(["--library", str(folder), "train", "cyclotron", "--name", name, *options]) == 0
    return folder


@pytest.fixture(scope="module")
def fused(installed: Path, shelf: Path) -> Any:
    """What `compose` says of the two members and the package's gate."""
    return answer("compose", SLOW, FAST, "--gate", GATE, "--name", "fused", path=installed, library=shelf)


def named(rows: list[dict[str, Any]], name: str) -> dict[str, Any]:
    (found,) = [row for row in rows if row["name"] == name]
    return found


# -- what it brings --------------------------------------------------------------------------------------------------


def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(wheel: Path) -> None:
    source = SOURCE / "grokkit_example"
    wanted = {
        path.relative_to(SOURCE).as_posix()
        for path in source.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert held == wanted
    assert "grokkit_example/cassettes/rule-110/1/weights.safetensors" in held


def test_list_shows_its_cassette_under_the_name_of_its_distribution(installed: Path) -> None:
    row = named(answer("list", path=installed)["cassettes"], "rule-110")
    assert (row["source"], row["task"], row["verdict"], row["problem"]) == (
        "grokkit-example",
        "automaton",
        "exact",
        None,
    )


def test_tasks_names_its_task_its_recipe_and_its_gate(installed: Path) -> None:
    found = answer("tasks", path=installed)
    for kind, name in (("tasks", "automaton"), ("recipes", "automaton/adam"), ("gates", GATE)):
        row = named(found[kind], name)
        assert row["plugin"] == "example"
        assert row["summary"]


def test_plugins_finds_nothing_odd_about_it(installed: Path) -> None:
    row = named(answer("plugins", path=installed)["plugins"], "example")
    assert (row["distribution"], row["version"], row["status"], row["reason"]) == ("grokkit-example", "0.1.0", "ok", "")
    assert sorted(row["components"]) == [
        "architecture grokkit_example/local",
        "cassette root grokkit_example:cassettes",
        f"gate {GATE}",
        "recipe automaton/adam",
        "task automaton",
    ]


def test_doctor_finds_no_fault_with_it(installed: Path) -> None:
    assert all(check["ok"] for check in answer("doctor", path=installed)["checks"])


# -- its task --------------------------------------------------------------------------------------------------------


def test_its_task_is_trained_to_an_exact_certificate_within_five_seconds(installed: Path, library: Path) -> None:
    (run,) = answer("train", "automaton", "--set", "rule=30", path=installed, library=library)["runs"]
    assert (run["name"], run["version"], run["verdict"]) == ("automaton-adam", 1, "exact")
    assert run["seconds"] < 5
    assert 0 < run["grok_step"] < run["steps"] < 2_000


def test_a_certificate_does_not_claim_to_be_better_than_a_baseline_that_is_as_good() -> None:
    """As rule 0 met it, whose most frequent next state is the only one."""
    import torch

    from grokkit_core.certify.sampled import certificate_of
    from grokkit_core.certify.scores import Scores
    from grokkit_core.plugins import host

    errors = {"model": torch.ones(100), "baseline:constant": torch.ones(100)}
    scores = [Scores({}, 100, errors, "sha256:" + "0" * 64)]
    certificate = certificate_of(host().task("cyclotron"), scores, level="full", seed=0, dtype="float32")
    assert "better than every baseline in 1 of 1" not in certificate.statement


@pytest.mark.parametrize("seed", [None, 4], ids="seed {}".format)
def test_its_shipped_cassette_is_what_it_claims_to_be(installed: Path, seed: int | None) -> None:
    chosen = () if seed is None else ("--seed", seed)
    done = grokkit("verify", "rule-110", *chosen, "--json", path=installed)
    (result,) = json.loads(done.stdout)["results"]
    assert result["reasons"] == []
    assert (done.returncode, result["verdict"], result["agrees"]) == (0, "exact", True)


def test_a_rollout_of_its_shipped_cassette_follows_rule_110(installed: Path, tmp_path: Path) -> None:
    state = [0, 0, 0, 1, 0, 0, 0, 0]
    source = tmp_path / "state.json"
    source.write_text(json.dumps([state]))
    predicted = answer("run", "rule-110", "--input", source, "--steps", 5, path=installed)["outputs"]
    for step in predicted:
        state = [110 >> (4 * state[i - 1] + 2 * state[i] + state[(i + 1) % 8]) & 1 for i in range(8)]
        (row,) = step
        assert [round(value) for value in row] == state


# -- its gate --------------------------------------------------------------------------------------------------------


def test_its_gate_fuses_two_cyclotron_cassettes(fused: Any) -> None:
    assert (fused["gate"], fused["members"], fused["of"]) == (GATE, [SLOW, FAST], 5)


def test_its_weights_sum_to_one_in_every_context(fused: Any) -> None:
    assert [sum(row["weights"].values()) for row in fused["table"]] == pytest.approx([1.0] * 5, abs=1e-6)


def test_its_weights_follow_the_context_from_one_member_to_the_other(fused: Any) -> None:
    fitted = [row["weights"][SLOW] for row in fused["table"] if row["fitted"]]
    assert len(fitted) == 3
    assert all(before > after for before, after in pairwise(fitted))


def test_its_weights_are_inverse_to_the_errors_of_the_members(fused: Any) -> None:
    for row in (row for row in fused["table"] if row["fitted"]):
        odds = row["weights"][SLOW] / row["weights"][FAST]
        assert odds == pytest.approx(row["members"][FAST] / row["members"][SLOW], rel=0.25)


def test_its_weights_are_interpolated_between_the_fitted_contexts_and_constant_outside(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import torch

    monkeypatch.syspath_prepend(str(SOURCE))
    from grokkit_example.gates import InverseErrorModule

    gate = InverseErrorModule("omega", members=3, knots=2, power=1.0)
    gate.knots = torch.tensor([1.0, 2.0])
    gate.log_losses = torch.tensor([[0.0, 4.0], [1.0, 1.0], [3.0, 0.0]])
    found = gate.weights(torch.tensor([-9.0, 1.0, 1.25, 2.0, 9.0], dtype=torch.float64))
    wanted = torch.softmax(-torch.tensor([[0.0, 0.0, 1.0, 4.0, 4.0], [1.0] * 5, [3.0, 3.0, 2.25, 0.0, 0.0]]), 0)
    torch.testing.assert_close(found, wanted)


def test_its_gate_answers_to_the_last_part_of_its_name(installed: Path, shelf: Path) -> None:
    plan = answer("compose", SLOW, FAST, "--gate", "inverse-error", "--dry-run", path=installed, library=shelf)
    assert (plan["gate"], plan["variable"]) == (GATE, "omega")


def test_its_gate_refuses_members_without_a_context_variable(installed: Path) -> None:
    done = grokkit("compose", "rule-110", "rule-110", "--gate", GATE, "--dry-run", path=installed)
    assert done.returncode == 4
    assert "scalar context variable" in done.stderr


def test_the_fused_cassette_is_verified_where_the_package_is_installed(
    installed: Path, shelf: Path, fused: Any
) -> None:
    (result,) = answer("verify", "fused", "--level", "quick", path=installed, library=shelf)["results"]
    assert result["agrees"]


# -- without it: this process does not have it --------------------------------------------------------------------------


def test_without_the_package_the_fused_cassette_can_be_shown(cli: Cli, shelf: Path, fused: Any) -> None:
    manifest = cli("--library", shelf, "show", "fused", "--json").json
    assert manifest["digest"] == fused["digest"]
    assert "grokkit-example" in manifest["requires"]["plugins"]


@pytest.mark.usefixtures("fused")
def test_without_the_package_verify_refuses_the_fused_cassette_and_says_what_is_missing(cli: Cli, shelf: Path) -> None:
    outcome = cli("--library", shelf, "verify", "fused", "--json")
    assert (outcome.code, outcome.out) == (4, "")
    assert GATE in outcome.err
    assert "grokkit-example" in outcome.err


def test_without_the_package_verify_refuses_its_cassette_and_says_what_is_missing(cli: Cli) -> None:
    outcome = cli("--library", SOURCE / "grokkit_example" / "cassettes", "verify", "rule-110", "--json")
    assert (outcome.code, outcome.out) == (4, "")
    assert "grokkit_example/local" in outcome.err
    assert "grokkit-example" in outcome.err


def test_without_the_package_its_task_is_not_found(cli: Cli) -> None:
    outcome = cli("train", "automaton")
    assert (outcome.code, outcome.out) == (5, "")
    assert "no task is named 'automaton'" in outcome.err
