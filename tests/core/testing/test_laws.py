"""The kit itself: every law has a mutant, and a broken law says what, where and how to mend it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import test_architecture_mutants
import test_cassette_mutants
import test_fusion_mutants
import test_gate_mutants
import test_plugin_mutants
import test_task_mutants
import test_transfer_mutants
from hypothesis import strategies as st
from probes import SPECS, NetArchitecture, Turn, bench_with

from grokkit_core.errors import NotFound
from grokkit_core.specs import Field, TaskSpec
from grokkit_core.testing import (
    LAWS,
    Law,
    LawBroken,
    Workbench,
    check_architecture,
    check_fusion,
    check_gate,
    check_plugin,
    check_task,
    check_transfer,
    checks_of,
)
from grokkit_core.testing.draws import admitted, bad_settings, for_all, modest
from grokkit_core.testing.laws import KINDS, applies, require

MUTANTS = [
    *test_plugin_mutants.PLUGIN_MUTANTS,
    *test_task_mutants.MUTANTS,
    *test_architecture_mutants.MUTANTS,
    *test_transfer_mutants.MUTANTS,
    *test_gate_mutants.MUTANTS,
    *test_fusion_mutants.MUTANTS,
    *test_cassette_mutants.MUTANTS,
    *(mutant for mutant, _ in test_cassette_mutants.DAMAGED),
]


def test_every_law_has_a_mutant_that_it_must_catch() -> None:
    assert {mutant.law for mutant in MUTANTS} == {law.id for law in LAWS}


def test_there_are_laws_of_every_kind_and_many() -> None:
    assert {law.kind for law in LAWS} == set(KINDS)
    assert len(LAWS) >= 15


def test_ids_are_distinct_and_sentences_are_sentences() -> None:
    assert max(Counter(law.id for law in LAWS).values()) == 1
    for law in LAWS:
        assert law.id.startswith(f"{law.kind}.")
        assert law.sentence and law.sentence[0].islower() and not law.sentence.endswith(".")
        assert law.mend


def test_the_page_for_authors_lists_every_law() -> None:
    page = (Path(__file__).parents[3] / "docs" / "plugins.md").read_text()
    listed = re.findall(r"^\| `([a-z]+\.[a-z0-9-]+)` \| (.*) \|$", page, flags=re.MULTILINE)
    assert listed == [(law.id, law.sentence) for law in LAWS]


# -- what a broken law says ---------------------------------------------------------------------------------------


class Thing:
    id = "package/thing"


def law(holds: Callable[[Any, Workbench], None]) -> Law:
    return Law("task.sound", "task", "a thing is sound", "make it sound", holds)


@pytest.fixture
def bench() -> Workbench:
    with bench_with() as made:
        return made


def test_a_broken_law_says_which_where_what_was_seen_what_was_expected_and_how_to_mend_it(bench: Workbench) -> None:
    with pytest.raises(LawBroken) as caught:
        law(lambda thing, bench: require(False, "2", "1")).check(Thing(), bench)
    assert str(caught.value).splitlines() == [
        "package/thing breaks the law task.sound: a thing is sound",
        "  seen: 2",
        "  expected: 1",
        "  to mend it: make it sound",
    ]
    assert isinstance(caught.value, AssertionError)


def test_whatever_a_component_raises_breaks_the_law(bench: Workbench) -> None:
    def holds(thing: Thing, bench: Workbench) -> None:
        raise ZeroDivisionError("no")

    with pytest.raises(LawBroken, match="it raised ZeroDivisionError: no") as caught:
        law(holds).check(Thing(), bench)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_a_law_that_says_nothing_gives_its_reason(bench: Workbench) -> None:
    assert law(lambda thing, bench: applies(False, "it has no colour")).check(Thing(), bench) == "it has no colour"


def test_a_law_that_holds_says_nothing(bench: Workbench) -> None:
    assert law(lambda thing, bench: require(True, "", "")).check(Thing(), bench) == ""


def test_a_drawn_counterexample_is_made_small_and_told(bench: Workbench) -> None:
    def holds(thing: Thing, bench: Workbench) -> None:
        @for_all(100, number=st.integers(0, 1000))
        def small(number: int) -> None:
            require(number < 10, "too many", "fewer")

    with pytest.raises(LawBroken, match=r"number=10"):
        law(holds).check(Thing(), bench)


def test_a_counterexample_that_comes_and_goes_is_told_too(bench: Workbench) -> None:
    calls = []

    def holds(thing: Thing, bench: Workbench) -> None:
        @for_all(10, number=st.integers(0, 9))
        def once(number: int) -> None:
            calls.append(number)
            require(len(calls) != 3, "it failed once", "never")

    with pytest.raises(LawBroken, match="it failed once"):
        law(holds).check(Thing(), bench)


# -- the checks that authors call -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["grokkit-probe", "grokkit_probe", "probe"])
def test_a_healthy_plugin_passes_under_each_of_its_names(name: str) -> None:
    with bench_with() as bench:
        skipped = check_plugin(name, bench)
        assert set(skipped) == {
            "probe plugin.light",
            "probe plugin.cassettes",
            "grokkit_probe/net architecture.live-columns",
            "grokkit_probe/net architecture.rollout",
        }


def test_each_kind_has_a_check_of_its_own() -> None:
    checks = {
        "task": check_task,
        "architecture": check_architecture,
        "transfer": check_transfer,
        "gate": check_gate,
        "fusion": check_fusion,
    }
    with bench_with() as bench:
        for kind, check in checks.items():
            skipped = check(SPECS[kind].id, bench)
            assert all(name.startswith(f"{SPECS[kind].id} {kind}.") for name in skipped)


def test_all_that_is_broken_is_told_at_once() -> None:
    class Wrong(Turn):
        def invariants(self, *arguments: Any) -> Any:
            return {"x": arguments[0][:, 0]}

        def error(self, prediction: Any, target: Any) -> Any:
            return 0 * super().error(prediction, target)

    with bench_with({"Turn": Wrong}) as bench, pytest.raises(LawBroken, match=r"task\.error") as caught:
        check_task("turn", bench)
    assert any("also broken: task.invariants by turn" in note for note in caught.value.__notes__)


def test_a_plugin_that_is_not_installed_is_not_found(installed: Workbench) -> None:
    with pytest.raises(NotFound, match="no plugin is installed as 'grokkit-nothing'"):
        list(checks_of("grokkit-nothing", installed))


def test_a_check_reads_as_a_sentence() -> None:
    with bench_with() as bench:
        read = [str(check) for check in checks_of("probe", bench)]
    assert "grokkit_probe/net: the output of a sample does not depend on the others in its batch" in read


def test_a_task_without_a_signature_of_its_own_is_left_alone() -> None:
    from grokkit_core.tensors import Signature

    several = TaskSpec("several", Signature([], []), target="grokkit_probe:Turn", summary="answers by key")
    with bench_with(specs={"task": several, "recipe": SPECS["task"]}) as bench:
        skipped = check_task("several", bench)
        assert set(skipped.values()) == {"its cassettes have no signature of their own: they answer by key"}
        assert len(skipped) == len([law for law in LAWS if law.kind == "task"])


def test_an_architecture_that_nothing_makes_is_left_alone_where_a_network_is_needed() -> None:
    class Odd(NetArchitecture):
        def signature(self, config: Any) -> Any:
            return SPECS["task"].signature.with_context([])  # type: ignore[union-attr]

    with bench_with({"NetArchitecture": Odd}, {"recipe": SPECS["gate"]}) as bench:
        assert bench.networks("grokkit_probe/net")  # its signature is that of the task: it is fed with its samples


# -- values that are drawn ------------------------------------------------------------------------------------------

FIELDS = [
    Field("count", "int", 4, low=1, high=64),
    Field("rate", "float", 0.1, low=0.0, high=1.0),
    Field("kind", "str", "a", choices=("a", "b")),
    Field("free", "bool", False),
    Field("places", "ints", (), low=0, high=9),
    Field("omegas", "floats", (0.5,), low=0.0, high=4.0),
]


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_admitted_values_are_admitted_and_refused_ones_are_not(field: Field) -> None:
    @for_all(50, value=admitted(field))
    def good(value: Any) -> None:
        assert field.admits(value)

    @for_all(50, settings=bad_settings([field], {}))
    def bad(settings: dict[str, Any]) -> None:
        assert "no_such_setting" in settings or not field.admits(settings[field.name])


def test_work_is_kept_small_and_shapes_are_left_alone() -> None:
    assert modest([*FIELDS, Field("steps", "int", 0, low=0, high=100_000)]) == {"steps": 8}


# -- what the kit needs ---------------------------------------------------------------------------------------------


def test_without_hypothesis_the_kit_names_the_extra() -> None:
    code = (
        "import sys; sys.modules['hypothesis'] = None\n"
        "from grokkit_core.testing import LawBroken\n"
        "from grokkit_core.errors import UsageError\n"
        "try:\n    from grokkit_core.testing import check_plugin\n"
        "except UsageError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'grokkit[testing]'" in done.stdout


def test_the_pytest_plugin_imports_neither_torch_nor_hypothesis() -> None:
    code = (
        "import sys, grokkit_core.testing.pytest_plugin\n"
        "print([name for name in ('torch', 'numpy', 'hypothesis') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
