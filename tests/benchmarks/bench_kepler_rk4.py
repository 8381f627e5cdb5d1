"""The shipped two-body cassette against a vectorised Runge-Kutta method of the same accuracy."""

from __future__ import annotations

from collections.abc import Sequence

import kepler_sides
from timing import Benchmark, Bound, Comparison, Side


def comparisons() -> Sequence[Comparison]:
    """One call of the cassette, checks included, and as many steps as it takes to be as accurate."""
    import torch
    from grokkit_kepler.law import rk4

    (given, exact), cassette = kepler_sides.states(), kepler_sides.cassette()
    count = kepler_sides.equal_steps()

    def integrate() -> object:
        with torch.inference_mode():
            return rk4(given, 1.0, 0.1, count)

    def check() -> str:
        figures = [kepler_sides.mse(found, exact) for found in (rk4(given, 1.0, 0.1, count), cassette(given))]
        assert figures[0] <= figures[1]
        return f"MSE {figures[0]:.1e} with {count} steps of RK4 and {figures[1]:.1e}"

    return [
        Comparison(
            "flow map, float64", Side("RK4", integrate, 50), Side("cassette", lambda: cassette(given), 50), check
        )
    ]


BENCHMARK = Benchmark(
    name="kepler-rk4",
    what="The same call against classical Runge-Kutta steps on the whole batch in torch, as many as reach its accuracy.",
    seed=kepler_sides.SEED,
    sizes=f"batch {kepler_sides.BATCH:,}",
    bound=Bound(least=0.5),
    comparisons=comparisons,
    runs=7,
)
