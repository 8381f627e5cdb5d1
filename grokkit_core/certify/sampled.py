"""Sampled certificates: the task's metric on fresh samples with intervals, beside the task's baselines."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from grokkit_core.certify.rates import clopper_pearson, tolerance_bound
from grokkit_core.certify.scores import CONFIDENCE, Scores, measure
from grokkit_core.errors import UsageError
from grokkit_core.manifest import Baseline, Certificate, Level, Metric
from grokkit_core.task import Place, Task

if TYPE_CHECKING:
    from grokkit_core.cassette import Cassette

SAMPLES: Mapping[Level, int] = {"full": 20_000, "quick": 2_000}
"""Samples per row of the table at each level, where the task does not say otherwise."""

COVERAGE = 0.99
"""Share of the distribution for which a distribution-free limit is stated (order statistics, Wilks 1941)."""

MODEL = "model"
BASELINE = "baseline:"


def certify_sampled(
    task: Task, cassette: Cassette, *, level: Level, seed: int, places: Sequence[Place] | None = None
) -> Certificate:
    """An `estimated` certificate: model and baselines on the same samples at every place (default: `task.evaluation`).

    `failed` when some prediction is not finite.
    """
    if level not in SAMPLES:
        raise UsageError(f"level '{level}'", expected="quick or full")
    scores = [
        measure(
            task,
            {MODEL: lambda inputs, context: cassette.predict(inputs, context, force=True)},
            row,
            where=where,
            n=task.test_samples(level, where),
            seed=seed,
            dtype=cassette.dtype,
            device=cassette.device,
        )
        for row, where in enumerate(task.evaluation if places is None else places)
    ]
    return certificate_of(task, scores, level=level, seed=seed, dtype=str(cassette.dtype).removeprefix("torch."))


def certificate_of(task: Task, scores: Sequence[Scores], *, level: Level, seed: int, dtype: str) -> Certificate:
    """The certificate that these scores of `MODEL` and the baselines support."""
    finite = all(math.isfinite(score.mean(MODEL)) for score in scores)
    places = "; ".join(describe_place(score.where) for score in scores if score.where)
    return Certificate(
        verdict="estimated" if finite else "failed",
        statement=_statement(task, scores) if finite else "some predictions are not finite",
        domain=f"samples of task {task.spec.id}" + (f" at {places}" if places else ""),
        method="sampled",
        formula=(),
        bounds=(),
        metrics=tuple(_metric(task, score) for score in scores) if finite else (),
        baselines=tuple(baseline for score in scores for baseline in _baselines(task, score)),
        seed=seed,
        dtype=dtype,
        level=level,
    )


def describe_place(where: Place) -> str:
    """A `where` row in words: `omega = 0.9`."""
    return ", ".join(
        f"{name} = {value:g}" if isinstance(value, float) else f"{name} = {value}" for name, value in where.items()
    )


def _metric(task: Task, score: Scores) -> Metric:
    found = score.figure(MODEL)
    low, high = found.interval
    return Metric(
        task.spec.metric,
        found.value,
        task.spec.unit,
        found.stderr,
        (low, high),
        CONFIDENCE,
        score.n,
        dict(score.where),
    )


def _baselines(task: Task, score: Scores) -> list[Baseline]:
    names = [name for name in score.errors if name.startswith(BASELINE)]
    return [
        Baseline(name.removeprefix(BASELINE), task.spec.metric, score.mean(name), dict(score.where))
        for name in names
        if math.isfinite(score.mean(name))
    ]


def _statement(task: Task, scores: Sequence[Scores]) -> str:
    """One sentence with the mean figure and, on its face, how it stands against the best baseline."""
    mean = sum(score.mean(MODEL) for score in scores) / len(scores)
    count = len(scores)
    over = f"over {count} contexts, {scores[0].n} samples each" if count > 1 else f"over {scores[0].n} samples"
    text = f"mean {task.spec.metric} {mean:.3g} {over}{_tail(task, scores)}"
    lost = better_baselines(task, scores)
    if not lost:
        ties = sum(
            any(score.mean(name) == score.mean(MODEL) for name in score.errors if name != MODEL) for score in scores
        )
        equal = f", a baseline is as good in {ties}" if ties else ""
        return f"{text}; better than every baseline in {count - ties} of {count}{equal}"
    return f"{text}; WORSE than " + ", ".join(f"{name} ({times} of {count})" for name, times in lost.items())


def _tail(task: Task, scores: Sequence[Scores]) -> str:
    """What holds for nearly all inputs of the sampled distribution, without an assumption on its shape."""
    found = [score.errors[MODEL] for score in scores]
    if task.spec.higher_is_better:
        if not all(bool(((values == 0) | (values == 1)).all()) for values in found):
            return ""
        limits = [clopper_pearson(int((v == 0).sum()), len(v), CONFIDENCE, one_sided=True)[1] for v in found]
        return f"; wrong on at most {max(limits):.2g} of inputs ({CONFIDENCE:.0%} confidence)"
    try:
        limit = max(tolerance_bound(values, coverage=COVERAGE, confidence=CONFIDENCE) for values in found)
    except UsageError:  # too few samples to say so
        return ""
    return f"; {COVERAGE:.0%} of samples below {limit:.3g} ({CONFIDENCE:.0%} confidence)"


def better_baselines(task: Task, scores: Sequence[Scores]) -> dict[str, int]:
    """The baselines that are better than the model somewhere, with the number of rows in which they are, most first."""
    beaten: dict[str, int] = {}
    for score in scores:
        own = score.mean(MODEL)
        for name in score.errors:
            value = score.mean(name)
            if name.startswith(BASELINE) and (value > own if task.spec.higher_is_better else value < own):
                label = name.removeprefix(BASELINE)
                beaten[label] = beaten.get(label, 0) + 1
    return dict(sorted(beaten.items(), key=lambda item: -item[1]))
