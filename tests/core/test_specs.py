"""Component specs and declared settings: types, ranges, defaults, ids, and the third-party example of the documentation."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grokkit_core.errors import UsageError
from grokkit_core.specs import (
    COMPONENT_TYPES,
    ArchitectureSpec,
    CassetteRoot,
    Field,
    FieldType,
    FusionSpec,
    GateSpec,
    RecipeSpec,
    TaskSpec,
    TransferSpec,
    check_settings,
    normal,
    parse_settings,
    settle,
)
from grokkit_core.tensors import Domain, Signature, TensorSpec

LAW = settings(max_examples=100, deadline=None, derandomize=True)
NOTHING = Signature([], [])
FIELDS = [
    Field("epochs", "int", 60, low=1, high=100),
    Field("lr", "float", 0.01, low=0.0),
    Field("frozen", "bool", False),
    Field("mode", "str", "fixed", choices=("fixed", "random")),
    Field("knots", "floats", (0.5, 1.0), low=0.0, high=4.0),
    Field("plan", "json", None),
]
EXAMPLE = """
from grokkit_core import hookimpl
from grokkit_core.specs import ArchitectureSpec, CassetteRoot, RecipeSpec, TaskSpec
from grokkit_core.tensors import Signature, TensorSpec

BITS = TensorSpec("bits", axes=("batch", "n"), dtypes=("float32",), domain={0.0, 1.0})
MAJORITY = TensorSpec("majority", axes=("batch", 1), dtypes=("float32",), domain={0.0, 1.0})

@hookimpl
def grokkit_components():
    yield TaskSpec("majority", Signature([BITS], [MAJORITY]), target="grokkit_majority.law:Majority", metric="accuracy")
    yield ArchitectureSpec("grokkit_majority/mlp", version=1, target="grokkit_majority.model:Mlp")
    yield RecipeSpec("majority/default", task="majority", architecture="grokkit_majority/mlp", target="grokkit_majority.recipes:default")
    yield CassetteRoot("grokkit_majority", "cassettes")
"""
"""`plugin.py` of section 3 of the architecture document, as it stands there."""

MAKERS: dict[str, Callable[[str], Any]] = {
    "task": lambda id: TaskSpec(id, NOTHING, target="a.b:C"),
    "architecture": lambda id: ArchitectureSpec(id, version=1, target="a.b:C"),
    "recipe": lambda id: RecipeSpec(id, task="t", architecture="a/b", target="a.b:C"),
    "transfer operator": lambda id: TransferSpec(id, target="a.b:C"),
    "fusion": lambda id: FusionSpec(id, target="a.b:C"),
    "gate": lambda id: GateSpec(id, target="a.b:C"),
}
BARE, OWNED = {"parity", "zero-pad", "p2"}, {"grokkit_hpu/grow-modes", "Own_1/x"}
NEITHER = {"", "-a", "a-", "two words", "Upper", "a_b", "a/b/c", "/a", "a/", "own/Upper", "a.b", "ä", "a\n"}


# -- fields --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("type_", "good", "bad"),
    [
        ("int", [0, -3, 2**40], [1.0, True, "1", None, [1], math.inf, math.nan]),
        ("float", [0, 0.5, -1e300], [True, "0.5", None, math.inf, -math.inf, math.nan]),
        ("bool", [True, False], [0, 1, "true", None]),
        ("str", ["", "any"], [1, None, True, ["a"]]),
        ("floats", [[1.0], (1, 2.5)], [[], (), 1.0, [True], ["1"], [math.nan], "12", None]),
        ("cassette", ["", "four@2", "any"], [1, None, True, ["a"]]),
        ("json", [None, 1, "a", [1], {"a": 1}], []),
    ],
)
def test_a_field_admits_its_type_and_nothing_else(type_: FieldType, good: list[Any], bad: list[Any]) -> None:
    field = Field("x", type_)
    assert [value for value in good if not field.admits(value)] == []
    assert [value for value in bad if field.admits(value)] == []


@pytest.mark.parametrize("type_", ["int", "float", "floats"])
def test_a_field_admits_its_range_with_both_ends(type_: FieldType) -> None:
    field = Field("x", type_, low=1, high=3)
    values = [0, 1, 2, 3, 4]
    assert [field.admits([v] if type_ == "floats" else v) for v in values] == [False, True, True, True, False]


def test_a_text_field_admits_its_choices_only() -> None:
    field = Field("x", "str", choices=("a", "b"))
    assert [field.admits(value) for value in ("a", "b", "c", "")] == [True, True, False, False]


@pytest.mark.parametrize("type_", ["int", "float"])
def test_an_integer_beyond_every_float_is_refused(type_: FieldType) -> None:
    with pytest.raises(UsageError):
        check_settings([Field("x", type_, high=10)], {"x": 10**400}, "it")


@pytest.mark.parametrize(
    ("field", "words"),
    [
        (Field("x", "int", low=1, high=64), "an integer from 1 to 64"),
        (Field("x", "float", low=0), "a number of at least 0"),
        (Field("x", "float", high=5), "a number of at most 5"),
        (Field("x", "floats"), "a list of numbers"),
        (Field("x", "bool"), "true or false"),
        (Field("x", "cassette"), "a cassette's name"),
        (Field("x", "str", choices=("a", "b")), "one of a, b"),
    ],
)
def test_a_field_says_what_it_admits(field: Field, words: str) -> None:
    assert field.expected == words


@pytest.mark.parametrize(
    ("type_", "text", "value"),
    [
        ("int", "3", 3),
        ("float", "1e-3", 0.001),
        ("float", ".5", 0.5),
        ("bool", "true", True),
        ("str", "3", "3"),
        ("str", "true", "true"),
        ("cassette", "square@1", "square@1"),
        ("floats", ".85,1,1e1", [0.85, 1, 10.0]),
        ("json", '{"a": [1]}', {"a": [1]}),
    ],
)
def test_text_is_parsed_by_the_type_of_its_field(type_: FieldType, text: str, value: Any) -> None:
    found = parse_settings([Field("x", type_)], [f"x={text}"], "it")["x"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("type_", "text"),
    [
        ("int", "3.0"),
        ("int", "true"),
        ("int", "three"),
        ("int", ""),
        ("float", "nan"),
        ("float", "Infinity"),
        ("float", "1e999"),
        ("bool", "1"),
        ("bool", "yes"),
        ("floats", ""),
        ("floats", "1,,2"),
    ],
)
def test_text_of_another_type_is_refused(type_: FieldType, text: str) -> None:
    with pytest.raises(UsageError, match="x="):
        parse_settings([Field("x", type_)], [f"x={text}"], "it")


@LAW
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_number_survives_being_typed(number: float) -> None:
    assert parse_settings([Field("x", "float")], [f"x={number!r}"], "it") == {"x": number}


@LAW
@given(st.lists(st.text(max_size=8), max_size=4))
def test_no_typed_text_gives_another_error_than_a_usage_error(pairs: list[str]) -> None:
    try:
        parse_settings(FIELDS, pairs, "it")
    except UsageError:
        return
    assert all("=" in pair for pair in pairs)


def test_a_setting_without_an_equals_sign_is_refused() -> None:
    with pytest.raises(UsageError, match="name=value"):
        parse_settings(FIELDS, ["epochs"], "it")


def test_a_value_may_hold_an_equals_sign() -> None:
    assert parse_settings([Field("x", "str")], ["x=a=b"], "it") == {"x": "a=b"}


def test_parsing_adds_no_defaults() -> None:
    assert parse_settings(FIELDS, ["epochs=5"], "it") == {"epochs": 5}


# -- settling ------------------------------------------------------------------------------------------------------


def test_settling_fills_in_defaults() -> None:
    assert settle(FIELDS, {"epochs": 5}, "it") == {
        "epochs": 5,
        "lr": 0.01,
        "frozen": False,
        "mode": "fixed",
        "knots": (0.5, 1.0),
        "plan": None,
    }


def test_settling_leaves_what_was_given_alone() -> None:
    given_settings = {"epochs": 5}
    settle(FIELDS, given_settings, "it")
    assert given_settings == {"epochs": 5}


def test_settling_again_changes_nothing() -> None:
    settled = settle(FIELDS, {"epochs": 5}, "it")
    assert settle(FIELDS, settled, "it") == settled


def test_a_required_setting_must_be_given() -> None:
    with pytest.raises(UsageError, match="recipe r needs a value for 'width'; expected an integer"):
        settle([Field("width", "int")], {}, "recipe r")


@pytest.mark.parametrize("value", [None, False, 0, ""])
def test_an_empty_value_counts_as_given(value: Any) -> None:
    assert settle([Field("plan", "json")], {"plan": value}, "it") == {"plan": value}


@pytest.mark.parametrize("check", [settle, check_settings])
def test_an_unknown_setting_suggests_the_nearest(check: Callable[..., Any]) -> None:
    with pytest.raises(UsageError, match="recipe r has no setting 'epoch'; did you mean 'epochs'"):
        check(FIELDS, {"epoch": 1}, "recipe r")


@pytest.mark.parametrize("check", [settle, check_settings])
@pytest.mark.parametrize("value", [0, 101, 1.0, True, "7", None])
def test_a_setting_outside_type_or_range_says_what_was_expected(check: Callable[..., Any], value: Any) -> None:
    with pytest.raises(UsageError, match=r"epochs=.* of it; expected an integer from 1 to 100"):
        check(FIELDS, {"epochs": value}, "it")


# -- ids -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "identifiers"), [("task", BARE), ("architecture", OWNED), ("recipe", OWNED)])
def test_an_id_has_the_form_of_its_kind(kind: str, identifiers: set[str]) -> None:
    assert {MAKERS[kind](identifier).id for identifier in identifiers} == identifiers


@pytest.mark.parametrize("kind", ["transfer operator", "fusion", "gate"])
def test_an_operator_a_fusion_or_a_gate_may_have_either_form(kind: str) -> None:
    assert all(MAKERS[kind](identifier) for identifier in BARE | OWNED)


@pytest.mark.parametrize(
    ("kind", "identifier"),
    [(kind, identifier) for kind in MAKERS for identifier in sorted(NEITHER)]
    + [("task", identifier) for identifier in OWNED]
    + [(kind, identifier) for kind in ("architecture", "recipe") for identifier in BARE],
)
def test_an_id_of_another_form_is_refused_by_kind(kind: str, identifier: str) -> None:
    with pytest.raises(UsageError, match=f"^{kind} id"):
        MAKERS[kind](identifier)


@pytest.mark.parametrize("target", ["", "module", "module:", ":name", "a b:c", "a:b:c", "1a:b", "a:b()"])
def test_a_target_is_an_import_string(target: str) -> None:
    with pytest.raises(UsageError, match="expected module:name"):
        GateSpec("gate", target=target)


def test_ids_compare_without_case_and_separators() -> None:
    assert normal("Grokkit_HPU/Grow.Modes") == normal("grokkit-hpu/grow_modes")
    assert normal("a") != normal("b")


@pytest.mark.parametrize("kind", list(MAKERS))
def test_a_spec_knows_its_kind_and_is_a_component(kind: str) -> None:
    made = MAKERS[kind]("a/b" if kind in ("architecture", "recipe") else "a")
    assert made.kind == kind
    assert isinstance(made, COMPONENT_TYPES)


@pytest.mark.parametrize("kind", list(MAKERS))
def test_a_spec_cannot_be_changed(kind: str) -> None:
    made = MAKERS[kind]("a/b" if kind in ("architecture", "recipe") else "a")
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.id = "other"


def test_declared_settings_are_kept_as_a_tuple() -> None:
    fields = [Field("width", "int")]
    made = ArchitectureSpec("a/b", version=1, target="a:b", config=fields)
    fields.clear()
    assert made.config == (Field("width", "int"),)


def test_an_accuracy_is_better_when_higher() -> None:
    assert TaskSpec("parity", NOTHING, target="a:b", metric="accuracy").higher_is_better
    assert not TaskSpec("parity", NOTHING, target="a:b", metric="mse").higher_is_better


def test_a_cassette_root_is_known_by_package_and_folder() -> None:
    assert CassetteRoot("grokkit_x").id == "grokkit_x:."
    assert CassetteRoot("grokkit_x", "cassettes").id != CassetteRoot("grokkit_x").id


# -- the documented example ----------------------------------------------------------------------------------------


def example() -> list[Any]:
    """What the example of the documentation yields."""
    space: dict[str, Any] = {}
    exec(compile(EXAMPLE, "plugin.py", "exec"), space)
    return list(space["grokkit_components"]())


def test_the_documented_plugin_yields_one_component_of_each_kind() -> None:
    assert [type(item) for item in example()] == [TaskSpec, ArchitectureSpec, RecipeSpec, CassetteRoot]


def test_the_documented_task_is_as_written() -> None:
    task = example()[0]
    bits = TensorSpec("bits", ("batch", "n"), domain=Domain("values", values=(0.0, 1.0)))
    assert task.id == "majority"
    assert task.signature.inputs == (bits,)
    assert task.signature.outputs[0].axes == ("batch", 1)
    assert task.higher_is_better


def test_the_documented_recipe_joins_task_and_architecture() -> None:
    task, architecture, recipe, _ = example()
    assert (recipe.task, recipe.architecture) == (task.id, architecture.id)
