"""Full protocols of flip graphs: how often and how fast searches reach the known ranks, in CPU seconds of one thread."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import pytest
from grokkit_matmul.flip_graph import FlipGraph
from grokkit_matmul.lifting import lift_along, lift_signs
from grokkit_matmul.packed import Ring
from grokkit_matmul.scheme import Format, Scheme, product_tensor

pytestmark = pytest.mark.acceptance
CHUNK = 20_000
"""Moves between two looks at the clock: some 30 ms."""

Figure = Callable[..., None]


def timed(shape: Format, rank: int, seed: int, ring: Ring, limit: float) -> tuple[FlipGraph, float]:
    """The search after it reached the rank or spent `limit` CPU seconds, and the seconds."""
    started = time.process_time()
    search = FlipGraph(shape, rank, seed, ring)
    while not search.step(CHUNK) and time.process_time() - started < limit:
        pass
    return search, time.process_time() - started


def right(scheme: Scheme, ring: Ring) -> bool:
    wrong = scheme.tensor() - product_tensor(scheme.format)
    return not (wrong % 2 if ring == "gf2" else wrong).any()


@pytest.mark.parametrize(
    ("shape", "rank", "ring", "runs", "least", "limit"),
    [
        (Format(2, 2, 2), 7, "gf2", 50, 50, 5.0),
        (Format(2, 2, 2), 7, "integers", 50, 50, 5.0),
        (Format(2, 2, 3), 11, "integers", 20, 20, 5.0),
        (Format(3, 3, 3), 23, "gf2", 20, 20, 10.0),
        (Format(3, 3, 3), 23, "integers", 10, 5, 60.0),
    ],
    ids=["2x2x2-gf2", "2x2x2-integers", "2x2x3-integers", "3x3x3-gf2", "3x3x3-integers"],
)
def test_enough_seeds_reach_the_known_rank(
    shape: Format, rank: int, ring: Ring, runs: int, least: int, limit: float, figure: Figure
) -> None:
    seconds, reached = [], 0
    for seed in range(runs):
        search, spent = timed(shape, rank, seed, ring, limit)
        scheme = search.scheme()
        seconds.append(spent)
        reached += scheme.rank == rank and right(scheme, ring) and spent <= limit
    name = f"flip graph {shape}, rank {rank}, {ring}, {runs} seeds"
    figure(f"{name}: reached and verified within {limit:g} CPU s", f"{reached} of {runs}", f">= {least} of {runs}")
    figure(f"{name}: median and most CPU s", f"{statistics.median(seconds):.3f}, {max(seconds):.2f}", f"<= {limit:g}")
    assert reached >= least


def test_twenty_three_products_over_the_integers_by_signs_for_a_walk_modulo_2(figure: Figure) -> None:
    seconds, exact, limit = [], 0, 60.0
    for seed in range(10):
        started = time.process_time()
        search, lifted = FlipGraph(Format(3, 3, 3), 23, seed, "gf2"), None
        while lifted is None and time.process_time() - started < limit:
            lifted = lift_along(search, CHUNK, seed=seed)
        seconds.append(time.process_time() - started)
        exact += lifted is not None and lifted.rank == 23 and lifted.is_exact and seconds[-1] <= limit
    name = "flip graph <3,3,3>, rank 23, gf2 and signs, 10 seeds"
    figure(f"{name}: exact over Z within {limit:g} CPU s", f"{exact} of 10", ">= 5 of 10")
    figure(f"{name}: median and most CPU s", f"{statistics.median(seconds):.2f}, {max(seconds):.2f}", "reported")
    assert exact >= 5


@pytest.mark.parametrize(
    ("shape", "rank", "runs"),
    [
        (Format(2, 2, 2), 7, 20),
        (Format(2, 2, 3), 11, 20),
        (Format(2, 2, 4), 14, 20),
        (Format(2, 3, 3), 15, 20),
        (Format(2, 3, 4), 20, 20),
        (Format(3, 3, 3), 23, 20),
    ],
    ids=str,
)
def test_how_many_first_schemes_modulo_2_have_signs(shape: Format, rank: int, runs: int, figure: Figure) -> None:
    lifted = reached = 0
    for seed in range(runs):
        search, _ = timed(shape, rank, seed, "gf2", 20.0)
        if search.reached:
            reached += 1
            scheme = lift_signs(search.scheme(), seed=seed)
            lifted += scheme is not None and scheme.is_exact
    figure(f"signs for the first scheme of {shape}, rank {rank}, modulo 2", f"{lifted} of {reached}", "reported")
    assert reached == runs
    assert lifted > 0
