"""From the float factors that training left to the integers of a cassette, again: what was recorded is done once more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from grokkit_matmul.factors import Factors
from grokkit_matmul.gauge import replay, rounded
from grokkit_matmul.scheme import Scheme


@dataclass(frozen=True)
class Replayed:
    """The rounded scheme, how far the gauge-fixed factors were from it at most, and the raw factors' tensor error."""

    scheme: Scheme
    delta: float
    residual: float


def replayed(tensors: Mapping[str, Tensor]) -> Replayed:
    """Apply the stored sandwich and scales to the stored raw factors, and round."""
    raw = Factors(*(tensors[f"raw.{name}"].double() for name in "UVW"))
    x, y, z, scales = (tensors[f"gauge.{name}"].double() for name in ("X", "Y", "Z", "scales"))
    scheme, delta = rounded(replay(raw, x, y, z, scales))
    return Replayed(scheme, float(delta), float(raw.residual()))
