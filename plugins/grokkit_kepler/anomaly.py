"""The network of Kepler's equation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from grokkit_core.architecture import Architecture
from grokkit_core.cassette import Cassette
from grokkit_core.errors import Incompatible
from grokkit_core.tensors import Signature
from grokkit_kepler.on_orbit import tanh_network
from grokkit_kepler.orbit import TURN, error_bound, newton, solved
from grokkit_kepler.plugin import EQUATION, MOST_ECCENTRIC
from grokkit_kepler.range_check import SLACK


@dataclass(frozen=True)
class AnomalyAnswer:
    """`eccentric_anomaly` "batch" [rad], a proved bound `error` of its distance from the solution (float64), and whether
    the pair lay outside the trained range and was solved by Newton's method to convergence (`iterated`)."""

    eccentric_anomaly: Tensor
    error: Tensor
    iterated: Tensor


class AnomalyArchitecture(Architecture):
    """`grokkit_kepler/anomaly`: config `width`, `depth`, `newton`. The verb `solve_with_bound` adds a proved error."""

    verbs = ("solve_with_bound",)

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        """The network with PyTorch's default initialisation, in float64."""
        return Anomaly(config["width"], config["depth"], config["newton"])

    def signature(self, config: Mapping[str, Any]) -> Signature:
        """`mean_anomaly` and `eccentricity` to `eccentric_anomaly`, each "batch"."""
        return EQUATION

    def check_inputs(
        self, module: nn.Module, inputs: Sequence[Tensor], context: Mapping[str, Tensor], *, force: bool
    ) -> None:
        """Eccentricities outside [0, 1) and numbers that are not finite are refused even when forced."""
        mean, eccentricity = inputs
        if not bool((torch.isfinite(mean) & (eccentricity >= 0) & (eccentricity < 1)).all()):
            raise Incompatible("no ellipse", expected="a finite mean anomaly and 0 <= eccentricity < 1")

    def solve_with_bound(
        self, cassette: Cassette, mean_anomaly: Tensor, eccentricity: Tensor, *, force: bool = False
    ) -> AnomalyAnswer:
        """E "batch" with a proved bound of its error; raises as a call does.

        The bound covers the answer as it is given: one in float32 is rounded, and its residual says so.
        """
        inputs = {"mean_anomaly": mean_anomaly, "eccentricity": eccentricity}
        answer = cassette.predict(inputs, force=force)
        with torch.inference_mode():
            mean, e = mean_anomaly.double(), eccentricity.double()
            bound = error_bound(answer.double(), e, torch.zeros_like(mean), mean)
        return AnomalyAnswer(answer, bound, e > MOST_ECCENTRIC + SLACK)


class Anomaly(nn.Module):
    """E = M + e sin M N(e, cos M), then `newton` Newton steps; N is an MLP with tanh. 697 parameters by default."""

    def __init__(self, width: int, depth: int, newton: int) -> None:
        super().__init__()
        self.newton = newton
        self.layers = tanh_network(2, width, depth)

    def forward(self, mean_anomaly: Tensor, eccentricity: Tensor) -> Tensor:
        """E "batch" [rad], computed in float64 on one turn and given in the dtype of the inputs."""
        mean, e = mean_anomaly.double(), eccentricity.double()
        whole = TURN * torch.round(mean / TURN)
        mean, none = mean - whole, torch.zeros_like(mean)
        found = mean + e * torch.sin(mean) * self.factor(mean, e)
        for _ in range(self.newton):
            found = newton(found, e, none, mean)
        beyond = e > MOST_ECCENTRIC + SLACK
        if bool(beyond.any()):
            found = torch.where(beyond, solved(e, none, mean), found)
        return (found + whole).to(mean_anomaly.dtype)

    def features(self, mean: Tensor, eccentricity: Tensor) -> Tensor:
        """What the network reads: e brought to [-1, 1] and cos M, "batch 2"."""
        return torch.stack((2 * eccentricity / MOST_ECCENTRIC - 1, torch.cos(mean)), 1)

    def factor(self, mean: Tensor, eccentricity: Tensor) -> Tensor:
        """N "batch", which stands for (E - M)/(e sin M)."""
        features = self.features(mean, eccentricity).to(next(self.parameters()).dtype)
        factor: Tensor = self.layers(features).squeeze(1)
        return factor.double()


def exact_factor(mean: Tensor, eccentricity: Tensor, anomaly: Tensor) -> Tensor:
    """(E - M)/(e sin M) = sin E / sin M "batch"; its limits are 1/(1 - e) at M = 0, 1/(1 + e) at M = pi, and 1 at e = 0."""
    sine = torch.sin(mean)
    limit = 1 / (1 - eccentricity * torch.cos(mean))
    return torch.where(sine == 0, limit, torch.sin(anomaly) / torch.where(sine == 0, 1.0, sine))
