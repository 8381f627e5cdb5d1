"""Expansion of the published networks: what keeps the function, and what the published expansion was.

Source of the claim that is tested here: "fixed topology" expansion of grisuno/supertopo3 and its paper.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from grokkit_cyclotron.model import EMBEDDING, HIDDEN

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
    blocks = tensors["readout_in.weight"].view(HIDDEN, -1, EMBEDDING) / copies
    grown = {name: tensor.clone() for name, tensor in tensors.items()}
    grown["readout_in.weight"] = blocks.repeat_interleave(copies, 1).flatten(1)
    return {**config, "copies": int(config.get("copies", 1)) * copies}, grown
