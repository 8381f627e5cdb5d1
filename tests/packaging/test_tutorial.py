"""The tutorial is followed word by word: every command in a fresh environment, every line that it prints compared."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
WITHIN_S = 600
"""Wall seconds for the whole tutorial, the installation included, on two cores."""

FEWEST = 15
"""Commands of the tutorial, at least: from writing the package to composing with it."""

Step = tuple[str, list[str], list[str]]

pytestmark = pytest.mark.install


def transcripts(pages: ModuleType) -> list[Any]:
    """The console blocks of the tutorial, in order."""
    return [block for block in pages.blocks(pages.TUTORIAL) if block.language == "console"]


def check(steps: Iterable[Step], pages: ModuleType, workshop: ModuleType) -> int:
    """Compare every step but for times; how many there were."""
    count = 0
    for command, expected, printed in steps:
        pages.check_same(command, *map(workshop.without_times, (expected, printed)))
        count += 1
    return count


def test_every_command_of_the_tutorial_prints_what_it_says(
    pages: ModuleType, workshop: ModuleType, tmp_path: Path
) -> None:
    place = workshop.Workshop(tmp_path)
    place.borrow_packages(ROOT)
    assert check(place.follow(transcripts(pages)), pages, workshop) >= FEWEST


def test_a_step_that_fails_is_noticed(pages: ModuleType, workshop: ModuleType) -> None:
    trained = ["m-adam@1     0   1025           -      0.3  float32  exact"]
    slower = ["m-adam@1     0   1025           -      4.1  float32  exact"]
    assert check([("train", trained, slower)], pages, workshop) == 1
    for wrong in ("exact", "failed"), ("1025", "1200"), ("m-adam@1", "m-adam@2"):
        with pytest.raises(AssertionError, match="page says"):
            check([("train", trained, [trained[0].replace(*wrong)])], pages, workshop)


def test_the_tutorial_has_no_command_that_the_script_does_not_run(pages: ModuleType) -> None:
    kinds = [block.language for block in pages.blocks(pages.TUTORIAL)]
    assert kinds[0] == ""  # the installation, run by the acceptance test below
    assert set(kinds[1:]) == {"console"}


@pytest.mark.acceptance
def test_the_tutorial_takes_less_than_ten_minutes_in_a_fresh_environment(
    pages: ModuleType, workshop: ModuleType, tmp_path: Path, figure: Callable[..., None]
) -> None:
    started = time.monotonic()
    place = workshop.Workshop(tmp_path)
    installation, *_ = pages.blocks(pages.TUTORIAL)
    assert "pip install" in installation.text
    place.install(installation.text, ROOT)
    installed = time.monotonic()
    count = check(place.follow(transcripts(pages)), pages, workshop)
    seconds = time.monotonic() - started
    figure(
        "tutorial, word by word in a fresh environment: wall time, installation in it",
        f"{seconds:.0f} s, {installed - started:.0f} s",
        f"< {WITHIN_S} s",
    )
    figure("tutorial: commands run; that did not exit 0", f"{count}; 0", f">= {FEWEST}; 0")
    assert seconds < WITHIN_S
    assert count >= FEWEST
