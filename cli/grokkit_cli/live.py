"""Training as it happens: curves on stderr, with the step at which each seed grokked."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from grokkit_cli.charts import Line, curve_rows
from grokkit_core.specs import Event

SHOWN_SEEDS = 8
WIDEST, NARROWEST = 78, 30
TALLEST, SHORTEST = 12, 4
BETWEEN = 0.1
"""Seconds between two drawings: a fast recipe evaluates much more often than anybody can look."""

TRAIN, VALIDATION = "cyan", "yellow"


@dataclass
class Curve:
    """What one seed has shown so far: `(step, value)` in training and validation, and where it grokked."""

    train: list[tuple[float, float]] = field(default_factory=list)
    validation: list[tuple[float, float]] = field(default_factory=list)
    grokked: int | None = None


class TrainingView:
    """Draws train and validation curves while `on_event` hears of evaluations; silent when not enabled."""

    def __init__(self, *, enabled: bool) -> None:
        self.enabled = enabled
        self.curves: dict[int, Curve] = {}
        self.state = "starting"
        self.metric = ""
        self._live: Any = None
        self._drawn = 0.0

    def __enter__(self) -> TrainingView:
        if self.enabled:
            from rich.console import Console
            from rich.live import Live

            self._live = Live(console=Console(stderr=True), refresh_per_second=8, transient=True)
            self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.__exit__(kind, error, trace)

    def on_event(self, event: Event) -> None:
        """Take in an evaluation, a checkpoint or a save."""
        if not self.enabled:
            return
        data = event.data
        if event.name == "train.evaluation":
            self._take(data)
        elif event.name == "train.checkpoint":
            self.state = f"step {data['step']:,}, checkpoint saved"
        elif event.name == "train.certify":
            self.state = f"certifying seed {data['seed']}"
        now = time.monotonic()
        if event.name != "train.evaluation" or now - self._drawn >= BETWEEN:
            self._drawn = now
            self._live.update(self.picture(self._live.console))

    def _take(self, data: Any) -> None:
        step = data["step"]
        self.state, self.metric = f"step {step:,}", data["metric"]
        figures = zip(data["seeds"], data["train"], data["validation"], data["grokked"], strict=True)
        for seed, train, validation, grokked in figures:
            curve = self.curves.setdefault(seed, Curve())
            curve.grokked = grokked
            if not curve.train or curve.train[-1][0] < step:
                curve.train.append((step, train))
                curve.validation.append((step, validation))

    def picture(self, console: Any) -> Any:
        """What the terminal shows now, fitted to its size: the charts, then a line a seed."""
        from rich.text import Text

        shown = list(self.curves.items())[:SHOWN_SEEDS]
        told = [Text(self.state)]
        for seed, curve in shown:
            where = "" if curve.grokked is None else f"   grokked at step {curve.grokked:,}"
            line = Text(f"seed {seed:<4} ")
            line.append(f"train {curve.train[-1][1]:<10.3g}", TRAIN)
            line.append(f"validation {curve.validation[-1][1]:<10.3g}", VALIDATION)
            told.append(line.append(where, "bold"))
        if len(self.curves) > len(shown):
            told.append(Text(f"and {len(self.curves) - len(shown)} more seeds"))
        charts = self._charts(console, console.height - len(told) - 1)
        return Text("\n").join([*charts, *told])

    def _charts(self, console: Any, room: int) -> list[Any]:
        """Loss on a logarithmic scale; an accuracy stands in a chart of its own below it."""
        from rich.text import Text

        curves = list(self.curves.values())[:SHOWN_SEEDS]
        train = [Line(curve.train, TRAIN) for curve in curves]
        validation = [Line(curve.validation, VALIDATION) for curve in curves]
        apart = self.metric == "accuracy"
        groups = [(train, True), (validation, False)] if apart else [([*train, *validation], True)]
        columns, rows = min(WIDEST, console.width - 1), min(TALLEST, room) // len(groups)
        if columns < NARROWEST or rows < SHORTEST:
            return []
        steps = [curve.grokked for curve in curves if curve.grokked is not None]
        ascii_only = console.options.ascii_only
        return [
            Text.assemble(*row)
            for lines, log in groups
            for row in curve_rows(
                lines,
                columns=columns,
                rows=rows,
                log=log,
                upright=min(steps, default=None),
                ascii_only=ascii_only,
            )
        ]
