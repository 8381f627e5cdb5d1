"""How cyclotron networks are trained."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from grokkit_core.streams import stream
from grokkit_core.task import Batch, Task
from grokkit_core.training.gradient import VALIDATION_SAMPLES, GradientRecipe, epochs
from grokkit_core.training.recipe import Grokking, Stopping

BETAS = (0.9, 0.99)
EPSILON = 1e-8
WEIGHT_DECAY = 1e-4
PROJECTION = 0.1
"""The gradient is projected where its norm exceeds this share of the parameter's norm."""


class Published(GradientRecipe):
    """The published protocol: 1,500 windows at omega = 0.8, batch 64, at most 60 epochs, lr 0.005 (1 + cos(pi e / 60)).

    It stops when the mean training MSE of an epoch is below 5e-4; validation is recorded beside it and decides nothing.
    """

    citation = ("grisuno/supertopo3: public repository and papers on the 1-node and 8-node cyclotron networks",)

    def config(self, task: Task, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        """The grid."""
        return {"angular": parameters["angular"], "radial": parameters["radial"]}

    def optimizer(self, parameters: Sequence[nn.Parameter], settings: Mapping[str, Any]) -> torch.optim.Optimizer:
        """OrthogonalAdamW."""
        return OrthogonalAdamW(parameters, lr=settings["lr"])

    def batches(self, task: Task, settings: Mapping[str, Any], seed: int) -> Callable[[int], Batch]:
        """Minibatches of the fixed training set, reshuffled every epoch."""
        data = task.sample(settings["samples"], generator=stream(seed, "train"), omega=settings["omega"])
        return epochs(data, settings["batch"], seed)

    def validation(self, task: Task, parameters: Mapping[str, Any], seed: int) -> Batch:
        """Fresh windows at the training frequency."""
        return task.sample(VALIDATION_SAMPLES, generator=stream(seed, "validation"), omega=parameters["omega"])

    def steps(self, settings: Mapping[str, Any]) -> int:
        """All epochs."""
        return int(settings["epochs"]) * self.evaluate_every(settings)

    def evaluate_every(self, settings: Mapping[str, Any]) -> int:
        """One epoch."""
        return math.ceil(int(settings["samples"]) / int(settings["batch"]))

    def learning_rate(self, step: int, settings: Mapping[str, Any]) -> float:
        """Half a cosine over all epochs, constant within an epoch."""
        epoch = step // self.evaluate_every(settings)
        return float(settings["lr"]) / 2 * (1 + math.cos(math.pi * epoch / settings["epochs"]))

    def stopping(self, task: Task, parameters: Mapping[str, Any]) -> Stopping:
        """The published threshold on the training MSE of one epoch."""
        return Stopping("train", below=parameters["threshold"])

    def grokking(self, task: Task, parameters: Mapping[str, Any]) -> Grokking:
        """The same threshold on validation data; training ends about there, so a lasting run is rarely seen."""
        return Grokking(parameters["threshold"])

    def summary(self, task: Task, parameters: Mapping[str, Any]) -> str:
        """One line for the manifest."""
        nodes = parameters["angular"] * parameters["radial"]
        return f"published {nodes}-node network, trained at omega = {parameters['omega']:g} rad/s only"


class OrthogonalAdamW(torch.optim.Optimizer):
    """AdamW on gradients from which the part along the parameter is removed, tensor by tensor.

    Where |g| > 0.1 |p|: g <- g - (g.p / max(p.p, 1e-8)) p. Source: the training program of grisuno/supertopo3.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float) -> None:
        super().__init__(list(parameters), {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        for group in self.param_groups:
            tensors: list[Tensor] = [parameter for parameter in group["params"] if parameter.grad is not None]
            self._update(tensors, group["lr"])
        return None

    def _update(self, tensors: list[Tensor], lr: float) -> None:
        gradients = _orthogonal(tensors, [parameter.grad for parameter in tensors if parameter.grad is not None])
        for parameter in tensors:
            if not self.state[parameter]:
                self.state[parameter] = {
                    "step": torch.zeros(()),
                    "mean": torch.zeros_like(parameter),
                    "square": torch.zeros_like(parameter),
                }
        states = [self.state[parameter] for parameter in tensors]
        means, squares = [state["mean"] for state in states], [state["square"] for state in states]
        for state in states:
            state["step"] += 1
        count = states[0]["step"].item() if states else 1
        torch._foreach_lerp_(means, gradients, 1 - BETAS[0])
        torch._foreach_mul_(squares, BETAS[1])
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - BETAS[1])
        scale = math.sqrt(1 - BETAS[1] ** count)
        denominators = torch._foreach_sqrt(squares)
        torch._foreach_div_(denominators, scale)
        torch._foreach_add_(denominators, EPSILON)
        torch._foreach_mul_(tensors, 1 - lr * WEIGHT_DECAY)
        torch._foreach_addcdiv_(tensors, means, denominators, -lr / (1 - BETAS[0] ** count))


def _orthogonal(parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> list[Tensor]:
    """Gradients without their part along the parameter, where they are large against it."""
    sizes = torch.stack(torch._foreach_norm(list(gradients)))
    lengths = torch.stack(torch._foreach_norm(list(parameters)))
    along = torch.stack([(g * p).sum() for g, p in zip(gradients, parameters, strict=True)])
    factors = torch.where(sizes > PROJECTION * lengths, along / lengths.square().clamp_min(1e-8), 0.0)
    parts = torch._foreach_mul(list(parameters), list(factors.unbind()))
    return list(torch._foreach_sub(list(gradients), parts))
