"""Checks of every row of a finite domain, and which domains are finite."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Mapping
from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from grokkit_core.certify.exhaustive import (
    MOST_ROWS,
    MOST_VALUES,
    Exhausted,
    bit_rows,
    domain_size,
    exhaust,
    finite_values,
)
from grokkit_core.errors import UsageError
from grokkit_core.tensors import ContextSpec, Signature, TensorSpec

LAW = settings(max_examples=80, deadline=None, derandomize=True)


def numbers(start: int, stop: int) -> Tensor:
    return torch.arange(start, stop)


def table(width: int) -> Callable[[int, int], Tensor]:
    return lambda start, stop: bit_rows(start, stop, width, dtype=torch.float32)


def all_but(*wrong: int) -> Callable[[Tensor], Tensor]:
    """A check of row numbers that finds these wrong."""
    return lambda rows: ~torch.isin(rows, torch.tensor(wrong))


def signature(*inputs: TensorSpec, context: tuple[ContextSpec, ...] = ()) -> Signature:
    return Signature(inputs, [TensorSpec("logits", ("batch", 2))], context)


def bits(width: int, **changes: Any) -> TensorSpec:
    return TensorSpec(**({"name": "bits", "axes": ("batch", width), "dtypes": ("uint8",), "domain": {0, 1}} | changes))


# -- rows of bits --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [1, 2, 3, 5])
def test_the_truth_table_is_all_tuples_in_order(width: int) -> None:
    assert bit_rows(0, 2**width, width, dtype=torch.int64).tolist() == [
        list(row) for row in product((0, 1), repeat=width)
    ]


@LAW
@given(st.integers(1, 62), st.data())
def test_a_row_spells_its_number_with_the_most_significant_bit_first(width: int, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, 2**width - 1))
    stop = min(2**width, start + data.draw(st.integers(1, 5)))
    rows = bit_rows(start, stop, width, dtype=torch.uint8).tolist()
    assert [int("".join(map(str, row)), 2) for row in rows] == list(range(start, stop))


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float32, torch.float64])
def test_rows_have_the_dtype_and_no_rows_are_none(dtype: torch.dtype) -> None:
    assert bit_rows(2, 4, 2, dtype=dtype).dtype == dtype
    assert bit_rows(4, 4, 2, dtype=dtype).shape == (0, 2)


@pytest.mark.parametrize(("start", "stop", "width"), [(-1, 2, 3), (3, 2, 3), (0, 9, 3), (0, 1, 0), (0, 1, 63)])
def test_rows_beyond_the_table_are_refused(start: int, stop: int, width: int) -> None:
    with pytest.raises(UsageError, match="bits"):
        bit_rows(start, stop, width, dtype=torch.uint8)


# -- every row -----------------------------------------------------------------------------------------------------


@LAW
@given(st.integers(1, 300), st.integers(1, 400), st.data())
def test_what_is_found_does_not_depend_on_the_chunks(count: int, chunk: int, data: st.DataObject) -> None:
    margins = torch.tensor(data.draw(st.lists(st.sampled_from([-2.5, 0.0, 0.5, 3.0]), min_size=count, max_size=count)))
    found = exhaust(count, numbers, lambda rows: margins[rows], chunk=chunk)
    wrong = [index for index, margin in enumerate(margins.tolist()) if margin <= 0]
    assert found == Exhausted(count, len(wrong), margins.min().item(), wrong[0] if wrong else None)
    assert found.holds == (not wrong)


@pytest.mark.parametrize("chunk", [1, 7, 64, 100, 101])
@pytest.mark.parametrize("at", [0, 63, 64, 99])
def test_one_wrong_row_is_found_wherever_it_stands(at: int, chunk: int) -> None:
    assert exhaust(100, numbers, all_but(at), chunk=chunk) == Exhausted(100, 1, 0.0, at)
    assert exhaust(100, numbers, all_but(), chunk=chunk) == Exhausted(100, 0, 1.0, None)


def test_the_first_of_several_wrong_rows_is_named() -> None:
    assert exhaust(100, numbers, all_but(99, 41, 40), chunk=41).first == 40


@pytest.mark.parametrize("value", [0.0, math.nan, -math.inf])
def test_zero_and_nan_are_wrong(value: float) -> None:
    found = exhaust(9, numbers, lambda rows: torch.where(rows == 8, value, 1.0), chunk=4)
    assert (found.wrong, found.first) == (1, 8)
    assert found.worst == (0.0 if value == 0 else -math.inf)


def test_infinite_margins_are_right() -> None:
    assert exhaust(3, numbers, lambda rows: torch.full((len(rows),), math.inf)) == Exhausted(3, 0, math.inf, None)


def test_parity_of_20_bits_is_checked_on_every_row_and_a_late_flaw_is_found() -> None:
    width, last = 20, 2**20 - 1
    seen = []

    def parity(rows: Tensor) -> Tensor:
        return rows.sum(dim=1).remainder(2)

    def product_of_signs(rows: Tensor) -> Tensor:
        return (1 - (1 - 2 * rows).prod(dim=1)) / 2

    found = exhaust(
        2**width,
        table(width),
        lambda rows: parity(rows) == product_of_signs(rows),
        chunk=50_000,
        progress=lambda done, count: seen.append((done, count)),
    )
    assert found == Exhausted(2**20, 0, 1.0, None)
    assert seen == [(min(50_000 * step, 2**20), 2**20) for step in range(1, 22)]
    flawed = exhaust(2**width, table(width), lambda rows: (rows.sum(dim=1) == 20) == (parity(rows) == 2))
    assert flawed == Exhausted(2**20, 1, 0.0, last)


def test_rows_may_be_several_tensors_by_name() -> None:
    def pairs(start: int, stop: int) -> Mapping[str, Tensor]:
        index = torch.arange(start, stop)
        return {"a": index // 7, "b": index % 7}

    found = exhaust(49, pairs, lambda rows: (rows["a"] + rows["b"]) % 7 == (rows["b"] + rows["a"]) % 7, chunk=10)
    assert found.holds
    assert exhaust(49, pairs, lambda rows: (rows["a"] - rows["b"]) == (rows["b"] - rows["a"])).wrong == 42


def test_a_chunk_is_gone_before_the_next_one_is_made() -> None:
    made: list[weakref.ref[Tensor]] = []

    def rows(start: int, stop: int) -> Tensor:
        assert not any(reference() is not None for reference in made)
        table = bit_rows(start, stop, 12, dtype=torch.bool)
        made.append(weakref.ref(table))
        return table

    exhaust(2**12, rows, lambda table: table.any(dim=1), chunk=512)
    assert len(made) == 8


def test_rows_are_checked_without_gradients() -> None:
    weight = torch.ones(1, requires_grad=True)
    seen = []
    exhaust(2, numbers, lambda rows: (seen.append((rows * weight).requires_grad), rows >= 0)[1])  # type: ignore[func-returns-value]
    assert seen == [False]


@pytest.mark.parametrize("count", [0, -1, MOST_ROWS + 1, 2**64])
def test_no_rows_and_too_many_rows_are_refused_before_any_is_made(count: int) -> None:
    with pytest.raises(UsageError, match=r"1 to 2\^40"):
        exhaust(count, pytest.fail, pytest.fail)  # type: ignore[arg-type]


@pytest.mark.parametrize("margins", [torch.ones(4), torch.ones(5, 1), torch.tensor(1.0)])
def test_a_check_that_leaves_rows_out_is_refused(margins: Tensor) -> None:
    with pytest.raises(UsageError, match=r"one a row: \[5\]"):
        exhaust(5, numbers, lambda rows: margins)


def test_chunks_of_nothing_are_refused() -> None:
    with pytest.raises(UsageError, match="chunks of 0"):
        exhaust(5, numbers, all_but(), chunk=0)


# -- finite domains ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtypes", "domain", "values"),
    [
        (("uint8",), {0, 1}, (0.0, 1.0)),
        (("float32",), {-1.0, 1.0}, (-1.0, 1.0)),
        (("bool",), None, (0.0, 1.0)),
        (("bool",), "any", (0.0, 1.0)),
        (("bool",), {0, 1, 2}, (0.0, 1.0)),
        (("uint8",), {-1.0, 0.5, 3.0}, (3.0,)),
        (("int64",), (0.0, 2.0), (0.0, 1.0, 2.0)),
        (("int64",), (-1.5, 1.5), (-1.0, 0.0, 1.0)),
        (("uint8", "float32"), {0, 0.5}, (0.0, 0.5)),
        (("float32",), (0.25, 0.25), (0.25,)),
        (("float32",), (0.0, 1.0), None),
        (("uint8", "float32"), None, None),
        (("float32",), None, None),
        (("complex64",), "any", None),
        (("int64",), None, None),
        (("int64",), (0.0, float(MOST_VALUES)), None),
    ],
)
def test_the_values_of_one_element(dtypes: tuple[str, ...], domain: Any, values: tuple[float, ...] | None) -> None:
    assert finite_values(bits(4, dtypes=dtypes, domain=domain)) == values


def test_a_byte_has_256_values() -> None:
    assert finite_values(bits(1, domain=None)) == tuple(map(float, range(256)))
    assert len(finite_values(bits(1, dtypes=("int64",), domain=(1.0, float(MOST_VALUES)))) or ()) == MOST_VALUES


@LAW
@given(st.integers(1, 6), st.sets(st.integers(0, 9), min_size=1, max_size=4))
def test_the_size_of_a_domain_is_the_number_of_its_samples(width: int, values: set[int]) -> None:
    samples = set(product(values, repeat=width))
    assert domain_size(signature(bits(width, domain=values))) == len(samples)


@pytest.mark.parametrize(
    ("inputs", "size"),
    [
        ([bits(64)], 2**64),
        ([bits(0, axes=("batch",), domain=(0.0, 96.0)), bits(0, name="b", axes=("batch",), domain=(0.0, 96.0))], 97**2),
        ([bits(0, axes=("batch", 2, 3))], 2**6),
        ([bits(0, axes=(2, 3))], 2**6),
        ([bits(10**12, domain={1})], 1),
        ([bits(2, domain={0.5})], 0),
        ([bits(0, axes=("batch", "n"))], None),
        ([bits(0, axes=("n", 2))], None),
        ([bits(4), TensorSpec("x", ("batch", 2))], None),
        ([bits(2**24 + 1)], None),
        ([bits(10**400)], None),
        ([bits(2**23), bits(2**24, name="b")], None),
    ],
)
def test_the_number_of_different_samples(inputs: list[TensorSpec], size: int | None) -> None:
    assert domain_size(signature(*inputs)) == size


def test_domains_too_large_to_count_in_floats_are_refused_and_measured() -> None:
    size = domain_size(signature(bits(10**6)))
    assert size == 1 << 10**6
    with pytest.raises(UsageError, match=r"2\^1000000.00 rows.*or sample"):
        exhaust(size, pytest.fail, pytest.fail)  # type: ignore[arg-type]


def test_required_context_counts_and_optional_context_does_not() -> None:
    required = ContextSpec("key", domain={0.0, 1.0, 2.0}, required=True)
    assert domain_size(signature(bits(2), context=(required, ContextSpec("omega")))) == 12
    assert domain_size(signature(bits(2), context=(ContextSpec("omega", required=True),))) is None
