"""Proved upper limits: rational arithmetic without rounding, and rounding up where a float is written."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from fractions import Fraction

DIGITS = 2
"""Significant digits of a recorded bound."""


def root_above(square: Fraction) -> Fraction:
    """A rational number >= the square root of a non-negative one, at most 1e-15 above it, relative."""
    if square <= 0:
        return Fraction(0)
    guess = Fraction(_power_of_two_root(square))
    for _ in range(8):  # Newton's steps from above stay above
        guess = (guess + square / guess) / 2
        guess = _simpler_above(guess)
    return guess


def norm_above(entries: Iterable[Fraction]) -> Fraction:
    """An upper limit of the Euclidean (Frobenius) norm of these entries."""
    return root_above(sum((entry * entry for entry in entries), Fraction(0)))


def round_up(value: Fraction | float) -> float:
    """The least float of two significant digits that is not below `value`; 0 and infinity stay.

    What no float can hold is infinite.
    """
    if value <= 0 or value == math.inf:
        return max(0.0, float(value))
    exact = Fraction(value)
    exponent = math.floor(math.log10(exact.numerator) - math.log10(exact.denominator))
    unit = Fraction(10) ** (exponent - DIGITS + 1)
    count = math.ceil(exact / unit)
    if count * unit > Fraction(sys.float_info.max):
        return math.inf
    written = float(count * unit)
    while Fraction(written) < exact:  # the nearest float of a decimal may lie below it
        written = math.nextafter(written, math.inf)
    return written


def _power_of_two_root(square: Fraction) -> Fraction:
    """A power of two that is >= the root and < 4 times it."""
    half = (square.numerator.bit_length() - square.denominator.bit_length() + 1) // 2 + 1
    return Fraction(2) ** half


def _simpler_above(value: Fraction) -> Fraction:
    """A number of 64 significant bits that is not below `value`, so that numerators do not grow."""
    shift = 64 - (value.numerator.bit_length() - value.denominator.bit_length())
    scale = Fraction(2) ** shift
    return math.ceil(value * scale) / scale
