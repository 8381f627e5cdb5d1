"""The interface of an architecture: from a checked config to a network and its signature."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor, nn

from grokkit_core.specs import ArchitectureSpec, Field, settle
from grokkit_core.task import Batch, tensors_of
from grokkit_core.tensors import Signature

if TYPE_CHECKING:
    from grokkit_core.benchmark import Row
    from grokkit_core.cassette import Cassette
    from grokkit_core.plugins import PluginHost


class StackedForward(Protocol):
    """The forward pass of several networks of one config on stacked parameters; see `Architecture.stacked`."""

    def __call__(self, parameters: Mapping[str, Tensor], *inputs: Tensor) -> Tensor: ...


class BatchedForward(Protocol):
    """The forward pass of several frozen networks of one config on the same inputs; see `Architecture.batched`."""

    def __call__(self, *inputs: Tensor, **context: Mapping[str, Tensor]) -> Tensor: ...


@dataclass(frozen=True)
class Layer:
    """One affine layer as operators of general use see it: its tensors' names and the activation that follows.

    `inputs` and `outputs` name the config fields that give its sizes; empty where a size is fixed. A first layer that
    gathers some columns of its input names them in `live`.
    """

    weight: str
    bias: str | None
    activation: str
    inputs: str = ""
    outputs: str = ""
    live: tuple[int, ...] = ()


def applied(module: nn.Module, batch: Batch, *, reads_context: bool) -> Tensor:
    """What a network gives for a batch, with its context where it reads one."""
    given = {"context": batch.context} if reads_context else {}
    result: Tensor = module(*tensors_of(batch.inputs), **given)
    return result


class Architecture(ABC):
    """A family of networks. A subclass says how to build one from its config and what it takes and gives.

    `reads_context` is set by architectures whose `forward` takes `context`, a mapping of tensors of shape `(batch,)`.
    `verbs` names methods that take a cassette first: `verbs = ("multiply",)` makes `cassette.multiply(a, b)` call
    `architecture.multiply(cassette, a, b)`. A name that every cassette has already keeps its meaning.
    `benchmark_settings` are the settings of `benchmark`. `composite` is set by those whose network only holds the tensors
    of `members`, which answer in its place.
    `vectorises` is set where several networks may be run as one by `torch.func.vmap`: `forward` is made of torch's own
    functions of its inputs and of the tensors of its `state_dict()`, it keeps nothing between calls, computes nothing of
    its tensors beforehand, and does not branch on values.
    """

    reads_context: bool = False
    composite: bool = False
    vectorises: bool = False
    verbs: Sequence[str] = ()
    benchmark_settings: Sequence[Field] = ()
    plugins: PluginHost

    def __init__(self, spec: ArchitectureSpec) -> None:
        self.spec = spec

    def settled(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """The config with its defaults filled in; raises `UsageError` for fields or values that are not declared."""
        return settle(self.spec.config, config, f"architecture {self.spec.id}")

    @abstractmethod
    def build(self, config: Mapping[str, Any]) -> nn.Module:
        """A new network; may be called on the meta device. `forward(*inputs)` takes the signature's inputs in order.

        The names, shapes and dtypes of its `state_dict()` are what the weights file must hold.
        """

    @abstractmethod
    def signature(self, config: Mapping[str, Any]) -> Signature:
        """What a network of this config takes and gives."""

    def members(self, cassette: Cassette) -> Mapping[str, Cassette]:
        """The cassettes inside a composition of several tasks, by key."""
        return {}

    def layers(self, config: Mapping[str, Any]) -> Sequence[Layer] | None:
        """The affine layers that transfer operators of general use work on; None when the network is opaque to them."""
        return None

    def innermost(
        self, config: Mapping[str, Any], tensors: Mapping[str, Tensor]
    ) -> tuple[Architecture, Mapping[str, Any], Mapping[str, Tensor]]:
        """The network that computes, with its own config and tensors, for architectures that only embed another."""
        return self, config, tensors

    def without_gather(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """The config of a network that stores all columns of its first layer, for architectures that may gather some."""
        return dict(config)

    def grids(self, config: Mapping[str, Any]) -> Sequence[str]:
        """The config fields that only set a discretisation: no tensor depends on them."""
        return ()

    def constants(self, config: Mapping[str, Any]) -> Sequence[str]:
        """The config fields that are constants of the law (a time step, masses) and may change without training."""
        return ()

    def with_constants(
        self, config: Mapping[str, Any], tensors: Mapping[str, Tensor], constants: Mapping[str, Any]
    ) -> Mapping[str, Tensor]:
        """The tensors for other values of these fields; by default as they are."""
        return dict(tensors)

    def live_columns(self, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Sequence[int] | None:
        """The columns (last axis) of the only input that can influence the output, provably; None: unknown, or all."""
        return None

    def check_inputs(
        self, module: nn.Module, inputs: Sequence[Tensor], context: Mapping[str, Tensor], *, force: bool
    ) -> None:
        """Raise `Incompatible` for inputs that fit the signature and that this network does not answer, e.g. a grid too coarse.

        `force` asks to let pass what is merely outside of what was certified.
        """
        return

    def remarks(self, inputs: Sequence[Tensor]) -> Sequence[str]:
        """What `grokkit run` says of inputs that are answered, e.g. that they were brought into a range first."""
        return ()

    def rollout(
        self, module: nn.Module, inputs: Sequence[Tensor], context: Mapping[str, Tensor]
    ) -> Iterator[Tensor] | None:
        """The outputs of successive applications, without end, where this is faster or loses less than feeding outputs back.

        Each must be a new tensor, equal to rounding to what the network gives. None: the network is called at each step.
        """
        return None

    def exportable(self, module: nn.Module) -> nn.Module:
        """The network in a form that a tracer can follow: tensors in, tensors out. By default as it is.

        A network may ask `torch.compiler.is_compiling()` instead and take another path there.
        """
        return module

    def stacked(self, config: Mapping[str, Any]) -> StackedForward | None:
        """Several networks of this config as one computation, for training many seeds at once; None: not offered.

        The function takes the parameters by name, each "seed *shape", and the inputs, each "seed batch *in", and gives
        "seed batch *out": for each seed what its own network gives.
        """
        return None

    def batched(self, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> BatchedForward | None:
        """Several frozen networks of this config on the same inputs as one computation, for ensembles; None: not offered.

        `tensors` are those of the networks' `state_dict()`, each "member *shape"; what depends on them alone may be
        computed here. The function is called as a network is and gives "member batch *out": for each member what
        its own network gives, to rounding, with gradients for the inputs. Without it an ensemble asks for `stacked`, then
        looks at `vectorises`, then calls its members one after the other.
        """
        return None

    def check(self, config: Mapping[str, Any]) -> None:
        """Raise `UsageError` for a config that its declared types and ranges admit but this architecture does not."""
        return

    def check_tensors(self, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Raise `BadWeights` for tensors of the right shapes that still contradict the config."""
        return

    def benchmark(self, cassette: Cassette, settings: Mapping[str, Any], *, recalibrate: bool) -> Iterable[Row] | None:
        """Rows of `grokkit bench` for this family, yielded as they are measured; None: the general benchmark does.

        `settings` holds every one of `benchmark_settings`. `recalibrate` asks to measure anew what is otherwise kept from
        an earlier run. The cassette stands on its device, and torch's threads are set. `grokkit_core.benchmark` has the
        timing; a row that cannot be right says so in its `problem`.
        """
        return None

    def verb(self, name: str, cassette: Cassette) -> Callable[..., Any]:
        """The verb of that name with `cassette` as its first argument; raises `AttributeError` that lists those there are."""
        if name not in tuple(self.verbs):
            listed = ", ".join(self.verbs)
            has = f"whose verbs are {listed}" if listed else "which has no verbs of its own"
            raise AttributeError(f"{cassette.manifest.ref} has no attribute '{name}'; it is a {self.spec.id}, {has}")
        return partial(getattr(self, name), cassette)
