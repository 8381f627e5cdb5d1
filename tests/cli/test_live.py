"""Training as it is drawn: on a terminal a chart that fits it, elsewhere nothing."""

from __future__ import annotations

import io
import math
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from grokkit_cli.charts import Line, curve_rows
from grokkit_cli.live import TrainingView
from rich.console import Console

from grokkit_core.specs import Event

Cli = Callable[..., Any]


def terminal(width: int = 80, height: int = 30, encoding: str = "utf-8") -> Console:
    """A console of that size which writes to memory."""
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="replace")
    return Console(file=file, width=width, height=height, force_terminal=True, color_system=None, legacy_windows=False)


def fed(
    steps: int = 40, seeds: tuple[int, ...] = (0,), metric: str = "mse", grokked: int | None = None
) -> TrainingView:
    """A view that has heard of so many evaluations of falling curves."""
    view = TrainingView(enabled=False)
    for step in range(1, steps + 1):
        data = {
            "step": step,
            "seeds": list(seeds),
            "train": [10.0 ** (-step / 8)] * len(seeds),
            "validation": [step / steps if metric == "accuracy" else 10.0 ** (-step / 16)] * len(seeds),
            "grokked": [grokked if grokked and step >= grokked else None] * len(seeds),
            "metric": metric,
        }
        view._take(data)
    return view


def lines_of(view: TrainingView, console: Console) -> list[str]:
    with console.capture() as captured:
        console.print(view.picture(console))
    return captured.get().rstrip("\n").split("\n")


def test_curves_are_drawn_from_their_highest_to_their_lowest_value() -> None:
    lines = lines_of(fed(), terminal())
    assert lines[0].startswith("    0.87 │") and lines[11].startswith("   1e-05 │")
    assert any(0x2800 < ord(letter) < 0x2900 for letter in lines[5])
    assert lines[-2:] == ["step 40", "seed 0    train 1e-05     validation 0.00316   "]


def test_the_grok_step_is_marked_and_told() -> None:
    lines = lines_of(fed(grokked=20), terminal())
    assert sum("┊" in line for line in lines) >= 5
    assert lines[-1].endswith("grokked at step 20")
    assert not any("┊" in line for line in lines_of(fed(), terminal()))


def test_an_accuracy_has_a_chart_of_its_own() -> None:
    lines = lines_of(fed(metric="accuracy"), terminal())
    assert [line[:9].strip() for line in lines if line[:9].strip() and "│" in line] == ["0.75", "1e-05", "1", "0.025"]


@pytest.mark.parametrize("width", [20, 31, 40, 60, 200])
@pytest.mark.parametrize("height", [3, 8, 12, 50])
@pytest.mark.parametrize("seeds", [1, 8, 30])
def test_it_fits_every_terminal(width: int, height: int, seeds: int) -> None:
    lines = lines_of(fed(seeds=tuple(range(seeds))), terminal(width, height))
    charts = [line for line in lines if "│" in line]
    assert all(len(line) <= width for line in charts)
    assert len(charts) <= max(0, height - min(seeds, 8) - 2)
    assert (f"and {seeds - 8} more seeds" in lines) is (seeds > 8)


def test_a_terminal_without_unicode_gets_letters() -> None:
    lines = lines_of(fed(grokked=20), terminal(encoding="ascii"))
    assert all(line.isascii() for line in lines)
    assert any("*" in line for line in lines)


@pytest.mark.parametrize(
    "values", [[], [math.nan], [math.inf, math.nan], [0.0], [0.0, 0.0], [-1.0, 1.0], [1e-320, 1e300]]
)
def test_no_values_break_a_chart(values: list[float]) -> None:
    points = list(enumerate(values))
    rows = curve_rows([Line(points, "cyan")], columns=40, rows=5, log=True, upright=0)
    assert len(rows) == (5 if any(map(math.isfinite, values)) else 0)


def test_a_logarithmic_chart_is_straight_for_an_exponential() -> None:
    points = [(step, 10.0**-step) for step in range(11)]
    rows = curve_rows([Line(points, "cyan")], columns=21, rows=11, log=True, ascii_only=True)
    stars = [[letter for letter, _ in row[1:]].index("*") for row in rows]
    assert stars == list(range(11))


def test_a_view_that_is_not_enabled_draws_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with TrainingView(enabled=False) as view:
        view.on_event(Event("train.evaluation", {"step": 1}))
    assert capfd.readouterr() == ("", "")


def on_terminal(words: list[str], environment: dict[str, str]) -> str:
    """What a command writes to a terminal of 90 columns and 40 rows."""
    outside, inside = pty.openpty()
    environ = {**os.environ, **environment, "COLUMNS": "90", "LINES": "40", "TERM": "xterm-256color"}
    with subprocess.Popen(
        [sys.executable, "-m", "grokkit_cli", *words],
        stdin=inside,
        stdout=subprocess.DEVNULL,
        stderr=inside,
        env=environ,
    ) as process:
        os.close(inside)
        parts = []
        while True:
            try:
                part = os.read(outside, 65536)
            except OSError:
                break
            if not part:
                break
            parts.append(part)
    os.close(outside)
    assert process.returncode == 0
    return b"".join(parts).decode(errors="replace")


def test_training_on_a_terminal_draws_and_cleans_up(library: Path) -> None:
    words = ["train", "parity", "--recipe", "fast", "--set", "steps=200", "--set", "n=8", "--library", str(library)]
    said = on_terminal(words, {"NO_COLOR": "1"})
    assert re.search("[\u2801-\u28ff]{3}", said)
    assert "validation" in said and "step " in said
    assert "Traceback" not in said


def test_training_away_from_a_terminal_says_nothing_of_it(cli: Cli, library: Path) -> None:
    words = ("--recipe", "fast", "--set", "steps=40", "--set", "n=8", "--library", library)
    done = cli("train", "parity", *words)
    assert done.code == 0
    assert done.err == ""
    assert not re.search("[\u2800-\u28ff]", done.out)
