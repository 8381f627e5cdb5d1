"""The interface of a gate: weights over the members of a fusion that sum to one at every sample."""

from __future__ import annotations

import functools
import hashlib
import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from grokkit_core.certify.scores import batch_digest
from grokkit_core.dtypes import cast
from grokkit_core.specs import GateSpec, check_settings, settle
from grokkit_core.strictjson import canonical
from grokkit_core.task import Batch, Place, Predictor, Task

if TYPE_CHECKING:
    from grokkit_core.plugins import PluginHost


Made = TypeVar("Made")


@dataclass(frozen=True)
class GateState:
    """A fitted gate: what the manifest keeps (`config`, JSON) and what the weights file keeps (`tensors`).

    Where the config has `members` or `variable`, a reader compares them with the ensemble's.
    """

    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor] = field(default_factory=dict)


class Calibration:
    """Where a gate draws the samples it is fitted on: fresh batches of a task at chosen contexts, never test data.

    `places` are the contexts (`fixed`: the user asked for just these), `variable` the context variable that the gate
    reads. Everything drawn is hashed, so that the data set can be told from any other; `seen` are its contexts by their
    canonical form.
    """

    def __init__(
        self,
        task: Task,
        places: Sequence[Place],
        *,
        generator: torch.Generator,
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
        variable: str = "",
        fixed: bool = False,
    ) -> None:
        self.task, self.places, self.variable = task, tuple(places), variable
        self.dtype, self.device, self.fixed = dtype, device, fixed
        self.seen: dict[bytes, Place] = {}
        self._generator = generator
        self._digest = hashlib.sha256()

    def draw(self, n: int, where: Place, *, exact_targets: bool = False) -> Batch:
        """`n` fresh samples at a context, inputs and targets in the dtype of the fusion (or targets as sampled)."""
        batch = self.task.sample(n, generator=self._generator, **where)
        self.seen[canonical(dict(where))] = dict(where)
        self._digest.update(batch_digest(batch).encode())
        moved = batch.to(self.dtype, self.device)
        if exact_targets:
            return moved
        return Batch(moved.inputs, cast(moved.targets, self.dtype), moved.context)

    def random_place(self) -> Place:
        """A context drawn uniformly from the task's training range (or between the extremes of `places`).

        Of the variable that the gate reads, or of the only one that has a range.
        """
        variable = self.variable or next(iter(self.task.training_range))
        values = [float(place[variable]) for place in self.places if variable in place]
        low, high = self.task.training_range.get(variable) or (min(values), max(values))
        share = torch.rand((), generator=self._generator, dtype=torch.float64).item()
        return {variable: low + (high - low) * share}

    @property
    def digest(self) -> str:
        """`sha256:` and the hash of everything drawn so far."""
        return "sha256:" + self._digest.hexdigest()


def is_plain(tensor: Tensor) -> bool:
    """Whether a tensor may be read as numbers: on a CPU, without gradients, not seen by a tracer."""
    return tensor.is_cpu and not tensor.requires_grad and not torch.compiler.is_compiling()


def single(values: Tensor) -> float | None:
    """The value of a context variable "batch" that is one number for all samples; None where it may not be, or not be read."""
    if not is_plain(values):
        return None
    if values.numel() == 1:
        return values.item()
    return values[0].item() if values.numel() and values.stride(0) == 0 else None


class Numbers(Generic[Made]):
    """What was read out of a frozen tensor, until that is replaced or changed in place."""

    def __init__(self, make: Callable[[Tensor], Made]) -> None:
        self._make = make
        self._kept: tuple[Tensor, int, Made] | None = None

    def of(self, tensor: Tensor) -> Made:
        """What `make` gives for this tensor."""
        version = -1 if tensor.is_inference() else tensor._version
        if self._kept is None or self._kept[0] is not tensor or self._kept[1] != version or version < 0:
            self._kept = tensor, version, self._make(tensor)
        return self._kept[2]


class Latest(Generic[Made]):
    """What was last made for one value of a context variable and frozen tensors: a rollout asks for it at every step."""

    def __init__(self) -> None:
        self._kept: tuple[Hashable, tuple[Tensor, ...], tuple[int, ...], Made] | None = None

    def of(self, value: Hashable, tensors: tuple[Tensor, ...], make: Callable[[], Made]) -> Made:
        """The kept one where value and tensors are the same and none was changed in place, else what `make` gives."""
        if any(tensor.is_inference() for tensor in tensors):
            return make()
        kept, versions = self._kept, tuple(tensor._version for tensor in tensors)
        same = kept is not None and kept[0] == value and kept[2] == versions
        if kept is not None and same and all(map(operator.is_, kept[1], tensors)):
            return kept[3]
        made = make()
        self._kept = value, tensors, versions, made
        return made


class Gate(ABC):
    """Weights over members. `options` are the declared settings of the gate's spec, filled with defaults."""

    plugins: PluginHost

    def __init__(self, spec: GateSpec, **options: Any) -> None:
        self.spec = spec
        check_settings(spec.options, options, f"gate {spec.id}")
        self._given = options

    @functools.cached_property
    def options(self) -> dict[str, Any]:
        """Every declared setting; raises `UsageError` for a required one that was not given (a fitted gate needs none)."""
        return settle(self.spec.options, self._given, f"gate {self.spec.id}")

    def places(self, task: Task) -> Sequence[Place]:
        """The contexts on which this gate is fitted unless the user names some: by default the task's `calibration`."""
        return task.calibration

    def check_members(self, count: int) -> None:
        """Raise `UsageError` where the options do not go with so many members; asked before any weight is read."""
        return

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know before this gate is fitted: that weights of either sign are a regression."""
        if self.options.get("free"):
            return (
                "free weights are a regression over the members: they may be negative and amplify what members get wrong",
            )
        return ()

    @abstractmethod
    def fit(self, members: Sequence[Predictor], batches: Calibration, *, generator: torch.Generator) -> GateState:
        """The state fitted on calibration batches; members stay frozen. `generator` draws initial weights."""

    def check(self, state: GateState) -> None:
        """Raise `BadWeights` for tensors of the right shapes that are no weights, e.g. do not sum to one."""
        return

    @abstractmethod
    def build(self, state: GateState) -> nn.Module:
        """A module whose `forward(inputs, context, predictions)` gives weights "member batch" or "member batch *out".

        `inputs` is the tuple of input tensors, `context` maps names to "batch", `predictions` is "member batch *out".
        Weights sum to one over members. Shapes must follow from `state.config` alone: while a cassette is checked the
        module is built on the meta device without tensors, and its `state_dict()` says what the weights file holds.
        Raises `UsageError` for a config that `fit` does not write.

        It may also have `fused(inputs, context, predictions)`, which gives the fused prediction "batch *out" itself from
        the members' (a list, or a tensor "member batch *out") where that takes fewer calls than weights for every sample,
        else None: to rounding the weighted sum by the weights of `forward`. A tracer never sees it.
        """
