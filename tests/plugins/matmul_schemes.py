"""Schemes in several forms and formats, the recursion on them written plainly, and the errors of a runtime."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from grokkit_matmul.flip_graph import FlipGraph
from grokkit_matmul.scheme import Format, Scheme
from grokkit_matmul.transfer import kronecker
from torch import Tensor

from grokkit_core.streams import stream

FACTORS = {"normal": {1: 4.0, 2: 10.0}, "uniform": {1: 1.5, 2: 1.5, 3: 1.5}}
LARGEST = {"normal": {0: 0.5, 1: 1.0, 2: 2.0}, "uniform": {0: 6.0, 1: 6.0, 2: 6.0, 3: 6.0}}
"""By levels, what the facts allow: the Frobenius error over that of `torch.mm`, and max |E| / (u N max|A| max|B|)."""

CAREFUL = 3.1
"""The largest error of `torch.mm` itself for uniform entries where those bounds were set.

Float64 on one AMD host (MKL of torch 2.13) has 7.9 at 1024 and 10.3 at 2048, numpy's BLAS there 2.2. Beside such a
baseline only what is relative to it can be asked for: `BESIDE`.
"""

BESIDE = (2.0, 3.0)
"""The Frobenius error, and the largest one, over those of such a `torch.mm`."""

GAUGE = (np.array([[1, 1], [0, 1]]), np.array([[1, 0], [1, 1]]), np.array([[2, 1], [1, 1]]))
"""X, Y, Z of determinant 1: another integer form, with coefficients beyond 1."""


def inverse(matrix: np.ndarray) -> np.ndarray:
    """Of an integer 2 x 2 matrix of determinant 1."""
    (a, b), (c, d) = matrix
    assert a * d - b * c == 1
    return np.array([[d, -b], [-c, a]])


def moved(scheme: Scheme) -> Scheme:
    """The same algorithm in other coordinates."""
    x, y, z = GAUGE
    return Scheme(
        inverse(x).T @ scheme.u @ y.T,
        inverse(y).T @ scheme.v @ z.T,
        x @ scheme.w @ inverse(z),
    )


def eleven() -> Scheme:
    """<2,2,3:11>, found by a walk."""
    search = FlipGraph(Format(2, 2, 3), 11, 0)
    assert search.step(400_000)
    return search.scheme()


def others(scheme: Scheme) -> dict[str, Scheme]:
    """Exact schemes that no schedule was written for."""
    return {"2x2x3": eleven(), "4x4x4": kronecker(scheme, scheme), "other gauge": moved(scheme)}


def mutations(scheme: Scheme) -> Iterator[Scheme]:
    """Every scheme with one entry raised or lowered by one."""
    for which, factor in enumerate((scheme.u, scheme.v, scheme.w)):
        for place in np.ndindex(factor.shape):
            for change in (-1, 1):
                factors = [scheme.u, scheme.v, scheme.w]
                factors[which] = factor.copy()
                factors[which][place] += change
                yield Scheme(*factors)


def by_recursion(scheme: Scheme, a: Tensor, b: Tensor) -> Tensor:
    """The product of square float64 matrices whose size is a power of the format's, by einsum alone."""
    step = scheme.format.m
    assert scheme.format == Format(step, step, step)
    u, v, w = (torch.from_numpy(factor).double() for factor in (scheme.u, scheme.v, scheme.w))

    def product(left: Tensor, right: Tensor) -> Tensor:
        """Of batches "batch n n"."""
        n = left.shape[-1]
        if n == 1:
            return left * right
        h = n // step
        lefts, rights = (x.reshape(-1, step, h, step, h) for x in (left, right))
        sums = torch.einsum("rij,bihjw->brhw", u, lefts), torch.einsum("rij,bihjw->brhw", v, rights)
        parts = product(*(x.reshape(-1, h, h) for x in sums)).reshape(-1, scheme.rank, h, h)
        return torch.einsum("rpq,brhw->bphqw", w, parts).reshape(-1, n, n)

    return product(a[None], b[None])[0]


@dataclass(frozen=True)
class Error:
    """Of a product by some levels: the Frobenius error over that of `torch.mm`, and max |E| / (u N max|A| max|B|)."""

    levels: int
    factor: float
    largest: float
    most_factor: float
    most_largest: float
    beside: bool

    @property
    def within(self) -> bool:
        """Whether both keep to their bounds."""
        return self.factor <= self.most_factor and self.largest <= self.most_largest


def errors(multiply: Callable[..., Tensor], n: int, entries: str, dtype: torch.dtype) -> list[Error]:
    """Errors with 0 to 3 levels on 16 rows of a product, against numpy's longdouble."""
    draw = torch.randn if entries == "normal" else torch.rand
    a, b = (draw(n, n, generator=stream(seed, "error"), dtype=dtype) for seed in (0, 1))
    rows = slice(0, n, n // 16)
    precise = a[rows].numpy().astype(np.longdouble) @ b.numpy().astype(np.longdouble)
    unit = torch.finfo(dtype).eps / 2 * n * float(a.abs().max()) * float(b.abs().max())

    def measured(product: Tensor) -> tuple[float, float]:
        apart = np.abs(product[rows].numpy().astype(np.longdouble) - precise)
        return float(np.sqrt((apart**2).sum())), float(apart.max()) / unit

    plain, largest = measured(torch.mm(a, b))
    careless = bool(entries == "uniform" and largest > CAREFUL)
    found = []
    for levels in range(4):
        frobenius, most = measured(multiply(a, b, levels=levels))
        bounds = FACTORS[entries].get(levels, np.inf), LARGEST[entries].get(levels, np.inf)
        if careless:
            bounds = BESIDE[0], BESIDE[1] * largest
        found.append(Error(levels, frobenius / plain, most, *bounds, careless))
    return found
