"""The wave law: the published figures of its baselines, its energy, its samplers, and what it refuses."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from grokkit_wave.law import Wave, padded
from torch import Tensor

from grokkit_core.errors import Incompatible, UsageError
from grokkit_core.plugins import host
from grokkit_core.streams import stream
from grokkit_core.task import tensors_of

BOUNDARIES = ("dirichlet", "periodic")
LAM2 = 0.0961


def wave(**parameters: Any) -> Wave:
    found = host().task("wave", **parameters)
    assert isinstance(found, Wave)
    return found


def leapfrog(u: np.ndarray, v: np.ndarray, lam2: float, boundary: str) -> np.ndarray:
    """The law point by point, written apart from the code under test."""
    new = np.zeros_like(u)
    for i in range(len(u)):
        left = u[i - 1] if i or boundary == "periodic" else 0.0
        right = u[(i + 1) % len(u)] if i + 1 < len(u) or boundary == "periodic" else 0.0
        new[i] = 2 * u[i] - v[i] + lam2 * (right - 2 * u[i] + left)
    return new


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("grid", [1, 2, 3, 30])
@pytest.mark.parametrize("field", ["random", "smooth"])
def test_targets_are_what_a_loop_over_the_points_gives(boundary: str, grid: int, field: Any) -> None:
    batch = wave(boundary=boundary).sample(4, generator=stream(0), grid=grid, lam2=0.37, field=field)
    for (u, v), target in zip(tensors_of(batch.inputs)[0].numpy(), batch.targets.numpy(), strict=True):
        assert np.abs(leapfrog(u, v, 0.37, boundary) - target).max() < 1e-14


def test_random_fields_have_the_mean_square_of_independent_normals() -> None:
    expected = (2 - 2 * LAM2) ** 2 + 1 + 2 * LAM2**2  # at both ends less by lam2^2; 4.33 was measured on fewer fields
    assert abs(float(wave().sample(20_000, generator=stream(0)).targets.square().mean()) - expected) < 0.03


@pytest.mark.parametrize(
    ("points", "persistence", "extrapolation"), [(32, 4.3e-4, 6.0e-6), (256, 4.0e-7, 2.8e-9), (1024, 1.6e-9, 1.1e-11)]
)
def test_baselines_of_the_trajectory_have_the_published_figures(
    points: int, persistence: float, extrapolation: float
) -> None:
    """At equal lam2 both go to zero by themselves on finer grids, where a fixed threshold means nothing."""
    law = wave(lam2=LAM2)
    batch = law.sample(4_000, generator=stream(0), grid=points, field="trajectory", ends=True)
    found = {
        name: law.error(predict(batch.inputs, batch.context), batch.targets).mean().item()
        for name, predict in law.baselines(batch).items()
    }
    assert found["persistence"] == pytest.approx(persistence, rel=0.05)
    assert found["extrapolation"] == pytest.approx(extrapolation, rel=0.05)


def test_least_squares_finds_the_law_and_does_not_find_another() -> None:
    law = wave()
    batch = law.sample(64, generator=stream(0), lam2=0.3)
    predict = law.baselines(batch)["least-squares"]
    assert law.error(predict(batch.inputs, batch.context), batch.targets).max() < 1e-26
    other = law.sample(64, generator=stream(1), lam2=0.4)
    assert law.error(predict(other.inputs, other.context), other.targets).mean() > 1e-3


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("lam2", [0.0, LAM2, 1.0])
def test_the_energy_is_conserved_by_the_law_and_not_by_a_disturbed_one(boundary: str, lam2: float) -> None:
    law = wave(boundary=boundary)
    batch = law.sample(3, generator=stream(2), grid=25, lam2=lam2)
    inputs = disturbed = tensors_of(batch.inputs)[0]
    before = law.invariants(inputs, batch.context)["energy"]
    for _ in range(200):
        inputs = tensors_of(law.advance(inputs, law.oracle(inputs, batch.context)))[0]
        disturbed = tensors_of(law.advance(disturbed, law.oracle(disturbed, batch.context) * (1 - 1e-6)))[0]
    after = law.invariants(law.state(inputs), batch.context)["energy"]
    assert float(((after - before) / before).abs().max()) < 1e-12
    changed = law.invariants(disturbed, batch.context)["energy"]
    assert float(((changed - before) / before).abs().max()) > 1e-6


def test_the_energy_counts_the_ghost_points() -> None:
    pair = torch.tensor([[[1.0, 0.0, 2.0], [3.0, 1.0, 1.0]]], dtype=torch.float64)
    edges = 1 * 3 + (-1) * (-2) + 2 * 0 + (-2) * (-1)
    assert wave(lam2=0.5).invariants(pair)["energy"].item() == 4 + 1 + 1 + 0.5 * edges
    ring = (-1) * (-2) + 2 * 0 + (-1) * 2
    assert wave(lam2=0.5, boundary="periodic").invariants(pair)["energy"].item() == 4 + 1 + 1 + 0.5 * ring


def test_the_energy_needs_lam2_and_says_so() -> None:
    with pytest.raises(Incompatible, match="lam2"):
        wave().invariants(torch.ones(1, 2, 4))


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_smooth_fields_differ_from_each_other_and_fit_the_boundary(boundary: str) -> None:
    batch = wave(boundary=boundary).sample(8, generator=stream(3), grid=400, field="smooth")
    u, v = tensors_of(batch.inputs)[0].unbind(1)
    assert torch.equal(u, v)
    assert torch.linalg.matrix_rank(u) == 8
    assert float(padded(u, boundary).diff().abs().max()) < 0.15  # neighbours are near, ghosts too


def test_rows_of_the_tables_name_their_size_and_lam2_and_draw_at_it() -> None:
    for law in (wave(), wave(lam2=0.25), wave(boundary="periodic")):
        assert [row["grid"] for row in law.evaluation[:3]] == [30, 254, 4094]
        for row in law.evaluation:
            batch = law.sample(2, generator=stream(0), **row)
            assert batch.targets.shape == (2, row["grid"])
            assert float(batch.context["lam2"][0]) == row["lam2"]


def test_large_rows_rest_on_fewer_fields() -> None:
    counts = [wave().test_samples("full", {"grid": size}) for size in (30, 254, 4094, 10**7)]
    assert counts == [20_000, 2362, 146, 20]


@pytest.mark.parametrize("value", [1.0000001, -0.1, math.nan, math.inf, "0.5", True, [0.1]])
def test_a_law_beyond_stability_is_refused(value: Any) -> None:
    with pytest.raises(UsageError, match="lam2"):
        wave(lam2=value)


@pytest.mark.parametrize(
    ("where", "says"),
    [
        ({"lam2": 1.5}, "unstable"),
        ({"grid": 0}, "points"),
        ({"grid": 2.0}, "points"),
        ({"field": "square"}, "square"),
        ({"ends": True}, "ends"),
        ({"field": "trajectory", "ends": True, "grid": 2}, "points"),
        ({"omega": 1.0}, "omega"),
    ],
    ids=str,
)
def test_bad_settings_of_the_sampler_are_refused(where: Any, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        wave().sample(1, generator=stream(0), **where)


def test_a_task_of_one_lam2_has_no_samples_of_another() -> None:
    with pytest.raises(UsageError, match="the task's own"):
        wave(lam2=0.3).sample(1, generator=stream(0), lam2=0.4)


def test_a_swapped_pair_is_a_wave_that_runs_backwards() -> None:
    """Which channel is which cannot be seen from the numbers: the law accepts both orders."""
    law = wave(lam2=LAM2)
    batch = law.sample(1, generator=stream(0))
    (pair,) = tensors_of(batch.inputs)
    back: Tensor = law.oracle(torch.stack((pair[:, 0], batch.targets), 1), {})
    assert float((back - pair[:, 1]).abs().max()) < 1e-14
