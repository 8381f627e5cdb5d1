"""The networks: what holds for any weights, what was learned, what is refused, long runs, and other constants."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from grokkit_kepler.anomaly import Anomaly, exact_factor
from grokkit_kepler.on_orbit import OnOrbit
from grokkit_kepler.orbit import moved, orbit_of, solved
from torch import Tensor

import grokkit_core as gk
from grokkit_core.building import build_module
from grokkit_core.cassette import Cassette, draft, load
from grokkit_core.errors import Incompatible, UsageError
from grokkit_core.plugins import host
from grokkit_core.specs import settle
from grokkit_core.streams import stream
from grokkit_core.task import Batch, tensors_of
from grokkit_core.training.train import train
from grokkit_core.transfer.zero_pad import padded
from grokkit_core.workspace import Workspace

EXACT = 1e-12
STEPS = (0, 1, 2)


def network(newton: int, *, trained: bool = True, seed: int = 0, **config: Any) -> OnOrbit:
    """The shipped network with another number of Newton steps, or one with random weights three times the usual size."""
    architecture = host().architecture("grokkit_kepler/on-orbit")
    settled = architecture.settled({**shipped().manifest.architecture.config, "newton": newton, **config})
    if trained:
        module = build_module(architecture, settled, shipped().tensors)
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module = architecture.build(settled).requires_grad_(False)
        for tensor in module.parameters():
            tensor.mul_(3.0)
    assert isinstance(module, OnOrbit)
    return module


@functools.cache
def shipped() -> Cassette:
    return load("kepler")


@functools.cache
def batch(n: int = 5_000, direction: int = 0) -> Batch:
    return host().task("kepler").sample(n, generator=stream(11, "networks"), direction=direction)


def start(n: int = 5_000) -> Tensor:
    return tensors_of(batch(n).inputs)[0]


def mse(module: OnOrbit) -> float:
    return (module(start()) - batch().targets).square().mean().item()


# -- for any weights ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("newton", STEPS)
@pytest.mark.parametrize("trained", [True, False], ids=["trained", "untrained"])
def test_the_map_commutes_with_rotation_reflection_and_scale(two_body: ModuleType, newton: int, trained: bool) -> None:
    module = network(newton, trained=trained)
    after = module(start())
    for angle in (0.7, 2.1, -3.0):
        turned = module(two_body.rotated(start(), angle)) - two_body.rotated(after, angle)
        assert turned.abs().max().item() < EXACT
    mirrored = module(two_body.mirrored(start())) - two_body.mirrored(after)
    assert mirrored.abs().max().item() < EXACT
    for scale in (1e-3, 7.3, 1e4):
        larger = network(newton, trained=trained, dt=0.1 * scale**1.5)
        found = two_body.scaled(larger(two_body.scaled(start(), scale)), 1 / scale)
        assert (found - after).abs().max().item() < EXACT


@pytest.mark.parametrize("newton", STEPS)
@pytest.mark.parametrize("trained", [True, False], ids=["trained", "untrained"])
def test_energy_and_angular_momentum_do_not_drift(two_body: ModuleType, newton: int, trained: bool) -> None:
    energy, momentum, _ = two_body.drift(network(newton, trained=trained), start(50), 300)
    assert energy < EXACT
    assert momentum < EXACT


def test_an_untrained_network_conserves_and_yet_fails_the_error_bound() -> None:
    assert all(mse(network(0, trained=False, seed=seed)) > 1e-6 for seed in range(3))


def test_any_step_along_the_orbit_conserves() -> None:
    orbit, task = orbit_of(start(), 1.0), host().task("kepler")
    step = 6 * torch.rand(5_000, generator=stream(0), dtype=torch.float64) - 3
    before, after = task.invariants(start()), task.invariants(moved(start(), orbit, step))
    assert all((after[name] - before[name]).abs().max().item() < EXACT for name in before)


def test_the_form_with_dt_does_not_conserve_although_its_one_step_error_is_no_larger(two_body: ModuleType) -> None:
    module, task = network(0), host().task("kepler")

    def with_dt(state: Tensor) -> Tensor:
        orbit = orbit_of(state, 1.0)
        found: Tensor = two_body.moved_with_time(state, orbit, module.step(orbit), 0.1)
        return found

    after = with_dt(start())
    assert (after - batch().targets).square().mean().item() < 1e-7
    change = task.invariants(after)["energy"] - task.invariants(start())["energy"]
    assert change.abs().max().item() > 1e-4
    energy, _, _ = two_body.drift(with_dt, start(50), 300)
    assert not energy < 1e-3


# -- what was learned --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("newton", "most", "times"), [(0, 1e-7, 50), (1, 1e-12, 1_000), (2, 1e-22, 1_000)])
def test_the_network_beats_the_classical_start_at_equal_newton_steps(newton: int, most: float, times: float) -> None:
    task = host().task("kepler").with_start_steps(newton)
    classical = task.baselines(batch())["classical-start"](start(), {})
    found = mse(network(newton))
    assert found < most
    assert times * found < (classical - batch().targets).square().mean().item()


def test_a_float32_state_is_answered_as_well_as_float32_can_say() -> None:
    found = shipped()(start().float())
    assert found.dtype == torch.float32
    exact = host().task("kepler").oracle(start().float(), {})
    assert ((found.double() - exact).abs() <= 2e-5 * exact.abs().clamp_min(1.0)).all()
    assert (found.double() - exact).square().mean().item() < 1e-13


def test_training_is_reproduced_from_its_seed(library: Path) -> None:
    settings = {"iterations": 30, "samples": 500}
    made = [train("kepler", seed=3, settings=settings, name="again", library=library)[0].cassette for _ in range(2)]
    assert all(torch.equal(made[0].tensors[name], tensor) for name, tensor in made[1].tensors.items())
    assert made[0].manifest.architecture.config["newton"] == 1


def test_newton_steps_are_not_trained_through(library: Path) -> None:
    settings = {"iterations": 20, "samples": 300}
    made = [
        train("kepler", settings={**settings, "newton": count}, name="same", library=library)[0].cassette
        for count in (0, 2)
    ]
    assert all(torch.equal(made[0].tensors[name], tensor) for name, tensor in made[1].tensors.items())


def test_another_time_step_is_trained_on_its_own_range(library: Path) -> None:
    (made,) = train("kepler", settings={"dt": 0.5, "iterations": 200, "samples": 2_000}, name="long", library=library)
    config = made.cassette.manifest.architecture.config
    assert config["dt"] == 0.5
    assert config["least_turn"] < 0.5 * 1.5**-1.5 < 0.5 * 0.7**-1.5 < config["most_turn"]
    task = made.cassette.task
    states = task.sample(500, generator=stream(1))
    assert (made.cassette(states.inputs) - states.targets).square().mean().item() < 1e-5


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "state",
    [(1.0, 0.0, 0.0, 2.0), (1.0, 0.0, 0.0, math.sqrt(2)), (0.0, 0.0, 0.5, 0.5), (1.0, 0.0, -0.3, 0.0)],
    ids=["hyperbola", "parabola", "at the centre", "falling in"],
)
def test_a_state_without_a_bound_orbit_is_refused(state: tuple[float, ...]) -> None:
    given = torch.tensor([(1.0, 0.0, 0.0, 1.0), state], dtype=torch.float64)
    with pytest.raises(Incompatible) as caught:
        shipped()(given)
    assert caught.value.exit_code == 4
    with pytest.raises(Incompatible, match="bound orbit.*x, y, vx, vy"):
        shipped().predict(given, force=True)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_numbers_that_are_not_finite_are_refused_even_when_forced(value: float) -> None:
    with pytest.raises(Incompatible):
        shipped().predict(torch.tensor([[1.0, value, 0.0, 1.0]], dtype=torch.float64), force=True)


@pytest.mark.parametrize(
    ("state", "says"),
    [((1.0, 0.0, 0.0, 1.3), "eccentricity 0.69"), ((4.0, 0.0, 0.0, 0.5), "n dt = 0.0125"), ((0.3, 0, 0, 1.8), "n dt")],
)
def test_states_outside_the_trained_range_are_refused_unless_forced(state: tuple[float, ...], says: str) -> None:
    given = torch.tensor([state], dtype=torch.float64)
    with pytest.raises(Incompatible, match=says):
        shipped()(given)
    forced = shipped().predict(given, force=True)
    assert (forced - host().task("kepler").oracle(given, {})).abs().max().item() < EXACT


def test_a_forced_answer_says_that_it_was_iterated() -> None:
    given = torch.tensor([(1.0, 0.0, 0.0, 1.0), (4.0, 0.0, 0.0, 0.5)], dtype=torch.float64)
    answer = shipped().solve_with_bound(given, force=True)
    assert answer.iterated.tolist() == [False, True]
    assert answer.anomaly_error[1].item() < 1e-15
    with pytest.raises(Incompatible):
        shipped().solve_with_bound(given)


def test_states_in_the_wrong_order_are_noticed_in_nearly_every_file() -> None:
    """Neither shape nor range of a single number tells them apart; the orbits that they would be on do."""
    few = start(100)
    for order in ((2, 3, 0, 1), (0, 2, 1, 3), (1, 3, 0, 2), (3, 2, 1, 0)):
        with pytest.raises(Incompatible, match="x, y, vx, vy"):
            shipped()(few[:, list(order)].contiguous())
    with pytest.raises(Incompatible):
        shipped()(start(100).T.contiguous())


def test_swapped_inputs_of_the_equation_are_refused() -> None:
    mean, e = torch.tensor([1.0, 5.0]), torch.tensor([0.1, 0.5])
    solver = untrained_solver()
    with pytest.raises(Incompatible, match="eccentricity"):
        solver(e, mean)
    with pytest.raises(Incompatible):
        solver.predict({"mean_anomaly": mean, "eccentricity": 3 * e}, force=True)
    with pytest.raises(Incompatible, match="eccentricity"):
        solver(torch.stack((mean, e), 1))


def test_what_grew_or_was_fused_from_a_network_refuses_what_it_refuses(library: Path) -> None:
    train("kepler", recipe="mlp", settings={"steps": 1, "samples": 64}, name="plain", library=library)
    gk.grow("plain", {"width": 256}, name="grown", library=library)
    gk.compose("kepler", "plain", gate="uniform", name="fused", library=library)
    unbound, beyond = torch.tensor([[1.0, 0.0, 0.0, 2.0]]), torch.tensor([[4.0, 0.0, 0.0, 0.5]])
    for name in ("plain", "grown", "fused"):
        cassette = load(name, library=Workspace.open(library))
        for state in (unbound, beyond):
            with pytest.raises(Incompatible, match="x, y, vx, vy"):
                cassette(state)
        assert cassette.predict(beyond, force=True).isfinite().all()


@pytest.mark.parametrize("architecture", ["on-orbit", "mlp"])
def test_an_empty_range_of_time_steps_is_refused(architecture: str) -> None:
    built = host().architecture(f"grokkit_kepler/{architecture}")
    with pytest.raises(UsageError):
        built.check(built.settled({"least_turn": 0.2, "most_turn": 0.1}))


# -- long runs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("newton", STEPS)
def test_a_rollout_is_what_successive_calls_give(newton: int) -> None:
    module, state = network(newton), start(50)
    own = module.rollout(state)
    for _ in range(200):
        state = module(state)
        found = next(own)
        assert (found - state).abs().max().item() < 1e-10
        assert found.dtype == torch.float64


def test_a_rollout_of_float32_states_is_computed_in_float64(two_body: ModuleType) -> None:
    last = list(shipped().rollout(start(20).float(), 300))[-1]
    exact = host().task("kepler", dt=30.0).oracle(start(20).float(), {})
    assert last.dtype == torch.float32
    assert (last.double() - exact).abs().max().item() < 1e-3


def test_run_reports_the_drift_of_both_invariants(cli: Callable[..., Any], tmp_path: Path) -> None:
    file = tmp_path / "states.json"
    file.write_text("[[1, 0, 0, 1], [0.9, 0.2, 0.1, -1.0]]")
    done = cli("run", "kepler", "--input", file, "--steps", 1000, "--dtype", "float64", "--json")
    assert done.code == 0
    assert done.json["shape"] == [1000, 2, 4]
    assert set(done.json["drift"]) == {"energy", "angular_momentum"}
    assert max(done.json["drift"].values()) < EXACT


def test_an_unbound_orbit_exits_with_4(cli: Callable[..., Any], tmp_path: Path) -> None:
    file = tmp_path / "states.json"
    file.write_text("[[1, 0, 0, 2]]")
    for words in ((), ("--force",), ("--steps", 3), ("--steps", 3, "--force")):
        done = cli("run", "kepler", "--input", file, *words)
        assert done.code == 4
        assert "bound orbit" in done.err


# -- transfer ----------------------------------------------------------------------------------------------------------


def test_time_step_and_mu_change_without_training(library: Path) -> None:
    grown = gk.grow("kepler", {"dt": 0.08, "mu": 1.2}, name="other", library=library).cassette
    assert grown.manifest.task.parameters == {"mu": 1.2, "dt": 0.08}
    assert all(torch.equal(tensor, shipped().tensors[name]) for name, tensor in grown.tensors.items())
    assert grown.manifest.certificate.verdict == "bounded"
    assert "refused" in grown.manifest.certificate.statement
    near = torch.tensor([[0.9, 0.1, -0.2, 1.1]], dtype=torch.float64)
    assert (grown(near) - grown.task.oracle(near, {})).abs().max().item() < 1e-5
    assert gk.verify("other", level="quick", seed=3, library=library).reasons == ()


def test_one_network_serves_every_size_of_orbit(two_body: ModuleType, library: Path) -> None:
    large = gk.grow("kepler", {"dt": 0.1 * 1e4**1.5}, name="large", library=library).cassette
    found = two_body.scaled(large(two_body.scaled(start(500), 1e4)), 1e-4)
    assert (found - shipped()(start(500))).abs().max().item() < EXACT
    with pytest.raises(Incompatible, match="n dt"):
        large(start(500))


@pytest.mark.parametrize("name", ["grokkit_kepler/mlp", "grokkit_kepler/published"])
def test_the_published_growth_destroys_what_zero_padding_keeps(two_body: ModuleType, name: str) -> None:
    """With random weights; the published one of the trained replica is among the full protocols."""
    architecture = host().architecture(name)
    config = architecture.settled({})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tensors = architecture.build(config).state_dict()
    layers = architecture.layers(config)
    assert layers is not None
    rows = torch.randn(400, tensors["layers.0.weight"].shape[1], generator=stream(1))
    before = build_module(architecture, config, tensors)(rows)
    wide = {**config, "width": 256}
    kept = build_module(architecture, wide, padded(layers, tensors, {"width": 256}))(rows)
    lost = build_module(architecture, wide, two_body.correlated_replica(tensors, stream(2)))(rows)
    assert (kept - before).abs().max().item() <= 1e-6
    assert (lost - before).abs().max().item() > 0.01


# -- Kepler's equation -------------------------------------------------------------------------------------------------


@functools.cache
def untrained_solver() -> Cassette:
    """An untrained solver with one Newton step, as a cassette."""
    architecture = host().architecture("grokkit_kepler/anomaly")
    config = architecture.settled({})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tensors = architecture.build(config).state_dict()
    return draft(
        "solver",
        task=host().task("kepler-equation"),
        architecture=architecture.spec,
        config=config,
        signature=architecture.signature(config),
        tensors=tensors,
        provenance=shipped().manifest.provenance,
        summary="random weights",
        plugins=host(),
    )


def solver(newton: int = 0) -> Anomaly:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return Anomaly(24, 2, newton).requires_grad_(False)


def test_the_solver_is_odd_and_periodic_and_exact_at_its_ends_for_any_weights() -> None:
    module = solver()
    mean = torch.linspace(-3, 3, 101, dtype=torch.float64)
    e = torch.full_like(mean, 0.45)
    found = module(mean, e)
    assert torch.equal(module(-mean, e), -found)
    assert (module(mean + 6 * math.pi, e) - 6 * math.pi - found).abs().max().item() < 1e-13
    assert torch.equal(module(mean, 0 * e), mean)
    ends = torch.tensor([0.0, math.pi], dtype=torch.float64)
    assert (module(ends, e[:2]) - ends).abs().max().item() < 1e-15


def test_what_the_solver_learns_has_its_limits_at_the_ends() -> None:
    for e in (0.0, 0.3, 0.6):
        mean = torch.tensor([0.0, 1e-6, math.pi - 1e-6], dtype=torch.float64)
        eccentricity = torch.full_like(mean, e)
        anomaly = solved(eccentricity, torch.zeros_like(mean), mean)
        found = exact_factor(mean, eccentricity, anomaly).tolist()
        assert found == pytest.approx([1 / (1 - e), 1 / (1 - e), 1 / (1 + e)], rel=1e-6)


def test_an_answer_of_the_solver_comes_with_a_bound_that_holds() -> None:
    batch = host().task("kepler-equation").sample(5_000, generator=stream(0, "solver"))
    mean, e = tensors_of(batch.inputs)
    answer = untrained_solver().solve_with_bound(mean, e)
    assert bool(((answer.eccentric_anomaly - batch.targets).abs() <= answer.error + 1e-15).all())
    rounded = untrained_solver().solve_with_bound(mean.float(), e.float())
    exact = host().task("kepler-equation").oracle({"mean_anomaly": mean.float(), "eccentricity": e.float()}, {})
    assert bool(((rounded.eccentric_anomaly.double() - exact).abs() <= rounded.error + 1e-15).all())


def test_a_forced_pair_is_solved_by_iteration() -> None:
    mean, e = torch.tensor([0.5, 1.5], dtype=torch.float64), torch.tensor([0.95, 0.3], dtype=torch.float64)
    answer = untrained_solver().solve_with_bound(mean, e, force=True)
    assert answer.iterated.tolist() == [True, False]
    assert answer.error[0].item() < 1e-13


# -- the published training --------------------------------------------------------------------------------------------


def test_the_replica_trains_and_loses_to_the_formula(library: Path) -> None:
    (made,) = train("linear-angle", settings={"epochs": 300}, library=library)
    certificate = made.cassette.manifest.certificate
    assert {baseline.name for baseline in certificate.baselines} == {"persistence", "linear", "formula"}
    assert "WORSE than" in certificate.statement
    assert "formula" in certificate.statement
    assert made.steps == 300
    assert gk.verify(made.cassette.manifest.ref, level="quick", seed=4, library=library).reasons == ()


def test_validation_rows_decide_and_are_not_trained_on() -> None:
    recipe, task = host().recipe("linear-angle/published"), host().task("linear-angle")
    settings = {"samples": 2_000, "threshold": 5e-5, "width": 8, "epochs": 1, "lr": 3e-3}
    training, held = recipe.rows(task, settings, 0)  # type: ignore[attr-defined]
    assert (len(training), len(held)) == (1_600, 400)
    seen = set(tensors_of(training.inputs)[0][:, 0].tolist())
    assert not seen & set(tensors_of(held.inputs)[0][:, 0].tolist())
    stopping = recipe.stopping(task, settings)
    assert stopping is not None
    assert stopping.on == "validation"


def test_the_replica_resumes_where_it_stopped() -> None:
    recipe, task = host().recipe("linear-angle/published"), host().task("linear-angle")
    settings = {"samples": 100, "threshold": 0.0, "width": 8, "epochs": 60, "lr": 3e-3}

    def started() -> Any:
        return recipe.start(task, settings, [0], dtype=torch.float32, device=torch.device("cpu"))

    whole, half = started(), started()
    for _ in range(60):
        whole.step()
    for _ in range(25):
        half.step()
    resumed = started()
    resumed.restore(half.state())
    while not resumed.done:
        resumed.step()
    pairs = zip(whole.result()[0].parameters(), resumed.result()[0].parameters(), strict=True)
    assert all(torch.equal(first, second) for first, second in pairs)


def test_the_learning_rate_falls_on_a_plateau() -> None:
    recipe, task = host().recipe("linear-angle/published"), host().task("linear-angle")
    settings = {"samples": 100, "threshold": 0.0, "width": 8, "epochs": 10**6, "lr": 3e-3}
    (lane,) = recipe.start(task, settings, [0], dtype=torch.float32, device=torch.device("cpu")).lanes  # type: ignore[attr-defined]
    lane._settle(1.0)
    for _ in range(200):
        lane._settle(1.0)
    assert lane._optimizer.param_groups[0]["lr"] == 3e-3
    lane._settle(1.0)
    assert lane._optimizer.param_groups[0]["lr"] == 1.5e-3
    lane._settle(0.5)
    assert lane._waited == 0


@pytest.mark.parametrize("recipe", ["kepler/on-orbit", "kepler-equation/anomaly"])
def test_training_by_curvature_resumes_where_it_stopped(recipe: str) -> None:
    found = host().recipe(recipe)
    task = host().task(found.spec.task)
    settings = settle(found.spec.parameters, {"samples": 300, "iterations": 60}, recipe)

    def started() -> Any:
        return found.start(task, settings, [0, 1], dtype=torch.float64, device=torch.device("cpu"))

    whole, half, resumed = started(), started(), started()
    while not whole.done:
        whole.step()
    for _ in range(3):
        half.step()
    resumed.restore(half.state())
    while not resumed.done:
        resumed.step()
    for first, second in zip(whole.result(), resumed.result(), strict=True):
        pairs = zip(first.parameters(), second.parameters(), strict=True)
        assert all(torch.equal(one, other) for one, other in pairs)


def test_a_card_begins_with_the_share_of_states_that_another_time_step_refuses(tmp_path: Path) -> None:
    """The network serves larger orbits then, and none of those that the task samples."""
    made = gk.grow("kepler", {"dt": 5.0}, library=tmp_path)
    assert "; 100% of the task's states lie outside the trained range" in made.cassette.manifest.certificate.statement
    near = gk.grow("kepler", {"dt": 5.0, "mu": 0.0004}, library=tmp_path)
    assert "outside the trained range" not in near.cassette.manifest.certificate.statement
