"""Products of large matrices beside `torch.mm`: speed, error and memory, and the choice of levels that follows."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from grokkit_core.benchmark import Row
from grokkit_core.errors import Incompatible, UsageError
from grokkit_core.streams import stream_seed
from grokkit_core.timing import Paired, calls_for, clock_for, paired
from grokkit_matmul import levels as level_choice
from grokkit_matmul.levels import Circumstances, Measured
from grokkit_matmul.machine import nominal_peak
from grokkit_matmul.runtime import Runtime

if TYPE_CHECKING:
    from grokkit_core.cassette import Cassette

SEED = 0
CALIBRATED = {"cpu": (1024, 2048, 4096), "cuda": (2048, 4096, 8192, 16384)}
CALIBRATION_PAIRS, CALIBRATION_TRIES = 3, 3
CALIBRATION_LEVELS = (1, 2)
LARGE, LARGE_PAIRS = 8192, 5
SLACK = 1.02
"""A median of ratios above (8/7)^levels (m k n / rank for other formats) times this cannot be true: additions only lower it."""

FAIR_SHARE = 0.8
"""A baseline below this share of the nominal peak is not a tuned product, which the row then says."""

FAIR_GROWTH = 8.16
"""t(N) / t(N/2) above 8 by more than 2 % means that the larger product is slower than it should be."""

MOST_CPU_SHARE = 1.05
"""CPU time over wall time and threads: more means that a side used threads it was not given."""

SAMPLE_S = 0.1
"""A processor's clock follows its load; a sample is long against that."""

ERROR_ROWS = 16
Reference = Tensor | np.ndarray[Any, Any]
"""Rows of a product in a wider type than its own."""


@dataclass
class Products:
    """Two matrices "n n", a matrix for their product, and how far what stands there is from it."""

    n: int
    a: Tensor
    b: Tensor
    out: Tensor

    @cached_property
    def rows(self) -> Tensor:
        """The rows on which errors are measured."""
        return torch.linspace(0, self.n - 1, min(ERROR_ROWS, self.n)).long().to(self.a.device)

    @cached_property
    def reference(self) -> Reference:
        """Those rows of the product in a wider type."""
        return _precise(self.a[self.rows], self.b)

    @cached_property
    def plain_error(self) -> float:
        """The error of `torch.mm`."""
        torch.mm(self.a, self.b, out=self.out)
        return self.error()

    def error(self) -> float:
        """The Frobenius distance of `out` from the precise product, on some rows, relative to it."""
        return _difference(self.out[self.rows], self.reference)

    @property
    def operations(self) -> float:
        """Of the plain product."""
        return 2.0 * self.n**3


def benchmark(runtime: Runtime, cassette: Cassette, settings: Mapping[str, Any], *, recalibrate: bool) -> Iterator[Row]:
    """First the levels are calibrated where they never were; then a row for each size and number of levels."""
    if cassette.dtype not in (torch.float32, torch.float64):
        raise UsageError(f"a benchmark in {cassette.dtype}", expected="float32 or float64")
    if not settings["sizes"]:
        raise UsageError("no sizes", expected="at least one")
    _check_memory(max(settings["sizes"]), cassette)
    with torch.inference_mode(), _exact_float32():
        circumstances = Circumstances(runtime.form, cassette.dtype, cassette.device, torch.get_num_threads())
        if recalibrate or not level_choice.recorded(circumstances):
            yield from calibrate(runtime, circumstances, settings["sizes"])
        seconds: dict[int, float] = {}
        for n in settings["sizes"]:
            half = seconds.get(n // 2) if n % 2 == 0 else None
            for row in measure(runtime, cassette.dtype, cassette.device, n, settings, half_s=half):
                if row.ratio is None:
                    seconds[n] = row.median_s
                yield row


def calibrate(runtime: Runtime, circumstances: Circumstances, sizes: Sequence[int]) -> Iterator[Row]:
    """Measure which levels pay from which size on, and record it; larger `sizes` than the usual ones are added.

    Nothing is recorded where a ratio stays above what is possible.
    """
    usual = CALIBRATED[circumstances.device.type]
    step = min(runtime.recursion.format.sizes)
    measured, sound = [], True
    larger = (size for size in sizes if size > max(usual)) if circumstances.device.type == "cpu" else ()
    for n in sorted({*usual, *larger}):
        products = _drawn(n, circumstances.dtype, circumstances.device, "normal")
        for count in CALIBRATION_LEVELS:
            if n < 2 * step**count:
                continue
            for _ in range(CALIBRATION_TRIES):
                found = _timed(runtime, products, count, CALIBRATION_PAIRS, circumstances.device)
                row = _row(f"calibrate {count}", runtime, products, found, {"levels": count})
                if not row.problem:
                    break
            yield row
            measured.append(Measured(n, count, found.ratio, min(found.ratios) > 1))
            sound = sound and not row.problem
    if sound:
        level_choice.record(circumstances, measured)


def measure(
    runtime: Runtime,
    dtype: torch.dtype,
    device: torch.device,
    n: int,
    settings: Mapping[str, Any],
    *,
    half_s: float | None = None,
) -> Iterator[Row]:
    """`torch.mm`, the automatic choice and the given levels on one size; `half_s` is what `torch.mm` took at half of it."""
    products = _drawn(n, dtype, device, settings["entries"])
    _ = products.plain_error  # before anything else stands in `out`
    chosen = runtime.chosen_levels(products.a, products.b)
    wanted = [chosen, *(count for count in dict.fromkeys(settings["levels"]) if count != chosen)]
    pairs = min(settings["pairs"], LARGE_PAIRS) if n >= LARGE and device.type == "cpu" else settings["pairs"]
    for index, count in enumerate(wanted):
        found = _timed(runtime, products, count, pairs, device, automatic=index == 0)
        if index == 0:
            yield _baseline(products, found, dtype, device, half_s)
        name = f"auto: {_levels(count)}" if index == 0 else _levels(count)
        yield _row(name, runtime, products, found, _figures(runtime, products, count, found))


def _timed(
    runtime: Runtime, products: Products, count: int, pairs: int, device: torch.device, *, automatic: bool = False
) -> Paired:
    """`torch.mm(out=)` first, the runtime second, both into the same matrix; what is left there is the runtime's."""
    a, b, out = products.a, products.b, products.out
    runtime.recursion.buffers.release()
    levels = None if automatic else count

    def plain() -> object:
        return torch.mm(a, b, out=out)

    def ours() -> object:
        return runtime.multiply(a, b, out=out, levels=levels)

    clock = clock_for(device)

    def calls(call: Callable[[], object]) -> int:
        """Several a sample for small matrices."""
        return calls_for(call, clock, SAMPLE_S) if products.n < LARGE // 2 or a.is_cuda else 1

    warm_ups = 1 if products.n >= LARGE else 2  # a call of seconds needs no second one
    found = paired(plain, ours, pairs=pairs, clock=clock, calls=(calls(plain), calls(ours)), warm_ups=warm_ups)
    if pairs % 2 == 0:  # then the last sample was the plain product's
        ours()
    return found


def _baseline(products: Products, found: Paired, dtype: torch.dtype, device: torch.device, half_s: float | None) -> Row:
    """The row of `torch.mm`, with how good a baseline it is."""
    speed = products.operations / found.first_s
    figures: dict[str, float | int | str] = {
        "n": products.n,
        "gflops": speed / 1e9,
        "error": products.plain_error,
    }
    notes = _own_threads(found, device)
    peak = nominal_peak(dtype, device, torch.get_num_threads())
    if peak is not None:
        figures["of_peak"] = speed / peak
        if speed < FAIR_SHARE * peak:
            notes.append(
                f"below {FAIR_SHARE:.0%} of the nominal peak of {peak / 1e9:,.0f} GFLOP/s: not a tuned product here"
            )
    if half_s is not None:
        growth = figures["growth"] = found.first_s / half_s
        if growth > FAIR_GROWTH:
            notes.append(f"more than {FAIR_GROWTH} times as long as at half the size: slower than it should be")
    return Row("torch.mm", 1, found.first_s, None, figures, note="; ".join(notes))


def _own_threads(found: Paired, device: torch.device) -> list[str]:
    """Why the two sides may not have had the same threads."""
    most = MOST_CPU_SHARE * torch.get_num_threads()
    used = max(found.first.cpu_over_wall, found.second.cpu_over_wall)
    return (
        [f"{used:.2f} cores were used, not {torch.get_num_threads()}"] if device.type == "cpu" and used > most else []
    )


def _row(
    what: str, runtime: Runtime, products: Products, found: Paired, figures: Mapping[str, float | int | str]
) -> Row:
    count = int(figures["levels"])
    gain = math.prod(runtime.scheme.format.sizes) / runtime.scheme.rank
    ceiling = gain**count * SLACK if count else float("inf")
    problem = ""
    if found.ratio > ceiling:
        problem = (
            f"{what} at {products.n}: {found.ratio:.3f} times as fast as torch.mm is above what {count} levels can give "
            f"({ceiling:.3f}); the baseline was disturbed or is poor"
        )
    shown = {
        "n": products.n,
        "gflops": products.operations / found.second_s / 1e9,
        "ratio_low": min(found.ratios),
        "ratio_high": max(found.ratios),
        **figures,
    }
    return Row(what, 1, found.second_s, found.ratio, shown, problem=problem)


def _figures(runtime: Runtime, products: Products, count: int, found: Paired) -> dict[str, float | int | str]:
    """Levels, error and memory of the product that is in `out`."""
    error = products.error()
    plain = products.plain_error
    factor = error / plain if plain else 1.0
    held = runtime.recursion.buffers.bytes / (3 * products.n**2 * products.a.element_size())
    return {
        "levels": count,
        "error": error,
        "error_factor": factor,
        "workspace": held if count else 0.0,
    }


def _drawn(n: int, dtype: torch.dtype, device: torch.device, entries: str) -> Products:
    """Two random matrices, drawn in float32 on the device."""
    draw = torch.randn if entries == "normal" else torch.rand
    generators = (torch.Generator(device).manual_seed(stream_seed(SEED, "bench", n, side)) for side in (0, 1))
    a, b = (draw(n, n, generator=one, dtype=torch.float32, device=device).to(dtype) for one in generators)
    return Products(n, a, b, torch.zeros(n, n, dtype=dtype, device=device))


def _precise(rows: Tensor, b: Tensor) -> Reference:
    """Rows of a product in float64; for float64 in numpy's longdouble."""
    if rows.dtype != torch.float64:
        return rows.double() @ b.double()
    exact: Reference = np.matmul(rows.cpu().numpy().astype(np.longdouble), b.cpu().numpy().astype(np.longdouble))
    return exact


def _difference(rows: Tensor, reference: Reference) -> float:
    if isinstance(reference, Tensor):
        return float((rows.double() - reference).norm() / reference.norm())
    apart = rows.cpu().numpy().astype(np.longdouble) - reference
    return float(np.sqrt((apart**2).sum() / (reference**2).sum()))


def _check_memory(n: int, cassette: Cassette) -> None:
    """Raise `Incompatible` where the largest matrices would not fit."""
    wide = 16 if cassette.dtype == torch.float64 else 8  # bytes of a number in the reference's copy of B
    needed = n**2 * (3 * cassette.dtype.itemsize + wide)
    if cassette.device.type == "cuda":
        free = torch.cuda.mem_get_info(cassette.device)[0]
    else:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > free:
        raise Incompatible(
            f"size {n} needs {needed / 2**30:.1f} GiB, {free / 2**30:.1f} are free", expected="a smaller size"
        )


@contextmanager
def _exact_float32() -> Iterator[None]:
    """No TF32 inside the block: its products have ten bits, and no claim about float32 holds with them."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def _levels(count: int) -> str:
    return {0: "plain", 1: "1 level"}.get(count, f"{count} levels")
