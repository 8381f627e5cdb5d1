"""Trigonometric polynomials on the torus [0, 2 pi)^2 and their values on N x N grids.

Coefficients stand in tables "... 2K+1 2K+1" whose index 0 is wavenumber -K; a field "... N N" holds the values at
x_j = 2 pi j / N. The same coefficients give the same function on every grid.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from grokkit_core.transfer.regrid import resampled


def wavenumbers(grid: int, device: torch.device | str = "cpu") -> Tensor:
    """The integer wavenumber of each index of a transform of `grid` points, float64."""
    result: Tensor = torch.fft.fftfreq(grid, 1 / grid, dtype=torch.float64, device=device)
    return result


def squared_wavenumbers(grid: int, device: torch.device | str = "cpu") -> Tensor:
    """|k|^2 of every mode of a transform, "grid grid", float64."""
    k = wavenumbers(grid, device)
    return k[:, None].square() + k.square()


def band_squares(band: int, device: torch.device | str = "cpu") -> Tensor:
    """|k|^2 of the modes of a coefficient table, "2K+1 2K+1", float64."""
    k = torch.arange(-band, band + 1, dtype=torch.float64, device=device)
    return k[:, None].square() + k.square()


def smallest_grid(band: int) -> int:
    """The fewest points that keep the modes of a band apart; an even grid needs one more, for its Nyquist mode."""
    return 2 * band + 1


def resolves(grid: int, band: int) -> bool:
    """Whether a grid keeps all modes of a band apart and below its Nyquist mode."""
    return grid >= smallest_grid(band) + (grid % 2 == 0)


def places(band: int, grid: int, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Where the modes of a coefficient table stand in a transform: index tensors for its last two axes."""
    index = torch.arange(-band, band + 1, device=device) % grid
    return index[:, None], index[None, :]


def embedded(table: Tensor, grid: int) -> Tensor:
    """A table "... 2K+1 2K+1" at its places in a transform "... grid grid", zero elsewhere."""
    rows, columns = places(table.shape[-1] // 2, grid, table.device)
    result = table.new_zeros(*table.shape[:-2], grid, grid)
    result[..., rows, columns] = table
    return result


def coefficients(field: Tensor, band: int) -> Tensor:
    """The coefficients "... 2K+1 2K+1" of a field "... N N"; modes outside the band are left out."""
    rows, columns = places(band, field.shape[-1], field.device)
    found: Tensor = torch.fft.fft2(field, norm="forward")[..., rows, columns]
    return found


def values(table: Tensor, grid: int) -> Tensor:
    """The field "... grid grid" of a coefficient table."""
    result: Tensor = torch.fft.ifft2(embedded(table, grid), norm="forward")
    return result


def plane_waves(band: int, grid: int) -> Tensor:
    """exp(i k x_j) of each point and each k of a band: "grid 2K+1", complex128."""
    turns = torch.arange(grid)[:, None] * torch.arange(-band, band + 1) % grid
    angle = turns.double() * (2 * math.pi / grid)
    return torch.polar(torch.ones_like(angle), angle)


def of_size_one(field: Tensor) -> Tensor:
    """Each field "... N N" divided by its largest number, so that squares of it neither overflow nor vanish."""
    field = field.detach()
    largest = torch.maximum(field.real.abs(), field.imag.abs()).amax((-2, -1), keepdim=True)
    return field / largest.clamp_min(torch.finfo(largest.dtype).tiny)


def outside_share(field: Tensor, band: int) -> Tensor:
    """The share "batch" of each field's norm that lies in modes outside the band; zero fields have none."""
    spectrum = torch.fft.fft2(of_size_one(field), norm="forward")
    rows, columns = places(band, field.shape[-1], field.device)
    whole = spectrum.abs().square().sum((-2, -1))
    spectrum[..., rows, columns] = 0
    outside = spectrum.abs().square().sum((-2, -1))
    result: Tensor = (outside / whole.clamp_min(torch.finfo(whole.dtype).tiny)).sqrt()
    return result


def drawn(count: int, band: int, generator: torch.Generator, decay: float = 0.0) -> Tensor:
    """Random tables "count 2K+1 2K+1", complex128, of norm one: normal numbers times (1 + |k|^2)^(-decay / 2).

    The real parts are drawn first, then the imaginary ones.
    """
    size = (count, 2 * band + 1, 2 * band + 1)
    real = torch.randn(size, generator=generator, dtype=torch.float64)
    table = torch.complex(real, torch.randn(size, generator=generator, dtype=torch.float64))
    table = table * (1 + band_squares(band)) ** (-decay / 2)
    return table / table.abs().square().sum((-2, -1), keepdim=True).sqrt()


def on_grid(field: Tensor, grid: int) -> Tensor:
    """A field on another grid by trigonometric interpolation."""
    axis = field.ndim - 1
    return resampled(field, {axis - 1: grid, axis: grid})


def multiple_above(grid: int, least: int) -> int:
    """The smallest multiple of `grid` that is not below `least`."""
    return grid * math.ceil(least / grid)
