"""Which number of levels a call takes: what was measured decides, no call measures, and a bad file decides nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from grokkit_matmul import bench, levels
from grokkit_matmul.levels import WORTHWHILE, Circumstances, Measured, chosen, record, recorded, thresholds
from grokkit_matmul.model import scheme_of
from grokkit_matmul.runtime import Runtime
from hypothesis import given
from hypothesis import strategies as st

from grokkit_core.cassette import Cassette

CPU = torch.device("cpu")
USUAL = Circumstances("winograd", torch.float32, CPU, 1)
FOUND = (
    Measured(1024, 1, 0.91),
    Measured(1024, 2, 0.70),
    Measured(2048, 1, 1.05),
    Measured(2048, 2, 0.90),
    Measured(4096, 1, 1.08),
    Measured(4096, 2, 1.13),
)
"""As on the host of the facts: one level from 2048 on, two from 4096."""

rows = st.builds(
    Measured, st.sampled_from([64, 128, 256, 512]), st.integers(1, 3), st.sampled_from([0.5, 0.99, 1.0, 1.03, 1.1, 1.3])
)
tables = st.lists(rows, max_size=12, unique_by=lambda row: (row.n, row.levels))


@pytest.fixture(autouse=True)
def new_process(isolated: None, tmp_path: Path) -> Iterator[None]:
    """Nothing is remembered, and the file lies in a folder of this test."""
    levels.forget()
    assert levels.cache_file().is_relative_to(tmp_path)
    yield
    levels.forget()


def choice(smallest: int, dtype: torch.dtype = torch.float32, form: str = "winograd") -> int:
    return chosen(form, dtype, CPU, smallest)


def written(entries: object) -> None:
    """Put a file there, as another process would have."""
    levels.cache_file().parent.mkdir(parents=True, exist_ok=True)
    levels.cache_file().write_text(json.dumps({"schema": levels.SCHEMA, "entries": entries}))
    levels.forget()


# -- thresholds --------------------------------------------------------------------------------------------------------


def test_levels_pay_from_the_size_on_at_which_they_win() -> None:
    assert thresholds(FOUND) == {1: 2048, 2: 4096}
    assert thresholds(FOUND[:4]) == {1: 2048}
    assert thresholds(()) == {}


def test_two_percent_are_needed_and_enough() -> None:
    assert thresholds([Measured(64, 1, WORTHWHILE)]) == {1: 64}
    assert thresholds([Measured(64, 1, WORTHWHILE - 1e-9)]) == {}
    assert thresholds([Measured(64, 1, 1.10), Measured(64, 2, 1.11)]) == {1: 64}


def test_a_win_below_a_loss_does_not_count() -> None:
    assert thresholds([Measured(64, 1, 1.3), Measured(128, 1, 0.9), Measured(256, 1, 1.3)]) == {1: 256}
    assert thresholds([Measured(64, 1, 1.3), Measured(128, 1, 0.9)]) == {}


def test_more_levels_may_pay_where_fewer_do_not() -> None:
    assert thresholds([Measured(64, 1, 0.9), Measured(64, 2, 1.1)]) == {2: 64}


@given(tables, st.randoms())
def test_the_order_of_rows_does_not_matter(table: list[Measured], random: Any) -> None:
    mixed = list(table)
    random.shuffle(mixed)
    assert thresholds(mixed) == thresholds(table)


@given(tables)
def test_a_threshold_is_the_least_size_from_which_on_every_measurement_is_worthwhile(table: list[Measured]) -> None:
    ratios = {(row.n, row.levels): row.ratio for row in table}

    def wins(n: int, count: int) -> bool:
        fewer = [ratio for (size, less), ratio in ratios.items() if size == n and less < count]
        return ratios[n, count] >= WORTHWHILE * max([1.0, *fewer])

    found = thresholds(table)
    for count in (1, 2, 3):
        sizes = sorted(n for n, levels in ratios if levels == count)
        good = [n for n in sizes if all(wins(larger, count) for larger in sizes if larger >= n)]
        assert found.get(count) == (good[0] if good else None)


@given(tables, st.integers(1, 600))
def test_a_better_ratio_of_the_most_levels_never_makes_them_rarer(table: list[Measured], smallest: int) -> None:
    better = [Measured(row.n, row.levels, row.ratio * 1.5) if row.levels == 3 else row for row in table]
    before, after = thresholds(table), thresholds(better)
    assert after.get(3, 10**9) <= before.get(3, 10**9)
    assert {count: after[count] for count in after if count < 3} == {c: before[c] for c in before if c < 3}


# -- the choice --------------------------------------------------------------------------------------------------------


def test_the_most_levels_whose_threshold_is_reached_are_taken() -> None:
    record(USUAL, FOUND)
    assert [choice(n) for n in (1, 2047, 2048, 4095, 4096, 10**6)] == [0, 0, 1, 1, 2, 2]


def test_without_a_file_there_are_no_levels() -> None:
    assert recorded(USUAL) == ()
    assert [choice(n) for n in (64, 10**6)] == [0, 0]


def test_the_smallest_size_of_a_product_decides(learned: Cassette) -> None:
    record(USUAL, [Measured(64, 1, 1.1)])
    runtime = Runtime(scheme_of(learned.tensors))
    for m, k, n, expected in ((64, 64, 64, 1), (200, 64, 90, 1), (63, 99, 99, 0), (99, 63, 99, 0), (99, 99, 63, 0)):
        a, b = torch.ones(m, k), torch.ones(k, n)
        assert runtime.chosen_levels(a, b) == expected
        runtime.recursion.buffers.release()
        assert torch.equal(runtime.multiply(a, b), a @ b)
        assert bool(runtime.recursion.buffers.bytes) == bool(expected), "the choice is not what ran"


@pytest.mark.parametrize(("dtype", "threads", "form"), [
    (torch.float64, 1, "winograd"), (torch.float32, 2, "winograd"), (torch.float32, 1, "blockwise <2,2,2> 7 0")
])  # fmt: skip
def test_another_dtype_thread_count_or_form_is_another_entry(
    dtype: torch.dtype, threads: int, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(USUAL, FOUND)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert choice(4096, dtype, form) == 0
    record(Circumstances(form, dtype, CPU, threads), [Measured(512, 1, 1.2)])
    assert choice(4096, dtype, form) == 1
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert choice(4096) == 2


def test_another_release_of_torch_or_device_is_another_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    record(USUAL, FOUND)
    for change in ((torch, "__version__", "1.0"), (levels, "device_name", lambda device: "another processor")):
        with monkeypatch.context() as patch:
            patch.setattr(*change)
            levels.forget()
            assert choice(4096) == 0
    levels.forget()
    assert choice(4096) == 2


def test_other_coefficients_are_another_form(learned: Cassette, schemes: ModuleType) -> None:
    scheme = scheme_of(learned.tensors)
    forms = {Runtime(other).form for other in (scheme, *schemes.others(scheme).values(), *schemes.mutations(scheme))}
    assert len(forms) == 1 + 3 + 168


# -- what is kept ------------------------------------------------------------------------------------------------------


def test_a_measurement_is_there_for_the_next_process() -> None:
    record(USUAL, FOUND)
    other = Circumstances("winograd", torch.float64, CPU, 1)
    record(other, FOUND[:2])
    levels.forget()
    assert recorded(USUAL) == FOUND
    assert recorded(other) == FOUND[:2]
    assert choice(4096) == 2
    assert choice(4096, torch.float64) == 0


def test_a_measurement_replaces_the_one_before_at_once() -> None:
    record(USUAL, FOUND)
    assert choice(2048) == 1
    record(USUAL, [Measured(2048, 1, 0.9)])
    assert choice(2048) == 0
    levels.forget()
    assert choice(2048) == 0


@pytest.fixture
def unwritable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache folder is a file."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))


@pytest.mark.usefixtures("unwritable")
def test_a_folder_that_cannot_be_written_keeps_it_for_this_process_only() -> None:
    record(USUAL, FOUND)
    assert recorded(USUAL) == FOUND
    assert choice(4096) == 2
    levels.forget()
    assert recorded(USUAL) == ()
    assert choice(4096) == 0


@pytest.mark.usefixtures("unwritable")
def test_what_is_kept_for_this_process_does_not_depend_on_how_a_gpu_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(levels, "device_name", lambda device: "one GPU")
    record(Circumstances("winograd", torch.float32, torch.device("cuda"), 8), FOUND)
    assert chosen("winograd", torch.float32, torch.device("cuda:0"), 4096) == 2


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    record(USUAL, FOUND)

    def fail(*paths: object) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        record(USUAL, FOUND[:2])
    assert recorded(USUAL) == FOUND[:2]
    levels.forget()
    assert recorded(USUAL) == FOUND
    assert list(levels.cache_file().parent.iterdir()) == [levels.cache_file()]


BAD_FILES: dict[str, bytes] = {
    "empty": b"",
    "no JSON": b"{",
    "no text": b"\xff\xfe\x00",
    "deep": b"[" * 100_000,
    "a list": b"[]",
    "null": b"null",
    "no entries": b'{"schema": 1}',
    "entries as a list": b'{"schema": 1, "entries": []}',
    "another schema": b'{"schema": 2, "entries": {}}',
    "a huge number": b'{"schema": 1' + b"0" * 5000 + b"}",
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_file_that_is_none_of_ours_decides_nothing_and_is_replaced(name: str) -> None:
    levels.cache_file().parent.mkdir(parents=True)
    levels.cache_file().write_bytes(BAD_FILES[name])
    assert recorded(USUAL) == ()
    assert choice(4096) == 0
    record(USUAL, FOUND)
    levels.forget()
    assert choice(4096) == 2


GOOD_ROW = {"n": 64, "levels": 1, "ratio": 1.5, "steady": True}


@pytest.mark.parametrize(
    "entry",
    [
        5,
        "text",
        {"n": 64},
        [[]],
        [None],
        [{"n": 64, "levels": 1}],
        [{**GOOD_ROW, "ratio": "fast"}],
        [{**GOOD_ROW, "ratio": float("nan")}],
        [{**GOOD_ROW, "ratio": float("inf")}],
        [{**GOOD_ROW, "ratio": -1.0}],
        [{**GOOD_ROW, "n": float("inf")}],
        [{**GOOD_ROW, "n": 0}],
        [{**GOOD_ROW, "n": None}],
        [{**GOOD_ROW, "levels": 0}],
        [{**GOOD_ROW, "levels": -1}],
        [GOOD_ROW, {**GOOD_ROW, "levels": -1}],
    ],
    ids=str,
)
def test_an_entry_that_nobody_can_have_measured_decides_nothing(entry: Any) -> None:
    written({USUAL.key: entry})
    assert recorded(USUAL) == ()
    assert choice(10**6) == 0


def test_an_entry_as_it_should_be_decides() -> None:
    written({USUAL.key: [GOOD_ROW]})
    assert choice(64) == 1


def test_a_level_that_lost_a_single_pair_is_not_chosen() -> None:
    written({USUAL.key: [{**GOOD_ROW, "steady": False}]})
    assert choice(64) == 0


def test_a_folder_in_place_of_the_file_decides_nothing() -> None:
    levels.cache_file().mkdir(parents=True)
    assert choice(4096) == 0
    record(USUAL, FOUND)
    assert choice(4096) == 2


# -- no call measures --------------------------------------------------------------------------------------------------


def test_no_call_measures_or_writes(learned: Cassette, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any, **named: Any) -> Any:
        raise AssertionError("a call was timed")

    for name in ("paired", "calls_for", "calibrate"):
        monkeypatch.setattr(bench, name, fail)
    monkeypatch.setattr(levels, "record", fail)
    a = torch.ones(300, 300)
    for call in (learned, learned.matmul, lambda x, y: learned.matmul(x, y, levels=1)):
        assert torch.equal(call(a, a), a @ a)
    assert not levels.cache_file().exists()


def test_the_file_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    record(USUAL, FOUND)
    levels.forget()
    reads: list[int] = []
    read: Callable[[], Any] = levels._read
    monkeypatch.setattr(levels, "_read", lambda: (reads.append(1), read())[1])
    assert [choice(4096) for _ in range(5)] == [2] * 5
    assert len(reads) == 1
