"""Integrators of autonomous fields, on states "4 batch": the four components first, so that each is contiguous."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

Field = Callable[[Tensor], Tensor]
"""The rate of change "4 batch" [1/s] of a state "4 batch"."""

ROUGH, LEAST, MOST = 4, 4, 50
"""Fixed-point iterations of an implicit step: first in single precision, which is cheaper and loses nothing, as the others
start from there. Five or six of these solve it at 0.02 s and |omega| <= 3 rad/s; faster motions take more."""

TRACED = 12
"""Iterations in a traced graph."""

SOLVED = 512
"""Units in the last place of 1 by which a solved stage value still moves, at most: 1e-13 in float64."""

_ROOT = math.sqrt(3.0)
STAGES = ((1 / 4, 1 / 4 - _ROOT / 6), (1 / 4 + _ROOT / 6, 1 / 4))
"""Coefficients of the Gauss method of two stages (Hairer, Lubich and Wanner, Geometric Numerical Integration, II.1.3)."""


def substeps(dt: float, step: float) -> int:
    """How many equal steps of at most `step` [s] make up `dt` [s]; a part in 10^9 more is rounding."""
    return max(1, math.ceil(dt / step * (1 - 1e-9)))


def rk4(field: Field, state: Tensor, dt: float, count: int = 1) -> Tensor:
    """The classical Runge-Kutta method of order 4, `count` equal steps: the state "4 batch" after `dt` [s]."""
    h = dt / count
    for _ in range(count):
        first = field(state)
        second = field(state + h / 2 * first)
        third = field(state + h / 2 * second)
        fourth = field(state + h * third)
        state = state + h / 6 * (first + 2 * (second + third) + fourth)
    return state


def gauss_legendre(field: Field, state: Tensor, dt: float, count: int = 1, most: int = MOST) -> Tensor:
    """The Gauss method of two stages, order 4, `count` equal steps: the state "4 batch" after `dt` [s].

    It is symplectic for every Hamiltonian field and every step, once its stages are solved.
    """
    h = dt / count
    for _ in range(count):
        first, second = stages(field, state, h, most)
        state = state.add(first, alpha=h / 2).add_(second, alpha=h / 2)
    return state


def stages(field: Field, state: Tensor, h: float, most: int = MOST) -> tuple[Tensor, Tensor]:
    """The two stage derivatives "4 batch" of a step of `h` [s], iterated from the field at the old state.

    The iteration ends when no stage value of any sample moves by 1e-13 (in float64), or after `most`.
    """
    first, second = _guessed(field, state, h)
    if torch.compiler.is_compiling():  # a graph has no number of iterations that depends on its input
        for _ in range(TRACED):
            first, second = iterated(field, state, h, first, second)
        return first, second
    enough = SOLVED * torch.finfo(state.dtype).eps
    for count in range(1, most + 1):
        before = second
        first, second = iterated(field, state, h, first, second)
        if count >= LEAST and h * float((second - before).detach().abs().max()) <= enough:
            break
    return first, second


def _guessed(field: Field, state: Tensor, h: float) -> tuple[Tensor, Tensor]:
    """The stage derivatives to single precision."""
    rough = state.float()
    first = second = field(rough)
    for _ in range(ROUGH):
        first, second = iterated(field, rough, h, first, second)
    return first.to(state.dtype), second.to(state.dtype)


def iterated(field: Field, state: Tensor, h: float, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Both stage derivatives after one more iteration, the second from the new first."""
    (own, other), (another, _) = ((h * a, h * b) for a, b in STAGES)
    first = field(state.add(first, alpha=own).add_(second, alpha=other))
    return first, field(state.add(first, alpha=another).add_(second, alpha=own))
