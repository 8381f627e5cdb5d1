"""Two-body orbits written apart from the plugin: numerical integration, a series, changes of frame, and controls."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

TOLERANCE = 1e-13
Flow = Callable[[Tensor], Tensor]


def integrated(states: Tensor, dt: float, mu: float = 1.0) -> Tensor:
    """States "n 4" after `dt` by DOP853 at a tolerance of 1e-13, one after the other."""

    def rates(time: float, state: list[float]) -> tuple[float, ...]:
        x, y, vx, vy = state
        pull = -mu / (x * x + y * y) ** 1.5
        return vx, vy, pull * x, pull * y

    ends = [
        solve_ivp(rates, (0.0, dt), state, method="DOP853", rtol=TOLERANCE, atol=TOLERANCE).y[:, -1]
        for state in states.tolist()
    ]
    return torch.from_numpy(np.array(ends))


def bessel_anomaly(mean: float, eccentricity: float, terms: int = 60) -> float:
    """E = M + sum 2/k J_k(k e) sin(k M): the solution of Kepler's equation by Lagrange's and Bessel's series."""
    total = mean
    for k in range(1, terms + 1):
        angles = (np.arange(512) + 0.5) * math.pi / 512
        bessel = np.cos(k * angles - k * eccentricity * np.sin(angles)).mean()
        total += 2 / k * bessel * math.sin(k * mean)
    return total


def rotated(states: Tensor, angle: float) -> Tensor:
    """States "n 4" in a frame turned by `angle` [rad]."""
    turn = torch.tensor([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]], dtype=torch.float64)
    return torch.cat((states[:, :2] @ turn, states[:, 2:] @ turn), 1)


def mirrored(states: Tensor) -> Tensor:
    """States "n 4" with y turned round."""
    return states * torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=torch.float64)


def scaled(states: Tensor, scale: float) -> Tensor:
    """Orbits "n 4" of `scale` times the size."""
    return torch.cat((scale * states[:, :2], states[:, 2:] / math.sqrt(scale)), 1)


def drift(flow: Flow, states: Tensor, steps: int) -> tuple[float, float, Tensor]:
    """The largest changes of energy and angular momentum over `steps` applications (mu = 1), and the states at the end."""

    def invariants(state: Tensor) -> Tensor:
        x, y, vx, vy = state.unbind(1)
        return torch.stack(((vx * vx + vy * vy) / 2 - 1 / torch.sqrt(x * x + y * y), x * vy - y * vx))

    start, state, worst = invariants(states), states, torch.zeros(2, dtype=torch.float64)
    for _ in range(steps):
        state = flow(state)
        worst = torch.maximum(worst, (invariants(state) - start).abs().amax(1))
    return worst[0].item(), worst[1].item(), state


def moved_with_time(states: Tensor, orbit: object, step: Tensor, dt: float) -> Tensor:
    """The negative control: the algebra with g = dt - (d - sin d)/n, which is equal for the exact step only (mu = 1)."""
    motion, ec, es = (getattr(orbit, name) for name in ("motion", "ec", "es"))
    sine, versine = torch.sin(step), 1 - torch.cos(step)
    before, after = 1 - ec, 1 - ec * torch.cos(step) + es * sine
    f, g = 1 - versine / before, dt - (step - sine) / motion
    f_t, g_t = -motion * sine / (before * after), 1 - versine / after
    place, speed = states[:, :2], states[:, 2:]
    return torch.cat((f[:, None] * place + g[:, None] * speed, f_t[:, None] * place + g_t[:, None] * speed), 1)


def correlated_replica(tensors: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
    """The published growth of the 5-h-h-2 network to twice its width, new output columns left random."""
    first, second, last = (tensors[f"layers.{index}.weight"] for index in (0, 2, 4))
    biases = [tensors[f"layers.{index}.bias"] for index in (0, 2, 4)]
    fresh = torch.randn(last.shape, generator=generator, dtype=last.dtype) * math.sqrt(2 / (2 * last.shape[1]))
    eye = 0.1 * torch.eye(len(second), dtype=second.dtype)
    return {
        "layers.0.weight": torch.cat((first, (0.8 + 0.2 / 2) * first)),
        "layers.0.bias": torch.cat((biases[0], (0.9 + 0.1 / 2) * biases[0])),
        "layers.2.weight": torch.cat((torch.cat((second, 0.3 * second), 1), torch.cat((0.3 * second, eye), 1))),
        "layers.2.bias": torch.cat((biases[1], torch.full_like(biases[1], 0.01))),
        "layers.4.weight": torch.cat((last, fresh), 1),
        "layers.4.bias": biases[2],
    }
