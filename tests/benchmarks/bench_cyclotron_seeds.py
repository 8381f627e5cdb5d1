"""Ten seeds of the published training as one batched computation against the loop network, seed after seed."""

from __future__ import annotations

from collections.abc import Sequence

from bench_cyclotron_epoch import CHECKED, STEPS, WEIGHTS, loop_training
from timing import Benchmark, Bound, Comparison, Side

SEEDS = range(10)


def comparisons() -> Sequence[Comparison]:
    """Both networks."""
    from cyclotron_loops import GRIDS

    return [_comparison(name) for name in GRIDS]


def _comparison(name: str) -> Comparison:
    from cyclotron_loops import GRIDS, started

    run = started(GRIDS[name], *SEEDS)[-1]
    loops = [loop_training(name, seed)[1] for seed in SEEDS]

    def check() -> str:
        batched = started(GRIDS[name], *SEEDS)[-1]
        singles = [loop_training(name, seed) for seed in SEEDS]
        for _ in range(CHECKED):
            batched.step()
            for _, step in singles:
                step()
        difference = 0.0
        for network, (weights, _) in zip(batched.result(), singles, strict=True):
            found, expected = network.state_dict(), weights()
            compared = [key for key in expected if key != "angular_logits"]
            difference = max(difference, *((found[key] - expected[key]).abs().max().item() for key in compared))
        assert difference <= WEIGHTS, f"weights differ by {difference:.2g} after {CHECKED} steps"
        return f"weights of all seeds differ by at most {difference:.1e} after {CHECKED} steps, angular logits aside"

    def epochs_in_turn() -> None:
        for step in loops:
            for _ in range(STEPS):
                step()

    def epoch_at_once() -> None:
        for _ in range(STEPS):
            run.step()

    return Comparison(name, Side("loops", epochs_in_turn), Side("grokkit", epoch_at_once, 2), check)


BENCHMARK = Benchmark(
    name="cyclotron-seeds",
    what="One epoch of ten seeds of the recipe `cyclotron/published`, which `grokkit train --seeds 0-9` runs as one "
    "batched computation, against ten epochs of the loop network.",
    seed=SEEDS[0],
    sizes="10 seeds, 1,500 windows each, batch 64, 24 steps",
    bound=Bound(least=25),
    comparisons=comparisons,
    runs=3,
)
