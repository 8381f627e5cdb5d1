"""Kepler's equation by itself: its sampler, oracle and baselines."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from grokkit_core.dtypes import cast
from grokkit_core.errors import UsageError
from grokkit_core.task import Batch, Inputs, Predictor, Task
from grokkit_kepler.orbit import newton, solved
from grokkit_kepler.plugin import MOST_ECCENTRIC
from grokkit_kepler.quadrature import NODES_OF_ANOMALY, NODES_OF_ECCENTRICITY, circle, gauss, product

if TYPE_CHECKING:
    from grokkit_core.cassette import Cassette
    from grokkit_core.manifest import Certificate, Level


class KeplerEquation(Task):
    """Inputs `mean_anomaly` [rad] and `eccentricity`, target `eccentric_anomaly` [rad], each "batch": M = E - e sin E."""

    def sample(self, n: int, *, generator: torch.Generator, **where: Any) -> Batch:
        """`n` pairs with M uniform in [0, 2 pi) and e uniform in [0, 0.6]. Raises `UsageError` for settings: it has none."""
        if where:
            raise UsageError(f"sampler setting '{next(iter(where))}'", expected="none")
        draw = torch.rand((2, n), generator=generator, dtype=torch.float64)
        inputs = {"mean_anomaly": 2 * math.pi * draw[0], "eccentricity": MOST_ECCENTRIC * draw[1]}
        return Batch(inputs, self.oracle(inputs, {}))

    def quadrature(self) -> tuple[Batch, Tensor]:
        """Nodes and weights that stand for the whole distribution."""
        rules = circle(NODES_OF_ANOMALY), gauss(0.0, MOST_ECCENTRIC, NODES_OF_ECCENTRICITY)
        (mean, eccentricity), weights = product(*rules)
        inputs = {"mean_anomaly": mean, "eccentricity": eccentricity}
        return Batch(inputs, self.oracle(inputs, {})), weights

    def oracle(self, inputs: Inputs, context: Mapping[str, Tensor]) -> Tensor:
        """The exact E "batch" [rad], by Newton's method to rounding, in float64."""
        mean, eccentricity = (tensor.double() for tensor in pair(inputs))
        return solved(eccentricity, torch.zeros_like(mean), mean)

    def error(self, prediction: Tensor, target: Tensor) -> Tensor:
        """The squared error "batch" [rad^2]."""
        return (cast(prediction, torch.float64) - cast(target, torch.float64)).square()

    def baselines(self, calibration: Batch) -> Mapping[str, Predictor]:
        """E = M, E = M + e sin M, and the latter with one, two and three Newton steps."""
        classical = {f"newton-{count}" if count else "first-order": _classical(count) for count in range(4)}
        return {"circle": lambda inputs, context: pair(inputs)[0], **classical}

    def certify(self, cassette: Cassette, *, level: Level, seed: int) -> Certificate:
        """A proved error bound for all M and e of the range where the network allows one, beside samples."""
        from grokkit_kepler.certify import certify_anomaly

        if cassette.manifest.architecture.id == "grokkit_kepler/anomaly":
            return certify_anomaly(self, cassette, level=level, seed=seed)
        return super().certify(cassette, level=level, seed=seed)


def pair(inputs: Inputs) -> tuple[Tensor, Tensor]:
    """Mean anomaly and eccentricity, each "batch"."""
    assert not isinstance(inputs, Tensor)
    return inputs["mean_anomaly"], inputs["eccentricity"]


def _classical(steps: int) -> Predictor:
    """M + e sin M and that many Newton steps."""

    def predict(inputs: Inputs, context: Mapping[str, Tensor]) -> Tensor:
        mean, eccentricity = pair(inputs)
        found = mean + eccentricity * torch.sin(mean)
        for _ in range(steps):
            found = newton(found, eccentricity, torch.zeros_like(mean), mean)
        return found

    return predict
