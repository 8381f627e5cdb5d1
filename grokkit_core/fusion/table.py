"""The table of a composition: members, fusion and baselines on the same test samples, with the paired win test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from grokkit_core.cassette import Cassette
from grokkit_core.certify.compare import holm, is_non_inferior, win_p_value
from grokkit_core.certify.sampled import BASELINE
from grokkit_core.certify.scores import Scores, measure
from grokkit_core.fusion.analysis import Analysis, analyse
from grokkit_core.fusion.ensemble import Ensemble
from grokkit_core.streams import stream
from grokkit_core.strictjson import canonical
from grokkit_core.task import Place, Task, tensors_of

FUSED = "fused:"
MEMBER = "member:"
SATURATED = 0.01
"""A gate is saturated where some weight is below this or above one minus this."""

WEIGHT_SAMPLES = 1_024
Standing = Literal["fitted", "interpolated", "extrapolated", ""]


@dataclass(frozen=True)
class Row:
    """One context of the table. `wins`: better than every member, significant in the whole table (Holm over paired tests).

    `strict`: below every member as a plain number; `non_inferior`: at most 0.5 % worse than the best member;
    `amplification`: the largest sum of absolute weights, by which the fusion amplifies noise (1 for convex weights);
    `calibration`: whether the gate was fitted on this context, or on some around it ("interpolated"), or only on one side
    of it ("extrapolated"); empty for gates that read no context. `analysis` is there for squared errors of few members.
    """

    where: Place
    metric: str
    n: int
    members: Mapping[str, float]
    fused: float
    interval: tuple[float, float]
    baselines: Mapping[str, float]
    weights: Mapping[str, float]
    p: float
    wins: bool
    strict: bool
    non_inferior: bool
    amplification: float = 1.0
    calibration: Standing = ""
    analysis: Analysis | None = None

    @property
    def fitted(self) -> bool:
        """Whether the gate saw this context."""
        return self.calibration == "fitted"

    @property
    def best_member(self) -> str:
        """The member with the lowest error, or with the highest accuracy."""
        sign = -1 if self.metric == "accuracy" else 1
        return min(self.members, key=lambda name: sign * self.members[name])

    @property
    def ratio(self) -> float:
        """Fused figure over the best member's."""
        best = self.members[self.best_member]
        return self.fused / best if best else float(self.fused > 0) + 1.0

    def to_json(self) -> dict[str, Any]:
        """The row of `grokkit compose --json`."""
        return {
            "where": dict(self.where),
            "metric": self.metric,
            "n": self.n,
            "members": dict(self.members),
            "fused": self.fused,
            "interval": list(self.interval),
            "ratio": self.ratio,
            "baselines": dict(self.baselines),
            "weights": dict(self.weights),
            "p": self.p,
            "wins": self.wins,
            "strict": self.strict,
            "non_inferior": self.non_inferior,
            "fitted": self.fitted,
            "amplification": self.amplification,
            "calibration": self.calibration or None,
            "analysis": self.analysis.to_json() if self.analysis else None,
        }


def make_table(
    task: Task,
    fused: Cassette,
    members: Mapping[str, Cassette],
    seen: Mapping[bytes, Place],
    *,
    variable: str = "",
    seed: int,
) -> tuple[Row, ...]:
    """Members, fusion and baselines at every place of `task.evaluation`, on the test samples of `seed`.

    `seen` are the contexts that the gate saw, by their canonical form, and `variable` is what it reads. The samples are those that `verify` of the fused cassette draws for the same seed.
    """
    predictors = {MEMBER + label: member.predict for label, member in members.items()}
    rows = []
    for index, where in enumerate(task.evaluation):
        scores = measure(
            task,
            {**predictors, FUSED: fused.predict},
            index,
            n=task.test_samples("full", where),
            seed=seed,
            dtype=fused.dtype,
            device=fused.device,
        )
        weights, amplification = _weights(task, fused, list(members), where, seed)
        analysis = analyse(task, members, scores, index, fused=FUSED, dtype=fused.dtype, seed=seed)
        rows.append(_row(task, scores, weights, amplification, standing(where, seen, variable), analysis))
    significant = holm([row.p for row in rows])
    return tuple(replace(row, wins=won) for row, won in zip(rows, significant, strict=True))


def standing(where: Place, seen: Mapping[bytes, Place], variable: str) -> Standing:
    """How a context stands to those that a gate was fitted on."""
    if canonical(dict(where)) in seen:
        return "fitted"
    values = [place[variable] for place in seen.values() if variable in place]
    if not values or variable not in where:
        return ""
    return "interpolated" if min(values) <= where[variable] <= max(values) else "extrapolated"


def _row(
    task: Task,
    scores: Scores,
    weights: Mapping[str, float],
    amplification: float,
    calibration: Standing,
    analysis: Analysis | None,
) -> Row:
    higher = task.spec.higher_is_better
    rivals = {name: errors for name, errors in scores.errors.items() if name.startswith(MEMBER)}
    figures = {name.removeprefix(MEMBER): scores.mean(name) for name in rivals}
    own = scores.figure(FUSED)
    strict = all(own.value > value if higher else own.value < value for value in figures.values())
    return Row(
        where=scores.where,
        metric=task.spec.metric,
        n=scores.n,
        members=figures,
        fused=own.value,
        interval=own.interval,
        baselines={
            name.removeprefix(BASELINE): scores.mean(name) for name in scores.errors if name.startswith(BASELINE)
        },
        weights=weights,
        p=win_p_value(scores.errors[FUSED], rivals, higher_is_better=higher),
        wins=False,
        strict=strict,
        non_inferior=is_non_inferior(own.value, list(figures.values()), higher_is_better=higher),
        amplification=amplification,
        calibration=calibration,
        analysis=analysis,
    )


def _weights(
    task: Task, fused: Cassette, names: Sequence[str], where: Place, seed: int
) -> tuple[dict[str, float], float]:
    """The gate's weight of each member, averaged over samples (and outputs) at one place, and the largest sum |w|."""
    module = fused.module_for(fused.dtype)
    if not isinstance(module, Ensemble):
        return {}, 1.0
    count = min(WEIGHT_SAMPLES, task.test_samples("full", where))
    batch = task.sample(count, generator=stream(seed, "weights"), **where).to(fused.dtype, fused.device)
    with torch.inference_mode():
        weights: Tensor = module.parts(*tensors_of(batch.inputs), context=batch.context)[1]
    means = weights.flatten(1).mean(1).tolist()
    return dict(zip(names, means, strict=True)), weights.abs().sum(0).max().item()


def better_baselines(rows: Sequence[Row], *, higher_is_better: bool = False) -> dict[str, int]:
    """The baselines that beat the fusion somewhere, with the number of rows in which they do, most first."""
    beaten: dict[str, int] = {}
    for row in rows:
        for name, value in row.baselines.items():
            if value > row.fused if higher_is_better else value < row.fused:
                beaten[name] = beaten.get(name, 0) + 1
    return dict(sorted(beaten.items(), key=lambda item: -item[1]))


def is_saturated(rows: Sequence[Row]) -> bool:
    """Whether one weight is below 1 % or above 99 % in every row; never for weights of either sign."""
    names = rows[0].weights if rows and all(row.amplification <= 1 + SATURATED for row in rows) else {}
    return any(
        all(row.weights[name] < SATURATED or row.weights[name] > 1 - SATURATED for row in rows) for name in names
    )
