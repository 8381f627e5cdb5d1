"""The double pendulum: its law against another solver and the published form, baselines, chaos, and wrong inputs."""

from __future__ import annotations

import math
from typing import cast

import numpy as np
import pytest
import torch
from grokkit_pendulum.chaos import lyapunov_exponents, lyapunov_time
from grokkit_pendulum.integrators import gauss_legendre, rk4, substeps
from grokkit_pendulum.law import Pendulum, Rods
from scipy.integrate import solve_ivp
from torch import Tensor

from grokkit_core.errors import UsageError
from grokkit_core.plugins import host
from grokkit_core.streams import stream
from grokkit_core.task import Inputs

ORACLE = 5e-12
"""Largest difference from DOP853 at rtol = atol = 1e-12, which is of its own size at dt = 0.1."""

OTHER = {"m1": 2.0, "m2": 0.5, "l1": 0.7, "l2": 1.3, "g": 1.62}


def pendulum(**constants: float) -> Pendulum:
    return cast(Pendulum, host().task("pendulum", **constants))


def states(n: int, *path: str | int) -> Tensor:
    """States of the sampling box "4 n"."""
    inputs = pendulum().sample(n, generator=stream(3, *path)).inputs
    assert isinstance(inputs, Tensor)
    return inputs.T.contiguous()


def published_field(state: Tensor) -> Tensor:
    """The law for unit masses and lengths as the facts write it, apart from the code under test."""
    a, b, w, z = state
    s, c, g = torch.sin(a - b), torch.cos(a - b), 9.81
    det = 2 - c**2
    first = (-(w**2) * s * c + g * torch.sin(b) * c - z**2 * s - 2 * g * torch.sin(a)) / det
    second = (z**2 * s * c + 2 * g * torch.sin(a) * c + 2 * w**2 * s - 2 * g * torch.sin(b)) / det
    return torch.stack((w, z, first, second))


def dop853(task: Pendulum, state: np.ndarray) -> np.ndarray:
    def rate(_: float, y: np.ndarray) -> np.ndarray:
        return cast(np.ndarray, task.rods.field(torch.from_numpy(y)[:, None])[:, 0].numpy())

    return cast(np.ndarray, solve_ivp(rate, (0, task.dt), state, method="DOP853", rtol=1e-12, atol=1e-12).y[:, -1])


def test_the_field_for_unit_masses_and_lengths_is_the_published_law() -> None:
    assert float((pendulum().rods.field(states(1_000)) - published_field(states(1_000))).abs().max()) < 1e-13


@pytest.mark.parametrize("constants", [{}, OTHER], ids=["unit", "other"])
def test_the_field_is_what_the_energy_says(constants: dict[str, float]) -> None:
    """Along the flow the energy does not change: its gradient is orthogonal to the field."""
    rods = Rods(**constants)
    state = states(200).T.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(rods.energy(state).sum(), state)
    rate = (gradient * rods.field(state.detach().T).T).sum(1)
    assert float(rate.abs().max()) < 1e-11
    wrong = (gradient * Rods(**{**constants, "g": 9.0}).field(state.detach().T).T).sum(1)
    assert float(wrong.abs().max()) > 0.1


@pytest.mark.parametrize("constants", [{}, {"dt": 0.1}, {**OTHER, "dt": 0.05}], ids=["dt 0.02", "dt 0.1", "other"])
def test_the_oracle_agrees_with_dop853(constants: dict[str, float]) -> None:
    task = pendulum(**constants)
    batch = task.sample(40, generator=stream(0, "dop853"))
    assert isinstance(batch.inputs, Tensor)
    expected = np.array([dop853(task, row) for row in batch.inputs.numpy()])
    assert float(np.abs(batch.targets.numpy() - expected).max()) < ORACLE


def test_stiff_constants_take_more_steps_and_impossible_ones_are_refused() -> None:
    assert pendulum().oracle_steps == 64
    assert pendulum(m2=10.0, m1=0.1).oracle_steps > 64
    with pytest.raises(UsageError, match="masses and lengths"):
        _ = pendulum(m1=0.1, m2=10.0, l1=10.0, l2=0.1, g=100.0, dt=0.1).oracle_steps


@pytest.mark.parametrize(("method", "order"), [("rk4", 4), ("gauss", 4), ("euler", 1)])
def test_every_integrator_has_the_order_that_its_name_says(method: str, order: int) -> None:
    task, start = pendulum(), states(50, "order")
    exact = rk4(task.rods.field, start, 0.16, 2_000)

    def error(count: int) -> float:
        if method == "rk4":
            return float((rk4(task.rods.field, start, 0.16, count) - exact).abs().max())
        if method == "gauss":
            return float((gauss_legendre(task.rods.field, start, 0.16, count) - exact).abs().max())
        moved = start
        for _ in range(count):
            moved = moved + 0.16 / count * task.rods.field(moved)
        return float((moved - exact).abs().max())

    assert math.log2(error(16) / error(32)) == pytest.approx(order, abs=0.35)


def test_a_step_is_cut_into_as_few_equal_ones_as_the_longest_allows() -> None:
    cases = {(0.02, 0.02): 1, (0.1, 0.02): 5, (0.02, 0.01): 2, (0.03, 0.02): 2, (0.01, 0.02): 1, (0.02, 0.02 / 64): 64}
    assert {case: substeps(*case) for case in cases} == cases


def test_velocities_are_found_again_from_momenta() -> None:
    for rods in (Rods(), Rods(**OTHER)):
        back = rods.velocities(rods.momenta(states(100)))
        assert float((back - states(100)).abs().max()) < 1e-13


def test_the_baselines_are_those_of_the_facts_page() -> None:
    """Figures of 5,000 states at dt 0.02; those of 0.1 s would be an order of magnitude larger."""
    task = pendulum()
    calibration, batch = (task.sample(5_000, generator=stream(1, name)) for name in ("calibration", "test"))
    found = {
        name: float(task.error(predict(batch.inputs, {}), batch.targets).mean())
        for name, predict in task.baselines(calibration).items()
    }
    expected = {"persistence": 1.02e-2, "linear": 6.14e-3, "euler": 1.91e-5, "rk4": 3.67e-14}
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=0.35 if name == "rk4" else 0.06), name


def test_the_metric_counts_angles_in_half_turns() -> None:
    error = pendulum().error(torch.tensor([[math.pi, 0, 0, 0], [0, 0, 0, 2.0]]), torch.zeros(2, 4))
    assert error.tolist() == pytest.approx([0.25, 1.0])


def test_samples_fill_the_box_and_targets_are_not_wrapped() -> None:
    batch = pendulum(dt=0.1).sample(20_000, generator=stream(2, "box"))
    assert isinstance(batch.inputs, Tensor)
    limits = batch.inputs.abs().max(0).values
    assert limits.tolist() == pytest.approx([math.pi, math.pi, 3.0, 3.0], rel=1e-3)
    assert bool((limits <= torch.tensor([math.pi, math.pi, 3.0, 3.0])).all())
    assert float(batch.targets[:, :2].abs().max()) > math.pi
    assert float((batch.targets - batch.inputs)[:, :2].abs().max()) < 1.0


@pytest.mark.parametrize("setting", ["omega", "dt"])
def test_a_sampler_setting_that_does_not_exist_is_refused(setting: str) -> None:
    with pytest.raises(UsageError, match=setting):
        pendulum().sample(1, generator=stream(0), **{setting: 1.0})


@pytest.mark.parametrize("constants", [{"dt": 0.2}, {"dt": 0.0}, {"m1": 0.0}, {"l2": math.nan}, {"g": -1.0}])
def test_constants_outside_of_what_the_oracle_answers_are_refused(constants: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=next(iter(constants))):
        pendulum(**constants)


def test_small_swings_are_regular_and_large_ones_chaotic() -> None:
    calm, wild = torch.tensor([[0.05, 0.05, 0, 0]]), torch.tensor([[3.0, 3.0, 1.0, 1.0]])
    assert float(lyapunov_exponents(Rods(), calm)) < 0.2
    assert float(lyapunov_exponents(Rods(), wild)) > 0.7
    assert lyapunov_time(Rods(), torch.cat((calm, wild))) < 1.5


def test_a_small_error_grows_within_the_lyapunov_time_as_it_says() -> None:
    rods, start = Rods(), torch.tensor([[3.0, 3.0, 1.0, 1.0]], dtype=torch.float64)
    exponent = float(lyapunov_exponents(rods, start))
    twins = torch.cat((start, start + 1e-9)).T.contiguous()
    seconds = 12 / exponent
    first, second = rk4(rods.field, twins, seconds, int(seconds / 0.002)).T
    grown = math.log(float((second - first).norm()) / 2e-9)
    assert grown == pytest.approx(12, abs=6)


def test_a_rollout_feeds_back_the_state_and_conserves_the_energy() -> None:
    task = pendulum()
    inputs: Inputs = states(64, "drift").T
    first = task.invariants(task.state(inputs))["energy"]
    for _ in range(20):
        inputs = task.advance(inputs, task.oracle(inputs, {}))
    moved = task.invariants(task.state(inputs))["energy"] - first
    assert float(moved.abs().max()) < 1e-9
