"""Rollouts in increment form: as accurate as the law at every size, whatever the coefficients."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from grokkit_wave.law import Wave, padded
from grokkit_wave.rollout import increments
from torch import Tensor

import grokkit_core as gk
from grokkit_core.cassette import Cassette
from grokkit_core.plugins import host
from grokkit_core.prediction import run
from grokkit_core.streams import stream
from grokkit_core.task import tensors_of

LAM2 = 0.0961
STEPS = 1_000
BOUNDS = {torch.float32: 1e-4, torch.float64: 1e-10}
EXACT = [[LAM2, 2 - 2 * LAM2, LAM2], [0.0, -1.0, 0.0]]


def wave(**parameters: Any) -> Wave:
    found = host().task("wave", **parameters)
    assert isinstance(found, Wave)
    return found


def start(grid: int, dtype: torch.dtype = torch.float64, amplitude: float = 1.0) -> Tensor:
    """The reference start at rest, "1 2 grid"."""
    x = torch.arange(1, grid + 1, dtype=torch.float64) / (grid + 1)
    modes = sum(size * torch.sin(k * math.pi * x) for size, k in ((0.5, 1), (0.3, 2), (0.2, 5)))
    u = amplitude * (modes + torch.exp(-50 * (x - 0.5).square()))
    return torch.stack((u, u)).unsqueeze(0).to(dtype)


@functools.cache
def reference(grid: int, dtype: torch.dtype, amplitude: float = 1.0) -> Tensor:
    """The law in float64 from the same start, "step grid"."""
    law, pair, fields = wave(lam2=LAM2), start(grid, dtype, amplitude).double(), []
    for _ in range(STEPS):
        fields.append(law.oracle(pair, {}))
        pair = tensors_of(law.advance(pair, fields[-1]))[0]
    return torch.cat(fields)


def rolled(cassette: Cassette, pair: Tensor, steps: int = STEPS, lam2: float = LAM2) -> Tensor:
    return torch.cat([field.double() for field in cassette.rollout(pair, steps, context={"lam2": lam2})])


@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("grid", [32, 256, 4096])
def test_a_thousand_steps_stay_within_the_bound(grid: int, dtype: torch.dtype) -> None:
    fields = rolled(gk.load("wave"), start(grid, dtype))
    assert float((fields - reference(grid, dtype)).abs().max()) < BOUNDS[dtype]


@pytest.mark.parametrize("dtype", BOUNDS)
def test_ten_times_the_amplitude_leaves_the_relative_error_unchanged(dtype: torch.dtype) -> None:
    errors = []
    for amplitude in (1.0, 10.0):
        fields = rolled(gk.load("wave"), start(256, dtype, amplitude))
        errors.append(float((fields - reference(256, dtype, amplitude)).abs().max()) / amplitude)
    assert 0.5 < errors[1] / errors[0] < 2


def test_feeding_outputs_back_in_float32_misses_the_bound() -> None:
    """The negative control: the same learned numbers, two levels, cancellation in 2u - v."""
    cassette, pair, fields = gk.load("wave"), start(4096, torch.float32), []
    for _ in range(STEPS):
        fields.append(cassette(pair, context={"lam2": LAM2}))
        pair = torch.stack((fields[-1], pair[:, 0]), 1)
    assert float((torch.cat(fields).double() - reference(4096, torch.float32)).abs().max()) > 1e-3


@pytest.mark.parametrize("boundary", ["dirichlet", "periodic"])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("grid", [1, 2, 3, 17])
def test_both_forms_are_the_network_applied_again_and_again(boundary: str, batch: int, grid: int) -> None:
    """Symmetric with one lam2 and with several, and coefficients of no symmetry at all."""
    pair = torch.randn(batch, 2, grid, generator=stream(0), dtype=torch.float64)
    lam2 = torch.linspace(0.1, 0.9, batch, dtype=torch.float64)
    fixed = torch.tensor([[[0, 2, 0], [0, -1, 0]], [[1, -2, 1], [0, 0, 0]]], dtype=torch.float64)
    crooked = fixed + 0.03 * torch.randn(2, 2, 3, generator=stream(1), dtype=torch.float64)
    for constant, slope in (fixed, crooked):
        own = increments(pair, constant, slope, lam2, boundary, torch.float64)
        kernel = constant + lam2.view(-1, 1, 1) * slope
        state = pair
        for field in itertools.islice(own, 40):
            wide = padded(state, boundary).unfold(-1, 3, 1)
            expected = torch.einsum("bcgj,bcj->bg", wide, kernel)
            assert field.shape == (batch, grid)
            assert float((field - expected).abs().max()) <= 1e-11 * max(1.0, float(expected.abs().max()))
            state = torch.stack((expected, state[:, 0]), 1)


def test_every_field_is_a_tensor_of_its_own() -> None:
    found = list(gk.load("wave").rollout(start(50), 80, context={"lam2": LAM2}))
    kept = [field.clone() for field in found]
    with torch.inference_mode():
        for field in found[::2]:
            field.zero_()
    assert all(torch.equal(field, before) for field, before in zip(found[1::2], kept[1::2], strict=True))


def test_a_rollout_may_be_left_at_any_step_and_the_start_is_not_touched() -> None:
    pair = start(40)
    before = pair.clone()
    everything = rolled(gk.load("wave"), pair, 70)
    for steps in (1, 2, 3, 33, 69):
        assert torch.equal(rolled(gk.load("wave"), pair, steps), everything[:steps])
    assert torch.equal(pair, before)


@pytest.mark.parametrize("lam2", [0.0, LAM2, 1.0])
@pytest.mark.parametrize("boundary", ["dirichlet", "periodic"])
def test_the_energy_of_a_rollout_is_reported_and_does_not_drift(lam2: float, boundary: str, library: Any) -> None:
    (made,) = gk.train("wave", settings={"boundary": boundary}, library=library)
    found = run(made.cassette, start(256), steps=STEPS, context={"lam2": lam2})
    assert found.drift is not None
    assert found.drift["energy"] < 1e-12


def test_a_disturbed_stencil_drifts() -> None:
    cassette = gk.load("wave")
    weight = cassette.tensors["weight"].clone()
    weight[0, 1, 1] += 1e-6
    drift = run(Cassette(cassette.manifest, {"weight": weight}), start(256), steps=STEPS, context={"lam2": LAM2}).drift
    assert drift is not None
    assert drift["energy"] > 1e-5


def test_what_leaves_the_range_of_numbers_is_infinite_and_no_warning() -> None:
    pair = torch.randn(1, 2, 64, generator=stream(0))
    last = list(gk.load("wave").rollout(pair, 500, context={"lam2": 4.0}, force=True))[-1]
    assert not bool(torch.isfinite(last).all())


def test_coefficients_that_were_not_rounded_roll_out_as_well() -> None:
    """Those of a fit in float32, each off by its own rounding: the increments see the law behind them."""
    disturbed = torch.tensor(EXACT, dtype=torch.float64).float() * (1 + 1e-7 * torch.randn(2, 3, generator=stream(2)))
    forms: Mapping[str, Tensor] = {"fixed": disturbed.double(), "slope": torch.zeros(2, 3, dtype=torch.float64)}
    pair = start(4096, torch.float32)
    own = increments(pair, forms["fixed"], forms["slope"], torch.zeros(1), "dirichlet", torch.float32)
    fields = torch.cat([field.double() for field in itertools.islice(own, STEPS)])
    assert float((fields - reference(4096, torch.float32)).abs().max()) < 1e-4
