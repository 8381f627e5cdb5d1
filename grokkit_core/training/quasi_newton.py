"""Full-batch training by L-BFGS: for few parameters and a smooth loss, where the last digits count."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from grokkit_core.architecture import applied
from grokkit_core.dtypes import cast
from grokkit_core.task import Batch, Task
from grokkit_core.training.gradient import initialised
from grokkit_core.training.lanes import Lane, LanesRun
from grokkit_core.training.recipe import Recipe, Run, State

PER_STEP = 10
"""Iterations of L-BFGS in one step of the run."""

TOLERANCE = 1e-30
"""Of gradient and change: torch's own (1e-7, 1e-9) stop at relative errors of 1e-5."""


class FullBatchRecipe(Recipe):
    """All samples at once, L-BFGS with a strong Wolfe line search (Liu and Nocedal 1989), until nothing moves any more.

    A subclass names the data; the initial weights are those that the architecture draws for the seed.
    """

    citation = ("D. C. Liu and J. Nocedal, On the limited memory BFGS method for large scale optimization, 1989",)

    @abstractmethod
    def data(self, task: Task, settings: Mapping[str, Any], seed: int) -> Batch:
        """The training set of a seed, in float64."""

    @abstractmethod
    def iterations(self, settings: Mapping[str, Any]) -> int:
        """The most iterations."""

    def history(self, settings: Mapping[str, Any]) -> int:
        """Pairs of steps and gradient changes that are kept."""
        return 30

    def predict(self, module: nn.Module, batch: Batch, *, reads_context: bool) -> Tensor:
        """What is compared with the targets of `data`: by default what the network gives for its inputs."""
        return applied(module, batch, reads_context=reads_context)

    def loss(self, task: Task, prediction: Tensor, target: Tensor) -> Tensor:
        """What is minimised."""
        return task.loss(prediction, target)

    def start(
        self,
        task: Task,
        parameters: Mapping[str, Any],
        seeds: Sequence[int],
        *,
        dtype: torch.dtype,
        device: torch.device,
    ) -> Run:
        """A run in which each seed is solved by itself."""
        return LanesRun([_Descent(self, task, parameters, seed, dtype, device) for seed in seeds])


class _Descent(Lane):
    """One seed: its data, its network, and the optimiser's memory."""

    def __init__(
        self,
        recipe: FullBatchRecipe,
        task: Task,
        settings: Mapping[str, Any],
        seed: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self._recipe, self._task = recipe, task
        architecture = recipe.plugins.architecture(recipe.spec.architecture)
        config = architecture.settled(recipe.config(task, settings))
        self._module = initialised(architecture.build, config, seed).to(device, dtype)
        self._reads_context = architecture.reads_context
        self._batch = recipe.data(task, settings, seed).to(dtype, device)
        self._targets = cast(self._batch.targets, dtype)
        self._left = recipe.iterations(settings)
        self._optimizer = torch.optim.LBFGS(
            list(self._module.parameters()),
            lr=1.0,
            max_iter=PER_STEP,
            history_size=recipe.history(settings),
            tolerance_grad=TOLERANCE,
            tolerance_change=TOLERANCE,
            line_search_fn="strong_wolfe",
        )

    def step(self) -> tuple[float, bool]:
        """Ten iterations; the loss before them."""
        iterations = min(PER_STEP, self._left)
        self._optimizer.param_groups[0]["max_iter"] = iterations
        before = [parameter.detach().clone() for parameter in self._module.parameters()]
        loss: Tensor = self._optimizer.step(self._loss)  # type: ignore[no-untyped-call]
        self._left -= iterations
        still = all(torch.equal(old, new) for old, new in zip(before, self._module.parameters(), strict=True))
        self.finished = still or self._left <= 0
        return loss.item(), True

    def _loss(self) -> Tensor:
        self._optimizer.zero_grad()
        prediction = self._recipe.predict(self._module, self._batch, reads_context=self._reads_context)
        loss = self._recipe.loss(self._task, prediction, self._targets)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    def network(self) -> nn.Module:
        """The network as it is."""
        return self._module

    def state(self) -> State:
        """Weights, the optimiser's memory, and the iterations that are left."""
        tensors = {f"model.{name}": tensor.clone() for name, tensor in self._module.state_dict().items()}
        values: dict[str, Any] = {"left": self._left, "numbers": {}, "lists": []}
        for name, value in self._memory().items():
            if isinstance(value, Tensor):
                tensors[f"memory.{name}"] = value
            elif isinstance(value, list):
                kept = [entry for entry in value if isinstance(entry, Tensor)]
                values["lists"].append(name)
                if kept:
                    tensors[f"memory.{name}"] = torch.stack(kept)
            elif value is not None:
                values["numbers"][name] = value
        return State(tensors, values)

    def restore(self, state: State) -> None:
        """Go on from there."""
        self._left = int(state.values["left"])
        self._module.load_state_dict(state.part("model."))
        memory: dict[str, Any] = dict(state.values["numbers"])
        lists = state.values["lists"]
        memory |= {name: list(t.unbind(0)) if name in lists else t for name, t in state.part("memory.").items()}
        memory |= {name: [] for name in lists if name not in memory}
        if memory:
            first = next(iter(self._module.parameters()))
            self._optimizer.state[first].update(memory)

    def _memory(self) -> Mapping[str, Any]:
        """What torch's L-BFGS keeps between calls, without its scratch list `al`."""
        state = self._optimizer.state[next(iter(self._module.parameters()))]
        return {name: value for name, value in state.items() if name != "al"}
