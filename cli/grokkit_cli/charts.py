"""Small drawings of block characters."""

from __future__ import annotations

import math
from collections.abc import Sequence

BLOCKS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float], width: int) -> str:
    """A curve in at most `width` characters, logarithmic where all values are positive and span a decade."""
    good = [value for value in values if math.isfinite(value)]
    if not good:
        return ""
    if len(good) > width:
        good = [good[round(i * (len(good) - 1) / (width - 1))] for i in range(width)]
    low, high = min(good), max(good)
    if low > 0 and high / low > 10:
        good = [math.log(value) for value in good]
        low, high = min(good), max(good)
    span = high - low
    top = len(BLOCKS) - 1
    return "".join(BLOCKS[round((value - low) / span * top) if span else 0] for value in good)
