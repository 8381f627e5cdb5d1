"""The rotor's recipe: Adam to come near, Levenberg-Marquardt to arrive, another start where that fails."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from grokkit_core.streams import stream
from grokkit_core.task import Batch, Task, tensors_of
from grokkit_core.training.recipe import Progress, Recipe, Run, State
from grokkit_cyclotron.two_state import Rotor, rotate, rotate_jacobian

VALIDATION_SAMPLES = 500
"""Per frequency."""

ADAM_STEPS = 300
ADAM_RATE = 1e-2
EVALUATE_EVERY = 25
"""Adam steps between rows of the curve; every Levenberg-Marquardt iteration has its own."""

ITERATIONS = 120
TRIES = 10
DAMPING, LEAST_DAMPING, MOST_DAMPING = 1e-3, 1e-15, 1e12
EASED, TIGHTENED = 5.0, 4.0
LEAST_DIAGONAL = 1e-12
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
        return RotorRun([_Lane(task, parameters, seed, device) for seed in seeds])

    def validation(self, task: Task, parameters: Mapping[str, Any], seed: int) -> Batch:
        """Fresh windows of the training frequencies."""
        return windows(task, parameters, VALIDATION_SAMPLES, seed, "validation")

    def summary(self, task: Task, parameters: Mapping[str, Any]) -> str:
        """One line for the manifest."""
        omegas = ", ".join(f"{omega:g}" for omega in parameters["omegas"])
        return f"bilinear rotor (a prior chosen by hand), trained at omega = {omegas} rad/s"


def windows(task: Task, settings: Mapping[str, Any], n: int, seed: int, purpose: str) -> Batch:
    """`n` windows at each training frequency, from the stream of this purpose."""
    parts = [
        task.sample(n, generator=stream(seed, purpose, index), omega=omega, phase=settings["phase"])
        for index, omega in enumerate(settings["omegas"])
    ]
    context = {name: torch.cat([part.context[name] for part in parts]) for name in parts[0].context}
    inputs = torch.cat([tensors_of(part.inputs)[0] for part in parts])
    return Batch(inputs, torch.cat([part.targets for part in parts]), context)


class RotorRun(Run):
    """One fit a seed, each a step of Adam or an iteration of Levenberg-Marquardt at a time."""

    def __init__(self, lanes: Sequence[_Lane]) -> None:
        self._lanes = lanes
        self.count = 0

    @property
    def done(self) -> bool:
        """Whether every seed has arrived or used up its starts."""
        return all(lane.finished for lane in self._lanes)

    @property
    def restarts(self) -> Sequence[int]:
        """How often each seed began again."""
        return [lane.restarts for lane in self._lanes]

    def step(self) -> Progress:
        """One step of every seed that has not finished."""
        active = [not lane.finished for lane in self._lanes]
        losses = [lane.step() if go else math.nan for lane, go in zip(self._lanes, active, strict=True)]
        self.count += 1
        due = any(go and lane.is_worth_a_row for lane, go in zip(self._lanes, active, strict=True))
        return Progress(self.count, losses, due)

    def stop(self, index: int) -> None:
        """End the fit of one seed."""
        self._lanes[index].finished = True

    def finished(self, index: int) -> bool:
        """Whether a seed has arrived or used up its starts."""
        return self._lanes[index].finished

    def figures(self, index: int) -> Mapping[str, Any]:
        """How many starts were discarded."""
        return {"restarts": self._lanes[index].restarts}

    def result(self) -> Sequence[nn.Module]:
        """The networks, one a seed."""
        return [lane.module() for lane in self._lanes]

    def state(self) -> State:
        """Weights, Adam's moments and all counters."""
        tensors = {f"{i}.{name}": t.clone() for i, lane in enumerate(self._lanes) for name, t in lane.tensors().items()}
        return State(tensors, {"step": self.count, "lanes": [lane.counters() for lane in self._lanes]})

    def restore(self, state: State) -> None:
        """Weights, moments and counters as they were."""
        self.count = int(state.values["step"])
        for index, (lane, counters) in enumerate(zip(self._lanes, state.values["lanes"], strict=True)):
            prefix = f"{index}."
            own = {name.removeprefix(prefix): t for name, t in state.tensors.items() if name.startswith(prefix)}
            lane.restore(own, counters)


class _Lane:
    """The fit of one seed: its data, its weights as one vector, and where it stands."""

    def __init__(self, task: Task, settings: Mapping[str, Any], seed: int, device: torch.device) -> None:
        self._seed, self._device, self._allowed = seed, device, int(settings["restarts"])
        batch = windows(task, settings, settings["samples"], seed, "train").to(torch.float64, device)
        self._states, self._targets = tensors_of(batch.inputs)[0], batch.targets
        self.restarts, self.finished = 0, False
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
    def is_worth_a_row(self) -> bool:
        """Whether the last step deserves a row of the curve."""
        return self.finished or self.taken == 0 or self.taken > ADAM_STEPS or self.taken % EVALUATE_EVERY == 0

    def step(self) -> float:
        """One step; the training MSE before it (Adam) or after it (Levenberg-Marquardt)."""
        self.taken += 1
        return self._descend() if self.taken <= ADAM_STEPS else self._solve()

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
        loss = self._residuals(weights).square().mean()
        (gradient,) = torch.autograd.grad(loss, weights)
        return loss.item(), gradient

    def _solve(self) -> float:
        """One accepted step of Levenberg-Marquardt, or the end of this start."""
        residuals = self._residuals(self.weights)
        jacobian = rotate_jacobian(self._states, *_forms(self.weights)).flatten(0, 1)
        normal, slope = jacobian.T @ jacobian, jacobian.T @ residuals
        scale = torch.diag(normal.diagonal().clamp_min(LEAST_DIAGONAL))
        before = residuals.square().sum()
        for _ in range(TRIES):
            candidate, trouble = torch.linalg.solve_ex(normal + self.damping * scale, slope)
            trial = self.weights - candidate
            after = self._residuals(trial).square().sum()
            if trouble == 0 and after < before:
                self.weights, self.damping = trial, max(self.damping / EASED, LEAST_DAMPING)
                break
            self.damping = min(TIGHTENED * self.damping, MOST_DAMPING)
        else:
            after = before
        error = (after / residuals.numel()).item()
        if not after < before or self.taken >= ADAM_STEPS + ITERATIONS:
            self._end(error)
        return error

    def _end(self, error: float) -> None:
        """Accept, or begin again."""
        if error <= ACCEPTED or self.restarts >= self._allowed:
            self.finished = True
        else:
            self.restarts += 1
            self._begin()

    def _residuals(self, weights: Tensor) -> Tensor:
        return (rotate(self._states, *_forms(weights)) - self._targets).view(-1)

    def module(self) -> nn.Module:
        """The network with the weights as they are."""
        with torch.device("meta"):
            rotor = Rotor()
        state = dict(zip(("m1", "m2", "m3", "s"), _forms(self.weights.clone()), strict=True))
        rotor.load_state_dict(state, assign=True)
        return rotor

    def tensors(self) -> Mapping[str, Tensor]:
        """What a checkpoint keeps of it in the weights file."""
        return {"weights": self.weights, "mean": self.mean, "square": self.square}

    def counters(self) -> Mapping[str, Any]:
        """What a checkpoint keeps of it as JSON."""
        return {
            "taken": self.taken,
            "damping": self.damping,
            "restarts": self.restarts,
            "finished": self.finished,
        }

    def restore(self, tensors: Mapping[str, Tensor], counters: Mapping[str, Any]) -> None:
        """Go on from there."""
        self.weights, self.mean, self.square = (tensors[name].clone() for name in ("weights", "mean", "square"))
        self.taken, self.damping = int(counters["taken"]), float(counters["damping"])
        self.restarts, self.finished = int(counters["restarts"]), bool(counters["finished"])


def _forms(weights: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """M1, M2, M3 and S of one vector of 28."""
    first, second, third, metric = torch.split(weights, [8, 8, 8, 4])
    return first.view(2, 2, 2), second.view(2, 2, 2), third.view(2, 2, 2), metric.view(2, 2)
