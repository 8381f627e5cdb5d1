"""What is proved of the Kepler networks: enclosures against samples and derivatives, and what must not be certified."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from grokkit_kepler import enclosure
from grokkit_kepler.anomaly import Anomaly
from grokkit_kepler.enclosure import anomaly_bound, on_orbit_bound
from grokkit_kepler.intervals import Interval, slopes
from grokkit_kepler.on_orbit import OnOrbit
from grokkit_kepler.orbit import solved
from torch import Tensor

import grokkit_core as gk
from grokkit_core.building import build_module
from grokkit_core.cassette import Cassette, load
from grokkit_core.certify.intervals import Affine
from grokkit_core.plugins import host
from grokkit_core.streams import stream
from grokkit_core.training.train import train

POINTS = 50_000


@functools.cache
def shipped() -> Cassette:
    return load("kepler")


def flow_network(newton: int, change: Callable[[Tensor], Tensor] = lambda tensor: tensor) -> OnOrbit:
    """The shipped network with another number of Newton steps and changed weights."""
    config = {**shipped().manifest.architecture.config, "newton": newton}
    tensors = {name: change(tensor.clone()) for name, tensor in shipped().tensors.items()}
    module = build_module(shipped().architecture, config, tensors)
    assert isinstance(module, OnOrbit)
    return module


@pytest.fixture(scope="module")
def solver(tmp_path_factory: pytest.TempPathFactory) -> Anomaly:
    """A network of Kepler's equation after a third of its training, without Newton steps."""
    settings = {"iterations": 500, "newton": 0}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        (made,) = train("kepler-equation", settings=settings, library=tmp_path_factory.mktemp("library"))
    module = made.cassette.module_for(torch.float64)
    assert isinstance(module, Anomaly)
    return module


def flow_error(module: OnOrbit, points: int = POINTS) -> float:
    """The largest error [rad] at random invariants of the range, half of them at its edge in e."""
    draw = torch.rand(3, points, generator=stream(1, "points"), dtype=torch.float64)
    e, angle = 0.6 * draw[0].sqrt(), 2 * math.pi * draw[1]
    e[: points // 2] = 0.6
    ec, es = e * torch.cos(angle), e * torch.sin(angle)
    least, most = module.trained.least, module.trained.most
    turn = least + (most - least) * draw[2]
    step = module.raw_step(ec, es, turn)
    for _ in range(module.newton):
        step = step - enclosure.residual(step, ec, es, turn) / (1 - ec * step.cos() + es * step.sin())
    return (step - solved(ec, es, turn)).abs().max().item()


def equation_error(module: Anomaly, points: int = POINTS) -> float:
    """The largest error [rad] at random pairs of the range."""
    draw = torch.rand(2, points, generator=stream(2, "points"), dtype=torch.float64)
    mean, e = 2 * math.pi * draw[0], 0.6 * draw[1]
    return (module(mean, e) - solved(e, torch.zeros_like(e), mean)).abs().max().item()


# -- intervals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_operations_on_intervals_hold_every_result(seed: int) -> None:
    generator = stream(seed, "intervals")

    def draw() -> tuple[Interval, Tensor]:
        middle = 3 * torch.randn(2_000, generator=generator, dtype=torch.float64)
        radius = torch.rand(2_000, generator=generator, dtype=torch.float64)
        point = middle + radius * (2 * torch.rand(2_000, generator=generator, dtype=torch.float64) - 1)
        return Interval(middle - radius, middle + radius), point

    (a, x), (b, y) = draw(), draw()
    results = [(a + b, x + y), (a - b, x - y), (a * b, x * y), (-a, -x), (a * 3.0, 3.0 * x), (a + 1.0, x + 1.0)]
    results += [(a.sin(), x.sin()), (a.cos(), x.cos()), (a.exp(), x.exp()), (a.reciprocal(), 1 / x)]
    for found, value in results:
        assert bool(((found.low <= value) & (value <= found.high)).all())
    assert bool((a.size() >= x.abs()).all())
    for found in (a.sin(), a.exp(), a * b):
        assert bool((found.low < found.high).all())


@pytest.mark.parametrize("scale", [1.0, 30.0], ids=["usual weights", "saturated units"])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_slopes_over_boxes_hold_the_derivatives_inside(depth: int, scale: float) -> None:
    generator = stream(depth, "slopes")
    sizes = [3, *[8] * depth, 1]
    layers = [
        Affine(
            scale * torch.randn(leaving, entering, generator=generator, dtype=torch.float64),
            torch.randn(leaving, generator=generator, dtype=torch.float64),
            "identity" if leaving == 1 else "tanh",
        )
        for entering, leaving in zip(sizes[:-1], sizes[1:], strict=True)
    ]
    centre = torch.randn(500, 3, generator=generator, dtype=torch.float64)
    half = 0.2 * torch.rand(500, 3, generator=generator, dtype=torch.float64)
    found = slopes(layers, centre - half, centre + half)
    point = (centre + half * (2 * torch.rand(500, 3, generator=generator, dtype=torch.float64) - 1)).requires_grad_()
    value = point
    for layer in layers:
        value = value @ layer.weight.T + layer.bias
        value = value if layer.activation == "identity" else torch.tanh(value)
    (gradient,) = torch.autograd.grad(value.sum(), point)
    assert bool(((found.low <= gradient) & (gradient <= found.high)).all())
    narrow = slopes(layers, centre, centre)
    assert (narrow.high - narrow.low).max().item() < 1e-10 * scale ** (2 * depth)


# -- bounds ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("newton", "most"), [(0, 0.02), (1, 1e-4), (2, 1e-8)])
def test_the_proved_bound_holds_and_is_of_use(newton: int, most: float) -> None:
    bound, found = on_orbit_bound(flow_network(newton)), flow_error(flow_network(newton))
    assert found <= bound < most
    assert newton > 1 or bound <= 10 * found


def test_the_bound_follows_weights_that_are_worse() -> None:
    worse = flow_network(0, lambda tensor: tensor * 1.5)
    assert on_orbit_bound(worse) > 1.5 * on_orbit_bound(flow_network(0))
    for factor in (1.05, 1.2, 0.0, -1.0):
        other = flow_network(0, lambda tensor, factor=factor: tensor * factor)  # type: ignore[misc]
        assert flow_error(other, 20_000) <= on_orbit_bound(other)


def test_one_wrong_weight_is_enclosed_too() -> None:
    for index in range(5):
        module = flow_network(0)
        with torch.no_grad():
            module.layers[0].weight[index, 0] += 1.0
        assert flow_error(module, 20_000) <= on_orbit_bound(module)


def test_weights_that_are_not_finite_are_not_bounded() -> None:
    assert on_orbit_bound(flow_network(0, lambda tensor: tensor * math.nan)) == math.inf
    assert on_orbit_bound(flow_network(1, lambda tensor: tensor * 1e200)) == math.inf


def test_the_proved_bound_of_the_equation_holds_for_all_pairs(solver: Anomaly) -> None:
    for newton, most in ((0, 5e-3), (1, 1e-5), (2, 1e-10)):
        module = Anomaly(24, 2, newton)
        module.load_state_dict(solver.state_dict())
        module.requires_grad_(False)
        bound, found = anomaly_bound(module), equation_error(module)
        assert found <= bound + 1e-15
        assert bound < most


def test_the_bound_of_the_equation_follows_weights_that_are_worse(solver: Anomaly) -> None:
    module = Anomaly(24, 2, 0)
    module.load_state_dict({name: 1.1 * tensor for name, tensor in solver.state_dict().items()})
    module.requires_grad_(False)
    assert 5e-3 < equation_error(module) <= anomaly_bound(module)


def test_cells_leave_no_gap() -> None:
    cells = enclosure._grid(((-0.6, 0.6), (0.0, 1.0)), (5, 7)).halved()
    points = torch.rand(5_000, 2, generator=stream(0), dtype=torch.float64) * torch.tensor([1.2, 1.0]) - torch.tensor(
        [0.6, 0]
    )
    inside = (points.unsqueeze(1) - cells.centre).abs() <= cells.half
    assert bool(inside.all(2).any(1).all())


# -- certificates ------------------------------------------------------------------------------------------------------


def test_the_shipped_network_is_certified_by_its_bound() -> None:
    certificate = gk.show("kepler").certificate
    assert certificate.verdict == "bounded"
    assert certificate.method == "interval"
    bounds = {bound.name: bound.value for bound in certificate.bounds}
    assert bounds["anomaly_error"] < 1e-4
    assert on_orbit_bound(flow_network(1)) <= bounds["anomaly_error"]
    assert "energy and angular momentum conserved" in certificate.statement
    assert {baseline.name for baseline in certificate.baselines} == {
        *("persistence", "linear", "euler", "leapfrog", "rk4", "classical-start")
    }


@pytest.mark.parametrize(("level", "seed"), [("quick", 21), ("quick", 22), ("full", 23)])
def test_the_certificate_is_confirmed_by_any_seed(level: Any, seed: int) -> None:
    assert gk.verify("kepler", level=level, seed=seed).reasons == ()


def test_the_law_is_printed_as_a_formula(cli: Callable[..., Any]) -> None:
    out = cli("show", "kepler").out
    assert "r' = (1 - q/m) r + (m sin d + es q)/n v" in out
    assert "1 Newton step\n" in out


def test_the_printed_formula_computes_what_the_network_says() -> None:
    state = host().task("kepler").sample(100, generator=stream(0)).inputs
    assert isinstance(state, Tensor)
    r, v = state[:, :2], state[:, 2:]
    size = r.norm(dim=1)
    a = 1 / (2 / size - v.square().sum(1))
    n = a**-1.5
    ec, es = 1 - size / a, (r * v).sum(1) / (n * a**2)
    module = shipped().module_for(torch.float64)
    assert isinstance(module, OnOrbit)
    d = n * 0.1 / (1 - ec) * module.layers(module.features(ec, es, n * 0.1)).squeeze(1).exp()
    d = d - (d - ec * d.sin() + es * (1 - d.cos()) - n * 0.1) / (1 - ec * d.cos() + es * d.sin())
    after, q, m = 1 - ec * d.cos() + es * d.sin(), 1 - d.cos(), 1 - ec
    place = (1 - q / m)[:, None] * r + ((m * d.sin() + es * q) / n)[:, None] * v
    speed = (-n * d.sin() / (m * after))[:, None] * r + (1 - q / after)[:, None] * v
    assert (torch.cat((place, speed), 1) - shipped()(state)).abs().max().item() < 1e-13


def test_an_untrained_network_is_not_called_bounded(library: Path) -> None:
    (made,) = train("kepler", settings={"iterations": 0, "newton": 0}, library=library)
    certificate = made.cassette.manifest.certificate
    assert certificate.verdict == "estimated"
    assert certificate.bounds == ()
    assert "WORSE than" in certificate.statement
    assert "energy and angular momentum conserved" in certificate.statement


def test_the_bounds_of_an_answer_hold_for_position_and_velocity() -> None:
    batch = host().task("kepler").sample(20_000, generator=stream(0, "answers"), direction=0)
    assert isinstance(batch.inputs, Tensor)
    answer = shipped().solve_with_bound(batch.inputs)
    error = answer.state - batch.targets
    rounding = 1e-14
    assert bool((error[:, :2].norm(dim=1) <= answer.position_error + rounding).all())
    assert bool((error[:, 2:].norm(dim=1) <= answer.velocity_error + rounding).all())
    assert not bool(answer.iterated.any())
    assert not bool((error[:, :2].norm(dim=1) <= answer.position_error / 10).all())


def test_a_plain_network_is_certified_beside_the_same_baselines(library: Path) -> None:
    (made,) = train("kepler", recipe="mlp", settings={"steps": 100, "samples": 2_000}, library=library)
    certificate = made.cassette.manifest.certificate
    assert certificate.verdict == "estimated"
    assert "WORSE than" in certificate.statement
    assert gk.verify(made.cassette.manifest.ref, level="quick", seed=9, library=library).reasons == ()
