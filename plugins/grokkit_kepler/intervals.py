"""Interval arithmetic on tensors, rounded outwards, and the slopes of a tanh network over boxes (Moore 1966).

Assumed of float64: sums, products and quotients are rounded to nearest, matrix products are plain sums, and sin, cos and
exp err by at most `ULPS` units in the last place.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from grokkit_core.certify.intervals import Affine, output_box

ULPS = 4.0
EPSILON = torch.finfo(torch.float64).eps


@dataclass(frozen=True, eq=False)
class Interval:
    """Numbers between `low` and `high`, float64 tensors of one shape."""

    low: Tensor
    high: Tensor

    def __add__(self, other: Interval | float) -> Interval:
        bounds = other if isinstance(other, Interval) else Interval.of(self.low, other)
        return outwards(self.low + bounds.low, self.high + bounds.high)

    def __neg__(self) -> Interval:
        return Interval(-self.high, -self.low)

    def __sub__(self, other: Interval | float) -> Interval:
        return self + (-other)

    def __mul__(self, other: Interval | float) -> Interval:
        bounds = other if isinstance(other, Interval) else Interval.of(self.low, other)
        corners = [end * side for end in (self.low, self.high) for side in (bounds.low, bounds.high)]
        low = torch.minimum(torch.minimum(corners[0], corners[1]), torch.minimum(corners[2], corners[3]))
        high = torch.maximum(torch.maximum(corners[0], corners[1]), torch.maximum(corners[2], corners[3]))
        return outwards(low, high)

    @classmethod
    def of(cls, like: Tensor, number: float) -> Interval:
        """One number, in the shape of a tensor."""
        point = torch.full_like(like, number)
        return cls(point, point)

    @classmethod
    def around(cls, middle: Tensor, radius: Tensor) -> Interval:
        """`middle` plus or minus `radius`."""
        return outwards(middle - radius, middle + radius)

    def reciprocal(self) -> Interval:
        """1 / x; only for intervals of positive numbers, all numbers otherwise."""
        positive = self.low > 0
        low, high = torch.where(positive, 1 / self.high, -math.inf), torch.where(positive, 1 / self.low, math.inf)
        return outwards(low, high)

    def intersected(self, other: Interval) -> Interval:
        """What lies in both, of which it is known that something does."""
        return Interval(torch.maximum(self.low, other.low), torch.minimum(self.high, other.high))

    def size(self) -> Tensor:
        """The largest absolute value."""
        return torch.maximum(self.low.abs(), self.high.abs())

    def sin(self) -> Interval:
        """sin x, from the middle and the slope, which is at most 1."""
        return self._wave(torch.sin)

    def cos(self) -> Interval:
        """cos x, in the same way."""
        return self._wave(torch.cos)

    def exp(self) -> Interval:
        """e^x."""
        share = 2 * ULPS * EPSILON
        return outwards(torch.exp(self.low) * (1 - share), torch.exp(self.high) * (1 + share))

    def _wave(self, wave: object) -> Interval:
        assert callable(wave)
        middle = (self.low + self.high) / 2
        radius = torch.maximum(self.high - middle, middle - self.low) * (1 + 2 * EPSILON) + 2 * ULPS * EPSILON
        value: Tensor = wave(middle)
        return Interval((value - radius).clamp_min(-1.0), (value + radius).clamp_max(1.0))


def outwards(low: Tensor, high: Tensor) -> Interval:
    """An interval whose ends were rounded to nearest, one number further out each."""
    return Interval(
        torch.nextafter(low, torch.full_like(low, -math.inf)), torch.nextafter(high, torch.full_like(high, math.inf))
    )


def slopes(layers: Sequence[Affine], low: Tensor, high: Tensor) -> Interval:
    """The derivatives "box in" of a network with one output by its inputs, over the boxes [low, high] "box in".

    All layers but the last have tanh.
    """
    count = low.shape[1]
    found = Interval.of(low.new_zeros(len(low), count, count), 0.0)
    found = Interval(found.low + torch.eye(count, dtype=low.dtype), found.high + torch.eye(count, dtype=low.dtype))
    for index, layer in enumerate(layers):
        found = _through(layer.weight.double(), found)
        if layer.activation == "tanh":
            units = Interval(*output_box(layers[: index + 1], low, high, dtype=torch.float64))
            found = found * _slope_of_tanh(units)
    return Interval(found.low.squeeze(2), found.high.squeeze(2))


def _slope_of_tanh(units: Interval) -> Interval:
    """1 - t^2 "box 1 units" for t = tanh "box units"."""
    across = (units.low <= 0) & (units.high >= 0)
    small = torch.where(across, 0.0, torch.minimum(units.low.abs(), units.high.abs()))
    large = units.size()
    low, high = 1 - large * large - EPSILON, 1 - small * small + EPSILON  # the squares are rounded at the size of one
    return Interval(low.clamp_min(0.0).unsqueeze(1), high.clamp_max(1.0).unsqueeze(1))


def _through(weight: Tensor, found: Interval) -> Interval:
    """The products "box in out" of intervals "box in units" with a weight "out units"."""
    middle = (found.low + found.high) / 2
    radius = torch.maximum(found.high - middle, middle - found.low) * (1 + 4 * EPSILON)
    share = (weight.shape[1] + 4) * EPSILON
    spread = (radius * (1 + 2 * share) + middle.abs() * share) @ weight.abs().T * (1 + 2 * share)
    return Interval.around(middle @ weight.T, spread + torch.finfo(torch.float64).tiny)
