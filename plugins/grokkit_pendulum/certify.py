"""What is known of pendulum networks: the law as symbols where it was identified, else figures on samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from grokkit_core.certify.algebraic import Identity, as_integers, certify_identity, integers
from grokkit_core.certify.sampled import MODEL, certificate_of, certify_sampled
from grokkit_core.certify.scores import CONFIDENCE, Z, figure, measure
from grokkit_core.jacobian import rowwise_jacobian
from grokkit_core.manifest import Certificate, Level, Metric
from grokkit_core.streams import stream
from grokkit_core.task import Place, tensors_of
from grokkit_pendulum.lagrangian import LAW, LagrangianFlow, is_law
from grokkit_pendulum.law import FASTEST, Pendulum
from grokkit_pendulum.published import published_pairs
from grokkit_pendulum.symplectic import SymplecticNet

if TYPE_CHECKING:
    from grokkit_core.cassette import Cassette

STARTS, ROLLED = 256, 100
"""States and steps of the rollouts behind the energy drift."""

START_ANGLE, START_VELOCITY = math.pi / 2, 0.9
"""Rollouts begin below the pivot [rad] and slowly [rad/s]."""

DEFECT_STATES = 20
FIELD_STATES = 1_000
USEFUL = 1e-8
"""A map with a larger MSE is not called exact, though its vector field may be."""

CONVERGED = 1e-13
"""A larger change of a stage value means that the implicit equations are not solved."""

PUBLISHED_PAIRS: Mapping[Level, int] = {"full": 1_800, "quick": 600}
POTENTIAL = (
    *("cos(theta1)", "sin(theta1)", "cos(2 theta1)", "cos(theta2)", "sin(theta2)", "cos(2 theta2)"),
    *("cos(d)", "sin(theta1 + theta2)"),
)
"""The terms of the potential."""

WRAPPING = tuple(f"grokkit_pendulum/{name}" for name in ("lagrangian", "symplectic", "mlp"))
WRAPPED = "angles outside one turn are wrapped and their whole turns added back"


def certify_pendulum(task: Pendulum, cassette: Cassette, *, level: Level, seed: int) -> Certificate:
    """Sampled figures for every network; for an identified law the proof that its vector field is right."""
    inner, *_ = cassette.architecture.innermost(cassette.manifest.architecture.config, cassette.tensors)
    identifier = inner.spec.id
    if identifier == "grokkit_pendulum/published":
        return _certify_published(task, cassette, level, seed)
    sampled = certify_sampled(task, cassette, level=level, seed=seed)
    if sampled.verdict == "failed":
        return sampled
    extra = [*_energy_drift(task, cassette, seed)]
    box = f"|theta| <= pi, |omega| <= {FASTEST:g} rad/s, dt = {task.dt:g} s"
    domain = f"samples with {box}" + (f"; {WRAPPED}" if identifier in WRAPPING else "")
    if identifier == "grokkit_pendulum/symplectic":
        extra.append(_symplectic_defect(task, cassette, seed))
    sampled = replace(sampled, domain=domain, metrics=(*sampled.metrics, *extra))
    if identifier == "grokkit_pendulum/lagrangian":
        return _certify_lagrangian(task, cassette, sampled, seed)
    return sampled


def _certify_lagrangian(task: Pendulum, cassette: Cassette, sampled: Certificate, seed: int) -> Certificate:
    """`exact` for the vector field where the coefficients are the law's, with the figures of the map beside it."""
    module = _module(cassette)
    assert isinstance(module, LagrangianFlow)
    more = [_field_error(task, module, seed)]
    if module.symplectic:
        more += [_symplectic_defect(task, cassette, seed), _stage_change(task, module, seed)]
    metrics = (*sampled.metrics, *more)
    formula = formula_of(module)
    if reason := _unproved(task, cassette, replace(sampled, metrics=metrics)):
        return replace(sampled, statement=f"{sampled.statement}; {reason}", metrics=metrics, formula=formula)
    proof = Identity(
        as_integers(torch.cat([cassette.tensors[name] for name in LAW])),
        integers([int(value) for values in LAW.values() for value in values]),
        f"the vector field is the law's: all 19 coefficients equal; the map is the integrator's, sampled: {sampled.statement}",
        f"the vector field at every state; the map on {sampled.domain}",
        formula,
    )
    return certify_identity(
        proof,
        level=sampled.level,
        seed=sampled.seed,
        dtype=sampled.dtype,
        metrics=metrics,
        baselines=sampled.baselines,
    )


def _unproved(task: Pendulum, cassette: Cassette, measured: Certificate) -> str:
    """Why a cassette is not called exact, or nothing: another law, or an integrator that does not do it justice."""
    if not is_law(cassette.tensors):
        return "its coefficients are not those of the law, so nothing is proved"
    if any(metric.name == "stage_change" and not metric.value <= CONVERGED for metric in measured.metrics):
        return "the coefficients are the law's, but stages are NOT solved: the integrator's step is too long"
    best = min(baseline.value for baseline in measured.baselines)
    if measured.metrics[0].value > max(min(best, USEFUL), task.spec.floor):
        return "the coefficients are the law's, but the integrator's step is too long"
    return ""


def _certify_published(task: Pendulum, cassette: Cassette, level: Level, seed: int) -> Certificate:
    """The declared time step, and beside it the published kind of data, whose time step is undefined."""
    predictors = {MODEL: lambda inputs, context: cassette.predict(inputs, context, force=True)}
    rows: Sequence[tuple[Pendulum, Place, int]] = (
        (task, {}, task.test_samples(level, {})),
        (published_pairs(task), {"data": "published"}, PUBLISHED_PAIRS[level]),
    )
    scores = [
        measure(law, predictors, row, n=n, seed=seed, dtype=cassette.dtype, device=cassette.device, where=where)
        for row, (law, where, n) in enumerate(rows)
    ]
    found = certificate_of(task, scores, level=level, seed=seed, dtype=str(cassette.dtype).removeprefix("torch."))
    note = "time step undefined in the published data; angles are not wrapped"
    return replace(found, statement=f"{found.statement}; {note}")


def _module(cassette: Cassette) -> nn.Module:
    """The network in float64, in which symplectic claims are made."""
    return cassette.to("cpu").module_for(torch.float64)


def _energy_drift(task: Pendulum, cassette: Cassette, seed: int) -> Sequence[Metric]:
    """The median change of the energy over 100 steps; nothing where half of the rollouts leave the finite numbers."""
    batch = task.sample(STARTS, generator=stream(seed, "rollout"), angle=START_ANGLE, velocity=START_VELOCITY)
    states = tensors_of(batch.to(cassette.dtype, cassette.device).inputs)[0]
    last = next(islice(cassette.rollout(states, ROLLED, force=True), ROLLED - 1, None)).cpu().double()
    moved = (task.rods.energy(last) - task.rods.energy(states.cpu().double())).abs()
    ordered = torch.nan_to_num(moved, nan=math.inf).sort().values
    middle, spread = STARTS // 2, math.isqrt(STARTS)
    if not math.isfinite(ordered[middle + spread]):
        return ()
    stderr = float(ordered[middle + spread] - ordered[middle - spread]) / 4  # two standard errors of the rank each way
    return (_metric(f"energy_drift_{ROLLED}_steps", float(ordered[middle]), "J", stderr, STARTS),)


def _field_error(task: Pendulum, module: LagrangianFlow, seed: int) -> Metric:
    """The mean relative error of the accelerations that the coefficients give."""
    states = tensors_of(task.sample(FIELD_STATES, generator=stream(seed, "field")).inputs)[0].T.contiguous()
    true = task.rods.field(states)[2:]
    with torch.inference_mode():
        error = (module.law().field(states)[2:] - true).norm(dim=0) / true.norm(dim=0).square().mean().sqrt()
    found = figure(error)
    return _metric("vector_field_error", found.value, "1", found.stderr, FIELD_STATES)


def _symplectic_defect(task: Pendulum, cassette: Cassette, seed: int) -> Metric:
    """The largest entry of J' Omega J - Omega in canonical variables, in float64, at 20 states."""
    module = _module(cassette)
    assert isinstance(module, (LagrangianFlow, SymplecticNet))
    states = tensors_of(task.sample(DEFECT_STATES, generator=stream(seed, "defect")).inputs)[0]
    value = symplectic_defect(module.canonical_step, task.rods.momenta(states.T.contiguous()))
    return _metric("symplectic_defect", value, "1", value, DEFECT_STATES)


def symplectic_defect(step: Callable[[Tensor], Tensor], canonical: Tensor) -> float:
    """The largest entry of J' Omega J - Omega of a map of (a, b, p1, p2) "4 batch" at these states."""
    jacobian = rowwise_jacobian(lambda rows: step(rows.T).T, canonical.T)
    omega = torch.zeros(4, 4, dtype=jacobian.dtype)
    omega[0, 2] = omega[1, 3] = 1.0
    omega = omega - omega.T
    return float((jacobian.mT @ omega @ jacobian - omega).abs().max())


def _stage_change(task: Pendulum, module: LagrangianFlow, seed: int) -> Metric:
    """How far one more fixed-point iteration would move a stage value, at most, in float64."""
    states = tensors_of(task.sample(FIELD_STATES, generator=stream(seed, "field")).inputs)[0]
    with torch.inference_mode():
        value = module.unsolved(task.rods.momenta(states.T.contiguous()))
    return _metric("stage_change", value, "1", value, FIELD_STATES)


def _metric(name: str, value: float, unit: str, stderr: float, n: int) -> Metric:
    return Metric(name, value, unit, stderr, (value - Z * stderr, value + Z * stderr), CONFIDENCE, n, {})


def formula_of(module: LagrangianFlow) -> tuple[str, ...]:
    """The identified Lagrangian in words [J], with the numbers of its rods."""
    scales, weights = module.rods.inertia, module.rods.weight
    upper, mixed, lower = (module.get_parameter(name).tolist() for name in ("upper", "mixed", "lower"))
    v = module.get_parameter("potential").tolist()
    waves = ("", "cos(d)", "sin(d)", "cos(2 d)")
    kinetic = " + ".join(
        _factor([factor * scale * c for c in coefficients], waves) + square
        for factor, scale, coefficients, square in (
            (0.5, scales[0], upper, "omega1^2"),
            (1.0, scales[1], mixed, "omega1 omega2"),
            (0.5, scales[2], [1.0, *lower], "omega2^2"),
        )
    )
    potential = _combination([(weights[0] if i < 3 else weights[1]) * c for i, c in enumerate(v)], POTENTIAL)
    method = "Gauss-Legendre of order 4 in canonical variables" if module.symplectic else "classical Runge-Kutta"
    return (
        "L = T - V, d = theta1 - theta2",
        f"T = {kinetic}",
        f"V = {potential}",
        f"state after {module.dt:g} s: {method}, {_steps(module.count)}; {WRAPPED}",
    )


def _steps(count: int) -> str:
    return "one step" if count == 1 else f"{count} steps"


def _factor(coefficients: Sequence[float], names: Sequence[str]) -> str:
    """A sum as a factor of what follows; nothing for 1."""
    found = _combination(coefficients, names)
    text = found if sum(c != 0 for c in coefficients) == 1 else f"({found})"
    return "" if text == "1" else f"{text} "


def _combination(coefficients: Sequence[float], names: Sequence[str]) -> str:
    """A sum of named terms with signs; those of coefficient 0 are left out."""
    pairs = [(c, name) for c, name in zip(coefficients, names, strict=True) if c]
    parts = [name if c == 1 and name else f"{c:.7g} {name}".strip() for c, name in pairs]
    return " + ".join(parts).replace("+ -", "- ") or "0"
