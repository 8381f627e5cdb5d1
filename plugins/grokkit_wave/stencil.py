"""Linear stencils: for every lam2, and for one. No bias and no activation, so that they are homogeneous by construction."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from grokkit_core.architecture import Architecture
from grokkit_core.errors import BadWeights
from grokkit_core.tensors import Signature
from grokkit_wave.law import convolved, padded
from grokkit_wave.plugin import DOUBLE_FIRST, lam2_context, signature
from grokkit_wave.rollout import increments

INITIAL = 0.1
"""Scale of initial weights."""


class _LinearArchitecture(Architecture):
    """What both have in common: finite weights, and rollouts in increment form."""

    vectorises = True

    def check_tensors(self, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Raise `BadWeights` for coefficients that are not finite."""
        if not bool(torch.isfinite(tensors["weight"]).all()):
            raise BadWeights("the stencil holds NaN or infinity", expected="finite coefficients")

    def rollout(self, module: nn.Module, inputs: Sequence[Tensor], context: Mapping[str, Tensor]) -> Iterator[Tensor]:
        """Successive steps that carry d = u - v, which loses nothing to cancellation in 2u - v."""
        assert isinstance(module, (Stencil, ConditionalStencil))
        (pair,) = inputs
        parts = (module.weight, torch.zeros_like(module.weight)) if isinstance(module, Stencil) else module.weight
        lam2 = context["lam2"] if isinstance(module, ConditionalStencil) else pair.new_zeros(1)
        return increments(
            pair, parts[0].double(), parts[1].double(), lam2.double(), module.boundary, module.weight.dtype
        )


class ConditionalStencilArchitecture(_LinearArchitecture):
    """`grokkit_wave/conditional-stencil`: config `boundary`. Reads the context variable `lam2`."""

    reads_context = True

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        """A random stencil in float64."""
        return ConditionalStencil(str(config["boundary"]))

    def signature(self, config: Mapping[str, Any]) -> Signature:
        """`pair` "batch 2 grid" to `field` "batch grid" on any grid, for any `lam2` in [0, 1], which must be given."""
        return signature(DOUBLE_FIRST, lam2_context(required=True))


class ConditionalStencil(nn.Module):
    """`weight` "2 2 3": K0 and K1, each the kernels of u and of v."""

    def __init__(self, boundary: str) -> None:
        super().__init__()
        self.boundary = boundary
        self.weight = nn.Parameter(INITIAL * torch.randn(2, 2, 3, dtype=torch.float64))

    def forward(self, pair: Tensor, context: Mapping[str, Tensor]) -> Tensor:
        """The next field "batch grid" by the stencil K0 + lam2 K1 of each sample."""
        lam2 = context["lam2"].to(pair.dtype).view(-1, 1, 1)
        return convolved(torch.addcmul(self.weight[0], lam2, self.weight[1]), padded(pair, self.boundary))


class StencilArchitecture(_LinearArchitecture):
    """`grokkit_wave/stencil`: config `boundary`, `lam2` and `grid`, of which no tensor depends on the last."""

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        """A random stencil in float64."""
        return Stencil(str(config["boundary"]))

    def signature(self, config: Mapping[str, Any]) -> Signature:
        """`pair` "batch 2 grid" to `field` "batch grid" on any grid; a `lam2` that is given must be that of the config."""
        return signature(DOUBLE_FIRST, lam2_context(required=False, only=float(config["lam2"])))


class Stencil(nn.Module):
    """`weight` "2 3": the kernels of u and of v."""

    def __init__(self, boundary: str) -> None:
        super().__init__()
        self.boundary = boundary
        self.weight = nn.Parameter(INITIAL * torch.randn(2, 3, dtype=torch.float64))

    def forward(self, pair: Tensor) -> Tensor:
        """The next field "batch grid"."""
        return convolved(self.weight, padded(pair, self.boundary))
