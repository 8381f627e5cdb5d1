"""Growth of propagators: finer grids, more modes, other time steps, and the refusals and controls beside them."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from grokkit_hpu.fourier import band_squares, drawn, values
from grokkit_hpu.law import SAMPLES
from grokkit_hpu.transfer import RESIDUAL, fitted
from torch import Tensor

import grokkit_core as gk
from grokkit_core.cassette import Cassette
from grokkit_core.errors import Incompatible, UsageError
from grokkit_core.plugins import host
from grokkit_core.specs import TransferSpec
from grokkit_core.transfer.grow import construct, plan_growth
from grokkit_core.transfer.operator import TransferPlan
from grokkit_core.workspace import Workspace

DT = 0.01


@pytest.fixture(autouse=True)
def few_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Certificates from few fields: those that matter here are operator norms."""
    for level in ("full", "quick"):
        monkeypatch.setitem(SAMPLES, level, 4)  # type: ignore[misc]


def apart(found: Tensor, wanted: Tensor) -> float:
    difference = (found - wanted).abs().square().sum((-2, -1)).sqrt()
    return float((difference / wanted.abs().square().sum((-2, -1)).sqrt()).max())


def fields(grid: int, band: int = 5) -> Tensor:
    return values(drawn(3, band, torch.Generator().manual_seed(5)), grid)


def holding(theta: Tensor) -> Cassette:
    """A cassette like hpu-free with other phases, of any band."""
    free = gk.load("hpu-free")
    config = {**free.manifest.architecture.config, "band": theta.shape[-1] // 2, "grid": theta.shape[-1] + 1}
    architecture = free.manifest.architecture
    changed = free.manifest.replace(architecture=type(architecture)(architecture.id, architecture.version, config))
    return Cassette(changed, {"theta": theta})


def plan_of(source: Cassette, operator: str, to: dict[str, Any]) -> TransferPlan:
    return host().operator(operator).plan(source.manifest, to)


def grown(source: Cassette, operator: str, to: dict[str, Any]) -> Cassette:
    return construct(source, plan_of(source, operator, to), name="grown", seed=0, place=Workspace.open())


def exact(band: int, dt: float = DT) -> Tensor:
    return -band_squares(band) * dt / 2


# -- regrid ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["hpu-free", "hpu-potential"])
def test_a_finer_grid_takes_the_very_same_weights(name: str) -> None:
    source = gk.load(name)
    finer = grown(source, "regrid", {"grid": 64})
    assert all(torch.equal(tensor, source.tensors[key]) for key, tensor in finer.tensors.items())
    assert torch.equal(finer(fields(64)), source(fields(64)))
    assert finer.manifest.architecture.config["grid"] == 64


def test_regrid_commutes_with_interpolation() -> None:
    source = gk.load("hpu-free")
    plan = plan_of(source, "regrid", {"grid": 128})
    operator = host().operator("regrid")
    for dtype, limit in ((torch.complex128, 1e-14), (torch.complex64, 1e-6)):
        field = fields(16).to(dtype)
        lifted = operator.lift(field, plan)
        assert isinstance(lifted, Tensor)
        assert apart(operator.lift(source(field), plan), source(lifted)) <= limit  # type: ignore[arg-type]


def test_a_coarser_grid_is_no_growth() -> None:
    with pytest.raises(Incompatible, match="below the 16"):
        gk.grow("hpu-free", {"grid": 8})


# -- grow-modes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("band", [6, 8, 15, 30])
def test_more_modes_keep_the_old_ones_to_the_bit_and_follow_the_law(band: int) -> None:
    source = gk.load("hpu-free")
    larger = grown(source, "grow-modes", {"band": band})
    edge = band - 5
    assert torch.equal(larger.tensors["theta"][edge:-edge, edge:-edge], source.tensors["theta"])
    assert float((larger.tensors["theta"] - exact(band)).abs().max()) < 1e-13
    field = fields(2 * band + 2, band)
    assert apart(larger(field), host().task("hpu").oracle(field, {})) <= 1e-12


def test_a_grown_cassette_is_certified_on_its_new_band(library: Path) -> None:
    made = gk.grow("hpu-free", {"band": 15}, name="fifteen", library=library)
    certificate = made.cassette.manifest.certificate
    assert (made.plan.operator, certificate.verdict) == ("grokkit_hpu/grow-modes", "bounded")
    assert {bound.name: bound.value for bound in certificate.bounds}["E_1"] <= 1e-12
    assert "|kx|, |ky| <= 15" in certificate.domain
    assert {metric.where["grid"] for metric in certificate.metrics} == {32, 64, 128}
    assert gk.verify("fifteen", library=library, level="quick").agrees
    again = gk.grow("fifteen", {"band": 20}, name="twenty", library=library)
    assert torch.equal(again.cassette.tensors["theta"][5:-5, 5:-5], made.cassette.tensors["theta"])


def test_a_band_that_no_row_of_the_table_holds_is_measured_on_the_grid_that_does(library: Path) -> None:
    certificate = gk.grow("hpu-free", {"band": 70}, name="seventy", library=library).cassette.manifest.certificate
    assert certificate.verdict == "bounded"
    assert {metric.where["grid"] for metric in certificate.metrics} == {142}


def laws() -> dict[str, tuple[Tensor, float, float]]:
    """Tables of other laws or none, with the residuals of the facts page (least, most)."""
    k = torch.arange(-5, 6, dtype=torch.float64)
    squares = band_squares(5)
    half_trained = torch.full((11, 11), 0.0, dtype=torch.float64)
    half_trained += 0.1 * torch.randn(11, 11, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    untrained = half_trained.clone()
    half_trained[1:-1, 1:-1] = exact(4)
    return {
        "Klein-Gordon": (-DT * (1 + squares).sqrt(), 5e-3, 2e-2),
        "k^4 of a ten-thousandth": (exact(5) * (1 + 1e-4 * squares), 5e-5, 1e-3),
        "drift": (exact(5) - DT * 0.3 * k[:, None], 1e-2, 2e-2),
        "trained on K = 4 alone": (half_trained, 0.1, 0.4),
        "untrained": (untrained, 0.1, 0.4),
    }


@pytest.mark.parametrize("name", list(laws()))
def test_a_table_of_another_form_is_not_extrapolated(name: str) -> None:
    theta, least, most = laws()[name]
    assert least < fitted(theta)[2] < most
    for dtype in (torch.float64, torch.float32):
        with pytest.raises(Incompatible, match=r"differ from a \+ b \|k\|\^2"):
            grown(holding(theta.to(dtype)), "grow-modes", {"band": 15})


@pytest.mark.parametrize(("dtype", "noise"), [(torch.float64, 3e-13), (torch.float32, 3e-7)])
def test_noise_just_above_the_limit_is_refused_and_none_passes(dtype: torch.dtype, noise: float) -> None:
    theta = exact(5)
    assert grown(holding(theta.to(dtype)), "grow-modes", {"band": 8})
    theta[3, 4] += noise
    assert RESIDUAL[dtype] < fitted(theta.to(dtype))[2] < 3 * noise
    with pytest.raises(Incompatible, match="differ from a"):
        grown(holding(theta.to(dtype)), "grow-modes", {"band": 8})


def test_a_table_of_zeros_passes_the_fit_and_fails_its_certificate() -> None:
    larger = grown(holding(torch.zeros(11, 11, dtype=torch.float64)), "grow-modes", {"band": 15})
    certificate = larger.task.certify(larger, level="quick", seed=0)
    assert certificate.verdict == "estimated"
    assert certificate.bounds == ()
    assert "WORSE than" in certificate.statement


@pytest.mark.parametrize(("band", "dt"), [(20, 0.01), (12, 0.05), (8, -0.1)])
def test_phases_beyond_pi_are_unwrapped_before_the_fit(band: int, dt: float) -> None:
    wrapped = torch.remainder(exact(band, dt) + math.pi, 2 * math.pi) - math.pi
    assert float((wrapped - exact(band, dt)).abs().max()) > 6
    constant, slope, residual = fitted(wrapped)
    assert abs(constant) < 1e-13
    assert slope == pytest.approx(-dt / 2, abs=1e-14)
    assert residual < 1e-13


def test_only_phase_tables_grow_modes_and_only_upwards() -> None:
    with pytest.raises(Incompatible, match="phase-table"):
        gk.grow("hpu-potential", {"band": 8}, operator="grow-modes")
    with pytest.raises(Incompatible, match="below the 5"):
        gk.grow("hpu-free", {"band": 4}, operator="grow-modes")
    with pytest.raises(UsageError, match="whole number"):
        gk.grow("hpu-free", {"band": 7.5}, operator="grow-modes")


# -- pad-modes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operator", "band", "least"), [("pad-modes", 8, 0.7), ("pad-modes-identity", 8, 0.2), ("pad-modes", 15, 0.9)]
)
def test_padded_modes_are_wrong_beyond_the_old_band_and_right_in_it(operator: str, band: int, least: float) -> None:
    larger = grown(gk.load("hpu-free"), operator, {"band": band})
    inside, beyond = fields(2 * band + 2), fields(2 * band + 2, band)
    assert apart(larger(inside), host().task("hpu").oracle(inside, {})) < 1e-13
    assert apart(larger(beyond), host().task("hpu").oracle(beyond, {})) >= least


def test_a_padded_cassette_says_that_it_is_worse_than_doing_nothing(library: Path) -> None:
    made = gk.grow("hpu-free", {"band": 8}, operator="pad-modes", name="padded", library=library)
    certificate = made.cassette.manifest.certificate
    assert certificate.verdict == "estimated"
    assert "WORSE than identity" in certificate.statement
    assert "NONE beyond it" in made.plan.guarantee
    with pytest.raises(Incompatible, match="drops modes"):
        gk.grow("padded", {"band": 15}, operator="grow-modes", library=library)


def test_nobody_is_given_padded_modes_who_did_not_ask_for_them() -> None:
    assert plan_growth("hpu-free", {"band": 8}).operator == "grokkit_hpu/grow-modes"


# -- change-constants --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "dt", "limit"), [("hpu-free", -0.01, 1e-14), ("hpu-potential", -0.05, 1e-13)])
def test_time_runs_back(name: str, dt: float, limit: float) -> None:
    forth = gk.load(name)
    back = grown(forth, "change-constants", {"dt": dt})
    assert back.task.parameters["dt"] == dt
    for dtype, allowed in ((torch.complex128, limit), (torch.complex64, 1e-5)):
        field = fields(64).to(dtype)
        assert apart(back.predict(forth(field), force=True), field) <= allowed


@pytest.mark.parametrize(
    ("name", "dt", "limit"), [("hpu-free", 0.05, 1e-12), ("hpu-potential", 0.1, 5e-5), ("hpu-potential", 0.025, 1e-6)]
)
def test_the_learned_law_holds_for_other_time_steps(name: str, dt: float, limit: float) -> None:
    other = grown(gk.load(name), "change-constants", {"dt": dt})
    field = fields(64)
    assert apart(other(field), other.task.oracle(field, {})) <= limit
    assert apart(gk.load(name)(field), other.task.oracle(field, {})) > 0.05


def test_a_changed_constant_is_another_function_and_is_not_compared(library: Path, cli: Callable[..., Any]) -> None:
    words = ("grow", "hpu-free", "--to", "dt=-0.01", "--name", "back", "--library", library)
    planned = cli(*words, "--dry-run", "--json").json
    assert (planned["operator"], planned["before"], planned["after"]) == (
        "change-constants",
        {"dt": 0.01},
        {"dt": -0.01},
    )
    assert planned["task"]["parameters"] == {"variant": "free", "dt": -0.01}
    assert not (library / "back").exists()
    made = cli(*words, "--json").json
    assert (made["max_abs_difference"], made["compared"], made["verdict"]) == (None, 0, "bounded")
    assert "preservation" not in gk.show("back", library=library).extra
    assert gk.verify("back", library=library, level="quick").reasons == ()


def test_other_tensors_than_the_parents_are_found_though_they_keep_the_law(library: Path) -> None:
    """The exact phases are as good as the learned ones, but not what the operator makes of them."""
    made = gk.grow("hpu-free", {"dt": 0.02}, name="double", library=library).cassette
    kept = Cassette(made.manifest, {"theta": made.tensors["theta"] * (1 + 1e-15)}).save(library)
    found = gk.verify(kept.manifest.ref, library=library, level="quick")
    assert any("not those of its parent" in reason for reason in found.reasons)


@pytest.mark.parametrize(
    ("to", "code", "said"),
    [
        (("dt=0",), 4, "a time step from -1 to 1 that is not 0"),
        (("dt=2",), 2, "from -1 to 1"),
        (("dt=nan",), 2, "dt"),
        (("mass=2",), 4, "no constant 'mass'"),
        (("dt=0.02", "band=8"), 4, "no operator can grow"),
    ],
)
def test_constants_that_make_no_sense_are_refused(
    to: tuple[str, ...], code: int, said: str, library: Path, cli: Callable[..., Any]
) -> None:
    words = [word for pair in to for word in ("--to", pair)]
    found = cli("grow", "hpu-free", *words, "--library", library)
    assert (found.code, found.out) == (code, "")
    assert said in found.err
    assert found.err.count("\n") == 1
    assert not library.exists() or not list(library.iterdir())


def test_a_network_without_constants_says_so() -> None:
    with pytest.raises(Incompatible, match="no constants that change without training"):
        gk.grow("parity-3of64", {"n": 80}, operator="change-constants")


# -- fusions -----------------------------------------------------------------------------------------------------------


def test_a_fusion_of_complex_fields_is_their_mean(library: Path) -> None:
    free = gk.load("hpu-free")
    one = Cassette(free.manifest.replace(name="one"), {"theta": free.tensors["theta"] + 1e-3}).save(library)
    fused = gk.compose("hpu-free", str(library / "one" / "1"), name="both", library=library)
    field = fields(32)
    mean = (free(field) + one(field)) / 2
    assert apart(fused.cassette(field), mean) < 1e-15
    row = fused.table[0]
    assert row.weights == {"hpu-free": 0.5, "one": 0.5}
    assert row.n == SAMPLES["full"]
    assert row.fused == pytest.approx(5e-4, rel=1e-3)


def test_a_fusion_refuses_what_its_members_refuse(library: Path) -> None:
    finer = gk.grow("hpu-free", {"grid": 64}, name="finer", library=library).cassette
    fused = gk.compose("hpu-free", finer, name="both", library=library).cassette
    with pytest.raises(Incompatible, match="at least 11 points"):
        fused(fields(8, band=3))
    with pytest.raises(Incompatible, match="in modes beyond 5"):
        fused(fields(32, band=8))
    assert fused.predict(fields(32, band=8), force=True).shape == (3, 32, 32)


@pytest.mark.parametrize("gate", ["interference", "interference-per-output", "simplex", "spectral"])
def test_gates_that_read_a_context_say_that_there_is_none(gate: str, library: Path) -> None:
    finer = gk.grow("hpu-free", {"grid": 64}, name="finer", library=library).cassette
    with pytest.raises(Incompatible, match="reads a scalar context variable"):
        gk.compose("hpu-free", finer, gate=gate, library=library)


def test_laws_with_other_time_steps_are_not_fused(library: Path) -> None:
    back = gk.grow("hpu-free", {"dt": -0.01}, name="back", library=library).cassette
    with pytest.raises(Incompatible, match="the same constants of the law"):
        gk.compose("hpu-free", back, library=library)


def test_a_negative_control_is_never_chosen_by_itself() -> None:
    assert gk.load("hpu-free").plugins.spec(TransferSpec, "grokkit_hpu/pad-modes").control
    assert plan_growth("hpu-free", {"band": 9}).operator == "grokkit_hpu/grow-modes"
    assert plan_growth("hpu-free", {"band": 9}, operator="grokkit_hpu/pad-modes").operator == "grokkit_hpu/pad-modes"
    with pytest.raises(Incompatible) as refused:
        plan_growth("hpu-free", {"band": 4})
    assert "pad-modes" not in str(refused.value)
