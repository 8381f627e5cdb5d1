"""How values show themselves in a notebook and to rich: as small tables, every text from a file made safe."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from grokkit_core.markup import table
from grokkit_core.text import printable

if TYPE_CHECKING:
    from rich.table import Table

    from grokkit_core.manifest import Manifest

LONGEST = 400
"""Letters of one cell."""


@dataclass(frozen=True)
class Sheet:
    """A small table: its caption, the heads of its columns, its rows; the columns in `numbers` are figures."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: tuple[int, ...] = ()


class Shown:
    """Shows itself by its `_sheet`: as HTML in a notebook, as a table where rich prints it."""

    @abstractmethod
    def _sheet(self) -> Sheet: ...

    def _repr_html_(self) -> str:
        sheet = self._sheet()
        return str(table(sheet.caption, sheet.columns, sheet.rows, numbers=sheet.numbers))

    def __rich__(self) -> Table:
        """The table that rich prints."""
        from rich import box
        from rich.table import Table
        from rich.text import Text

        sheet = self._sheet()
        made = Table(box=box.SIMPLE_HEAD, title=Text(printable(sheet.caption, LONGEST)), title_justify="left")
        for index, name in enumerate(sheet.columns):
            justify = "right" if index in sheet.numbers else "left"
            made.add_column(Text(printable(name, LONGEST)), justify=justify, overflow="fold")  # type: ignore[arg-type]
        for row in sheet.rows:
            made.add_row(*(Text(printable(cell, LONGEST)) for cell in row))
        return made


def card(manifest: Manifest) -> Sheet:
    """What a cassette computes, for which inputs, how well and where it came from, in a few lines."""
    certificate, found = manifest.certificate, manifest.provenance
    origin = found.recipe.id if found.recipe else ", ".join(f"{p.name}@{p.version}" for p in found.parents)
    pairs = [
        ("computes", manifest.summary),
        (
            "task",
            " ".join([manifest.task.id, *(f"{name}={value}" for name, value in manifest.task.parameters.items())]),
        ),
        *(("input", str(spec)) for spec in manifest.inputs),
        *(("output", str(spec)) for spec in manifest.outputs),
        *(("context", str(spec)) for spec in manifest.context),
        ("network", f"{manifest.architecture.id}, {manifest.weights.parameters:,} parameters"),
        ("verdict", f"{certificate.verdict} ({certificate.method})"),
        ("certificate", certificate.statement),
        (found.kind, f"by {origin}" if found.recipe else f"from {origin}"),
        ("digest", manifest.digest),
    ]
    return Sheet(manifest.ref, ("field", "value"), tuple((name, printable(value, LONGEST)) for name, value in pairs))
