"""Many steps of a linear stencil in increment form: d = u - v is carried instead of v.

From u+ = A u + B v follows d+ = (A + B - I) u - B d, u+ = u + d+, whatever the coefficients. In 2u - v two numbers of
order one cancel at every step; d is small from the start, so what is lost is small against it. Written by differences
of neighbours, A + B - I is p (u_(i+1) - u_i) - q (u_i - u_(i-1)) + r u_i: where p = q, r = 0 and B = -I to the rounding
of the coefficients, a step is two differences, one product and two sums, in place, and a copy to hand out.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from grokkit_wave.law import convolved, padded

ROUNDINGS = 4
"""Units of rounding by which a sum of coefficients of order one may miss the number that it stands for."""

AHEAD, MOST_STEPS = 2**16, 32
"""Numbers that are computed before the first of them is handed out, and steps: small fields share what a step costs."""


def increments(
    pair: Tensor, fixed: Tensor, slope: Tensor, lam2: Tensor, boundary: str, kind: torch.dtype
) -> Iterator[Tensor]:
    """The fields "batch grid" of successive steps, without end, in the dtype of `pair` "batch 2 grid".

    The stencil of a sample is `fixed` + lam2 `slope`, "2 3" each in float64, with lam2 "batch" or "1"; `kind` is the dtype
    in which the coefficients are stored.
    """
    rates = [_differences(part) for part in (fixed - _identity(fixed), slope)]
    allowed = ROUNDINGS * torch.finfo(kind).eps
    simple = all(abs(float(rate[0] - rate[1])) <= allowed and abs(float(rate[2])) <= allowed for rate in rates)
    past = torch.stack((fixed[1] - fixed.new_tensor([0, -1, 0]), slope[1]))
    keeps = float(past.abs().max()) <= allowed
    if simple and keeps:
        return _symmetric(pair, rates[0][0] + lam2 * rates[1][0], boundary)
    return _general(pair, fixed + lam2.view(-1, 1, 1) * slope, boundary)


def _identity(kernel: Tensor) -> Tensor:
    """I as a kernel of u: what u+ = u would be."""
    return kernel.new_tensor([[0, 1, 0], [0, 0, 0]])


def _differences(kernel: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """p, q and r of the sum of both rows of a kernel "2 3"."""
    left, middle, right = kernel.sum(0)
    return right, left, left + middle + right


def _general(pair: Tensor, kernel: Tensor, boundary: str) -> Iterator[Tensor]:
    """Any stencil "batch 2 3" or "1 2 3"."""
    own = (kernel - _identity(kernel)).sum(1, keepdim=True)
    left, _, right = own.to(pair).transpose(1, 2).unbind(1)
    rest = own.sum(2).to(pair)
    memory = torch.stack((torch.zeros_like(kernel[:, 1]), -kernel[:, 1]), 1).to(pair)
    u, d = pair[:, 0], pair[:, 0] - pair[:, 1]
    while True:
        slopes = padded(u, boundary).diff()
        pulled = right * slopes[:, 1:] - left * slopes[:, :-1] + rest * u
        d = pulled + convolved(memory, padded(torch.stack((u, d), 1), boundary))
        u = u + d
        yield u


def _symmetric(pair: Tensor, rate: Tensor, boundary: str) -> Iterator[Tensor]:
    """d += rate Lap(u), u += d, with rate "batch" or "1": on a CPU by numpy, whose small operations cost less."""
    batch, grid = pair.shape[0], pair.shape[-1]
    on_cpu = pair.device.type == "cpu"
    library: Any = np if on_cpu else torch
    subtract, multiply, add = library.subtract, library.multiply, library.add
    factor = _plain((rate[0] if bool((rate == rate[0]).all()) else rate.unsqueeze(1)).to(pair))
    row: Any = 0 if batch == 1 else slice(None)  # one axis less costs less
    wide = _plain(padded(pair[:, 0], boundary))
    u, right, left = wide[row, 1:-1], wide[row, 1:], wide[row, :-1]
    d = _plain(pair[:, 0] - pair[:, 1])[row]
    slope, bend = _plain(pair.new_empty(batch, grid + 1))[row], _plain(pair.new_empty(batch, grid))[row]
    after, before = slope[..., 1:], slope[..., :-1]
    copy: Any = getattr(wide[:, 1:-1], "copy" if on_cpu else "clone")
    most, steps = max(1, min(MOST_STEPS, AHEAD // (batch * grid))), 1
    while True:
        fields = []
        with np.errstate(all="ignore") if on_cpu else contextlib.nullcontext():
            for _ in range(steps):
                subtract(right, left, out=slope)
                subtract(after, before, out=bend)
                multiply(bend, factor, out=bend)
                add(d, bend, out=d)
                add(u, d, out=u)
                if boundary == "periodic":
                    wide[:, 0], wide[:, -1] = wide[:, -2], wide[:, 1]
                fields.append(copy())
        yield from map(torch.from_numpy, fields) if on_cpu else fields
        steps = min(2 * steps, most)


def _plain(tensor: Tensor) -> Any:
    """The same numbers as numpy sees them; on another device the tensor itself."""
    return tensor.numpy() if tensor.device.type == "cpu" else tensor
