"""A small Fourier neural operator (Li and others 2021), the generic comparison: it knows neither linearity nor unitarity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from grokkit_core.architecture import Architecture
from grokkit_core.tensors import Signature
from grokkit_hpu.fourier import embedded
from grokkit_hpu.model import check_grid
from grokkit_hpu.plugin import SIGNATURE


class FnoArchitecture(Architecture):
    """`grokkit_hpu/fno`; 261,058 parameters by default."""

    vectorises = True

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        """A network with random weights."""
        return Fno(int(config["width"]), int(config["modes"]), int(config["depth"]))

    def signature(self, config: Mapping[str, Any]) -> Signature:
        """`field` "batch grid grid", complex, to the same."""
        return SIGNATURE

    def check_inputs(
        self, module: nn.Module, inputs: Sequence[Tensor], context: Mapping[str, Tensor], *, force: bool
    ) -> None:
        """The spectral layers need a grid that holds their modes."""
        assert isinstance(module, Fno)
        check_grid(inputs[0].shape[-1], module.modes)


class Fno(nn.Module):
    """Real and imaginary part as two channels; spectral layers with a pointwise path beside each, GELU between."""

    def __init__(self, width: int, modes: int, depth: int) -> None:
        super().__init__()
        self.modes = modes
        self.lift = nn.Conv2d(2, width, 1)
        self.spectral = nn.ModuleList(SpectralLayer(width, modes) for _ in range(depth))
        self.pointwise = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in range(depth))
        self.head = nn.Sequential(nn.Conv2d(width, 2 * width, 1), nn.GELU(), nn.Conv2d(2 * width, 2, 1))

    def forward(self, field: Tensor) -> Tensor:
        """The field "batch grid grid" one step later."""
        hidden = self.lift(torch.stack((field.real, field.imag), 1))
        last = len(self.spectral) - 1
        for index, (spectral, pointwise) in enumerate(zip(self.spectral, self.pointwise, strict=True)):
            hidden = spectral(hidden) + pointwise(hidden)
            hidden = nn.functional.gelu(hidden) if index < last else hidden
        real, imaginary = self.head(hidden).unbind(1)
        return torch.complex(real, imaginary)


class SpectralLayer(nn.Module):
    """A complex matrix over channels for each mode |kx|, |ky| <= modes; the other modes become zero."""

    def __init__(self, width: int, modes: int) -> None:
        super().__init__()
        size = 2 * modes + 1
        self.weight = nn.Parameter(torch.randn(width, width, size, size, 2) / width / 2)

    def forward(self, hidden: Tensor) -> Tensor:
        """ "batch channel grid grid", real, to the same."""
        grid, size = hidden.shape[-1], self.weight.shape[-2]
        index = torch.arange(-(size // 2), size // 2 + 1, device=hidden.device) % grid
        modes = torch.fft.fft2(hidden, norm="forward")[..., index[:, None], index[None, :]]
        mixed = torch.einsum("bixy,ioxy->boxy", modes, torch.view_as_complex(self.weight.contiguous()))
        result: Tensor = torch.fft.ifft2(embedded(mixed, grid), norm="forward").real
        return result
