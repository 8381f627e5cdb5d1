"""The members of a router or a superposition: how many numbers each of them is."""

from __future__ import annotations

from grokkit_core.fusion.parts import parse_parts
from grokkit_core.manifest import COMPOSITE, Manifest
from grokkit_core.pictures.chart import Axis, Chart, Series
from grokkit_core.text import printable

MOST_ROWS = 24


def member_charts(manifest: Manifest) -> list[Chart]:
    """The parameters of each member, the smallest first; nothing for a cassette of one task."""
    if manifest.task.id != COMPOSITE:
        return []
    parts = sorted(parse_parts(manifest.architecture.config), key=lambda part: part.parameters)
    shown = parts[:MOST_ROWS]
    points = tuple((float(part.parameters), float(row)) for row, part in enumerate(shown))
    tasks = ", ".join(dict.fromkeys(part.task.id for part in parts))
    more = f"; the {len(parts) - len(shown)} largest are left out" if len(parts) > len(shown) else ""
    return [
        Chart(
            "comparison",
            "parameters of each member",
            Axis("parameters", None, 0.0),
            Axis(""),
            (Series("", points, "model", marks=True, line=False),),
            printable(f"{len(parts)} members; tasks: {tasks}{more}", 400),
            rows=tuple(printable(part.key, 32) for part in shown),
        )
    ]
