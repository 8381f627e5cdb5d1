"""Full protocols of the double pendulum: the law from 300 pairs, noise, long runs, generic networks, growth, the replica."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from grokkit_pendulum.certify import symplectic_defect
from grokkit_pendulum.identify import named
from grokkit_pendulum.integrators import rk4
from grokkit_pendulum.lagrangian import Lagrangian, is_law
from grokkit_pendulum.law import Pendulum, Rods
from scipy.integrate import solve_ivp
from torch import Tensor

import grokkit_core as gk
from grokkit_core.cassette import Cassette, load
from grokkit_core.plugins import host
from grokkit_core.specs import settle
from grokkit_core.streams import stream
from grokkit_core.task import Batch, tensors_of

pytestmark = pytest.mark.acceptance
SEEDS = range(5)
HELD_OUT = 5_000
LAW = [2, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, -19.62, 0, 0, -9.81, 0, 0, 0, 0]
"""The coefficients of the facts page: M11, M12, M22 without its 1, V."""

UNITS = [2.0] * 4 + [1.0] * 7 + [19.62] * 3 + [9.81] * 5
"""What the stored coefficients are multiplied by for unit masses and lengths."""


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("protocols") / "library"


def pendulum(**constants: float) -> Pendulum:
    return cast(Pendulum, host().task("pendulum", **constants))


def held_out() -> Batch:
    return pendulum().sample(HELD_OUT, generator=stream(77, "held-out"))


def mse(cassette: Cassette, batch: Batch) -> float:
    inputs = tensors_of(batch.to(cassette.dtype).inputs)[0]
    return float(cassette.task.error(cassette(inputs), batch.targets).mean())


def coefficients(seed: int, **settings: Any) -> tuple[Tensor, float]:
    """What a fit ends with, not rounded, and its CPU seconds."""
    recipe = host().recipe("pendulum/lagrangian")
    settled = settle(recipe.spec.parameters, {"snap": False, **settings}, "lagrangian")
    started = time.process_time()
    run = recipe.start(pendulum(), settled, [seed], dtype=torch.float64, device=torch.device("cpu"))
    while not run.done:
        run.step()
    return torch.cat(list(run.result()[0].state_dict().values())), time.process_time() - started


def field_error(weights: Tensor) -> float:
    """The relative error of the accelerations over 1,000 states."""
    law = Lagrangian({name: part.tolist() for name, part in named(weights).items()}, Rods())
    states = tensors_of(held_out().inputs)[0][:1_000].T.contiguous()
    true = Rods().field(states)[2:]
    return float((law.field(states)[2:] - true).norm() / true.norm())


# -- the law -----------------------------------------------------------------------------------------------------------


def test_five_seeds_find_the_law_in_300_pairs(shelf: Path, figure: Callable[..., None]) -> None:
    batch, errors, seconds, exact, fits = held_out(), [], [], 0, []
    for seed in SEEDS:
        started = time.process_time()
        (made,) = gk.train("pendulum", seed=seed, name="law", library=shelf)
        seconds.append(time.process_time() - started)
        errors.append(mse(made.cassette, batch))
        exact += made.cassette.manifest.certificate.verdict == "exact" and is_law(made.cassette.tensors)
        weights, fitting = coefficients(seed)
        fits.append(fitting)
        physical = weights * torch.tensor(UNITS, dtype=torch.float64)
        assert [round(value, 2) + 0.0 for value in physical.tolist()] == LAW
        figure(
            f"lagrangian, seed {seed}: largest error of a coefficient before rounding",
            f"{float((physical - torch.tensor(LAW)).abs().max()):.1e}",
            "reported",
        )
    figure("lagrangian, 5 seeds: worst MSE on 5,000 held-out states, dt 0.02", f"{max(errors):.2e}", "< 1e-14")
    figure("lagrangian, 5 seeds: coefficients are exactly the law's", f"{exact} of 5", "5 of 5")
    figure("lagrangian, 5 seeds: most CPU seconds of a fit", f"{max(fits):.2f}", "<= 5")
    figure("lagrangian, 5 seeds: most CPU seconds, certificate included", f"{max(seconds):.2f}", "<= 5")
    assert max(errors) < 1e-14
    assert exact == 5
    assert max(seconds) <= 5


def test_the_runge_kutta_form_is_as_accurate_as_published(shelf: Path, figure: Callable[..., None]) -> None:
    settings = {"integrator": "rk4", "step": 0.01}
    (made,) = gk.train("pendulum", settings=settings, name="rk4", library=shelf)
    figure("law with RK4 x 2: MSE on 5,000 held-out states", f"{mse(made.cassette, held_out()):.2e}", "< 1e-14")
    assert mse(made.cassette, held_out()) < 1e-14


def test_noise_leaves_the_law_right_to_one_percent(shelf: Path, figure: Callable[..., None]) -> None:
    errors, rounded = [], 0
    for seed in SEEDS:
        weights, _ = coefficients(seed, noise=1e-3)
        errors.append(field_error(weights))
        (made,) = gk.train("pendulum", seed=seed, settings={"noise": 1e-3}, name="noisy", library=shelf)
        rounded += is_law(made.cassette.tensors)
        stored = torch.cat([made.cassette.tensors[name] for name in named(weights)])
        assert field_error(stored) < 0.01
    figure("noise 1e-3 on both states, 5 seeds: worst vector field before rounding", f"{max(errors):.2%}", "< 1 %")
    figure("noise 1e-3 on both states, 5 seeds: coefficients round to the exact law", f"{rounded} of 5", "reported")
    assert max(errors) < 0.01
    large = [field_error(coefficients(seed, noise=0.03)[0]) for seed in SEEDS]
    figure("control, noise 3e-2: worst vector field", f"{max(large):.1%}", "> 1 %")
    assert max(large) > 0.01


# -- long runs ---------------------------------------------------------------------------------------------------------


def starts(n: int = 64) -> Tensor:
    batch = pendulum().sample(n, generator=stream(78, "rollout"), angle=math.pi / 2, velocity=0.9)
    return tensors_of(batch.inputs)[0]


def drifts(cassette: Cassette, steps: int = 1_000) -> dict[int, Tensor]:
    """|E - E0| of each start after 10, 100 and 1,000 steps; infinite where a state is not finite any more."""
    first, rods, found = starts().to(cassette.dtype), Rods(), {}
    for count, state in enumerate(islice(cassette.rollout(first, steps, force=True), steps), 1):
        if count in (10, 100, 1_000):
            moved = (rods.energy(state.double()) - rods.energy(first.double())).abs()
            found[count] = torch.nan_to_num(moved, nan=math.inf)
    return found


def told(drift: Tensor) -> str:
    return f"{float(drift.median()):.1e} / {float(drift.max()):.1e}"


def test_the_energy_stays_over_a_thousand_steps(figure: Callable[..., None]) -> None:
    found = drifts(load("pendulum"))
    for count, drift in found.items():
        bound = "median < 1e-5, max < 1e-3" if count == 1_000 else "reported"
        figure(f"Gauss-Legendre, 64 starts: abs dE after {count:,} steps, median / max", told(drift), bound)
    growth = float(found[1_000].median() / found[100].median())
    figure("Gauss-Legendre: median abs dE after 1,000 steps over that after 100", f"{growth:.2f}", "< 3: not growing")
    assert float(found[1_000].median()) < 1e-5
    assert float(found[1_000].max()) < 1e-3
    assert growth < 3


def test_runge_kutta_and_generic_networks_leave_the_energy_surface(shelf: Path, figure: Callable[..., None]) -> None:
    settings = {"integrator": "rk4", "step": 0.02}
    (made,) = gk.train("pendulum", settings=settings, name="rk4-long", library=shelf)
    for name, cassette, bound in (("RK4 x 1", made.cassette, 3.0), ("mlp", load("pendulum-mlp"), 1.0)):
        found = drifts(cassette)
        figure(
            f"control, {name}: abs dE after 100 and 1,000 steps", f"{told(found[100])}, {told(found[1_000])}", "grows"
        )
        assert float(found[1_000].median()) > bound * float(found[100].median())
        assert float(found[1_000].max()) > 2 * float(found[100].max())
    assert float(drifts(load("pendulum-mlp"), 100)[100].median()) > 0.1


def test_symplectic_claims_hold_and_others_are_not_made(shelf: Path, figure: Callable[..., None]) -> None:
    states = tensors_of(pendulum().sample(20, generator=stream(79, "defect")).inputs)[0].T.contiguous()
    law, canonical = load("pendulum"), Rods().momenta(states)
    (shears,) = gk.train("pendulum", recipe="symplectic", name="shears", library=shelf)
    for name, cassette in (("Gauss-Legendre", law), ("shears", shears.cassette)):
        module = cast(Any, cassette.module_for(torch.float64))
        defect = symplectic_defect(module.canonical_step, canonical)
        figure(f"{name}: symplectic defect at 20 states", f"{defect:.1e}", "< 1e-12")
        assert defect < 1e-12
    rough = symplectic_defect(lambda y: rk4(cast(Any, law.module).law().canonical_field, y, 0.02), canonical)
    figure("control, RK4 x 1: symplectic defect", f"{rough:.1e}", "> 1e-12")
    assert rough > 1e-12
    found = drifts(shears.cassette)
    figure("shears: MSE", f"{mse(shears.cassette, held_out()):.1e}", "reported")
    figure(
        "shears: abs dE after 10, 100 and 1,000 steps", ", ".join(told(drift) for drift in found.values()), "bounded"
    )
    assert float(found[1_000].max()) < 2 * float(found[100].max())
    assert "symplectic_defect" not in {m.name for m in load("pendulum-mlp").manifest.certificate.metrics}


# -- generic networks and growth ---------------------------------------------------------------------------------------


def test_the_generic_network_is_a_hundred_times_below_linear(shelf: Path, figure: Callable[..., None]) -> None:
    started = time.process_time()
    (made,) = gk.train("pendulum", recipe="mlp", seed=1, name="mlp", library=shelf)
    seconds, batch, task = time.process_time() - started, held_out(), pendulum()
    found = {
        name: float(task.error(predict(batch.inputs, {}), batch.targets).mean())
        for name, predict in task.baselines(task.sample(HELD_OUT, generator=stream(78, "calibration"))).items()
    }
    listed = ", ".join(f"{name} {value:.2e}" for name, value in found.items())
    figure(f"mlp: MSE on 5,000 held-out states; {listed}", f"{mse(made.cassette, batch):.2e}", "< 6e-5")
    figure("mlp: CPU seconds", f"{seconds:.1f}", "reported")
    certificate = made.cassette.manifest.certificate
    assert mse(made.cassette, batch) < 6e-5 < found["linear"] / 100
    assert {baseline.name for baseline in certificate.baselines} == set(found)
    assert "rk4" in certificate.statement.partition("WORSE than")[2]


def test_growth_keeps_the_generic_network(shelf: Path, figure: Callable[..., None]) -> None:
    source = load("pendulum-mlp")
    for dtype, wide in ((torch.float32, 1e-5), (torch.float64, 1e-12)):
        states = tensors_of(held_out().inputs)[0].to(dtype)
        before = source(states)
        for width in (256, 1_024):
            for operator, dense, bound in (("zero-pad", False, 0.0), ("zero-pad", True, 1e-6), ("widen", False, wide)):
                grown = gk.grow(source, {"width": width}, operator=operator, dense=dense, library=shelf).cassette
                apart = float((grown(states) - before).abs().max())
                kind = f"{operator}{' --dense' if dense else ''}, 128 to {width}, {str(dtype)[6:]}"
                figure(
                    kind, "torch.equal" if apart == 0 else f"{apart:.1e}", f"<= {bound:g}" if bound else "torch.equal"
                )
                assert apart <= bound


def test_other_constants_are_served_by_the_same_numbers(shelf: Path, figure: Callable[..., None]) -> None:
    for target in ({"dt": 0.1}, {"dt": 0.005}, {"m1": 2.0, "m2": 0.5, "l1": 0.7, "l2": 1.3}):
        made = gk.grow("pendulum", target, library=shelf).cassette
        value = made.manifest.certificate.metrics[0].value
        what = ", ".join(f"{name} = {number:g}" for name, number in target.items())
        figure(f"law at {what}, without training: MSE", f"{value:.1e}", "< 1e-12")
        assert value < 1e-12
        assert gk.verify(made, level="quick", seed=4, library=shelf).agrees
    settings = {"integrator": "rk4", "step": 0.01}
    (rough,) = gk.train("pendulum", settings=settings, name="rk4-dt", library=shelf)
    moved = gk.grow(rough.cassette, {"dt": 0.1, "step": 0.05}, library=shelf).cassette
    figure(
        "law with RK4 x 2 at dt 0.1: MSE", f"{moved.manifest.certificate.metrics[0].value:.1e}", "1.7e-9 on the page"
    )
    assert moved.manifest.certificate.metrics[0].value < 1e-8


# -- the replica, and the truth ----------------------------------------------------------------------------------------


def test_the_replica_is_flagged_as_worse_than_persistence(shelf: Path, figure: Callable[..., None]) -> None:
    (made,) = gk.train("pendulum", recipe="published", name="replica", library=shelf)
    certificate = made.cassette.manifest.certificate
    own = next(metric for metric in certificate.metrics if dict(metric.where) == {"data": "published"})
    rivals = {b.name: b.value for b in certificate.baselines if dict(b.where) == {"data": "published"}}
    figure("replica: MSE on fresh pairs of its own kind, time step undefined", f"{own.value:.4f}", "0.01995 published")
    for name, value in rivals.items():
        figure(f"replica: {name} on the same pairs; its threshold is 0.02", f"{value:.4f}", "below the replica")
    assert made.grok_step is not None
    assert set(rivals) == {"persistence", "linear"}
    assert max(rivals.values()) < own.value
    assert "WORSE than persistence (2 of 2), linear (2 of 2)" in certificate.statement


@pytest.mark.parametrize("dt", [0.02, 0.1])
def test_the_truth_is_that_of_dop853(dt: float, figure: Callable[..., None]) -> None:
    task = pendulum(dt=dt)
    batch = task.sample(200, generator=stream(80, "dop853"))

    def rate(_: float, y: np.ndarray) -> np.ndarray:
        return cast(np.ndarray, task.rods.field(torch.from_numpy(y)[:, None])[:, 0].numpy())

    rows = tensors_of(batch.inputs)[0].numpy()
    exact = [solve_ivp(rate, (0, dt), row, method="DOP853", rtol=1e-12, atol=1e-12).y[:, -1] for row in rows]
    apart = float(np.abs(np.array(exact) - batch.targets.numpy()).max())
    figure(f"oracle at dt {dt:g}: largest difference from DOP853 over 200 states", f"{apart:.1e}", "< 5e-12")
    assert apart < 5e-12
