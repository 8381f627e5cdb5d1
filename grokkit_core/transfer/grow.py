"""The verb `grow`: a larger or finer cassette without training, compared with its source, certified and saved."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from grokkit_core.cassette import Cassette, draft, load, now, software
from grokkit_core.devices import choose_device, fitting_threads
from grokkit_core.dtypes import cast
from grokkit_core.errors import BadManifest, Incompatible, OtherNetwork, UsageError
from grokkit_core.manifest import Curve, Manifest, Provenance
from grokkit_core.names import check_name
from grokkit_core.specs import ArchitectureSpec, Event, TransferSpec
from grokkit_core.streams import stream
from grokkit_core.task import Task
from grokkit_core.text import printable
from grokkit_core.transfer.operator import Target, TransferPlan
from grokkit_core.workspace import Where, Workspace, show, workspace

COMPARED = 1_024
DENSE = "zero-pad"
MOST_ELEMENTS = 2**26
"""Of one input of the comparison; wide inputs are compared on fewer rows."""


@dataclass(frozen=True)
class Growth:
    """A saved grown cassette. `max_abs_difference` is over outputs of the source and of the grown network, projected
    back, on `compared` samples, None where the plan promises another function; `seconds` is the time of the construction
    alone.
    """

    cassette: Cassette
    plan: TransferPlan
    max_abs_difference: float | None
    compared: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """The object of `grokkit grow --json`."""
        manifest = self.cassette.manifest
        return {
            "name": manifest.name,
            "version": manifest.version,
            "operator": self.plan.operator,
            "guarantee": self.plan.guarantee,
            "max_abs_difference": self.max_abs_difference,
            "compared": self.compared,
            "seconds": self.seconds,
            "bytes": manifest.weights.bytes,
            "before": dict(self.plan.before),
            "after": dict(self.plan.after),
            "verdict": manifest.certificate.verdict,
            "digest": manifest.digest,
        }


def plan_growth(
    ref: str | Cassette, to: Target, *, operator: str | None = None, dense: bool = False, library: Where = None
) -> TransferPlan:
    """What `grow` would do, from the manifest alone. Raises `Incompatible` with the reason and the operators that apply."""
    place = workspace(library)
    manifest = ref.manifest if isinstance(ref, Cassette) else place.library.find(ref).manifest
    assert manifest is not None  # `find` raises rather than return an unreadable entry
    return _plan(place, manifest, to, operator, dense)


def grow(
    ref: str | Cassette,
    to: Target,
    *,
    operator: str | None = None,
    dense: bool = False,
    name: str | None = None,
    seed: int = 0,
    device: str = "auto",
    dtype: str | None = None,
    library: Where = None,
) -> Growth:
    """Change sizes of a cassette without training, certify the result and save it.

    `to` gives new sizes by config field, or a second cassette (or a reference to one) where the operator reads one. The
    operator is the one with the strongest guarantee unless one is named. Outputs of source and result are compared on samples of the task. Raises `Incompatible` or `UsageError` before anything is written.
    """
    place = workspace(library)
    source = ref if isinstance(ref, Cassette) else load(ref, library=place)
    plan = _plan(place, source.manifest, to, operator, dense)
    new_name = check_name(name or default_name(plan))
    place.library.prepare()
    source = source.to(choose_device(device, plan.parameters), dtype)
    partners = _partners(source, plan, to, place)
    with fitting_threads(plan.parameters):
        started = time.perf_counter()
        grown = construct(source, plan, partners=partners, name=new_name, seed=seed, place=place)
        seconds = time.perf_counter() - started
        kept = None
        if plan.tolerance is not None:
            kept = preservation(source, grown, plan, seed=seed)
            _check_kept(kept, plan)
            grown = grown.with_extra({"preservation": {"max_abs_difference": kept.difference, "samples": kept.samples}})
        certificate = grown.task.certify(
            grown.to("cpu", dtype or source.manifest.certificate.dtype), level="full", seed=seed
        )
    saved = grown.with_certificate(certificate).save(place)
    place.plugins.emit(Event("growth", {"name": saved.manifest.ref, "operator": plan.operator}))
    return Growth(saved, plan, kept.difference if kept else None, kept.samples if kept else 0, seconds)


def default_name(plan: TransferPlan) -> str:
    """`<source>-<operator>`, shortened to the length that a name may have."""
    suffix = "-" + plan.operator.rpartition("/")[2]
    return plan.source.name[: 64 - len(suffix)].rstrip("-") + suffix


def _partners(source: Cassette, plan: TransferPlan, to: Target, place: Workspace) -> dict[str, Cassette]:
    """The cassettes that a plan reads beside its source."""
    found = {}
    for name in plan.partners:
        given = to.get(name, source)
        found[name] = given if isinstance(given, Cassette) else load(str(given), library=place)
    return found


def construct(
    source: Cassette,
    plan: TransferPlan,
    *,
    partners: Mapping[str, Cassette] | None = None,
    name: str,
    seed: int,
    place: Workspace,
) -> Cassette:
    """The grown cassette, not yet certified or saved; `partners` are those that the plan names."""
    host = place.plugins
    operator = host.operator(plan.operator)
    tensors = operator.combine(source, partners or {}, plan) if plan.partners else operator.apply(source, plan)
    architecture = host.spec(ArchitectureSpec, plan.architecture.id)
    task: Task = host.task(plan.task.id, **plan.task.parameters)
    spec = host.spec(TransferSpec, plan.operator)
    inner = source.architecture.spec
    parents = (source.manifest, *plan.partners.values())
    provenance = Provenance(
        kind="grown",
        recipe=None,
        seed=seed,
        steps=None,
        grok_step=None,
        curve=Curve((), ()),
        operator=operator_record(plan),
        gate=None,
        parents=tuple(manifest.parent() for manifest in parents),
        software=software(host, task.spec, architecture, spec, inner),
        created=now(),
    )
    sizes = ", ".join(f"{name} {plan.before[name]} to {plan.after[name]}" for name in _changed(plan))
    return draft(
        name,
        task=task,
        architecture=architecture,
        config=plan.architecture.config,
        signature=plan.signature,
        tensors=tensors,
        provenance=provenance,
        summary=f"{source.manifest.name} grown by {plan.operator}: {sizes}"[:200],
        plugins=host,
        components=(spec, inner),
        requires={n for m in parents for n in m.requires.plugins},
        citation=tuple(dict.fromkeys(text for m in parents for text in m.citation)),
    )


def operator_record(plan: TransferPlan) -> dict[str, Any]:
    """What provenance says of an operator: sizes, settings and its guarantee."""
    partners = {"partners": list(plan.partners)} if plan.partners else {}
    return {
        "id": plan.operator,
        **partners,
        "before": dict(plan.before),
        "after": dict(plan.after),
        "settings": dict(plan.settings),
        "guarantee": plan.guarantee,
    }


@dataclass(frozen=True)
class Preservation:
    """How far outputs of a source and of what grew from it are apart, on how many samples, and how large they are."""

    difference: float
    samples: int
    size: float

    def keeps(self, plan: TransferPlan) -> bool:
        """Whether the plan's guarantee holds on these samples; infinite differences (of NaN) are never admitted."""
        allowed = math.inf if plan.tolerance is None else plan.tolerance * max(1.0, self.size)
        return math.isfinite(self.difference) and self.difference <= allowed


def preservation(source: Cassette, grown: Cassette, plan: TransferPlan, *, seed: int) -> Preservation:
    """Compare source and grown network on samples of the source's task; NaN never equals anything."""
    operator, task = source.plugins.operator(plan.operator), source.task
    places = operator.places(task, plan)
    widest = max(math.prod(_fixed(spec.axes)) for spec in (*source.manifest.inputs, *plan.signature.inputs))
    count = max(1, min(COMPARED, MOST_ELEMENTS // widest) // len(places))
    apart, size, compared = 0.0, 0.0, 0
    for index, where in enumerate(places):
        samples = min(count, task.test_samples("full", where))
        batch = task.sample(samples, generator=stream(seed, "preservation", index), **where)
        batch = batch.to(source.dtype, source.device)
        before = source.predict(batch.inputs, batch.context, force=True)
        lifted = operator.lift(batch.inputs, plan)
        after = operator.project(grown.to(source.device).predict(lifted, batch.context, force=True), plan)
        apart, size = max(apart, _apart(before, after)), max(size, before.abs().max().item())
        compared += samples
    return Preservation(apart, compared, size)


def _apart(before: Tensor, after: Tensor) -> float:
    difference = (cast(before, torch.float64) - cast(after, torch.float64)).abs().max().item()
    return math.inf if math.isnan(difference) else difference


def _fixed(axes: tuple[str | int, ...]) -> list[int]:
    return [axis for axis in axes if isinstance(axis, int)]


def _changed(plan: TransferPlan) -> list[str]:
    return [name for name in plan.after if plan.after[name] != plan.before.get(name)] or list(plan.after)


def _check_kept(kept: Preservation, plan: TransferPlan) -> None:
    """Raise `Incompatible` where an operator did not keep the function; then nothing is saved."""
    if not kept.keeps(plan):
        raise Incompatible(
            f"{plan.operator} changed the function of {plan.source.ref} by {kept.difference:.3g}",
            expected=f"at most {plan.tolerance:g} of the outputs",
            hint="its guarantee does not hold for these weights; nothing was saved",
        )


def _plan(place: Workspace, manifest: Manifest, to: Target, operator: str | None, dense: bool) -> TransferPlan:
    """The plan of the operator that was named, or else of the one with the strongest guarantee."""
    _check_config(place, manifest)
    if not to and operator is None:
        raise UsageError("no new size", expected="--to with a size of the network, or --operator")
    if dense and operator not in (None, DENSE):
        raise UsageError(
            f"--dense with operator {operator}", expected=f"{DENSE}, which has a dense and an implicit form"
        )
    if operator is not None or dense:
        return _named_plan(place, manifest, to, place.plugins.spec(TransferSpec, operator or DENSE).id, dense)
    plans, refusals = plans_of(place, manifest, to)
    if not plans:
        raise Incompatible(f"no operator can grow {manifest.ref} so: {_told(refusals) or 'none is installed'}")
    return min(plans, key=lambda plan: (math.inf if plan.tolerance is None else plan.tolerance, plan.operator))


def _check_config(place: Workspace, manifest: Manifest) -> None:
    """Raise `BadManifest` for a config that the source's own architecture refuses; operators then need not expect one."""
    architecture = place.plugins.architecture(manifest.architecture.id)
    try:
        architecture.check(architecture.settled(manifest.architecture.config))
    except UsageError as error:
        raise BadManifest(f"config of {manifest.ref}: {error}") from None


def _named_plan(place: Workspace, manifest: Manifest, to: Target, operator: str, dense: bool) -> TransferPlan:
    options: dict[str, Any] = {"dense": True} if dense else {}
    try:
        return place.plugins.operator(operator).plan(manifest, to, **options, **_read_partners(place, operator, to))
    except Incompatible as error:
        plans = plans_of(place, manifest, to)[0] if to else []
        others = [plan.operator for plan in plans if plan.operator != operator]
        if not others:
            raise
        raise Incompatible(str(error), hint=f"these operators apply: {', '.join(others)}") from None


def _told(refusals: Mapping[str, Incompatible]) -> str:
    """The reasons of the operators that work on such networks, and the names of the others."""
    reasons = [f"{name}: {error}" for name, error in refusals.items() if not isinstance(error, OtherNetwork)]
    others = [name for name, error in refusals.items() if isinstance(error, OtherNetwork)]
    return "; ".join([*reasons, *([f"for other networks are {', '.join(others)}"] if others else [])])


def plans_of(place: Workspace, manifest: Manifest, to: Target) -> tuple[list[TransferPlan], dict[str, Incompatible]]:
    """The plans of all operators that could do it, and why the others could not; without negative controls."""
    plans: list[TransferPlan] = []
    refusals: dict[str, Incompatible] = {}
    for spec in place.plugins.specs(TransferSpec):
        if spec.control:
            continue
        try:
            plans.append(place.plugins.operator(spec.id).plan(manifest, to, **_read_partners(place, spec.id, to)))
        except Incompatible as error:
            refusals[spec.id] = error
    return plans, refusals


def _read_partners(place: Workspace, operator: str, to: Target) -> dict[str, Any]:
    """The option `partners` of an operator that reads further cassettes: the manifests of those that were given."""
    wanted = [field for field in place.plugins.spec(TransferSpec, operator).parameters if field.type == "cassette"]
    if not wanted:
        return {}
    found = {}
    for field in wanted:
        given = to.get(field.name)
        if isinstance(given, Cassette):
            found[field.name] = given.manifest
        elif isinstance(given, str) and given:
            found[field.name] = show(given, library=place)
        elif given is not None:
            raise UsageError(f"{field.name} = {printable(repr(given), 60)}", expected=field.expected)
    return {"partners": found}
