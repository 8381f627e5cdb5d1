"""Both sides of the wave benchmarks."""

from __future__ import annotations

import sys
from collections import deque
from pathlib import Path

import numpy as np
import torch
from timing import Comparison, Side

import grokkit_core as gk

sys.path.append(str(Path(__file__).resolve().parent.parent / "plugins"))  # where the reference of the tests is
import wave_reference

ROUNDING = {"float32": 0.1, "float64": 1e-10}
"""Of the last field, of order one; most of it is the reference's, which cancels in 2u - v."""


def comparison(dtype: str, kind: str, grid: int, steps: int, lam2: float, seed: int) -> Comparison:
    """One solver of `wave_reference` against the shipped cassette."""
    cassette, solver = gk.load("wave"), getattr(wave_reference, kind)
    u, v = np.random.default_rng(seed).standard_normal((2, grid)).astype(dtype)
    pair = torch.from_numpy(np.stack((u, v))).unsqueeze(0)

    def rolled() -> torch.Tensor:
        return deque(cassette.rollout(pair, steps, context={"lam2": lam2}), maxlen=1)[0]

    def solved() -> np.ndarray:
        return solver(u, v, lam2, steps)

    def check() -> str:
        difference = float(np.abs(rolled().numpy()[0] - solved()).max() / np.abs(solved()).max())
        assert difference <= ROUNDING[dtype], f"fields differ by {difference:.2g}"
        return f"after {steps:,} steps fields differ by {difference:.1e} of their largest value"

    return Comparison(f"{dtype}, {kind.replace('_', ' ')}", Side("numpy", solved), Side("rollout", rolled), check)
