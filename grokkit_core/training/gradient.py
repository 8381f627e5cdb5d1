"""Gradient descent on minibatches: the recipe to derive from, and its run."""

from __future__ import annotations

import functools
import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from grokkit_core.architecture import StackedForward
from grokkit_core.dtypes import cast
from grokkit_core.streams import stream, stream_seed
from grokkit_core.task import Batch, Task, tensors_of
from grokkit_core.training.recipe import Progress, Recipe, Run, State

VALIDATION_SAMPLES = 2_000


class GradientRecipe(Recipe):
    """Minibatch training. A subclass names data, optimiser and settings; initialisation and batches are functions of
    the seed (and of the step), so that a resumed run meets the same batches.
    """

    @abstractmethod
    def optimizer(self, parameters: Sequence[nn.Parameter], settings: Mapping[str, Any]) -> torch.optim.Optimizer:
        """A new optimiser of these tensors."""

    def stacked_optimizer(
        self, parameters: Sequence[nn.Parameter], settings: Mapping[str, Any]
    ) -> torch.optim.Optimizer | None:
        """An optimiser of tensors "seed *shape" that treats each seed by itself; None: train seeds in turn.

        For one that works number by number (Adam, SGD) return `self.optimizer(parameters, settings)`. The tensors of its
        state have the seed axis first, or are single numbers.
        """
        return None

    @abstractmethod
    def steps(self, settings: Mapping[str, Any]) -> int:
        """The most steps a seed may take."""

    @abstractmethod
    def batches(self, task: Task, settings: Mapping[str, Any], seed: int) -> Callable[[int], Batch]:
        """The batch of each step (from 0) in float64, a pure function of seed and step. See `epochs` and `fresh`."""

    @abstractmethod
    def evaluate_every(self, settings: Mapping[str, Any]) -> int:
        """Steps between evaluations."""

    def learning_rate(self, step: int, settings: Mapping[str, Any]) -> float | None:
        """The learning rate of a step (from 0); None leaves the optimiser's own."""
        return None

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
        """A run of these seeds, batched where recipe and architecture can."""
        return GradientRun(self, task, parameters, seeds, dtype=dtype, device=device)


def epochs(data: Batch, size: int, seed: int) -> Callable[[int], Batch]:
    """Batches of a fixed training set, reshuffled every epoch, the last short one kept; a pure function of the step."""
    per_epoch = math.ceil(len(data) / size)
    order: dict[int, Tensor] = {}

    def batch(step: int) -> Batch:
        epoch, index = divmod(step, per_epoch)
        if epoch not in order:
            order.clear()
            order[epoch] = torch.randperm(len(data), generator=stream(seed, "shuffle", epoch))
        return data[order[epoch][index * size : (index + 1) * size]]

    return batch


def fresh(task: Task, size: int, seed: int, **where: Any) -> Callable[[int], Batch]:
    """A new batch from the task's sampler at every step; a pure function of the step."""
    return lambda step: task.sample(size, generator=stream(seed, "train", step), **where)


class GradientRun(Run):
    """Minibatch training of several seeds in step, each stopped on its own.

    Where recipe and architecture can, all seeds are one batched computation on stacked tensors, of which a seed leaves
    when it stops; its numbers do not depend on who trains beside it. Otherwise the seeds are stepped in turn.
    """

    def __init__(
        self,
        recipe: GradientRecipe,
        task: Task,
        settings: Mapping[str, Any],
        seeds: Sequence[int],
        *,
        dtype: torch.dtype,
        device: torch.device,
        initial: Sequence[Mapping[str, Tensor]] | None = None,
    ) -> None:
        self.recipe, self.task, self.settings = recipe, task, settings
        self.count = 0
        self._dtype, self._device = dtype, device
        self._batches = [recipe.batches(task, settings, seed) for seed in seeds]
        architecture = recipe.plugins.architecture(recipe.spec.architecture)
        config = architecture.settled(recipe.config(task, settings))
        self._modules = [initialised(architecture.build, config, seed).to(device, dtype) for seed in seeds]
        for module, tensors in zip(self._modules, initial or [], strict=initial is not None):
            module.load_state_dict(dict(tensors))
        self._stopped = [False] * len(seeds)
        self._reads_context = architecture.reads_context
        self._forward = None if self._reads_context else architecture.stacked(config)
        if recipe.stacked_optimizer([nn.Parameter(torch.zeros(1, 1))], settings) is None:
            self._forward = None
        self._groups = self._grouped(range(len(seeds)))

    def _grouped(self, active: Sequence[int], kept: Mapping[int, Mapping[str, Tensor]] | None = None) -> list[_Group]:
        """The computations that train these seeds, with the optimiser states `kept` for each."""
        kept = kept or {}
        if self._forward is not None and active:
            optimizer = functools.partial(self.recipe.stacked_optimizer, settings=self.settings)
            modules, states = [self._modules[i] for i in active], [kept.get(i, {}) for i in active]
            return [_Stacked(active, modules, self._forward, optimizer, states)]
        make = functools.partial(self.recipe.optimizer, settings=self.settings)
        return [_Single(index, self._modules[index], make, kept.get(index, {})) for index in active]

    @property
    def done(self) -> bool:
        """Whether every seed has stopped or the last step is done."""
        return self.count >= self.recipe.steps(self.settings) or all(self._stopped)

    def step(self) -> Progress:
        """One optimiser step of every seed that has not stopped."""
        rate = self.recipe.learning_rate(self.count, self.settings)
        losses = [math.nan] * len(self._modules)
        for group in self._groups:
            batches = [self._batch(index) for index in group.seeds]
            for index, loss in zip(group.seeds, group.step(batches, self._loss, rate), strict=True):
                losses[index] = loss
        self.count += 1
        return Progress(self.count, losses, self.count % self.recipe.evaluate_every(self.settings) == 0)

    def _batch(self, index: int) -> Sample:
        """Inputs and targets of a seed's next step."""
        moved = self._batches[index](self.count).to(self._dtype, self._device)
        context = (moved.context,) if self._reads_context else ()
        return (*tensors_of(moved.inputs), *context), cast(moved.targets, self._dtype)

    def _loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        return self.recipe.loss(self.task, prediction, target)

    def stop(self, index: int) -> None:
        """End the training of one seed."""
        if not self._stopped[index]:
            kept = self._optimizer_states()
            self._stopped[index] = True
            self._groups = self._grouped([i for i, stopped in enumerate(self._stopped) if not stopped], kept)

    def result(self) -> Sequence[nn.Module]:
        """The networks, one a seed."""
        return self._modules

    def _optimizer_states(self) -> dict[int, Mapping[str, Tensor]]:
        """By seed, the tensors of its optimiser as `<parameter>.<name>`; those of one number for all have no axis."""
        return {index: state for group in self._groups for index, state in group.optimizer_states().items()}

    def state(self) -> State:
        """Weights, optimiser tensors and counters of every seed; batches are functions of the step and need no state."""
        tensors: dict[str, Tensor] = {}
        for index, module in enumerate(self._modules):
            tensors |= {f"{index}.model.{name}": t.clone() for name, t in module.state_dict().items()}
        for index, state in self._optimizer_states().items():
            tensors |= {f"{index}.optimizer.{name}": t.clone() for name, t in state.items()}
        return State(tensors, {"step": self.count, "stopped": list(self._stopped)})

    def restore(self, state: State) -> None:
        """Weights, optimiser tensors and counters as they were."""
        self.count = int(state.values["step"])
        self._stopped = [bool(stopped) for stopped in state.values["stopped"]]
        for index, module in enumerate(self._modules):
            module.load_state_dict(state.part(f"{index}.model."))
        active = [index for index, stopped in enumerate(self._stopped) if not stopped]
        kept = {index: state.part(f"{index}.optimizer.") for index in active}
        self._groups = self._grouped(active, kept)


def initialised(build: Callable[[Mapping[str, Any]], nn.Module], config: Mapping[str, Any], seed: int) -> nn.Module:
    """The network with which a seed starts."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(stream_seed(seed, "weights"))
        return build(config)


Sample = tuple[tuple[Any, ...], Tensor]
"""What a network is called with (its inputs and, where it reads one, the context) and its targets."""

Loss = Callable[[Tensor, Tensor], Tensor]


class _Group(Protocol):
    """Seeds that take their steps together."""

    @property
    def seeds(self) -> Sequence[int]: ...

    def step(self, batches: Sequence[Sample], loss: Loss, rate: float | None) -> Sequence[float]: ...

    def optimizer_states(self) -> Mapping[int, Mapping[str, Tensor]]: ...


class _Single:
    """One seed by itself."""

    def __init__(
        self,
        seed: int,
        module: nn.Module,
        optimizer: Callable[[Sequence[nn.Parameter]], torch.optim.Optimizer],
        kept: Mapping[str, Tensor],
    ) -> None:
        self.seeds = (seed,)
        self._module = module
        self._optimizer = optimizer(list(module.parameters()))
        if kept:
            load_optimizer(self._optimizer, kept)

    def step(self, batches: Sequence[Sample], loss: Loss, rate: float | None) -> Sequence[float]:
        _set_rate(self._optimizer, rate)
        ((inputs, targets),) = batches
        self._optimizer.zero_grad()
        value = loss(self._module(*inputs), targets)
        value.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        return [value.item()]

    def optimizer_states(self) -> Mapping[int, Mapping[str, Tensor]]:
        return {self.seeds[0]: dict(optimizer_tensors(self._optimizer))}


class _Stacked:
    """Several seeds as one computation: parameters "seed *shape", of which each network holds its slice as a view."""

    def __init__(
        self,
        seeds: Sequence[int],
        modules: Sequence[nn.Module],
        forward: StackedForward,
        optimizer: Callable[[Sequence[nn.Parameter]], torch.optim.Optimizer | None],
        kept: Sequence[Mapping[str, Tensor]],
    ) -> None:
        self.seeds = tuple(seeds)
        self._forward = forward
        own = [dict(module.named_parameters()) for module in modules]
        self._parameters = {name: nn.Parameter(torch.stack([p[name].detach() for p in own])) for name in own[0]}
        for index, parameters in enumerate(own):
            for name, parameter in parameters.items():
                parameter.data = self._parameters[name].data[index]
        made = optimizer(list(self._parameters.values()))
        assert made is not None
        self._optimizer = made
        if kept[0]:
            common = {name: [state[name] for state in kept] for name in kept[0]}
            load_optimizer(made, {name: t[0] if t[0].ndim == 0 else torch.stack(t) for name, t in common.items()})

    def step(self, batches: Sequence[Sample], loss: Loss, rate: float | None) -> Sequence[float]:
        _set_rate(self._optimizer, rate)
        inputs = [torch.stack(parts) for parts in zip(*(sample[0] for sample in batches), strict=True)]
        targets = torch.stack([sample[1] for sample in batches])
        self._optimizer.zero_grad()
        values: Tensor = torch.vmap(loss)(self._forward(self._parameters, *inputs), targets)
        values.sum().backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        losses: list[float] = values.tolist()
        return losses

    def optimizer_states(self) -> Mapping[int, Mapping[str, Tensor]]:
        tensors = dict(optimizer_tensors(self._optimizer))
        return {
            seed: {name: tensor if tensor.ndim == 0 else tensor[index] for name, tensor in tensors.items()}
            for index, seed in enumerate(self.seeds)
        }


def _set_rate(optimizer: torch.optim.Optimizer, rate: float | None) -> None:
    if rate is not None:
        for group in optimizer.param_groups:
            group["lr"] = rate


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, Tensor]]:
    """The tensors of an optimiser's state as `<parameter>.<name>`."""
    for key, values in optimizer.state_dict()["state"].items():
        for name, value in values.items():
            if isinstance(value, Tensor):
                yield f"{key}.{name}", value


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give an optimiser the tensors that `optimizer_tensors` took from another one."""
    kept: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        key, _, field = name.partition(".")
        kept.setdefault(int(key), {})[field] = tensor.clone()
    optimizer.load_state_dict({**optimizer.state_dict(), "state": kept})
