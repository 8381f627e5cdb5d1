"""Recipes of the hpu plugin: they arrive, each on its own law, and go on from a checkpoint bit for bit."""

from __future__ import annotations

import functools
import itertools
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from grokkit_hpu.law import SAMPLES
from grokkit_hpu.published import SpectralNetwork, heat_fields
from torch import Tensor

import grokkit_core as gk
from grokkit_core.cassette import Cassette
from grokkit_core.errors import UsageError
from grokkit_core.plugins import host
from grokkit_core.specs import settle
from grokkit_core.training.checkpoint import RunFolder, circumstances
from grokkit_core.training.trainer import Interrupted, Outcome, Trainer

VARIANT = {"split-step": "potential", "published": "published"}


@pytest.fixture(autouse=True)
def uncertified(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks of these tests are measured by the tests; the matrices of a certificate take seconds."""
    monkeypatch.setattr("grokkit_hpu.certify._potential_bounds", lambda module, dt, band: {})
    for level in ("full", "quick"):
        monkeypatch.setitem(SAMPLES, level, 2)


def trained(library: Path, recipe: str, **options: Any) -> Cassette:
    (made,) = gk.train("hpu", recipe=recipe, library=library, **options)
    return made.cassette


def worst(cassette: Cassette, *, seed: int, grid: int, **where: Any) -> float:
    task = cassette.task
    batch = task.sample(4, generator=torch.Generator().manual_seed(seed), grid=grid, **where)
    return float(task.error(cassette.predict(batch.to(cassette.dtype).inputs, {}), batch.targets).max())


# -- what they reach ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("recipe", "dtype", "limit"),
    [
        ("phase-table", "float64", 1e-13),
        ("phase-table", "float32", 1e-6),
        ("dispersion", "float64", 1e-13),
        ("dispersion", "float32", 1e-6),
    ],
)
def test_the_free_law_is_learned_on_a_coarse_grid_and_holds_on_a_fine_one(
    recipe: str, dtype: str, limit: float, library: Path
) -> None:
    made = trained(library, recipe, dtype=dtype)
    assert {str(tensor.dtype) for tensor in made.tensors.values()} == {f"torch.{dtype}"}
    cassette = made.to("cpu", dtype)
    assert cassette.dtype == (torch.complex64 if dtype == "float32" else torch.complex128)
    assert worst(cassette, seed=999, grid=64) <= limit
    assert made.manifest.certificate.verdict == "bounded"


def test_the_dispersion_relation_holds_for_modes_that_it_never_saw(library: Path) -> None:
    made = trained(library, "dispersion")
    assert made.tensors["coefficients"].tolist() == pytest.approx([0, -0.32, 0], abs=1e-13)
    assert worst(made, seed=5, grid=64, band=15) <= 1e-13


def test_the_potential_is_learned_through_the_integrator(library: Path) -> None:
    made = trained(library, "split-step", name="learned")
    assert made.manifest.task.parameters == {"variant": "potential", "dt": 0.05}
    assert worst(made, seed=99, grid=64) <= 2e-6
    stored = torch.view_as_complex(made.tensors["potential"])
    assert torch.equal(stored, stored.flip(0, 1).conj())


def test_fewer_substeps_are_worse_by_what_the_integrator_costs(library: Path) -> None:
    made = trained(library, "split-step", settings={"order": 2, "substeps": 1})
    assert 5e-4 < worst(made, seed=99, grid=64) < 3e-3


def test_adam_on_batches_comes_close(library: Path) -> None:
    made = trained(library, "adam", settings={"steps": 300})
    assert worst(made, seed=999, grid=64) < 1e-4


def test_a_small_neural_operator_learns_something_on_the_way_to_nothing_like_it(library: Path) -> None:
    made = trained(library, "fno", settings={"steps": 20, "fields": 64})
    assert 0.05 < worst(made, seed=999, grid=16) < 1
    assert made.manifest.weights.parameters == 261_058
    assert "WORSE than" in made.manifest.certificate.statement


# -- laws --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", ["phase-table", "dispersion", "split-step", "adam", "published"])
def test_a_recipe_refuses_a_law_that_its_network_cannot_follow(
    recipe: str, library: Path, cli: Callable[..., Any]
) -> None:
    other = "potential" if VARIANT.get(recipe, "free") != "potential" else "free"
    found = cli("train", "hpu", "--recipe", recipe, "--set", f"variant={other}", "--library", library)
    assert (found.code, found.out) == (2, "")
    assert f"variant={other}" in found.err
    assert found.err.count("\n") == 1


def test_the_generic_network_takes_either_law(library: Path) -> None:
    for variant in ("free", "potential"):
        made = trained(library, "fno", settings={"steps": 1, "fields": 16, "grid": 32, "variant": variant})
        assert made.manifest.task.parameters["variant"] == variant


def test_another_time_step_is_learned_as_well(library: Path) -> None:
    made = trained(library, "phase-table", settings={"dt": -0.02})
    assert made.manifest.architecture.config["dt"] == made.task.parameters["dt"] == -0.02
    assert worst(made, seed=999, grid=32) < 1e-13


def test_a_grid_too_coarse_for_its_band_is_refused_before_training(library: Path) -> None:
    with pytest.raises(UsageError, match="at least 11, 12 if even"):
        trained(library, "phase-table", settings={"grid": 10})


# -- resumed trainings -------------------------------------------------------------------------------------------------

SHORT: Mapping[str, Mapping[str, Any]] = {
    "phase-table": {"iterations": 35, "fields": 16},
    "split-step": {"iterations": 30, "fields": 4},
    "adam": {"steps": 12},
    "fno": {"steps": 3, "fields": 16},
    "published": {"epochs": 2, "crystallise": 2},
}


def trainer(recipe: str, folder: Path, interrupted: Callable[[], bool] = lambda: False) -> Trainer:
    found = host().recipe(f"hpu/{recipe}")
    task = host().task("hpu", variant=VARIANT.get(recipe, "free"))
    settled = settle(found.spec.parameters, SHORT[recipe], "test")
    dtype = torch.float32 if recipe in ("published", "fno") else torch.float64
    kind: dict[str, Any] = {"dtype": dtype, "device": torch.device("cpu")}
    return Trainer(
        found.start(task, settled, (0, 1), **kind),
        found,
        task,
        settled,
        (0, 1),
        **kind,
        folder=RunFolder(folder),
        about={
            "task": "hpu",
            "recipe": f"hpu/{recipe}",
            "settings": settled,
            "parameters": task.parameters,
            "seeds": [0, 1],
            "name": "test",
            "circumstances": circumstances(**kind),
        },
        emit=lambda event: None,
        interrupted=interrupted,
    )


@functools.cache
def whole(recipe: str) -> list[Outcome]:
    """What a training that nobody interrupted leaves."""
    with tempfile.TemporaryDirectory() as folder:
        return list(trainer(recipe, Path(folder)).fit())


def same(found: list[Outcome], expected: list[Outcome]) -> bool:
    pairs = list(zip(found, expected, strict=True))
    states = [(one.module.state_dict(), other.module.state_dict()) for one, other in pairs]
    return all(one.curve == other.curve for one, other in pairs) and all(
        torch.equal(tensor, other[name]) for one, other in states for name, tensor in one.items()
    )


@pytest.mark.parametrize(
    ("recipe", "step"),
    [(name, step) for name in SHORT for step in (1, 2)] + [("published", 3)],
)
def test_a_resumed_training_equals_one_that_was_not_interrupted(recipe: str, step: int, tmp_path: Path) -> None:
    count = itertools.count(1)
    with pytest.raises(Interrupted):
        trainer(recipe, tmp_path / "run", lambda: next(count) == step).fit()
    resumed = trainer(recipe, tmp_path / "other")
    resumed.restore(RunFolder(tmp_path / "run").load())
    assert same(list(resumed.fit()), whole(recipe))


def test_a_resumed_training_that_lost_the_memory_of_its_optimizer_does_not(tmp_path: Path) -> None:
    count = itertools.count(1)
    with pytest.raises(Interrupted):
        trainer("split-step", tmp_path / "run", lambda: next(count) == 1).fit()
    kept = RunFolder(tmp_path / "run").load()
    memory = {name: t for name, t in kept.tensors.items() if "memory.old_dirs" in name}
    assert memory
    for tensor in memory.values():
        tensor.mul_(0.5)
    resumed = trainer("split-step", tmp_path / "other")
    resumed.restore(kept)
    assert not same(list(resumed.fit()), whole("split-step"))


# -- the published system ----------------------------------------------------------------------------------------------


def test_the_published_network_has_its_589_921_parameters() -> None:
    assert sum(parameter.numel() for parameter in SpectralNetwork(32).parameters()) == 589_921


def test_the_published_mse_of_the_zero_function_is_one_over_256() -> None:
    batch = heat_fields(200, 0.01, torch.Generator().manual_seed(42))
    squares = batch.targets.square().mean((1, 2))
    assert squares.tolist() == pytest.approx([1 / 256] * 200)
    assert float((squares < 0.05).double().mean()) == 1.0


def test_the_published_accuracy_admits_almost_anything(library: Path) -> None:
    """Even an untrained network is "right" on every field, and the identity is far better than the trained state."""
    made = trained(library, "published", settings={"epochs": 1, "crystallise": 1})
    certificate = made.manifest.certificate
    figures = {metric.name: metric.value for metric in certificate.metrics if metric.name.startswith("published")}
    assert figures["published_accuracy"] == 1.0
    rivals = {b.name: b.value for b in certificate.baselines if b.metric == "published_accuracy"}
    assert rivals == dict.fromkeys(("zero", "identity", "untrained"), 1.0)
    mse = {b.name: b.value for b in certificate.baselines if b.metric == "published_mse"}
    assert mse["zero"] == pytest.approx(1 / 256)
    assert mse["identity"] < 1e-4
    assert "WORSE than" in certificate.statement and "identity (4 of 4)" in certificate.statement
    assert certificate.verdict == "estimated"


def test_the_published_law_is_no_hamiltonian_flow() -> None:
    """It keeps the norm only because it is scaled back to it, and moves fields towards the lowest modes."""
    task = host().task("hpu", variant="published")
    field: Tensor = heat_fields(4, 0.01, torch.Generator().manual_seed(0)).inputs  # type: ignore[assignment]
    moved = task.oracle(field, {})
    assert torch.allclose(moved.square().sum((1, 2)), field.square().sum((1, 2)))
    both = task.oracle(field[:1] + field[1:2], {}) - moved[:1] - moved[1:2]
    assert float(both.abs().max()) > 1e-6
