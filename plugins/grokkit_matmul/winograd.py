"""Winograd's schedule of Strassen's algorithm as a program, and the proof that it runs what a cassette has learned.

A program is a list of steps on quadrants and buffers. Torch carries it out; run on symbols instead it gives its own
coefficients, which are compared with learned ones. Nothing that trains or certifies imports this module.
Schedule: Winograd 1971 (seven products, 15 additions), in place, with two orders.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from grokkit_core.certify.algebraic import Integers
from grokkit_matmul.scheme import Scheme, slot_set

QUADRANTS = ("11", "12", "21", "22")


@dataclass(frozen=True)
class Step:
    """`out` becomes `left` (copy), `left` + `sign` `right` (sum) or their product, or gains `sign` times their product.

    At `watch` nothing is computed: it is the moment to ask whether all is finite so far.
    """

    op: Literal["copy", "sum", "product", "accumulate", "watch"]
    out: str = ""
    left: str = ""
    right: str = ""
    sign: int = 1


def _program(text: str) -> tuple[Step, ...]:
    """Steps from lines such as `S = A21 + A22`, `C12 = S * T` and `C21 -= A22 * T`."""
    steps = []
    for line in text.split(";"):
        if line.strip() == "watch":
            steps.append(Step("watch"))
            continue
        out, assign, left, *rest = line.split()
        operator, right = rest or ("", "")
        if not rest:
            steps.append(Step("copy", out, left))
        elif operator == "*":
            sign = -1 if assign == "-=" else 1
            steps.append(Step("product" if assign == "=" else "accumulate", out, left, right, sign))
        else:
            steps.append(Step("sum", out, left, right, 1 if operator == "+" else -1))
    return tuple(steps)


FUSED = _program("""
    C11 = A11 * B11; C12 = C11;
    S = A21 + A22; T = B12 - B11; C22 = S * T;
    S = S - A11;   T = B22 - T;   C12 += S * T;
    C11 += A12 * B21;
    S = A12 - S;   V = T - B21;   C21 = C12; C12 = C12 + C22; C12 += S * B22;
    S = A11 - A21; T = B22 - B12; C21 += S * T;
    C22 = C22 + C21; watch; C21 -= A22 * V
""")
"""The last level: two products, five that accumulate, ten sums, two copies; buffers S (like A11), T and V (like B11).

It begins with a product that needs no sum, so that a GPU is at work while the rest is queued.
"""

UNFUSED = _program("""
    C11 = A11 * B11;
    S = A11 - A21; T = B22 - B12; C21 = S * T;
    S = A21 + A22; T = B12 - B11; C22 = S * T;
    S = S - A11;   T = B22 - T;   C12 = S * T;
    C12 = C12 + C11; C21 = C21 + C12; C12 = C12 + C22; C22 = C22 + C21;
    S = A12 - S;   T = T - B21;
    P = A12 * B21; C11 = C11 + P; P = S * B22; C12 = C12 + P;
    watch; P = A22 * T; C21 = C21 - P
""")
"""Upper levels, where a product is a recursion that cannot accumulate: 15 sums; buffers S, T and P (like C11)."""

WITNESSES = ("C12", "C21")
"""Quadrants to which every quadrant of A and of B contributes: what is not finite anywhere shows up in one of them."""

WATCHED = ("C11", "C12", "C21")
"""Those that tell as much before the last product, but for an overflow in that one."""

TO_WINOGRAD = (np.array([[1, -1], [0, -1]]), np.eye(2, dtype=np.int64), np.array([[1, 0], [-1, 1]]))
"""X, Y, Z of the sandwich that takes Strassen's form to this schedule; all of determinant +-1, so integers stay so."""


def coefficients(program: Sequence[Step]) -> Scheme:
    """The factors that a program really uses, read off by running it on symbols; slots in order of its products."""
    entries: dict[str, Integers] = {}
    for operand in "AB":
        entries |= {operand + q: np.eye(4, dtype=np.int64)[i] for i, q in enumerate(QUADRANTS)}
    left: list[Integers] = []
    right: list[Integers] = []
    for step in program:
        if step.op == "watch":
            continue
        if step.op in ("copy", "sum"):
            added = step.sign * entries[step.right] if step.op == "sum" else 0
            entries[step.out] = entries[step.left] + added
            continue
        product = np.zeros(sum(s.op in ("product", "accumulate") for s in program), dtype=np.int64)
        product[len(left)] = step.sign
        left.append(entries[step.left])
        right.append(entries[step.right])
        entries[step.out] = product if step.op == "product" else entries[step.out] + product
    outputs = np.stack([entries["C" + q] for q in QUADRANTS], 1)
    return Scheme(*(np.asarray(f, dtype=np.int64).reshape(-1, 2, 2) for f in (left, right, outputs)))


def runs(scheme: Scheme) -> bool:
    """Whether both programs compute exactly what this scheme says, up to one fixed sandwich, slot order and signs."""
    if scheme.u.shape != (7, 2, 2) or scheme.v.shape != (7, 2, 2):
        return False
    forms = slot_set(scheme), slot_set(_sandwiched(scheme))
    return all(slot_set(coefficients(program)) in forms for program in (FUSED, UNFUSED))


def _sandwiched(scheme: Scheme) -> Scheme:
    """U' = X^-T U Y^T, V' = Y^-T V Z^T, W' = X W Z^-1."""
    x, y, z = TO_WINOGRAD
    return Scheme(
        _inverse(x).T @ scheme.u @ y.T,
        _inverse(y).T @ scheme.v @ z.T,
        x @ scheme.w @ _inverse(z),
    )


def _inverse(matrix: Integers) -> Integers:
    """The inverse of an integer 2 x 2 matrix of determinant 1 or -1."""
    (a, b), (c, d) = matrix
    inverse: Integers = (a * d - b * c) * np.array([[d, -b], [-c, a]])
    return inverse
