"""README and docs are executed: transcripts are run and compared, Python blocks run, quoted files equal their source."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest

ROOT = Path(__file__).resolve().parents[2]
MADE_BY_THE_SITE = re.compile(r"changelog\.md|figures/[a-z0-9-]+\.svg")
"""Files that `docs/hooks.py` makes while the site is built."""

SHELL = re.compile(
    r"make [a-z]+|git clone \S+|python3 -m venv \S+( && \S+/pip install -c constraints\.txt \S+)?|"
    r"\. \S+/bin/activate|pip install -c constraints\.txt \S+"
)
"""Commands to copy that are not Grokkit's: those of the installation."""


# -- every block -----------------------------------------------------------------------------------------------------


def test_every_block_is_of_a_kind_that_is_checked(pages: ModuleType) -> None:
    kinds = {block.language.partition(" ")[0] for block in pages.BLOCKS}
    assert kinds <= {"console", "python", "toml", ""}
    assert all("source=" in block.language for block in pages.BLOCKS if block.language.startswith("python "))


def test_every_fence_of_every_page_is_found(pages: ModuleType) -> None:
    for page in pages.PAGES:
        fences = re.findall(r"^ *(?:```|~~~)", page.read_text(), flags=re.MULTILINE)
        assert len(fences) == 2 * len(pages.blocks(page)), f"{page.name} has a fence that no test reads"
        assert not re.search(r"^(?: {4}|\t)(?:\$|>>>) ", page.read_text(), flags=re.MULTILINE), page.name


def test_transcripts_print_what_the_page_says(transcript: Any, pages: ModuleType, tmp_path: Path) -> None:
    environ = pages.surroundings(tmp_path)
    for command, expected in transcript.commands():
        pages.check_same(command, expected, pages.printed_by(command, tmp_path, environ))


def test_a_wrong_number_in_a_transcript_is_noticed(pages: ModuleType) -> None:
    assert pages.same_line("fused  0.0653  sha256:aa", "fused 0.0654 sha256:bb")
    assert not pages.same_line("fused  0.0653", "fused  0.0753")
    assert not pages.same_line("wins 5 of 5", "wins 4 of 5")
    assert not pages.same_line("wins 5 of 5", "won 5 of 5")


def test_a_changed_card_fails_the_test_of_its_page(pages: ModuleType) -> None:
    (card,) = (block for block in pages.blocks(ROOT / "docs/cassettes/kepler.md") if block.language == "console")
    ((_, lines),) = card.commands()
    wrong = [line.replace("3.1e-05", "3.2e-05") for line in lines]
    assert wrong != lines
    with pytest.raises(AssertionError, match="page says"):
        pages.check_same("grokkit show kepler", wrong, lines)


def test_python_blocks_run(snippet: Any) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", snippet.text], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_quoted_files_equal_their_source(quotation: Any) -> None:
    source = ROOT / quotation.language.partition("source=")[2]
    assert quotation.text == source.read_text()


def test_configuration_blocks_stand_in_the_example_package(pages: ModuleType) -> None:
    example = (ROOT / "tests" / "third_party" / "grokkit-example" / "pyproject.toml").read_text()
    blocks = pages.of("toml")
    assert blocks
    assert [str(block) for block in blocks if block.text not in example] == []


# -- commands to copy ------------------------------------------------------------------------------------------------


def check_command(line: str) -> None:
    """Raise unless a command to copy is one of the installation, or parses as Grokkit's without being run."""
    from grokkit_cli.main import COMMANDS, cli

    if SHELL.fullmatch(line):
        return
    program, *arguments = shlex.split(line)
    assert program == "grokkit", f"{line!r} is not a command that is checked"
    place = next((place for place, word in enumerate(arguments) if word in COMMANDS), None)
    assert place is not None, f"{line!r} names no command"
    with cli.make_context("grokkit", arguments) as context:
        command = cli.get_command(context, arguments[place])
        assert command is not None
        command.make_context(arguments[place], arguments[place + 1 :], parent=context).close()


def test_commands_to_copy_parse(typed: Any) -> None:
    lines = [line for line in typed.text.splitlines() if line.strip()]
    assert lines
    for line in lines:
        check_command(re.split(r"\s+# ", line)[0].strip())


@pytest.mark.parametrize("line", ["grokkit train --recipes fast parity", "grokkit lists", "grokkit show", "rm -r here"])
def test_a_command_that_does_not_exist_is_noticed(line: str) -> None:
    with pytest.raises((click.UsageError, AssertionError)):
        check_command(line)


# -- types -----------------------------------------------------------------------------------------------------------


def mypy(folder: Path) -> subprocess.CompletedProcess[str]:
    """One strict run over the modules in `folder`, with the project's settings and its cache."""
    return subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", "pyproject.toml", "--no-error-summary", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )


def test_python_blocks_are_typed(pages: ModuleType, tmp_path: Path) -> None:
    for number, block in enumerate(pages.of("python")):
        (tmp_path / f"example_{number}.py").write_text(f"# {block}\n{block.text}")
    (tmp_path / "wrong.py").write_text("import grokkit_core as gk\n\ngk.load(7)\n")
    done = mypy(tmp_path)
    found = [line for line in done.stdout.splitlines() if " error: " in line]
    assert [line for line in found if "wrong.py" not in line] == []
    assert len(found) == 1, done.stdout + done.stderr  # the control is noticed


# -- links -----------------------------------------------------------------------------------------------------------


def test_every_make_target_and_file_that_a_page_names_exists(pages: ModuleType) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    for page in pages.PAGES:
        text = page.read_text()
        assert set(re.findall(r"(?:`|^)make ([a-z]+)", text, flags=re.MULTILINE)) <= targets, page.name
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
            assert MADE_BY_THE_SITE.fullmatch(link) or (page.parent / link).exists(), f"{page.name} links to {link}"
