"""What can be proved of stencils for every input and every grid, and where the nonlinear network is measured.

A stencil is linear, has no bias by construction, and one rule of padding, so that f(0) = 0 and f(s x) = s f(x) hold and
its error is that of its coefficients: with delta = learned - exact, |error_i| <= max(|u|, |v|) sum |delta| + rounding.
In lam2 the deviation is affine, so sums of |delta| are convex and largest at an end of its range. All of it is rational
arithmetic on the stored numbers.

Rounding: with n roundings on the way to each term, sums in any order (Higham, Accuracy and Stability of Numerical
Algorithms, 2002, 3.1): gamma_n sum |K| max(|u|, |v|), gamma_n = n e / (1 - n e), barring overflow and underflow.

Growth: a mode k is multiplied by a root g of g^2 - A(k) g - B(k) per step. The exact roots lie on the unit circle for
lam2 <= 1, so |g^2 - A g + 1| >= (|g| - 1)^2 for every g, and for a learned root the left side is |dA g + dB| <=
a |g| + b with a, b the sums of |delta| of both kernels. So m = |g| - 1 has m^2 <= a (1 + m) + b, for every k at once.
Where B = -1 and A is symmetric, g is known: |g| = 1 for |A| <= 2, else |A|/2 + sqrt(A^2/4 - 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from grokkit_core.certify.algebraic import Identity, as_integers, certify_identity, integers
from grokkit_core.certify.bounds import root_above, round_up
from grokkit_core.certify.sampled import certify_sampled
from grokkit_core.certify.scores import CONFIDENCE, figure
from grokkit_core.errors import UsageError
from grokkit_core.manifest import Bound, Certificate, Level, Metric
from grokkit_core.streams import stream
from grokkit_core.task import Place
from grokkit_wave.law import SIZES, Wave

if TYPE_CHECKING:
    from grokkit_core.cassette import Cassette

STENCIL, CONDITIONAL = "grokkit_wave/stencil", "grokkit_wave/conditional-stencil"
SINE = "grokkit_wave/sine-conv"
FORMULA = ("u+[i] = 2 u[i] - v[i] + lam2 (u[i+1] - 2 u[i] + u[i-1])",)
EXACT = ((0, 2, 0), (0, -1, 0)), ((1, -2, 1), (0, 0, 0))
"""K0 and K1 of the law, each the kernels of u and of v."""

USEFUL = 1e-6
"""A larger bound proves nothing worth the word: such a stencil is not the law."""

ROUNDINGS = {STENCIL: 7, CONDITIONAL: 10}
"""On the way of one term: the coefficient, its product, five sums; before that lam2, its product and a sum."""

PRECISIONS = {"float32": Fraction(1, 2**24), "float64": Fraction(1, 2**53)}
TRAINED = 32
"""Interior points of the fields that recipes train on."""

LARGEST_SAMPLED = 65_536
"""Points of the largest grid that samples are drawn on: of a row, and of a comparison."""

LAM2S = 21
FIELDS_EACH = {"full": 256, "quick": 64}
PUBLISHED_SIZES = (32, 64, 256, 1024)
"""Points with ends of the published table, as far as it means something: all at the same lam2 here."""

FACTORS = (1.0, 0.1, 3.0, 10.0)
"""Of the amplitude that a network was trained on."""

DECIMALS = 12
"""Of their products, for the sake of the tables."""

Kernel = Sequence[Sequence[Fraction]]


def certify_wave(task: Wave, cassette: Cassette, *, level: Level, seed: int) -> Certificate:
    """A proof for a stencil of this law; samples at several sizes and amplitudes for the sine network; else samples."""
    reference = cassette.manifest.architecture
    if reference.id == SINE:
        return certify_sampled(task, cassette, level=level, seed=seed, places=sine_places(task, cassette))
    if reference.id not in ROUNDINGS or reference.config["boundary"] != task.boundary:
        return certify_sampled(task, cassette, level=level, seed=seed)
    return _certify_stencil(task, cassette, level, seed)


def _certify_stencil(task: Wave, cassette: Cassette, level: Level, seed: int) -> Certificate:
    """`exact` for whole numbers that are those of the law, `bounded` for coefficients near it, else `estimated`."""
    reference, weight = cassette.manifest.architecture, cassette.tensors["weight"]
    places = list(task.evaluation)
    own = reference.config.get("grid", TRAINED)
    if own not in (*SIZES, TRAINED) and own <= LARGEST_SAMPLED and task.lam2 is not None:
        places.append({"grid": own, "lam2": task.lam2})
    sampled = certify_sampled(task, cassette, level=level, seed=seed, places=places)
    ends = kernels(task, cassette)
    if sampled.verdict == "failed" or not ends:
        return sampled
    proved = bounds_of(ends, weight, reference.id)
    identity = _identity(task, weight) if reference.id == CONDITIONAL else None
    if identity is not None and identity.holds:
        exact = certify_identity(identity, level=level, seed=seed, dtype=sampled.dtype)
        metrics = (*sampled.metrics, _worst(task, cassette, level, seed))
        bounds = proved.listed(with_coefficients=False)
        return replace(exact, metrics=metrics, baselines=sampled.baselines, bounds=bounds)
    if proved.coefficients > USEFUL:
        return replace(sampled, statement=f"{sampled.statement}; no useful bound ({float(proved.coefficients):.1e})")
    return replace(
        sampled,
        verdict="bounded",
        statement=f"one step errs by <= {proved.error['float64']:.1e} max(|u|, |v|) in float64, by "
        f"{proved.error['float32']:.1e} in float32, on every grid; {_standing(task, sampled)}",
        domain=f"every pair of finite fields on any grid, {task.boundary} ends, {_range(task)}",
        method="operator-norm",
        formula=FORMULA,
        bounds=proved.listed(),
    )


def sine_places(task: Wave, cassette: Cassette) -> list[Place]:
    """Rows for a network of a limited range: several amplitudes, and sizes at the same lam2."""
    config = cassette.manifest.architecture.config
    lam2, size = config["lam2"], float(config["amplitude"])
    if task.lam2 != lam2 or task.boundary != config["boundary"]:
        return list(task.evaluation)
    if config["ends"]:
        kind = {"lam2": lam2, "field": "trajectory", "ends": True}
        rows = [{"grid": points, **kind} for points in PUBLISHED_SIZES]
        return [*rows, *({"grid": PUBLISHED_SIZES[0], **kind, "amplitude": factor} for factor in FACTORS[1:])]
    at = {"grid": SIZES[0], "lam2": lam2}
    rows = [{**at, "amplitude": round(factor * size, DECIMALS)} for factor in FACTORS]
    return [*rows, *({"grid": grid, "lam2": lam2, "amplitude": size, "field": "smooth"} for grid in SIZES)]


@dataclass(frozen=True)
class Proof:
    """Of a stencil: sum |delta| and the error of a step by dtype, both relative to max(|u|, |v|), and max |g| - 1."""

    coefficients: Fraction
    error: dict[str, float]
    growth: Fraction

    def listed(self, *, with_coefficients: bool = True) -> tuple[Bound, ...]:
        """As a certificate writes them, rounded up."""
        first = (Bound("coefficient_error", round_up(self.coefficients), "1"),) if with_coefficients else ()
        errors = (Bound(f"relative_error_{name}", value, "1") for name, value in self.error.items())
        return (*first, *errors, Bound("amplification_excess", round_up(self.growth), "1"))


def kernels(task: Wave, cassette: Cassette) -> list[tuple[Kernel, Kernel]]:
    """Learned and exact kernel at both ends of the law's range of lam2; empty for a stencil that has no say there."""
    weight = cassette.tensors["weight"]
    if cassette.manifest.architecture.id == STENCIL:
        return [] if task.lam2 is None else [(_fractions(weight), law(Fraction(task.lam2)))]
    fixed, slope = _fractions(weight[0]), _fractions(weight[1])
    values = (Fraction(0), Fraction(1)) if task.lam2 is None else (Fraction(task.lam2),)
    return [
        (
            [[a + lam2 * b for a, b in zip(*rows, strict=True)] for rows in zip(fixed, slope, strict=True)],
            law(lam2),
        )
        for lam2 in values
    ]


def law(lam2: Fraction) -> Kernel:
    """The exact kernel."""
    return [[lam2, 2 - 2 * lam2, lam2], [Fraction(0), Fraction(-1), Fraction(0)]]


def bounds_of(ends: Sequence[tuple[Kernel, Kernel]], weight: Tensor, architecture: str) -> Proof:
    """The proof for kernels that are affine in lam2 between these ends; all numbers of `weight` are added up, lam2 <= 1."""
    gaps = [[_size(a - b for a, b in zip(*rows, strict=True)) for rows in zip(*pair, strict=True)] for pair in ends]
    coefficients = max(sum(gap, Fraction(0)) for gap in gaps)
    largest = _size(Fraction(value) for value in weight.double().flatten().tolist())
    errors = {}
    for name, unit in PRECISIONS.items():
        n = ROUNDINGS[architecture]
        errors[name] = round_up(coefficients + n * unit / (1 - n * unit) * largest)
    return Proof(coefficients, errors, growth(ends, max(gap[0] for gap in gaps), max(gap[1] for gap in gaps)))


def growth(ends: Sequence[tuple[Kernel, Kernel]], of_u: Fraction, of_v: Fraction) -> Fraction:
    """An upper limit of |g| - 1 over all modes k and all lam2 between the ends; `of_u`, `of_v` bound sum |delta|."""
    general = (of_u + root_above(of_u * of_u + 4 * (of_u + of_v))) / 2
    symmetric = all(learned[0][0] == learned[0][2] for learned, _ in ends)
    if of_v != 0 or not symmetric:
        return general
    half = max(abs(learned[0][1] + sign * 2 * learned[0][0]) / 2 for learned, _ in ends for sign in (1, -1))
    return Fraction(0) if half <= 1 else min(general, half - 1 + root_above(half * half - 1))


def _identity(task: Wave, weight: Tensor) -> Identity | None:
    """K0 and K1 beside those of the law; None where they are not whole numbers."""
    try:
        found = as_integers(weight)
    except UsageError:
        return None
    return Identity(
        found,
        integers([[list(row) for row in kernel] for kernel in EXACT]),
        "K0 = [0 2 0 | 0 -1 0] and K1 = [1 -2 1 | 0 0 0] are the law itself, for every grid and lam2; no bias, "
        f"{task.boundary} ends; only rounding is left; least squares finds the same stencil",
        f"every pair of finite fields on any grid, {task.boundary} ends, {_range(task)}, in exact arithmetic",
        FORMULA,
    )


def _worst(task: Wave, cassette: Cassette, level: Level, seed: int) -> Metric:
    """The largest MSE over 21 values of lam2, each on random fields of its own."""
    values = torch.linspace(0, 1, LAM2S, dtype=torch.float64).tolist() if task.lam2 is None else [task.lam2]
    found = []
    for index, lam2 in enumerate(values):
        generator = stream(seed, "lambda", index)
        batch = task.sample(FIELDS_EACH[level], generator=generator, grid=SIZES[0], lam2=lam2).to(cassette.dtype)
        targets = task.oracle(batch.inputs, batch.context)
        found.append(figure(task.error(cassette.predict(batch.inputs, batch.context).cpu(), targets)))
    worst = max(found, key=lambda one: one.value)
    where = {"grid": SIZES[0], "values": len(values)}
    return Metric(
        "worst_mse_over_lam2", worst.value, "1", worst.stderr, worst.interval, CONFIDENCE, FIELDS_EACH[level], where
    )


def _standing(task: Wave, sampled: Certificate) -> str:
    """How the measured figures stand against baselines; what lies below the rounding floor is as good."""
    floor = task.spec.floor
    rivals = {(b.name, str(dict(b.where))): b.value for b in sampled.baselines}
    lost = {
        name
        for metric in sampled.metrics
        for (name, where), value in rivals.items()
        if where == str(dict(metric.where)) and value < metric.value and metric.value > floor
    }
    mean = sum(metric.value for metric in sampled.metrics) / len(sampled.metrics)
    told = f"mean mse {mean:.2g} over {len(sampled.metrics)} rows"
    return f"{told}; WORSE than {', '.join(sorted(lost))}" if lost else f"{told}, least squares as good"


def _range(task: Wave) -> str:
    return "any lam2 in [0, 1]" if task.lam2 is None else f"lam2 = {task.lam2:g}"


def _fractions(kernel: Tensor) -> Kernel:
    return [[Fraction(value) for value in row] for row in kernel.double().tolist()]


def _size(entries: object) -> Fraction:
    return sum((abs(entry) for entry in entries), Fraction(0))  # type: ignore[attr-defined]
