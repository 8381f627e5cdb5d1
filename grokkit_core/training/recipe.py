"""The interface of a recipe and of a run: how a network is found, whatever the method."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from grokkit_core.specs import RecipeSpec
from grokkit_core.task import Batch, Task

if TYPE_CHECKING:
    from grokkit_core.plugins import PluginHost


@dataclass(frozen=True)
class Progress:
    """What one step of a run gave: its number, the training loss of each seed, and whether now is a time to evaluate.

    A seed that has stopped has loss NaN.
    """

    step: int
    losses: Sequence[float]
    evaluate: bool


@dataclass(frozen=True)
class State:
    """Everything that a bit-equal resume needs: tensors, and values that JSON can hold."""

    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors whose names start with `prefix`, without it."""
        return {name.removeprefix(prefix): t for name, t in self.tensors.items() if name.startswith(prefix)}


@dataclass(frozen=True)
class Stopping:
    """When a seed is done: its curve (`on`) lies at or below `below` for `lasting` evaluations in a row, or has not
    improved for `patience` evaluations (0: no such limit). `for_accuracy` turns "below" into "above".
    """

    on: Literal["train", "validation"]
    below: float
    lasting: int = 1
    patience: int = 0
    for_accuracy: bool = False


@dataclass(frozen=True)
class Grokking:
    """When a validation curve counts as grokked: the start of the first run of `lasting` evaluations past `threshold`."""

    threshold: float
    lasting: int = 3
    for_accuracy: bool = False


class Run(ABC):
    """A training in progress, of one or several seeds."""

    @property
    @abstractmethod
    def done(self) -> bool:
        """Whether every seed has stopped."""

    @abstractmethod
    def step(self) -> Progress:
        """Do one step of every seed that has not stopped."""

    @abstractmethod
    def stop(self, index: int) -> None:
        """End the training of one seed; its network stays as it is."""

    def finished(self, index: int) -> bool:
        """Whether a seed has ended by the run's own rule; asked after every evaluation."""
        return False

    def figures(self, index: int) -> Mapping[str, Any]:
        """What else a manifest should say of a seed's training, e.g. how often it began again; JSON values by name."""
        return {}

    def seconds(self, index: int) -> float | None:
        """What a seed has taken by itself [s]; None where all seeds are one computation."""
        return None

    @abstractmethod
    def state(self) -> State:
        """Everything needed for a bit-equal resume."""

    @abstractmethod
    def restore(self, state: State) -> None:
        """Go on from a saved state."""

    @abstractmethod
    def result(self) -> Sequence[nn.Module]:
        """The networks as they are now, one a seed."""


class Recipe(ABC):
    """How an architecture is trained on a task. `parameters` are the settled values of the spec's declared settings."""

    plugins: PluginHost
    citation: Sequence[str] = ()
    """Sources of the method, kept in the manifest."""

    def __init__(self, spec: RecipeSpec) -> None:
        self.spec = spec

    @abstractmethod
    def start(
        self,
        task: Task,
        parameters: Mapping[str, Any],
        seeds: Sequence[int],
        *,
        dtype: torch.dtype,
        device: torch.device,
    ) -> Run:
        """A new run of these seeds."""

    @abstractmethod
    def config(self, task: Task, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        """The config of the architecture that this recipe trains."""

    @abstractmethod
    def validation(self, task: Task, parameters: Mapping[str, Any], seed: int) -> Batch:
        """Held-out samples for curves and model selection; never test samples."""

    def task_for(self, task: Task, seed: int) -> Task:
        """The task that a seed learns, where constants of the law are drawn from the seed; by default the same for all."""
        return task

    def training_set(self, task: Task, parameters: Mapping[str, Any], seed: int) -> Batch | None:
        """A fixed training set whose metric shall stand in the curve beside the validation's; None: there is none."""
        return None

    def finish(
        self, task: Task, parameters: Mapping[str, Any], config: Mapping[str, Any], module: nn.Module
    ) -> tuple[Mapping[str, Any], Mapping[str, Tensor]]:
        """Config and tensors of the cassette from the trained network, e.g. pruned; by default as they are."""
        return config, module.state_dict()

    def stopping(self, task: Task, parameters: Mapping[str, Any]) -> Stopping | None:
        """When a seed is done before the run's own end; None: never."""
        return None

    def grokking(self, task: Task, parameters: Mapping[str, Any]) -> Grokking | None:
        """When a validation curve counts as grokked; None: the recipe does not ask."""
        return None

    def summary(self, task: Task, parameters: Mapping[str, Any]) -> str:
        """One line for the manifest of what was trained."""
        return f"{task.spec.summary or task.spec.id}, trained by {self.spec.id}"[:200]
