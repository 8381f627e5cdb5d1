"""Laws of fusions: plans compare signatures, members stay frozen, and copies of a member are that member."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from grokkit_core.cassette import Cassette, load
from grokkit_core.dtypes import real_dtype
from grokkit_core.errors import Incompatible, UsageError
from grokkit_core.manifest import Manifest
from grokkit_core.specs import FusionSpec
from grokkit_core.strictjson import canonical
from grokkit_core.task import Batch
from grokkit_core.tensors import TensorSpec
from grokkit_core.testing.fusing import Fused, composed, fused_by, members_of, plan_for
from grokkit_core.testing.laws import Laws, applies, require
from grokkit_core.testing.workbench import Workbench, apart, cloned, same_bits

LAWS = Laws("fusion")

COPIES = {torch.float32: 1e-5, torch.float64: 1e-12}
"""Rounding of a weighted sum of equal numbers."""


def samples(bench: Workbench, fused: Fused) -> list[Batch]:
    """Samples for each member's place in the fusion."""
    return [bench.batch(member, 4) for member in fused.members]


def answers(bench: Workbench, fused: Fused) -> list[Tensor]:
    """What the fused cassette says in each member's place."""
    return [fused.answers(index, batch) for index, batch in enumerate(samples(bench, fused))]


def takes_other_tasks(bench: Workbench, spec: FusionSpec) -> bool:
    """Whether the fusion accepts members of two tasks, which then need not have one signature."""
    for pair in members_of(bench, alike=False):
        try:
            plan_for(bench, spec, pair)
        except (Incompatible, UsageError):
            continue
        return True
    return False


@LAWS(
    "plan-json",
    "a plan is made from manifests alone, the same every time, and can be printed as JSON",
    mend="put only numbers, strings, lists and mappings into the plan, and derive all of it from its arguments",
)
def _(spec: FusionSpec, bench: Workbench) -> None:
    members = fused_by(bench, spec).members
    plans = [plan_for(bench, spec, members).to_json() for _ in range(2)]
    printed = canonical(plans[0])
    require(canonical(json.loads(printed)) == printed, "the printed plan changes when it is read", "one form")
    require(plans[0] == plans[1], "two plans for the same members differ", "equal plans")


@LAWS(
    "refuses-units",
    "members whose units differ are refused, and the message names both units",
    mend="compare with `fusion.shared_signature` in `plan`",
)
def _(spec: FusionSpec, bench: Workbench) -> None:
    _refused(bench, spec, lambda tensor: replace_spec(tensor, unit="furlong"), "furlong")


@LAWS(
    "refuses-axes",
    "members whose axes differ are refused, and the message names the size",
    mend="compare with `fusion.shared_signature` in `plan`",
)
def _(spec: FusionSpec, bench: Workbench) -> None:
    _refused(bench, spec, lambda tensor: replace_spec(tensor, axes=(*tensor.axes[:-1], 977)), "977")


def replace_spec(tensor: TensorSpec, **changes: object) -> TensorSpec:
    """The same tensor with another unit or other axes."""
    return replace(tensor, **{name: getattr(tensor, name) for name in tensor.__dataclass_fields__} | changes)


def _refused(bench: Workbench, spec: FusionSpec, change: Callable[[TensorSpec], TensorSpec], named: str) -> None:
    applies(not takes_other_tasks(bench, spec), "it takes members of several tasks, whose signatures differ")
    fusion = bench.plugins.fusion(spec.id)
    member = fused_by(bench, spec).members[0].manifest
    other: Manifest = member.replace(name="other", outputs=tuple(change(tensor) for tensor in member.outputs))
    try:
        fusion.plan([member, other], "uniform" if spec.gated else None)
    except Incompatible as error:
        require(named in str(error), f"the message is: {error}", f"one that names {named}")
        return
    require(False, f"{member.outputs[0]} and {other.outputs[0]} were fused", "Incompatible")


@LAWS(
    "refuses-one",
    "fewer than two members are refused",
    mend="raise `UsageError` in `plan`",
)
def _(spec: FusionSpec, bench: Workbench) -> None:
    members = fused_by(bench, spec).members
    for count in (0, 1):
        try:
            plan_for(bench, spec, members[:count])
        except (UsageError, Incompatible):
            continue
        require(False, f"{count} members were accepted", "UsageError")


@LAWS(
    "members-kept",
    "composing leaves its members as they are",
    mend="clone a member's tensors before changing them",
)
def _(spec: FusionSpec, bench: Workbench) -> None:
    members = fused_by(bench, spec).members
    given = [cloned(member) for member in members]
    composed(bench, spec, given)
    for member, after in zip(members, given, strict=True):
        same = all(same_bits(tensor, after.tensors[name]) for name, tensor in member.tensors.items())
        require(same, f"tensors of {member.manifest.name} were changed", "as they were")
        kept = after.manifest.digest == member.manifest.digest
        require(kept, f"the manifest of {member.manifest.name} was changed", "as it was")


@LAWS(
    "save-load",
    "a fused cassette can be saved and loaded without its members, and then gives the same outputs to the bit",
    mend="put every tensor of members and gate into the cassette, and everything else into its config",
)
def _(spec: FusionSpec, bench: Workbench) -> None:
    fused = fused_by(bench, spec)
    with bench.workspace() as place:
        loaded = load(fused.cassette.save(place).manifest.ref, library=place)
    again = replace(fused, cassette=loaded)
    for first, second in zip(answers(bench, fused), answers(bench, again), strict=True):
        require(same_bits(first, second), f"outputs differ by {apart(second, first):.3g}", "equal bits")


@LAWS(
    "copies",
    "a fusion of copies of one member, and one that answers by key, gives what the member gives",
    mend="let the weights of the members sum to one, and feed each member what the whole is fed",
)
def _(spec: FusionSpec, bench: Workbench) -> None:
    fused = fused_by(bench, spec)
    if fused.cassette.signature.inputs:
        fused = fused_by(bench, spec, [_copy(fused.members[0], name) for name in ("one", "two")])
    for member, batch, found in zip(fused.members, samples(bench, fused), answers(bench, fused), strict=True):
        alone = member.predict(batch.inputs, batch.context, force=True)
        difference, allowed = apart(found, alone), COPIES[real_dtype(alone.dtype)]
        require(difference <= allowed, f"outputs differ from the member's by {difference:.3g}", f"at most {allowed:g}")


def _copy(cassette: Cassette, name: str) -> Cassette:
    return Cassette(cassette.manifest.replace(name=name), cassette.tensors, plugins=cassette.plugins)


@LAWS(
    "repeats",
    "composing is a function of members, calibration and seed",
    mend="draw from `streams.stream(seed, ...)` and from `batches` only",
)
def _(spec: FusionSpec, bench: Workbench) -> None:
    members = fused_by(bench, spec).members
    first, again = (fused_by(bench, spec, members).cassette for _ in range(2))
    same = set(first.tensors) == set(again.tensors)
    same = same and all(same_bits(tensor, again.tensors[name]) for name, tensor in first.tensors.items())
    require(same, "two compositions with one seed hold different tensors", "equal bits")


@LAWS(
    "parents",
    "the fused cassette names every member by its digest, and requires their plugins",
    mend="write `member.manifest.parent()` of every member into the provenance, and pass `requires` to `draft`",
)
def _(spec: FusionSpec, bench: Workbench) -> None:
    fused = fused_by(bench, spec)
    manifest = fused.cassette.manifest
    named = {parent.digest for parent in manifest.provenance.parents}
    wanted = {member.manifest.digest for member in fused.members}
    require(wanted <= named, f"{len(wanted & named)} of {len(wanted)} members are named", "all of them")
    require(manifest.provenance.kind == "composed", f"its kind is {manifest.provenance.kind}", "composed")
    needed = {name for member in fused.members for name in member.manifest.requires.plugins}
    lost = needed - set(manifest.requires.plugins)
    require(not lost, f"it does not require {', '.join(sorted(lost))}", "what its members require")
