"""Stencils by descent, and the nonlinear comparison."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from grokkit_core.streams import stream
from grokkit_core.task import Batch, Task
from grokkit_core.training.gradient import GradientRecipe, fresh
from grokkit_core.training.quasi_newton import FullBatchRecipe
from grokkit_wave.least_squares import StencilRecipe, fields, one_lam2

DECAY = 1e-4
LAST = 0.01
"""Share of the learning rate that is left at the end of the linear decay."""

EVALUATE_EVERY = 100
HELD_OUT = 256


class QuasiNewton(StencilRecipe, FullBatchRecipe):
    """6 coefficients by L-BFGS with a strong Wolfe line search on 256 random fields, until nothing moves."""

    def data(self, task: Task, settings: Mapping[str, Any], seed: int) -> Batch:
        """Random fields."""
        return fields(one_lam2(task), settings, seed, "train")

    def iterations(self, settings: Mapping[str, Any]) -> int:
        """As set."""
        return int(settings["steps"])


class FullBatchAdam(StencilRecipe, GradientRecipe):
    """6 coefficients by Adam on 256 random fields at every step, lr 3e-2 with half a cosine to 0."""

    def optimizer(self, parameters: Sequence[nn.Parameter], settings: Mapping[str, Any]) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(parameters, lr=settings["lr"])

    def batches(self, task: Task, settings: Mapping[str, Any], seed: int) -> Callable[[int], Batch]:
        """All fields at every step."""
        batch = fields(one_lam2(task), settings, seed, "train")
        return lambda step: batch

    def steps(self, settings: Mapping[str, Any]) -> int:
        """As set."""
        return int(settings["steps"])

    def evaluate_every(self, settings: Mapping[str, Any]) -> int:
        """A hundred steps."""
        return EVALUATE_EVERY

    def learning_rate(self, step: int, settings: Mapping[str, Any]) -> float:
        """Half a cosine to 0."""
        return float(settings["lr"]) / 2 * (1 + math.cos(math.pi * step / settings["steps"]))


class Sine(GradientRecipe):
    """The published network on fresh random fields of one amplitude: AdamW, lr 3e-3 with linear decay to 1 %.

    A negative control: it learns a fit of one range of amplitudes, not the stencil.
    """

    def config(self, task: Task, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        """The law's boundary and lam2, and the amplitude of the fields."""
        law = one_lam2(task)
        own = {name: parameters[name] for name in ("channels", "amplitude")}
        return {"boundary": law.boundary, "lam2": law.lam2, **own}

    def optimizer(self, parameters: Sequence[nn.Parameter], settings: Mapping[str, Any]) -> torch.optim.Optimizer:
        """AdamW."""
        return torch.optim.AdamW(parameters, lr=settings["lr"], weight_decay=DECAY)

    def batches(self, task: Task, settings: Mapping[str, Any], seed: int) -> Callable[[int], Batch]:
        """Fresh fields at every step."""
        return fresh(task, settings["batch"], seed, **self._where(settings))

    def validation(self, task: Task, parameters: Mapping[str, Any], seed: int) -> Batch:
        """Fresh fields of the same amplitude."""
        return task.sample(HELD_OUT, generator=stream(seed, "validation"), **self._where(parameters))

    def _where(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        return {"grid": settings["grid"], "amplitude": settings["amplitude"]}

    def steps(self, settings: Mapping[str, Any]) -> int:
        """As set."""
        return int(settings["steps"])

    def evaluate_every(self, settings: Mapping[str, Any]) -> int:
        """A hundred steps."""
        return EVALUATE_EVERY

    def learning_rate(self, step: int, settings: Mapping[str, Any]) -> float:
        """A straight line to 1 %."""
        return float(settings["lr"]) * (1 - (1 - LAST) * step / int(settings["steps"]))

    def summary(self, task: Task, parameters: Mapping[str, Any]) -> str:
        """One line for the manifest."""
        law, amplitude = one_lam2(task), parameters["amplitude"]
        return f"sine convolutions at lam2 = {law.lam2:g}, random fields of amplitude {amplitude:g}: a fit, not the stencil"
