"""Full protocols of the Kepler networks: five seeds, 5,000 states, 1,000 steps, and the published network on its own law."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import pytest
import torch
from grokkit_kepler.anomaly import Anomaly
from grokkit_kepler.enclosure import anomaly_bound, on_orbit_bound
from grokkit_kepler.on_orbit import OnOrbit
from grokkit_kepler.orbit import error_bound, orbit_of, solved
from torch import Tensor

import grokkit_core as gk
from grokkit_core.building import build_module
from grokkit_core.cassette import Cassette
from grokkit_core.certify.scores import errors_of
from grokkit_core.plugins import host
from grokkit_core.streams import stream
from grokkit_core.task import Batch, tensors_of
from grokkit_core.training.train import train
from grokkit_core.transfer.zero_pad import padded

pytestmark = pytest.mark.acceptance
SEEDS = range(5)
STATES, PAIRS, RUNS, STEPS = 5_000, 20_000, 200, 1_000
EXACT = 1e-12


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kepler") / "library"


@pytest.fixture(scope="module")
def flows(shelf: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Sequence[Cassette], float]:
    """Five trained networks, and the most CPU seconds that one took, certificate included."""
    return _trained("kepler", SEEDS, shelf, tmp_path_factory)


@pytest.fixture(scope="module")
def solvers(shelf: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Sequence[Cassette], float]:
    """The same for Kepler's equation."""
    return _trained("kepler-equation", SEEDS, shelf, tmp_path_factory)


def _trained(
    task: str, seeds: Sequence[int], shelf: Path, folders: pytest.TempPathFactory
) -> tuple[Sequence[Cassette], float]:
    made, longest = [], 0.0
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(folders.mktemp("state")))
        for seed in seeds:
            started = time.process_time()
            made.append(train(task, seed=seed, settings={"newton": 0}, library=shelf)[0].cassette)
            longest = max(longest, time.process_time() - started)
    return made, longest


def corrected(cassette: Cassette, newton: int) -> torch.nn.Module:
    """The network of a cassette followed by so many Newton steps."""
    config = {**cassette.manifest.architecture.config, "newton": newton}
    return build_module(cassette.architecture, config, cassette.tensors)


def states(direction: int = 1) -> Batch:
    return host().task("kepler").sample(STATES, generator=stream(1, "protocol"), direction=direction)


def start(direction: int = 1) -> Tensor:
    return tensors_of(states(direction).inputs)[0]


# -- the flow map ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("newton", "most", "times"), [(0, 1e-7, 50.0), (1, 1e-12, 1_000.0), (2, 1e-22, 1_000.0)], ids=["raw", "one", "two"]
)
def test_five_seeds_learn_the_step_along_the_orbit(
    flows: tuple[Sequence[Cassette], float],
    figure: Callable[..., None],
    newton: int,
    most: float,
    times: float,
) -> None:
    batches = [states(1), states(-1)]
    classical = host().task("kepler").with_start_steps(newton).baselines(batches[0])["classical-start"]
    rival = errors_of(host().task("kepler"), classical, batches[0]).mean().item()
    found, largest, proved = [], 0.0, 0.0
    for cassette in flows[0]:
        module = corrected(cassette, newton)
        for batch in batches:
            error = module(tensors_of(batch.inputs)[0]) - batch.targets
            found.append(error.square().mean().item())
            largest = max(largest, error.abs().max().item())
        assert isinstance(module, OnOrbit)
        proved = max(proved, on_orbit_bound(module))
    label = f"kepler, 5 seeds, 5,000 states, both directions, {newton} Newton steps"
    figure(f"{label}: largest MSE", f"{max(found):.1e}", f"{most:.0e}")
    figure(f"{label}: classical start over network, least", f"{rival / max(found):.0f}", f"{times:.0f}")
    figure(f"{label}: largest error of a component", f"{largest:.1e}", "reported")
    figure(f"{label}: largest error in E over the whole range, proved", f"{proved:.1e} rad", "reported")
    figure("kepler: most CPU seconds of a training with certificate", f"{flows[1]:.1f}", "reported")
    assert max(found) <= most
    assert rival / max(found) >= times


def test_rotation_reflection_and_scale_are_exact(
    flows: tuple[Sequence[Cassette], float], two_body: ModuleType, figure: Callable[..., None]
) -> None:
    worst = dict.fromkeys(("rotation", "reflection", "scale 1e-3, 7.3, 1e4"), 0.0)
    for cassette in flows[0]:
        for newton in (0, 1, 2):
            module = corrected(cassette, newton)
            after = module(start())
            for angle in torch.linspace(0.1, 6.2, 9).tolist():
                apart = module(two_body.rotated(start(), angle)) - two_body.rotated(after, angle)
                worst["rotation"] = max(worst["rotation"], apart.abs().max().item())
            apart = module(two_body.mirrored(start())) - two_body.mirrored(after)
            worst["reflection"] = max(worst["reflection"], apart.abs().max().item())
            for scale in (1e-3, 7.3, 1e4):
                config = {**cassette.manifest.architecture.config, "newton": newton, "dt": 0.1 * scale**1.5}
                larger = build_module(cassette.architecture, config, cassette.tensors)
                apart = two_body.scaled(larger(two_body.scaled(start(), scale)), 1 / scale) - after
                worst["scale 1e-3, 7.3, 1e4"] = max(worst["scale 1e-3, 7.3, 1e4"], apart.abs().max().item())
    for name, value in worst.items():
        figure(f"kepler, 5 seeds, 0 to 2 Newton steps: {name} of 5,000 states", f"{value:.1e}", "1e-12")
    assert max(worst.values()) < EXACT


@pytest.mark.parametrize("newton", [0, 1, 2])
def test_energy_and_angular_momentum_do_not_drift(
    flows: tuple[Sequence[Cassette], float], two_body: ModuleType, figure: Callable[..., None], newton: int
) -> None:
    truth = host().task("kepler", dt=0.1 * STEPS).oracle(start()[:RUNS], {})
    worst, worst_own, error = 0.0, 0.0, 0.0
    for cassette in flows[0]:
        module = corrected(cassette, newton)
        energy, momentum, last = two_body.drift(module, start()[:RUNS], STEPS)
        worst = max(worst, energy, momentum)
        error = max(error, (last - truth).square().mean().item())
        assert isinstance(module, OnOrbit)
        own = module.rollout(start()[:RUNS])
        energy, momentum, _ = two_body.drift(lambda state, own=own: next(own), start()[:RUNS], STEPS)
        worst_own = max(worst_own, energy, momentum)
    label = f"kepler, 5 seeds, 200 states, 1,000 steps, {newton} Newton steps"
    figure(f"{label}: drift of energy and L, fed back", f"{worst:.1e}", "1e-12")
    figure(f"{label}: drift of energy and L, rollout", f"{worst_own:.1e}", "1e-12")
    figure(f"{label}: MSE at the end", f"{error:.1e}", "reported")
    assert max(worst, worst_own) < EXACT


def test_the_form_with_dt_drifts(
    flows: tuple[Sequence[Cassette], float], two_body: ModuleType, figure: Callable[..., None]
) -> None:
    module = corrected(flows[0][0], 0)
    assert isinstance(module, OnOrbit)

    def with_dt(state: Tensor) -> Tensor:
        orbit = orbit_of(state, 1.0)
        found: Tensor = two_body.moved_with_time(state, orbit, module.step(orbit), 0.1)
        return found

    mse = (with_dt(start()) - states().targets).square().mean().item()
    one, _, _ = two_body.drift(with_dt, start(), 1)
    many, _, _ = two_body.drift(with_dt, start()[:RUNS], STEPS)
    figure("kepler, negative control, g with dt: MSE, energy change of one step", f"{mse:.1e}, {one:.1e}", "fails")
    figure("kepler, negative control, g with dt: energy change over 1,000 steps", f"{many:.1e}", "fails")
    assert mse < 1e-7
    assert not one < 1e-4
    assert not many < 1e-3


def test_untrained_networks_conserve_and_fail(two_body: ModuleType, figure: Callable[..., None]) -> None:
    architecture = host().architecture("grokkit_kepler/on-orbit")
    worst, best = 0.0, math.inf
    for seed in SEEDS:
        torch.manual_seed(seed)
        module = architecture.build(architecture.settled({"newton": 0})).requires_grad_(False)
        energy, momentum, _ = two_body.drift(module, start()[:RUNS], STEPS)
        worst = max(worst, energy, momentum)
        best = min(best, (module(start()) - states().targets).square().mean().item())
    figure("kepler, 5 untrained networks: drift of energy and L over 1,000 steps", f"{worst:.1e}", "1e-12")
    figure("kepler, 5 untrained networks: least MSE", f"{best:.1e}", "fails 1e-7")
    assert worst < EXACT
    assert best > 1e-7


def test_the_bound_that_comes_with_an_answer_is_never_violated(
    flows: tuple[Sequence[Cassette], float],
    solvers: tuple[Sequence[Cassette], float],
    figure: Callable[..., None],
) -> None:
    violated, held, largest = 0, 0, 0.0
    sampled = host().task("kepler").sample(PAIRS, generator=stream(2, "protocol"), direction=0)
    orbit = orbit_of(tensors_of(sampled.inputs)[0], 1.0)
    turn = orbit.motion * 0.1
    pairs = host().task("kepler-equation").sample(PAIRS, generator=stream(2, "protocol"))
    mean, e = tensors_of(pairs.inputs)
    for newton in (0, 1, 2):
        for cassette, other in zip(flows[0], solvers[0], strict=True):
            module, solver = corrected(cassette, newton), corrected(other, newton)
            assert isinstance(module, OnOrbit)
            step = module.step(orbit)
            bounds = [error_bound(step, orbit.ec, orbit.es, turn)]
            errors = [(step - solved(orbit.ec, orbit.es, turn)).abs()]
            anomaly = solver(mean, e)
            bounds.append(error_bound(anomaly, e, torch.zeros_like(e), mean))
            errors.append((anomaly - pairs.targets).abs())
            violated += sum(int((w > b + 1e-15).sum()) for w, b in zip(errors, bounds, strict=True))
            held += 2 * PAIRS
            largest = max(largest, *(bound.max().item() for bound in bounds))
    figure(f"a posteriori bound: violations in {held:,} held-out inputs", str(violated), "0 (probability < 1.5e-4)")
    figure("a posteriori bound: largest [rad]", f"{largest:.1e}", "reported")
    assert violated == 0


def test_the_oracle_is_right_to_the_last_digits(two_body: ModuleType, figure: Callable[..., None]) -> None:
    worst = max(
        (two_body.integrated(start(direction)[:1_000], 0.1) - states(direction).targets[:1_000]).abs().max().item()
        for direction in (1, -1)
    )
    figure("kepler oracle against DOP853 at 1e-13, 2,000 states", f"{worst:.1e}", "1.8e-13 known")
    assert worst < 5e-13


def test_a_plain_network_neither_conserves_nor_wins(
    shelf: Path, two_body: ModuleType, figure: Callable[..., None]
) -> None:
    (made,) = train("kepler", recipe="mlp", library=shelf)
    module = made.cassette.module_for(torch.float64)
    mse = (module(start()) - states().targets).square().mean().item()
    energy, _, _ = two_body.drift(module, start(), 1)
    turned = (module(two_body.rotated(start(), 1.0)) - two_body.rotated(module(start()), 1.0)).abs().max().item()
    figure("kepler, plain network: MSE", f"{mse:.1e}", "1.2e-5 known")
    figure("kepler, plain network: rotation error, energy error of one step", f"{turned:.2f}, {energy:.2f}", "reported")
    assert "WORSE than" in made.cassette.manifest.certificate.statement
    assert mse < 3e-5
    assert min(turned, energy) > 1e-3


# -- Kepler's equation -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("newton", "most", "largest"), [(0, 1e-7, 5e-3), (1, 1e-12, 1e-5), (2, 1e-22, 1e-10)], ids=["raw", "one", "two"]
)
def test_five_seeds_solve_keplers_equation(
    solvers: tuple[Sequence[Cassette], float],
    figure: Callable[..., None],
    newton: int,
    most: float,
    largest: float,
) -> None:
    batch = host().task("kepler-equation").sample(PAIRS, generator=stream(3, "protocol"))
    found, worst, proved = 0.0, 0.0, 0.0
    for cassette in solvers[0]:
        module = corrected(cassette, newton)
        assert isinstance(module, Anomaly)
        error = module(*tensors_of(batch.inputs)) - batch.targets
        found, worst = max(found, error.square().mean().item()), max(worst, error.abs().max().item())
        proved = max(proved, anomaly_bound(module))
    label = f"kepler-equation, 5 seeds, 20,000 pairs, {newton} Newton steps"
    figure(f"{label}: largest MSE", f"{found:.1e}", f"{most:.0e}")
    figure(f"{label}: largest error", f"{worst:.1e}", f"{largest:.0e}")
    figure(f"{label}: largest error for every M and e, proved", f"{proved:.1e}", f"{largest:.0e}")
    figure("kepler-equation: most CPU seconds of a training with certificate", f"{solvers[1]:.1f}", "reported")
    assert found < most
    assert max(worst, proved) < largest


# -- the published network ---------------------------------------------------------------------------------------------


def test_the_replica_is_worse_than_the_formula_and_its_growth_destroys_it(
    shelf: Path, two_body: ModuleType, figure: Callable[..., None]
) -> None:
    (made,) = train("linear-angle", library=shelf)
    task, certificate = host().task("linear-angle"), made.cassette.manifest.certificate
    own, rivals = certificate.metrics[0].value, {b.name: b.value for b in certificate.baselines}
    figure("published network, retrained: validation MSE at the stop, epochs", _stop(made.cassette), "5e-5")
    figure(
        "published network, retrained: MSE on 20,000 fresh rows", f"{own:.2e}", "4.93e-5 published, on its test rows"
    )
    for name, known in (("persistence", 9.5e-4), ("linear", 6.2e-5), ("formula", 9.1e-8)):
        figure(f"published law: {name}", f"{rivals[name]:.2e}", f"{known:.1e} known")
        assert rivals[name] == pytest.approx(known, rel=0.15)
    assert "WORSE than" in certificate.statement
    assert "formula" in certificate.statement
    rows = task.sample(STATES, generator=stream(4, "protocol")).to(torch.float32)
    before = _mse(made.cassette.module, rows)
    for seed in range(3):
        wide = {**made.cassette.manifest.architecture.config, "width": 256}
        architecture, tensors = made.cassette.architecture, dict(made.cassette.tensors)
        lost = build_module(architecture, wide, two_body.correlated_replica(tensors, stream(seed, "replica")))
        after = _mse(lost, rows)
        figure(
            f"published growth to 256 units, draw {seed}: MSE before and after", f"{before:.1e}, {after:.1e}", "fails"
        )
        assert after > 100 * before
    layers = made.cassette.architecture.layers(made.cassette.manifest.architecture.config)
    assert layers is not None
    for width in (256, 1_024, 4_096):
        wide = {**made.cassette.manifest.architecture.config, "width": width}
        kept = build_module(made.cassette.architecture, wide, padded(layers, made.cassette.tensors, {"width": width}))
        inputs = tensors_of(rows.inputs)[0][:400]
        apart = (kept(inputs) - made.cassette.module(inputs)).abs().max().item()
        figure(f"zero padding of the replica to {width} units: largest difference", f"{apart:.1e}", "0 to rounding")
        assert apart <= 1e-6
    grown = gk.grow(made.cassette.manifest.ref, {"width": 4_096}, library=shelf)
    assert grown.max_abs_difference == 0.0


def _stop(cassette: Cassette) -> str:
    last = cassette.manifest.provenance.curve.rows[-1]
    return f"{last[2]:.2e}, {last[0]:,.0f}"


def _mse(module: torch.nn.Module, rows: Batch) -> float:
    predicted: Tensor = module(tensors_of(rows.inputs)[0])
    return (predicted.double() - rows.targets).square().mean().item()
