"""How the comparison networks are trained: fixed pairs of states, a fixed number of Adam steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from grokkit_core.streams import stream
from grokkit_core.task import Batch, Task, tensors_of
from grokkit_core.training.gradient import VALIDATION_SAMPLES, GradientRecipe, GradientRun, epochs, initialised
from grokkit_core.training.recipe import Run

EVALUATIONS = 40
"""Rows of a training curve."""

LEAST_RATE = 1e-3
"""The learning rate at the end, as a share of that at the start."""

SCALE_PAIRS = 20_000
"""Pairs from which mean and spread of a step's change are taken."""


class _Descent(GradientRecipe):
    """Adam on minibatches of a fixed set, half a cosine down to a thousandth of the learning rate.

    The number of steps is fixed: a schedule by time is not reproducible.
    """

    def optimizer(self, parameters: Sequence[nn.Parameter], settings: Mapping[str, Any]) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(parameters, lr=settings["lr"])

    def steps(self, settings: Mapping[str, Any]) -> int:
        """As set."""
        return int(settings["steps"])

    def evaluate_every(self, settings: Mapping[str, Any]) -> int:
        """Forty times in all."""
        return max(1, int(settings["steps"]) // EVALUATIONS)

    def batches(self, task: Task, settings: Mapping[str, Any], seed: int) -> Callable[[int], Batch]:
        """Minibatches of the fixed pairs, reshuffled every epoch."""
        return epochs(task.sample(settings["pairs"], generator=stream(seed, "train")), settings["batch"], seed)

    def learning_rate(self, step: int, settings: Mapping[str, Any]) -> float:
        """Half a cosine over all steps."""
        down = (1 + math.cos(math.pi * step / settings["steps"])) / 2
        return float(settings["lr"]) * (LEAST_RATE + (1 - LEAST_RATE) * down)

    def validation(self, task: Task, parameters: Mapping[str, Any], seed: int) -> Batch:
        """Fresh states."""
        return task.sample(VALIDATION_SAMPLES, generator=stream(seed, "validation"))


class MlpRecipe(_Descent):
    """The generic network of one time step, its output in units of the spread of a step's change."""

    def config(self, task: Task, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        """The width."""
        return {"width": parameters["width"]}

    def start(
        self,
        task: Task,
        parameters: Mapping[str, Any],
        seeds: Sequence[int],
        *,
        dtype: torch.dtype,
        device: torch.device,
    ) -> Run:
        """A run of these seeds, each with the mean and spread of its own pairs."""
        initial = [self._initial(task, parameters, seed) for seed in seeds]
        return GradientRun(self, task, parameters, seeds, dtype=dtype, device=device, initial=initial)

    def _initial(self, task: Task, parameters: Mapping[str, Any], seed: int) -> Mapping[str, Tensor]:
        build = self.plugins.architecture(self.spec.architecture).build
        batch = task.sample(SCALE_PAIRS, generator=stream(seed, "scale"))
        change = batch.targets - tensors_of(batch.inputs)[0]
        tensors = initialised(build, self.config(task, parameters), seed).state_dict()
        return {**tensors, "mean": change.mean(0), "spread": change.std(0)}

    def summary(self, task: Task, parameters: Mapping[str, Any]) -> str:
        """One line for the manifest."""
        return f"double pendulum: generic residual network, 2 hidden layers of {parameters['width']}, one time step"


class SymplecticRecipe(_Descent):
    """The network of shears."""

    citation = ("P. Jin et al., SympNets: intrinsic structure-preserving symplectic networks, 2020",)

    def config(self, task: Task, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        """The constants of the task and the sizes."""
        return {**task.parameters, "shears": parameters["shears"], "width": parameters["width"]}

    def summary(self, task: Task, parameters: Mapping[str, Any]) -> str:
        """One line for the manifest."""
        return (
            f"double pendulum: {parameters['shears']} symplectic shears of {parameters['width']} units, one time step"
        )
