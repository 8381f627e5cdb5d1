"""The certificate of a cassette in a report: its verdict in words, bounds, formula, figures beside baselines."""

from __future__ import annotations

import math
from collections.abc import Sequence

from grokkit_core.manifest import Baseline, Certificate, Metric
from grokkit_core.markup import Markup, join, table, tag
from grokkit_core.pictures.chart import figure
from grokkit_core.pictures.errors import context_of, told_place

MEANINGS = {
    "exact": ("=", "holds for every input of the domain, in exact arithmetic"),
    "bounded": ("≤", "holds for every input of the domain, within a proved error bound"),
    "estimated": ("≈", "holds for sampled inputs, within a confidence limit"),
    "failed": ("✕", "the cassette does not compute its law"),
}


def badge(certificate: Certificate) -> Markup:
    """The verdict with a sign of its own, so that it is told apart without colour."""
    sign, _ = MEANINGS[certificate.verdict]
    kind = f"badge verdict-{certificate.verdict}"
    return tag("span", tag("span", sign, aria_hidden="true"), " ", certificate.verdict, class_=kind)


def beaten_by(certificate: Certificate, floor: float = 0.0) -> dict[str, tuple[int, int]]:
    """Baselines that are better than the cassette somewhere, with how often and of how many contexts.

    Two figures below the task's rounding `floor` are equal.
    """
    found: dict[str, tuple[int, int]] = {}
    for metric in certificate.metrics:
        for item in _beside(certificate, metric):
            better = item.value > metric.value if metric.name == "accuracy" else item.value < metric.value
            worse = better and max(abs(item.value), abs(metric.value)) > floor
            times, of = found.get(item.name, (0, 0))
            found[item.name] = (times + worse, of + 1)
    return {name: count for name, count in found.items() if count[0]}


def worse_than(certificate: Certificate, floor: float = 0.0) -> str:
    """In words what `beaten_by` says, or nothing."""
    return ", ".join(f"{name} ({times} of {of})" for name, (times, of) in beaten_by(certificate, floor).items())


def _beside(certificate: Certificate, metric: Metric) -> list[Baseline]:
    place = context_of(metric.where)
    return [b for b in certificate.baselines if b.metric == metric.name and context_of(b.where) == place]


def section(certificate: Certificate, identifier: str, floor: float = 0.0) -> Markup:
    """Verdict, statement, warning, domain, formula, bounds and figures."""
    _, meaning = MEANINGS[certificate.verdict]
    worse = worse_than(certificate, floor)
    warning = tag(
        "p",
        tag("strong", "Worse than a baseline: "),
        f"on recorded figures it loses to {worse}.",
        class_="warning",
    )
    how = f"{certificate.method}, {certificate.dtype}, seed {certificate.seed}, level {certificate.level}"
    return tag(
        "section",
        tag("h3", "Certificate", id=f"{identifier}-certificate"),
        tag("p", badge(certificate), " ", meaning, class_="verdict"),
        tag("p", certificate.statement, class_="statement"),
        warning if worse else "",
        tag("p", tag("b", "Holds for "), certificate.domain) if certificate.domain else "",
        tag("p", tag("b", "Obtained by "), how),
        _formula(certificate.formula),
        _bounds(certificate),
        *_figures(certificate),
        aria_labelledby=f"{identifier}-certificate",
    )


def _formula(lines: Sequence[str]) -> Markup:
    if not lines:
        return Markup()
    return join([tag("h4", "Formula"), scrolling("Formula", tag("pre", tag("code", join_lines(lines))))])


def join_lines(lines: Sequence[str]) -> Markup:
    """Texts, one a line."""
    return Markup("\n".join(join([line]) for line in lines))


def scrolling(name: str, content: Markup) -> Markup:
    """Something wide in a region that scrolls by itself and can be reached with the keyboard."""
    return tag("div", content, class_="scroll", tabindex=0, role="region", aria_label=name)


def _bounds(certificate: Certificate) -> Markup:
    if not certificate.bounds:
        return Markup()
    rows = [(bound.name, figure(bound.value, 6), bound.unit) for bound in certificate.bounds]
    made = table("Proved upper bounds", ("bound", "at most", "unit"), rows, numbers=(1,))
    return scrolling("Proved upper bounds", made)


def _figures(certificate: Certificate) -> list[Markup]:
    """A table for each metric that has contexts or baselines, and one for all others."""
    names = dict.fromkeys(metric.name for metric in certificate.metrics)
    groups = {name: [metric for metric in certificate.metrics if metric.name == name] for name in names}
    wide = {n: g for n, g in groups.items() if len(g) > 1 or any(_beside(certificate, metric) for metric in g)}
    parts = [_beside_baselines(certificate, name, group) for name, group in wide.items()]
    single = [group[0] for name, group in groups.items() if name not in wide]
    if single:
        rows = [(m.name, figure(m.value), m.unit, _interval(m), f"{m.n:,}") for m in single]
        columns = ("metric", "value", "unit", "interval", "samples")
        parts.append(scrolling("Further figures", table("Further figures", columns, rows, numbers=(1, 3, 4))))
    alone = [b for b in certificate.baselines if b.metric not in names]
    if alone:
        rows_alone = [(b.name, b.metric, figure(b.value), told_place(context_of(b.where)) or "all") for b in alone]
        made = table("Baselines", ("baseline", "metric", "value", "at"), rows_alone, numbers=(2,))
        parts.append(scrolling("Baselines", made))
    return parts


def _beside_baselines(certificate: Certificate, name: str, metrics: Sequence[Metric]) -> Markup:
    beside = [_beside(certificate, metric) for metric in metrics]
    baselines = list(dict.fromkeys(item.name for found in beside for item in found))
    confidence = f"{metrics[0].confidence:.0%} interval"
    columns = ["at", "this cassette", confidence, *baselines, *(["times the best"] if baselines else []), "samples"]
    rows = []
    for metric, found in zip(metrics, beside, strict=True):
        values = {item.name: item.value for item in found}
        cells = [figure(values[b]) if b in values else "" for b in baselines]
        ratio = [_ratio(metric, list(values.values()))] if baselines else []
        place = told_place(context_of(metric.where)) or "all"
        rows.append((place, tag("b", figure(metric.value)), _interval(metric), *cells, *ratio, f"{metric.n:,}"))
    unit = f" [{metrics[0].unit}]" if metrics[0].unit not in ("", "1") else ""
    caption = f"{name}{unit} beside baselines" if baselines else f"{name}{unit}"
    return scrolling(caption, table(caption, columns, rows, numbers=range(1, len(columns))))


def _interval(metric: Metric) -> str:
    return f"{figure(metric.interval[0])} to {figure(metric.interval[1])}"


def _ratio(metric: Metric, values: Sequence[float]) -> str:
    """The figure over the best baseline's; nothing where that is zero or there is none."""
    if not values:
        return ""
    best = max(values) if metric.name == "accuracy" else min(values)
    return figure(metric.value / best) if best and math.isfinite(best) else ""
