"""Integer identities: exact sums, exact reading of weights, and certificates that an altered entry fails."""

from __future__ import annotations

from fractions import Fraction
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from grokkit_core.certify import algebraic
from grokkit_core.certify.algebraic import Identity, as_integers, certify_identity, exact_einsum, integers
from grokkit_core.errors import UsageError

STRASSEN = (
    ([1, 0, 0, 1], [1, 0, 0, 1], [1, 0, 0, 1]),
    ([0, 0, 1, 1], [1, 0, 0, 0], [0, 0, 1, -1]),
    ([1, 0, 0, 0], [0, 1, 0, -1], [0, 1, 0, 1]),
    ([0, 0, 0, 1], [-1, 0, 1, 0], [1, 0, 1, 0]),
    ([1, 1, 0, 0], [0, 0, 0, 1], [-1, 1, 0, 0]),
    ([-1, 0, 1, 0], [1, 1, 0, 0], [0, 0, 0, 1]),
    ([0, 1, 0, -1], [0, 0, 1, 1], [1, 0, 0, 0]),
)
"""Strassen 1969: seven products of 2 x 2 matrices, rows (a, b, c) of row-major entries."""


def product_tensor() -> list[list[list[int]]]:
    """T[i, j, k] = 1 where entry k of a product has the term a_i b_j; matrices row-major."""
    table = np.zeros((4, 4, 4), dtype=int)
    for row, inner, column in product(range(2), repeat=3):
        table[2 * row + inner, 2 * inner + column, 2 * row + column] = 1
    found: list[list[list[int]]] = table.tolist()
    return found


def strassen(change: int = 0) -> Identity:
    a, b, c = (integers([list(term[part]) for term in STRASSEN]) for part in range(3))
    a = a.copy()
    a[0, 0] += change
    left = exact_einsum("ri,rj,rk->ijk", a, b, c)
    return Identity(
        left, integers(product_tensor()), "2 x 2 product in 7", "all matrices over any ring", ("7 products",)
    )


def test_strassens_products_are_certified_exact() -> None:
    found = certify_identity(strassen(), level="full", seed=0)
    assert (found.verdict, found.method) == ("exact", "algebraic")
    assert (found.statement, found.domain, found.formula) == (
        "2 x 2 product in 7",
        "all matrices over any ring",
        ("7 products",),
    )


@pytest.mark.parametrize("change", [1, -1, 7])
def test_one_altered_coefficient_is_caught_and_named(change: int) -> None:
    made = strassen(change)
    assert not made.holds
    found = certify_identity(made, level="full", seed=0)
    assert found.verdict == "failed"
    assert f"fails at {list(made.difference or ())}" in found.statement
    assert (found.domain, found.formula) == ("", ())


def test_sums_beyond_int64_are_exact() -> None:
    huge = integers([[2**40, 2**40 + 1]])
    found = exact_einsum("ri,rj->ij", huge, huge)
    assert found.tolist() == [[2**80, 2**80 + 2**40], [2**80 + 2**40, (2**40 + 1) ** 2]]
    wrapped = np.einsum("ri,rj->ij", huge, huge)
    assert wrapped.tolist() != found.tolist()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(-(2**62), 2**62), min_size=2, max_size=2), min_size=1, max_size=4))
def test_a_contraction_is_the_sum_written_out(rows: list[list[int]]) -> None:
    array = integers(rows)
    expected = [[sum(row[i] * row[j] for row in rows) for j in range(2)] for i in range(2)]
    assert exact_einsum("ri,rj->ij", array, array).tolist() == expected


def test_entries_of_the_largest_size_do_not_wrap() -> None:
    edge = integers([[-(2**63), 2**63 - 1]])
    assert edge.dtype == np.int64
    assert exact_einsum("ri->i", edge).tolist() == [-(2**63), 2**63 - 1]
    assert exact_einsum("ri,ri->", edge, edge).tolist() == 2**126 + (2**63 - 1) ** 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int8])
def test_weights_that_are_integers_are_read_as_such(dtype: torch.dtype) -> None:
    assert as_integers(torch.tensor([[-2.0, 0.0, 3.0]]).to(dtype)).tolist() == [[-2, 0, 3]]


def test_weights_of_a_common_denominator_are_read_as_numerators() -> None:
    assert as_integers(torch.tensor([0.5, -0.25, 2.0]), 4).tolist() == [2, -1, 8]
    assert as_integers(torch.tensor([3]), 2).tolist() == [6]


def test_a_large_float_is_read_to_the_last_digit() -> None:
    assert as_integers(torch.tensor([1e30], dtype=torch.float64)).tolist() == [int(Fraction(1e30))]


@pytest.mark.parametrize("value", [0.1, 1 + 2**-40, float("nan"), float("inf")])
def test_weights_that_are_no_integers_are_refused(value: float) -> None:
    with pytest.raises(UsageError):
        as_integers(torch.tensor([value], dtype=torch.float64))


@pytest.mark.parametrize("values", [[[1.0]], [[True]], torch.tensor([1.0]), torch.tensor([True]), ["1"]])
def test_only_integers_make_an_identity(values: object) -> None:
    with pytest.raises(UsageError):
        integers(values)


def test_sides_of_different_shapes_are_refused() -> None:
    with pytest.raises(UsageError):
        Identity(integers([1]), integers([1, 2]), "", "")


def test_sides_of_floats_are_refused() -> None:
    with pytest.raises(UsageError):
        Identity(np.zeros(2), np.zeros(2), "", "")  # type: ignore[arg-type]


@pytest.mark.parametrize("equation", ["ri,rj", "ri->i", "...i,rj->ij"])
def test_an_equation_that_does_not_fit_is_refused(equation: str) -> None:
    with pytest.raises(UsageError):
        exact_einsum(equation, integers([[1]]), integers([[1]]))


def test_large_sums_are_the_same_integers_and_those_beyond_float64_are_not_left_to_floats(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    draw = np.random.default_rng(0)
    a, b, c = (draw.integers(-9, 10, (50, size)) for size in (3, 4, 5))
    huge = integers([[2**40 + 1, 3]])
    plain, beyond = exact_einsum("ri,rj,rk->ijk", a, b, c), exact_einsum("ri,rj->ij", huge, huge)
    monkeypatch.setattr(algebraic, "LARGE", 1)
    found = exact_einsum("ri,rj,rk->ijk", a, b, c)
    assert found.dtype == np.int64
    assert (found == plain).all()
    assert (exact_einsum("ri,rj->ij", huge, huge) == beyond).all()
    assert beyond[0, 0] == (2**40 + 1) ** 2
    assert int(float(2**40 + 1) * float(2**40 + 1)) != (2**40 + 1) ** 2
