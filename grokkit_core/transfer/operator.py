"""The interface of a transfer operator, and the plan that is made and printed before any weight is read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from grokkit_core.errors import Incompatible, UsageError
from grokkit_core.manifest import ArchitectureRef, Manifest, TaskRef
from grokkit_core.specs import TransferSpec, settle
from grokkit_core.task import Inputs, Place, Task
from grokkit_core.tensors import Signature
from grokkit_core.text import nearest, printable

if TYPE_CHECKING:
    from torch import Tensor

    from grokkit_core.architecture import Architecture
    from grokkit_core.cassette import Cassette
    from grokkit_core.plugins import PluginHost

ROUNDING = 1e-5
"""What a guarantee "to rounding" allows outputs of order one to differ in float32."""

Sizes = Mapping[str, Any]
"""By name of a config field, its value: a whole number where it is a size."""

Target = Mapping[str, Any]
"""What is wanted: new sizes by config field, and further cassettes (or references to them) by parameter."""


@dataclass(frozen=True)
class TransferPlan:
    """What an operator will do: from which sizes to which, the new task, network and signature, and what is kept.

    `tolerance` is the largest difference of outputs of order one that the guarantee allows in float32 (0: equal to the
    bit; infinite: it does not hold for all inputs; None: it is another function, which is not compared). `parameters` are those that will be stored, `settings` what the operator itself keeps of the plan. `notes` are things
    the user should know before going on. `partners` are further cassettes that the operator reads, by parameter.
    """

    operator: str
    source: Manifest
    before: Sizes
    after: Sizes
    task: TaskRef
    architecture: ArchitectureRef
    signature: Signature
    guarantee: str
    tolerance: float | None
    parameters: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    partners: Mapping[str, Manifest] = field(default_factory=dict)

    def with_partners(self, partners: Mapping[str, Manifest]) -> TransferPlan:
        """The same plan, which reads these cassettes too."""
        return replace(self, partners=partners)

    def to_json(self) -> dict[str, Any]:
        """The plan as `grow --dry-run --json` prints it."""
        return {
            "operator": self.operator,
            "source": self.source.ref,
            "digest": self.source.digest,
            "before": dict(self.before),
            "after": dict(self.after),
            "architecture": self.architecture.id,
            "task": {"id": self.task.id, "parameters": dict(self.task.parameters)},
            "guarantee": self.guarantee,
            "parameters": self.parameters,
            "settings": dict(self.settings),
            "partners": {name: manifest.ref for name, manifest in self.partners.items()},
            **self.signature.to_json(),
            "notes": list(self.notes),
        }


class TransferOperator(ABC):
    """A way to change a cassette's sizes without training it.

    The guarantee is that `project(grown(lift(inputs))) = source(inputs)`, equal to the bit or to rounding as the plan
    says, for trained and untrained networks alike.
    """

    plugins: PluginHost

    def __init__(self, spec: TransferSpec) -> None:
        self.spec = spec

    @abstractmethod
    def plan(self, source: Manifest, target: Target, **options: Any) -> TransferPlan:
        """Check that the operator can do it, from the manifest alone; raises `Incompatible` or `UsageError`.

        Where its spec has parameters of type `cassette`, the option `partners` holds the manifests that were given.
        """

    @abstractmethod
    def apply(self, source: Cassette, plan: TransferPlan) -> Mapping[str, Tensor]:
        """The tensors of the grown network; the source stays as it is. May still raise `Incompatible` on weight values."""

    def combine(self, source: Cassette, partners: Mapping[str, Cassette], plan: TransferPlan) -> Mapping[str, Tensor]:
        """As `apply`, with the plan's partners; for operators that read more than the source."""
        return self.apply(source, plan)

    def lift(self, inputs: Inputs, plan: TransferPlan) -> Inputs:
        """How inputs of the source become inputs of the grown network; by default they stay."""
        return inputs

    def project(self, outputs: Tensor, plan: TransferPlan) -> Tensor:
        """How outputs of the grown network become outputs of the source; by default they stay."""
        return outputs

    def places(self, task: Task, plan: TransferPlan) -> Sequence[Place]:
        """Where source and result are compared: by default the rows of the task's tables."""
        return task.evaluation

    def resized(
        self,
        source: Manifest,
        before: Sizes,
        after: Sizes,
        *,
        guarantee: str,
        tolerance: float | None,
        fixed: Mapping[str, Any] | None = None,
    ) -> TransferPlan:
        """The plan whose result is the source's own architecture with other sizes (and `fixed` fields) in its config."""
        architecture, config = self.architecture_of(source)
        try:
            larger = architecture.settled({**config, **after, **(fixed or {})})
            architecture.check(larger)
        except UsageError as error:
            raise Incompatible(f"{error}") from None
        return TransferPlan(
            self.spec.id,
            source,
            before,
            after,
            grown_task(source, after),
            ArchitectureRef(architecture.spec.id, architecture.spec.version, larger),
            architecture.signature(larger),
            guarantee,
            tolerance,
            parameters_of(architecture, larger),
        )

    def architecture_of(self, source: Manifest) -> tuple[Architecture, dict[str, Any]]:
        """The installed architecture behind a manifest, with its settled config."""
        architecture = self.plugins.architecture(source.architecture.id)
        return architecture, settle(architecture.spec.config, source.architecture.config, architecture.spec.id)


def check_target(target: Target, before: Sizes, what: str) -> dict[str, int]:
    """The wanted sizes; raises for unknown names, for what is no whole number (`UsageError`), and for shrinking."""
    if not target:
        raise UsageError("no new size", expected=f"--to with one of {', '.join(before)}")
    for name, value in target.items():
        if name not in before:
            raise Incompatible(
                f"{what} has no size '{printable(name, 60)}' that grows",
                expected=" or ".join(before) or "one that has",
                hint=nearest(name, before),
            )
        if type(value) is not int:
            raise UsageError(f"{name} = {printable(repr(value), 60)}", expected="a whole number")
        if value < before[name]:
            raise Incompatible(f"{name} = {value}, below the {before[name]} that {what} has", expected="a larger size")
    return {**before, **target}


def grown_task(source: Manifest, after: Sizes) -> TaskRef:
    """The source's task, with those constants of the law that are sizes of the network at their new values."""
    own = source.task.parameters
    return TaskRef(source.task.id, {**own, **{name: value for name, value in after.items() if name in own}})


def parameters_of(architecture: Architecture, config: Mapping[str, Any]) -> int:
    """The number of parameters of a network of this config, without allocating it."""
    import torch

    with torch.device("meta"):
        return sum(tensor.numel() for tensor in architecture.build(config).state_dict().values())


def sizes_of(names: Sequence[str], config: Mapping[str, Any]) -> dict[str, int]:
    """The config's values of these fields, in order, each once."""
    return {name: int(config[name]) for name in dict.fromkeys(names) if name}
