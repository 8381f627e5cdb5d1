"""Block-zero growth to each of the published sizes, beside the published times."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from timing import Benchmark, Bound, Comparison


def comparisons() -> Sequence[Comparison]:
    """The five published sizes, without the largest where memory is short."""
    from growth_sides import ENOUGH, LARGEST, PUBLISHED, comparison, free_memory

    short = free_memory() < ENOUGH
    if short:
        print(f"growth to {LARGEST} is not measured: {free_memory() / 1e9:.1f} GB free", file=sys.stderr)
    return [comparison(size, 200) for size in PUBLISHED if not (short and size == LARGEST)]


BENCHMARK = Benchmark(
    name="growth-table",
    what="Construction of `parity-3of64` at the sizes of the published growth table, dense and implicit, beside the "
    "published seconds. These include random initialisation, copy and evaluation on the authors' machine; they are no "
    "measurement of this run, and the ratio is not against them.",
    seed=0,
    sizes="base 64/128 pruned to 3 bits; 4.5 million to 1.14 thousand million dense parameters",
    bound=Bound(least=1),
    comparisons=comparisons,
    runs=3,
)
