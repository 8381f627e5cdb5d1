"""Block-zero growth: more inputs and hidden units, all of them dead. Stored implicitly, or materialised on request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from grokkit_core.architecture import Architecture, Layer
from grokkit_core.cassette import Cassette
from grokkit_core.errors import BadManifest, Incompatible, OtherNetwork, UsageError
from grokkit_core.manifest import ArchitectureRef, Manifest, Positive
from grokkit_core.records import from_json, to_json
from grokkit_core.specs import ArchitectureSpec
from grokkit_core.task import Inputs, map_tensors
from grokkit_core.tensors import Signature
from grokkit_core.transfer.operator import (
    ROUNDING,
    Sizes,
    Target,
    TransferOperator,
    TransferPlan,
    check_target,
    grown_task,
    parameters_of,
    sizes_of,
)

EMBEDDED = "grokkit_core/embedded"
PREFIX = "base."
MOST_DENSE_BYTES = 2**30
"""The cap of a weights file."""

BIT_EXACT = "bit-exact: the same kernels run on the same tensors"
TO_ROUNDING = "exact in real arithmetic; to rounding of the sums here (1e-6 in float32, 1e-12 in float64)"


@dataclass(frozen=True)
class Base:
    """The network inside an embedding: its architecture and its own config."""

    architecture: str
    version: Positive
    config: Mapping[str, Any]


class EmbeddedArchitecture(Architecture):
    """A network that reads the leading columns of a wider input; its other units are zeros that nobody stores.

    Config: `base` (architecture, version, config) and `sizes`, the integers of the embedding.
    """

    def check(self, config: Mapping[str, Any]) -> None:
        """Raise for a base that does not grow, and for sizes below its own."""
        base, architecture = self._base(config)
        settled = architecture.settled(base.config)
        architecture.check(settled)
        sizes = own_sizes(architecture, settled)
        given = config["sizes"]
        if not isinstance(given, Mapping) or set(given) != set(sizes):
            raise UsageError("sizes of the embedding", expected=f"an object with {', '.join(sizes) or 'no fields'}")
        try:
            check_target(dict(given), sizes, f"architecture {base.architecture}")
        except Incompatible as error:
            raise UsageError(f"{error}") from None
        architecture.settled({**settled, **given})

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        """The base network behind a gather; nothing of the size of the embedding is allocated."""
        base, architecture = self._base(config)
        settled = architecture.settled(base.config)
        return Embedded(architecture.build(settled), input_width(architecture, settled), architecture)

    def signature(self, config: Mapping[str, Any]) -> Signature:
        """The base's, at the embedding's sizes."""
        base, architecture = self._base(config)
        return architecture.signature({**architecture.settled(base.config), **config["sizes"]})

    def check_inputs(
        self, module: nn.Module, inputs: Sequence[Tensor], context: Mapping[str, Tensor], *, force: bool
    ) -> None:
        """What the base refuses of the columns that it reads is refused."""
        assert isinstance(module, Embedded)
        module.check_inputs(inputs[0], context, force=force)

    def live_columns(self, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Sequence[int] | None:
        """The base's, or all of its columns."""
        base, architecture = self._base(config)
        settled = architecture.settled(base.config)
        own = {name.removeprefix(PREFIX): tensor for name, tensor in tensors.items()}
        width = input_width(architecture, settled)
        found = architecture.live_columns(settled, own)
        return found if found is not None or width is None else range(width)

    def innermost(
        self, config: Mapping[str, Any], tensors: Mapping[str, Tensor]
    ) -> tuple[Architecture, Mapping[str, Any], Mapping[str, Tensor]]:
        """The base, at its own size."""
        base, architecture = self._base(config)
        own = {name.removeprefix(PREFIX): tensor for name, tensor in tensors.items()}
        return architecture, architecture.settled(base.config), own

    def _base(self, config: Mapping[str, Any]) -> tuple[Base, Architecture]:
        base: Base = from_json(Base, config["base"], "config.base")
        if base.architecture == EMBEDDED:
            raise BadManifest("config.base is itself an embedding", expected="the network inside it")
        architecture = self.plugins.architecture(base.architecture)
        if architecture.spec.version != base.version:
            raise Incompatible(
                f"the embedded network needs version {base.version} of {base.architecture}",
                expected=f"version {architecture.spec.version}, which is installed",
            )
        return base, architecture


class Embedded(nn.Module):
    """A base network that sees the first `width` columns of its input (None: all of it)."""

    def __init__(self, base: nn.Module, width: int | None, architecture: Architecture) -> None:
        super().__init__()
        self.base, self._width, self._architecture = base, width, architecture

    def forward(self, inputs: Tensor) -> Tensor:
        """The base's output; what stands in the other columns is never touched."""
        result: Tensor = self.base(self._read(inputs))
        return result

    def check_inputs(self, inputs: Tensor, context: Mapping[str, Tensor], *, force: bool) -> None:
        """Raise `Incompatible` for inputs that the base does not answer."""
        self._architecture.check_inputs(self.base, [self._read(inputs)], context, force=force)

    def _read(self, inputs: Tensor) -> Tensor:
        return inputs if self._width is None else inputs[..., : self._width].contiguous()


class ZeroPad(TransferOperator):
    """W' = [[W, 0], [0, 0]], new biases 0, output bias copied. Any activation that is finite at 0 will do.

    By default only the base tensors and the new sizes are stored. Growing again embeds the same base, so growing twice
    is growing once. New units have zero weights on both sides: they never learn, so padding adds no capacity to train.
    """

    def plan(self, source: Manifest, target: Target, *, dense: bool = False, **options: Any) -> TransferPlan:
        """Larger inputs or hidden layers of an architecture that declares its layers."""
        base, config, current = self._inside(source)
        before = {**own_sizes(base, config), **current}
        if not before:
            raise OtherNetwork(f"architecture {source.architecture.id} does not declare layers that grow")
        after = check_target(target, before, source.ref)
        try:
            larger = base.settled({**config, **after})
        except UsageError as error:
            raise Incompatible(f"{error}") from None
        reference = self._dense(base, larger) if dense else self._implicit(base, config, after)
        count = parameters_of(base, base.without_gather(larger)) if dense else source.weights.parameters
        if dense and 4 * count > MOST_DENSE_BYTES:
            raise Incompatible(
                f"the dense form has {count:,} parameters, {4 * count / 1e9:,.1f} GB",
                expected=f"at most {MOST_DENSE_BYTES / 1e9:.1f} GB",
                hint="leave --dense out: the implicit form stores the base alone",
            )
        return TransferPlan(
            self.spec.id,
            source,
            before,
            after,
            grown_task(source, after),
            reference,
            base.signature(larger),
            TO_ROUNDING if dense else BIT_EXACT,
            ROUNDING if dense else 0.0,
            count,
            {"dense": dense},
            ("new units have zero weights on both sides and cannot learn; `widen` adds units that can",)
            if dense
            else (),
        )

    def apply(self, source: Cassette, plan: TransferPlan) -> Mapping[str, Tensor]:
        """The base's own tensors under a prefix, or all the zeros."""
        base, config, _ = self._inside(source.manifest)
        inner = source.manifest.architecture.id == EMBEDDED
        tensors = {name.removeprefix(PREFIX) if inner else name: t for name, t in source.tensors.items()}
        if plan.settings["dense"]:
            return padded(base.layers(config) or (), tensors, plan.after)
        return {PREFIX + name: tensor for name, tensor in tensors.items()}

    def lift(self, inputs: Inputs, plan: TransferPlan) -> Inputs:
        """Inputs with zeros in the new columns."""
        width, wanted = (int(manifest.inputs[0].axes[-1]) for manifest in (plan.source, plan.signature))
        if width == wanted:
            return inputs
        return map_tensors(inputs, lambda tensor: nn.functional.pad(tensor, (0, wanted - width)))

    def _inside(self, source: Manifest) -> tuple[Architecture, dict[str, Any], Sizes]:
        """The network that grows, its config, and the sizes at which it stands embedded already."""
        if source.architecture.id != EMBEDDED:
            architecture, config = self.architecture_of(source)
            return architecture, config, {}
        base: Base = from_json(Base, source.architecture.config["base"], "config.base")
        architecture = self.plugins.architecture(base.architecture)
        return architecture, architecture.settled(base.config), source.architecture.config["sizes"]

    def _implicit(self, base: Architecture, config: Mapping[str, Any], after: Sizes) -> ArchitectureRef:
        embedded = self.plugins.spec(ArchitectureSpec, EMBEDDED)
        inner = to_json(Base(base.spec.id, base.spec.version, config))
        return ArchitectureRef(embedded.id, embedded.version, {"base": inner, "sizes": dict(after)})

    def _dense(self, base: Architecture, larger: Mapping[str, Any]) -> ArchitectureRef:
        return ArchitectureRef(base.spec.id, base.spec.version, base.without_gather(larger))


def own_sizes(architecture: Architecture, config: Mapping[str, Any]) -> dict[str, int]:
    """The sizes of the declared layers by config field; empty for an opaque architecture."""
    layers = architecture.layers(config) or ()
    return sizes_of([name for layer in layers for name in (layer.inputs, layer.outputs)], config)


def input_width(architecture: Architecture, config: Mapping[str, Any]) -> int | None:
    """The width of the first layer's input; None where it is fixed."""
    layers = architecture.layers(config)
    return int(config[layers[0].inputs]) if layers and layers[0].inputs else None


def padded(layers: Sequence[Layer], tensors: Mapping[str, Tensor], after: Sizes) -> dict[str, Tensor]:
    """The dense block-zero tensors of these layers at the sizes `after`."""
    grown = dict(tensors)
    for layer in layers:
        weight = tensors[layer.weight]
        rows = after.get(layer.outputs, weight.shape[0])
        columns = after.get(layer.inputs, weight.shape[1])
        larger = weight.new_zeros(rows, columns)
        if layer.live:
            larger[: weight.shape[0], list(layer.live)] = weight
        else:
            larger[: weight.shape[0], : weight.shape[1]] = weight
        grown[layer.weight] = larger
        if layer.bias is not None:
            bias = tensors[layer.bias]
            grown[layer.bias] = torch.cat((bias, bias.new_zeros(rows - len(bias))))
    return grown
