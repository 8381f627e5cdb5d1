"""How parity networks are trained: on fresh rows, or on a fixed set that is memorised long before the rule is found."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from grokkit_core.streams import stream
from grokkit_core.task import Batch, Task
from grokkit_core.training.gradient import GradientRecipe, epochs, fresh
from grokkit_core.training.recipe import Grokking, Stopping
from grokkit_parity.law import Parity, draw_support
from grokkit_parity.model import ParityMlp

EVALUATE_EVERY = 20
HELD_OUT = 10_000
BETAS = (0.9, 0.98)
DECAY = 0.1
TEST_ROWS = 5_000
SURE = 10
"""Evaluations in a row with all held-out rows right after which the delayed training stops; the first one is too early."""

DELAYED_DECAY = 0.01


class _ParityRecipe(GradientRecipe):
    """What both recipes share: a support of each seed's own, accuracy as validation, pruning at the end."""

    def task_for(self, task: Task, seed: int) -> Parity:
        """The task with the support that the seed draws, unless one was given."""
        assert isinstance(task, Parity)
        if not task.is_drawn:
            return task
        support = draw_support(task.width, len(task.support), seed)
        return cast(Parity, self.plugins.task("parity", **{**task.parameters, "support": support}))

    def stacked_optimizer(
        self, parameters: Sequence[nn.Parameter], settings: Mapping[str, Any]
    ) -> torch.optim.Optimizer:
        """The same: it works number by number."""
        return self.optimizer(parameters, settings)

    def steps(self, settings: Mapping[str, Any]) -> int:
        """As set."""
        return int(settings["steps"])

    def grokking(self, task: Task, parameters: Mapping[str, Any]) -> Grokking:
        """All held-out rows right."""
        return Grokking(1.0, lasting=1, for_accuracy=True)

    def finish(
        self, task: Task, parameters: Mapping[str, Any], config: Mapping[str, Any], module: nn.Module
    ) -> tuple[Mapping[str, Any], Mapping[str, Tensor]]:
        """The k columns of largest norm, and no others: the network then depends on k bits only."""
        tensors = module.state_dict()
        if not parameters["prune"]:
            return config, tensors
        assert isinstance(task, Parity)
        assert isinstance(module, ParityMlp)
        live = strongest_columns(tensors["first.weight"], len(task.support))
        return {**config, "live": live}, {**tensors, "first.weight": tensors["first.weight"][:, list(live)]}


def strongest_columns(weight: Tensor, count: int) -> tuple[int, ...]:
    """The `count` columns of a matrix "out in" with the largest norms, in rising order."""
    return tuple(sorted(weight.norm(dim=0).topk(count).indices.tolist()))


class Fast(_ParityRecipe):
    """AdamW (betas .9, .98, weight decay .1) on 1,024 fresh rows a step, cross-entropy, for a fixed 600 steps.

    All held-out rows are right after about 100; stopping there leaves a margin near zero and errors among fresh rows.
    """

    def config(self, task: Task, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        """Width and depth; two logits."""
        assert isinstance(task, Parity)
        return {"n": task.width, "hidden": parameters["hidden"], "depth": parameters["depth"]}

    def optimizer(self, parameters: Sequence[nn.Parameter], settings: Mapping[str, Any]) -> torch.optim.Optimizer:
        """AdamW."""
        return torch.optim.AdamW(parameters, lr=settings["lr"], betas=BETAS, weight_decay=DECAY)

    def batches(self, task: Task, settings: Mapping[str, Any], seed: int) -> Callable[[int], Batch]:
        """Fresh rows at every step."""
        return fresh(self.task_for(task, seed), settings["batch"], seed)

    def loss(self, task: Task, prediction: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy [nat]."""
        return cross_entropy(prediction, target)

    def evaluate_every(self, settings: Mapping[str, Any]) -> int:
        """Twenty steps."""
        return EVALUATE_EVERY

    def validation(self, task: Task, parameters: Mapping[str, Any], seed: int) -> Batch:
        """10,000 held-out rows."""
        return self.task_for(task, seed).sample(HELD_OUT, generator=stream(seed, "validation"))

    def summary(self, task: Task, parameters: Mapping[str, Any]) -> str:
        """One line for the manifest."""
        return _summary(task, f"{parameters['depth']} hidden layers of {parameters['hidden']}, fresh rows", parameters)


class Delayed(_ParityRecipe):
    """Plain SGD (lr .1, weight decay .01, batch 32) with hinge loss on 1,806 rows that never change.

    All training rows are right thousands of steps before all others are; the plateau in between lies above chance.
    """

    def config(self, task: Task, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        """One hidden layer, one signed number without bias."""
        assert isinstance(task, Parity)
        return {"n": task.width, "hidden": parameters["hidden"], "depth": 1, "readout": "sign"}

    def optimizer(self, parameters: Sequence[nn.Parameter], settings: Mapping[str, Any]) -> torch.optim.Optimizer:
        """SGD without momentum."""
        return torch.optim.SGD(parameters, lr=settings["lr"], weight_decay=DELAYED_DECAY)

    def batches(self, task: Task, settings: Mapping[str, Any], seed: int) -> Callable[[int], Batch]:
        """Minibatches of the fixed rows, reshuffled every epoch."""
        return epochs(self.training_set(task, settings, seed), settings["batch"], seed)

    def training_set(self, task: Task, parameters: Mapping[str, Any], seed: int) -> Batch:
        """The fixed rows, whose accuracy stands in the curve."""
        return self.task_for(task, seed).sample(parameters["rows"], generator=stream(seed, "train"))

    def loss(self, task: Task, prediction: Tensor, target: Tensor) -> Tensor:
        """Hinge loss of the signed number: mean of max(0, 1 - y f) with y = 1 for even."""
        return torch.relu(1 - (1 - 2 * target) * (prediction[:, 0] - prediction[:, 1])).mean()

    def evaluate_every(self, settings: Mapping[str, Any]) -> int:
        """One epoch: memorisation and the rule are both to be seen when they come."""
        return math.ceil(int(settings["rows"]) / int(settings["batch"]))

    def stopping(self, task: Task, parameters: Mapping[str, Any]) -> Stopping:
        """All held-out rows right, ten epochs in a row."""
        return Stopping("validation", below=1.0, lasting=SURE, for_accuracy=True)

    def validation(self, task: Task, parameters: Mapping[str, Any], seed: int) -> Batch:
        """5,000 held-out rows."""
        return self.task_for(task, seed).sample(TEST_ROWS, generator=stream(seed, "validation"))

    def summary(self, task: Task, parameters: Mapping[str, Any]) -> str:
        """One line for the manifest."""
        return _summary(task, f"{parameters['hidden']} hidden units, {parameters['rows']} fixed rows", parameters)


def _summary(task: Task, how: str, parameters: Mapping[str, Any]) -> str:
    assert isinstance(task, Parity)
    bits = ", ".join(map(str, task.support[:8])) + (", ..." if len(task.support) > 8 else "")
    pruned = ", pruned" if parameters["prune"] else ""
    return f"parity of bits {bits} of {task.width}: {how}{pruned}"
