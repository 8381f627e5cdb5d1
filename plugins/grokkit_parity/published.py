"""The published curriculum of algebra-de-grok, with what was wrong in it put right and said.

Its stages beyond the first are zero-padding followed by one optimiser step that only does harm. Here 10 bits are learned,
checked on all 1,024 inputs, and padded to any size without a step. Seeds are set.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from grokkit_core.errors import UsageError
from grokkit_core.streams import stream
from grokkit_core.task import Batch, Task
from grokkit_core.training.gradient import GradientRecipe
from grokkit_core.training.recipe import Grokking, Stopping
from grokkit_core.transfer.zero_pad import padded
from grokkit_parity.law import Parity
from grokkit_parity.solvers import labels_of

FIRST_BITS, FIRST_HIDDEN = 10, 128
ROWS = 10_000
RATE = 1e-3
DECAY = 1.0
"""max(0.01, 1 / sqrt(n h / 1280)) of the published program at n = 10, h = 128."""

EVALUATE_EVERY = 10


class Curriculum(GradientRecipe):
    """AdamW, lr 1e-3, full batch of 1,037 rows of 10 bits, until all 1,024 inputs are right; then zero-padding alone."""

    citation = ("grisuno/algebra-de-grok; Algorithmic Conservation in Neural Networks, DOI 10.5281/zenodo.18072859",)

    def task_for(self, task: Task, seed: int) -> Parity:
        """The published support, bits 0, 1 and 2, unless one was given."""
        assert isinstance(task, Parity)
        support = tuple(range(len(task.support))) if task.is_drawn else task.support
        if task.width < FIRST_BITS or support[-1] >= FIRST_BITS:
            raise UsageError(
                f"bits {', '.join(map(str, support))} of {task.width} for the published curriculum",
                expected=f"at least {FIRST_BITS} bits, with those that count among the first {FIRST_BITS}",
            )
        return cast(Parity, self.plugins.task("parity", **{**task.parameters, "support": support}))

    def config(self, task: Task, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        """The network of the first stage."""
        self.task_for(task, 0)  # the check of its bits, before anything is trained
        return {"n": FIRST_BITS, "hidden": FIRST_HIDDEN, "depth": 2}

    def optimizer(self, parameters: Sequence[nn.Parameter], settings: Mapping[str, Any]) -> torch.optim.Optimizer:
        """AdamW with the published weight decay."""
        return torch.optim.AdamW(parameters, lr=RATE, weight_decay=DECAY)

    def stacked_optimizer(
        self, parameters: Sequence[nn.Parameter], settings: Mapping[str, Any]
    ) -> torch.optim.Optimizer:
        """The same: it works number by number."""
        return self.optimizer(parameters, settings)

    def batches(self, task: Task, settings: Mapping[str, Any], seed: int) -> Callable[[int], Batch]:
        """All training rows at every step."""
        rows = self.training_set(task, settings, seed)
        return lambda step: rows

    def training_set(self, task: Task, parameters: Mapping[str, Any], seed: int) -> Batch:
        """The first 1,037 of 10,000 rows; some two thirds of the 1,024 inputs are among them."""
        bits = torch.randint(0, 2, (ROWS, FIRST_BITS), generator=stream(seed, "train"), dtype=torch.uint8)
        kept = bits[: min(2_000, int(300 * math.log2(FIRST_BITS + 1)))]
        return Batch(kept, labels_of(kept, self._support(task, seed)))

    def validation(self, task: Task, parameters: Mapping[str, Any], seed: int) -> Batch:
        """All 1,024 inputs."""
        numbers = torch.arange(2**FIRST_BITS).unsqueeze(1)
        bits = (numbers >> torch.arange(FIRST_BITS - 1, -1, -1) & 1).to(torch.uint8)
        return Batch(bits, labels_of(bits, self._support(task, seed)))

    def _support(self, task: Task, seed: int) -> tuple[int, ...]:
        return self.task_for(task, seed).support

    def loss(self, task: Task, prediction: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy [nat]."""
        return cross_entropy(prediction, target)

    def steps(self, settings: Mapping[str, Any]) -> int:
        """As set."""
        return int(settings["steps"])

    def evaluate_every(self, settings: Mapping[str, Any]) -> int:
        """Ten steps; the published 2,000 hide when the rule is found."""
        return EVALUATE_EVERY

    def stopping(self, task: Task, parameters: Mapping[str, Any]) -> Stopping:
        """All inputs right, ten evaluations in a row."""
        return Stopping("validation", below=1.0, lasting=10, for_accuracy=True)

    def grokking(self, task: Task, parameters: Mapping[str, Any]) -> Grokking:
        """All inputs right."""
        return Grokking(1.0, for_accuracy=True)

    def finish(
        self, task: Task, parameters: Mapping[str, Any], config: Mapping[str, Any], module: nn.Module
    ) -> tuple[Mapping[str, Any], Mapping[str, Tensor]]:
        """Padded with zeros to the task's bits and the wanted width; no step is taken after that."""
        assert isinstance(task, Parity)
        sizes = {"n": task.width, "hidden": int(parameters["hidden"])}
        layers = self.plugins.architecture("grokkit_parity/mlp").layers(config) or ()
        return {**config, **sizes}, padded(layers, module.state_dict(), sizes)

    def summary(self, task: Task, parameters: Mapping[str, Any]) -> str:
        """One line for the manifest."""
        assert isinstance(task, Parity)
        return f"published curriculum: 10 bits learned, padded with zeros to {task.width} bits, no step after padding"
