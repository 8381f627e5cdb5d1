"""Rollouts of the shipped propagators beside numpy's split step, on 128 x 128 points."""

from __future__ import annotations

from collections.abc import Sequence

from timing import Benchmark, Bound, Comparison, Side

SEED = 0
GRID = 128
STEPS = 50
APART = {"float64": 1e-5, "float32": 1e-4}
"""Relative difference after the steps: the learned potential's own error, or the rounding of complex64."""


def comparisons() -> Sequence[Comparison]:
    """Both cassettes in both precisions."""
    return [_comparison(name, dtype) for name in ("hpu-free", "hpu-potential") for dtype in ("float64", "float32")]


def _comparison(name: str, dtype: str) -> Comparison:
    import hpu_sides

    reference, own = hpu_sides.rollouts(name, GRID, STEPS, dtype=dtype, seed=SEED)

    def check() -> str:
        apart = hpu_sides.apart(reference(), own())
        assert apart <= APART[dtype], f"fields differ by {apart:.2g}"
        return f"fields differ by {apart:.1e} after {STEPS} steps"

    return Comparison(f"{name}, {dtype}", Side("numpy", reference, 1), Side("cassette", own, 1), check)


BENCHMARK = Benchmark(
    name="hpu-rollout",
    what=f"A rollout of {STEPS} steps by `cassette.rollout`, checks of its start included, beside the same split step (or "
    "the exact phases) with numpy's transforms. Every step's field is handed out by both.",
    seed=SEED,
    sizes=f"one white field of band 5 on {GRID} x {GRID} points",
    bound=Bound(least=1),
    comparisons=comparisons,
    runs=9,
)
