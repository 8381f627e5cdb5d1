"""The verb `run`: read an input file, predict or roll out, hand the outputs on as they come."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from grokkit_core import contract
from grokkit_core.cassette import Cassette, load
from grokkit_core.devices import choose_device, fitting_threads
from grokkit_core.dtypes import cast, is_inexact, real_dtype, real_view
from grokkit_core.errors import Incompatible, UsageError
from grokkit_core.files import ArrayFile, ArrayWriter, as_file
from grokkit_core.fusion import routing
from grokkit_core.task import Inputs, Task, map_tensors
from grokkit_core.text import printable
from grokkit_core.transfer.regrid import grid_axes, resampled
from grokkit_core.workspace import Where, workspace

Tensors = dict[str, Tensor]


@dataclass
class Prediction:
    """Outputs of a cassette on one input: "batch *out", or "step batch *out" for a rollout.

    `drift` names invariants; `horizon` says how long a rollout can hold, where the task knows a limit; `notes` are remarks
    on inputs and outputs. `routed` says which member of a composition answered, by which rule; where several did, each on
    an input of its own, `parts` has their predictions by the input's name.
    """

    outputs: Tensor | None
    shape: tuple[int, ...]
    dtype: str
    seconds: float
    drift: Mapping[str, float] | None = None
    horizon: Mapping[str, float] | None = None
    path: str | None = None
    notes: tuple[str, ...] = ()
    routed: Mapping[str, Any] | None = None
    parts: Mapping[str, Prediction] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The object of `grokkit run --json`; outputs written to a file stand there, and its path here."""
        if self.parts:
            inner = {name: part.to_json() for name, part in self.parts.items()}
            fields = ("outputs", "shape", "dtype", "drift", "horizon", "routed")
            whole = {field: {name: values[field] for name, values in inner.items()} for field in fields}
            outputs = whole["outputs"] if self.path is None else self.path
            return {**whole, "outputs": outputs, "seconds": self.seconds, "notes": list(self.notes)}
        return {
            "outputs": self.path if self.outputs is None else nested(self.outputs),
            "shape": list(self.shape),
            "dtype": self.dtype,
            "seconds": self.seconds,
            "drift": _numbers(self.drift),
            "horizon": _numbers(self.horizon),
            "notes": list(self.notes),
            "routed": dict(self.routed) if self.routed else None,
        }


@dataclass
class Drift:
    """How far each invariant has moved from its value at the start, relative to its mean size there, at worst.

    `inputs` are those of the next step, first those of the rollout, in float64; `context` is that of all steps.
    """

    task: Task
    inputs: Inputs
    context: Mapping[str, Tensor] = field(default_factory=dict)
    start: Mapping[str, Tensor] = field(init=False)
    worst: dict[str, float] = field(init=False)

    def __post_init__(self) -> None:
        self.inputs = map_tensors(self.inputs, _exact)
        self.start = self._invariants()
        self.worst = dict.fromkeys(self.start, 0.0)

    def horizon(self) -> Mapping[str, float]:
        """How long a rollout from here can hold."""
        return self.task.horizon(self.task.state(self.inputs))

    def observe(self, outputs: Tensor) -> None:
        """Take in the outputs "batch *out" of one step."""
        self.inputs = self.task.advance(self.inputs, _exact(outputs))
        for name, values in self._invariants().items():
            first = self.start[name]
            scale = first.abs().mean().clamp_min(torch.finfo(torch.float64).tiny)
            moved = ((values - first).abs().max() / scale).item()
            self.worst[name] = max(self.worst[name], math.inf if math.isnan(moved) else moved)

    def _invariants(self) -> Mapping[str, Tensor]:
        return self.task.invariants(self.task.state(self.inputs), self.context)


def _exact(tensor: Tensor) -> Tensor:
    return cast(tensor.cpu(), torch.float64)


def run(
    ref: str | Cassette,
    inputs: Tensor | Mapping[str, Tensor] | str | Path,
    *,
    context: Mapping[str, float | Tensor] | None = None,
    key: str | None = None,
    steps: int | None = None,
    to_grid: int | None = None,
    output: str | Path | None = None,
    force: bool = False,
    device: str = "auto",
    dtype: str | None = None,
    library: Where = None,
    on_outputs: Callable[[Tensor], None] | None = None,
) -> Prediction:
    """Predict on tensors or on a file (`.npy .npz .csv .json .safetensors`, `-` for JSON on stdin).

    With `steps` a rollout of a flow map: outputs "step batch *out" and the drift of the task's invariants. With
    `output` they are written there as they come, and the file appears only when it is complete; with `on_outputs` each
    step's are handed on and not kept. `to_grid` first takes the inputs to a finer grid, as `regrid` does. `force` admits
    values outside the domain.
    """
    chosen = ref if isinstance(ref, Cassette) else load(ref, library=workspace(library))
    cassette = chosen.to(choose_device(device, chosen.manifest.weights.parameters), dtype)
    if steps is not None and steps < 1:
        raise UsageError(f"{steps} steps", expected="at least 1")
    file, given = as_file(inputs), dict(context or {})
    how = _How(steps, to_grid, force, dtype, output, on_outputs)
    if cassette.members and key is None and (routes := _by_name(cassette, file)) is not None:
        return _mixed(cassette, routes, file, given, how)
    if not cassette.members and key is None:
        return _answer(cassette, _inputs(cassette, file), given, how)
    route = routing.route(cassette, key, lambda member: _offered(member, file), lambda: "the input")
    return replace(_answer(route.cassette, _inputs(route.cassette, file), given, how), routed=route.to_json())


@dataclass(frozen=True)
class _How:
    """The settings of a run."""

    steps: int | None
    to_grid: int | None
    force: bool
    dtype: str | None
    output: str | Path | None = None
    on_outputs: Callable[[Tensor], None] | None = None


def _answer(
    cassette: Cassette, found: tuple[Tensors, Tensors], context: Mapping[str, float | Tensor], how: _How
) -> Prediction:
    """Predict with one cassette of one task on inputs, and context, that a file brought."""
    tensors, steps = found[0], how.steps
    if how.dtype is not None:
        _check_dtype(tensors, how.dtype)
    if how.to_grid is not None:
        tensors = lifted(cassette, tensors, how.to_grid)
    given = {**found[1], **context}
    drift = _drift(cassette, tensors, given) if steps is not None else None
    horizon = drift.horizon() if drift else None
    started = time.perf_counter()
    collected: list[Tensor] = []
    with fitting_threads(cassette.manifest.weights.parameters):
        watched = _Watched(_results(cassette, tensors, given, steps, how.force), drift)
        results = iter(watched)
        if how.output is not None:
            shape, kind = _write(Path(how.output), results, steps)
        else:
            shape, kind = _hand_on(results, how.on_outputs or collected.append)
    if steps is not None:
        shape = (steps, *shape)
    kept = (torch.stack(collected) if steps is not None else collected[0]) if collected else None
    path = str(how.output) if how.output is not None else None
    worst = drift.worst if drift else None
    notes = (*cassette.architecture.remarks(_ordered(cassette, tensors)), *watched.notes)
    return Prediction(kept, shape, kind, time.perf_counter() - started, worst, horizon, path, notes)


def _by_name(cassette: Cassette, file: ArrayFile) -> dict[str, routing.Route] | None:
    """Where the named arrays of a file go, each to a member of its own; None where they are the inputs of one member."""
    if file.names is None:
        return None
    variables = {v.name for member in cassette.members.values() for v in member.signature.context}
    names = [name for name in file.names if name not in variables]

    def offer(name: str, member: Cassette) -> None:
        (spec,) = member.signature.inputs
        routing.takes(member.signature, (), {name: file.array(name, spec, member.dtype)})

    return routing.by_name(cassette, names, offer) if names else None


def _offered(member: Cassette, file: ArrayFile) -> None:
    """Raise `Incompatible` unless the arrays of a file, without the member's context, are what it takes."""
    routing.takes(member.signature, (), _inputs(member, file)[0])


def _mixed(
    cassette: Cassette,
    routes: Mapping[str, routing.Route],
    file: ArrayFile,
    context: Mapping[str, float | Tensor],
    how: _How,
) -> Prediction:
    """Predictions of several members, each on the array of its name; written together, once all are there."""
    alone = replace(how, output=None, on_outputs=None)
    known = {v.name for member in cassette.members.values() for v in member.signature.context}
    found = {n: file.array(n, None, torch.float64) for n in file.names or () if n in known and n not in routes}
    parts: dict[str, Prediction] = {}
    for name, route in routes.items():
        specs = route.cassette.signature.inputs
        if len(specs) != 1:
            raise Incompatible(
                f"'{name}' for member '{route.key}', which takes {', '.join(spec.name for spec in specs)}",
                hint="give it by itself, with --key",
            )
        tensor = file.array(name, specs[0], route.cassette.dtype)
        made = _answer(route.cassette, ({specs[0].name: tensor}, found), context, alone)
        parts[name] = replace(made, routed=route.to_json())
    if how.output is not None:
        with ArrayWriter(Path(how.output), None, tuple(parts)) as writer:
            for name, part in parts.items():
                assert part.outputs is not None
                writer.add(part.outputs, name)
    path = str(how.output) if how.output is not None else None
    seconds = sum(part.seconds for part in parts.values())
    notes = tuple(f"{name}: {note}" for name, part in parts.items() for note in part.notes)
    return Prediction(None, (), "", seconds, path=path, notes=notes, parts=parts)


def _ordered(cassette: Cassette, tensors: Mapping[str, Tensor]) -> list[Tensor]:
    """The inputs in the order of the signature."""
    return list(contract.named_inputs(cassette.signature, (), tensors).values())


def _drift(cassette: Cassette, tensors: Mapping[str, Tensor], context: Mapping[str, float | Tensor]) -> Drift:
    """The drift of a rollout that begins with these inputs; raises `Incompatible` where they do not fit."""
    names = [spec.name for spec in cassette.signature.inputs]
    inputs = contract.named_inputs(cassette.signature, (), tensors)
    contract.check_inputs(cassette.signature, inputs, force=True)
    settled = contract.check_context(cassette.signature, context, len(inputs[names[0]]), force=True)
    return Drift(cassette.task, inputs[names[0]] if len(names) == 1 else inputs, settled)


def lifted(cassette: Cassette, tensors: Mapping[str, Tensor], size: int) -> dict[str, Tensor]:
    """The inputs on a finer grid of `size` points along each axis that is one, by trigonometric interpolation.

    Raises `Incompatible` for a cassette without such axes or for a coarser grid.
    """
    axes = set(cassette.architecture.grids(cassette.manifest.architecture.config))
    specs = {spec.name: grid_axes(spec, axes) for spec in cassette.signature.inputs}
    if not any(specs.values()):
        raise Incompatible(
            f"{cassette.manifest.ref} has no grid on which inputs could be refined",
            hint="leave --to-grid out: inputs are taken on any grid that its signature admits",
        )
    contract.check_inputs(cassette.signature, contract.named_inputs(cassette.signature, (), tensors), force=True)
    for name, found in specs.items():
        for axis in found:
            if tensors[name].shape[axis] > size:
                raise Incompatible(
                    f"--to-grid {size} for input '{name}' on {tensors[name].shape[axis]} points",
                    expected="a grid that is not coarser",
                )
    return {name: resampled(tensor, dict.fromkeys(specs.get(name, ()), size)) for name, tensor in tensors.items()}


def _check_dtype(tensors: Mapping[str, Tensor], dtype: str) -> None:
    """Nothing is cast: raise `Incompatible` where arrays have another dtype than the one asked for."""
    for name, tensor in tensors.items():
        if is_inexact(tensor) and dtype not in (_name(tensor), str(real_dtype(tensor.dtype)).removeprefix("torch.")):
            raise Incompatible(
                f"input '{printable(name, 60)}' has dtype {_name(tensor)}, --dtype asks for {dtype}",
                hint="cast it first, or leave --dtype out",
            )


class _Watched:
    """Results as they come, on the CPU; their drift is followed and the first that is not finite remembered."""

    def __init__(self, results: Iterator[Tensor], drift: Drift | None) -> None:
        self._results, self._drift = results, drift
        self.notes: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[Tensor]:
        for number, result in enumerate(self._results, 1):
            if self._drift is not None:
                self._drift.observe(result)
            if not self.notes and not bool(torch.isfinite(real_view(result)).all()):
                at = f" from step {number} on" if self._drift is not None else ""
                self.notes = (f"some outputs are NaN or infinite{at}",)
            yield result.cpu()


def _hand_on(results: Iterator[Tensor], take: Callable[[Tensor], None]) -> tuple[tuple[int, ...], str]:
    """Give each step's outputs to `take`; the shape and dtype of one step."""
    shape: tuple[int, ...] = ()
    kind = ""
    for result in results:
        shape, kind = tuple(result.shape), _name(result)
        take(result)
    return shape, kind


def _write(path: Path, results: Iterator[Tensor], steps: int | None) -> tuple[tuple[int, ...], str]:
    """Give each step's outputs to the file; the shape and dtype of one step."""
    with ArrayWriter(path, steps) as writer:
        return _hand_on(results, writer.add)


def _results(
    cassette: Cassette,
    tensors: Mapping[str, Tensor],
    context: Mapping[str, float | Tensor],
    steps: int | None,
    force: bool,
) -> Iterator[Tensor]:
    if steps is None:
        yield cassette.predict(tensors, context, force=force)
    else:
        yield from cassette.rollout(tensors, steps, context=context, force=force)


def _inputs(cassette: Cassette, file: ArrayFile) -> tuple[Tensors, Tensors]:
    """Input tensors by name, and context variables that a file with named arrays brought along."""
    signature = cassette.signature
    given = file.arrays(signature, cassette.dtype)
    variables = {variable.name for variable in signature.context}
    inputs = {name: tensor for name, tensor in given.items() if name not in variables}
    return inputs, {name: tensor for name, tensor in given.items() if name in variables}


def _name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def nested(tensor: Tensor) -> Any:
    """A tensor as nested lists; complex numbers as [real, imaginary], null for what is not finite."""
    plain = real_view(tensor)
    return _finite(plain.tolist()) if not bool(torch.isfinite(plain).all()) else plain.tolist()


def _numbers(named: Mapping[str, float] | None) -> dict[str, Any] | None:
    return None if named is None else {name: _finite(value) for name, value in named.items()}


def _finite(value: Any) -> Any:
    if isinstance(value, list):
        return [_finite(part) for part in value]
    return value if math.isfinite(value) else None
