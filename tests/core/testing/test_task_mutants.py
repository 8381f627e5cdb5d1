"""Every law of tasks catches a task that breaks it, and nothing in a healthy one."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from probes import SPECS, Mutant, Turn, assert_caught, bench_with, broken_laws, plain
from torch import Tensor

from grokkit_core.specs import TaskSpec
from grokkit_core.task import Batch, Inputs, Predictor, Task

Context = Mapping[str, Tensor]


class OneMore(Turn):
    def sample(self, n: int, *, generator: torch.Generator, **where: Any) -> Batch:
        return super().sample(n + 1, generator=generator, **where)


class OutOfDomain(Turn):
    def sample(self, n: int, *, generator: torch.Generator, **where: Any) -> Batch:
        batch = super().sample(n, generator=generator, **where)
        context = {"omega": batch.context["omega"] + 4}
        return Batch(batch.inputs, self.oracle(batch.inputs, context), context)


class Restless(Turn):
    drawn = 0

    def sample(self, n: int, *, generator: torch.Generator, **where: Any) -> Batch:
        Restless.drawn += 1
        batch = super().sample(n, generator=generator, **where)
        inputs = plain(batch.inputs) + 1e-12 * Restless.drawn
        return Batch(inputs, self.oracle(inputs, batch.context), batch.context)


class Fixed(Turn):
    def sample(self, n: int, *, generator: torch.Generator, **where: Any) -> Batch:
        return super().sample(n, generator=torch.Generator().manual_seed(0), **where)


class Global(Turn):
    def sample(self, n: int, *, generator: torch.Generator, **where: Any) -> Batch:
        random.random()
        return super().sample(n, generator=generator, **where)


class Lenient(Turn):
    def sample(self, n: int, *, generator: torch.Generator, **where: Any) -> Batch:
        where.pop("no_such_setting", None)
        return super().sample(n, generator=generator, **where)


class NowhereToCalibrate(Turn):
    calibration = ({"phase": 1.0},)


class AnyConstant(Turn):
    def __init__(self, spec: TaskSpec, **parameters: Any) -> None:
        self.spec, self.parameters = spec, {"step": 0.1, **parameters}


class InPlace(Turn):
    def oracle(self, inputs: Inputs, context: Context) -> Tensor:
        exact = super().oracle(inputs, context)
        plain(inputs).mul_(1 + 1e-12)
        return exact


class Drifting(Turn):
    asked = 0

    def oracle(self, inputs: Inputs, context: Context) -> Tensor:
        Drifting.asked += 1
        return super().oracle(inputs, context) + 1e-14 * Drifting.asked


class Single(Turn):
    def oracle(self, inputs: Inputs, context: Context) -> Tensor:
        return super().oracle(inputs, context).float()


class SingleInside(Turn):
    def oracle(self, inputs: Inputs, context: Context) -> Tensor:
        return super().oracle(plain(inputs).float(), context)


class Centred(Turn):
    def oracle(self, inputs: Inputs, context: Context) -> Tensor:
        exact = super().oracle(inputs, context)
        return exact + 1e-9 * (len(exact) - 1)


class OtherTargets(Turn):
    def sample(self, n: int, *, generator: torch.Generator, **where: Any) -> Batch:
        batch = super().sample(n, generator=generator, **where)
        return Batch(batch.inputs, batch.targets.float().double(), batch.context)


class OneNumber(Turn):
    def error(self, prediction: Tensor, target: Tensor) -> Tensor:
        return (prediction - target).square().mean()


class Blind(Turn):
    def error(self, prediction: Tensor, target: Tensor) -> Tensor:
        return 0 * super().error(prediction, target)


class ForgivesNan(Turn):
    def error(self, prediction: Tensor, target: Tensor) -> Tensor:
        return super().error(prediction, target).nan_to_num(0.0)


class WrongShape(Turn):
    def baselines(self, calibration: Batch) -> Mapping[str, Predictor]:
        return {"persistence": lambda inputs, context: plain(inputs).mean()}


class Oracular(Turn):
    """Its samples carry noise, and its baseline knows the noise."""

    noisy = True

    def sample(self, n: int, *, generator: torch.Generator, **where: Any) -> Batch:
        batch = super().sample(n, generator=generator, **where)
        return Batch(batch.inputs, 1.01 * batch.targets, batch.context)

    def baselines(self, calibration: Batch) -> Mapping[str, Predictor]:
        return {"better": lambda inputs, context: 1.01 * self.oracle(inputs, context)}


class Overwriting(Turn):
    def advance(self, inputs: Inputs, outputs: Tensor) -> Inputs:
        return plain(inputs).copy_(outputs)


class Shrinking(Turn):
    def advance(self, inputs: Inputs, outputs: Tensor) -> Inputs:
        return outputs[:, :1].expand(-1, 3)


class NoRadius(Turn):
    def invariants(self, state: Tensor, context: Context | None = None) -> Mapping[str, Tensor]:
        return {"first coordinate": state[:, 0]}


MUTANTS = [
    Mutant("one sample too many", "task.sample-count", "rows", {"Turn": OneMore}),
    Mutant("context outside of its domain", "task.sample-domain", "outside its domain", {"Turn": OutOfDomain}),
    Mutant("state between draws", "task.sample-generator", "two samples", {"Turn": Restless}),
    Mutant("its own generator", "task.sample-generator", "two seeds give equal samples", {"Turn": Fixed}),
    Mutant("Python's generator", "task.global-generators", "global generator", {"Turn": Global}),
    Mutant("unknown settings pass", "task.sample-settings", "was answered", {"Turn": Lenient}),
    Mutant("a place that cannot be sampled", "task.places", "UsageError", {"Turn": NowhereToCalibrate}),
    Mutant("constants are not checked", "task.constants", "the task was made with", {"Turn": AnyConstant}),
    Mutant("inputs change", "task.oracle-repeats", "were changed", {"Turn": InPlace}),
    Mutant(
        "answers change",
        "task.oracle-repeats",
        "two answers differ",
        {"Turn": Drifting},
        also=frozenset({"task.sample-generator"}),
    ),
    Mutant("answers in float32", "task.oracle-float64", "dtype torch.float32", {"Turn": Single}),
    Mutant("inputs rounded to float32", "task.oracle-float64", "same answer", {"Turn": SingleInside}),
    Mutant("a batch is answered together", "task.oracle-rows", "alone", {"Turn": Centred}),
    Mutant("targets rounded to float32", "task.targets", "differ by", {"Turn": OtherTargets}),
    Mutant("one number for all samples", "task.error", "its shape is []", {"Turn": OneNumber}),
    Mutant("always perfect", "task.error", "of another answer it is 0", {"Turn": Blind}),
    Mutant("NaN is perfect", "task.error-nan", "the metric of NaN is 0", {"Turn": ForgivesNan}),
    Mutant("a baseline of another shape", "task.baselines", "persistence gives []", {"Turn": WrongShape}),
    Mutant("a baseline beats the oracle", "task.oracle-best", "better has mse", {"Turn": Oracular}),
    Mutant("the inputs are overwritten", "task.advance", "inputs were changed", {"Turn": Overwriting}),
    Mutant(
        "the next input has another shape",
        "task.advance",
        "shapes",
        {"Turn": Shrinking},
        also=frozenset({"task.invariants"}),
    ),
    Mutant("nothing is conserved", "task.invariants", "first coordinate drifts", {"Turn": NoRadius}),
]


def test_a_healthy_task_breaks_no_law() -> None:
    with bench_with() as bench:
        assert broken_laws("task", SPECS["task"], bench) == {}


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_a_mutant_is_caught_by_its_law_alone(mutant: Mutant) -> None:
    assert_caught(mutant, "task")


def test_a_task_that_is_no_flow_map_is_left_alone_by_the_laws_of_rollouts() -> None:
    class Still(Turn):
        advance = Task.advance
        invariants = Task.invariants

    with bench_with({"Turn": Still}) as bench:
        assert broken_laws("task", SPECS["task"], bench) == {}
