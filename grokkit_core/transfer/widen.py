"""Net2Wider: more hidden units by duplication, each copy passing on its share (Chen, Goodfellow and Shlens 2016)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from grokkit_core.architecture import Layer
from grokkit_core.cassette import Cassette
from grokkit_core.errors import OtherNetwork
from grokkit_core.manifest import Manifest
from grokkit_core.transfer.operator import (
    ROUNDING,
    Sizes,
    Target,
    TransferOperator,
    TransferPlan,
    check_target,
    sizes_of,
)

GUARANTEE = "exact in real arithmetic; to rounding of the shares here (1e-5 in float32, 1e-12 in float64)"


class Widen(TransferOperator):
    """Unit i of a wider layer copies unit i mod h, and the next layer divides by the number of copies.

    The new units can be trained on, unlike those of `zero-pad`. Only hidden sizes widen: copies of an input would ask
    for other inputs.
    """

    def plan(self, source: Manifest, target: Target, **options: Any) -> TransferPlan:
        """Larger hidden layers of an architecture that declares its layers."""
        architecture, config = self.architecture_of(source)
        layers = architecture.layers(config)
        before = sizes_of(_hidden(layers or ()), config)
        if not before:
            raise OtherNetwork(f"architecture {source.architecture.id} does not declare hidden layers that widen")
        after = check_target(target, before, f"{source.ref}, as a hidden layer,")
        return self.resized(source, before, after, guarantee=GUARANTEE, tolerance=ROUNDING)

    def apply(self, source: Cassette, plan: TransferPlan) -> Mapping[str, Tensor]:
        """Duplicated rows, duplicated and divided columns."""
        architecture, config = self.architecture_of(source.manifest)
        return widened(architecture.layers(config) or (), source.tensors, plan.before, plan.after)


def _hidden(layers: Sequence[Layer]) -> list[str]:
    """The sizes that are outputs of one layer and inputs of the next, and nothing else."""
    ends = {layers[0].inputs, layers[-1].outputs} if layers else set()
    return [layer.outputs for layer in layers[:-1] if layer.outputs and layer.outputs not in ends]


def widened(layers: Sequence[Layer], tensors: Mapping[str, Tensor], before: Sizes, after: Sizes) -> dict[str, Tensor]:
    """The tensors of these layers with hidden sizes `after`."""
    copied = {name: torch.arange(after[name]) % before[name] for name in before}
    grown = dict(tensors)
    for layer in layers:
        weight = tensors[layer.weight]
        if layer.outputs in copied:
            rows = copied[layer.outputs].to(weight.device)
            weight = weight[rows]
            if layer.bias is not None:
                grown[layer.bias] = tensors[layer.bias][rows]
        if layer.inputs in copied:
            columns = copied[layer.inputs].to(weight.device)
            shares = torch.bincount(columns, minlength=before[layer.inputs])[columns]
            weight = weight[:, columns] / shares.to(weight.dtype)
        grown[layer.weight] = weight
    return grown
