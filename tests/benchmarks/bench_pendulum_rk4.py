"""The identified law of the double pendulum against RK4 written by hand in torch, a batch of states over one time step."""

from __future__ import annotations

from collections.abc import Sequence

from timing import Benchmark, Bound, Comparison, Side


def comparisons() -> Sequence[Comparison]:
    """Both integrators of the law."""
    from pendulum_sides import FORMS

    return [_comparison(integrator) for integrator in FORMS]


def _comparison(integrator: str) -> Comparison:
    from pendulum_sides import by_hand, frozen, network, task_and_states

    task, states, targets = task_and_states()
    ours, theirs = frozen(network(integrator), states), frozen(by_hand, states)

    def check() -> str:
        errors = [float(task.error(call(), targets).mean()) for call in (ours, theirs)]
        assert max(errors) < 1e-14, f"MSE {errors}"
        return f"MSE {errors[0]:.1e}, of RK4 by hand {errors[1]:.1e}; one step of RK4 would have 3e-14"

    label = f"law, {integrator}"
    return Comparison(label, Side(label, ours, 20), Side("RK4 by hand", theirs, 20), check)


BENCHMARK = Benchmark(
    name="pendulum-rk4",
    what="The flow map of `pendulum` over 0.02 s for a batch of states, beside two steps of RK4 over all states at once, "
    "written by hand in torch for these masses. The law is integrated as shipped, by Gauss-Legendre, which is symplectic "
    "and implicit, and by two steps of RK4; one step of RK4 would be less accurate than either.",
    seed=0,
    sizes="10,000 states of the sampling box",
    bound=Bound(most=2),
    comparisons=comparisons,
    runs=9,
)
