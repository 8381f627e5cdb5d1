"""Linear and logarithmic axes: where a value lies, where ticks stand, what they say."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

DECADES = 1.2
"""Positive values that span more decades than this are drawn on a logarithmic axis."""

MOST_TICKS = 6
SMALLEST, LARGEST = 1e-300, 1e300
"""Sizes that axes can hold without running over; smaller ones are zero, larger ones are not drawn."""

MINUS = "−"


@dataclass(frozen=True)
class Tick:
    """A tick at a `value`. `label` is what it says, followed by 10 to the `power` where there is one."""

    value: float
    label: str
    power: str = ""


@dataclass(frozen=True)
class Scale:
    """An axis from `low` to `high`, which are different, and positive where it is logarithmic."""

    low: float
    high: float
    log: bool = False

    def at(self, value: float) -> float:
        """The share of the axis below a value, not limited to [0, 1]; raises `ValueError` for what has no logarithm."""
        if self.log:
            return (math.log(value) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        return (value - self.low) / (self.high - self.low)

    def holds(self, value: float) -> bool:
        """Whether a value can be drawn here."""
        return is_drawable(value) and (value >= SMALLEST or not self.log)

    def clipped(self, value: float) -> float:
        """As `at`, but at the nearer end for what lies beyond."""
        if math.isnan(value) or (self.log and value < SMALLEST):
            return 0.0
        return min(1.0, max(0.0, self.at(max(-LARGEST, min(LARGEST, value)))))

    def ticks(self) -> list[Tick]:
        """Up to six round values on the axis."""
        if not self.log:
            return _steps(self)
        return _decades(self) if math.log10(self.high) - math.log10(self.low) >= 2 else _parts(self)


def is_drawable(value: float) -> bool:
    """Whether a number is one that an axis can hold."""
    return -LARGEST <= value <= LARGEST


def scale_for(values: Iterable[float], *, log: bool | None = None, floor: float | None = None) -> Scale:
    """An axis around finite values with some room at its ends.

    `log` asks for a logarithmic axis (None: where all values are positive and span enough decades), `floor` is a value
    that must lie on a linear one. Without values it goes from 0 to 1.
    """
    known = [float(value) if abs(value) >= SMALLEST else 0.0 for value in values if is_drawable(value)]
    positive = [value for value in known if value > 0]
    if log is None:
        log = len(positive) == len(known) > 0 and math.log10(max(positive)) - math.log10(min(positive)) > DECADES
    if log and positive:
        first, last = math.log10(min(positive)), math.log10(max(positive))
        room = max(0.05 * (last - first), 0.15)
        return Scale(10 ** max(first - room, -307.0), 10 ** min(last + room, 307.0), True)
    known = [*known, floor] if floor is not None else known
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    room = 0.06 * (high - low) if _apart(low, high) else 0.1 * abs(high) or 1.0
    return Scale(low if low == floor and low < high else low - room, high + room)


def exactly(values: Sequence[float], *, log: bool = False) -> Scale:
    """An axis that ends where the values do."""
    known = [float(value) for value in values if is_drawable(value) and (value >= SMALLEST or not log)]
    low, high = min(known, default=0.0), max(known, default=0.0)
    return Scale(low, high, log) if _apart(low, high) else scale_for(known)


def _apart(low: float, high: float) -> bool:
    """Whether two values differ by more than labels of a few digits can tell."""
    return high - low > max(SMALLEST, 1e-9 * max(abs(low), abs(high)))


def _decades(scale: Scale) -> list[Tick]:
    first, last = math.ceil(math.log10(scale.low) - 1e-9), math.floor(math.log10(scale.high) + 1e-9)
    step = max(1, math.ceil((last - first + 1) / MOST_TICKS))
    exponents = [exponent for exponent in range(first, last + 1) if exponent % step == 0]
    return [Tick(10.0**exponent, *_power(exponent)) for exponent in exponents]


def _parts(scale: Scale) -> list[Tick]:
    """1, 2 and 5 times a power of ten, or linear steps where even those are too far apart."""
    first, last = math.floor(math.log10(scale.low)), math.ceil(math.log10(scale.high))
    values = [part * 10.0**exponent for exponent in range(first, last + 1) for part in (1, 2, 5)]
    inside = [value for value in values if scale.low <= value <= scale.high]
    return [Tick(value, *_written(value, value)) for value in inside] if len(inside) > 1 else _steps(scale)


def _power(exponent: int) -> tuple[str, str]:
    """1, 10 and 100 as they are, other powers of ten as a power."""
    if 0 <= exponent <= 2:
        return str(10**exponent), ""
    return "10", str(exponent).replace("-", MINUS)


def _steps(scale: Scale) -> list[Tick]:
    rough = (scale.high - scale.low) / MOST_TICKS
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * size for factor in (1, 2, 5, 10) if factor * size >= rough * 0.999)
    first, last = math.ceil(scale.low / step - 1e-9), math.floor(scale.high / step + 1e-9)
    values = [index * step for index in range(first, last + 1) if scale.holds(index * step)]
    return [Tick(value, *_written(value, step)) for value in values]


def _written(value: float, step: float) -> tuple[str, str]:
    """A number with the digits that tell it from its neighbours, and a power of ten where it is very large or small."""
    largest = max(abs(value), step)
    if value == 0:
        return "0", ""
    if step >= 1e-3 and largest < 1e6:
        digits = max(0, -math.floor(math.log10(step) + 1e-9))
        return f"{value:,.{digits}f}".replace("-", MINUS), ""
    exponent = math.floor(math.log10(largest) + 1e-9)
    digits = max(0, exponent - math.floor(math.log10(step) + 1e-9))
    mantissa = f"{value / 10.0**exponent:.{digits}f}".replace("-", MINUS)
    return f"{mantissa}×10", str(exponent).replace("-", MINUS)
