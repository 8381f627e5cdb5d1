"""The interface of an architecture: from a checked config to a network and its signature."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor, nn

from grokkit_core.specs import ArchitectureSpec, Field, settle
from grokkit_core.tensors import Signature

if TYPE_CHECKING:
    from grokkit_core.benchmark import Row
    from grokkit_core.cassette import Cassette
    from grokkit_core.plugins import PluginHost


class StackedForward(Protocol):
    """The forward pass of several networks of one config on stacked parameters; see `Architecture.stacked`."""

    def __call__(self, parameters: Mapping[str, Tensor], *inputs: Tensor) -> Tensor: ...


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


class Architecture(ABC):
    """A family of networks. A subclass says how to build one from its config and what it takes and gives.

    `reads_context` is set by architectures whose `forward` takes `context`, a mapping of tensors of shape `(batch,)`.
    `verbs` names methods that take a cassette first: `verbs = ("multiply",)` makes `cassette.multiply(a, b)` call
    `architecture.multiply(cassette, a, b)`. A name that every cassette has already keeps its meaning.
    `benchmark_settings` are the settings of `benchmark`.
    """

    reads_context: bool = False
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

    def live_columns(self, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Sequence[int] | None:
        """The columns (last axis) of the only input that can influence the output, provably; None: unknown, or all."""
        return None

    def stacked(self, config: Mapping[str, Any]) -> StackedForward | None:
        """Several networks of this config as one computation, for training many seeds at once; None: not offered.

        The function takes the parameters by name, each "seed *shape", and the inputs, each "seed batch *in", and gives
        "seed batch *out": for each seed what its own network gives.
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
