"""What a picture shows, before anybody draws it: axes, lines, marks and a caption. No numpy, no torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from grokkit_core.pictures.scale import Scale, exactly, scale_for
from grokkit_core.text import printable

Role = Literal["model", "second", "third", "fourth", "fifth", "sixth", "baseline", "exact"]
HUES: tuple[Role, ...] = ("model", "second", "third", "fourth", "fifth", "sixth")
"""Roles of lines that are told apart by colour, dash and label."""

AXIS_LETTERS = 40
Point = tuple[float, float]
Kind = Literal["curve", "errors", "comparison", "gate", "rollout", "rollout-error", "drift"]


@dataclass(frozen=True)
class Series:
    """A line through `points`, written on its right end. `spread` has low and high ends of an interval for each point.

    `band` draws the spread as an area instead of error bars, `marks` a dot at each point, `line` the line itself.
    """

    label: str
    points: tuple[Point, ...]
    role: Role = "model"
    spread: tuple[Point, ...] = ()
    band: bool = False
    marks: bool = False
    line: bool = True
    dashed: bool = False


@dataclass(frozen=True)
class Mark:
    """A vertical line with a word, e.g. the step at which a network grokked."""

    x: float
    label: str


@dataclass(frozen=True)
class Axis:
    """What an axis says, in few letters, and whether it is logarithmic (None: where its values ask for it)."""

    label: str
    log: bool | None = False
    floor: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "label", short(self.label, AXIS_LETTERS))


@dataclass(frozen=True)
class Chart:
    """One panel. `rows` names the places of a chart of dots, whose y are 0, 1, ... from the top."""

    kind: Kind
    title: str
    x: Axis
    y: Axis
    series: tuple[Series, ...]
    caption: str
    marks: tuple[Mark, ...] = ()
    ticks: tuple[float, ...] = ()
    rows: tuple[str, ...] = ()
    scales: tuple[Scale, Scale] = field(init=False)

    def __post_init__(self) -> None:
        if self.rows:
            x = scale_for([v for s in self.series for v in _values(s, 0)], log=self.x.log, floor=self.x.floor)
            y = Scale(len(self.rows) - 0.4, -0.6)
        else:
            x = exactly([point[0] for s in self.series for point in s.points] or [0.0], log=bool(self.x.log))
            y = scale_for([v for s in self.series for v in _values(s, 1)], log=self.y.log, floor=self.y.floor)
        object.__setattr__(self, "scales", (x, y))

    def drawn(self, series: Series) -> list[tuple[float, float]]:
        """The points of a series that the axes hold, as shares of the axes."""
        x, y = self.scales
        return [(x.clipped(a), y.clipped(b)) for a, b in series.points if x.holds(a) and y.holds(b)]

    def intervals(self, series: Series) -> list[tuple[Point, Point]]:
        """Both ends of the interval of each drawn point, as shares of the axes."""
        x, y = self.scales
        found = []
        for (a, b), (low, high) in zip(series.points, series.spread, strict=False):
            if not (x.holds(a) and y.holds(b)) or math.isnan(low + high):
                continue
            if self.rows:
                found.append(((x.clipped(low), y.at(b)), (x.clipped(high), y.at(b))))
            else:
                found.append(((x.clipped(a), y.clipped(low)), (x.clipped(a), y.clipped(high))))
        return found

    def labels(self, gap: float) -> list[tuple[Series, float]]:
        """The series that are labelled on their right end, with heights at least `gap` apart, as shares of the axis."""
        ends = [(series, self.drawn(series)) for series in self.series if series.label]
        known = [(series, points[-1][1]) for series, points in ends if points]
        heights = spread([height for _, height in known], gap)
        return [(series, height) for (series, _), height in zip(known, heights, strict=True)]

    def figures(self) -> list[tuple[float, str]]:
        """For a chart of dots the value of each row, in words."""
        return [(b, figure(a)) for series in self.series for a, b in series.points]

    @property
    def text(self) -> str:
        """The chart in words, for those who cannot see it."""
        if self.rows:
            told = [f"{self.rows[int(row)]} {value}" for row, value in sorted(self.figures())]
            return f"{self.title}. {'; '.join(told)}."
        told = [
            f"{series.label or 'line'} from {figure(series.points[0][1])} to {figure(series.points[-1][1])}"
            for series in self.series
            if series.points
        ]
        marks = [f"{mark.label} at {figure(mark.x)}" for mark in self.marks]
        return f"{self.title}. {self.y.label} against {self.x.label}: {'; '.join([*told, *marks])}."


def _values(series: Series, axis: int) -> Iterable[float]:
    yield from (point[axis] for point in series.points)
    centres = [point[axis] for point in series.points]
    for centre, (low, high) in zip(centres, series.spread, strict=False):
        yield from (end for end in (low, high) if end > 0 or centre <= 0)


def figure(value: float, digits: int = 3) -> str:
    """A number with so many digits, `1.53e-6`."""
    return f"{value:.{digits}g}".replace("e-0", "e-").replace("e+0", "e").replace("e+", "e")


def short(text: object, cap: int = 16) -> str:
    """A label that is safe and short."""
    return printable(text, cap)


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """Heights moved as little as needed, in their order, until neighbours are `gap` apart; inside [0, 1] if they fit."""
    order = sorted(range(len(heights)), key=lambda index: heights[index])
    placed: list[float] = []
    for index in order:
        placed.append(max(heights[index], placed[-1] + gap) if placed else heights[index])
    ceiling = max(1.0, placed[0] + gap * (len(placed) - 1)) if placed else 1.0
    for index in reversed(range(len(placed))):
        placed[index] = min(placed[index], ceiling)
        ceiling = placed[index] - gap
    result = [0.0] * len(heights)
    for index, height in zip(order, placed, strict=True):
        result[index] = height
    return result
