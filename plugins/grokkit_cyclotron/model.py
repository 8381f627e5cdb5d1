"""The published network of supertopo3 for any angular x radial grid, vectorised.

The last state is encoded to z = (logR, phi, vnorm); z is scattered onto up to four neighbouring nodes of the grid, mixed
between nodes, passed through one shared node network and read out. The oddities of the published program are kept: the
first 14 states are not used, z is added at full strength to every corner, the mixing views the (radial, angular) grid as
(angular, radial), and positions on the grid carry no gradient. See `docs/cassettes/cyclotron.md`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
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
        """The next state "batch 4" from a window "batch 15 4"; only its last state is read.

        The second layer of the node network is folded into the readout: both are linear with nothing in between.
        """
        code = self.encoder(states[:, -1])
        counts, shares = self.scatter(code.detach())
        seen, share = (torch.cat((counts, shares)) @ self.mixing().T).chunk(2)
        inputs = torch.cat((seen.unsqueeze(2) * code.unsqueeze(1), share.unsqueeze(2)), 2)
        hidden = _tanh(nn.functional.linear(inputs, self.node_in.weight[:, : CODE + 1], self.node_in.bias))
        blocks = self.readout_in.weight.view(HIDDEN, self.nodes, EMBEDDING)
        weight = (blocks @ self.node_out.weight).flatten(1)
        bias = self.readout_in.bias + blocks.sum(1) @ self.node_out.bias
        result: Tensor = self.readout_out(_tanh(nn.functional.linear(hidden.flatten(1), weight, bias)))
        return result

    def scatter(self, code: Tensor) -> tuple[Tensor, Tensor]:
        """How often z is added to each node and with which total weight: two tensors "batch node", without gradient.

        Grid positions are computed in the dtype of `code` and read as float64, as published; `trunc` rounds towards 0.
        """
        radius = torch.sigmoid(code[:, 0]) * (self.radial - 1)
        angle = (code[:, 1] + math.pi) / (2 * math.pi) * self.angular
        position = torch.stack((radius, angle)).double()
        low = position.trunc()
        part = position - low
        side = torch.stack((1 - part, part))  # corner, direction, sample
        weight = (side[:, None, 0] * side[None, :, 1]).view(4, -1).clamp_min(0)
        first, second = low.long(), low.long() + 1
        ring = torch.stack((first[0], second[0])).clamp_max(self.radial - 1) * self.angular
        spot = torch.stack((first[1], second[1])) % self.angular
        node = (ring[:, None] + spot[None, :]).view(1, 4, -1).expand(2, -1, -1)
        found = torch.zeros(2, self.nodes, len(code), dtype=torch.float64, device=code.device)
        found.scatter_add_(1, node, torch.stack(((weight > 0).double(), weight)))
        counts, shares = found.to(code.dtype).transpose(1, 2)
        return counts, shares

    def mixing(self) -> Tensor:
        """The matrix "node node" by which node vectors are mixed: I + A x I + I x R with the published wiring."""
        around = torch.kron(_ring(self.angular_logits), self._identity(self.radial))
        outward = torch.kron(_ring(self.radial_logits), self._identity(self.angular))
        return self._identity(self.nodes) + around + outward

    def _identity(self, n: int) -> Tensor:
        return torch.eye(n, dtype=self.angular_logits.dtype, device=self.angular_logits.device)


def _tanh(values: Tensor) -> Tensor:
    """tanh; without gradients on a CPU numpy's, since torch leaves it to MKL, which takes ten times longer on some.

    Not for the encoder: its last bits decide on which side of a cell edge a sample lies.
    """
    if torch.is_grad_enabled() or values.device.type != "cpu":
        return torch.tanh(values)
    return torch.from_numpy(np.tanh(values.numpy()))


def _ring(logits: Tensor) -> Tensor:
    """Softmax weights on the neighbours i +- 1 of a ring, rows normalised: "n n"."""
    rows = torch.softmax(logits, 0) * _neighbours(len(logits)).to(logits)
    return rows / rows.sum(1, keepdim=True).clamp_min(ROW_SUM_FLOOR)


@functools.cache
def _neighbours(n: int) -> Tensor:
    """1 where i and j are neighbours on a ring of n, else 0: "n n"."""
    with torch.inference_mode(False), torch.device("cpu"):
        index = torch.arange(n)
        gap = (index.unsqueeze(0) - index.unsqueeze(1)) % n
        return ((gap == 1 % n) | (gap == (n - 1) % n)).float()
