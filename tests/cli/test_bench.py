"""`grokkit bench`."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from grokkit_cyclotron.model import TopoBrainArchitecture

from grokkit_core import benchmark
from grokkit_core.benchmark import Row
from grokkit_core.specs import Field

Cli = Callable[..., Any]
Refused = Callable[..., str]
NODE = "cyclotron-1node"
KEYS = {"what", "batch", "median_s", "ratio"}


@pytest.fixture(autouse=True)
def fake_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every sample takes a second."""
    seconds = itertools.count()
    monkeypatch.setattr(benchmark, "clock_for", lambda device: lambda: float(next(seconds)))


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[dict[str, Any]]]:
    """`own(row, ...)`: gives the architecture of the published network a benchmark; returns the calls it gets."""

    def give(*rows: Row) -> list[dict[str, Any]]:
        calls: list[dict[str, Any]] = []

        def run(self: Any, cassette: Any, settings: Any, *, recalibrate: bool) -> Iterable[Row]:
            calls.append({**settings, "recalibrate": recalibrate})
            return rows

        monkeypatch.setattr(TopoBrainArchitecture, "benchmark", run)
        monkeypatch.setattr(TopoBrainArchitecture, "benchmark_settings", (Field("size", "int", 8, low=1),))
        return calls

    return give


# -- what it gives -----------------------------------------------------------------------------------------------------


def test_bench_has_the_documented_json_keys(cli: Cli) -> None:
    done = cli("bench", NODE, "--json")
    assert (done.code, done.err) == (0, "")
    assert set(done.json) == {"name", "version", "rows", "device", "dtype", "threads", "seed", "notes"}
    assert all(set(row) >= KEYS for row in done.json["rows"])
    assert [row["batch"] for row in done.json["rows"]] == [1, 1, 32, 32, 1024, 1024]
    assert [row["what"] for row in done.json["rows"][:2]] == [f"{NODE}@1", "euler"]
    assert [row["ratio"] for row in done.json["rows"][:2]] == [1.0, None]


def test_the_table_names_both_sides_and_how_they_were_timed(cli: Cli) -> None:
    done = cli("bench", NODE)
    assert (done.code, done.err) == (0, "")
    for word in (f"{NODE}@1", "euler", "1,024", "1.00 s", "per second", "cpu, float32, 1 thread", "CPU time"):
        assert word in done.out


@pytest.mark.parametrize("name", ["cyclotron", "cyclotron-fused", "parity-3of64"])
def test_every_kind_of_cassette_can_be_timed(cli: Cli, name: str) -> None:
    assert cli("bench", name, "--json").code == 0


def test_dtype_and_threads_are_said(cli: Cli) -> None:
    done = cli("bench", NODE, "--dtype", "float64", "--threads", "1", "--device", "cpu", "--json").json
    assert (done["dtype"], done["threads"], done["device"]) == ("float64", 1, "cpu")


def test_a_narrow_terminal_has_a_row_a_line(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("grokkit_cli.render.PLAIN_WIDTH", 60)
    printed = cli("bench", NODE).out
    assert max(map(len, printed.splitlines())) <= 60
    assert "euler, batch 1,024: 1.00 s, per second" in printed


def test_what_is_left_out_is_said(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "MOST_CELLS", 3_000)
    assert "batches above 32 would hold more than 3,000 numbers" in cli("bench", NODE).out


# -- progress ----------------------------------------------------------------------------------------------------------


def test_rows_are_told_on_stderr_as_they_come(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("grokkit_cli.render.live_allowed", lambda: True)
    done = cli("bench", NODE, "--json")
    assert "euler, batch 1,024: 1.00 s" in done.err
    assert done.json["rows"]


# -- benchmarks of an architecture -------------------------------------------------------------------------------------


def test_settings_and_recalibrate_reach_the_benchmark_of_the_architecture(cli: Cli, own: Callable[..., Any]) -> None:
    calls = own(Row("mm", 1, 0.5, None))
    assert cli("bench", NODE, "--set", "size=64", "--recalibrate").code == 0
    assert cli("bench", NODE).code == 0
    assert calls == [{"size": 64, "recalibrate": True}, {"size": 8, "recalibrate": False}]


def test_its_figures_are_columns(cli: Cli, own: Callable[..., Any]) -> None:
    own(Row("mm", 1, 0.5, None, {"gflops": 118.3, "n": 4096}), Row("fast", 1, 2e-5, 1.05, {"workspace_s": 0.0125}))
    done = cli("bench", NODE)
    for word in ("gflops", "118", "4,096", "500 ms", "20.0 us", "1.05", "12.5 ms"):
        assert word in done.out


@pytest.mark.parametrize("width", [36, 140])
def test_a_row_that_cannot_be_right_fails_and_says_why(
    cli: Cli, own: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setattr("grokkit_cli.render.PLAIN_WIDTH", width)
    own(Row("mm", 1, 2.0, None), Row("fast", 1, 1.0, 2.0, problem="ratio above 8/7"))
    done = cli("bench", NODE)
    assert (done.code, done.err) == (1, "")
    assert "ratio above 8/7" in " ".join(done.out.split())
    found = cli("bench", NODE, "--json")
    assert found.code == 1
    assert [row["problem"] for row in found.json["rows"]] == ["", "ratio above 8/7"]


def test_a_row_without_a_problem_does_not_fail(cli: Cli, own: Callable[..., Any]) -> None:
    own(Row("mm", 1, 2.0, None), Row("fast", 1, 1.0, 2.0, note="close to 8/7"))
    done = cli("bench", NODE)
    assert done.code == 0
    assert "close to 8/7" in done.out


@pytest.mark.parametrize("width", [36, 140])
def test_texts_of_a_benchmark_are_shown_safely(
    cli: Cli, own: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setattr("grokkit_cli.render.PLAIN_WIDTH", width)
    evil = "\x1b[31m\x9b2J\u202e"
    own(Row(evil, 1, 2.0, None, {evil: evil}, note=evil, problem=evil))
    monkeypatch.setattr("grokkit_cli.render.live_allowed", lambda: False)
    done = cli("bench", NODE)
    assert done.code == 1
    assert not set("\x1b\x9b\u202e") & set(done.out + done.err)
    assert cli("bench", NODE, "--json").out.isascii()


def test_numbers_that_are_not_finite_are_null(cli: Cli, own: Callable[..., Any]) -> None:
    own(Row("mm", 1, float("nan"), float("inf")))
    assert cli("bench", NODE).code == 0
    (row,) = cli("bench", NODE, "--json").json["rows"]
    assert (row["median_s"], row["ratio"]) == (None, None)


# -- refusals ----------------------------------------------------------------------------------------------------------


def test_an_unknown_name_is_not_found(refused: Refused) -> None:
    refused(5, "bench", "cyclotron-1nod", says=("did you mean 'cyclotron-1node'?",))


def test_an_unknown_setting_is_refused(refused: Refused) -> None:
    refused(2, "bench", NODE, "--set", "size=8", says=("'size'", "benchmark of grokkit_cyclotron/topobrain"))


@pytest.mark.parametrize(("pair", "says"), [("size=0", "at least 1"), ("sze=8", "'size'"), ("size", "name=value")])
def test_a_wrong_setting_is_refused(refused: Refused, own: Callable[..., Any], pair: str, says: str) -> None:
    calls = own(Row("mm", 1, 2.0, None))
    refused(2, "bench", NODE, "--set", pair, says=(says,))
    assert calls == []


def test_nothing_to_recalibrate_is_refused(refused: Refused) -> None:
    refused(2, "bench", NODE, "--recalibrate", says=("no benchmark of its own", "leave --recalibrate out"))


@pytest.mark.parametrize("threads", ["0", "-1", "1000000", "many"])
def test_threads_that_there_are_not_are_refused(refused: Refused, threads: str) -> None:
    refused(2, "bench", NODE, "--threads", threads)


@pytest.mark.parametrize("dtype", ["float16", "bool"])
def test_a_dtype_that_the_signature_does_not_list_is_refused(refused: Refused, dtype: str) -> None:
    refused(4, "bench", NODE, "--dtype", dtype, says=(f"'{dtype}'", "float32 or float64"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_without_a_gpu_is_refused(refused: Refused) -> None:
    refused(2, "bench", NODE, "--device", "cuda", says=("cuda", "--device cpu or auto"))


def test_a_missing_plugin_is_named(refused: Refused, trained: Path) -> None:
    refused(4, "bench", "alpha", "--no-plugins", "--library", trained, says=("alpha@1", "needs grokkit"))


def test_an_interruption_gives_the_threads_back(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    before = torch.get_num_threads()
    monkeypatch.setattr(benchmark, "paired", interrupt)
    done = cli("bench", NODE)
    assert (done.code, done.out, done.err.strip()) == (130, "", "grokkit: interrupted")
    assert torch.get_num_threads() == before


def test_bench_writes_nothing(cli: Cli, shelf: Path, snapshot: Callable[..., Any]) -> None:
    before = snapshot(shelf)
    assert cli("bench", "alpha", "--library", shelf).code == 0
    assert snapshot(shelf) == before
