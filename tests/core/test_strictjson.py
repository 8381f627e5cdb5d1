"""The canonical form, and everything that is JSON to others but not to us."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grokkit_core import strictjson
from grokkit_core.errors import BadManifest, CassetteError, TooLarge

TEXT = st.text(st.characters(exclude_categories=("Cc", "Cs")), max_size=20)
NUMBERS = st.integers(-strictjson.MAX_INTEGER, strictjson.MAX_INTEGER) | st.floats(
    allow_nan=False, allow_infinity=False
)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)
NOT_STRICT = {
    "empty": b"",
    "no value": b"   \n",
    "two documents": b"{} {}",
    "duplicate key": b'{"a": 1, "a": 1}',
    "duplicate key through an escape": b'{"a": 1, "\\u0061": 2}',
    "duplicate key deep inside": b'[[{"b": {"a": 1, "a": 2}}]]',
    "NaN": b'{"a": NaN}',
    "Infinity": b"[Infinity]",
    "-Infinity": b"[-Infinity]",
    "1e999": b'{"a": 1e999}',
    "-1e999": b'{"a": -1e999}',
    "byte order mark": b'\xef\xbb\xbf{"a": 1}',
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "UTF-16 without mark": '{"a": 1}'.encode("utf-16-le"),
    "UTF-32": '{"a": 1}'.encode("utf-32"),
    "Latin-1": '{"a": "é"}'.encode("latin-1"),
    "overlong UTF-8": b'{"a": "\xc0\xaf"}',
    "encoded surrogate": b'{"a": "\xed\xa0\x80"}',
    "lone high surrogate escape": b'{"a": "\\ud800"}',
    "lone low surrogate escape": b'{"a": "\\udfff"}',
    "lone surrogate escape in a key": b'{"\\ud800": 1}',
    "integer of 5,000 digits": b"[" + b"9" * 5_000 + b"]",
    "integer of 2^53": b"[9007199254740992]",
    "integer of -2^53": b"[-9007199254740992]",
    "raw bell": b'{"a": "\x07"}',
    "escaped bell": b'{"a": "\\u0007"}',
    "escaped newline": b'{"a": "\\n"}',
    "escaped NUL in a key": b'{"\\u0000": 1}',
    "raw delete": b'{"a": "\x7f"}',
    "raw C1 control": '{"a": "\x9b31m"}'.encode(),
    "200,000 brackets": b"[" * 200_000,
    "200,000 closed brackets": b"[" * 200_000 + b"]" * 200_000,
    "trailing comma": b"[1,]",
    "comment": b"{} // no",
    "single quotes": b"{'a': 1}",
    "YAML": b"a: 1\n",
    "leading zero": b"[01]",
    "plus sign": b"[+1]",
    "hexadecimal": b"[0x1]",
}


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


@settings(deadline=None, database=None)
@given(VALUES)
def test_what_is_written_reads_back_the_same(value: Any) -> None:
    assert strictjson.parse(strictjson.canonical(value)) == value


@settings(deadline=None, database=None)
@given(VALUES)
def test_the_canonical_form_is_a_fixed_point(value: Any) -> None:
    written = strictjson.canonical(value)
    assert strictjson.canonical(strictjson.parse(written)) == written


def test_the_canonical_form_is_the_one_that_the_format_defines() -> None:
    expected = '{\n  "a": [\n    1,\n    0.5\n  ],\n  "é": null\n}\n'.encode()
    assert strictjson.canonical({"é": None, "a": [1, 0.5]}) == expected


def test_the_order_of_insertion_does_not_matter() -> None:
    assert strictjson.canonical({"a": 1, "b": 2}) == strictjson.canonical({"b": 2, "a": 1})


@pytest.mark.parametrize("data", NOT_STRICT.values(), ids=NOT_STRICT.keys())
def test_what_is_not_strict_is_refused_in_one_line(data: bytes) -> None:
    with pytest.raises(BadManifest) as caught:
        strictjson.parse(data)
    assert caught.value.exit_code == 3
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("oddity", ["duplicate key", "NaN", "1e999", "lone high surrogate escape", "escaped bell"])
def test_the_standard_parser_would_have_accepted_it(oddity: str) -> None:
    assert json.loads(NOT_STRICT[oddity]) is not None


def test_depth_is_capped() -> None:
    with pytest.raises(TooLarge):
        strictjson.parse(nested(strictjson.MAX_DEPTH + 1))


def test_the_deepest_allowed_value_is_read() -> None:
    assert strictjson.parse(nested(strictjson.MAX_DEPTH)) == json.loads(nested(strictjson.MAX_DEPTH))


def test_the_number_of_parts_is_capped() -> None:
    with pytest.raises(TooLarge):
        strictjson.parse(json.dumps([0] * strictjson.MAX_NODES).encode())


def test_as_many_parts_as_allowed_are_read() -> None:
    assert len(strictjson.parse(json.dumps([0] * (strictjson.MAX_NODES - 1)).encode())) == strictjson.MAX_NODES - 1


@pytest.mark.parametrize("template", ['["%s"]', '{"%s": 1}'], ids=["value", "key"])
def test_the_length_of_a_string_is_capped(template: str) -> None:
    with pytest.raises(TooLarge):
        strictjson.parse((template % ("x" * (strictjson.MAX_STRING + 1))).encode())


def test_the_longest_allowed_string_is_read() -> None:
    text = "x" * strictjson.MAX_STRING
    assert strictjson.parse(json.dumps([text]).encode()) == [text]


def test_the_largest_allowed_integers_are_read() -> None:
    assert strictjson.parse(b"[9007199254740991, -9007199254740991]") == [2**53 - 1, 1 - 2**53]


def test_an_error_names_what_was_read() -> None:
    with pytest.raises(BadManifest, match=r"^tag file.*twice"):
        strictjson.parse(b'{"a": 1, "a": 1}', "tag file")


def test_a_duplicate_among_many_keys_is_found_in_less_than_a_second() -> None:
    keys = [f"{number:x}" for number in range(24_000)]
    data = ("{" + ",".join(f'"{key}":1' for key in [*keys, keys[-1]]) + "}").encode()
    start = time.process_time()
    with pytest.raises(CassetteError):
        strictjson.parse(data)
    assert time.process_time() - start < 1.0
