"""A network of shears: symplectic in angles and momenta for all weights, whatever they have learned.

Source of the form: P. Jin, Z. Zhang, A. Zhu, Y. Tang and G. E. Karniadakis, SympNets, 2020 (gradient modules).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from grokkit_core.tensors import Signature
from grokkit_pendulum.lagrangian import Wrapping, split_turns
from grokkit_pendulum.law import Rods
from grokkit_pendulum.plugin import SIGNATURE

MOMENTUM = 5.0
"""Momenta are counted in units of so many m2 l2^2 [1/s], which brings them to the size of the angles."""


class SymplecticArchitecture(Wrapping):
    """`grokkit_pendulum/symplectic`: config `dt`, the constants of the law, `shears` and `width`.

    It takes the kinetic energy as known: momenta are read off velocities with it, and velocities off momenta.
    """

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        """A network with small random weights."""
        return SymplecticNet(config)

    def signature(self, config: Mapping[str, Any]) -> Signature:
        """`state` "batch 4" to `state` "batch 4"."""
        return SIGNATURE


class SymplecticNet(nn.Module):
    """`forward` maps states "batch 4" to those after dt: alternating shears of momenta p and angles q.

    p += dt K^T (a * sin(K q + b)), then q += dt K^T (a * sin(K p + b)), each with weights of its own. Each adds the gradient
    of a function of what it leaves alone, so its Jacobian is symplectic, and so is that of all of them.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.rods, self.dt = Rods.of(config), float(config["dt"])
        self.unit = MOMENTUM * self.rods.inertia[2]
        shears, width = int(config["shears"]), int(config["width"])
        self.directions = nn.Parameter(torch.randn(shears, width, 2))
        self.amplitudes = nn.Parameter(torch.randn(shears, width) / width)
        self.phases = nn.Parameter(torch.randn(shears, width))

    def forward(self, state: Tensor) -> Tensor:
        """The next states "batch 4"; whole turns of the angles are set aside and added again."""
        wrapped, turns = split_turns(state)
        moved = self.canonical_step(self.rods.momenta(wrapped.T))
        return self.rods.velocities(moved).T + turns

    def canonical_step(self, canonical: Tensor) -> Tensor:
        """(a, b, p1, p2) "4 batch" after dt."""
        angles, momenta = canonical[:2].T, canonical[2:].T / self.unit
        for index in range(len(self.phases)):
            if index % 2:
                angles = angles + self._pushed(index, momenta)
            else:
                momenta = momenta + self._pushed(index, angles)
        return torch.cat((angles.T, momenta.T * self.unit))

    def _pushed(self, index: int, still: Tensor) -> Tensor:
        directions = self.directions[index]
        return self.dt * (self.amplitudes[index] * torch.sin(still @ directions.T + self.phases[index])) @ directions
