"""Every law of architectures catches one that breaks it, and nothing in a healthy one."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from probes import GRID, SPECS, WIDTH, Mutant, Net, NetArchitecture, assert_caught, bench_with, broken_laws
from torch import Tensor, nn

from grokkit_core.architecture import Layer
from grokkit_core.errors import UsageError
from grokkit_core.specs import ArchitectureSpec, Field
from grokkit_core.tensors import Signature, TensorSpec


def family(network: type[nn.Module]) -> dict[str, Any]:
    """The healthy architecture around another network."""
    return {"NetArchitecture": type("Other", (NetArchitecture,), {"network": network, "stacked": no_stack})}


def no_stack(self: NetArchitecture, config: Mapping[str, Any]) -> None:
    return None


class Listless(NetArchitecture):
    """Its config holds a list that it reads as a tuple only."""

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        return Net(int(config["width"]) + (0 if isinstance(config["taps"], tuple) else 1))


class Unchecked(NetArchitecture):
    def settled(self, config: Mapping[str, Any]) -> dict[str, Any]:
        return {"width": 4, "grid": 8, **config}


class Crashes(NetArchitecture):
    def build(self, config: Mapping[str, Any]) -> nn.Module:
        if config["width"] == 5:
            raise ZeroDivisionError("no network of width 5")
        return super().build(config)


class Declines(NetArchitecture):
    """Healthy: what it cannot build it refuses."""

    def check(self, config: Mapping[str, Any]) -> None:
        if config["width"] == 5:
            raise UsageError("width = 5", expected="another one")


class OnMeta(NetArchitecture):
    def build(self, config: Mapping[str, Any]) -> nn.Module:
        made = super().build(config)
        return made if next(made.parameters()).is_meta else made.double()


class Forgetful(Net):
    """Draws a constant that no file holds."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.shift = random.random()

    def forward(self, state: Tensor) -> Tensor:
        return super().forward(state) + self.shift


class Doubles(Net):
    def forward(self, state: Tensor) -> Tensor:
        return super().forward(state).double()


class Wide(NetArchitecture):
    def signature(self, config: Mapping[str, Any]) -> Signature:
        made = super().signature(config)
        return Signature(made.inputs, [TensorSpec("next", ("batch", 3), ("float32", "float64"))], made.context)


class Mixing(Net):
    def forward(self, state: Tensor) -> Tensor:
        return super().forward(state - state.mean(0))


class Overwriting(Net):
    def forward(self, state: Tensor) -> Tensor:
        return super().forward(state.mul_(1.0 + 2**-20))


class Noisy(Net):
    def forward(self, state: Tensor) -> Tensor:
        return super().forward(state) + 1e-12 * torch.rand(1, dtype=state.dtype)


class Counting(Net):
    """Every call moves the answer by something far below rounding of a sum, but not of a bit."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.calls = 0

    def forward(self, state: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(state) + 1e-7 * (self.calls - 1)


class Misnamed(NetArchitecture):
    def layers(self, config: Mapping[str, Any]) -> Sequence[Layer] | None:
        return [Layer("hidden.weight", None, "tanh")]


class Missized(NetArchitecture):
    def layers(self, config: Mapping[str, Any]) -> Sequence[Layer] | None:
        return [Layer("first.weight", "first.bias", "tanh", outputs="grid")]


class OneForAll(NetArchitecture):
    def stacked(self, config: Mapping[str, Any]) -> Any:
        healthy = super().stacked(config)
        return lambda parameters, *inputs: healthy(parameters, *inputs)[:1].expand(len(inputs[0]), -1, -1)


class Gridded(NetArchitecture):
    def build(self, config: Mapping[str, Any]) -> nn.Module:
        made = super().build(config)
        made.register_buffer("points", torch.zeros(int(config["grid"])))
        return made


class HalfDead(NetArchitecture):
    def live_columns(self, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Sequence[int] | None:
        return [0]


class Skipping(NetArchitecture):
    """Its rollout begins with the second step."""

    def rollout(self, module: nn.Module, inputs: Sequence[Tensor], context: Mapping[str, Tensor]) -> Iterator[Tensor]:
        (state,) = inputs
        state = module(state)
        while True:
            state = module(state)
            yield state


class Rolling(NetArchitecture):
    """Healthy: a rollout of its own."""

    def rollout(self, module: nn.Module, inputs: Sequence[Tensor], context: Mapping[str, Tensor]) -> Iterator[Tensor]:
        (state,) = inputs
        while True:
            state = module(state)
            yield state


class Touchy(NetArchitecture):
    def check_inputs(
        self, module: nn.Module, inputs: Sequence[Tensor], context: Mapping[str, Tensor], *, force: bool
    ) -> None:
        if not force:
            raise ValueError("no")


class Speechless(NetArchitecture):
    verbs = ("norm", "sing")


SPEC = SPECS["architecture"]
assert isinstance(SPEC, ArchitectureSpec)
MUTANTS = [
    Mutant(
        "JSON changes it",
        "architecture.config-json",
        "become ",
        {"NetArchitecture": Listless},
        {"architecture": replace(SPEC, config=[WIDTH, GRID, Field("taps", "ints", (1, 2), low=0, high=9)])},
        also=frozenset({"architecture.save-load"}),
    ),
    Mutant("any config passes", "architecture.config-refused", "was accepted", {"NetArchitecture": Unchecked}),
    Mutant("a width without network", "architecture.config-built", "ZeroDivisionError", {"NetArchitecture": Crashes}),
    Mutant(
        "float64, but not on the meta device", "architecture.meta", "on the meta device", {"NetArchitecture": OnMeta}
    ),
    Mutant("a constant that is not saved", "architecture.save-load", "outputs differ", family(Forgetful)),
    Mutant("float32 becomes float64", "architecture.outputs", "give float64", family(Doubles)),
    Mutant("another number of outputs", "architecture.outputs", "that is [batch, 3]", {"NetArchitecture": Wide}),
    Mutant("samples are centred together", "architecture.rows", "a sample alone differs", family(Mixing)),
    Mutant("inputs are overwritten", "architecture.inputs-kept", "were changed", family(Overwriting)),
    Mutant("noise", "architecture.repeats", "generator was used", family(Noisy)),
    Mutant("calls are counted", "architecture.repeats", "two answers differ", family(Counting)),
    Mutant("a layer of no tensor", "architecture.layers", "hidden.weight", {"NetArchitecture": Misnamed}),
    Mutant("a layer of another size", "architecture.layers", "from the config", {"NetArchitecture": Missized}),
    Mutant("one network for all seeds", "architecture.stacked", "network 1 differs", {"NetArchitecture": OneForAll}),
    Mutant("a tensor on the grid", "architecture.grids", "tensors change with grid", {"NetArchitecture": Gridded}),
    Mutant(
        "a live column called dead", "architecture.live-columns", "change the output", {"NetArchitecture": HalfDead}
    ),
    Mutant("a rollout that skips a step", "architecture.rollout", "step 1 differs", {"NetArchitecture": Skipping}),
    Mutant("another error than Incompatible", "architecture.refusals", "ValueError", {"NetArchitecture": Touchy}),
    Mutant("a verb without method", "architecture.verbs", "sing", {"NetArchitecture": Speechless}),
]


@pytest.mark.parametrize("healthy", [NetArchitecture, Declines, Rolling])
def test_a_healthy_architecture_breaks_no_law(healthy: type[NetArchitecture]) -> None:
    with bench_with({"NetArchitecture": healthy}) as bench:
        assert broken_laws("architecture", SPECS["architecture"], bench) == {}


def test_an_architecture_that_cannot_be_built_breaks_its_own_laws_and_no_others() -> None:
    class Unbuilt(NetArchitecture):
        def build(self, config: Mapping[str, Any]) -> nn.Module:
            raise ZeroDivisionError("no network at all")

    with bench_with({"NetArchitecture": Unbuilt}) as bench:
        assert list(bench.all_networks()) == []
        assert broken_laws("transfer", SPECS["transfer"], bench) == {}
        broken = broken_laws("architecture", SPECS["architecture"], bench)
        assert {"architecture.meta", "architecture.save-load", "architecture.rows"} <= set(broken)


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_a_mutant_is_caught_by_its_law_alone(mutant: Mutant) -> None:
    assert_caught(mutant, "architecture")
