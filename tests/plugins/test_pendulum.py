"""Pendulum networks: the identified law, what its certificate proves, symplectic maps, transfer, and inputs that are refused."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from grokkit_pendulum.certify import symplectic_defect
from grokkit_pendulum.identify import snapped
from grokkit_pendulum.integrators import gauss_legendre, rk4
from grokkit_pendulum.lagrangian import LAW, SIZES, Lagrangian, LagrangianFlow, is_law
from grokkit_pendulum.law import Pendulum, Rods
from grokkit_pendulum.symplectic import SymplecticNet
from torch import Tensor

import grokkit_core as gk
from grokkit_core.cassette import Cassette, load
from grokkit_core.errors import BadWeights, Incompatible, UsageError
from grokkit_core.plugins import host
from grokkit_core.specs import settle
from grokkit_core.streams import stream
from grokkit_core.training.recipe import Run, State

OTHER = {"m1": 2.0, "m2": 0.5, "l1": 0.7, "l2": 1.3, "g": 1.62}
DEFECT = 1e-12
PHYSICAL = {"upper": 2.0, "mixed": 1.0, "lower": 1.0}
"""What the inertia coefficients are multiplied by for unit masses and lengths."""


def pendulum(**constants: float) -> Pendulum:
    return cast(Pendulum, host().task("pendulum", **constants))


def states(n: int, *path: str | int) -> Tensor:
    """States of the sampling box "n 4"."""
    inputs = pendulum().sample(n, generator=stream(5, *path)).inputs
    assert isinstance(inputs, Tensor)
    return inputs


def start(*seeds: int, recipe: str = "lagrangian", **settings: Any) -> Run:
    found = host().recipe(f"pendulum/{recipe}")
    settled = settle(found.spec.parameters, settings, recipe)
    return found.start(pendulum(), settled, seeds, dtype=torch.float64, device=torch.device("cpu"))


def finish(run: Run) -> Run:
    while not run.done:
        run.step()
    return run


@functools.cache
def raw(seed: int, noise: float = 0.0) -> dict[str, Tensor]:
    """The coefficients that a fit ends with, not rounded."""
    return dict(finish(start(seed, snap=False, noise=noise)).result()[0].state_dict())


def flow_of(coefficients: Mapping[str, Any] = LAW, **config: Any) -> LagrangianFlow:
    architecture = host().architecture("grokkit_pendulum/lagrangian")
    module = architecture.build(architecture.settled(config))
    module.load_state_dict({name: torch.as_tensor(values).double() for name, values in coefficients.items()})
    assert isinstance(module, LagrangianFlow)
    return module.requires_grad_(False)


def spoiled(name: str, index: int, value: float) -> dict[str, Tensor]:
    """The law with one coefficient changed."""
    found = {key: torch.tensor(values, dtype=torch.float64) for key, values in LAW.items()}
    found[name][index] = value
    return found


@pytest.fixture(scope="module")
def shipped() -> Cassette:
    return load("pendulum")


@pytest.fixture(scope="module")
def generic() -> Cassette:
    return load("pendulum-mlp")


def with_weights(cassette: Cassette, tensors: Mapping[str, Tensor], **config: Any) -> Cassette:
    reference = cassette.manifest.architecture
    changed = type(reference)(reference.id, reference.version, {**reference.config, **config})
    return Cassette(cassette.manifest.replace(architecture=changed), tensors, plugins=cassette.plugins)


# -- the equations of motion -------------------------------------------------------------------------------------------


def random_coefficients() -> dict[str, list[float]]:
    """All 19 at work, near enough to the law for the mass matrix to be positive."""
    generator = stream(1, "coefficients")
    return {
        name: (torch.tensor(LAW[name]) + 0.1 * torch.randn(size, generator=generator)).double().tolist()
        for name, size in SIZES.items()
    }


def by_autograd(coefficients: Mapping[str, list[float]], rods: Rods, state: Tensor) -> Tensor:
    """The accelerations "batch 2" of the Lagrangian as it is written, all derivatives taken by autograd."""

    def value(row: Tensor) -> Tensor:
        a, b, w, z = row
        d = a - b
        phi = torch.stack((torch.ones_like(d), torch.cos(d), torch.sin(d), torch.cos(2 * d)))
        c = {name: torch.tensor(values, dtype=torch.float64) for name, values in coefficients.items()}
        upper, mixed, lower = rods.inertia
        kinetic = upper * (c["upper"] @ phi) * w**2 / 2 + mixed * (c["mixed"] @ phi) * w * z
        kinetic = kinetic + lower * (1 + c["lower"] @ phi[1:]) * z**2 / 2
        first = torch.stack((torch.cos(a), torch.sin(a), torch.cos(2 * a)))
        second = torch.stack((torch.cos(b), torch.sin(b), torch.cos(2 * b), torch.cos(d), torch.sin(a + b)))
        return kinetic - rods.weight[0] * (c["potential"][:3] @ first) - rods.weight[1] * (c["potential"][3:] @ second)

    found = []
    for row in state:
        gradient = torch.autograd.functional.jacobian(value, row)
        hessian = torch.autograd.functional.hessian(value, row)
        found.append(torch.linalg.solve(hessian[2:, 2:], gradient[:2] - hessian[2:, :2] @ row[2:]))
    return torch.stack(found)


@pytest.mark.parametrize("rods", [Rods(), Rods(**OTHER)], ids=["unit", "other"])
def test_the_equations_of_motion_are_those_of_the_lagrangian_as_written(rods: Rods) -> None:
    coefficients, state = random_coefficients(), states(10)
    found = Lagrangian(coefficients, rods).field(state.T)[2:].T
    expected = by_autograd(coefficients, rods, state)
    assert torch.allclose(found, expected, rtol=1e-10, atol=1e-10)
    coefficients["potential"][7] += 0.01
    assert not torch.allclose(Lagrangian(coefficients, rods).field(state.T)[2:].T, expected, rtol=1e-4)


@pytest.mark.parametrize("rods", [Rods(), Rods(**OTHER)], ids=["unit", "other"])
def test_both_forms_of_the_equations_have_one_flow(rods: Rods) -> None:
    law, state = Lagrangian(random_coefficients(), rods), states(50).T.contiguous()
    direct = rk4(law.field, state, 0.02, 64)
    canonical = law.velocities(rk4(law.canonical_field, law.momenta(state), 0.02, 64))
    assert float((direct - canonical).abs().max()) < 1e-11


@pytest.mark.parametrize("rods", [Rods(), Rods(**OTHER)], ids=["unit", "other"])
def test_the_coefficients_of_the_law_give_the_law_for_all_masses_and_lengths(rods: Rods) -> None:
    state = states(1_000).T.contiguous()
    difference = Lagrangian(LAW, rods).field(state) - rods.field(state)
    assert float(difference.abs().max()) < 1e-12 * float(rods.field(state).abs().max())
    wrong = {name: values.tolist() for name, values in spoiled("mixed", 1, 1.01).items()}
    assert float((Lagrangian(wrong, rods).field(state) - rods.field(state)).abs().max()) > 1e-3


def test_the_flow_is_differentiable_by_coefficients_that_are_trained() -> None:
    module = flow_of(spoiled("mixed", 1, 0.9)).requires_grad_()
    module(states(20)).square().sum().backward()
    assert all(bool((module.get_parameter(name).grad != 0).all()) for name in SIZES)


# -- identification ----------------------------------------------------------------------------------------------------


def test_the_law_is_found_in_300_pairs() -> None:
    coefficients = raw(0)
    for name, values in LAW.items():
        assert coefficients[name].tolist() == pytest.approx(list(values), abs=1.4e-7)
    assert not is_law(coefficients)
    assert is_law(finish(start(0)).result()[0].state_dict())


def test_the_physical_coefficients_round_to_the_exact_law() -> None:
    first, second = 2 * 9.81, 9.81
    v = raw(0)["potential"].tolist()
    potential = [round((first if index < 3 else second) * value, 2) + 0.0 for index, value in enumerate(v)]
    assert potential == [-19.62, 0, 0, -9.81, 0, 0, 0, 0]
    inertia = {name: [round(PHYSICAL[name] * value, 2) + 0.0 for value in raw(0)[name].tolist()] for name in PHYSICAL}
    assert inertia == {"upper": [2, 0, 0, 0], "mixed": [0, 1, 0, 0], "lower": [0, 0, 0]}


def test_other_masses_and_lengths_are_identified_too() -> None:
    found = host().recipe("pendulum/lagrangian")
    settled = settle(found.spec.parameters, {}, "lagrangian")
    run = found.start(pendulum(**OTHER), settled, [0], dtype=torch.float64, device=torch.device("cpu"))
    assert is_law(finish(run).result()[0].state_dict())


def test_noise_of_a_thousandth_leaves_the_law_right_to_one_percent() -> None:
    law = Lagrangian({name: values.tolist() for name, values in raw(0, 1e-3).items()}, Rods())
    state = states(1_000).T.contiguous()
    true = Rods().field(state)[2:]
    assert float((law.field(state)[2:] - true).norm() / true.norm()) < 0.01


def test_coefficients_that_noise_leaves_open_are_kept_as_they_are() -> None:
    run = finish(start(0, noise=0.01))
    assert run.figures(0)["rounded"] is False
    assert run.figures(0)["largest_standard_error"] > 0.01
    assert not is_law(run.result()[0].state_dict())


@pytest.mark.parametrize(
    ("value", "error", "expected"),
    [
        (0.9999, 1e-4, 1.0),
        (1.0, 1e-9, 1.0),
        (0.3502, 1e-4, 0.35),
        (0.35, 0.02, None),
        (0.9, 1e-4, 0.9),
        (0.997, 1e-5, None),
    ],
)
def test_a_coefficient_is_rounded_where_its_own_error_decides(
    value: float, error: float, expected: float | None
) -> None:
    found = snapped(torch.tensor([value], dtype=torch.float64), torch.tensor([error], dtype=torch.float64))
    assert (None if found is None else found.item()) == expected


def test_a_fit_is_resumed_to_the_bit() -> None:
    whole = finish(start(1))
    run, other = start(1), start(1)
    for _ in range(7):
        run.step()
    state = run.state()
    other.restore(State(state.tensors, json.loads(json.dumps(dict(state.values)))))
    finish(other)
    for left, right in zip(whole.result(), other.result(), strict=True):
        assert all(torch.equal(tensor, right.state_dict()[name]) for name, tensor in left.state_dict().items())
    assert {**whole.figures(0)} == {**other.figures(0)}


def test_a_start_that_does_not_arrive_is_discarded(monkeypatch: pytest.MonkeyPatch) -> None:
    import grokkit_pendulum.identify as identify

    drawn: list[Tensor] = []
    normal = identify.initial

    def initial(generator: torch.Generator) -> Tensor:
        drawn.append(normal(generator))
        return torch.full_like(drawn[-1], math.nan) if len(drawn) == 1 else drawn[-1]

    monkeypatch.setattr(identify, "initial", initial)
    run = finish(start(0))
    assert run.figures(0)["restarts"] == 1
    assert is_law(run.result()[0].state_dict())


# -- what the certificate says -----------------------------------------------------------------------------------------


def test_the_shipped_law_is_proved_and_shown_as_a_formula(shipped: Cassette) -> None:
    certificate = shipped.manifest.certificate
    assert certificate.verdict == "exact"
    assert "all 19 coefficients equal" in certificate.statement
    assert certificate.domain.startswith("the vector field at every state; the map on samples")
    assert certificate.formula[1:3] == (
        "T = omega1^2 + cos(d) omega1 omega2 + 0.5 omega2^2",
        "V = -19.62 cos(theta1) - 9.81 cos(theta2)",
    )
    figures = {metric.name: metric.value for metric in certificate.metrics}
    assert figures["mse"] < 1e-14
    assert figures["symplectic_defect"] < DEFECT
    assert figures["stage_change"] < 1e-13
    assert figures["vector_field_error"] < 1e-14
    assert {b.name for b in certificate.baselines} == {"persistence", "linear", "euler", "rk4"}


@pytest.mark.parametrize("change", [("potential", 0, -0.99), ("lower", 2, 0.01), ("mixed", 1, 1 + 2**-52)])
def test_one_coefficient_that_differs_is_not_proved(shipped: Cassette, change: tuple[str, int, float]) -> None:
    wrong = with_weights(shipped, spoiled(*change))
    certificate = wrong.task.certify(wrong, level="quick", seed=0)
    assert certificate.verdict == "estimated"
    assert "not those of the law" in certificate.statement


def test_the_law_with_a_step_that_is_too_long_is_not_called_exact(shipped: Cassette) -> None:
    """Rods of 10 cm in strong gravity swing too fast for one step of 0.03 s, by either method, but not for six."""
    short = {"dt": 0.03, "l1": 0.1, "l2": 0.1, "g": 100.0}
    task = pendulum(**short)
    for integrator, step, verdict, words in (
        ("gauss-legendre-4", 0.03, "estimated", "stages are NOT solved"),
        ("rk4", 0.03, "estimated", "step is too long"),
        ("gauss-legendre-4", 0.005, "exact", "19 coefficients equal"),
    ):
        cassette = with_weights(shipped, shipped.tensors, integrator=integrator, step=step, **short)
        certificate = task.certify(cassette, level="quick", seed=0)
        assert (certificate.verdict, words in certificate.statement) == (verdict, True)


def test_the_generic_network_beats_linear_a_hundredfold_and_says_that_rk4_is_better(generic: Cassette) -> None:
    certificate = generic.manifest.certificate
    value = certificate.metrics[0].value
    found = {baseline.name: baseline.value for baseline in certificate.baselines}
    assert value < 6e-5 < found["linear"] / 100
    assert found["rk4"] < value
    assert "WORSE than" in certificate.statement
    assert "rk4" in certificate.statement.partition("WORSE than")[2]


# -- symplectic maps and long runs -------------------------------------------------------------------------------------


def canonical(n: int) -> Tensor:
    return Rods().momenta(states(n).T.contiguous())


def shears(scale: float = 1.0) -> SymplecticNet:
    torch.manual_seed(0)
    architecture = host().architecture("grokkit_pendulum/symplectic")
    module = architecture.build(architecture.settled({})).double().requires_grad_(False)
    assert isinstance(module, SymplecticNet)
    module.amplitudes.mul_(scale)
    return module


@pytest.mark.parametrize("scale", [1.0, 30.0], ids=["untrained", "large weights"])
def test_shears_are_symplectic_whatever_their_weights(scale: float) -> None:
    module = shears(scale)
    assert symplectic_defect(module.canonical_step, canonical(20)) < DEFECT
    moved = module.canonical_step(canonical(20)) - canonical(20)
    assert float(moved.abs().max()) > 1e-3


def test_gauss_legendre_is_symplectic_with_converged_stages_and_not_before() -> None:
    law = flow_of().law()

    def defect(most: int) -> float:
        return symplectic_defect(lambda y: gauss_legendre(law.canonical_field, y, 0.02, 1, most), canonical(20))

    assert defect(50) < DEFECT
    assert defect(0) > DEFECT
    assert flow_of().unsolved(canonical(1_000)) < 1e-13


def test_any_coefficients_give_a_symplectic_map_by_gauss_legendre_and_runge_kutta_none() -> None:
    wrong = spoiled("mixed", 2, 0.3)
    assert symplectic_defect(flow_of(wrong).canonical_step, canonical(20)) < DEFECT
    assert symplectic_defect(flow_of(wrong, integrator="rk4").canonical_step, canonical(20)) > DEFECT


def energies(outputs: Any, first: Tensor, at: tuple[int, ...]) -> list[Tensor]:
    """|E - E0| "batch" after these numbers of steps."""
    rods = Rods()
    kept = [step for index, step in enumerate(islice(outputs, at[-1]), 1) if index in at]
    return [(rods.energy(step.double()) - rods.energy(first.double())).abs() for step in kept]


def slow_starts(n: int) -> Tensor:
    batch = pendulum().sample(n, generator=stream(6, "rollout"), angle=math.pi / 2, velocity=0.9)
    assert isinstance(batch.inputs, Tensor)
    return batch.inputs


def test_the_energy_of_the_shipped_law_stays_and_that_of_runge_kutta_leaves(shipped: Cassette) -> None:
    first = slow_starts(32)
    early, late = energies(shipped.rollout(first, 400), first, (50, 400))
    assert float(late.median()) < 1e-5
    assert float(late.median()) < 3 * float(early.median())
    rough = with_weights(shipped, shipped.tensors, integrator="rk4")
    early, late = energies(rough.rollout(first, 400), first, (50, 400))
    assert float(late.median()) > 3 * float(early.median())


def test_the_generic_network_leaves_the_energy_surface(generic: Cassette) -> None:
    first = slow_starts(32)
    (moved,) = energies(generic.rollout(first.float(), 100), first, (100,))
    assert float(moved.median()) > 0.1


@pytest.mark.parametrize("integrator", ["gauss-legendre-4", "rk4"])
def test_a_rollout_is_what_feeding_back_gives(shipped: Cassette, integrator: str) -> None:
    cassette = with_weights(shipped, shipped.tensors, integrator=integrator)
    state = states(20)
    for rolled in cassette.rollout(states(20), 10):
        state = cassette(state)
        assert float((rolled - state).abs().max()) < 1e-12


def test_a_rollout_of_single_precision_inputs_has_their_dtype_and_is_computed_in_double(shipped: Cassette) -> None:
    first = states(20).float()
    outputs = list(shipped.rollout(first, 5))
    assert {output.dtype for output in outputs} == {torch.float32}
    assert len({output.data_ptr() for output in outputs}) == 5
    exact = list(shipped.rollout(first.double(), 5))[-1]
    assert torch.equal(outputs[-1], exact.float())


# -- angles, and inputs that are refused -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["pendulum", "pendulum-mlp"])
def test_whole_turns_are_set_aside_and_added_again(name: str) -> None:
    cassette, state = load(name), states(50)
    turned = state.clone()
    turned[:, 0] += 6 * math.pi
    turned[:, 1] -= 10 * math.pi
    difference = cassette(turned) - cassette(state)
    assert torch.allclose(difference[:, 0], torch.full((50,), 6 * math.pi).double(), atol=1e-11)
    assert torch.allclose(difference[:, 1], torch.full((50,), -10 * math.pi).double(), atol=1e-11)
    assert float(difference[:, 2:].abs().max()) < 1e-11
    assert "wrapped" in cassette.manifest.certificate.domain


def test_the_published_network_is_not_wrapped_and_says_so() -> None:
    module = host().architecture("grokkit_pendulum/published").build({"width": 16}).double().requires_grad_(False)
    state = states(10)
    turned = state + torch.tensor([2 * math.pi, 0, 0, 0])
    assert float((module(turned) - module(state))[:, 2:].abs().max()) > 1e-3


def test_numbers_that_are_not_finite_are_refused(shipped: Cassette) -> None:
    with pytest.raises(Incompatible, match="state"):
        shipped(torch.tensor([[math.nan, 0, 0, 0]], dtype=torch.float64))


def test_a_state_that_turns_too_far_in_a_step_is_refused_unless_forced(shipped: Cassette) -> None:
    fast = torch.tensor([[0.1, 0.2, 30.0, 0.0]], dtype=torch.float64)
    with pytest.raises(Incompatible, match="30 rad/s"):
        shipped(fast)
    assert bool(torch.isfinite(shipped.predict(fast, force=True)).all())
    assert bool(torch.isfinite(with_weights(shipped, shipped.tensors, step=0.01)(fast)).all())


def test_the_order_of_the_state_stands_in_its_unit_and_another_one_is_noticed(shipped: Cassette) -> None:
    from grokkit_core.tensors import Signature, TensorSpec, differences

    (spec,) = shipped.signature.inputs
    assert spec.unit == "theta1 rad, theta2 rad, omega1 rad/s, omega2 rad/s"
    swapped = TensorSpec("state", spec.axes, spec.dtypes, "theta1 rad, omega1 rad/s, theta2 rad, omega2 rad/s")
    other = Signature([swapped], shipped.signature.outputs)
    assert any("unit" in text for text in differences(shipped.signature, other))
    with pytest.raises(Incompatible, match="4"):
        shipped(states(7).T.contiguous())


def test_a_pendulum_does_not_compose_with_another_task_of_the_same_shape(shipped: Cassette, library: Path) -> None:
    with pytest.raises(Incompatible):
        gk.compose("pendulum", "cyclotron", library=library)


# -- transfer ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "target", [{"dt": 0.04}, {"m1": 2.0, "m2": 0.5}, {"l1": 0.7, "l2": 1.3, "g": 1.62, "dt": 0.01}]
)
def test_other_constants_need_no_training(shipped: Cassette, library: Path, target: dict[str, float]) -> None:
    made = gk.grow(shipped, target, library=library).cassette
    assert made.manifest.task.parameters == {**shipped.manifest.task.parameters, **target}
    certificate = made.manifest.certificate
    assert certificate.verdict == "exact"
    assert certificate.metrics[0].value < min(1e-11, *(baseline.value for baseline in certificate.baselines))


def test_coefficients_that_merely_fit_serve_another_step_and_no_other_pendulum(
    shipped: Cassette, library: Path
) -> None:
    fitted = with_weights(shipped, raw(0), snapped=False)
    made = gk.grow(fitted, {"dt": 0.01}, library=library).cassette
    assert made.manifest.certificate.metrics[0].value < 1e-11
    with pytest.raises(Incompatible, match="m2"):
        gk.grow(fitted, {"m2": 2.0}, library=library)
    claimed = with_weights(shipped, spoiled("potential", 0, -0.99))
    with pytest.raises(Incompatible, match="not those of the law"):
        gk.grow(claimed, {"m2": 2.0}, library=library)


def test_a_step_beyond_the_range_of_the_oracle_is_refused(shipped: Cassette, library: Path) -> None:
    with pytest.raises(UsageError, match=r"from 0\.0001 to 0\.1"):
        gk.grow(shipped, {"dt": 0.5}, library=library)


def test_a_network_of_one_time_step_has_no_other(generic: Cassette, library: Path) -> None:
    with pytest.raises(Incompatible, match="no constants"):
        gk.grow(generic, {"dt": 0.01}, operator="change-constants", library=library)


def test_weights_that_are_no_short_decimals_contradict_a_snapped_config(shipped: Cassette) -> None:
    architecture = host().architecture("grokkit_pendulum/lagrangian")
    architecture.check_tensors(shipped.manifest.architecture.config, shipped.tensors)
    with pytest.raises(BadWeights, match="potential"):
        architecture.check_tensors(shipped.manifest.architecture.config, spoiled("potential", 3, 1 / 3))


def surgery(tensors: Mapping[str, Tensor], width: int, generator: torch.Generator) -> dict[str, Tensor]:
    """The published growth: small copies of the hidden units, new output columns left random."""

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    def orthogonal(rows: int, columns: int) -> Tensor:
        return torch.linalg.qr(random(max(rows, columns), max(rows, columns)))[0][:rows, :columns]

    first, second, last = (tensors[f"layers.{index}.weight"].float() for index in (0, 2, 4))
    base = len(first)
    new = width - base
    block = torch.zeros(width, width)
    block[:base, :base], block[base:, base:] = second, 0.01 * torch.eye(new)
    block[:base, base:], block[base:, :base] = 0.1 * orthogonal(base, new), 0.1 * orthogonal(new, base)
    return {
        **tensors,
        "layers.0.weight": torch.cat((first, 0.01 * orthogonal(new, base) @ first)),
        "layers.0.bias": torch.cat((tensors["layers.0.bias"].float(), 0.01 * random(new))),
        "layers.2.weight": block,
        "layers.2.bias": torch.cat((tensors["layers.2.bias"].float(), 0.01 * random(new))),
        "layers.4.weight": torch.cat((last, 0.1 * random(4, new)), 1),
    }


def test_growth_keeps_the_generic_network_and_the_published_surgery_does_not(generic: Cassette, library: Path) -> None:
    state = states(500).float()
    before = generic(state)
    for operator, options, bound in (("zero-pad", {}, 0.0), ("zero-pad", {"dense": True}, 1e-6), ("widen", {}, 1e-5)):
        grown = gk.grow(generic, {"width": 256}, operator=operator, library=library, **options).cassette
        assert float((grown(state) - before).abs().max()) <= bound
    wrong = with_weights(generic, surgery(generic.tensors, 256, stream(0, "surgery")), width=256)
    assert float((wrong(state) - before).abs().max()) > 1e-2


# -- the published protocol --------------------------------------------------------------------------------------------


def test_published_pairs_have_no_time_step() -> None:
    from grokkit_pendulum.published import published_pairs

    batch = published_pairs(pendulum()).sample(60, generator=stream(0, "published"))
    assert isinstance(batch.inputs, Tensor)
    field = Rods().field(batch.inputs.T)
    times = ((batch.targets - batch.inputs)[:, 0] / field[0])[batch.inputs[:, 2].abs() > 0.5]
    assert float(times.min()) > 0
    assert float(times.max()) < 0.05
    assert float(times.max()) > 5 * float(times.min())


def test_the_published_recipe_is_resumed_to_the_bit() -> None:
    whole = start(0, recipe="published", states=100, epochs=12)
    finish(whole)
    run, other = (start(0, recipe="published", states=100, epochs=12) for _ in range(2))
    for _ in range(5):
        run.step()
    state = run.state()
    other.restore(State(state.tensors, json.loads(json.dumps(dict(state.values)))))
    finish(other)
    left, right = whole.result()[0].state_dict(), other.result()[0].state_dict()
    assert all(torch.equal(tensor, right[name]) for name, tensor in left.items())


def test_a_replica_that_barely_trained_is_flagged_as_worse_than_persistence(library: Path) -> None:
    settings = {"states": 60, "epochs": 20}
    (made,) = gk.train("pendulum", recipe="published", settings=settings, library=library)
    statement = made.cassette.manifest.certificate.statement
    assert "WORSE than persistence (2 of 2)" in statement
    assert "time step undefined" in statement


# -- the command line --------------------------------------------------------------------------------------------------


def test_a_rollout_reports_drift_and_lyapunov_time(cli: Callable[..., Any], tmp_path: Path) -> None:
    source = tmp_path / "state.json"
    source.write_text("[[3.0, 3.0, 1.0, 1.0]]")
    done = cli("run", "pendulum", "--input", source, "--steps", 3, "--json")
    assert set(done.json["drift"]) == {"energy"}
    assert done.json["drift"]["energy"] < 1e-6
    horizon = done.json["horizon"]
    assert horizon["lyapunov_time_steps"] == pytest.approx(horizon["lyapunov_time_seconds"] / 0.02)
    assert 0.3 < horizon["lyapunov_time_seconds"] < 3
    assert "lyapunov time seconds" in cli("run", "pendulum", "--input", source, "--steps", 3).err
    assert cli("run", "pendulum", "--input", source, "--json").json["horizon"] is None


def test_show_prints_the_law(cli: Callable[..., Any]) -> None:
    assert "V = -19.62 cos(theta1) - 9.81 cos(theta2)" in cli("show", "pendulum").out
