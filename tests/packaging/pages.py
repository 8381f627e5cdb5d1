"""The pages of README and docs as blocks, and how what a command prints is compared with what a page says."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GENERATED = {"acceptance.md", "benchmarks.md"}
TUTORIAL = ROOT / "docs" / "tutorial.md"
"""Its blocks are one script, run in order in a fresh environment; those of other pages stand each for itself."""

PAGES = [ROOT / "README.md", *sorted(path for path in (ROOT / "docs").rglob("*.md") if path.name not in GENERATED)]
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"-?\d+(?:[.,]\d+)*(?:e[+-]?\d+)?")
TOLERANCE = 0.02
"""Figures in transcripts are rounded to three digits and may move in the last one between machines."""


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    page: Path
    language: str
    text: str

    def __str__(self) -> str:
        first = self.text.splitlines()[0] if self.text else ""
        return f"{self.page.relative_to(ROOT)}: {first[:40]}"

    def commands(self) -> Iterator[tuple[str, list[str]]]:
        """Each `$ command` of a transcript with the lines that it prints."""
        for part in re.split(r"^\$ ", self.text, flags=re.MULTILINE)[1:]:
            command, _, expected = part.partition("\n")
            yield command, expected.rstrip().splitlines()


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    return [Block(page, match[1].strip(), match[2]) for match in FENCE.finditer(page.read_text())]


BLOCKS = [block for page in PAGES for block in blocks(page)]


def of(language: str) -> list[Block]:
    """The blocks of one language, those of the tutorial's script left out."""
    return [block for block in BLOCKS if block.language == language and block.page != TUTORIAL]


def surroundings(folder: Path) -> dict[str, str]:
    """The environment of a transcript: this Python's commands, a library in `folder`."""
    (folder / "library").mkdir(mode=0o755)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**os.environ, "PATH": path, "GROKKIT_LIBRARY": str(folder / "library")}


def printed_by(command: str, folder: Path, environ: Mapping[str, str]) -> list[str]:
    """What a command prints on stdout, run in `folder`; it must succeed."""
    done = subprocess.run(
        command, shell=True, cwd=folder, capture_output=True, text=True, env=environ, timeout=300, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return [line.rstrip() for line in done.stdout.rstrip().splitlines()]


def same_line(expected: str, printed: str) -> bool:
    """Equal words, and numbers equal within the tolerance; digests are not compared."""
    masked = [re.sub(r"sha256:[0-9a-f]+", "sha256:", line.rstrip()) for line in (expected, printed)]
    if [part.split() for part in NUMBER.split(masked[0])] != [part.split() for part in NUMBER.split(masked[1])]:
        return False
    pairs = zip(NUMBER.findall(masked[0]), NUMBER.findall(masked[1]), strict=True)
    return all(a == b or math.isclose(_number(a), _number(b), rel_tol=TOLERANCE, abs_tol=1e-12) for a, b in pairs)


def check_same(command: str, expected: list[str], printed: list[str]) -> None:
    """Raise where a command prints other lines than the page says."""
    assert len(expected) == len(printed), f"{command}: page has {len(expected)} lines, it prints {printed}"
    for wanted, got in zip(expected, printed, strict=True):
        assert same_line(wanted, got), f"{command}: page says {wanted!r}, it prints {got!r}"


def _number(text: str) -> float:
    return float(text.replace(",", ""))
