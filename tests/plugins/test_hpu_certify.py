"""Operator norms of hpu certificates: never exceeded by any field, attained, and changed by every tampering."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from grokkit_hpu.certify import LARGEST_BOUND, error_norm, network_columns, with_time_step
from grokkit_hpu.fourier import coefficients, drawn, values
from grokkit_hpu.galerkin import columns, truncation
from grokkit_hpu.law import split_step
from grokkit_hpu.model import Diagonal, SplitStep, free_error, table_of
from torch import Tensor

import grokkit_core as gk
from grokkit_core.cassette import Cassette
from grokkit_core.manifest import Certificate
from grokkit_core.plugins import host

ROUNDING = 2e-15
"""Of the transforms of one step in float64, which the certificate of a diagonal network leaves out."""


def bounds_of(certificate: Certificate) -> dict[str, float]:
    return {bound.name: bound.value for bound in certificate.bounds}


def single_modes(band: int = 5) -> Tensor:
    count = (2 * band + 1) ** 2
    return torch.eye(count, dtype=torch.complex128).reshape(count, 2 * band + 1, 2 * band + 1)


def sizes(field: Tensor) -> Tensor:
    return field.abs().square().mean((-2, -1)).sqrt()


def off(shift: float) -> Cassette:
    """hpu-free with one phase shifted."""
    free = gk.load("hpu-free")
    theta = free.tensors["theta"].clone()
    theta[2, 9] += shift
    return Cassette(free.manifest.replace(name="off"), {"theta": theta})


def norms_of(cassette: Cassette, steps: int) -> float:
    module = cassette.module
    assert isinstance(module, Diagonal)
    return float(free_error(*table_of(module, 5, torch.complex128), 0.01, steps).max())


# -- diagonal networks -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [1e-3, 1e-6])
@pytest.mark.parametrize("steps", [1, 100])
def test_the_bound_is_attained_by_a_single_mode_and_by_no_other_field_exceeded(shift: float, steps: int) -> None:
    cassette = off(shift)
    stated = norms_of(cassette, steps)
    law = host().task("hpu")
    fields = torch.cat((single_modes(), drawn(200, 5, torch.Generator().manual_seed(1))))
    field = values(fields, 16)
    exact = values(fields * _exact_factors(steps), 16)
    errors = sizes(list(cassette.rollout(field, steps))[-1] - exact) / sizes(exact)
    assert float(errors.max()) == pytest.approx(stated, rel=1e-6)
    assert int(errors.argmax()) == 2 * 11 + 9
    assert float(errors[121:].max()) < 0.6 * stated
    if steps == 1:
        assert float(law.error(cassette(field), law.oracle(field, {})).max()) <= stated + ROUNDING


def _exact_factors(steps: int) -> Tensor:
    k = torch.arange(-5, 6, dtype=torch.float64)
    angle = -(k[:, None].square() + k.square()) * 0.01 * steps / 2
    return torch.polar(torch.ones_like(angle), angle)


def test_gradient_ascent_does_not_beat_the_bound() -> None:
    """An adversary who may choose any field of the band ends at the bound from below."""
    cassette = off(1e-3)
    theta = cassette.tensors["theta"]
    difference = torch.polar(torch.ones_like(theta), theta) - _exact_factors(1)
    table = torch.view_as_real(drawn(1, 5, torch.Generator().manual_seed(2))[0]).clone().requires_grad_()
    for _ in range(60):
        weight = torch.view_as_complex(table).abs().square()
        share = (weight * difference.abs().square()).sum() / weight.sum()
        (slope,) = torch.autograd.grad(share.log(), table)
        table = (table + slope * weight.sum().sqrt()).detach().requires_grad_()
    worst = values(torch.view_as_complex(table.detach()).unsqueeze(0), 16)
    law = host().task("hpu")
    reached = float(law.error(cassette(worst), law.oracle(worst, {})))
    assert 0.9 * norms_of(cassette, 1) < reached <= norms_of(cassette, 1) * (1 + 1e-9)


def test_shipped_bounds_are_those_of_the_facts_page_and_hold() -> None:
    found = bounds_of(gk.show("hpu-free").certificate)
    assert found["E_1"] <= 1e-13 and found["E_100"] <= 1e-11
    assert found["E_1_complex64"] <= 1e-6 and found["E_100_complex64"] <= 5e-5
    assert found["unitarity_defect"] <= 2.3e-16
    cassette = gk.load("hpu-free")
    for steps, name in ((1, "E_1"), (100, "E_100")):
        assert norms_of(cassette, steps) <= found[name]


def test_the_bound_is_a_maximum_over_exactly_the_modes_of_the_band() -> None:
    """Against the phases by definition, mode by mode, for a table that no symmetry hides."""
    cassette = off(0.3)
    squares, used = table_of(cassette.module, 5, torch.complex128)
    theta = cassette.tensors["theta"]
    for kx, ky in itertools.product(range(-5, 6), repeat=2):
        assert float(squares[kx + 5, ky + 5]) == kx * kx + ky * ky
        wanted = torch.polar(torch.tensor(1.0).double(), theta[kx + 5, ky + 5])
        assert complex(used[kx + 5, ky + 5]) == pytest.approx(complex(wanted), abs=1e-16)


def test_many_steps_cost_at_most_so_many_times_one() -> None:
    cassette = off(1e-4)
    assert norms_of(cassette, 100) == pytest.approx(100 * norms_of(cassette, 1), rel=1e-3)


# -- split step --------------------------------------------------------------------------------------------------------


def potential_module() -> SplitStep:
    module = gk.load("hpu-potential").module
    assert isinstance(module, SplitStep)
    return module


def attacked(module: SplitStep, *, rounds: int) -> float:
    """The error of the worst field that power iteration finds, with the split-step oracle and no matrix at all.

    Network and law are unitary, so their adjoints are themselves with time reversed.
    """
    back = with_time_step(module, -module.dt)
    table = drawn(4, 5, torch.Generator().manual_seed(0))
    for _ in range(rounds):
        with torch.no_grad():
            field = values(table, 64)
            error = module(field) - split_step(field, module.dt)
            pulled = coefficients(back(error) - split_step(error, -module.dt), 5)
        table = pulled / pulled.abs().square().sum((1, 2), keepdim=True).sqrt()
    field = values(table, 64)
    with torch.no_grad():
        return float(sizes(module(field) - split_step(field, module.dt)).max())


def test_power_iteration_reaches_the_bound_of_a_split_step_and_does_not_pass_it() -> None:
    stated = bounds_of(gk.show("hpu-potential").certificate)["E_1_grid_64"]
    worst = attacked(potential_module(), rounds=25)
    assert 0.85 * stated < worst <= stated
    fields = values(drawn(16, 5, torch.Generator().manual_seed(99)), 64)
    with torch.no_grad():
        sampled = sizes(potential_module()(fields) - split_step(fields, 0.05))
    assert float(sampled.max()) < 0.6 * worst


def test_shipped_bounds_of_the_potential_are_those_of_the_facts_page() -> None:
    found = bounds_of(gk.show("hpu-potential").certificate)
    limits = {"E_1": 2e-6, "E_1_grid_64": 2e-6, "E_100": 2e-5, "E_1_half_dt": 1e-6, "E_1_double_dt": 5e-5}
    assert set(found) == set(limits)
    assert all(found[name] <= limit for name, limit in limits.items())


@pytest.mark.parametrize("grid", [32, 33])
def test_the_norm_is_that_of_the_difference_from_the_exact_columns(grid: int) -> None:
    """By modes on a grid fine enough for both, without the bookkeeping of what lies beyond it."""
    module = potential_module()
    made = network_columns(module, grid, 2, 1, dtype=torch.complex128)
    size = 2 * 15 + 1
    exact = columns(2, 0.05).T.reshape(25, 37, 37)[:, 3:-3, 3:-3]
    k = torch.arange(-15, 16) % grid
    difference = made[:, k[:, None], k[None, :]] - exact
    direct = float(torch.linalg.matrix_norm(difference.reshape(25, size * size), ord=2))
    whole = error_norm(module, grid, 0.05, 2, 1)
    assert direct <= whole <= direct * 1.01 + 2 * truncation(2, 0.05)


@pytest.mark.parametrize("name", ["potential", "slope"])
def test_a_wrong_generator_has_a_large_norm(name: str) -> None:
    module, changed = potential_module(), with_time_step(potential_module(), 0.05)
    state = {key: tensor.clone() for key, tensor in module.state_dict().items()}
    if name == "potential":
        state["potential"] = state["potential"].transpose(0, 1).contiguous()
    else:
        state["slope"] = state["slope"] * 1.01
    changed.load_state_dict(state)
    assert error_norm(changed, 32, 0.05, 2, 1) > 1e-3


# -- verdicts and tampering --------------------------------------------------------------------------------------------


def test_a_bound_that_proves_nothing_is_not_stated() -> None:
    far = off(0.2)
    certificate = far.task.certify(far, level="quick", seed=0)
    assert norms_of(far, 1) > LARGEST_BOUND
    assert (certificate.verdict, certificate.bounds) == ("estimated", ())


@pytest.mark.parametrize("shift", [0.05, 1e-6, 1e-12])
def test_one_tampered_phase_is_found_by_verify(shift: float, library: Path, cli: Callable[..., Any]) -> None:
    """The digests are right, the certificate is the shipped one: only recomputing the norm tells."""
    off(shift).save(library)
    found = cli("verify", "off", "--level", "quick", "--library", library, "--json")
    assert found.code == 1
    assert all(not row["agrees"] for row in found.json["results"])


def test_an_untampered_copy_agrees(library: Path, cli: Callable[..., Any]) -> None:
    off(0.0).save(library)
    for words in ((), ("--seed", "11"), ("--dtype", "float32"), ("--dtype", "complex64")):
        assert cli("verify", "off", "--level", "quick", "--library", library, *words).code == 0


def test_a_bound_that_was_improved_does_not_agree(library: Path) -> None:
    free = gk.load("hpu-free")
    certificate = free.manifest.certificate
    better = [type(bound)(bound.name, bound.value / 10, bound.unit) for bound in certificate.bounds]
    changed = type(certificate)(**{**_fields(certificate), "bounds": tuple(better)})
    kept = Cassette(free.manifest.replace(name="better", certificate=changed), free.tensors).save(library)
    reasons = gk.verify(kept.manifest.ref, library=library, level="quick").reasons
    assert any("bound E_1 is" in reason for reason in reasons)


def _fields(certificate: Certificate) -> Mapping[str, Any]:
    return {name: getattr(certificate, name) for name in type(certificate).__dataclass_fields__}


def test_show_prints_what_the_network_computes(cli: Callable[..., Any]) -> None:
    assert "theta_k = -|k|^2 0.01 / 2" in cli("show", "hpu-free").out
    printed = cli("show", "hpu-potential").out
    assert "m = 0.50000" in printed and "rms 2.0000" in printed
