"""Paired win tests, Holm's procedure and non-inferiority."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from grokkit_core.certify.compare import FAMILY_LEVEL, holm, is_non_inferior, win_p_value
from grokkit_core.streams import stream

LAW = settings(max_examples=100, deadline=None, derandomize=True)
P_VALUES = st.lists(st.floats(0, 1), max_size=8)


def errors(n: int = 500, seed: int = 0) -> Tensor:
    """Squared errors of a fair predictor."""
    return torch.randn(n, generator=stream(seed, "errors"), dtype=torch.float64).square()


# -- the paired test -----------------------------------------------------------------------------------------------


def test_identical_predictors_are_no_win() -> None:
    assert win_p_value(errors(), {"same": errors()}) == 1.0


def test_a_predictor_that_is_better_everywhere_wins() -> None:
    assert win_p_value(errors() * 0.9, {"worse": errors()}) < 1e-6


def test_a_constant_advantage_is_a_win_without_any_spread() -> None:
    ones = torch.ones(10, dtype=torch.float64)
    assert win_p_value(ones, {"worse": ones * 2}) == 0.0
    assert win_p_value(ones * 2, {"better": ones}) == 1.0


def test_a_worse_predictor_does_not_win() -> None:
    assert win_p_value(errors() * 1.1, {"better": errors()}) > 0.999


def test_the_p_value_is_that_of_a_one_sided_paired_z_test() -> None:
    rival, own = torch.tensor([3.0, 1.0, 2.0, 5.0]), torch.tensor([1.0, 2.0, 1.0, 4.0])
    z = 0.75 * 2 / math.sqrt(1.5833333333333333)
    assert win_p_value(own, {"rival": rival}) == pytest.approx(0.5 * math.erfc(z / math.sqrt(2)), rel=1e-6)


def test_pairing_finds_what_unpaired_means_would_hide() -> None:
    hard = errors()
    own = hard - 0.01 * torch.rand(500, generator=stream(1), dtype=torch.float64)
    spread = hard.std().item() * math.sqrt(2 / 500)
    assert hard.mean().item() - own.mean().item() < spread
    assert win_p_value(own, {"rival": hard}) < 1e-6


def test_every_rival_must_be_beaten() -> None:
    own, worse, equal = errors() * 0.5, errors(), errors() * 0.5
    assert win_p_value(own, {"worse": worse}) < 0.05
    assert win_p_value(own, {"worse": worse, "equal": equal}) == 1.0


def test_the_largest_p_value_counts() -> None:
    own, rivals = errors(), {str(k): errors(seed=k) * 1.2 for k in (1, 2, 3)}
    alone = [win_p_value(own, {name: rival}) for name, rival in rivals.items()]
    assert win_p_value(own, rivals) == max(alone)


def test_higher_may_be_better() -> None:
    own, rival = errors() + 0.1, errors()
    assert win_p_value(own, {"rival": rival}, higher_is_better=True) < 1e-6
    assert win_p_value(own, {"rival": rival}) > 0.999


def test_equal_predictors_win_by_chance_as_often_as_the_level_says() -> None:
    wins = sum(win_p_value(errors(200, 2 * k), {"rival": errors(200, 2 * k + 1)}) < 0.05 for k in range(600))
    assert 0.02 < wins / 600 < 0.08


@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_a_predictor_that_fails_on_one_sample_does_not_win(bad: float) -> None:
    own = errors() * 0.5
    own[3] = bad
    assert holm([win_p_value(own, {"rival": errors()})]) == [False]


@pytest.mark.parametrize("order", [("sound", "broken"), ("broken", "sound")])
def test_a_rival_that_fails_does_not_hide_one_that_is_better(order: tuple[str, str]) -> None:
    broken = errors()
    broken[3] = math.nan
    rivals = {"sound": errors() * 0.5, "broken": broken}
    p = win_p_value(errors(), {name: rivals[name] for name in order})
    assert holm([p]) == [False]


# -- Holm ----------------------------------------------------------------------------------------------------------


def test_holm_by_hand() -> None:
    assert holm([0.03, 0.005, 0.013, 0.02], level=0.05) == [True] * 4
    assert holm([0.03, 0.005, 0.016, 0.02], level=0.05) == [True] * 4
    assert holm([0.03, 0.005, 0.017, 0.02], level=0.05) == [False, True, False, False]
    assert holm([0.06, 0.005, 0.01, 0.02], level=0.05) == [False, True, True, True]


def test_holm_stops_at_the_first_that_fails() -> None:
    assert holm([0.02, 0.03, 0.04]) == [False, False, False]


def test_holm_of_one_is_the_plain_test() -> None:
    assert holm([FAMILY_LEVEL]) == [True]
    assert holm([FAMILY_LEVEL + 1e-9]) == [False]


def test_holm_of_nothing_is_nothing() -> None:
    assert holm([]) == []


def test_a_p_value_that_is_no_number_is_never_significant() -> None:
    assert holm([math.nan, 0.9]) == [False, False]
    assert holm([math.nan, 1e-9]) == [False, True]


@LAW
@given(P_VALUES)
def test_holm_rejects_whatever_bonferroni_rejects_and_nothing_above_the_level(p_values: list[float]) -> None:
    for p, rejected in zip(p_values, holm(p_values), strict=True):
        assert rejected or p > FAMILY_LEVEL / len(p_values)
        assert not rejected or p <= FAMILY_LEVEL


@LAW
@given(P_VALUES)
def test_holm_rejects_the_smallest(p_values: list[float]) -> None:
    rejected = [p for p, yes in zip(p_values, holm(p_values), strict=True) if yes]
    kept = [p for p, yes in zip(p_values, holm(p_values), strict=True) if not yes]
    assert not rejected or not kept or max(rejected) <= min(kept)


@LAW
@given(st.permutations([0.0, 0.004, 0.012, 0.02, 0.03, 0.06]))
def test_holm_does_not_depend_on_the_order(p_values: list[float]) -> None:
    assert dict(zip(p_values, holm(p_values), strict=True)) == {
        0.0: True,
        0.004: True,
        0.012: True,
        0.02: False,
        0.03: False,
        0.06: False,
    }


def test_holm_keeps_the_family_level_under_the_null() -> None:
    draws = torch.rand((2_000, 5), generator=stream(0, "null"), dtype=torch.float64).tolist()
    plain = sum(min(row) <= FAMILY_LEVEL for row in draws) / 2_000
    assert sum(any(holm(row)) for row in draws) / 2_000 < 0.065
    assert plain > 0.2


# -- non-inferiority -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("value", "verdict"), [(0.9, True), (1.0, True), (1.005, True), (1.0051, False)])
def test_non_inferior_is_at_most_half_a_percent_worse(value: float, verdict: bool) -> None:
    assert is_non_inferior(value, [1.0, 2.0]) is verdict


@pytest.mark.parametrize(("value", "verdict"), [(1.0, True), (0.9, True), (0.8956, True), (0.895, False)])
def test_non_inferior_flips_where_higher_is_better(value: float, verdict: bool) -> None:
    assert is_non_inferior(value, [0.9, 0.5], higher_is_better=True) is verdict


def test_nothing_is_non_inferior_to_an_exact_member_but_an_exact_fusion() -> None:
    assert is_non_inferior(0.0, [0.0, 1.0])
    assert not is_non_inferior(1e-30, [0.0, 1.0])


def test_a_figure_that_is_no_number_is_inferior() -> None:
    assert not is_non_inferior(math.nan, [1.0])
