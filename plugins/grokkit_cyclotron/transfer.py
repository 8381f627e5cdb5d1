"""Expansion of the published networks: what keeps the function, and what the published expansion was.

Source of the claim that is tested here: "fixed topology" expansion of grisuno/supertopo3 and its paper.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from grokkit_core.cassette import Cassette
from grokkit_core.errors import Incompatible, OtherNetwork, UsageError
from grokkit_core.manifest import Manifest
from grokkit_core.transfer.operator import (
    ROUNDING,
    Target,
    TransferOperator,
    TransferPlan,
    check_target,
)
from grokkit_cyclotron.model import EMBEDDING, HIDDEN

TOPOBRAIN = "grokkit_cyclotron/topobrain"

Network = tuple[Mapping[str, Any], Mapping[str, Tensor]]
"""Config and tensors of a `grokkit_cyclotron/topobrain`."""


def identity_copy(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Network:
    """The published "fixed topology" expansion from a 4 x 4 to an 8 x 8 grid, which is the identity.

    Those grid sizes are never read by the forward pass, so every tensor is copied and nothing grows. Guarantee: outputs
    are equal to the bit, trivially.
    """
    return dict(config), {name: tensor.clone() for name, tensor in tensors.items()}


def duplicate_and_split(config: Mapping[str, Any], tensors: Mapping[str, Tensor], copies: int) -> Network:
    """`copies` nodes for every one, each passing on its share: 8 nodes become 64 with `copies` = 8.

    A node's readout block "hidden embedding" is divided by `copies` and given to each of its copies; mixing is spread
    evenly over them, and the scatter addresses the same cells. Guarantee: the same function, to rounding (max
    difference 5e-6 in float32). So a network of this kind can change its node count and keep its function.
    """
    if copies < 1:
        raise UsageError(f"{copies} copies", expected="at least 1")
    blocks = tensors["readout_in.weight"].view(HIDDEN, -1, EMBEDDING) / copies
    grown = {name: tensor.clone() for name, tensor in tensors.items()}
    grown["readout_in.weight"] = blocks.repeat_interleave(copies, 1).flatten(1)
    return {**config, "copies": int(config.get("copies", 1)) * copies}, grown


class DuplicateAndSplit(TransferOperator):
    """`duplicate_and_split` for cassettes: `copies` nodes for each cell of the grid."""

    def plan(self, source: Manifest, target: Target, **options: Any) -> TransferPlan:
        """A multiple of the copies that there are, of a `grokkit_cyclotron/topobrain`."""
        if source.architecture.id != TOPOBRAIN:
            raise OtherNetwork(f"architecture {source.architecture.id}", expected=TOPOBRAIN)
        config = self.architecture_of(source)[1]
        before = {"copies": int(config["copies"])}
        after = check_target(target, before, source.ref)
        if after["copies"] % before["copies"]:
            raise Incompatible(f"copies = {after['copies']}", expected=f"a multiple of {before['copies']}")
        guarantee = "exact in real arithmetic; to rounding of the shares here"
        return self.resized(source, before, after, guarantee=guarantee, tolerance=ROUNDING)

    def apply(self, source: Cassette, plan: TransferPlan) -> Mapping[str, Tensor]:
        """The duplicated readout; all else is copied."""
        factor = plan.after["copies"] // plan.before["copies"]
        return duplicate_and_split(source.manifest.architecture.config, source.tensors, factor)[1]
