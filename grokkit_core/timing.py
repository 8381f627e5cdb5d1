"""Two ways to the same result, timed beside each other.

Times are CPU time on a CPU, since wall time on a shared machine says more about the neighbours, and time until the device
is idle on a GPU. The two sides alternate in pairs, and what counts is the median of the ratios of the pairs: a machine
that changes its speed meanwhile slows both sides of a pair.
"""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from statistics import median

import torch

from grokkit_core.errors import CheckFailed

SAMPLE_S = 0.02
"""Seconds that one sample lasts at least: a thousand times what the clocks and the loop around the calls cost."""

MOST_CALLS = 2**20
"""Calls in one sample at most, for a clock that does not move."""

Clock = Callable[[], float]
"""Seconds since some moment."""


@dataclass(frozen=True)
class Timed:
    """One side of a comparison: medians of one call's seconds by the clock and by the wall, CPU seconds over wall
    seconds of all its samples, and the calls in a sample.

    With one thread `cpu_over_wall` is 1 on an idle machine and less on a busy one; more than the number of threads means
    that the side used others than it was given.
    """

    median_s: float
    wall_s: float
    cpu_over_wall: float
    calls: int


@dataclass(frozen=True)
class Paired:
    """Two sides timed in alternating pairs; `ratios` has the time of the first over that of the second, one a pair."""

    first: Timed
    second: Timed
    ratios: tuple[float, ...]

    @property
    def first_s(self) -> float:
        """Median seconds of one call of the first side."""
        return self.first.median_s

    @property
    def second_s(self) -> float:
        """Median seconds of one call of the second side."""
        return self.second.median_s

    @property
    def ratio(self) -> float:
        """The median of the pairs' ratios: above 1 the second side is faster."""
        return median(self.ratios)


@dataclass
class _Side:
    """What is called, how often for one sample, and the seconds of each sample by each clock."""

    call: Callable[[], object]
    calls: int
    own: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def sample(self, clock: Clock) -> None:
        """Time one sample."""
        wall, cpu, own = time.perf_counter(), time.process_time(), clock()
        for _ in range(self.calls):
            self.call()
        self.own.append((clock() - own) / self.calls)
        self.cpu.append((time.process_time() - cpu) / self.calls)
        self.wall.append((time.perf_counter() - wall) / self.calls)

    def timed(self) -> Timed:
        """What all samples say together."""
        wall = sum(self.wall)
        return Timed(median(self.own), median(self.wall), sum(self.cpu) / wall if wall else 0.0, self.calls)


def paired(
    first: Callable[[], object],
    second: Callable[[], object],
    *,
    pairs: int,
    clock: Clock,
    warm_ups: int = 2,
    calls: tuple[int, int] = (1, 1),
) -> Paired:
    """Time two ways to the same result: `warm_ups` unmeasured calls of each, then pairs of samples.

    The order within a pair alternates, so that neither side always runs in the other's warm caches. A sample is `calls`
    calls of its side (see `calls_for`). Raises `CheckFailed` where a sample took no time at all.
    """
    sides = _Side(first, calls[0]), _Side(second, calls[1])
    for _ in range(warm_ups):
        for side in sides:
            side.call()
    with _without_collection():
        for index in range(pairs):
            for side in sides if index % 2 == 0 else reversed(sides):
                side.sample(clock)
    own = [side.own for side in sides]
    if min(map(min, own)) <= 0:
        raise CheckFailed("a sample took no time by the clock", expected="enough calls in a sample")
    ratios = tuple(numerator / denominator for numerator, denominator in zip(*own, strict=True))
    return Paired(sides[0].timed(), sides[1].timed(), ratios)


@contextlib.contextmanager
def _without_collection() -> Iterator[None]:
    """No collection of garbage inside the block: it would be counted to whichever side it falls into."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def calls_for(call: Callable[[], object], clock: Clock, least_s: float = SAMPLE_S) -> int:
    """The calls, a power of two, that last at least `least_s` seconds together. One goes before and is not counted."""
    call()
    calls = 1
    while calls < MOST_CALLS:
        before = clock()
        for _ in range(calls):
            call()
        if clock() - before >= least_s:
            break
        calls *= 2
    return calls


def clock_for(device: torch.device | str) -> Clock:
    """CPU time of this process, all threads together, on a CPU; on a GPU the time at which all its work is done."""
    place = torch.device(device)
    if place.type != "cuda":
        return time.process_time

    def idle() -> float:
        torch.cuda.synchronize(place)
        return time.perf_counter()

    return idle
