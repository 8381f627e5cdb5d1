"""The published expansion experiment's training: one network through several frequencies, one after the other."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from grokkit_core.streams import stream
from grokkit_core.task import Batch, Task
from grokkit_core.training.gradient import GradientRun, epochs
from grokkit_core.training.lanes import Lane, LanesRun
from grokkit_core.training.recipe import Run, State
from grokkit_cyclotron.recipes import WINDOWS_EACH, Published, windows


class Curriculum(Published):
    """Stages of the published protocol at omega = 0.8, 1.65, 2.5: new optimiser and cosine schedule in each.

    A stage ends when the mean training MSE of an epoch is below the threshold or its epochs are over; training ends
    when the second stage or a later one has reached the threshold. What was learned before is forgotten on the way.
    """

    def start(
        self,
        task: Task,
        parameters: Mapping[str, Any],
        seeds: Sequence[int],
        *,
        dtype: torch.dtype,
        device: torch.device,
    ) -> Run:
        """A run in which each seed goes through the stages by itself."""
        stage = _Stage(self.spec)
        stage.plugins = self.plugins
        return LanesRun([_Stages(_starter(stage, task, parameters, seed, dtype, device), parameters) for seed in seeds])

    def validation(self, task: Task, parameters: Mapping[str, Any], seed: int) -> Batch:
        """Fresh windows of all frequencies."""
        return windows(task, {**parameters, "phase": "fixed"}, WINDOWS_EACH, seed, "validation")

    def stopping(self, task: Task, parameters: Mapping[str, Any]) -> None:
        """The stages have rules of their own."""
        return

    def summary(self, task: Task, parameters: Mapping[str, Any]) -> str:
        """One line for the manifest."""
        nodes = parameters["angular"] * parameters["radial"]
        omegas = ", ".join(f"{omega:g}" for omega in parameters["omegas"])
        return f"published {nodes}-node network, trained at omega = {omegas} rad/s one after the other"


class _Stage(Published):
    """One frequency of the curriculum; `stage` counts from 0."""

    def batches(self, task: Task, settings: Mapping[str, Any], seed: int) -> Callable[[int], Batch]:
        generator = stream(seed, "train", "stage", settings["stage"])
        data = task.sample(settings["samples"], generator=generator, omega=settings["omega"])
        return epochs(data, settings["batch"], stream_of_stage(seed, settings["stage"]))


def stream_of_stage(seed: int, stage: int) -> int:
    """The seed of a stage's shuffles; the first stage has the run's own."""
    return seed if stage == 0 else stream(seed, "stage", stage).initial_seed()


Starter = Callable[[int, Mapping[str, Tensor] | None], GradientRun]
"""A stage's run from its number and the weights that it starts with (None: fresh ones)."""


def _starter(
    recipe: _Stage, task: Task, settings: Mapping[str, Any], seed: int, dtype: torch.dtype, device: torch.device
) -> Starter:
    def start(stage: int, initial: Mapping[str, Tensor] | None) -> GradientRun:
        own = {**settings, "omega": settings["omegas"][stage], "stage": stage}
        weights = None if initial is None else [initial]
        return GradientRun(recipe, task, own, [seed], dtype=dtype, device=device, initial=weights)

    return start


class _Stages(Lane):
    """One seed: its stage, that stage's run, and the training loss summed over the epoch so far."""

    def __init__(self, starter: Starter, settings: Mapping[str, Any]) -> None:
        self._starter, self._stages, self._threshold = starter, len(settings["omegas"]), settings["threshold"]
        self._per_epoch = math.ceil(settings["samples"] / settings["batch"])
        self.stage, self.total = 0, 0.0
        self.run = starter(0, None)

    def step(self) -> tuple[float, bool]:
        """One step: its loss, and whether an epoch ended."""
        loss = self.run.step().losses[0]
        self.total += loss
        ended = self.run.count % self._per_epoch == 0
        if ended:
            mean, self.total = self.total / self._per_epoch, 0.0
            self._close(reached=mean <= self._threshold)
        return loss, ended

    def _close(self, *, reached: bool) -> None:
        """Go on to the next stage, or finish, where this one is over."""
        if reached or self.run.done:
            last = self.stage + 1 >= self._stages
            self.finished = last or (reached and self.stage > 0)
            if not self.finished:
                self.stage += 1
                self.run = self._starter(self.stage, self.weights())

    def weights(self) -> Mapping[str, Tensor]:
        """The network's tensors as they are."""
        return {name: tensor.clone() for name, tensor in self.run.result()[0].state_dict().items()}

    def network(self) -> nn.Module:
        """The network as it is."""
        return self.run.result()[0]

    def state(self) -> State:
        """The stage and the state of its run."""
        own = self.run.state()
        return State(own.tensors, {"stage": self.stage, "total": self.total, "run": dict(own.values)})

    def restore(self, state: State) -> None:
        """In its stage, as it was."""
        self.stage, self.total = int(state.values["stage"]), float(state.values["total"])
        self.run = self._starter(self.stage, None)
        self.run.restore(State(state.tensors, state.values["run"]))
