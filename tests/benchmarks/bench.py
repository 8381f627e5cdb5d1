"""Measure the benchmarks of this folder: `python tests/benchmarks/bench.py [--only NAME] [--write docs/benchmarks.md]`.

Exits with 1 if a bound is missed. A new benchmark is one more file `bench_<name>.py` with a `BENCHMARK`.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import report
from timing import Benchmark, run

FOLDER = Path(__file__).resolve().parent
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def benchmarks() -> dict[str, Benchmark]:
    """All benchmarks of this folder by name."""
    found = [importlib.import_module(path.stem).BENCHMARK for path in sorted(FOLDER.glob("bench_*.py"))]
    return {benchmark.name: benchmark for benchmark in found}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write; 1 if a bound is missed."""
    os.environ.update(ONE_THREAD)
    known = benchmarks()
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", choices=known, action="append", help="measure only this one; may be repeated")
    parser.add_argument("--write", type=Path, metavar="FILE", help="replace the measured sections of this page")
    chosen = parser.parse_args(arguments)

    sections, missed = {}, []
    for name in chosen.only or known:
        results = run(known[name])
        if not results:  # it said why; its old section is kept
            continue
        sections[name] = report.section(known[name], results)
        print(f"## {sections[name]}", flush=True)
        missed += [f"{name}, {r.label}" for r in results if not known[name].bound.holds(r.ratio)]
    if chosen.write:
        old = chosen.write.read_text() if chosen.write.exists() else ""
        chosen.write.write_text(report.page(sections, old, list(known)))
    for label in missed:
        print(f"bound missed: {label}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
