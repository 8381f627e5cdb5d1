"""What fusions are checked with: members, calibration samples, and the cassette that a fusion makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from grokkit_core.cassette import Cassette, torch_dtype
from grokkit_core.errors import Incompatible, UsageError
from grokkit_core.fusion.fusion import FusionPlan
from grokkit_core.fusion.gate import Calibration
from grokkit_core.specs import ArchitectureSpec, FusionSpec
from grokkit_core.streams import stream
from grokkit_core.task import Batch
from grokkit_core.tensors import computing_dtypes
from grokkit_core.testing.laws import Inapplicable
from grokkit_core.testing.workbench import Workbench, answer, cloned

SMALL = 2**16
"""Parameters of a member with which a law is checked quickly."""


@dataclass(frozen=True)
class Fused:
    """A fusion's plan, its members in the plan's order, and what it made of them."""

    plan: FusionPlan
    members: tuple[Cassette, ...]
    cassette: Cassette

    def answers(self, index: int, batch: Batch) -> Tensor:
        """What the fused cassette says in place of a member: by its key where it answers several tasks."""
        if self.cassette.signature.inputs:
            return answer(self.cassette, batch)
        return self.cassette.predict(batch.inputs, batch.context, key=self.plan.members[index])


def members_of(bench: Workbench, *, alike: bool = True) -> Sequence[tuple[Cassette, ...]]:
    """Pairs of small networks: of one architecture and task (`alike`), or of two tasks."""
    found: list[Cassette] = []
    for spec in bench.plugins.specs(ArchitectureSpec):
        if any(field.type == "json" for field in spec.config):
            continue
        found += [c for c in bench.networks(spec.id) if c.manifest.weights.parameters <= SMALL]
    if not alike:
        return [(a, b) for a in found for b in found if a.manifest.task.id < b.manifest.task.id]
    groups: dict[str, list[Cassette]] = {}
    for cassette in found:
        reference = cassette.manifest.architecture
        groups.setdefault(f"{reference.id} {cassette.manifest.task} {cassette.signature}", []).append(cassette)
    return [(group[0], group[1 % len(group)]) for group in groups.values()]


def plan_for(bench: Workbench, spec: FusionSpec, members: Sequence[Cassette], **options: Any) -> FusionPlan:
    """The fusion's plan for these members, with equal weights where it takes a gate."""
    fusion = bench.plugins.fusion(spec.id)
    return fusion.plan([member.manifest for member in members], "uniform" if spec.gated else None, **options)


def fused_by(bench: Workbench, spec: FusionSpec, members: Sequence[Cassette] = (), *, seed: int = 0) -> Fused:
    """What the fusion makes of copies of given members, or of the first pair that it accepts, not certified.

    Raises `Inapplicable` where it accepts no pair of the installed networks.
    """
    chosen = members or _first_pair(bench, spec)
    made = composed(bench, spec, [cloned(member) for member in chosen], seed=seed)
    originals = {member.manifest.digest: member for member in chosen}
    return replace(made, members=tuple(originals[manifest.digest] for manifest in made.plan.manifests))


def _first_pair(bench: Workbench, spec: FusionSpec) -> Sequence[Cassette]:
    for pair in (*members_of(bench), *members_of(bench, alike=False)):
        try:
            plan_for(bench, spec, pair)
        except (Incompatible, UsageError):
            continue
        return pair
    raise Inapplicable("it accepts no two networks of the installed architectures")


def composed(bench: Workbench, spec: FusionSpec, members: Sequence[Cassette], *, seed: int = 0) -> Fused:
    """What the fusion makes of these very members, as `grokkit compose` asks it to."""
    plan = plan_for(bench, spec, members)
    by_digest = {member.manifest.digest: member for member in members}
    ordered = tuple(by_digest[manifest.digest] for manifest in plan.manifests)
    task, gate = ordered[0].task, bench.plugins.gate(plan.gate or "uniform", **plan.options)
    signature = plan.signature if plan.signature.inputs else ordered[0].signature
    batches = Calibration(
        task,
        list(gate.places(task)),
        generator=stream(seed, "calibration"),
        dtype=torch_dtype(computing_dtypes(signature)[0]),
        variable=plan.variable,
    )
    fusion = bench.plugins.fusion(spec.id)
    made = fusion.compose(ordered, plan, gate=gate, batches=batches, seed=seed, name="fused")
    return Fused(plan, ordered, made)
