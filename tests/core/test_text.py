"""Text from data, made safe to show."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grokkit_core.text import nearest, printable

LAW = settings(max_examples=200, deadline=None, derandomize=True)
anything = st.text(st.characters(exclude_categories=()))


@LAW
@given(anything, st.integers(1, 40))
def test_printable_text_holds_nothing_that_moves_a_terminal(text: str, cap: int) -> None:
    shown = printable(text, cap)
    assert not {unicodedata.category(char) for char in shown} & {"Cc", "Cf", "Cs", "Zl", "Zp"}


@LAW
@given(anything, st.integers(1, 40))
def test_printable_text_keeps_its_cap(text: str, cap: int) -> None:
    assert len(printable(text, cap)) <= cap


@LAW
@given(anything)
def test_printable_text_can_be_encoded(text: str) -> None:
    printable(text).encode()


@LAW
@given(anything)
def test_printable_text_stays_as_it_is(text: str) -> None:
    assert printable(printable(text)) == printable(text)


@pytest.mark.parametrize("text", ["plain", "", "omega = 1.5 [rad/s]", "größer", "中文", "a" * 200])
def test_harmless_text_is_not_touched(text: str) -> None:
    assert printable(text) == text


@pytest.mark.parametrize(
    "bad", ["\x1b", "\n", "\r", "\t", "\x00", "\u202e", "\u200b", "\u2028", "\u2029", "\ud800", "\x7f"]
)
def test_each_unsafe_character_becomes_a_mark(bad: str) -> None:
    assert printable(f"a{bad}b") == "a\ufffdb"


def test_long_text_ends_with_an_ellipsis() -> None:
    assert printable("a" * 201) == "a" * 199 + "…"


def test_anything_can_be_shown() -> None:
    assert printable(ValueError("no\nway")) == "no\ufffdway"


def test_a_near_word_is_suggested() -> None:
    assert nearest("unifrom", ["uniform", "spectral"]) == "did you mean 'uniform'?"


def test_known_words_are_listed_where_none_is_near() -> None:
    assert nearest("xyz", ["uniform", "spectral", "uniform"]) == "known: spectral, uniform"


def test_only_a_few_known_words_are_listed() -> None:
    assert nearest("xyz", [f"gate-{n}" for n in range(9)]).endswith("gate-7 ...")


def test_nothing_known_gives_no_hint() -> None:
    assert nearest("xyz", []) == ""
