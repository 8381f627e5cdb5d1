"""Block-zero growth to the largest published size: the implicit form against the dense one."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from timing import Benchmark, Bound, Comparison


def comparisons() -> Sequence[Comparison]:
    """The largest published size; none where memory is short."""
    from growth_sides import ENOUGH, LARGEST, comparison, free_memory

    if free_memory() < ENOUGH:
        print(f"growth is not measured: {free_memory() / 1e9:.1f} GB free, {ENOUGH / 1e9:.1f} needed", file=sys.stderr)
        return []
    return [comparison(LARGEST, 200)]


BENCHMARK = Benchmark(
    name="growth",
    what="Construction of `parity-3of64` with 2,048 inputs and 32,768 hidden units, from the tensors of the base to a "
    "network that can be called: no load, save or certificate. The implicit form stores the base and two integers.",
    seed=0,
    sizes="base 64/128 pruned to 3 bits, 17,282 parameters; dense 1,140,981,762 parameters",
    bound=Bound(least=1_000),
    comparisons=comparisons,
    runs=3,
)
