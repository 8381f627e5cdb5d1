"""`grokkit compose`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from grokkit_core import store
from grokkit_core.manifest import TaskRef

Cli = Callable[..., Any]
Refused = Callable[..., str]
Resave = Callable[..., Any]
Snapshot = Callable[..., Any]

KEYS = {"name", "version", "fusion", "gate", "members", "table", "wins", "of"}
ROW = {"where", "metric", "members", "fused", "baselines", "weights", "wins"}
PLAN = {"fusion", "gate", "variable", "options", "members", "digests", "inputs", "outputs", "context", "notes"}


# -- what it makes -----------------------------------------------------------------------------------------------------


def test_compose_has_the_documented_json_keys(cli: Cli, shelf: Path) -> None:
    made = cli("compose", "alpha", "beta", "--library", shelf, "--json")
    assert (made.code, made.err) == (0, "")
    assert set(made.json) >= KEYS
    assert all(set(row) >= ROW for row in made.json["table"])
    assert made.json["members"] == ["alpha", "beta"]
    assert made.json["of"] == len(made.json["table"])
    assert made.json["wins"] == sum(row["wins"] for row in made.json["table"])


def test_a_row_has_every_member_its_weight_and_every_baseline(cli: Cli, shelf: Path) -> None:
    row = cli("compose", "alpha", "beta", "--library", shelf, "--json").json["table"][0]
    assert set(row["members"]) == set(row["weights"]) == {"alpha", "beta"}
    assert sum(row["weights"].values()) == pytest.approx(1.0)
    assert set(row["baselines"]) == {"persistence", "euler", "linear", "mean"}


def test_the_table_names_members_weights_baselines_and_what_was_won(cli: Cli, shelf: Path) -> None:
    made = cli("compose", "alpha", "beta", "--library", shelf)
    assert (made.code, made.err) == (0, "")
    for word in ("alpha", "weight beta", "uniform fusion", "persistence", "wins ", " of 5", "saved as alpha-uniform@1"):
        assert word in made.out


def test_a_fusion_is_saved_and_agrees_with_its_certificate(cli: Cli, shelf: Path, fuse: Callable[..., str]) -> None:
    name = fuse(shelf, "spectral")
    assert name == "alpha-spectral"
    assert cli("verify", name, "--library", shelf).code == 0


def test_a_fusion_needs_its_members_no_longer(cli: Cli, shelf: Path, fuse: Callable[..., str], states: Path) -> None:
    name = fuse(shelf)
    before = cli("run", name, "--input", states, "--library", shelf, "--json").json["outputs"]
    for member in ("alpha", "beta"):
        cli("remove", member, "--library", shelf)
    assert cli("run", name, "--input", states, "--library", shelf, "--json").json["outputs"] == before


def test_a_fusion_can_be_a_member(cli: Cli, shelf: Path, fuse: Callable[..., str]) -> None:
    nested = cli("compose", fuse(shelf), "cyclotron-1node", "--library", shelf, "--json")
    assert nested.code == 0
    assert nested.json["members"] == ["alpha-uniform", "cyclotron-1node"]


def test_the_name_can_be_chosen(cli: Cli, shelf: Path) -> None:
    made = cli("compose", "alpha", "beta", "--name", "both", "--library", shelf, "--json").json
    assert (made["name"], made["version"]) == ("both", 1)


def test_the_seed_decides_the_figures(cli: Cli, shelf: Path) -> None:
    figures = [
        [
            row["fused"]
            for row in cli("compose", "alpha", "beta", "--seed", seed, "--library", shelf, "--json").json["table"]
        ]
        for seed in (0, 0, 1)
    ]
    assert figures[0] == figures[1] != figures[2]


def test_a_fusion_in_double_precision_says_so(cli: Cli, shelf: Path) -> None:
    made = cli("compose", "alpha", "beta", "--dtype", "float64", "--library", shelf, "--json")
    assert made.code == 0, made.err
    assert cli("show", made.json["name"], "--json", "--library", shelf).json["certificate"]["dtype"] == "float64"


def test_the_contexts_of_calibration_are_marked_in_the_table(cli: Cli, shelf: Path) -> None:
    words = ("compose", "alpha", "beta", "--gate", "spectral", "--set", "steps=3", "--calibrate", "omega=.9,2.2")
    table = cli(*words, "--library", shelf, "--json").json["table"]
    assert [row["where"]["omega"] for row in table if row["fitted"]] == [0.9, 2.2]


def test_a_gate_that_is_not_fitted_marks_no_context(cli: Cli, shelf: Path) -> None:
    table = cli("compose", "alpha", "beta", "--gate", "uniform", "--library", shelf, "--json").json["table"]
    assert not any(row["fitted"] for row in table)


def test_settings_reach_the_gate(cli: Cli, shelf: Path) -> None:
    words = ("compose", "alpha", "beta", "--gate", "spectral", "--set", "width=5", "--set", "steps=2")
    name = cli(*words, "--library", shelf, "--json").json["name"]
    gate = cli("show", name, "--json", "--library", shelf).json["provenance"]["gate"]
    assert (gate["options"]["width"], gate["options"]["steps"]) == (5, 2)


# -- repeats and labels ------------------------------------------------------------------------------------------------


def test_the_same_member_twice_is_allowed_and_said_on_stderr(cli: Cli, shelf: Path) -> None:
    made = cli("compose", "alpha", "alpha", "--library", shelf, "--json")
    assert made.code == 0
    assert made.json["members"] == ["alpha", "alpha#2"]
    assert len(made.err.splitlines()) == 1
    assert "alpha@1" in made.err
    assert "more than once" in made.err


def test_versions_of_one_name_are_told_apart(cli: Cli, shelf: Path, resave: Resave) -> None:
    resave(shelf, "alpha", summary="another")
    plan = cli("compose", "alpha@1", "alpha@2", "alpha@2", "--dry-run", "--library", shelf, "--json").json
    assert plan["members"] == ["alpha@1", "alpha@2", "alpha@2#2"]


# -- the plan ----------------------------------------------------------------------------------------------------------


def test_a_dry_run_prints_the_plan_and_writes_nothing(cli: Cli, shelf: Path, snapshot: Snapshot) -> None:
    before = snapshot(shelf)
    shown = cli("compose", "alpha", "beta", "--gate", "spectral", "--dry-run", "--library", shelf)
    assert (shown.code, shown.err) == (0, "")
    for word in ("spectral, reads omega", "alpha@1", "beta@1", "omega [rad/s] in [0, 4], required", "dry run"):
        assert word in shown.out
    assert snapshot(shelf) == before


def test_a_plan_has_the_documented_json_keys(cli: Cli, trained: Path) -> None:
    plan = cli("compose", "alpha", "beta", "--dry-run", "--library", trained, "--json").json
    assert set(plan) >= PLAN
    assert (plan["fusion"], plan["gate"], plan["variable"]) == ("ensemble", "uniform", None)


# -- members that do not fit -------------------------------------------------------------------------------------------


def test_one_member_is_too_few(refused: Refused, trained: Path) -> None:
    refused(2, "compose", "alpha", "--library", trained, says=("1 cassette", "expected two or more"))


@pytest.mark.parametrize("how", [[], ["--dry-run"]])
def test_units_that_differ_are_named(
    refused: Refused, shelf: Path, resave: Resave, snapshot: Snapshot, how: list[str]
) -> None:
    outputs = store.read_manifest(shelf / "alpha" / "1").outputs
    other = tuple(type(spec)(spec.name, spec.axes, spec.dtypes, "m", spec.domain) for spec in outputs)
    resave(shelf, "alpha", name="metric", outputs=other)
    before = snapshot(shelf)
    refused(
        4, "compose", "beta", "metric", *how, "--library", shelf,
        says=("signatures of beta and metric differ", "unit of output 'state' is 1 against m", "expected equal ones"),
    )  # fmt: skip
    assert snapshot(shelf) == before


def test_shapes_that_differ_are_named(refused: Refused, shelf: Path, resave: Resave) -> None:
    inputs = store.read_manifest(shelf / "alpha" / "1").inputs
    other = tuple(type(spec)(spec.name, ("batch", 9, 4), spec.dtypes, spec.unit, spec.domain) for spec in inputs)
    resave(shelf, "alpha", name="short", inputs=other)
    refused(
        4, "compose", "alpha", "short", "--library", shelf, says=("alpha and short", "axis 1 of input 'states' is 15 against 9")
    )  # fmt: skip


def test_tasks_that_differ_are_named(refused: Refused, shelf: Path, resave: Resave) -> None:
    resave(shelf, "alpha", name="swing", task=TaskRef("pendulum", {}))
    refused(
        4, "compose", "alpha", "swing", "--library", shelf,
        says=("alpha computes task cyclotron", "swing computes pendulum", "expected members of one task"),
    )  # fmt: skip


def test_laws_that_differ_are_named(refused: Refused, shelf: Path, resave: Resave) -> None:
    resave(shelf, "alpha", name="slow", task=TaskRef("cyclotron", {"dt": 0.1}))
    refused(
        4, "compose", "alpha", "slow", "--library", shelf,
        says=("alpha has dt = 0.05", "slow has 0.1", "expected the same constants"),
    )  # fmt: skip


def test_a_gate_without_its_context_variable_is_refused(
    refused: Refused, shelf: Path, resave: Resave, snapshot: Snapshot
) -> None:
    resave(shelf, "alpha", name="blind", context=())
    before = snapshot(shelf)
    refused(
        4, "compose", "beta", "blind", "--gate", "spectral", "--library", shelf,
        says=("gate spectral reads", "context variable", "blind has none", "grokkit tasks"),
    )  # fmt: skip
    assert snapshot(shelf) == before


def test_a_gate_whose_context_variable_has_two_meanings_is_refused(
    refused: Refused, shelf: Path, resave: Resave
) -> None:
    (omega,) = store.read_manifest(shelf / "alpha" / "1").context
    resave(shelf, "alpha", name="hertz", context=(type(omega)("omega", "Hz", omega.domain),))
    refused(
        4, "compose", "beta", "hertz", "--gate", "spectral", "--library", shelf,
        says=("gate spectral", "different units or domains", "grokkit tasks"),
    )  # fmt: skip


def test_a_cassette_whose_plugin_is_missing_is_not_composed(refused: Refused, trained: Path) -> None:
    refused(4, "compose", "alpha", "beta", "--no-plugins", "--library", trained, says=("alpha@1", "needs grokkit"))


def test_an_altered_member_is_not_composed(refused: Refused, shelf: Path, snapshot: Snapshot) -> None:
    path = shelf / "beta" / "1" / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    before = snapshot(shelf)
    refused(3, "compose", "alpha", "beta", "--library", shelf, says=("beta@1", "altered"))
    assert snapshot(shelf) == before


# -- orders that do not make sense -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["alpha", "bta"], 5, ["'bta'", "did you mean 'beta'?"]),
        (["alpha", "beta@9"], 5, ["'beta'", "version 9"]),
        (["alpha", "Beta!"], 2, ["'Beta!'", "expected"]),
        (["alpha", "beta", "--gate", "spectrl"], 5, ["'spectrl'", "did you mean 'spectral'?"]),
        (["alpha", "beta", "--gate", "foo/bar"], 4, ["foo/bar", "pip install foo"]),
        (["alpha", "beta", "--fusion", "ensembl"], 5, ["'ensembl'", "did you mean 'ensemble'?"]),
        (["alpha", "beta", "--fusion", "foo/bar"], 4, ["foo/bar", "pip install foo"]),
        (["alpha", "beta", "--set", "width=3"], 2, ["gate uniform", "'width'"]),
        (["alpha", "beta", "--gate", "spectral", "--set", "widht=3"], 2, ["'widht'", "did you mean 'width'?"]),
        (["alpha", "beta", "--gate", "spectral", "--set", "width=0"], 2, ["width=0", "expected an integer from 1"]),
        (["alpha", "beta", "--gate", "spectral", "--set", "width"], 2, ["'width'", "expected name=value"]),
        (["alpha", "beta", "--gate", "spectral", "--calibrate", "omega"], 2, ["'omega'", "expected name=number"]),
        (["alpha", "beta", "--gate", "spectral", "--calibrate", "omega=x"], 2, ["'omega=x'", "expected name=number"]),
        (["alpha", "beta", "--gate", "spectral", "--calibrate", "omega="], 2, ["'omega='", "expected name=number"]),
        (["alpha", "beta", "--gate", "spectral", "--calibrate", "mass=1"], 2, ["mass", "expected", "omega"]),
        (["alpha", "beta", "--gate", "spectral", "--calibrate", "omega=9"], 4, ["omega = 9", "expected in [0, 4]"]),
        (["alpha", "beta", "--gate", "spectral", "--calibrate", "omega=nan"], 4, ["omega = nan", "expected"]),
        (["alpha", "beta", "--gate", "spectral", "--calibrate", "omega=0"], 4, ["omega = 0", "from 0.8 to 2.5"]),
        (["alpha", "beta", "--name", "No Name"], 2, ["'No Name'", "expected 1 to 64"]),
        (["alpha", "beta", "--seed", "-1"], 2, ["--seed", "-1"]),
        (["alpha", "beta", "--dtype", "float16"], 4, ["'float16'", "float32 or float64"]),
    ],
)
def test_a_bad_order_is_refused_and_nothing_is_written(
    refused: Refused, shelf: Path, snapshot: Snapshot, words: list[str], code: int, says: list[str]
) -> None:
    before = snapshot(shelf)
    refused(code, "compose", *words, "--library", shelf, says=says)
    assert snapshot(shelf) == before


def test_a_fusion_for_several_tasks_lists_the_fusions_that_there_are(refused: Refused, trained: Path) -> None:
    refused(5, "compose", "alpha", "beta", "--fusion", "blend", "--library", trained, says=("'blend'", "ensemble"))


# -- storage -----------------------------------------------------------------------------------------------------------


def test_a_full_disk_leaves_the_library_as_it_was(
    refused: Refused, shelf: Path, snapshot: Snapshot, full_disk: None
) -> None:
    before = snapshot(shelf)
    refused(6, "compose", "alpha", "beta", "--library", shelf, says=("ENOSPC", "free some space"))
    assert snapshot(shelf) == before


@pytest.mark.parametrize("place", ["/proc/grokkit", "/dev/null/library"])
def test_a_library_that_cannot_be_written_is_refused(refused: Refused, trained: Path, place: str) -> None:
    members = [trained / name / "1" for name in ("alpha", "beta")]
    refused(6, "compose", *members, "--library", place, says=(place, "--library"))


def test_a_library_without_permission_is_refused_before_the_work(
    refused: Refused, shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    def access(path: object, mode: int, **named: Any) -> bool:
        return not mode & os.W_OK

    def work(*arguments: object, **named: Any) -> None:
        raise AssertionError("composed for nothing")

    monkeypatch.setattr(os, "access", access)
    monkeypatch.setattr("grokkit_core.fusion.compose._fuse", work)
    refused(6, "compose", "alpha", "beta", "--library", shelf, says=("no permission", "--library PATH"))


@pytest.mark.parametrize(("contexts", "code"), [("omega=9", 4), ("omega=0.5", 4), ("mass=1", 2)])
def test_a_dry_run_refuses_calibration_contexts_that_the_work_would_refuse(
    refused: Refused, shelf: Path, contexts: str, code: int
) -> None:
    words = ("compose", "alpha", "beta", "--gate", "interference", "--calibrate", contexts, "--library", shelf)
    name = contexts.partition("=")[0]
    assert refused(code, *words, "--dry-run", says=(name,)) == refused(code, *words, says=(name,))
