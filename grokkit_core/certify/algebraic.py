"""Integer identities: what a plugin proves by handing over two integer tensors that must be equal, entry by entry.

A rule whose weights are integers (or fractions of one denominator) holds on every input where a finite identity holds,
e.g. sum_r U[r,i] V[r,j] W[r,k] = T[i,j,k] for a way to multiply matrices. Nothing here is rounded: sums and products are
int64 where they provably fit and Python's own integers where they might not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from grokkit_core.errors import UsageError
from grokkit_core.manifest import Baseline, Certificate, Level, Metric

LIMIT = 2**63
FLOAT_LIMIT = 2**53
"""Whole numbers below this, and sums of them that stay below it in every order, are exact in float64."""

LARGE = 2**24
"""Products of so many terms are left to the BLAS where it is exact; numpy's own loops take a minute for 10^11."""

MOST_NUMBERS = 2**26
"""Of an intermediate array, there."""

Integers = NDArray[np.int64] | NDArray[np.object_]
"""An exact integer array: int64, or Python integers where those are too small."""


@dataclass(frozen=True, eq=False)
class Identity:
    """`left` = `right`, two integer arrays of one shape, and what follows for which inputs if they are equal."""

    left: Integers
    right: Integers
    statement: str
    domain: str
    formula: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.left.shape != self.right.shape:
            raise UsageError(f"sides of shape {self.left.shape} and {self.right.shape}", expected="one shape")
        for side in (self.left, self.right):
            if side.dtype != object and not np.issubdtype(side.dtype, np.signedinteger):
                raise UsageError(f"a side of dtype {side.dtype}", expected="integers")

    @property
    def difference(self) -> tuple[int, ...] | None:
        """The index of the first entry that differs; None where the identity holds."""
        unequal = np.argwhere(np.asarray(self.left != self.right, dtype=bool))
        return tuple(int(index) for index in unequal[0]) if len(unequal) else None

    @property
    def holds(self) -> bool:
        """Whether all entries are equal."""
        return self.difference is None


def certify_identity(
    identity: Identity,
    *,
    level: Level,
    seed: int,
    dtype: str = "float64",
    metrics: Sequence[Metric] = (),
    baselines: Sequence[Baseline] = (),
) -> Certificate:
    """`exact` by algebra where the identity holds, else `failed` with the first entry that differs."""
    at = identity.difference
    reason = "" if at is None else f"the identity fails at {list(at)}: {identity.left[at]} is not {identity.right[at]}"
    return Certificate(
        verdict="exact" if at is None else "failed",
        statement=identity.statement if at is None else reason,
        domain=identity.domain if at is None else "",
        method="algebraic",
        formula=identity.formula if at is None else (),
        bounds=(),
        metrics=tuple(metrics),
        baselines=tuple(baselines),
        seed=seed,
        dtype=dtype,
        level=level,
    )


def as_integers(tensor: Tensor, denominator: int = 1) -> Integers:
    """`denominator` times a tensor of any real dtype, exactly; raises `UsageError` where that is no integer.

    Every finite float is a fraction, so nothing is rounded: 0.5 with denominator 2 is 1, 0.1 is refused.
    """
    if denominator < 1:
        raise UsageError(f"denominator {denominator}", expected="a positive integer")
    plain = tensor.detach().cpu()
    if not plain.is_floating_point() and denominator == 1:
        return np.asarray(plain.numpy(), dtype=np.int64)
    values = [_scaled(value, denominator) for value in plain.double().flatten().tolist()]
    return _packed(values, tuple(plain.shape))


def exact_einsum(equation: str, *operands: Integers) -> Integers:
    """`numpy.einsum` over the integers: int64 where no sum can overflow, Python's integers otherwise."""
    contract: Any = np.einsum  # its stubs know neither integers nor objects here
    bound = _bound(equation, operands)
    if bound < FLOAT_LIMIT and _terms(equation, operands) >= LARGE:
        floats = [np.asarray(operand, dtype=np.float64) for operand in operands]
        return np.asarray(contract(equation, *floats, optimize=("greedy", MOST_NUMBERS)), dtype=np.int64)
    if bound < LIMIT and all(operand.dtype != object for operand in operands):
        return np.asarray(contract(equation, *operands, dtype=np.int64), dtype=np.int64)
    wide = [np.asarray(operand, dtype=object) for operand in operands]
    return np.asarray(contract(equation, *wide, optimize=False), dtype=object)


def _bound(equation: str, operands: Sequence[Integers]) -> int:
    """An upper limit of the absolute value of any entry, and of any partial sum."""
    inputs, arrow, output = equation.replace(" ", "").partition("->")
    terms = inputs.split(",")
    if not arrow or "." in equation or len(terms) != len(operands):
        raise UsageError(f"equation '{equation}' for {len(operands)} arrays", expected="e.g. ri,rj->ij, without '...'")
    sizes = _sizes(terms, operands)
    summed = math.prod(size for name, size in sizes.items() if name not in output)
    largest = [max(abs(int(operand.max())), abs(int(operand.min()))) if operand.size else 0 for operand in operands]
    return int(summed * math.prod(largest))


def _sizes(terms: Sequence[str], operands: Sequence[Integers]) -> dict[str, int]:
    return {
        name: size
        for term, operand in zip(terms, operands, strict=True)
        for name, size in zip(term, operand.shape, strict=True)
    }


def _terms(equation: str, operands: Sequence[Integers]) -> int:
    """The number of products that the sums are made of."""
    return math.prod(_sizes(equation.replace(" ", "").partition("->")[0].split(","), operands).values())


def _scaled(value: float, denominator: int) -> int:
    if not math.isfinite(value):
        raise UsageError(f"the weight {value}", expected="a finite number")
    scaled = Fraction(value) * denominator
    if scaled.denominator != 1:
        raise UsageError(f"the weight {value!r}", expected=f"a multiple of 1/{denominator}")
    return scaled.numerator


def _packed(values: Sequence[int], shape: tuple[int, ...]) -> Integers:
    if all(-LIMIT <= value < LIMIT for value in values):
        return np.array(values, dtype=np.int64).reshape(shape)
    wide = np.empty(len(values), dtype=object)
    wide[:] = values
    return wide.reshape(shape)


def integers(values: object) -> Integers:
    """Nested lists of integers, or an integer tensor, as an exact array; raises `UsageError` for anything else."""
    if isinstance(values, Tensor):
        if values.dtype.is_floating_point or values.dtype.is_complex or values.dtype == torch.bool:
            raise UsageError(f"a tensor of dtype {values.dtype}", expected="integers")
        return as_integers(values)
    array = np.array(values, dtype=object)
    if not all(type(value) is int for value in array.flat):
        raise UsageError("an array that holds more than integers", expected="integers")
    return _packed(list(array.flat), array.shape)
