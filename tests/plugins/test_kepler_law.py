"""The laws: samplers, oracles and baselines of the flow map, of Kepler's equation, and of the published stand-in."""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

import pytest
import torch
from grokkit_kepler import quadrature
from grokkit_kepler.law import Kepler, rk4, states_of
from grokkit_kepler.linear_angle import formula, on_conic
from grokkit_kepler.orbit import angular_momentum, energy, error_bound, moved, newton, orbit_of, residual, solved
from torch import Tensor

from grokkit_core.certify.scores import errors_of
from grokkit_core.errors import UsageError
from grokkit_core.plugins import host
from grokkit_core.streams import stream
from grokkit_core.task import Batch, Task, tensors_of

TIMES = 20_000
EXACT = 1e-12
"""Roundings of a few dozen operations on numbers of order one to ten."""


def flow(**law: float) -> Kepler:
    task = host().task("kepler", **law)
    assert isinstance(task, Kepler)
    return task


def states(n: int, seed: int = 0, **where: Any) -> Batch:
    return flow().sample(n, generator=stream(seed, "law"), **where)


def inputs_of(batch: Batch) -> Tensor:
    return tensors_of(batch.inputs)[0]


def mse(task: Task, batch: Batch, name: str) -> float:
    return errors_of(task, task.baselines(batch)[name], batch).mean().item()


# -- the oracle of the flow --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("direction", [1, -1])
def test_the_oracle_agrees_with_numerical_integration(two_body: ModuleType, direction: int) -> None:
    batch = states(100, direction=direction)
    assert (two_body.integrated(inputs_of(batch), 0.1) - batch.targets).abs().max().item() < 5e-13


@pytest.mark.parametrize(("mu", "dt"), [(0.3, 0.1), (7.0, 0.04), (1.0, 5.0), (1.0, -0.2)])
def test_the_oracle_holds_for_other_constants(two_body: ModuleType, mu: float, dt: float) -> None:
    task = flow(mu=mu)
    start = inputs_of(task.sample(20, generator=stream(1, "law")))
    orbit = orbit_of(start, mu)
    there = moved(start, orbit, solved(orbit.ec, orbit.es, orbit.motion * dt))
    assert (two_body.integrated(start, dt, mu) - there).abs().max().item() < 1e-11


def test_a_wrong_constant_would_be_noticed(two_body: ModuleType) -> None:
    batch = states(20)
    assert (two_body.integrated(inputs_of(batch), 0.1, 1.001) - batch.targets).abs().max().item() > 1e-6


def test_many_turns_cost_no_accuracy_of_the_angle() -> None:
    batch = states(500)
    orbit = orbit_of(inputs_of(batch), 1.0)
    turn = orbit.motion * 0.1
    later = solved(orbit.ec, orbit.es, turn + 2 * math.pi * 1_000)
    assert (later - solved(orbit.ec, orbit.es, turn) - 2 * math.pi * 1_000).abs().max().item() < 1e-11


@pytest.mark.parametrize("eccentricity", [0.0, 0.3, 0.6, 0.9, 0.999, 1 - 1e-9])
def test_the_solver_converges_for_every_ellipse(eccentricity: float) -> None:
    mean = torch.linspace(-20, 20, 4_001, dtype=torch.float64)
    e = torch.full_like(mean, eccentricity)
    found = solved(e, torch.zeros_like(e), mean)
    assert residual(found, e, torch.zeros_like(e), mean).abs().max().item() < 2e-14


def test_the_solution_of_the_equation_is_its_series(two_body: ModuleType) -> None:
    generator = stream(3, "series")
    for mean, e in torch.rand(20, 2, generator=generator, dtype=torch.float64).tolist():
        pair = torch.tensor([6 * mean], dtype=torch.float64), torch.tensor([0.6 * e], dtype=torch.float64)
        found = solved(pair[1], torch.zeros(1, dtype=torch.float64), pair[0]).item()
        assert found == pytest.approx(two_body.bessel_anomaly(6 * mean, 0.6 * e), abs=1e-9)


def test_one_newton_step_squares_the_error_as_the_theorem_says() -> None:
    orbit = orbit_of(inputs_of(states(5_000)), 1.0)
    turn, e = orbit.motion * 0.1, orbit.eccentricity
    exact = solved(orbit.ec, orbit.es, turn)
    near = exact + 0.05 * (2 * torch.rand(5_000, generator=stream(1), dtype=torch.float64) - 1)
    before, after = (near - exact).abs(), (newton(near, orbit.ec, orbit.es, turn) - exact).abs()
    assert bool((after <= e / (2 * (1 - e)) * before.square() + 1e-15).all())
    assert not bool((after <= e / (20 * (1 - e)) * before.square() + 1e-15).all())


def test_the_bound_from_the_residual_is_never_violated() -> None:
    orbit = orbit_of(inputs_of(states(TIMES)), 1.0)
    turn = orbit.motion * 0.1
    exact = solved(orbit.ec, orbit.es, turn)
    for size in (0.3, 1e-3, 1e-8, 0.0):
        near = exact + size * (2 * torch.rand(TIMES, generator=stream(1), dtype=torch.float64) - 1)
        bound, wrong = error_bound(near, orbit.ec, orbit.es, turn), (near - exact).abs()
        assert bool((wrong <= bound + 1e-15).all())
        assert bool((bound <= 4.1 * wrong + 1e-14).all())  # (1 + e)/(1 - e), so that it says something


# -- sampler, invariants, frames ---------------------------------------------------------------------------------------


def test_the_sampler_covers_what_it_says() -> None:
    start = inputs_of(states(TIMES))
    orbit = orbit_of(start, 1.0)
    axis, e = 1 / (2 / start[:, :2].norm(dim=1) - start[:, 2:].square().sum(1)), orbit.eccentricity
    assert 0.7 <= axis.min() < 0.701
    assert 1.499 < axis.max() <= 1.5
    assert e.min() < 1e-3
    assert 0.599 < e.max() <= 0.6 + EXACT
    assert abs(axis.mean().item() - 1.1) < 0.01
    assert abs(e.mean().item() - 0.3) < 0.01


@pytest.mark.parametrize(("direction", "share"), [(1, 1.0), (-1, 0.0), (0, 0.5)])
def test_direction_is_the_sign_of_the_angular_momentum(direction: int, share: float) -> None:
    counter = (angular_momentum(inputs_of(states(4_000, direction=direction))) > 0).double().mean().item()
    assert abs(counter - share) < 0.05 * (direction == 0) + 1e-9


def test_both_directions_are_tested() -> None:
    assert [where["direction"] for where in flow().evaluation] == [1, -1]


@pytest.mark.parametrize(
    "where", [{"direction": 2}, {"omega": 1.0}, {"eccentricity": (0.5, 1.0)}, {"eccentricity": (1,)}]
)
def test_unknown_settings_of_the_sampler_are_refused(where: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        states(3, **where)


def test_energy_and_angular_momentum_are_conserved_by_the_law_and_not_by_leapfrog() -> None:
    batch = states(1_000)
    task = flow()
    before = task.invariants(inputs_of(batch))
    after = task.invariants(batch.targets)
    leapt = task.invariants(task.baselines(batch)["leapfrog"](batch.inputs, {}))
    assert set(before) == {"energy", "angular_momentum"}
    assert all((after[name] - before[name]).abs().max().item() < EXACT for name in before)
    assert (leapt["energy"] - before["energy"]).abs().max().item() > 1e-4


def test_energy_gives_the_axis() -> None:
    start = inputs_of(states(100))
    assert torch.allclose(energy(start, 1.0), -0.5 / orbit_of(start, 1.0).axis, atol=EXACT)


def test_invariants_are_computed_in_float64_for_float32_states() -> None:
    """A circular orbit: in float32, 1 - r/a has an error of 1e-7 and more."""
    state = torch.tensor([[1.3, 0.0, 0.0, 1.3**-0.5]], dtype=torch.float64)
    exact, rounded = orbit_of(state, 1.0), orbit_of(state.float(), 1.0)
    assert rounded.ec.dtype == torch.float64
    assert (rounded.ec - orbit_of(state.float().double(), 1.0).ec).abs().item() == 0.0
    assert exact.eccentricity.item() < 1e-15


def test_unbound_states_have_no_ellipse() -> None:
    fast = torch.tensor([[1.0, 0.0, 0.0, 1.5], [1.0, 0.0, 0.0, 2.0]], dtype=torch.float64)
    assert bool((orbit_of(fast, 1.0).axis < 0).all())


# -- baselines ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "figure"),
    [("persistence", 6.7e-3), ("linear", 8.7e-4), ("leapfrog", 2.4e-6), ("classical-start", 5.4e-6)],
)
def test_baselines_of_the_flow_score_what_is_known_of_them(name: str, figure: float) -> None:
    assert mse(flow(), states(TIMES), name) == pytest.approx(figure, rel=0.6 if name == "leapfrog" else 0.15)


@pytest.mark.parametrize(("steps", "figure"), [(1, 9.7e-11), (2, 4e-19)])
def test_the_classical_start_takes_as_many_newton_steps_as_it_is_told(steps: int, figure: float) -> None:
    assert mse(flow().with_start_steps(steps), states(TIMES), "classical-start") == pytest.approx(figure, rel=0.7)
    assert flow().start_steps == 0


def test_rk4_is_of_fourth_order() -> None:
    batch = states(2_000, eccentricity=(0.0, 0.3))
    errors = [
        (rk4(inputs_of(batch), 1.0, 0.1, count) - batch.targets).square().mean().sqrt().item() for count in (2, 4)
    ]
    assert errors[0] / errors[1] == pytest.approx(16, rel=0.15)


def test_means_by_quadrature_are_what_samples_tend_to() -> None:
    task = flow()
    nodes, weights = task.quadrature(1)
    sampled = task.sample(200_000, generator=stream(2, "law"))
    assert weights.sum().item() == pytest.approx(1, abs=1e-12)
    for name, tolerance in (("persistence", 0.01), ("leapfrog", 0.25), ("classical-start", 0.05)):
        predict = task.baselines(sampled)[name]
        exact = (errors_of(task, predict, nodes) @ weights).item()
        assert exact == pytest.approx(errors_of(task, predict, sampled).mean().item(), rel=tolerance)


def mean_of_rk4(nodes: int) -> float:
    """Its MSE, which has the longest tail of all baselines, with so many nodes in eccentricity."""
    rules = quadrature.gauss(0.7, 1.5, nodes // 4), quadrature.gauss(0.0, 0.6, nodes), quadrature.circle(8 * nodes)
    (axis, e, anomaly), weights = quadrature.product(*rules)
    start = states_of(axis, e, quadrature.spread(len(axis)), anomaly, 1.0)
    batch = Batch(start, flow().oracle(start, {}))
    return (errors_of(flow(), flow().baselines(batch)["rk4"], batch) @ weights).item()


def test_the_quadrature_has_converged() -> None:
    assert mean_of_rk4(24) == pytest.approx(mean_of_rk4(40), rel=0.01)
    assert mean_of_rk4(8) != pytest.approx(mean_of_rk4(40), rel=0.01)


# -- Kepler's equation -------------------------------------------------------------------------------------------------


def equation() -> tuple[Task, Batch]:
    task = host().task("kepler-equation")
    return task, task.sample(TIMES, generator=stream(0, "equation"))


def test_the_oracle_of_the_equation_satisfies_it() -> None:
    task, batch = equation()
    mean, e = tensors_of(batch.inputs)
    assert (batch.targets - e * torch.sin(batch.targets) - mean).abs().max().item() < 2e-15
    assert task.oracle({"mean_anomaly": mean.float(), "eccentricity": e.float()}, {}).dtype == torch.float64


@pytest.mark.parametrize(
    ("name", "figure", "largest"),
    [
        ("circle", 6.1e-2, 0.60),
        ("first-order", 3.2e-3, 0.22),
        ("newton-1", 3.9e-6, 1.9e-2),
        ("newton-2", 6.2e-11, 1.3e-4),
        ("newton-3", 6.0e-20, 6.7e-9),
    ],
)
def test_baselines_of_the_equation_score_what_is_known_of_them(name: str, figure: float, largest: float) -> None:
    task, batch = equation()
    found = task.baselines(batch)[name](batch.inputs, {})
    assert mse(task, batch, name) == pytest.approx(figure, rel=0.4)
    assert (found - batch.targets).abs().max().item() == pytest.approx(largest, rel=0.15)


# -- the published stand-in --------------------------------------------------------------------------------------------


def linear_angle(n: int = 5_000, **law: float) -> tuple[Task, Batch]:
    task = host().task("linear-angle", **law)
    return task, task.sample(n, generator=stream(0, "linear-angle"))


@pytest.mark.parametrize(("name", "figure"), [("persistence", 9.5e-4), ("linear", 6.2e-5), ("formula", 9.1e-8)])
def test_baselines_of_the_published_law_score_what_is_known_of_them(name: str, figure: float) -> None:
    assert mse(*linear_angle(), name) == pytest.approx(figure, rel=0.15)


def test_without_noise_the_formula_is_the_law() -> None:
    task, batch = linear_angle(noise=0.0)
    assert mse(task, batch, "formula") < 1e-28
    assert torch.equal(task.oracle(batch.inputs, {}), formula(inputs_of(batch)))


def test_the_time_is_a_nuisance_of_the_published_law() -> None:
    _, batch = linear_angle()
    other = inputs_of(batch).clone()
    other[:, 4] = 0.0
    assert torch.equal(formula(other), formula(inputs_of(batch)))


def test_the_published_law_is_not_keplers() -> None:
    """At e = 0.6 the angle of a true orbit grows (1.6/0.4)^2 times as fast near the centre as far from it; here alike."""
    h, e = torch.ones(2, dtype=torch.float64), torch.full((2,), 0.6, dtype=torch.float64)
    ends = torch.tensor([0.0, math.pi], dtype=torch.float64)
    place = on_conic(ends, h, e)
    rows = torch.cat((place, torch.stack((h, e, 0 * h), 1)), 1)
    after = formula(rows)
    turned = torch.atan2(after[:, 1], after[:, 0]) - torch.atan2(place[:, 1], place[:, 0])
    assert torch.allclose(torch.remainder(turned, 2 * math.pi), torch.full_like(turned, 0.02), atol=EXACT)
    true_rates = 1 / place.square().sum(1)
    assert (true_rates[0] / true_rates[1]).item() == pytest.approx(16)


@pytest.mark.parametrize("task", ["kepler-equation", "linear-angle"])
def test_samplers_without_settings_refuse_any(task: str) -> None:
    with pytest.raises(UsageError):
        host().task(task).sample(3, generator=stream(0), direction=1)
