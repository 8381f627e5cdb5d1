"""What pictures show: figures of the manifest at their places, computed ones equal to what the library computes."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import grokkit_core as gk
from grokkit_core.fusion.ensemble import Ensemble
from grokkit_core.manifest import Baseline, Curve, Manifest, Metric
from grokkit_core.pictures.chart import Axis, Chart, Series, figure, spread
from grokkit_core.pictures.curve import curve_charts
from grokkit_core.pictures.errors import error_charts
from grokkit_core.pictures.panels import Subject, may_roll_out, panels_of, subject_of
from grokkit_core.pictures.rollout import roll_out, rollout_charts
from grokkit_core.streams import stream
from grokkit_core.workspace import Workspace


def with_figures(manifest: Manifest, **changes: Any) -> Manifest:
    return manifest.replace(certificate=dataclasses.replace(manifest.certificate, **changes))


def with_curve(manifest: Manifest, columns: tuple[str, ...], rows: list[tuple[float, ...]], **more: Any) -> Manifest:
    curve = Curve(columns, tuple(rows))
    return manifest.replace(provenance=dataclasses.replace(manifest.provenance, curve=curve, **more))


def of_kind(subject: Subject, place: Workspace, kind: str) -> list[Chart]:
    return [chart for chart in panels_of(subject, place).charts if chart.kind == kind]


# -- curve -------------------------------------------------------------------------------------------------------------


def test_a_curve_shows_every_row_and_the_step_at_which_it_grokked(place: Workspace) -> None:
    manifest = gk.show("parity-3of64-grokked")
    loss, accuracy = curve_charts(manifest, metric="accuracy", accuracy=True)
    rows = manifest.provenance.curve.rows
    assert loss.series[0].points == tuple((row[0], row[1]) for row in rows)
    assert [series.label for series in accuracy.series] == ["validation", "train metric"]
    assert [mark.x for mark in accuracy.marks] == [manifest.provenance.grok_step]
    assert loss.scales[1].log and not accuracy.scales[1].log


def test_a_network_that_did_not_grok_has_no_mark() -> None:
    (chart,) = curve_charts(gk.show("cyclotron"))
    assert chart.marks == ()


def test_curves_of_different_quantities_have_panels_of_their_own() -> None:
    manifest = with_curve(gk.show("cyclotron"), ("step", "train", "validation"), [(1, 12.0, 1e-31), (2, 11.0, 2e-31)])
    assert [[s.label for s in chart.series] for chart in curve_charts(manifest)] == [["train"], ["validation"]]


@pytest.mark.parametrize("rows", [[], [(1, 0.5, 0.5)]])
def test_fewer_than_two_rows_are_no_curve(rows: list[tuple[float, ...]]) -> None:
    assert curve_charts(with_curve(gk.show("cyclotron"), ("step", "train", "validation"), rows)) == []


# -- errors ------------------------------------------------------------------------------------------------------------


def test_errors_stand_at_their_context_with_interval_and_baselines() -> None:
    manifest = gk.show("cyclotron-fused")
    (chart,) = error_charts(manifest)
    own, *others = chart.series
    certificate = manifest.certificate
    assert own.points == tuple((metric.where["omega"], metric.value) for metric in certificate.metrics)
    assert own.spread == tuple(metric.interval for metric in certificate.metrics)
    assert {series.label for series in others} == {"persistence", "euler", "linear", "mean"}
    for series in others:
        expected = [(b.where["omega"], b.value) for b in certificate.baselines if b.name == series.label]
        assert list(series.points) == sorted(expected)
    assert chart.x.label == "omega [rad/s]"
    assert chart.scales[1].log


def test_contexts_with_further_settings_are_lines_of_their_own() -> None:
    (chart,) = error_charts(gk.show("cyclotron"))
    fixed, random = (series for series in chart.series if series.marks)
    assert random.label == "phase random"
    assert len(fixed.points) == 6 and len(random.points) == 5
    assert max(x for x, _ in fixed.points) == 4.0


def test_without_a_context_the_cassette_stands_among_its_baselines_best_first() -> None:
    (chart,) = error_charts(gk.show("pendulum-mlp"))
    assert chart.rows == ("rk4", "this cassette", "euler", "linear", "persistence")
    values = [value for _, value in sorted((row, value) for series in chart.series for value, row in series.points)]
    assert values == sorted(values)


def test_an_accuracy_is_best_where_it_is_highest() -> None:
    metric = Metric("accuracy", 0.9, "1", 0.01, (0.88, 0.92), 0.95, 100, {})
    beside = (Baseline("guess", "accuracy", 0.5, {}), Baseline("solver", "accuracy", 1.0, {}))
    (chart,) = error_charts(with_figures(gk.show("parity-3of64"), metrics=(metric,), baselines=beside))
    assert chart.rows == ("solver", "this cassette", "guess")


def test_a_zero_is_named_where_a_logarithmic_axis_cannot_show_it() -> None:
    (chart,) = error_charts(gk.show("matmul-2x2"))
    assert "not on this axis: plain-product" in chart.caption
    zero = next(series for series in chart.series if series.label == "plain-product")
    assert chart.drawn(zero) == []


def test_more_baselines_than_fit_are_left_out() -> None:
    metric = Metric("mse", 0.1, "1", 0.0, (0.1, 0.1), 0.95, 10, {})
    beside = tuple(Baseline(f"b{index}", "mse", float(index + 1), {}) for index in range(40))
    (chart,) = error_charts(with_figures(gk.show("cyclotron"), metrics=(metric,), baselines=beside))
    assert len(chart.rows) == 9


# -- gate --------------------------------------------------------------------------------------------------------------


def test_gate_weights_are_those_of_the_gate_and_sum_to_one(place: Workspace) -> None:
    (chart,) = of_kind(subject_of("cyclotron-fused", place), place, "gate")
    first, second = chart.series
    assert [series.label for series in chart.series] == ["cyclotron-1node", "cyclotron-8node"]
    assert all(abs(a + b - 1) < 1e-6 for (_, a), (_, b) in zip(first.points, second.points, strict=True))
    cassette = gk.load("cyclotron-fused")
    module = cassette.module
    assert isinstance(module, Ensemble)
    batch = cassette.task.sample(4, generator=torch.Generator().manual_seed(0), omega=1.35)
    assert isinstance(batch.inputs, torch.Tensor)
    _, weights = module.parts(batch.inputs.float(), context={"omega": torch.full((4,), 1.35)})
    drawn = dict(first.points)[1.35]
    assert drawn == pytest.approx(weights[0].mean().item(), abs=1e-5)


def test_the_contexts_of_the_fit_are_marked(place: Workspace) -> None:
    (chart,) = of_kind(subject_of("cyclotron-fused", place), place, "gate")
    assert chart.ticks == (0.85, 1.0, 1.35, 1.8, 2.5)


def test_a_gate_without_a_context_has_a_row_a_member(library: Any) -> None:
    made = gk.compose("cyclotron-1node", "cyclotron-8node", gate="uniform", library=library)
    place = gk.Workspace.open([library])
    (chart,) = of_kind(subject_of(made.cassette.manifest.name, place), place, "gate")
    assert chart.rows == ("cyclotron-1node", "cyclotron-8node")
    assert [value for value, _ in chart.series[0].points] == [0.5, 0.5]


# -- rollout -----------------------------------------------------------------------------------------------------------


def test_a_rollout_follows_the_exact_rule_and_its_error_is_the_tasks() -> None:
    cassette = gk.load("kepler")
    course = roll_out(cassette, seed=3, steps=5)
    task = cassette.task
    state = course.exact[1]
    assert torch.equal(course.exact[2], task.oracle(state, {}))
    assert torch.equal(course.errors[4], task.error(course.outputs[4], course.exact[4]).double())
    assert course.errors.max() < 1e-9


def test_drift_is_what_run_reports() -> None:
    cassette = gk.load("cyclotron-1node")
    course = roll_out(cassette, seed=1, steps=6)
    samples = cassette.task.sample(16, generator=stream(1, "picture", "rollout"), omega=1.5).inputs
    assert isinstance(samples, torch.Tensor)
    told = gk.run(cassette, samples.to(cassette.dtype), steps=6).drift
    assert course.drift[-1] == pytest.approx(dict(told or {}), rel=1e-4)
    assert all(later["speed"] >= earlier["speed"] for earlier, later in pairwise(course.drift))


def test_a_generic_network_drifts_and_an_exact_one_does_not() -> None:
    exact, generic = (
        next(chart for chart in rollout_charts(gk.load(name), seed=0, steps=30) if chart.kind == "drift")
        for name in ("pendulum", "pendulum-mlp")
    )
    assert max(y for _, y in exact.series[0].points) * 100 < max(y for _, y in generic.series[0].points)


def test_a_rollout_that_leaves_the_numbers_says_from_which_step_on() -> None:
    cassette = gk.load("cyclotron-1node")
    wild = type(cassette)(cassette.manifest, {name: 1e30 * tensor for name, tensor in cassette.tensors.items()})
    error = next(chart for chart in rollout_charts(wild, seed=0, steps=20) if chart.kind == "rollout-error")
    assert "not finite from step 1 on" in error.caption
    assert "refuses its own output of step 1" in error.caption
    assert error.scales[1].ticks()


def test_a_cassette_that_was_never_saved_has_pictures_too(place: Workspace) -> None:
    cassette = gk.load("cyclotron-1node")
    charts = panels_of(subject_of(cassette, place), place).charts
    assert charts == panels_of(subject_of("cyclotron-1node", place), place).charts


def test_a_field_is_shown_as_a_profile(place: Workspace) -> None:
    (chart,) = of_kind(subject_of("wave", place), place, "rollout")
    assert chart.x.label == "grid point"
    assert "after 100 steps" in chart.title


@pytest.mark.parametrize(
    ("name", "flows"),
    [("matmul-2x2", False), ("parity-3of64", False), ("wave", True), ("kepler", True), ("hpu-free", True)],
)
def test_what_cannot_be_a_flow_map_is_known_from_the_manifest(name: str, flows: bool) -> None:
    assert may_roll_out(gk.show(name)) is flows


def test_the_seed_stands_in_the_caption_and_changes_the_samples(place: Workspace) -> None:
    entry = subject_of("kepler", place)
    pictures = [next(c for c in panels_of(entry, place, seed=seed).charts if c.kind == "rollout") for seed in (0, 7)]
    assert "seed 0" in pictures[0].caption and "seed 7" in pictures[1].caption
    assert pictures[0].series[0].points != pictures[1].series[0].points


# -- all ---------------------------------------------------------------------------------------------------------------


def test_every_shipped_cassette_has_pictures_that_keep_inside_their_axes(shipped: Subject, place: Workspace) -> None:
    found = panels_of(shipped, place)
    assert found.charts and found.notes == ()
    for chart in found.charts:
        assert chart.title and chart.caption and chart.x.label
        for series in chart.series:
            assert all(0 <= x <= 1 and 0 <= y <= 1 for x, y in chart.drawn(series))


def test_a_fault_of_a_task_leaves_a_note_and_the_other_pictures(
    place: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: Any, **named: Any) -> None:
        raise RuntimeError("no samples today")

    monkeypatch.setattr("grokkit_kepler.law.Kepler.sample", broken)
    found = panels_of(subject_of("kepler", place), place)
    assert {chart.kind for chart in found.charts} == {"curve", "comparison"}
    assert found.notes == ("no picture of the rollout of kepler@1: RuntimeError: no samples today",)


def test_pictures_of_a_manifest_need_neither_torch_nor_numpy() -> None:
    code = (
        "import sys; from grokkit_core.workspace import workspace; from grokkit_core.pictures.panels import panels_of, subject_of\n"
        "place = workspace(None); assert panels_of(subject_of('parity-3of64-grokked', place), place).charts\n"
        "print({'torch', 'numpy', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@given(st.lists(st.floats(0, 1), max_size=9), st.floats(0.01, 0.1))
def test_labels_keep_their_order_and_their_distance(heights: list[float], gap: float) -> None:
    placed = spread(heights, gap)
    ordered = sorted(range(len(heights)), key=lambda index: heights[index])
    assert all(placed[b] - placed[a] >= gap - 1e-9 for a, b in pairwise(ordered))


def test_labels_that_are_apart_stay_where_they_are() -> None:
    assert spread([0.9, 0.1, 0.5], 0.1) == [0.9, 0.1, 0.5]


def test_a_chart_is_told_in_words() -> None:
    line = Series("model", ((1.0, 0.5), (9.0, 1e-6)))
    chart = Chart("curve", "a title", Axis("step"), Axis("loss", None), (line,), "")
    assert chart.text == "a title. loss against step: model from 0.5 to 1e-6."


def test_figures_are_short() -> None:
    assert [figure(value) for value in (0.0, 1.5e-6, 123456.0, 0.0525)] == ["0", "1.5e-6", "1.23e5", "0.0525"]
