"""The algebra of a bound planar orbit, r'' = -mu r / |r|^3, in float64.

With semi-major axis a, mean motion n = sqrt(mu / a^3), r0 = |r|, ec = e cos E0 = 1 - r0/a, es = e sin E0 = r.v / (n a^2)
and a step d in eccentric anomaly, the time that passes is t with

    n t = d - ec sin d + es (1 - cos d)                                                                     (*)

and the new state is r' = f r + g v, v' = f_t r + g_t v. Here g takes its form without t: then f g_t - g f_t = 1 for any d,
and the new state lies on the same orbit even where d is only nearly the solution of (*). Source: Battin, An Introduction
to the Mathematics and Methods of Astrodynamics, 1999, 4.3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

TURN = 2 * math.pi
ITERATIONS = 60
"""Of the safeguarded Newton method; bisection alone would need as many."""

SETTLED = 4 * torch.finfo(torch.float64).eps
"""A last step [rad] below which the solution does not get better."""


@dataclass(frozen=True)
class Orbit:
    """Semi-major axis, mean motion, e cos E and e sin E of states; each "batch", float64. Unbound orbits have axis <= 0."""

    axis: Tensor
    motion: Tensor
    ec: Tensor
    es: Tensor

    @property
    def eccentricity(self) -> Tensor:
        """e "batch"."""
        return torch.hypot(self.ec, self.es)


def orbit_of(state: Tensor, mu: float) -> Orbit:
    """The orbit of each state (x, y, vx, vy) "batch 4", in float64: in float32, 1 - r/a cancels for nearly circular ones."""
    x, y, vx, vy = state.double().unbind(1)
    radius = torch.sqrt(x * x + y * y)
    axis = 1 / (2 / radius - (vx * vx + vy * vy) / mu)
    motion = torch.sqrt(mu / axis) / axis
    return Orbit(axis, motion, 1 - radius / axis, (x * vx + y * vy) / (motion * axis * axis))


def residual(step: Tensor, ec: Tensor, es: Tensor, turn: Tensor) -> Tensor:
    """The right side of (*) less n t = `turn` [rad]: zero for the exact step. With es = 0 it is Kepler's equation."""
    return step - ec * torch.sin(step) + 2 * es * torch.sin(step / 2).square() - turn


def newton(step: Tensor, ec: Tensor, es: Tensor, turn: Tensor) -> Tensor:
    """One Newton step on (*) [rad]. An error of x becomes one of at most e/(2(1 - e)) x^2."""
    sine, cosine = torch.sin(step), torch.cos(step)
    return step - (step - ec * sine + es * (1 - cosine) - turn) / (1 - ec * cosine + es * sine)


def in_words(steps: int) -> str:
    """`1 Newton step`, `2 Newton steps`."""
    return f"{steps} Newton step{'' if steps == 1 else 's'}"


def solved(ec: Tensor, es: Tensor, turn: Tensor) -> Tensor:
    """The solution of (*) to rounding [rad], for any turn and e < 1: Newton's method, kept inside a shrinking bracket.

    Whole turns are taken off first and added again, so that many of them cost no accuracy of the angle.
    """
    whole = TURN * torch.round(turn / TURN)
    rest = turn - whole
    spread = 2 * torch.hypot(ec, es)
    low, high, step = rest - spread, rest + spread, rest
    for _ in range(ITERATIONS):
        value = residual(step, ec, es, rest)
        low, high = torch.where(value < 0, step, low), torch.where(value > 0, step, high)
        better = step - value / (1 - ec * torch.cos(step) + es * torch.sin(step))
        better = torch.where((better >= low) & (better <= high), better, (low + high) / 2)
        last, step = (better - step).abs().max().item() if len(step) else 0.0, better
        if last <= SETTLED:
            break
    return step + whole


def error_bound(step: Tensor, ec: Tensor, es: Tensor, turn: Tensor) -> Tensor:
    """A bound [rad] of the distance from `step` to the solution of (*): |residual| / (1 - e), as its slope is at least 1 - e.

    The residual's own rounding, a few units in the last place of its terms, is counted.
    """
    size = step.abs() + turn.abs() + ec.abs() + 2 * es.abs()
    rounding = 4 * torch.finfo(torch.float64).eps * size
    return (residual(step, ec, es, turn).abs() + rounding) / (1 - torch.hypot(ec, es))


def moved(state: Tensor, orbit: Orbit, step: Tensor) -> Tensor:
    """The states "batch 4" (float64) further along their own orbits by `step` [rad] in eccentric anomaly.

    Energy and angular momentum are those of `state` for every `step`.
    """
    half = step / 2
    low, sine, cosine = torch.sin(half), torch.sin(step), torch.cos(step)
    versine = 2 * low * low
    before = 1 - orbit.ec
    after = 1 - orbit.ec * cosine + orbit.es * sine
    f = 1 - versine / before
    g = (before * sine + orbit.es * versine) / orbit.motion
    f_t = -orbit.motion * sine / (before * after)
    g_t = 1 - versine / after
    position, velocity = state[:, :2], state[:, 2:]
    return torch.cat(
        (
            f.unsqueeze(1) * position + g.unsqueeze(1) * velocity,
            f_t.unsqueeze(1) * position + g_t.unsqueeze(1) * velocity,
        ),
        1,
    )


def energy(state: Tensor, mu: float) -> Tensor:
    """|v|^2/2 - mu/|r| "batch"."""
    return state[:, 2:].square().sum(1) / 2 - mu / torch.hypot(state[:, 0], state[:, 1])


def angular_momentum(state: Tensor) -> Tensor:
    """x vy - y vx "batch"; negative for clockwise orbits."""
    return state[:, 0] * state[:, 3] - state[:, 1] * state[:, 2]
