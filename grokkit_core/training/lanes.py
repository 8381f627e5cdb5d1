"""Seeds trained in turn, each by itself: the run for methods that have no batched form."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeVar

from torch import nn

from grokkit_core.training.recipe import Progress, Run, State


class Lane(ABC):
    """The training of one seed. `finished` is set when it has ended, by itself or from outside."""

    finished: bool = False

    @abstractmethod
    def step(self) -> tuple[float, bool]:
        """One step: the training loss, and whether now is a time to evaluate."""

    @abstractmethod
    def network(self) -> nn.Module:
        """The network as it is."""

    @abstractmethod
    def state(self) -> State:
        """Everything that a bit-equal resume needs beside `finished`."""

    @abstractmethod
    def restore(self, state: State) -> None:
        """Go on from a saved state."""

    def figures(self) -> Mapping[str, Any]:
        """What else a manifest should say of this training."""
        return {}


Kind = TypeVar("Kind", bound=Lane)


class LanesRun(Run, Generic[Kind]):
    """One step of every lane that has not finished, in turn."""

    def __init__(self, lanes: Sequence[Kind]) -> None:
        self.lanes = lanes
        self.count = 0
        self._seconds = [0.0] * len(lanes)

    @property
    def done(self) -> bool:
        """Whether every seed has finished."""
        return all(lane.finished for lane in self.lanes)

    def step(self) -> Progress:
        """One step of every seed that has not finished."""
        results = [
            (math.nan, False) if lane.finished else self._timed(index, lane) for index, lane in enumerate(self.lanes)
        ]
        self.count += 1
        return Progress(self.count, [loss for loss, _ in results], any(due for _, due in results))

    def _timed(self, index: int, lane: Kind) -> tuple[float, bool]:
        started = time.monotonic()
        result = lane.step()
        self._seconds[index] += time.monotonic() - started
        return result

    def seconds(self, index: int) -> float:
        """What the seed's own steps took."""
        return self._seconds[index]

    def stop(self, index: int) -> None:
        """End the training of one seed."""
        self.lanes[index].finished = True

    def finished(self, index: int) -> bool:
        """Whether a seed has ended."""
        return self.lanes[index].finished

    def figures(self, index: int) -> Mapping[str, Any]:
        """What the seed's lane says."""
        return self.lanes[index].figures()

    def result(self) -> Sequence[nn.Module]:
        """The networks, one a seed."""
        return [lane.network() for lane in self.lanes]

    def state(self) -> State:
        """The state of every lane."""
        states = [lane.state() for lane in self.lanes]
        tensors = {f"{i}.{name}": t.clone() for i, state in enumerate(states) for name, t in state.tensors.items()}
        values = [
            {"finished": lane.finished, "values": dict(state.values), "seconds": seconds}
            for lane, state, seconds in zip(self.lanes, states, self._seconds, strict=True)
        ]
        return State(tensors, {"step": self.count, "lanes": values})

    def restore(self, state: State) -> None:
        """Every lane as it was."""
        self.count = int(state.values["step"])
        for index, (lane, kept) in enumerate(zip(self.lanes, state.values["lanes"], strict=True)):
            lane.restore(State(state.part(f"{index}."), kept["values"]))
            lane.finished = bool(kept["finished"])
            self._seconds[index] = float(kept["seconds"])
