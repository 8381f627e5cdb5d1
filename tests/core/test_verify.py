"""Recomputing certificates: honest records agree at every seed and level, altered ones and altered weights do not."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import grokkit_core as gk
from grokkit_core.architecture import Architecture
from grokkit_core.cassette import Cassette
from grokkit_core.certify.sampled import SAMPLES
from grokkit_core.errors import Incompatible, UsageError
from grokkit_core.manifest import Certificate, Level, Metric
from grokkit_core.plugins import PluginHost
from grokkit_core.specs import ArchitectureSpec
from grokkit_core.tensors import Signature
from grokkit_core.workspace import Workspace


class Copy(nn.Module):
    """The last state times a number: persistence where that is one."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor([1.0]))

    def forward(self, states: Tensor) -> Tensor:
        result: Tensor = states[:, -1] * self.factor
        return result


class Exact(Copy):
    """The law itself, with a part that rounds."""

    def forward(self, states: Tensor) -> Tensor:
        from grokkit_cyclotron.law import window_map

        return window_map(states * self.factor)


class Rule(Architecture):
    network: type[nn.Module] = Copy

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        return self.network()

    def signature(self, config: Mapping[str, Any]) -> Signature:
        return self.plugins.task("cyclotron").spec.signature


class ExactRule(Rule):
    network = Exact


@pytest.fixture
def plugins(extended: Callable[..., PluginHost]) -> PluginHost:
    specs = [
        ArchitectureSpec("probe/copy", version=1, target="grokkit_probe:Rule"),
        ArchitectureSpec("probe/exact", version=1, target="grokkit_probe:ExactRule"),
    ]
    return extended(*specs, Rule=Rule, ExactRule=ExactRule)


def altered(cassette: Cassette, **changes: Any) -> Cassette:
    """The cassette with another record of how good it is."""
    return cassette.with_certificate(replace(cassette.manifest.certificate, **changes))


# -- honest records ------------------------------------------------------------------------------------------------


def test_a_certificate_is_recomputed_to_the_digit(tiny: Path) -> None:
    found = gk.verify("one", library=tiny)
    assert found.agrees
    assert found.certificate == found.manifest.certificate


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("level", ["quick", "full"])
@pytest.mark.parametrize("name", ["one", "eight"])
def test_another_seed_agrees_at_every_level(tiny: Path, name: str, level: Level, seed: int) -> None:
    assert gk.verify(name, level=level, seed=seed, library=tiny).reasons == ()


def test_an_honest_record_hardly_ever_fails(one: Cassette) -> None:
    assert [seed for seed in range(100, 120) if not gk.verify(one, level="quick", seed=seed).agrees] == []


def test_another_seed_gives_other_figures(one: Cassette) -> None:
    first, second = (gk.verify(one, level="quick", seed=seed).certificate for seed in (1, 2))
    assert first.metrics != second.metrics


@pytest.mark.parametrize("level", ["quick", "full"])
def test_a_level_says_how_many_samples_it_took(one: Cassette, level: Level) -> None:
    found = gk.verify(one, level=level).certificate
    assert {m.n for m in found.metrics} == {SAMPLES[level]}
    assert found.level == level


def test_quick_takes_a_tenth_of_the_samples() -> None:
    assert SAMPLES["quick"] * 10 == SAMPLES["full"]


def test_float64_agrees_with_a_record_in_float32(one: Cassette) -> None:
    found = gk.verify(one, level="quick", dtype="float64")
    assert found.agrees
    assert found.certificate.dtype == "float64"


def test_a_reference_and_a_cassette_give_the_same(tiny: Path, one: Cassette) -> None:
    assert gk.verify("one", level="quick", library=tiny) == gk.verify(one, level="quick", library=tiny)


def test_verifying_does_not_change_the_cassette(one: Cassette) -> None:
    before = one.manifest.digest
    gk.verify(one, level="quick")
    assert one.manifest.digest == before


def test_the_row_says_what_was_found(one: Cassette) -> None:
    found = gk.verify(one, level="quick", seed=4)
    row = found.to_json()
    assert (row["name"], row["version"], row["agrees"], row["reasons"]) == ("one", 1, True, [])
    assert (row["seed"], row["level"], row["verdict"], row["dtype"]) == (4, "quick", "estimated", "float32")
    assert [m["value"] for m in row["metrics"]] == [m.value for m in found.certificate.metrics]


# -- altered records -----------------------------------------------------------------------------------------------


def moved(metric: Metric, value: float) -> Metric:
    """The metric with another value, its interval moved along."""
    low, high = (bound + value - metric.value for bound in metric.interval)
    return replace(metric, value=value, interval=(low, high))


def six_sigma_better(found: Certificate) -> dict[str, Any]:
    first, *others = found.metrics
    return {"metrics": (moved(first, first.value - 6 * 2**0.5 * first.stderr), *others)}


def excused(found: Certificate) -> dict[str, Any]:
    return {"metrics": tuple(replace(m, value=1e-9, stderr=1.0, interval=(0.0, 1e-8)) for m in found.metrics)}


def inflated_baselines(found: Certificate) -> dict[str, Any]:
    return {"baselines": tuple(replace(b, value=1.3 * b.value) for b in found.baselines)}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (six_sigma_better, "mse at omega=0.9 is"),
        (excused, "standard error of mse at omega=0.9"),
        (inflated_baselines, "baseline persistence at omega=0.9 is"),
        (lambda found: {"verdict": "exact"}, "verdict estimated is weaker than the recorded exact"),
        (lambda found: {"metrics": found.metrics[1:]}, "mse at omega=0.9 is not recorded"),
        (
            lambda found: {"metrics": (*found.metrics, replace(found.metrics[0], name="best"))},
            "best at omega=0.9 was not",
        ),
        (lambda found: {"baselines": found.baselines[1:]}, "baseline persistence at omega=0.9 is not recorded"),
    ],
)
def test_a_record_that_flatters_does_not_agree(
    one: Cassette, change: Callable[[Certificate], dict[str, Any]], words: str
) -> None:
    found = gk.verify(altered(one, **change(one.manifest.certificate)))
    assert not found.agrees
    assert any(words in reason for reason in found.reasons)


@pytest.mark.parametrize("sign", [-1, 1])
def test_six_standard_errors_of_few_samples_are_too_many_as_well(one: Cassette, sign: int) -> None:
    recorded = one.manifest.certificate.metrics
    recomputed = gk.verify(one, level="quick").certificate.metrics[2]
    step = 6 * math.hypot(recorded[2].stderr, recomputed.stderr)
    wrong = (*recorded[:2], moved(recorded[2], recomputed.value + sign * step), *recorded[3:])
    (reason,) = gk.verify(altered(one, metrics=wrong), level="quick").reasons
    assert reason.startswith("mse at omega=1.5 is")


# -- altered weights -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["quick", "full"])
def test_negated_weights_do_not_agree(one: Cassette, library: Path, level: Level) -> None:
    Cassette(one.manifest, {name: -tensor for name, tensor in one.tensors.items()}).save(library)
    found = gk.verify("one", level=level, library=library)
    assert not found.agrees
    assert any("mse" in reason for reason in found.reasons)


def test_the_same_weights_saved_again_agree(one: Cassette, library: Path) -> None:
    one.save(library)
    assert gk.verify("one", level="quick", library=library).agrees


def test_predictions_that_are_not_finite_fail(plugins: PluginHost, crafted: Callable[..., Cassette]) -> None:
    huge = crafted(plugins, "probe/copy", tensors={"factor": torch.tensor([3e38])})
    found = gk.verify(huge, level="quick")
    assert found.certificate.verdict == "failed"
    assert "the recomputed certificate failed: some predictions are not finite" in found.reasons


# -- what a certificate says ---------------------------------------------------------------------------------------


def test_a_network_equal_to_a_baseline_has_its_figures(plugins: PluginHost, crafted: Callable[..., Cassette]) -> None:
    found = gk.verify(crafted(plugins, "probe/copy"), level="quick", dtype="float64").certificate
    persistence = [b.value for b in found.baselines if b.name == "persistence"]
    assert [m.value for m in found.metrics] == pytest.approx(persistence, rel=1e-12)


def test_a_network_that_loses_to_a_baseline_says_so_on_its_face(one: Cassette) -> None:
    assert "WORSE than persistence (5 of 5)" in gk.verify(one, level="quick").certificate.statement


def test_an_exact_network_is_better_than_every_baseline(plugins: PluginHost, crafted: Callable[..., Cassette]) -> None:
    statement = gk.verify(crafted(plugins, "probe/exact"), level="quick", dtype="float64").certificate.statement
    assert "better than every baseline in 5 of 5" in statement


def test_rounding_below_the_floor_of_the_task_is_no_disagreement(
    plugins: PluginHost, crafted: Callable[..., Cassette]
) -> None:
    exact = crafted(plugins, "probe/exact")
    recorded = exact.task.certify(exact.to("cpu", "float64"), level="full", seed=0)
    made = exact.with_certificate(recorded)
    assert all(0 < m.value < exact.task.spec.floor for m in recorded.metrics)
    found = gk.verify(made, seed=1, level="quick")
    assert found.agrees
    assert found.certificate.metrics[0].value != recorded.metrics[0].value


# -- calls that are wrong ------------------------------------------------------------------------------------------


def test_an_unknown_level_is_a_usage_error(one: Cassette) -> None:
    with pytest.raises(UsageError, match="expected quick or full"):
        gk.verify(one, level="thorough")  # type: ignore[arg-type]


def test_an_unknown_device_is_a_usage_error(one: Cassette) -> None:
    with pytest.raises(UsageError, match="expected auto, cpu or cuda"):
        gk.verify(one, device="tpu")


def test_a_dtype_that_the_cassette_does_not_take_is_incompatible(one: Cassette) -> None:
    with pytest.raises(Incompatible, match="expected float32 or float64"):
        gk.verify(one, dtype="float16")


def test_observers_hear_whether_it_agreed(extended: Callable[..., PluginHost], tiny: Path, one: Cassette) -> None:
    heard: list[Any] = []
    place = Workspace.open(tiny, plugins=extended(grokkit_event=lambda event: heard.append((event.name, event.data))))
    gk.verify("one", level="quick", library=place)
    gk.verify(altered(one, verdict="exact"), level="quick", library=place)
    assert heard == [("certificate", {"name": "one@1", "agrees": agrees}) for agrees in (True, False)]
