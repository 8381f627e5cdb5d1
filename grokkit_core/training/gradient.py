"""Gradient descent on minibatches: the recipe to derive from, and its run."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from grokkit_core.streams import stream, stream_seed
from grokkit_core.task import Batch, Task, tensors_of
from grokkit_core.training.recipe import Progress, Recipe, Run, State

VALIDATION_SAMPLES = 2_000


class GradientRecipe(Recipe):
    """Minibatch training. A subclass names data, optimiser and settings; initialisation and batches are functions of
    the seed (and of the step), so that a resumed run meets the same batches.
    """

    @abstractmethod
    def optimizer(self, parameters: Sequence[nn.Parameter], settings: Mapping[str, Any]) -> torch.optim.Optimizer:
        """A new optimiser of these tensors."""

    @abstractmethod
    def steps(self, settings: Mapping[str, Any]) -> int:
        """The most steps a seed may take."""

    @abstractmethod
    def batches(self, task: Task, settings: Mapping[str, Any], seed: int) -> Callable[[int], Batch]:
        """The batch of each step (from 0) in float64, a pure function of seed and step. See `epochs` and `fresh`."""

    @abstractmethod
    def evaluate_every(self, settings: Mapping[str, Any]) -> int:
        """Steps between evaluations."""

    def learning_rate(self, step: int, settings: Mapping[str, Any]) -> float | None:
        """The learning rate of a step (from 0); None leaves the optimiser's own."""
        return None

    def loss(self, task: Task, prediction: Tensor, target: Tensor) -> Tensor:
        """What is minimised."""
        return task.loss(prediction, target)

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
        return GradientRun(self, task, parameters, seeds, dtype=dtype, device=device)


def epochs(data: Batch, size: int, seed: int) -> Callable[[int], Batch]:
    """Batches of a fixed training set, reshuffled every epoch, the last short one kept; a pure function of the step."""
    per_epoch = math.ceil(len(data) / size)
    order: dict[int, Tensor] = {}

    def batch(step: int) -> Batch:
        epoch, index = divmod(step, per_epoch)
        if epoch not in order:
            order.clear()
            order[epoch] = torch.randperm(len(data), generator=stream(seed, "shuffle", epoch))
        return data[order[epoch][index * size : (index + 1) * size]]

    return batch


def fresh(task: Task, size: int, seed: int, **where: Any) -> Callable[[int], Batch]:
    """A new batch from the task's sampler at every step; a pure function of the step."""
    return lambda step: task.sample(size, generator=stream(seed, "train", step), **where)


class GradientRun(Run):
    """One network, optimiser and batch stream a seed, stepped in turn."""

    def __init__(
        self,
        recipe: GradientRecipe,
        task: Task,
        settings: Mapping[str, Any],
        seeds: Sequence[int],
        *,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.recipe, self.task, self.settings = recipe, task, settings
        self.count = 0
        architecture = recipe.plugins.architecture(recipe.spec.architecture)
        config = recipe.config(task, settings)
        self._lanes = [_Lane(recipe, task, settings, seed, architecture.build, config, dtype, device) for seed in seeds]

    @property
    def done(self) -> bool:
        """Whether every seed has stopped or the last step is done."""
        return self.count >= self.recipe.steps(self.settings) or all(lane.stopped for lane in self._lanes)

    def step(self) -> Progress:
        """One optimiser step of every seed that has not stopped."""
        rate = self.recipe.learning_rate(self.count, self.settings)
        losses = [math.nan if lane.stopped else lane.step(self.count, rate) for lane in self._lanes]
        self.count += 1
        return Progress(self.count, losses, self.count % self.recipe.evaluate_every(self.settings) == 0)

    def stop(self, index: int) -> None:
        """End the training of one seed."""
        self._lanes[index].stopped = True

    def result(self) -> Sequence[nn.Module]:
        """The networks, one a seed."""
        return [lane.module for lane in self._lanes]

    def state(self) -> State:
        """Weights, optimiser tensors and counters of every seed; batches are functions of the step and need no state."""
        tensors: dict[str, Tensor] = {}
        for index, lane in enumerate(self._lanes):
            tensors |= {f"{index}.model.{name}": t.clone() for name, t in lane.module.state_dict().items()}
            for key, values in lane.optimizer.state_dict()["state"].items():
                tensors |= {
                    f"{index}.optimizer.{key}.{name}": v.clone() for name, v in values.items() if isinstance(v, Tensor)
                }
        return State(tensors, {"step": self.count, "stopped": [lane.stopped for lane in self._lanes]})

    def restore(self, state: State) -> None:
        """Weights, optimiser tensors and counters as they were."""
        self.count = int(state.values["step"])
        for index, lane in enumerate(self._lanes):
            lane.stopped = bool(state.values["stopped"][index])
            prefix = f"{index}.model."
            lane.module.load_state_dict(
                {name.removeprefix(prefix): t for name, t in state.tensors.items() if name.startswith(prefix)}
            )
            lane.restore_optimizer(state.tensors, f"{index}.optimizer.")


class _Lane:
    """The training of one seed."""

    def __init__(
        self,
        recipe: GradientRecipe,
        task: Task,
        settings: Mapping[str, Any],
        seed: int,
        build: Callable[[Mapping[str, Any]], nn.Module],
        config: Mapping[str, Any],
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.recipe, self.task, self.dtype, self.device = recipe, task, dtype, device
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(stream_seed(seed, "weights"))
            self.module = build(config).to(device, dtype)
        self.parameters = list(self.module.parameters())
        self.optimizer = recipe.optimizer(self.parameters, settings)
        self.batch = recipe.batches(task, settings, seed)
        self.stopped = False

    def step(self, index: int, rate: float | None) -> float:
        if rate is not None:
            for group in self.optimizer.param_groups:
                group["lr"] = rate
        batch = self.batch(index)
        moved = batch.to(self.dtype, self.device)
        targets = moved.targets.to(self.dtype) if moved.targets.is_floating_point() else moved.targets
        self.optimizer.zero_grad()
        loss = self.recipe.loss(self.task, self.module(*tensors_of(moved.inputs)), targets)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return loss.item()

    def restore_optimizer(self, tensors: Mapping[str, Tensor], prefix: str) -> None:
        kept: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            if name.startswith(prefix):
                key, _, field = name.removeprefix(prefix).partition(".")
                kept.setdefault(int(key), {})[field] = tensor
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": kept})
