"""Superposition: cassettes of several tasks in one flat tensor per dtype, with a table of who owns which numbers.

Each member runs its own layers over its own slices, so its outputs are those of the member alone, bit for bit, and no
other number of the tensor is ever read.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor

from grokkit_core.architecture import Architecture
from grokkit_core.cassette import Cassette
from grokkit_core.errors import BadManifest, BadWeights
from grokkit_core.fusion.composite import CompositeArchitecture, CompositeFusion
from grokkit_core.fusion.dense import ACTIVATIONS, BlockDiagonal, block_diagonal
from grokkit_core.fusion.parts import Part
from grokkit_core.manifest import Count, Positive
from grokkit_core.packing import DTYPES
from grokkit_core.records import at_most, from_json, matching, to_json
from grokkit_core.text import printable

LINEAR = "linear"
"""The op of a declared affine layer; every other block is run by the architecture that its op names."""

STORED = {str(dtype).removeprefix("torch."): dtype for dtype in DTYPES}
MOST = 2**40
"""Largest offset or size in a table: more than any weights file holds."""


Dtype = Annotated[str, matching(lambda name: name in STORED, "one of " + ", ".join(STORED))]
Activation = Annotated[str, matching(lambda name: name in ACTIVATIONS, "one of " + ", ".join(ACTIVATIONS))]
Offset = Annotated[Count, at_most(MOST)]
Size = Annotated[Positive, at_most(MOST)]


@dataclass(frozen=True)
class Block:
    """One tensor of one member: `layer` is its name there, `offset` counts elements of the flat tensor of its dtype.

    `op` is "linear" with its activation `act` for a declared affine layer, else the id of the architecture that runs it.
    """

    member: str
    layer: str
    dtype: Dtype
    offset: Offset
    shape: tuple[Size, ...]
    op: str
    act: Activation

    @property
    def size(self) -> int:
        """The number of its elements."""
        return math.prod(self.shape)


def parse_table(config: Mapping[str, Any]) -> tuple[Block, ...]:
    """The blocks of a superposition's config; raises `BadManifest`."""
    return from_json(tuple[Block, ...], config["table"], "config.table")


class SuperpositionFusion(CompositeFusion):
    """Members packed into one flat tensor per dtype."""


class SuperpositionArchitecture(CompositeArchitecture):
    """The table in the config says where each tensor of each member lies."""

    verbs = ("dense",)

    def layout(self, parts: Sequence[Part], tensors: Sequence[Mapping[str, Tensor]]) -> dict[str, Any]:
        """The table: members in order, their tensors in the order of their layers, without gaps."""
        used: Counter[str] = Counter()
        rows = []
        for part, own in zip(parts, tensors, strict=True):
            ops = _ops(self.architecture_of(part), part)
            for name, tensor in own.items():
                dtype = str(tensor.dtype).removeprefix("torch.")
                op, act = ops.get(name, (part.architecture, "identity"))
                rows.append(Block(part.key, name, dtype, used[dtype], tuple(tensor.shape), op, act))
                used[dtype] += tensor.numel()
        return {"table": [to_json(row) for row in rows]}

    def empty(self, config: Mapping[str, Any], parts: Sequence[Part]) -> list[dict[str, Tensor]]:
        """What the members' architectures build, in the dtypes of the table; raises `BadManifest` for tensors it lacks."""
        dtypes = {(row.member, row.layer): STORED[row.dtype] for row in parse_table(config)}
        found = []
        for part, state in zip(parts, self.states(parts), strict=True):
            missing = [name for name in state if (part.key, name) not in dtypes]
            if missing:
                raise BadManifest(
                    f"config.table lacks tensor '{missing[0]}' of member '{part.key}'",
                    expected=f"every tensor that {part.architecture} builds",
                )
            found.append({name: tensor.to(dtypes[part.key, name]) for name, tensor in state.items()})
        return found

    def packed(self, config: Mapping[str, Any], tensors: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """One flat tensor per dtype, named after it."""
        flat: dict[str, list[Tensor]] = {}
        for own in tensors:
            for tensor in own.values():
                flat.setdefault(str(tensor.dtype).removeprefix("torch."), []).append(tensor.reshape(-1))
        return {dtype: torch.cat(pieces) for dtype, pieces in flat.items()}

    def unpacked(self, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
        """Slices of the flat tensors in the shapes of the table."""
        found: dict[str, dict[str, Tensor]] = {entry["key"]: {} for entry in config["members"]}
        for row in parse_table(config):
            flat = tensors.get(row.dtype)
            if flat is None or row.offset + row.size > len(flat):
                raise BadWeights(
                    f"block '{row.layer}' of member '{printable(row.member, 60)}' ends beyond tensor '{row.dtype}'",
                    expected=f"{row.offset + row.size} numbers, {0 if flat is None else len(flat)} are there",
                )
            found[row.member][row.layer] = flat[row.offset : row.offset + row.size].view(row.shape)
        return list(found.values())

    def dense(self, cassette: Cassette, *keys: str) -> BlockDiagonal:
        """The block-diagonal network of these members (all whose layers are affine, by default) for one pass over all.

        Equal to the members to rounding only, and isolated against finite numbers only: zero times NaN is NaN. Its size
        grows with the square of the total width. Raises `Incompatible` for members that are more than affine layers.
        """
        table = parse_table(cassette.manifest.architecture.config)
        chosen = {cassette.route(key=key).key for key in keys} if keys else None
        acts = {(row.member, row.layer): row.act for row in table if row.op == LINEAR}
        return block_diagonal(cassette.members, acts, chosen)


def _ops(architecture: Architecture, part: Part) -> dict[str, tuple[str, str]]:
    """By tensor name, the op and activation of a member's declared affine layers."""
    found: dict[str, tuple[str, str]] = {}
    for layer in architecture.layers(part.config) or ():
        if layer.activation in ACTIVATIONS:
            for name in (layer.weight, layer.bias):
                if name is not None:
                    found[name] = (LINEAR, layer.activation)
    return found
