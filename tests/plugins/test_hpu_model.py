"""Networks of the hpu plugin: where each mode stands, on which grids they answer, what they keep, and what they refuse."""

from __future__ import annotations

import itertools
import json
import math
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from grokkit_hpu.fourier import drawn, on_grid, values
from grokkit_hpu.law import potential_on, potential_table
from grokkit_hpu.model import Diagonal, Dispersion, PhaseTable, SplitStep
from grokkit_hpu.split_step import factors, sizes
from torch import Tensor, nn

import grokkit_core as gk
from grokkit_core.cassette import Cassette
from grokkit_core.errors import Incompatible, UsageError
from grokkit_core.plugins import host

ASYMMETRIC_DT = 0.01
SPLIT: dict[str, Any] = {"dt": 0.05, "order": 4, "substeps": 4, "n_min": 32, "potential_band": 3}
SHIPPED = ("hpu-free", "hpu-potential")


def fields(count: int = 3, grid: int = 32, band: int = 5, seed: int = 3) -> Tensor:
    return values(drawn(count, band, torch.Generator().manual_seed(seed)), grid)


def apart(found: Tensor, wanted: Tensor) -> float:
    difference = (found - wanted).abs().square().sum((-2, -1)).sqrt()
    return float((difference / wanted.abs().square().sum((-2, -1)).sqrt()).max())


def norms(field: Tensor) -> Tensor:
    return field.abs().square().mean((-2, -1)).sqrt()


def wavenumbers(band: int) -> tuple[Tensor, Tensor]:
    k = torch.arange(-band, band + 1, dtype=torch.float64)
    return k[:, None].expand(2 * band + 1, -1), k[None, :].expand(2 * band + 1, -1)


def asymmetric(kx: Tensor, ky: Tensor) -> Tensor:
    """Phases of a law that tells the axes and their directions apart."""
    return -ASYMMETRIC_DT * ((kx.square() + ky.square()) / 2 + 0.3 * kx + 0.1 * ky)


def tabled(theta: Tensor) -> PhaseTable:
    band = theta.shape[-1] // 2
    module = PhaseTable(band, -1, "refuse")
    module.load_state_dict({"theta": theta})
    return module.requires_grad_(False)


def drifting(table: Tensor, grid: int) -> tuple[Tensor, Tensor]:
    """A field and what the asymmetric law makes of it, mode by mode on the points of the grid."""
    x = torch.arange(grid, dtype=torch.float64) * (2 * math.pi / grid)
    reach = table.shape[-1] // 2
    start = torch.zeros(grid, grid, dtype=torch.complex128)
    moved = torch.zeros_like(start)
    for kx, ky in itertools.product(range(-reach, reach + 1), repeat=2):
        angle = kx * x[:, None] + ky * x[None, :]
        phase = -ASYMMETRIC_DT * ((kx * kx + ky * ky) / 2 + 0.3 * kx + 0.1 * ky)
        start += table[kx + reach, ky + reach] * torch.polar(torch.ones_like(angle), angle)
        moved += table[kx + reach, ky + reach] * torch.polar(torch.ones_like(angle), angle + phase)
    return start.unsqueeze(0), moved.unsqueeze(0)


# -- index order -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("grid", [11, 12, 16, 33])
def test_each_phase_belongs_to_its_own_mode(grid: int) -> None:
    theta = asymmetric(*wavenumbers(5))
    start, moved = drifting(drawn(1, 5, torch.Generator().manual_seed(1))[0], grid)
    assert apart(tabled(theta)(start), moved) < 1e-14


@pytest.mark.parametrize(
    ("change", "least"),
    [
        (lambda theta: theta.T, 5e-3),
        (lambda theta: theta.flip(0, 1), 1e-2),
        (lambda theta: theta.flip(0), 1e-2),
        (lambda theta: -theta, 1e-1),
    ],
    ids=["transposed", "wavenumbers negated", "one axis flipped", "phases negated"],
)
def test_a_table_in_another_order_is_another_law(change: Callable[[Tensor], Tensor], least: float) -> None:
    theta = asymmetric(*wavenumbers(5))
    start, moved = drifting(drawn(1, 5, torch.Generator().manual_seed(1))[0], 16)
    assert apart(tabled(change(theta).contiguous())(start), moved) > least


def test_the_free_law_alone_would_not_notice() -> None:
    kx, ky = wavenumbers(5)
    theta = -(kx.square() + ky.square()) * 0.01 / 2
    assert torch.equal(tabled(theta)(fields()), tabled(theta.flip(0).T.contiguous())(fields()))


def test_the_learned_potential_stands_where_the_true_one_does() -> None:
    module = SplitStep(SPLIT).requires_grad_(False)
    module.load_state_dict({"potential": torch.view_as_real(potential_table()), "slope": torch.tensor([0.5]).double()})
    assert torch.allclose(module.potential_on(33), potential_on(33), atol=1e-14)
    transposed = potential_on(33).T
    assert float((module.potential_on(33) - transposed).abs().max()) > 1


def test_only_the_hermitian_part_of_a_potential_counts() -> None:
    module = SplitStep(SPLIT)
    raw = torch.randn(7, 7, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    raw[3, 3, 1] = 5.0
    state = {"potential": raw, "slope": torch.tensor([0.5]).double()}
    module.load_state_dict(state)
    before = module(fields()).detach()
    assert torch.allclose(norms(before), norms(fields()), rtol=1e-13)
    anti = torch.view_as_complex(raw) - torch.view_as_complex(raw).flip(0, 1).conj()
    module.load_state_dict({**state, "potential": raw - torch.view_as_real(anti.resolve_conj()) / 2})
    assert apart(module(fields()).detach(), before) < 1e-14


# -- integrators -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("order", "low", "high"), [(2, 3.5, 4.5), (4, 14.0, 18.0)])
def test_halving_the_substeps_divides_the_error_by_two_to_the_order(order: int, low: float, high: float) -> None:
    field, wanted = fields(), None
    errors = []
    for substeps in (32, 8, 4):
        step = factors(
            potential_on(32),
            0.5,
            0.1,
            order=order if wanted is not None else 4,
            substeps=substeps,
            dtype=torch.complex128,
        )
        found = step.apply(field)
        if wanted is None:
            wanted = found
        else:
            errors.append(apart(found, wanted))
    assert low < errors[1] / errors[0] < high


@pytest.mark.parametrize(("order", "substeps"), [(2, 1), (2, 3), (4, 1), (4, 4)])
def test_the_parts_of_a_step_add_up_to_it(order: int, substeps: int) -> None:
    assert sum(sizes(order, substeps)) == pytest.approx(1, abs=1e-14)
    assert len(sizes(order, substeps)) == substeps * (3 if order == 4 else 1)


def test_a_step_taken_in_place_leaves_its_input_alone() -> None:
    module, field = SplitStep(SPLIT).requires_grad_(False), fields()
    kept = field.clone()
    with torch.no_grad():
        in_place = module(field)
    assert torch.equal(field, kept)
    assert torch.equal(in_place, module(field))


# -- unitarity ---------------------------------------------------------------------------------------------------------


def random_network(kind: str, seed: int) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=generator, dtype=torch.float64)

    if kind == "phase table":
        return tabled(normal(11, 11))
    if kind == "dispersion":
        module: nn.Module = Dispersion()
        module.load_state_dict({"coefficients": normal(3)})
    else:
        module = SplitStep(SPLIT)
        module.load_state_dict({"potential": normal(7, 7, 2), "slope": normal(1)})
    return module.requires_grad_(False)


@pytest.mark.parametrize("kind", ["phase table", "dispersion", "split step"])
@pytest.mark.parametrize("seed", [0, 1])
def test_untrained_networks_are_unitary(kind: str, seed: int) -> None:
    module, first, second = random_network(kind, seed), fields(seed=1), fields(seed=2)
    inner = (first.conj() * second).mean((1, 2))
    assert torch.allclose((module(first).conj() * module(second)).mean((1, 2)), inner, atol=1e-14)
    noise = torch.randn(2, 32, 32, dtype=torch.complex128, generator=torch.Generator().manual_seed(seed))
    on_the_whole_grid = torch.allclose(norms(module(noise)), norms(noise), rtol=1e-13)
    assert on_the_whole_grid == (kind != "phase table")


def test_a_network_of_free_multipliers_is_not_unitary() -> None:
    module = tabled(torch.zeros(11, 11))
    module.table = lambda: torch.full((11, 11), 1.01, dtype=torch.complex128)  # type: ignore[method-assign]
    assert not torch.allclose(norms(module(fields())), norms(fields()), rtol=1e-3)


def test_stored_numbers_have_modulus_one_to_rounding() -> None:
    free = gk.load("hpu-free").module
    assert isinstance(free, Diagonal)
    for dtype, limit in ((torch.complex128, 2.3e-16), (torch.complex64, 6e-8)):
        used = free.prepare(11, dtype, torch.device("cpu")).to(torch.complex128)
        assert float((used.abs() - 1).abs().max()) <= limit


# -- grids -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("grid", [11, 12, 17, 33, 45])
def test_odd_and_even_grids_get_the_same_function(grid: int) -> None:
    batch = host().task("hpu").sample(2, generator=torch.Generator().manual_seed(999), grid=grid)
    assert apart(gk.load("hpu-free")(batch.inputs), batch.targets) < 1e-13


@pytest.mark.parametrize("grid", [32, 33, 45])
def test_odd_and_even_grids_get_the_same_function_with_a_potential(grid: int) -> None:
    batch = host().task("hpu", variant="potential").sample(2, generator=torch.Generator().manual_seed(99), grid=grid)
    assert apart(gk.load("hpu-potential")(batch.inputs), batch.targets) < 2e-6


@pytest.mark.parametrize("name", SHIPPED)
def test_coarse_then_upsampled_is_upsampled_then_fine(name: str) -> None:
    cassette, field = gk.load(name), fields(grid=32)
    assert apart(on_grid(cassette(field), 64), cassette(on_grid(field, 64))) < (1e-14 if name == "hpu-free" else 2e-6)


@pytest.mark.parametrize("grid", [8, 10])
def test_a_grid_that_aliases_is_refused_with_the_smallest_one_even_if_forced(grid: int) -> None:
    for force in (False, True):
        with pytest.raises(Incompatible, match=r"at least 11 points .* 12 for an even number"):
            gk.load("hpu-free").predict(fields(grid=grid, band=3), force=force)


def test_the_potential_needs_32_points_unless_forced() -> None:
    cassette, field = gk.load("hpu-potential"), fields(grid=16)
    with pytest.raises(Incompatible, match="at least 32 points"):
        cassette(field)
    wanted = host().task("hpu", variant="potential").oracle(on_grid(field, 64), {})
    assert 3e-3 < apart(on_grid(cassette.predict(field, force=True), 64), wanted) < 2e-2


# -- what is refused ---------------------------------------------------------------------------------------------------


def with_nan(field: Tensor) -> Tensor:
    field[0, 3, 4] = complex(0, math.nan)
    return field


def endpoint(grid: int) -> Tensor:
    """Values on linspace(0, 2 pi, grid): the last point repeats the first."""
    x = torch.linspace(0, 2 * math.pi, grid, dtype=torch.float64)
    return torch.polar(torch.ones(grid, grid).double(), x[:, None] + 2 * x).unsqueeze(0)


def ramp(grid: int) -> Tensor:
    return torch.linspace(0, 1, grid).double().expand(1, grid, grid).to(torch.complex128)


BAD: dict[str, tuple[Callable[[], Tensor], str, tuple[str, ...]]] = {
    "not square": (lambda: fields()[:, :, :30], "expected grid = 32", SHIPPED),
    "real": (lambda: fields().real, "complex128 or complex64", SHIPPED),
    "no batch": (lambda: fields()[0], "3 axes", SHIPPED),
    "NaN": (lambda: with_nan(fields()), "holds NaN or infinity", SHIPPED),
    "band 8": (lambda: fields(band=8), "in modes beyond 5", SHIPPED[:1]),
    "white": (lambda: fields(band=15), "of its norm in", SHIPPED),
    "ramp": (lambda: ramp(64), "periodic field", SHIPPED),
    "last point repeated": (lambda: endpoint(33), "periodic field", SHIPPED),
}


def refusals() -> Iterator[Any]:
    for name, (make, said, refused_by) in BAD.items():
        yield from (pytest.param(make, said, ref, id=f"{name}, {ref}") for ref in refused_by)


@pytest.mark.parametrize(("make", "said", "ref"), list(refusals()))
def test_bad_input_is_refused_in_one_line_with_code_4(
    make: Callable[[], Tensor], said: str, ref: str, tmp_path: Path, cli: Callable[..., Any]
) -> None:
    np.save(tmp_path / "bad.npy", make().numpy())
    found = cli("run", ref, "--input", tmp_path / "bad.npy")
    assert found.code == 4
    assert found.out == ""
    assert said in found.err
    assert found.err.count("\n") == 1


def test_a_field_outside_the_band_is_projected_if_forced() -> None:
    cassette, field = gk.load("hpu-free"), fields(grid=32, band=8)
    assert 0.6 < float(norms(cassette.predict(field, force=True)).mean()) < 0.68
    inside = host().task("hpu").oracle(tabled(torch.zeros(11, 11))(field), {})
    assert apart(cassette.predict(field, force=True), inside) < 1e-13


@pytest.mark.parametrize("size", [1e-30, 1e-20, 1.0, 1e20, 1e30])
@pytest.mark.parametrize("name", ["hpu-free", "hpu-potential"])
def test_what_is_refused_does_not_depend_on_the_size_of_a_field(name: str, size: float) -> None:
    """Squares of such numbers overflow, or vanish, in float32."""
    field = (values(drawn(2, 15, torch.Generator().manual_seed(1)), 32) * size).to(torch.complex64)
    with pytest.raises(Incompatible, match="of its norm in"):
        gk.load(name)(field)


@pytest.mark.parametrize("name", ["hpu-free", "hpu-potential"])
def test_a_gradient_flows_through_the_checks(name: str) -> None:
    field = values(drawn(1, 5, torch.Generator().manual_seed(1)), 32).requires_grad_()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gk.load(name)(field).abs().square().sum().backward()  # type: ignore[no-untyped-call]
    assert field.grad is not None


def test_rounding_of_complex64_is_no_part_outside_the_band() -> None:
    assert gk.load("hpu-free")(fields(grid=128).to(torch.complex64)).dtype == torch.complex64


def test_real_numbers_in_json_are_refused_and_pairs_are_read(tmp_path: Path, cli: Callable[..., Any]) -> None:
    field = fields(1, grid=16)
    (tmp_path / "real.json").write_text(json.dumps(field.real.tolist()))
    (tmp_path / "pairs.json").write_text(json.dumps(torch.view_as_real(field).tolist()))
    refused = cli("run", "hpu-free", "--input", tmp_path / "real.json")
    assert (refused.code, refused.out) == (4, "")
    assert "[real, imaginary]" in refused.err
    found = cli("run", "hpu-free", "--input", tmp_path / "pairs.json", "--json").json
    outputs = torch.view_as_complex(torch.tensor(found["outputs"], dtype=torch.float64))
    assert torch.equal(outputs, gk.load("hpu-free")(field))


def test_configs_that_make_no_sense_are_refused() -> None:
    for name, config, said in (
        ("phase-table", {"dt": 0.0}, "dt = 0"),
        ("phase-table", {"kept": 6}, "kept = 6"),
        ("split-step", {"order": 3}, "2 or 4"),
        ("split-step", {"n_min": 6}, "at least 8"),
    ):
        architecture = host().architecture(f"grokkit_hpu/{name}")
        with pytest.raises(UsageError, match=said):
            architecture.check(architecture.settled(config))


# -- rollouts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("grid", [32, 64])
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_a_rollout_is_the_network_called_again_and_again(name: str, grid: int, dtype: torch.dtype) -> None:
    cassette, field = gk.load(name), fields(grid=grid).to(dtype)
    called = field
    for rolled in cassette.rollout(field, 12):
        called = cassette.predict(called, force=True)
        assert rolled.dtype == called.dtype == dtype
        assert apart(rolled, called) < (2e-6 if dtype == torch.complex64 else 1e-14)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_rollout_is_a_stream_of_tensors_of_their_own(name: str) -> None:
    cassette, field = gk.load(name), fields(grid=64)
    kept = field.clone()
    stream = cassette.rollout(field, 10**9)
    first = next(stream)
    copy = first.clone()
    second = next(stream)
    assert torch.equal(first, copy) and torch.equal(field, kept)
    assert not torch.equal(first, second)


def test_a_float32_rollout_of_a_diagonal_law_does_not_gather_rounding() -> None:
    """The modes are multiplied in double precision and never leave the Fourier side."""
    free = host().task("hpu").sample(4, generator=torch.Generator().manual_seed(999), grid=64, steps=100)
    last = list(gk.load("hpu-free").rollout(free.to(torch.complex64).inputs, 100))[-1]
    assert apart(last, free.targets) < 1e-6


def test_run_reports_how_far_norm_and_energy_drift(tmp_path: Path, cli: Callable[..., Any]) -> None:
    np.save(tmp_path / "field.npy", fields(2, grid=32).numpy())
    words = ("--input", tmp_path / "field.npy", "--steps", 20, "--output", tmp_path / "out.npy", "--json")
    for name, energy in (("hpu-free", 1e-13), ("hpu-potential", 1e-6)):
        drift = cli("run", name, *words).json["drift"]
        assert set(drift) == {"norm", "energy"}
        assert drift["norm"] < 1e-13
        assert drift["energy"] < energy


def test_run_lifts_its_input_to_a_finer_grid_as_regrid_does(tmp_path: Path, cli: Callable[..., Any]) -> None:
    field = fields(2, grid=16)
    np.save(tmp_path / "field.npy", field.numpy())
    words = ("--input", tmp_path / "field.npy", "--to-grid", 64, "--output", tmp_path / "out.npy")
    for name in SHIPPED:
        assert cli("run", name, *words).code == 0
        cassette = gk.load(name)
        regrid = host().operator("regrid")
        lifted = regrid.lift(field, regrid.plan(gk.load("hpu-free").manifest, {"grid": 64}))
        assert isinstance(lifted, Tensor)
        assert torch.equal(torch.from_numpy(np.load(tmp_path / "out.npy")), cassette(lifted))


def test_a_network_in_training_forgets_what_it_prepared() -> None:
    module = PhaseTable(5, -1, "refuse")
    before = module(fields()).detach()
    with torch.no_grad():
        module.theta.add_(0.1)
    assert apart(module(fields()).detach(), before) > 0.05


def test_float32_weights_are_used_in_double_precision() -> None:
    cassette: Cassette = gk.load("hpu-free")
    coarse = cassette.module_for(torch.float32)
    assert {parameter.dtype for parameter in coarse.parameters()} == {torch.float32}
    assert 1e-9 < apart(coarse(fields()), cassette(fields())) < 5e-8
