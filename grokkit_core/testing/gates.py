"""Laws of gates: weights are a partition of unity, fitted reproducibly, and kept whole by config and tensors."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from grokkit_core.dtypes import cast, is_inexact
from grokkit_core.errors import BadWeights, UsageError
from grokkit_core.fusion.gate import Calibration, Gate, GateState
from grokkit_core.records import to_json
from grokkit_core.specs import REQUIRED, GateSpec
from grokkit_core.streams import stream
from grokkit_core.strictjson import canonical
from grokkit_core.task import Inputs, Predictor, Task, tensors_of
from grokkit_core.testing.draws import SEEDS, bad_settings, for_all, modest
from grokkit_core.testing.laws import Laws, applies, require
from grokkit_core.testing.workbench import Workbench, apart, global_state, same_bits

LAWS = Laws("gate")

UNITY = {torch.float32: 1e-5, torch.float64: 1e-12}
"""Rounding of a sum of a few weights."""
MEMBERS = st.sampled_from([2, 3, 5])
DTYPES = st.sampled_from([torch.float32, torch.float64])
ODD = (1e-9, -50.0, 1e4)
"""Values of a context variable that nobody calibrated for."""


def gate_of(bench: Workbench, spec: GateSpec) -> Gate:
    """The gate with settings that ask for little work."""
    lacking = [field.name for field in spec.options if field.default is REQUIRED and field.name not in modest([field])]
    applies(not lacking, f"it has no default for {', '.join(lacking)}")
    return bench.plugins.gate(spec.id, **modest(spec.options))


def task_for(bench: Workbench, spec: GateSpec) -> tuple[Task, str]:
    """A task on which the gate can be fitted, with the context variable that the gate reads (or none)."""
    for task in bench.tasks():
        names = [variable.name for variable in task.spec.signature.context]
        wanted = [name for name in names if spec.needs in ("any-scalar", name)]
        outputs = task.oracle(*_probe(task)).shape
        plain = not spec.needs or (wanted and task.calibration)
        if plain and outputs == task.sample(2, generator=stream(0), **task.evaluation[0]).targets.shape:
            return task, (wanted[0] if spec.needs else "")
    applies(False, f"no installed task has the context that it needs: {spec.needs or 'none'}")
    raise AssertionError


def _probe(task: Task) -> tuple[Inputs, Mapping[str, Tensor]]:
    batch = task.sample(2, generator=stream(0), **task.evaluation[0])
    return batch.inputs, batch.context


def member(task: Task, index: int) -> Predictor:
    """A member with an error of its own: the exact answer, a little too large and shifted."""

    def predict(inputs: Inputs, context: Mapping[str, Tensor]) -> Tensor:
        exact = task.oracle(inputs, context)
        found = exact * (1 + 0.05 * (index + 1)) + 0.02 * index
        return cast(found, next(t.dtype for t in tensors_of(inputs) if is_inexact(t)))

    return predict


def fitted(
    bench: Workbench, spec: GateSpec, *, members: int = 2, seed: int = 0, dtype: torch.dtype = torch.float32
) -> tuple[Gate, GateState, Task]:
    """The gate, fitted to members of a task."""
    gate, (task, variable) = gate_of(bench, spec), task_for(bench, spec)
    places = list(gate.places(task)) or list(task.evaluation)
    batches = Calibration(task, places, generator=stream(seed, "data"), dtype=dtype, variable=variable)
    state = gate.fit([member(task, index) for index in range(members)], batches, generator=stream(seed, "gate"))
    return gate, state, task


def rebuilt(gate: Gate, state: GateState) -> nn.Module:
    """The module of a fitted gate as a cassette builds it: from the config, then given its tensors."""
    module = gate.build(GateState(state.config))
    module.load_state_dict(dict(state.tensors))
    return module


def weights_of(
    module: nn.Module, task: Task, members: int, dtype: torch.dtype, *, rows: Sequence[int] | None = None
) -> tuple[Tensor, tuple[int, ...]]:
    """Weights for samples of the task, with odd contexts among them; and the shape of the predictions."""
    batch = task.sample(9, generator=stream(0, "inputs"), **task.evaluation[0]).to(dtype)
    context = {name: tensor.clone() for name, tensor in batch.context.items()}
    for tensor in context.values():
        tensor[-len(ODD) :] = torch.tensor(ODD, dtype=tensor.dtype)
    predictions = torch.stack([member(task, index)(batch.inputs, batch.context) for index in range(members)])
    if rows is not None:
        batch, predictions = batch[torch.tensor(rows)], predictions[:, rows]
        context = {name: tensor[list(rows)] for name, tensor in context.items()}
    with torch.no_grad():
        found: Tensor = module.to(dtype)(tensors_of(batch.inputs), context, predictions)
    return found, tuple(predictions.shape)


@LAWS(
    "partition",
    "weights are finite and sum to one over the members, in every context",
    mend="end with a softmax over the first axis, or make one weight the rest of the others",
)
def _(spec: GateSpec, bench: Workbench) -> None:
    @for_all(bench.examples, members=MEMBERS, seed=SEEDS, dtype=DTYPES)
    def holds(members: int, seed: int, dtype: torch.dtype) -> None:
        gate, state, task = fitted(bench, spec, members=members, seed=seed, dtype=dtype)
        weights, shape = weights_of(rebuilt(gate, state), task, members, dtype)
        wanted = f'"member batch" {list(shape[:2])} or "member batch *out" {list(shape)}'
        require(tuple(weights.shape) in (shape[:2], shape), f"weights have shape {list(weights.shape)}", wanted)
        require(bool(torch.isfinite(weights).all()), "weights are not finite", "finite ones")
        off = float((weights.double().sum(0) - 1).abs().max())
        require(off <= UNITY[dtype], f"their sum is off by {off:.3g} in {dtype}", f"1 within {UNITY[dtype]:g}")


@LAWS(
    "fit-repeats",
    "fitting is a function of members, calibration and generator",
    mend="draw initial weights from `generator` and samples from `batches` only, and keep no state between fits",
)
def _(spec: GateSpec, bench: Workbench) -> None:
    @for_all(max(2, bench.examples // 2), members=MEMBERS, seed=SEEDS)
    def holds(members: int, seed: int) -> None:
        first, again = (fitted(bench, spec, members=members, seed=seed)[1] for _ in range(2))
        require(to_json(first.config) == to_json(again.config), "two fits give two configs", "equal ones")
        same = all(same_bits(tensor, again.tensors[name]) for name, tensor in first.tensors.items())
        require(same, "two fits from equal generators give different tensors", "equal bits")


@LAWS(
    "global-generators",
    "fitting, building and weighing leave the global random generators alone",
    mend="initialise under `torch.random.fork_rng(devices=[])`, or from the generator that `fit` is given",
)
def _(spec: GateSpec, bench: Workbench) -> None:
    before = global_state()
    gate, state, task = fitted(bench, spec)
    weights_of(rebuilt(gate, state), task, 2, torch.float32)
    require(global_state() == before, "the state of a global generator has changed", "the state that it had")


@LAWS(
    "state",
    "a fitted gate is rebuilt from its JSON config and its tensors, shapes from the config alone",
    mend="write into the config whatever shapes follow from, and register every tensor as a parameter or buffer",
)
def _(spec: GateSpec, bench: Workbench) -> None:
    for members in (2, 3):
        gate, state, task = fitted(bench, spec, members=members)
        config = json.loads(canonical(to_json(dict(state.config))))
        with torch.device("meta"):
            expected = gate.build(GateState(config)).state_dict()
        shapes = {name: list(tensor.shape) for name, tensor in expected.items()}
        found = {name: list(tensor.shape) for name, tensor in state.tensors.items()}
        require(shapes == found, f"`fit` keeps {found}, `build` expects {shapes}", "the same names and shapes")
        grown = [name for name, tensor in state.tensors.items() if tensor.requires_grad]
        require(not grown, f"tensors {', '.join(grown)} carry gradients", "detached ones")
        first, _ = weights_of(rebuilt(gate, state), task, members, torch.float32)
        again, _ = weights_of(rebuilt(gate, GateState(config, state.tensors)), task, members, torch.float32)
        require(same_bits(first, again), f"weights differ by {apart(again, first):.3g}", "equal bits")


@LAWS(
    "check",
    "the state that it fits passes its own check",
    mend="let `check` refuse only what `fit` never gives",
)
def _(spec: GateSpec, bench: Workbench) -> None:
    for members in (2, 3):
        gate, state, _ = fitted(bench, spec, members=members)
        try:
            gate.check(state)
        except BadWeights as error:
            require(False, f"its own state is refused: {error}", "a check that passes")


@LAWS(
    "rows",
    "the weights of a sample do not depend on the others in its batch",
    mend="normalise over members only, never over the batch",
)
def _(spec: GateSpec, bench: Workbench) -> None:
    gate, state, task = fitted(bench, spec, members=3)
    together, _ = weights_of(rebuilt(gate, state), task, 3, torch.float64)

    @for_all(bench.examples, row=st.integers(0, together.shape[1] - 1))
    def holds(row: int) -> None:
        alone, _ = weights_of(rebuilt(gate, state), task, 3, torch.float64, rows=[row])
        difference = apart(alone, together[:, row : row + 1])
        require(difference <= 1e-10, f"a sample alone is weighted otherwise, by {difference:.3g}", "at most 1e-10")


@LAWS(
    "options",
    "options of a wrong type, out of range or unknown are refused with a UsageError",
    mend="call `super().__init__(spec, **options)` first, and declare options as `Field`s",
)
def _(spec: GateSpec, bench: Workbench) -> None:
    @for_all(2 * bench.examples, options=bad_settings(spec.options, {}))
    def holds(options: dict[str, Any]) -> None:
        try:
            bench.plugins.gate(spec.id, **options)
        except UsageError:
            return
        require(False, f"the gate was made with {options}", "UsageError")
