"""What a sample says about a rate or a quantile, whatever the distribution: exact binomial limits, rounded outwards.

Both functions rest on one sum, P(X <= k) of a binomial X, computed from above: its largest term in 60 decimal digits,
the others relative to it in float64, the end of the series by a geometric one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import ROUND_CEILING, Context, Decimal, localcontext
from fractions import Fraction
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from grokkit_core.errors import UsageError

MOST_SAMPLES = 10**10
"""Up to here a series has fewer than 9 sqrt(n)/2 terms, and five roundings each stay below `SLACK`."""

SLACK = 1e-9
"""Relative excess of a computed tail over the exact one, twice what rounding can take away from it."""

_PRECISION = 60
"""Decimal digits: log n! has at most 12 before the point, so that the logarithm of a tail keeps more than 40 behind."""

_BLOCK = 4_096
_NEGLIGIBLE = 1e-15

_HALF_LOG_TAU = Decimal("0.918938533204672741780329736405617639861397473637783412817151540482765696")
_STIRLING = ((1, 12), (-1, 360), (1, 1260), (-1, 1680), (1, 1188), (-691, 360360), (1, 156), (-3617, 122400))
_STIRLING_FROM = 256
"""From here the eight terms leave less than 1e-41 of log n! (the error is below the next one, 0.18 / n^17)."""


def clopper_pearson(failures: int, n: int, confidence: float = 0.95, *, one_sided: bool = False) -> tuple[float, float]:
    """The exact interval (low, high) of a rate of which `failures` of `n` independent trials are known.

    It covers the true rate with at least this confidence, whatever the rate (Clopper and Pearson 1934): P(X <= failures)
    is at most (1 - confidence)/2 at `high`, P(X >= failures) at `low`. `one_sided` gives (0, high) with the whole of
    1 - confidence above. Both ends are rounded outwards, by less than 1e-9 of a tail.

    Raises `UsageError` unless 0 <= failures <= n, 1 <= n <= 10^10 and 0.5 <= confidence < 1.
    """
    if not 1 <= n <= MOST_SAMPLES or not 0 <= failures <= n:
        raise UsageError(f"{failures} failures of {n}", expected=f"0 <= failures <= n and 1 <= n <= {MOST_SAMPLES}")
    level = _level(confidence) if one_sided else _level(confidence) / 2
    share, passes = failures / n, n - failures
    high = 1.0 if failures == n else _boundary(1.0, share, lambda rate: _below(failures, n, rate) <= level)
    if one_sided or failures == 0:
        return 0.0, high
    return _boundary(0.0, share, lambda rate: _below(passes, n, rate, complement=True) <= level), high


def tolerance_bound(values: Tensor, *, coverage: float, confidence: float) -> float:
    """The least of the values "n" that exceeds a share `coverage` of their distribution with this confidence.

    Distribution-free (Wilks 1941): the k-th smallest does if P(Bin(n, coverage) <= k - 1) >= confidence. The values are
    independent draws; ties and infinities are allowed. A probability within 2e-9 of its limit counts as beyond it.

    Raises `UsageError` for NaN, for shares outside (0, 1) or confidence below 0.5, and where n is too small, with the n
    that is needed.
    """
    if not 0 < coverage < 1:
        raise UsageError(f"coverage {coverage}", expected="a share above 0 and below 1")
    level, n, needed = _level(confidence), values.numel(), _samples_needed(coverage, confidence)
    if not needed <= n <= MOST_SAMPLES:
        raise UsageError(
            f"{n} values for a bound of {coverage:g} coverage at {confidence:g} confidence",
            expected=f"{needed} to {MOST_SAMPLES} values",
        )
    ascending = torch.sort(values.detach().flatten()).values
    if bool(torch.isnan(ascending).any()):
        raise UsageError("values with NaN", expected="numbers", hint="a sample without a value bounds nothing")
    beyond, too_many = 0, math.floor(n * (1 - coverage)) + 1
    while too_many - beyond > 1:
        middle = (beyond + too_many) // 2
        if _below(middle, n, coverage, complement=True) <= level:
            beyond = middle
        else:
            too_many = middle
    return float(ascending[n - 1 - beyond].item())


def _level(confidence: float) -> float:
    """1 - confidence, exact in floats from 0.5 on."""
    if not 0.5 <= confidence < 1:
        raise UsageError(f"confidence {confidence}", expected="at least 0.5 and below 1")
    return 1.0 - confidence


def _samples_needed(coverage: float, confidence: float) -> int:
    """The least n for which the largest value will do: coverage^n <= 1 - confidence.

    Logarithms cannot settle an equality; there is none beyond n = 53, where coverage^n has too many bits.
    """
    with localcontext(Context(prec=_PRECISION)):
        least = Decimal(_level(confidence)).ln() / Decimal(coverage).ln()
        n = max(1, int(least.to_integral_value(ROUND_CEILING)))
    return n - 1 if 1 < n <= 54 and Fraction(coverage) ** (n - 1) <= Fraction(_level(confidence)) else n


def _boundary(good: float, bad: float, holds: Callable[[float], bool]) -> float:
    """The last float from `good` (which holds) towards `bad` that holds."""
    while (middle := (good + bad) / 2) not in (good, bad):
        good, bad = (middle, bad) if holds(middle) else (good, middle)
    return good


def _below(count: int, n: int, rate: float, *, complement: bool = False) -> float:
    """P(X <= count) from above, by at most 2e-9 relative, for X successes of n at this rate (`complement`: 1 - rate).

    `count` is below n and at most n times the rate of success, up to rounding: the terms fall from the first one on.
    """
    with localcontext(Context(prec=_PRECISION)):
        success, failure = Decimal(rate), 1 - Decimal(rate)
        if complement:
            success, failure = failure, success
        head = float(_log_choose(n, count) + count * success.ln() + (n - count) * failure.ln())
        odds = float(failure / success)
    return math.exp(min(head, 0.0)) * _series(count, n, odds) * (1 + SLACK)


def _series(count: int, n: int, odds: float) -> float:
    """1 + r_k + r_k r_(k-1) + ... + r_k ... r_1 for r_j = j odds / (n - j + 1), which fall; the rest as if they did not."""
    total, term, index = 1.0, 1.0, count
    while index > 0:
        block = np.arange(index, max(index - _BLOCK, 0), -1, dtype=np.float64)
        terms = term * np.cumprod(block * odds / (n + 1 - block))
        total, term, index = total + float(terms.sum()), float(terms[-1]), index - len(block)
        ratio = index * odds / (n + 1 - index)
        if ratio < 1 and (rest := term * ratio / (1 - ratio)) <= _NEGLIGIBLE * total:
            return total + rest
    return total


@lru_cache(maxsize=16)
def _log_choose(n: int, count: int) -> Decimal:
    """log of n over count in `_PRECISION` digits; a bisection asks for it some fifty times."""
    with localcontext(Context(prec=_PRECISION)):
        return _log_factorial(n) - _log_factorial(count) - _log_factorial(n - count)


def _log_factorial(n: int) -> Decimal:
    """log n! in the current precision, by Stirling's series; its error is below the first term left out."""
    if n < _STIRLING_FROM:
        return Decimal(math.factorial(n)).ln()
    size = Decimal(n)
    series = sum((Decimal(p) / (q * size ** (2 * j + 1)) for j, (p, q) in enumerate(_STIRLING)), Decimal(0))
    return (size + Decimal("0.5")) * size.ln() - size + _HALF_LOG_TAU + series
