"""Propagators that are unitary by construction: a table of phases, a dispersion relation, and a split-step integrator.

The model classes contain the exact solution. What they show is that the exact structure is found and carries over to
every grid; they are no argument that small networks do this in general.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from grokkit_core.architecture import Architecture
from grokkit_core.errors import Incompatible, UsageError
from grokkit_core.specs import Field
from grokkit_core.tensors import Signature
from grokkit_hpu.fourier import (
    band_squares,
    coefficients,
    embedded,
    of_size_one,
    outside_share,
    plane_waves,
    resolves,
    smallest_grid,
    squared_wavenumbers,
    values,
    wavenumbers,
)
from grokkit_hpu.plugin import SIGNATURE
from grokkit_hpu.split_step import Factors, factors

if TYPE_CHECKING:
    from grokkit_core.benchmark import Row
    from grokkit_core.cassette import Cassette

OUTSIDE = 1e-6
"""Share of a field's norm that may lie outside the band of a phase table: the rounding of complex64 stays below."""

EDGE = 1e-3
"""Share of a field's norm in the outermost eighth of its modes beyond which a grid does not resolve it (or it is not
periodic): a jump of size one has a share of some per cent there."""

NARROW = 5
"""A band of at most a fifth of the grid's points is summed by two matrix products, faster than by a transform."""

UNIT = 64.0
"""|k|^2 is measured in this unit by the dispersion relation, so that its coefficients are of one size."""


class Propagator(nn.Module):
    """One step of a linear flow on fields "batch grid grid", complex, for every grid that resolves them.

    What depends on a grid is computed once for it when the weights are frozen.
    """

    def __init__(self) -> None:
        super().__init__()
        self._ready: dict[tuple[int, torch.dtype, torch.device], Any] = {}

    @abstractmethod
    def prepare(self, grid: int, dtype: torch.dtype, device: torch.device) -> Any:
        """What a step on this grid needs, in the complex `dtype`."""

    @abstractmethod
    def check(self, field: Tensor, *, force: bool) -> None:
        """Raise `Incompatible` for a field on a grid too coarse for it."""

    @abstractmethod
    def steps(self, field: Tensor) -> Iterator[Tensor]:
        """The fields after one, two, three ... steps, outside autograd."""

    def prepared(self, field: Tensor) -> Any:
        """As `prepare`, for the grid of a field; kept unless the weights are being trained or the network traced."""
        if torch.compiler.is_compiling() or any(parameter.requires_grad for parameter in self.parameters()):
            return self.prepare(field.shape[-1], field.dtype, field.device)
        key = (field.shape[-1], field.dtype, field.device)
        if key not in self._ready:
            with torch.inference_mode(False):  # a tensor made there could not take part in autograd later
                self._ready[key] = self.prepare(*key)
        return self._ready[key]


class Diagonal(Propagator):
    """A propagator that multiplies each Fourier mode by a number of modulus one (or drops it)."""

    def prepare(self, grid: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        """The multiplier of each mode, "grid grid"; phases are built in float64, then cast."""
        return self.multiplier(grid).to(device, dtype)

    @abstractmethod
    def multiplier(self, grid: int) -> Tensor:
        """The multiplier of each mode, "grid grid", complex128."""

    def forward(self, field: Tensor) -> Tensor:
        """The field "batch grid grid" one step later."""
        result: Tensor = torch.fft.ifft2(torch.fft.fft2(field) * self.prepared(field))
        return result

    def steps(self, field: Tensor) -> Iterator[Tensor]:
        """One transform a step: the modes are multiplied in complex128 and never leave the Fourier side."""
        multiplier = self.multiplier(field.shape[-1]).to(field.device)
        spectrum = torch.fft.fft2(field).to(torch.complex128)
        while True:
            spectrum.mul_(multiplier)
            yield torch.fft.ifft2(spectrum.to(field.dtype))


class PhaseTable(Diagonal):
    """(2 band + 1)^2 phases theta; modes outside the band, or beyond `kept`, become zero."""

    def __init__(self, band: int, kept: int, outside: str) -> None:
        super().__init__()
        self.band, self.kept, self.outside = band, band if kept < 0 else kept, outside
        self.theta = nn.Parameter(0.1 * torch.randn(2 * band + 1, 2 * band + 1, dtype=torch.float64))

    def table(self) -> Tensor:
        """The multipliers of the band, "2K+1 2K+1", complex128."""
        angle = self.theta.double()
        modulus = (band_reach(self.band, angle.device) <= self.kept).to(torch.float64)
        return torch.polar(torch.ones_like(angle), angle) * modulus

    def multiplier(self, grid: int) -> Tensor:
        """Zero outside the band."""
        return embedded(self.table(), grid)

    def check(self, field: Tensor, *, force: bool) -> None:
        """A grid must keep the modes of the band apart, and a field may have none beyond it unless they are projected out."""
        check_grid(field.shape[-1], self.band)
        if self.outside == "refuse" and not force:
            share = float(outside_share(field, self.band).max())
            if share > OUTSIDE:
                raise Incompatible(
                    f"input 'field' has {share:.2g} of its norm in modes beyond {self.band}, which would be lost",
                    expected=f"periodic fields of |kx|, |ky| <= {self.band} (share <= {OUTSIDE:g})",
                    hint="--force projects them out; grow-modes makes a cassette of more modes",
                )

    def steps(self, field: Tensor) -> Iterator[Tensor]:
        """As in `Diagonal`, on the modes of the band alone."""
        grid, table = field.shape[-1], self.table().to(field.device)
        modes = coefficients(field, self.band).to(torch.complex128)
        waves = plane_waves(self.band, grid).to(field.device, field.dtype)
        is_narrow = NARROW * len(table) <= grid
        while True:
            modes = modes * table
            now = modes.to(field.dtype)
            yield waves @ now @ waves.T if is_narrow else values(now, grid)


class Dispersion(Diagonal):
    """Phases a0 + a1 q + a2 q^2 of q = |k|^2 / 64, for all modes of every grid: unitary on the whole of it."""

    def __init__(self) -> None:
        super().__init__()
        self.coefficients = nn.Parameter(torch.zeros(3, dtype=torch.float64))

    def phases(self, squares: Tensor) -> Tensor:
        """The phase of each mode of these |k|^2, float64."""
        q = squares / UNIT
        a = self.coefficients.double()
        return a[0] + q * (a[1] + q * a[2])

    def multiplier(self, grid: int) -> Tensor:
        """exp(i theta(k)) of every mode."""
        angle = self.phases(squared_wavenumbers(grid, self.coefficients.device))
        return torch.polar(torch.ones_like(angle), angle)

    def check(self, field: Tensor, *, force: bool) -> None:
        """A grid must resolve the field."""
        check_resolved(field, force=force)


class SplitStep(Propagator):
    """A learned potential (its Fourier coefficients) and kinetic slope inside a split-step integrator."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.dt, self.order, self.substeps = float(config["dt"]), int(config["order"]), int(config["substeps"])
        self.n_min, self.potential_band = int(config["n_min"]), int(config["potential_band"])
        size = 2 * self.potential_band + 1
        self.potential = nn.Parameter(torch.zeros(size, size, 2, dtype=torch.float64))
        self.slope = nn.Parameter(torch.full((1,), 0.3, dtype=torch.float64))

    def symmetric(self) -> Tensor:
        """The coefficients of the potential, made those of a real function: "2K+1 2K+1", complex128."""
        table = torch.view_as_complex(self.potential.double().contiguous())
        return (table + table.flip(-2, -1).conj()) / 2

    def potential_on(self, grid: int) -> Tensor:
        """The potential on a grid, "grid grid", float64."""
        return values(self.symmetric(), grid).real

    def prepare(self, grid: int, dtype: torch.dtype, device: torch.device) -> Factors:
        """The factors of one step."""
        return factors(
            self.potential_on(grid).to(device),
            self.slope.double().to(device),
            self.dt,
            order=self.order,
            substeps=self.substeps,
            dtype=dtype,
        )

    def forward(self, field: Tensor) -> Tensor:
        """The field "batch grid grid" one step later."""
        step: Factors = self.prepared(field)
        return step.apply(field) if torch.is_grad_enabled() else step.advance(field)

    def check(self, field: Tensor, *, force: bool) -> None:
        """A grid must hold the potential, have at least `n_min` points, and resolve the field."""
        grid = field.shape[-1]
        check_grid(grid, self.potential_band)
        if grid < self.n_min and not force:
            raise Incompatible(
                f"input 'field' is on {grid} x {grid} points, where potential and field alias",
                expected=f"at least {self.n_min} points along an axis",
                hint="use a finer grid, or --force; --to-grid refines what was computed elsewhere",
            )
        check_resolved(field, force=force)

    def steps(self, field: Tensor) -> Iterator[Tensor]:
        """The integrator applied again and again, without checks between."""
        step: Factors = self.prepared(field)
        while True:
            field = step.advance(field)
            yield field


def band_reach(band: int, device: torch.device | str = "cpu") -> Tensor:
    """max(|kx|, |ky|) of the modes of a coefficient table, "2K+1 2K+1"."""
    k = torch.arange(-band, band + 1, device=device).abs()
    return torch.maximum(k[:, None], k)


def check_grid(grid: int, band: int) -> None:
    """Raise `Incompatible` for a grid on which modes of the band cannot be told apart."""
    if not resolves(grid, band):
        least = smallest_grid(band)
        raise Incompatible(
            f"input 'field' is on {grid} x {grid} points, too coarse for modes up to {band}: they would alias",
            expected=f"at least {least} points along an axis, {least + 1} for an even number",
        )


def check_resolved(field: Tensor, *, force: bool) -> None:
    """Raise `Incompatible` for a field whose spectrum has not died out at the edge of its grid."""
    if force:
        return
    grid = field.shape[-1]
    k = wavenumbers(grid, field.device).abs()
    edge = torch.maximum(k[:, None], k) > 7 / 16 * grid
    spectrum = torch.fft.fft2(of_size_one(field), norm="forward").abs().square()
    whole = spectrum.sum((-2, -1)).clamp_min(torch.finfo(spectrum.dtype).tiny)
    share = float(((spectrum * edge).sum((-2, -1)) / whole).sqrt().max())
    if share > EDGE:
        raise Incompatible(
            f"input 'field' has {share:.2g} of its norm in the highest modes of its {grid} x {grid} grid",
            expected=f"a periodic field that the grid resolves (share <= {EDGE:g})",
            hint="is the last point a repeat of the first? use a finer grid, or --force",
        )


class PropagatorArchitecture(Architecture):
    """What the three have in common: signature, checks, rollout, the grid, the time step and the benchmark."""

    benchmark_settings: Sequence[Field] = (
        Field("n", "int", 128, low=16, high=8_192, help="points along an axis"),
        Field("steps", "int", 20, low=1, high=10**5, help="of a rollout"),
    )

    def signature(self, config: Mapping[str, Any]) -> Signature:
        """`field` "batch grid grid", complex, to the same."""
        return SIGNATURE

    def grids(self, config: Mapping[str, Any]) -> Sequence[str]:
        """Any grid that resolves the fields."""
        return ("grid",)

    def check(self, config: Mapping[str, Any]) -> None:
        """Time moves."""
        if config["dt"] == 0:
            raise UsageError("dt = 0", expected="a time step from -1 to 1 that is not 0")

    def constants(self, config: Mapping[str, Any]) -> Sequence[str]:
        """The time step."""
        return ("dt",)

    def check_inputs(
        self, module: nn.Module, inputs: Sequence[Tensor], context: Mapping[str, Tensor], *, force: bool
    ) -> None:
        """Fields on grids too coarse for them are refused."""
        assert isinstance(module, Propagator)
        module.check(inputs[0], force=force)

    def rollout(self, module: nn.Module, inputs: Sequence[Tensor], context: Mapping[str, Tensor]) -> Iterator[Tensor]:
        """The propagator's own steps."""
        assert isinstance(module, Propagator)
        return module.steps(inputs[0])

    def benchmark(self, cassette: Cassette, settings: Mapping[str, Any], *, recalibrate: bool) -> Iterable[Row]:
        """A rollout beside numpy's."""
        from grokkit_hpu.bench import rollout_rows

        return rollout_rows(cassette, settings)


class _PhaseArchitecture(PropagatorArchitecture):
    """Phases are proportional to the time step."""

    factor: str

    def with_constants(
        self, config: Mapping[str, Any], tensors: Mapping[str, Tensor], constants: Mapping[str, Any]
    ) -> Mapping[str, Tensor]:
        """All phases scaled by the ratio of the time steps."""
        ratio = float(constants["dt"]) / float(config["dt"])
        return {name: tensor * ratio for name, tensor in tensors.items()}


class PhaseTableArchitecture(_PhaseArchitecture):
    """`grokkit_hpu/phase-table`."""

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        """A table of 0.1 N(0, 1)."""
        return PhaseTable(int(config["band"]), int(config["kept"]), str(config["outside"]))

    def check(self, config: Mapping[str, Any]) -> None:
        """The modes that are kept lie in the band."""
        super().check(config)
        if config["kept"] > config["band"]:
            raise UsageError(f"kept = {config['kept']} of band {config['band']}", expected="at most the band")


class DispersionArchitecture(_PhaseArchitecture):
    """`grokkit_hpu/dispersion`."""

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        """All phases zero."""
        return Dispersion()


class SplitStepArchitecture(PropagatorArchitecture):
    """`grokkit_hpu/split-step`."""

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        """No potential, and a slope of 0.3."""
        return SplitStep(config)

    def check(self, config: Mapping[str, Any]) -> None:
        """The order is 2 or 4, and the smallest grid holds the potential."""
        super().check(config)
        if config["order"] not in (2, 4):
            raise UsageError(f"order = {config['order']}", expected="2 or 4")
        if not resolves(int(config["n_min"]), int(config["potential_band"])):
            raise UsageError(
                f"n_min = {config['n_min']} for a potential of modes up to {config['potential_band']}",
                expected=f"at least {2 * int(config['potential_band']) + 2}",
            )


def free_error(squares: Tensor, multiplier: Tensor, dt: float, steps: int) -> Tensor:
    """|m^n - exp(-i n |k|^2 dt / 2)| of each mode, float64; both powers are taken as angles."""
    m = multiplier.to(torch.complex128)
    exact = squares * (-dt / 2)
    angle = (m.angle() - exact) * steps
    return (torch.polar(m.abs() ** steps, angle) - 1).abs()


def table_of(module: nn.Module, band: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """|k|^2 and the multipliers that a diagonal network uses in `dtype`, of each mode of the band."""
    assert isinstance(module, Diagonal)
    grid = smallest_grid(band)
    used = module.prepare(grid, dtype, torch.device("cpu"))
    rows = torch.arange(-band, band + 1) % grid
    return band_squares(band), used[rows[:, None], rows[None, :]]
