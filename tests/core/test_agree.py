"""When a recomputed certificate supports the recorded one, and how a disagreement is put into words."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from grokkit_core.certify.agree import disagreements
from grokkit_core.certify.scores import figure
from grokkit_core.manifest import VERDICTS, Baseline, Bound, Certificate, Metric, Verdict

LAW = settings(max_examples=100, deadline=None, derandomize=True)
N = 20_000


def metric(value: float = 0.5, stderr: float = 0.01, **changes: Any) -> Metric:
    fields: dict[str, Any] = {"name": "mse", "unit": "1", "confidence": 0.95, "n": N, "where": {"omega": 0.9}}
    interval = (value - 1.96 * stderr, value + 1.96 * stderr)
    return Metric(value=value, stderr=stderr, interval=interval, **(fields | changes))


def baseline(value: float = 1.0, name: str = "persistence", **where: Any) -> Baseline:
    return Baseline(name, "mse", value, where or {"omega": 0.9})


def estimated(*metrics: Metric, baselines: tuple[Baseline, ...] | None = None, **changes: Any) -> Certificate:
    fields: dict[str, Any] = {
        "verdict": "estimated",
        "statement": "mean mse 0.5",
        "domain": "samples",
        "method": "sampled",
        "formula": (),
        "bounds": (),
        "seed": 0,
        "dtype": "float32",
        "level": "full",
    }
    kept = (baseline(),) if baselines is None else baselines
    return Certificate(metrics=metrics or (metric(),), baselines=kept, **(fields | changes))


def bounded(value: float = 0.1, verdict: Verdict = "bounded", name: str = "error") -> Certificate:
    return estimated(verdict=verdict, method="interval", bounds=(Bound(name, value, "1"),))


# -- agreement -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("found", [estimated(), bounded(), bounded(verdict="exact")])
def test_equal_certificates_agree(found: Certificate) -> None:
    assert disagreements(found, found) == ()


def test_order_of_figures_does_not_matter() -> None:
    rows = (metric(), metric(0.7, where={"omega": 1.2}))
    assert disagreements(estimated(*rows), estimated(*rows[::-1])) == ()


def test_another_seed_level_or_statement_is_no_disagreement() -> None:
    assert disagreements(estimated(), estimated(seed=7, level="quick", statement="mean mse 0.51")) == ()


# -- verdicts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recorded", VERDICTS)
@pytest.mark.parametrize("recomputed", VERDICTS)
def test_a_verdict_may_not_be_weaker_than_the_recorded_one(recorded: Verdict, recomputed: Verdict) -> None:
    found = disagreements(estimated(verdict=recorded), estimated(verdict=recomputed))
    weaker = VERDICTS.index(recomputed) > VERDICTS.index(recorded)
    assert (f"verdict {recomputed} is weaker than the recorded {recorded}" in found) == weaker


def test_a_failed_certificate_agrees_with_nothing() -> None:
    failed = estimated(verdict="failed", statement="not finite")
    assert disagreements(failed, failed) == ("the recomputed certificate failed: not finite",)


# -- metrics -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sign", [-1, 1])
def test_a_metric_moved_by_six_standard_errors_disagrees(sign: int) -> None:
    moved = metric(0.5 + sign * 6 * math.hypot(0.01, 0.01))
    (reason,) = disagreements(estimated(moved), estimated())
    assert reason == f"mse at omega=0.9 is 0.5 against the recorded {moved.value:.4g}"


stderrs = st.floats(1e-6, 0.05)
ratios = st.floats(0.5, 2.0)


@LAW
@given(st.floats(-3.9, 3.9), stderrs, ratios)
def test_a_metric_moved_by_less_than_four_standard_errors_agrees(z: float, old: float, ratio: float) -> None:
    moved = metric(0.5 + z * math.hypot(old, ratio * old), ratio * old)
    assert disagreements(estimated(metric(0.5, old)), estimated(moved)) == ()


@LAW
@given(st.floats(4.1, 100.0), stderrs, ratios)
def test_a_metric_moved_by_more_than_four_standard_errors_disagrees(z: float, old: float, ratio: float) -> None:
    moved = metric(0.5 + z * math.hypot(old, ratio * old), ratio * old)
    assert len(disagreements(estimated(metric(0.5, old)), estimated(moved))) == 1


@pytest.mark.parametrize(("n", "stderr"), [(N, 0.01), (N // 10, 0.01 * math.sqrt(10)), (10 * N, 0.01 / math.sqrt(10))])
def test_a_standard_error_that_goes_with_its_sample_size_agrees(n: int, stderr: float) -> None:
    assert disagreements(estimated(metric(0.5, stderr, n=n)), estimated()) == ()


@pytest.mark.parametrize("value", [0.5, 1e-9])
def test_a_standard_error_that_would_excuse_anything_disagrees(value: float) -> None:
    (reason,) = disagreements(estimated(metric(value, 1.0)), estimated())
    assert "standard error" in reason


def test_an_interval_narrower_than_its_standard_error_disagrees() -> None:
    narrow = replace(metric(), interval=(0.4999, 0.5001))
    (reason,) = disagreements(estimated(narrow), estimated())
    assert "interval" in reason


def test_an_interval_that_does_not_hold_its_figure_disagrees() -> None:
    elsewhere = replace(metric(), interval=(0.1, 0.2))
    (reason,) = disagreements(estimated(elsewhere), estimated())
    assert "interval" in reason


def test_a_figure_in_another_unit_disagrees() -> None:
    (reason,) = disagreements(estimated(metric(unit="km")), estimated())
    assert "km" in reason


def share(right: int, n: int) -> Certificate:
    """A certificate of an accuracy with `right` of `n` samples right."""
    found = figure(torch.cat((torch.ones(right), torch.zeros(n - right))))
    return estimated(Metric("accuracy", found.value, "1", found.stderr, found.interval, 0.95, n, {}), baselines=())


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ((2_000, 2_000), (20_000, 20_000)),
        ((1_999, 2_000), (20_000, 20_000)),
        ((1_999, 2_000), (19_990, 20_000)),
        ((2_000, 2_000), (19_995, 20_000)),
        ((0, 2_000), (1, 20_000)),
        ((1_000, 2_000), (10_100, 20_000)),
    ],
)
def test_shares_of_other_samples_agree(first: tuple[int, int], second: tuple[int, int]) -> None:
    assert disagreements(share(*first), share(*second)) == ()
    assert disagreements(share(*second), share(*first)) == ()


@pytest.mark.parametrize(("first", "second"), [((2_000, 2_000), (19_800, 20_000)), ((1_000, 2_000), (12_000, 20_000))])
def test_shares_of_other_networks_do_not(first: tuple[int, int], second: tuple[int, int]) -> None:
    assert disagreements(share(*first), share(*second))
    assert disagreements(share(*second), share(*first))


def test_a_recorded_metric_that_was_not_recomputed_disagrees() -> None:
    more = estimated(metric(), metric(name="worst"))
    assert disagreements(more, estimated()) == ("the recorded worst at omega=0.9 was not confirmed",)


def test_a_metric_that_is_not_recorded_disagrees() -> None:
    more = estimated(metric(), metric(where={"omega": 1.2}))
    assert disagreements(estimated(), more) == ("mse at omega=1.2 is not recorded",)


def test_a_metric_of_another_context_is_another_metric() -> None:
    assert len(disagreements(estimated(metric(where={"omega": 2.2})), estimated())) == 2


@pytest.mark.parametrize("side", ["recorded", "recomputed"])
def test_a_figure_that_is_no_number_agrees_with_nothing(side: str) -> None:
    broken, sound = estimated(metric(math.nan)), estimated()
    assert disagreements(broken, sound) if side == "recorded" else disagreements(sound, broken)


@pytest.mark.parametrize(("floor", "agrees"), [(0.0, False), (1e-16, False), (1e-14, True)])
def test_figures_that_both_lie_below_the_floor_agree(floor: float, agrees: bool) -> None:
    recorded, recomputed = estimated(metric(1e-15, 1e-18)), estimated(metric(7e-15, 1e-18))
    assert (disagreements(recorded, recomputed, floor=floor) == ()) is agrees


def test_one_figure_below_the_floor_is_not_enough() -> None:
    recorded, recomputed = estimated(metric(1e-15, 1e-18)), estimated(metric(2e-14, 1e-18))
    assert len(disagreements(recorded, recomputed, floor=1e-14)) == 1


# -- bounds --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verdict", ["exact", "bounded"])
@pytest.mark.parametrize(("value", "agrees"), [(0.05, True), (0.1, True), (0.100001, False), (math.nan, False)])
def test_a_recomputed_bound_may_not_lie_above_the_recorded_one(verdict: Verdict, value: float, agrees: bool) -> None:
    assert (disagreements(bounded(0.1, verdict), bounded(value, verdict)) == ()) is agrees


def test_a_bound_that_was_recorded_too_low_is_named() -> None:
    assert disagreements(bounded(0.01), bounded(0.1)) == ("bound error is 0.1, above the recorded one",)


def test_a_bound_of_another_name_disagrees_twice() -> None:
    assert disagreements(bounded(name="worst"), bounded()) == (
        "bound error is not recorded",
        "the recorded bound worst was not confirmed",
    )


def test_a_bound_is_not_confirmed_by_an_estimate() -> None:
    found = disagreements(bounded(), estimated())
    assert found == (
        "verdict estimated is weaker than the recorded bounded",
        "the recorded bound error was not confirmed",
    )


def test_a_stronger_certificate_confirms_an_estimate() -> None:
    assert disagreements(estimated(), bounded()) == ()


# -- baselines -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [0.7, 1.3])
def test_a_baseline_changed_by_thirty_percent_disagrees(factor: float) -> None:
    (reason,) = disagreements(estimated(baselines=(baseline(factor),)), estimated())
    assert reason == f"baseline persistence at omega=0.9 is 1 against the recorded {factor:.4g}"


@pytest.mark.parametrize("factor", [0.97, 1.03])
def test_a_baseline_may_differ_as_much_as_other_samples_do(factor: float) -> None:
    assert disagreements(estimated(baselines=(baseline(factor),)), estimated()) == ()


def test_a_baseline_measured_on_few_samples_may_differ_more() -> None:
    few, many = estimated(metric(n=200)), estimated(metric(n=N))
    inflated = (baseline(1.3),)
    assert disagreements(replace(few, baselines=inflated), few) == ()
    assert len(disagreements(replace(many, baselines=inflated), many)) == 1


def test_a_baseline_that_was_left_out_of_the_record_is_named() -> None:
    assert disagreements(estimated(baselines=()), estimated()) == ("baseline persistence at omega=0.9 is not recorded",)


def test_a_baseline_that_was_made_up_is_named() -> None:
    more = estimated(baselines=(baseline(), baseline(9.0, "straw man")))
    assert disagreements(more, estimated()) == ("the recorded baseline straw man at omega=0.9 was not confirmed",)


def test_the_floor_holds_for_baselines_too() -> None:
    recorded, recomputed = estimated(baselines=(baseline(1e-15),)), estimated(baselines=(baseline(9e-15),))
    assert disagreements(recorded, recomputed, floor=1e-14) == ()
    assert len(disagreements(recorded, recomputed)) == 1


def test_every_disagreement_is_named() -> None:
    recorded = estimated(metric(0.9), metric(name="worst"), verdict="exact", baselines=(baseline(2.0),))
    assert len(disagreements(recorded, estimated())) == 4
