"""Exact binomial limits and distribution-free tolerance limits, against rational sums, known tables and simulation."""

from __future__ import annotations

import math
from fractions import Fraction
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from grokkit_core.certify import rates
from grokkit_core.certify.rates import MOST_SAMPLES, clopper_pearson, tolerance_bound
from grokkit_core.certify.scores import Z
from grokkit_core.errors import UsageError

LAW = settings(max_examples=15, deadline=None, derandomize=True)
TIGHT = Fraction(1, 10**8)
"""No limit lies further out than this share: the tails have 1e-9 to spare and the rates of small n depend on them mildly."""


def at_most(count: int, n: int, rate: Fraction) -> Fraction:
    """P(X <= count) without rounding."""
    success, total = rate.as_integer_ratio()
    terms = (math.comb(n, j) * success**j * (total - success) ** (n - j) for j in range(count + 1))
    return Fraction(sum(terms), total**n)


def at_least(count: int, n: int, rate: Fraction) -> Fraction:
    return 1 - at_most(count - 1, n, rate)


@cache
def intervals(n: int) -> np.ndarray:
    """Row `failures`: the interval, "n + 1, 2"."""
    return np.array([clopper_pearson(failures, n) for failures in range(n + 1)])


def normal_intervals(n: int) -> np.ndarray:
    """What textbooks warn of: share -+ Z standard errors."""
    share = np.arange(n + 1) / n
    half = Z * np.sqrt(share * (1 - share) / n)
    return np.stack([share - half, share + half], axis=1)


# -- the interval of a rate ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
@pytest.mark.parametrize("n", [1, 2, 7, 25])
def test_limits_are_proved_by_exact_sums_and_hardly_wider(n: int, confidence: float) -> None:
    level = Fraction(1 - confidence) / 2
    for failures in range(n + 1):
        low, high = (Fraction(limit) for limit in clopper_pearson(failures, n, confidence))
        if failures < n:
            assert at_most(failures, n, high) <= level < at_most(failures, n, high * (1 - TIGHT))
        if failures > 0:
            assert at_least(failures, n, low) <= level < at_least(failures, n, low * (1 + TIGHT))


@LAW
@given(st.integers(1, 300), st.data())
def test_a_one_sided_limit_is_proved_by_exact_sums(n: int, data: st.DataObject) -> None:
    failures = data.draw(st.integers(0, n - 1))
    low, high = clopper_pearson(failures, n, one_sided=True)
    assert low == 0
    assert at_most(failures, n, Fraction(high)) <= Fraction(1 - 0.95)
    assert high < clopper_pearson(failures, n)[1]


def test_nothing_known_of_the_far_end_at_none_and_at_all() -> None:
    assert clopper_pearson(0, 10)[0] == 0.0
    assert clopper_pearson(10, 10)[1] == 1.0


def test_no_failures_in_10000_rows_bound_the_rate_by_3_in_10000() -> None:
    _, high = clopper_pearson(0, 10_000, one_sided=True)
    assert high == pytest.approx(3e-4, rel=2e-3)
    assert (1 - Fraction(high)) ** 10_000 <= Fraction(1 - 0.95)


def test_limits_of_a_billion_rare_trials_are_garwoods() -> None:
    low, high = clopper_pearson(3, 10**9)
    assert low * 1e9 == pytest.approx(0.6186721, rel=1e-6)  # Garwood 1936, table for a Poisson count of 3
    assert high * 1e9 == pytest.approx(8.7672731, rel=1e-6)


@pytest.mark.parametrize("n", [10**9, MOST_SAMPLES])
def test_none_of_very_many_agrees_with_the_closed_form(n: int) -> None:
    exact = -math.expm1(math.log(0.025) / n)
    assert 0 <= clopper_pearson(0, n)[1] / exact - 1 < 1e-9
    assert clopper_pearson(n, n)[0] == pytest.approx(1 - exact, abs=2e-16)


def test_half_of_a_billion_agrees_with_the_normal_limit() -> None:
    n = 10**9
    low, high = clopper_pearson(n // 2, n)
    assert high - 0.5 == pytest.approx(0.5 - low, rel=1e-9)
    # the continuity correction is half a trial; what is left of the normal approximation is of order 1/n^(3/2)
    assert high - 0.5 == pytest.approx(Z * math.sqrt(0.25 / n) + 0.5 / n, abs=1e-12)


@LAW
@given(st.integers(1, 10**9), st.floats(0, 1), st.sampled_from([0.5, 0.9, 0.95, 0.9999]))
def test_limits_enclose_the_share_mirror_each_other_and_widen_with_confidence(
    n: int, share: float, confidence: float
) -> None:
    failures = min(n, round(share * n))
    low, high = clopper_pearson(failures, n, confidence)
    assert 0 <= low <= failures / n <= high <= 1
    mirrored = clopper_pearson(n - failures, n, confidence)
    assert (1 - mirrored[1], 1 - mirrored[0]) == pytest.approx((low, high), rel=1e-8, abs=1e-15)
    wider = clopper_pearson(failures, n, (1 + confidence) / 2)
    assert wider[0] <= low and wider[1] >= high


def test_more_failures_move_both_limits_up() -> None:
    assert bool((np.diff(intervals(100), axis=0) > 0).all())


def test_the_logarithm_of_a_factorial_has_the_digits_it_claims() -> None:
    n = rates._STIRLING_FROM
    with rates.localcontext(rates.Context(prec=60)):
        exact = rates.Decimal(math.factorial(n)).ln()
        assert abs(rates._log_factorial(n) - exact) < rates.Decimal("1e-41")
        assert abs(rates._log_factorial(n - 1) + rates.Decimal(n).ln() - exact) < rates.Decimal("1e-50")


@pytest.mark.parametrize("rate", [0.004, 0.03, 0.3, 0.96])
def test_the_interval_covers_the_rate_as_often_as_it_says(rate: float) -> None:
    n, limits = 100, intervals(100)
    drawn = np.random.default_rng(7).binomial(n, rate, size=20_000)
    covered = ((limits[drawn, 0] <= rate) & (rate <= limits[drawn, 1])).mean()
    assert covered >= 0.95 - 4 * math.sqrt(0.05 * 0.95 / 20_000)


@pytest.mark.parametrize("rate", [Fraction(1, 250), Fraction(3, 100), Fraction(1, 10), Fraction(24, 25)])
def test_coverage_summed_over_all_counts_is_enough_and_the_normal_one_is_not(rate: Fraction) -> None:
    n = 100

    def coverage(limits: np.ndarray) -> float:
        inside = np.flatnonzero((limits[:, 0] <= float(rate)) & (float(rate) <= limits[:, 1]))
        assert bool((np.diff(inside) == 1).all())
        return float(at_most(int(inside[-1]), n, rate) - at_most(int(inside[0]) - 1, n, rate))

    assert coverage(intervals(n)) >= 0.95
    assert coverage(normal_intervals(n)) < 0.95


@pytest.mark.parametrize(("failures", "n"), [(-1, 5), (6, 5), (0, 0), (0, MOST_SAMPLES + 1)])
def test_a_count_that_is_none_is_refused(failures: int, n: int) -> None:
    with pytest.raises(UsageError, match=f"{failures} failures of {n}"):
        clopper_pearson(failures, n)


@pytest.mark.parametrize("confidence", [0.0, 0.49, 1.0, math.nan])
def test_a_confidence_out_of_range_is_refused(confidence: float) -> None:
    with pytest.raises(UsageError, match="at least 0.5 and below 1"):
        clopper_pearson(1, 5, confidence)
    with pytest.raises(UsageError, match="at least 0.5 and below 1"):
        tolerance_bound(torch.rand(99), coverage=0.5, confidence=confidence)


# -- the tolerance limit of a distribution -------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "beyond"), [(59, 0), (92, 0), (93, 1), (124, 2), (153, 3), (181, 4), (208, 5)])
def test_limits_at_95_and_95_percent_are_those_of_wilks_table(n: int, beyond: int) -> None:
    values = torch.randperm(n, generator=torch.Generator().manual_seed(n)).double()
    assert tolerance_bound(values, coverage=0.95, confidence=0.95) == n - 1 - beyond


@LAW
@given(st.integers(1, 100), st.sampled_from([0.3, 0.5, 0.9, 0.97]), st.sampled_from([0.501, 0.76, 0.9, 0.99]))
def test_the_order_statistic_is_the_least_that_exact_sums_allow(n: int, coverage: float, confidence: float) -> None:
    values = torch.arange(1, n + 1)
    if Fraction(coverage) ** n > 1 - Fraction(confidence):
        with pytest.raises(UsageError, match=f"{n} values"):
            tolerance_bound(values, coverage=coverage, confidence=confidence)
    else:
        chosen = round(tolerance_bound(values, coverage=coverage, confidence=confidence))
        assert at_most(chosen - 1, n, Fraction(coverage)) >= Fraction(confidence)
        assert at_most(chosen - 2, n, Fraction(coverage)) < Fraction(confidence)


@pytest.mark.parametrize(
    ("coverage", "confidence", "needed"),
    [(0.95, 0.95, 59), (0.9, 0.9, 22), (0.99, 0.99, 459), (0.5, 0.875, 3), (0.5, 1 - 2.0**-17, 17)],
)
def test_too_few_values_say_how_many_are_needed(coverage: float, confidence: float, needed: int) -> None:
    with pytest.raises(UsageError, match=f"{needed - 1} values.*expected {needed} to"):
        tolerance_bound(torch.rand(needed - 1), coverage=coverage, confidence=confidence)
    values = torch.rand(needed, generator=torch.Generator().manual_seed(0))
    assert tolerance_bound(values, coverage=coverage, confidence=confidence) == values.max().item()


def test_the_limit_holds_as_often_as_it_says_and_the_plain_quantile_does_not() -> None:
    runs, n, coverage = 800, 300, 0.95
    values = torch.rand(runs, n, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    limits = torch.tensor([tolerance_bound(row, coverage=coverage, confidence=0.95) for row in values])
    assert (limits >= coverage).double().mean() >= 0.95 - 4 * math.sqrt(0.05 * 0.95 / runs)
    plain = values.sort(dim=1).values[:, math.ceil(coverage * n) - 1]
    assert (plain >= coverage).double().mean() < 0.6


def test_the_limit_holds_for_ties_where_the_distribution_jumps() -> None:
    generator = torch.Generator().manual_seed(4)
    values = (
        torch.rand(400, 100, generator=generator) < 0.06
    ).double()  # 1 with probability 0.06: P(value <= 0) = 0.94
    limits = torch.tensor([tolerance_bound(row, coverage=0.95, confidence=0.9) for row in values])
    assert (limits == 1).double().mean() >= 0.9


def test_a_normal_limit_fails_on_a_heavy_tail_where_the_order_statistic_holds() -> None:
    generator = torch.Generator().manual_seed(5)
    draws = torch.rand(1_000, 200, dtype=torch.float64, generator=generator)
    values, quantile = draws.reciprocal() ** 0.2, 0.01**-0.2  # Pareto of index 5 and its 99th percentile
    with pytest.raises(UsageError, match="299"):
        tolerance_bound(values[0], coverage=0.99, confidence=0.95)
    longer = values.reshape(500, 400)
    held = torch.tensor([tolerance_bound(row, coverage=0.99, confidence=0.95) >= quantile for row in longer])
    normal = longer.mean(dim=1) + 2.33 * longer.std(dim=1) >= quantile
    assert held.double().mean() >= 0.95 - 4 * math.sqrt(0.05 * 0.95 / 500)
    assert normal.double().mean() < 0.9


def test_infinite_values_count_and_nan_is_refused() -> None:
    values = torch.arange(59.0)
    values[7] = math.inf
    assert tolerance_bound(values, coverage=0.95, confidence=0.95) == math.inf
    values[7] = math.nan
    with pytest.raises(UsageError, match="NaN"):
        tolerance_bound(values, coverage=0.95, confidence=0.95)


@pytest.mark.parametrize("coverage", [0.0, 1.0, math.nan])
def test_a_coverage_out_of_range_is_refused(coverage: float) -> None:
    with pytest.raises(UsageError, match="coverage"):
        tolerance_bound(torch.rand(99), coverage=coverage, confidence=0.9)
