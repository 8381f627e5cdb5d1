"""The page of benchmarks: a section each, so that one can be measured again without the others."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version

from timing import Benchmark, Result

HEAD = """# Benchmarks

CPU times (not wall time) of both sides in one process on one thread, medians of alternating runs. The ratio is median
over median; in brackets the least and the greatest ratio of two neighbouring runs. Written by `make bench`.
"""
MARK = "\n## "


def section(benchmark: Benchmark, results: Sequence[Result]) -> str:
    """One benchmark in Markdown, without its mark."""
    lines = [
        benchmark.name,
        "",
        benchmark.what,
        "",
        f"Seed {benchmark.seed}; {benchmark.sizes}; {benchmark.runs} runs of each side.",
        "",
        f"| case | {results[0].numerator} | {results[0].denominator} | ratio | bound | |",
        "|---|---|---|---|---|---|",
        *(_row(benchmark, result) for result in results),
        "",
        *(f"Checked before timing, {result.label}: {result.checked}." for result in results),
        "",
        f"Machine: {machine()}.",
        f"Command: `python tests/benchmarks/bench.py --only {benchmark.name} --write docs/benchmarks.md`",
    ]
    return "\n".join(lines) + "\n"


def _row(benchmark: Benchmark, result: Result) -> str:
    verdict = "kept" if benchmark.bound.holds(result.ratio) else "**missed**"
    seconds = f"{_time(result.numerator_seconds)} | {_time(result.denominator_seconds)}"
    spread = f"{result.lowest:.3g} to {result.highest:.3g}"
    return f"| {result.label} | {seconds} | {result.ratio:.3g} ({spread}) | {benchmark.bound} | {verdict} |"


def _time(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"


def machine() -> str:
    """The kind of machine, without its name."""
    import torch  # not before the number of threads is set

    from grokkit_core.devices import device_name

    return (
        f"{device_name(torch.device('cpu'))}, {os.cpu_count()} logical cores, {platform.system()} {platform.machine()}, "
        f"Python {platform.python_version()}, torch {version('torch')}"
    )


def page(sections: Mapping[str, str], old: str, order: Sequence[str]) -> str:
    """The page with these sections, the others as they are in `old`; those of no known benchmark are dropped."""
    kept = {part.partition("\n")[0]: part.rstrip() + "\n" for part in old.split(MARK)[1:]}
    known = {**kept, **sections}
    return HEAD + "".join(MARK + known[name] for name in order if name in known)
