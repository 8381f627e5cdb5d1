"""`grokkit verify`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

Cli = Callable[..., Any]
Refused = Callable[..., str]
Forge = Callable[..., None]
KEYS = {"name", "version", "verdict", "bounds", "metrics", "baselines", "agrees"}


def test_verify_has_the_documented_json_keys(cli: Cli, trained: Path) -> None:
    done = cli("verify", "alpha", "beta", "--library", trained, "--json")
    assert (done.code, done.err) == (0, "")
    assert list(done.json) == ["results"]
    assert [row["name"] for row in done.json["results"]] == ["alpha", "beta"]
    assert all(set(row) >= KEYS for row in done.json["results"])
    assert all(row["agrees"] is True for row in done.json["results"])


@pytest.mark.parametrize("name", ["cyclotron-1node", "cyclotron-8node"])
def test_what_ships_agrees_with_its_certificate(cli: Cli, name: str) -> None:
    done = cli("verify", name)
    assert (done.code, done.err) == (0, "")
    assert "yes" in done.out
    assert name + "@1" in done.out


def test_the_same_seed_and_level_give_the_recorded_figures(cli: Cli, trained: Path) -> None:
    recorded = cli("show", "alpha", "--library", trained, "--json").json["certificate"]
    (row,) = cli("verify", "alpha", "--library", trained, "--json").json["results"]
    assert row["metrics"] == recorded["metrics"]
    assert row["baselines"] == recorded["baselines"]


def test_another_seed_and_level_are_said_and_agree_too(cli: Cli, trained: Path) -> None:
    (row,) = cli("verify", "alpha", "--level", "quick", "--seed", "9", "--library", trained, "--json").json["results"]
    assert (row["level"], row["seed"], row["agrees"]) == ("quick", 9, True)
    assert row["metrics"][0]["n"] == 100


def test_the_table_says_in_which_precision_it_was_measured(cli: Cli, trained: Path) -> None:
    assert "float64" in cli("verify", "alpha", "--dtype", "float64", "--library", trained).out


def test_a_figure_that_was_improved_does_not_agree(cli: Cli, shelf: Path, forge: Forge) -> None:
    forge(shelf / "alpha" / "1", lambda body: body["certificate"]["metrics"][0].update(value=1e-6, stderr=1e-9))
    done = cli("verify", "alpha", "beta", "--library", shelf)
    assert (done.code, done.err) == (1, "")
    for word in ("NO", "yes", "against the recorded 1e-06"):
        assert word in done.out
    (row, _) = cli("verify", "alpha", "beta", "--library", shelf, "--json").json["results"]
    assert row["agrees"] is False
    assert row["reasons"]


def test_a_baseline_that_was_worsened_does_not_agree(cli: Cli, shelf: Path, forge: Forge) -> None:
    forge(shelf / "alpha" / "1", lambda body: body["certificate"]["baselines"][0].update(value=9.0))
    assert cli("verify", "alpha", "--library", shelf).code == 1


def test_a_stronger_verdict_than_the_recomputed_one_does_not_agree(cli: Cli, shelf: Path, forge: Forge) -> None:
    forge(shelf / "alpha" / "1", lambda body: body["certificate"].update(verdict="exact"))
    done = cli("verify", "alpha", "--library", shelf)
    assert done.code == 1
    assert "weaker than the recorded exact" in done.out


def test_altered_weights_are_an_integrity_fault(refused: Refused, shelf: Path) -> None:
    path = shelf / "alpha" / "1" / "weights.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    refused(3, "verify", "alpha", "--library", shelf, says=("alpha@1", "altered", "restore it"))


def test_missing_weights_are_an_integrity_fault(refused: Refused, shelf: Path) -> None:
    (shelf / "alpha" / "1" / "weights.safetensors").unlink()
    refused(3, "verify", "alpha", "--library", shelf, says=("weights.safetensors", "missing"))


def test_a_network_other_than_the_manifest_says_is_an_integrity_fault(
    refused: Refused, shelf: Path, forge: Forge
) -> None:
    forge(shelf / "alpha" / "1", lambda body: body["architecture"]["config"].update(angular=3))
    refused(3, "verify", "alpha", "--library", shelf, says=("tensor", "expected"))


def test_a_missing_plugin_is_named(refused: Refused, trained: Path) -> None:
    refused(4, "verify", "alpha", "--no-plugins", "--library", trained, says=("alpha@1", "needs grokkit"))


def test_an_unknown_name_is_not_found(refused: Refused, trained: Path) -> None:
    refused(5, "verify", "alpha", "bta", "--library", trained, says=("'bta'", "did you mean 'beta'?"))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_network_is_measured_in_the_dtype_asked_for(cli: Cli, trained: Path, dtype: str) -> None:
    (row,) = cli("verify", "alpha", "--dtype", dtype, "--library", trained, "--json").json["results"]
    assert (row["dtype"], row["agrees"]) == (dtype, True)


@pytest.mark.parametrize("gate", ["uniform", "spectral"])
def test_a_fusion_is_measured_in_double_precision(cli: Cli, shelf: Path, fuse: Callable[..., str], gate: str) -> None:
    done = cli("verify", fuse(shelf, gate), "--dtype", "float64", "--library", shelf, "--json")
    assert done.code == 0, done.err
    assert done.json["results"][0]["dtype"] == "float64"


@pytest.mark.parametrize("dtype", ["float16", "bool", "double"])
def test_a_dtype_that_the_signature_does_not_list_is_refused(refused: Refused, dtype: str) -> None:
    refused(4, "verify", "cyclotron-1node", "--dtype", dtype, says=(f"'{dtype}'", "float32 or float64"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_without_a_gpu_is_refused(refused: Refused) -> None:
    refused(2, "verify", "cyclotron-1node", "--device", "cuda", says=("cuda", "--device cpu or auto"))


def test_verify_writes_nothing(cli: Cli, shelf: Path, snapshot: Callable[..., Any]) -> None:
    before = snapshot(shelf)
    cli("verify", "alpha", "--library", shelf)
    assert snapshot(shelf) == before
