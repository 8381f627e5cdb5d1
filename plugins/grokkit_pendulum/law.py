"""The double pendulum: its law, sampler, oracle, baselines and energy.

Two point masses on massless rods, angles from the downward vertical, no friction. With a, b the angles [rad], w, z their
velocities [rad/s] and d = a - b, the Lagrangian is
L = (m1+m2) l1^2 w^2/2 + m2 l1 l2 w z cos d + m2 l2^2 z^2/2 + (m1+m2) g l1 cos a + m2 g l2 cos b.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from grokkit_core.errors import UsageError
from grokkit_core.streams import stream
from grokkit_core.task import Batch, Inputs, Predictor, Task
from grokkit_pendulum.integrators import rk4, substeps

if TYPE_CHECKING:
    from grokkit_core.cassette import Cassette
    from grokkit_core.manifest import Certificate, Level

FASTEST = 3.0
"""Angular velocities are drawn from [-3, 3] rad/s, angles from one whole turn."""

ORACLE_STEP = 0.02 / 64
"""Step of the oracle's RK4 [s]: within 2e-13 of DOP853 at dt = 0.02, within 2e-12 at dt = 0.1."""

PROBES, AGREED, MOST_STEPS = 256, 2e-11, 2**12
"""The oracle's step is halved until this changes no probe by a larger share of the largest; the finer result is then right to some 1e-12."""

ORACLE_ROWS = 4_096
"""States integrated at a time; more do not stay in the processor's cache."""


@dataclass(frozen=True)
class Rods:
    """The constants: masses [kg], lengths [m], gravity [m/s^2]."""

    m1: float = 1.0
    m2: float = 1.0
    l1: float = 1.0
    l2: float = 1.0
    g: float = 9.81

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Rods:
        """Those among the parameters of a task or the config of a network."""
        return cls(**{name: float(values[name]) for name in ("m1", "m2", "l1", "l2", "g")})

    @property
    def inertia(self) -> tuple[float, float, float]:
        """What multiplies w^2/2, w z cos d and z^2/2 in the kinetic energy [kg m^2]."""
        return (self.m1 + self.m2) * self.l1**2, self.m2 * self.l1 * self.l2, self.m2 * self.l2**2

    @property
    def weight(self) -> tuple[float, float]:
        """What multiplies -cos a and -cos b in the potential energy [J]."""
        return (self.m1 + self.m2) * self.g * self.l1, self.m2 * self.g * self.l2

    def field(self, state: Tensor) -> Tensor:
        """The law: (a', b', w', z') "4 batch" at a state (a, b, w, z) "4 batch"."""
        a, b, w, z = state
        first, mixed, second = self.inertia
        sine, cosine = mixed * torch.sin(a - b), mixed * torch.cos(a - b)
        torque1 = -sine * z * z - self.weight[0] * torch.sin(a)
        torque2 = sine * w * w - self.weight[1] * torch.sin(b)
        determinant = first * second - cosine * cosine
        turned1 = (second * torque1 - cosine * torque2) / determinant
        turned2 = (first * torque2 - cosine * torque1) / determinant
        return torch.stack((w, z, turned1, turned2))

    def energy(self, state: Tensor) -> Tensor:
        """Kinetic and potential energy [J] "batch" of states (a, b, w, z) "batch 4", zero at the height of the pivot."""
        a, b, w, z = state.unbind(-1)
        first, mixed, second = self.inertia
        kinetic = (first * w * w + second * z * z) / 2 + mixed * w * z * torch.cos(a - b)
        return kinetic - self.weight[0] * torch.cos(a) - self.weight[1] * torch.cos(b)

    def momenta(self, state: Tensor) -> Tensor:
        """(a, b, p1, p2) "4 batch" of (a, b, w, z) "4 batch": p = M(d) (w, z) [kg m^2/s]."""
        a, b, w, z = state
        first, mixed, second = self.inertia
        cosine = mixed * torch.cos(a - b)
        return torch.stack((a, b, first * w + cosine * z, cosine * w + second * z))

    def velocities(self, canonical: Tensor) -> Tensor:
        """(a, b, w, z) "4 batch" of (a, b, p1, p2) "4 batch"."""
        a, b, p, q = canonical
        first, mixed, second = self.inertia
        cosine = mixed * torch.cos(a - b)
        determinant = first * second - cosine * cosine
        return torch.stack((a, b, (second * p - cosine * q) / determinant, (first * q - cosine * p) / determinant))


class Pendulum(Task):
    """The state "batch 4" = (theta1, theta2, omega1, omega2) a time dt later; angles are not wrapped in the output."""

    @property
    def dt(self) -> float:
        """The time step [s]."""
        return float(self.parameters["dt"])

    @property
    def rods(self) -> Rods:
        """Masses, lengths and gravity."""
        return Rods.of(self.parameters)

    def sample(
        self, n: int, *, generator: torch.Generator, angle: float = math.pi, velocity: float = FASTEST, **where: Any
    ) -> Batch:
        """`n` states, uniform in angles up to `angle` [rad] and velocities up to `velocity` [rad/s], with their successors.

        Raises `UsageError` for unknown settings.
        """
        if where:
            raise UsageError(f"sampler setting '{next(iter(where))}'", expected="angle or velocity")
        limits = torch.tensor([angle, angle, velocity, velocity], dtype=torch.float64)
        states = (2 * torch.rand((n, 4), generator=generator, dtype=torch.float64) - 1) * limits
        return Batch(states, self.oracle(states, {}))

    def oracle(self, inputs: Inputs, context: Mapping[str, Tensor]) -> Tensor:
        """The state "batch 4" after dt in float64, by RK4 with steps of at most 0.3 ms."""
        parts = [
            rk4(self.rods.field, part.T.contiguous(), self.dt, self.oracle_steps).T
            for part in torch.split(_state(inputs).double(), ORACLE_ROWS)
        ]
        return torch.cat(parts).contiguous()

    @cached_property
    def oracle_steps(self) -> int:
        """Steps of the oracle in one dt: as many as half of them agree with on states of the sampling box.

        Raises `UsageError` for constants so stiff that no affordable number does.
        """
        draw = 2 * torch.rand((4, PROBES), generator=stream(0, "oracle"), dtype=torch.float64) - 1
        states = draw * draw.new_tensor([math.pi, math.pi, FASTEST, FASTEST]).unsqueeze(1)
        count = substeps(self.dt, ORACLE_STEP)
        rough = rk4(self.rods.field, states, self.dt, -(-count // 2))
        while count <= MOST_STEPS:
            fine = rk4(self.rods.field, states, self.dt, count)
            if float((fine - rough).abs().max()) <= AGREED * float(fine.abs().max()):
                return count
            count, rough = 2 * count, fine
        raise UsageError(
            f"a step of {self.dt:g} s for these masses and lengths", expected="constants that can be integrated"
        )

    def error(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Mean square over (theta1/pi, theta2/pi, omega1, omega2), one number a sample, in float64."""
        return scaled(prediction.double() - target.double()).square().mean(1)

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        """The metric of the change per second, which is of order one whatever the step."""
        return scaled((prediction - target) / self.dt).square().mean()

    def baselines(self, calibration: Batch) -> Mapping[str, Predictor]:
        """Two that do not know the law, persistence and a linear map, and two that do, one step of Euler and of RK4."""
        weights = _linear(calibration)
        field, dt = self.rods.field, self.dt

        def euler(inputs: Inputs, context: Mapping[str, Tensor]) -> Tensor:
            state = _state(inputs).T
            return (state + dt * field(state)).T

        return {
            "persistence": lambda inputs, context: _state(inputs),
            "linear": lambda inputs, context: _with_one(_state(inputs)) @ weights,
            "euler": euler,
            "rk4": lambda inputs, context: rk4(field, _state(inputs).T.contiguous(), dt).T,
        }

    def advance(self, inputs: Inputs, outputs: Tensor) -> Inputs:
        """The predicted state is the next input."""
        return outputs

    def invariants(self, state: Tensor, context: Mapping[str, Tensor] | None = None) -> Mapping[str, Tensor]:
        """The energy [J] above that of the pendulum at rest, which is zero nowhere else."""
        return {"energy": self.rods.energy(state) - self.rods.energy(torch.zeros_like(state))}

    def horizon(self, state: Tensor) -> Mapping[str, float]:
        """The Lyapunov time of the most unstable of these states, in seconds and in steps."""
        from grokkit_pendulum.chaos import lyapunov_time

        time = lyapunov_time(self.rods, state)
        return {"lyapunov_time_seconds": time, "lyapunov_time_steps": time / self.dt}

    def certify(self, cassette: Cassette, *, level: Level, seed: int) -> Certificate:
        """Of the law as symbols where it was identified, else sampled; with what else the architecture claims."""
        from grokkit_pendulum.certify import certify_pendulum

        return certify_pendulum(self, cassette, level=level, seed=seed)


def scaled(difference: Tensor) -> Tensor:
    """A difference of states "batch 4" with angles in half turns, as the metric counts them."""
    return difference / difference.new_tensor([math.pi, math.pi, 1.0, 1.0])


def _state(inputs: Inputs) -> Tensor:
    assert isinstance(inputs, Tensor)
    return inputs


def _linear(calibration: Batch) -> Tensor:
    """Least squares of the next state on (state, 1): "5 4" in the dtype of the inputs."""
    states = _state(calibration.inputs)
    solved: Tensor = torch.linalg.lstsq(_with_one(states.double()), calibration.targets, driver="gelsd").solution
    return solved.to(states.dtype)


def _with_one(states: Tensor) -> Tensor:
    return torch.cat((states, torch.ones_like(states[:, :1])), 1)
