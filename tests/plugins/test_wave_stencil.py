"""Stencils: three fits of six numbers, twelve for every lam2, decimals only where they are meant, and what is proved."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from grokkit_wave.certify import growth, law
from grokkit_wave.law import Wave
from grokkit_wave.least_squares import settled, shortest_decimal
from torch import Tensor, nn

import grokkit_core as gk
from grokkit_core.cassette import Cassette, draft
from grokkit_core.certify.agree import disagreements
from grokkit_core.errors import BadWeights, UsageError
from grokkit_core.manifest import Certificate
from grokkit_core.plugins import host
from grokkit_core.specs import RecipeSpec, settle
from grokkit_core.streams import stream
from grokkit_core.task import tensors_of

LAM2 = 0.0961
FITS = ("least-squares", "lbfgs", "adam")
EXACT = torch.tensor([[LAM2, 2 - 2 * LAM2, LAM2], [0, -1, 0]], dtype=torch.float64)
K0 = [[0.0, 2.0, 0.0], [0.0, -1.0, 0.0]]
K1 = [[1.0, -2.0, 1.0], [0.0, 0.0, 0.0]]


def wave(**parameters: Any) -> Wave:
    found = host().task("wave", **parameters)
    assert isinstance(found, Wave)
    return found


def fitted(
    name: str, seed: int = 0, dtype: torch.dtype = torch.float64, task: Wave | None = None, **settings: Any
) -> Tensor:
    """The coefficients that a recipe stores."""
    recipe = host().recipe(f"wave/{name}")
    given = settle(recipe.spec.parameters, settings, name)
    found = task or wave(**host().spec(RecipeSpec, f"wave/{name}").law)
    run = recipe.start(found, given, [seed], dtype=dtype, device=torch.device("cpu"))
    while not run.done:
        run.step()
    return recipe.finish(found, given, recipe.config(found, given), run.result()[0])[1]["weight"]


def made(task: Wave, weight: Tensor, **config: Any) -> Cassette:
    """A cassette with these coefficients, not certified."""
    name = "stencil" if weight.ndim == 2 else "conditional-stencil"
    architecture = host().architecture(f"grokkit_wave/{name}")
    own = {"boundary": task.boundary, **({"lam2": task.lam2} if name == "stencil" else {}), **config}
    settled = architecture.settled(own)
    return draft(
        "made",
        task=task,
        architecture=architecture.spec,
        config=settled,
        signature=architecture.signature(settled),
        tensors={"weight": weight},
        provenance=gk.show("wave").provenance,
        summary="made for a test",
        plugins=host(),
    )


@functools.cache
def stencil(kind: str) -> Cassette:
    """The shipped cassette, or the stencil of a fit."""
    return gk.load("wave") if kind == "wave" else made(wave(lam2=LAM2), fitted(kind))


@functools.cache
def certified(kind: str) -> Certificate:
    return stencil(kind).task.certify(stencil(kind), level="quick", seed=0)


def bounds_of(certificate: Certificate) -> Mapping[str, float]:
    return {bound.name: bound.value for bound in certificate.bounds}


# -- fits --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "dtype"),
    [(name, dtype) for name in FITS for dtype in host().spec(RecipeSpec, f"wave/{name}").dtypes],
)
def test_every_fit_finds_the_six_coefficients(name: str, dtype: str) -> None:
    kind = getattr(torch, dtype)
    raw = fitted(name, dtype=kind, snap=False)
    assert raw.dtype == torch.float64
    assert float((raw - EXACT).abs().max()) < (1e-6 if dtype == "float32" else 1e-12)
    stored = settled(raw.to(kind), snap=True).tolist()
    short = [[0.0961, 1.8078, 0.0961], [0, -1, 0]]
    assert stored == short or (
        dtype == "float32" and stored == raw.tolist()
    )  # a few of its roundings are too many to round


def test_a_fit_that_has_not_arrived_is_not_made_to_look_so() -> None:
    assert torch.equal(fitted("adam", steps=200), fitted("adam", steps=200, snap=False))


def test_coefficients_that_are_no_short_decimals_stay_as_they_were_fitted() -> None:
    third = wave(lam2=1 / 3)
    assert torch.equal(fitted("least-squares", task=third), fitted("least-squares", task=third, snap=False))


@pytest.mark.parametrize(
    ("value", "error", "found"),
    [
        (0.09610000000000007, 1e-12, 0.0961),
        (1.8077999999999994, 1e-12, 1.8078),
        (-2.6e-17, 1e-12, 0.0),
        (0.0961000004, 1e-12, 0.0961000004),
        (0.096100000412, 1e-12, None),
        (1 / 3, 1e-12, None),
        (0.09610003, 3e-7, 0.0961),
        (0.096123, 3e-7, None),
        (math.pi, 0.1, None),
    ],
)
def test_a_decimal_is_taken_only_where_it_is_no_coincidence(value: float, error: float, found: float | None) -> None:
    assert shortest_decimal(value, error) == found


@pytest.mark.parametrize("boundary", ["dirichlet", "periodic"])
@pytest.mark.parametrize("seed", [0, 1])
def test_two_values_of_lam2_give_the_whole_numbers_of_the_law(boundary: str, seed: int) -> None:
    task = wave(boundary=boundary)
    assert fitted("conditional", seed, task=task).tolist() == [K0, K1]
    raw = fitted("conditional", seed, task=task, snap=False)
    assert 0 < float((raw - torch.tensor([K0, K1])).abs().max()) < 5e-9


def test_the_manifest_keeps_how_far_the_raw_solution_was_from_whole_numbers() -> None:
    figures = gk.show("wave").extra["training"]
    assert 0 < figures["raw_deviation"] <= figures["raw_error"] < 1e-11
    assert figures["rounded"] is True


@pytest.mark.parametrize("name", ["conditional", *FITS])
def test_an_interrupted_fit_goes_on_to_the_same_bits(name: str) -> None:
    recipe = host().recipe(f"wave/{name}")
    task = wave(**recipe.spec.law)
    settings = settle(recipe.spec.parameters, {} if name in ("conditional", "least-squares") else {"steps": 40}, name)
    first, second = (recipe.start(task, settings, [0], dtype=torch.float64, device=torch.device("cpu")) for _ in "ab")
    first.step()
    second.restore(first.state())
    assert second.done == first.done
    assert second.figures(0) == first.figures(0)
    for run in (first, second):
        while not run.done:
            run.step()
    assert torch.equal(first.result()[0].state_dict()["weight"], second.result()[0].state_dict()["weight"])


@pytest.mark.parametrize("lam2s", [(0.3,), (0.3, 0.3), (0.1, 0.2, 0.3)])
def test_a_conditional_stencil_needs_two_values(lam2s: Any) -> None:
    with pytest.raises(UsageError, match="two different values"):
        fitted("conditional", lam2s=lam2s, task=wave())


def test_laws_of_one_and_of_every_lam2_are_not_confused() -> None:
    with pytest.raises(UsageError, match="lam2"):
        fitted("conditional", task=wave(lam2=0.3))
    with pytest.raises(UsageError, match="lam2"):
        fitted("least-squares", task=wave())


def test_too_few_points_are_refused() -> None:
    with pytest.raises(UsageError, match="6 coefficients"):
        fitted("least-squares", fields=1, grid=6)


# -- one step ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("grid", [30, 254, 4094])
@pytest.mark.parametrize("amplitude", [1.0, 10.0])
def test_one_step_in_float32_is_exact_to_rounding_at_every_size_and_amplitude(grid: int, amplitude: float) -> None:
    for cassette in (stencil("wave"), stencil("least-squares")):
        batch = cassette.task.sample(16, generator=stream(1), grid=grid, amplitude=amplitude).to(torch.float32)
        targets = cassette.task.oracle(batch.inputs, batch.context)
        error = cassette.task.error(cassette.predict(batch.inputs, batch.context), targets).mean()
        assert error < 1e-13 * amplitude**2


@pytest.mark.parametrize("change", [1e-3, -1e-3])
@pytest.mark.parametrize("at", range(6))
def test_one_coefficient_disturbed_by_a_thousandth_is_noticed(at: int, change: float) -> None:
    weight = EXACT.clone()
    weight.view(-1)[at] += change
    cassette = made(wave(lam2=LAM2), weight)
    batch = cassette.task.sample(256, generator=stream(1), grid=254)
    error = float(cassette.task.error(cassette.predict(batch.inputs), batch.targets).mean())
    assert error == pytest.approx(1e-6, rel=0.1)
    assert cassette.task.certify(cassette, level="quick", seed=0).verdict == "estimated"


def test_an_unmatched_time_step_costs_the_square_of_its_lam2_times_the_laplacian() -> None:
    task, cassette = wave(lam2=0.4), made(wave(lam2=LAM2), EXACT)
    batch = task.sample(2_000, generator=stream(1), grid=254)
    error = float(task.error(cassette.predict(batch.inputs), batch.targets).mean())
    (pair,) = tensors_of(batch.inputs)
    curvature = nn.functional.pad(pair[:, 0], (1, 1)).diff().diff().square().mean()
    assert error == pytest.approx((0.4 - LAM2) ** 2 * float(curvature), rel=1e-9)


def test_replicated_ends_are_another_law() -> None:
    task = wave(lam2=LAM2)
    batch = task.sample(256, generator=stream(1), grid=30)
    (pair,) = tensors_of(batch.inputs)
    wide = nn.functional.pad(pair, (1, 1), mode="replicate")
    assert float(task.error(nn.functional.conv1d(wide, EXACT.unsqueeze(0)).squeeze(1), batch.targets).mean()) > 1e-4
    zeros = nn.functional.pad(pair, (1, 1))
    assert float(task.error(nn.functional.conv1d(zeros, EXACT.unsqueeze(0)).squeeze(1), batch.targets).mean()) < 1e-30


def test_a_stencil_with_other_ends_than_its_law_is_not_certified() -> None:
    cassette = made(wave(lam2=LAM2), EXACT, boundary="periodic")
    assert cassette.task.certify(cassette, level="quick", seed=0).verdict == "estimated"


# -- certificates ------------------------------------------------------------------------------------------------------


def test_the_shipped_stencil_is_the_law_itself() -> None:
    certificate = certified("wave")
    assert certificate.verdict == "exact"
    assert certificate.method == "algebraic"
    assert bounds_of(certificate) == {
        "relative_error_float32": 4.2e-6,
        "relative_error_float64": 7.8e-15,
        "amplification_excess": 0.0,
    }
    worst = next(metric for metric in certificate.metrics if metric.name == "worst_mse_over_lam2")
    assert worst.value < 1e-28
    assert worst.where["values"] == 21


def test_one_wrong_whole_number_is_no_proof() -> None:
    weight = torch.tensor([K0, K1], dtype=torch.float64)
    weight[1, 0, 1] = -1
    cassette = made(wave(), weight)
    assert cassette.task.certify(cassette, level="quick", seed=0).verdict == "estimated"


def test_twelve_numbers_that_are_not_whole_are_bounded_by_their_deviation() -> None:
    raw = fitted("conditional", task=wave(), snap=False)
    for weight, verdict in ((raw, "bounded"), (raw + 1e-4, "estimated")):
        cassette = made(wave(), weight)
        found = cassette.task.certify(cassette, level="quick", seed=0)
        assert found.verdict == verdict
    assert (
        0
        < bounds_of(made(wave(), raw).task.certify(made(wave(), raw), level="quick", seed=0))["coefficient_error"]
        < 1e-8
    )


@pytest.mark.parametrize("kind", ["wave", *FITS])
@pytest.mark.parametrize("seed", [3, 4])
def test_another_seed_and_precision_agree(kind: str, seed: int) -> None:
    recorded, cassette = certified(kind), stencil(kind)
    for dtype in (None, "float32"):
        again = cassette.task.certify(cassette.to("cpu", dtype), level="quick", seed=seed)
        assert disagreements(recorded, again, floor=cassette.task.spec.floor) == ()


@pytest.mark.parametrize("size", [0.0, 1e-12, 1e-9, 1e-7])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_no_field_is_predicted_worse_than_the_bound_and_the_bound_is_not_idle(size: float, dtype: torch.dtype) -> None:
    """The worst field has the signs of the deviation; it is among the attacks."""
    deviation = size * torch.randn(2, 3, generator=stream(5), dtype=torch.float64)
    cassette = made(wave(lam2=LAM2), EXACT + deviation)
    bound = bounds_of(cassette.task.certify(cassette, level="quick", seed=0))
    limit = bound[f"relative_error_{str(dtype).removeprefix('torch.')}"]
    attacks = torch.randn(500, 2, 3, generator=stream(6), dtype=torch.float64).clamp(-1, 1)
    attacks = torch.cat((attacks, attacks.sign(), deviation.sign().unsqueeze(0))).to(dtype)
    error = (cassette.predict(attacks).double() - cassette.task.oracle(attacks, {})).abs()[:, 1]
    largest = float(error.max() / attacks.abs().max())
    assert largest <= limit
    if size > 1e-9 and dtype == torch.float64:
        assert largest > 0.9 * limit


def roots(kernel: Tensor, modes: Tensor) -> Tensor:
    """The largest |g| of each mode, by the quadratic formula."""
    turn = torch.exp(1j * modes.unsqueeze(1) * torch.tensor([-1, 0, 1]))
    of_u, of_v = ((turn * row).sum(1) for row in kernel)
    root = torch.sqrt(of_u * of_u + 4 * of_v)
    return torch.maximum(((of_u + root) / 2).abs(), ((of_u - root) / 2).abs())


@pytest.mark.parametrize("size", [0.0, 1e-9, 1e-6, 1e-3])
@pytest.mark.parametrize("lam2", [0.0, LAM2, 1.0])
def test_no_mode_grows_faster_than_its_bound(size: float, lam2: float) -> None:
    modes = torch.linspace(0, math.pi, 4_001, dtype=torch.float64)
    exact = torch.tensor([[lam2, 2 - 2 * lam2, lam2], [0, -1, 0]], dtype=torch.float64)
    for seed in range(5):
        learned = exact + size * torch.randn(2, 3, generator=stream(seed), dtype=torch.float64)
        kernel = [[Fraction(value) for value in row] for row in learned.tolist()]
        true = law(Fraction(lam2))
        of_u, of_v = (sum(abs(a - b) for a, b in zip(*rows, strict=True)) for rows in zip(kernel, true, strict=True))
        bound = float(growth([(kernel, true)], Fraction(of_u), Fraction(of_v)))
        measured = float(roots(learned, modes).max()) - 1
        assert measured <= bound + 1e-7  # a double root is only known to the root of rounding


@pytest.mark.parametrize("size", [1e-4, 1e-8])
@pytest.mark.parametrize("past", [0.0, 1e-12], ids=["symmetric", "general"])
def test_the_bound_on_growth_is_not_idle(size: float, past: float) -> None:
    """A middle coefficient that is too large makes the constant mode grow by the root of the deviation."""
    learned = EXACT.clone()
    learned[0, 1] += size
    learned[1, 0] += past
    kernel = [[Fraction(value) for value in row] for row in learned.tolist()]
    bound = float(growth([(kernel, law(Fraction(LAM2)))], Fraction(size), Fraction(past)))
    measured = float(roots(learned, torch.zeros(1, dtype=torch.float64))) - 1
    assert 0.95 < measured / bound < 1.0001


def test_the_exact_law_does_not_grow_at_any_lam2_and_grows_beyond_one() -> None:
    ends = [(law(Fraction(value)), law(Fraction(value))) for value in (0, 1)]
    assert growth(ends, Fraction(0), Fraction(0)) == 0
    beyond = law(Fraction(11, 10))
    assert growth([(beyond, beyond)], Fraction(1), Fraction(0)) > 0.5


def test_homogeneity_holds_by_construction() -> None:
    cassette = gk.load("wave")
    assert set(cassette.tensors) == {"weight"}
    pair = torch.randn(2, 2, 17, generator=stream(0), dtype=torch.float64)
    assert not bool(cassette(torch.zeros_like(pair), context={"lam2": 0.5}).any())
    assert torch.equal(cassette(4 * pair, context={"lam2": 0.5}), 4 * cassette(pair, context={"lam2": 0.5}))


def test_coefficients_that_are_not_finite_are_refused() -> None:
    architecture = host().architecture("grokkit_wave/stencil")
    with pytest.raises(BadWeights, match="NaN"):
        architecture.check_tensors({}, {"weight": torch.full((2, 3), math.nan)})


def test_training_the_shipped_cassette_again_gives_the_same_numbers(library: Path) -> None:
    (again,) = gk.train("wave", name="again", library=library)
    assert torch.equal(again.cassette.tensors["weight"], gk.load("wave").tensors["weight"])
    assert again.cassette.manifest.certificate.verdict == "exact"
