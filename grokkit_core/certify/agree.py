"""Does a recomputed certificate agree with the recorded one?"""

from __future__ import annotations

import math
from collections.abc import Iterable

from grokkit_core.manifest import VERDICTS, Baseline, Certificate, Metric
from grokkit_core.strictjson import canonical

SIGMAS = 4.0
"""Two sampled figures agree within this many standard errors of their difference."""

ROUNDING = 1e-6
"""Share of an interval's width by which rounding may put a figure outside it (a share of exactly 0 or 1)."""

FEWEST = 10
"""A record may rest on a tenth of the recomputed samples (level quick against full), not on fewer."""

ERROR_SLACK = 3.0
"""A recorded standard error may be this many times what the recomputed samples show (tails differ from seed to seed)."""

BASELINE_SLACK = 0.05
"""Share by which a baseline that was fitted on other samples may differ beyond its sampling error."""


def disagreements(recorded: Certificate, recomputed: Certificate, *, floor: float = 0.0) -> tuple[str, ...]:
    """Why the two do not agree, in words; empty when they do.

    The verdict may not be weaker; each recomputed bound stays below the recorded one; each metric lies within four
    standard errors of the difference, or both lie below the task's rounding floor; its own error and interval are
    plausible; and nothing recorded is missing.
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
        elif reason := _difference(old, metric, floor):
            yield reason
    for old in known.values():
        yield f"the recorded {_label(old)} was not confirmed"


def _difference(old: Metric, new: Metric, floor: float) -> str:
    """Why a metric does not support the recorded one, or nothing. A record may not excuse itself with its own error."""
    if old.unit != new.unit:
        return f"{_label(new)} is in {new.unit}, recorded in {old.unit}"
    if max(abs(old.value), abs(new.value)) <= floor:
        return ""
    if not _close(old.value, new.value, math.hypot(old.stderr, new.stderr), floor):
        return f"{_label(new)} is {new.value:.4g} against the recorded {old.value:.4g}"
    if old.n * FEWEST < new.n:
        return f"the recorded {_label(new)} rests on {old.n} samples, {new.n} were drawn"
    low, high = old.interval
    plausible = _plausible_stderr(new, old.n)
    if not old.stderr <= ERROR_SLACK * plausible:
        return f"the recorded standard error of {_label(new)} is {old.stderr:.3g}, {plausible:.3g} was found"
    rounding = ROUNDING * (high - low)
    if not (low - rounding <= old.value <= high + rounding and high - low >= 2 * old.stderr):
        return f"the recorded interval of {_label(new)} does not go with its figure"
    return ""


def _plausible_stderr(metric: Metric, n: int) -> float:
    """The standard error that `n` samples would give, by the spread that was found; for a share, anywhere in its interval."""
    found = metric.stderr * math.sqrt(metric.n / n)
    if metric.name == "accuracy":
        return max(found, *(math.sqrt(max(0.0, share * (1 - share)) / n) for share in metric.interval))
    return found


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
