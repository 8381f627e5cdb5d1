"""Domains, tensor and context specs, signatures: shorthand, JSON, matching and its explanation."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grokkit_core.errors import BadManifest, UsageError
from grokkit_core.records import from_json, to_json
from grokkit_core.tensors import (
    DTYPES,
    ContextSpec,
    Domain,
    Signature,
    TensorSpec,
    common,
    differences,
    parse_context,
)

LAW = settings(max_examples=100, deadline=None, derandomize=True)

quarters = st.integers(-6, 6).map(lambda n: n / 4)
numbers = st.one_of(quarters, st.floats(allow_nan=False, allow_infinity=False))
intervals = st.tuples(numbers, numbers).map(lambda pair: Domain.of((min(pair), max(pair))))
domains = st.one_of(
    st.just(Domain.of("any")),
    st.just(Domain.of(None)),
    intervals,
    st.sets(numbers, min_size=1, max_size=6).map(Domain.of),
)
names = st.sampled_from(["a", "b", "x_1", "omega", "wave-field"])
plain_axes = st.lists(st.one_of(st.sampled_from(["batch", "n", "time"]), st.integers(1, 64)), max_size=4)
axes = st.one_of(plain_axes, plain_axes.map(lambda rest: ["...", *rest]))
units = st.sampled_from(["1", "m", "rad/s"])
tensor_specs = st.builds(
    TensorSpec, names, axes, st.lists(st.sampled_from(DTYPES), min_size=1, max_size=3, unique=True), units, domains
)
context_specs = st.builds(ContextSpec, names, units, domains, st.booleans())


def distinct(specs: st.SearchStrategy[Any], most: int) -> st.SearchStrategy[Any]:
    return st.lists(specs, max_size=most, unique_by=lambda spec: spec.name)


signatures = st.builds(Signature, distinct(tensor_specs, 2), distinct(tensor_specs, 2), distinct(context_specs, 3))


def landmarks(*given: Domain) -> list[float]:
    """Where membership can change, with a point below, between and above."""
    points = sorted({0.0, *(v for d in given for v in (*d.values, d.low, d.high))})
    between = [(a + b) / 2 for a, b in zip(points, points[1:], strict=False) if math.isfinite(a + b)]
    return [*points, *between, -1e9, 1e9, math.nan, math.inf, -math.inf]


def again(kind: Any, value: Any) -> Any:
    """A value after a journey through JSON text."""
    return from_json(kind, json.loads(json.dumps(to_json(value), allow_nan=False)), "it")


def spec(**changes: Any) -> TensorSpec:
    fields: dict[str, Any] = {
        "name": "states",
        "axes": ("batch", 15, 4),
        "dtypes": ("float32", "float64"),
        "unit": "m",
        "domain": (0.0, 4.0),
    }
    return TensorSpec(**(fields | changes))


def signature(**changes: Any) -> Signature:
    return Signature([spec(**changes)], [TensorSpec("state", ("batch", 4))])


# -- domains -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shorthand", "domain"),
    [
        (None, Domain("finite")),
        ("finite", Domain("finite")),
        ("any", Domain("any")),
        ((0.0, 4.0), Domain("interval", low=0.0, high=4.0)),
        ({1.0, 0.0}, Domain("values", values=(0.0, 1.0))),
        ([3.0, 1.0, 2.0], Domain("values", values=(1.0, 2.0, 3.0))),
        (Domain("any"), Domain("any")),
    ],
)
def test_shorthand_means_a_domain(shorthand: Any, domain: Domain) -> None:
    assert Domain.of(shorthand) == domain


@pytest.mark.parametrize(
    "shorthand",
    ["all", (3.0, 1.0), (1.0, 2.0, 3.0), set(), 5, {"a"}, (math.nan, 1.0), (0.0, math.inf), {math.nan}, {math.inf}],
    ids=repr,
)
def test_shorthand_that_means_no_domain_is_a_usage_error(shorthand: Any) -> None:
    with pytest.raises(UsageError):
        Domain.of(shorthand)


@LAW
@given(domains)
def test_a_domain_survives_json(domain: Domain) -> None:
    assert again(Domain, domain) == domain


@pytest.mark.parametrize("given_values", [{False, True}, [1.0, 1.0, 2.0], [0.0, -0.0], {0, 1}], ids=repr)
def test_a_finite_set_survives_json_however_it_was_given(given_values: Any) -> None:
    domain = Domain.of(given_values)
    assert again(Domain, domain) == domain


@pytest.mark.parametrize(
    "value",
    [
        {"kind": "interval", "low": 2.0, "high": 1.0},
        {"kind": "interval", "low": 2.0},
        {"kind": "values", "values": []},
        {"kind": "values", "values": [2.0, 1.0]},
        {"kind": "values", "values": [1.0, 1.0]},
        {"kind": "finite", "low": 0.0},
        {"kind": "everything"},
        {"kind": ["interval"]},
        "finite",
        None,
    ],
    ids=json.dumps,
)
def test_json_that_is_no_domain_is_a_bad_manifest(value: Any) -> None:
    with pytest.raises(BadManifest, match="inputs"):
        Domain.from_json(value, "inputs[0].domain")


@LAW
@given(domains, domains)
def test_domains_intersect_exactly_where_they_share_a_number(a: Domain, b: Domain) -> None:
    shared = [v for v in landmarks(a, b) if a.contains(v) and b.contains(v)]
    assert a.intersects(b) == b.intersects(a) == bool(shared)


@LAW
@given(domains, domains)
def test_an_intersection_holds_exactly_what_both_hold(a: Domain, b: Domain) -> None:
    if a.intersects(b):
        for value in landmarks(a, b):
            assert a.intersection(b).contains(value) == (a.contains(value) and b.contains(value))


@LAW
@given(domains, domains)
def test_intersection_is_symmetric_and_survives_json(a: Domain, b: Domain) -> None:
    if a.intersects(b):
        assert a.intersection(b) == b.intersection(a) == again(Domain, a.intersection(b))


@LAW
@given(domains)
def test_a_domain_intersected_with_itself_is_itself(domain: Domain) -> None:
    assert domain.intersects(domain)
    assert domain.intersection(domain) == domain


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_only_the_domain_any_holds_what_is_not_finite(value: float) -> None:
    held = [d.contains(value) for d in map(Domain.of, ("any", None, (0.0, 1.0), {0.0}))]
    assert held == [True, False, False, False]


def test_an_interval_holds_its_ends() -> None:
    domain = Domain.of((1.0, 2.0))
    assert [domain.contains(v) for v in (0.999, 1.0, 2.0, 2.001)] == [False, True, True, False]


def test_a_domain_is_shown_in_words() -> None:
    shown = [str(Domain.of(d)) for d in ((0.0, 4.0), {1.0, 0.5}, None, "any", set(map(float, range(20))))]
    assert shown[:4] == ["[0, 4]", "{0.5, 1}", "all finite numbers", "all numbers"]
    assert shown[4].endswith("7, ...}")


# -- specs ---------------------------------------------------------------------------------------------------------


@LAW
@given(signatures)
def test_a_signature_survives_json(made: Signature) -> None:
    body = json.loads(json.dumps(made.to_json(), allow_nan=False))
    read = Signature(
        [from_json(TensorSpec, item, "inputs") for item in body["inputs"]],
        [from_json(TensorSpec, item, "outputs") for item in body["outputs"]],
        [from_json(ContextSpec, item, "context") for item in body["context"]],
    )
    assert read == made


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "two words"}, "tensor name 'two words'"),
        ({"name": ""}, "tensor name ''"),
        ({"axes": ("batch", 0)}, "axis 0"),
        ({"axes": ("batch", True)}, "axis True"),
        ({"axes": ("batch", 1.5)}, "axis 1.5"),
        ({"axes": ("a b",)}, "axis of 'states' 'a b'"),
        ({"dtypes": ()}, "dtypes"),
        ({"dtypes": ("float33",)}, "float33"),
    ],
)
def test_a_bad_tensor_spec_is_refused_in_words(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        spec(**changes)


@pytest.mark.parametrize("changes", [{"name": "two words"}, {"axes": [0]}, {"dtypes": []}, {"unit": 1}, {"extra": 1}])
def test_a_bad_tensor_spec_in_a_manifest_is_a_bad_manifest(changes: dict[str, Any]) -> None:
    with pytest.raises(BadManifest, match="inputs"):
        from_json(TensorSpec, to_json(spec()) | changes, "inputs[0]")


@pytest.mark.parametrize("changes", [{"name": "two words"}, {"required": 1}, {"domain": None}])
def test_a_bad_context_spec_in_a_manifest_is_a_bad_manifest(changes: dict[str, Any]) -> None:
    with pytest.raises(BadManifest, match="context"):
        from_json(ContextSpec, to_json(ContextSpec("omega")) | changes, "context[0]")


@pytest.mark.parametrize("group", ["inputs", "outputs", "context"])
def test_a_signature_names_nothing_twice(group: str) -> None:
    twice: dict[str, Any] = {"inputs": [spec()], "outputs": [spec()], "context": [ContextSpec("omega")]}
    twice[group] = twice[group] * 2
    with pytest.raises(UsageError, match="twice"):
        Signature(**twice)


def test_an_input_and_an_output_may_share_a_name() -> None:
    assert Signature([spec()], [spec()]).inputs == Signature([spec()], [spec()]).outputs


def test_specs_cannot_be_changed() -> None:
    for value in (spec(), ContextSpec("omega"), signature(), Domain()):
        with pytest.raises(AttributeError):
            value.name = "other"  # type: ignore[misc, union-attr]


def test_a_spec_says_axes_dtypes_unit_and_domain() -> None:
    assert str(spec()) == "states [batch, 15, 4] float32|float64, unit m, [0, 4]"
    assert str(ContextSpec("omega", "rad/s", (0.0, 4.0), True)) == "omega [rad/s] in [0, 4], required"


def test_a_signature_finds_its_variables() -> None:
    omega = ContextSpec("omega")
    made = Signature([spec()], [], [omega])
    assert made.variable("omega") is omega
    assert made.variable("phi") is None
    assert made.with_context([]).context == ()


# -- matching ------------------------------------------------------------------------------------------------------


def test_equal_signatures_do_not_differ() -> None:
    assert differences(signature(), signature()) == ()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "windows"}, ("input", "'states'", "'windows'")),
        ({"axes": ("batch", 14, 4)}, ("axis 1", "'states'", "15", "14")),
        ({"axes": ("batch", "time", 4)}, ("axis 1", "15", "time")),
        ({"axes": ("batch", 4)}, ("3 axes [batch, 15, 4]", "2 axes [batch, 4]")),
        ({"unit": "km"}, ("unit", "'states'", "m against km")),
        ({"dtypes": ("complex64",)}, ("dtypes", "float32|float64", "complex64")),
        ({"domain": (5.0, 6.0)}, ("domain", "[0, 4]", "[5, 6]")),
    ],
)
def test_one_difference_is_named_with_both_sides(changes: dict[str, Any], words: tuple[str, ...]) -> None:
    (found,) = differences(signature(), signature(**changes))
    assert all(word in found for word in words)


def test_another_number_of_tensors_is_a_difference() -> None:
    more = Signature([spec(), spec(name="more")], signature().outputs)
    assert differences(signature(), more) == ("1 inputs against 2",)


def test_a_difference_of_outputs_says_output() -> None:
    other = Signature([spec()], [TensorSpec("state", ("batch", 5))])
    assert differences(signature(), other) == ("axis 1 of output 'state' is 4 against 5",)


def test_every_difference_is_named() -> None:
    assert len(differences(signature(), signature(unit="km", axes=("batch", 1, 2), domain={9.0}))) == 4


def test_overlapping_dtypes_and_domains_match() -> None:
    assert differences(signature(), signature(dtypes=("float64",), domain=(4.0, 9.0))) == ()


def test_context_takes_no_part_in_matching() -> None:
    assert differences(signature(), signature().with_context([ContextSpec("omega", required=True)])) == ()


@LAW
@given(signatures, signatures)
def test_matching_is_symmetric(a: Signature, b: Signature) -> None:
    assert bool(differences(a, b)) == bool(differences(b, a))


@LAW
@given(signatures)
def test_every_signature_matches_itself(made: Signature) -> None:
    assert differences(made, made) == ()


@LAW
@given(signatures, st.data())
def test_what_matching_signatures_have_in_common_matches_both(a: Signature, data: st.DataObject) -> None:
    def near(item: TensorSpec) -> TensorSpec:
        dtypes = data.draw(st.lists(st.sampled_from(DTYPES), max_size=2, unique=True))
        return TensorSpec(item.name, item.axes, [*item.dtypes, *dtypes][-2:], item.unit, data.draw(domains))

    b = Signature(map(near, a.inputs), map(near, a.outputs), data.draw(distinct(context_specs, 3)))
    if not differences(a, b):
        shared = common([a, b])
        assert differences(shared, a) == differences(shared, b) == ()
        for one, two, both in zip(a.inputs, b.inputs, shared.inputs, strict=True):
            assert set(both.dtypes) == set(one.dtypes) & set(two.dtypes)
            for value in landmarks(one.domain, two.domain):
                assert both.domain.contains(value) == (one.domain.contains(value) and two.domain.contains(value))


def test_common_keeps_only_context_that_all_share() -> None:
    first = signature().with_context([ContextSpec("omega", "rad/s", (0.0, 4.0)), ContextSpec("phi")])
    second = signature().with_context([ContextSpec("omega", "rad/s", (2.0, 9.0), required=True)])
    assert common([first, second]).context == (ContextSpec("omega", "rad/s", (2.0, 4.0), required=True),)


@pytest.mark.parametrize("other", [ContextSpec("omega", "Hz"), ContextSpec("omega", "rad/s", (8.0, 9.0))])
def test_common_drops_context_with_another_unit_or_domain(other: ContextSpec) -> None:
    first = signature().with_context([ContextSpec("omega", "rad/s", (0.0, 4.0))])
    assert common([first, signature().with_context([other])]).context == ()


# -- context from text ---------------------------------------------------------------------------------------------


def test_context_is_parsed_from_pairs() -> None:
    assert parse_context(["omega=1.5", "phi=-2e-3"]) == {"omega": 1.5, "phi": -0.002}


@pytest.mark.parametrize("pair", ["omega", "omega=", "=1.5", "omega=fast", ""])
def test_a_bad_context_pair_says_what_was_expected(pair: str) -> None:
    with pytest.raises(UsageError, match="name=number"):
        parse_context([pair])


# -- leading axes --------------------------------------------------------------------------------------------------


def test_three_dots_are_shown_and_survive_json() -> None:
    dots = spec(axes=("...", "m", 4))
    assert dots.shape == "[..., m, 4]"
    assert again(TensorSpec, dots) == dots
    assert again(TensorSpec, dots).axes == ("...", "m", 4)


@pytest.mark.parametrize("axes", [("m", "..."), ("...", "..."), ("batch", "...", 4), ("....",), ("..",), ("…", "m")])
def test_three_dots_stand_first_and_once(axes: tuple[str | int, ...]) -> None:
    with pytest.raises(UsageError, match="axis of 'states'"):
        spec(axes=axes)
    value = {**to_json(spec()), "axes": list(axes)}
    with pytest.raises(BadManifest):
        from_json(TensorSpec, value, "inputs[0]")


def test_three_dots_are_no_batch() -> None:
    found = differences(signature(axes=("...", 15, 4)), signature(axes=("batch", 15, 4)))
    assert found == ("axis 0 of input 'states' is ... against batch",)
    assert differences(signature(axes=("...", 15, 4)), signature(axes=("...", 15, 4))) == ()
    assert common([signature(axes=("...", 4))] * 2).inputs[0].axes == ("...", 4)
