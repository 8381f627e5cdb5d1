"""Products by the learned coefficients beside `torch.mm(out=)` on a GPU; what was measured before stands where there is none."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from timing import Section

SIZES = {
    "float32": (4096, 8192, 16384, 32768),
    "float64": (4096, 8192, 16384),
    "bfloat16": (8192, 16384, 32768),
}
BOUNDS = {
    ("float32", 8192, "best"): 1.06,
    ("float32", 16384, "best"): 1.14,
    ("float32", 32768, "best"): 1.20,
    ("float64", 16384, "best"): 1.10,
    ("float32", 0, "auto"): 0.98,
    ("float64", 0, "auto"): 0.98,
    ("bfloat16", 0, "auto"): 0.98,
}
PAIRS = 7


def measure() -> tuple[str, Sequence[str]] | None:
    """Calibrate anew, measure every size in every dtype; None without a GPU."""
    import torch

    if not torch.cuda.is_available():
        print("products on a GPU are not measured: torch sees none", file=sys.stderr)
        return None
    rows = [row for dtype in SIZES for row in measured(dtype)]
    return section(rows, torch.cuda.get_device_name(), torch.__version__)


def measured(dtype: str) -> list[dict[str, Any]]:
    """The rows of one dtype; bfloat16 is never chosen by itself and has nothing to calibrate."""
    import torch
    from grokkit_matmul import bench

    import grokkit_core as gk

    settings = {"sizes": list(SIZES[dtype]), "pairs": PAIRS, "levels": [1, 2], "entries": "normal"}
    cassette = gk.load("matmul-2x2", device="cuda")
    if dtype == "bfloat16":
        runtime = cassette.architecture.runtime(cassette)  # type: ignore[attr-defined]
        found = [
            row for n in SIZES[dtype] for row in bench.measure(runtime, torch.bfloat16, cassette.device, n, settings)
        ]
    else:
        found = list(gk.bench(cassette, recalibrate=True, settings=settings, device="cuda", dtype=dtype).rows)
    return [{**row.to_json(), "dtype": dtype} for row in found]


def section(rows: Sequence[Mapping[str, Any]], device: str, torch_version: str) -> tuple[str, Sequence[str]]:
    """The section of these rows, and the bounds that were missed."""
    import matmul_sides

    lines, missed = matmul_sides.table(rows, BOUNDS)
    problems = [str(row["problem"]) for row in rows if row["problem"]]
    text = [
        "As above, on a GPU: TF32 off, time until the device is idle, pairs of samples of 0.1 s or one call, losses included. "
        "bfloat16 is never chosen by itself: operands are rounded once more, and it does not win.",
        "",
        f"Seed 0, standard normal entries; {PAIRS} pairs. The nominal peak is that of the highest clock, which the power limit "
        "does not allow for long.",
        "",
        *lines,
        "",
        *(f"MEASURING ERROR: {problem}" for problem in problems),
        f"Machine: one {device}, torch {torch_version}.",
        "Command: `python tests/benchmarks/bench.py --only matmul-gpu --write docs/benchmarks.md`",
    ]
    return "\n".join(text), [*missed, *problems]


BENCHMARK = Section("matmul-gpu", measure)
