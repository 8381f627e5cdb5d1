"""Products of large matrices as benchmark sections: which rows are bound, and how they are written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Bounds = Mapping[tuple[str, int, str], float]
"""By dtype, size and what (`1 level`, `2 levels`, `best`, `auto`), the least ratio."""

HEADS = (
    "dtype",
    "N",
    "what",
    "time",
    "ratio (lowest to highest pair)",
    "bound",
    "",
    "GFLOP/s",
    "of nominal peak",
    "error",
    "workspace",
)


CPU_BOUNDS = {
    ("float32", 8192, "1 level"): 1.10,
    ("float32", 8192, "2 levels"): 1.18,
    ("float32", 4096, "best"): 1.03,
    ("float64", 4096, "best"): 1.05,
    ("float64", 8192, "1 level"): 1.08,
    ("float64", 8192, "2 levels"): 1.15,
    ("float32", 0, "auto"): 0.97,
    ("float64", 0, "auto"): 0.97,
}


def cpu_section(name: str, about: str, sizes: Sequence[int], *, anew: bool) -> tuple[str, list[str]]:
    """Measure these sizes in both dtypes on one thread; the section and the bounds that were missed."""
    import grokkit_core as gk

    rows: list[dict[str, Any]] = []
    problems: list[str] = []
    for dtype in ("float32", "float64"):
        settings = {"sizes": list(sizes), "pairs": 9, "levels": [1, 2]}
        found = gk.bench("matmul-2x2", recalibrate=anew, settings=settings, dtype=dtype, threads=1, device="cpu")
        rows += [{**row.to_json(), "dtype": dtype} for row in found.rows]
        problems += found.problems
    lines, missed = table(rows, CPU_BOUNDS)
    notes = dict.fromkeys(f"{row['dtype']}, N = {row['n']}: {row['note']}." for row in rows if row["note"])
    return cpu_text(name, about, lines, [*notes, *(f"MEASURING ERROR: {one}" for one in problems)]), [
        *missed,
        *problems,
    ]


def cpu_text(name: str, about: str, lines: Sequence[str], notes: Sequence[str]) -> str:
    """A section of the CPU."""
    import report

    text = [about, "", "Seed 0, standard normal entries; 9 pairs, 5 at 8192; one thread, CPU time.", "", *lines, ""]
    text += [*(f"- {note}" for note in notes), ""] if notes else []
    command = f"python tests/benchmarks/bench.py --only {name} --write docs/benchmarks.md"
    return "\n".join([*text, f"Machine: {report.machine()}.", f"Command: `{command}`"])


def table(rows: Iterable[Mapping[str, Any]], bounds: Bounds) -> tuple[list[str], list[str]]:
    """Lines of a Markdown table of rows of `grokkit bench --json` with their `dtype`, and the bounds that were missed."""
    kept = [row for row in rows if not str(row["what"]).startswith("calibrate")]
    lines = ["| " + " | ".join(HEADS) + " |", "|" + "---|" * len(HEADS)]
    missed = []
    for row in kept:
        bound, verdict = _verdict(row, kept, bounds)
        if verdict == "**missed**":
            missed.append(f"{row['dtype']} {row['n']}, {row['what']}: {row['ratio']:.3f} (bound {bound})")
        lines.append("| " + " | ".join(_cells(row, bound, verdict)) + " |")
    return lines, missed


def _cells(row: Mapping[str, Any], bound: str, verdict: str) -> list[str]:
    ratio = "-"
    if row["ratio"] is not None:
        ratio = f"{row['ratio']:.3f} ({row['ratio_low']:.3f} to {row['ratio_high']:.3f})"
    peak = f"{row['of_peak']:.0%}" if "of_peak" in row else ""
    error = f"{row['error_factor']:.2f} x" if "error_factor" in row else f"{row['error']:.1e}"
    held = f"{row['workspace']:.3f}" if row.get("workspace") else ""
    seconds = row["median_s"]
    time = f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"
    speed = f"{row['gflops']:,.0f}"
    return [row["dtype"], f"{row['n']:,}", row["what"], time, ratio, bound, verdict, speed, peak, error, held]


def _verdict(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], bounds: Bounds) -> tuple[str, str]:
    """The row's bound and whether it is kept; `best` binds the better of all levels, `auto` what is chosen by itself."""
    if row["ratio"] is None:
        return "", ""
    dtype, n, what = row["dtype"], row["n"], str(row["what"])
    own = bounds.get((dtype, n, what.removeprefix("auto: ")))
    best = bounds.get((dtype, n, "best"))
    chosen = bounds.get((dtype, 0, "auto")) if what.startswith("auto") else None
    if best is not None and own is None:
        ratios = [r["ratio"] for r in rows if (r["dtype"], r["n"]) == (dtype, n) and r["ratio"] is not None]
        own = best if row["ratio"] == max(ratios) else None
    limits = [limit for limit in (own, chosen) if limit is not None]
    if not limits:
        return "", ""
    return f">= {max(limits):g}", "kept" if row["ratio"] >= max(limits) else "**missed**"


PUBLISHED = """The published system (grisuno/strass_strassen) beside it. The ceiling is (8/7)^levels: seven half-size products in
place of eight; additions only lower it.

| claim | value | levels | ceiling | remark |
|---|---|---|---|---|
| Table 4, N = 2048 | 0.101 s against 0.102 s: 1.01 | 0 | 1.000 | N is the threshold of its recursion: noise |
| Table 4, N = 4096 | 0.764 s against 0.760 s: 0.99 | 1 | 1.143 | a loss at the claimed crossover |
| Table 4, N = 8192 | 5.676 s against 6.002 s: 1.06 | 2 | 1.306 | its repeats gave 1.040 |
| abstract, N = 8192 | 15.82 s against 30.81 s: **1.95** | 2 | 1.306 | seven parallel sections against one thread |

1.95 cannot be: with two levels 49 quarter-size products replace 64, so no schedule on the same cores is more than 64/49 =
1.306 times as fast as the product it is built on. A ratio above that says that the baseline was given less."""
