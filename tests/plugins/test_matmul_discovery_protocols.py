"""Full protocols of discovery: how often each route finds an exact algorithm for 2x2 matrices, and what it costs."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from grokkit_matmul import als, gauge
from grokkit_matmul.attraction import Attraction
from grokkit_matmul.descent import Descent
from grokkit_matmul.discovery import discover_als, settle
from grokkit_matmul.factors import Factors, drawn
from grokkit_matmul.scheme import Format, slot_set

from grokkit_core.errors import CheckFailed
from grokkit_core.streams import stream

pytestmark = pytest.mark.acceptance
SQUARE, RANK = Format(2, 2, 2), 7
SEEDS, SAMPLED_SEEDS, RESTARTS = 100, 50, 4


def wilson(successes: int, count: int) -> str:
    """The 95 % interval of a rate (Wilson 1927), e.g. "50 of 50, 95 % interval 0.929 to 1.000"."""
    z = 1.959964
    rate, widening = successes / count, 1 + z * z / count
    middle = (rate + z * z / (2 * count)) / widening
    half = z * math.sqrt(rate * (1 - rate) / count + z * z / (4 * count * count)) / widening
    return f"{successes} of {count}, 95 % interval {max(middle - half, 0):.3f} to {min(middle + half, 1):.3f}"


def test_the_default_route_finds_an_exact_scheme_within_a_second(figure: Callable[..., None]) -> None:
    seconds, found, inexact, naive = [], [], 0, 0
    for seed in range(SEEDS):
        started = time.process_time()
        try:
            found.append(discover_als(SQUARE, RANK, seed))
        except CheckFailed:
            continue
        finally:
            seconds.append(time.process_time() - started)
        inexact += not found[-1].scheme.is_exact
        naive += found[-1].naive_exact
    forms = {slot_set(each.scheme) for each in found}
    figure("ALS, 100 seeds: exact", wilson(len(found), SEEDS), ">= 99 of 100")
    figure("ALS, 100 seeds: inexact results returned", str(inexact), "0")
    figure("ALS, 100 seeds: CPU seconds, median", f"{statistics.median(seconds):.3f}", "<= 1")
    figure("ALS, 100 seeds: CPU seconds, most", f"{max(seconds):.3f}", "<= 10")
    figure("ALS, the same runs rounded without a gauge: exact", wilson(naive, SEEDS), "reported")
    figure("ALS, 100 seeds: different sets of slots", str(len(forms)), "1")
    figure("ALS, 100 seeds: largest tensor error, raw", f"{max(each.residual for each in found):.1e}", "reported")
    figure("ALS, 100 seeds: largest delta before rounding", f"{max(each.delta for each in found):.1e}", "reported")
    assert len(found) >= 99
    assert inexact == 0
    assert statistics.median(seconds) <= 1
    assert max(seconds) <= 10
    assert naive <= SEEDS // 20
    assert len(forms) == 1


def test_rank_six_is_never_taken_for_a_solution(figure: Callable[..., None]) -> None:
    best, settled = math.inf, 0
    for seed in range(SEEDS):
        run = als.Als(SQUARE, 6, restarts=8, sweeps=150, generator=stream(seed, "protocol", "six"))
        settled += settle(run.run()) is not None
        best = min(best, float(run.residuals().min()))
    figure("rank 6, 800 ALS restarts: taken for exact", str(settled), "0")
    figure("rank 6, 800 ALS restarts: least tensor error", f"{best:.4f}", ">= 0.999")
    assert settled == 0
    assert best >= 0.999


def test_networks_that_learned_nothing_are_not_settled(figure: Callable[..., None]) -> None:
    untrained = drawn(SQUARE, RANK, 200, 0.5, stream(0, "protocol", "untrained"))
    polished = als.polish(untrained)
    gauged = [gauge.fix(polished.select(index)) for index in range(200)]
    solved = sum(each is not None and each.scheme.is_exact for each in gauged)
    settled = sum(settle(untrained.select(index)) is not None for index in range(200))
    figure("untrained networks: exact by polish and gauge alone", wilson(solved, 200), "reported, control")
    figure("untrained networks: settled", wilson(settled, 200), "0 of 200")
    assert settled == 0


def sampled(slots: int, batch: int, steps: int) -> tuple[list[list[bool]], int, float]:
    """Which runs of each seed were settled, how many of all rounding alone makes exact, and CPU seconds of a run."""
    settled, naive, started = [], 0, time.process_time()
    for seed in range(SAMPLED_SEEDS):
        descent = Descent(SQUARE, RANK, slots=slots, batch=batch, steps=steps, seed=seed, restarts=RESTARTS)
        runs = [descent.run().select(index) for index in range(RESTARTS)]
        found = [settle(run) for run in runs]
        settled.append([each is not None and each.scheme.is_exact for each in found])
        naive += sum(gauge.rounded(run)[0].is_exact for run in runs)
        naive += sum(each.naive_exact for each in found if each is not None)
    return settled, naive, (time.process_time() - started) / (SAMPLED_SEEDS * RESTARTS)


def reported(label: str, figure: Callable[..., None], slots: int, batch: int, steps: int, bound: str) -> list[int]:
    settled, naive, seconds = sampled(slots, batch, steps)
    runs, seeds = sum(map(sum, settled)), sum(map(any, settled))
    count = SAMPLED_SEEDS * RESTARTS
    figure(f"{label}: exact, all runs", wilson(runs, count), bound)
    figure(f"{label}: exact, first run of each seed", wilson(sum(row[0] for row in settled), SAMPLED_SEEDS), bound)
    figure(f"{label}: seeds exact within {RESTARTS} restarts", wilson(seeds, SAMPLED_SEEDS), ">= 49 of 50")
    figure(f"{label}: the same runs rounded without a gauge", wilson(naive, count), "<= 5 %")
    figure(f"{label}: CPU seconds of a run", f"{seconds:.3f}", "reported")
    return [runs, seeds, naive]


def test_descent_on_samples_finds_it_in_four_of_five_runs(figure: Callable[..., None]) -> None:
    runs, seeds, naive = reported("samples, 7 slots", figure, 7, 32, 3000, ">= 80 %")
    assert runs >= 0.8 * SAMPLED_SEEDS * RESTARTS
    assert seeds >= 49
    assert naive <= 0.05 * SAMPLED_SEEDS * RESTARTS


def test_descent_with_a_slot_to_spare_is_reported(figure: Callable[..., None]) -> None:
    _, seeds, naive = reported("samples, 8 slots pruned to 7", figure, 8, 256, 1500, "reported")
    assert seeds >= 49
    assert naive <= 0.05 * SAMPLED_SEEDS * RESTARTS


def test_attraction_to_integers_needs_no_gauge(figure: Callable[..., None]) -> None:
    seconds, seeds, restarts, forms, fixed = [], 0, 0, set(), set()
    for seed in range(SAMPLED_SEEDS):
        started = time.process_time()
        attraction = Attraction(SQUARE, RANK, restarts=64, generator=stream(seed, "protocol", "attraction"))
        while not attraction.done:
            attraction.sweep()
        seconds.append(time.process_time() - started)
        seeds += bool(attraction.found)
        while not attraction.exhausted:
            attraction.sweep()
        restarts += len(attraction.found)
        for index in attraction.found:
            scheme = gauge.rounded(attraction.factors.select(index))[0]
            assert scheme.is_exact
            forms.add(slot_set(scheme))
            whole = Factors(*(torch.from_numpy(factor).double() for factor in (scheme.u, scheme.v, scheme.w)))
            gauged = gauge.fix(whole)
            assert gauged is not None
            fixed.add(slot_set(gauged.scheme))
    figure("attraction, 50 seeds: exact without a gauge", wilson(seeds, SAMPLED_SEEDS), ">= 49 of 50")
    figure("attraction, exact of all restarts", wilson(restarts, 64 * SAMPLED_SEEDS), "reported")
    figure("attraction, CPU seconds: median, most", f"{statistics.median(seconds):.3f}, {max(seconds):.3f}", "reported")
    figure("attraction, different integer forms, and after the gauge", f"{len(forms)}, {len(fixed)}", "many, 1")
    assert seeds >= 49
    assert len(fixed) == 1


def test_two_hundred_random_gauges_lead_to_one_set_of_slots(figure: Callable[..., None], orbit: ModuleType) -> None:
    exact = orbit.as_floats(discover_als(SQUARE, RANK, 0).scheme)
    for condition, noise in ((10, 1e-4), (10, 1e-3), (10, 1e-2), (30, 1e-4), (30, 1e-3), (30, 1e-2)):
        generator = stream(0, "protocol", "gauge", str(condition), str(noise))
        plain, polished, forms = 0, 0, set()
        for _ in range(200):
            moved = orbit.noisy(orbit.elsewhere(exact, generator, condition), noise, generator)
            found = [gauge.fix(factors) for factors in (moved, als.polish(moved))]
            right = [each is not None and each.scheme.is_exact for each in found]
            plain, polished = plain + right[0], polished + right[1]
            forms |= {slot_set(each.scheme) for each, ok in zip(found, right, strict=True) if each and ok}
        binding = condition == 10 and noise == 1e-4
        label = f"gauge, condition <= {condition}, noise {noise:g}: exact of 200"
        figure(label, f"{plain}, polished {polished}", "200, 200" if binding else "reported")
        assert len(forms) == 1
        assert not binding or (plain, polished) == (200, 200)
