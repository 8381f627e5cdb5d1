"""The manifest: one canonical form, its own digest, a strict schema, and errors that name the path of the fault."""

from __future__ import annotations

import copy
import dataclasses
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import toys
from hypothesis import given, settings
from hypothesis import strategies as st

from grokkit_core import names, strictjson
from grokkit_core.errors import BadManifest, GrokkitError, HashMismatch, SchemaUnsupported, TooLarge
from grokkit_core.manifest import MAX_CURVE_ROWS, SCHEMA, Manifest, Parent, TaskRef

SHORT = 1_000
"""Longest error message: what the command line prints of one."""

TEXT = st.text(st.characters(exclude_categories=("Cc", "Cs")), max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=10,
)
OBJECTS = st.dictionaries(TEXT, JSON, max_size=4)
FIELDS = sorted(toys.manifest().to_json())
Path = tuple[str | int, ...]

WRONG_TYPES: dict[str, tuple[Path, Any]] = {
    "manifest.summary": (("summary",), 1),
    "manifest.version": (("version",), True),
    "manifest.name": (("name",), "../toy"),
    "manifest.tags": (("tags",), "toy"),
    "manifest.tags[0]": (("tags", 0), None),
    "manifest.task": (("task",), []),
    "manifest.task.parameters": (("task", "parameters"), [1]),
    "manifest.architecture.version": (("architecture", "version"), 0),
    "manifest.architecture.config": (("architecture", "config"), "x"),
    "manifest.inputs[0].unit": (("inputs", 0, "unit"), 1),
    "manifest.inputs[0].dtypes[0]": (("inputs", 0, "dtypes", 0), 32),
    "manifest.inputs[0].domain": (("inputs", 0, "domain"), "finite"),
    "manifest.inputs[0].domain.kind": (("inputs", 0, "domain", "kind"), ["finite"]),
    "manifest.outputs": (("outputs",), {}),
    "manifest.context[0].required": (("context", 0, "required"), 0),
    "manifest.context[0].domain.low": (("context", 0, "domain", "low"), "0"),
    "manifest.weights.bytes": (("weights", "bytes"), 1.0),
    "manifest.weights.file": (("weights", "file"), "../weights.safetensors"),
    "manifest.weights.sha256": (("weights", "sha256"), "0" * 63),
    "manifest.weights.parameters": (("weights", "parameters"), -1),
    "manifest.certificate.verdict": (("certificate", "verdict"), "perfect"),
    "manifest.certificate.bounds[0].value": (("certificate", "bounds", 0, "value"), None),
    "manifest.certificate.metrics[0].interval": (("certificate", "metrics", 0, "interval"), [0.0]),
    "manifest.certificate.metrics[0].interval[1]": (("certificate", "metrics", 0, "interval", 1), "1"),
    "manifest.certificate.metrics[0].stderr": (("certificate", "metrics", 0, "stderr"), -0.1),
    "manifest.certificate.metrics[0].n": (("certificate", "metrics", 0, "n"), 0),
    "manifest.certificate.baselines[0].where": (("certificate", "baselines", 0, "where"), 1),
    "manifest.certificate.seed": (("certificate", "seed"), "0"),
    "manifest.provenance.recipe": (("provenance", "recipe"), "plain"),
    "manifest.provenance.curve.rows[0]": (("provenance", "curve", "rows", 0), 1),
    "manifest.provenance.curve.rows[0][1]": (("provenance", "curve", "rows", 0, 1), True),
    "manifest.provenance.curve.rows": (("provenance", "curve", "rows"), [[0, 0.5]] * (MAX_CURVE_ROWS + 1)),
    "manifest.provenance.parents[0]": (("provenance", "parents"), ["toy@1"]),
    "manifest.provenance.software.plugins": (("provenance", "software", "plugins"), None),
    "manifest.requires.plugins": (("requires", "plugins"), "toys"),
    "manifest.extra": (("extra",), None),
}


def changed(path: Path, value: Any) -> dict[str, Any]:
    """The toy's manifest as JSON, with one node replaced."""
    body: dict[str, Any] = copy.deepcopy(toys.manifest().to_json())
    target: Any = body
    for step in path[:-1]:
        target = target[step]
    target[path[-1]] = value
    return body


def paths(value: Any, prefix: Path = ()) -> Iterator[Path]:
    """The path of every node below the top."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*prefix, key)
        yield from paths(item, (*prefix, key))


def refusal(data: bytes) -> GrokkitError:
    with pytest.raises(GrokkitError) as caught:
        Manifest.parse(data)
    return caught.value


# -- round trip and digest -------------------------------------------------------------------------------------------


def test_a_manifest_reads_back_the_same() -> None:
    made = toys.manifest()
    assert Manifest.parse(made.to_bytes()) == made


@settings(deadline=None, database=None)
@given(summary=TEXT, extra=OBJECTS, parameters=OBJECTS, tags=st.lists(TEXT, max_size=3))
def test_any_value_of_the_free_fields_reads_back_the_same(
    summary: str, extra: dict[str, Any], parameters: dict[str, Any], tags: list[str]
) -> None:
    made = toys.manifest(summary=summary, extra=extra, task=TaskRef("toy", parameters), tags=tuple(tags))
    read = Manifest.parse(made.to_bytes())
    assert read == made
    assert read.to_bytes() == made.to_bytes()


def test_a_manifest_of_a_grown_cassette_reads_back_the_same() -> None:
    parent = Parent("toy", 1, "sha256:" + "0" * 64)
    grown = dataclasses.replace(
        toys.provenance(), kind="grown", recipe=None, seed=None, operator={"id": "widen"}, parents=(parent,)
    )
    made = toys.manifest(provenance=grown)
    assert Manifest.parse(made.to_bytes()) == made


@pytest.mark.parametrize("field", [field for field in FIELDS if field not in ("digest", "schema")])
def test_the_digest_covers_every_field(field: str) -> None:
    body = toys.manifest().to_json()
    body[field] = [body[field]]
    assert isinstance(refusal(strictjson.canonical(body)), HashMismatch)


def test_the_digest_covers_the_weights_through_their_hash() -> None:
    assert toys.manifest().digest != toys.manifest(data=toys.weights(fill=2.0)).digest


def test_another_digest_is_refused() -> None:
    body = {**toys.manifest().to_json(), "digest": "sha256:" + "0" * 64}
    assert isinstance(refusal(strictjson.canonical(body)), HashMismatch)


def test_a_missing_digest_is_refused() -> None:
    body = toys.manifest().to_json()
    del body["digest"]
    assert isinstance(refusal(strictjson.canonical(body)), HashMismatch)


def test_a_replaced_field_leaves_the_original_alone() -> None:
    made = toys.manifest()
    assert made.replace(version=2).version == 2
    assert made.version == 1


# -- one byte form ---------------------------------------------------------------------------------------------------

ODD_BYTES: dict[str, Callable[[str], bytes]] = {
    "duplicate key": lambda text: text.replace('"summary"', '"summary": "a toy",\n  "summary"').encode(),
    "NaN": lambda text: text.replace('"k": 2', '"k": NaN').encode(),
    "1e999": lambda text: text.replace('"k": 2', '"k": 1e999').encode(),
    "byte order mark": lambda text: b"\xef\xbb\xbf" + text.encode(),
    "UTF-16": lambda text: text.encode("utf-16"),
    "lone surrogate escape": lambda text: text.replace("a toy", "\\ud800").encode(),
    "5,000 digits": lambda text: text.replace('"k": 2', '"k": ' + "2" * 5_000).encode(),
    "200,000 brackets": lambda text: b"[" * 200_000,
    "control character": lambda text: text.replace("a toy", "a \\u001b[31mtoy").encode(),
    "raw control character": lambda text: text.replace("a toy", "a \x1b[31mtoy").encode(),
    "unsorted keys": lambda text: (json.dumps(dict(reversed(json.loads(text).items())), indent=2) + "\n").encode(),
    "no final newline": lambda text: text.rstrip("\n").encode(),
    "two final newlines": lambda text: (text + "\n").encode(),
    "Windows newlines": lambda text: text.replace("\n", "\r\n").encode(),
    "tabs": lambda text: text.replace("  ", "\t").encode(),
    "compact": lambda text: json.dumps(json.loads(text), sort_keys=True).encode(),
    "needless escape": lambda text: text.replace("a toy", "a t\\u006fy").encode(),
    "number written otherwise": lambda text: text.replace("0.25", "2.5e-1").encode(),
    "minus zero": lambda text: text.replace('"k": 2', '"k": -0').encode(),
    "list": lambda text: b"[]\n",
    "string": lambda text: b'"toy"\n',
    "YAML": lambda text: b"name: toy\n",
    "empty": lambda text: b"",
}


@pytest.mark.parametrize("change", ODD_BYTES.values(), ids=ODD_BYTES.keys())
def test_other_bytes_of_the_same_meaning_are_refused(change: Callable[[str], bytes]) -> None:
    text = toys.manifest().to_bytes().decode()
    odd = change(text)
    assert odd != text.encode()
    assert isinstance(refusal(odd), BadManifest)


CAPS = {
    "depth": json.loads("[" * 16 + "]" * 16),
    "parts": [0] * 10_000,
    "string": "x" * 4_097,
}


@pytest.mark.parametrize("value", CAPS.values(), ids=CAPS.keys())
def test_a_manifest_beyond_a_cap_is_refused(value: Any) -> None:
    assert isinstance(refusal(toys.manifest(extra={"free": value}).to_bytes()), TooLarge)


# -- schema ----------------------------------------------------------------------------------------------------------


def test_a_future_schema_asks_for_an_upgrade() -> None:
    error = refusal(toys.sealed({**toys.manifest().to_json(), "schema": SCHEMA + 1}))
    assert isinstance(error, SchemaUnsupported)
    assert error.exit_code == 4
    assert "upgrade grokkit" in str(error)


def test_a_future_schema_may_have_fields_that_we_do_not_know() -> None:
    body = {**toys.manifest().to_json(), "schema": SCHEMA + 1, "novelty": 1}
    assert isinstance(refusal(toys.sealed(body)), SchemaUnsupported)


def test_an_altered_manifest_is_not_excused_by_a_future_schema() -> None:
    body = {**toys.manifest().to_json(), "schema": SCHEMA + 1}
    assert isinstance(refusal(strictjson.canonical(body)), HashMismatch)


@pytest.mark.parametrize("schema", [0, -1, True, False, None, "1", 1.0, [1], {}])
def test_a_schema_that_never_was_is_refused(schema: Any) -> None:
    error = refusal(toys.sealed({**toys.manifest().to_json(), "schema": schema}))
    assert isinstance(error, BadManifest)
    assert "manifest.schema" in str(error)


def test_a_missing_schema_is_refused() -> None:
    body = toys.manifest().to_json()
    del body["schema"]
    assert isinstance(refusal(toys.sealed(body)), BadManifest)


# -- fields ----------------------------------------------------------------------------------------------------------


def test_an_unknown_field_is_refused_and_the_nearest_is_named() -> None:
    error = refusal(toys.sealed({**toys.manifest().to_json(), "sumary": "x"}))
    assert isinstance(error, BadManifest)
    assert "'sumary'" in str(error)
    assert "'summary'" in str(error)


def test_an_unknown_field_inside_a_record_is_refused_with_its_path() -> None:
    error = refusal(toys.sealed(changed(("certificate", "metrics", 0, "colour"), "red")))
    assert isinstance(error, BadManifest)
    assert "manifest.certificate.metrics[0]" in str(error)


@pytest.mark.parametrize("field", [field for field in FIELDS if field not in ("digest", "schema")])
def test_a_missing_field_is_named(field: str) -> None:
    body = toys.manifest().to_json()
    del body[field]
    error = refusal(toys.sealed(body))
    assert isinstance(error, BadManifest)
    assert f"'{field}'" in str(error)


def test_a_missing_field_inside_a_record_is_named_with_its_path() -> None:
    body = toys.manifest().to_json()
    del body["provenance"]["software"]["torch"]
    error = refusal(toys.sealed(body))
    assert "manifest.provenance.software" in str(error)
    assert "'torch'" in str(error)


@pytest.mark.parametrize(("named", "fault"), WRONG_TYPES.items(), ids=WRONG_TYPES.keys())
def test_a_value_of_the_wrong_kind_is_refused_with_its_path(named: str, fault: tuple[Path, Any]) -> None:
    error = refusal(toys.sealed(changed(*fault)))
    assert isinstance(error, BadManifest)
    assert str(error).startswith(f"{named} is ")
    assert error.expected


CONTRADICTIONS: dict[str, tuple[Path, Any]] = {
    "axis of size 0": (("inputs", 0, "axes"), ["batch", 0]),
    "axis that is a fraction": (("inputs", 0, "axes"), [1.5]),
    "axis that is true": (("inputs", 0, "axes"), [True]),
    "dtype that does not exist": (("inputs", 0, "dtypes"), ["float31"]),
    "no dtype": (("inputs", 0, "dtypes"), []),
    "tensor name with a space": (("inputs", 0, "name"), "a b"),
    "empty interval": (("context", 0, "domain"), {"kind": "interval", "low": 1.0, "high": 0.0}),
    "unsorted values": (("context", 0, "domain"), {"kind": "values", "values": [2.0, 1.0]}),
    "no values": (("context", 0, "domain"), {"kind": "values", "values": []}),
    "interval without an end": (("context", 0, "domain"), {"kind": "interval", "low": 1.0}),
    "domain of an unknown kind": (("context", 0, "domain"), {"kind": "disc"}),
    "curve row shorter than its columns": (("provenance", "curve", "rows"), [[0]]),
    "curve row longer than its columns": (("provenance", "curve", "rows"), [[0, 1.0, 2.0]]),
    "version beyond nine digits": (("version",), 1_000_000_000),
}


@pytest.mark.parametrize("fault", CONTRADICTIONS.values(), ids=CONTRADICTIONS.keys())
def test_values_that_contradict_the_format_are_refused(fault: tuple[Path, Any]) -> None:
    assert isinstance(refusal(toys.sealed(changed(*fault))), BadManifest)


def test_every_version_that_a_manifest_may_carry_can_name_a_folder() -> None:
    assert names.is_version("999999999")
    assert Manifest.parse(toys.manifest(version=999_999_999).to_bytes()).version == 999_999_999


@pytest.mark.parametrize("role", ["inputs", "outputs", "context"])
def test_a_name_that_stands_twice_in_the_signature_is_refused(role: str) -> None:
    body = toys.manifest().to_json()
    body[role] = [*body[role], *body[role]]
    error = refusal(toys.sealed(body))
    assert isinstance(error, BadManifest)
    assert "twice" in str(error)


LONG = {"name": "x" * 4_000, "axes": [], "dtypes": ["float32"], "unit": "1", "domain": {"kind": "any"}}

HOSTILE: dict[str, tuple[Path, Any]] = {
    "schema": (("schema",), [1] * 5_000),
    "axis": (("inputs", 0, "axes"), [["x" * 4_000] * 20]),
    "dtypes": (("inputs", 0, "dtypes"), ["x" * 4_000] * 20),
    "summary": (("summary",), ["x" * 4_000] * 20),
    "domain": (("inputs", 0, "domain"), {"kind": "x" * 4_000}),
    "field": (("x" * 4_000,), 1),
    "name given twice": (("inputs",), [LONG, LONG]),
    "name of an odd axis": (("inputs",), [{**LONG, "axes": [0]}]),
    "name of a bad axis": (("inputs",), [{**LONG, "axes": ["a b"]}]),
    "name of an odd dtype": (("inputs",), [{**LONG, "dtypes": []}]),
}


@pytest.mark.parametrize("fault", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_message_quotes_only_a_little_of_a_hostile_value(fault: tuple[Path, Any]) -> None:
    error = refusal(toys.sealed(changed(*fault)))
    assert isinstance(error, BadManifest)
    assert len(str(error)) <= SHORT


# -- random damage with a digest that fits ---------------------------------------------------------------------------

SWAPS: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    2,
    1.5,
    1e308,
    "",
    "x",
    "\u202e",
    "é" * 50,
    [],
    [1],
    ["x"],
    [[]],
    {},
    {"kind": "any"},
    {"a": [None]},
)


def outcome(data: bytes) -> Manifest | GrokkitError:
    """The manifest, or the declared error that refuses it."""
    try:
        return Manifest.parse(data)
    except GrokkitError as error:
        return error


def test_two_thousand_type_swaps_raise_nothing_but_declared_errors() -> None:
    chance = random.Random(20260101)
    body = toys.manifest().to_json()
    places = list(paths(body))
    accepted = refused = 0
    for _ in range(2_000):
        data = toys.sealed(changed(chance.choice(places), chance.choice(SWAPS)))
        read = outcome(data)
        if isinstance(read, Manifest):
            accepted += 1
            assert read.to_bytes() == data
        else:
            refused += 1
            assert read.exit_code in (3, 4)
            assert len(str(read).splitlines()) == 1
    assert accepted > 50
    assert refused > 1_000


def test_two_thousand_byte_changes_raise_nothing_but_declared_errors() -> None:
    chance = random.Random(20260102)
    good = toys.manifest().to_bytes()
    for _ in range(2_000):
        data = bytearray(good)
        for _ in range(chance.randint(1, 4)):
            data[chance.randrange(len(data))] ^= chance.randint(1, 255)
        if bytes(data) != good:
            assert refusal(bytes(data)).exit_code == 3
