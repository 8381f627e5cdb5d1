"""From a float solution of <2,2,2:7> to integers: find the point of its orbit where the coefficients are whole.

All bilinear algorithms with 7 products are one orbit of the sandwich action, up to the order and the scales of the slots
(de Groote 1978, On varieties of optimal algorithms for the computation of bilinear mappings II). A trained solution sits
anywhere on it. One slot has three invertible factors: bringing two of them to the identity leaves one conjugation free,
and that is settled by three directions in the plane that the other slots share. The result is always the same set of
slots; that is the theorem, not luck, and what is learned is only that the orbit was reached.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from grokkit_matmul.factors import Factors
from grokkit_matmul.scheme import Format, Scheme

SQUARE, RANK = Format(2, 2, 2), 7
DIRECTIONS = 3
SINGULAR = 1e-9
"""A matrix whose |det| is less than this share of its squared norm counts as singular; directions this close are one."""

LEAD = 0.5
"""A slot is scaled by the first entry of at least this share of its largest, so that noise on a tie decides no sign."""

LARGEST = float(2**20)
"""Rounded values end here, so that what has diverged becomes a wrong integer instead of an overflow."""


@dataclass(frozen=True, eq=False)
class Gauged:
    """Where a solution was moved to, and how: `factors` is `replay(raw, x, y, z, scales)`.

    `x`, `y`, `z` "2 2" are the sandwich, `scales` "rank 2" the numbers (a, b) of each slot, `scheme` the rounded factors
    and `delta` the largest distance of an entry from its integer. Nothing here says that `scheme` is right.
    """

    x: Tensor
    y: Tensor
    z: Tensor
    scales: Tensor
    factors: Factors
    scheme: Scheme
    delta: float


def sandwich(factors: Factors, x: Tensor, y: Tensor, z: Tensor) -> Factors:
    """X^-T U Y^T, Y^-T V Z^T and X W Z^-1 for invertible X "m m", Y "k k", Z "n n": another algorithm for the product.

    It computes X [(X^-1 A Y)(Y^-1 B Z)] Z^-1. A singular matrix gives values that are not finite.
    """
    return Factors(_inverse(x).mT @ factors.u @ y.mT, _inverse(y).mT @ factors.v @ z.mT, x @ factors.w @ _inverse(z))


def replay(raw: Factors, x: Tensor, y: Tensor, z: Tensor, scales: Tensor) -> Factors:
    """A recorded sandwich and the recorded scales "rank 2", applied to raw factors."""
    return sandwich(raw, x, y, z).scaled(scales)


def rounded(factors: Factors) -> tuple[Scheme, float]:
    """The nearest integers of factors "rank m k", etc., and the largest distance from them (infinity beyond 2^20)."""
    entries = [np.asarray(factor.detach().double().numpy()) for factor in (factors.u, factors.v, factors.w)]
    whole = [np.rint(np.nan_to_num(entry).clip(-LARGEST, LARGEST)) for entry in entries]
    distance = max(float(np.abs(entry - near).max()) for entry, near in zip(entries, whole, strict=True))
    scheme = Scheme(*(near.astype(np.int64) for near in whole))
    return scheme, distance if distance <= 0.5 else float("inf")


def leading_scales(factors: Factors) -> Tensor:
    """The numbers (a, b) "... rank 2" that make the leading entry of each U_r and each V_r one."""
    return torch.stack([_leading(factors.u.flatten(-2)), _leading(factors.v.flatten(-2))], -1)


def _leading(rows: Tensor) -> Tensor:
    large = rows.abs() >= LEAD * rows.abs().amax(-1, keepdim=True)
    return rows.gather(-1, large.to(torch.uint8).argmax(-1, keepdim=True)).squeeze(-1)


def fix(factors: Factors) -> Gauged | None:
    """The gauge of float64 factors "7 2 2" near a solution; None where they show no slot or directions to fix it by."""
    if factors.format != SQUARE or factors.u.shape[:-2] != (RANK,) or not factors.is_finite:
        return None
    anchor = _anchor(factors)
    if anchor is None:
        return None
    y = _inverse(factors.u[anchor]).mT
    z = _inverse(_inverse(y).mT @ factors.v[anchor]).mT
    anchored = sandwich(factors, torch.eye(2).to(factors.u), y, z)
    directions = _directions(anchored, anchor)
    if directions is None:
        return None
    # G sends the directions to e1, e2, e1 - e2; conjugating by G is the sandwich of three times G^-T.
    spread = torch.linalg.solve_ex(directions[:, :2], directions[:, 2]).result
    x = (directions[:, :2] * spread * spread.new_tensor([1.0, -1.0])).mT
    return _gauged(factors, x, x @ y, x @ z)


def _gauged(raw: Factors, x: Tensor, y: Tensor, z: Tensor) -> Gauged | None:
    scales = leading_scales(sandwich(raw, x, y, z))
    factors = replay(raw, x, y, z, scales)
    if not factors.is_finite:
        return None
    scheme, delta = rounded(factors)
    return Gauged(x, y, z, scales, factors, scheme, delta)


def _inverse(matrix: Tensor) -> Tensor:
    inverse: Tensor = torch.linalg.inv_ex(matrix).inverse
    return inverse


def _anchor(factors: Factors) -> int | None:
    """The slot whose three factors are the farthest from rank one; None where every slot has one that is of rank one."""
    each = torch.stack((factors.u, factors.v, factors.w))
    shares = torch.nan_to_num(torch.linalg.det(each).abs() / each.square().sum((-2, -1)))
    best = int(shares.prod(0).argmax())
    return best if float(shares[:, best].min()) > SINGULAR else None


def _directions(anchored: Factors, anchor: int) -> Tensor | None:
    """Three unit vectors, the columns of a "2 3" matrix, that the rank-one slots share; None where two of them coincide.

    A factor p q^T (for W the transpose) goes to G p q^T G^-1 under the conjugation that is left, so p and the normal of
    q are both directions that turn together. A line at angle t stands as the point at angle 2t here: a factor M has its
    p at the double angle of M M^T and the normal of q opposite to that of M^T M, and a bundle has a mean on the circle.
    Of the ways to cut the circle into three bundles of one size the tightest is taken, however loose it is: bundles
    that mean nothing lead to integers that are wrong, and the exact check is the one that decides.
    """
    rest = torch.tensor([slot for slot in range(RANK) if slot != anchor])
    matrices = torch.cat((anchored.u[rest], anchored.v[rest], anchored.w[rest].mT))
    angles = torch.cat((_double_angle(matrices @ matrices.mT), _double_angle(-matrices.mT @ matrices))).sort().values
    size = len(angles) // DIRECTIONS
    bundles = torch.stack([angles.roll(-start).view(DIRECTIONS, size) for start in range(size)])
    means = torch.stack((bundles.cos().mean(-1), bundles.sin().mean(-1)), -1)
    tightest = means[int(torch.linalg.vector_norm(means, dim=-1).sum(-1).argmax())]
    apart = torch.linalg.vector_norm(tightest - tightest.roll(1, 0), dim=-1)
    if not bool((apart > SINGULAR).all()):
        return None
    halves = torch.atan2(tightest[:, 1], tightest[:, 0]) / 2
    return torch.stack((halves.cos(), halves.sin()))


def _double_angle(symmetric: Tensor) -> Tensor:
    """Twice the angle of the leading eigenvector of symmetric matrices "... 2 2"."""
    return torch.atan2(2 * symmetric[..., 0, 1], symmetric[..., 0, 0] - symmetric[..., 1, 1])
