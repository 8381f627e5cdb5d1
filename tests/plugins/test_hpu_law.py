"""The law of the hpu task: its sampler, its two oracles against each other and against a third one written here."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from grokkit_hpu.fourier import coefficients, drawn, on_grid, outside_share, plane_waves, resolves, values, wavenumbers
from grokkit_hpu.galerkin import columns, truncation
from grokkit_hpu.law import POTENTIAL_RMS, Propagator, potential_on, potential_table, split_step
from torch import Tensor

from grokkit_core.errors import UsageError
from grokkit_core.plugins import host

ROUNDING = 1e-14
"""Of a few transforms in float64, relative to the norm of a field."""

ORACLE = 2e-8
"""What the split step of the oracle may be wrong by on fields of band 5 (measured 1.4e-9 sampled, 1.2e-8 at worst)."""


def task(variant: str = "free", **parameters: Any) -> Propagator:
    found = host().task("hpu", variant=variant, **parameters)
    assert isinstance(found, Propagator)
    return found


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def apart(found: Tensor, wanted: Tensor) -> float:
    """The largest relative L2 error over the fields of a batch."""
    difference = (found - wanted).abs().square().sum((-2, -1)).sqrt()
    return float((difference / wanted.abs().square().sum((-2, -1)).sqrt()).max())


def summed(table: Tensor, grid: int) -> Tensor:
    """sum of c_k exp(i k x) term by term, no transform: "grid grid"."""
    reach = table.shape[-1] // 2
    x = torch.arange(grid, dtype=torch.float64) * (2 * math.pi / grid)
    total = torch.zeros(grid, grid, dtype=torch.complex128)
    for kx, ky in itertools.product(range(-reach, reach + 1), repeat=2):
        angle = kx * x[:, None] + ky * x[None, :]
        total = total + table[kx + reach, ky + reach] * torch.polar(torch.ones_like(angle), angle)
    return total


def dense_hamiltonian(cutoff: int) -> Tensor:
    """H on all modes up to a cutoff, entry by entry from the definition."""
    potential = potential_table()
    reach = potential.shape[-1] // 2
    modes = list(itertools.product(range(-cutoff, cutoff + 1), repeat=2))
    matrix = torch.zeros(len(modes), len(modes), dtype=torch.complex128)
    for i, (kx, ky) in enumerate(modes):
        matrix[i, i] += (kx * kx + ky * ky) / 2
        for j, (px, py) in enumerate(modes):
            if abs(kx - px) <= reach and abs(ky - py) <= reach:
                matrix[i, j] += potential[kx - px + reach, ky - py + reach]
    return matrix


# -- fields ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("grid", [11, 12, 16, 17])
def test_a_field_is_the_sum_of_its_plane_waves(grid: int) -> None:
    table = drawn(1, 5, generator(0))
    assert apart(values(table, grid), summed(table[0], grid).unsqueeze(0)) < ROUNDING


@pytest.mark.parametrize("grid", [11, 16, 33, 64])
def test_coefficients_are_found_again(grid: int) -> None:
    table = drawn(3, 5, generator(0))
    assert torch.allclose(coefficients(values(table, grid), 5), table, atol=1e-15)


def test_a_sample_is_one_function_on_every_grid() -> None:
    fields = {n: task().sample(2, generator=generator(999), grid=n).inputs for n in (16, 32, 128)}
    for fine in (32, 128):
        found = fields[fine]
        assert isinstance(found, Tensor)
        assert apart(found[:, :: fine // 16, :: fine // 16], fields[16]) < ROUNDING


def test_fields_have_norm_one_and_fill_their_band_and_no_more() -> None:
    field = task().sample(4, generator=generator(1), grid=32).inputs
    assert isinstance(field, Tensor)
    assert field.dtype == torch.complex128
    assert torch.allclose(field.abs().square().mean((1, 2)), torch.ones(4, dtype=torch.float64))
    assert float(outside_share(field, 5).max()) < 1e-15
    assert float(outside_share(field, 4).min()) > 0.3


def test_smooth_fields_hold_little_beyond_the_lowest_modes() -> None:
    white, smooth = (task().sample(8, generator=generator(1), grid=32, decay=p).inputs for p in (0.0, 4.0))
    assert float(outside_share(smooth, 2).max()) < 0.2 < 0.8 < float(outside_share(white, 2).min())


@pytest.mark.parametrize(("grid", "said"), [(8, "11"), (10, "11"), (9, "11, 12 if even")])
def test_a_grid_that_is_too_coarse_is_refused_with_the_smallest_one(grid: int, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        task().sample(1, generator=generator(0), grid=grid)


def test_an_even_grid_keeps_its_nyquist_mode_free() -> None:
    assert resolves(11, 5) and resolves(12, 5) and not resolves(10, 5) and not resolves(9, 5)


def test_an_unknown_sampler_setting_is_refused() -> None:
    with pytest.raises(UsageError, match="omega"):
        task().sample(1, generator=generator(0), omega=1.0)


def test_plane_waves_are_the_values_of_single_modes() -> None:
    waves = plane_waves(2, 7)
    table = torch.zeros(5, 5, dtype=torch.complex128)
    table[2 + 1, 2 - 2] = 1
    assert torch.allclose(values(table, 7), waves[:, 3, None] * waves[None, :, 0], atol=1e-15)


def test_wavenumbers_are_whole_on_odd_grids_too() -> None:
    assert wavenumbers(33).tolist() == [*range(17), *range(-16, 0)]


# -- the free law ------------------------------------------------------------------------------------------------------


def test_one_mode_turns_by_its_energy() -> None:
    table = torch.zeros(1, 11, 11, dtype=torch.complex128)
    table[0, 5 + 3, 5 - 4] = 1
    field = values(table, 16)
    turned = task().oracle(field, {})
    assert apart(turned, field * torch.polar(torch.tensor(1.0).double(), torch.tensor(-25 * 0.01 / 2).double())) < 1e-15


@pytest.mark.parametrize("grid", [11, 16, 17, 64])
def test_the_sampler_and_the_oracle_agree(grid: int) -> None:
    batch = task().sample(4, generator=generator(2), grid=grid)
    assert apart(task().oracle(batch.inputs, {}), batch.targets) < ROUNDING


def test_many_steps_are_one_after_the_other() -> None:
    batch = task().sample(2, generator=generator(2), grid=16, steps=7)
    field = batch.inputs
    for _ in range(7):
        field = task().oracle(field, {})
    assert apart(field, batch.targets) < ROUNDING


def test_backward_undoes_forward() -> None:
    batch = task().sample(2, generator=generator(2), grid=32)
    assert apart(task(dt=-0.01).oracle(batch.targets, {}), batch.inputs) < ROUNDING


# -- the potential -----------------------------------------------------------------------------------------------------


def test_the_potential_has_the_check_values_of_the_facts_page() -> None:
    on_64 = potential_on(64)
    assert float(on_64.min()) == pytest.approx(-4.380, abs=5e-4)
    assert float(on_64.max()) == pytest.approx(3.747, abs=5e-4)
    assert float(on_64.mean()) == pytest.approx(-0.1464, abs=5e-5)
    assert float(on_64.square().mean().sqrt()) == pytest.approx(POTENTIAL_RMS, abs=1e-14)


def test_the_potential_is_real() -> None:
    assert float(summed(potential_table(), 9).imag.abs().max()) < 1e-14


@pytest.mark.parametrize("time", [0.05, 0.5])
def test_the_galerkin_flow_is_the_exponential_of_the_matrix_by_definition(time: float) -> None:
    exponential = torch.linalg.matrix_exp(-1j * time * dense_hamiltonian(5))
    start = [(kx + 5) * 11 + ky + 5 for kx, ky in itertools.product(range(-2, 3), repeat=2)]
    assert float((columns(2, time, cutoff=5) - exponential[:, start]).abs().max()) < 1e-12


def test_the_galerkin_flow_of_a_transposed_potential_is_another_one() -> None:
    exponential = torch.linalg.matrix_exp(-0.05j * dense_hamiltonian(5).T)
    start = [(kx + 5) * 11 + ky + 5 for kx, ky in itertools.product(range(-2, 3), repeat=2)]
    assert float((columns(2, 0.05, cutoff=5) - exponential[:, start]).abs().max()) > 1e-2


@pytest.mark.parametrize("steps", [1, 20])
def test_both_oracles_agree(steps: int) -> None:
    """Split step and Galerkin matrix share nothing but the potential's coefficients."""
    batch = task("potential").sample(3, generator=generator(99), grid=64, steps=steps)
    table = coefficients(batch.inputs, 5).reshape(3, -1)
    exact = (columns(5, 0.05 * steps, cutoff=15) @ table.T).T.reshape(3, 31, 31)
    assert apart(batch.targets, values(exact, 64)) < ORACLE * steps


@pytest.mark.parametrize("grid", [16, 33, 45, 128])
def test_targets_do_not_depend_on_the_grid(grid: int) -> None:
    potential = task("potential")
    wanted = potential.sample(2, generator=generator(99), grid=64).targets
    found = potential.sample(2, generator=generator(99), grid=grid).targets
    if grid == 128:
        found = found[:, ::2, ::2]
    else:
        wanted = on_grid(wanted, grid) if grid > 20 else wanted[:, ::4, ::4]
    assert apart(found, wanted) < 1e-8


@pytest.mark.parametrize("grid", [32, 33, 64])
def test_the_potential_oracle_gives_the_targets(grid: int) -> None:
    potential = task("potential")
    batch = potential.sample(2, generator=generator(98), grid=grid, band=8)
    assert apart(potential.oracle(batch.inputs, {}), batch.targets) < 1e-9


def test_sixteen_substeps_are_as_good_as_many_more() -> None:
    field = task("potential").sample(2, generator=generator(99), grid=64).inputs
    assert isinstance(field, Tensor)
    finer = field
    for _ in range(4):
        finer = split_step(finer, 0.05 / 4)
    assert 1e-11 < apart(split_step(field, 0.05), finer) < 2e-9


@pytest.mark.parametrize(("cutoff", "steps"), [(9, 1), (12, 20)])
def test_what_a_cutoff_leaves_out_is_bounded_and_the_bound_is_no_fantasy(cutoff: int, steps: int) -> None:
    """Against 15, whose own truncation is smaller by orders of magnitude (12 and 15 against 18: the protocols)."""
    time, finest = 0.05 * steps, 15
    fine = columns(5, time, cutoff=finest).reshape(31, 31, -1)
    edge = finest - cutoff
    inner = slice(edge, 31 - edge)
    fine = fine.clone()
    fine[inner, inner] -= columns(5, time, cutoff=cutoff).reshape(2 * cutoff + 1, 2 * cutoff + 1, -1)
    real = float(torch.linalg.matrix_norm(fine.reshape(31 * 31, -1), ord=2))
    stated = truncation(5, time, cutoff=cutoff)
    assert real <= stated + truncation(5, time, cutoff=finest)
    assert stated < 1e4 * max(real, 1e-12)


# -- what is conserved, and what would do otherwise --------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["free", "potential"])
def test_the_law_keeps_norm_and_energy(variant: str) -> None:
    law = task(variant)
    batch = law.sample(3, generator=generator(99), grid=64, steps=10)
    before, after = law.invariants(batch.inputs), law.invariants(batch.targets)
    for name in ("norm", "energy"):
        assert torch.allclose(before[name], after[name], rtol=1e-7 if name == "energy" else 1e-12), name


def test_the_energy_of_a_plane_wave_is_half_its_wavenumber_squared() -> None:
    table = torch.zeros(1, 11, 11, dtype=torch.complex128)
    table[0, 5 + 1, 5 + 3] = 2
    found = task().invariants(values(table, 16))
    assert float(found["norm"][0]) == pytest.approx(2)
    assert float(found["energy"][0]) == pytest.approx(4 * 10 / 2)


@pytest.mark.parametrize(
    ("variant", "grid", "seed", "figures"),
    [
        (
            "free",
            16,
            999,
            {"zero": (1.0, 1.0), "identity": (0.11, 0.14), "untrained": (0.13, 0.19), "euler": (0.01, 0.014)},
        ),
        (
            "potential",
            32,
            99,
            {"zero": (1.0, 1.0), "identity": (0.55, 0.65), "kinetic-only": (0.09, 0.12), "coarse-grid": (5e-3, 9e-3)},
        ),
    ],
)
def test_baselines_have_the_figures_of_the_facts_page(
    variant: str, grid: int, seed: int, figures: dict[str, tuple[float, float]]
) -> None:
    law = task(variant)
    batch = law.sample(8, generator=generator(seed), grid=grid)
    known = law.baselines(batch)
    for name, (low, high) in figures.items():
        with torch.inference_mode():
            worst = float(law.error(known[name](batch.inputs, {}), batch.targets).max())
        assert low <= worst <= high, (name, worst)


def test_the_coarse_baseline_is_the_law_where_it_is_given_enough_points() -> None:
    """Its error is the grid's: on 16 points the law aliases, on 32 it does not."""
    field = task("potential").sample(2, generator=generator(99), grid=64)
    assert isinstance(field.inputs, Tensor)
    fine = on_grid(split_step(on_grid(field.inputs, 32), 0.05), 64)
    assert apart(fine, field.targets) < 1e-7


def test_errors_are_relative_and_count_phase() -> None:
    law, field = task(), task().sample(2, generator=generator(0), grid=16).targets
    assert law.error(3 * field, field).tolist() == pytest.approx([2, 2])
    assert law.error(1j * field, field).tolist() == pytest.approx([math.sqrt(2)] * 2)
    assert law.error(field.to(torch.complex64), field).dtype == torch.float64


def test_each_variant_has_its_own_time_step() -> None:
    assert [task(variant).dt for variant in ("free", "potential", "published")] == [0.01, 0.05, 0.01]
    assert task("potential", dt=0.1).dt == 0.1
