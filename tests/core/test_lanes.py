"""Seeds that are trained in turn have times of their own."""

from __future__ import annotations

import itertools
import math

import pytest
from torch import nn

from grokkit_core.training.lanes import Lane, LanesRun
from grokkit_core.training.recipe import State


class Counting(Lane):
    """Ends by itself after so many steps."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def step(self) -> tuple[float, bool]:
        self.left -= 1
        self.finished = self.left == 0
        return float(self.left), False

    def network(self) -> nn.Module:
        return nn.Identity()

    def state(self) -> State:
        return State({}, {"left": self.left})

    def restore(self, state: State) -> None:
        self.left = state.values["left"]


def ticking(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = itertools.count()
    monkeypatch.setattr("grokkit_core.training.lanes.time.monotonic", lambda: float(next(ticks)))


def test_a_seed_counts_its_own_steps_only(monkeypatch: pytest.MonkeyPatch) -> None:
    ticking(monkeypatch)
    run = LanesRun([Counting(2), Counting(5)])
    while not run.done:
        losses = run.step().losses
    assert [run.seconds(0), run.seconds(1)] == [2.0, 5.0]
    assert math.isnan(losses[0])
    assert losses[1] == 0


def test_a_resumed_run_goes_on_counting(monkeypatch: pytest.MonkeyPatch) -> None:
    ticking(monkeypatch)
    first, second = LanesRun([Counting(4), Counting(6)]), LanesRun([Counting(4), Counting(6)])
    for _ in range(3):
        first.step()
    second.restore(first.state())
    while not second.done:
        second.step()
    assert [second.seconds(0), second.seconds(1)] == [4.0, 6.0]
