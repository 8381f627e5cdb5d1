"""The bilinear network: integer factors, how they were found, and products of matrices of any size."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from grokkit_core.architecture import Architecture
from grokkit_core.specs import Field
from grokkit_core.tensors import Signature
from grokkit_matmul.plugin import SIGNATURE
from grokkit_matmul.runtime import Runtime
from grokkit_matmul.scheme import scheme_of

if TYPE_CHECKING:
    from grokkit_core.benchmark import Row
    from grokkit_core.cassette import Cassette


class BilinearNetwork(nn.Module):
    """Buffers `U` "rank m k", `V` "rank k n", `W` "rank m n" in int8.

    With `raw`: `raw.U/V/W` float64, the factors as training left them; `gauge.X/Y/Z`, the sandwich that was applied, and
    `gauge.scales` "rank 2", by which the slots of U and V were then divided, before rounding.
    """

    def __init__(self, m: int, k: int, n: int, rank: int, raw: bool) -> None:
        super().__init__()
        shapes = {"U": (rank, m, k), "V": (rank, k, n), "W": (rank, m, n)}
        for name, shape in shapes.items():
            self.register_buffer(name, torch.zeros(shape, dtype=torch.int8))
        if raw:
            sandwich = {"X": (m, m), "Y": (k, k), "Z": (n, n), "scales": (rank, 2)}
            self.raw, self.gauge = _Tensors(shapes), _Tensors(sandwich)

    @property
    def runtime(self) -> Runtime:
        """What multiplies; made when it is first needed."""
        if "_runtime" not in self.__dict__:
            self.__dict__["_runtime"] = Runtime(scheme_of(self.state_dict()))
        found: Runtime = self.__dict__["_runtime"]
        return found

    def __getstate__(self) -> dict[str, Any]:
        """A copy makes a runtime of its own: working memory belongs to one, and coefficients may be changed."""
        return {name: value for name, value in self.__dict__.items() if name != "_runtime"}

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """ "... m k" times "... k n"."""
        return self._traced(a, b) if torch.compiler.is_compiling() else self.runtime.multiply(a, b)

    def _traced(self, a: Tensor, b: Tensor) -> Tensor:
        """One level of the scheme as a graph of sums and products, for sizes that its format divides."""
        u, v, w = (getattr(self, name).to(a.dtype) for name in ("U", "V", "W"))
        left = _blocks(a, u.shape[1], u.shape[2])
        right = _blocks(b, v.shape[1], v.shape[2])
        products = torch.einsum("rik,...ixky->...rxy", u, left) @ torch.einsum("rkj,...kyjz->...ryz", v, right)
        return torch.einsum("rij,...rxz->...ixjz", w, products).flatten(-4, -3).flatten(-2, -1)


def _blocks(matrix: Tensor, rows: int, columns: int) -> Tensor:
    """ "... rows x columns y": a matrix as rows x columns blocks."""
    *leading, height, width = matrix.shape
    return matrix.reshape(*leading, rows, height // rows, columns, width // columns)


class _Tensors(nn.Module):
    """Named float64 tensors under one prefix."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        super().__init__()
        for name, shape in shapes.items():
            self.register_buffer(name, torch.zeros(shape, dtype=torch.float64))


class Bilinear(Architecture):
    """Builds bilinear networks, and multiplies with a cassette of them."""

    verbs = ("matmul",)
    benchmark_settings = (
        Field("sizes", "ints", (1024, 2048, 4096), low=1, high=2**16, help="square matrices of these sizes"),
        Field("levels", "ints", (1, 2), low=1, high=8, help="levels that are timed beside the automatic choice"),
        Field("pairs", "int", 9, low=1, high=1000, help="alternating pairs; at most five from size 8192 on"),
        Field("entries", "str", "normal", choices=("normal", "uniform"), help="N(0, 1), or uniform on [0, 1)"),
    )

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        """A network with all coefficients zero."""
        m, k, n, rank = (int(config[name]) for name in ("m", "k", "n", "rank"))
        return BilinearNetwork(m, k, n, rank, bool(config["raw"]))

    def signature(self, config: Mapping[str, Any]) -> Signature:
        """Matrices of any size: the scheme works on blocks."""
        return SIGNATURE

    def verb(self, name: str, cassette: Cassette) -> Callable[..., Any]:
        """`matmul(a, b, *, out=None, levels=None)` is `Runtime.multiply` on the device that the matrices are on.

        It is handed out without a call in between: a small product lasts no longer than a few of those.
        """
        return self.runtime(cassette).multiply if name == "matmul" else super().verb(name, cassette)

    def runtime(self, cassette: Cassette) -> Runtime:
        """What multiplies with the coefficients of a cassette."""
        module = cassette.module
        assert isinstance(module, BilinearNetwork)
        return module.runtime

    def benchmark(self, cassette: Cassette, settings: Mapping[str, Any], *, recalibrate: bool) -> Iterable[Row]:
        """Products of large matrices beside `torch.mm`; first the choice of levels where it was never made."""
        from grokkit_matmul.bench import benchmark

        return benchmark(self.runtime(cassette), cassette, settings, recalibrate=recalibrate)
