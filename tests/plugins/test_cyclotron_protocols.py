"""Full protocols of the frequency-general networks and of training many seeds at once, and short ones of the same."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from grokkit_cyclotron.certify import rotor_bound
from grokkit_cyclotron.law import TEST_OMEGAS
from grokkit_cyclotron.least_squares import RotorRun
from torch import Tensor

from grokkit_core.cassette import Cassette
from grokkit_core.plugins import host
from grokkit_core.specs import settle
from grokkit_core.streams import stream
from grokkit_core.task import Task
from grokkit_core.training.train import Trained, train

SINGLE, DOUBLE = 2e-14, 1e-24
"""MSE of the rotor in float32 and float64; facts of the cyclotron task, section 7."""

PHASES = ("fixed", "random")
N = 20_000


def law(dt: float = 0.05) -> Task:
    return host().task("cyclotron", dt=dt)


def mse(cassette: Cassette, omega: float, dtype: torch.dtype, *, phase: str = "fixed", dt: float = 0.05) -> float:
    """Over 20,000 windows of the law with this step, whatever the cassette's own."""
    batch = law(dt).sample(N, generator=stream(11, "protocol"), omega=omega, phase=phase)
    assert isinstance(batch.inputs, Tensor)
    return (cassette(batch.inputs.to(dtype)).double() - batch.targets).square().mean().item()


def rotors(count: int) -> RotorRun:
    """The runs of seeds 0, 1, ..., finished."""
    recipe = host().recipe("cyclotron/rotor")
    settings = settle(recipe.spec.parameters, {}, "test")
    run = recipe.start(law(), settings, range(count), dtype=torch.float64, device=torch.device("cpu"))
    assert isinstance(run, RotorRun)
    while not run.done:
        run.step()
    return run


def in_float32(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.float() for name, tensor in tensors.items()}


def test_one_rotor_is_exact_in_both_dtypes_and_for_both_samplers(library: Path) -> None:
    (made,) = train("cyclotron", recipe="rotor", seed=3, library=library)
    for phase in PHASES:
        assert mse(made.cassette, 1.2, torch.float32, phase=phase) <= SINGLE
        assert mse(made.cassette, 1.2, torch.float64, phase=phase) <= DOUBLE


def test_a_rotor_rolled_out_in_float32_drifts_no_more_than_its_start_is_rounded(library: Path) -> None:
    (made,) = train("cyclotron", recipe="rotor", seed=4, library=library)
    batch = law().sample(500, generator=stream(12, "protocol"), omega=1.5, phase="random")
    assert isinstance(batch.inputs, Tensor)
    last = list(made.cassette.rollout(batch.inputs.float(), 1_000))[-1]
    assert last.dtype == torch.float32
    assert (last.double() - landing(batch.inputs, 1_000)).square().mean().item() <= 1e-8
    exact = list(made.cassette.rollout(batch.inputs, 1_000))[-1]
    assert (exact - landing(batch.inputs, 1_000)).square().mean().item() <= 1e-18


def landing(states: Tensor, steps: int) -> Tensor:
    from grokkit_cyclotron.law import jump

    return jump(states, steps)


@pytest.mark.acceptance
def test_the_rotor_over_ten_seeds(library: Path, figure: Callable[..., None]) -> None:
    run = rotors(10)
    accepted = sum(restarts == 0 for restarts in run.restarts)
    figure("rotor, 10 seeds: accepted without a restart", f"{accepted} of 10", ">= 7")
    figure("rotor, 10 seeds: most restarts of one", str(max(run.restarts)), "5")
    bounds = [rotor_bound(module.state_dict()).worst for module in run.result()]
    rounded = [rotor_bound(in_float32(module.state_dict())).worst for module in run.result()]
    figure("rotor, 10 seeds: worst proved relative error, float64 weights", f"{max(bounds):.1e}", "1e-9")
    figure("rotor, 10 seeds: worst proved relative error, weights rounded to float32", f"{max(rounded):.1e}", "1e-6")

    made = [one.cassette for one in train("cyclotron", recipe="rotor", seeds=range(5), library=library)]
    short = max(
        mse(cassette, omega, torch.float32, phase=phase)
        for cassette in made
        for omega in (*TEST_OMEGAS, 4.0)
        for phase in PHASES
    )
    long = max(
        mse(cassette, omega, torch.float64, phase=phase, dt=dt)
        for cassette in made
        for omega, dts in [*((w, (0.05,)) for w in TEST_OMEGAS), *((w, (0.01, 0.05, 0.1, 0.5)) for w in FAR)]
        for dt in dts
        for phase in PHASES
    )
    figure("rotor, 5 seeds, both samplers, six omegas to 4: worst MSE in float32", f"{short:.1e}", "2e-14")
    figure("rotor, 5 seeds, omega to 60 and -1.5, dt .01 to .5: worst MSE in float64", f"{long:.1e}", "1e-24")
    assert accepted >= 7
    assert max(run.restarts) <= 5
    assert max(bounds) <= 1e-9
    assert max(rounded) <= 1e-6
    assert short <= SINGLE
    assert long <= DOUBLE


FAR = (4.0, 20.0, 60.0, -1.5)


@pytest.mark.acceptance
def test_the_generic_network_over_three_seeds(library: Path, figure: Callable[..., None]) -> None:
    made = [one.cassette for one in train("cyclotron", recipe="generic", seeds=range(3), library=library)]
    assert {cassette.manifest.weights.parameters for cassette in made} == {2_884}
    worst = max(mse(cassette, omega, torch.float64, phase="random") for cassette in made for omega in TEST_OMEGAS)
    beyond = max(mse(cassette, 4.0, torch.float64, phase="random") for cassette in made)
    figure("generic two-state network, 3 seeds, five omegas, random phase: worst MSE", f"{worst:.1e}", "1e-6")
    figure("the same at omega = 4, beyond its training", f"{beyond:.1e}", "reported")
    assert worst <= 1e-6


def final_loss(trained: Trained) -> float:
    return trained.cassette.manifest.provenance.curve.rows[-1][1]


@pytest.mark.parametrize("grid", [{}, {"angular": 4, "radial": 2}], ids=["1-node", "8-node"])
def test_a_seed_trained_among_others_is_the_seed_trained_alone(grid: Mapping[str, int], library: Path) -> None:
    settings = {**grid, "epochs": 8, "threshold": 0.006}
    together = train("cyclotron", seeds=range(4), settings=settings, library=library)
    assert len({one.steps for one in together}) > 1
    for one in together:
        alone = train("cyclotron", seed=one.seed, settings=settings, library=library)[0]
        assert all(torch.equal(alone.cassette.tensors[name], t) for name, t in one.cassette.tensors.items())
        assert alone.cassette.manifest.provenance.curve == one.cassette.manifest.provenance.curve


@pytest.mark.acceptance
@pytest.mark.parametrize("grid", [{}, {"angular": 4, "radial": 2}], ids=["1-node", "8-node"])
def test_ten_seeds_at_once_end_as_they_do_alone(
    grid: Mapping[str, int], library: Path, figure: Callable[..., None]
) -> None:
    together = train("cyclotron", seeds=range(10), settings=grid, library=library)
    alone = [train("cyclotron", seed=seed, settings=grid, library=library)[0] for seed in range(10)]
    apart = max(abs(final_loss(one) - final_loss(other)) for one, other in zip(together, alone, strict=True))
    figure(f"ten seeds at once against alone {dict(grid)}: largest difference of final loss", f"{apart:g}", "1e-5")
    assert not math.isnan(apart)
    assert apart <= 1e-5
