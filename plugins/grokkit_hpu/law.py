"""The law: i du/dt = H u with H = -laplacian/2 + V on the torus, and one step of length dt of its unitary flow.

Variant `free` has V = 0 and an exact solution by phases. Variant `potential` has a fixed real V of 49 modes; its oracle is
a split step of order four with 16 substeps, checked against the independent Galerkin matrix of `galerkin`. Variant
`published` is the law of HPU-Core as it is: a renormalised Euler step of the heat flow on real white noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from grokkit_core.dtypes import cast
from grokkit_core.errors import UsageError
from grokkit_core.specs import TaskSpec
from grokkit_core.task import Batch, Inputs, Place, Predictor, Task, tensors_of
from grokkit_hpu.fourier import (
    band_squares,
    drawn,
    embedded,
    multiple_above,
    on_grid,
    resolves,
    smallest_grid,
    squared_wavenumbers,
    values,
)
from grokkit_hpu.split_step import factors

if TYPE_CHECKING:
    from grokkit_core.cassette import Cassette
    from grokkit_core.manifest import Certificate, Level

BAND = 5
"""Largest |kx|, |ky| of the input fields unless a sampler setting says otherwise."""

TIME_STEPS = {"free": 0.01, "potential": 0.05, "published": 0.01}
"""Default `dt` by variant."""

POTENTIAL_BAND, POTENTIAL_SEED, POTENTIAL_RMS = 3, 7, 2.0
ORACLE_ORDER, ORACLE_SUBSTEPS, ORACLE_GRID = 4, 16, 64
"""The split step of the oracle; coarser fields are refined to its grid first. Its error over the band is below 1.3e-8."""

COARSE = 16
"""Grid of the baseline that knows the law and runs it too coarsely."""

EVALUATION: Mapping[str, tuple[Place, ...]] = {
    "free": ({"grid": 16}, {"grid": 32}, {"grid": 64}, {"grid": 128}),
    "potential": ({"grid": 32}, {"grid": 64}, {"grid": 128}, {"grid": 256}),
    "published": ({"grid": 16}, {"grid": 32}, {"grid": 64}, {"grid": 128}),
}
SAMPLES: Mapping[Level, int] = {"full": 64, "quick": 16}

LARGE = 256
"""Points along an axis from which on a row is measured on fewer fields, of the same memory together."""


class Propagator(Task):
    """Inputs and targets `field` "batch grid grid", complex; on every grid that resolves them."""

    def __init__(self, spec: TaskSpec, **parameters: Any) -> None:
        super().__init__(spec, **parameters)
        self.variant = str(self.parameters["variant"])
        self.parameters["dt"] = float(self.parameters["dt"]) or TIME_STEPS[self.variant]
        self.evaluation = EVALUATION[self.variant]

    @property
    def dt(self) -> float:
        """The time step [1]."""
        return float(self.parameters["dt"])

    def sample(self, n: int, *, generator: torch.Generator, **where: Any) -> Batch:
        """`n` fields of norm one with what they become.

        Settings: `grid` (points along an axis), `band` (largest wavenumber, 5), `decay` (0: white; p: (1 + |k|^2)^(-p/2)),
        `steps` (1) and, for one step of another length, `dt`. Raises `UsageError` for others and for grids too coarse.
        """
        if self.variant == "published":
            from grokkit_hpu.published import heat_fields

            return heat_fields(n, self.dt, generator, **where)
        settings = {"grid": self.evaluation[0]["grid"], "band": BAND, "decay": 0.0, "steps": 1, "dt": self.dt, **where}
        if unknown := set(settings) - {"grid", "band", "decay", "steps", "dt"}:
            raise UsageError(f"sampler setting '{min(unknown)}'", expected="grid, band, decay, steps or dt")
        grid, band = int(settings["grid"]), int(settings["band"])
        if not resolves(grid, band):
            raise UsageError(
                f"grid = {grid} for modes up to {band}",
                expected=f"at least {smallest_grid(band)}, {smallest_grid(band) + 1} if even",
            )
        table = drawn(n, band, generator, float(settings["decay"]))
        evolve = self._free if self.variant == "free" else self._potential
        return Batch(values(table, grid), evolve(table, grid, float(settings["dt"]), int(settings["steps"])))

    def _free(self, table: Tensor, grid: int, dt: float, steps: int) -> Tensor:
        return values(table * _phases(band_squares(table.shape[-1] // 2), dt * steps), grid)

    def _potential(self, table: Tensor, grid: int, dt: float, steps: int) -> Tensor:
        """Solved on a grid of at least 64 points that holds the points of the wanted one, or interpolated from 64."""
        fine = ORACLE_GRID if grid > ORACLE_GRID and grid % 2 == 0 else multiple_above(grid, ORACLE_GRID)
        field = split_step(values(table, fine), dt, steps)
        return on_grid(field, grid) if fine < grid else field[..., :: fine // grid, :: fine // grid]

    def oracle(self, inputs: Inputs, context: Mapping[str, Tensor]) -> Tensor:
        """One exact step in complex128, "batch grid grid"."""
        (field,) = tensors_of(inputs)
        field = cast(field, torch.float64)
        if self.variant == "published":
            from grokkit_hpu.published import heat_step

            return heat_step(field, self.dt)
        if self.variant == "free":
            squares = squared_wavenumbers(field.shape[-1], field.device)
            result: Tensor = torch.fft.ifft2(torch.fft.fft2(field) * _phases(squares, self.dt))
            return result
        grid = field.shape[-1]
        fine = multiple_above(grid, ORACLE_GRID)
        return split_step(on_grid(field, fine), self.dt)[..., :: fine // grid, :: fine // grid]

    def error(self, prediction: Tensor, target: Tensor) -> Tensor:
        """The relative L2 error of each field: "batch"."""
        wanted = cast(target, torch.float64)
        return _norm(cast(prediction, torch.float64) - wanted) / _norm(wanted)

    def baselines(self, calibration: Batch) -> Mapping[str, Predictor]:
        """Zero, identity, an untrained network, a wrong integrator; for `potential` also the law on a coarse grid."""
        found: dict[str, Predictor] = {
            "zero": lambda inputs, context: torch.zeros_like(tensors_of(inputs)[0]),
            "identity": lambda inputs, context: tensors_of(inputs)[0],
            "untrained": partial(_untrained, self.variant, self.dt),
        }
        if self.variant == "free":
            found["euler"] = partial(_euler, self.dt)
        if self.variant == "potential":
            found["kinetic-only"] = partial(_kinetic_only, self.dt)
            found["coarse-grid"] = partial(_coarse, self.dt)
        return found

    def advance(self, inputs: Inputs, outputs: Tensor) -> Tensor:
        """The field is the whole state."""
        return outputs

    def invariants(self, state: Tensor, context: Mapping[str, Tensor] | None = None) -> Mapping[str, Tensor]:
        """Norm (root mean square) and energy <u, H u> of fields "batch grid grid"."""
        if self.variant == "published":
            return {"norm": _norm(state)}
        grid = state.shape[-1]
        spectrum = torch.fft.fft2(state, norm="forward").abs().square()
        energy = (spectrum * squared_wavenumbers(grid, state.device) / 2).sum((-2, -1))
        if self.variant == "potential":
            energy = energy + (potential_on(grid, state.device) * state.abs().square()).mean((-2, -1))
        return {"norm": spectrum.sum((-2, -1)).sqrt(), "energy": energy}

    def test_samples(self, level: Level, where: Place) -> int:
        """64 fields, a quarter of them at level quick; more of the published noise, fewer where a field is large."""
        if self.variant == "published":
            return 16 * SAMPLES[level]
        fewer = (int(where.get("grid", LARGE)) / LARGE) ** 2
        return max(min(4, SAMPLES[level]), int(SAMPLES[level] / max(1.0, fewer)))

    def certify(self, cassette: Cassette, *, level: Level, seed: int) -> Certificate:
        """The operator norm of the error over the band where the network has a bound, else sampled."""
        from grokkit_hpu.certify import certify_propagator

        return certify_propagator(self, cassette, level=level, seed=seed)


def _phases(squares: Tensor, time: float) -> Tensor:
    """The exact factors exp(-i |k|^2 t / 2)."""
    return torch.polar(torch.ones_like(squares), squares * (-time / 2))


def _norm(field: Tensor) -> Tensor:
    return field.abs().square().mean((-2, -1)).sqrt()


@cache
def potential_table() -> Tensor:
    """The coefficients "7 7" of V: normal numbers (seed 7) made Hermitian, over 1 + |k|^2, scaled to RMS 2."""
    generator = torch.Generator().manual_seed(POTENTIAL_SEED)
    size = 2 * POTENTIAL_BAND + 1
    real = torch.randn(size, size, generator=generator, dtype=torch.float64)
    table = hermitian(torch.complex(real, torch.randn(size, size, generator=generator, dtype=torch.float64)))
    table = table / (1 + band_squares(POTENTIAL_BAND))
    return table * (POTENTIAL_RMS / table.abs().square().sum().sqrt())


def hermitian(table: Tensor) -> Tensor:
    """The table of a real function that is nearest: (c + conj c(-k)) / 2."""
    return (table + table.flip(-2, -1).conj()) / 2


def potential_on(grid: int, device: torch.device | str = "cpu") -> Tensor:
    """V on a grid, "grid grid", float64."""
    result: Tensor = torch.fft.ifft2(embedded(potential_table().to(device), grid), norm="forward").real
    return result


def split_step(field: Tensor, dt: float, steps: int = 1) -> Tensor:
    """The oracle's integrator on a field's own grid, complex128."""
    step = factors(
        potential_on(field.shape[-1], field.device),
        0.5,
        dt,
        order=ORACLE_ORDER,
        substeps=ORACLE_SUBSTEPS,
        dtype=torch.complex128,
    )
    for _ in range(steps):
        field = step.advance(field)
    return field


def _untrained(variant: str, dt: float, inputs: Inputs, context: Mapping[str, Tensor]) -> Tensor:
    from grokkit_hpu.untrained import untrained

    (field,) = tensors_of(inputs)
    result: Tensor = untrained(variant, dt)(field)
    return result


def _euler(dt: float, inputs: Inputs, context: Mapping[str, Tensor]) -> Tensor:
    """1 - i dt H: not unitary, and unstable for every dt."""
    (field,) = tensors_of(inputs)
    squares = squared_wavenumbers(field.shape[-1], field.device)
    result: Tensor = torch.fft.ifft2(torch.fft.fft2(field) * (1 - 0.5j * dt * squares))
    return result


def _kinetic_only(dt: float, inputs: Inputs, context: Mapping[str, Tensor]) -> Tensor:
    (field,) = tensors_of(inputs)
    result: Tensor = torch.fft.ifft2(
        torch.fft.fft2(field) * _phases(squared_wavenumbers(field.shape[-1], field.device), dt)
    )
    return result


def _coarse(dt: float, inputs: Inputs, context: Mapping[str, Tensor]) -> Tensor:
    """The law itself on 16 x 16 points, interpolated back."""
    (field,) = tensors_of(inputs)
    coarse = on_grid(cast(field, torch.float64), COARSE)
    return on_grid(split_step(coarse, dt), field.shape[-1])
