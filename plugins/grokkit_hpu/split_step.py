"""Split-step integrators of i du/dt = (-slope laplacian + V) u: Strang's, and Yoshida's composition of order four.

One Strang step of size h is exp(-i V h/2), then exp(-i slope |k|^2 h) on the transform, then exp(-i V h/2). Order four is
three of sizes w1 h, w0 h, w1 h with w1 = 1 / (2 - 2^(1/3)), w0 = 1 - 2 w1 (Yoshida 1990). Neighbouring potential factors
are one factor. Every factor has modulus one, so each step is unitary for every V, slope and h.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from grokkit_hpu.fourier import squared_wavenumbers

OUTER = 1 / (2 - 2 ** (1 / 3))
INNER = 1 - 2 * OUTER
WEIGHTS = {2: (1.0,), 4: (OUTER, INNER, OUTER)}
"""By order, the sizes of the Strang steps that one step is made of."""


@dataclass(frozen=True)
class Factors:
    """The factors of one step: `potential[i]` multiplies the field, then `kinetic[i]` its transform; one more at the end.

    Each is "grid grid". Equal factors are one tensor.
    """

    potential: Sequence[Tensor]
    kinetic: Sequence[Tensor]

    def apply(self, field: Tensor) -> Tensor:
        """The field "... grid grid" one step later."""
        field = field * self.potential[0]
        for kinetic, potential in zip(self.kinetic, self.potential[1:], strict=True):
            field = torch.fft.ifft2(torch.fft.fft2(field) * kinetic) * potential
        return field

    def advance(self, field: Tensor) -> Tensor:
        """As `apply`, outside autograd and in place of temporary results; the field itself is left alone."""
        field = field * self.potential[0]
        for kinetic, potential in zip(self.kinetic, self.potential[1:], strict=True):
            field = torch.fft.ifft2(torch.fft.fft2(field).mul_(kinetic)).mul_(potential)
        return field


def sizes(order: int, substeps: int) -> list[float]:
    """The sizes of all Strang steps in one step of size one."""
    return [weight / substeps for _ in range(substeps) for weight in WEIGHTS[order]]


def factors(
    potential: Tensor, slope: Tensor | float, dt: float, *, order: int, substeps: int, dtype: torch.dtype
) -> Factors:
    """The factors of one step `dt` for potential values "grid grid" (float64); phases are built in float64, then cast."""
    parts = sizes(order, substeps)
    edges = [parts[0] / 2, *((a + b) / 2 for a, b in itertools.pairwise(parts)), parts[-1] / 2]
    squares = squared_wavenumbers(potential.shape[-1], potential.device)
    in_x = {size: _phase(potential * (-dt * size), dtype) for size in dict.fromkeys(edges)}
    in_k = {size: _phase(squares * (slope * (-dt * size)), dtype) for size in dict.fromkeys(parts)}
    return Factors([in_x[size] for size in edges], [in_k[size] for size in parts])


def _phase(angle: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.polar(torch.ones_like(angle), angle).to(dtype)
