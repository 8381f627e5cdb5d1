"""README and docs are executed: transcripts are run and compared, Python blocks run, quoted files equal their source."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GENERATED = {"acceptance.md", "benchmarks.md"}
PAGES = [ROOT / "README.md", *sorted(path for path in (ROOT / "docs").rglob("*.md") if path.name not in GENERATED)]
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"-?\d+(?:[.,]\d+)*(?:e[+-]?\d+)?")
TOLERANCE = 0.02
"""Figures in transcripts are rounded to three digits and may move in the last one between machines."""


@dataclass(frozen=True)
class Block:
    page: Path
    language: str
    text: str

    def __str__(self) -> str:
        first = self.text.splitlines()[0] if self.text else ""
        return f"{self.page.name}: {first[:40]}"


def blocks() -> Iterator[Block]:
    for page in PAGES:
        for match in FENCE.finditer(page.read_text()):
            yield Block(page, match[1].strip(), match[2])


BLOCKS = list(blocks())


def of(language: str) -> list[Block]:
    return [block for block in BLOCKS if block.language == language]


def test_every_block_is_of_a_kind_that_is_checked() -> None:
    kinds = {block.language.partition(" ")[0] for block in BLOCKS}
    assert kinds <= {"console", "python", "toml", ""}


def same_line(expected: str, printed: str) -> bool:
    """Equal words, and numbers equal within the tolerance; digests are not compared."""
    masked = [re.sub(r"sha256:[0-9a-f]+", "sha256:", line.rstrip()) for line in (expected, printed)]
    if [part.split() for part in NUMBER.split(masked[0])] != [part.split() for part in NUMBER.split(masked[1])]:
        return False
    pairs = zip(NUMBER.findall(masked[0]), NUMBER.findall(masked[1]), strict=True)
    return all(a == b or math.isclose(number(a), number(b), rel_tol=TOLERANCE, abs_tol=1e-12) for a, b in pairs)


def number(text: str) -> float:
    return float(text.replace(",", ""))


@pytest.mark.parametrize("block", of("console"), ids=str)
def test_transcripts_print_what_the_page_says(block: Block, tmp_path: Path) -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environ = {**os.environ, "PATH": path, "GROKKIT_LIBRARY": str(tmp_path / "library")}
    (tmp_path / "library").mkdir(mode=0o755)
    for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        command, _, expected = part.partition("\n")
        done = subprocess.run(
            command, shell=True, capture_output=True, text=True, env=environ, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr
        lines, printed = expected.rstrip().splitlines(), done.stdout.rstrip().splitlines()
        assert len(lines) == len(printed)
        for wanted, got in zip(lines, printed, strict=True):
            assert same_line(wanted, got), f"{command}: page says {wanted!r}, it prints {got!r}"


def test_a_wrong_number_in_a_transcript_is_noticed() -> None:
    assert same_line("fused  0.0653  sha256:aa", "fused 0.0654 sha256:bb")
    assert not same_line("fused  0.0653", "fused  0.0753")
    assert not same_line("wins 5 of 5", "wins 4 of 5")
    assert not same_line("wins 5 of 5", "won 5 of 5")


@pytest.mark.parametrize("block", [b for b in of("python") if "source=" not in b.language], ids=str)
def test_python_blocks_run(block: Block) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", block.text], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("block", [b for b in BLOCKS if "source=" in b.language], ids=str)
def test_quoted_files_equal_their_source(block: Block) -> None:
    source = ROOT / block.language.partition("source=")[2]
    assert block.text == source.read_text()


def test_every_make_target_and_file_that_a_page_names_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    for page in PAGES:
        text = page.read_text()
        assert set(re.findall(r"(?:`|^)make ([a-z]+)", text, flags=re.MULTILINE)) <= targets, page.name
        for link in re.findall(r"\]\(([^)#:]+)\)", text):
            assert (page.parent / link).exists(), f"{page.name} links to {link}"
