"""The published network of supertopo3 for any angular x radial grid, vectorised.

The last state is encoded to z = (logR, phi, vnorm); z is scattered onto up to four neighbouring nodes of the grid, mixed
between nodes, passed through one shared node network and read out. The oddities of the published program are kept: the
first 14 states are not used, z is added at full strength to every corner, the mixing views the (radial, angular) grid as
(angular, radial), and positions on the grid carry no gradient. See `docs/cyclotron.md`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import linear, pad

from grokkit_core.activations import fast_tanh
from grokkit_core.architecture import Architecture, BatchedForward, StackedForward
from grokkit_core.tensors import Signature
from grokkit_cyclotron.plugin import SIGNATURE

EMBEDDING = 12
HIDDEN = 24
CODE = 3
"""Length of z."""

ALIGNED = 8
"""Stacked mixing matrices are padded to a multiple of so many nodes: then every seed's lies on a cache line, and the last
bits of its products do not depend on how many stand before it.
"""

ROW_SUM_FLOOR = 1e-6
"""Least row sum by which mixing rows are divided, as published."""


class TopoBrainArchitecture(Architecture):
    """`grokkit_cyclotron/topobrain`: config `angular`, `radial`, `copies`."""

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        """The network with PyTorch's default initialisation, mixing logits at zero."""
        return TopoBrain(int(config["angular"]), int(config["radial"]), int(config.get("copies", 1)))

    def signature(self, config: Mapping[str, Any]) -> Signature:
        """`states` "batch 15 4" to `state` "batch 4"; omega may be given and is not read."""
        return SIGNATURE

    def stacked(self, config: Mapping[str, Any]) -> StackedForward:
        """All seeds by batched products."""
        return StackedTopoBrain(int(config["angular"]), int(config["radial"]), int(config.get("copies", 1)))

    def batched(self, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> BatchedForward:
        """All members by batched products, on parameters that were folded once."""
        from grokkit_cyclotron.batched import BatchedTopoBrain

        return BatchedTopoBrain(int(config["angular"]), int(config["radial"]), int(config.get("copies", 1)), tensors)


class TopoBrain(nn.Module):
    """1,821 parameters at 1 x 1, 3,841 at 4 x 2. `forward` maps "batch 15 4" to "batch 4".

    With `copies` every cell of the grid has that many nodes, which see the same and share out what they pass on.
    """

    def __init__(self, angular: int, radial: int, copies: int = 1) -> None:
        super().__init__()
        self.angular, self.radial, self.copies = angular, radial, copies
        self.encoder = nn.Sequential(
            nn.Linear(4, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, CODE)
        )
        self.node_in, self.node_out = nn.Linear(EMBEDDING, HIDDEN), nn.Linear(HIDDEN, EMBEDDING)
        self.readout_in, self.readout_out = nn.Linear(EMBEDDING * self.nodes, HIDDEN), nn.Linear(HIDDEN, 4)
        self.angular_logits = nn.Parameter(torch.zeros(angular))
        self.radial_logits = nn.Parameter(torch.zeros(radial))
        self._kept: tuple[object, tuple[Tensor, ...], tuple[Tensor, Tensor, Tensor]] | None = None

    @property
    def nodes(self) -> int:
        """Number of nodes, angular x radial x copies."""
        return self.angular * self.radial * self.copies

    def forward(self, states: Tensor) -> Tensor:
        """The next state "batch 4" from a window "batch 15 4"; only its last state is read.

        The second layer of the node network is folded into the readout: both are linear with nothing in between.
        """
        code = self.encode(states[:, -1])
        counts, shares = self.scatter(code.detach())
        mixing, weight, bias = self.folded()
        mixed = torch.cat((counts, shares)) @ mixing
        seen, share = mixed[: counts.shape[0]], mixed[counts.shape[0] :]
        inputs = torch.cat((seen.unsqueeze(2) * code.unsqueeze(1), share.unsqueeze(2)), 2)
        hidden = fast_tanh(linear(inputs, self.node_in.weight[:, : CODE + 1], self.node_in.bias))
        return linear(
            fast_tanh(linear(hidden.flatten(1), weight, bias)), self.readout_out.weight, self.readout_out.bias
        )

    def encode(self, state: Tensor) -> Tensor:
        """z = (logR, phi, vnorm), "batch 3", of states "batch 4".

        By torch's own tanh: its last bits decide on which side of a cell edge a sample lies.
        """
        first, second, last = (cast(nn.Linear, self.encoder[index]) for index in (0, 2, 4))
        hidden = torch.tanh(linear(state, first.weight, first.bias))
        hidden = torch.tanh(linear(hidden, second.weight, second.bias))
        return linear(hidden, last.weight, last.bias)

    def folded(self) -> tuple[Tensor, Tensor, Tensor]:
        """The transposed mixing matrix, and the readout's first layer with the node network's second folded into it.

        Computed once for frozen parameters, and again whenever one of them was replaced or changed in place.
        """
        used = (
            self.angular_logits,
            self.radial_logits,
            self.node_out.weight,
            self.node_out.bias,
            self.readout_in.weight,
            self.readout_in.bias,
        )
        if self.training or used[0].requires_grad or used[0].is_inference() or torch.compiler.is_compiling():
            return self._fold()
        held = tuple(parameter.data for parameter in used)  # holding them keeps their addresses from being given again
        state = [(data.data_ptr(), data.dtype, p._version) for data, p in zip(held, used, strict=True)]
        if self._kept is None or self._kept[0] != state:
            with torch.inference_mode(False), torch.no_grad():
                self._kept = (state, held, self._fold())
        return self._kept[2]

    def _fold(self) -> tuple[Tensor, Tensor, Tensor]:
        blocks = self.readout_in.weight.view(HIDDEN, self.nodes, EMBEDDING)
        weight = (blocks @ self.node_out.weight).flatten(1)
        bias = self.readout_in.bias + blocks.sum(1) @ self.node_out.bias
        return self.mixing().T, weight, bias

    def scatter(self, code: Tensor) -> tuple[Tensor, Tensor]:
        """How often z is added to each node and with which total weight: two tensors "batch node", without gradient."""
        return scatter(code, self.angular, self.radial, self.copies)

    def mixing(self) -> Tensor:
        """The matrix "node node" by which node vectors are mixed."""
        return mixing(self.angular_logits, self.radial_logits, self.copies)


class StackedTopoBrain:
    """The forward pass of several networks on one grid, for training: parameters "seed *shape", states "seed batch 15 4"."""

    def __init__(self, angular: int, radial: int, copies: int = 1) -> None:
        self.angular, self.radial, self.copies = angular, radial, copies

    def __call__(self, parameters: Mapping[str, Tensor], *inputs: Tensor) -> Tensor:
        """The next states "seed batch 4"; the numbers of a seed do not depend on the others."""
        (states,) = inputs

        def layer(name: str, values: Tensor) -> Tensor:
            return _affine(values, parameters[f"{name}.weight"], parameters[f"{name}.bias"])

        hidden = torch.tanh(layer("encoder.2", torch.tanh(layer("encoder.0", states[:, :, -1]))))
        code = layer("encoder.4", hidden)
        counts, shares = scatter(code.detach().flatten(0, 1), self.angular, self.radial, self.copies)
        seeds, batch = code.shape[:2]
        addressed = torch.cat((counts.view(seeds, batch, -1), shares.view(seeds, batch, -1)), 1)
        seen, share = self._mixed(addressed, parameters).chunk(2, 1)
        entering = torch.cat((seen.unsqueeze(3) * code.unsqueeze(2), share.unsqueeze(3)), 3).flatten(1, 2)
        living = parameters["node_in.weight"][:, :, : CODE + 1]
        nodes = torch.tanh(_affine(entering, living, parameters["node_in.bias"])).view(seeds, batch, -1)
        blocks = parameters["readout_in.weight"].view(seeds, -1, EMBEDDING)
        weight = torch.bmm(blocks, parameters["node_out.weight"]).view(seeds, HIDDEN, -1)
        summed = blocks.view(seeds, HIDDEN, -1, EMBEDDING).sum(2)
        bias = torch.baddbmm(
            parameters["readout_in.bias"].unsqueeze(2), summed, parameters["node_out.bias"].unsqueeze(2)
        )
        return layer("readout_out", torch.tanh(_affine(nodes, weight, bias.squeeze(2))))

    def _mixed(self, addressed: Tensor, parameters: Mapping[str, Tensor]) -> Tensor:
        """ "seed sample node" after mixing between nodes. A node that is alone meets itself three times."""
        if addressed.shape[2] == 1:
            return 3 * addressed
        matrix = mixing(parameters["angular_logits"], parameters["radial_logits"], self.copies)
        nodes, spare = addressed.shape[2], -addressed.shape[2] % ALIGNED
        matrix, addressed = pad(matrix, (0, spare, 0, spare)), pad(addressed, (0, spare))
        return torch.bmm(addressed, matrix.transpose(1, 2))[:, :, :nodes]


def _affine(values: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A linear layer for each seed: "seed batch in", "seed out in", "seed out" to "seed batch out"."""
    return torch.baddbmm(bias.unsqueeze(1), values, weight.transpose(1, 2))


def scatter(code: Tensor, angular: int, radial: int, copies: int = 1) -> tuple[Tensor, Tensor]:
    """How often z is added to each node and with which total weight: two tensors "batch node", without gradient.

    Grid positions are computed in the dtype of `code` and read as float64, as published; `trunc` rounds towards 0.
    """
    if copies > 1:
        counts, shares = scatter(code, angular, radial)
        return counts.repeat_interleave(copies, 1), shares.repeat_interleave(copies, 1)
    if torch.compiler.is_compiling():
        return _traced_scatter(code, angular, radial)
    nodes = angular * radial
    angle = (code[:, 1] + math.pi) / (2 * math.pi) * angular
    if nodes == 1:  # both corners are the one node
        part = np.modf(np.nan_to_num(angle.cpu().numpy().astype(np.float64), posinf=0.0, neginf=0.0))[0]
        pair = np.stack((1.0 + (part > 0), 1 - part + np.maximum(part, 0.0)))
        counts, shares = torch.from_numpy(pair).to(code).unsqueeze(2)
        return counts, shares
    radius = torch.sigmoid(code[:, 0]) * (radial - 1)
    position = torch.stack((radius, angle)).cpu().numpy().astype(np.float64)
    low = np.trunc(np.nan_to_num(position, nan=0.0, posinf=0.0, neginf=0.0))  # NaN reaches the output through z
    part = position - low
    side = np.stack((1 - part, part))  # corner, direction, sample
    weight = np.maximum(side[:, None, 0] * side[None, :, 1], 0.0).ravel()
    first = low.astype(np.int64)
    corners = np.stack((first, first + 1))
    ring, spot = np.minimum(corners[:, 0], radial - 1) * angular, corners[:, 1] % angular
    node = (ring[:, None] + spot[None, :] + nodes * np.arange(len(code))).ravel()
    size = nodes * len(code)
    found = np.stack((np.bincount(node, weight > 0, size), np.bincount(node, weight, size)))
    counts, shares = torch.from_numpy(found).to(code).view(2, len(code), nodes)
    return counts, shares


def _traced_scatter(code: Tensor, angular: int, radial: int) -> tuple[Tensor, Tensor]:
    """The same by torch alone, corner by corner, for tracers that see no numpy."""
    angle = ((code[:, 1] + math.pi) / (2 * math.pi) * angular).double()
    radius = (torch.sigmoid(code[:, 0]) * (radial - 1)).double()
    near, low = radius.trunc(), angle.trunc()
    nodes = torch.arange(angular * radial, device=code.device)
    counts = torch.zeros_like(nodes * angle.unsqueeze(1))
    shares = torch.zeros_like(counts)
    for outward in (0, 1):
        ring = (near + outward).clamp(max=radial - 1)
        share = radius - near if outward else 1 - (radius - near)
        for around in (0, 1):
            weight = (share * (angle - low if around else 1 - (angle - low))).clamp(min=0)
            node = ring * angular + torch.remainder(low + around, angular)
            here = (node.unsqueeze(1) == nodes).double()
            counts = counts + here * (weight > 0).double().unsqueeze(1)
            shares = shares + here * weight.unsqueeze(1)
    return counts.to(code), shares.to(code)


def mixing(angular: Tensor, radial: Tensor, copies: int = 1) -> Tensor:
    """I + A x I + I x R with the published wiring, from logits "... a" and "... r": "... node node".

    Each entry is spread evenly over the copies of its two nodes.
    """
    around = _kron(_ring(angular), _identity(radial))
    outward = _kron(_ring(radial), _identity(angular))
    cells = torch.eye(around.shape[-1], dtype=angular.dtype, device=angular.device) + around + outward
    return cells if copies == 1 else _kron(cells, cells.new_full((copies, copies), 1 / copies))


def _kron(left: Tensor, right: Tensor) -> Tensor:
    """The Kronecker product of "... a a" with "r r"."""
    size = left.shape[-1] * len(right)
    product = left[..., :, None, :, None] * right[:, None, :]
    return product.reshape(*left.shape[:-2], size, size)


def _identity(logits: Tensor) -> Tensor:
    return torch.eye(logits.shape[-1], dtype=logits.dtype, device=logits.device)


def _ring(logits: Tensor) -> Tensor:
    """Softmax weights on the neighbours i +- 1 of a ring, rows normalised: "... n" to "... n n"."""
    rows = torch.softmax(logits, -1).unsqueeze(-2) * _neighbours(logits.shape[-1]).to(logits)
    return rows / rows.sum(-1, keepdim=True).clamp_min(ROW_SUM_FLOOR)


@functools.cache
def _neighbours(n: int) -> Tensor:
    """1 where i and j are neighbours on a ring of n, else 0: "n n"."""
    with torch.inference_mode(False), torch.device("cpu"):
        index = torch.arange(n)
        gap = (index.unsqueeze(0) - index.unsqueeze(1)) % n
        return ((gap == 1 % n) | (gap == (n - 1) % n)).float()
