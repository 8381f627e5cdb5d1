"""Bilinear algorithms for the product of matrices, as integers: what a network learned once its factors are rounded.

A scheme of rank R for C = A B with A of shape m x k and B of shape k x n has factors U (R, m, k), V (R, k, n) and
W (R, m, n): C = sum_r <U_r, A> <V_r, B> W_r with <X, Y> the sum of entrywise products. It is right over every ring where
sum_r U_r (x) V_r (x) W_r is the tensor of the matrix product.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np

from grokkit_core.certify.algebraic import Integers, exact_einsum, integers
from grokkit_core.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

TENSOR_EQUATION = "rij,rkl,rpq->ijklpq"


@dataclass(frozen=True)
class Format:
    """The shape <m,k,n> of a product: (m x k) times (k x n)."""

    m: int
    k: int
    n: int

    def __str__(self) -> str:
        return f"<{self.m},{self.k},{self.n}>"

    @property
    def sizes(self) -> tuple[int, int, int]:
        """m, k and n."""
        return self.m, self.k, self.n


KNOWN_RANKS = {(2, 2, 2): 7, (2, 2, 3): 11, (2, 2, 4): 14, (2, 2, 5): 18, (2, 3, 3): 15, (2, 3, 4): 20, (3, 3, 3): 23}
"""Least numbers of multiplications known over the integers by sorted sizes (Fawzi et al. 2022, table 1)."""


def best_known_rank(shape: Format) -> int:
    """The least known rank of small formats; raises `UsageError` for others."""
    sizes = tuple(sorted(shape.sizes))
    if sizes[0] == 1:
        return sizes[1] * sizes[2]
    if sizes not in KNOWN_RANKS:
        raise UsageError(f"no rank for {shape}", expected="rank=R: no best one is known to be in reach here")
    return KNOWN_RANKS[sizes]


def product_tensor(shape: Format) -> Integers:
    """The tensor of the product, int64 "m k k n m n": 1 where entry (i, j) of A times (k, l) of B belongs to (p, q) of C."""
    rows, inner, columns = (np.eye(size, dtype=np.int64) for size in (shape.m, shape.k, shape.n))
    tensor: Integers = np.einsum("ip,jk,lq->ijklpq", rows, inner, columns)
    return tensor


@dataclass(frozen=True, eq=False)
class Scheme:
    """Integer factors `u` "rank m k", `v` "rank k n", `w` "rank m n"; nothing says yet that they are right."""

    u: Integers
    v: Integers
    w: Integers

    def __post_init__(self) -> None:
        (r, m, k), n = self.u.shape, self.v.shape[-1]
        if self.v.shape != (r, k, n) or self.w.shape != (r, m, n):
            shapes = ", ".join(str(list(factor.shape)) for factor in (self.u, self.v, self.w))
            raise UsageError(f"factors of shapes {shapes}", expected="[rank, m, k], [rank, k, n] and [rank, m, n]")

    @property
    def format(self) -> Format:
        """The sizes of the product."""
        return Format(int(self.u.shape[1]), int(self.u.shape[2]), int(self.v.shape[2]))

    @property
    def rank(self) -> int:
        """The number of multiplications."""
        return int(self.u.shape[0])

    @property
    def nonzeros(self) -> int:
        """Non-zero coefficients of all factors."""
        return sum(int(np.count_nonzero(factor)) for factor in (self.u, self.v, self.w))

    def tensor(self) -> Integers:
        """sum_r U_r (x) V_r (x) W_r, exactly: "m k k n m n"."""
        rows = [exact_einsum(TENSOR_EQUATION, self.u[:, i : i + 1], self.v, self.w) for i in range(self.format.m)]
        return cast(Integers, np.concatenate(rows))  # row by row: the products of U and V need more room than their sum

    @property
    def is_exact(self) -> bool:
        """Whether it multiplies matrices, over every ring."""
        return bool((self.tensor() == product_tensor(self.format)).all())


def positive(scheme: Scheme) -> Scheme:
    """The same scheme with the first non-zero entry of every U_r and V_r positive, the signs taken by W_r."""
    left, right = (_leading_signs(factor)[:, None, None] for factor in (scheme.u, scheme.v))
    return Scheme(left * scheme.u, right * scheme.v, left * right * scheme.w)


def slot_set(scheme: Scheme) -> frozenset[tuple[int, ...]]:
    """The slots as a set, signs as `positive` puts them: equal for equal algorithms."""
    signed = positive(scheme)
    found = zip(signed.u, signed.v, signed.w, strict=True)
    return frozenset(tuple(int(x) for factor in slot for x in factor.flat) for slot in found)


def _leading_signs(factors: Integers) -> Integers:
    """The sign of the first non-zero entry of each matrix "rank rows columns"; 1 for a matrix of zeros."""
    flat = factors.reshape(len(factors), -1)
    first = flat[np.arange(len(flat)), (flat != 0).argmax(1)]
    return np.where(first < 0, -1, 1)


def scheme_of(tensors: Mapping[str, Tensor]) -> Scheme:
    """The scheme in a network's integer tensors `U`, `V`, `W`; raises `UsageError` for others."""
    return Scheme(*(integers(tensors[name]) for name in "UVW"))
