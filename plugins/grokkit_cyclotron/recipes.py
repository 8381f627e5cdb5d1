"""How cyclotron networks are trained."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from grokkit_core.streams import stream
from grokkit_core.task import Batch, Task, tensors_of
from grokkit_core.training.gradient import VALIDATION_SAMPLES, GradientRecipe, epochs
from grokkit_core.training.recipe import Grokking, Stopping

BETAS = (0.9, 0.99)
EPSILON = 1e-8
WEIGHT_DECAY = 1e-4
WINDOWS_EACH = 500
"""Validation windows at each of several frequencies."""

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

    def stacked_optimizer(
        self, parameters: Sequence[nn.Parameter], settings: Mapping[str, Any]
    ) -> torch.optim.Optimizer:
        """OrthogonalAdamW, norms and projections taken for each seed."""
        return OrthogonalAdamW(parameters, lr=settings["lr"], stacked=True)

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

    def stopping(self, task: Task, parameters: Mapping[str, Any]) -> Stopping | None:
        """The published threshold on the training MSE of one epoch."""
        return Stopping("train", below=parameters["threshold"])

    def grokking(self, task: Task, parameters: Mapping[str, Any]) -> Grokking:
        """The same threshold on validation data; training ends about there, so a lasting run is rarely seen."""
        return Grokking(parameters["threshold"])

    def summary(self, task: Task, parameters: Mapping[str, Any]) -> str:
        """One line for the manifest."""
        nodes = parameters["angular"] * parameters["radial"]
        return f"published {nodes}-node network, trained at omega = {parameters['omega']:g} rad/s only"


def windows(task: Task, settings: Mapping[str, Any], n: int, seed: int, purpose: str) -> Batch:
    """`n` windows at each of `settings["omegas"]` with the start phases `settings["phase"]`, from the stream of this purpose."""
    parts = [
        task.sample(n, generator=stream(seed, purpose, index), omega=omega, phase=settings["phase"])
        for index, omega in enumerate(settings["omegas"])
    ]
    context = {name: torch.cat([part.context[name] for part in parts]) for name in parts[0].context}
    inputs = torch.cat([tensors_of(part.inputs)[0] for part in parts])
    return Batch(inputs, torch.cat([part.targets for part in parts]), context)


class OrthogonalAdamW(torch.optim.Optimizer):
    """AdamW on gradients from which the part along the parameter is removed, tensor by tensor.

    Where |g| > 0.1 |p|: g <- g - (g.p / max(p.p, 1e-8)) p. Source: the training program of grisuno/supertopo3.
    All tensors of a group are updated as one flat vector, whose state stands with the first of them; a tensor without a
    gradient counts as one with gradient zero. With `stacked`, the first axis of every tensor counts seeds, and each seed
    is updated by itself.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, *, stacked: bool = False) -> None:
        super().__init__(list(parameters), {"lr": lr})
        self._stacked = stacked
        self._owners: dict[Tensor, Tensor] = {}

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update of every group that has a gradient."""
        for group in self.param_groups:
            tensors: list[Tensor] = group["params"]
            if any(tensor.grad is not None for tensor in tensors):
                self._update(tensors, group["lr"])
        return None

    def _update(self, tensors: list[Tensor], lr: float) -> None:
        rows = len(tensors[0]) if self._stacked else 1
        flat = [tensor.view(rows, -1) for tensor in tensors]
        sizes = [part.shape[1] for part in flat]
        owner = self._owners.get(tensors[0])
        if owner is None:
            owner = self._owners[tensors[0]] = torch.repeat_interleave(torch.tensor(sizes, device=flat[0].device))
        parameter = torch.cat(flat, 1)
        gradient = torch.cat([_gradient(tensor).view(rows, -1) for tensor in tensors], 1)
        state = self.state[tensors[0]]
        if not state:
            state |= {
                "step": torch.zeros(()),
                "mean": torch.zeros_like(parameter),
                "square": torch.zeros_like(parameter),
            }
        state["step"] += 1
        count = state["step"].item()
        gradient = _orthogonal(parameter, gradient, owner, len(sizes))
        state["mean"].lerp_(gradient, 1 - BETAS[0])
        state["square"].mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
        size = state["square"].sqrt().div_(math.sqrt(1 - BETAS[1] ** count)).add_(EPSILON)
        parameter.mul_(1 - lr * WEIGHT_DECAY).addcdiv_(state["mean"], size, value=-lr / (1 - BETAS[0] ** count))
        torch._foreach_copy_(flat, torch.split(parameter, sizes, 1))


def _gradient(tensor: Tensor) -> Tensor:
    return torch.zeros_like(tensor) if tensor.grad is None else tensor.grad


def _orthogonal(parameter: Tensor, gradient: Tensor, owner: Tensor, count: int) -> Tensor:
    """The flat gradient "row number" without its part along each of `count` tensors, where it is large against it.

    `owner` "number" says to which tensor a number belongs.
    """
    both = torch.stack((gradient, parameter)).double()
    products = torch.cat((both * both, both[:1] * both[1:]))
    sums = products.new_zeros(3, len(parameter), count).index_add_(2, owner, products)
    large = sums[0] > PROJECTION**2 * sums[1]
    factors = torch.where(large, sums[2] / sums[1].clamp_min(1e-8), 0.0).to(parameter.dtype)
    return torch.addcmul(gradient, factors[:, owner], parameter, value=-1)
