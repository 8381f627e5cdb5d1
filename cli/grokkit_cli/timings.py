"""Times on a terminal: the table of `grokkit bench`, and its rows as they come."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from grokkit_cli.render import number, row, table
from grokkit_core.text import printable

if TYPE_CHECKING:
    from grokkit_core.benchmark import Bench, Row


WIDEST = 1_000
"""Columns in which every table fits; in a narrower terminal than it needs, rows stand below each other."""


def print_benchmark(found: Bench, console: Console) -> None:
    """A row a measurement, what it was measured on, and what cannot be right."""
    names = list(dict.fromkeys(name for item in found.rows for name in item.figures))
    made = _table(found, names)
    if Measurement.get(console, console.options.update(max_width=WIDEST), made).maximum > console.width:
        for item in found.rows:
            console.print(printable(line(item, figures=True), 1_000), style="red" if item.problem else "")
    else:
        console.print(made)
        for remark in dict.fromkeys(f"{item.what}: {_remark(item)}" for item in found.rows if _remark(item)):
            console.print(printable(remark, 1_000))
    console.print()
    threads = "1 thread" if found.threads == 1 else f"{found.threads} threads"
    kind = "CPU time" if found.device == "cpu" else "time until the device is idle"
    where = f"{printable(found.device, 40)}, {printable(found.dtype, 40)}, {threads}"
    console.print(f"{where}; medians of one call, {kind}; ratio: baseline over own, above 1 is faster")
    for note in found.notes:
        console.print(printable(note, 400))


def _table(found: Bench, names: list[str]) -> Table:
    heads = [name.removesuffix("_s").replace("_", " ") for name in names]
    count = len(names)
    made = table("what", "batch", "time", "ratio", *heads, numbers=range(1, count + 4))
    for item in found.rows:
        cells = [_figure(name, item.figures[name]) if name in item.figures else "-" for name in names]
        style = "red" if item.problem else "dim" if item.ratio is None else ""
        row(made, item.what, f"{item.batch:,}", duration(item.median_s), _ratio(item), *cells, style=style)
    return made


def _remark(item: Row) -> str:
    return "; ".join(filter(None, [item.problem, item.note]))


def line(item: Row, *, figures: bool = False) -> str:
    """A measurement on one line, for progress and for narrow terminals."""
    parts = [f"{item.what}, batch {item.batch:,}: {duration(item.median_s)}"]
    if item.ratio is not None:
        parts.append(f"ratio {_ratio(item)}")
    if figures:
        named = ((name, _figure(name, value)) for name, value in item.figures.items())
        parts += [f"{name.removesuffix('_s').replace('_', ' ')} {text}" for name, text in named]
    return ", ".join([*parts, *filter(None, [item.problem, item.note])])


def duration(seconds: float) -> str:
    """Seconds with three digits, in a unit that fits: `12.3 us`."""
    for factor, unit in ((1.0, "s"), (1e3, "ms"), (1e6, "us")):
        if seconds * factor >= 0.9995:
            return f"{number(seconds * factor)} {unit}"
    return f"{number(seconds * 1e9)} ns"


def _ratio(item: Row) -> str:
    return "-" if item.ratio is None else number(item.ratio)


def _figure(name: str, value: float | int | str) -> str:
    """A time where the name says seconds, whole numbers in full, others with three digits."""
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        return f"{value:,}"
    return duration(value) if name.endswith("_s") else number(value)
