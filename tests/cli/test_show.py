"""`grokkit show`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from grokkit_core.manifest import Baseline, Certificate, Metric

Cli = Callable[..., Any]
Refused = Callable[..., str]


def test_a_card_says_what_is_computed_how_well_and_where_it_came_from(cli: Cli) -> None:
    card = cli("show", "cyclotron-1node")
    made = cli("show", "cyclotron-1node", "--json").json["provenance"]
    assert (card.code, card.err) == (0, "")
    for word in ("cyclotron-1node@1", "omega [rad/s] in [0, 4]", "[batch, 15, 4]", "seed 1", "sha256:"):
        assert word in card.out
    assert f"{made['steps']:,} steps" in card.out
    assert made["created"] in card.out


def test_a_card_shows_every_baseline_beside_the_cassette(cli: Cli) -> None:
    card = cli("show", "cyclotron-1node").out
    for baseline in ("persistence", "euler", "linear", "mean"):
        assert baseline in card
    assert "WORSE than" in card
    assert "this cassette" in card


def test_a_card_of_a_fusion_names_its_parents_and_gate(cli: Cli, shelf: Path, fuse: Callable[..., str]) -> None:
    card = cli("show", fuse(shelf, "spectral"), "--library", shelf).out
    assert "alpha@1" in card
    assert "beta@1" in card
    assert "gate spectral" in card


def certified(metrics: Sequence[tuple[str, float, dict[str, Any]]], baselines: Sequence[tuple[str, str, float]]) -> Any:
    """A certificate with these metrics (name, value, where) and baselines (name, metric, value)."""
    return Certificate(
        "estimated",
        "measured",
        "samples",
        "sampled",
        (),
        (),
        tuple(Metric(name, value, "1", 0.0, (value, value), 0.95, 10, where) for name, value, where in metrics),
        tuple(Baseline(name, metric, value, {}) for name, metric, value in baselines),
        seed=0,
        dtype="float32",
        level="quick",
    )


@pytest.mark.parametrize(
    ("metrics", "baselines", "lines"),
    [
        (
            [("mse", 0.25, {"scale": 1.0}), ("mse", 0.5, {"scale": 2.0}), ("multiplications", 7.0, {})],
            [("standard algorithm", "multiplications", 8.0)],
            ["multiplications 7.00 [1] (baseline: standard algorithm 8.00)", "mse by scale, n = 10"],
        ),
        (
            [("accuracy", 0.75, {}), ("margin", 3.5, {})],
            [("constant", "accuracy", 0.5), ("other", "margin", 1.5)],
            ["margin 3.50 [1] (baseline: other 1.50)", "accuracy, n = 10"],
        ),
        ([("mse", 0.25, {}), ("delta", 0.125, {})], [], ["mse, n = 10"]),
    ],
    ids=["some with a context", "all with a baseline", "none with a baseline"],
)
def test_metrics_of_several_names_each_stand_beside_their_own_baselines(
    cli: Cli, shelf: Path, resave: Callable[..., Any], metrics: Any, baselines: Any, lines: list[str]
) -> None:
    resave(shelf, "alpha", name="several", certificate=certified(metrics, baselines))
    shown = cli("show", "several", "--library", shelf)
    assert shown.code == 0, shown.err
    assert [line for line in lines if line not in shown.out] == []
    for name, _, _ in metrics:
        assert name in shown.out
    tabled = shown.out.partition(", n = 10")[2]
    for name, metric, _ in baselines:
        assert (name in tabled) == (metric == metrics[0][0])


def test_show_json_is_the_manifest(cli: Cli, trained: Path) -> None:
    shown = cli("show", "alpha", "--json", "--library", trained)
    assert (shown.code, shown.err) == (0, "")
    assert shown.json == json.loads((trained / "alpha" / "1" / "manifest.json").read_text())


@pytest.mark.parametrize("pin", ["", "@1", "@{digest}"])
def test_a_cassette_is_found_by_name_version_and_digest(cli: Cli, trained: Path, pin: str) -> None:
    digest = cli("show", "alpha", "--json", "--library", trained).json["digest"]
    assert cli("show", "alpha" + pin.format(digest=digest), "--json", "--library", trained).json["digest"] == digest


@pytest.mark.parametrize("inside", [".", "manifest.json"])
def test_a_cassette_is_found_by_path(cli: Cli, trained: Path, inside: str) -> None:
    assert cli("show", trained / "beta" / "1" / inside, "--json").json["name"] == "beta"


def test_the_highest_version_is_shown_where_none_is_given(cli: Cli, shelf: Path, resave: Callable[..., Any]) -> None:
    for _ in range(10):
        resave(shelf, "alpha")
    assert cli("show", "alpha", "--json", "--library", shelf).json["version"] == 11


def test_an_unknown_name_suggests_the_nearest(refused: Refused, trained: Path) -> None:
    refused(5, "show", "alhpa", "--library", trained, says=("'alhpa'", "did you mean 'alpha'?"))


def test_an_unknown_version_lists_those_that_exist(refused: Refused, trained: Path) -> None:
    refused(5, "show", "alpha@7", "--library", trained, says=("'alpha'", "7", "expected one of 1"))


def test_an_unknown_digest_says_where_digests_are_printed(refused: Refused, trained: Path) -> None:
    pin = "sha256:" + "0" * 64
    refused(5, "show", f"alpha@{pin}", "--library", trained, says=(pin, "grokkit show alpha"))


@pytest.mark.parametrize(
    "text", ["", "Alpha", "a b", "-", "al_pha", "nul", "a" * 65, "a..b", "alpha@", "alpha@0", "alpha@x"]
)
def test_a_reference_that_the_format_does_not_allow_is_a_usage_error(refused: Refused, text: str) -> None:
    refused(2, "show", "--", text, says=(text[:60], "expected"))


def test_a_path_without_a_cassette_is_not_found(refused: Refused, tmp_path: Path) -> None:
    refused(5, "show", tmp_path / "nothing", says=("nothing",))


def test_a_folder_that_is_no_cassette_is_refused(refused: Refused, tmp_path: Path) -> None:
    refused(3, "show", tmp_path, says=("expected",))


def test_an_altered_manifest_is_refused(refused: Refused, shelf: Path) -> None:
    path = shelf / "alpha" / "1" / "manifest.json"
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))
    refused(3, "show", "alpha", "--library", shelf, says=("altered", "restore it"))


def test_a_cassette_in_the_folder_of_another_name_is_refused(refused: Refused, shelf: Path) -> None:
    (shelf / "alpha").rename(shelf / "gamma")
    refused(3, "show", "gamma", "--library", shelf, says=("gamma", "alpha@1", "grokkit import"))


def test_a_linked_manifest_is_refused(refused: Refused, shelf: Path) -> None:
    path = shelf / "alpha" / "1" / "manifest.json"
    path.rename(shelf / "elsewhere.json")
    path.symlink_to(shelf / "elsewhere.json")
    refused(3, "show", "alpha", "--library", shelf, says=("manifest.json", "not a link"))


def test_a_newer_schema_asks_for_an_upgrade(refused: Refused, shelf: Path, forge: Callable[..., None]) -> None:
    forge(shelf / "alpha" / "1", lambda body: body.update(schema=2))
    refused(4, "show", "alpha", "--library", shelf, says=("schema 2", "upgrade grokkit"))


def test_a_card_needs_no_plugin(cli: Cli, trained: Path) -> None:
    assert cli("show", "alpha", "--no-plugins", "--library", trained).code == 0
