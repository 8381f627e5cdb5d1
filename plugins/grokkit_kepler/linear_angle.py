"""The law of kepler_orbit_grokker, which is not Kepler's: the angle of a conic grows linearly in time at a rate 0.2 h.

Kepler's rate is h/r^2. The input t is a nuisance: given (x, y, h, e), the target does not depend on it.
Source: the public repository grisuno/kepler_orbit_grokker.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from grokkit_core.errors import UsageError
from grokkit_core.task import Batch, Inputs, Predictor, Task, tensors_of
from grokkit_kepler.plugin import MOST_ECCENTRIC

MOMENTA = (0.8, 1.5)
TIMES = 3.0
RATE = 0.2
"""Angle per time and h [rad]."""

ADVANCE = 0.02
"""Angle per h that the target is ahead [rad]: a time of 0.1."""

LEAST_NOISE = 0.1
"""Noise is relative to the coordinate, or to this where that is smaller."""


class LinearAngle(Task):
    """Inputs `orbit` "batch 5" = (x, y, h, e, t) with noise on x and y, targets `position` "batch 2" without."""

    noisy = True

    def sample(self, n: int, *, generator: torch.Generator, **where: Any) -> Batch:
        """`n` rows with h in [0.8, 1.5], e in [0, 0.6], a start angle in [0, 2 pi) and t in [0, 3], all uniform.

        Raises `UsageError` for settings: it has none.
        """
        if where:
            raise UsageError(f"sampler setting '{next(iter(where))}'", expected="none")
        draw = torch.rand((4, n), generator=generator, dtype=torch.float64)
        momentum = MOMENTA[0] + (MOMENTA[1] - MOMENTA[0]) * draw[0]
        eccentricity, time = MOST_ECCENTRIC * draw[1], TIMES * draw[3]
        angle = 2 * math.pi * draw[2] + RATE * momentum * time
        place = on_conic(angle, momentum, eccentricity)
        noise = torch.randn((n, 2), generator=generator, dtype=torch.float64)
        seen = place + self.parameters["noise"] * place.abs().clamp_min(LEAST_NOISE) * noise
        inputs = torch.cat((seen, torch.stack((momentum, eccentricity, time), 1)), 1)
        return Batch(inputs, on_conic(angle + ADVANCE * momentum, momentum, eccentricity))

    def oracle(self, inputs: Inputs, context: Mapping[str, Tensor]) -> Tensor:
        """The formula on the position that is seen, "batch 2" in float64: as good as the noise allows, exact without it."""
        return formula(tensors_of(inputs)[0].double())

    def baselines(self, calibration: Batch) -> Mapping[str, Predictor]:
        """Persistence, linear least squares, and the formula on the noisy input, which is the floor."""
        known = tensors_of(calibration.inputs)[0].double()
        fitted = torch.linalg.lstsq(_affine(known), calibration.targets.double()).solution
        return {
            "persistence": lambda inputs, context: tensors_of(inputs)[0][:, :2],
            "linear": lambda inputs, context: _affine(tensors_of(inputs)[0]) @ fitted.to(tensors_of(inputs)[0]),
            "formula": lambda inputs, context: formula(tensors_of(inputs)[0]),
        }


def on_conic(angle: Tensor, momentum: Tensor, eccentricity: Tensor) -> Tensor:
    """The points "n 2" at these polar angles "n" [rad] of r = h^2/(1 + e cos angle)."""
    radius = momentum.square() / (1 + eccentricity * torch.cos(angle))
    return torch.stack((radius * torch.cos(angle), radius * torch.sin(angle)), 1)


def formula(orbit: Tensor) -> Tensor:
    """The next position "batch 2" from rows (x, y, h, e, t) "batch 5": the angle is read off the position."""
    x, y, momentum, eccentricity, _ = orbit.unbind(1)
    return on_conic(torch.atan2(y, x) + ADVANCE * momentum, momentum, eccentricity)


def _affine(orbit: Tensor) -> Tensor:
    return torch.cat((orbit, torch.ones_like(orbit[:, :1])), 1)
