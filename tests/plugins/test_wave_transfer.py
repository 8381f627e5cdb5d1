"""Operators on wave cassettes: what is exact, what is refused and why, and the copies that must fail."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch

import grokkit_core as gk
from grokkit_core.cassette import Cassette, draft
from grokkit_core.certify.sampled import SAMPLES
from grokkit_core.errors import Incompatible, UsageError
from grokkit_core.plugins import host
from grokkit_core.streams import stream
from grokkit_core.task import tensors_of
from grokkit_core.training.train import train
from grokkit_core.transfer.grow import grow, plan_growth

LAM2 = 0.0961
LAM2S = [index / 20 for index in range(21)]


@pytest.fixture(autouse=True)
def few_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Certificates from a tenth of their samples: the full protocols have all."""
    monkeypatch.setitem(SAMPLES, "full", 2_000)  # type: ignore[misc]


@functools.cache
def sine(channels: int = 16, steps: int = 0) -> Cassette:
    """The nonlinear comparison, untrained or after a few steps."""
    task, architecture = host().task("wave", lam2=LAM2), host().architecture("grokkit_wave/sine-conv")
    config = architecture.settled({"channels": channels})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = architecture.build(config)
    optimizer = torch.optim.AdamW(module.parameters(), lr=3e-3)
    for step in range(steps):
        batch = task.sample(64, generator=stream(0, "train", step), amplitude=0.3).to(torch.float32)
        optimizer.zero_grad()
        (module(*tensors_of(batch.inputs)) - batch.targets.float()).square().mean().backward()
        optimizer.step()
    return draft(
        "sine",
        task=task,
        architecture=architecture.spec,
        config=config,
        signature=architecture.signature(config),
        tensors=module.state_dict(),
        provenance=gk.show("wave").provenance,
        summary="sine convolutions",
        plugins=host(),
    )


@pytest.fixture
def stencil(library: Path) -> Cassette:
    return train("wave", recipe="least-squares", library=library)[0].cassette


def relative_error(cassette: Cassette, grid: int, amplitude: float = 1.0, n: int = 64, **where: Any) -> float:
    """The MSE over the mean square of the target, on fields of this size."""
    batch = cassette.task.sample(n, generator=stream(9), grid=grid, amplitude=amplitude, **where).to(cassette.dtype)
    error = cassette.task.error(cassette.predict(batch.inputs, batch.context), batch.targets).mean()
    return float(error / batch.targets.square().mean())


# -- reuse -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("grid", [7, 254, 4094])
def test_a_stencil_is_reused_bit_by_bit_and_tested_at_the_size_it_goes_to(
    grid: int, stencil: Cassette, library: Path
) -> None:
    made = grow(stencil, {"grid": grid}, library=library)
    assert made.plan.operator == "grokkit_wave/reuse-stencil"
    assert torch.equal(made.cassette.tensors["weight"], stencil.tensors["weight"])
    assert made.max_abs_difference == 0.0
    assert made.cassette.manifest.certificate.verdict == "bounded"
    assert any(metric.where["grid"] == grid for metric in made.cassette.manifest.certificate.metrics)
    assert relative_error(made.cassette.to("cpu", "float32"), grid) < 1e-13 / 4.3


def test_reusing_twice_is_reusing_once(stencil: Cassette, library: Path) -> None:
    hop = grow(grow(stencil, {"grid": 100}, library=library).cassette, {"grid": 300}, library=library).cassette
    direct = grow(stencil, {"grid": 300}, library=library).cassette
    assert hop.manifest.weights.sha256 == direct.manifest.weights.sha256
    assert hop.manifest.architecture == direct.manifest.architecture


@pytest.mark.parametrize(
    ("to", "kind", "says"),
    [
        ({"grid": 100, "lam2": 0.3}, Incompatible, "lam2 = 0.3 for a stencil of lam2 = 0.0961: another law"),
        ({"lam2": 0.3}, Incompatible, "conditional stencil holds for every lam2"),
        ({"grid": 100, "boundary": "periodic"}, Incompatible, "boundary = periodic"),
        ({"lam2": LAM2}, UsageError, "no new size"),
        ({"grid": 10.5}, UsageError, "whole number"),
        ({"grid": 0}, Incompatible, "grid=0"),
        ({"channels": 3}, Incompatible, "no size 'channels'"),
    ],
    ids=str,
)
def test_another_law_is_refused_by_name(
    to: Any, kind: type[Exception], says: str, stencil: Cassette, library: Path
) -> None:
    with pytest.raises(kind, match=says):
        plan_growth(stencil, to, operator="grokkit_wave/reuse-stencil", library=library)


def test_equal_lam2_and_boundary_may_be_named(stencil: Cassette, library: Path) -> None:
    plan = plan_growth(stencil, {"grid": 99, "lam2": LAM2, "boundary": "dirichlet"}, library=library)
    assert dict(plan.after) == {"grid": 99}


def test_a_stencil_is_not_fed_another_lam2(stencil: Cassette) -> None:
    pair = torch.zeros(1, 2, 5, dtype=torch.float64)
    assert stencil(pair, context={"lam2": LAM2}).shape == (1, 5)
    with pytest.raises(Incompatible, match="lam2"):
        stencil(pair, context={"lam2": 0.3})


def test_networks_that_are_no_stencil_are_refused_with_the_reason(library: Path) -> None:
    with pytest.raises(Incompatible, match=r"nonlinear: it fits fields of amplitude 0\.3"):
        plan_growth(sine(), {"grid": 256}, operator="grokkit_wave/reuse-stencil", library=library)
    with pytest.raises(Incompatible, match="serves every grid"):
        plan_growth("wave", {"grid": 256}, operator="grokkit_wave/reuse-stencil", library=library)


def test_trigonometric_refinement_is_refused(library: Path) -> None:
    with pytest.raises(Incompatible, match="no grid that can be refined"):
        plan_growth("wave", {"grid": 256}, operator="regrid", library=library)
    with pytest.raises(Incompatible, match="any grid"):
        gk.run("wave", torch.zeros(1, 2, 8, dtype=torch.float64), context={"lam2": 0.5}, to_grid=16)


# -- one lam2 of all ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lam2", [0, LAM2, 0.25, 1.0])
def test_the_stencil_of_one_lam2_is_the_conditional_one_there(lam2: float, library: Path) -> None:
    made = grow("wave", {"lam2": lam2}, library=library)
    assert made.plan.operator == "grokkit_wave/fix-lambda"
    assert made.max_abs_difference == 0.0
    assert made.cassette.manifest.task.parameters == {"boundary": "dirichlet", "lam2": float(lam2)}
    assert made.cassette.tensors["weight"].tolist() == [[lam2, 2 - 2 * lam2, lam2], [0, -1, 0]]
    certificate = made.cassette.manifest.certificate
    assert certificate.verdict == "bounded"
    assert {bound.name: bound.value for bound in certificate.bounds}["coefficient_error"] < 3e-16
    assert gk.verify(f"{made.cassette.manifest.name}@1", level="quick", seed=4, library=library).agrees


def test_twenty_one_values_of_lam2_in_float32() -> None:
    cassette = gk.load("wave")
    worst = max(relative_error(cassette.to("cpu", "float32"), 30, lam2=lam2) for lam2 in LAM2S)
    assert worst < 1e-13 / 9


@pytest.mark.parametrize("lam2", [1.1, -0.1, float("nan"), "half", None, True])
def test_a_lam2_that_is_not_stable_is_refused(lam2: Any, library: Path) -> None:
    with pytest.raises(Incompatible, match="lam2"):
        plan_growth("wave", {"lam2": lam2}, operator="grokkit_wave/fix-lambda", library=library)


# -- the nonlinear network ---------------------------------------------------------------------------------------------


def test_the_published_size_is_exact() -> None:
    assert sum(tensor.numel() for tensor in sine(64).tensors.values()) == 12_865


def test_dead_channels_change_nothing(library: Path) -> None:
    made = grow(sine(steps=50), {"channels": 40}, library=library)
    assert made.plan.operator == "grokkit_wave/pad-channels"
    assert made.max_abs_difference is not None
    assert made.max_abs_difference <= 1e-6
    assert made.cassette.tensors["second.weight"].shape == (40, 40, 3)


def test_a_channel_that_is_not_dead_is_noticed(library: Path) -> None:
    plan = plan_growth(sine(), {"channels": 20}, library=library)
    tensors = dict(host().operator(plan.operator).apply(sine(), plan))
    tensors["readout.weight"] = tensors["readout.weight"].clone()
    tensors["readout.weight"][0, -1] = 1
    tensors["second.bias"] = tensors["second.bias"].clone()
    tensors["second.bias"][-1] = 0.1
    module = host().architecture("grokkit_wave/sine-conv").build({"channels": 20, "boundary": "dirichlet"})
    module.load_state_dict(tensors)
    pair = 0.3 * torch.randn(4, 2, 30, generator=stream(1))
    with torch.no_grad():
        assert float((module(pair) - sine()(pair)).abs().max()) > 1e-3


def test_copied_kernels_of_a_nonlinear_network_fail_where_a_stencil_does_not(stencil: Cassette) -> None:
    """The amplitude test, and smooth fields on 256 points, where "copy the last field" is better."""
    network, exact = sine(16, 600), stencil.to("cpu", "float32")
    own = relative_error(network, 30, amplitude=0.3)
    assert own < 0.02
    assert relative_error(network, 30, amplitude=3.0) > 10 * own
    assert relative_error(network, 30, amplitude=3.0) > 1e-3
    assert 0.5 < relative_error(exact, 30, amplitude=10.0) / relative_error(exact, 30) < 2
    batch = network.task.sample(64, generator=stream(3), grid=254, amplitude=0.3, field="smooth").to(torch.float32)
    (pair,) = tensors_of(batch.inputs)
    persistence = network.task.error(pair[:, 0], batch.targets).mean()
    assert network.task.error(network.predict(pair), batch.targets).mean() > 100 * persistence
    assert exact.task.error(exact.predict(pair), batch.targets).mean() < 0.01 * persistence


def test_the_certificate_of_a_nonlinear_network_names_what_is_better_and_where_it_was_measured() -> None:
    certificate = sine(16, 600).task.certify(sine(16, 600), level="quick", seed=0)
    assert certificate.verdict == "estimated"
    assert "WORSE than least-squares" in certificate.statement
    assert {metric.where["amplitude"] for metric in certificate.metrics} == {0.3, 0.03, 0.9, 3.0}
    assert {metric.where["grid"] for metric in certificate.metrics} == {30, 254, 4094}


def test_a_replica_of_the_published_training_is_flagged_at_every_size(library: Path) -> None:
    settings = {"steps": 12, "check": 6, "rows": 100}
    (made,) = train("wave", recipe="published", settings=settings, library=library)
    certificate = made.cassette.manifest.certificate
    assert "WORSE than" in certificate.statement
    assert [metric.where["grid"] for metric in certificate.metrics][:4] == [32, 64, 256, 1024]
    assert made.cassette.manifest.weights.parameters == 12_865
    rivals = {(b.name, b.where["grid"]): b.value for b in certificate.baselines if b.where.get("amplitude") is None}
    assert rivals["persistence", 256] == pytest.approx(4.0e-7, rel=0.1)
    assert certificate.metrics[2].value > rivals["persistence", 256]


@pytest.mark.parametrize(
    ("recipe", "settings", "says"),
    [
        ("published", {"boundary": "periodic"}, "periodic ends"),
        ("sine", {"lam2": None}, "lam2"),
        ("sine", {"lam2": 1.2}, "lam2"),
    ],
)
def test_recipes_refuse_what_they_cannot_learn(recipe: str, settings: Any, says: str, library: Path) -> None:
    with pytest.raises(UsageError, match=says):
        train("wave", recipe=recipe, settings=settings, library=library)
