"""What mkdocs calls while it builds the site: the figures of the cassettes, the changelog, titles of quoted files."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path, PurePosixPath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import grokkit_core as gk

_QUOTED = re.compile(r"^```(\w+) source=(\S+)$", re.MULTILINE)


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the changelog and, for each page `cassettes/NAME.md`, the figure `cassettes/figures/NAME.svg`."""
    root = Path(config.config_file_path).parent
    files.append(File.generated(config, "changelog.md", content=(root / "CHANGELOG.md").read_text()))
    for page in list(files.documentation_pages()):
        place = PurePosixPath(page.src_uri)
        if place.parent.name == "cassettes" and place.stem != "index":
            versions = root / "cassettes" / "grokkit_cassettes" / place.stem
            newest = max(versions.glob("[1-9]*"), key=lambda folder: int(folder.name))
            files.append(File.generated(config, f"cassettes/figures/{place.stem}.svg", content=_figure(newest)))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fences that quote a file get its name as their title."""
    return _QUOTED.sub(r'```\1 title="\2"', markdown)


def _figure(cassette: Path) -> bytes:
    """The figure of the cassette in this folder, whatever libraries the user has."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "figure.svg"
        gk.plot(str(cassette), path)
        return path.read_bytes()
