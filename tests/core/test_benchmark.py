"""Timing in pairs, the rows of `bench`, and the verbs of an architecture."""

from __future__ import annotations

import copy
import gc
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import grokkit_core as gk
from grokkit_core import benchmark, devices, timing
from grokkit_core.architecture import Architecture
from grokkit_core.benchmark import Row, calls_for, clock_for, paired
from grokkit_core.cassette import Cassette
from grokkit_core.errors import CheckFailed, Incompatible, NotFound, PluginError, UsageError
from grokkit_core.plugins import PluginHost
from grokkit_core.specs import ArchitectureSpec, Field, TaskSpec
from grokkit_core.task import Batch, Inputs, Predictor, Task
from grokkit_core.tensors import Signature, TensorSpec


class Time:
    """A clock that stands still unless something says that it takes a while."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def taking(self, *seconds: float, log: list[str] | None = None, name: str = "") -> Callable[[], None]:
        """A call that takes these seconds in turn, the last ones for ever."""
        left = list(seconds)

        def call() -> None:
            self.now += left.pop(0) if len(left) > 1 else left[0]
            if log is not None:
                log.append(name)

        return call


@pytest.fixture
def time() -> Time:
    return Time()


# -- pairs ---------------------------------------------------------------------------------------------------------


def test_the_side_that_takes_half_the_time_has_twice_the_ratio(time: Time) -> None:
    found = paired(time.taking(4.0), time.taking(2.0), pairs=3, clock=time)
    assert (found.first_s, found.second_s, found.ratio, found.ratios) == (4.0, 2.0, 2.0, (2.0, 2.0, 2.0))


def test_the_order_within_a_pair_alternates(time: Time) -> None:
    log: list[str] = []
    sides = [time.taking(1.0, log=log, name=name) for name in "ab"]
    paired(*sides, pairs=4, clock=time, warm_ups=0)
    assert "".join(log) == "ab" + "ba" + "ab" + "ba"


def test_a_machine_that_becomes_slow_slows_both_sides_of_a_pair(time: Time) -> None:
    speeds = (1.0, 1.0, 10.0, 1.0)
    first, second = (time.taking(*(size * speed for speed in speeds)) for size in (3.0, 1.0))
    found = paired(first, second, pairs=4, clock=time, warm_ups=0)
    assert found.ratios == (3.0, 3.0, 3.0, 3.0)


def test_one_disturbed_sample_does_not_move_the_median(time: Time) -> None:
    found = paired(time.taking(2.0), time.taking(1.0, 50.0, 1.0), pairs=3, clock=time, warm_ups=0)
    assert found.ratio == 2.0
    assert min(found.ratios) == pytest.approx(0.04)


@pytest.mark.parametrize(("warm_ups", "seen"), [(0, 5.0), (1, 1.0)])
def test_warm_ups_are_not_counted(time: Time, warm_ups: int, seen: float) -> None:
    found = paired(time.taking(9.0, 1.0), time.taking(5.0, 1.0), pairs=1, clock=time, warm_ups=warm_ups)
    assert found.second_s == seen


def test_times_are_those_of_one_call(time: Time) -> None:
    log: list[str] = []
    sides = [time.taking(1.0, log=log, name=name) for name in "ab"]
    found = paired(*sides, pairs=1, clock=time, warm_ups=0, calls=(3, 2))
    assert "".join(log) == "aaabb"
    assert (found.first_s, found.second_s) == (1.0, 1.0)
    assert (found.first.calls, found.second.calls) == (3, 2)


def test_a_sample_without_any_time_is_a_failed_check(time: Time) -> None:
    with pytest.raises(CheckFailed, match="took no time"):
        paired(time.taking(1.0), time.taking(0.0), pairs=2, clock=time)


def test_processor_time_stands_beside_wall_time(time: Time, monkeypatch: pytest.MonkeyPatch) -> None:
    wall, cpu = Time(), Time()
    monkeypatch.setattr(timing.time, "perf_counter", wall)
    monkeypatch.setattr(timing.time, "process_time", cpu)

    def waiting() -> None:
        time.now += 1.0
        cpu.now += 1.0
        wall.now += 4.0

    def working() -> None:
        time.now += 1.0
        cpu.now += 2.0
        wall.now += 1.0

    found = paired(waiting, working, pairs=2, clock=time)
    assert (found.first.cpu_over_wall, found.second.cpu_over_wall) == (0.25, 2.0)
    assert (found.first.wall_s, found.second.wall_s) == (4.0, 1.0)


@pytest.mark.parametrize("enabled", [True, False])
def test_no_garbage_is_collected_meanwhile(time: Time, enabled: bool) -> None:
    seen: list[bool] = []
    step = time.taking(1.0)
    (gc.enable if enabled else gc.disable)()
    try:
        paired(step, lambda: (seen.append(gc.isenabled()), step()), pairs=1, clock=time, warm_ups=0)
        assert seen == [False]
        assert gc.isenabled() is enabled
    finally:
        gc.enable()


@pytest.mark.parametrize(("seconds", "calls"), [(0.03, 1), (0.02, 1), (0.011, 2), (0.001, 32)])
def test_a_sample_has_as_many_calls_as_it_needs(time: Time, seconds: float, calls: int) -> None:
    assert calls_for(time.taking(seconds), time, 0.02) == calls


def test_a_slow_first_call_does_not_shorten_the_samples(time: Time) -> None:
    assert calls_for(time.taking(5.0, 0.001), time, 0.02) == 32


def test_a_clock_that_stands_still_ends_too(time: Time, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "MOST_CALLS", 64)
    assert calls_for(lambda: None, time) == 64


def test_a_processor_is_timed_by_its_own_time() -> None:
    assert clock_for("cpu") is timing.time.process_time


def test_a_gpu_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    clock_for("cuda")()
    assert waited == [torch.device("cuda")]


# -- rows ----------------------------------------------------------------------------------------------------------


def test_figures_stand_beside_the_fields_of_a_row() -> None:
    row = Row("fast", 2, 0.5, 1.5, {"n": 64, "dtype": "float32"}, problem="too fast")
    assert row.to_json() == {
        "what": "fast",
        "batch": 2,
        "median_s": 0.5,
        "ratio": 1.5,
        "n": 64,
        "dtype": "float32",
        "note": "",
        "problem": "too fast",
    }


def test_a_figure_never_hides_a_field() -> None:
    with pytest.raises(UsageError, match="'ratio'"):
        Row("fast", 2, 0.5, 1.0, {"ratio": 9.0})


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_is_null(value: float) -> None:
    row = Row("fast", 2, value, value, {"rate": value}).to_json()
    assert (row["median_s"], row["ratio"], row["rate"]) == (None, None, None)


# -- any cassette --------------------------------------------------------------------------------------------------

VALUE = TensorSpec("value", axes=("batch", 3), dtypes=("float32", "float64"))
SIGNATURE = Signature([VALUE], [VALUE])
BITS = TensorSpec("bits", axes=("batch", 3), dtypes=("uint8", "float32", "float64"))
TIME = Time()
THREADS: list[int] = []
SEEN: list[torch.dtype] = []


class Doubling(nn.Module):
    """Takes 2 s of the fake clock, whatever the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor([2.0]))

    def forward(self, values: Tensor) -> Tensor:
        TIME.now += 2.0
        THREADS.append(torch.get_num_threads())
        SEEN.append(values.dtype)
        return values * self.factor


class Plain(Architecture):
    def build(self, config: Mapping[str, Any]) -> nn.Module:
        return Doubling()

    def signature(self, config: Mapping[str, Any]) -> Signature:
        return SIGNATURE


class Bitwise(Plain):
    def signature(self, config: Mapping[str, Any]) -> Signature:
        return Signature([BITS], [VALUE])


def slow(inputs: Inputs, context: Mapping[str, Tensor]) -> Tensor:
    """Sleeps 6 s of the fake clock."""
    TIME.now += 6.0
    SEEN.append(inputs.dtype if isinstance(inputs, Tensor) else torch.bool)
    return torch.zeros(len(inputs), 3)


def quick(inputs: Inputs, context: Mapping[str, Tensor]) -> Tensor:
    TIME.now += 0.5
    return torch.zeros(len(inputs), 3)


class Double(Task):
    known: Mapping[str, Predictor] = {"quick": quick, "slow": slow}

    def sample(self, n: int, *, generator: torch.Generator, **where: Any) -> Batch:
        values = torch.rand(n, 3, generator=generator, dtype=torch.float64)
        return Batch(values, 2 * values)

    def oracle(self, inputs: Inputs, context: Mapping[str, Tensor]) -> Tensor:
        assert isinstance(inputs, Tensor)
        TIME.now += 1.0
        return 2 * inputs.double()

    def baselines(self, calibration: Batch) -> Mapping[str, Predictor]:
        return self.known


class Bare(Double):
    known = {}


class Bits(Double):
    def sample(self, n: int, *, generator: torch.Generator, **where: Any) -> Batch:
        bits = torch.randint(0, 2, (n, 3), generator=generator, dtype=torch.uint8)
        return Batch(bits, 2 * bits)


LEVELS = Field("levels", "int", 1, low=0, high=2)


class Own(Plain):
    """Brings rows of its own, and verbs."""

    verbs = ("scaled",)
    benchmark_settings = (LEVELS, Field("size", "int", 8))

    def benchmark(self, cassette: Cassette, settings: Mapping[str, Any], *, recalibrate: bool) -> Iterable[Row] | None:
        THREADS.append(torch.get_num_threads())
        yield Row("mm", 1, 2.0, None, dict(settings))
        yield Row("strassen", 1, 1.0, 2.0, {**settings, "fresh": int(recalibrate)})

    def scaled(self, cassette: Cassette, value: float, *, by: float = 1.0) -> float:
        """The cassette's factor times a number."""
        return float(cassette.tensors["factor"]) * value * by


class Wrong(Plain):
    def benchmark(self, cassette: Cassette, settings: Mapping[str, Any], *, recalibrate: bool) -> Iterable[Row] | None:
        return [Row("a", 1, 1.0, 3.0, problem="a ratio of 3 is impossible"), Row("b", 1, 1.0, 1.0)]


class Failing(Plain):
    def benchmark(self, cassette: Cassette, settings: Mapping[str, Any], *, recalibrate: bool) -> Iterable[Row] | None:
        raise KeyboardInterrupt


class Odd(Plain):
    def benchmark(self, cassette: Cassette, settings: Mapping[str, Any], *, recalibrate: bool) -> Any:
        return [{"what": "no row"}]


ARCHITECTURES: dict[str, type[Architecture]] = {
    kind.__name__: kind for kind in (Plain, Bitwise, Own, Wrong, Failing, Odd)
}
TASKS = {"double": (Double, "slow"), "first": (Double, ""), "bare": (Bare, ""), "lost": (Double, "gone")}


@pytest.fixture
def plugins(extended: Callable[..., PluginHost]) -> PluginHost:
    built = [
        ArchitectureSpec(f"probe/{name.lower()}", version=1, target=f"grokkit_probe:{name}") for name in ARCHITECTURES
    ]
    tasks = [
        TaskSpec(name, SIGNATURE, target=f"grokkit_probe:{kind.__name__}", speed_baseline=wanted)
        for name, (kind, wanted) in TASKS.items()
    ]
    bits = TaskSpec("bits", Signature([BITS], [VALUE]), target="grokkit_probe:Bits", speed_baseline="slow")
    return extended(*built, *tasks, bits, **ARCHITECTURES, Double=Double, Bare=Bare, Bits=Bits)


@pytest.fixture
def made(plugins: PluginHost, crafted: Callable[..., Cassette]) -> Callable[..., Cassette]:
    """`made("plain", "double")`: a cassette of an architecture and a task of this file."""

    def make(architecture: str = "plain", task: str = "double") -> Cassette:
        cassette = crafted(plugins, f"probe/{architecture}")
        reference = replace(cassette.manifest.task, id=task, parameters={})
        return Cassette(cassette.manifest.replace(task=reference), cassette.tensors, plugins=plugins)

    return make


@pytest.fixture(autouse=True)
def fake_clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """All times here are those of the toys."""
    monkeypatch.setattr(benchmark, "clock_for", lambda device: TIME)
    THREADS.clear()
    SEEN.clear()
    yield
    assert torch.get_num_threads() == 1, "threads were not restored"


def test_a_baseline_that_sleeps_is_slower(made: Callable[..., Cassette]) -> None:
    found = gk.bench(made())
    own = [row for row in found.rows if row.ratio is not None]
    assert [(row.what, row.batch, row.median_s, row.ratio) for row in own] == [
        ("crafted@1", size, 2.0, 3.0) for size in (1, 32, 1024)
    ]


def test_a_baseline_that_is_quick_is_faster(made: Callable[..., Cassette]) -> None:
    assert {row.ratio for row in gk.bench(made(task="first")).rows} == {0.25, None}


def test_each_batch_has_a_row_of_the_named_baseline_without_ratio(made: Callable[..., Cassette]) -> None:
    other = [row for row in gk.bench(made()).rows if row.ratio is None]
    assert [(row.what, row.batch, row.median_s) for row in other] == [("slow", size, 6.0) for size in (1, 32, 1024)]


def test_a_row_says_how_many_samples_a_second_and_how_far_pairs_lie_apart(made: Callable[..., Cassette]) -> None:
    row = gk.bench(made()).rows[2]
    assert row.figures["per_second"] == 16.0
    assert (row.figures["ratio_low"], row.figures["ratio_high"]) == (3.0, 3.0)


@pytest.mark.parametrize(("task", "name"), [("first", "quick"), ("bare", "oracle"), ("lost", "oracle")])
def test_without_a_named_baseline_the_first_or_the_exact_rule_stands_in(
    made: Callable[..., Cassette], task: str, name: str
) -> None:
    assert gk.bench(made(task=task)).rows[1].what == name


def test_a_baseline_that_is_not_offered_is_said(made: Callable[..., Cassette]) -> None:
    assert gk.bench(made(task="lost")).rows[1].note == "baseline gone is not offered here; the exact rule, in float64"
    assert gk.bench(made(task="bare")).rows[1].note == "the exact rule, in float64"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_both_sides_compute_in_the_dtype_asked_for(made: Callable[..., Cassette], dtype: str) -> None:
    found = gk.bench(made(), dtype=dtype)
    assert found.dtype == dtype
    assert set(SEEN) == {getattr(torch, dtype)}


@pytest.mark.parametrize(
    ("asked", "seen", "said"),
    [(None, torch.uint8, "float32"), ("float64", torch.float64, "float64"), ("float32", torch.float32, "float32")],
)
def test_bits_stay_bits_unless_a_dtype_is_asked_for(
    made: Callable[..., Cassette], asked: str | None, seen: torch.dtype, said: str
) -> None:
    found = gk.bench(made("bitwise", "bits"), dtype=asked)
    assert set(SEEN) == {seen}
    assert found.dtype == said


def test_samples_that_are_too_large_are_left_out_and_that_is_said(
    made: Callable[..., Cassette], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark, "MOST_CELLS", 3 * 40)
    found = gk.bench(made())
    assert {row.batch for row in found.rows} == {1, 32}
    assert found.notes == ("batches above 32 would hold more than 120 numbers",)
    assert gk.bench(made("own")).notes == ()


def test_a_sample_that_is_too_large_alone_is_refused(
    made: Callable[..., Cassette], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark, "MOST_CELLS", 2)
    with pytest.raises(Incompatible, match="has 3 numbers; expected at most 2"):
        gk.bench(made())


def test_a_baseline_that_computes_elsewhere_is_refused(made: Callable[..., Cassette]) -> None:
    rival = benchmark._Rival("slow", slow)
    batch = made().task.sample(1, generator=torch.Generator())
    benchmark._check_place(rival, batch, torch.device("cpu"))
    with pytest.raises(Incompatible, match="slow does not compute on cuda; use --device cpu"):
        benchmark._check_place(rival, batch, torch.device("cuda"))


def test_rows_are_handed_on_as_they_come(made: Callable[..., Cassette]) -> None:
    heard: list[Row] = []
    found = gk.bench(made(), on_row=heard.append)
    assert tuple(heard) == found.rows


def test_the_result_is_json(made: Callable[..., Cassette]) -> None:
    found = gk.bench(made()).to_json()
    assert json.loads(json.dumps(found)) == found
    assert (found["device"], found["dtype"], found["threads"], found["seed"]) == ("cpu", "float32", 1, 0)
    assert all(set(row) >= {"what", "batch", "median_s", "ratio"} for row in found["rows"])


def test_shipped_tasks_name_a_baseline_that_they_have() -> None:
    for name, expected in (("parity-3of64", "elimination"), ("cyclotron-1node", "euler")):
        task = gk.load(name).task
        calibration = task.sample(600, generator=torch.Generator(), **task.evaluation[0])
        assert task.spec.speed_baseline == expected
        assert expected in task.baselines(calibration.to(torch.float32))


# -- threads -------------------------------------------------------------------------------------------------------


@pytest.fixture
def four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices.os, "cpu_count", lambda: 4)


@pytest.mark.usefixtures("four_cores")
def test_the_threads_asked_for_are_used_said_and_given_back(made: Callable[..., Cassette]) -> None:
    found = gk.bench(made(), threads=2)
    assert (set(THREADS), found.threads, torch.get_num_threads()) == ({2}, 2, 1)


@pytest.mark.usefixtures("four_cores")
@pytest.mark.parametrize(("architecture", "threads"), [("plain", 1), ("own", 3)])
def test_small_networks_have_one_thread_and_own_benchmarks_those_of_torch(
    made: Callable[..., Cassette], architecture: str, threads: int
) -> None:
    torch.set_num_threads(3)
    try:
        assert gk.bench(made(architecture)).threads == threads
        assert set(THREADS) == {threads}
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(1)


@pytest.mark.usefixtures("four_cores")
def test_threads_are_given_back_after_an_interruption(made: Callable[..., Cassette]) -> None:
    with pytest.raises(KeyboardInterrupt):
        gk.bench(made("failing"), threads=2)
    assert torch.get_num_threads() == 1


@pytest.mark.usefixtures("four_cores")
@pytest.mark.parametrize("threads", [0, -1, 5])
def test_threads_that_the_machine_does_not_have_are_refused(made: Callable[..., Cassette], threads: int) -> None:
    with pytest.raises(UsageError, match="expected 1 to 4"):
        gk.bench(made(), threads=threads)


# -- a benchmark of its own ----------------------------------------------------------------------------------------


def test_an_architecture_may_bring_its_own_rows(made: Callable[..., Cassette]) -> None:
    found = gk.bench(made("own"), settings={"levels": 2})
    assert [row.what for row in found.rows] == ["mm", "strassen"]
    assert found.to_json()["rows"][1] == {
        "what": "strassen",
        "batch": 1,
        "median_s": 1.0,
        "ratio": 2.0,
        "levels": 2,
        "size": 8,
        "fresh": 0,
        "note": "",
        "problem": "",
    }


def test_it_hears_that_it_shall_recalibrate(made: Callable[..., Cassette]) -> None:
    assert gk.bench(made("own"), recalibrate=True).rows[1].figures["fresh"] == 1


def test_its_rows_are_handed_on_as_they_come(made: Callable[..., Cassette]) -> None:
    def stop(row: Row) -> None:
        raise KeyboardInterrupt(row.what)

    with pytest.raises(KeyboardInterrupt, match="mm"):
        gk.bench(made("own"), on_row=stop)


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"levels": 3}, "levels=3 .* expected an integer from 0 to 2"), ({"level": 1}, "did you mean 'levels'")],
)
def test_its_settings_are_checked(made: Callable[..., Cassette], settings: Mapping[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        gk.bench(made("own"), settings=settings)


def test_a_row_that_cannot_be_right_is_a_problem_of_the_benchmark(made: Callable[..., Cassette]) -> None:
    assert gk.bench(made("wrong")).problems == ("a ratio of 3 is impossible",)
    assert gk.bench(made("own")).problems == ()


def test_what_is_no_row_is_a_fault_of_the_plugin(made: Callable[..., Cassette]) -> None:
    with pytest.raises(PluginError, match="gave a dict"):
        gk.bench(made("odd"))


def test_where_nothing_is_calibrated_there_is_nothing_to_recalibrate(made: Callable[..., Cassette]) -> None:
    with pytest.raises(UsageError, match="probe/plain has no benchmark of its own"):
        gk.bench(made(), recalibrate=True)


def test_the_general_benchmark_has_no_settings(made: Callable[..., Cassette]) -> None:
    with pytest.raises(UsageError, match="benchmark of probe/plain has no setting 'levels'"):
        gk.bench(made(), settings={"levels": 1})


# -- calls that are wrong ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"device": "tpu"}, UsageError),
        ({"dtype": "float16"}, Incompatible),
        ({"threads": 0}, UsageError),
        ({"settings": {"x": 1}}, UsageError),
    ],
)
def test_a_wrong_argument_is_refused_before_anything_runs(
    made: Callable[..., Cassette], options: dict[str, Any], kind: type[Exception]
) -> None:
    cassette = made()
    with pytest.raises(kind):
        gk.bench(cassette, **options)
    assert SEEN == []


def test_an_unknown_name_is_not_found(tiny: Path) -> None:
    with pytest.raises(NotFound, match="did you mean 'eight'"):
        gk.bench("eigt", library=tiny)


def test_a_speed_baseline_is_a_text() -> None:
    with pytest.raises(UsageError, match="speed_baseline of task double; expected a string"):
        TaskSpec("double", SIGNATURE, target="a:B", speed_baseline=1)  # type: ignore[arg-type]


# -- verbs ---------------------------------------------------------------------------------------------------------


def test_a_verb_of_the_architecture_takes_the_cassette_first(made: Callable[..., Cassette]) -> None:
    assert made("own").scaled(3.0, by=10.0) == 60.0


def test_a_verb_is_looked_for_once(made: Callable[..., Cassette], monkeypatch: pytest.MonkeyPatch) -> None:
    cassette = made("own")
    first = cassette.scaled
    monkeypatch.setattr(Own, "verbs", ())
    assert cassette.scaled is first
    assert not hasattr(made("own"), "scaled")


def test_a_cassette_moved_elsewhere_looks_again(made: Callable[..., Cassette]) -> None:
    cassette = made("own")
    moved = (cassette.scaled, cassette.to("cpu", "float64"))[1]
    assert moved.scaled.args == (moved,)  # type: ignore[attr-defined]


def test_another_name_is_an_attribute_error_that_lists_the_verbs(made: Callable[..., Cassette]) -> None:
    with pytest.raises(AttributeError, match=r"crafted@1 has no attribute 'scald'; .* whose verbs are scaled"):
        made("own").scald  # noqa: B018
    with pytest.raises(AttributeError, match="probe/plain, which has no verbs of its own"):
        made().scaled  # noqa: B018


def test_probing_a_cassette_whose_plugin_is_missing_is_an_attribute_error(one: Cassette) -> None:
    orphan = Cassette(one.manifest, one.tensors, plugins=PluginHost(enabled=False))
    assert not hasattr(orphan, "scaled")
    assert getattr(orphan, "shape", None) is None
    with pytest.raises(AttributeError, match="cannot be built"):
        orphan.scaled  # noqa: B018
    with pytest.raises(PluginError):
        orphan.architecture  # noqa: B018


@pytest.mark.parametrize("name", ["_repr_svg_", "__array__", "__deepcopy__", "_scaled"])
def test_private_names_are_never_verbs(
    made: Callable[..., Cassette], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(Own, "verbs", (name,))
    monkeypatch.setattr(Own, name, Own.scaled, raising=False)
    assert not hasattr(made("own"), name)


def test_a_cassette_without_anything_in_it_can_be_probed() -> None:
    empty = Cassette.__new__(Cassette)
    assert not hasattr(empty, "manifest")
    assert not hasattr(empty, "scaled")


def test_a_copy_has_the_verbs_too(made: Callable[..., Cassette]) -> None:
    assert copy.copy(made("own")).scaled(2.0) == 4.0


def test_an_attribute_error_inside_a_property_is_seen(one: Cassette, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Cassette) -> None:
        raise AttributeError("the plugin has a fault")

    monkeypatch.setattr(Cassette, "task", property(fail))
    with pytest.raises(AttributeError, match="the plugin has a fault"):
        one.task  # noqa: B018
    monkeypatch.setattr(Cassette, "architecture", property(fail))
    with pytest.raises(AttributeError, match="the plugin has a fault"):
        one.scaled  # noqa: B018
