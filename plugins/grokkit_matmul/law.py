"""The product of two matrices: sampler, oracle and what else would do."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from grokkit_core.errors import UsageError
from grokkit_core.specs import TaskSpec
from grokkit_core.task import Batch, Inputs, Predictor, Task, tensors_of
from grokkit_matmul.scheme import Format

if TYPE_CHECKING:
    from grokkit_core.cassette import Cassette
    from grokkit_core.manifest import Certificate, Level

MOST_FEATURES = 1024
"""Products of one entry of A and one of B up to which the least-squares baseline is fitted."""

SCALES = (1.0, 2.0, 4.0)
"""Entries are drawn from [-scale, scale]; the published network was trained at 1 and fails beyond."""


class MatrixProduct(Task):
    """Inputs `a` "... m k" and `b` "... k n", output `c` "... m n". Its constants are the sizes at which it is sampled."""

    evaluation = tuple({"scale": scale} for scale in SCALES)

    def __init__(self, spec: TaskSpec, **parameters: Any) -> None:
        super().__init__(spec, **parameters)
        self.format = Format(*(int(self.parameters[name]) for name in "mkn"))

    def sample(self, n: int, *, generator: torch.Generator, **where: Any) -> Batch:
        """Entries uniform on [-scale, scale] (`scale`, default 1), or standard normal (`normal`), or integers (`integer`).

        `integer` gives whole numbers up to that size, as float64. Products are float64.
        """
        m, k, c = self.format.m, self.format.k, self.format.n
        a, b = (_entries((n, *shape), where, generator) for shape in ((m, k), (k, c)))
        return Batch({"a": a, "b": b}, a @ b)

    def oracle(self, inputs: Inputs, context: Mapping[str, Tensor]) -> Tensor:
        """The product in float64; integers in their own dtype."""
        a, b = tensors_of(inputs)
        return torch.matmul(a.double(), b.double()) if a.is_floating_point() else torch.matmul(a, b)

    def baselines(self, calibration: Batch) -> Mapping[str, Predictor]:
        """Zero, a bilinear scheme of one product less where that is known not to exist, least squares, and `torch.matmul`."""
        found: dict[str, Predictor] = {"zero": lambda inputs, context: torch.zeros_like(_plain(inputs))}
        if self.format == Format(2, 2, 2):
            found["bilinear-rank-6"] = _rank_six
        if self.format.m * self.format.k**2 * self.format.n <= MOST_FEATURES:
            found["least-squares"] = _least_squares(calibration)
        found["plain-product"] = lambda inputs, context: _plain(inputs)
        return found

    def certify(self, cassette: Cassette, *, level: Level, seed: int) -> Certificate:
        """Exact by the tensor identity for bilinear schemes, sampled for other networks."""
        from grokkit_matmul.certify import certify_product

        return certify_product(self, cassette, level=level, seed=seed)


def _entries(shape: tuple[int, ...], where: Mapping[str, Any], generator: torch.Generator) -> Tensor:
    unknown = set(where) - {"scale", "normal", "integer"}
    if unknown:
        raise UsageError(f"setting '{min(unknown)}' of the sampler", expected="scale, normal or integer")
    if where.get("normal"):
        return torch.randn(shape, generator=generator, dtype=torch.float64)
    if "integer" in where:
        size = int(where["integer"])
        if size < 0:
            raise UsageError(f"integer = {size}", expected="the largest entry, 0 or more")
        return torch.randint(-size, size + 1, shape, generator=generator).double()
    return (2 * torch.rand(shape, generator=generator, dtype=torch.float64) - 1) * float(where.get("scale", 1.0))


def _plain(inputs: Inputs) -> Tensor:
    a, b = tensors_of(inputs)
    return torch.matmul(a, b)


def _features(inputs: Inputs) -> Tensor:
    """All products of an entry of A and one of B, "batch (m k k n)"."""
    a, b = tensors_of(inputs)
    return (a.flatten(1).unsqueeze(2) * b.flatten(1).unsqueeze(1)).flatten(1)


def _least_squares(calibration: Batch) -> Predictor:
    """Linear least squares on all products of two entries: it finds the rule from a few hundred samples."""
    shape = calibration.targets.shape[1:]
    solution = torch.linalg.lstsq(_features(calibration.inputs).double(), calibration.targets.flatten(1)).solution

    def predict(inputs: Inputs, context: Mapping[str, Tensor]) -> Tensor:
        features = _features(inputs)
        found: Tensor = (features @ solution.to(features)).unflatten(1, shape)
        return found

    return predict


def _rank_six(inputs: Inputs, context: Mapping[str, Tensor]) -> Tensor:
    """The best of some six-product schemes that least squares found; none is exact (Winograd 1971, Landsberg 2006)."""
    a, b = tensors_of(inputs)
    u, v, w = (factor.to(a) for factor in _six())
    products = torch.einsum("rij,bij->br", u, a) * torch.einsum("rij,bij->br", v, b)
    return torch.einsum("br,rij->bij", products, w)


@cache
def _six() -> tuple[Tensor, Tensor, Tensor]:
    from grokkit_core.streams import stream
    from grokkit_matmul.als import Als

    search = Als(Format(2, 2, 2), 6, restarts=8, sweeps=150, generator=stream(0, "rank-6"))
    while not search.done:
        search.sweep()
    best = search.factors.select(int(search.residuals().argmin()))
    return best.u, best.v, best.w
