"""The training curve of a cassette, as its manifest keeps it, with the step at which it grokked."""

from __future__ import annotations

import math
from collections.abc import Sequence

from grokkit_core.manifest import Manifest
from grokkit_core.pictures.chart import HUES, Axis, Chart, Mark, Series, short
from grokkit_core.text import printable

APART = 1e3
"""Curves whose ranges do not meet and lie this factor apart are different quantities, each with a panel of its own."""


def curve_charts(manifest: Manifest, *, metric: str = "", accuracy: bool = False) -> list[Chart]:
    """One panel for curves of one quantity; none for fewer than two rows.

    `metric` is what validation measures; with `accuracy` it is a share of right answers, not a loss.
    """
    found = manifest.provenance
    columns, rows = found.curve.columns, found.curve.rows
    if len(rows) < 2 or len(columns) < 2:
        return []
    lines = {name: tuple((row[0], row[index]) for row in rows) for index, name in enumerate(columns) if index}
    seed = f", seed {found.seed}" if found.seed is not None else ""
    caption = f"{len(rows)} evaluations recorded in training by {found.recipe.id if found.recipe else found.kind}{seed}"
    charts = []
    for index, group in enumerate(_groups(lines, accuracy)):
        measured = accuracy and "train" not in group
        series = tuple(
            Series(short(name.replace("_", " ")), lines[name], HUES[list(lines).index(name) % len(HUES)])
            for name in group
        )
        label = _quantity(group, metric, measured, alone=index > 0)
        marks = (Mark(float(found.grok_step), "grokked"),) if found.grok_step is not None else ()
        title = "training curve" if not index else f"training curve, {label}"
        axis = Axis(printable(label), None, 0.0 if measured else None)
        charts.append(Chart("curve", title, Axis(printable(columns[0])), axis, series, printable(caption), marks))
    return charts


def _groups(lines: dict[str, tuple[tuple[float, float], ...]], accuracy: bool) -> list[list[str]]:
    names = list(lines)
    if accuracy:
        return [group for group in ([n for n in names if n == "train"], [n for n in names if n != "train"]) if group]
    groups: list[list[str]] = []
    for name in names:
        home = next((group for group in groups if not _apart(lines[name], lines[group[0]])), None)
        if home is None:
            groups.append([name])
        else:
            home.append(name)
    return groups


def _apart(first: Sequence[tuple[float, float]], second: Sequence[tuple[float, float]]) -> bool:
    ranges = [[y for _, y in line if math.isfinite(y) and y > 0] for line in (first, second)]
    if not all(ranges):
        return False
    (low, high), (other_low, other_high) = ((min(values), max(values)) for values in ranges)
    return low > APART * other_high or other_low > APART * high


def _quantity(group: Sequence[str], metric: str, measured: bool, *, alone: bool) -> str:
    if measured:
        return metric or "accuracy"
    if group == ["train"]:
        return "training loss"
    return f"validation {metric}".strip() if alone and metric else "loss"
