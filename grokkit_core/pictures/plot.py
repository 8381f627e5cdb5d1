"""The verb `plot`: a cassette as a picture in a file."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grokkit_core.errors import Incompatible, UsageError
from grokkit_core.manifest import Manifest
from grokkit_core.names import expanded
from grokkit_core.pictures.draw import drawing
from grokkit_core.pictures.panels import panels_of, subject_of
from grokkit_core.text import printable
from grokkit_core.workspace import Where, workspace
from grokkit_core.writing import replace_file

if TYPE_CHECKING:
    from grokkit_core.cassette import Cassette

SUFFIXES = (".svg", ".png")


@dataclass(frozen=True)
class Picture:
    """A picture at `path`: which `panels` it has, and `notes` on those that could not be made."""

    manifest: Manifest
    path: str
    panels: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Name, version, path, the kinds of panels, remarks."""
        return {
            "name": self.manifest.name,
            "version": self.manifest.version,
            "path": self.path,
            "panels": list(self.panels),
            "notes": list(self.notes),
        }


def plot(ref: str | Cassette, path: str | Path, *, seed: int = 0, library: Where = None) -> Picture:
    """Draw what a cassette's manifest, gate and rollouts show into an `.svg` or `.png` file, which is replaced as a whole.

    `seed` draws the samples of what is computed. Raises `UsageError` for another suffix or without matplotlib
    (`grokkit[plot]`), and `Incompatible` for a cassette of which there is nothing to draw.
    """
    target = check_path(path)
    place = workspace(library)
    subject = subject_of(ref, place)
    manifest = subject.manifest
    found = panels_of(subject, place, seed=seed)
    if not found.charts:
        why = "; ".join(found.notes) or "its manifest has no curve and no figures beside baselines"
        raise Incompatible(f"there is nothing to draw of {manifest.ref}: {why}")
    certificate = manifest.certificate
    title = f"{printable(manifest.ref, 80)}, {certificate.verdict}"
    subtitle = printable(certificate.statement, 400)
    replace_file(target, drawing(found.charts, title=title, subtitle=subtitle, kind=target.suffix.lower()[1:]))
    return Picture(manifest, str(target), tuple(chart.kind for chart in found.charts), found.notes)


def check_path(path: str | Path) -> Path:
    """Where a picture goes; raises `UsageError` before anything is read."""
    target = expanded(path)
    if target.suffix.lower() not in SUFFIXES:
        raise UsageError(f"picture {printable(target, 160)}", expected="a file that ends with .svg or .png")
    if importlib.util.find_spec("matplotlib") is None:
        raise UsageError("a picture without matplotlib", expected="pip install 'grokkit[plot]'")
    return target
