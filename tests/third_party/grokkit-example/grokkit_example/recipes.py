"""How a network learns a rule from some of the states and is stopped by the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from grokkit_core.streams import stream
from grokkit_core.task import Batch, Task
from grokkit_core.training.gradient import GradientRecipe, epochs
from grokkit_core.training.recipe import Grokking, Stopping
from grokkit_example.law import Automaton, every_state

EVALUATE_EVERY = 25
"""Steps between evaluations."""

LASTING = 8
"""Evaluations in a row without a wrong state after which training stops; the outputs move towards their bits meanwhile."""


class SomeStates(GradientRecipe):
    """Adam on `states` of the 256 states in minibatches. A seed stops once all other states were right 8 times in a row."""

    def config(self, task: Task, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        """The width."""
        return {"hidden": parameters["hidden"]}

    def optimizer(self, parameters: Sequence[nn.Parameter], settings: Mapping[str, Any]) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(parameters, lr=settings["lr"])

    def batches(self, task: Task, settings: Mapping[str, Any], seed: int) -> Callable[[int], Batch]:
        """Minibatches of the training states, reshuffled every epoch."""
        return epochs(split(task, settings, seed)[0], settings["batch"], seed)

    def validation(self, task: Task, parameters: Mapping[str, Any], seed: int) -> Batch:
        """The states that training never sees."""
        return split(task, parameters, seed)[1]

    def loss(self, task: Task, prediction: Tensor, target: Tensor) -> Tensor:
        """Binary cross-entropy [nat], whose gradient does not vanish where a sigmoid is surely wrong."""
        return nn.functional.binary_cross_entropy(prediction, target)

    def steps(self, settings: Mapping[str, Any]) -> int:
        """As set."""
        return int(settings["steps"])

    def evaluate_every(self, settings: Mapping[str, Any]) -> int:
        """A fixed number of steps."""
        return EVALUATE_EVERY

    def stopping(self, task: Task, parameters: Mapping[str, Any]) -> Stopping:
        """Validation accuracy 1, lasting."""
        return Stopping("validation", below=1.0, lasting=LASTING, for_accuracy=True)

    def grokking(self, task: Task, parameters: Mapping[str, Any]) -> Grokking:
        """Validation accuracy 1."""
        return Grokking(1.0, for_accuracy=True)

    def summary(self, task: Task, parameters: Mapping[str, Any]) -> str:
        """One line for the manifest."""
        seen = parameters["states"]
        return f"next state of rule {task.parameters['rule']} on a ring of 8 cells, learned from {seen} of 256 states"


def split(task: Task, settings: Mapping[str, Any], seed: int) -> tuple[Batch, Batch]:
    """Training and validation states of a seed: `states` of the 256 at random, and all others."""
    assert isinstance(task, Automaton)
    states = every_state()
    order = torch.randperm(len(states), generator=stream(seed, "split"))
    everything, count = task.batch(states[order]), int(settings["states"])
    return everything[:count], everything[count:]
