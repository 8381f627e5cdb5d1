"""The dense form of a superposition: one block-diagonal network that runs all its members in a single pass.

Exact in real arithmetic; in floating point the longer sums are added up in another order, so it agrees with the members
to rounding. Its zeros are multiplied: what is not finite in one block reaches all others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from grokkit_core.dtypes import is_inexact
from grokkit_core.errors import Incompatible
from grokkit_core.streams import stream
from grokkit_core.task import tensors_of

if TYPE_CHECKING:
    from grokkit_core.architecture import Layer
    from grokkit_core.cassette import Cassette

ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda x: x,
    "relu": torch.relu,
    "tanh": torch.tanh,
    "silu": torch.nn.functional.silu,
    "gelu": torch.nn.functional.gelu,
    "sigmoid": torch.sigmoid,
    "sin": torch.sin,
}
"""The activations that a table may name. Nothing else is ever looked up by a name in a file."""

ROUNDING = {torch.float32: 1e-6, torch.float64: 1e-12}
"""Largest difference from a member, relative to its largest output or to one."""

PROBES = 64


@dataclass(frozen=True)
class Chain:
    """A member as affine layers: weights "out in" (those of the first over the columns `live`), biases, activations."""

    width: int
    live: tuple[int, ...]
    weights: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]
    acts: tuple[str, ...]

    def padded(self, depth: int) -> Chain:
        """The same function in `depth` layers, those that it lacks being identities."""
        out = len(self.biases[-1])
        more = depth - len(self.weights)
        eye = torch.eye(out, dtype=self.weights[0].dtype, device=self.weights[0].device)
        zero = torch.zeros(out, dtype=eye.dtype, device=eye.device)
        return Chain(
            self.width,
            self.live,
            (*self.weights, *[eye] * more),
            (*self.biases, *[zero] * more),
            (*self.acts, *["identity"] * more),
        )


class BlockDiagonal(nn.Module):
    """One matrix a layer, its diagonal blocks those of the members; each range of rows has its own activation."""

    def __init__(self, chains: Mapping[str, Chain]) -> None:
        super().__init__()
        depth = max(len(chain.weights) for chain in chains.values())
        deep = {key: chain.padded(depth) for key, chain in chains.items()}
        self.members = tuple(deep)
        self.widths = {key: chain.width for key, chain in deep.items()}
        self.live = {key: chain.live for key, chain in deep.items()}
        self.acts = [[chain.acts[k] for chain in deep.values()] for k in range(depth)]
        self.rows = [[len(chain.biases[k]) for chain in deep.values()] for k in range(depth)]
        for k in range(depth):
            self.register_buffer(f"weight{k}", _diagonal([chain.weights[k] for chain in deep.values()]))
            self.register_buffer(f"bias{k}", torch.cat([chain.biases[k] for chain in deep.values()]))

    @property
    def parameters_stored(self) -> int:
        """The numbers it holds, zeros included."""
        return sum(tensor.numel() for tensor in self.buffers())

    def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The outputs "batch out" of all members, given an input "batch in" of each, all of one batch size.

        Raises `Incompatible` for a missing input, or one of another width or dtype.
        """
        missing = [key for key in self.members if key not in inputs]
        if missing or len({len(tensor) for tensor in inputs.values()}) != 1:
            given = ", ".join(f"{key} {list(tensor.shape)}" for key, tensor in inputs.items())
            raise Incompatible(
                f"a pass over all members with {given}",
                expected=f"an input of each of {', '.join(self.members)}, of one batch size",
            )
        dtype = self.get_buffer("weight0").dtype
        for key in self.members:
            if inputs[key].dtype != dtype or inputs[key].shape[1:] != (self.widths[key],):
                raise Incompatible(
                    f"input of '{key}' is {inputs[key].dtype} {list(inputs[key].shape)}",
                    expected=f"{dtype} [batch, {self.widths[key]}]",
                )
        x = torch.cat([inputs[key][:, list(self.live[key])] for key in self.members], 1)
        for k, (acts, rows) in enumerate(zip(self.acts, self.rows, strict=True)):
            x = torch.nn.functional.linear(x, self.get_buffer(f"weight{k}"), self.get_buffer(f"bias{k}"))
            x = torch.cat([ACTIVATIONS[act](part) for act, part in zip(acts, torch.split(x, rows, 1), strict=True)], 1)
        return dict(zip(self.members, torch.split(x, self.rows[-1], 1), strict=True))


def _diagonal(blocks: Sequence[Tensor]) -> Tensor:
    made: Tensor = torch.block_diag(*blocks)  # type: ignore[no-untyped-call]
    return made


def block_diagonal(
    members: Mapping[str, Cassette], acts: Mapping[tuple[str, str], str], chosen: set[str] | None
) -> BlockDiagonal:
    """The block-diagonal form of the `chosen` members, or of all that are chains of affine layers.

    `acts` gives the activation of each (member, weight). Raises `Incompatible` for a chosen member that is no such chain,
    or where none is left, or where weights have several dtypes.
    """
    chains: dict[str, Chain] = {}
    for key, member in members.items():
        if chosen is None or key in chosen:
            try:
                chains[key] = _checked(member, chain_of(member, key, acts), key)
            except Incompatible:
                if chosen is not None:
                    raise
    dtypes = {chain.weights[0].dtype for chain in chains.values()}
    if not chains or len(dtypes) > 1:
        told = f"members of dtypes {', '.join(sorted(map(str, dtypes)))}" if chains else "no member of affine layers"
        raise Incompatible(
            f"a dense form of {told}", expected="members of affine layers in one dtype", hint="name them"
        )
    return BlockDiagonal(chains)


def chain_of(member: Cassette, key: str, acts: Mapping[tuple[str, str], str]) -> Chain:
    """The layers of a member; raises `Incompatible` where it declares none, or an activation that is not registered."""
    config = member.manifest.architecture.config
    layers: Sequence[Layer] = member.architecture.layers(config) or ()
    inputs, width = member.signature.inputs, 0
    if len(inputs) == 1 and len(inputs[0].axes) == 2 and isinstance(inputs[0].axes[1], int):
        width = inputs[0].axes[1]
    known = all((key, layer.weight) in acts for layer in layers)
    if not layers or not width or not known:
        raise Incompatible(f"member '{key}' is more than affine layers on rows of numbers", hint="call it by its key")
    weights = [member.tensors[layer.weight] for layer in layers]
    biases = [
        member.tensors[layer.bias] if layer.bias else torch.zeros(len(weight), dtype=weight.dtype)
        for layer, weight in zip(layers, weights, strict=True)
    ]
    live = layers[0].live or tuple(range(width))
    names = [acts[key, layer.weight] for layer in layers]
    return Chain(width, live, tuple(weights), tuple(biases), tuple(names))


def _checked(member: Cassette, chain: Chain, key: str) -> Chain:
    """The chain, once it gives what the member gives; raises `Incompatible` where there is code around the layers."""
    batch = member.task.sample(PROBES, generator=stream(0, "dense", key), **next(iter(member.task.evaluation), {}))
    dtype = chain.weights[0].dtype
    (given,) = tensors_of(batch.inputs)
    given = given.to(dtype)
    shapes_fit = chain.weights[0].shape[1] == len(chain.live) and all(
        later.shape[1] == len(former) for former, later in zip(chain.weights, chain.weights[1:], strict=False)
    )
    if shapes_fit:
        expected = member.predict(given, batch.context, force=True)
        found = BlockDiagonal({key: chain})({key: given})[key]
        if found.shape == expected.shape and is_inexact(expected):
            allowed = ROUNDING.get(dtype, 0.0) * max(1.0, expected.abs().max().item())
            if bool(((found - expected).abs() <= allowed).all()):
                return chain
    raise Incompatible(f"member '{key}' has code around its affine layers", hint="call it by its key")
