"""The shipped two-body cassette against SciPy's DOP853 at the same accuracy."""

from __future__ import annotations

from collections.abc import Sequence

import kepler_sides
from timing import Benchmark, Bound, Comparison, Side


def comparisons() -> Sequence[Comparison]:
    """One call of the cassette, checks included, and one integration for each state."""
    (given, exact), cassette = kepler_sides.states(), kepler_sides.cassette()
    tolerance = kepler_sides.equal_tolerance()

    def check() -> str:
        few = given[: kepler_sides.PROBED]
        own, other = cassette(few), kepler_sides.dop853(few, tolerance)
        figures = [kepler_sides.mse(found, exact[: len(few)]) for found in (other, own)]
        assert figures[0] <= figures[1]
        return f"MSE {figures[0]:.1e} at tolerance {tolerance:g} and {figures[1]:.1e}"

    return [
        Comparison(
            "flow map, float64",
            Side("DOP853", lambda: kepler_sides.dop853(given, tolerance)),
            Side("cassette", lambda: cassette(given), 50),
            check,
        )
    ]


BENCHMARK = Benchmark(
    name="kepler",
    what="One step dt = 0.1 on bound two-body orbits with the shipped cassette (one Newton step, all checks of a call), "
    "against SciPy's DOP853 at the loosest tolerance at which it is as accurate; it has no batched form.",
    seed=kepler_sides.SEED,
    sizes=f"batch {kepler_sides.BATCH:,}",
    bound=Bound(least=100),
    comparisons=comparisons,
    runs=3,
)
