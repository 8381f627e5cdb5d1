"""Training curves: recording, thinning, stopping rules and the detection of grokking."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from grokkit_core.manifest import MAX_CURVE_ROWS, Curve
from grokkit_core.training.recipe import Grokking, Stopping

COLUMNS = ("step", "train", "validation", "train_metric")
"""The last one only where a recipe has a fixed training set."""


@dataclass
class Watch:
    """The curve of one seed: a row `(step, train, validation, ...)` an evaluation, the training loss averaged in between."""

    rows: list[tuple[float, ...]] = field(default_factory=list)
    total: float = 0.0
    count: int = 0

    def observe(self, loss: float) -> None:
        """Add one step's training loss to the running average."""
        if not math.isnan(loss):
            self.total += loss
            self.count += 1

    def record(self, step: int, validation: float, *more: float) -> None:
        """Close a row with the average training loss since the last one."""
        train = self.total / self.count if self.count else math.nan
        self.rows.append((float(step), train, validation, *more))
        self.total, self.count = 0.0, 0

    def should_stop(self, rule: Stopping | None) -> bool:
        """Whether the rule says that this seed is done."""
        if rule is None or not self.rows:
            return False
        values = [row[1] if rule.on == "train" else row[2] for row in self.rows]
        if rule.for_accuracy:
            values = [-value for value in values]
        limit = -rule.below if rule.for_accuracy else rule.below
        recent = values[-rule.lasting :]
        if len(recent) == rule.lasting and all(value <= limit for value in recent):
            return True
        best = min(range(len(values)), key=lambda index: (math.isnan(values[index]), values[index]))
        return bool(rule.patience) and len(values) - 1 - best >= rule.patience


def grok_step(rows: Sequence[Sequence[float]], rule: Grokking | None) -> int | None:
    """The step at which the validation curve first enters a run of `lasting` evaluations past the threshold.

    None where no such run was seen: a network that only just arrived is not called grokked.
    """
    if rule is None:
        return None
    past = [row[2] >= rule.threshold if rule.for_accuracy else row[2] <= rule.threshold for row in rows]
    for start in range(len(past) - rule.lasting + 1):
        if all(past[start : start + rule.lasting]):
            return int(rows[start][0])
    return None


def thin(rows: Sequence[Sequence[float]]) -> Curve:
    """The curve as a manifest keeps it: at most 512 rows, evenly chosen, first and last among them, finite figures only."""
    good = [tuple(row) for row in rows if all(math.isfinite(value) for value in row)]
    if len(good) > MAX_CURVE_ROWS:
        last = len(good) - 1
        good = [good[round(i * last / (MAX_CURVE_ROWS - 1))] for i in range(MAX_CURVE_ROWS)]
    return Curve(COLUMNS[: len(good[0]) if good else 3], tuple((int(row[0]), *row[1:]) for row in good))
