"""The generic two-state network's recipe, an honest comparison of the rotor: full-batch Adam, then L-BFGS."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from grokkit_core.streams import stream_seed
from grokkit_core.task import Batch, Task, tensors_of
from grokkit_core.training.recipe import Progress, Recipe, Run, State
from grokkit_cyclotron.least_squares import VALIDATION_SAMPLES, windows
from grokkit_cyclotron.two_state import TwoStateMlp

ADAM_RATE = 3e-3
HISTORY = 50
EVALUATE_EVERY = 10


class Generic(Recipe):
    """Random-phase windows of several frequencies; 300 Adam steps (lr 3e-3, cosine to 0), then 150 iterations of L-BFGS
    (history 50, strong Wolfe line search) on the same full batch.
    """

    citation = ("D. C. Liu and J. Nocedal, On the limited memory BFGS method for large scale optimization, 1989",)

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
        return GenericRun([_Lane(task, parameters, seed, dtype, device) for seed in seeds], parameters)

    def validation(self, task: Task, parameters: Mapping[str, Any], seed: int) -> Batch:
        """Fresh windows of the training frequencies."""
        return windows(task, parameters, VALIDATION_SAMPLES, seed, "validation")

    def summary(self, task: Task, parameters: Mapping[str, Any]) -> str:
        """One line for the manifest."""
        omegas = ", ".join(f"{omega:g}" for omega in parameters["omegas"])
        return f"generic residual network of two states, {parameters['phase']} phases at omega = {omegas} rad/s"


class GenericRun(Run):
    """Seeds in turn; each step is one of Adam or one iteration of L-BFGS."""

    def __init__(self, lanes: Sequence[_Lane], settings: Mapping[str, Any]) -> None:
        self._lanes, self._adam, self._last = lanes, settings["adam"], settings["adam"] + settings["lbfgs"]
        self.count = 0

    @property
    def done(self) -> bool:
        """Whether all steps are taken or every seed was stopped."""
        return self.count >= self._last or all(lane.stopped for lane in self._lanes)

    def step(self) -> Progress:
        """One step of every seed that has not stopped."""
        losses = [math.nan if lane.stopped else self._advance(lane) for lane in self._lanes]
        self.count += 1
        return Progress(self.count, losses, self.count % EVALUATE_EVERY == 0)

    def _advance(self, lane: _Lane) -> float:
        if self.count < self._adam:
            return lane.descend(ADAM_RATE / 2 * (1 + math.cos(math.pi * self.count / self._adam)))
        return lane.curve()

    def stop(self, index: int) -> None:
        """End the training of one seed."""
        self._lanes[index].stopped = True

    def result(self) -> Sequence[nn.Module]:
        """The networks, one a seed."""
        return [lane.module for lane in self._lanes]

    def state(self) -> State:
        """Weights, both optimisers' states and the counters."""
        tensors = {f"{i}.{name}": t for i, lane in enumerate(self._lanes) for name, t in lane.tensors().items()}
        values = {"step": self.count, "lanes": [lane.values() for lane in self._lanes]}
        return State(tensors, values)

    def restore(self, state: State) -> None:
        """Weights, both optimisers' states and the counters as they were."""
        self.count = int(state.values["step"])
        for index, (lane, values) in enumerate(zip(self._lanes, state.values["lanes"], strict=True)):
            prefix = f"{index}."
            own = {name.removeprefix(prefix): t for name, t in state.tensors.items() if name.startswith(prefix)}
            lane.restore(own, values)


class _Lane:
    """One seed: its data, its network and its two optimisers."""

    def __init__(
        self, task: Task, settings: Mapping[str, Any], seed: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        batch = windows(task, settings, settings["samples"], seed, "train").to(dtype, device)
        self._states, self._targets = tensors_of(batch.inputs)[0], batch.targets.to(dtype)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(stream_seed(seed, "weights"))
            self.module: nn.Module = TwoStateMlp(settings["width"]).to(device, dtype)
        self._adam = torch.optim.Adam(self.module.parameters(), lr=ADAM_RATE)
        self._lbfgs = torch.optim.LBFGS(
            self.module.parameters(), lr=1.0, max_iter=1, history_size=HISTORY, line_search_fn="strong_wolfe"
        )
        self.stopped = False

    def descend(self, rate: float) -> float:
        self._adam.param_groups[0]["lr"] = rate
        loss = self._loss(self._adam)
        self._adam.step()
        return loss.item()

    def curve(self) -> float:
        """One iteration; the loss before it."""
        loss = cast(Tensor, self._lbfgs.step(lambda: self._loss(self._lbfgs)))  # type: ignore[no-untyped-call]
        return loss.item()

    def _loss(self, optimizer: torch.optim.Optimizer) -> Tensor:
        optimizer.zero_grad()
        loss: Tensor = (self.module(self._states) - self._targets).square().mean()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    def tensors(self) -> dict[str, Tensor]:
        """Weights, moments and the history of L-BFGS."""
        found = {f"model.{name}": t.clone() for name, t in self.module.state_dict().items()}
        for key, state in self._adam.state_dict()["state"].items():
            found |= {f"adam.{key}.{name}": t.clone() for name, t in state.items()}
        for name, value in self._history().items():
            if isinstance(value, Tensor):
                found[f"lbfgs.{name}"] = value.clone()
            elif isinstance(value, list) and value and isinstance(value[0], Tensor):
                found[f"lbfgs.{name}"] = torch.stack(value)
        return found

    def values(self) -> dict[str, Any]:
        """The numbers of L-BFGS, and whether the seed was stopped."""
        numbers = {name: v for name, v in self._history().items() if isinstance(v, (int, float))}
        return {"stopped": self.stopped, "lbfgs": numbers}

    def _history(self) -> dict[str, Any]:
        state = dict(self._lbfgs.state_dict()["state"].get(0, {}))
        state.pop("al", None)  # room for a loop's own results
        return state

    def restore(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Go on from there."""
        self.stopped = bool(values["stopped"])
        self.module.load_state_dict(_under("model.", tensors))
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _under("adam.", tensors).items():
            key, _, field = name.partition(".")
            moments.setdefault(int(key), {})[field] = tensor
        self._adam.load_state_dict({**self._adam.state_dict(), "state": moments})
        if values["lbfgs"]:
            history: dict[str, Any] = {**values["lbfgs"], **_under("lbfgs.", tensors)}
            for name in ("old_dirs", "old_stps", "ro"):
                history[name] = list(history.get(name, ()))
            self._lbfgs.load_state_dict({**self._lbfgs.state_dict(), "state": {0: history}})


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
