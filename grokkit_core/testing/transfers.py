"""Laws of transfer operators: plans are made of manifests, and the function is kept as the plan says."""

from __future__ import annotations

import json
import math
from typing import Any

import torch
from hypothesis import strategies as st

from grokkit_core import contract
from grokkit_core.cassette import Cassette, load
from grokkit_core.dtypes import cast, cast_dtype, is_inexact, real_dtype
from grokkit_core.errors import Incompatible, UsageError
from grokkit_core.specs import TransferSpec
from grokkit_core.streams import stream
from grokkit_core.strictjson import canonical
from grokkit_core.task import Batch, Inputs, map_tensors
from grokkit_core.testing.draws import Strategy, for_all
from grokkit_core.testing.growth import partners_of, plans_for, sizes_in
from grokkit_core.testing.laws import Laws, applies, require
from grokkit_core.testing.workbench import Workbench, answer, apart, cloned, dtypes_of, same_bits
from grokkit_core.transfer.operator import ROUNDING, TransferPlan

LAWS = Laws("transfer")

DOUBLE = 1e-12
"""What "to rounding" allows outputs of order one to differ in float64."""
ROWS = 24


def some_growths(bench: Workbench, spec: TransferSpec) -> list[tuple[Cassette, TransferPlan, Cassette]]:
    """Every growth by the operator; leaves the law where no installed network can be grown by it."""
    found = bench.growths(spec)
    applies(bool(found), "it grows no network of the installed architectures")
    return found


@LAWS(
    "plan-json",
    "a plan is made from a manifest alone, the same every time, and can be printed as JSON",
    mend="put only numbers, strings, lists and mappings into `before`, `after` and `settings`",
)
def _(spec: TransferSpec, bench: Workbench) -> None:
    for source, plan, _ in some_growths(bench, spec):
        printed = canonical(plan.to_json())
        require(canonical(json.loads(printed)) == printed, "the printed plan changes when it is read", "one form")
        again = plans_for(bench, spec, source)
        require(plan.to_json() in [other.to_json() for other in again], "another plan the second time", "an equal one")


@LAWS(
    "refusals",
    "what the operator cannot do is refused with Incompatible or UsageError and a reason, and nothing else is raised",
    mend="check names and values of the target before computing with them: `operator.check_target` does",
)
def _(spec: TransferSpec, bench: Workbench) -> None:
    operator, networks = bench.plugins.operator(spec.id), list(bench.all_networks())
    applies(bool(networks), "there is no network to try it on")
    names = sorted({name for source in networks for name, _ in sizes_in(source.manifest.architecture.config)})
    values: Strategy = st.sampled_from([0, -1, 10**9, 0.5, math.nan, "x", "", None, True, [], {}])
    targets = st.dictionaries(st.sampled_from([*names, "no_such_size"]), values, max_size=2)

    @for_all(4 * bench.examples, source=st.sampled_from(networks), target=targets)
    def holds(source: Cassette, target: dict[str, Any]) -> None:
        given = {"partners": {k: c.manifest for k, c in partners_of(bench, spec, source).items()}}
        try:
            operator.plan(source.manifest, target, **(given if given["partners"] else {}))
        except (Incompatible, UsageError) as error:
            require(bool(str(error).strip()), f"{target} is refused without a word", "a reason")
            return
        require("no_such_size" not in target, f"{target} was accepted", "Incompatible")


@LAWS(
    "source-kept",
    "the source stays as it is",
    mend="make new tensors in `apply`; clone before writing into one",
)
def _(spec: TransferSpec, bench: Workbench) -> None:
    operator = bench.plugins.operator(spec.id)
    for source, plan, _ in some_growths(bench, spec):
        given = cloned(source)
        if plan.partners:
            operator.combine(given, partners_of(bench, spec, given), plan)
        else:
            operator.apply(given, plan)
        changed = [name for name, tensor in source.tensors.items() if not same_bits(tensor, given.tensors[name])]
        require(not changed, f"tensors {', '.join(changed)} of the source were changed", "as they were")


@LAWS(
    "preserves",
    "project(grown(lift(inputs))) equals source(inputs) as the plan promises, for trained and untrained networks",
    mend="state in the plan's `tolerance` what holds, and see which weights or inputs break it",
)
def _(spec: TransferSpec, bench: Workbench) -> None:
    compared = False
    for source, plan, grown in some_growths(bench, spec):
        if plan.tolerance is None or not math.isfinite(plan.tolerance):
            continue
        compared = True
        for dtype in dtypes_of(source):
            allowed = min(plan.tolerance, DOUBLE if is_double(grown, dtype) else ROUNDING)
            for batch in batches_for(bench, source, plan, dtype):
                difference = difference_of(bench, source, plan, grown, batch)
                told = f"{dict(plan.before)} to {dict(plan.after)} in {dtype}: outputs differ by {difference:.3g}"
                require(difference <= allowed, f"{source.manifest.name} {told}", f"at most {allowed:g}")
    applies(compared, "it promises another function")


def is_double(grown: Cassette, dtype: torch.dtype) -> bool:
    """Whether weights and inputs have the precision of float64: narrower weights were rounded when they were made."""
    weights = {real_dtype(tensor.dtype) for tensor in grown.tensors.values() if is_inexact(tensor)}
    return real_dtype(dtype) == torch.float64 and weights <= {torch.float64}


def batches_for(bench: Workbench, source: Cassette, plan: TransferPlan, dtype: torch.dtype) -> list[Batch]:
    """Samples of the law, random numbers in their shape, and large ones."""
    where = bench.plugins.operator(plan.operator).places(source.task, plan)[0]
    try:
        law = source.task.sample(ROWS, generator=stream(5, "law"), **where).to(dtype)
    except UsageError:  # a place of the grown law that the source's own does not have
        law = bench.batch(source, ROWS).to(dtype)

    def noise(tensor: torch.Tensor) -> torch.Tensor:
        kind = cast_dtype(dtype, tensor.dtype)
        return torch.randn(tensor.shape, generator=stream(3, "inputs"), dtype=kind) if is_inexact(tensor) else tensor

    random = Batch(map_tensors(law.inputs, noise), law.targets, law.context)
    extreme = Batch(map_tensors(random.inputs, large), law.targets, law.context)
    return [law, random, extreme]


def large(tensor: torch.Tensor) -> torch.Tensor:
    """A thousand times as much; bits as they are."""
    return tensor * 1e3 if is_inexact(tensor) else tensor


def difference_of(bench: Workbench, source: Cassette, plan: TransferPlan, grown: Cassette, batch: Batch) -> float:
    """How far outputs are apart, relative to the largest; 0 where the source itself gives no number or no answer."""
    operator = bench.plugins.operator(plan.operator)
    try:
        before = answer(source, batch)
    except Incompatible:
        return 0.0
    lifted: Inputs = operator.lift(batch.inputs, plan)
    after = operator.project(answer(grown, Batch(lifted, batch.targets, batch.context)), plan)
    if not bool(torch.isfinite(before).all()):
        return 0.0
    return apart(cast(after, torch.float64), cast(before, torch.float64))


@LAWS(
    "result",
    "the grown cassette is what its plan says: architecture, sizes, signature and number of parameters",
    mend="make plan and tensors from one config; `TransferOperator.resized` makes the plan",
)
def _(spec: TransferSpec, bench: Workbench) -> None:
    for _, plan, grown in some_growths(bench, spec):
        manifest = grown.manifest
        require(manifest.architecture == plan.architecture, f"{manifest.architecture}", f"{plan.architecture}")
        promised = grown.architecture.signature(manifest.architecture.config)
        require(promised == plan.signature, f"the network's signature is {promised}", f"{plan.signature}")
        stored = sum(tensor.numel() for tensor in grown.tensors.values())
        require(stored == plan.parameters, f"{stored} numbers are stored", f"{plan.parameters}")


@LAWS(
    "save-load",
    "a grown cassette can be saved and loaded, and then gives the same outputs to the bit",
    mend="return from `apply` exactly the tensors that the grown config builds, in their dtypes",
)
def _(spec: TransferSpec, bench: Workbench) -> None:
    seen = set()
    for _, plan, grown in some_growths(bench, spec):
        if plan.source.architecture.id in seen:
            continue
        seen.add(plan.source.architecture.id)
        with bench.workspace() as place:
            loaded = load(grown.save(place).manifest.ref, library=place)
        batch = bench.batch(grown, 3)
        first, again = answer(grown, batch), answer(loaded, batch)
        require(same_bits(first, again), f"outputs differ by {apart(again, first):.3g}", "equal bits")


@LAWS(
    "lift",
    "lifted inputs fit the signature of the grown network: shape, dtype and domain",
    mend="let `lift` give the sizes of the plan's signature, in the dtype of the inputs",
)
def _(spec: TransferSpec, bench: Workbench) -> None:
    operator = bench.plugins.operator(spec.id)
    for source, plan, _ in some_growths(bench, spec):
        batch = batches_for(bench, source, plan, source.dtype)[0]
        lifted = operator.lift(batch.inputs, plan)
        given = ((lifted,), {}) if isinstance(lifted, torch.Tensor) else ((), lifted)
        try:
            contract.check_inputs(plan.signature, contract.named_inputs(plan.signature, *given))
        except Incompatible as error:
            require(False, f"{dict(plan.before)} to {dict(plan.after)}: {error}", "inputs that the grown network takes")
