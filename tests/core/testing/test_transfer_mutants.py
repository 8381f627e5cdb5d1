"""Every law of transfer operators catches one that breaks it, and nothing in a healthy one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from probes import SPECS, Grow, Mutant, assert_caught, bench_with, broken_laws
from torch import Tensor

from grokkit_core.cassette import Cassette
from grokkit_core.task import Inputs
from grokkit_core.transfer.operator import Target, TransferPlan


class Unprintable(Grow):
    def plan(self, source: Any, target: Target, **options: Any) -> TransferPlan:
        return replace(super().plan(source, target, **options), notes=(b"bytes",))


class Counting(Grow):
    planned = 0

    def plan(self, source: Any, target: Target, **options: Any) -> TransferPlan:
        Counting.planned += 1
        return replace(super().plan(source, target, **options), notes=(f"plan {Counting.planned}",))


class Trusting(Grow):
    def plan(self, source: Any, target: Target, **options: Any) -> TransferPlan:
        if "no_such_size" in target:
            raise KeyError("no_such_size")
        return super().plan(source, target, **options)


class Consuming(Grow):
    def apply(self, source: Cassette, plan: TransferPlan) -> Mapping[str, Tensor]:
        grown = super().apply(source, plan)
        for tensor in source.tensors.values():
            tensor.zero_()
        return grown


class Generous(Grow):
    """New units are not dead."""

    def apply(self, source: Cassette, plan: TransferPlan) -> Mapping[str, Tensor]:
        grown = super().apply(source, plan)
        return {name: torch.where(tensor == 0, torch.ones_like(tensor), tensor) for name, tensor in grown.items()}


class Rough(Grow):
    """Right to 1e-6, which is not what float64 promises."""

    def apply(self, source: Cassette, plan: TransferPlan) -> Mapping[str, Tensor]:
        return {name: tensor * (1 + 1e-7) for name, tensor in super().apply(source, plan).items()}


class Miscounting(Grow):
    def plan(self, source: Any, target: Target, **options: Any) -> TransferPlan:
        made = super().plan(source, target, **options)
        return replace(made, parameters=made.parameters + 1)


class Verbose(Grow):
    """A record that is larger than a manifest may be."""

    def plan(self, source: Any, target: Target, **options: Any) -> TransferPlan:
        return replace(super().plan(source, target, **options), settings={"seen": list(range(100_000))})


class Widening(Grow):
    """Lifts what need not be lifted; its networks see the first two columns only."""

    def lift(self, inputs: Inputs, plan: TransferPlan) -> Inputs:
        assert isinstance(inputs, Tensor)
        return torch.cat((inputs, inputs), -1)


MUTANTS = [
    Mutant("bytes in a plan", "transfer.plan-json", "cannot be written as JSON", {"Grow": Unprintable}),
    Mutant("plans are counted", "transfer.plan-json", "another plan the second time", {"Grow": Counting}),
    Mutant("unknown sizes", "transfer.refusals", "KeyError", {"Grow": Trusting}),
    Mutant("the source is consumed", "transfer.source-kept", "were changed", {"Grow": Consuming}),
    Mutant("another function", "transfer.preserves", "outputs differ", {"Grow": Generous}),
    Mutant("rounded too early", "transfer.preserves", "in torch.float64", {"Grow": Rough}),
    Mutant("miscounted", "transfer.result", "numbers are stored", {"Grow": Miscounting}),
    Mutant("too large a record", "transfer.save-load", "TooLarge", {"Grow": Verbose}),
    Mutant(
        "inputs too wide", "transfer.lift", "has size 4", {"Grow": Widening}, also=frozenset({"transfer.preserves"})
    ),
]


def test_a_healthy_operator_breaks_no_law() -> None:
    with bench_with() as bench:
        assert broken_laws("transfer", SPECS["transfer"], bench) == {}


def test_an_operator_that_promises_another_function_is_not_compared() -> None:
    class Other(Generous):
        tolerance = None  # type: ignore[assignment]

    with bench_with({"Grow": Other}) as bench:
        assert broken_laws("transfer", SPECS["transfer"], bench) == {}


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_a_mutant_is_caught_by_its_law_alone(mutant: Mutant) -> None:
    assert_caught(mutant, "transfer")
