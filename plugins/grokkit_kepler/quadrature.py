"""Means over the sampled distributions by quadrature: what baselines score, the same for every seed.

Their squared errors have long tails (those of RK4 grow like the thirteenth power of 1/r), so that a mean over 20,000 samples
moves by a third from seed to seed. Nodes are Gauss-Legendre's in axis and eccentricity; the rule is the trapezoidal one in
the mean anomaly, which converges exponentially for periodic functions (Trefethen and Weideman 2014).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from grokkit_core.certify.scores import CALIBRATION_SAMPLES, errors_of
from grokkit_core.manifest import Baseline
from grokkit_core.streams import stream
from grokkit_core.task import Batch, Place, Task

NODES_OF_AXIS, NODES_OF_ECCENTRICITY, NODES_OF_ANOMALY = 6, 24, 192
GOLDEN = (math.sqrt(5) - 1) / 2
"""Multiples of it, modulo 1, are spread evenly: for an angle on which few integrands depend."""


def gauss(low: float, high: float, count: int) -> tuple[Tensor, Tensor]:
    """Gauss-Legendre nodes of [low, high] and weights of sum 1, each "count"."""
    nodes, weights = (torch.from_numpy(array) for array in np.polynomial.legendre.leggauss(count))
    return low + (high - low) * (nodes + 1) / 2, weights / 2


def circle(count: int) -> tuple[Tensor, Tensor]:
    """Equidistant angles [rad] and equal weights of sum 1, each "count"."""
    angles = 2 * math.pi * (torch.arange(count, dtype=torch.float64) + 0.5) / count
    return angles, torch.full_like(angles, 1 / count)


def product(*rules: tuple[Tensor, Tensor]) -> tuple[list[Tensor], Tensor]:
    """The nodes of each variable, and the weights, of a product rule; each "node"."""
    nodes = torch.meshgrid(*(rule[0] for rule in rules), indexing="ij")
    weights = torch.meshgrid(*(rule[1] for rule in rules), indexing="ij")
    return [grid.flatten() for grid in nodes], torch.stack(weights).prod(0).flatten()


def spread(count: int) -> Tensor:
    """`count` angles [rad], evenly spread and without relation to any product rule."""
    return 2 * math.pi * torch.remainder(GOLDEN * torch.arange(count, dtype=torch.float64), 1.0)


def baselines_at(task: Task, where: Place, row: int, batch: Batch, weights: Tensor, seed: int) -> Sequence[Baseline]:
    """The mean metric of every baseline of a task over the nodes `batch` with these `weights`, for one row of a table.

    Baselines that are fitted see the calibration samples of the row, as in a sampled certificate.
    """
    calibration = task.sample(CALIBRATION_SAMPLES, generator=stream(seed, "baseline", row), **where)
    return [
        Baseline(name, task.spec.metric, float(errors_of(task, predict, batch) @ weights), dict(where))
        for name, predict in task.baselines(calibration).items()
    ]
