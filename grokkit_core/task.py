"""The interface of a task: the exact rule, how to sample it, how to measure against it, and what else would do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from grokkit_core.dtypes import cast, is_inexact, real_dtype, squared_size
from grokkit_core.errors import Incompatible
from grokkit_core.specs import TaskSpec, settle

if TYPE_CHECKING:
    from grokkit_core.cassette import Cassette
    from grokkit_core.manifest import Certificate, Level
    from grokkit_core.plugins import PluginHost

Inputs = Tensor | Mapping[str, Tensor]
Predictor = Callable[[Inputs, Mapping[str, Tensor]], Tensor]
"""A prediction from inputs "batch *in" and context "batch": "batch *out"."""

Place = Mapping[str, Any]
"""One `where` row of a table, e.g. `{"omega": 0.9}`."""


def tensors_of(inputs: Inputs) -> tuple[Tensor, ...]:
    """The input tensors in order, whether there is one or several by name."""
    return (inputs,) if isinstance(inputs, Tensor) else tuple(inputs.values())


def floating_dtype(inputs: Inputs) -> torch.dtype:
    """The dtype of the first floating input, that of its parts for a complex one; float32 where there is none."""
    kinds = [real_dtype(tensor.dtype) for tensor in tensors_of(inputs) if is_inexact(tensor)]
    return kinds[0] if kinds else torch.float32


def map_tensors(inputs: Inputs, change: Callable[[Tensor], Tensor]) -> Inputs:
    """Inputs with `change` applied to each tensor."""
    if isinstance(inputs, Tensor):
        return change(inputs)
    return {name: change(tensor) for name, tensor in inputs.items()}


@dataclass(frozen=True)
class Batch:
    """Samples of a task: inputs "batch *in" (by name where there are several), targets "batch *out", context "batch"."""

    inputs: Inputs
    targets: Tensor
    context: Mapping[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return int(self.targets.shape[0])

    def __getitem__(self, rows: slice | Tensor) -> Batch:
        """The samples of these rows."""
        context = {name: tensor[rows] for name, tensor in self.context.items()}
        return Batch(map_tensors(self.inputs, lambda tensor: tensor[rows]), self.targets[rows], context)

    def to(self, dtype: torch.dtype, device: torch.device | str = "cpu") -> Batch:
        """Inputs in the precision of `dtype` (integers keep theirs) and everything moved; targets stay as exact as they were."""
        context = {name: tensor.to(device) for name, tensor in self.context.items()}
        inputs = map_tensors(self.inputs, lambda tensor: cast(tensor.to(device), dtype))
        return Batch(inputs, self.targets.to(device), context)

    def chunks(self, size: int) -> Iterator[Batch]:
        """The batch in pieces of at most `size` samples."""
        for start in range(0, len(self), size):
            yield self[start : start + size]


class Task(ABC):
    """A law with its sampler, oracle, error and baselines. `parameters` are the constants of the law.

    `evaluation` are the contexts of its tables, `calibration` those on which learned gates are fitted by default,
    `knots` those at which closed-form gates are solved (empty: `calibration`), and `training_range` the interval of
    each context variable from which calibration contexts may be drawn or chosen. `noisy` says that sampled inputs carry
    noise, so that the oracle's answer to them is not the target.
    """

    evaluation: Sequence[Place] = ({},)
    calibration: Sequence[Place] = ()
    knots: Sequence[Place] = ()
    training_range: Mapping[str, tuple[float, float]] = {}
    noisy: bool = False
    plugins: PluginHost

    def __init__(self, spec: TaskSpec, **parameters: Any) -> None:
        self.spec = spec
        self.parameters = settle(spec.parameters, parameters, f"task {spec.id}")

    @abstractmethod
    def sample(self, n: int, *, generator: torch.Generator, **where: Any) -> Batch:
        """`n` samples in float64 (integers and bits in their own dtype), drawn from `generator` only.

        `where` is a row of `evaluation`, or settings of the sampler.
        """

    @abstractmethod
    def oracle(self, inputs: Inputs, context: Mapping[str, Tensor]) -> Tensor:
        """The exact rule in float64: "batch *out"."""

    def error(self, prediction: Tensor, target: Tensor) -> Tensor:
        """The task's metric, one number a sample: "batch". By default the squared error, mean over outputs, in float64.

        For an accuracy: 1 where the sample is right.
        """
        if self.spec.higher_is_better:
            return (prediction.round() == target).flatten(1).all(1).double()
        difference = cast(prediction, torch.float64) - cast(target, torch.float64)
        return squared_size(difference).flatten(1).mean(1)

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        """What gradient recipes minimise unless they say otherwise: the mean squared error."""
        return squared_size(prediction - target).mean()

    def baselines(self, calibration: Batch) -> Mapping[str, Predictor]:
        """What a network must beat, by name; each maps inputs and context to a prediction.

        `calibration` is a batch of the same context, for baselines that are fitted. By default the constant mean.
        """
        mean = cast(calibration.targets, torch.float64).mean(0)
        return {"mean": lambda inputs, context: mean.expand(len(tensors_of(inputs)[0]), *mean.shape)}

    def advance(self, inputs: Inputs, outputs: Tensor) -> Inputs:
        """The next input of a rollout; only flow maps have one. Raises `Incompatible` otherwise."""
        raise Incompatible(f"task {self.spec.id} is not a flow map and cannot be rolled out", hint="leave --steps out")

    def state(self, inputs: Inputs) -> Tensor:
        """What the inputs of a rollout say of the present: "batch *state". By default the first of them.

        The law conserves the `invariants` of this; a task whose inputs reach further back, or whose outputs alone do not
        tell the state, says here what does.
        """
        return tensors_of(inputs)[0]

    def invariants(self, state: Tensor, context: Mapping[str, Tensor] | None = None) -> Mapping[str, Tensor]:
        """Conserved quantities of a `state` "batch *state", each "batch"; empty where there are none.

        `context` holds the conditioning variables of the rollout, which stay as they are.
        """
        return {}

    def horizon(self, state: Tensor) -> Mapping[str, float]:
        """How long a prediction from a `state` "batch *state" can hold, by name with its unit; empty where nothing limits it.

        For a chaotic law, e.g. the time in which a small error grows e-fold, of the state where it is shortest.
        """
        return {}

    def test_samples(self, level: Level, where: Place) -> int:
        """How many samples a row of a sampled certificate rests on; fewer where one sample is large."""
        from grokkit_core.certify.sampled import SAMPLES

        return SAMPLES[level]

    def certify(self, cassette: Cassette, *, level: Level, seed: int) -> Certificate:
        """The certificate that holds for a cassette of this task. By default sampled, on the rows of `evaluation`."""
        from grokkit_core.certify.sampled import certify_sampled

        return certify_sampled(self, cassette, level=level, seed=seed)
