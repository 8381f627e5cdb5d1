"""The generic two-state network's recipe, an honest comparison of the rotor: full-batch Adam, then L-BFGS."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from grokkit_core.streams import stream_seed
from grokkit_core.task import Batch, Task, tensors_of
from grokkit_core.training.lanes import Lane, LanesRun
from grokkit_core.training.recipe import Recipe, Run, State
from grokkit_cyclotron.recipes import WINDOWS_EACH, windows
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
        return LanesRun([_Descent(task, parameters, seed, dtype, device) for seed in seeds])

    def validation(self, task: Task, parameters: Mapping[str, Any], seed: int) -> Batch:
        """Fresh windows of the training frequencies."""
        return windows(task, parameters, WINDOWS_EACH, seed, "validation")

    def summary(self, task: Task, parameters: Mapping[str, Any]) -> str:
        """One line for the manifest."""
        omegas = ", ".join(f"{omega:g}" for omega in parameters["omegas"])
        return f"generic residual network of two states, {parameters['phase']} phases at omega = {omegas} rad/s"


class _Descent(Lane):
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
        self._count, self._first, self._last = 0, settings["adam"], settings["adam"] + settings["lbfgs"]
        self.finished = self._last == 0

    def step(self) -> tuple[float, bool]:
        """One step of Adam, or one iteration of L-BFGS."""
        if self._count < self._first:
            loss = self._descend(ADAM_RATE / 2 * (1 + math.cos(math.pi * self._count / self._first)))
        else:
            loss = self._curve()
        self._count += 1
        self.finished = self._count >= self._last
        return loss, self.finished or self._count % EVALUATE_EVERY == 0

    def network(self) -> nn.Module:
        """The network as it is."""
        return self.module

    def _descend(self, rate: float) -> float:
        self._adam.param_groups[0]["lr"] = rate
        loss = self._loss(self._adam)
        self._adam.step()
        return loss.item()

    def _curve(self) -> float:
        """One iteration; the loss before it."""
        loss = cast(Tensor, self._lbfgs.step(lambda: self._loss(self._lbfgs)))  # type: ignore[no-untyped-call]
        return loss.item()

    def _loss(self, optimizer: torch.optim.Optimizer) -> Tensor:
        optimizer.zero_grad()
        loss: Tensor = (self.module(self._states) - self._targets).square().mean()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    def _tensors(self) -> dict[str, Tensor]:
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

    def state(self) -> State:
        """Weights, both optimisers' states and the step."""
        numbers = {name: value for name, value in self._history().items() if isinstance(value, (int, float))}
        return State(self._tensors(), {"count": self._count, "lbfgs": numbers})

    def _history(self) -> dict[str, Any]:
        state = dict(self._lbfgs.state_dict()["state"].get(0, {}))
        state.pop("al", None)  # room for a loop's own results
        return state

    def restore(self, state: State) -> None:
        """Weights, both optimisers' states and the step as they were."""
        self._count = int(state.values["count"])
        self.module.load_state_dict(state.part("model."))
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in state.part("adam.").items():
            key, _, field = name.partition(".")
            moments.setdefault(int(key), {})[field] = tensor
        self._adam.load_state_dict({**self._adam.state_dict(), "state": moments})
        if state.values["lbfgs"]:
            history: dict[str, Any] = {**state.values["lbfgs"], **state.part("lbfgs.")}
            for name in ("old_dirs", "old_stps", "ro"):
                history[name] = list(history.get(name, ()))
            self._lbfgs.load_state_dict({**self._lbfgs.state_dict(), "state": {0: history}})
