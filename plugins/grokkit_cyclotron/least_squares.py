"""The rotor's recipe: Adam to come near, Levenberg-Marquardt to arrive, another start where that fails."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from grokkit_core.streams import stream
from grokkit_core.task import Batch, Task, tensors_of
from grokkit_core.training.lanes import LanesRun
from grokkit_core.training.least_squares import DAMPING, LeastSquaresLane
from grokkit_core.training.recipe import Recipe, Run, State
from grokkit_cyclotron.recipes import WINDOWS_EACH, windows
from grokkit_cyclotron.two_state import Rotor, rotate, rotate_jacobian

ADAM_STEPS = 300
ADAM_RATE = 1e-2
EVALUATE_EVERY = 25
"""Adam steps between rows of the curve; every Levenberg-Marquardt iteration has its own."""

ITERATIONS = 120
ACCEPTED = 1e-25
"""Restart rule: a start that ends above this training MSE is discarded. About one in ten stops at 1e-4 for good."""


class RotorRecipe(Recipe):
    """28 numbers fitted to random-phase windows of several frequencies, in float64.

    300 full-batch Adam steps, then Levenberg-Marquardt (Marquardt 1963: damping by the diagonal of J'J) on all
    residuals until rounding admits no further step; where the training MSE stays above 1e-25, another initial state, up to `restarts` times. A low training
    loss proves nothing about other phases or frequencies: the certificate does.
    """

    citation = ("D. W. Marquardt, An algorithm for least-squares estimation of nonlinear parameters, 1963",)

    def config(self, task: Task, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        """Nothing to choose."""
        return {}

    def start(
        self,
        task: Task,
        parameters: Mapping[str, Any],
        seeds: Sequence[int],
        *,
        dtype: torch.dtype,
        device: torch.device,
    ) -> Run:
        """A run in which each seed is solved by itself."""
        return RotorRun([_Fit(task, parameters, seed, device) for seed in seeds])

    def validation(self, task: Task, parameters: Mapping[str, Any], seed: int) -> Batch:
        """Fresh windows of the training frequencies."""
        return windows(task, parameters, WINDOWS_EACH, seed, "validation")

    def summary(self, task: Task, parameters: Mapping[str, Any]) -> str:
        """One line for the manifest."""
        omegas = ", ".join(f"{omega:g}" for omega in parameters["omegas"])
        return f"bilinear rotor (a prior chosen by hand), trained at omega = {omegas} rad/s"


class RotorRun(LanesRun["_Fit"]):
    """One fit a seed, each a step of Adam or an iteration of Levenberg-Marquardt at a time."""

    @property
    def restarts(self) -> Sequence[int]:
        """How often each seed began again."""
        return [lane.restarts for lane in self.lanes]


class _Fit(LeastSquaresLane):
    """The fit of one seed: its data, its weights as one vector, and where it stands."""

    def __init__(self, task: Task, settings: Mapping[str, Any], seed: int, device: torch.device) -> None:
        self._seed, self._device, self._allowed = seed, device, int(settings["restarts"])
        batch = windows(task, settings, settings["samples"], seed, "train").to(torch.float64, device)
        self._states, self._targets = tensors_of(batch.inputs)[0], batch.targets
        self.restarts = 0
        self._begin()

    def _begin(self) -> None:
        """A fresh initial state: M ~ 0.5 N(0, 1), S ~ I + 0.1 N(0, 1)."""
        generator = stream(self._seed, "weights", self.restarts)
        forms = 0.5 * torch.randn(24, generator=generator, dtype=torch.float64)
        metric = torch.eye(2, dtype=torch.float64).view(-1) + 0.1 * torch.randn(
            4, generator=generator, dtype=torch.float64
        )
        self.weights = torch.cat((forms, metric)).to(self._device)
        self.mean, self.square = torch.zeros_like(self.weights), torch.zeros_like(self.weights)
        self.taken, self.damping = 0, DAMPING

    @property
    def _is_worth_a_row(self) -> bool:
        """Whether the last step deserves a row of the curve."""
        return self.finished or self.taken == 0 or self.taken > ADAM_STEPS or self.taken % EVALUATE_EVERY == 0

    def step(self) -> tuple[float, bool]:
        """One step; the training MSE before it (Adam) or after it (Levenberg-Marquardt)."""
        self.taken += 1
        loss = self._descend() if self.taken <= ADAM_STEPS else self._solve()
        return loss, self._is_worth_a_row

    def _descend(self) -> float:
        """Full-batch Adam with half a cosine to zero (Kingma and Ba 2015; betas .9, .999, eps 1e-8)."""
        loss, gradient = self._loss_and_gradient()
        rate = ADAM_RATE / 2 * (1 + math.cos(math.pi * (self.taken - 1) / ADAM_STEPS))
        self.mean.lerp_(gradient, 0.1)
        self.square.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
        size = (self.square / (1 - 0.999**self.taken)).sqrt().add_(1e-8)
        self.weights = self.weights.addcdiv(self.mean, size, value=-rate / (1 - 0.9**self.taken))
        return loss

    def _loss_and_gradient(self) -> tuple[float, Tensor]:
        weights = self.weights.detach().requires_grad_()
        loss = self.residuals(weights).square().mean()
        (gradient,) = torch.autograd.grad(loss, weights)
        return loss.item(), gradient

    def _solve(self) -> float:
        """One accepted step of Levenberg-Marquardt, or the end of this start."""
        error, moved = self.iterate()
        if not moved or self.taken >= ADAM_STEPS + ITERATIONS:
            self._end(error)
        return error

    def _end(self, error: float) -> None:
        """Accept, or begin again."""
        if error <= ACCEPTED or self.restarts >= self._allowed:
            self.finished = True
        else:
            self.restarts += 1
            self._begin()

    def residuals(self, weights: Tensor) -> Tensor:
        """Prediction less target, of every window and component."""
        return (rotate(self._states, *_forms(weights)) - self._targets).view(-1)

    def jacobian(self, weights: Tensor) -> Tensor:
        """In closed form."""
        return rotate_jacobian(self._states, *_forms(weights)).flatten(0, 1)

    def network(self) -> nn.Module:
        """The network with the weights as they are."""
        with torch.device("meta"):
            rotor = Rotor()
        state = dict(zip(("m1", "m2", "m3", "s"), _forms(self.weights.clone()), strict=True))
        rotor.load_state_dict(state, assign=True)
        return rotor

    def figures(self) -> Mapping[str, Any]:
        """How many starts were discarded."""
        return {"restarts": self.restarts}

    def state(self) -> State:
        """Weights, Adam's moments and the counters."""
        own = super().state()
        tensors = {**own.tensors, "mean": self.mean, "square": self.square}
        return State(tensors, {**own.values, "taken": self.taken, "restarts": self.restarts})

    def restore(self, state: State) -> None:
        """Weights, moments and counters as they were."""
        super().restore(state)
        self.mean, self.square = state.tensors["mean"].clone(), state.tensors["square"].clone()
        self.taken, self.restarts = int(state.values["taken"]), int(state.values["restarts"])


def _forms(weights: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """M1, M2, M3 and S of one vector of 28."""
    first, second, third, metric = torch.split(weights, [8, 8, 8, 4])
    return first.view(2, 2, 2), second.view(2, 2, 2), third.view(2, 2, 2), metric.view(2, 2)
