"""A network that is local by construction: what it learns about one cell holds for all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from grokkit_core.architecture import Architecture
from grokkit_core.tensors import Signature
from grokkit_example.plugin import SIGNATURE

NEIGHBOURS = 3
"""Left, own, right."""


class LocalArchitecture(Architecture):
    """`grokkit_example/local`: config `hidden`."""

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        """The network with PyTorch's default initialisation."""
        return Local(int(config["hidden"]))

    def signature(self, config: Mapping[str, Any]) -> Signature:
        """`state` "batch 8" to `next` "batch 8"."""
        return SIGNATURE


class Local(nn.Module):
    """3-hidden-1 with tanh and sigmoid, applied to every cell: 5 hidden + 1 parameters."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.inner = nn.Linear(NEIGHBOURS, hidden)
        self.outer = nn.Linear(hidden, 1)

    def forward(self, state: Tensor) -> Tensor:
        """How likely each cell is 1 next, "batch cells" in [0, 1], from a ring "batch cells" of 0 and 1."""
        seen = torch.stack((state.roll(1, -1), state, state.roll(-1, -1)), -1)
        result: Tensor = torch.sigmoid(self.outer(torch.tanh(self.inner(seen)))).squeeze(-1)
        return result
