"""How fast a cassette is beside a baseline: the verb `bench` and the rows it gives."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from grokkit_core.cassette import Cassette, load
from grokkit_core.devices import choose_device, fitting_threads, using_threads
from grokkit_core.errors import Incompatible, PluginError, UsageError
from grokkit_core.manifest import Manifest
from grokkit_core.specs import settle
from grokkit_core.streams import stream
from grokkit_core.task import Batch, Place, Predictor, Task, tensors_of
from grokkit_core.tensors import TensorSpec
from grokkit_core.text import printable
from grokkit_core.timing import Paired as Paired
from grokkit_core.timing import Timed as Timed
from grokkit_core.timing import calls_for as calls_for
from grokkit_core.timing import clock_for as clock_for
from grokkit_core.timing import paired as paired
from grokkit_core.workspace import Where, workspace

BATCHES = (1, 32, 1024)
"""Batch sizes of the general benchmark: latency, in between, throughput."""

PAIRS = 9
"""Pairs of samples in the general benchmark: the median stands as long as fewer than half of them are disturbed."""

MOST_CELLS = 2**25
"""Numbers in one batch at most; in float64 that is 256 MiB."""

CALIBRATION_SAMPLES = 4_096
"""Samples that baselines are fitted on."""

SEED = 0
"""Seed of the samples. Times hardly depend on them."""

ORACLE = "oracle"
"""Name of the exact rule where it stands in for a baseline."""


# -- rows ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One measurement: what ran on how many samples, and the median seconds of one call.

    `ratio` is the baseline's time over its own, the median over pairs: above 1 it is faster than the baseline. The row of
    a baseline has None. `figures` are further columns. `problem` says why the measurement cannot be right, for example a
    ratio above what is possible; it makes the command fail.
    """

    what: str
    batch: int
    median_s: float
    ratio: float | None
    figures: Mapping[str, float | int | str] = field(default_factory=dict)
    note: str = ""
    problem: str = ""

    def __post_init__(self) -> None:
        if taken := set(self.figures) & {"what", "batch", "median_s", "ratio", "figures", "note", "problem"}:
            raise UsageError(
                f"figure '{printable(min(taken), 60)}' of a row", expected="a name that no row has already"
            )

    def to_json(self) -> dict[str, Any]:
        """The row of `grokkit bench --json`, its figures beside its own fields; null for what is not finite."""
        values = {"what": self.what, "batch": self.batch, "median_s": self.median_s, "ratio": self.ratio}
        values |= {**self.figures, "note": self.note, "problem": self.problem}
        return {name: _finite(value) for name, value in values.items()}


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


@dataclass(frozen=True)
class Bench:
    """The rows of one benchmark, and on what they were measured. `notes` say what was left out."""

    manifest: Manifest
    rows: tuple[Row, ...]
    device: str
    dtype: str
    threads: int
    seed: int
    notes: tuple[str, ...] = ()

    @property
    def problems(self) -> tuple[str, ...]:
        """Why some rows cannot be right; empty for a sound benchmark."""
        return tuple(row.problem for row in self.rows if row.problem)

    def to_json(self) -> dict[str, Any]:
        """The object of `grokkit bench --json`."""
        return {
            "name": self.manifest.name,
            "version": self.manifest.version,
            "rows": [row.to_json() for row in self.rows],
            "device": self.device,
            "dtype": self.dtype,
            "threads": self.threads,
            "seed": self.seed,
            "notes": list(self.notes),
        }


# -- the verb --------------------------------------------------------------------------------------------------------


def bench(
    ref: str | Cassette,
    *,
    recalibrate: bool = False,
    settings: Mapping[str, Any] | None = None,
    device: str = "auto",
    dtype: str | None = None,
    threads: int | None = None,
    library: Where = None,
    on_row: Callable[[Row], None] | None = None,
) -> Bench:
    """Time a cassette beside a baseline in the same run, on one device, in one dtype, with the same threads.

    An architecture may bring a benchmark of its own, with declared `settings` and perhaps something to `recalibrate`;
    otherwise the cassette and the baseline that its task names predict batches of 1, 32 and 1024 samples. `threads`
    defaults to torch's setting, to one for small networks. `on_row` hears of each row as it comes. A row that cannot be
    right is reported in the result; wrong arguments raise.
    """
    chosen = ref if isinstance(ref, Cassette) else load(ref, library=workspace(library))
    cassette = chosen.to(choose_device(device, chosen.manifest.weights.parameters), dtype)
    architecture = cassette.architecture
    settled = settle(architecture.benchmark_settings, settings or {}, f"the benchmark of {architecture.spec.id}")
    with using_threads(threads):
        own = architecture.benchmark(cassette, settled, recalibrate=recalibrate)
        if own is not None:
            rows = _collected(own, on_row)
            return Bench(
                cassette.manifest, rows, cassette.device.type, _name(cassette.dtype), torch.get_num_threads(), SEED
            )
        if recalibrate:
            raise UsageError(
                f"{architecture.spec.id} has no benchmark of its own and nothing that is calibrated",
                hint="leave --recalibrate out",
            )
        with fitting_threads(cassette.manifest.weights.parameters) if threads is None else contextlib.nullcontext():
            return _beside_baseline(cassette, asked=dtype, on_row=on_row)


def _collected(rows: Iterable[object], on_row: Callable[[Row], None] | None) -> tuple[Row, ...]:
    collected: list[Row] = []
    for row in rows:
        if not isinstance(row, Row):
            raise PluginError(f"a benchmark gave a {type(row).__name__}", expected="rows of grokkit_core.benchmark.Row")
        collected.append(row)
        if on_row is not None:
            on_row(row)
    return tuple(collected)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


# -- any cassette ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Rival:
    """What a cassette is timed beside."""

    name: str
    predict: Predictor
    note: str = ""


def _beside_baseline(cassette: Cassette, *, asked: str | None, on_row: Callable[[Row], None] | None) -> Bench:
    """The general benchmark: the cassette's prediction against the baseline that its task names, batch by batch."""
    most = _most_samples(cassette)
    sizes = tuple(size for size in BATCHES if size <= most)
    notes = () if most >= max(BATCHES) else (f"batches above {max(sizes)} would hold more than {MOST_CELLS:,} numbers",)
    rival = _rival(cassette, min(most, CALIBRATION_SAMPLES))
    rows = _collected(_rows(cassette, rival, sizes, asked), on_row)
    inputs = tensors_of(_batch(cassette, 1, asked).inputs)
    computing = [tensor.dtype for tensor in (*inputs, *cassette.tensors.values()) if tensor.is_floating_point()]
    dtype = _name(computing[0] if computing else cassette.dtype)
    return Bench(cassette.manifest, rows, cassette.device.type, dtype, torch.get_num_threads(), SEED, notes)


def _most_samples(cassette: Cassette) -> int:
    """Samples in one batch at most; raises `Incompatible` where a single one is too large."""
    shapes = [[axis for axis in spec.axes if isinstance(axis, int)] for spec in cassette.signature.inputs]
    cells = sum(math.prod(shape) for shape in shapes)
    if cells > MOST_CELLS:
        raise Incompatible(
            f"a sample of {cassette.manifest.ref} has {cells:,} numbers",
            expected=f"at most {MOST_CELLS:,} to draw some",
        )
    return MOST_CELLS // max(cells, 1)


def _rival(cassette: Cassette, samples: int) -> _Rival:
    """The baseline that the task names, else its first one; the exact rule where there is none or it is not offered."""
    task = cassette.task
    calibration = task.sample(samples, generator=stream(SEED, "bench", "baseline"), **_place(task))
    known = task.baselines(calibration.to(cassette.dtype))
    wanted = task.spec.speed_baseline or next(iter(known), ORACLE)
    if wanted in known:
        return _Rival(wanted, known[wanted])
    missing = "" if wanted == ORACLE else f"baseline {wanted} is not offered here; "
    return _Rival(ORACLE, task.oracle, f"{missing}the exact rule, in float64")


def _rows(cassette: Cassette, rival: _Rival, sizes: Iterable[int], asked: str | None) -> Iterator[Row]:
    """Two rows a batch size: the cassette and its rival."""
    for size in sizes:
        batch = _batch(cassette, size, asked)
        with torch.inference_mode():
            _check_place(rival, batch, cassette.device)
            times = _timed(cassette, rival, batch)
        spread = {"ratio_low": min(times.ratios), "ratio_high": max(times.ratios)}
        own = _figures(times.second, size) | spread
        yield Row(cassette.manifest.ref, size, times.second_s, times.ratio, own)
        yield Row(rival.name, size, times.first_s, None, _figures(times.first, size), rival.note)


def _timed(cassette: Cassette, rival: _Rival, batch: Batch) -> Paired:
    """The rival first, the cassette second."""

    def other() -> Tensor:
        return rival.predict(batch.inputs, batch.context)

    def own() -> Tensor:
        return cassette.predict(batch.inputs, batch.context)

    clock = clock_for(cassette.device)
    return paired(other, own, pairs=PAIRS, clock=clock, calls=(calls_for(other, clock), calls_for(own, clock)))


def _figures(side: Timed, size: int) -> dict[str, float | int | str]:
    return {"per_second": size / side.median_s, "wall_s": side.wall_s, "cpu_over_wall": side.cpu_over_wall}


def _place(task: Task) -> Place:
    """The first row of the task's tables."""
    return next(iter(task.evaluation), {})


def _batch(cassette: Cassette, size: int, asked: str | None) -> Batch:
    """Samples as the cassette takes them; bits and integers become the dtype that was asked for where they may."""
    drawn = cassette.task.sample(size, generator=stream(SEED, "bench"), **_place(cassette.task))
    batch = drawn.to(cassette.dtype, cassette.device)
    specs = cassette.signature.inputs

    def cast(spec: TensorSpec, tensor: Tensor) -> Tensor:
        return tensor.to(cassette.dtype) if asked in spec.dtypes else tensor

    if isinstance(batch.inputs, Tensor):
        return replace(batch, inputs=cast(specs[0], batch.inputs))
    return replace(batch, inputs={spec.name: cast(spec, batch.inputs[spec.name]) for spec in specs})


def _check_place(rival: _Rival, batch: Batch, device: torch.device) -> None:
    """Raise `Incompatible` for a baseline that does not compute where its inputs are."""
    try:
        there = rival.predict(batch.inputs, batch.context).device.type == device.type
    except RuntimeError:
        if device.type == "cpu":
            raise
        there = False
    if not there:
        raise Incompatible(f"baseline {rival.name} does not compute on {device.type}", hint="use --device cpu")
