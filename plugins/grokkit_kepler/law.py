"""The two-body flow map: its sampler, oracle, baselines and conserved quantities."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from grokkit_core.errors import UsageError
from grokkit_core.task import Batch, Inputs, Place, Predictor, Task
from grokkit_kepler.orbit import angular_momentum, energy, moved, newton, orbit_of, solved
from grokkit_kepler.plugin import MOST_ECCENTRIC
from grokkit_kepler.quadrature import (
    NODES_OF_ANOMALY,
    NODES_OF_AXIS,
    NODES_OF_ECCENTRICITY,
    circle,
    gauss,
    product,
    spread,
)

if TYPE_CHECKING:
    from grokkit_core.cassette import Cassette
    from grokkit_core.manifest import Certificate, Level

AXES = (0.7, 1.5)
"""Sampled semi-major axes."""

COUNTER_CLOCKWISE, CLOCKWISE, EITHER = 1, -1, 0

TEST_SAMPLES: Mapping[Level, int] = {"full": 100_000, "quick": 20_000}


class Kepler(Task):
    """Inputs and targets `state` "batch 4" = (x, y, vx, vy), a time `dt` apart on a bound orbit around `mu`."""

    evaluation = ({"direction": COUNTER_CLOCKWISE}, {"direction": CLOCKWISE})
    start_steps = 0
    """Newton steps that the baseline `classical-start` takes."""

    @property
    def mu(self) -> float:
        """Gravitational parameter [length^3/time^2]."""
        return float(self.parameters["mu"])

    @property
    def dt(self) -> float:
        """Time step."""
        return float(self.parameters["dt"])

    @property
    def turns(self) -> tuple[float, float]:
        """The least and the largest n dt [rad] of the sampled orbits."""
        low, high = (self.dt * math.sqrt(self.mu / axis**3) for axis in reversed(AXES))
        return low, high

    def sample(
        self,
        n: int,
        *,
        generator: torch.Generator,
        direction: int = COUNTER_CLOCKWISE,
        eccentricity: Sequence[float] = (0.0, MOST_ECCENTRIC),
        **where: Any,
    ) -> Batch:
        """`n` states with a uniform in [0.7, 1.5], e uniform in `eccentricity`, argument of periapsis and M uniform.

        `direction` is 1 (counter-clockwise), -1 (clockwise) or 0 (either, by a coin). Raises `UsageError`.
        """
        if where:
            raise UsageError(f"sampler setting '{next(iter(where))}'", expected="direction or eccentricity")
        if direction not in (COUNTER_CLOCKWISE, CLOCKWISE, EITHER):
            raise UsageError(f"direction {direction}", expected="1, -1 or 0 for either")
        low, high = _band(eccentricity)
        draw = torch.rand((5, n), generator=generator, dtype=torch.float64)
        axis = AXES[0] + (AXES[1] - AXES[0]) * draw[0]
        state = states_of(axis, low + (high - low) * draw[1], 2 * math.pi * draw[2], 2 * math.pi * draw[3], self.mu)
        if direction == EITHER:
            state = torch.where(draw[4].unsqueeze(1) < 0.5, state, state * mirror(CLOCKWISE))
        else:
            state = state * mirror(direction)
        return Batch(state, self.oracle(state, {}))

    def quadrature(self, direction: int) -> tuple[Batch, Tensor]:
        """Nodes and weights that stand for the whole distribution of one direction."""
        (axis, eccentricity, anomaly), weights = product(
            gauss(*AXES, NODES_OF_AXIS), gauss(0.0, MOST_ECCENTRIC, NODES_OF_ECCENTRICITY), circle(NODES_OF_ANOMALY)
        )
        state = states_of(axis, eccentricity, spread(len(axis)), anomaly, self.mu) * mirror(direction)
        return Batch(state, self.oracle(state, {})), weights

    def oracle(self, inputs: Inputs, context: Mapping[str, Tensor]) -> Tensor:
        """The exact state "batch 4" after dt, by Newton's method to rounding, in float64."""
        state = _tensor(inputs).double()
        orbit = orbit_of(state, self.mu)
        return moved(state, orbit, solved(orbit.ec, orbit.es, orbit.motion * self.dt))

    def baselines(self, calibration: Batch) -> Mapping[str, Predictor]:
        """Persistence, linear least squares, one step of Euler, leapfrog and RK4, and the exact algebra from a classical start."""
        state = _tensor(calibration.inputs).double()
        linear = torch.linalg.lstsq(_affine(state), calibration.targets.double()).solution
        steps: Mapping[str, Callable[[Tensor], Tensor]] = {
            "persistence": lambda state: state,
            "linear": lambda state: _affine(state) @ linear.to(state),
            "euler": lambda state: state + self.dt * rates(state, self.mu),
            "leapfrog": lambda state: leapfrog(state, self.mu, self.dt),
            "rk4": lambda state: rk4(state, self.mu, self.dt),
            "classical-start": lambda state: classical(state, self.mu, self.dt, self.start_steps),
        }
        return {name: _predictor(step) for name, step in steps.items()}

    def with_start_steps(self, count: int) -> Kepler:
        """The same task whose baseline `classical-start` takes `count` Newton steps, for a comparison at equal cost."""
        other = copy.copy(self)
        other.start_steps = count
        return other

    def advance(self, inputs: Inputs, outputs: Tensor) -> Inputs:
        """The state that was reached."""
        return outputs

    def invariants(self, state: Tensor, context: Mapping[str, Tensor] | None = None) -> Mapping[str, Tensor]:
        """Energy and angular momentum "batch"."""
        return {"energy": energy(state, self.mu), "angular_momentum": angular_momentum(state)}

    def test_samples(self, level: Level, where: Place) -> int:
        """Five to ten times the usual number, because squared errors have long tails: few states near periapsis count most."""
        return TEST_SAMPLES[level]

    def certify(self, cassette: Cassette, *, level: Level, seed: int) -> Certificate:
        """What is proved of a network that stays on the orbit, beside samples; else a sampled certificate."""
        from grokkit_kepler.certify import certify_flow, certify_on_orbit

        if cassette.manifest.architecture.id == "grokkit_kepler/on-orbit":
            return certify_on_orbit(self, cassette, level=level, seed=seed)
        return certify_flow(self, cassette, level=level, seed=seed)


def mirror(direction: int) -> Tensor:
    """Factors "4" of a state: 1, or for clockwise orbits -1 of y and vy."""
    return torch.tensor([1.0, direction, 1.0, direction], dtype=torch.float64)


def states_of(axis: Tensor, eccentricity: Tensor, argument: Tensor, mean_anomaly: Tensor, mu: float) -> Tensor:
    """Counter-clockwise states "n 4" from elements "n" (angles in rad)."""
    anomaly = solved(eccentricity, torch.zeros_like(axis), mean_anomaly)
    sine, cosine = torch.sin(anomaly), torch.cos(anomaly)
    minor = torch.sqrt(1 - eccentricity.square())
    speed = torch.sqrt(mu / axis) / (1 - eccentricity * cosine)
    position = torch.complex(axis * (cosine - eccentricity), axis * minor * sine)
    velocity = torch.complex(-speed * sine, speed * minor * cosine)
    turn = torch.polar(torch.ones_like(argument), argument)
    return torch.cat([torch.view_as_real(turn * part) for part in (position, velocity)], 1)


def rates(state: Tensor, mu: float) -> Tensor:
    """Velocity and acceleration "batch 4"."""
    position = state[:, :2]
    inverse = torch.rsqrt(position.square().sum(1, keepdim=True))
    return torch.cat((state[:, 2:], -mu * inverse * inverse * inverse * position), 1)


def leapfrog(state: Tensor, mu: float, dt: float) -> Tensor:
    """One kick-drift-kick step "batch 4"."""
    middle = state[:, 2:] + dt / 2 * rates(state, mu)[:, 2:]
    position = state[:, :2] + dt * middle
    last = torch.cat((position, middle), 1)
    return torch.cat((position, middle + dt / 2 * rates(last, mu)[:, 2:]), 1)


def rk4(state: Tensor, mu: float, dt: float, steps: int = 1) -> Tensor:
    """`steps` classical Runge-Kutta steps over a time `dt`: "batch 4"."""
    part = dt / steps
    for _ in range(steps):
        first = rates(state, mu)
        second = rates(state + part / 2 * first, mu)
        third = rates(state + part / 2 * second, mu)
        fourth = rates(state + part * third, mu)
        state = state + part / 6 * (first + 2 * (second + third) + fourth)
    return state


def classical(state: Tensor, mu: float, dt: float, steps: int) -> Tensor:
    """The exact algebra from the start n dt/(1 - ec) and `steps` Newton steps: "batch 4", in float64 inside."""
    orbit = orbit_of(state, mu)
    turn = orbit.motion * dt
    step = turn / (1 - orbit.ec)
    for _ in range(steps):
        step = newton(step, orbit.ec, orbit.es, turn)
    return moved(state.double(), orbit, step).to(state.dtype)


def _band(eccentricity: Sequence[float]) -> tuple[float, float]:
    if len(eccentricity) != 2 or not 0 <= eccentricity[0] <= eccentricity[1] < 1:
        raise UsageError(f"eccentricity {list(eccentricity)}", expected="two numbers, 0 <= low <= high < 1")
    return float(eccentricity[0]), float(eccentricity[1])


def _affine(state: Tensor) -> Tensor:
    return torch.cat((state, torch.ones_like(state[:, :1])), 1)


def _predictor(step: Callable[[Tensor], Tensor]) -> Predictor:
    return lambda inputs, context: step(_tensor(inputs))


def _tensor(inputs: Inputs) -> Tensor:
    assert isinstance(inputs, Tensor)
    return inputs
