"""Axes: values lie where they should, ticks are few and round, and no number breaks them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grokkit_core.pictures.scale import LARGEST, Scale, exactly, scale_for

NUMBERS = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True),
    st.sampled_from([0.0, 1e308, -1e308, 5e-324, 1e-310, 1e300, 1e-300, 1.0, 1 + 2**-52, 1e16, 1e16 + 2]),
)


def test_a_linear_axis_is_linear() -> None:
    assert Scale(2.0, 6.0).at(3.0) == 0.25


def test_a_logarithmic_axis_has_equal_steps_for_equal_factors() -> None:
    scale = Scale(1e-6, 1.0, log=True)
    assert [scale.at(10.0**exponent) for exponent in (-6, -4, -3, 0)] == pytest.approx([0, 1 / 3, 0.5, 1])


def test_positive_values_of_several_decades_are_drawn_logarithmically() -> None:
    assert scale_for([1e-6, 1e-2]).log
    assert not scale_for([0.1, 0.9]).log
    assert not scale_for([0.0, 1e-6, 1e-2]).log


def test_a_floor_lies_on_a_linear_axis_and_at_its_end() -> None:
    assert scale_for([0.4, 0.9], log=False, floor=0.0).low == 0.0


def test_decades_are_labelled_as_powers() -> None:
    ticks = Scale(1e-5, 1e1, log=True).ticks()
    assert [(tick.label, tick.power) for tick in ticks[:2]] == [("10", "−4"), ("10", "−2")]
    assert ticks[-1].label == "1"


def test_labels_have_the_digits_that_tell_them_apart() -> None:
    assert [tick.label for tick in Scale(0.0, 1.0).ticks()] == ["0", "0.2", "0.4", "0.6", "0.8", "1.0"]
    assert [tick.label for tick in Scale(0.0, 18_000.0).ticks()] == ["0", "5,000", "10,000", "15,000"]


@given(st.lists(NUMBERS, max_size=5), st.sampled_from([None, True, False]), st.sampled_from([None, 0.0]))
def test_no_numbers_break_an_axis(values: list[float], log: bool | None, floor: float | None) -> None:
    for scale in (scale_for(values, log=log, floor=floor), exactly(values, log=bool(log))):
        ticks = scale.ticks()
        assert len(ticks) <= 14
        assert all(-1e-6 <= scale.at(tick.value) <= 1 + 1e-6 and len(tick.label) < 16 for tick in ticks)
        assert all(0 <= scale.clipped(value) <= 1 for value in values)


@given(st.lists(st.floats(1e-290, 1e290), min_size=1, max_size=5), st.booleans())
def test_what_an_axis_was_made_for_lies_on_it(values: list[float], log: bool) -> None:
    scale = scale_for(values, log=log)
    assert all(scale.holds(value) and -1e-9 <= scale.at(value) <= 1 + 1e-9 for value in values)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 10 * LARGEST])
def test_what_is_no_number_is_not_drawn(value: float) -> None:
    assert not scale_for([1.0, 2.0]).holds(value)
