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
from timing import Benchmark, Section, run

FOLDER = Path(__file__).resolve().parent
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def benchmarks() -> dict[str, Benchmark | Section]:
    """All benchmarks of this folder by name."""
    found = [importlib.import_module(path.stem).BENCHMARK for path in sorted(FOLDER.glob("bench_*.py"))]
    return {benchmark.name: benchmark for benchmark in found}


def measured(benchmark: Benchmark | Section) -> tuple[str, list[str]] | None:
    """The section of a benchmark and the labels of what missed its bound; None where it could not be measured."""
    if isinstance(benchmark, Section):
        found = benchmark.measure()
        return None if found is None else (f"{benchmark.name}\n\n{found[0]}\n", list(found[1]))
    results = run(benchmark)
    if not results:
        return None
    missed = [result.label for result in results if not benchmark.bound.holds(result.ratio)]
    return report.section(benchmark, results), missed


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
        found = measured(known[name])
        if found is None:  # it said why; its old section is kept
            continue
        sections[name], below = found
        print(f"## {sections[name]}", flush=True)
        missed += [f"{name}, {label}" for label in below]
    if chosen.write:
        old = chosen.write.read_text() if chosen.write.exists() else ""
        chosen.write.write_text(report.page(sections, old, list(known)))
    for label in missed:
        print(f"bound missed: {label}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
