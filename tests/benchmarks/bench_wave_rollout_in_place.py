"""A rollout of the wave cassette against leapfrog in numpy that was written for speed."""

from __future__ import annotations

from collections.abc import Sequence

from bench_wave_rollout import GRID, LAM2, SEED, STEPS
from timing import Benchmark, Bound, Comparison


def comparisons() -> Sequence[Comparison]:
    """Solvers with preallocated arrays that hand out every field, and that overwrite it."""
    from wave_sides import comparison

    kinds = ("handing_out", "overwriting")
    return [comparison(dtype, kind, GRID, STEPS, LAM2, SEED) for kind in kinds for dtype in ("float32", "float64")]


BENCHMARK = Benchmark(
    name="wave-rollout-in-place",
    what="What is left to gain: the same against five numpy operations in place on arrays and views that are made once. `handing out` copies each "
    "field, as a rollout must; `overwriting` keeps the last one only and so does less.",
    seed=SEED,
    sizes=f"batch 1, {GRID:,} interior points, {STEPS:,} steps a call",
    bound=Bound(least=0.5),
    comparisons=comparisons,
    runs=9,
)
