"""Products by the learned coefficients beside `torch.mm(out=)`, on one thread of the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from timing import Section

SMALL, LARGE = [256, 512, 1024, 2048, 4096], [8192]
"""The usual calibration goes before the small ones."""

BOUNDS = {
    ("float32", 8192, "1 level"): 1.10,
    ("float32", 8192, "2 levels"): 1.18,
    ("float32", 4096, "best"): 1.03,
    ("float64", 4096, "best"): 1.05,
    ("float64", 8192, "1 level"): 1.08,
    ("float64", 8192, "2 levels"): 1.15,
    ("float32", 0, "auto"): 0.97,
    ("float64", 0, "auto"): 0.97,
}


def measure() -> tuple[str, Sequence[str]]:
    """Calibrate anew, measure every size in both dtypes; the section and the bounds that were missed."""
    import matmul_sides
    import report

    import grokkit_core as gk

    rows: list[dict[str, Any]] = []
    problems: list[str] = []
    for dtype in ("float32", "float64"):
        for sizes, anew in ((SMALL, True), (LARGE, False)):
            settings = {"sizes": sizes, "pairs": 9, "levels": [1, 2]}
            found = gk.bench("matmul-2x2", recalibrate=anew, settings=settings, dtype=dtype, threads=1, device="cpu")
            rows += [{**row.to_json(), "dtype": dtype} for row in found.rows]
            problems += found.problems
    lines, missed = matmul_sides.table(rows, BOUNDS)
    notes = dict.fromkeys(f"{row['dtype']}, N = {row['n']}: {row['note']}." for row in rows if row["note"])
    text = [
        "Seven learned products instead of eight: `matmul-2x2` beside `torch.mm(a, b, out=c)` on the same matrices, one thread, "
        "both sides with preallocated results. The ratio is the median of the ratios of alternating pairs, above 1 the cassette "
        "is faster; error is that of `torch.mm` relative to the product, then how many times as large the cassette's is "
        "(Frobenius, 16 rows); workspace is relative to the three matrices. `auto` is a plain call after calibration.",
        "",
        "Seed 0, standard normal entries; 9 pairs, 5 at 8192; CPU time.",
        "",
        *lines,
        "",
        *notes,
        *(f"MEASURING ERROR: {problem}" for problem in problems),
        "",
        matmul_sides.PUBLISHED,
        "",
        f"Machine: {report.machine()}.",
        "Command: `python tests/benchmarks/bench.py --only matmul --write docs/benchmarks.md`",
    ]
    return "\n".join(text), [*missed, *problems]


BENCHMARK = Section("matmul", measure)
