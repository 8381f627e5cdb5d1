"""What can be proved of a bilinear scheme: that it is the matrix product, over every ring and for every size."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from grokkit_core.certify.algebraic import Identity, Integers, certify_identity
from grokkit_core.certify.sampled import certify_sampled
from grokkit_core.manifest import Baseline, Bound, Certificate, Level, Metric
from grokkit_matmul.scheme import Format, Scheme, positive, product_tensor, scheme_of

if TYPE_CHECKING:
    from grokkit_core.cassette import Cassette
    from grokkit_matmul.law import MatrixProduct

FLOAT_ROUNDING = 1e-9
"""How far figures of the float factors may differ between machines."""


def certify_product(task: MatrixProduct, cassette: Cassette, *, level: Level, seed: int) -> Certificate:
    """`exact` where the integer tensor identity holds, `failed` where it does not; sampled for networks without a scheme."""
    sampled = certify_sampled(task, cassette, level=level, seed=seed)
    if cassette.manifest.architecture.id != "grokkit_matmul/bilinear":
        return sampled
    scheme = scheme_of(cassette.tensors)
    counts = (Baseline("standard algorithm", "multiplications", float(math.prod(scheme.format.sizes)), {}),)
    made = certify_identity(
        Identity(
            scheme.tensor(),
            product_tensor(scheme.format),
            statement=_statement(scheme),
            domain=f"all {_sizes(scheme.format)} over any ring; by recursion on blocks, matrices of every size",
            formula=formulas(scheme),
        ),
        level=level,
        seed=seed,
        dtype=sampled.dtype,
        metrics=(*sampled.metrics, *_metrics(scheme, cassette)),
        baselines=(*counts, *sampled.baselines),
    )
    if made.verdict == "failed":
        return made
    return replace(made, bounds=(Bound("error_growth_per_level", float(growth(scheme)), "1"),))


def growth(scheme: Scheme) -> int:
    """By how much a level can multiply the largest error: max over entries of C of sum_r |W_r| |U_r|_1 |V_r|_1.

    12 for Strassen's form, 18 for the schedule that runs it with fewer additions (Brent 1970; Higham 2002, section 23.2).
    """
    sizes = np.abs(scheme.u).sum((1, 2)) * np.abs(scheme.v).sum((1, 2))
    return int(np.einsum("r,rpq->pq", sizes, np.abs(scheme.w)).max())


def formulas(scheme: Scheme) -> tuple[str, ...]:
    """The scheme as it is written by hand: every product, then every entry of C; factors begin with a positive sign."""
    scheme = positive(scheme)
    products = (
        f"m{r + 1} = {_factor(u, 'a')} {_factor(v, 'b')}"
        for r, (u, v) in enumerate(zip(scheme.u, scheme.v, strict=True))
    )
    return (*products, *_sums(scheme))


def _sums(scheme: Scheme) -> Iterator[str]:
    for i, j in np.ndindex(scheme.format.m, scheme.format.n):
        terms = [(int(x), f"m{r + 1}") for r, x in enumerate(scheme.w[:, i, j]) if x]
        yield f"c{_index(i, j, scheme.format)} = {_joined(terms)}"


def _factor(matrix: Integers, letter: str) -> str:
    shape = Format(matrix.shape[0], 1, matrix.shape[1])
    terms = [(int(x), letter + _index(i, j, shape)) for (i, j), x in np.ndenumerate(matrix) if x]
    text = _joined(terms)
    return text if len(terms) == 1 and terms[0][0] == 1 else f"({text})"


def _index(i: int, j: int, shape: Format) -> str:
    return f"{i + 1}{j + 1}" if max(shape.m, shape.n) < 10 else f"{i + 1},{j + 1}"


def _joined(terms: Sequence[tuple[int, str]]) -> str:
    if not terms:
        return "0"
    text = ""
    for factor, name in terms:
        sign = (" - " if factor < 0 else " + ") if text else ("-" if factor < 0 else "")
        text += sign + (f"{abs(factor)} " if abs(factor) != 1 else "") + name
    return text


def _statement(scheme: Scheme) -> str:
    standard = math.prod(scheme.format.sizes)
    return (
        f"the product of {_sizes(scheme.format)} by {scheme.rank} multiplications instead of {standard}: "
        "an identity of integers, no rounding in the proof"
    )


def _sizes(shape: Format) -> str:
    return f"{shape.m} x {shape.k} and {shape.k} x {shape.n} matrices"


def _metrics(scheme: Scheme, cassette: Cassette) -> Iterator[Metric]:
    """Multiplications and, where the float factors are kept, how far they were from the tensor and from integers.

    The last metric counts the stored integers that they do not lead to: a scheme put in place of the learned one shows.
    """
    yield _metric("multiplications", float(scheme.rank), 0.0)
    if cassette.manifest.architecture.config.get("raw"):
        from grokkit_matmul.replay import replayed

        found = replayed(cassette.tensors)
        yield _metric("raw_tensor_error", found.residual, FLOAT_ROUNDING)
        yield _metric("rounding_delta", found.delta, FLOAT_ROUNDING)
        yield _metric("coefficients_not_replayed", float(_unequal(found.scheme, scheme)), 0.0)


def _unequal(first: Scheme, second: Scheme) -> int:
    pairs = zip((first.u, first.v, first.w), (second.u, second.v, second.w), strict=True)
    return sum(int(np.count_nonzero(left != right)) for left, right in pairs)


def _metric(name: str, value: float, error: float) -> Metric:
    return Metric(name, value, "1", error, (value - 2 * error, value + 2 * error), 1.0, 1, {})
