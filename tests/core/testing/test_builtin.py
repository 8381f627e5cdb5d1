"""No false alarms: everything that Grokkit itself brings keeps every law."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby

import pytest

from grokkit_core.testing import LAWS, LawBroken, Workbench, checks_of
from grokkit_core.testing.conformance import Check, laws_of
from grokkit_core.testing.laws import KINDS

CHECKS = list(checks_of("grokkit"))
GROUPS = [list(group) for _, group in groupby(CHECKS, key=lambda check: (check.law.kind, check.name))]


Outcome = Callable[[Check], str | LawBroken]


@pytest.fixture(scope="module")
def outcome(installed: Workbench) -> Outcome:
    """What a check says: nothing, a reason why it does not apply, or the broken law; each is run once."""
    known: dict[tuple[str, str], str | LawBroken] = {}

    def run(check: Check) -> str | LawBroken:
        key = (check.law.id, check.name)
        if key not in known:
            try:
                known[key] = check.law.check(check.component, installed)
            except LawBroken as error:
                known[key] = error
        return known[key]

    return run


@pytest.mark.parametrize("checks", GROUPS, ids=lambda group: f"{group[0].law.kind} {group[0].name}")
def test_a_built_in_component_keeps_every_law(checks: list[Check], outcome: Outcome) -> None:
    broken = [found for check in checks if isinstance(found := outcome(check), LawBroken)]
    assert not broken, "\n".join(map(str, broken))


def test_every_component_is_checked_against_every_law_of_its_kind() -> None:
    assert {group[0].law.kind for group in GROUPS} == set(KINDS)
    for group in GROUPS:
        assert [check.law for check in group] == laws_of(group[0].law.kind)


def test_every_law_applies_to_some_built_in_component(outcome: Outcome) -> None:
    """A law that is always skipped would prove nothing."""
    applied: set[str] = set()
    for check in CHECKS:
        if check.law.id not in applied and not outcome(check):
            applied.add(check.law.id)
    assert applied == {law.id for law in LAWS}


@pytest.mark.acceptance
def test_no_law_is_broken_with_many_more_draws(figure: Callable[..., None]) -> None:
    bench = Workbench(examples=50)
    broken, applied = [], 0
    for check in checks_of("grokkit", bench):
        try:
            applied += not check.run()
        except LawBroken as error:
            broken.append(str(error))
    figure("laws and components, 50 draws each: broken", f"{len(broken)} of {applied}", "0")
    assert not broken, "\n".join(broken)
