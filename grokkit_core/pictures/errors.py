"""Measured errors beside their baselines: against a context variable, or one below the other where there is none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from grokkit_core.manifest import Baseline, Certificate, Manifest, Metric
from grokkit_core.pictures.chart import HUES, Axis, Chart, Series, short
from grokkit_core.text import printable

ENOUGH = 3
"""Values of a context variable from which on a line through them says something."""

MOST_CHARTS = 3
MOST_BASELINES = 8
Where = tuple[tuple[str, Any], ...]


def error_charts(manifest: Manifest) -> list[Chart]:
    """A panel for each context variable with three values or more, else one that sets the metric beside its baselines."""
    certificate = manifest.certificate
    charts = []
    for name in dict.fromkeys(metric.name for metric in certificate.metrics):
        metrics = [metric for metric in certificate.metrics if metric.name == name]
        for variable in _variables(metrics):
            chart = _against(manifest, metrics, variable)
            if chart is not None:
                charts.append(chart)
    return charts[:MOST_CHARTS] or _comparisons(certificate)


def _variables(metrics: Sequence[Metric]) -> list[str]:
    """Context variables that are numbers, those with most values first."""
    values: dict[str, set[float]] = {}
    for metric in metrics:
        for name, value in metric.where.items():
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                values.setdefault(name, set()).add(float(value))
    return sorted((name for name in values if len(values[name]) >= ENOUGH), key=lambda name: -len(values[name]))


def context_of(where: Mapping[str, Any], variable: str = "") -> Where:
    """A context without one of its variables, in a form that can be compared."""
    return tuple(sorted((name, _plain(value)) for name, value in where.items() if name != variable))


def _plain(value: Any) -> Any:
    return value if isinstance(value, (int, float, str)) else str(value)


def told_place(rest: Where) -> str:
    """A context in words, `omega 1.5, phase random`."""
    return ", ".join(f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}" for name, value in rest)


def _against(manifest: Manifest, metrics: Sequence[Metric], variable: str) -> Chart | None:
    """The metric and its baselines against one variable, the others held; None where no three points share them."""
    groups: dict[Where, list[Metric]] = {}
    for metric in metrics:
        if isinstance(metric.where.get(variable), (int, float)):
            groups.setdefault(context_of(metric.where, variable), []).append(metric)
    lines = {rest: found for rest, found in groups.items() if len(found) >= ENOUGH}
    if not lines:
        return None
    held = next(iter(lines))
    series = [
        _measured("this cassette" if rest == held else told_place(rest), found, variable, index)
        for index, (rest, found) in enumerate(list(lines.items())[: len(HUES)])
    ]
    metric = lines[held][0]
    beside = [
        b for b in manifest.certificate.baselines if b.metric == metric.name and context_of(b.where, variable) == held
    ]
    series += _baselines(beside, variable)
    zero = [item.label for item in series if any(value == 0 for _, value in item.points)]
    caption = f"{metric.confidence:.0%} intervals, {_samples(lines[held])} a point, seed {manifest.certificate.seed}"
    caption += f"; {told_place(held)}" if held else ""
    drawn = [value for item in series for _, value in item.points]
    chart = Chart(
        "errors",
        printable(f"{metric.name} against {variable}"),
        Axis(printable(_with_unit(variable, _unit_of(manifest, variable))), _is_wide(lines[held], variable)),
        Axis(printable(_with_unit(metric.name, metric.unit)), True if _spans(drawn) else None, 0.0),
        tuple(series),
        printable(caption, 400),
    )
    if chart.scales[1].log and zero:
        return _noted(chart, f"; zero and therefore not on this axis: {', '.join(dict.fromkeys(zero))}")
    return chart


def _noted(chart: Chart, note: str) -> Chart:
    return Chart(
        chart.kind, chart.title, chart.x, chart.y, chart.series, printable(chart.caption + note, 400), rows=chart.rows
    )


def _spans(values: Sequence[float]) -> bool:
    """Whether positive values span decades, zeros aside, so that a linear axis would show only the largest."""
    positive = [value for value in values if value > 0]
    return min(values, default=0.0) >= 0 and len(positive) > 1 and max(positive) > 20 * min(positive)


def _is_wide(metrics: Sequence[Metric], variable: str) -> bool:
    values = [float(metric.where[variable]) for metric in metrics]
    return min(values) > 0 and max(values) / min(values) > 20


def _samples(metrics: Sequence[Metric]) -> str:
    counts = sorted({metric.n for metric in metrics})
    return f"{counts[0]:,} samples" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,} samples"


def _with_unit(name: str, unit: str) -> str:
    return f"{name} [{unit}]" if unit not in ("", "1") else name


def _unit_of(manifest: Manifest, variable: str) -> str:
    return next((item.unit for item in manifest.context if item.name == variable), "")


def _measured(label: str, metrics: Sequence[Metric], variable: str, index: int) -> Series:
    ordered = sorted(metrics, key=lambda metric: float(metric.where[variable]))
    points = tuple((float(metric.where[variable]), metric.value) for metric in ordered)
    intervals = tuple((metric.interval[0], metric.interval[1]) for metric in ordered)
    return Series(short(label), points, HUES[index], intervals, marks=True)


def _baselines(beside: Sequence[Baseline], variable: str) -> list[Series]:
    lines: dict[str, list[tuple[float, float]]] = {}
    for item in beside:
        if isinstance(item.where.get(variable), (int, float)):
            lines.setdefault(item.name, []).append((float(item.where[variable]), item.value))
    return [
        Series(short(name), tuple(sorted(points)), "baseline", dashed=True)
        for name, points in list(lines.items())[:MOST_BASELINES]
    ]


def _comparisons(certificate: Certificate) -> list[Chart]:
    """The first metric that has baselines, at its first context, one row each."""
    for metric in certificate.metrics:
        beside = [
            b
            for b in certificate.baselines
            if b.metric == metric.name and context_of(b.where) == context_of(metric.where)
        ]
        if beside:
            return [_comparison(certificate, metric, beside[:MOST_BASELINES])]
    return []


def _comparison(certificate: Certificate, metric: Metric, beside: Sequence[Baseline]) -> Chart:
    best_first = -1 if metric.name == "accuracy" else 1
    told = [("this cassette", metric.value), *((short(item.name), item.value) for item in beside)]
    told.sort(key=lambda item: best_first * item[1])
    rows, values = [name for name, _ in told], [value for _, value in told]
    spot = rows.index("this cassette")
    interval = (metric.interval[0], metric.interval[1])
    own = Series("", ((metric.value, float(spot)),), "model", (interval,), marks=True, line=False)
    rest = tuple((value, float(row)) for row, value in enumerate(values) if row != spot)
    others = Series("", rest, "baseline", marks=True, line=False)
    place = told_place(context_of(metric.where))
    caption = f"{metric.confidence:.0%} interval, {metric.n:,} samples, seed {certificate.seed}" + (
        f"; {place}" if place else ""
    )
    chart = Chart(
        "comparison",
        printable(f"{metric.name} beside baselines"),
        Axis(printable(_with_unit(metric.name, metric.unit)), True if _spans(values) else None, 0.0),
        Axis(""),
        (own, others),
        printable(caption, 400),
        rows=tuple(rows),
    )
    zero = [row for row, value in zip(rows, values, strict=True) if value == 0]
    return (
        _noted(chart, f"; zero and therefore not on this axis: {', '.join(zero)}")
        if chart.scales[0].log and zero
        else chart
    )
