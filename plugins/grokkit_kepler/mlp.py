"""The generic comparison of the flow map: a plain network of the state, and its recipe."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from grokkit_core.architecture import Architecture, BatchedForward, Layer
from grokkit_core.fusion.perceptrons import Perceptrons
from grokkit_core.streams import stream
from grokkit_core.task import Batch, Task
from grokkit_core.tensors import Signature
from grokkit_core.training.gradient import VALIDATION_SAMPLES, GradientRecipe, epochs
from grokkit_kepler.law import EITHER
from grokkit_kepler.on_orbit import check_turns
from grokkit_kepler.plugin import FLOW
from grokkit_kepler.range_check import Range
from grokkit_kepler.recipes import trained_range

EVALUATE_EVERY = 100


class MlpArchitecture(Architecture):
    """`grokkit_kepler/mlp`: config `width`, `mu`, `dt`, `least_turn`, `most_turn`. The time step is learned and stays."""

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        """A network with PyTorch's default initialisation."""
        return Mlp(config["width"], Range(config["mu"], config["dt"], config["least_turn"], config["most_turn"]))

    def signature(self, config: Mapping[str, Any]) -> Signature:
        """`state` "batch 4" to `state` "batch 4"."""
        return FLOW

    def check(self, config: Mapping[str, Any]) -> None:
        """The range of n dt is not empty."""
        check_turns(config)

    def check_inputs(
        self, module: nn.Module, inputs: Sequence[Tensor], context: Mapping[str, Tensor], *, force: bool
    ) -> None:
        """Unbound states and those outside the trained range are refused unless forced: it would answer, but not know."""
        assert isinstance(module, Mlp)
        module.trained.check(inputs[0], unbound=force, beyond=force)

    def layers(self, config: Mapping[str, Any]) -> Sequence[Layer]:
        """Two hidden layers of `width`; four numbers in and four out are fixed."""
        return (
            Layer("layers.0.weight", "layers.0.bias", "silu", outputs="width"),
            Layer("layers.2.weight", "layers.2.bias", "silu", inputs="width", outputs="width"),
            Layer("layers.4.weight", "layers.4.bias", "identity", inputs="width"),
        )

    def batched(self, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> BatchedForward:
        """All members by batched products."""
        layers, dt = Perceptrons(self.layers(config), tensors), float(config["dt"])

        def run(*inputs: Tensor, **context: Mapping[str, Tensor]) -> Tensor:
            return inputs[0] + dt * layers(inputs[0])

        return run


class Mlp(nn.Module):
    """state + dt N(state): N, of order one, is the mean rate of change over the step. 17,668 parameters by default."""

    def __init__(self, width: int, trained: Range) -> None:
        super().__init__()
        self.trained = trained
        self.layers = nn.Sequential(
            nn.Linear(4, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 4)
        )

    def forward(self, state: Tensor) -> Tensor:
        """The next state "batch 4"."""
        rate: Tensor = self.layers(state)
        return state + self.trained.dt * rate


class MlpRecipe(GradientRecipe):
    """Adam (lr 3e-3, cosine to 0) on 50,000 fixed states of either direction, batch 512, 3,505 steps."""

    def config(self, task: Task, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        """The width, and what the network is trained for."""
        return {"width": parameters["width"], **trained_range(task)}

    def optimizer(self, parameters: Sequence[nn.Parameter], settings: Mapping[str, Any]) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(parameters, lr=settings["lr"])

    def batches(self, task: Task, settings: Mapping[str, Any], seed: int) -> Callable[[int], Batch]:
        """Minibatches of the fixed training set, reshuffled every epoch."""
        data = task.sample(settings["samples"], generator=stream(seed, "train"), direction=EITHER)
        return epochs(data, settings["batch"], seed)

    def validation(self, task: Task, parameters: Mapping[str, Any], seed: int) -> Batch:
        """Fresh states of either direction."""
        return task.sample(VALIDATION_SAMPLES, generator=stream(seed, "validation"), direction=EITHER)

    def steps(self, settings: Mapping[str, Any]) -> int:
        """As set."""
        return int(settings["steps"])

    def evaluate_every(self, settings: Mapping[str, Any]) -> int:
        """A hundred steps, about an epoch."""
        return EVALUATE_EVERY

    def learning_rate(self, step: int, settings: Mapping[str, Any]) -> float:
        """Half a cosine over all steps."""
        return float(settings["lr"]) / 2 * (1 + math.cos(math.pi * step / settings["steps"]))

    def loss(self, task: Task, prediction: Tensor, target: Tensor) -> Tensor:
        """The squared error in units of the step, so that it is of order one at the start."""
        return task.loss(prediction, target) / float(task.parameters["dt"]) ** 2

    def summary(self, task: Task, parameters: Mapping[str, Any]) -> str:
        """One line for the manifest."""
        return "generic comparison: a plain network of the state, which conserves nothing"
