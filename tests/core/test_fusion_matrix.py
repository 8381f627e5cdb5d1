"""Every ordered pair of shipped cassettes with every fusion and gate: a plan that prints, or a refusal that says why."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

import grokkit_core as gk
from grokkit_core.cassette import Cassette
from grokkit_core.errors import Incompatible
from grokkit_core.plugins import host
from grokkit_core.specs import FusionSpec, GateSpec

Made = Mapping[str, Cassette]
REASON = re.compile(
    r"\b(axis|axes|unit|domain|dtype|outputs?|inputs?) |"
    r"computes task [a-z-]+, .* computes [a-z-]+|"
    r"has ([a-z]\w*) = .*, .* has .*; expected the same constants of the law|"
    r"context variable"
)
"""What a refusal must name: an axis, unit, domain or dtype, both tasks, a constant of the law, or a context variable."""


def combinations() -> Iterator[tuple[str, str | None]]:
    """Every fusion, with every gate where it takes one."""
    for fusion in host().specs(FusionSpec):
        gates = host().specs(GateSpec) if fusion.gated else [None]
        yield from ((fusion.id, gate and gate.id) for gate in gates)


@pytest.fixture(scope="module")
def outcomes(shipped: Made) -> Mapping[tuple[str, str | None], Counter[str]]:
    """What came of all ordered pairs by fusion and gate."""
    found = {}
    for fusion, gate in combinations():
        counted = found[fusion, gate] = Counter[str]()
        for one, two in itertools.product(shipped.values(), repeat=2):
            counted[_outcome(one, two, fusion, gate)] += 1
    return found


def _outcome(one: Cassette, two: Cassette, fusion: str, gate: str | None) -> str:
    try:
        plan = gk.plan(one, two, fusion=fusion, gate=gate)
    except Incompatible as error:
        return "refused" if REASON.search(str(error)) else f"refused without a reason: {error}"
    printed = json.loads(json.dumps(plan.to_json()))
    assert printed["fusion"] == fusion
    assert printed["digests"] == [one.manifest.digest, two.manifest.digest]
    return "planned"


def test_every_pair_has_a_plan_or_a_reason(
    outcomes: Mapping[tuple[str, str | None], Counter[str]], shipped: Made
) -> None:
    assert len(outcomes) == len(list(combinations())) >= 10
    for counted in outcomes.values():
        assert counted.total() == len(shipped) ** 2
        assert set(counted) <= {"planned", "refused"}


def test_routers_and_superpositions_take_every_pair(
    outcomes: Mapping[tuple[str, str | None], Counter[str]], shipped: Made
) -> None:
    for fusion in ("router", "superposition"):
        assert outcomes[fusion, None] == {"planned": len(shipped) ** 2}


def test_an_ensemble_takes_just_the_pairs_of_one_law_and_signature(
    outcomes: Mapping[tuple[str, str | None], Counter[str]], shipped: Made
) -> None:
    def law(cassette: Cassette) -> tuple[object, ...]:
        body = cassette.manifest.to_json()
        return body["task"]["id"], json.dumps([body["task"]["parameters"], body["inputs"], body["outputs"]])

    alike = sum(law(one) == law(two) for one, two in itertools.product(shipped.values(), repeat=2))
    assert outcomes["ensemble", "uniform"]["planned"] == alike > len(shipped)


def test_the_same_is_said_on_a_terminal(cli: Callable[..., Any], shipped: Made) -> None:
    """Two pairs of names for each combination, through the command line."""
    names = list(shipped)
    codes = Counter[int]()
    for shift, (fusion, gate) in enumerate(combinations()):
        for index in (0, len(names) // 2):
            one, two = names[index], names[(index + shift) % len(names)]
            gated = ("--gate", gate) if gate else ()
            outcome = cli("compose", one, two, "--fusion", fusion, *gated, "--dry-run")
            codes[outcome.code] += 1
            assert outcome.code in (0, 4), outcome.err
            assert "Traceback" not in outcome.err
            assert one in (outcome.out if outcome.code == 0 else outcome.err)
    assert set(codes) == {0, 4}


@pytest.mark.acceptance
def test_the_whole_matrix_on_the_command_line(
    cli: Callable[..., Any], shipped: Made, figure: Callable[..., None]
) -> None:
    codes = Counter[int]()
    for (fusion, gate), (one, two) in itertools.product(combinations(), itertools.product(shipped, repeat=2)):
        outcome = cli(
            "compose", one, two, "--fusion", fusion, *(("--gate", gate) if gate else ()), "--dry-run", "--json"
        )
        codes[outcome.code] += 1
        assert "Traceback" not in outcome.err
        if outcome.code != 0:
            assert REASON.search(outcome.err), outcome.err
    figure(
        "fusion matrix: plans / refusals with a reason / other exits", f"{codes[0]} / {codes[4]} / 0", "exits 0 and 4"
    )
    assert set(codes) == {0, 4}
