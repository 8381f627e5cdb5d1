"""A replica of the published training, with its defects, so that they can be seen.

Source: the public repository grisuno/1d_wave_equation_grokker. Its data are one trajectory on a grid that holds its end
points, set to 0 after each step, from a start that is not 0 there: no stencil with zero padding can give that 0. There
are no held-out data, "grokking" is said of the training loss, and lam2 is baked into the weights while the published
transfer changes the grid at a fixed time step. Here validation is another trajectory, and the certificate draws its data
at each size at the same lam2. Not repeated is the cycling of Adam's first moment that goes with the published schedule.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from grokkit_core.errors import UsageError
from grokkit_core.streams import stream
from grokkit_core.task import Batch, Task
from grokkit_core.training.gradient import GradientRecipe
from grokkit_core.training.recipe import Grokking, Stopping
from grokkit_wave.law import with_ends_step
from grokkit_wave.least_squares import one_lam2

DECAY = 1e-4
WARM_UP = 0.1
FIRST, LAST = 1 / 25, 1 / 250_000
"""Shares of the largest learning rate at the start and at the end (one-cycle policy, Smith and Topin 2018)."""


class Published(GradientRecipe):
    """AdamW, weight decay 1e-4, one cycle up to lr 3e-3, full batch of one trajectory, until its own MSE is below 1e-6."""

    citation = ("grisuno/1d_wave_equation_grokker: public repository",)

    def config(self, task: Task, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        """64 channels on a grid with its ends."""
        law = one_lam2(task)
        if law.boundary != "dirichlet":
            raise UsageError(f"the published training with {law.boundary} ends", expected="dirichlet")
        return {"boundary": law.boundary, "lam2": law.lam2, "channels": 64, "amplitude": 1.0, "ends": True}

    def optimizer(self, parameters: Sequence[nn.Parameter], settings: Mapping[str, Any]) -> torch.optim.Optimizer:
        """AdamW."""
        return torch.optim.AdamW(parameters, lr=settings["lr"], weight_decay=DECAY)

    def batches(self, task: Task, settings: Mapping[str, Any], seed: int) -> Callable[[int], Batch]:
        """The whole trajectory at every step."""
        batch = self.training_set(task, settings, seed)
        return lambda step: batch

    def training_set(self, task: Task, parameters: Mapping[str, Any], seed: int) -> Batch:
        """The trajectory that it learns, on which "grokking" was published."""
        return trajectory(task, parameters, seed, "train")

    def validation(self, task: Task, parameters: Mapping[str, Any], seed: int) -> Batch:
        """Another trajectory."""
        return trajectory(task, parameters, seed, "validation")

    def steps(self, settings: Mapping[str, Any]) -> int:
        """As set."""
        return int(settings["steps"])

    def evaluate_every(self, settings: Mapping[str, Any]) -> int:
        """As set."""
        return int(settings["check"])

    def learning_rate(self, step: int, settings: Mapping[str, Any]) -> float:
        """One cycle: a cosine up over the first tenth, another down."""
        top, turn = float(settings["lr"]), max(1.0, WARM_UP * settings["steps"])
        if step < turn:
            return top * _cosine(FIRST, 1.0, step / turn)
        return top * _cosine(1.0, LAST, (step - turn) / max(1.0, settings["steps"] - turn))

    def stopping(self, task: Task, parameters: Mapping[str, Any]) -> Stopping:
        """The published threshold on the training data."""
        return Stopping("train", below=parameters["threshold"])

    def grokking(self, task: Task, parameters: Mapping[str, Any]) -> Grokking:
        """The same threshold on another trajectory."""
        return Grokking(parameters["threshold"])

    def summary(self, task: Task, parameters: Mapping[str, Any]) -> str:
        """One line for the manifest."""
        return f"replica of the published network: one trajectory of {parameters['points']} points with ends"


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * share))


def published_start(points: int, generator: torch.Generator) -> Tensor:
    """A field "points" on a grid with its ends: sum_(k=2..4) 0.3 rand sin(k pi x + phase) + exp(-50 (x - 1/2)^2)."""
    size, turn = torch.rand((2, 3, 1), generator=generator, dtype=torch.float64).unbind(0)
    x = torch.linspace(0, 1, points, dtype=torch.float64)
    k = torch.arange(2, 5, dtype=torch.float64).unsqueeze(1)
    waves = (0.3 * size * torch.sin(k * math.pi * x + 2 * math.pi * turn)).sum(0)
    return waves + torch.exp(-50 * (x - 0.5).square())


def trajectory(task: Task, settings: Mapping[str, Any], seed: int, purpose: str) -> Batch:
    """All pairs of one trajectory on a grid with its ends, as published: the start is not 0 there, what follows is."""
    law = one_lam2(task)
    assert law.lam2 is not None
    u = published_start(int(settings["points"]), stream(seed, purpose))
    states = [u, u]
    for _ in range(int(settings["rows"])):
        states.append(with_ends_step(states[-1], states[-2], law.lam2))
    kept = torch.stack(states)
    context = {"lam2": torch.full((len(kept) - 2,), law.lam2, dtype=torch.float64)}
    return Batch(torch.stack((kept[1:-1], kept[:-2]), 1), kept[2:], context)
