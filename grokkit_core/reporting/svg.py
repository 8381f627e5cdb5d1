"""Charts as inline SVG whose colours come from the page's stylesheet, so that they follow its theme. Needs no matplotlib."""

from __future__ import annotations

from collections.abc import Sequence

from grokkit_core.markup import Markup, tag
from grokkit_core.pictures.chart import Chart, Series
from grokkit_core.pictures.scale import Tick

WIDTH, HEIGHT = 472, 288
LEFT, RIGHT, TOP, BOTTOM = 76, 130, 34, 44
ROWS_LEFT, ROWS_RIGHT = 130, 84
GAP = 14.5
"""Least distance of two labels, in units of the picture."""


class Frame:
    """Where shares of the axes lie in the picture."""

    def __init__(self, chart: Chart) -> None:
        self.left = ROWS_LEFT if chart.rows else LEFT
        self.right = WIDTH - (ROWS_RIGHT if chart.rows else RIGHT)
        self.top, self.bottom = TOP, HEIGHT - BOTTOM

    def x(self, share: float) -> float:
        """From the left."""
        return round(self.left + share * (self.right - self.left), 2)

    def y(self, share: float) -> float:
        """From the top."""
        return round(self.bottom - share * (self.bottom - self.top), 2)


def figure_of(chart: Chart, identifier: str) -> Markup:
    """A chart with its heading, its text alternative and its caption; `identifier` is unique in the page."""
    name, told = f"{identifier}-title", f"{identifier}-text"
    picture = tag(
        "svg",
        tag("title", chart.title, id=name),
        tag("desc", chart.text, id=told),
        *_grid(chart, frame := Frame(chart)),
        *(part for series in chart.series for part in _series(chart, series, frame)),
        *_labels(chart, frame),
        *_marks(chart, frame),
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        aria_labelledby=name,
        aria_describedby=told,
        class_="chart",
    )
    return tag("figure", tag("h4", chart.title), picture, tag("figcaption", chart.caption))


def _grid(chart: Chart, frame: Frame) -> list[Markup]:
    x, y = chart.scales
    parts = [_path([(0, 0), (1, 0)], frame, "axis")]
    for tick in x.ticks():
        share = x.at(tick.value)
        if chart.rows:
            parts.append(_path([(share, 0), (share, 1)], frame, "grid"))
        parts.append(_tick(tick, frame.x(share), frame.bottom + 16, "middle"))
    middle = (frame.left + frame.right) / 2
    parts.append(tag("text", chart.x.label, x=middle, y=HEIGHT - 8, class_="axis-label", text_anchor="middle"))
    if chart.rows:
        for row, name in enumerate(chart.rows):
            parts.append(
                tag("text", name, x=frame.left - 10, y=frame.y(y.at(row)) + 4, class_="tick", text_anchor="end")
            )
        for row_at, told in chart.figures():
            parts.append(tag("text", told, x=frame.right + 8, y=frame.y(y.at(row_at)) + 4, class_="told"))
        return parts
    for tick in y.ticks():
        share = y.at(tick.value)
        parts.append(_path([(0, share), (1, share)], frame, "grid"))
        parts.append(_tick(tick, frame.left - 7, frame.y(share) + 4, "end"))
    parts.append(tag("text", chart.y.label, x=4, y=12, class_="axis-label"))
    return parts


def _tick(tick: Tick, x: float, y: float, anchor: str) -> Markup:
    power = [tag("tspan", tick.power, dy=-4, class_="power")] if tick.power else []
    return tag("text", tick.label, *power, x=x, y=y, class_="tick", text_anchor=anchor)


def _path(shares: Sequence[tuple[float, float]], frame: Frame, kind: str) -> Markup:
    return tag("path", d=_course(shares, frame), class_=kind)


def _course(shares: Sequence[tuple[float, float]], frame: Frame, end: str = "") -> Markup:
    return Markup("M" + "L".join(f"{frame.x(a):g} {frame.y(b):g}" for a, b in shares) + end)


def _series(chart: Chart, series: Series, frame: Frame) -> list[Markup]:
    points = chart.drawn(series)
    intervals = chart.intervals(series)
    role = f"role-{series.role}"
    parts = []
    if series.band and intervals:
        around = [low for low, _ in intervals] + [high for _, high in reversed(intervals)]
        parts.append(tag("path", d=_course(around, frame, "Z"), class_=f"band {role}"))
    elif intervals:
        parts.extend(_path([low, high], frame, f"interval {role}") for low, high in intervals)
    if series.line and len(points) > 1:
        dashed = " dashed" if series.dashed else ""
        parts.append(_path(points, frame, f"line {role}{dashed}"))
    if series.marks:
        parts.extend(tag("circle", cx=frame.x(a), cy=frame.y(b), r=3.4, class_=f"dot {role}") for a, b in points)
    return parts


def _labels(chart: Chart, frame: Frame) -> list[Markup]:
    gap = GAP / (frame.bottom - frame.top)
    return [
        tag("text", series.label, x=frame.right + 8, y=frame.y(height) + 4, class_=f"label role-{series.role}")
        for series, height in chart.labels(gap)
    ]


def _marks(chart: Chart, frame: Frame) -> list[Markup]:
    x, _ = chart.scales
    parts = []
    for mark in chart.marks:
        share = x.clipped(mark.x)
        parts.append(_path([(share, 0), (share, 1)], frame, "mark"))
        anchor = "end" if share > 0.5 else "start"
        told = f"{mark.label} at {mark.x:,.0f}"
        parts.append(tag("text", told, x=frame.x(share), y=frame.top - 6, class_="told", text_anchor=anchor))
    parts.extend(_path([(x.clipped(value), 0), (x.clipped(value), 0.03)], frame, "rug") for value in chart.ticks)
    return parts
