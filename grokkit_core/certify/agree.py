"""Does a recomputed certificate agree with the recorded one?"""

from __future__ import annotations

import math
from collections.abc import Iterable

from grokkit_core.manifest import VERDICTS, Baseline, Certificate, Metric
from grokkit_core.strictjson import canonical

SIGMAS = 4.0
"""Two sampled figures agree within this many standard errors of their difference."""

BASELINE_SLACK = 0.05
"""Share by which a baseline that was fitted on other samples may differ beyond its sampling error."""


def disagreements(recorded: Certificate, recomputed: Certificate, *, floor: float = 0.0) -> tuple[str, ...]:
    """Why the two do not agree, in words; empty when they do.

    The verdict may not be weaker; each recomputed bound stays below the recorded one; each metric lies within four
    standard errors of the difference, or both lie below the task's rounding floor; and nothing recorded is missing.
    """
    found = []
    if VERDICTS.index(recomputed.verdict) > VERDICTS.index(recorded.verdict):
        found.append(f"verdict {recomputed.verdict} is weaker than the recorded {recorded.verdict}")
    if recomputed.verdict == "failed":
        found.append("the recomputed certificate failed: " + recomputed.statement)
    if recorded.verdict in ("exact", "bounded"):
        found.extend(_bounds(recorded, recomputed))
    found.extend(_metrics(recorded, recomputed, floor))
    found.extend(_baselines(recorded, recomputed, floor))
    return tuple(found)


def _bounds(recorded: Certificate, recomputed: Certificate) -> Iterable[str]:
    known = {bound.name: bound.value for bound in recorded.bounds}
    for bound in recomputed.bounds:
        if bound.name not in known:
            yield f"bound {bound.name} is not recorded"
        elif not bound.value <= known.pop(bound.name):
            yield f"bound {bound.name} is {bound.value:.3g}, above the recorded one"
    for name in known:
        yield f"the recorded bound {name} was not confirmed"


def _metrics(recorded: Certificate, recomputed: Certificate, floor: float) -> Iterable[str]:
    known = {_key(metric): metric for metric in recorded.metrics}
    for metric in recomputed.metrics:
        old = known.pop(_key(metric), None)
        if old is None:
            yield f"{_label(metric)} is not recorded"
        elif not _close(old.value, metric.value, math.hypot(old.stderr, metric.stderr), floor):
            yield f"{_label(metric)} is {metric.value:.4g} against the recorded {old.value:.4g}"
    for old in known.values():
        yield f"the recorded {_label(old)} was not confirmed"


def _baselines(recorded: Certificate, recomputed: Certificate, floor: float) -> Iterable[str]:
    """Baselines carry no standard error of their own; that of a mean of squares is at most a few per cent here."""
    known = {_key(baseline): baseline for baseline in recorded.baselines}
    for baseline in recomputed.baselines:
        old = known.pop(_key(baseline), None)
        if old is None:
            yield f"baseline {_label(baseline)} is not recorded"
        elif not _close(old.value, baseline.value, _baseline_error(baseline, recorded, recomputed), floor):
            yield f"baseline {_label(baseline)} is {baseline.value:.4g} against the recorded {old.value:.4g}"
    for old in known.values():
        yield f"the recorded baseline {_label(old)} was not confirmed"


def _baseline_error(baseline: Baseline, *certificates: Certificate) -> float:
    """A standard error for the difference of two baseline figures, from the sample sizes of their row.

    That of a mean of squares is relative to it; that of a share is binomial (Agresti and Coull 1998, for small counts).
    """
    where, value = canonical(dict(baseline.where)), abs(baseline.value)
    sizes = [m.n for found in certificates for m in found.metrics if canonical(dict(m.where)) == where]
    n = min(sizes, default=2_000)
    if baseline.metric == "accuracy":
        share = (value * n + 2) / (n + 4)
        return value * BASELINE_SLACK / SIGMAS + math.sqrt(2 * share * (1 - share) / n)
    return value * (BASELINE_SLACK / SIGMAS + 2.0 * math.sqrt(2.0 / n))


def _close(first: float, second: float, error: float, floor: float) -> bool:
    return max(abs(first), abs(second)) <= floor or abs(first - second) <= SIGMAS * error


def _key(figure: Metric | Baseline) -> tuple[str, str, bytes]:
    metric = figure.metric if isinstance(figure, Baseline) else ""
    return figure.name, metric, canonical(dict(figure.where))


def _label(figure: Metric | Baseline) -> str:
    where = ", ".join(f"{name}={value}" for name, value in figure.where.items())
    return f"{figure.name}" + (f" at {where}" if where else "")
