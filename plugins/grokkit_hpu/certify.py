"""Certificates of propagators: the operator norm of the error over all inputs of a band, after one step and after many.

A diagonal network and the free law differ by a number in each mode, so the norm is the largest of them. A split-step
network mixes modes: it is applied to every mode of the band, the exact columns (a Galerkin matrix) are subtracted, and
the norm is the largest singular value. Both are attained, hold for every input of the band, and are rounded up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from grokkit_core.certify.bounds import round_up
from grokkit_core.certify.sampled import certify_sampled
from grokkit_core.manifest import Bound, Certificate, Level
from grokkit_core.task import Place
from grokkit_hpu.fourier import places, values
from grokkit_hpu.galerkin import CUTOFF, columns, truncation
from grokkit_hpu.law import BAND, Propagator
from grokkit_hpu.model import Diagonal, Dispersion, SplitStep, free_error, table_of
from grokkit_hpu.published import published_metrics

if TYPE_CHECKING:
    from grokkit_core.cassette import Cassette

MANY = 100
"""Steps of the second bound."""

LARGEST_BOUND = 1e-2
"""A bound above this proves too little to be called one (identity has 0.13 and 0.6); the certificate is then sampled."""

EVALUATION_ROUNDING = 1e-15
"""Allowed for evaluating exp(i theta) in complex128, once a step: a few units in the last place."""

FINER = 64
"""The second grid on which a split-step network is bounded."""

Bounds = Mapping[str, float]


def certify_propagator(task: Propagator, cassette: Cassette, *, level: Level, seed: int) -> Certificate:
    """`bounded` by operator norms where the network is one of the propagators and they prove something, else sampled."""
    band = int(cassette.manifest.architecture.config.get("band", BAND))
    own = _grids(task, band) if band != BAND and task.variant == "free" else None
    sampled = certify_sampled(task, cassette, level=level, seed=seed, places=own)
    if task.variant == "published":
        metrics, baselines = published_metrics(task, cassette, n=task.test_samples(level, {}), seed=seed)
        return replace(sampled, metrics=(*sampled.metrics, *metrics), baselines=(*sampled.baselines, *baselines))
    module = cassette.to("cpu").module_for(torch.float64)
    bounds = _bounds(task, module, band)
    if not bounds or max(bounds.values()) > LARGEST_BOUND or sampled.verdict == "failed":
        return sampled
    return replace(
        sampled,
        verdict="bounded",
        method="operator-norm",
        statement=_statement(task, bounds, module) + "; sampled: " + sampled.statement,
        domain=_domain(task, module, band),
        formula=formula(module, task),
        bounds=tuple(Bound(name, round_up(value), "1") for name, value in bounds.items()),
    )


def _grids(task: Propagator, band: int) -> list[Place]:
    """The rows of the evaluation whose grids hold the band; where none does, the smallest even grid that does."""
    grids = [int(where["grid"]) for where in task.evaluation]
    return [{"grid": grid, "band": band} for grid in grids if grid > 2 * band + 1] or [
        {"grid": 2 * band + 2, "band": band}
    ]


def _bounds(task: Propagator, module: nn.Module, band: int) -> Bounds:
    """The bounds by name; none for other networks and laws."""
    if isinstance(module, Diagonal) and task.variant == "free":
        return _free_bounds(module, task.dt, band)
    if isinstance(module, SplitStep) and task.variant == "potential":
        return _potential_bounds(module, task.dt, band)
    return {}


def _free_bounds(module: Diagonal, dt: float, band: int) -> Bounds:
    """Of the multipliers that the runtime uses, in complex128 and cast to complex64."""
    found = {}
    for suffix, dtype in (("", torch.complex128), ("_complex64", torch.complex64)):
        squares, used = table_of(module, band, dtype)
        for steps in (1, MANY):
            worst = float(free_error(squares, used, dt, steps).max())
            found[f"E_{steps}{suffix}"] = worst + EVALUATION_ROUNDING * steps
        found[f"unitarity_defect{suffix}"] = float((used.to(torch.complex128).abs() - 1).abs().max())
    return found


def _potential_bounds(module: SplitStep, dt: float, band: int) -> Bounds:
    """On the coarsest grid and on 64 points; also for half and twice the time step, with the same weights."""
    found = {
        "E_1": error_norm(module, module.n_min, dt, band, 1),
        f"E_1_grid_{FINER}": error_norm(module, FINER, dt, band, 1),
        f"E_{MANY}": error_norm(module, module.n_min, dt, band, MANY),
    }
    for name, factor in (("half", 0.5), ("double", 2.0)):
        found[f"E_1_{name}_dt"] = error_norm(with_time_step(module, factor * dt), FINER, factor * dt, band, 1)
    return found


def with_time_step(module: SplitStep, dt: float) -> SplitStep:
    """The same potential and slope with another time step."""
    config = {"dt": dt, "order": module.order, "substeps": module.substeps, "n_min": module.n_min}
    other = SplitStep({**config, "potential_band": module.potential_band})
    other.load_state_dict(module.state_dict())
    return other.requires_grad_(False)


def error_norm(
    module: SplitStep, grid: int, dt: float, band: int, steps: int, *, dtype: torch.dtype = torch.complex128
) -> float:
    """The operator norm of (network - exact flow) on fields of the band, on one grid after some steps.

    An upper limit up to the rounding of float64: what the exact matrix leaves out is added.
    """
    difference = columns(band, dt * steps) * -1
    made = network_columns(module, grid, band, steps, dtype=dtype)
    reach = min(CUTOFF, (grid - 1) // 2)
    rows, across = places(reach, grid)
    size = 2 * CUTOFF + 1
    inner = slice(CUTOFF - reach, CUTOFF + reach + 1)
    table = difference.T.reshape(-1, size, size)
    table[:, inner, inner] += made[:, rows, across]
    made[:, rows, across] = 0
    whole = torch.cat((table.reshape(len(table), -1), made.reshape(len(made), -1)), 1)
    return float(torch.linalg.matrix_norm(whole, ord=2)) + truncation(band, dt * steps)


def network_columns(module: SplitStep, grid: int, band: int, steps: int, *, dtype: torch.dtype) -> Tensor:
    """What the network makes of every mode of the band: transforms "(2 band + 1)^2 grid grid", complex128."""
    count = (2 * band + 1) ** 2
    table = torch.eye(count, dtype=torch.complex128).reshape(count, 2 * band + 1, 2 * band + 1)
    field = values(table, grid).to(dtype)
    with torch.inference_mode():
        stepper = module.steps(field)
        for _ in range(steps):
            field = next(stepper)
    result: Tensor = torch.fft.fft2(field.to(torch.complex128), norm="forward").clone()
    return result


def _statement(task: Propagator, bounds: Bounds, module: nn.Module) -> str:
    one, many = round_up(bounds["E_1"]), round_up(bounds[f"E_{MANY}"])
    where = (
        f"on {module.n_min} points along an axis" if isinstance(module, SplitStep) else "on every grid that holds it"
    )
    kept = "norm and inner products are kept" + (
        " on the band" if not isinstance(module, (SplitStep, Dispersion)) else ""
    )
    return (
        f"relative L2 error <= {one:.2g} after one step and <= {many:.2g} after {MANY}, for every field of the band, "
        f"{where}; unitary by construction: {kept}"
    )


def _domain(task: Propagator, module: nn.Module, band: int) -> str:
    text = f"every complex field of |kx|, |ky| <= {band} on the torus, dt = {task.dt:g}"
    if isinstance(module, SplitStep):
        return f"{text}, on {module.n_min} and {FINER} points along an axis, up to the rounding of float64"
    return f"{text}, in exact arithmetic on the stored multipliers"


def formula(module: nn.Module, task: Propagator) -> tuple[str, ...]:
    """What the network computes, as `grokkit show` prints it."""
    if isinstance(module, Dispersion):
        a = [float(number) for number in module.coefficients.double()]
        return (f"c_k -> exp(i theta) c_k, theta = {a[0]:.3g} + {a[1]:.10g} q + {a[2]:.3g} q^2, q = |k|^2 / 64",)
    if isinstance(module, Diagonal):
        return (f"c_k -> exp(i theta_k) c_k, fitted: theta_k = -|k|^2 {task.dt:g} / 2",)
    assert isinstance(module, SplitStep)
    real = torch.view_as_real(module.symmetric())
    return (
        f"i du/dt = (-m laplacian + V) u, m = {float(module.slope.double()):.8f}",
        f"V = sum of {real.shape[0] * real.shape[1]} modes, rms {float(real.square().sum().sqrt()):.6f}, mean {float(real[len(real) // 2, len(real) // 2, 0]):.6f}",
    )
