"""HTML and SVG in which every text is escaped: only what this module built goes in as it is."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

from grokkit_core.text import printable

LONGEST = 4_000
"""Letters of one text; what is longer is cut."""

EMPTY = frozenset({"meta", "path", "circle", "rect"})
"""Elements without children."""


class Markup(str):
    """A piece of HTML or SVG that was built here and is safe."""

    __slots__ = ()


Child = object
"""A `Markup`, or any other value, whose text is escaped."""


def text(value: object, cap: int = LONGEST) -> Markup:
    """A value as text: control and format characters replaced, markup escaped."""
    return Markup(html.escape(printable("" if value is None else value, cap)))


def tag(element: str, /, *children: Child, **attributes: object) -> Markup:
    """An element. Attribute names lose a trailing `_`, and `_` becomes `-`; None and False leave one out, True has no value."""
    parts = []
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        spelled = key.rstrip("_").replace("_", "-")
        safe = value if isinstance(value, Markup) else text(value)
        parts.append(f" {spelled}" if value is True else f' {spelled}="{safe}"')
    start = f"<{element}{''.join(parts)}"
    return Markup(f"{start}/>" if element in EMPTY else f"{start}>{join(children)}</{element}>")


def join(children: Iterable[Child]) -> Markup:
    """Pieces one after the other."""
    return Markup("".join(child if isinstance(child, Markup) else text(child) for child in children))


def table(
    caption: Child, columns: Sequence[str], rows: Iterable[Sequence[Child]], *, numbers: Sequence[int] = ()
) -> Markup:
    """A table with a caption; the first cell of each row is its head, the columns in `numbers` are figures."""
    shown = [None if index not in numbers else "figure" for index in range(len(columns))]
    head = tag("tr", *(tag("th", name, scope="col", class_=kind) for name, kind in zip(columns, shown, strict=True)))
    lines = []
    for first, *others in rows:
        cells = [tag("td", cell, class_=kind) for cell, kind in zip(others, shown[1:], strict=True)]
        lines.append(tag("tr", tag("th", first, scope="row"), *cells))
    return tag("table", tag("caption", caption), tag("thead", head), tag("tbody", *lines))
