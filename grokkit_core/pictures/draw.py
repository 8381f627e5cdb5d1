"""Charts drawn by matplotlib, on figures of their own: no pyplot, no global setting is left changed."""

from __future__ import annotations

import io
import math
import textwrap
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from grokkit_core.pictures.chart import Chart, Series
from grokkit_core.pictures.palette import LINE, MUTED, PAPER, ROLES, TEXT
from grokkit_core.pictures.scale import MINUS, Tick

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CELL = (5.6, 3.85)
"""Width and height of a panel in inches, with its labels."""

LEFT, RIGHT, TOP, BOTTOM = 0.8, 1.45, 0.65, 0.95
HEAD = 0.75
WIDE_LEFT = 1.35
"""Room for the names of rows."""

RESOLUTION = 160
CAPTION_LETTERS = 84
SUBTITLE_LETTERS = 74
GAP = 0.072
"""Least distance of two labels, as a share of the axis."""

SETTINGS: Mapping[Any, Any] = {
    "svg.hashsalt": "grokkit",
    "svg.fonttype": "path",
    "font.family": ["DejaVu Sans"],
    "font.size": 9.0,
}


def drawing(charts: Sequence[Chart], *, title: str, subtitle: str, kind: str) -> bytes:
    """The panels as one picture, `kind` "svg" or "png"; equal charts give equal bytes. Needs at least one chart."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    metadata: dict[str, Any] = {"Title": title, "Description": " ".join(chart.text for chart in charts)}
    metadata |= {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    with _own_settings():
        figure = _figure(charts, title, subtitle)
        canvas = (FigureCanvasSVG if kind == "svg" else FigureCanvasAgg)(figure)
        data = io.BytesIO()
        canvas.print_figure(data, format=kind, dpi=RESOLUTION, metadata=metadata)
    return data.getvalue()


@contextmanager
def _own_settings() -> Iterator[None]:
    """Matplotlib's defaults and ours, whatever the user's are; put back afterwards. Letters without a glyph are boxes."""
    import matplotlib

    with warnings.catch_warnings(), matplotlib.rc_context():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(SETTINGS)
        yield


def _figure(charts: Sequence[Chart], title: str, subtitle: str) -> Figure:
    from matplotlib.figure import Figure

    columns = min(2, len(charts))
    rows = math.ceil(len(charts) / columns)
    width, height = columns * CELL[0], rows * CELL[1] + HEAD
    figure = Figure(figsize=(width, height), facecolor=PAPER.light)
    plain: dict[str, Any] = {"parse_math": False, "ha": "left", "va": "top"}
    figure.text(0.2 / width, 1 - 0.18 / height, title, size=14, weight="bold", color=TEXT.light, **plain)
    lines = textwrap.shorten(subtitle, SUBTITLE_LETTERS * columns, placeholder=" …")
    figure.text(0.2 / width, 1 - 0.46 / height, lines, size=9, color=MUTED.light, **plain)
    for index, chart in enumerate(charts):
        left = (index % columns) * CELL[0] + (WIDE_LEFT if chart.rows else LEFT)
        bottom = height - HEAD - (index // columns + 1) * CELL[1] + BOTTOM
        across = CELL[0] - (WIDE_LEFT + 0.95 if chart.rows else LEFT + RIGHT)
        up = CELL[1] - TOP - BOTTOM
        axes = figure.add_axes((left / width, bottom / height, across / width, up / height))
        _panel(axes, chart)
        caption = "\n".join(textwrap.wrap(chart.caption, CAPTION_LETTERS)[:2])
        start = left - (WIDE_LEFT if chart.rows else LEFT) + 0.2
        figure.text(start / width, (bottom - 0.52) / height, caption, size=7.5, color=MUTED.light, **plain)
    return figure


def _panel(axes: Axes, chart: Chart) -> None:
    """One chart in shares of its axes, so that every backend puts everything at the same place."""
    x, y = chart.scales
    axes.set(xlim=(0, 1), ylim=(0, 1), facecolor="none")
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(LINE.light)
    axes.tick_params(length=0, labelsize=8, labelcolor=MUTED.light, pad=4)
    axes.set_title(
        chart.title,
        loc="left",
        size=10,
        weight="bold",
        color=TEXT.light,
        parse_math=False,
        pad=10 if chart.rows else 26,
    )
    axes.set_xlabel(chart.x.label, color=MUTED.light, size=8.5, parse_math=False)
    ticks = x.ticks()
    axes.set_xticks([x.at(tick.value) for tick in ticks], [_label(tick) for tick in ticks])
    if chart.rows:
        names = [y.at(float(row)) for row in range(len(chart.rows))]
        axes.set_yticks(names, chart.rows, parse_math=False)
        axes.vlines([x.at(tick.value) for tick in ticks], 0, 1, color=LINE.light, lw=0.6, zorder=0)
        for row, told in chart.figures():
            axes.text(1.04, y.at(row), told, color=TEXT.light, size=8, va="center")
    else:
        marks = y.ticks()
        axes.set_yticks([y.at(tick.value) for tick in marks], [_label(tick) for tick in marks])
        axes.hlines([y.at(tick.value) for tick in marks], 0, 1, color=LINE.light, lw=0.6, zorder=0)
        axes.text(0, 1.095, chart.y.label, color=MUTED.light, size=8.5, parse_math=False)
    for series in chart.series:
        _line(axes, chart, series)
    for series, height in chart.labels(GAP):
        colour = ROLES[series.role].light
        axes.text(1.025, height, series.label, color=colour, size=8, va="center", parse_math=False, clip_on=False)
    _marks(axes, chart)


def _label(tick: Tick) -> str:
    power = tick.power.replace(MINUS, "-")
    return f"{tick.label}$^{{\\mathregular{{{power}}}}}$" if power else tick.label


def _line(axes: Axes, chart: Chart, series: Series) -> None:
    colour = ROLES[series.role].light
    points = chart.drawn(series)
    if not points:
        return
    across, up = zip(*points, strict=True)
    intervals = chart.intervals(series)
    if series.band and intervals:
        places = [low[0] for low, _ in intervals]
        axes.fill_between(
            places, [low[1] for low, _ in intervals], [high[1] for _, high in intervals], color=colour, alpha=0.16, lw=0
        )
    elif intervals:
        for low, high in intervals:
            axes.plot((low[0], high[0]), (low[1], high[1]), color=colour, lw=1.4, solid_capstyle="butt")
    weight = 1.1 if series.role == "baseline" else 1.9
    dashes = (0, (4, 2.4)) if series.dashed else "solid"
    style: dict[str, Any] = {"color": colour, "lw": weight if series.line else 0, "ls": dashes, "clip_on": False}
    axes.plot(across, up, **style, marker="o" if series.marks else "", ms=4.5, zorder=3)


def _marks(axes: Axes, chart: Chart) -> None:
    x, _ = chart.scales
    for mark in chart.marks:
        place = x.clipped(mark.x)
        axes.plot((place, place), (0, 1), color=TEXT.light, lw=0.9, ls=(0, (1.5, 2)))
        side = "right" if place > 0.6 else "left"
        axes.text(
            place,
            1.02,
            f"{mark.label} at {mark.x:,.0f}",
            size=8,
            ha=side,
            color=TEXT.light,
            parse_math=False,
            clip_on=False,
        )
    for value in chart.ticks:
        place = x.clipped(value)
        axes.plot((place, place), (0, 0.03), color=TEXT.light, lw=1.1)
