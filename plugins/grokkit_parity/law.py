"""The parity of k bits among n: sampler, oracle and baselines.

Bits are 0 and 1, uniform and independent; the label is their sum over the support modulo two. As +1 and -1 the law is the
monomial over the support. Every function of fewer than k bits is uncorrelated with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from grokkit_core.errors import UsageError
from grokkit_core.specs import TaskSpec
from grokkit_core.streams import stream
from grokkit_core.task import Batch, Inputs, Predictor, Task, tensors_of
from grokkit_parity.solvers import SCAN_ROWS, eliminate, labels_of, logits_of, walsh_scan

if TYPE_CHECKING:
    from grokkit_core.cassette import Cassette
    from grokkit_core.manifest import Certificate, Level

WIDEST_BASELINE = 512
"""Bits up to which baselines are fitted; elimination needs more rows than there are bits."""


class Parity(Task):
    """Inputs `bits` "batch n" of zeros and ones, targets "batch" int64, outputs `logits` "batch 2"."""

    def __init__(self, spec: TaskSpec, **parameters: Any) -> None:
        super().__init__(spec, **parameters)
        width, k = int(self.parameters["n"]), int(self.parameters["k"])
        if k > width:
            raise UsageError(f"k = {k} of n = {width} bits", expected="k at most n")
        given = tuple(self.parameters["support"])
        self.is_drawn = not given
        support = given or draw_support(width, k, 0)
        if len(set(support)) != k or len(support) != k or max(support) >= width:
            raise UsageError(f"support {list(given)[:8]}", expected=f"{k} different bits from 0 to {width - 1}")
        self.parameters["support"] = tuple(sorted(support))

    @property
    def width(self) -> int:
        """Number of bits."""
        return int(self.parameters["n"])

    @property
    def support(self) -> tuple[int, ...]:
        """The bits that count, in rising order."""
        return tuple(self.parameters["support"])

    def sample(self, n: int, *, generator: torch.Generator, **where: Any) -> Batch:
        """`n` rows of uniform bits (uint8) with their labels."""
        if where:
            raise UsageError(f"sampler setting '{next(iter(where))}'", expected="none")
        bits = torch.randint(0, 2, (n, self.width), generator=generator, dtype=torch.uint8)
        return Batch(bits, labels_of(bits, self.support))

    def oracle(self, inputs: Inputs, context: Mapping[str, Tensor]) -> Tensor:
        """The exact logits "batch 2": 1 for the right class, 0 for the other."""
        (bits,) = tensors_of(inputs)
        return logits_of(labels_of(bits, self.support))

    def error(self, prediction: Tensor, target: Tensor) -> Tensor:
        """1 where the larger logit is that of the label; a row that is not finite is wrong."""
        finite = torch.isfinite(prediction).all(1)
        return ((prediction.argmax(1) == target) & finite).double()

    def baselines(self, calibration: Batch) -> Mapping[str, Predictor]:
        """A constant, a linear map, and two solvers that find the support exactly from a few rows."""
        (bits,) = tensors_of(calibration.inputs)
        if self.width > WIDEST_BASELINE:
            return {"constant": _constant(calibration.targets)}
        found = {"constant": _constant(calibration.targets), "linear": _linear(bits, calibration.targets)}
        rows = slice(0, max(SCAN_ROWS, 2 * self.width))
        scanned = walsh_scan(bits[rows], calibration.targets[rows], len(self.support))
        solved = eliminate(bits[rows], calibration.targets[rows])
        for name, support in (("walsh-scan", scanned), ("elimination", solved)):
            if support is not None:
                found[name] = _reader(support)
        return found

    def certify(self, cassette: Cassette, *, level: Level, seed: int) -> Certificate:
        """Exact where the network is known to read few bits; else sampled."""
        from grokkit_parity.certify import certify_parity

        return certify_parity(self, cassette, level=level, seed=seed)


def draw_support(width: int, k: int, seed: int) -> tuple[int, ...]:
    """The k of `width` bits that a seed chooses, in rising order."""
    if width <= 2**20:
        return tuple(sorted(torch.randperm(width, generator=stream(seed, "support"))[:k].tolist()))
    chosen: set[int] = set()
    generator = stream(seed, "support")
    while len(chosen) < k:
        chosen.add(int(torch.randint(0, width, (), generator=generator)))
    return tuple(sorted(chosen))


def _constant(labels: Tensor) -> Predictor:
    common = int(2 * int(labels.sum()) > len(labels))
    return lambda inputs, context: logits_of(torch.full((len(tensors_of(inputs)[0]),), common))


def _linear(bits: Tensor, labels: Tensor) -> Predictor:
    """Least squares on the signs, with a constant."""

    def signs(rows: Tensor) -> Tensor:
        return torch.cat((1 - 2 * rows.double(), torch.ones(len(rows), 1, dtype=torch.float64)), 1)

    weights = torch.linalg.lstsq(signs(bits), (1 - 2 * labels.double()).unsqueeze(1), driver="gelsd").solution
    return lambda inputs, context: logits_of((signs(tensors_of(inputs)[0]) @ weights)[:, 0].lt(0).long())


def _reader(support: tuple[int, ...]) -> Predictor:
    return lambda inputs, context: logits_of(labels_of(tensors_of(inputs)[0], support))
