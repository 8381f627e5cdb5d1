"""The verb `run`: read an input file, predict or roll out, hand the outputs on as they come."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from grokkit_core import contract
from grokkit_core.cassette import Cassette, load
from grokkit_core.devices import choose_device, fitting_threads
from grokkit_core.dtypes import cast, is_inexact, real_dtype, real_view
from grokkit_core.errors import Incompatible, UsageError
from grokkit_core.files import ArrayWriter, read_arrays
from grokkit_core.task import Inputs, Task, map_tensors
from grokkit_core.text import printable
from grokkit_core.transfer.regrid import grid_axes, resampled
from grokkit_core.workspace import Where, workspace


@dataclass
class Prediction:
    """Outputs of a cassette on one input: "batch *out", or "step batch *out" for a rollout.

    `drift` names invariants; `horizon` says how long a rollout can hold, where the task knows a limit; `notes` are remarks
    on inputs and outputs.
    """

    outputs: Tensor | None
    shape: tuple[int, ...]
    dtype: str
    seconds: float
    drift: Mapping[str, float] | None = None
    horizon: Mapping[str, float] | None = None
    path: str | None = None
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The object of `grokkit run --json`; outputs written to a file stand there, and its path here."""
        return {
            "outputs": self.path if self.outputs is None else nested(self.outputs),
            "shape": list(self.shape),
            "dtype": self.dtype,
            "seconds": self.seconds,
            "drift": _numbers(self.drift),
            "horizon": _numbers(self.horizon),
            "notes": list(self.notes),
            "routed": None,
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
    tensors, found = _inputs(cassette, inputs)
    if dtype is not None:
        _check_dtype(tensors, dtype)
    if to_grid is not None:
        tensors = lifted(cassette, tensors, to_grid)
    given = {**found, **(context or {})}
    drift = _drift(cassette, tensors, given) if steps is not None else None
    horizon = drift.horizon() if drift else None
    started = time.perf_counter()
    collected: list[Tensor] = []
    with fitting_threads(cassette.manifest.weights.parameters):
        watched = _Watched(_results(cassette, tensors, given, key, steps, force), drift)
        results = iter(watched)
        if output is not None:
            shape, kind = _write(Path(output), results, steps)
        else:
            shape, kind = _hand_on(results, on_outputs or collected.append)
    if steps is not None:
        shape = (steps, *shape)
    kept = (torch.stack(collected) if steps is not None else collected[0]) if collected else None
    path = str(output) if output is not None else None
    worst = drift.worst if drift else None
    notes = (*cassette.architecture.remarks(_ordered(cassette, tensors)), *watched.notes)
    return Prediction(kept, shape, kind, time.perf_counter() - started, worst, horizon, path, notes)


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
    key: str | None,
    steps: int | None,
    force: bool,
) -> Iterator[Tensor]:
    if key is not None:
        yield cassette(context=context, key=key, **tensors)
    elif steps is None:
        yield cassette.predict(tensors, context, force=force)
    else:
        yield from cassette.rollout(tensors, steps, context=context, force=force)


def _inputs(
    cassette: Cassette, given: Tensor | Mapping[str, Tensor] | str | Path
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Input tensors by name, and context variables that a file with named arrays brought along."""
    signature = cassette.signature
    if isinstance(given, Tensor):
        return {signature.inputs[0].name: given}, {}
    if isinstance(given, (str, Path)):
        given = read_arrays(given, signature, cassette.dtype)
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
