"""The exact law of elementary cellular automata on a ring, its sampler, its baselines and its proof.

A cell with left neighbour l, own value c and right neighbour r becomes bit 4l + 2c + r of the rule's number
(S. Wolfram, Statistical mechanics of cellular automata, Rev. Mod. Phys. 55, 601, 1983).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from grokkit_core.errors import UsageError
from grokkit_core.manifest import Bound, Certificate, Level
from grokkit_core.task import Batch, Inputs, Predictor, Task
from grokkit_example.plugin import CELLS

if TYPE_CHECKING:
    from grokkit_core.cassette import Cassette

HALF = 0.5
"""An output closer to a bit than this rounds to it."""


class Automaton(Task):
    """The next state of a ring. Inputs `state` "batch 8", targets `next` "batch 8", both of 0 and 1, without unit."""

    def sample(self, n: int, *, generator: torch.Generator, **where: Any) -> Batch:
        """`n` states in float64, every one of the 256 equally likely. Raises `UsageError` for settings: it has none."""
        if where:
            raise UsageError(f"sampler setting '{next(iter(where))}'", expected="none")
        return self.batch(torch.randint(0, 2, (n, CELLS), generator=generator).double())

    def batch(self, states: Tensor) -> Batch:
        """These states "batch 8" with their successors."""
        return Batch(states, self.oracle(states, {}))

    def oracle(self, inputs: Inputs, context: Mapping[str, Tensor]) -> Tensor:
        """The exact next state in float64: "batch 8"."""
        cells = _state(inputs).long()
        index = 4 * cells.roll(1, -1) + 2 * cells + cells.roll(-1, -1)
        return ((int(self.parameters["rule"]) >> index) & 1).double()

    def baselines(self, calibration: Batch) -> Mapping[str, Predictor]:
        """No change, and the most frequent next state. Neither is fitted to samples: the law is known."""
        states = every_state()
        numbers = (self.oracle(states, {}).long() << torch.arange(CELLS)).sum(1)
        commonest = states[numbers.bincount().argmax()]
        return {
            "persistence": lambda inputs, context: _state(inputs),
            "constant": lambda inputs, context: commonest.expand(len(_state(inputs)), CELLS),
        }

    def advance(self, inputs: Inputs, outputs: Tensor) -> Inputs:
        """The predicted state, rounded to bits: an exact network never drifts."""
        return outputs.round()

    def certify(self, cassette: Cassette, *, level: Level, seed: int) -> Certificate:
        """The sampled certificate, raised to `exact` where each of the 256 states is right.

        The bound is the greatest distance of an output from its bit. The proof takes milliseconds, so it is made at
        either level.
        """
        sampled = super().certify(cassette, level=level, seed=seed)
        states = every_state()
        outputs = cassette.predict(states.to(cassette.dtype)).double().cpu()
        distance = (outputs - self.oracle(states, {})).abs().max().item()
        if not distance < HALF:
            return sampled
        return replace(
            sampled,
            verdict="exact",
            statement=f"every one of the {len(states)} states is mapped to its successor; {sampled.statement}",
            domain=f"all states of a ring of {CELLS} cells",
            method="exhaustive",
            bounds=(Bound("distance from the bit", rounded_up(distance), "1"),),
        )


def every_state() -> Tensor:
    """All states of the ring in float64: "256 8". State number k has bit i of k in cell i."""
    numbers = torch.arange(2**CELLS)
    return ((numbers.unsqueeze(1) >> torch.arange(CELLS)) & 1).double()


def rounded_up(value: float) -> float:
    """`value` >= 0 rounded up to two digits, so that another machine's rounding stays below a recorded bound."""
    if value == 0:
        return 0.0
    digits = 1 - math.floor(math.log10(value))
    return math.ceil(value * 10.0**digits) / 10.0**digits


def _state(inputs: Inputs) -> Tensor:
    assert isinstance(inputs, Tensor)
    return inputs
