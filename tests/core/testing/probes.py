"""A small healthy component of every kind, a host that brings them, and mutants: the same with one fault each."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from grokkit_core.architecture import Architecture, Layer
from grokkit_core.cassette import Cassette
from grokkit_core.errors import Incompatible, OtherNetwork, UsageError
from grokkit_core.fusion.ensemble import EnsembleFusion
from grokkit_core.fusion.gate import Calibration, Gate, GateState
from grokkit_core.plugins import Plugin, PluginHost
from grokkit_core.specs import (
    ArchitectureSpec,
    Component,
    Field,
    FusionSpec,
    GateSpec,
    RecipeSpec,
    TaskSpec,
    TransferSpec,
)
from grokkit_core.task import Batch, Inputs, Predictor, Task
from grokkit_core.tensors import ContextSpec, Signature, TensorSpec
from grokkit_core.testing import LAWS, LawBroken, Workbench
from grokkit_core.testing.laws import LawKind
from grokkit_core.training.recipe import Recipe
from grokkit_core.transfer.operator import ROUNDING, Target, TransferOperator, TransferPlan, check_target

DTYPES = ("float32", "float64")
STATE = TensorSpec("state", ("batch", 2), DTYPES)
SIGNATURE = Signature([STATE], [TensorSpec("next", ("batch", 2), DTYPES)], [ContextSpec("omega", "rad/s", (0.0, 4.0))])
PLACES = ({"omega": 1.0}, {"omega": 2.0})


def plain(inputs: Inputs) -> Tensor:
    assert isinstance(inputs, Tensor)
    return inputs


class Turn(Task):
    """A point of the plane turns by omega times `step`."""

    evaluation = PLACES
    calibration = PLACES
    training_range = {"omega": (0.5, 2.5)}

    def sample(self, n: int, *, generator: torch.Generator, omega: float = 1.0, **where: Any) -> Batch:
        if where:
            raise UsageError(f"sampler setting '{next(iter(where))}'", expected="omega")
        states = torch.randn((n, 2), generator=generator, dtype=torch.float64)
        context = {"omega": torch.full((n,), omega, dtype=torch.float64)}
        return Batch(states, self.oracle(states, context), context)

    def oracle(self, inputs: Inputs, context: Mapping[str, Tensor]) -> Tensor:
        angle = self.parameters["step"] * context["omega"].double()
        point = torch.view_as_complex(plain(inputs).double().contiguous())
        return torch.view_as_real(point * torch.polar(torch.ones_like(angle), angle))

    def baselines(self, calibration: Batch) -> Mapping[str, Predictor]:
        return {"persistence": lambda inputs, context: plain(inputs)}

    def advance(self, inputs: Inputs, outputs: Tensor) -> Inputs:
        return outputs

    def invariants(self, state: Tensor, context: Mapping[str, Tensor] | None = None) -> Mapping[str, Tensor]:
        return {"radius": state.norm(dim=1)}


class Net(nn.Module):
    """2-width-2 with tanh."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(2, width)
        self.last = nn.Linear(width, 2)

    def forward(self, state: Tensor) -> Tensor:
        result: Tensor = self.last(torch.tanh(self.first(state)))
        return result


def stacked(parameters: Mapping[str, Tensor], *inputs: Tensor) -> Tensor:
    """The networks of all seeds."""
    hidden = inputs[0] @ parameters["first.weight"].mT + parameters["first.bias"].unsqueeze(1)
    return torch.tanh(hidden) @ parameters["last.weight"].mT + parameters["last.bias"].unsqueeze(1)


class NetArchitecture(Architecture):
    verbs = ("norm",)
    network: Callable[[int], nn.Module] = Net

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        return type(self).network(int(config["width"]))

    def signature(self, config: Mapping[str, Any]) -> Signature:
        return SIGNATURE

    def layers(self, config: Mapping[str, Any]) -> Sequence[Layer] | None:
        return [
            Layer("first.weight", "first.bias", "tanh", outputs="width"),
            Layer("last.weight", "last.bias", "identity", inputs="width"),
        ]

    def grids(self, config: Mapping[str, Any]) -> Sequence[str]:
        return ("grid",)

    def stacked(self, config: Mapping[str, Any]) -> Any:
        return stacked

    def norm(self, cassette: Cassette) -> float:
        """The largest weight."""
        return max(float(tensor.abs().max()) for tensor in cassette.tensors.values())


class Plain(Recipe):
    """Names what a recipe must; nothing here is trained."""

    def start(self, *arguments: Any, **options: Any) -> Any:
        raise Incompatible("a probe is not trained")

    def config(self, task: Task, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        return {}

    def validation(self, task: Task, parameters: Mapping[str, Any], seed: int) -> Batch:
        return task.sample(1, generator=torch.Generator())


class Grow(TransferOperator):
    """Hidden units that nothing reads."""

    tolerance = ROUNDING

    def plan(self, source: Any, target: Target, **options: Any) -> TransferPlan:
        if not source.architecture.id.startswith("grokkit_probe/"):
            raise OtherNetwork(f"architecture {source.architecture.id}", expected="grokkit_probe/net")
        before = {"width": int(self.architecture_of(source)[1]["width"])}
        after = check_target(target, before, source.ref)
        return self.resized(source, before, after, guarantee="to rounding", tolerance=self.tolerance)

    def apply(self, source: Cassette, plan: TransferPlan) -> Mapping[str, Tensor]:
        with torch.device("meta"):
            larger = source.architecture.build(plan.architecture.config).state_dict()
        grown = {}
        for name, tensor in source.tensors.items():
            grown[name] = tensor.new_zeros(larger[name].shape)
            grown[name][tuple(slice(size) for size in tensor.shape)] = tensor
        return grown


class OddsModule(nn.Module):
    logits: Tensor

    def __init__(self, members: int) -> None:
        super().__init__()
        self.register_buffer("logits", torch.zeros(members))

    def forward(self, inputs: Sequence[Tensor], context: Mapping[str, Tensor], predictions: Tensor) -> Tensor:
        return torch.softmax(self.logits, 0).unsqueeze(1).expand(predictions.shape[:2])


class Odds(Gate):
    """Weights that fall with the members' losses."""

    module: Callable[[int], nn.Module] = OddsModule

    def fit(self, members: Sequence[Predictor], batches: Calibration, *, generator: torch.Generator) -> GateState:
        batch = batches.draw(self.options["samples"], batches.places[0])
        with torch.no_grad():
            losses = [batches.task.loss(member(batch.inputs, batch.context), batch.targets) for member in members]
        return GateState({"members": len(members)}, {"logits": -torch.stack(losses).to(batches.dtype)})

    def build(self, state: GateState) -> nn.Module:
        return type(self).module(int(state.config["members"]))


class Mean(EnsembleFusion):
    """The core's ensemble under another name."""


WIDTH = Field("width", "int", 4, low=1, high=64, help="hidden units")
GRID = Field("grid", "int", 8, low=1, high=64, help="of the samples that it was trained on")
SPECS: dict[str, Component] = {
    "task": TaskSpec(
        "turn",
        SIGNATURE,
        target="grokkit_probe:Turn",
        summary="a turn",
        parameters=[Field("step", "float", 0.1, low=0.01, high=1.0, help="time [s]")],
        floor=1e-20,
    ),
    "architecture": ArchitectureSpec(
        "grokkit_probe/net", version=1, target="grokkit_probe:NetArchitecture", config=[WIDTH, GRID], summary="a net"
    ),
    "recipe": RecipeSpec(
        "turn/plain", task="turn", architecture="grokkit_probe/net", target="grokkit_probe:Plain", summary="a name"
    ),
    "transfer": TransferSpec("grokkit_probe/grow", target="grokkit_probe:Grow", summary="more hidden units"),
    "gate": GateSpec(
        "grokkit_probe/odds",
        target="grokkit_probe:Odds",
        options=[Field("samples", "int", 64, low=2, high=10**6, help="to measure losses on")],
        summary="weights by loss",
    ),
    "fusion": FusionSpec("grokkit_probe/mean", target="grokkit_probe:Mean", gated=True, summary="weighted sum"),
}
HEALTHY: dict[str, Any] = {
    "Turn": Turn,
    "NetArchitecture": NetArchitecture,
    "Plain": Plain,
    "Grow": Grow,
    "Odds": Odds,
    "Mean": Mean,
}


@dataclass(frozen=True)
class Mutant:
    """What is wrong, the law that must see it, and laws that cannot but see it too.

    `code` replaces classes of the healthy plugin, `specs` its specs, `says` is part of the message.
    """

    fault: str
    law: str
    says: str
    code: Mapping[str, Any] = field(default_factory=dict)
    specs: Mapping[str, Component] = field(default_factory=dict)
    also: frozenset[str] = frozenset()

    def __str__(self) -> str:
        return f"{self.law}: {self.fault}"


@contextlib.contextmanager
def bench_with(
    code: Mapping[str, Any] | None = None, specs: Mapping[str, Component] | None = None
) -> Iterator[Workbench]:
    """A bench over the core and the probe plugin, some of it replaced."""
    module = ModuleType("grokkit_probe")
    vars(module).update({**HEALTHY, **(code or {})})
    brought = tuple({**SPECS, **(specs or {})}.values())
    before = sys.modules.get("grokkit_probe")
    sys.modules["grokkit_probe"] = module
    try:
        made = PluginHost(enabled=False)
        made.plugins = (*made.plugins, Plugin("probe", "grokkit-probe", "1.0", components=brought, module=module))
        yield Workbench(made)
    finally:
        del sys.modules["grokkit_probe"]
        if before is not None:
            sys.modules["grokkit_probe"] = before


def broken_laws(kind: LawKind, component: Any, bench: Workbench) -> dict[str, LawBroken]:
    """Every law of a kind that a component breaks, with its message."""
    found = {}
    for law in LAWS:
        if law.kind == kind:
            try:
                law.check(component, bench)
            except LawBroken as error:
                found[law.id] = error
    return found


def assert_caught(mutant: Mutant, kind: LawKind) -> None:
    """The mutant breaks its law and no other, and the message tells law, component and what was seen."""
    with bench_with(mutant.code, mutant.specs) as bench:
        component = {**SPECS, **mutant.specs}[kind]
        assert_broken(mutant, component.id, broken_laws(kind, component, bench))


def assert_broken(mutant: Mutant, name: str, found: Mapping[str, LawBroken]) -> None:
    """These are the laws that the mutant was to break."""
    assert mutant.law in found, f"{mutant} was not caught, broken: {sorted(found)}"
    text = str(found[mutant.law])
    assert name in text
    assert mutant.law in text
    assert mutant.says in text, text
    others = set(found) - {mutant.law}
    assert others == mutant.also, "\n".join(str(found[law]) for law in others) or f"{mutant.law} alone is broken"
