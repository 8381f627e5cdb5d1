"""The verb `compose`: fuse cassettes into one, measure it against its members and baselines, save it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from grokkit_core.cassette import Cassette, load, torch_dtype
from grokkit_core.devices import choose_device, fitting_threads
from grokkit_core.errors import Incompatible, UsageError
from grokkit_core.fusion.analysis import Cost, measure_cost
from grokkit_core.fusion.composite import inside
from grokkit_core.fusion.ensemble import GATE_WEIGHTS
from grokkit_core.fusion.fusion import FusionPlan
from grokkit_core.fusion.gate import Calibration, Gate
from grokkit_core.fusion.isolation import Check, check_members
from grokkit_core.fusion.table import Row, better_baselines, is_saturated, make_table
from grokkit_core.library import Entry
from grokkit_core.manifest import COMPOSITE, Manifest
from grokkit_core.names import check_name
from grokkit_core.notebook import Sheet, Shown
from grokkit_core.specs import Event, GateSpec, settle
from grokkit_core.streams import stream
from grokkit_core.task import Place, Task
from grokkit_core.tensors import computing_dtypes
from grokkit_core.workspace import Where, Workspace, workspace


@dataclass(frozen=True)
class Composition(Shown):
    """A saved fusion. Of one task it has a `table`: `wins` counts significant wins `of` the rows; see `Row` for the others.

    Of several tasks it has `checks`, every member beside itself alone, and `alone_bytes`, the size of the members' own
    weights files together.
    """

    cassette: Cassette
    plan: FusionPlan
    notes: tuple[str, ...]
    table: tuple[Row, ...] = ()
    worse_than: Mapping[str, int] = field(default_factory=dict)
    cost: Cost | None = None
    checks: tuple[Check, ...] = ()
    alone_bytes: int = 0

    @property
    def wins(self) -> int:
        """Rows in which the fusion beats every member significantly."""
        return sum(row.wins for row in self.table)

    def _sheet(self) -> Sheet:
        columns = ("at", *self.plan.members, "fusion", "over best member", "significant win")
        rows = [
            (
                ", ".join(f"{name} {value}" for name, value in row.where.items()) or "all",
                *(f"{value:.3g}" for value in row.members.values()),
                f"{row.fused:.3g}",
                f"{row.ratio:.3f}",
                "yes" if row.wins else "no",
            )
            for row in self.table
        ]
        metric = self.table[0].metric if self.table else ""
        caption = f"{self.cassette.manifest.ref}: {metric}, wins {self.wins} of {len(self.table)}"
        return Sheet(caption, columns, tuple(rows), tuple(range(1, len(columns) - 1)))

    def to_json(self) -> dict[str, Any]:
        """The object of `grokkit compose --json`."""
        manifest = self.cassette.manifest
        return {
            "name": manifest.name,
            "version": manifest.version,
            "fusion": self.plan.fusion,
            "gate": self.plan.gate,
            "members": [check.member for check in self.checks] or list(self.plan.members),
            "table": [row.to_json() for row in self.table],
            "wins": self.wins,
            "of": len(self.table),
            "strict": sum(row.strict for row in self.table),
            "non_inferior": sum(row.non_inferior for row in self.table),
            "worse_than": dict(self.worse_than),
            "cost": self.cost.to_json() if self.cost else None,
            "saturated": bool(self.table) and is_saturated(self.table),
            "checks": [check.to_json() for check in self.checks],
            "collisions": [collision.to_json() for collision in self.plan.collisions],
            "notes": list(self.notes),
            "verdict": manifest.certificate.verdict,
            "digest": manifest.digest,
        }


def plan_composition(
    *refs: str | Cassette,
    fusion: str = "ensemble",
    gate: str | None = None,
    options: Mapping[str, Any] | None = None,
    calibrate: Mapping[str, Sequence[float]] | None = None,
    library: Where = None,
) -> FusionPlan:
    """What `compose` would do, from manifests alone: no weights are read, nothing is fitted or written.

    Raises `Incompatible` with the reason where members, gate or calibration contexts do not fit.
    """
    place = workspace(library)
    plan = _plan(place, _resolve(refs, place), fusion, gate, options or {}, calibrate or {})
    if calibrate:
        host, reference = place.plugins, plan.manifests[0].task
        task = host.task(reference.id, **reference.parameters)
        calibration_places(task, host.gate(plan.gate or "uniform", **plan.options), plan, calibrate)
    return plan


def compose(
    *refs: str | Cassette,
    fusion: str = "ensemble",
    gate: str | None = None,
    options: Mapping[str, Any] | None = None,
    calibrate: Mapping[str, Sequence[float]] | None = None,
    name: str | None = None,
    seed: int = 0,
    device: str = "auto",
    dtype: str | None = None,
    library: Where = None,
) -> Composition:
    """Fuse cassettes into a new one, certify it and save it.

    Of one task by an ensemble, whose `options` are settings of the gate (`uniform` unless another is named), `calibrate` the contexts that it is fitted
    on (default: the task's). Members, fusion and baselines are compared on the same fresh test samples of `seed`,
    disjoint from the calibration samples. Raises `Incompatible` where members or gate do not fit, `StoreError` where
    the library cannot be written; then nothing is written.
    """
    place = workspace(library)
    sources = _resolve(refs, place)
    plan = _plan(place, sources, fusion, gate, options or {}, calibrate or {})
    new_name = check_name(name or default_name(plan))
    place.library.prepare()
    by_digest = {manifest_of(source).digest: source for source in sources}
    if plan.task == COMPOSITE:
        return _assembled(
            [_member(by_digest[m.digest], place, "cpu", None) for m in plan.manifests], plan, seed, new_name, place
        )
    members = [_member(by_digest[m.digest], place, device, dtype) for m in plan.manifests]
    task = members[0].task
    gate_used = place.plugins.gate(plan.gate or "uniform", **plan.options)
    places = calibration_places(task, gate_used, plan, calibrate or {})
    with fitting_threads(max(manifest.weights.parameters for manifest in plan.manifests)):
        fused, seen = _fuse(members, plan, task, gate_used, places, seed, new_name, dtype, fixed=bool(calibrate))
        fused = fused.to(members[0].device, dtype)
        labelled = dict(zip(plan.members, members, strict=True))
        table = make_table(task, fused, labelled, seen, variable=plan.variable, seed=seed)
        cost = measure_cost(task, labelled, fused, seed=seed)
        certificate = task.certify(fused, level="full", seed=seed)
    saved = fused.with_certificate(certificate).save(place)
    place.plugins.emit(Event("composition", {"name": saved.manifest.ref, "members": plan.members}))
    worse = better_baselines(table, higher_is_better=task.spec.higher_is_better)
    return Composition(saved, plan, (*plan.notes, *_amplified(fused)), table, worse, cost)


def _assembled(members: Sequence[Cassette], plan: FusionPlan, seed: int, name: str, place: Workspace) -> Composition:
    """A composition of several tasks: every member compared with itself alone before anything is saved."""
    made = place.plugins.fusion(plan.fusion).compose(members, plan, gate=None, batches=None, seed=seed, name=name)
    alone = dict(inside(members, plan.members))
    with fitting_threads(max(member.manifest.weights.parameters for member in alone.values())):
        checks = check_members(made, alone, seed)
    saved = made.save(place)
    place.plugins.emit(Event("composition", {"name": saved.manifest.ref, "members": plan.members}))
    alone_bytes = sum(member.manifest.weights.bytes for member in members)
    return Composition(saved, plan, plan.notes, checks=checks, alone_bytes=alone_bytes)


def _amplified(fused: Cassette) -> tuple[str, ...]:
    """By how much negative weights amplify what members get wrong independently of each other."""
    weights = fused.tensors.get(GATE_WEIGHTS)
    if weights is None or not bool((weights < 0).any()):
        return ()
    most = float(weights.abs().sum(min(1, weights.ndim - 1)).max())
    return (f"some weights are negative: independent errors of the members are amplified up to {most:.3g} times",)


def default_name(plan: FusionPlan) -> str:
    """`<first member>-<gate or fusion>`, shortened to the length that a name may have."""
    suffix = "-" + (plan.gate or plan.fusion).rpartition("/")[2]
    return plan.manifests[0].name[: 64 - len(suffix)].rstrip("-") + suffix


def calibration_places(
    task: Task, gate: Gate, plan: FusionPlan, calibrate: Mapping[str, Sequence[float]]
) -> list[Place]:
    """The contexts that the gate is fitted on: those given, else its own choice.

    Raises `UsageError` for a variable that is not there, `Incompatible` for a value outside its domain or outside the
    range in which the task calibrates.
    """
    if not calibrate:
        return list(gate.places(task))
    name, *others = calibrate
    variable = plan.signature.variable(name)
    if others or variable is None:
        known = ", ".join(item.name for item in plan.signature.context) or "none"
        raise UsageError(
            f"calibration contexts for {', '.join(calibrate)}", expected=f"one context variable of {known}"
        )
    for value in calibrate[name]:
        if not variable.domain.contains(value):
            raise Incompatible(f"calibration context {name} = {value:g}", expected=f"in {variable.domain}")
        low, high = task.training_range.get(name, (-math.inf, math.inf))
        if not low <= value <= high:
            raise Incompatible(
                f"calibration context {name} = {value:g}",
                expected=f"from {low:g} to {high:g}, the range in which task {task.spec.id} calibrates",
            )
    return [{name: float(value)} for value in calibrate[name]]


Source = Entry | Cassette


def manifest_of(source: Source) -> Manifest:
    """The manifest of a cassette or of a library entry that could be read."""
    assert source.manifest is not None  # `Library.find` raises rather than return an unreadable entry
    return source.manifest


def _resolve(refs: Sequence[str | Cassette], library: Where) -> list[Source]:
    place = workspace(library)
    return [place.library.find(ref) if isinstance(ref, str) else ref for ref in refs]


def _plan(
    place: Workspace,
    sources: Sequence[Source],
    fusion: str,
    gate: str | None,
    options: Mapping[str, Any],
    calibrate: Mapping[str, Sequence[float]],
) -> FusionPlan:
    """Check the gate's settings first, then the members; raises `UsageError`, `NotFound` or `Incompatible`."""
    host = place.plugins
    fuser = host.fusion(fusion)
    if fuser.spec.gated:
        spec = host.spec(GateSpec, gate or "uniform")
        settle(spec.options, options, f"gate {spec.id}")
    elif gate is not None:
        raise UsageError(f"fusion {fuser.spec.id} takes no gate", expected="no --gate")
    elif calibrate:
        raise UsageError(f"fusion {fuser.spec.id} is not fitted", expected="no --calibrate")
    return fuser.plan([manifest_of(source) for source in sources], gate, **options)


def _member(source: Source, place: Workspace, device: str, dtype: str | None) -> Cassette:
    cassette = source if isinstance(source, Cassette) else load(source, library=place)
    return cassette.to(choose_device(device, cassette.manifest.weights.parameters), dtype)


def _fuse(
    members: Sequence[Cassette],
    plan: FusionPlan,
    task: Task,
    gate: Gate,
    places: Sequence[Place],
    seed: int,
    name: str,
    dtype: str | None,
    *,
    fixed: bool,
) -> tuple[Cassette, Mapping[bytes, Place]]:
    """The fused cassette, and the contexts that its gate was fitted on."""
    host = members[0].plugins
    batches = Calibration(
        task,
        places,
        generator=stream(seed, "calibration"),
        dtype=torch_dtype(dtype or computing_dtypes(plan.signature)[0]),
        device=members[0].device,
        variable=plan.variable,
        fixed=fixed,
    )
    fused = host.fusion(plan.fusion).compose(members, plan, gate=gate, batches=batches, seed=seed, name=name)
    return fused, batches.seen
