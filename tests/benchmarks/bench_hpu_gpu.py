"""Rollouts on a GPU beside numpy's split step on its host; what was measured before stands where there is no GPU."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

from timing import Section

SEED = 0
GRID = 1024
STEPS = {"hpu-free": 20, "hpu-potential": 5}
REPEATS = 5
BOUND = 20.0


def measure() -> tuple[str, Sequence[str]] | None:
    """Both cassettes in both precisions; None without a GPU."""
    import torch

    if not torch.cuda.is_available():
        print("rollouts on a GPU are not measured: torch sees none", file=sys.stderr)
        return None
    rows = [row(name, dtype) for name in STEPS for dtype in ("float64", "float32")]
    return section(rows, torch.cuda.get_device_name(), torch.__version__)


def row(name: str, dtype: str) -> dict[str, Any]:
    """Steps a second of both sides, and how far they are apart and from the same rollout in float64 on the CPU."""
    import hpu_sides
    import torch

    steps = STEPS[name]
    reference, own = hpu_sides.rollouts(name, GRID, steps, dtype=dtype, seed=SEED, device="cuda")
    exact, on_cpu = hpu_sides.rollouts(name, GRID, steps, dtype="float64", seed=SEED)

    def synchronised() -> Any:
        found = own()
        torch.cuda.synchronize()
        return found

    found = synchronised()
    pairs = [(seconds(reference), seconds(synchronised)) for _ in range(REPEATS)]
    return {
        "cassette": name,
        "dtype": dtype,
        "numpy": steps / median(a for a, _ in pairs),
        "gpu": steps / median(b for _, b in pairs),
        "ratio": median(a / b for a, b in pairs),
        "law": hpu_sides.apart(exact(), found),
        "cpu": hpu_sides.apart(on_cpu().numpy(), found),
    }


def seconds(call: Callable[[], Any]) -> float:
    """Wall seconds of one call."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def section(rows: Sequence[dict[str, Any]], device: str, torch_version: str) -> tuple[str, Sequence[str]]:
    """The section of these rows, and the bounds that were missed."""
    lines = [
        f"As `hpu-rollout`, on {GRID} x {GRID} points: the cassette on a GPU, numpy on one thread of its host, wall time, "
        f"{REPEATS} alternating pairs, every step's field handed out.",
        "",
        "| cassette | dtype | numpy, steps/s | GPU, steps/s | ratio (bound 20) | from numpy's split step | from the CPU in float64 |",
        "|---|---|---|---|---|---|---|",
        *(
            f"| {r['cassette']} | {r['dtype']} | {r['numpy']:.1f} | {r['gpu']:.0f} | {r['ratio']:.0f} | {r['law']:.1e} "
            f"| {r['cpu']:.1e} |"
            for r in rows
        ),
        "",
        f"Machine: one {device}, torch {torch_version}.",
        "Command: `python tests/benchmarks/bench.py --only hpu-gpu --write docs/benchmarks.md`",
    ]
    missed = [f"{r['cassette']} {r['dtype']}" for r in rows if r["ratio"] < BOUND]
    return "\n".join(lines), missed


BENCHMARK = Section("hpu-gpu", measure)
