"""The published protocol: pairs of the last two points of an adaptive solver, and how a network was trained on them.

Source: the public repository grisuno/chaotic_pendulum_grokked. Its data file is not at hand; the pairs are made anew as it
says. The time between the two states of a pair is the solver's last, truncated step. It is no input and differs from pair
to pair: the target is not a function of the input, and no time step can be named.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from grokkit_core.errors import UsageError
from grokkit_core.streams import stream
from grokkit_core.task import Batch, Predictor, Task, tensors_of
from grokkit_core.training.gradient import initialised
from grokkit_core.training.lanes import Lane, LanesRun
from grokkit_core.training.recipe import Grokking, Recipe, Run, State
from grokkit_pendulum.integrators import Field
from grokkit_pendulum.law import FASTEST, Pendulum, scaled

SECONDS = 5.0
RELATIVE, ABSOLUTE = 1e-8, 1e-10
"""Tolerances of the solver."""

FIRST_STEP = 1e-3
SAFETY, LEAST_FACTOR, MOST_FACTOR = 0.9, 0.2, 10.0
STAGES = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)
"""The method of Dormand and Prince (1980): its stages, and its result less that of order 4."""

RATE, DECAY, CLIP = 5e-3, 1e-5, 0.5
PLATEAU, PATIENCE = 200, 1_000
LEAST_RATE = 1e-7
ENERGY = 0.1
"""Weight of the published "energy" in the loss; it has no coupling, no gravity and wrong weights."""

EVALUATE_EVERY = 20
TRAINED = 0.8


def last_two_points(field: Field, states: Tensor, seconds: float) -> tuple[Tensor, Tensor]:
    """The second to last and the last point, each "4 batch", of an adaptive solver over `seconds`, from states "4 batch"."""
    state, before = states.clone(), states.clone()
    time, step = torch.zeros_like(states[0]), torch.full_like(states[0], FIRST_STEP)
    while bool((running := time < seconds).any()):
        at = running.nonzero()[:, 0]
        h = torch.minimum(step[at], seconds - time[at])
        old = state[:, at]
        new, error = _dormand_prince(field, old, h)
        size = (error / (ABSOLUTE + RELATIVE * torch.maximum(old.abs(), new.abs()))).square().mean(0).sqrt()
        done = size < 1
        factor = (SAFETY * size.clamp_min(1e-10) ** -0.2).clamp(LEAST_FACTOR, MOST_FACTOR)
        kept = at[done]
        before[:, kept], state[:, kept] = old[:, done], new[:, done]
        time[kept] = torch.where(h[done] < step[kept], seconds, time[kept] + h[done])
        step[at] = h * torch.where(done, factor, factor.clamp_max(1.0))
    return before, state


def _dormand_prince(field: Field, state: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """A step and its error estimate."""
    slopes = [field(state)]
    new = state
    for row in STAGES:
        new = state + h * _combined(row, slopes)
        slopes.append(field(new))
    return new, h * _combined(ERROR, slopes)


def _combined(coefficients: Sequence[float], slopes: Sequence[Tensor]) -> Tensor:
    return torch.stack([c * slope for c, slope in zip(coefficients, slopes, strict=True)]).sum(0)


class PublishedPairs(Pendulum):
    """The published data as a task of its own, for its baselines: no time step, so no integrator is among them."""

    def sample(self, n: int, *, generator: torch.Generator, **where: Any) -> Batch:
        """`n` pairs from a Latin hypercube of initial states."""
        if set(where) - {"data"}:
            raise UsageError(f"sampler setting '{next(iter(where))}'", expected="none")
        cells = torch.stack([torch.randperm(n, generator=generator) for _ in range(4)], 1)
        unit = (cells + torch.rand((n, 4), generator=generator, dtype=torch.float64)) / n
        states = (2 * unit - 1) * unit.new_tensor([math.pi, math.pi, FASTEST, FASTEST])
        before, last = last_two_points(self.rods.field, states.T.contiguous(), SECONDS)
        return Batch(before.T.contiguous(), last.T.contiguous())

    def baselines(self, calibration: Batch) -> Mapping[str, Predictor]:
        """Persistence and the linear map."""
        found = super().baselines(calibration)
        return {name: found[name] for name in ("persistence", "linear")}


def published_pairs(task: Task) -> PublishedPairs:
    """The published data for the constants of a task."""
    return PublishedPairs(task.spec, **task.parameters)


class Published(Recipe):
    """Full-batch AdamW (lr 5e-3, weight decay 1e-5), halved after 200 epochs without progress, gradients clipped at 0.5.

    It stops at a validation MSE of 0.02, which was called grokking and which copying the input passes. Published scheduler,
    stopping and selection used the test set; here they use a validation set, a fifth of the states.
    """

    citation = ("grisuno/chaotic_pendulum_grokked: public repository on a double-pendulum network",)

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
        """A run in which each seed is trained by itself."""
        build = self.plugins.architecture(self.spec.architecture).build
        lanes = []
        for seed in seeds:
            module = initialised(build, self.config(task, parameters), seed).to(device, dtype)
            train, held_out = (part.to(dtype, device) for part in split(task, parameters, seed))
            lanes.append(_Descent(module, train, held_out, parameters))
        return LanesRun(lanes)

    def validation(self, task: Task, parameters: Mapping[str, Any], seed: int) -> Batch:
        """The fifth of the pairs that decides when to stop."""
        return split(task, parameters, seed)[1]

    def grokking(self, task: Task, parameters: Mapping[str, Any]) -> Grokking:
        """The published threshold, worse than persistence."""
        return Grokking(parameters["threshold"], lasting=1)

    def summary(self, task: Task, parameters: Mapping[str, Any]) -> str:
        """One line for the manifest."""
        return "double pendulum: the published network, retrained on its own kind of data, time step undefined"


def split(task: Task, settings: Mapping[str, Any], seed: int) -> tuple[Batch, Batch]:
    """Four fifths of the pairs of a seed to train on, and the rest."""
    data = published_pairs(task).sample(settings["states"], generator=stream(seed, "train"))
    count = int(TRAINED * len(data))
    return data[:count], data[count:]


class _Descent(Lane):
    """One seed: its data, its network, its optimiser and the schedule."""

    def __init__(self, module: nn.Module, train: Batch, held_out: Batch, settings: Mapping[str, Any]) -> None:
        self._module, self._train, self._held_out, self._settings = module, train, held_out, settings
        self._optimizer = torch.optim.AdamW(module.parameters(), lr=RATE, weight_decay=DECAY)
        self._schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(
            self._optimizer, factor=0.5, patience=PLATEAU, min_lr=LEAST_RATE
        )
        self._count, self._best, self._stale = 0, math.inf, 0
        self._kept = self._weights()

    def step(self) -> tuple[float, bool]:
        """One epoch: its training loss."""
        self._optimizer.zero_grad()
        loss = _loss(self._module(tensors_of(self._train.inputs)[0]), self._train.targets)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self._module.parameters(), CLIP)
        self._optimizer.step()
        self._count += 1
        with torch.no_grad():
            moved = self._module(tensors_of(self._held_out.inputs)[0])
            error = float(scaled(moved - self._held_out.targets).square().mean())
        self._schedule.step(error)
        self._judge(error)
        return loss.item(), self.finished or self._count % EVALUATE_EVERY == 0

    def _judge(self, error: float) -> None:
        """Keep the best weights, and end at the threshold or where there is no more progress."""
        self._stale += 1
        if error < self._best:
            self._best, self._stale, self._kept = error, 0, self._weights()
        if error < self._settings["threshold"] or self._stale >= PATIENCE or self._count >= self._settings["epochs"]:
            self.finished = True
            self._module.load_state_dict(self._kept)

    def _weights(self) -> dict[str, Tensor]:
        return {name: tensor.clone() for name, tensor in self._module.state_dict().items()}

    def network(self) -> nn.Module:
        """The network as it is."""
        return self._module

    def state(self) -> State:
        """Weights, the best weights, moments and schedule."""
        tensors = {f"model.{name}": tensor for name, tensor in self._weights().items()}
        tensors |= {f"kept.{name}": tensor for name, tensor in self._kept.items()}
        for key, values in self._optimizer.state_dict()["state"].items():
            tensors |= {f"adam.{key}.{name}": tensor for name, tensor in values.items()}
        schedule = {name: value for name, value in self._schedule.state_dict().items() if _is_plain(value)}
        rate = self._optimizer.param_groups[0]["lr"]
        values = {"count": self._count, "best": self._best, "stale": self._stale, "rate": rate, "schedule": schedule}
        return State(tensors, values)

    def restore(self, state: State) -> None:
        """Weights, moments and schedule as they were."""
        values = state.values
        self._count, self._best, self._stale = int(values["count"]), float(values["best"]), int(values["stale"])
        self._module.load_state_dict(state.part("model."))
        self._kept = {name: tensor.clone() for name, tensor in state.part("kept.").items()}
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in state.part("adam.").items():
            key, _, field = name.partition(".")
            moments.setdefault(int(key), {})[field] = tensor.clone()
        self._optimizer.load_state_dict({**self._optimizer.state_dict(), "state": moments})
        self._optimizer.param_groups[0]["lr"] = float(values["rate"])
        self._schedule.load_state_dict(dict(values["schedule"]))


def _is_plain(value: object) -> bool:
    return isinstance(value, (int, float, str)) and not (isinstance(value, float) and not math.isfinite(value))


def _loss(moved: Tensor, target: Tensor) -> Tensor:
    """The published loss: MSE with angles in half turns, and a tenth of the error of its "energy"."""
    moved, target = scaled(moved), scaled(target.to(moved.dtype))
    return (moved - target).square().mean() + ENERGY * (_energy(moved) - _energy(target)).abs().mean()


def _energy(state: Tensor) -> Tensor:
    """w^2 + z^2 - cos a - cos b of states "batch 4" with angles in half turns."""
    angles, velocities = state[:, :2], state[:, 2:]
    return velocities.square().sum(1) - torch.cos(math.pi * angles).sum(1)
