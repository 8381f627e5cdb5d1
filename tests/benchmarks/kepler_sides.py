"""What the benchmarks of the two-body flow share: the states, the shipped cassette, and rivals of its accuracy."""

from __future__ import annotations

from typing import Any

SEED = 0
BATCH = 10_000
PROBED = 300
TOLERANCES = (1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8)
MOST_STEPS = 64


def states() -> tuple[Any, Any]:
    """States and exact next states "batch 4", float64."""
    from grokkit_core.plugins import host
    from grokkit_core.streams import stream

    batch = host().task("kepler").sample(BATCH, generator=stream(SEED, "benchmark"), direction=0)
    return batch.inputs, batch.targets


def cassette() -> Any:
    """The shipped one."""
    import grokkit_core as gk

    return gk.load("kepler")


def mse(found: Any, exact: Any) -> float:
    """Mean square error over components."""
    return float((found - exact).square().mean())


def dop853(given: Any, tolerance: float) -> Any:
    """SciPy's integrator on each state in turn; it has no batched form."""
    import numpy as np
    import torch
    from scipy.integrate import solve_ivp

    def rates(time: float, state: Any) -> tuple[float, ...]:
        x, y, vx, vy = state.tolist()
        pull = -((x * x + y * y) ** -1.5)
        return vx, vy, pull * x, pull * y

    ends = [
        solve_ivp(rates, (0.0, 0.1), state, method="DOP853", rtol=tolerance, atol=tolerance, t_eval=(0.1,)).y[:, 0]
        for state in given.numpy()
    ]
    return torch.from_numpy(np.array(ends))


def equal_tolerance() -> float:
    """The loosest tolerance at which DOP853 is as accurate as the cassette."""
    given, exact = (tensor[:PROBED] for tensor in states())
    own = mse(cassette()(given), exact)
    return next(value for value in TOLERANCES if mse(dop853(given, value), exact) <= own)


def equal_steps() -> int:
    """The least number of RK4 steps that are as accurate as the cassette."""
    from grokkit_kepler.law import rk4

    given, exact = states()
    own = mse(cassette()(given), exact)
    return next(count for count in range(1, MOST_STEPS) if mse(rk4(given, 1.0, 0.1, count), exact) <= own)
