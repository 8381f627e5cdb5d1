"""Random points of the orbit of a bilinear algorithm: the same product, written in any coordinates."""

from __future__ import annotations

import torch
from grokkit_matmul import gauge
from grokkit_matmul.factors import Factors
from grokkit_matmul.scheme import Scheme
from torch import Tensor

CONDITION = 10.0


def as_floats(scheme: Scheme) -> Factors:
    return Factors(*(torch.from_numpy(factor).double() for factor in (scheme.u, scheme.v, scheme.w)))


def invertible(size: int, generator: torch.Generator, condition: float = CONDITION) -> Tensor:
    """A matrix "size size" with entries N(0, 1), drawn again until its condition number is small enough."""
    while True:
        matrix = torch.randn(size, size, generator=generator, dtype=torch.float64)
        if float(torch.linalg.cond(matrix)) <= condition:
            return matrix


def random_scales(rank: int, generator: torch.Generator) -> Tensor:
    """Pairs "rank 2" of either sign, mostly between 1/4 and 4."""
    signs = 1 - 2 * torch.randint(0, 2, (rank, 2), generator=generator)
    return signs * torch.exp(0.7 * torch.randn(rank, 2, generator=generator, dtype=torch.float64))


def noisy(factors: Factors, noise: float, generator: torch.Generator) -> Factors:
    """The factors with independent errors N(0, noise^2)."""
    return Factors(
        *(
            factor + noise * torch.randn(factor.shape, generator=generator, dtype=torch.float64)
            for factor in (factors.u, factors.v, factors.w)
        )
    )


def elsewhere(factors: Factors, generator: torch.Generator, condition: float = CONDITION) -> Factors:
    """A random sandwich, random slot scales and a random order of slots."""
    shape = factors.format
    moved = gauge.sandwich(factors, *(invertible(size, generator, condition) for size in (shape.m, shape.k, shape.n)))
    order = torch.randperm(factors.rank, generator=generator)
    return moved.scaled(random_scales(factors.rank, generator)).slots(order)
