"""The exact law of cyclotron motion, its sampler and its baselines.

Complex notation: position x = X + iY, velocity v = VX + iVY, angular frequency omega [rad/s], step dt [s],
q = exp(i omega dt). Source of the sampler: the public repository grisuno/supertopo3 and its paper.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from grokkit_core.errors import UsageError
from grokkit_core.task import Batch, Inputs, Predictor, Task
from grokkit_cyclotron.plugin import WINDOW

if TYPE_CHECKING:
    from grokkit_core.cassette import Cassette
    from grokkit_core.manifest import Certificate, Level

TEST_OMEGAS = (0.9, 1.2, 1.5, 2.0, 2.2)
"""Test frequencies of the published tables [rad/s]."""

GATE_OMEGAS = (1.5, 2.0, 2.2)
"""Frequencies on which the published gate is fitted [rad/s]."""

KNOT_OMEGAS = (0.85, 1.0, 1.35, 1.8, 2.5)
"""Frequencies at which closed-form gates are solved: none of them a test frequency, none that of the training [rad/s]."""

TRAINING_RANGE = (0.8, 2.5)
"""Range of the published curriculum [rad/s]."""


class Cyclotron(Task):
    """Next state of a charge on a circle. Inputs `states` "batch 15 4", targets `state` "batch 4", context `omega`."""

    evaluation = tuple({"omega": omega} for omega in TEST_OMEGAS)
    calibration = tuple({"omega": omega} for omega in GATE_OMEGAS)
    knots = tuple({"omega": omega} for omega in KNOT_OMEGAS)
    training_range: Mapping[str, tuple[float, float]] = {"omega": TRAINING_RANGE}

    @property
    def dt(self) -> float:
        """Time between states [s]."""
        return float(self.parameters["dt"])

    def sample(
        self,
        n: int,
        *,
        generator: torch.Generator,
        omega: float = 0.8,
        phase: Literal["fixed", "random"] = "fixed",
        **where: Any,
    ) -> Batch:
        """`n` windows at one omega [rad/s] in float64, by the published sampler.

        With phase "fixed" the first velocity always points to -X, so omega can be read off the last state alone; with
        "random" it cannot. Raises `UsageError` for omega = 0 and unknown settings.
        """
        if where:
            raise UsageError(f"sampler setting '{next(iter(where))}'", expected="omega or phase")
        if omega == 0 or not math.isfinite(omega):
            raise UsageError(f"omega = {omega:g}", expected="a finite frequency other than 0, in rad/s")
        if phase not in ("fixed", "random"):
            raise UsageError(f"phase '{phase}'", expected="fixed or random")
        draw = 2 * torch.rand((n, 4), generator=generator, dtype=torch.float64) - 1
        start = None
        if phase == "random":
            start = 2 * math.pi * torch.rand(n, generator=generator, dtype=torch.float64)
        orbit = circle(draw, omega, self.dt, start)
        context = {"omega": torch.full((n,), omega, dtype=torch.float64)}
        return Batch(orbit[:, :WINDOW], orbit[:, WINDOW], context)

    def oracle(self, inputs: Inputs, context: Mapping[str, Tensor]) -> Tensor:
        """The exact next state in float64, q read from the whole window: "batch 4". Needs no omega."""
        assert isinstance(inputs, Tensor)
        return window_map(inputs.double())

    def baselines(self, calibration: Batch) -> Mapping[str, Predictor]:
        """Persistence, Euler, linear extrapolation and the constant mean."""
        mean = calibration.targets.double().mean(0)
        return {
            "persistence": lambda states, context: _tensor(states)[:, -1],
            "euler": lambda states, context: euler(_tensor(states), self.dt),
            "linear": lambda states, context: 2 * _tensor(states)[:, -1] - _tensor(states)[:, -2],
            "mean": lambda states, context: mean.expand(len(_tensor(states)), 4),
        }

    def advance(self, inputs: Inputs, outputs: Tensor) -> Inputs:
        """Slide the window: drop the oldest state, append the predicted one."""
        return torch.cat((_tensor(inputs)[:, 1:], outputs.unsqueeze(1)), 1)

    def certify(self, cassette: Cassette, *, level: Level, seed: int) -> Certificate:
        """A proved relative bound for a rotor, else a sampled certificate."""
        from grokkit_cyclotron.certify import certify_rotor

        if cassette.manifest.architecture.id == "grokkit_cyclotron/rotor":
            return certify_rotor(self, cassette, level=level, seed=seed)
        return super().certify(cassette, level=level, seed=seed)

    def state(self, inputs: Inputs) -> Tensor:
        """The last state "batch 4" of the window."""
        return _tensor(inputs)[:, -1]

    def invariants(self, state: Tensor, context: Mapping[str, Tensor] | None = None) -> Mapping[str, Tensor]:
        """The speed, conserved on a circle."""
        return {"speed": torch.hypot(state[:, 2], state[:, 3])}


def circle(draw: Tensor, omega: float, dt: float, start: Tensor | None = None) -> Tensor:
    """Orbits "n 16 4" from draws (x0, y0, vx0, vy0) "n 4" and start phases "n" (None: 0): the published construction.

    Speed s = |(vx0, vy0)|, radius s/omega, centre (x0 + vy0/omega, y0 - vx0/omega); at phase p the state is
    (cx - R sin p, cy + R cos p, -s cos p, -s sin p).
    """
    x0, y0, vx0, vy0 = draw.unbind(1)
    speed = torch.from_numpy(np.sqrt((vx0 * vx0 + vy0 * vy0).numpy()))  # rounded correctly, which torch's need not be
    radius = speed / omega
    centre_x, centre_y = x0 + vy0 / omega, y0 - vx0 / omega
    states = []
    for step in range(WINDOW + 1):
        sine, cosine = _sine_and_cosine(omega * step * dt, start)
        states.append(
            torch.stack((centre_x - radius * sine, centre_y + radius * cosine, -speed * cosine, -speed * sine), 1)
        )
    return torch.stack(states, 1)


def _sine_and_cosine(phase: float, start: Tensor | None) -> tuple[Tensor | float, Tensor | float]:
    """Of one phase for all orbits with the C library, as published (the last bit of torch's depends on the processor)."""
    if start is None:
        return math.sin(phase), math.cos(phase)
    return torch.sin(start + phase), torch.cos(start + phase)


def window_map(states: Tensor) -> Tensor:
    """The next state "batch 4" from a window "batch time 4", time >= 2: q from all velocities, then one rotation.

    Exact for every omega and dt. A body at rest stays at rest.
    """
    position, velocity = _complex(states)
    correlation = (velocity[:, 1:] * velocity[:, :-1].conj()).sum(1)
    size = correlation.abs()
    q = torch.where(size > 0, correlation / size.clamp_min(torch.finfo(size.dtype).tiny), torch.ones_like(correlation))
    return _real(position[:, -1] + q * (position[:, -1] - position[:, -2]), q * velocity[:, -1])


def two_state_map(states: Tensor) -> Tensor:
    """The next state "batch 4" from the last two of a window "batch time 4". Exact for every omega and dt."""
    position, velocity = _complex(states)
    before, last = velocity[:, -2], velocity[:, -1]
    q = _quotient(last, before)
    return _real(position[:, -1] + q * (position[:, -1] - position[:, -2]), q * last)


def known_omega_map(state: Tensor, omega: Tensor, dt: float) -> Tensor:
    """The next state "batch 4" from one state "batch 4" and omega "batch" [rad/s]. Exact."""
    position, velocity = _complex(state.unsqueeze(1))
    q = torch.exp(1j * omega * dt)
    return _real(position[:, 0] + velocity[:, 0] * (q - 1) / (1j * omega), q * velocity[:, 0])


def jump(states: Tensor, steps: int) -> Tensor:
    """The state "batch 4" after `steps` steps from the last two of a window: powers of q and a geometric sum. Exact."""
    position, velocity = _complex(states)
    before, last = velocity[:, -2], velocity[:, -1]
    q = _quotient(last, before)
    powers = q.unsqueeze(1) ** torch.arange(1, steps + 1)
    return _real(position[:, -1] + powers.sum(1) * (position[:, -1] - position[:, -2]), powers[:, -1] * last)


def _quotient(last: Tensor, before: Tensor) -> Tensor:
    """The turn q of two complex velocities "batch"; 1 for a body at rest."""
    size = before.abs().square()
    turned = last * before.conj() / size.clamp_min(torch.finfo(size.dtype).tiny)
    return torch.where(size > 0, turned, torch.ones_like(last))


def euler(states: Tensor, dt: float) -> Tensor:
    """One explicit Euler step with the velocity kept: "batch 4"."""
    last = states[:, -1]
    return torch.cat((last[:, :2] + dt * last[:, 2:], last[:, 2:]), 1)


def _tensor(inputs: Inputs) -> Tensor:
    assert isinstance(inputs, Tensor)
    return inputs


def _complex(states: Tensor) -> tuple[Tensor, Tensor]:
    return torch.complex(states[..., 0], states[..., 1]), torch.complex(states[..., 2], states[..., 3])


def _real(position: Tensor, velocity: Tensor) -> Tensor:
    return torch.stack((position.real, position.imag, velocity.real, velocity.imag), -1)
