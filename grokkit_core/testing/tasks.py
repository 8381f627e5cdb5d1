"""Laws of tasks: an exact, deterministic oracle in float64, an honest sampler, a metric and baselines that work."""

from __future__ import annotations

import torch
from torch import Tensor

from grokkit_core import contract
from grokkit_core.cassette import torch_dtype
from grokkit_core.dtypes import cast, is_inexact
from grokkit_core.errors import Incompatible, UsageError
from grokkit_core.specs import TaskSpec
from grokkit_core.streams import stream
from grokkit_core.task import Batch, Inputs, Task, map_tensors, tensors_of
from grokkit_core.tensors import computing_dtypes
from grokkit_core.testing.draws import COUNTS, SEEDS, bad_settings, for_all
from grokkit_core.testing.laws import Laws, applies, require
from grokkit_core.testing.workbench import Workbench, apart, copied, equal_inputs, global_state, same_bits

LAWS = Laws("task")

SAME = 1e-10
"""Two ways to compute one thing in float64; what was rounded to float32 on the way differs by 1e-8 or more."""
KEPT = 1e-6
"""What an oracle that integrates may lose of a conserved quantity in `STEPS` steps, of its size."""
STEPS = 10
NUDGE = 2.0**-36
"""Of an input: far below what float32 tells apart, far above what float64 does."""
CALIBRATION = 256
"""Samples that baselines are fitted to."""


def drawn(task: Task, count: int, *, seed: int = 0, place: int = 0) -> Batch:
    """Samples at a row of the task's tables."""
    where = task.evaluation[place % len(task.evaluation)]
    return task.sample(count, generator=stream(seed, "testing"), **where)


def typed(task: Task, batch: Batch) -> Batch:
    """Samples in the dtype in which cassettes of the task compute first."""
    return batch.to(torch_dtype(computing_dtypes(task.spec.signature)[0]))


@LAWS(
    "sample-count",
    "the sampler gives as many samples as were asked for, with inputs, targets and context of that many rows",
    mend="make the first axis of inputs, targets and context the number `n` that `sample` was given",
)
def _(spec: TaskSpec, bench: Workbench) -> None:
    task = bench.task(spec)

    @for_all(bench.examples, count=COUNTS, seed=SEEDS)
    def holds(count: int, seed: int) -> None:
        batch = drawn(task, count, seed=seed, place=seed)
        rows = {"targets": len(batch.targets)} | {name: len(tensor) for name, tensor in batch.context.items()}
        rows |= {f"input {index}": len(tensor) for index, tensor in enumerate(tensors_of(batch.inputs))}
        wrong = {name: found for name, found in rows.items() if found != count}
        require(not wrong, f"{count} samples were asked for, rows are {wrong}", f"{count} rows of each")


@LAWS(
    "sample-domain",
    "sampled inputs and context fit the signature: names, shapes, dtypes and the declared domain",
    mend="correct the sampler, or the axes and domains of the task's signature",
)
def _(spec: TaskSpec, bench: Workbench) -> None:
    task = bench.task(spec)

    @for_all(bench.examples, seed=SEEDS)
    def holds(seed: int) -> None:
        for place in range(len(task.evaluation)):
            batch = typed(task, drawn(task, 4, seed=seed, place=place))
            try:
                check_fit(task, batch.inputs)
                contract.check_context(spec.signature, batch.context, len(batch))
            except Incompatible as error:
                require(False, f"at {dict(task.evaluation[place])}: {error}", "samples that a cassette would accept")


def check_fit(task: Task, inputs: Inputs) -> None:
    """Raise `Incompatible` for inputs that the task's signature does not admit."""
    given = ((inputs,), {}) if isinstance(inputs, Tensor) else ((), inputs)
    contract.check_inputs(task.spec.signature, contract.named_inputs(task.spec.signature, *given))


@LAWS(
    "sample-generator",
    "the sampler draws from the generator that it is given and from nothing else",
    mend="pass `generator=generator` to every draw, and keep no state between calls",
)
def _(spec: TaskSpec, bench: Workbench) -> None:
    task = bench.task(spec)

    @for_all(bench.examples, seed=SEEDS)
    def holds(seed: int) -> None:
        first, again = (drawn(task, 5, seed=seed, place=seed) for _ in range(2))
        same = equal_inputs(first.inputs, again.inputs) and same_bits(first.targets, again.targets)
        require(same, "two samples from equal generators differ", "equal bits")

    other = [drawn(task, 16, seed=seed) for seed in (1, 2)]
    require(not equal_inputs(*(batch.inputs for batch in other)), "two seeds give equal samples", "other samples")


@LAWS(
    "global-generators",
    "sampler, oracle and baselines leave the global random generators alone",
    mend="draw from the generator that `sample` is given, or from `grokkit_core.streams.stream`; never seed globally",
)
def _(spec: TaskSpec, bench: Workbench) -> None:
    task = bench.task(spec)
    before = global_state()
    batch = drawn(task, CALIBRATION)
    task.oracle(batch.inputs, batch.context)
    for predict in task.baselines(batch).values():
        predict(batch.inputs, batch.context)
    require(global_state() == before, "the state of a global generator has changed", "the state that it had")


@LAWS(
    "sample-settings",
    "the sampler refuses a setting that it does not have, with a UsageError",
    mend="raise `UsageError` for whatever is left in `where`",
)
def _(spec: TaskSpec, bench: Workbench) -> None:
    task = bench.task(spec)
    try:
        task.sample(2, generator=stream(0), no_such_setting=1)
    except UsageError:
        return
    require(False, "sample(2, no_such_setting=1) was answered", "UsageError")


@LAWS(
    "places",
    "every place of `evaluation`, `calibration` and `knots` can be sampled",
    mend="name in these rows only settings that `sample` takes",
)
def _(spec: TaskSpec, bench: Workbench) -> None:
    task = bench.task(spec)
    require(bool(task.evaluation), "`evaluation` is empty", "at least one row; `({},)` for a sampler without settings")
    for where in (*task.evaluation, *task.calibration, *task.knots):
        batch = task.sample(1, generator=stream(0), **where)
        for name, (low, high) in task.training_range.items():
            known = name in batch.context and name in {variable.name for variable in spec.signature.context}
            require(known, f"`training_range` names {name}", "a context variable of the signature that samples carry")
            require(low <= high, f"`training_range` of {name} is [{low:g}, {high:g}]", "low <= high")


@LAWS(
    "constants",
    "constants of the law outside of their declared type or range are refused with a UsageError",
    mend="call `super().__init__(spec, **parameters)` first in `__init__`, and check what ranges cannot say there",
)
def _(spec: TaskSpec, bench: Workbench) -> None:
    bench.task(spec)

    @for_all(2 * bench.examples, settings=bad_settings(spec.parameters, {}))
    def holds(settings: dict[str, object]) -> None:
        try:
            bench.plugins.task(spec.id, **settings)
        except UsageError:
            return
        require(False, f"the task was made with {settings}", "UsageError")


@LAWS(
    "oracle-repeats",
    "the oracle is deterministic and changes neither inputs nor context",
    mend="compute from inputs and context alone, and never in place",
)
def _(spec: TaskSpec, bench: Workbench) -> None:
    task = bench.task(spec)

    @for_all(bench.examples, seed=SEEDS)
    def holds(seed: int) -> None:
        batch = drawn(task, 5, seed=seed, place=seed)
        before, context = copied(batch.inputs), {name: tensor.clone() for name, tensor in batch.context.items()}
        first = task.oracle(batch.inputs, batch.context)
        kept = equal_inputs(before, batch.inputs) and all(
            same_bits(tensor, batch.context[name]) for name, tensor in context.items()
        )
        require(kept, "the inputs or the context were changed", "inputs as they were")
        again = task.oracle(batch.inputs, batch.context)
        require(same_bits(first, again), f"two answers differ by {apart(first, again):.3g}", "equal bits")


@LAWS(
    "oracle-float64",
    "the oracle computes in float64, whatever the dtype of its inputs",
    mend="begin the oracle with `inputs.double()` (or `dtypes.cast(inputs, torch.float64)`) and keep that precision",
)
def _(spec: TaskSpec, bench: Workbench) -> None:
    task = bench.task(spec)
    batch = drawn(task, 16)
    exact = task.oracle(batch.inputs, batch.context)
    narrow = task.oracle(map_tensors(batch.inputs, lambda tensor: cast(tensor, torch.float32)), batch.context)
    for answer in (exact, narrow):
        wide = not is_inexact(answer) or answer.dtype in (torch.float64, torch.complex128)
        require(wide, f"its answer has dtype {answer.dtype}", "float64 or complex128 (or whole numbers)")
    if not is_inexact(exact) or not all(is_inexact(tensor) for tensor in tensors_of(batch.inputs)):
        return
    if all(is_short(tensor) for tensor in tensors_of(batch.inputs)):
        return
    short = is_short(exact) and not bool((exact == exact.real.round()).all())
    require(not short, "every number of its answer fits into float32", "numbers with the precision of float64")
    nudged = task.oracle(map_tensors(batch.inputs, lambda tensor: tensor * (1 + NUDGE)), batch.context)
    blind = same_bits(nudged, exact) and not is_short(exact)
    require(not blind, f"inputs larger by a factor 1 + {NUDGE:.0e} give the same answer", "another answer")


def is_short(tensor: Tensor) -> bool:
    """Whether every number is one of float32."""
    return same_bits(cast(cast(tensor, torch.float32), torch.float64), cast(tensor, torch.float64))


@LAWS(
    "oracle-rows",
    "the oracle answers each sample by itself",
    mend="reduce over the axes of a sample only, never over the batch",
)
def _(spec: TaskSpec, bench: Workbench) -> None:
    task = bench.task(spec)

    @for_all(bench.examples, count=COUNTS, seed=SEEDS)
    def holds(count: int, seed: int) -> None:
        batch = drawn(task, count, seed=seed, place=seed)
        row = batch[count - 1 : count]
        together = task.oracle(batch.inputs, batch.context)[count - 1 : count]
        difference = apart(task.oracle(row.inputs, row.context), together)
        require(difference <= SAME, f"a sample alone is answered otherwise, by {difference:.3g}", f"at most {SAME:g}")


@LAWS(
    "targets",
    "sampled targets are the oracle's answers to the sampled inputs",
    mend="make the targets with `oracle`, or set `noisy = True` on a task whose inputs are drawn with noise",
)
def _(spec: TaskSpec, bench: Workbench) -> None:
    task = bench.task(spec)
    applies(not task.noisy, "its inputs carry noise, so that the oracle cannot know the target")

    @for_all(bench.examples, seed=SEEDS)
    def holds(seed: int) -> None:
        for place in range(len(task.evaluation)):
            batch = drawn(task, 4, seed=seed, place=place)
            exact = task.oracle(batch.inputs, batch.context)
            found = task.error(exact, batch.targets)
            if spec.higher_is_better:
                require(bool((found == 1).all()), f"the oracle is right in {float(found.mean()):.3g}", "all samples")
            elif exact.shape == batch.targets.shape:
                difference = apart(exact, batch.targets)
                require(difference <= SAME, f"targets and oracle differ by {difference:.3g}", f"at most {SAME:g}")


@LAWS(
    "error",
    "the metric is one finite number a sample: perfect for the exact answer and worse for others",
    mend='return a tensor "batch", in float64, with 0 for the target (1 for an accuracy)',
)
def _(spec: TaskSpec, bench: Workbench) -> None:
    task = bench.task(spec)

    @for_all(bench.examples, count=COUNTS, seed=SEEDS)
    def holds(count: int, seed: int) -> None:
        batch = drawn(task, count, seed=seed, place=seed)
        exact = task.oracle(batch.inputs, batch.context)
        target = exact if exact.shape == batch.targets.shape else batch.targets
        best, other = task.error(exact, target), task.error(another(exact, accuracy=spec.higher_is_better), target)
        for found in (best, other):
            require(tuple(found.shape) == (len(batch),), f"its shape is {list(found.shape)}", f"[{len(batch)}]")
            require(bool(torch.isfinite(found).all()), "it is not finite", "finite numbers")
            require(bool((found >= 0).all()), f"it is {float(found.min()):g}", "0 or more")
        perfect = 1.0 if spec.higher_is_better else 0.0
        require(bool((best == perfect).all()), f"of the exact answer it is {best[0]:g}", f"{perfect:g}")
        worse = other < best if spec.higher_is_better else other > best
        require(bool(worse.all()), f"of another answer it is {other[0]:g}", f"worse than {perfect:g}")


def another(exact: Tensor, *, accuracy: bool) -> Tensor:
    """An answer that differs in every number; of bits and classes the other one."""
    return 1 - exact if accuracy else exact + 1


@LAWS(
    "error-nan",
    "a prediction that is not a number is never a good one",
    mend="let NaN pass through the metric, or count it as wrong: compare with `torch.isfinite`",
)
def _(spec: TaskSpec, bench: Workbench) -> None:
    task = bench.task(spec)
    batch = drawn(task, 3)
    exact = task.oracle(batch.inputs, batch.context)
    if not is_inexact(exact):
        exact = exact.double()
    found = task.error(torch.full_like(exact, torch.nan), batch.targets).flatten()
    good = found > 0 if spec.higher_is_better else torch.isfinite(found)
    require(not bool(good.any()), f"the metric of NaN is {found[0]:g}", "0" if spec.higher_is_better else "NaN")


@LAWS(
    "baselines",
    "there are baselines; each gives finite answers of the target's shape, the same every time, and leaves inputs alone",
    mend="check the shape that each baseline returns, in float32 and in float64",
)
def _(spec: TaskSpec, bench: Workbench) -> None:
    task = bench.task(spec)
    calibration = drawn(task, CALIBRATION, seed=1)
    found = task.baselines(calibration)
    require(bool(found), "there is none", "at least one, such as the mean or persistence")
    named = not spec.speed_baseline or spec.speed_baseline in found
    require(named, f"speed_baseline '{spec.speed_baseline}'", f"one of {', '.join(found)}")
    for batch in (drawn(task, 3), typed(task, drawn(task, 3))):
        wanted = task.oracle(batch.inputs, batch.context).shape
        for name, predict in found.items():
            before = copied(batch.inputs)
            first, again = (predict(batch.inputs, batch.context) for _ in range(2))
            require(first.shape == wanted, f"{name} gives {list(first.shape)}", f"{list(wanted)}")
            require(bool(torch.isfinite(first).all()), f"{name} gives numbers that are not finite", "finite ones")
            require(same_bits(first, again), f"{name} gives two answers to one question", "equal bits")
            require(equal_inputs(before, batch.inputs), f"{name} changed its inputs", "inputs as they were")


@LAWS(
    "oracle-best",
    "no baseline is better than the oracle",
    mend="one of them does not compute the law of the targets; see which, and correct the oracle or the sampler",
)
def _(spec: TaskSpec, bench: Workbench) -> None:
    task = bench.task(spec)
    calibration, batch = drawn(task, CALIBRATION, seed=1), drawn(task, 64, seed=2)
    best = float(task.error(task.oracle(batch.inputs, batch.context), batch.targets).mean())
    for name, predict in task.baselines(calibration).items():
        other = float(task.error(predict(batch.inputs, batch.context), batch.targets).mean())
        better = other > best if spec.higher_is_better else other < best - spec.floor
        require(not better, f"{name} has {spec.metric} {other:.3g}, the oracle {best:.3g}", "an oracle that is best")


@LAWS(
    "advance",
    "the next input of a rollout fits the signature, and the law goes on from there",
    mend="return from `advance` inputs of the same names and shapes, in new memory",
)
def _(spec: TaskSpec, bench: Workbench) -> None:
    task = bench.task(spec)
    batch = drawn(task, 4)
    inputs, before = batch.inputs, copied(batch.inputs)
    shapes = [tensor.shape for tensor in tensors_of(inputs)]
    for _ in range(3):
        outputs = task.oracle(copied(inputs), batch.context)
        require(bool(torch.isfinite(outputs).all()), "the law gives numbers that are not finite", "finite ones")
        inputs = advanced(task, inputs, outputs)
        found = [tensor.shape for tensor in tensors_of(inputs)]
        require(found == shapes, f"shapes {[list(s) for s in found]}", f"{[list(s) for s in shapes]}")
        try:
            check_fit(task, typed(task, Batch(inputs, outputs)).inputs)
        except Incompatible as error:
            require(False, str(error), "inputs that a cassette would accept")
    require(equal_inputs(before, batch.inputs), "the inputs were changed", "inputs as they were")


def advanced(task: Task, inputs: Inputs, outputs: Tensor) -> Inputs:
    """The next inputs; leaves the law for a task that is no flow map, which says so with `Incompatible`."""
    try:
        return task.advance(inputs, outputs)
    except Incompatible:
        applies(type(task).advance is not Task.advance, "it is not a flow map")
        raise


@LAWS(
    "invariants",
    "what the task calls conserved is kept by its oracle along a rollout",
    mend="correct `invariants`, `state` or `advance`: the exact law must keep these quantities",
)
def _(spec: TaskSpec, bench: Workbench) -> None:
    task = bench.task(spec)
    batch = drawn(task, 4)
    inputs = batch.inputs
    before = task.invariants(task.state(inputs), batch.context)
    applies(bool(before), "it declares no invariants")
    for _ in range(STEPS):
        inputs = advanced(task, inputs, task.oracle(inputs, batch.context))
    after = task.invariants(task.state(inputs), batch.context)
    for name, value in before.items():
        require(tuple(value.shape) == (len(batch),), f"{name} has shape {list(value.shape)}", f"[{len(batch)}]")
        drift = apart(after[name], value)
        require(drift <= KEPT, f"{name} drifts by {drift:.3g} in {STEPS} steps", f"at most {KEPT:g}")
