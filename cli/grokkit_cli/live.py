"""Training as it happens: a curve a seed, on stderr."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from grokkit_cli.charts import sparkline
from grokkit_core.specs import Event

SHOWN_SEEDS = 10


class TrainingView:
    """Draws train and validation curves while `on_event` hears of evaluations; silent when not enabled."""

    def __init__(self, *, enabled: bool) -> None:
        self.enabled = enabled
        self.curves: dict[int, tuple[list[float], list[float]]] = {}
        self.state = "starting"
        self._live: Any = None

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
            self.state = f"step {data['step']:,}"
            for seed, train, validation in zip(data["seeds"], data["train"], data["validation"], strict=True):
                curves = self.curves.setdefault(seed, ([], []))
                curves[0].append(train)
                curves[1].append(validation)
        elif event.name == "train.checkpoint":
            self.state = f"step {data['step']:,}, checkpoint saved"
        elif event.name == "train.certify":
            self.state = f"certifying seed {data['seed']}"
        self._draw()

    def _draw(self) -> None:
        from rich.text import Text

        lines = [self.state]
        for seed, (train, validation) in list(self.curves.items())[:SHOWN_SEEDS]:
            lines.append(f"seed {seed:<4} train      {sparkline(train, 40):<40} {train[-1]:.3g}")
            lines.append(f"          validation {sparkline(validation, 40):<40} {validation[-1]:.3g}")
        self._live.update(Text("\n".join(lines)))
