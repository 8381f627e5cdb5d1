"""Why a fusion gains what it gains: error covariance, disagreement and the weights that would have been best in hindsight."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from grokkit_core.cassette import Cassette
from grokkit_core.certify.scores import CHUNK, Scores
from grokkit_core.fusion.optimum import correlation, disagreement, error_covariance, pair_optimum, simplex_weights
from grokkit_core.streams import stream
from grokkit_core.task import Batch, Task, floating_dtype

MOST_MEMBERS = 16
"""Larger ensembles are not analysed member by member."""


@dataclass(frozen=True)
class Analysis:
    """One context of a fusion under squared error, on its test samples.

    `covariance` is C_ij = E[e_i . e_j], `disagreement` I_ij = E[|f_i - f_j|^2]. `best_weights` minimise the error on
    these very samples ("fitted on test"): a limit for gates of the context in [0, 1], never a result; `free_optimum` is
    a* of two members, not clipped. `predicted_gain` is what the best weights take off the best member's error and
    `gain` what the fusion did.
    """

    members: tuple[str, ...]
    covariance: tuple[tuple[float, ...], ...]
    disagreement: tuple[tuple[float, ...], ...]
    correlation: tuple[tuple[float, ...], ...]
    best_weights: tuple[float, ...]
    best: float
    uniform: float
    free_optimum: float | None
    predicted_gain: float
    gain: float

    def to_json(self) -> dict[str, Any]:
        """As in the rows of `grokkit compose --json`."""
        return {
            "members": list(self.members),
            "covariance": [list(row) for row in self.covariance],
            "disagreement": [list(row) for row in self.disagreement],
            "correlation": [list(row) for row in self.correlation],
            "best_weights_fitted_on_test": list(self.best_weights),
            "best_fitted_on_test": self.best,
            "uniform": self.uniform,
            "free_optimum": self.free_optimum,
            "predicted_gain": self.predicted_gain,
            "gain": self.gain,
        }


@dataclass(frozen=True)
class Cost:
    """CPU seconds that each member and the fusion took for the same samples. A fusion costs the sum of its members."""

    samples: int
    members: Mapping[str, float]
    fused: float

    def to_json(self) -> dict[str, Any]:
        """As in `grokkit compose --json`."""
        return {"samples": self.samples, "members": dict(self.members), "fused": self.fused}


def analyse(
    task: Task, members: Mapping[str, Cassette], scores: Scores, row: int, *, fused: str, dtype: torch.dtype, seed: int
) -> Analysis | None:
    """The analysis of one row on the samples of its scores; None for other metrics than "mse" and for many members.

    `fused` is the name under which the fusion stands in the scores.
    """
    if task.spec.metric != "mse" or len(members) > MOST_MEMBERS:
        return None
    batch = task.sample(scores.n, generator=stream(seed, "test", row), **scores.where).to(dtype)
    covariance = _covariance(members, batch)
    if not bool(torch.isfinite(covariance).all()):
        return None
    best = simplex_weights(covariance)
    equal = torch.full_like(best, 1 / len(best))
    least, limit = float(covariance.diagonal().min()), float(best @ covariance @ best)
    return Analysis(
        tuple(members),
        _rows(covariance),
        _rows(disagreement(covariance)),
        _rows(correlation(covariance)),
        tuple(best.tolist()),
        limit,
        float(equal @ covariance @ equal),
        float(pair_optimum(covariance)) if len(best) == 2 else None,
        least - limit,
        least - scores.mean(fused),
    )


def measure_cost(task: Task, members: Mapping[str, Cassette], fused: Cassette, *, seed: int) -> Cost:
    """CPU time of one prediction of as many samples as a row of the table has, by each member and by the fusion, after one to warm up."""
    where = task.evaluation[0]
    n = task.test_samples("full", where)
    batch = task.sample(n, generator=stream(seed, "cost"), **where).to(fused.dtype, fused.device)

    def seconds(cassette: Cassette) -> float:
        cassette.predict(batch.inputs, batch.context)
        before = time.process_time()
        cassette.predict(batch.inputs, batch.context)
        return time.process_time() - before

    return Cost(n, {name: seconds(member) for name, member in members.items()}, seconds(fused))


def _covariance(members: Mapping[str, Cassette], batch: Batch) -> Tensor:
    """C over the samples of a batch."""
    total = torch.zeros(len(members), len(members), dtype=torch.float64)
    for chunk in batch.chunks(CHUNK):
        predictions = torch.stack([_predicted(member, chunk) for member in members.values()])
        total += error_covariance(predictions, chunk.targets) * len(chunk)
    return total / len(batch)


def _predicted(member: Cassette, batch: Batch) -> Tensor:
    moved = batch.to(floating_dtype(batch.inputs), member.device)
    return member.predict(moved.inputs, moved.context).cpu()


def _rows(matrix: Tensor) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in matrix.tolist())
