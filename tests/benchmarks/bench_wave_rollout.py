"""A rollout of the wave cassette against leapfrog in numpy on 4096 points."""

from __future__ import annotations

from collections.abc import Sequence

from timing import Benchmark, Bound, Comparison

GRID, STEPS, LAM2 = 4_096, 2_000, 0.0961
SEED = 0


def comparisons() -> Sequence[Comparison]:
    """In both precisions against a solver as one writes it. `wave_sides` has harder ones, which are reported only."""
    from wave_sides import comparison

    return [comparison(dtype, "natural", GRID, STEPS, LAM2, SEED) for dtype in ("float32", "float64")]


BENCHMARK = Benchmark(
    name="wave-rollout",
    what="Steps of leapfrog in numpy, `2 u[1:-1] - v[1:-1] + lam2 (u[2:] - 2 u[1:-1] + u[:-2])` into a new array, against "
    "`wave` rolled out in increment form, which hands out each field as a tensor of its own.",
    seed=SEED,
    sizes=f"batch 1, {GRID:,} interior points, {STEPS:,} steps a call",
    bound=Bound(least=1),
    comparisons=comparisons,
    runs=9,
)
