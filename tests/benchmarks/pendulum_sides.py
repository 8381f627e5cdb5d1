"""What the pendulum benchmarks share: states, the cassettes, and other ways to the same flow map."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from grokkit_pendulum.law import Pendulum
    from torch import Tensor, nn

SEED, BATCH, DT, GRAVITY = 0, 10_000, 0.02, 9.81
FORMS = {"gauss-legendre-4": 0.02, "rk4": 0.01}
"""Integrators of the law with their steps [s]: as shipped, and two steps of Runge-Kutta."""


def task_and_states() -> tuple[Pendulum, Tensor, Tensor]:
    """The task, states "10000 4" of the sampling box, and those after 0.02 s."""
    from typing import cast

    from grokkit_core.plugins import host
    from grokkit_core.streams import stream

    task = cast("Pendulum", host().task("pendulum"))
    batch = task.sample(BATCH, generator=stream(SEED, "benchmark"))
    return task, cast("Tensor", batch.inputs), batch.targets


def network(integrator: str) -> nn.Module:
    """The shipped law with this integrator, frozen."""
    from grokkit_core.building import build_module
    from grokkit_core.cassette import load

    cassette = load("pendulum")
    config = {**cassette.manifest.architecture.config, "integrator": integrator, "step": FORMS[integrator]}
    return build_module(cassette.architecture, config, dict(cassette.tensors))


def frozen(call: Callable[[Tensor], Tensor], states: Tensor) -> Callable[[], Tensor]:
    """The call on these states, outside autograd."""
    import torch

    def timed() -> Tensor:
        with torch.inference_mode():
            return call(states)

    return timed


def by_hand(states: Tensor) -> Tensor:
    """Two steps of RK4 over 0.02 s for unit masses and lengths, every state at once, as one writes it in torch."""
    for _ in range(2):
        first = _rate(states)
        second = _rate(states + DT / 4 * first)
        third = _rate(states + DT / 4 * second)
        states = states + DT / 12 * (first + 2 * second + 2 * third + _rate(states + DT / 2 * third))
    return states


def _rate(states: Tensor) -> Tensor:
    import torch

    a, b, w, z = states.unbind(1)
    s, c, sa, sb = torch.sin(a - b), torch.cos(a - b), torch.sin(a), torch.sin(b)
    det = 2 - c * c
    first = (-w * w * s * c + GRAVITY * sb * c - z * z * s - 2 * GRAVITY * sa) / det
    second = (z * z * s * c + 2 * GRAVITY * sa * c + 2 * w * w * s - 2 * GRAVITY * sb) / det
    return torch.stack((w, z, first, second), 1)


def solved(states: np.ndarray, tolerance: float) -> np.ndarray:
    """The same by SciPy's DOP853, one state after the other."""
    import numpy as np
    from scipy.integrate import solve_ivp

    def last(state: np.ndarray) -> Any:
        return solve_ivp(scalar_rate, (0.0, DT), state, method="DOP853", rtol=tolerance, atol=tolerance).y[:, -1]

    return np.array([last(state) for state in states])


def scalar_rate(_: float, state: np.ndarray) -> list[float]:
    """The law for one state, in plain Python, which is faster than numpy for four numbers."""
    import math

    a, b, w, z = state.tolist()
    s, c, sa, sb = math.sin(a - b), math.cos(a - b), math.sin(a), math.sin(b)
    det = 2 - c * c
    first = (-w * w * s * c + GRAVITY * sb * c - z * z * s - 2 * GRAVITY * sa) / det
    second = (z * z * s * c + 2 * GRAVITY * sa * c + 2 * w * w * s - 2 * GRAVITY * sb) / det
    return [w, z, first, second]


def stacked(states: np.ndarray, tolerance: float) -> np.ndarray:
    """All states as one system of 40,000 equations for one call of DOP853, whose step is then that of their mean."""
    import numpy as np
    from scipy.integrate import solve_ivp

    def rate(_: float, flat: np.ndarray) -> np.ndarray:
        a, b, w, z = flat.reshape(4, -1)
        s, c, sa, sb = np.sin(a - b), np.cos(a - b), np.sin(a), np.sin(b)
        det = 2 - c * c
        first = (-w * w * s * c + GRAVITY * sb * c - z * z * s - 2 * GRAVITY * sa) / det
        second = (z * z * s * c + 2 * GRAVITY * sa * c + 2 * w * w * s - 2 * GRAVITY * sb) / det
        return np.concatenate((w, z, first, second))

    found = solve_ivp(rate, (0.0, DT), states.T.reshape(-1), method="DOP853", rtol=tolerance, atol=tolerance)
    return np.asarray(found.y[:, -1].reshape(4, -1).T)
