"""The published network: two convolutions with sines and a readout.

Source of the shape: the public repository grisuno/1d_wave_equation_grokker.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from grokkit_core.architecture import Architecture
from grokkit_core.errors import UsageError
from grokkit_core.tensors import Signature
from grokkit_wave.plugin import SINGLE_FIRST, lam2_context, signature

LARGEST = 4_096
"""Channels; the middle layer has three times their square."""


class SineConvArchitecture(Architecture):
    """`grokkit_wave/sine-conv`: config `boundary`, `lam2`, `channels`; `amplitude` and `ends` of what it was trained on."""

    vectorises = True

    def check(self, config: Mapping[str, Any]) -> None:
        """Raise for a ring with ends, and for more channels than memory should be asked for."""
        if config["ends"] and config["boundary"] != "dirichlet":
            raise UsageError("a periodic network with ends", expected="ends=false, or dirichlet")
        if int(config["channels"]) > LARGEST:
            raise UsageError(f"{config['channels']} channels", expected=f"at most {LARGEST}")

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        """A network with PyTorch's default initialisation."""
        return SineConv(int(config["channels"]), str(config["boundary"]))

    def signature(self, config: Mapping[str, Any]) -> Signature:
        """`pair` "batch 2 grid" to `field` "batch grid"; it runs on any grid, which is no claim that it holds there."""
        return signature(SINGLE_FIRST, lam2_context(required=False, only=float(config["lam2"])))


class SineConv(nn.Module):
    """Convolutions 2-c-c of width 3 with sines, then c-1 of width 1, all with biases: 3 c^2 + 9 c + 1 numbers."""

    def __init__(self, channels: int, boundary: str) -> None:
        super().__init__()
        mode: Literal["circular", "zeros"] = "circular" if boundary == "periodic" else "zeros"
        self.first = nn.Conv1d(2, channels, 3, padding=1, padding_mode=mode)
        self.second = nn.Conv1d(channels, channels, 3, padding=1, padding_mode=mode)
        self.readout = nn.Conv1d(channels, 1, 1)

    def forward(self, pair: Tensor) -> Tensor:
        """The next field "batch grid"."""
        result: Tensor = self.readout(torch.sin(self.second(torch.sin(self.first(pair)))))
        return result.squeeze(1)
