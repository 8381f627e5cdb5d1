"""How the members of one architecture run: as one batched computation where that wins, else one after the other.

The choice depends on the architecture, the number of members and the size of the inputs, never on a clock: a batched
computation differs from the loop in the last bits, and a result must not depend on how busy a machine is. Members whose
output jumps somewhere (at the edge of a cell, at a threshold) may take the other side of a jump that lies within rounding
of an input, as they may between batches of different sizes.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from grokkit_core.architecture import Architecture, BatchedForward, StackedForward
from grokkit_core.contract import BATCH
from grokkit_core.tensors import Signature

LEAST_VECTORISED = 16
"""Members from which `torch.func.vmap` is used: it spends about as much on every call as ten small networks do."""

MOST_ROWS = 512
"""Rows of input up to which a batched computation is used. Beyond, arithmetic takes the time, not the calls, and members
one after the other keep their intermediate results in a cache: two of them are faster so from 500 to 2,000 rows on.
"""

TOGETHER = 2**14
"""Rows times members that are computed at once; what is more is cut into parts of the batch. A thousand networks of 64
units are slower than their loop where all intermediate results of 64 rows lie in memory at once, and not with 16 rows.
"""


@dataclass(frozen=True)
class Batched:
    """All members of a stack as one computation.

    `forward` maps inputs to "member batch *out"; `least` is the number of members from which it is used, and `divisible`
    says whether every input has the samples along its first axis.
    """

    kind: str
    forward: BatchedForward
    members: int
    least: int
    divisible: bool

    def wins(self, rows: int) -> bool:
        """Whether it is used for so many rows of input."""
        small = self.divisible or rows * self.members <= TOGETHER
        return self.members >= self.least and 0 < rows <= MOST_ROWS and small

    def run(self, rows: int, inputs: Sequence[Tensor], given: Mapping[str, Mapping[str, Tensor]]) -> Tensor:
        """The predictions "member batch *out"; `given` holds the context where the networks read it."""
        if rows * self.members <= TOGETHER:
            return self.forward(*inputs, **given)
        batch = len(inputs[0])
        step = max(1, TOGETHER * batch // (rows * self.members))
        parts = []
        for start in range(0, batch, step):
            here = slice(start, start + step)
            cut = {key: {name: v[here] for name, v in context.items()} for key, context in given.items()}
            parts.append(self.forward(*(tensor[here] for tensor in inputs), **cut))
        return torch.cat(parts, 1)


def batched(
    architecture: Architecture, config: Mapping[str, Any], tensors: Mapping[str, Tensor], network: nn.Module
) -> Batched | None:
    """The batched computation of the members whose tensors are given, each "member *shape"; None: the loop has to do.

    `network` is that of one member. An architecture's own `batched` comes first, then the one that it trains many seeds
    with, then `torch.func.vmap` where it says that it `vectorises`.
    """
    members = len(next(iter(tensors.values())))
    divisible = all(spec.axes[:1] == (BATCH,) for spec in architecture.signature(config).inputs)
    if (own := architecture.batched(config, tensors)) is not None:
        return Batched("batched", own, members, 2, divisible)
    stacked = None if architecture.reads_context else architecture.stacked(config)
    if stacked is not None:
        return Batched("stacked", _on_shared(stacked, tensors, members), members, 2, divisible)
    if architecture.vectorises:
        return Batched("vectorised", _vectorised(network, tensors), members, LEAST_VECTORISED, divisible)
    return None


def rows(signature: Signature, inputs: Sequence[Tensor]) -> int:
    """The product of the free sizes of the first input: samples, times points where it is a field on a grid."""
    sizes = [axis for axis in signature.inputs[0].axes if isinstance(axis, int)]
    return inputs[0].numel() // math.prod(sizes)


def _on_shared(forward: StackedForward, tensors: Mapping[str, Tensor], members: int) -> BatchedForward:
    """The same inputs for all members, without a copy of them."""

    def run(*inputs: Tensor, **context: Any) -> Tensor:
        return forward(tensors, *(tensor.expand(members, *tensor.shape) for tensor in inputs))

    return run


def _vectorised(network: nn.Module, tensors: Mapping[str, Tensor]) -> BatchedForward:
    """The network mapped over its tensors. One call at a time: the tensors of the one network are replaced meanwhile."""
    lock = threading.Lock()

    def one(own: Mapping[str, Tensor], inputs: Sequence[Tensor], context: Mapping[str, Any]) -> Tensor:
        result: Tensor = torch.func.functional_call(network, dict(own), tuple(inputs), dict(context))
        return result

    mapped = torch.func.vmap(one, in_dims=(0, None, None))

    def run(*inputs: Tensor, **context: Any) -> Tensor:
        with lock:
            result: Tensor = mapped(dict(tensors), inputs, context)
        return result

    return run
