"""The forward pass of a fusion against the sum of its members' own, for every gate and for members of one architecture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import report
from timing import Benchmark, Bound, Comparison, Result, Section, Side, run

if TYPE_CHECKING:
    from grokkit_core.cassette import Cassette

SEED = 0
RUNS = 7
CALLS = {1: 100, 64: 80, 4096: 4}
FUSED = Bound(most=1.10)
"""Of a fusion of members of different architectures, at every batch."""

PAIR = {1: Bound(most=0.6), 64: Bound(most=0.9), 4096: Bound(most=1.1)}
"""Of two members of one architecture, by batch."""

ROUNDING = 1e-6
GATES: Mapping[str, Mapping[str, Any]] = {
    "uniform": {},
    "constant": {"weights": (0.3, 0.7)},
    "stacking": {},
    "spectral": {"steps": 20},
    "interference": {},
    "interference-per-output": {},
    "sequence": {"steps": 20},
}
CALL, NETWORK = "call", "network"
FORMS = (CALL, NETWORK)
"""A cassette as it is called, its inputs checked, or its network alone."""

MIXED = ("cyclotron-1node", "cyclotron-8node")
PAIRS = ("cyclotron-1node", "cyclotron-8node", "cyclotron", "parity-3of64", "parity-3of64-grokked", "pendulum-mlp")


@dataclass(frozen=True)
class Case:
    """One row: its bound and what was measured."""

    bound: Bound
    result: Result

    @property
    def holds(self) -> bool:
        """Whether the bound is kept."""
        return self.bound.holds(self.result.ratio)


def cases() -> Iterator[Case]:
    """Every gate over two architectures, then pairs of one architecture under equal weights."""
    from ensemble_sides import fused, members

    import grokkit_core as gk

    mixed = [gk.load(name) for name in MIXED]
    for gate, options in GATES.items():
        whole = fused(mixed, gate, options, SEED)
        for batch, calls in CALLS.items():
            for form in FORMS:
                label = f"{' + '.join(MIXED)}, {gate}, batch {batch}, {form}"
                yield _case(label, mixed, whole, batch, calls, FUSED, form)
    for name in PAIRS:
        pair = members(name, 2, SEED)
        whole = fused(pair, "uniform", {}, SEED)
        for batch, calls in CALLS.items():
            for form in FORMS:
                yield _case(f"2 x {name}, batch {batch}, {form}", pair, whole, batch, calls, PAIR[batch], form)


def _case(label: str, parts: list[Cassette], whole: Cassette, batch: int, calls: int, bound: Bound, form: str) -> Case:
    import ensemble_sides

    sides = ensemble_sides.calls if form == CALL else ensemble_sides.forwards
    together, one_by_one = sides(parts, whole, batch, SEED)
    uniform = whole.manifest.architecture.config["gate"]["id"] == "uniform"

    def check() -> str:
        if uniform:
            return ensemble_sides.mean_apart(together, one_by_one, ROUNDING)
        assert together().shape == one_by_one()[0].shape
        return "outputs have the members' shape; `tests/core/test_batched.py` compares every gate with its weights"

    comparison = Comparison(label, Side("fused", together, calls), Side("members", one_by_one, calls), check)
    (result,) = run(Benchmark(NAME, "", SEED, "", bound, lambda: [comparison], RUNS))
    return Case(bound, result)


NAME = "fused-forward"
HEAD = f"""A fusion (members, gate, weighted sum) against its members one after the other, with a context that is one number for
all samples: *call* is the cassette as it is called, its inputs checked, beside its members called so; *network* the forward
pass of the fused network beside the forward passes of the members' own, in inference mode. Members of one architecture run
as one batched computation up to 512 rows, and one after the other beyond.

Seed {SEED}; shipped cassettes, pairs of one architecture with perturbed weights; {RUNS} runs of each side.

| case | fused | members | ratio | bound | |
|---|---|---|---|---|---|"""


def measure() -> tuple[str, list[str]]:
    """The section and what missed its bound."""
    found = list(cases())
    rows = [report.row(case.bound, case.result) for case in found]
    checked = dict.fromkeys(f"Checked before timing: {case.result.checked}." for case in found)
    text = "\n".join([HEAD, *rows, "", *checked, "", report.footer(NAME)])
    return text, [case.result.label for case in found if not case.holds]


BENCHMARK = Section(NAME, measure)
