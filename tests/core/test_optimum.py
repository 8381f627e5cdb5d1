"""The algebra of weighted predictions: identities, closed forms and solvers against slow references."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from grokkit_core.errors import Incompatible, UsageError
from grokkit_core.fusion.optimum import (
    ENUMERATED,
    affine_weights,
    best_weights,
    correlation,
    disagreement,
    error_covariance,
    fit_weights,
    frobenius_optimum,
    fused_error,
    pair_optimum,
    simplex_weights,
    without_negligible,
)
from grokkit_core.plugins import host
from grokkit_core.streams import stream
from grokkit_core.task import Batch, Inputs, Predictor

LAW = settings(max_examples=40, deadline=None, derandomize=True)
SEEDS = st.integers(0, 2**32)
SHARES = (-1.0, 0.0, 0.37, 1.0, 2.0)
IDENTITY = 1e-12
KKT = 1e-9
GRID = torch.linspace(-1, 2, 30_001, dtype=torch.float64)


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=stream(seed, "normal"), dtype=torch.float64)


def correlated(seed: int, members: int, n: int = 64, outputs: int = 4) -> Tensor:
    """Errors "member n outputs" with a common part, a common bias and sizes that differ."""
    own, common = normal(seed, members, n, outputs), normal(seed + 1, n, outputs)
    sizes = 0.3 + torch.rand(members, generator=stream(seed, "sizes"), dtype=torch.float64)
    return sizes.view(-1, 1, 1) * own + 0.4 * common + 0.1


def covariance_of(errors: Tensor) -> Tensor:
    return error_covariance(errors, torch.zeros_like(errors[0]))


def mse(weights: Tensor, errors: Tensor) -> float:
    """The error of the mixture from its definition."""
    return float(torch.einsum("m,m...->...", weights, errors).square().mean())


def size(errors: Tensor) -> Tensor:
    """E[|e|^2] over samples and outputs."""
    return errors.square().mean()


def second_moments(errors: Tensor) -> Tensor:
    """E[e e'] "outputs outputs" from errors "n outputs"."""
    return errors.T @ errors / len(errors)


def is_optimal(weights: Tensor, covariance: Tensor, tolerance: float = KKT) -> bool:
    """Non-negative, of sum one, and no member's direction falls: (C w)_j >= w'Cw, up to what rounding leaves."""
    slope, value = covariance @ weights, weights @ covariance @ weights
    rounding = 1e-15 * len(weights) * (weights @ covariance.abs() @ weights)
    on = weights > 0
    level = bool(((slope - value)[on].abs() <= tolerance * value + rounding).all())
    falls = bool((slope < value * (1 - tolerance) - rounding).any())
    return bool((weights >= 0).all()) and abs(float(weights.sum()) - 1) <= 1e-12 and level and not falls


def random_simplex(seed: int, members: int, count: int = 4_000) -> Tensor:
    """Points "count member" of the simplex, many of them on its faces."""
    draw = -torch.rand((count, members), generator=stream(seed, "search"), dtype=torch.float64).log()
    keep = torch.rand((count, members), generator=stream(seed, "faces"), dtype=torch.float64) < 0.6
    keep[:, 0] |= ~keep.any(1)
    draw = torch.where(keep, draw, 0.0)
    return draw / draw.sum(1, keepdim=True)


# -- covariance, disagreement, correlation -------------------------------------------------------------------------


def test_the_covariance_is_the_mean_product_of_errors() -> None:
    predictions, targets = normal(0, 3, 50, 4), normal(1, 50, 4)
    found = error_covariance(predictions, targets)
    for i, j in itertools.product(range(3), repeat=2):
        expected = ((predictions[i] - targets) * (predictions[j] - targets)).mean()
        assert found[i, j].item() == pytest.approx(expected.item(), rel=IDENTITY)
    assert not torch.allclose(found, error_covariance(predictions, targets + 1))


def test_the_diagonal_is_the_mean_squared_error_of_each_member() -> None:
    predictions, targets = normal(0, 3, 50, 4), normal(1, 50, 4)
    expected = (predictions - targets).square().mean((1, 2))
    torch.testing.assert_close(error_covariance(predictions, targets).diagonal(), expected, rtol=IDENTITY, atol=0)


def test_outputs_kept_apart_average_to_the_covariance_of_all() -> None:
    predictions, targets = normal(0, 3, 50, 2, 4), normal(1, 50, 2, 4)
    each = error_covariance(predictions, targets, per_output=True)
    assert each.shape == (2, 4, 3, 3)
    torch.testing.assert_close(each.mean((0, 1)), error_covariance(predictions, targets), rtol=IDENTITY, atol=1e-15)
    one = error_covariance(predictions[:, :, 1, 2], targets[:, 1, 2])
    torch.testing.assert_close(each[1, 2], one, rtol=IDENTITY, atol=0)


def test_errors_are_formed_in_float64_before_they_are_multiplied() -> None:
    targets = 1 + 1e-9 * normal(0, 100, 4)
    predictions = torch.ones(2, 100, 4)
    found = error_covariance(predictions, targets)[0, 0].item()
    assert found == pytest.approx((targets - 1).square().mean().item(), rel=1e-6, abs=0)
    assert error_covariance(predictions, targets.float())[0, 0].item() < 0.1 * found


@LAW
@given(SEEDS, st.integers(2, 6))
def test_the_disagreement_needs_no_labels(seed: int, members: int) -> None:
    predictions = normal(seed, members, 32, 4)
    direct = (predictions.unsqueeze(0) - predictions.unsqueeze(1)).square().mean((2, 3))
    for targets in (normal(seed + 1, 32, 4), torch.zeros(32, 4)):
        found = disagreement(error_covariance(predictions, targets))
        torch.testing.assert_close(found, direct, rtol=1e-11, atol=1e-12)


def test_the_correlation_lies_between_minus_one_and_one() -> None:
    errors = normal(0, 50, 4)
    found = correlation(covariance_of(torch.stack((errors, 3 * errors, -0.1 * errors, torch.zeros_like(errors)))))
    signs = torch.tensor([1.0, 1.0, -1.0, 0.0], dtype=torch.float64)
    torch.testing.assert_close(found, torch.outer(signs, signs), rtol=1e-12, atol=1e-12)


# -- the law of two members ----------------------------------------------------------------------------------------


@LAW
@given(SEEDS, st.sampled_from(SHARES) | st.floats(-3, 3))
def test_the_error_of_a_pair_is_the_fused_error(seed: int, share: float) -> None:
    errors = correlated(seed, 2)
    covariance = covariance_of(errors)
    own = covariance.diagonal()
    found = fused_error(share, own[0], own[1], disagreement(covariance)[0, 1]).item()
    weights = torch.tensor([share, 1 - share], dtype=torch.float64)
    scale = float(weights.abs() @ own)
    assert abs(found - mse(weights, errors)) <= IDENTITY * (1 + share * share) * scale


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("seed", range(5))
def test_the_fused_error_is_exact_to_twelve_digits(share: float, seed: int) -> None:
    errors = correlated(seed, 2)
    first, second = (second_moments(member) for member in errors)
    matrix = fused_error(share, first, second, second_moments(errors[0] - errors[1]))
    direct = second_moments(share * errors[0] + (1 - share) * errors[1])
    assert float((matrix - direct).abs().max()) <= IDENTITY * float(direct.abs().max())
    scalar = fused_error(share, size(errors[0]), size(errors[1]), size(errors[0] - errors[1]))
    assert scalar.item() == pytest.approx(matrix.trace().item() / 4, rel=IDENTITY)


@pytest.mark.parametrize("share", [-1.0, 0.37, 2.0])
@pytest.mark.parametrize("seed", range(5))
def test_the_published_reading_of_the_interaction_is_wrong(share: float, seed: int) -> None:
    errors = correlated(seed, 2)
    cross = errors[0].T @ errors[1] / errors.shape[1]
    direct = second_moments(share * errors[0] + (1 - share) * errors[1])
    wrong = fused_error(share, second_moments(errors[0]), second_moments(errors[1]), cross)
    assert float((wrong - direct).abs().max()) > 1e-2 * float(direct.abs().max())
    scalar = fused_error(share, size(errors[0]), size(errors[1]), (errors[0] * errors[1]).mean())
    assert scalar.item() != pytest.approx(direct.trace().item() / 4, rel=1e-3)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_at_the_ends_the_fused_error_is_a_members_own_whatever_the_interaction(share: float) -> None:
    first, second, anything = torch.tensor(3.0), torch.tensor(5.0), torch.tensor(100.0)
    assert fused_error(share, first, second, anything).item() == (3.0 if share else 5.0)


@LAW
@given(SEEDS)
def test_the_optimum_of_a_pair_is_the_best_of_a_fine_grid(seed: int) -> None:
    errors = correlated(seed, 2)
    covariance = covariance_of(errors)
    own, interaction = covariance.diagonal(), disagreement(covariance)[0, 1]
    curve = torch.stack([(a * errors[0] + (1 - a) * errors[1]).square().mean() for a in GRID[::300]])
    fine = GRID * own[0] + (1 - GRID) * own[1] - GRID * (1 - GRID) * interaction
    torch.testing.assert_close(fine[::300], curve, rtol=1e-11, atol=0)
    found, best = pair_optimum(covariance).item(), GRID[fine.argmin()].item()
    if -1 < best < 2:
        assert abs(found - best) <= 1e-4
    else:
        assert found <= -1 + 1e-4 or found >= 2 - 1e-4
    assert found == pytest.approx(0.5 + float((own[1] - own[0]) / (2 * interaction)), rel=1e-9, abs=1e-12)


def test_most_random_pairs_have_their_optimum_on_the_grid() -> None:
    inside = [-1 < pair_optimum(covariance_of(correlated(seed, 2))).item() < 2 for seed in range(40)]
    assert sum(inside) >= 30


@LAW
@given(SEEDS)
def test_the_gain_over_each_member_is_the_formula(seed: int) -> None:
    errors = correlated(seed, 2)
    covariance = covariance_of(errors)
    (c11, c12), (_, c22) = covariance.tolist()
    interaction = disagreement(covariance)[0, 1].item()
    share = pair_optimum(covariance)
    fused = mse(torch.stack((share, 1 - share)), errors)
    assert fused == pytest.approx((c11 * c22 - c12**2) / interaction, rel=1e-10)
    assert c11 - fused == pytest.approx((c11 - c12) ** 2 / interaction, rel=1e-9, abs=1e-12)
    assert c22 - fused == pytest.approx((c22 - c12) ** 2 / interaction, rel=1e-9, abs=1e-12)
    assert c11 - fused != pytest.approx((c22 - c12) ** 2 / interaction, rel=1e-9, abs=1e-12)


@LAW
@given(SEEDS)
def test_the_optimum_is_inside_exactly_where_members_disagree_more_than_their_errors_differ(seed: int) -> None:
    errors = correlated(seed, 2)
    errors[1] = errors[1] * float(3 * torch.rand((), generator=stream(seed, "size")) + 0.3)
    covariance = covariance_of(errors)
    (c11, c12), (_, c22) = covariance.tolist()
    inside = 0 < pair_optimum(covariance).item() < 1
    assert inside == (abs(c11 - c22) < disagreement(covariance)[0, 1].item())
    assert inside == (c12 < min(c11, c22))
    assert inside == bool((simplex_weights(covariance) > 0).all())


def test_random_pairs_have_their_optimum_inside_and_outside() -> None:
    both = {
        0 < pair_optimum(covariance_of(torch.stack((e[0], scale * e[0] + e[1])))).item() < 1
        for e in (correlated(0, 2),)
        for scale in (-1.0, 1.0, 3.0)
    }
    assert both == {True, False}


@pytest.mark.parametrize("shift", [0.0, 1e-8])
def test_members_that_are_as_good_as_equal_share(shift: float) -> None:
    errors = normal(0, 50, 4)
    covariance = covariance_of(torch.stack((errors, errors + shift * normal(1, 50, 4))))
    assert pair_optimum(covariance).item() == 0.5
    assert simplex_weights(covariance).tolist() == affine_weights(covariance).tolist() == [0.5, 0.5]


def test_members_that_differ_measurably_do_not_share() -> None:
    errors = normal(0, 50, 4)
    covariance = covariance_of(torch.stack((errors, errors * (1 + 1e-4))))
    assert simplex_weights(covariance).tolist() == [1.0, 0.0]


def test_pairs_can_be_solved_for_many_contexts_at_once() -> None:
    matrices = torch.stack([covariance_of(correlated(seed, 2)) for seed in range(6)]).reshape(2, 3, 2, 2)
    assert pair_optimum(matrices).flatten().tolist() == [pair_optimum(m).item() for m in matrices.reshape(6, 2, 2)]


# -- the trace is not the Frobenius norm ---------------------------------------------------------------------------


def moments(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """T_1, T_2 and I of two members whose errors are large in different outputs."""
    errors = correlated(seed, 2) * torch.tensor([[[3.0, 1.0, 0.3, 1.0]], [[0.5, 2.0, 1.0, 0.2]]], dtype=torch.float64)
    return second_moments(errors[0]), second_moments(errors[1]), second_moments(errors[0] - errors[1])


@LAW
@given(SEEDS)
def test_the_frobenius_optimum_is_the_best_of_a_fine_grid(seed: int) -> None:
    first, second, interaction = moments(seed)
    shares = GRID.view(-1, 1, 1)
    norms = (shares * first + (1 - shares) * second - shares * (1 - shares) * interaction).flatten(1).norm(dim=1)
    found = frobenius_optimum(first, second, interaction)
    assert float(fused_error(found, first, second, interaction).norm()) <= float(norms.min()) * (1 + 1e-12)
    best = GRID[norms.argmin()].item()
    if -1 < best < 2:
        assert float(norms.min()) <= float(fused_error(found, first, second, interaction).norm()) * (1 + 1e-6)


def test_the_trace_and_the_norm_have_different_optima() -> None:
    gaps = []
    for seed in range(10):
        first, second, interaction = moments(seed)
        pair = torch.stack(
            (
                torch.stack((first.trace(), cross := (first + second - interaction).trace() / 2)),
                torch.stack((cross, second.trace())),
            )
        )
        by_trace, by_norm = pair_optimum(pair).item(), frobenius_optimum(first, second, interaction)
        traces = [fused_error(share, first, second, interaction).trace().item() for share in (by_trace, by_norm)]
        assert traces[0] <= traces[1] * (1 + 1e-12)
        gaps.append(abs(by_trace - by_norm))
    assert max(gaps) > 0.05


def test_the_norm_of_one_by_one_matrices_has_the_optimum_of_the_error() -> None:
    covariance = covariance_of(correlated(3, 2, outputs=1))
    first, second = (covariance[i, i].reshape(1, 1) for i in range(2))
    found = frobenius_optimum(first, second, disagreement(covariance)[0, 1].reshape(1, 1))
    assert found == pytest.approx(pair_optimum(covariance).item(), abs=1e-6)


def test_equal_members_have_no_frobenius_optimum() -> None:
    first = moments(0)[0]
    with pytest.raises(UsageError, match="equal members; expected members that disagree"):
        frobenius_optimum(first, first, torch.zeros_like(first))


# -- many members --------------------------------------------------------------------------------------------------


@LAW
@given(SEEDS, st.integers(2, 8), st.booleans())
def test_the_error_of_many_members_is_a_quadratic_form(seed: int, members: int, convex: bool) -> None:
    errors = correlated(seed, members)
    covariance, apart = covariance_of(errors), disagreement(covariance_of(errors))
    weights = random_simplex(seed, members, 1)[0] if convex else normal(seed + 2, members)
    weights = weights / weights.sum()
    pairs = sum(float(weights[i] * weights[j] * apart[i, j]) for i, j in itertools.combinations(range(members), 2))
    own = float(weights @ covariance.diagonal())
    size = float(weights.abs() @ covariance.abs() @ weights.abs()) + float(weights.abs() @ covariance.diagonal())
    size += float(weights.abs() @ apart @ weights.abs())
    assert abs(own - pairs - mse(weights, errors)) <= IDENTITY * size
    assert abs(float(weights @ covariance @ weights) - mse(weights, errors)) <= IDENTITY * size


@LAW
@given(SEEDS, st.integers(2, 6))
def test_a_quadratic_form_is_not_the_error_of_weights_off_the_plane(seed: int, members: int) -> None:
    errors = correlated(seed, members)
    covariance, weights = covariance_of(errors), torch.full((members,), 1.5 / members, dtype=torch.float64)
    pairs = 0.5 * float(weights @ disagreement(covariance) @ weights)
    assert float(weights @ covariance.diagonal()) - pairs != pytest.approx(mse(weights, errors), rel=1e-3)


@LAW
@given(SEEDS, st.integers(2, 10))
def test_simplex_weights_are_optimal(seed: int, members: int) -> None:
    errors = correlated(seed, members)
    covariance = covariance_of(errors)
    weights = simplex_weights(covariance)
    assert is_optimal(weights, covariance)
    others = random_simplex(seed, members)
    values = torch.einsum("ki,ij,kj->k", others, covariance, others)
    assert float(weights @ covariance @ weights) <= float(values.min()) * (1 + KKT)
    assert mse(weights, errors) <= float(covariance.diagonal().min()) * (1 + 1e-12)


def test_weights_a_little_off_are_not_optimal() -> None:
    covariance = covariance_of(correlated(0, 4))
    weights = simplex_weights(covariance)
    assert is_optimal(weights, covariance)
    for shift in (torch.tensor([1e-4, -1e-4, 0, 0]), torch.tensor([1e-4, 0, 0, 0]), torch.tensor([-1.0, 1.0, 0, 0])):
        assert not is_optimal(weights + shift, covariance)
    assert not is_optimal(torch.full((4,), 0.25, dtype=torch.float64), covariance)


@pytest.mark.parametrize("members", [ENUMERATED + 1, 16, 40])
@pytest.mark.parametrize("seed", range(3))
def test_more_than_ten_members_are_solved_as_well(members: int, seed: int) -> None:
    covariance = covariance_of(correlated(seed, members))
    weights = simplex_weights(covariance)
    assert is_optimal(weights, covariance)
    assert int((weights > 0).sum()) > 2
    others = random_simplex(seed, members)
    assert float(weights @ covariance @ weights) <= float(torch.einsum("ki,ij,kj->k", others, covariance, others).min())


@pytest.mark.parametrize("seed", range(10))
def test_both_ways_of_solving_agree(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    covariance = covariance_of(correlated(seed, 6))
    enumerated = simplex_weights(covariance)
    monkeypatch.setattr("grokkit_core.fusion.optimum.ENUMERATED", 2)
    torch.testing.assert_close(simplex_weights(covariance), enumerated, rtol=1e-9, atol=1e-12)


@LAW
@given(SEEDS, st.integers(2, 8))
def test_affine_weights_are_the_best_of_either_sign(seed: int, members: int) -> None:
    errors = correlated(seed, members)
    covariance = covariance_of(errors)
    weights = affine_weights(covariance)
    direct = torch.linalg.solve(covariance, torch.ones(members, dtype=torch.float64))
    torch.testing.assert_close(weights, direct / direct.sum(), rtol=1e-9, atol=1e-11)
    slope = covariance @ weights
    torch.testing.assert_close(slope, slope.mean().expand(members), rtol=1e-9, atol=0)
    convex = simplex_weights(covariance)
    assert float(weights @ covariance @ weights) <= float(convex @ covariance @ convex) * (1 + 1e-12)


def test_affine_weights_extrapolate_where_members_share_a_bias() -> None:
    common, own = normal(0, 50, 4), 0.01 * normal(1, 50, 4)
    covariance = covariance_of(torch.stack((common, 2 * common + own)))
    weights = affine_weights(covariance)
    assert weights.tolist() == pytest.approx([2.0, -1.0], abs=0.05)
    assert simplex_weights(covariance).tolist() == [1.0, 0.0]


# -- vertices and supports -----------------------------------------------------------------------------------------


@LAW
@given(SEEDS, st.integers(2, 6), st.floats(0.0, 2.0))
def test_a_single_member_is_best_exactly_where_no_other_error_pulls_away(seed: int, members: int, pull: float) -> None:
    errors = correlated(seed, members)
    errors[1:] += pull * errors[0]
    covariance = covariance_of(errors)
    vertex = any(bool((covariance[i, i] <= covariance[i]).all()) for i in range(members))
    assert vertex == bool((simplex_weights(covariance) == 1).any())


@pytest.mark.parametrize("members", [2, 3, 5, 12])
def test_a_member_whose_error_the_others_contain_stands_alone(members: int) -> None:
    errors = correlated(0, members)
    errors[2 % members] *= 0.1
    errors = torch.stack([e if i == 2 % members else errors[2 % members] + e for i, e in enumerate(errors)])
    errors[[i for i in range(members) if i != 2 % members]] += 3 * errors[2 % members]
    weights = simplex_weights(covariance_of(errors))
    assert weights.tolist() == [float(i == 2 % members) for i in range(members)]


@pytest.mark.parametrize("members", [3, 4, 7, 11, 13])
def test_of_equal_members_one_is_enough(members: int) -> None:
    errors = normal(0, 50, 4)
    weights = simplex_weights(covariance_of(errors.expand(members, 50, 4)))
    assert sorted(weights.tolist()) == [0.0] * (members - 1) + [1.0]


@pytest.mark.parametrize("members", [4, 11])
def test_a_repeat_takes_no_part(members: int) -> None:
    first, second = correlated(0, 2)
    errors = torch.stack([first, second, *[first] * (members - 2)])
    weights = simplex_weights(covariance_of(errors))
    pair = simplex_weights(covariance_of(torch.stack((first, second))))
    assert int((weights > 0).sum()) == 2
    assert weights[1].item() == pytest.approx(pair[1].item(), rel=1e-9)
    assert is_optimal(weights, covariance_of(errors))


def test_a_member_that_only_ties_is_left_out() -> None:
    """The third error is the mean of two others: its support of one is as good as theirs."""
    first = torch.tensor([[1.0], [0.0], [1.0]], dtype=torch.float64)
    second = torch.tensor([[0.0], [1.0], [1.0]], dtype=torch.float64)
    weights = simplex_weights(covariance_of(torch.stack((first, second, (first + second) / 2))))
    assert weights.tolist() == [0.0, 0.0, 1.0]


@pytest.mark.parametrize("size", [1e-8, 1e-6, 1e-3])
@pytest.mark.parametrize("members", [3, 4, 6, 11])
def test_nearly_equal_members_leave_the_optimum_finite_and_as_good(size: float, members: int) -> None:
    common, other = normal(0, 50, 4), normal(9, 50, 4)
    errors = torch.stack([common + size * normal(k + 1, 50, 4) for k in range(members - 1)] + [other])
    covariance = covariance_of(errors)
    weights = simplex_weights(covariance)
    pair = simplex_weights(covariance[-2:, -2:])
    assert bool((weights >= 0).all())
    assert float(weights.sum()) == pytest.approx(1, abs=1e-12)
    assert mse(weights, errors) <= mse(pair, errors[-2:]) * (1 + 1e-12)
    assert bool(torch.isfinite(affine_weights(covariance)).all())


# -- errors that cancel --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("members", [3, 4, 5, 6, 8, 10, 11, 13])
def test_errors_that_cancel_each_other_are_made_to(members: int, scaled: bool) -> None:
    errors = normal(members, members - 1, 50, 4)
    errors = torch.cat((errors, -errors.sum(0, keepdim=True)))
    if scaled:
        errors *= torch.logspace(-1, 1, members, dtype=torch.float64).view(-1, 1, 1)
    covariance = covariance_of(errors)
    for weights in (simplex_weights(covariance), affine_weights(covariance)):
        assert float(weights.sum()) == pytest.approx(1, abs=1e-12)
        assert mse(weights, errors) <= 1e-12 * float(covariance.diagonal().min())


def test_two_errors_that_cancel_need_no_third() -> None:
    error, other = normal(0, 50, 4), normal(1, 50, 4)
    weights = simplex_weights(covariance_of(torch.stack((error, -3 * error, 0.1 * other))))
    assert weights.tolist() == pytest.approx([0.75, 0.25, 0.0], abs=1e-12)
    assert int((weights > 0).sum()) == 2


@pytest.mark.parametrize("members", [3, 4, 5, 8, 10, 11, 12, 20])
def test_fewer_samples_than_members_are_fitted_without_error(members: int) -> None:
    for seed in range(4):
        errors = normal(seed, members, 2, 1)
        covariance = covariance_of(errors)
        scale = float(covariance.diagonal().max())
        assert mse(affine_weights(covariance), errors) <= 1e-12 * scale
        assert is_optimal(simplex_weights(covariance), covariance, 1e-6)


# -- scales --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [1e-8, 1e-16, 0.0])
@pytest.mark.parametrize("members", [2, 3, 5, 12])
def test_an_exact_member_gets_the_weight(members: int, error: float) -> None:
    errors = correlated(0, members)
    errors[1] = error * normal(7, 64, 4)
    covariance = covariance_of(errors)
    weights = best_weights(errors, torch.zeros(64, 4, dtype=torch.float64))
    assert weights[1].item() >= 1 - 1e-6
    assert mse(weights, errors) <= float(covariance[1, 1]) * (1 + 1e-9)
    assert float(simplex_weights(covariance)[1]) >= 1 - 1e-6
    assert torch.isfinite(affine_weights(covariance)).all()


def test_of_two_exact_members_neither_is_lost_to_the_others() -> None:
    errors = correlated(0, 4)
    errors[1], errors[3] = 1e-8 * normal(7, 64, 4), 1e-8 * normal(8, 64, 4)
    weights = simplex_weights(covariance_of(errors))
    pair = simplex_weights(covariance_of(errors[[1, 3]]))
    torch.testing.assert_close(weights[[1, 3]], pair, rtol=1e-6, atol=0)
    assert 0.3 < pair[0].item() < 0.7


def test_members_without_error_suffice() -> None:
    nothing = torch.zeros(3, 3, dtype=torch.float64)
    assert simplex_weights(nothing).tolist() == [1.0, 0.0, 0.0]
    assert affine_weights(nothing).sum().item() == pytest.approx(1)
    assert simplex_weights(nothing[:2, :2]).tolist() == [0.5, 0.5]


@LAW
@given(SEEDS, st.integers(2, 6), st.sampled_from([1e-12, 1e-6, 1.0, 1e6, 1e12]))
def test_the_unit_of_the_error_does_not_matter(seed: int, members: int, unit: float) -> None:
    covariance = covariance_of(correlated(seed, members))
    torch.testing.assert_close(simplex_weights(unit * covariance), simplex_weights(covariance), rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(affine_weights(unit * covariance), affine_weights(covariance), rtol=1e-8, atol=1e-10)


@LAW
@given(SEEDS, st.integers(2, 12), st.floats(0.1, 5))
def test_badly_scaled_errors_are_solved_as_well(seed: int, members: int, decades: float) -> None:
    errors = correlated(seed, members)
    errors *= torch.logspace(-decades, 0, members, dtype=torch.float64).view(-1, 1, 1)
    covariance = covariance_of(errors)
    assert is_optimal(simplex_weights(covariance), covariance)


@settings(LAW, max_examples=20)
@given(SEEDS, st.sampled_from([2, 3, 5, 8, 12]), SEEDS)
def test_the_order_of_members_does_not_matter(seed: int, members: int, shuffle: int) -> None:
    covariance = covariance_of(correlated(seed, members))
    order = torch.randperm(members, generator=stream(shuffle))
    turned = covariance[order][:, order]
    torch.testing.assert_close(simplex_weights(turned), simplex_weights(covariance)[order], rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(affine_weights(turned), affine_weights(covariance)[order], rtol=1e-8, atol=1e-10)


# -- negligible weights --------------------------------------------------------------------------------------------


def test_negligible_weights_are_dropped_and_the_rest_sums_to_one() -> None:
    weights = without_negligible(torch.tensor([0.6, 0.4 - 9e-7, 9e-7], dtype=torch.float64))
    assert weights[2].item() == 0
    assert weights.sum().item() == pytest.approx(1, abs=1e-15)
    kept = torch.tensor([1 + 2e-6, -2e-6], dtype=torch.float64)
    assert without_negligible(kept).tolist() == kept.tolist()


def test_a_fit_without_a_negligible_member_is_not_worse_than_the_best_member() -> None:
    """The best weights are (1, 1e-3, 1e-6): what is left when the last is dropped would be worse than the first alone."""
    errors = normal(0, 2, 50, 4)
    errors = torch.stack((1e-3 * errors[0], errors[1], -1.1e3 * (1e-3 * errors[0] + 1.1e-3 * errors[1]) / 1.1e-3))
    nothing = torch.zeros(50, 4, dtype=torch.float64)
    dropped = without_negligible(simplex_weights(covariance_of(errors)))
    found = best_weights(errors, nothing)
    assert dropped[2].item() == found[2].item() == 0
    assert mse(dropped, errors) > 1.2 * float(covariance_of(errors)[0, 0])
    assert mse(found, errors) <= float(covariance_of(errors)[0, 0]) * (1 + 1e-12)


# -- fitting -------------------------------------------------------------------------------------------------------


def linear(seed: int, scale: float = 1.0) -> Predictor:
    """A random linear map of the last state."""
    matrix = scale * normal(seed, 4, 4)

    def predict(inputs: Inputs, context: Mapping[str, Tensor]) -> Tensor:
        assert isinstance(inputs, Tensor)
        return inputs[:, -1] @ matrix.to(inputs.dtype)

    return predict


def persistence(inputs: Inputs, context: Mapping[str, Tensor]) -> Tensor:
    assert isinstance(inputs, Tensor)
    return inputs[:, -1]


def exact(inputs: Inputs, context: Mapping[str, Tensor]) -> Tensor:
    assert isinstance(inputs, Tensor)
    return host().task("cyclotron").oracle(inputs, context).to(inputs.dtype)


def windows(omega: float, n: int = 256, dtype: torch.dtype = torch.float64) -> Batch:
    return host().task("cyclotron").sample(n, generator=stream(0, "optimum"), omega=omega).to(dtype)


@pytest.mark.parametrize("omega", [0.9, 1.5, 2.2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_persistence_is_recognised_among_poor_members(omega: float, dtype: torch.dtype) -> None:
    weights = fit_weights([linear(1), persistence, linear(2)], windows(omega, dtype=dtype))
    assert weights[1].item() >= 0.97
    assert weights.dtype == torch.float64
    assert fit_weights([linear(1), linear(2), linear(3)], windows(omega, dtype=dtype))[1].item() < 0.97


@pytest.mark.parametrize("free", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_exact_member_is_recognised(free: bool, dtype: torch.dtype) -> None:
    weights = fit_weights([linear(1), exact, persistence, linear(2)], windows(1.5, dtype=dtype), free=free)
    assert weights[1].item() >= 1 - 1e-6
    assert weights.sum().item() == pytest.approx(1, abs=1e-15)


def test_an_exact_member_of_one_output_is_recognised_there() -> None:
    def half(inputs: Inputs, context: Mapping[str, Tensor]) -> Tensor:
        return torch.cat((exact(inputs, context)[:, :2], linear(1)(inputs, context)[:, 2:]), 1)

    weights = fit_weights([half, linear(2)], windows(1.5), combine="outputs")
    assert weights.shape == (2, 4)
    assert bool((weights[0, :2] >= 1 - 1e-6).all())
    assert bool((weights[0, 2:] < 0.5).any())


@LAW
@given(SEEDS, st.integers(2, 5), st.booleans())
def test_outputs_are_solved_each_by_itself(seed: int, members: int, free: bool) -> None:
    predictions, targets = correlated(seed, members), torch.zeros(64, 4, dtype=torch.float64)
    found = best_weights(predictions, targets, free=free, combine="outputs")
    for k in range(4):
        alone = best_weights(predictions[..., k], targets[:, k], free=free)
        torch.testing.assert_close(found[:, k], alone, rtol=1e-9, atol=1e-12)
    together = best_weights(predictions, targets, free=free)
    apart = (found.unsqueeze(1) * predictions).sum(0).square().mean().item()
    assert apart <= mse(together, predictions) * (1 + 1e-9)


def test_outputs_of_any_shape_are_solved_each_by_itself() -> None:
    predictions, targets = normal(0, 3, 40, 2, 5), normal(1, 40, 2, 5)
    found = best_weights(predictions, targets, combine="outputs")
    assert found.shape == (3, 2, 5)
    torch.testing.assert_close(found[:, 1, 3], best_weights(predictions[..., 1, 3], targets[..., 1, 3]))


def test_the_pair_formula_per_output_is_that_of_the_specification() -> None:
    e1, e8 = correlated(0, 2)
    found = best_weights(torch.stack((e1, e8)), torch.zeros_like(e1), free=True, combine="outputs")
    expected = (e8 * (e8 - e1)).mean(0) / (e1 - e8).square().mean(0)
    torch.testing.assert_close(found[0], expected, rtol=1e-10, atol=0)


def test_scalar_outputs_have_one_weight_a_member() -> None:
    predictions, targets = normal(0, 3, 40), normal(1, 40)
    outputs, members = (best_weights(predictions, targets, combine=c) for c in ("outputs", "members"))
    assert outputs.shape == (3,)
    assert torch.equal(outputs, members)


def test_one_predictor_gets_everything() -> None:
    for free in (False, True):
        assert fit_weights([linear(1)], windows(1.5), free=free).tolist() == [1.0]


def test_fitted_weights_can_be_used_where_gradients_flow() -> None:
    weights = fit_weights([linear(1), persistence], windows(1.5))
    assert not weights.is_inference()
    (weights * torch.ones(2, requires_grad=True)).sum().backward()  # type: ignore[no-untyped-call]


def scaled_by(value: float) -> Predictor:
    return lambda inputs, context: value * persistence(inputs, context)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e200])
@pytest.mark.parametrize("members", [2, 3, 12])
def test_errors_that_are_not_finite_are_refused(value: float, members: int) -> None:
    predictors = [scaled_by(value), *[linear(k) for k in range(members - 1)]]
    for combine in ("members", "outputs"):
        with pytest.raises(Incompatible, match="squared errors that are not finite; look at the members' predictions"):
            fit_weights(predictors, windows(1.5), combine=combine)


def test_targets_that_are_not_finite_are_refused() -> None:
    batch = windows(1.5)
    broken = Batch(batch.inputs, batch.targets * torch.nan, batch.context)
    with pytest.raises(Incompatible, match="not finite"):
        fit_weights([linear(1), persistence], broken)


def test_no_predictors_are_refused() -> None:
    with pytest.raises(UsageError, match="no predictors; expected one or more"):
        fit_weights([], windows(1.5))


def test_no_samples_are_refused() -> None:
    with pytest.raises(UsageError, match="expected one prediction of the same shape for each target"):
        fit_weights([linear(1), persistence], windows(1.5)[:0])


@pytest.mark.parametrize("shape", [(256,), (256, 1), (256, 3), (1, 4), (4,), (256, 4, 1)])
def test_predictions_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match=r"predictions \[.*\] for targets \[256, 4\]"):
        fit_weights([lambda inputs, context: torch.zeros(shape)] * 2, windows(1.5))
