"""Typed records: strict reading from JSON with the path of every fault, and writing back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grokkit_core.errors import BadManifest
from grokkit_core.records import at_least, at_most_items, from_json, matching, to_json

LAW = settings(max_examples=100, deadline=None, derandomize=True)


@dataclass(frozen=True)
class Part:
    size: Annotated[int, at_least(0)]


@dataclass(frozen=True)
class Whole:
    name: Annotated[str, matching(str.islower, "lower case")]
    share: float
    ready: bool
    kind: Literal["small", "large"]
    part: Part
    parts: Annotated[tuple[Part, ...], at_most_items(2)]
    note: str | None
    extra: Mapping[str, Any]


GOOD: dict[str, Any] = {
    "name": "one",
    "share": 0.5,
    "ready": True,
    "kind": "small",
    "part": {"size": 1},
    "parts": [{"size": 2}, {"size": 3}],
    "note": None,
    "extra": {"deep": [1, {"er": None}]},
}
wholes = st.builds(
    Whole,
    st.sampled_from(["one", "two"]),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
    st.sampled_from(["small", "large"]),
    st.builds(Part, st.integers(0, 2**53)),
    st.lists(st.builds(Part, st.integers(0, 9)), max_size=2).map(tuple),
    st.none() | st.text(),
    st.dictionaries(st.text(), st.none() | st.integers() | st.lists(st.booleans())),
)


def test_a_record_is_read_by_its_annotations() -> None:
    whole = from_json(Whole, GOOD)
    assert whole == Whole("one", 0.5, True, "small", Part(1), (Part(2), Part(3)), None, GOOD["extra"])


@LAW
@given(wholes)
def test_a_record_survives_json(whole: Whole) -> None:
    assert from_json(Whole, json.loads(json.dumps(to_json(whole)))) == whole


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "ONE"}, r"it\.name is 'ONE'; expected lower case"),
        ({"name": 1}, r"it\.name is 1; expected a string"),
        ({"share": "half"}, r"it\.share is 'half'; expected a number"),
        ({"share": True}, r"it\.share is True; expected a number"),
        ({"ready": 1}, r"it\.ready is 1; expected true or false"),
        ({"kind": "medium"}, r"it\.kind is 'medium'; expected one of small, large"),
        ({"kind": ["small"]}, r"it\.kind is \['small'\]; expected one of"),
        ({"part": None}, r"it\.part is None; expected an object"),
        ({"part": {"size": -1}}, r"it\.part\.size is -1; expected at least 0"),
        ({"part": {"size": 1.0}}, r"it\.part\.size is 1\.0; expected an integer"),
        ({"part": {"size": True}}, r"it\.part\.size is True; expected an integer"),
        ({"parts": {}}, r"it\.parts is \{\}; expected a list"),
        ({"parts": [{"size": 1}, {"size": "x"}]}, r"it\.parts\[1\]\.size is 'x'"),
        ({"parts": [{"size": 1}] * 3}, r"it\.parts is .*expected at most 2 items"),
        ({"note": 5}, r"it\.note is 5; expected a string"),
        ({"extra": []}, r"it\.extra is \[\]; expected an object"),
    ],
)
def test_a_fault_names_its_path_the_value_and_what_was_expected(change: dict[str, Any], words: str) -> None:
    with pytest.raises(BadManifest, match=words):
        from_json(Whole, GOOD | change, "it")


@pytest.mark.parametrize("name", list(GOOD))
def test_a_missing_field_is_named(name: str) -> None:
    with pytest.raises(BadManifest, match=f"it lacks the field '{name}'"):
        from_json(Whole, {key: value for key, value in GOOD.items() if key != name}, "it")


def test_an_unknown_field_suggests_the_nearest() -> None:
    with pytest.raises(BadManifest, match="unknown field 'shares'; did you mean 'share'"):
        from_json(Whole, GOOD | {"shares": 1}, "it")


@pytest.mark.parametrize("value", [None, [], "text", 1])
def test_only_an_object_is_a_record(value: Any) -> None:
    with pytest.raises(BadManifest, match="expected an object"):
        from_json(Whole, value, "it")


def test_an_integer_is_a_number_and_stays_an_integer() -> None:
    assert type(from_json(Whole, GOOD | {"share": 1}).share) is int


def test_a_mapping_that_was_read_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        from_json(Whole, GOOD).extra["deep"] = 1  # type: ignore[index]


def test_a_fault_does_not_print_control_characters() -> None:
    with pytest.raises(BadManifest) as caught:
        from_json(Whole, GOOD | {"\x1b[2J": 1}, "it")
    assert "\x1b" not in str(caught.value)


def test_a_fault_does_not_print_a_long_value() -> None:
    with pytest.raises(BadManifest) as caught:
        from_json(Whole, GOOD | {"name": "X" * 10_000}, "it")
    assert len(str(caught.value)) < 200
