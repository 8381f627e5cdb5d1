"""The rotor: its proved bound under attack, the trainings that must fail, restarts, and resuming at every phase."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any

import pytest
import torch
from grokkit_cyclotron.certify import rotor_bound
from grokkit_cyclotron.least_squares import ACCEPTED, ADAM_STEPS, RotorRun
from grokkit_cyclotron.two_state import rotate
from torch import Tensor

from grokkit_core.cassette import load
from grokkit_core.certify.bounds import root_above, round_up
from grokkit_core.plugins import host
from grokkit_core.specs import settle
from grokkit_core.streams import stream
from grokkit_core.task import Batch, tensors_of
from grokkit_core.training.recipe import State

Weights = Mapping[str, Tensor]
NAMES = ("m1", "m2", "m3", "s")
ROUNDING = 1e-13
"""What evaluating in float64 may add to a relative error."""

SAMPLES = 60
"""Windows at each frequency: enough for a fit, and seeds restart as with the full 400."""

RESTARTING = 20
"""A seed whose first two starts end at 1e-4."""

OMEGAS = (0.9, 1.2, 1.5, 2.0, 2.2, 4.0)


def start(*seeds: int, dt: float = 0.05, **settings: Any) -> RotorRun:
    recipe, task = host().recipe("cyclotron/rotor"), host().task("cyclotron", dt=dt)
    settled = settle(recipe.spec.parameters, {"samples": SAMPLES, **settings}, "rotor")
    run = recipe.start(task, settled, seeds, dtype=torch.float64, device=torch.device("cpu"))
    assert isinstance(run, RotorRun)
    return run


def finish(run: RotorRun) -> list[float]:
    losses: list[float] = []
    while not run.done:
        losses.append(run.step().losses[0])
    return losses


def weights_of(run: RotorRun, index: int = 0) -> Weights:
    return {name: tensor.clone() for name, tensor in run.result()[index].state_dict().items()}


@functools.cache
def trained(seed: int = 0, **settings: Any) -> tuple[Weights, float]:
    """The weights and the last training MSE of one seed."""
    run = start(seed, **settings)
    last = finish(run)[-1]
    return weights_of(run), last


@functools.cache
def shipped() -> Weights:
    return load("cyclotron").tensors


def sample(n: int, omega: float, phase: str, dt: float = 0.05) -> Batch:
    return host().task("cyclotron", dt=dt).sample(n, generator=stream(7, "rotor"), omega=omega, phase=phase)


def mse(weights: Weights, batch: Batch, dtype: torch.dtype = torch.float64) -> float:
    states = tensors_of(batch.inputs)[0].to(dtype)
    predicted = rotate(states, *(weights[name].to(dtype) for name in NAMES))
    return float((predicted.double() - batch.targets).square().mean())


def motions(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Two states "n 2 4" on one circle and the exact third: speeds 1e-7 to 1e7, all directions, small and large turns."""

    def draw() -> Tensor:
        return torch.rand(n, generator=generator, dtype=torch.float64)

    speed, heading, turn = 10 ** (14 * draw() - 7), 2 * math.pi * draw(), 2 * math.pi * draw() - math.pi
    turn = torch.where(draw() < 0.25, turn * 1e-6, turn)
    velocity = torch.polar(speed, heading)
    step = torch.polar(10 ** (8 * draw() - 4), 2 * math.pi * draw())
    q = torch.polar(torch.ones_like(turn), turn)

    def state(position: Tensor, velocity: Tensor) -> Tensor:
        return torch.cat((torch.view_as_real(position), torch.view_as_real(velocity)), 1)

    before, last = state(torch.zeros_like(step), velocity), state(step, q * velocity)
    return torch.stack((before, last), 1), state(step + q * step, q * q * velocity)


def relative_errors(weights: Weights, states: Tensor, following: Tensor) -> tuple[float, float]:
    """The largest error of the velocity (of |v_b|) and of the position (of the step)."""
    error = rotate(states, *(weights[name] for name in NAMES)) - following
    velocity = error[:, 2:].norm(dim=1) / states[:, 1, 2:].norm(dim=1)
    position = error[:, :2].norm(dim=1) / states[:, 1, :2].norm(dim=1)
    return float(velocity.max()), float(position.max())


def gauged(weights: Weights, mixing: Tensor, scale: float) -> Weights:
    """The same function from other numbers: c is mixed and mixed back, S and M1 are scaled alike."""
    back = torch.linalg.inv(mixing)
    return {
        "m1": torch.einsum("km,mij->kij", mixing, weights["m1"]) * scale**2,
        "m2": torch.einsum("kij,im->kmj", weights["m2"], back),
        "m3": torch.einsum("kij,im->kmj", weights["m3"], back),
        "s": weights["s"] * scale,
    }


def disturbed(count: int) -> Iterator[Weights]:
    """The shipped rotor in a random gauge with relative disturbances from 1e-12 to 0.1."""
    generator = stream(0, "attack")
    while count:
        mixing = torch.randn(2, 2, generator=generator, dtype=torch.float64)
        if abs(float(torch.linalg.det(mixing))) < 1e-2:
            continue
        scale, size = (
            10 ** float(torch.rand((), generator=generator) * width - start) for width, start in ((4, 2), (11, 12))
        )
        weights = gauged(shipped(), mixing, scale)
        yield {
            name: tensor
            + size * float(tensor.abs().max()) * torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
            for name, tensor in weights.items()
        }
        count -= 1


def test_no_motion_is_predicted_worse_than_the_bound_and_the_bound_is_not_idle() -> None:
    generator = stream(0, "motions")
    tightest = 0.0
    for weights in disturbed(300):
        bound = rotor_bound(weights)
        found = relative_errors(weights, *motions(500, generator))
        for error, limit in zip(found, (bound.velocity, bound.position), strict=True):
            assert error <= limit + ROUNDING
            tightest = max(tightest, error / limit if 1e-10 < limit < math.inf else 0.0)

    assert 0.5 < tightest <= 1  # an attack that came nowhere near would prove nothing


def test_the_attack_finds_a_bound_that_is_ten_times_too_small() -> None:
    """Negative control of the test before."""
    generator = stream(0, "motions")
    caught = [
        error > limit / 10 + ROUNDING
        for weights in disturbed(50)
        for error, limit in zip(
            relative_errors(weights, *motions(500, generator)),
            (rotor_bound(weights).velocity, rotor_bound(weights).position),
            strict=True,
        )
    ]

    assert any(caught)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_the_bound_hardly_depends_on_the_gauge(scale: float) -> None:
    mixing = torch.tensor([[0.8, -0.6], [0.6, 0.8]], dtype=torch.float64) @ torch.diag(
        torch.tensor([3.0, -0.5], dtype=torch.float64)
    )
    other = gauged(shipped(), mixing, scale)

    states, following = motions(500, stream(1, "motions"))
    assert max(relative_errors(other, states, following)) <= ROUNDING + rotor_bound(other).worst
    guard = 2e-15 / scale**2  # the constant that guards division counts more where S is small
    assert rotor_bound(other).worst <= 40 * rotor_bound(shipped()).worst + guard


def test_an_ideal_rotor_has_almost_no_error_and_a_reflected_one_no_bound_worth_the_word() -> None:
    one, turn = torch.eye(2, dtype=torch.float64), torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)
    reading = torch.stack((one, turn))  # c = (u.v, u.Jv)
    turning = torch.stack((one, turn)).transpose(0, 1).contiguous()  # [k, i, j] of c_0 I + c_1 J
    ideal = {"m1": reading, "m2": turning, "m3": turning, "s": one}

    assert rotor_bound(ideal).worst <= 1.1e-15  # the constant that guards division
    assert rotor_bound({**ideal, "m2": turning * torch.tensor([[[1.0], [-1.0]]], dtype=torch.float64)}).worst > 1


@pytest.mark.parametrize(
    "change",
    [
        {"m1": torch.zeros(2, 2, 2, dtype=torch.float64)},
        {"s": torch.zeros(2, 2, dtype=torch.float64)},
        {"s": torch.diag(torch.tensor([1.0, 0.0], dtype=torch.float64))},
        {"m2": torch.full((2, 2, 2), math.nan, dtype=torch.float64)},
        {"m2": torch.full((2, 2, 2), 1e308, dtype=torch.float64)},
    ],
    ids=["no reading", "no metric", "flat metric", "not a number", "beyond floats"],
)
def test_where_nothing_is_proved_the_bound_is_infinite(change: Weights) -> None:
    assert rotor_bound({**shipped(), **change}).worst == math.inf


def test_roots_and_roundings_are_never_below() -> None:
    generator = stream(0, "fractions")
    for _ in range(500):
        top, bottom, power = (int(torch.randint(1, 2**62, (), generator=generator)) for _ in range(3))
        value = Fraction(top, bottom) * Fraction(10) ** (power % 500 - 250)
        root = root_above(value)
        assert root * root >= value
        assert root * root <= value * (1 + Fraction(2, 10**15))
        assert value <= Fraction(round_up(value)) <= value * Fraction(111, 100)


@pytest.mark.parametrize("value", [Fraction(10) ** 400, Fraction(2) ** 1024, Fraction(18, 10) * 10**308])
def test_what_no_float_can_hold_is_rounded_up_to_infinity(value: Fraction) -> None:
    assert round_up(value) == math.inf


def test_the_smallest_numbers_are_rounded_up_too() -> None:
    assert round_up(Fraction(1, 10**400)) == math.ulp(0.0)
    assert round_up(0.0) == 0.0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_statement_gives_the_bound_of_the_weights_that_were_measured(dtype: str) -> None:
    cassette = load("cyclotron").to("cpu", dtype)
    made = cassette.task.certify(cassette, level="quick", seed=0)
    bound = rotor_bound({name: tensor.to(getattr(torch, dtype)) for name, tensor in shipped().items()})

    assert made.verdict == "bounded"
    assert f"proved <= {bound.worst:.1e} " in made.statement


@pytest.mark.parametrize("phase", ["fixed", "random"])
@pytest.mark.parametrize("omega", OMEGAS)
def test_one_training_serves_every_frequency_in_both_samplers(omega: float, phase: str) -> None:
    weights, last = trained()
    batch = sample(5_000, omega, phase)

    assert last <= ACCEPTED
    assert mse(weights, batch) <= 1e-24
    assert mse(weights, batch, torch.float32) <= 2e-14


@pytest.mark.parametrize("dt", [0.01, 0.1, 0.5])
@pytest.mark.parametrize("omega", [0.9, 2.2, 4.0, 20.0, -1.5])
def test_another_step_and_time_reversed_stay_within_the_bound(omega: float, dt: float) -> None:
    """A turn of up to 0.4 stays below 1e-24; errors grow with turns that are far from those of the training data."""
    batch = sample(2_000, omega, "random", dt)
    states = tensors_of(batch.inputs)[0][:, -2:]
    step = (states[:, 1, :2] - states[:, 0, :2]).norm(dim=1)
    error = rotate(states, *(shipped()[name] for name in NAMES)) - batch.targets
    bound = rotor_bound(shipped())

    assert float(error.square().mean()) <= (1e-24 if abs(omega * dt) <= 0.4 else 1e-22)
    assert bool((error[:, 2:].norm(dim=1) <= bound.velocity * states[:, 1, 2:].norm(dim=1) + 1e-14).all())
    assert bool((error[:, :2].norm(dim=1) <= bound.position * step + 1e-14).all())


def test_a_body_at_rest_stays_at_rest() -> None:
    states = torch.zeros(3, 15, 4, dtype=torch.float64)
    states[:, :, :2] = torch.randn(3, 1, 2, generator=stream(0, "rest"), dtype=torch.float64)

    for dtype in (torch.float64, torch.float32):
        given = states.to(dtype)
        assert torch.equal(rotate(given, *(trained()[0][name].to(dtype) for name in NAMES)), given[:, -1])


@pytest.mark.parametrize(
    ("settings", "least", "most"),
    [
        ({"phase": "fixed"}, 1e-4, 1.0),
        ({"omegas": (0.8,)}, 1e-6, 1e-1),
        ({"omegas": (0.8, 2.5)}, 1e-12, 1e-4),
    ],
    ids=["fixed phase", "one frequency", "two frequencies"],
)
def test_a_fit_of_too_little_is_perfect_on_its_data_and_wrong_and_the_bound_says_so(
    settings: Mapping[str, Any], least: float, most: float
) -> None:
    weights, last = trained(**settings)
    found = [mse(weights, sample(2_000, omega, "random")) for omega in OMEGAS[:5]]

    assert last <= ACCEPTED
    assert least < max(found) < most
    assert rotor_bound(weights).worst > 0.1
    assert rotor_bound(trained()[0]).worst <= 1e-9  # with enough data it is otherwise
    assert rotor_bound({name: t.float() for name, t in trained()[0].items()}).worst <= 1e-6


def test_a_seed_that_does_not_arrive_begins_again() -> None:
    run = start(RESTARTING)
    losses = finish(run)

    assert run.restarts == [2]
    assert losses[-1] <= ACCEPTED
    assert run.count > 3 * ADAM_STEPS
    assert rotor_bound(weights_of(run)).worst <= 1e-9


def test_without_restarts_it_ends_where_it_is_and_has_no_useful_bound() -> None:
    run = start(RESTARTING, restarts=0)
    losses = finish(run)

    assert run.restarts == [0]
    assert losses[-1] > 1e-6
    assert rotor_bound(weights_of(run)).worst > 1e-1


def written_and_read(state: State) -> State:
    """As a checkpoint keeps it."""
    return State({name: t.clone() for name, t in state.tensors.items()}, json.loads(json.dumps(dict(state.values))))


def test_a_run_goes_on_bit_for_bit_from_every_phase() -> None:
    """Phases: Adam and Levenberg-Marquardt of the first, second and third start, and beside a seed that is done."""
    run, losses, restarts = start(RESTARTING, 0), [], []
    kept: dict[str, tuple[int, State]] = {}
    while not run.done:
        lane = run.state().values["lanes"][0]["values"]
        phase = f"{'adam' if lane['taken'] < ADAM_STEPS else 'solving'} {lane['restarts']}"
        if lane["taken"] in (0, 290, ADAM_STEPS + 3):
            kept[f"{phase} {lane['taken']}"] = (run.count, written_and_read(run.state()))
        restarts.append(lane["restarts"])
        losses.append(run.step().losses[0])

    assert restarts[0] == 0
    assert restarts[-1] == 2
    assert len(kept) == 9
    for phase in ("adam 0 290", "solving 0 303", "adam 1 0", "solving 1 303", "adam 2 0", "solving 2 303"):
        count, state = kept[phase]
        again = start(RESTARTING, 0)
        again.restore(state)
        assert [again.step().losses[0] for _ in losses[count : count + 20]] == losses[count : count + 20], phase
        if phase in ("adam 2 0", "solving 2 303"):
            assert finish(again) == losses[count + 20 :]
            for index in range(2):
                for name, tensor in weights_of(again, index).items():
                    assert torch.equal(tensor, weights_of(run, index)[name]), phase


def test_a_changed_damping_is_noticed() -> None:
    """Negative control of the test before: what a checkpoint keeps matters."""
    run = start(0)
    while run.count < ADAM_STEPS + 3:
        run.step()
    state = written_and_read(run.state())
    state.values["lanes"][0]["values"]["damping"] *= 7
    again = start(0)
    again.restore(state)
    run.step(), again.step()

    assert not torch.equal(weights_of(again)["m1"], weights_of(run)["m1"])
