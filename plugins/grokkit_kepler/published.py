"""The published network and its training, with what was wrong in it put right and said.

Rows that are held out for validation drive the learning rate and the stop; published were the test rows. The certificate
is measured on fresh rows. Source: the public repository grisuno/kepler_orbit_grokker.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from grokkit_core.architecture import Architecture, BatchedForward, Layer
from grokkit_core.dtypes import cast
from grokkit_core.fusion.perceptrons import Perceptrons
from grokkit_core.streams import stream
from grokkit_core.task import Batch, Task, tensors_of
from grokkit_core.tensors import Signature
from grokkit_core.training.gradient import initialised
from grokkit_core.training.lanes import Lane, LanesRun
from grokkit_core.training.recipe import Grokking, Recipe, Run, State, Stopping
from grokkit_kepler.plugin import LINEAR_ANGLE

DECAY = 5e-6
CLIP = 1.0
FACTOR, PATIENCE, LEAST_RATE, IMPROVED = 0.5, 200, 1e-7, 1e-4
"""Of the learning rate: halved after 200 epochs in a row that are not better by this share (PyTorch's ReduceLROnPlateau)."""

TRAINING_SHARE = 0.8
EVALUATE_EVERY = 25


class PublishedArchitecture(Architecture):
    """`grokkit_kepler/published`: config `width`."""

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        """The network with normal Kaiming weights and zero biases."""
        return PublishedMlp(config["width"])

    def signature(self, config: Mapping[str, Any]) -> Signature:
        """`orbit` "batch 5" to `position` "batch 2"."""
        return LINEAR_ANGLE

    def layers(self, config: Mapping[str, Any]) -> Sequence[Layer]:
        """Two hidden layers of `width`."""
        return (
            Layer("layers.0.weight", "layers.0.bias", "relu", outputs="width"),
            Layer("layers.2.weight", "layers.2.bias", "relu", inputs="width", outputs="width"),
            Layer("layers.4.weight", "layers.4.bias", "identity", inputs="width"),
        )

    def batched(self, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> BatchedForward:
        """All members by batched products."""
        layers = Perceptrons(self.layers(config), tensors)

        def run(*inputs: Tensor, **context: Mapping[str, Tensor]) -> Tensor:
            return layers(inputs[0])

        return run


class PublishedMlp(nn.Module):
    """5-128-128-2, ReLU: 17,538 parameters."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(5, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 2)
        )
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)

    def forward(self, orbit: Tensor) -> Tensor:
        """The position "batch 2" from rows "batch 5"."""
        position: Tensor = self.layers(orbit)
        return position


class Published(Recipe):
    """Full-batch AdamW, gradient norm clipped to 1, learning rate halved on plateaus, stop at a validation MSE of 5e-5."""

    citation = ("grisuno/kepler_orbit_grokker: public repository",)

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
        return LanesRun([_Descent(self, task, parameters, seed, dtype, device) for seed in seeds])

    def rows(self, task: Task, parameters: Mapping[str, Any], seed: int) -> tuple[Batch, Batch]:
        """Training rows and held-out rows of one draw."""
        drawn = task.sample(parameters["samples"], generator=stream(seed, "train"))
        count = int(TRAINING_SHARE * len(drawn))
        return drawn[:count], drawn[count:]

    def validation(self, task: Task, parameters: Mapping[str, Any], seed: int) -> Batch:
        """The fifth of the draw that is not trained on."""
        return self.rows(task, parameters, seed)[1]

    def stopping(self, task: Task, parameters: Mapping[str, Any]) -> Stopping:
        """The published threshold, on validation rows."""
        return Stopping("validation", below=parameters["threshold"])

    def grokking(self, task: Task, parameters: Mapping[str, Any]) -> Grokking:
        """The same threshold, which stands 20 % below a linear fit: nothing is grokked there."""
        return Grokking(parameters["threshold"], lasting=1)

    def summary(self, task: Task, parameters: Mapping[str, Any]) -> str:
        """One line for the manifest."""
        return "published network on its own law: the angle of a conic grows linearly in time, which is not Kepler's"


class _Descent(Lane):
    """One seed: rows, network, AdamW and the plateau rule."""

    def __init__(
        self,
        recipe: Published,
        task: Task,
        settings: Mapping[str, Any],
        seed: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        architecture = recipe.plugins.architecture(recipe.spec.architecture)
        config = architecture.settled(recipe.config(task, settings))
        self._module = initialised(architecture.build, config, seed).to(device, dtype)
        sides = [half.to(dtype, device) for half in recipe.rows(task, settings, seed)]
        self._training, self._held = [(tensors_of(half.inputs)[0], cast(half.targets, dtype)) for half in sides]
        self._optimizer = torch.optim.AdamW(self._module.parameters(), lr=settings["lr"], weight_decay=DECAY)
        self._last, self._epoch = settings["epochs"], 0
        self._best, self._waited = math.inf, 0

    def step(self) -> tuple[float, bool]:
        """One epoch, which is one step of the whole batch, and a look at the held-out rows."""
        self._optimizer.zero_grad()
        loss = self._loss(self._training)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self._module.parameters(), CLIP)
        self._optimizer.step()
        with torch.no_grad():
            self._settle(self._loss(self._held).item())
        self._epoch += 1
        self.finished = self._epoch >= self._last
        return loss.item(), self.finished or self._epoch % EVALUATE_EVERY == 0

    def _loss(self, rows: tuple[Tensor, Tensor]) -> Tensor:
        difference: Tensor = self._module(rows[0]) - rows[1]
        return difference.square().mean()

    def _settle(self, held: float) -> None:
        """Halve the learning rate once the held-out loss has not improved for long enough."""
        better = held < self._best * (1 - IMPROVED)
        self._best, self._waited = (held, 0) if better else (self._best, self._waited + 1)
        if self._waited > PATIENCE:
            group = self._optimizer.param_groups[0]
            group["lr"], self._waited = max(group["lr"] * FACTOR, LEAST_RATE), 0

    def network(self) -> nn.Module:
        """The network as it is."""
        return self._module

    def state(self) -> State:
        """Weights, moments, learning rate and the plateau's counters."""
        tensors = {f"model.{name}": tensor.clone() for name, tensor in self._module.state_dict().items()}
        for key, moments in self._optimizer.state_dict()["state"].items():
            tensors |= {f"moments.{key}.{name}": tensor.clone() for name, tensor in moments.items()}
        rate = self._optimizer.param_groups[0]["lr"]
        best = None if math.isinf(self._best) else self._best
        return State(tensors, {"rate": rate, "epoch": self._epoch, "best": best, "waited": self._waited})

    def restore(self, state: State) -> None:
        """Go on from there."""
        values = state.values
        self._module.load_state_dict(state.part("model."))
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in state.part("moments.").items():
            key, _, field = name.partition(".")
            moments.setdefault(int(key), {})[field] = tensor
        self._optimizer.load_state_dict({**self._optimizer.state_dict(), "state": moments})
        self._optimizer.param_groups[0]["lr"] = float(values["rate"])
        self._epoch, self._waited = int(values["epoch"]), int(values["waited"])
        self._best = math.inf if values["best"] is None else float(values["best"])
