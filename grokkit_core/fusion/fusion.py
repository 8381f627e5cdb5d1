"""The interface of a fusion, and the plan that is made and printed before any weight is read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from grokkit_core.cassette import Cassette, now
from grokkit_core.errors import Incompatible, UsageError
from grokkit_core.fusion.routing import Collision
from grokkit_core.manifest import COMPOSITE, Curve, Manifest, Provenance, Software
from grokkit_core.specs import FusionSpec, GateSpec
from grokkit_core.tensors import Signature, common, differences
from grokkit_core.text import printable

if TYPE_CHECKING:
    from grokkit_core.fusion.gate import Calibration, Gate
    from grokkit_core.plugins import PluginHost

ANY_SCALAR = "any-scalar"


@dataclass(frozen=True)
class FusionPlan:
    """What a fusion will do: its members by label, the gate with the context variable it reads, the fused signature.

    `notes` are things the user should know before going on. `task` is that of the result where it is not the members',
    and `collisions` the pairs of members between which only a key can choose.
    """

    fusion: str
    gate: str | None
    members: tuple[str, ...]
    manifests: tuple[Manifest, ...]
    signature: Signature
    variable: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    task: str = ""
    collisions: tuple[Collision, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The plan as `compose --dry-run --json` prints it."""
        return {
            "fusion": self.fusion,
            "gate": self.gate,
            "variable": self.variable or None,
            "options": dict(self.options),
            "members": list(self.members),
            "digests": [manifest.digest for manifest in self.manifests],
            **self.signature.to_json(),
            "notes": list(self.notes),
            "collisions": [collision.to_json() for collision in self.collisions],
        }


class Fusion(ABC):
    """A way to make one cassette of several."""

    plugins: PluginHost

    def __init__(self, spec: FusionSpec) -> None:
        self.spec = spec

    @abstractmethod
    def plan(self, members: Sequence[Manifest], gate: str | None, **options: Any) -> FusionPlan:
        """Check that the members fit together and with the gate, from manifests alone; raises `Incompatible`."""

    @abstractmethod
    def compose(
        self,
        members: Sequence[Cassette],
        plan: FusionPlan,
        *,
        gate: Gate | None,
        batches: Calibration | None,
        seed: int,
        name: str,
    ) -> Cassette:
        """The fused cassette, not yet certified or saved; members stay as they are.

        `gate` and `batches` are given to gated fusions.
        """


def composed_from(
    members: Sequence[Cassette], seed: int, made_by: Software, gate: Mapping[str, Any] | None = None
) -> Provenance:
    """Where a composition came from: its members, now."""
    return Provenance(
        kind="composed",
        recipe=None,
        seed=seed,
        steps=None,
        grok_step=None,
        curve=Curve((), ()),
        operator=None,
        gate=gate,
        parents=tuple(member.manifest.parent() for member in members),
        software=made_by,
        created=now(),
    )


def labels(manifests: Sequence[Manifest]) -> tuple[str, ...]:
    """Unique labels of members: their names, `@N` where versions differ, `#2` for a repeat."""
    versions: dict[str, set[int]] = {}
    for manifest in manifests:
        versions.setdefault(manifest.name, set()).add(manifest.version)
    seen: Counter[str] = Counter()
    result = []
    for manifest in manifests:
        label = manifest.ref if len(versions[manifest.name]) > 1 else manifest.name
        seen[label] += 1
        result.append(label if seen[label] == 1 else f"{label}#{seen[label]}")
    return tuple(result)


def shared_signature(manifests: Sequence[Manifest]) -> Signature:
    """The signature that members of one task share; raises `Incompatible` that names what differs."""
    if len(manifests) < 2:
        raise UsageError(f"{len(manifests)} cassette(s) to compose", expected="two or more")
    first = manifests[0]
    for manifest in manifests:
        if manifest.task.id == COMPOSITE:
            raise Incompatible(
                f"{manifest.name} answers several tasks, so its predictions cannot be weighted",
                expected="members of one task",
                hint="take one of its members, or --fusion router",
            )
    shared = first.signature
    for other in manifests[1:]:
        if other.task.id != first.task.id:
            raise Incompatible(
                f"{first.name} computes task {first.task.id}, {other.name} computes {other.task.id}",
                expected="members of one task",
            )
        found = differences(first.signature, other.signature) or differences(shared, other.signature)
        if found:
            raise Incompatible(
                f"signatures of {first.name} and {other.name} differ: {'; '.join(found)}",
                expected="equal ones",
            )
        _same_law(first, other)
        shared = common([shared, other.signature])
    _keeps_required(manifests, shared)
    return shared


def _keeps_required(manifests: Sequence[Manifest], shared: Signature) -> None:
    """Raise `Incompatible` where a member needs a context variable that the fusion would not pass on."""
    for manifest in manifests:
        for variable in manifest.context:
            if variable.required and shared.variable(variable.name) is None:
                raise Incompatible(
                    f"{manifest.name} requires the context variable '{variable.name}', which not all members share",
                    expected=f"members that declare {variable.name} [{variable.unit}] in {variable.domain}",
                )


def _same_law(first: Manifest, other: Manifest) -> None:
    mine, theirs = first.task.parameters, other.task.parameters
    for name in sorted(set(mine) | set(theirs)):
        if mine.get(name) != theirs.get(name):
            raise Incompatible(
                f"{first.name} has {name} = {printable(mine.get(name), 60)}, {other.name} has {printable(theirs.get(name), 60)}",
                expected="the same constants of the law",
            )


def gate_variable(spec: GateSpec, manifests: Sequence[Manifest], shared: Signature, wanted: str = "") -> str:
    """The context variable that a gate will read; empty if it reads none. Raises `Incompatible` if the members lack it."""
    if not spec.needs:
        return ""
    named = wanted or ("" if spec.needs == ANY_SCALAR else spec.needs)
    known = [variable.name for variable in shared.context]
    if named in known:
        return named
    if named or not known:
        what = f"the context variable '{named}'" if named else "a scalar context variable"
        lacking = [m.name for m in manifests if (m.signature.variable(named) is None if named else not m.context)]
        who = f"{', '.join(lacking)} has none" if lacking else "the members declare it with different units or domains"
        raise Incompatible(
            f"gate {spec.id} reads {what}, but {who}", hint="choose another gate: `grokkit tasks` lists them"
        )
    if len(known) > 1:
        raise Incompatible(
            f"gate {spec.id} reads one context variable and the members share {', '.join(known)}",
            hint=f"choose with --set variable={known[0]}",
        )
    return known[0]
