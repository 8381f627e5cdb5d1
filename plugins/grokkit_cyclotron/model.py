"""The published network of supertopo3 for any angular x radial grid, vectorised.

The last state is encoded to z = (logR, phi, vnorm); z is scattered onto up to four neighbouring nodes of the grid, mixed
between nodes, passed through one shared node network and read out. The oddities of the published program are kept: the
first 14 states are not used, z is added at full strength to every corner, the mixing views the (radial, angular) grid as
(angular, radial), and positions on the grid carry no gradient. See `docs/cassettes/cyclotron.md`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from grokkit_core.architecture import Architecture
from grokkit_core.tensors import Signature
from grokkit_cyclotron.plugin import SIGNATURE

EMBEDDING = 12
HIDDEN = 24
CODE = 3
"""Length of z."""

ROW_SUM_FLOOR = 1e-6
"""Least row sum by which mixing rows are divided, as published."""


class TopoBrainArchitecture(Architecture):
    """`grokkit_cyclotron/topobrain`: config `angular`, `radial`."""

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        """The network with PyTorch's default initialisation, mixing logits at zero."""
        return TopoBrain(int(config["angular"]), int(config["radial"]))

    def signature(self, config: Mapping[str, Any]) -> Signature:
        """`states` "batch 15 4" to `state` "batch 4"; omega may be given and is not read."""
        return SIGNATURE


class TopoBrain(nn.Module):
    """1,821 parameters at 1 x 1, 3,841 at 4 x 2. `forward` maps "batch 15 4" to "batch 4"."""

    def __init__(self, angular: int, radial: int) -> None:
        super().__init__()
        self.angular, self.radial = angular, radial
        self.encoder = nn.Sequential(
            nn.Linear(4, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, CODE)
        )
        self.node_in, self.node_out = nn.Linear(EMBEDDING, HIDDEN), nn.Linear(HIDDEN, EMBEDDING)
        self.readout_in, self.readout_out = nn.Linear(EMBEDDING * self.nodes, HIDDEN), nn.Linear(HIDDEN, 4)
        self.angular_logits = nn.Parameter(torch.zeros(angular))
        self.radial_logits = nn.Parameter(torch.zeros(radial))

    @property
    def nodes(self) -> int:
        """Number of grid nodes, angular x radial."""
        return self.angular * self.radial

    def forward(self, states: Tensor) -> Tensor:
        """The next state "batch 4" from a window "batch 15 4"; only its last state is read."""
        code = self.encoder(states[:, -1])
        counts, shares = self.scatter(code.detach())
        mixing = self.mixing().T
        scale, share = counts @ mixing, shares @ mixing
        weight = self.node_in.weight
        seen = code @ weight[:, :CODE].T
        node = scale.unsqueeze(2) * seen.unsqueeze(1) + share.unsqueeze(2) * weight[:, CODE] + self.node_in.bias
        wide = self.node_out(torch.tanh(node))
        result: Tensor = self.readout_out(torch.tanh(self.readout_in(wide.flatten(1))))
        return result

    def scatter(self, code: Tensor) -> tuple[Tensor, Tensor]:
        """How often z is added to each node and with which total weight: two tensors "batch node", without gradient.

        Grid positions are computed in the dtype of `code` and read as float64, as published; `trunc` rounds towards 0.
        """
        radius = (torch.sigmoid(code[:, 0]) * (self.radial - 1)).double()
        angle = ((code[:, 1] + math.pi) / (2 * math.pi) * self.angular).double()
        low_r, low_a = radius.trunc(), angle.trunc()
        part_r, part_a = radius - low_r, angle - low_a
        counts = code.new_zeros(len(code), self.nodes, dtype=torch.float64)
        shares = torch.zeros_like(counts)
        for i, weight_r in enumerate((1 - part_r, part_r)):
            ring = (low_r.long() + i).clamp_max(self.radial - 1)
            for j, weight_a in enumerate((1 - part_a, part_a)):
                node = (ring * self.angular + (low_a.long() + j) % self.angular).unsqueeze(1)
                weight = weight_r * weight_a
                present = (weight > 0).double()
                counts.scatter_add_(1, node, present.unsqueeze(1))
                shares.scatter_add_(1, node, (weight * present).unsqueeze(1))
        return counts.to(code.dtype), shares.to(code.dtype)

    def mixing(self) -> Tensor:
        """The matrix "node node" by which node vectors are mixed: I + A x I + I x R with the published wiring."""
        around = torch.kron(_ring(self.angular_logits), self._identity(self.radial))
        outward = torch.kron(_ring(self.radial_logits), self._identity(self.angular))
        return self._identity(self.nodes) + around + outward

    def _identity(self, n: int) -> Tensor:
        return torch.eye(n, dtype=self.angular_logits.dtype, device=self.angular_logits.device)


def _ring(logits: Tensor) -> Tensor:
    """Softmax weights on the neighbours i +- 1 of a ring, rows normalised: "n n"."""
    n = len(logits)
    index = torch.arange(n, device=logits.device)
    gap = (index.unsqueeze(0) - index.unsqueeze(1)) % n
    near = ((gap == 1 % n) | (gap == (n - 1) % n)).to(logits.dtype)
    rows = torch.softmax(logits, 0) * near
    return rows / rows.sum(1, keepdim=True).clamp_min(ROW_SUM_FLOOR)
