"""The benchmark of matrix products: its rows, what it calibrates, and what it does not believe."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from grokkit_matmul import bench, levels, machine
from grokkit_matmul.bench import FAIR_GROWTH, SLACK
from grokkit_matmul.levels import Circumstances, Measured
from grokkit_matmul.model import Bilinear, scheme_of
from grokkit_matmul.runtime import Runtime

import grokkit_core as gk
from grokkit_core.benchmark import Row
from grokkit_core.cassette import Cassette
from grokkit_core.errors import Incompatible, UsageError
from grokkit_core.timing import Paired, Timed

CPU = torch.device("cpu")
HERE = Circumstances("winograd", torch.float32, CPU, 1)
FEW = {"sizes": [32, 64], "levels": [1, 2], "pairs": 3}
FIGURES = {"n", "gflops", "ratio_low", "ratio_high", "levels", "error", "error_factor", "workspace"}


class Stopwatch:
    """Stands in for `paired`: the plain product takes `plain_s(n)`, and the ratios of all pairs are `ratio(n, levels)`."""

    def __init__(self) -> None:
        self.ratio: Callable[[int, int], float] = lambda n, count: 1.1
        self.plain_s: Callable[[int], float] = lambda n: 1e-9 * n**3
        self.seen: list[tuple[int, int, int]] = []
        self.calls: list[tuple[int, int]] = []

    def timed(
        self,
        runtime: Runtime,
        products: bench.Products,
        count: int,
        pairs: int,
        device: Any,
        *,
        automatic: bool = False,
    ) -> Paired:
        """As `_timed`, with `paired` replaced."""
        self.seen.append((products.n, count, pairs))
        self.now = products.n, count
        return self.original(runtime, products, count, pairs, device, automatic=automatic)

    def paired(
        self, first: Any, second: Any, *, pairs: int, clock: Any, calls: tuple[int, int], warm_ups: int
    ) -> Paired:
        """Both sides run once, in the order in which a last pair does, and take what they are told to."""
        _ = (second(), first()) if pairs % 2 == 0 else (first(), second())
        self.calls.append(calls)
        n, count = self.now
        plain, ratio = self.plain_s(n), self.ratio(n, count)
        sides = Timed(plain, plain, 1.0, calls[0]), Timed(plain / ratio, plain / ratio, 0.9, calls[1])
        return Paired(*sides, (0.95 * ratio, *[ratio] * max(pairs - 2, 1), 2 * ratio)[:pairs])


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Stopwatch:
    watch = Stopwatch()
    watch.original = bench._timed  # type: ignore[attr-defined]
    monkeypatch.setattr(bench, "_timed", watch.timed)
    monkeypatch.setattr(bench, "paired", watch.paired)
    monkeypatch.setattr(bench, "calls_for", lambda call, clock, least_s: 4)
    return watch


@pytest.fixture(autouse=True)
def small(isolated: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Calibration on sizes of a moment, on a machine of unknown speed, from nothing."""
    monkeypatch.setattr(bench, "CALIBRATED", {"cpu": (32, 64)})
    monkeypatch.setattr(bench, "nominal_peak", lambda dtype, device, threads: None)
    levels.forget()
    assert levels.cache_file().is_relative_to(tmp_path)
    yield
    levels.forget()


def rows_of(cassette: Cassette, **changes: Any) -> tuple[Row, ...]:
    return gk.bench(cassette, settings={**FEW, **changes}).rows


def names(rows: tuple[Row, ...]) -> list[tuple[str, Any]]:
    return [(row.what, row.figures["n"]) for row in rows]


# -- rows --------------------------------------------------------------------------------------------------------------


def test_calibration_comes_first_then_a_baseline_and_the_levels_of_every_size(
    learned: Cassette, watch: Stopwatch
) -> None:
    watch.ratio = lambda n, count: {1: 1.1, 2: 0.9}[count]
    assert names(rows_of(learned)) == [
        ("calibrate 1", 32),
        ("calibrate 2", 32),
        ("calibrate 1", 64),
        ("calibrate 2", 64),
        ("torch.mm", 32),
        ("auto: 1 level", 32),
        ("2 levels", 32),
        ("torch.mm", 64),
        ("auto: 1 level", 64),
        ("2 levels", 64),
    ]


def test_a_row_of_levels_has_speed_spread_error_and_memory(learned: Cassette, watch: Stopwatch) -> None:
    *_, row = rows_of(learned, sizes=[64])
    assert set(row.figures) == FIGURES
    assert row.what == "2 levels"
    assert (row.ratio, row.figures["ratio_low"], row.figures["ratio_high"]) == pytest.approx((1.1, 1.045, 2.2))
    assert row.median_s == pytest.approx(1e-9 * 64**3 / 1.1)
    assert row.figures["gflops"] == pytest.approx(2.2)
    assert 0.3 < row.figures["workspace"] <= 0.41
    assert 1.0 < row.figures["error_factor"] < 30
    assert row.problem == ""


def test_the_error_of_a_row_is_that_of_its_product(learned: Cassette, watch: Stopwatch) -> None:
    for entries, draw in (("normal", torch.randn), ("uniform", torch.rand)):
        products = bench._drawn(32, torch.float32, CPU, entries)
        assert products.plain_error < 1e-6
        products.out[products.rows] *= 1.25
        assert products.error() == pytest.approx(0.25, rel=1e-4)
        assert draw is torch.randn or (float(products.a.min()) >= 0 and float(products.b.max()) <= 1)
    precise = bench._drawn(32, torch.float64, CPU, "normal")
    assert 0 < precise.plain_error < 1e-14
    precise.out[precise.rows] *= 1.25
    assert precise.error() == pytest.approx(0.25)


def test_the_baseline_says_how_good_it_is(learned: Cassette, watch: Stopwatch, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "of_peak" not in rows_of(learned, sizes=[64])[4].figures
    for peak, poor in ((2.4e9, False), (2.6e9, True)):
        monkeypatch.setattr(bench, "nominal_peak", lambda dtype, device, threads, peak=peak: peak)
        row = rows_of(learned, sizes=[64])[0]
        assert (row.what, row.ratio) == ("torch.mm", None)
        assert row.figures["gflops"] == pytest.approx(2.0)
        assert row.figures["of_peak"] == pytest.approx(2e9 / peak)
        assert ("below 80% of the nominal peak" in row.note) is poor


def test_the_baseline_says_how_much_longer_it_takes_than_at_half_the_size(learned: Cassette, watch: Stopwatch) -> None:
    for growth, slow in ((8.0, False), (FAIR_GROWTH + 0.01, True)):
        watch.plain_s = lambda n, growth=growth: growth if n == 64 else 1.0
        rows = [row for row in rows_of(learned, sizes=[32, 64, 96]) if row.ratio is None]
        assert [row.figures.get("growth") for row in rows] == [None, growth, None]
        assert [f"more than {FAIR_GROWTH} times" in row.note for row in rows] == [False, slow, False]


def test_a_plain_automatic_choice_works_in_no_memory_and_has_the_error_of_torch(
    learned: Cassette, watch: Stopwatch
) -> None:
    watch.ratio = lambda n, count: 1.0
    row = next(row for row in rows_of(learned, sizes=[64]) if row.what == "auto: plain")
    assert (row.figures["levels"], row.figures["workspace"], row.figures["error_factor"]) == (0, 0.0, 1.0)


def test_large_sizes_have_fewer_pairs_and_one_call_a_sample(
    learned: Cassette, watch: Stopwatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "LARGE", 64)
    levels.record(HERE, [Measured(16, 1, 0.9)])
    rows_of(learned, sizes=[8, 32, 64], levels=[1], pairs=9)
    assert watch.seen == [(8, 0, 9), (8, 1, 9), (32, 0, 9), (32, 1, 9), (64, 0, 5), (64, 1, 5)]
    assert watch.calls == [(4, 4)] * 2 + [(1, 1)] * 4


def test_a_cassette_is_timed_really(learned: Cassette, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "nominal_peak", machine.nominal_peak)
    monkeypatch.setattr(bench, "CALIBRATED", {"cpu": (64,)})
    found = gk.bench(learned, settings={"sizes": [128], "levels": [1], "pairs": 1})
    assert [row.what for row in found.rows if row.ratio is None] == ["torch.mm"]
    assert all(row.median_s > 0 for row in found.rows)
    assert (found.dtype, found.device) == ("float32", "cpu")


def test_the_automatic_row_is_a_call_that_chooses_by_itself(
    learned: Cassette, watch: Stopwatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int | None] = []
    multiply = Runtime.multiply

    def spied(self: Runtime, a: Any, b: Any, *, out: Any = None, levels: int | None = None) -> Any:
        asked.append(levels)
        return multiply(self, a, b, out=out, levels=levels)

    levels.record(HERE, [Measured(32, 1, 1.1)])
    monkeypatch.setattr(Runtime, "multiply", spied)
    rows_of(learned, sizes=[64])
    assert asked[0] is None
    assert set(asked[1:]) == {2}


def test_both_sides_have_as_many_calls_as_they_need(
    learned: Cassette, watch: Stopwatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = iter(range(100))
    monkeypatch.setattr(bench, "calls_for", lambda call, clock, least_s: next(asked))
    rows_of(learned)
    assert watch.calls[:3] == [(0, 1), (2, 3), (4, 5)]


# -- what cannot be true -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2])
def test_a_ratio_above_what_fewer_products_can_give_is_a_problem(
    learned: Cassette, watch: Stopwatch, count: int
) -> None:
    ceiling = (8 / 7) ** count * SLACK
    levels.record(HERE, [Measured(16, 1, 0.9)])
    for ratio, wrong in ((ceiling * 0.999, False), (ceiling * 1.001, True)):
        watch.ratio = lambda n, levels, ratio=ratio: ratio if levels == count else 1.0
        found = gk.bench(learned, settings=FEW)
        assert len(found.problems) == (2 if wrong else 0)
        assert all("above what" in problem and f"({ceiling:.3f})" in problem for problem in found.problems)


def test_other_formats_may_win_by_what_they_save(
    learned: Cassette, schemes: ModuleType, watch: Stopwatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = Runtime(schemes.others(scheme_of(learned.tensors))["4x4x4"])
    monkeypatch.setattr(Bilinear, "runtime", lambda self, cassette: runtime)
    for ratio, problems in ((1.3, 0), (64 / 49 * SLACK + 0.001, 1)):
        watch.ratio = lambda n, count, ratio=ratio: ratio if count == 1 and n == 64 else 1.0
        assert len(gk.bench(learned, settings={**FEW, "sizes": [64]}).problems) == problems


@pytest.mark.parametrize("ratio", [1.16, 1.17])
def test_the_command_fails_for_such_a_row(
    cli: Callable[..., Any], learned: Cassette, library: Path, watch: Stopwatch, ratio: float
) -> None:
    learned.save(library)
    watch.ratio = lambda n, count: ratio if count == 1 else 1.0
    options = ("--set", "sizes=32,64", "--library", library, "--json")
    done = cli("bench", learned.manifest.name, *options)
    assert done.code == (0 if ratio < 1.166 else 1)
    assert any(row["problem"] for row in done.json["rows"]) is (ratio > 1.166)


def test_a_calibration_that_cannot_be_true_is_not_recorded(learned: Cassette, watch: Stopwatch) -> None:
    watch.ratio = lambda n, count: 1.2 if (n, count) == (32, 1) else 1.0
    assert gk.bench(learned, settings=FEW).problems
    assert levels.recorded(HERE) == ()
    assert not levels.cache_file().exists()
    watch.ratio = lambda n, count: 1.0
    assert not gk.bench(learned, settings=FEW).problems
    assert levels.recorded(HERE)


# -- calibration -------------------------------------------------------------------------------------------------------


def calibrated(rows: tuple[Row, ...]) -> list[Any]:
    return [row.figures["n"] for row in rows if row.what.startswith("calibrate")]


def test_it_is_calibrated_once_and_again_when_asked_to(learned: Cassette, watch: Stopwatch) -> None:
    assert calibrated(rows_of(learned)) == [32, 32, 64, 64]
    assert levels.cache_file().exists()
    assert calibrated(rows_of(learned)) == []
    levels.forget()
    assert calibrated(rows_of(learned)) == []
    watch.ratio = lambda n, count: 0.9
    again = gk.bench(learned, settings=FEW, recalibrate=True).rows
    assert calibrated(again) == [32, 32, 64, 64]
    levels.forget()
    assert {row.ratio for row in levels.recorded(HERE)} == {0.9}


def test_what_was_calibrated_decides_what_a_call_takes(learned: Cassette, watch: Stopwatch) -> None:
    runtime = learned.architecture.runtime(learned)  # type: ignore[attr-defined]
    a = torch.ones(70, 70)
    assert runtime.chosen_levels(a, a) == 0
    watch.ratio = lambda n, count: {(64, 1): 1.1, (64, 2): 1.2}.get((n, count), 0.9)
    rows_of(learned)
    assert levels.recorded(HERE) == tuple(
        Measured(n, count, {(64, 1): 1.1, (64, 2): 1.2}.get((n, count), 0.9), n == 64)
        for n in (32, 64)
        for count in (1, 2)
    )
    assert runtime.chosen_levels(a, a) == 2
    assert runtime.chosen_levels(a[:63], a) == 0
    assert runtime.chosen_levels(a.double(), a.double()) == 0


def test_sizes_beyond_the_usual_are_calibrated_too_and_those_too_small_for_two_levels_are_not(
    learned: Cassette, watch: Stopwatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "CALIBRATED", {"cpu": (4, 32)})
    rows = rows_of(learned, sizes=[16, 64])
    assert calibrated(rows) == [4, 32, 32, 64, 64]


def test_every_dtype_is_calibrated_by_itself(learned: Cassette, watch: Stopwatch) -> None:
    rows_of(learned)
    found = gk.bench(learned, dtype="float64", settings=FEW)
    assert found.dtype == "float64"
    assert calibrated(found.rows)
    assert levels.recorded(dataclasses.replace(HERE, dtype=torch.float64))


# -- refusals ----------------------------------------------------------------------------------------------------------


def test_matrices_that_do_not_fit_into_memory_are_refused_before_anything_is_made(
    learned: Cassette, watch: Stopwatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = 64**2 * (3 * 4 + 8)
    for free, fits in ((needed, True), (needed - 1, False)):
        monkeypatch.setattr(bench.os, "sysconf", lambda name, free=free: free if name == "SC_AVPHYS_PAGES" else 1)
        if fits:
            rows_of(learned)
            continue
        watch.seen.clear()
        with pytest.raises(Incompatible, match="size 64 needs .* GiB, .* are free; expected a smaller size"):
            rows_of(learned)
        assert watch.seen == []


@pytest.mark.parametrize(
    "settings",
    [
        {"sizes": []},
        {"sizes": [0]},
        {"sizes": [2**17]},
        {"levels": [0]},
        {"levels": [9]},
        {"pairs": 0},
        {"entries": "x"},
    ],
    ids=str,
)
def test_settings_that_make_no_sense_are_refused(learned: Cassette, watch: Stopwatch, settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        gk.bench(learned, settings=settings)
    assert watch.seen == []


@pytest.mark.parametrize("before", [True, False])
def test_float32_is_not_shortened_inside_and_as_before_outside(before: bool) -> None:
    flags = torch.backends.cuda.matmul
    kept = flags.allow_tf32
    try:
        flags.allow_tf32 = before
        with bench._exact_float32():
            assert flags.allow_tf32 is False
        assert flags.allow_tf32 is before
    finally:
        flags.allow_tf32 = kept


# -- the machine -------------------------------------------------------------------------------------------------------

XEON = "model name\t: Intel(R) Xeon(R) Platinum 8481C CPU @ 2.10GHz\ncpu MHz\t\t: 3100.0\nflags\t\t: fpu fma avx2 avx512f\n"
EPYC = "model name\t: AMD EPYC 7B13\ncpu MHz\t\t: 2450.0\nflags\t\t: fpu fma avx2\n" * 2 + "cpu MHz\t\t: 2400.0\n"


@pytest.mark.parametrize(
    ("text", "dtype", "threads", "peak"),
    [
        (XEON, torch.float32, 1, 134.4e9),
        (XEON, torch.float64, 1, 67.2e9),
        (XEON, torch.float32, 4, 4 * 134.4e9),
        (EPYC, torch.float32, 1, 76.8e9),
        (EPYC, torch.float64, 1, 38.4e9),
        (XEON.replace("avx512f", "").replace("avx2", ""), torch.float32, 1, None),
        (XEON.replace("avx512f", "").replace("fma", ""), torch.float32, 1, None),
        (EPYC.replace("cpu MHz", "speed"), torch.float32, 1, None),
        (XEON.replace("flags", "Features"), torch.float32, 1, None),
        ("", torch.float32, 1, None),
    ],
)
def test_the_nominal_peak_follows_from_what_the_processor_says(
    text: str, dtype: torch.dtype, threads: int, peak: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "read_text", lambda self, *options: text)
    found = machine.nominal_peak(dtype, CPU, threads)
    assert found == (peak if peak is None else pytest.approx(peak))


def test_a_machine_that_says_nothing_has_no_nominal_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Path, *options: str) -> str:
        raise FileNotFoundError(self)

    monkeypatch.setattr(Path, "read_text", fail)
    assert machine.nominal_peak(torch.float32, CPU, 1) is None
