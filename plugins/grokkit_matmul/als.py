"""Alternating least squares on the tensor of the product: each factor in turn is the solution of a linear problem.

The step is proximal: it is held to where it was with weight lam, min |T_X - X K^T|^2 + lam |X - X_old|^2 with K the
Khatri-Rao product of the two other factors, so that lam decides how fast it goes and not where it ends. (ALS for
this tensor: Smirnov 2013, The bilinear complexity and practical algorithms for matrix multiplication.)
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from grokkit_core.errors import UsageError
from grokkit_core.training.recipe import State
from grokkit_matmul.factors import Factors, drawn, restored
from grokkit_matmul.scheme import Format

INITIAL_SCALE = 0.3
FIRST_WEIGHT, LAST_WEIGHT = 0.3, 3e-6
POLISH_WEIGHT, POLISH_DECAY = 1e-4, 0.8


def geometric(first: float, last: float, at: int, count: int) -> float:
    """The value number `at` of `count` that go from `first` to `last` by one ratio."""
    return float(first * (last / first) ** (at / max(count - 1, 1)))


def unmoved(factor: Tensor) -> Tensor:
    """The centre of a proximal step."""
    return factor


def sweep(factors: Factors, weight: float, centre: Callable[[Tensor], Tensor] = unmoved) -> Factors:
    """U, V and W updated in turn, each held to `centre` of its old value with `weight`.

    The tensor of the product contracted with two factors is a product of matrices: T(., V_r, W_r) = W_r V_r^T,
    T(U_r, ., W_r) = U_r^T W_r, T(U_r, V_r, .) = U_r V_r. A problem that has no finite solution gives no exception but
    values that are not finite.
    """
    u, v, w = factors.u, factors.v, factors.w
    u = _solved(w @ v.mT, v, w, weight, centre(u))
    v = _solved(u.mT @ w, u, w, weight, centre(v))
    w = _solved(u @ v, u, v, weight, centre(w))
    return Factors(u, v, w)


def _solved(moment: Tensor, first: Tensor, second: Tensor, weight: float, centre: Tensor) -> Tensor:
    """The factor X of (K^T K + lam) X^T = (T_X K + lam X_0)^T, where K^T K is the product of the two Gram matrices."""
    first, second = first.flatten(-2), second.flatten(-2)
    gram = (first @ first.mT) * (second @ second.mT)
    gram.diagonal(dim1=-2, dim2=-1).add_(weight)
    right = torch.add(moment, centre, alpha=weight)
    solution: Tensor = torch.linalg.solve_ex(gram, right.flatten(-2)).result
    return solution.contiguous().view_as(
        right
    )  # as a checkpoint keeps it: sums in another layout differ in the last bit


def polish(factors: Factors, sweeps: int = 60) -> Factors:
    """The solution next to trained factors of any number of leading axes, with lam = 1e-4 * 0.8^t."""
    for at in range(sweeps):
        factors = sweep(factors, POLISH_WEIGHT * POLISH_DECAY**at)
    return factors


class Als:
    """A batch of restarts in progress; `sweep_count` and `factors` are all that a bit-equal resume needs."""

    def __init__(self, shape: Format, rank: int, *, restarts: int, sweeps: int, generator: torch.Generator) -> None:
        if min(rank, restarts, sweeps) < 1:
            raise UsageError(f"rank {rank}, {restarts} restarts, {sweeps} sweeps", expected="at least one of each")
        self.sweeps, self.sweep_count = sweeps, 0
        self.factors = drawn(shape, rank, restarts, INITIAL_SCALE, generator)

    @property
    def done(self) -> bool:
        """Whether all sweeps are made."""
        return self.sweep_count >= self.sweeps

    def sweep(self) -> None:
        """Update U, V and W of every restart once."""
        weight = geometric(FIRST_WEIGHT, LAST_WEIGHT, self.sweep_count, self.sweeps)
        self.factors = sweep(self.factors, weight)
        self.sweep_count += 1

    def run(self) -> Factors:
        """Make the sweeps that are left; the factors "restart rank ...", exact or not."""
        while not self.done:
            self.sweep()
        return self.factors

    def residuals(self) -> Tensor:
        """Frobenius distances "restart" from the tensor of the product."""
        return self.factors.residual()

    def state(self) -> State:
        """What `restore` goes on from."""
        return State(self.factors.named(), {"sweep_count": self.sweep_count})

    def restore(self, state: State) -> None:
        """Go on from a saved state."""
        self.factors = restored(state.tensors, self.factors)
        self.sweep_count = int(state.values["sweep_count"])
