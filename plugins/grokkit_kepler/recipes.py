"""How the networks of invariants are trained: L-BFGS on a smooth target, all samples at once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from grokkit_core.streams import stream
from grokkit_core.task import Batch, Task, tensors_of
from grokkit_core.training.gradient import VALIDATION_SAMPLES
from grokkit_core.training.quasi_newton import FullBatchRecipe
from grokkit_kepler.anomaly import Anomaly, exact_factor
from grokkit_kepler.equation import pair
from grokkit_kepler.law import EITHER, Kepler
from grokkit_kepler.on_orbit import OnOrbit
from grokkit_kepler.orbit import in_words, orbit_of, solved
from grokkit_kepler.plugin import MOST_ECCENTRIC

HISTORY = 50
WIDENED = 0.002
"""Share by which the range of n dt exceeds that of the sampled orbits, so that its ends lie inside."""

NEAR_PERIAPSIS, CLOSER = 200, 1e-3
"""So many training pairs have their mean anomaly multiplied by this: there E is steepest."""


class _Invariants(FullBatchRecipe):
    """What both share: sizes, iterations, memory; Newton steps stand in the config and are not trained through."""

    def iterations(self, settings: Mapping[str, Any]) -> int:
        """As set."""
        return int(settings["iterations"])

    def history(self, settings: Mapping[str, Any]) -> int:
        """Fifty pairs."""
        return HISTORY

    def config(self, task: Task, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        """Width, depth and Newton steps."""
        return {name: parameters[name] for name in ("width", "depth", "newton")}


class OnOrbitRecipe(_Invariants):
    """6,000 states; the network learns log(d (1 - ec)/(n dt)) of the exact step d in eccentric anomaly."""

    def config(self, task: Task, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        """Sizes, the law's constants, and the range of n dt that they give."""
        return {**super().config(task, parameters), **trained_range(task)}

    def data(self, task: Task, settings: Mapping[str, Any], seed: int) -> Batch:
        """Invariants (ec, es, n dt) "n 3" and the logarithm "n"."""
        assert isinstance(task, Kepler)
        sampled = task.sample(settings["samples"], generator=stream(seed, "train"))
        orbit = orbit_of(tensors_of(sampled.inputs)[0], task.mu)
        turn = orbit.motion * task.dt
        target = torch.log(solved(orbit.ec, orbit.es, turn) * (1 - orbit.ec) / turn)
        return Batch(torch.stack((orbit.ec, orbit.es, turn), 1), target)

    def predict(self, module: nn.Module, batch: Batch, *, reads_context: bool) -> Tensor:
        """N "n" of the invariants."""
        assert isinstance(module, OnOrbit)
        result: Tensor = module.layers(module.features(*tensors_of(batch.inputs)[0].unbind(1))).squeeze(1)
        return result

    def validation(self, task: Task, parameters: Mapping[str, Any], seed: int) -> Batch:
        """Fresh states of either direction."""
        return task.sample(VALIDATION_SAMPLES, generator=stream(seed, "validation"), direction=EITHER)

    def summary(self, task: Task, parameters: Mapping[str, Any]) -> str:
        """One line for the manifest."""
        return f"next state on a bound two-body orbit, e <= {MOST_ECCENTRIC:g}; {in_words(parameters['newton'])} after the network"


class AnomalyRecipe(_Invariants):
    """3,000 pairs with M in [0, pi]; the network learns (E - M)/(e sin M)."""

    def data(self, task: Task, settings: Mapping[str, Any], seed: int) -> Batch:
        """Pairs, a few of them near periapsis, and the factor "n"."""
        draw = torch.rand((2, settings["samples"]), generator=stream(seed, "train"), dtype=torch.float64)
        mean, eccentricity = math.pi * draw[0], MOST_ECCENTRIC * draw[1]
        mean[:NEAR_PERIAPSIS] *= CLOSER
        inputs = {"mean_anomaly": mean, "eccentricity": eccentricity}
        return Batch(inputs, exact_factor(mean, eccentricity, task.oracle(inputs, {})))

    def predict(self, module: nn.Module, batch: Batch, *, reads_context: bool) -> Tensor:
        """N "n" of the pairs."""
        assert isinstance(module, Anomaly)
        return module.factor(*pair(batch.inputs))

    def validation(self, task: Task, parameters: Mapping[str, Any], seed: int) -> Batch:
        """Fresh pairs."""
        return task.sample(VALIDATION_SAMPLES, generator=stream(seed, "validation"))

    def summary(self, task: Task, parameters: Mapping[str, Any]) -> str:
        """One line for the manifest."""
        return f"Kepler's equation, e <= {MOST_ECCENTRIC:g}; {in_words(parameters['newton'])} after the network"


def trained_range(task: Task) -> dict[str, float]:
    """The config fields that say for which orbits a network is trained: mu, dt and the range of n dt."""
    assert isinstance(task, Kepler)
    low, high = task.turns
    least, most = low * (1 - WIDENED), high * (1 + WIDENED)
    return {"mu": task.mu, "dt": task.dt, "least_turn": least, "most_turn": most}
