"""The identified law of the double pendulum against SciPy's DOP853, a batch of states over one time step."""

from __future__ import annotations

from collections.abc import Sequence

from timing import Benchmark, Bound, Comparison, Side

TOLERANCE = 1e-7
"""Of DOP853: one step of it meets this over 0.02 s, so that no looser one is cheaper."""


def comparisons() -> Sequence[Comparison]:
    """Both integrators of the law."""
    from pendulum_sides import FORMS

    return [_comparison(integrator) for integrator in FORMS]


def _comparison(integrator: str) -> Comparison:
    import time

    import torch
    from pendulum_sides import frozen, network, solved, stacked, task_and_states

    task, states, targets = task_and_states()
    ours, rows = frozen(network(integrator), states), states.numpy()

    def check() -> str:
        found = float(task.error(ours(), targets).mean())
        assert found < 1e-14, f"MSE {found:.2g}"
        theirs = float(task.error(torch.from_numpy(solved(rows[:500], TOLERANCE)), targets[:500]).mean())
        assert theirs < found, f"DOP853 is less accurate: MSE {theirs:.2g}"
        started = time.process_time()
        stacked(rows, TOLERANCE)
        whole = time.process_time() - started
        return (
            f"MSE {found:.1e}, of DOP853 {theirs:.1e} at rtol = atol = {TOLERANCE:g}; all states as one system of 40,000 "
            f"equations, which has one step size for all, take DOP853 {1e3 * whole:.0f} ms, without a bound"
        )

    label = f"law, {integrator}"
    return Comparison(label, Side("DOP853", lambda: solved(rows, TOLERANCE)), Side(label, ours, 20), check)


BENCHMARK = Benchmark(
    name="pendulum-dop853",
    what="The flow map of `pendulum` over 0.02 s for a batch of states, beside `scipy.integrate.solve_ivp` with DOP853, one "
    "state after the other, its right-hand side in plain Python floats, the fastest form for four numbers. The law is "
    "integrated as shipped, by Gauss-Legendre, and by two steps of RK4. One step of DOP853 is more accurate than either; "
    "no tolerance makes it cheaper.",
    seed=0,
    sizes="10,000 states of the sampling box",
    bound=Bound(least=100),
    comparisons=comparisons,
    runs=3,
)
