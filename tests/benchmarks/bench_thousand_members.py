"""A thousand members of one architecture: one batched call against a Python loop over them, and loading them from disk."""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import report
from timing import Benchmark, Bound, Comparison, Result, Section, Side, own_time, run

if TYPE_CHECKING:
    from grokkit_core.cassette import Cassette

NAME = "thousand-members"
SEED, COUNT, RUNS, LOADED = 0, 1_000, 5, 7
MEMBERS = ("cyclotron", "cyclotron-1node", "parity-3of64-grokked")
BATCHES: dict[int, Bound | None] = {1: Bound(least=50), 8: None, 64: None}
LOADING = Bound(most=2.0)
"""Seconds of CPU time."""

ROUNDING = 1e-6

HEAD = f"""Fused network of {COUNT:,} members of one architecture with equal weights, in one batched call, against a Python loop over
the members' own networks, in inference mode.

Seed {SEED}; shipped cassettes with perturbed weights; {RUNS} runs of each side.

| case | loop | fused | ratio | bound | |
|---|---|---|---|---|---|"""

LOADS = f"""Loading such a cassette from disk, its digests and hashes verified: CPU time, median of {LOADED}.

| case | file | seconds | bound | |
|---|---|---|---|---|"""


def measure() -> tuple[str, list[str]]:
    """The section and what missed its bound."""
    from ensemble_sides import fused, members

    calls, loads, missed, checked = [], [], [], []
    for name in MEMBERS:
        parts = members(name, COUNT, SEED)
        whole = fused(parts, "uniform", {}, SEED)
        for batch, bound in BATCHES.items():
            result = _call(name, parts, whole, batch)
            calls.append(report.row(bound, result))
            checked.append(f"Checked before timing, {result.label}: {result.checked}.")
            missed += [result.label] if bound and not bound.holds(result.ratio) else []
        seconds, size = _load(whole)
        kept = LOADING.holds(seconds)
        verdict = "kept" if kept else "**missed**"
        loads.append(f"| {COUNT} x {name} | {size / 1e6:.3g} MB | {seconds:.3g} s | {LOADING} s | {verdict} |")
        missed += [] if kept else [f"loading {COUNT} x {name}"]
    return "\n".join([HEAD, *calls, "", *checked, "", LOADS, *loads, "", report.footer(NAME)]), missed


def _call(name: str, parts: Sequence[Cassette], whole: Cassette, batch: int) -> Result:
    from ensemble_sides import forwards, mean_apart

    together, one_by_one = forwards(parts, whole, batch, SEED)
    comparison = Comparison(
        f"{COUNT} x {name}, batch {batch}",
        Side("loop", one_by_one),
        Side("fused", together, 20),
        lambda: mean_apart(together, one_by_one, ROUNDING),
    )
    (result,) = run(Benchmark(NAME, "", SEED, "", Bound(least=0), lambda: [comparison], RUNS))
    return result


def _load(whole: Cassette) -> tuple[float, int]:
    """CPU seconds of loading a saved cassette, and the bytes of its weights."""
    import grokkit_core as gk

    with tempfile.TemporaryDirectory(prefix="grokkit-bench-") as folder:
        saved = whole.save(Path(folder))
        times = []
        for _ in range(LOADED):
            gc.collect()
            before = own_time()
            gk.load(saved.manifest.ref, library=Path(folder))
            times.append(own_time() - before)
    return median(times), saved.manifest.weights.bytes


BENCHMARK = Section(NAME, measure)
