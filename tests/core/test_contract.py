"""Tensors against a signature: what fits passes untouched, anything else is one error that names what and where."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from grokkit_core.contract import PIECE, check_context, check_inputs, named_inputs
from grokkit_core.errors import Incompatible
from grokkit_core.tensors import ContextSpec, Signature, TensorSpec

STATES = TensorSpec("states", ("batch", 15, 4), ("float32", "float64"))
WINDOWS = Signature([STATES], [])
PAIR = Signature(
    [
        TensorSpec("a", ("batch", "n"), ("float32", "float64")),
        TensorSpec("b", ("batch", "n", 3), ("float32", "float64")),
    ],
    [],
)
PRODUCT = Signature(
    [
        TensorSpec("a", ("...", "m", "k"), ("float32", "float64", "int64"), domain="any"),
        TensorSpec("b", ("...", "k", 3), ("float32", "float64", "int64"), domain="any"),
    ],
    [],
)
OMEGA = ContextSpec("omega", "rad/s", (0.0, 4.0))


def holding(value: float, shape: tuple[int, ...] = (2, 15, 4)) -> Tensor:
    """Zeros with one other value."""
    tensor = torch.zeros(shape)
    tensor[(-1,) * len(shape)] = value
    return tensor


def of(domain: Any, dtype: str = "float32", unit: str = "1") -> Signature:
    return Signature([TensorSpec("x", ("batch",), (dtype,), unit, domain)], [])


def in_context(spec: ContextSpec) -> Signature:
    return Signature([], [], [spec])


# -- names ---------------------------------------------------------------------------------------------------------


def test_inputs_may_be_given_by_place_or_by_name() -> None:
    a, b = torch.zeros(1), torch.ones(1)
    ways = [
        named_inputs(PAIR, (a, b), {}),
        named_inputs(PAIR, (a,), {"b": b}),
        named_inputs(PAIR, (), {"b": b, "a": a}),
    ]
    assert all(list(way.items()) == [("a", a), ("b", b)] for way in ways)


@pytest.mark.parametrize(
    ("count", "named", "words"),
    [
        (0, (), "input 'a' is missing; expected inputs a, b"),
        (1, (), "input 'b' is missing"),
        (0, ("b",), "input 'a' is missing"),
        (3, (), r"3 inputs given; expected 2 \(a, b\)"),
        (1, ("c",), "unknown input 'c'; expected a, b"),
        (2, ("b",), "input 'b' is given twice"),
    ],
)
def test_inputs_that_are_not_those_of_the_signature_are_refused(count: int, named: tuple[str, ...], words: str) -> None:
    tensor = torch.zeros(1)
    with pytest.raises(Incompatible, match=words):
        named_inputs(PAIR, (tensor,) * count, dict.fromkeys(named, tensor))


# -- shapes and dtypes ---------------------------------------------------------------------------------------------


def test_what_fits_gives_the_sizes_of_its_symbolic_axes() -> None:
    inputs = {"a": torch.zeros(2, 5), "b": torch.zeros(2, 5, 3)}
    assert check_inputs(PAIR, inputs) == {"batch": 2, "n": 5}


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        (torch.zeros(15, 4), ("'states'", "[15, 4]", "3 axes [batch, 15, 4]")),
        (torch.zeros(2, 1, 15, 4), ("'states'", "[2, 1, 15, 4]", "3 axes")),
        (torch.zeros(()), ("'states'", "[]", "3 axes")),
        (torch.zeros(2, 14, 4), ("axis 1", "'states'", "size 14", "[batch, 15, 4]")),
        (torch.zeros(2, 16, 4), ("axis 1", "'states'", "size 16")),
        (torch.zeros(2, 15, 5), ("axis 2", "'states'", "size 5")),
        (torch.zeros(0, 15, 4), ("axis 0", "'states'", "size 0")),
        (torch.zeros(2, 15, 4, dtype=torch.int64), ("'states'", "int64", "float32 or float64", "cast")),
        (torch.zeros(2, 15, 4, dtype=torch.float16), ("'states'", "float16")),
        (torch.zeros(2, 15, 4, dtype=torch.bool), ("'states'", "bool")),
        (torch.zeros(2, 15, 4, dtype=torch.complex64), ("'states'", "complex64")),
        (np.zeros((2, 15, 4), np.float32), ("'states'", "ndarray", "torch.Tensor")),
        ([[0.0]], ("'states'", "list", "torch.Tensor")),
        (None, ("'states'", "NoneType")),
    ],
)
@pytest.mark.parametrize("force", [False, True])
def test_a_wrong_input_is_named_with_what_was_expected(tensor: Any, words: tuple[str, ...], force: bool) -> None:
    with pytest.raises(Incompatible) as caught:
        check_inputs(WINDOWS, {"states": tensor}, force=force)
    assert [word for word in words if word not in str(caught.value)] == []


def test_axes_of_one_name_have_one_size() -> None:
    with pytest.raises(Incompatible, match=r"axis 1 of input 'b' has size 4 .*expected n = 5"):
        check_inputs(PAIR, {"a": torch.zeros(2, 5), "b": torch.zeros(2, 4, 3)})


def test_batches_of_different_sizes_are_refused() -> None:
    with pytest.raises(Incompatible, match=r"axis 0 of input 'b' has size 3 .*expected batch = 2"):
        check_inputs(PAIR, {"a": torch.zeros(2, 5), "b": torch.zeros(3, 5, 3)})


def test_a_batch_of_one_is_not_stretched() -> None:
    with pytest.raises(Incompatible, match="expected batch = 1"):
        check_inputs(PAIR, {"a": torch.zeros(1, 5), "b": torch.zeros(3, 5, 3)})


def test_inputs_of_two_floating_dtypes_are_refused() -> None:
    with pytest.raises(Incompatible, match=r"float32, torch.float64; expected one dtype"):
        check_inputs(PAIR, {"a": torch.zeros(2, 5), "b": torch.zeros(2, 5, 3, dtype=torch.float64)})


def test_an_integer_input_may_stand_beside_a_floating_one() -> None:
    both = Signature([TensorSpec("a", ("batch",)), TensorSpec("k", ("batch",), ("int64",))], [])
    assert check_inputs(both, {"a": torch.zeros(3), "k": torch.zeros(3, dtype=torch.int64)}) == {"batch": 3}


def test_several_faults_give_one_error() -> None:
    with pytest.raises(Incompatible) as caught:
        check_inputs(PAIR, {"a": holding(torch.nan, (2, 5)), "b": torch.zeros(9, dtype=torch.int64)})
    assert "'a'" in str(caught.value)
    assert "'b'" not in str(caught.value)


@pytest.mark.parametrize("leading", [(), (5,), (2, 1, 4), (7, 7)], ids=str)
def test_three_dots_stand_for_any_leading_axes(leading: tuple[int, ...]) -> None:
    inputs = {"a": torch.zeros(*leading, 6, 5), "b": torch.zeros(*leading, 5, 3)}
    assert check_inputs(PRODUCT, inputs) == {"m": 6, "k": 5}


@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        ((5,), (5, 3), ("'a'", "[5]", "at least 2 axes [..., m, k]")),
        ((), (5, 3), ("'a'", "[]", "at least 2 axes")),
        ((6, 5), (3,), ("'b'", "[3]", "at least 2 axes [..., k, 3]")),
        ((2, 6, 5), (5, 3), ("leading axes of input 'b' are []", "[2]")),
        ((6, 5), (2, 5, 3), ("leading axes of input 'b' are [2]", "[]")),
        ((2, 6, 5), (3, 5, 3), ("leading axes of input 'b' are [3]", "[2]")),
        ((1, 6, 5), (3, 5, 3), ("leading axes of input 'b' are [3]", "[1]")),
        ((2, 1, 6, 5), (1, 2, 5, 3), ("leading axes of input 'b' are [1, 2]", "[2, 1]")),
        ((2, 6, 5), (2, 4, 3), ("axis 1 of input 'b' has size 4", "k = 5")),
        ((2, 6, 5), (2, 5, 4), ("axis 2 of input 'b' has size 4", "[..., k, 3]")),
        ((0, 6, 5), (0, 5, 3), ("axis 0 of input 'a' has size 0",)),
        ((2, 0, 5), (2, 5, 3), ("axis 1 of input 'a' has size 0",)),
    ],
    ids=str,
)
def test_what_stands_under_three_dots_is_the_same_for_all_inputs(
    a: tuple[int, ...], b: tuple[int, ...], words: tuple[str, ...]
) -> None:
    with pytest.raises(Incompatible) as caught:
        check_inputs(PRODUCT, {"a": torch.zeros(a), "b": torch.zeros(b)})
    assert [word for word in words if word not in str(caught.value)] == []


def test_what_is_no_tensor_is_named_under_three_dots_too() -> None:
    with pytest.raises(Incompatible, match="input 'b' is a ndarray"):
        check_inputs(PRODUCT, {"a": torch.zeros(6, 5), "b": np.zeros((5, 3))})  # type: ignore[dict-item]


@pytest.mark.parametrize("signature", [PAIR, PRODUCT], ids=["batch", "dots"])
def test_inputs_on_two_devices_are_refused_and_both_are_named(signature: Signature) -> None:
    inputs = {"a": torch.zeros(2, 5), "b": torch.zeros(2, 5, 3, device="meta")}
    with pytest.raises(Incompatible, match=r"inputs 'a' on cpu, 'b' on meta; expected one device"):
        check_inputs(signature, inputs, force=True)


# -- values --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_is_refused_and_counted(value: float) -> None:
    with pytest.raises(Incompatible, match=r"input 'states' holds NaN or infinity in 1 of 120 places"):
        check_inputs(WINDOWS, {"states": holding(value)})


@pytest.mark.parametrize("value", [torch.nan, torch.inf, 0.0])
def test_the_domain_any_admits_everything(value: float) -> None:
    assert check_inputs(of("any"), {"x": holding(value, (3,))}) == {"batch": 3}


@pytest.mark.parametrize("value", [0.0, 0.1, 4.0])
def test_an_interval_admits_its_inside_and_its_ends(value: float) -> None:
    check_inputs(of((0.0, 4.0)), {"x": torch.full((3,), value)})


@pytest.mark.parametrize("value", [-0.001, 4.001, torch.nan, torch.inf])
def test_an_interval_refuses_its_outside(value: float) -> None:
    with pytest.raises(Incompatible, match="input 'x' holds"):
        check_inputs(of((0.0, 4.0)), {"x": holding(value, (3,))})


def test_a_value_outside_is_named_with_domain_and_unit() -> None:
    with pytest.raises(Incompatible, match=r"input 'x' holds 5, outside its domain; expected \[0, 4\] \[m\]"):
        check_inputs(of((0.0, 4.0), unit="m"), {"x": holding(5.0, (3,))})


def test_a_large_input_is_checked_to_its_end() -> None:
    wide = torch.zeros(3, PIECE // 2)
    for domain in ({0.0, 1.0}, (0.0, 1.0), None):
        signature = Signature([TensorSpec("x", ("batch", PIECE // 2), ("float32",), "1", domain)], [])
        check_inputs(signature, {"x": wide})
        check_inputs(signature, {"x": wide.T.contiguous().T})
        for value in (torch.nan, 5.0) if domain else (torch.inf,):
            bad = wide.clone()
            bad[2, -1] = value
            says = "outside its domain" if value == 5.0 else f"infinity in 1 of {wide.numel()} places"
            with pytest.raises(Incompatible, match=says):
                check_inputs(signature, {"x": bad})


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "uint8"])
def test_a_finite_set_admits_its_members_and_nothing_else(dtype: str) -> None:
    x = torch.tensor([0, 1, 1], dtype=getattr(torch, dtype))
    check_inputs(of({0.0, 1.0}, dtype), {"x": x})
    with pytest.raises(Incompatible, match=r"holds 2, outside its domain; expected \{0, 1\}"):
        check_inputs(of({0.0, 1.0}, dtype), {"x": x + x})


def test_a_number_that_float32_rounds_is_still_a_member() -> None:
    check_inputs(of({0.1, 0.7}), {"x": torch.tensor([0.1, 0.7])})


def test_complex_inputs_are_checked_in_both_parts() -> None:
    for bad in (complex(torch.nan, 0), complex(0, torch.inf)):
        with pytest.raises(Incompatible, match="NaN or infinity"):
            check_inputs(of(None, "complex64"), {"x": torch.tensor([bad])})


def test_a_conjugated_input_is_as_good_as_any() -> None:
    x = torch.tensor([1 + 2j], dtype=torch.complex64).conj()
    assert check_inputs(of(None, "complex64"), {"x": x}) == {"batch": 1}


def test_bits_need_no_check() -> None:
    assert check_inputs(of({0.0, 1.0}, "bool"), {"x": torch.tensor([True, False])}) == {"batch": 2}


@pytest.mark.parametrize("value", [torch.nan, 99.0])
def test_force_admits_values_outside_the_domain(value: float) -> None:
    assert check_inputs(of((0.0, 4.0)), {"x": holding(value, (3,))}, force=True) == {"batch": 3}


def test_inputs_are_not_changed_by_checking() -> None:
    x = torch.rand(2, 15, 4)
    before = x.clone()
    check_inputs(WINDOWS, {"states": x})
    assert torch.equal(x, before)


# -- context -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", [2, 2.0, torch.tensor(2.0), torch.tensor([2.0, 2.0, 2.0]), np.float32(2.0), torch.tensor([2, 2, 2])]
)
def test_context_becomes_one_float64_number_a_sample(value: Any) -> None:
    found = check_context(in_context(OMEGA), {"omega": value}, 3)["omega"]
    assert found.dtype == torch.float64
    assert found.tolist() == [2.0, 2.0, 2.0]


def test_context_may_differ_from_sample_to_sample() -> None:
    given = torch.tensor([0.0, 1.5, 4.0])
    assert check_context(in_context(OMEGA), {"omega": given}, 3)["omega"].tolist() == given.tolist()


def test_extra_context_is_ignored() -> None:
    assert check_context(in_context(OMEGA), {"phi": "anything"}, 3) == {}  # type: ignore[dict-item]


def test_optional_context_may_be_left_out() -> None:
    assert check_context(in_context(OMEGA), {}, 3) == {}


def test_required_context_must_be_given() -> None:
    required = ContextSpec("omega", "rad/s", (0.0, 4.0), required=True)
    with pytest.raises(Incompatible, match=r"'omega' is missing; expected omega \[rad/s\] in \[0, 4\]"):
        check_context(in_context(required), {"phi": 1.0}, 3)


@pytest.mark.parametrize("value", [-0.1, 4.1, torch.tensor([1.0, 2.0, 9.0])])
def test_context_outside_its_domain_is_refused_with_unit(value: Any) -> None:
    with pytest.raises(Incompatible, match=r"context variable 'omega' holds .* expected \[0, 4\] \[rad/s\]"):
        check_context(in_context(OMEGA), {"omega": value}, 3)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_context_that_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(Incompatible, match="'omega' holds NaN or infinity"):
        check_context(in_context(OMEGA), {"omega": value}, 3)


@pytest.mark.parametrize("shape", [(2,), (3, 1), (1,), (0,)])
def test_context_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(Incompatible, match=r"'omega' has shape .*expected a number or \[3\]"):
        check_context(in_context(OMEGA), {"omega": torch.ones(shape)}, 3)


@pytest.mark.parametrize("value", ["fast", None, [[1.0], [1.0, 2.0]], 1j, {}])
def test_context_that_is_no_number_is_refused(value: Any) -> None:
    with pytest.raises(Incompatible, match="context variable 'omega' is .*expected a number"):
        check_context(in_context(OMEGA), {"omega": value}, 3)


def test_force_admits_context_outside_its_domain_but_no_other_shape() -> None:
    assert check_context(in_context(OMEGA), {"omega": 9.0}, 2, force=True)["omega"].tolist() == [9.0, 9.0]
    with pytest.raises(Incompatible, match="shape"):
        check_context(in_context(OMEGA), {"omega": torch.ones(3)}, 2, force=True)
