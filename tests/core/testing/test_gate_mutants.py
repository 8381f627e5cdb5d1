"""Every law of gates catches one that breaks it, and nothing in a healthy one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from probes import SPECS, Mutant, Odds, OddsModule, assert_caught, bench_with, broken_laws
from torch import Tensor

from grokkit_core.errors import BadWeights
from grokkit_core.fusion.gate import Calibration, GateState
from grokkit_core.specs import GateSpec
from grokkit_core.task import Predictor

Context = Mapping[str, Tensor]


def around(module: type[OddsModule]) -> dict[str, Any]:
    """The healthy gate around other weights."""
    return {"Odds": type("Other", (Odds,), {"module": module})}


class Independent(OddsModule):
    def forward(self, inputs: Sequence[Tensor], context: Context, predictions: Tensor) -> Tensor:
        return torch.sigmoid(self.logits).unsqueeze(1).expand(predictions.shape[:2])


class Overflowing(OddsModule):
    """Not a number at contexts that nobody calibrated for."""

    def forward(self, inputs: Sequence[Tensor], context: Context, predictions: Tensor) -> Tensor:
        weights = super().forward(inputs, context, predictions)
        return weights + 0 * torch.exp(context["omega"].to(weights))


class Ranking(OddsModule):
    """Later samples of a batch trust the first member more."""

    def forward(self, inputs: Sequence[Tensor], context: Context, predictions: Tensor) -> Tensor:
        logits = self.logits.unsqueeze(1).repeat(1, predictions.shape[1])
        logits[0] += torch.arange(predictions.shape[1])
        return torch.softmax(logits, 0)


class Stateful(Odds):
    fits = 0

    def fit(self, members: Sequence[Predictor], batches: Calibration, *, generator: torch.Generator) -> GateState:
        Stateful.fits += 1
        state = super().fit(members, batches, generator=generator)
        return GateState(state.config, {"logits": state.tensors["logits"] + 1e-6 * Stateful.fits})


class Global(Odds):
    def fit(self, members: Sequence[Predictor], batches: Calibration, *, generator: torch.Generator) -> GateState:
        torch.rand(1)
        return super().fit(members, batches, generator=generator)


class Remembering(Odds):
    """Shapes follow from what it saw last and not from the config."""

    def fit(self, members: Sequence[Predictor], batches: Calibration, *, generator: torch.Generator) -> GateState:
        state = super().fit(members, batches, generator=generator)
        return GateState(state.config, {"logits": state.tensors["logits"].clone().requires_grad_()})


class Suspicious(Odds):
    def check(self, state: GateState) -> None:
        raise BadWeights("these are no weights")


class Lenient(Odds):
    def __init__(self, spec: GateSpec, **options: Any) -> None:
        self.spec, self._given = spec, {}


SPEC = SPECS["gate"]
assert isinstance(SPEC, GateSpec)
MUTANTS = [
    Mutant("weights by themselves", "gate.partition", "their sum is off", around(Independent)),
    Mutant(
        "infinite far away",
        "gate.partition",
        "not finite",
        around(Overflowing),
        {"gate": replace(SPEC, needs="omega")},
        also=frozenset({"gate.rows"}),
    ),
    Mutant("fits are counted", "gate.fit-repeats", "different tensors", {"Odds": Stateful}),
    Mutant("the global generator", "gate.global-generators", "has changed", {"Odds": Global}),
    Mutant("gradients in the state", "gate.state", "carry gradients", {"Odds": Remembering}),
    Mutant("its own state is refused", "gate.check", "these are no weights", {"Odds": Suspicious}),
    Mutant("weights by place in the batch", "gate.rows", "alone is weighted otherwise", around(Ranking)),
    Mutant("any option passes", "gate.options", "was made with", {"Odds": Lenient}),
]


def test_a_healthy_gate_breaks_no_law() -> None:
    with bench_with() as bench:
        assert broken_laws("gate", SPECS["gate"], bench) == {}


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_a_mutant_is_caught_by_its_law_alone(mutant: Mutant) -> None:
    assert_caught(mutant, "gate")
