"""Per-sample errors of several predictors on the same samples, and what can be said from them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from grokkit_core.certify.rates import clopper_pearson
from grokkit_core.dtypes import real_view
from grokkit_core.streams import stream
from grokkit_core.task import Batch, Place, Predictor, Task, floating_dtype, tensors_of

CHUNK = 4_096
"""Samples evaluated at a time."""

CALIBRATION_SAMPLES = 4_096
"""Samples that fitted baselines see, drawn apart from the test samples."""

CONFIDENCE = 0.95
Z = 1.959963984540054
"""Two-sided normal quantile of `CONFIDENCE`."""


@dataclass(frozen=True)
class Figure:
    """A mean with its standard error and two-sided 95 % interval."""

    value: float
    stderr: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class Scores:
    """The metric of each predictor, one number a sample, on the same `n` samples at one place.

    `data` is the hash of the samples.
    """

    where: Place
    n: int
    errors: Mapping[str, Tensor]
    data: str

    def figure(self, name: str) -> Figure:
        """Mean, standard error and interval of one predictor."""
        return figure(self.errors[name])

    def mean(self, name: str) -> float:
        """The mean metric of one predictor."""
        return self.errors[name].mean().item()


def figure(values: Tensor) -> Figure:
    """The mean of per-sample values "n"; for a share of zeros and ones the interval is exact (Clopper and Pearson), else normal."""
    n, mean = len(values), values.mean().item()
    if bool(((values == 0) | (values == 1)).all()):
        return Figure(mean, math.sqrt(mean * (1 - mean) / n), _exact(values))
    stderr = (values.std() / math.sqrt(n)).item() if n > 1 else 0.0
    return Figure(mean, stderr, (mean - Z * stderr, mean + Z * stderr))


def _exact(values: Tensor) -> tuple[float, float]:
    """The exact two-sided interval of a share of ones."""
    low, high = clopper_pearson(int((values == 0).sum()), len(values), CONFIDENCE)
    return 1 - high, 1 - low


def measure(
    task: Task,
    predictors: Mapping[str, Predictor],
    row: int,
    *,
    n: int,
    seed: int,
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
    where: Place | None = None,
) -> Scores:
    """Every predictor and every baseline of the task on the same fresh samples: those of row `row` of a table, at `where`
    (default: `task.evaluation[row]`).

    Test samples come from the stream `(seed, "test", row)`; baselines that need fitting see another one. Baselines
    stand in the result as `baseline:<name>`.
    """
    where = task.evaluation[row] if where is None else where
    calibration = task.sample(min(n, CALIBRATION_SAMPLES), generator=stream(seed, "baseline", row), **where)
    batch = task.sample(n, generator=stream(seed, "test", row), **where)
    baselines = task.baselines(calibration.to(dtype))
    everyone = {**predictors, **{f"baseline:{name}": predict for name, predict in baselines.items()}}
    cast = batch.to(dtype)
    errors = {
        name: errors_of(task, predict, cast, device if name in predictors else "cpu")
        for name, predict in everyone.items()
    }
    return Scores(where, n, errors, batch_digest(batch))


def errors_of(task: Task, predict: Predictor, batch: Batch, device: torch.device | str = "cpu") -> Tensor:
    """The task's metric of a predictor, one float64 number a sample."""
    parts = []
    with torch.inference_mode():
        for chunk in batch.chunks(CHUNK):
            moved = chunk.to(floating_dtype(chunk.inputs), device)
            prediction = predict(moved.inputs, moved.context).to("cpu")
            parts.append(task.error(prediction, chunk.targets).double())
    return torch.cat(parts)


def batch_digest(batch: Batch) -> str:
    """`sha256:` and the hash of a batch's inputs and targets, which tells data sets apart."""
    digest = hashlib.sha256()
    for tensor in (*tensors_of(batch.inputs), batch.targets):
        plain = real_view(tensor)
        digest.update(plain.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return "sha256:" + digest.hexdigest()
