"""The page of benchmarks: a section each, so that one can be measured again without the others."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version

from timing import Benchmark, Bound, Result

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
        *(row(benchmark.bound, result) for result in results),
        "",
        *(f"Checked before timing, {result.label}: {result.checked}." for result in results),
        "",
        footer(benchmark.name),
    ]
    return "\n".join(lines) + "\n"


def footer(name: str) -> str:
    """The last lines of a section: the machine, and the command that measures it again."""
    command = f"`python tests/benchmarks/bench.py --only {name} --write docs/benchmarks.md`"
    return f"Machine: {machine()}.\nCommand: {command}"


def row(bound: Bound | None, result: Result) -> str:
    """One line of a table; without a bound the ratio is only reported."""
    verdict = "" if bound is None else "kept" if bound.holds(result.ratio) else "**missed**"
    seconds = f"{_time(result.numerator_seconds)} | {_time(result.denominator_seconds)}"
    spread = f"{result.lowest:.3g} to {result.highest:.3g}"
    return f"| {result.label} | {seconds} | {result.ratio:.3g} ({spread}) | {bound or 'reported'} | {verdict} |"


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
