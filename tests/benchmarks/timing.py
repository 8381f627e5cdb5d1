"""Comparisons by CPU time: two ways to the same result, in alternating runs of one process, and a bound on their ratio."""

from __future__ import annotations

import gc
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

Clock = Callable[[], float]


def own_time() -> float:
    """CPU time of this process so far [s]."""
    return time.process_time()


def childrens_time() -> float:
    """CPU time, user and system, of all children that have ended [s]."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@dataclass(frozen=True)
class Side:
    """One way: what to call, and how often for one run, so that a run is long against the clock."""

    label: str
    call: Callable[[], object]
    calls: int = 1


@dataclass(frozen=True)
class Comparison:
    """Two sides. `check` runs before any timing: it raises unless both do the same work, and says what it saw."""

    label: str
    numerator: Side
    denominator: Side
    check: Callable[[], str]


@dataclass(frozen=True)
class Bound:
    """What the ratio of CPU times must keep."""

    least: float = 0.0
    most: float = float("inf")

    def holds(self, ratio: float) -> bool:
        """Whether a ratio keeps the bound."""
        return self.least <= ratio <= self.most

    def __str__(self) -> str:
        return f">= {self.least:g}" if self.least else f"<= {self.most:g}"


@dataclass(frozen=True)
class Benchmark:
    """A file of this folder named `bench_<name>.py` holds one as `BENCHMARK`.

    `comparisons` prepares everything and imports what it needs; `runs` counts the timed runs of each side.
    """

    name: str
    what: str
    seed: int
    sizes: str
    bound: Bound
    comparisons: Callable[[], Sequence[Comparison]]
    runs: int = 5
    clock: Clock = own_time


@dataclass(frozen=True)
class Section:
    """A benchmark that writes its own section: `measure` gives the text below its heading and the bounds that were missed.

    None: it could not be measured here, and said why; the old section is kept.
    """

    name: str
    measure: Callable[[], tuple[str, Sequence[str]] | None]


@dataclass(frozen=True)
class Result:
    """Median seconds of one call of each side, their ratio, and the least and greatest ratio of neighbouring runs."""

    label: str
    numerator: str
    denominator: str
    numerator_seconds: float
    denominator_seconds: float
    lowest: float
    highest: float
    checked: str

    @property
    def ratio(self) -> float:
        """Median over median."""
        return self.numerator_seconds / self.denominator_seconds


def run(benchmark: Benchmark) -> list[Result]:
    """Check and measure every comparison."""
    return [_measure(comparison, benchmark) for comparison in benchmark.comparisons()]


def _measure(comparison: Comparison, benchmark: Benchmark) -> Result:
    checked = comparison.check()
    sides = comparison.numerator, comparison.denominator
    for side in sides:
        side.call()
    pairs = [_pair(sides, benchmark.clock, turned=run % 2 == 1) for run in range(benchmark.runs)]
    ratios = [first / second for first, second in pairs]
    return Result(
        comparison.label,
        comparison.numerator.label,
        comparison.denominator.label,
        median(first for first, _ in pairs),
        median(second for _, second in pairs),
        min(ratios),
        max(ratios),
        checked,
    )


def _pair(sides: tuple[Side, Side], clock: Clock, *, turned: bool) -> tuple[float, float]:
    """CPU times of both sides, the second one timed first where `turned`: neither always finds the other's caches."""
    if turned:
        second = _seconds(sides[1], clock)
        return _seconds(sides[0], clock), second
    return _seconds(sides[0], clock), _seconds(sides[1], clock)


def _seconds(side: Side, clock: Clock) -> float:
    """CPU time of one call, the average over a run."""
    gc.collect()
    before = clock()
    for _ in range(side.calls):
        side.call()
    return (clock() - before) / side.calls
