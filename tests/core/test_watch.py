"""Training curves: recording, stopping, the detection of grokking, thinning."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grokkit_core.manifest import MAX_CURVE_ROWS
from grokkit_core.training.recipe import Grokking, Stopping
from grokkit_core.training.watch import COLUMNS, Watch, grok_step, thin

LAW = settings(max_examples=80, deadline=None, derandomize=True)
TRAIN = Stopping("train", below=0.1)
VALIDATION = Stopping("validation", below=0.1)


def watch(*rows: tuple[float, float]) -> Watch:
    """A watch with these training and validation figures, one row every ten steps."""
    return Watch([(10.0 * (k + 1), train, validation) for k, (train, validation) in enumerate(rows)])


def validation(*values: float) -> Watch:
    return watch(*((1.0, value) for value in values))


def curve(*values: float) -> list[tuple[float, float, float]]:
    return validation(*values).rows


# -- recording -----------------------------------------------------------------------------------------------------


def test_a_row_holds_the_mean_training_loss_since_the_last_one() -> None:
    found = Watch()
    for loss in (1.0, 3.0):
        found.observe(loss)
    found.record(2, 0.5)
    found.observe(7.0)
    found.record(3, 0.25)
    assert found.rows == [(2.0, 2.0, 0.5), (3.0, 7.0, 0.25)]


def test_a_loss_that_is_no_number_is_left_out_of_the_mean() -> None:
    found = Watch()
    for loss in (1.0, math.nan, 3.0):
        found.observe(loss)
    found.record(3, 0.5)
    assert found.rows == [(3.0, 2.0, 0.5)]


def test_a_row_without_losses_has_no_training_figure() -> None:
    found = Watch()
    found.record(0, 0.5)
    assert math.isnan(found.rows[0][1])


# -- stopping ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", [None, TRAIN, VALIDATION])
def test_nothing_stops_before_the_first_row(rule: Stopping | None) -> None:
    assert not Watch().should_stop(rule)


def test_nothing_stops_without_a_rule() -> None:
    assert not validation(0.0, 0.0).should_stop(None)


@pytest.mark.parametrize(("value", "stops"), [(0.2, False), (0.1, True), (0.05, True), (math.nan, False)])
def test_a_curve_stops_at_or_below_its_threshold(value: float, stops: bool) -> None:
    assert watch((1.0, value)).should_stop(VALIDATION) is stops
    assert watch((value, 1.0)).should_stop(TRAIN) is stops


def test_a_rule_looks_at_its_own_curve_only() -> None:
    assert not watch((0.0, 1.0)).should_stop(VALIDATION)
    assert not watch((1.0, 0.0)).should_stop(TRAIN)


@pytest.mark.parametrize(
    ("values", "stops"),
    [
        ((0.05, 0.05), False),
        ((0.05, 0.05, 0.05), True),
        ((0.05, 0.2, 0.05, 0.05), False),
        ((0.2, 0.05, 0.05, 0.05), True),
        ((0.05, 0.05, 0.05, 0.2), False),
    ],
)
def test_a_threshold_must_hold_for_several_rows_in_a_row(values: tuple[float, ...], stops: bool) -> None:
    assert validation(*values).should_stop(Stopping("validation", below=0.1, lasting=3)) is stops


def test_for_an_accuracy_below_means_above() -> None:
    rule = Stopping("validation", below=0.99, for_accuracy=True)
    assert [validation(value).should_stop(rule) for value in (0.5, 0.98, 0.99, 1.0)] == [False, False, True, True]


@pytest.mark.parametrize(
    ("values", "stops"),
    [
        ((0.9, 0.8, 0.7, 0.6), False),
        ((0.9, 0.5, 0.6), False),
        ((0.9, 0.5, 0.6, 0.7), True),
        ((0.9, 0.5, 0.6, 0.4), False),
        ((0.5, 0.5, 0.5), True),
    ],
)
def test_patience_ends_when_nothing_improves(values: tuple[float, ...], stops: bool) -> None:
    assert validation(*values).should_stop(Stopping("validation", below=0.0, patience=2)) is stops


def test_without_patience_a_curve_may_stay_bad_for_ever() -> None:
    assert not validation(*[0.5] * 1_000).should_stop(VALIDATION)


def test_patience_for_an_accuracy_waits_for_higher_figures() -> None:
    rule = Stopping("validation", below=2.0, patience=2, for_accuracy=True)
    assert not validation(0.1, 0.2, 0.3, 0.4).should_stop(rule)
    assert validation(0.1, 0.4, 0.3, 0.2).should_stop(rule)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_figure_that_is_no_number_is_never_the_best(place: int) -> None:
    values = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4]
    values[place] = math.nan
    assert not validation(*values).should_stop(Stopping("validation", below=0.0, patience=2))


def test_patience_runs_out_when_no_figure_is_a_number() -> None:
    assert validation(*[math.nan] * 4).should_stop(Stopping("validation", below=0.0, patience=2))


# -- grokking ------------------------------------------------------------------------------------------------------


def test_grokking_is_dated_at_the_start_of_the_first_lasting_run() -> None:
    rows = curve(0.9, 0.05, 0.9, 0.05, 0.04, 0.03, 0.9, 0.0, 0.0, 0.0)
    assert grok_step(rows, Grokking(0.1)) == 40


@pytest.mark.parametrize("values", [(), (0.9,), (0.9, 0.05, 0.05), (0.05, 0.05, 0.9, 0.05, 0.05)])
def test_a_network_that_only_just_arrived_has_not_grokked(values: tuple[float, ...]) -> None:
    assert grok_step(curve(*values), Grokking(0.1)) is None


def test_who_does_not_ask_gets_no_answer() -> None:
    assert grok_step(curve(0.0, 0.0, 0.0), None) is None


def test_grokking_of_an_accuracy_is_above_the_threshold() -> None:
    rule = Grokking(0.99, lasting=2, for_accuracy=True)
    assert grok_step(curve(0.5, 1.0, 0.5, 0.99, 1.0), rule) == 40
    assert grok_step(curve(0.5, 0.5, 0.5), rule) is None


def test_the_training_curve_does_not_date_grokking() -> None:
    assert grok_step(watch(*[(0.0, 1.0)] * 5).rows, Grokking(0.1)) is None


def test_a_figure_that_is_no_number_interrupts_a_run() -> None:
    assert grok_step(curve(0.0, math.nan, 0.0, 0.0), Grokking(0.1)) is None


# -- thinning ------------------------------------------------------------------------------------------------------


@LAW
@given(st.integers(0, 3_000))
def test_a_curve_keeps_its_ends_its_order_and_at_most_512_rows(count: int) -> None:
    rows = [(float(k), 1.0, 2.0) for k in range(count)]
    found = thin(rows).rows
    steps = [row[0] for row in found]
    assert len(found) == min(count, MAX_CURVE_ROWS)
    assert steps == sorted(set(steps))
    assert steps[:1] + steps[-1:] == ([0, count - 1] if count else [])


def test_a_curve_is_thinned_evenly() -> None:
    steps = [row[0] for row in thin([(float(k), 1.0, 2.0) for k in range(2_000)]).rows]
    assert {b - a for a, b in zip(steps, steps[1:], strict=False)} == {3, 4}


def test_a_short_curve_is_kept_whole() -> None:
    found = thin(curve(0.5, 0.25))
    assert found.columns == COLUMNS[:3]
    assert found.rows == ((10, 1.0, 0.5), (20, 1.0, 0.25))


def test_a_curve_with_a_metric_of_the_training_set_has_a_column_for_it() -> None:
    found = thin([(10.0, 1.0, 0.5, 0.75)])
    assert found.columns == COLUMNS
    assert found.rows == ((10, 1.0, 0.5, 0.75),)


def test_rows_that_hold_no_numbers_are_dropped() -> None:
    rows = [(1.0, math.nan, 0.5), (2.0, 1.0, 0.5), (3.0, 1.0, math.inf)]
    assert thin(rows).rows == ((2, 1.0, 0.5),)


def test_steps_are_whole_numbers() -> None:
    assert all(type(row[0]) is int for row in thin(curve(0.5, 0.25)).rows)
