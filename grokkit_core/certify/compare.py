"""Is one predictor better than another? Paired tests on per-sample errors of the same samples."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from torch import Tensor

FAMILY_LEVEL = 0.05
"""Error level of a whole table of win tests (Holm 1979)."""

NON_INFERIORITY = 1.005
"""A fusion is non-inferior where its figure is at most this times the best member's."""


def win_p_value(candidate: Tensor, rivals: Mapping[str, Tensor], *, higher_is_better: bool = False) -> float:
    """One-sided p that the candidate's mean error "n" is below that of every rival on the same samples.

    For each rival the paired difference is tested (z test); the largest p counts, since all must be beaten.
    """
    sign = -1.0 if higher_is_better else 1.0
    return max(_paired_p(sign * (rival - candidate)) for rival in rivals.values())


def _paired_p(gain: Tensor) -> float:
    mean, spread = gain.mean().item(), gain.std().item()
    if not math.isfinite(mean):
        return 1.0  # a prediction that is not finite proves nothing
    if spread == 0:
        return 0.0 if mean > 0 else 1.0
    z = mean * math.sqrt(len(gain)) / spread
    return 0.5 * math.erfc(z / math.sqrt(2))


def holm(p_values: Sequence[float], level: float = FAMILY_LEVEL) -> list[bool]:
    """Which hypotheses Holm's step-down procedure rejects at family level `level`, in the given order."""
    rejected = [False] * len(p_values)
    order = sorted(range(len(p_values)), key=lambda index: (math.isnan(p_values[index]), p_values[index]))
    for rank, index in enumerate(order):
        if not p_values[index] <= level / (len(p_values) - rank):
            break
        rejected[index] = True
    return rejected


def is_non_inferior(value: float, rivals: Sequence[float], *, higher_is_better: bool = False) -> bool:
    """Whether a mean figure is at most 0.5 % worse than the best rival's."""
    if higher_is_better:
        return value >= max(rivals) / NON_INFERIORITY
    return value <= NON_INFERIORITY * min(rivals)
