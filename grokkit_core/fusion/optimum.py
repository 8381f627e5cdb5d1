"""The algebra of weighted predictions under squared error: exact identities, and the weights that minimise them.

With errors e_i = f_i - y and C_ij = E[e_i . e_j] (mean over samples and outputs) the error of sum_i w_i f_i is w'Cw for
weights that sum to one. Everything is float64; errors are formed before they are multiplied.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from grokkit_core.dtypes import cast
from grokkit_core.errors import Incompatible, UsageError
from grokkit_core.task import Batch, Predictor

EQUAL = 1e-12
"""Members whose mean squared disagreement is below this share of their errors are one member: weights are shared."""

SMALLEST = 1e-60
"""Share of the trace that a member's error counts at least."""

ENUMERATED = 10
"""Up to this many members every support is tried; beyond, Wolfe's algorithm finds it."""

NEGLIGIBLE = 1e-6
"""Fitted weights below this are set to zero: a gate may not spoil an exact member with the rest of the others."""

Combine = Literal["members", "outputs"]


def error_covariance(predictions: Tensor, targets: Tensor, *, per_output: bool = False) -> Tensor:
    """C "member member" from predictions "member batch *out" and targets "batch *out", in float64.

    With `per_output` one matrix for each output: "*out member member". Complex errors count by Re(conj(e_i) e_j).
    """
    errors = cast(predictions, torch.float64) - cast(targets, torch.float64)
    if per_output:
        moved = errors.movedim((0, 1), (-2, -1))
        return _real(moved @ moved.mH) / moved.shape[-1]
    flat = errors.flatten(1)
    return _real(flat @ flat.mH) / flat.shape[1]


def _real(matrix: Tensor) -> Tensor:
    return matrix.real if matrix.is_complex() else matrix


def disagreement(covariance: Tensor) -> Tensor:
    """D_ij = E[|f_i - f_j|^2] = C_ii + C_jj - 2 C_ij, "member member". It needs no labels, though C does."""
    own = covariance.diagonal(dim1=-2, dim2=-1)
    return own.unsqueeze(-1) + own.unsqueeze(-2) - 2 * covariance


def correlation(covariance: Tensor) -> Tensor:
    """C_ij / sqrt(C_ii C_jj), "member member"; 0 where a member has no error."""
    own = covariance.diagonal(dim1=-2, dim2=-1).sqrt()
    size = own.unsqueeze(-1) * own.unsqueeze(-2)
    return torch.where(size > 0, covariance / size.clamp_min(torch.finfo(torch.float64).tiny), 0.0)


def fused_error(weight: float, first: Tensor, second: Tensor, interaction: Tensor) -> Tensor:
    """T_fuse(a) = a T1 + (1-a) T2 - a(1-a) I: the error of a f_1 + (1-a) f_2, exactly, for every real a.

    For scalars T_i = E[|e_i|^2] the interaction is I = E[|f_1 - f_2|^2]; for matrices T_i = E[e_i e_i'] it is
    I = E[(f_1 - f_2)(f_1 - f_2)']. Source: the fusion paper of grisuno/supertopo3, which calls I the cross-covariance of
    the errors; with that in its place the formula is wrong.
    """
    return weight * first + (1 - weight) * second - weight * (1 - weight) * interaction


def pair_optimum(covariance: Tensor) -> Tensor:
    """a* = (C_22 - C_12) / I, the weight of the first of two members that minimises T_fuse; 1/2 where they are equal.

    For C "... 2 2"; not clipped. It lies in (0, 1) exactly where C_12 < min(C_11, C_22).
    """
    interaction = disagreement(covariance)[..., 0, 1]
    size = covariance[..., 0, 0] + covariance[..., 1, 1]
    share = (covariance[..., 1, 1] - covariance[..., 0, 1]) / interaction
    return torch.where(interaction <= EQUAL * size, 0.5, share)


def frobenius_optimum(first: Tensor, second: Tensor, interaction: Tensor) -> float:
    """The weight that minimises |T_fuse|_F for 2nd-moment matrices "k k", as the fusion paper proposes.

    T_fuse(a) = T2 + a (T1 - T2 - I) + a^2 I, so this is the best real root of a cubic. It is not the weight that
    minimises the error, which is the trace: see `pair_optimum`.
    """
    linear = first - second - interaction
    quartic = [(interaction * interaction).sum(), 2 * (linear * interaction).sum()]
    quartic += [(linear * linear + 2 * second * interaction).sum(), 2 * (second * linear).sum()]
    slope = torch.stack([factor * value for factor, value in zip((4, 3, 2, 1), quartic, strict=True)])
    if slope[0] == 0:
        raise UsageError("matrices of equal members", expected="members that disagree")
    companion = torch.zeros(3, 3, dtype=torch.float64)
    companion[0] = -slope[1:].double() / slope[0].double()
    companion[1, 0] = companion[2, 1] = 1.0
    roots = torch.linalg.eigvals(companion)
    real = [float(root.real) for root in roots if float(root.imag.abs()) <= 1e-9 * max(1.0, float(root.abs()))]
    sizes = [float(fused_error(weight, first, second, interaction).norm()) for weight in real]
    return real[sizes.index(min(sizes))]


def affine_weights(covariance: Tensor) -> Tensor:
    """The weights "member" of either sign that minimise w'Cw under sum w = 1: C^-1 1 / (1' C^-1 1).

    They may extrapolate beyond all members; sum |w| is the factor by which they amplify noise.
    """
    if len(covariance) == 2:
        first = pair_optimum(covariance)
        return torch.stack((first, 1 - first))
    return _on_support(covariance, tuple(range(len(covariance))))


def simplex_weights(covariance: Tensor) -> Tensor:
    """The weights "member" that minimise w'Cw under w >= 0, sum w = 1; the smaller support where several are as good.

    A single member is optimal exactly where C_ii <= C_ij for all j, which is looked at first. Up to ten members every
    support is solved; beyond, Wolfe's algorithm for the nearest point of a polytope (Wolfe 1976) on the Gram matrix C.
    """
    covariance = covariance.double()
    count = len(covariance)
    own = covariance.diagonal()
    if count == 2 and disagreement(covariance)[0, 1] <= EQUAL * own.sum():
        return own.new_full((2,), 0.5)
    best = int(own.argmin())
    if bool((covariance[best] >= own[best]).all()):
        return _vertex(best, count)
    if count == 2:
        first = pair_optimum(covariance)
        return torch.stack((first, 1 - first))
    return _by_enumeration(covariance) if count <= ENUMERATED else _by_wolfe(covariance)


def without_negligible(weights: Tensor) -> Tensor:
    """Weights "member ..." with those of absolute value below 1e-6 at zero, renormalised to sum to one."""
    kept = torch.where(weights.abs() < NEGLIGIBLE, 0.0, weights)
    return kept / kept.sum(0)


def fit_weights(
    predictors: Sequence[Predictor], batch: Batch, *, free: bool = False, combine: Combine = "members"
) -> Tensor:
    """The best weights "member" (or "member *out" with `combine="outputs"`) of any prediction callables on a batch.

    A predictor maps inputs and context to "batch *out": a cassette's `predict`, a baseline such as persistence, or any
    function of that form. Within the simplex unless `free`; negligible weights are zero. Raises `UsageError` for shapes
    that differ and `Incompatible` for errors that are not finite.
    """
    if not predictors:
        raise UsageError("no predictors", expected="one or more")
    with torch.inference_mode():
        predictions = torch.stack(
            [cast(predict(batch.inputs, batch.context), torch.float64).cpu() for predict in predictors]
        )
    return best_weights(predictions, batch.targets.cpu(), free=free, combine=combine).clone()


def best_weights(predictions: Tensor, targets: Tensor, *, free: bool = False, combine: Combine = "members") -> Tensor:
    """As `fit_weights`, from predictions "member batch *out" and targets "batch *out"."""
    if predictions.shape[1:] != targets.shape or not targets.numel():
        found = f"predictions {list(predictions.shape[1:])} for targets {list(targets.shape)}"
        raise UsageError(found, expected="one prediction of the same shape for each target")
    solve = affine_weights if free else simplex_weights
    if combine == "members" or predictions.ndim == 2:
        return _kept(solve, error_covariance(predictions, targets))
    each = error_covariance(predictions, targets, per_output=True)
    shape = each.shape[:-2]
    weights = torch.stack([_kept(solve, matrix) for matrix in each.reshape(-1, *each.shape[-2:])])
    return weights.T.reshape(-1, *shape)


def _kept(solve: Callable[[Tensor], Tensor], covariance: Tensor) -> Tensor:
    """Solved weights without negligible ones: the others are solved again, since they may have relied on those."""
    if not bool(torch.isfinite(covariance).all()):
        raise Incompatible("squared errors that are not finite", hint="look at the members' predictions first")
    weights = solve(covariance)
    kept = weights.abs() >= NEGLIGIBLE
    if bool((weights[~kept] != 0).any()):
        weights = torch.zeros_like(weights)
        weights[kept] = _kept(solve, covariance[kept][:, kept])
    return weights


def _vertex(index: int, count: int) -> Tensor:
    weights = torch.zeros(count, dtype=torch.float64)
    weights[index] = 1.0
    return weights


def _on_support(covariance: Tensor, support: Sequence[int]) -> Tensor:
    """The affine weights that live on a support, zero elsewhere: C w = l 1 with 1'w = 1, scaled by each member's error.

    The bordered system has a solution also where C is singular: errors that cancel each other give l = 0, members that
    are equal share (least norm). C^-1 1 has neither.
    """
    rows = torch.tensor(support)
    if float(covariance.trace()) == 0:
        return torch.full((len(covariance),), 1 / len(covariance), dtype=torch.float64)
    part = covariance[rows][:, rows]
    scale = part.diagonal().clamp_min(SMALLEST * float(covariance.trace())).rsqrt()
    border = scale / scale.max()
    system = torch.zeros(len(rows) + 1, len(rows) + 1, dtype=torch.float64)
    system[:-1, :-1] = scale.unsqueeze(1) * part * scale
    system.diagonal()[:-1] = 1.0
    system[:-1, -1] = system[-1, :-1] = border
    wanted = torch.zeros(len(rows) + 1, 1, dtype=torch.float64)
    wanted[-1] = 1.0
    solved = border * torch.linalg.lstsq(system, wanted, rcond=EQUAL, driver="gelsd").solution[:-1, 0]
    weights = torch.zeros(len(covariance), dtype=torch.float64)
    weights[rows] = solved / solved.sum()
    return weights


def _rounding(covariance: Tensor, weights: Tensor) -> float:
    """How far w'Cw as computed may be from its value: errors that cancel leave nothing else."""
    size = float(weights.abs() @ covariance.abs() @ weights.abs())
    return len(covariance) * torch.finfo(torch.float64).eps * size


def _by_enumeration(covariance: Tensor) -> Tensor:
    count = len(covariance)
    best, least = _vertex(int(covariance.diagonal().argmin()), count), float(covariance.diagonal().min())
    for size in range(2, count + 1):
        for support in itertools.combinations(range(count), size):
            weights = _on_support(covariance, support)
            if bool((weights >= 0).all()):
                value = max(0.0, float(weights @ covariance @ weights))
                if value < least * (1 - EQUAL) - _rounding(covariance, weights):
                    best, least = weights, value
    return best


def _by_wolfe(covariance: Tensor) -> Tensor:
    """Major cycles add the member with the steepest descent, minor cycles drop those whose weight would be negative."""
    count = len(covariance)
    support = [int(covariance.diagonal().argmin())]
    weights = _vertex(support[0], count)
    for _ in range(20 * count):
        slope = covariance @ weights
        entering = int(slope.argmin())
        reached = float(weights @ slope) * (1 - EQUAL) - _rounding(covariance, weights)
        if entering in support or float(slope[entering]) >= reached:
            return weights
        support.append(entering)
        while True:
            wanted = _on_support(covariance, support)
            if bool((wanted[support] > 0).all()):
                weights = wanted
                break
            falling = [i for i in support if wanted[i] <= 0]
            step = min(float(weights[i] / (weights[i] - wanted[i])) if weights[i] > 0 else 0.0 for i in falling)
            weights = weights + step * (wanted - weights)
            leaving = min(falling, key=lambda i: float(weights[i]))
            weights[leaving] = 0.0
            support.remove(leaving)
    return weights
