"""What can be proved of cyclotron networks: a relative error bound of the rotor for every speed, direction, omega and dt.

Let J be the quarter turn, B(u, v) = (u.v, u.Jv) for u = v_b and v = v_a (so that B(Qv, v) = |v|^2 (cos, sin) of the
turn Q), and R(c) = c_0 I + c_1 J. For any invertible A write, with g = tr(S'S)/2,
M1/g = A B + E1,  M2(A ., .) = R + E2,  M3(A ., .) = R + E3,  eta = |S'S/g - I| + 1e-30/(g |v_a|^2).
Then A^-1 c differs from (cos, sin) by at most kappa = (|A^-1| |E1| + eta)/(1 - eta), and
|v' - Q v_b| <= |v_b| (kappa + |E2|(1 + kappa)),  |x' - x| <= |x_b - x_a| (kappa + |E3|(1 + kappa)).
A is the best one for M1; everything is rational arithmetic, so the bound is proved for the weights as stored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import product
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from grokkit_core.certify.bounds import norm_above, root_above, round_up
from grokkit_core.certify.sampled import certify_sampled
from grokkit_core.manifest import Bound, Certificate, Level
from grokkit_core.task import Task
from grokkit_cyclotron.two_state import AT_REST

if TYPE_CHECKING:
    from grokkit_core.cassette import Cassette

SLOWEST = Fraction(1, 10**15)
"""Least |v_a|^2 for which the bound is claimed: below, the constant that guards division by zero takes part."""

USEFUL = 1e-6
"""A larger relative bound proves nothing worth the word: such a rotor fits its data and is not the law."""

FORMULA = (
    "q = v_b conj(v_a) / |v_a|^2",
    "v' = q v_b",
    "x' = x_b + q (x_b - x_a)",
)

_PAIRS = tuple(product(range(2), range(2)))
_FORMS: Sequence[tuple[tuple[int, int], ...]] = (((1, 0), (0, 1)), ((0, -1), (1, 0)))
"""I and J: the forms u.v and u.Jv of B, and what a turn by (cos, sin) is made of."""


@dataclass(frozen=True)
class RotorBound:
    """Relative error of the next velocity (of |v_b|) and of the next position (of |x_b - x_a|); infinite if unproved."""

    velocity: float
    position: float

    @property
    def worst(self) -> float:
        """The larger one."""
        return max(self.velocity, self.position)


def rotor_bound(weights: Mapping[str, Tensor]) -> RotorBound:
    """The proved relative bound of a rotor with these weights `m1 m2 m3` (2, 2, 2) and `s` (2, 2), rounded up.

    Exact arithmetic is assumed of the forward pass; both are infinite where the proof does not apply.
    """
    if not all(bool(torch.isfinite(tensor).all()) for tensor in weights.values()):
        return RotorBound(float("inf"), float("inf"))
    first, second, third = (_cube(weights[name]) for name in ("m1", "m2", "m3"))
    gram = _gram(weights["s"])
    size = (gram[0][0] + gram[1][1]) / 2
    if size <= 0:
        return RotorBound(float("inf"), float("inf"))
    eta = _eccentricity(gram) / size + Fraction(AT_REST) / (size * SLOWEST)
    mixing = _mixing([[[entry / size for entry in row] for row in form] for form in first])
    determinant = mixing[0][0] * mixing[1][1] - mixing[0][1] * mixing[1][0]
    if eta >= 1 or determinant == 0:
        return RotorBound(float("inf"), float("inf"))
    inverse = norm_above(entry for row in mixing for entry in row) / abs(determinant)
    misread = norm_above(
        first[k][i][j] / size - sum(mixing[k][m] * _FORMS[m][i][j] for m in range(2))
        for k, (i, j) in product(range(2), _PAIRS)
    )
    kappa = (inverse * misread + eta) / (1 - eta)
    velocity, position = (kappa + _misapplied(form, mixing) * (1 + kappa) for form in (second, third))
    return RotorBound(round_up(velocity), round_up(position))


def certify_rotor(task: Task, cassette: Cassette, *, level: Level, seed: int) -> Certificate:
    """`bounded` by the proved relative error where that is useful, else `estimated`; measured with both phase laws.

    The fixed-phase sampler alone cannot tell a rotor from a reader of the velocity's angle, so random phases and a
    frequency beyond the training range are among the rows.
    """
    fixed = list(task.evaluation)
    places = [*fixed, *({**place, "phase": "random"} for place in fixed), {"omega": 4.0}]
    sampled = certify_sampled(task, cassette, level=level, seed=seed, places=places)
    stored = rotor_bound(cassette.tensors)
    rounded = rotor_bound({name: tensor.float() for name, tensor in cassette.tensors.items()})
    used = rounded if sampled.dtype == "float32" else stored  # of the weights that were measured
    proved = f"relative error per step proved <= {used.worst:.1e} for every speed, direction, omega and dt"
    if sampled.verdict == "failed" or stored.worst > USEFUL:
        return replace(sampled, statement=f"{sampled.statement}; no useful bound ({stored.worst:.1e} relative)")
    return replace(
        sampled,
        verdict="bounded",
        statement=f"{proved}; {sampled.statement}",
        domain="every window whose last two states lie on one uniform circular motion with |v|^2 >= 1e-15, "
        "any omega and dt, in exact arithmetic",
        method="operator-norm",
        formula=FORMULA,
        bounds=tuple(_bounds(stored, rounded)),
    )


def _bounds(stored: RotorBound, rounded: RotorBound) -> Sequence[Bound]:
    return (
        Bound("relative_error_velocity", stored.velocity, "1"),
        Bound("relative_error_position", stored.position, "1"),
        Bound("relative_error_velocity_float32_weights", rounded.velocity, "1"),
        Bound("relative_error_position_float32_weights", rounded.position, "1"),
    )


def _cube(tensor: Tensor) -> list[list[list[Fraction]]]:
    return [[[Fraction(value) for value in row] for row in form] for form in tensor.double().tolist()]


def _gram(tensor: Tensor) -> list[list[Fraction]]:
    """S'S."""
    rows = [[Fraction(value) for value in row] for row in tensor.double().tolist()]
    return [[sum((row[i] * row[j] for row in rows), Fraction(0)) for j in range(2)] for i in range(2)]


def _eccentricity(gram: Sequence[Sequence[Fraction]]) -> Fraction:
    """The spectral norm of a symmetric 2x2 matrix without its trace part, from above."""
    half = (gram[0][0] - gram[1][1]) / 2
    return root_above(half * half + gram[0][1] * gram[0][1])


def _mixing(form: Sequence[Sequence[Sequence[Fraction]]]) -> list[list[Fraction]]:
    """The A for which A B is nearest to `form`; the two forms of B are orthogonal and of squared norm 2."""
    return [
        [sum((plane[i][j] * _FORMS[m][i][j] for i, j in _PAIRS), Fraction(0)) / 2 for m in range(2)] for plane in form
    ]


def _misapplied(form: Sequence[Sequence[Sequence[Fraction]]], mixing: Sequence[Sequence[Fraction]]) -> Fraction:
    """The norm of form(A ., .) - R from above."""
    return norm_above(
        sum((form[k][i][j] * mixing[i][m] for i in range(2)), Fraction(0)) - _FORMS[m][k][j]
        for k, m, j in product(range(2), repeat=3)
    )
