"""Proved bounds of feed-forward networks and of spectral norms, against rational arithmetic and shuffled sums."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Context, Decimal, localcontext
from fractions import Fraction
from itertools import pairwise, product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from grokkit_core.certify import intervals
from grokkit_core.certify.intervals import (
    TANH_ULPS,
    Activation,
    Affine,
    operator_norm_above,
    output_box,
    rounding_margin,
)
from grokkit_core.errors import UsageError

LAW = settings(max_examples=150, deadline=None, derandomize=True)
NUMPY = {torch.float32: np.float32, torch.float64: np.float64}
DTYPES = st.sampled_from([torch.float32, torch.float64])
ACTIVATIONS: Sequence[Activation] = ("identity", "relu", "tanh")


def randn(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def net(seed: int, sizes: Sequence[int], activation: Activation, dtype: torch.dtype = torch.float32) -> list[Affine]:
    """Layers of these sizes with the activation between them and none behind, weights of unit gain."""
    layers = []
    for index, (columns, rows) in enumerate(pairwise(sizes)):
        weight = randn(seed + 7 * index, rows, columns, dtype=dtype) / math.sqrt(columns)
        last = index == len(sizes) - 2
        layers.append(
            Affine(weight, randn(seed + 7 * index + 1, rows, dtype=dtype), "identity" if last else activation)
        )
    return layers


def box(seed: int, size: int, width: float) -> tuple[Tensor, Tensor]:
    centre = randn(seed, size)
    half = width * randn(seed + 1, size).abs()
    return centre - half, centre + half


def inside(seed: int, low: Tensor, high: Tensor, dtype: torch.dtype, layers: Sequence[Affine], n: int = 40) -> Tensor:
    """Inputs "n in" of the box: drawn inside, at corners, and at the corners that move a unit of the first layer most."""
    share = torch.rand(n, len(low), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    rows = layers[0].weight.double().sign()
    shares = torch.cat([share, share.round(), (1 + rows) / 2, (1 - rows) / 2])
    return torch.where(shares == 1, high, low + shares * (high - low)).to(dtype)


def evaluate(layers: Sequence[Affine], inputs: Tensor, dtype: torch.dtype, seed: int) -> Tensor:
    """Outputs "n out": every sum added term by term in an order of its own, the bias among the terms."""
    order = np.random.default_rng(seed)
    values = inputs.to(dtype).numpy()
    for layer in layers:
        weight, bias = layer.weight.to(dtype).numpy(), layer.bias.to(dtype).numpy()
        terms = np.concatenate(
            [values[:, None, :] * weight, np.broadcast_to(bias, (len(values), len(bias)))[..., None]], 2
        )
        total = np.zeros(terms.shape[:2], dtype=NUMPY[dtype])
        for index in order.permutation(terms.shape[2]):
            total = total + terms[:, :, index]
        values = total
        if layer.activation != "identity":
            values = torch.tanh(torch.from_numpy(total)).numpy() if layer.activation == "tanh" else np.maximum(total, 0)
    assert values.dtype == NUMPY[dtype]
    return torch.from_numpy(values)


def usual(layers: Sequence[Affine], inputs: Tensor, dtype: torch.dtype) -> Tensor:
    """Outputs as torch computes them."""
    values = inputs.to(dtype)
    for layer in layers:
        values = torch.nn.functional.linear(values, layer.weight.to(dtype), layer.bias.to(dtype))
        values = {"identity": torch.clone, "relu": torch.relu, "tanh": torch.tanh}[layer.activation](values)
    return values


def exactly(layers: Sequence[Affine], row: Tensor) -> list[Fraction]:
    """The outputs for one input without rounding; relu and identity only."""
    values = [Fraction(value) for value in row.double().tolist()]
    for layer in layers:
        rows, bias = layer.weight.double().tolist(), layer.bias.double().tolist()
        values = [
            sum((Fraction(w) * x for w, x in zip(weights, values, strict=True)), Fraction(b))
            for weights, b in zip(rows, bias, strict=True)
        ]
        if layer.activation == "relu":
            values = [max(value, Fraction(0)) for value in values]
    return values


def escapes(layers: Sequence[Affine], low: Tensor, high: Tensor, dtype: torch.dtype, seed: int) -> bool:
    """Whether some evaluation leaves the box: in three orders of summation and as torch computes it."""
    below, above = output_box(layers, low, high, dtype=dtype)
    inputs = inside(seed, low, high, dtype, layers)
    results = [evaluate(layers, inputs, dtype, seed + index) for index in range(3)] + [usual(layers, inputs, dtype)]
    return any(bool(((result.double() < below) | (result.double() > above)).any()) for result in results)


# -- the box of a network ------------------------------------------------------------------------------------------


@LAW
@given(
    st.integers(0, 10**6),
    st.lists(st.sampled_from([1, 2, 5, 24]), min_size=2, max_size=4),
    st.sampled_from(ACTIVATIONS),
    DTYPES,
    DTYPES,
    st.sampled_from([0.0, 1e-3, 1.0, 1e3]),
)
def test_no_evaluation_in_any_order_leaves_the_box(
    seed: int, sizes: list[int], activation: Activation, stored: torch.dtype, dtype: torch.dtype, width: float
) -> None:
    layers = net(seed, sizes, activation, stored)
    assert not escapes(layers, *box(seed, sizes[0], width), dtype, seed)


@pytest.mark.parametrize("seed", range(3))
def test_long_sums_of_cancelling_terms_stay_in_the_box(seed: int) -> None:
    layers = net(seed, [400, 8], "identity")
    assert not escapes(layers, *box(seed, 400, 1e-6), torch.float32, seed)


def test_without_the_rounding_margin_some_evaluation_leaves_the_box(monkeypatch: pytest.MonkeyPatch) -> None:
    wide = [(net(seed, [24, 3], "relu"), *box(seed, 24, 1.0), seed) for seed in range(5)]
    points = [(net(seed, [24, 24, 3], "relu"), *box(seed, 24, 0.0), seed) for seed in range(5)]
    cases = [(layers, low.float(), high.float(), torch.float32, seed) for layers, low, high, seed in wide + points]
    assert not any(escapes(*case) for case in cases)
    gamma = intervals._gamma
    monkeypatch.setattr(intervals, "_gamma", lambda n, dtype: 0.0 if dtype == torch.float32 else gamma(n, dtype))
    assert all(escapes(*case) for case in cases)


def test_without_the_error_of_tanh_some_evaluation_leaves_the_box(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, point = Affine(torch.eye(300), torch.zeros(300), "tanh"), randn(1, 300).float()
    below, above = output_box([layer], point, point, dtype=torch.float32)
    assert bool(((below <= point.tanh()) & (point.tanh() <= above)).all())
    for name, value in (("TANH_ULPS", 0.0), ("_gamma", lambda n, dtype: 0.0)):
        monkeypatch.setattr(intervals, name, value)
    below, above = output_box([layer], point, point, dtype=torch.float32)
    assert not bool(((below <= point.tanh()) & (point.tanh() <= above)).all())


def test_another_implementation_of_tanh_stays_in_the_box() -> None:
    layer, point = Affine(torch.eye(300), torch.zeros(300), "tanh"), randn(1, 300)
    below, above = output_box([layer], point, point, dtype=torch.float64)
    other = torch.tensor([math.tanh(x) for x in point.tolist()], dtype=torch.float64)
    assert bool(((below <= other) & (other <= above)).all())
    assert bool((above - below < 1e-12).all())


@LAW
@given(st.integers(0, 10**6), st.sampled_from(["identity", "relu"]), DTYPES, DTYPES)
def test_margin_and_box_hold_against_rational_arithmetic(
    seed: int, activation: Activation, stored: torch.dtype, dtype: torch.dtype
) -> None:
    layers = net(seed, [4, 5, 2], activation, stored)
    low, high = box(seed, 4, 0.3)
    margin = rounding_margin(layers, low, high, dtype=dtype)
    below, above = output_box(layers, low, high, dtype=dtype)
    inputs = inside(seed, low, high, dtype, layers, n=3)
    for row, result in zip(inputs, evaluate(layers, inputs, dtype, seed).tolist(), strict=True):
        for index, exact in enumerate(exactly(layers, row)):
            assert abs(Fraction(result[index]) - exact) <= Fraction(margin[index].item())
            assert Fraction(below[index].item()) <= exact <= Fraction(above[index].item())


@pytest.mark.parametrize("seed", range(4))
def test_the_margin_of_tanh_in_float32_holds_against_float64(seed: int) -> None:
    layers = net(seed, [16, 32, 32, 4], "tanh")
    low, high = box(seed, 16, 0.1)
    inputs = inside(seed, low, high, torch.float32, layers, n=200)
    gap = (evaluate(layers, inputs, torch.float32, seed).double() - usual(layers, inputs, torch.float64)).abs()
    margin = rounding_margin(layers, low, high, dtype=torch.float32)
    assert bool((gap.amax(dim=0) <= margin).all())
    assert bool((margin < 2e-4).all())  # 3 layers of gain one: some 3 gamma_33 sqrt(32) of sums of order 5


def near_one(seed: int, *shape: int) -> Tensor:
    """Numbers just above 1, where casting and rounding cost up to a unit roundoff each."""
    return 1 + 0.05 * torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def gamma_2(sizes: Tensor) -> Tensor:
    """What product and sum alone may cost in float32."""
    return 2 * 2.0**-24 * sizes


def test_weights_of_a_wider_dtype_count_as_rounded() -> None:
    layer, point = Affine(near_one(0, 5_000, 1), near_one(1, 5_000) * 1e-3), near_one(2, 1).float()
    exact = layer.weight[:, 0] * point.double() + layer.bias
    gap = (evaluate([layer], point[None], torch.float32, 0)[0].double() - exact).abs()
    assert bool((gap <= rounding_margin([layer], point, point, dtype=torch.float32)).all())
    assert bool((gap > gamma_2(exact)).any())  # the margin of the sum alone would not do
    below, above = output_box([layer], point, point, dtype=torch.float32)
    assert bool(((below <= exact) & (exact <= above)).all())


def test_an_input_that_casting_moves_out_of_the_given_box_is_covered() -> None:
    layer, points = Affine(near_one(0, 90, 1).float(), near_one(1, 90).float() * 1e-3), near_one(2, 2_000, 1)
    results = evaluate([layer], points, torch.float32, 0).double()
    below, above = output_box([layer], points, points, dtype=torch.float32)
    assert bool(((below <= results) & (results <= above)).all())
    exact = layer.weight[:, 0].double() * points + layer.bias.double()
    for sign in (1, -1):  # the margin of the sum alone would not do, on either side
        assert bool((sign * (results - exact) > gamma_2(exact)).any())


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_an_error_that_later_layers_enlarge_is_covered(activation: Activation) -> None:
    small = torch.full((1, 102), 3e-8)  # each is lost beside 1, all of them make 3e-6, where tanh is straight
    small[0, 0], small[0, -1] = 1.0, -1.0
    layers = [Affine(small, torch.zeros(1), activation), Affine(torch.full((1, 1), 1e3), torch.zeros(1))]
    ones = torch.ones(102)
    total = torch.zeros(1)
    for term in small[0]:
        total = total + term
    assert total.item() == 0
    assert usual(layers, ones[None], torch.float64).item() == pytest.approx(3e-3, rel=1e-3)
    assert rounding_margin(layers, ones, ones, dtype=torch.float32).item() >= 3.01e-3


@pytest.mark.parametrize("sign", [1, -1])
def test_a_tanh_as_bad_as_assumed_is_covered(sign: int) -> None:
    layer, points = Affine(torch.ones(1, 1), torch.zeros(1), "tanh"), torch.linspace(0.01, 2, 500)[:, None]
    results = torch.tanh(points)
    for _ in range(3):  # beside the one that it may err by
        results = torch.nextafter(results, torch.full_like(results, sign * math.inf))
    below, above = output_box([layer], points, points, dtype=torch.float32)
    margin = rounding_margin([layer], points, points, dtype=torch.float32)
    gap = (results.double() - torch.tanh(points.double())).abs()
    assert bool(((below <= results) & (results <= above)).all() and (gap <= margin).all())
    assert bool((gap > gamma_2(points)).any())


# -- tightness -----------------------------------------------------------------------------------------------------


@LAW
@given(st.integers(0, 10**6), st.sampled_from(["identity", "relu"]), st.sampled_from([1, 7, 64]))
def test_one_affine_layer_has_its_exact_range(seed: int, activation: Activation, size: int) -> None:
    layer = Affine(randn(seed, 3, size), randn(seed + 1, 3), activation)
    low, high = box(seed, size, 1.0)
    weight, ends = layer.weight, []
    for first, second in ((low, high), (high, low)):
        end = (weight * torch.where(weight > 0, first, second)).sum(dim=1) + layer.bias
        ends.append(end.relu() if activation == "relu" else end)
    sums = (weight.abs() * torch.maximum(low.abs(), high.abs())).sum(dim=1) + layer.bias.abs()
    for dtype in (torch.float64, torch.float32):
        below, above = output_box([layer], low, high, dtype=dtype)
        # one gamma for the sum (in float64 two for the bound's own), one u each for weights and inputs that are cast
        allowed = (4 * size + 12) * torch.finfo(dtype).eps / 2 * sums
        assert bool((allowed < 1e-6).all()) or dtype == torch.float32
        assert bool(((ends[0] - below).abs() <= allowed).all() and ((above - ends[1]).abs() <= allowed).all())
        assert bool((below <= ends[0] + 1e-12).all() and (ends[1] - 1e-12 <= above).all())


def test_one_layer_in_float32_is_within_a_millionth_of_its_range() -> None:
    layer = Affine(torch.tensor([[0.5, -0.25, 0.125]]), torch.tensor([0.25]), "tanh")
    below, above = output_box([layer], -torch.ones(3), torch.ones(3), dtype=torch.float32)
    assert below.item() == pytest.approx(math.tanh(-0.625), abs=1e-6)
    assert above.item() == pytest.approx(math.tanh(1.125), abs=1e-6)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_smaller_box_has_tighter_bounds(activation: Activation) -> None:
    rounding = 1e-13  # the bounds' own sums are rounded, outwards, in float64
    for seed in range(10):
        layers = net(seed, [6, 20, 20, 3], activation)
        low, high = box(seed, 6, 1.0)
        outer, outer_margin = output_box(layers, low, high, dtype=torch.float32), None
        outer_margin = rounding_margin(layers, low, high, dtype=torch.float32)
        for shrink in (0.1, 0.4, 0.1):
            width = high - low
            low, high = low + shrink * width, high - shrink * width
            inner = output_box(layers, low, high, dtype=torch.float32)
            margin = rounding_margin(layers, low, high, dtype=torch.float32)
            assert bool((inner[0] >= outer[0] - rounding).all() and (inner[1] <= outer[1] + rounding).all())
            assert bool((margin <= outer_margin * (1 + rounding)).all())
            assert bool((inner[1] - inner[0] < outer[1] - outer[0]).all())
            outer, outer_margin = inner, margin


def test_a_unit_that_relu_switches_off_has_no_rounding_left() -> None:
    layer = Affine(torch.ones(1, 3), torch.tensor([-9.0]), "relu")
    below, above = output_box([layer], -torch.ones(3), torch.ones(3), dtype=torch.float32)
    assert below.item() == above.item() == 0
    assert rounding_margin([layer], -torch.ones(3), torch.ones(3), dtype=torch.float32).item() < 1e-300


def test_many_boxes_at_once_are_the_boxes_one_by_one() -> None:
    layers = net(3, [4, 9, 2], "tanh")
    pairs = [box(seed, 4, 0.5) for seed in range(6)]
    low, high = (torch.stack(ends).reshape(2, 3, 4) for ends in zip(*pairs, strict=True))
    below, above = output_box(layers, low, high, dtype=torch.float32)
    for index, (first, second) in zip(product(range(2), range(3)), pairs, strict=True):
        alone = output_box(layers, first, second, dtype=torch.float32)
        assert torch.allclose(torch.stack([below[index], above[index]]), torch.stack(alone), rtol=0, atol=1e-13)


# -- what is assumed of tanh ---------------------------------------------------------------------------------------


def test_tanh_in_float32_errs_by_less_than_assumed() -> None:
    bits = torch.arange(0, 0x41200000, 4_099, dtype=torch.int32)  # 0 to 10 with subnormal numbers
    given = bits.view(torch.float32)
    given = torch.cat([given, -given])
    exact = torch.tanh(given.double())
    spacing = torch.maximum(exact.abs() * torch.finfo(torch.float32).eps / 2, torch.tensor(2.0**-149).double())
    assert ((torch.tanh(given).double() - exact).abs() / spacing).max() < 2.2 < TANH_ULPS  # in half ulps at the least


def test_tanh_in_float64_errs_by_less_than_assumed() -> None:
    given = torch.cat([randn(0, 600), randn(1, 200) * 6, randn(2, 200) * 1e-5])
    worst = Decimal(0)
    with localcontext(Context(prec=50)):
        for x, computed in zip(given.tolist(), torch.tanh(given).tolist(), strict=True):
            square = (2 * Decimal(x)).exp()
            exact = (square - 1) / (square + 1)
            worst = max(worst, abs((Decimal(computed) - exact) / exact))
    assert float(worst) / torch.finfo(torch.float64).eps < TANH_ULPS / 2


# -- what cannot be bounded ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", ["weight", "bias"])
def test_a_number_that_is_not_finite_makes_all_that_follows_infinite(where: str, bad: float) -> None:
    first, second = net(0, [3, 4, 2], "tanh")
    getattr(first, where).view(-1)[0] = bad
    one = torch.ones(3)
    below, above = output_box([first], -one, one, dtype=torch.float32)
    assert below[0] == -math.inf and above[0] == math.inf
    assert bool(torch.isfinite(torch.stack([below, above])[:, 1:]).all())
    below, above = output_box([first, second], -one, one, dtype=torch.float32)
    assert bool((below == -math.inf).all() and (above == math.inf).all())
    assert bool((rounding_margin([first, second], -one, one, dtype=torch.float32) == math.inf).all())


@pytest.mark.parametrize(("dtype", "large"), [(torch.float32, 1e20), (torch.float64, 1e160)])
def test_a_sum_that_may_overflow_is_infinite(dtype: torch.dtype, large: float) -> None:
    weight = torch.full((1, 2), large, dtype=torch.float64)
    ends = torch.tensor([large, large], dtype=torch.float64)
    below, above = output_box([Affine(weight, torch.zeros(1), "tanh")], -ends, ends, dtype=dtype)
    assert below.item() == -math.inf and above.item() == math.inf
    assert usual([Affine(weight, torch.zeros(1))], ends[None], dtype).item() == math.inf


def test_weights_that_the_dtype_cannot_hold_are_infinite() -> None:
    layer = Affine(torch.full((1, 1), 1e39, dtype=torch.float64), torch.zeros(1))
    assert rounding_margin([layer], torch.zeros(1), torch.zeros(1), dtype=torch.float32).item() == math.inf
    assert math.isfinite(rounding_margin([layer], torch.zeros(1), torch.zeros(1), dtype=torch.float64).item())


def test_an_unbounded_input_is_infinite_behind() -> None:
    low, high = torch.tensor([0.0, -math.inf]), torch.tensor([1.0, 0.0])
    below, above = output_box(net(0, [2, 3], "relu"), low, high, dtype=torch.float64)
    assert bool((below == -math.inf).all() and (above == math.inf).all())


@pytest.mark.parametrize("scale", [1e-20, 1e-38, 1e-44])
def test_underflow_stays_in_the_box_with_and_without_subnormal_numbers(scale: float) -> None:
    layers = [Affine(layer.weight * scale, layer.bias * scale, "relu") for layer in net(2, [8, 8, 8], "relu")]
    low, high = box(2, 8, 1.0)
    assert not escapes(layers, low * scale, high * scale, torch.float32, 2)
    try:
        flushed = torch.set_flush_denormal(True)
        results = usual(layers, inside(2, low * scale, high * scale, torch.float32, layers), torch.float32)
    finally:
        torch.set_flush_denormal(False)
    below, above = output_box(layers, low * scale, high * scale, dtype=torch.float32)
    assert flushed is False or bool(((below <= results.double()) & (results.double() <= above)).all())


def test_shapes_dtypes_and_activations_that_do_not_fit_are_refused() -> None:
    weight, bias, ends = torch.ones(2, 3), torch.zeros(2), torch.zeros(3)
    for make, words in (
        (lambda: Affine(weight, ends), "weight"),
        (lambda: Affine(bias, bias), "weight"),
        (lambda: Affine(weight.half(), bias), "float16"),
        (lambda: Affine(weight, bias, "gelu"), "identity, relu, tanh"),  # type: ignore[arg-type]
        (lambda: output_box([Affine(weight, bias)], bias, bias, dtype=torch.float32), "2 values"),
        (lambda: output_box([Affine(weight, bias)], ends, bias, dtype=torch.float32), "one shape"),
        (lambda: output_box([Affine(weight, bias)], ends + 1, ends, dtype=torch.float32), "low <= high"),
        (lambda: output_box([Affine(weight, bias)], ends + math.nan, ends, dtype=torch.float32), "low <= high"),
        (lambda: output_box([Affine(weight, bias)], ends, ends, dtype=torch.bfloat16), "bfloat16"),
    ):
        with pytest.raises(UsageError, match=words):
            make()


# -- the spectral norm ---------------------------------------------------------------------------------------------


def is_norm_bound(bound: float, matrix: Tensor) -> bool:
    """Whether bound^2 I - A'A is positive semidefinite, by Gauss elimination on rational numbers."""
    rows = [[Fraction(value) for value in row] for row in matrix.double().tolist()]
    size = len(rows[0])
    rest = [
        [(Fraction(bound) ** 2 if i == j else 0) - sum(row[i] * row[j] for row in rows) for j in range(size)]
        for i in range(size)
    ]
    for k in range(size):
        if rest[k][k] < 0 or (rest[k][k] == 0 and any(rest[i][k] != 0 for i in range(k, size))):
            return False
        for i in range(k + 1, size if rest[k][k] else 0):
            share = rest[i][k] / rest[k][k]
            rest[i] = [rest[i][j] - share * rest[k][j] for j in range(size)]
    return True


@LAW
@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 5), DTYPES, st.integers(-300, 300))
def test_the_norm_bound_is_proved_and_tight(seed: int, rows: int, columns: int, dtype: torch.dtype, scale: int) -> None:
    matrix = randn(seed, rows, columns, dtype=dtype).double() * 2.0**scale
    bound = operator_norm_above(matrix)
    assert is_norm_bound(bound, matrix)
    assert not is_norm_bound(bound * (1 - 1e-12), matrix)


@pytest.mark.parametrize("shape", [(64, 64), (200, 30), (30, 200), (1, 64), (64, 1)])
def test_the_norm_bound_of_larger_matrices_exceeds_the_norm_by_a_billionth_at_most(shape: tuple[int, int]) -> None:
    for seed in range(3):
        matrix = randn(seed, *shape)
        norm = torch.linalg.matrix_norm(matrix, 2).item()
        assert norm * (1 - 1e-14) <= operator_norm_above(matrix) <= norm * (1 + 1e-9)


@pytest.mark.parametrize(
    "matrix",
    [
        torch.eye(6),
        torch.ones(5, 7),
        torch.diag(torch.tensor([1.0, 1e-8, 1e-16])),
        torch.tensor([[0.0, 1.0], [0.0, 0.0]]),
        torch.tensor([[3.0]]),
        torch.tensor([[1e300, 1e-300], [1e-310, 1e300]], dtype=torch.float64),
        torch.tensor([[5e-324, 1e-320]], dtype=torch.float64),
    ],
)
def test_the_norm_bound_holds_for_special_matrices(matrix: Tensor) -> None:
    assert is_norm_bound(operator_norm_above(matrix), matrix)


def test_norms_of_zero_of_nothing_and_beyond_the_largest_number() -> None:
    assert operator_norm_above(torch.zeros(3, 4)) == 0.0
    assert operator_norm_above(torch.zeros(0, 4)) == 0.0
    assert operator_norm_above(torch.full((2, 2), 1.7e308, dtype=torch.float64)) == math.inf
    for bad in (math.nan, math.inf):
        assert operator_norm_above(torch.tensor([[1.0, bad]])) == math.inf


@pytest.mark.parametrize("wrong", [0.0, 0.5, math.nan])
def test_a_wrong_decomposition_only_loosens_the_norm_bound(wrong: float, monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = randn(0, 4, 4)
    matrix /= 1.5 * matrix.abs().max()  # between 1/2 and 1, so that it is decomposed as it is
    left, values, right = torch.linalg.svd(matrix)
    unequal = [(left * 2, values / 2, right), (left, values / 2, right * 2)]
    for broken in (
        (left * wrong, values, right),
        (left, values * wrong, right),
        (left, values, right * wrong),
        *unequal,
    ):
        monkeypatch.setattr(torch.linalg, "svd", lambda *_, broken=broken, **__: broken)
        assert is_norm_bound(operator_norm_above(matrix), matrix)


def test_without_a_decomposition_the_norms_of_rows_and_columns_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise torch.linalg.LinAlgError("did not converge")

    monkeypatch.setattr(torch.linalg, "svd", fails)
    assert operator_norm_above(torch.eye(9)) == pytest.approx(1)  # |A|_1 = |A|_inf = 1
    assert operator_norm_above(torch.ones(2, 3)) == pytest.approx(math.sqrt(6))  # Frobenius


def test_a_float_norm_is_no_proof() -> None:
    norms = [(torch.linalg.matrix_norm(matrix, 2).item(), matrix) for matrix in (randn(s, 4, 4) for s in range(20))]
    assert not all(is_norm_bound(norm, matrix) for norm, matrix in norms)


@pytest.mark.parametrize("given", [torch.ones(3), torch.ones(2, 2, dtype=torch.int64), torch.ones(2, 2) * 1j])
def test_what_is_no_real_matrix_is_refused(given: Tensor) -> None:
    with pytest.raises(UsageError, match="real floating-point matrix"):
        operator_norm_above(given)
