"""The published network for 2 x 2 products (grisuno/matrixgrokker) and its enlargement, for comparison only.

It is not bilinear and learns no rule: nearly all outputs lie within 0.1 where it was trained and few beyond.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from grokkit_core.architecture import Architecture
from grokkit_core.streams import stream
from grokkit_core.task import Batch, Task
from grokkit_core.tensors import Signature, TensorSpec
from grokkit_core.training.gradient import GradientRecipe, epochs
from grokkit_core.training.recipe import Stopping

SAMPLES, TRAINED = 10_000, 8_000
BATCH = 128
RATE = 1e-3
DECAY = 0.022
"""The published 0.01 (1 + 2 (0.3 |1 - LC| + 0.3 SP)) at its start; its two measures are refreshed every 200 epochs."""

WITHIN = 0.1
"""The published accuracy counts a sample as right when all outputs are this near."""

EVALUATE_EPOCHS = 10
DTYPES = ("float32", "float64")


class Mlp(nn.Module):
    """Both matrices flattened, two ReLU layers, the product flattened."""

    def __init__(self, m: int, k: int, n: int, hidden: int) -> None:
        super().__init__()
        self.shape = (m, n)
        self.first = nn.Linear(m * k + k * n, hidden)
        self.second = nn.Linear(hidden, hidden)
        self.last = nn.Linear(hidden, m * n)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """ "batch m k" and "batch k n" to "batch m n"."""
        flat = torch.cat((a.flatten(1), b.flatten(1)), 1)
        hidden = torch.relu(self.second(torch.relu(self.first(flat))))
        result: Tensor = self.last(hidden).unflatten(1, self.shape)
        return result


class ProductMlp(Architecture):
    """Builds the published network, for one size of matrices."""

    vectorises = True

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        """PyTorch's own initialisation."""
        return Mlp(*(int(config[name]) for name in ("m", "k", "n", "hidden")))

    def signature(self, config: Mapping[str, Any]) -> Signature:
        """Batches of matrices of the one size that it was built for."""
        m, k, n = (int(config[name]) for name in "mkn")
        return Signature(
            [TensorSpec("a", ("batch", m, k), DTYPES), TensorSpec("b", ("batch", k, n), DTYPES)],
            [TensorSpec("c", ("batch", m, n), DTYPES)],
        )


class PublishedMlp(GradientRecipe):
    """10,000 pairs uniform on [-1, 1], four fifths of them trained on; AdamW, MSE. It stops at no measure of the rule."""

    citation = ("grisuno/matrixgrokker",)

    def config(self, task: Task, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        """The sizes of the task."""
        return {**{name: task.parameters[name] for name in "mkn"}, "hidden": parameters["hidden"]}

    def optimizer(self, parameters: Sequence[nn.Parameter], settings: Mapping[str, Any]) -> torch.optim.Optimizer:
        """AdamW with the published weight decay at its start, held constant."""
        return torch.optim.AdamW(parameters, lr=RATE, weight_decay=DECAY)

    def steps(self, settings: Mapping[str, Any]) -> int:
        """All epochs."""
        return int(settings["epochs"]) * -(-TRAINED // BATCH)

    def batches(self, task: Task, settings: Mapping[str, Any], seed: int) -> Callable[[int], Batch]:
        """Minibatches of the fixed pairs, reshuffled every epoch."""
        return epochs(self._samples(task, seed)[:TRAINED], BATCH, seed)

    def validation(self, task: Task, parameters: Mapping[str, Any], seed: int) -> Batch:
        """The fifth that is not trained on."""
        return self._samples(task, seed)[TRAINED:]

    def evaluate_every(self, settings: Mapping[str, Any]) -> int:
        """Ten epochs."""
        return EVALUATE_EPOCHS * -(-TRAINED // BATCH)

    def stopping(self, task: Task, parameters: Mapping[str, Any]) -> Stopping | None:
        """Never before the last epoch: the published rule, 99.99 % on both sets, is not met."""
        return None

    def summary(self, task: Task, parameters: Mapping[str, Any]) -> str:
        """One line for the manifest."""
        sizes = ",".join(str(task.parameters[name]) for name in "mkn")
        return f"published ReLU network for <{sizes}> products, for comparison: approximates on [-1, 1], learns no rule"

    def _samples(self, task: Task, seed: int) -> Batch:
        return task.sample(SAMPLES, generator=stream(seed, "train"), scale=1.0)


def within(prediction: Tensor, target: Tensor) -> Tensor:
    """The published accuracy: for each sample whether all outputs lie within 0.1 of the product, "batch"."""
    return ((prediction - target).abs() <= WITHIN).flatten(1).all(1)


def corner_copy(small: Mlp, large: Mlp) -> Mlp:
    """The published enlargement: every tensor of `small` in the corner of a freshly initialised larger network.

    Changes `large`. It keeps nothing: accuracy at 4 x 4 is zero and the error is above that of predicting zero.
    """
    with torch.no_grad():
        for name, tensor in small.state_dict().items():
            target = large.get_parameter(name)
            target[tuple(slice(size) for size in tensor.shape)] = tensor
    return large
