"""The law of cyclotron motion: sampler, closed-form maps, baselines, oracle, against scalar loops and closed forms."""

from __future__ import annotations

import cmath
import math
from collections.abc import Callable
from types import ModuleType
from typing import Any, Literal

import pytest
import torch
from grokkit_cyclotron.law import (
    TEST_OMEGAS,
    Cyclotron,
    euler,
    jump,
    known_omega_map,
    two_state_map,
    window_map,
)
from torch import Tensor

from grokkit_core.cassette import load
from grokkit_core.certify.scores import errors_of
from grokkit_core.errors import UsageError
from grokkit_core.plugins import host
from grokkit_core.streams import stream
from grokkit_core.task import Batch, Predictor

Phase = Literal["fixed", "random"]
OMEGAS = (*TEST_OMEGAS, 4.0)
PHASES: tuple[Phase, ...] = ("fixed", "random")

FLOAT32_MSE = 1e-14
"""Rounding of float32 inputs costs 1e-15 to 4e-15; facts of the cyclotron task, section 7."""

ONE_STEP = 4e-15
"""A few float64 roundings of numbers up to 4, whose last bit is worth 4.4e-16."""

LONG_STEP = 4 * ONE_STEP
"""With longer steps phases reach 35 rad, and their own rounding shows in the sampled states."""

BASELINE_SHARE = 0.02
"""Sampling error allowed at 200,000 samples."""

MAPS: dict[str, Callable[[Tensor, float, float], Tensor]] = {
    "two-state": lambda states, omega, dt: two_state_map(states),
    "window": lambda states, omega, dt: window_map(states),
    "known omega": lambda states, omega, dt: known_omega_map(
        states[:, -1], torch.full((len(states),), omega, dtype=torch.float64), dt
    ),
    "jump": lambda states, omega, dt: jump(states, 1),
}


def law(dt: float = 0.05) -> Cyclotron:
    task = host().task("cyclotron", dt=dt)
    assert isinstance(task, Cyclotron)
    return task


def draws(n: int, seed: int) -> list[list[float]]:
    """The uniform numbers that the sampler draws first from `stream(seed, "test")`."""
    uniform = torch.rand((n, 4), generator=stream(seed, "test"), dtype=torch.float64)
    rows: list[list[float]] = (2 * uniform - 1).tolist()
    return rows


def sample(n: int, seed: int, omega: float, phase: Phase = "fixed", dt: float = 0.05) -> Batch:
    return law(dt).sample(n, generator=stream(seed, "test"), omega=omega, phase=phase)


def states_of(batch: Batch) -> Tensor:
    assert isinstance(batch.inputs, Tensor)
    return batch.inputs


def orbit_of(batch: Batch) -> Tensor:
    return torch.cat((states_of(batch), batch.targets.unsqueeze(1)), 1)


@pytest.mark.parametrize("omega", [0.8, 1.65, 2.5, *OMEGAS])
@pytest.mark.parametrize("dt", [0.05, 0.1])
def test_the_sampler_equals_a_scalar_loop_to_the_last_bit(reference: ModuleType, omega: float, dt: float) -> None:
    orbit = orbit_of(sample(1_000, 3, omega, dt=dt))

    assert torch.equal(orbit, reference.loop_orbits(draws(1_000, 3), omega, dt))


@pytest.mark.parametrize("omega", OMEGAS)
def test_the_sampler_cast_to_float32_equals_the_cast_loop(reference: ModuleType, omega: float) -> None:
    orbit = orbit_of(sample(1_000, 5, omega))

    difference = orbit.float() - reference.loop_orbits(draws(1_000, 5), omega).float()
    assert difference.abs().max().item() <= 2.4e-7


def test_another_order_of_the_draws_is_another_sample(reference: ModuleType) -> None:
    swapped = [[y0, x0, vx0, vy0] for x0, y0, vx0, vy0 in draws(100, 3)]

    difference = orbit_of(sample(100, 3, 0.8)) - reference.loop_orbits(swapped, 0.8)
    assert difference.abs().max().item() > 0.1


def test_the_published_sampler_always_starts_against_the_x_axis() -> None:
    first = states_of(sample(1_000, 0, 1.2))[:, 0]

    assert bool((first[:, 2] < 0).all())
    assert first[:, 3].abs().max().item() == 0.0


@pytest.mark.parametrize("omega", OMEGAS)
@pytest.mark.parametrize("phase", PHASES)
def test_every_orbit_is_a_circle_around_the_drawn_centre(omega: float, phase: Phase) -> None:
    orbit = orbit_of(sample(2_000, 1, omega, phase))
    x0, y0, vx0, vy0 = torch.tensor(draws(2_000, 1), dtype=torch.float64).unbind(1)

    off_x = orbit[..., 0] - (x0 + vy0 / omega).unsqueeze(1)
    off_y = orbit[..., 1] - (y0 - vx0 / omega).unsqueeze(1)
    speed = torch.hypot(vx0, vy0).unsqueeze(1)
    assert (torch.hypot(off_x, off_y) - speed / omega).abs().max().item() <= ONE_STEP
    assert (torch.hypot(orbit[..., 2], orbit[..., 3]) - speed).abs().max().item() <= ONE_STEP
    assert (orbit[..., 2] + omega * off_y).abs().max().item() <= 4 * ONE_STEP
    assert (orbit[..., 3] - omega * off_x).abs().max().item() <= 4 * ONE_STEP


def test_random_phases_are_spread_evenly_over_the_circle() -> None:
    first = states_of(sample(20_000, 1, 0.8, "random"))[:, 0]
    quarters = torch.floor(torch.atan2(first[:, 3], first[:, 2]) / (math.pi / 2)).long() + 2

    counts = torch.bincount(quarters.clamp_max(3), minlength=4)
    assert counts.min().item() > 4_750  # 5,000 expected, standard deviation 61
    assert counts.max().item() < 5_250


def test_random_phases_turn_the_same_way_with_time(reference: ModuleType) -> None:
    batch = sample(300, 2, 1.5, "random")
    generator = stream(2, "test")
    torch.rand((300, 4), generator=generator, dtype=torch.float64)
    starts = (2 * math.pi * torch.rand(300, generator=generator, dtype=torch.float64)).tolist()

    expected = reference.loop_orbits(draws(300, 2), 1.5, starts=starts)
    assert (orbit_of(batch) - expected).abs().max().item() <= ONE_STEP


def test_equal_generators_give_equal_samples() -> None:
    assert torch.equal(orbit_of(sample(50, 7, 0.9)), orbit_of(sample(50, 7, 0.9)))
    assert not torch.equal(orbit_of(sample(50, 7, 0.9)), orbit_of(sample(50, 8, 0.9)))


@pytest.mark.parametrize("phase", PHASES)
def test_samples_are_float64_and_carry_omega(phase: Phase) -> None:
    batch = sample(10, 0, 2.2, phase)

    assert states_of(batch).shape == (10, 15, 4)
    assert batch.targets.shape == (10, 4)
    assert {states_of(batch).dtype, batch.targets.dtype, batch.context["omega"].dtype} == {torch.float64}
    assert batch.context["omega"].tolist() == [2.2] * 10


@pytest.mark.parametrize(
    "setting",
    [{"omega": 0}, {"omega": 0.0}, {"omega": math.nan}, {"omega": math.inf}, {"phase": "sideways"}, {"speed": 1.0}],
    ids=str,
)
def test_settings_without_a_meaning_are_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        law().sample(4, generator=stream(0), **setting)


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("omega", OMEGAS)
def test_closed_form_maps_are_exact_to_float32_rounding(name: str, phase: Phase, omega: float) -> None:
    batch = sample(20_000, 11, omega, phase)

    predicted = MAPS[name](states_of(batch).float(), omega, 0.05)
    assert law().error(predicted, batch.targets).mean().item() <= FLOAT32_MSE


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("dt", [0.05, 0.01, 0.1])
def test_closed_form_maps_are_exact_in_float64(name: str, phase: Phase, dt: float) -> None:
    for omega in (*OMEGAS, -1.5):
        batch = sample(5_000, 12, omega, phase, dt)

        predicted = MAPS[name](states_of(batch), omega, dt)
        assert predicted.dtype == torch.float64
        assert (predicted - batch.targets).abs().max().item() <= (ONE_STEP if dt == 0.05 else LONG_STEP)


def test_the_map_of_another_frequency_is_not_exact() -> None:
    batch = sample(5_000, 12, 0.9)

    predicted = MAPS["known omega"](states_of(batch), 0.8, 0.05)
    assert law().error(predicted, batch.targets).mean().item() > 1e-6


@pytest.mark.parametrize("omega", [0.8, *OMEGAS])
@pytest.mark.parametrize(("steps", "tolerance"), [(1, ONE_STEP), (100, 2e-13), (1_000, 2e-12)])
def test_a_jump_lands_where_the_sampler_does(reference: ModuleType, omega: float, steps: int, tolerance: float) -> None:
    start = draws(200, 4)
    expected = torch.tensor([reference.loop_state(row, omega, 14 + steps) for row in start], dtype=torch.float64)

    landed = jump(states_of(sample(200, 4, omega)), steps)
    assert (landed - expected).abs().max().item() <= tolerance


@pytest.mark.parametrize("name", ["two-state", "window", "jump"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_body_at_rest_stays_at_rest(name: str, dtype: torch.dtype) -> None:
    places = torch.tensor([[0.3, -0.7, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]], dtype=dtype)

    moved = MAPS[name](places.unsqueeze(1).repeat(1, 15, 1), 0.8, 0.05)
    assert torch.equal(moved, places)


def test_the_oracle_leaves_a_body_at_rest_where_it_is() -> None:
    place = torch.tensor([0.3, -0.7, 0.0, 0.0], dtype=torch.float64)

    assert torch.equal(law().oracle(place.repeat(1, 15, 1), {}), place.unsqueeze(0))


def test_the_oracle_is_deterministic_and_float64() -> None:
    states = states_of(sample(500, 6, 1.5, "random"))

    first, again = law().oracle(states, {}), law().oracle(states.clone(), {})
    assert torch.equal(first, again)
    assert first.dtype == torch.float64
    assert law().oracle(states.float(), {}).dtype == torch.float64


def test_the_oracle_does_not_change_its_inputs() -> None:
    states = states_of(sample(50, 6, 1.5))
    before = states.clone()

    law().oracle(states, {})
    assert torch.equal(states, before)


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("dt", [0.05, 0.01, 0.5])
def test_the_oracle_needs_neither_omega_nor_dt(phase: Phase, dt: float) -> None:
    for omega in (*OMEGAS, -1.5):
        batch = sample(2_000, 9, omega, phase, dt)
        found = (law().oracle(states_of(batch), {}) - batch.targets).abs().max().item()
        assert found <= (ONE_STEP if dt == 0.05 else LONG_STEP)


def test_advance_drops_the_oldest_state_and_appends_the_new_one() -> None:
    states = states_of(sample(20, 0, 0.9))
    new = torch.arange(80, dtype=torch.float64).reshape(20, 4)

    window = law().advance(states, new)
    assert isinstance(window, Tensor)
    assert torch.equal(window[:, :14], states[:, 1:])
    assert torch.equal(window[:, 14], new)


@pytest.mark.parametrize("phase", PHASES)
def test_the_oracle_rolled_out_stays_on_the_orbit(reference: ModuleType, phase: Phase) -> None:
    batch = sample(200, 4, 1.2, phase)
    task, window = law(), batch.inputs
    for _ in range(100):
        window = task.advance(window, task.oracle(window, {}))

    jumped = jump(states_of(batch), 100)
    assert isinstance(window, Tensor)
    assert (window[:, -1] - jumped).abs().max().item() <= 1e-12
    if phase == "fixed":
        expected = torch.tensor([reference.loop_state(row, 1.2, 114) for row in draws(200, 4)], dtype=torch.float64)
        assert (window[:, -1] - expected).abs().max().item() <= 1e-12


def test_the_oracle_conserves_the_speed() -> None:
    batch = sample(2_000, 5, 2.0, "random")
    task = law()

    before = task.invariants(states_of(batch)[:, -1])
    after = task.invariants(task.oracle(batch.inputs, {}))
    assert set(after) == {"speed"}
    assert (after["speed"] - before["speed"]).abs().max().item() <= ONE_STEP


def test_the_one_node_network_does_not_conserve_the_speed() -> None:
    batch = sample(2_000, 5, 2.0)
    states = states_of(batch).float()

    after = law().invariants(load("cyclotron-1node")(states))
    change = after["speed"] - law().invariants(states[:, -1])["speed"]
    assert change.abs().mean().item() > 1e-2


def one_state_error(omega: float, known: complex, turn: complex) -> float:
    """Mean squared error of a linear map x + known v, turn v of the last state; E |v|^2 = 2/3, four outputs."""
    q = cmath.exp(1j * omega * 0.05)
    return (abs((q - 1) / (1j * omega) - known) ** 2 + abs(q - turn) ** 2) / 6


def closed_forms(omega: float) -> dict[str, float]:
    """The exact mean squared errors of the baselines on the published sampler."""
    away = 1 - math.cos(omega * 0.05)
    shape = 1 + 1 / omega**2
    mean_speed = (math.sqrt(2) + math.log(1 + math.sqrt(2))) / 3  # of a vector uniform in the square [-1, 1]^2
    return {
        "persistence": away * shape / 3,
        "euler": one_state_error(omega, 0.05, 1),
        "linear": 2 / 3 * away**2 * shape,
        "mean": shape * (4 / 3 - mean_speed**2) / 4,
    }


def baseline_figures(omega: float, phase: Phase = "fixed") -> dict[str, float]:
    batch = sample(200_000, 21, omega, phase)
    calibration = law().sample(4_096, generator=stream(22), omega=omega, phase=phase)
    predictors: dict[str, Predictor] = dict(law().baselines(calibration))
    return {name: errors_of(law(), predict, batch).mean().item() for name, predict in predictors.items()}


@pytest.mark.parametrize("omega", [0.8, *TEST_OMEGAS])
def test_baselines_have_their_closed_form_errors(omega: float) -> None:
    assert baseline_figures(omega) == pytest.approx(closed_forms(omega), rel=BASELINE_SHARE)


def test_baselines_that_use_one_state_or_two_do_not_care_about_the_phase() -> None:
    expected = closed_forms(1.5)
    figures = baseline_figures(1.5, "random")

    for name in ("persistence", "euler", "linear"):
        assert figures[name] == pytest.approx(expected[name], rel=BASELINE_SHARE)


def test_the_published_baseline_table_is_that_of_the_closed_forms() -> None:
    table = {
        "persistence": (6.8e-4, 7.6e-4, 1.01e-3, 1.35e-3, 2.08e-3, 2.43e-3),
        "euler": (2.7e-4, 3.4e-4, 6.0e-4, 9.4e-4, 1.67e-3, 2.0e-3),
        "linear": (1.1e-6, 1.5e-6, 3.7e-6, 7.6e-6, 2.1e-5, 2.9e-5),
        "mean": (0.479, 0.418, 0.316, 0.270, 0.235, 0.2256),
    }
    for name, row in table.items():
        expected = [closed_forms(omega)[name] for omega in (0.8, *TEST_OMEGAS)]
        assert list(row) == pytest.approx(expected, rel=0.05)  # two digits are printed


@pytest.mark.parametrize("omega", TEST_OMEGAS)
def test_the_exact_map_of_the_training_frequency_has_its_closed_form_error(omega: float) -> None:
    batch = sample(200_000, 23, omega)
    q = cmath.exp(1j * 0.8 * 0.05)

    predicted = MAPS["known omega"](states_of(batch), 0.8, 0.05)
    measured = law().error(predicted, batch.targets).mean().item()
    assert measured == pytest.approx(one_state_error(omega, (q - 1) / 0.8j, q), rel=BASELINE_SHARE)


@pytest.mark.parametrize("dt", [0.01, 0.2])
def test_a_law_with_another_time_step_turns_by_that_step(dt: float) -> None:
    batch = sample(1_000, 13, 1.5, "random", dt)
    last, target = states_of(batch)[:, -1], batch.targets

    turned = torch.atan2(
        last[:, 2] * target[:, 3] - last[:, 3] * target[:, 2], last[:, 2] * target[:, 2] + last[:, 3] * target[:, 3]
    )
    assert law(dt).dt == dt
    assert (turned - 1.5 * dt).abs().max().item() <= 1e-13
    assert torch.equal(law(dt).baselines(batch)["euler"](batch.inputs, {}), euler(states_of(batch), dt))


@pytest.mark.parametrize("dt", [0.0, -0.05, math.nan, 11.0])
def test_time_steps_outside_their_range_are_refused(dt: float) -> None:
    with pytest.raises(UsageError):
        law(dt)
