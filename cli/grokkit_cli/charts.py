"""Small drawings of letters: sparklines of blocks, charts of Braille dots."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

BLOCKS = "▁▂▃▄▅▆▇█"
BRAILLE = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""The bit of each dot of a Braille letter, by row and column."""

MARGIN = 10
"""Letters left of a chart, for the range of its values."""


def sparkline(values: Sequence[float], width: int) -> str:
    """A curve in at most `width` characters, logarithmic where all values are positive and span a decade."""
    good = [value for value in values if math.isfinite(value)]
    if not good:
        return ""
    if len(good) > width:
        good = [good[round(i * (len(good) - 1) / (width - 1))] for i in range(width)]
    low, high = min(good), max(good)
    if low > 0 and high / low > 10:
        good = [math.log(value) for value in good]
        low, high = min(good), max(good)
    span = high - low
    top = len(BLOCKS) - 1
    return "".join(BLOCKS[round((value - low) / span * top) if span else 0] for value in good)


@dataclass(frozen=True)
class Line:
    """A curve for a terminal: its points `(x, y)` and the style of rich in which it is drawn."""

    points: Sequence[tuple[float, float]]
    style: str


class Canvas:
    """A chart of `columns` by `rows` letters, of eight Braille dots each, or of one letter where there is only ASCII."""

    def __init__(self, columns: int, rows: int, *, ascii_only: bool = False) -> None:
        self.columns, self.rows, self.ascii_only = columns, rows, ascii_only
        self.across, self.down = (1, 1) if ascii_only else (2, 4)
        self._dots: dict[tuple[int, int], int] = {}
        self._styles: dict[tuple[int, int], str] = {}

    def draw(self, line: Sequence[tuple[float, float]], style: str) -> None:
        """Join points given as shares of width and height, from the lower left."""
        width, height = self.columns * self.across - 1, self.rows * self.down - 1
        places = [(round(x * width), round((1 - y) * height)) for x, y in line]
        for (x0, y0), (x1, y1) in zip(places, places[1:] or places, strict=False):
            steps = max(abs(x1 - x0), abs(y1 - y0), 1)
            for step in range(steps + 1):
                self._put(x0 + round((x1 - x0) * step / steps), y0 + round((y1 - y0) * step / steps), style)

    def upright(self, x: float, style: str) -> None:
        """A vertical line at a share of the width, behind what is drawn."""
        column = round(x * (self.columns - 1))
        for row in range(self.rows):
            if (column, row) not in self._dots:
                self._dots[column, row], self._styles[column, row] = 0, style

    def _put(self, x: int, y: int, style: str) -> None:
        cell = (x // self.across, y // self.down)
        bit = BRAILLE[y % self.down][x % self.across]
        self._dots[cell] = self._dots.get(cell, 0) | bit
        self._styles[cell] = style

    def lines(self) -> list[list[tuple[str, str]]]:
        """The rows from the top as letters with their styles."""
        return [[self._letter(column, row) for column in range(self.columns)] for row in range(self.rows)]

    def _letter(self, column: int, row: int) -> tuple[str, str]:
        dots, style = self._dots.get((column, row)), self._styles.get((column, row), "")
        if dots is None:
            return " ", ""
        if self.ascii_only:
            return ("*" if dots else "|"), style
        return (chr(0x2800 + dots) if dots else "┊"), style


def curve_rows(
    lines: Sequence[Line], *, columns: int, rows: int, log: bool, upright: float | None = None, ascii_only: bool = False
) -> list[list[tuple[str, str]]]:
    """A chart with the range of y on its left, logarithmic where that is asked for and possible; letters with styles.

    `upright` is an x at which a vertical line stands. Points that are not finite are left out; none gives no rows.
    """
    good = [[(x, y) for x, y in line.points if math.isfinite(y)] for line in lines]
    values = [y for points in good for _, y in points]
    if not values:
        return []
    log = log and min(values) > 0
    change = math.log10 if log else float
    low, high = change(min(values)), change(max(values))
    start, end = min(x for p in good for x, _ in p), max(x for p in good for x, _ in p)

    def share(value: float, first: float, last: float) -> float:
        return (value - first) / (last - first) if last > first else 0.5

    canvas = Canvas(columns - MARGIN, rows, ascii_only=ascii_only)
    for line, points in zip(lines, good, strict=True):
        canvas.draw([(share(x, start, end), share(change(y), low, high)) for x, y in points], line.style)
    if upright is not None and start <= upright <= end:
        canvas.upright(share(upright, start, end), "bold")
    labels = {0: f"{max(values):.2g}", rows - 1: f"{min(values):.2g}"}
    edge = "|" if ascii_only else "│"
    return [
        [(f"{labels.get(row, ''):>{MARGIN - 2}} {edge}", "dim"), *letters] for row, letters in enumerate(canvas.lines())
    ]
