"""One epoch of the published training against the same epoch with the loop network and a loop optimiser."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import Any

from timing import Benchmark, Bound, Comparison, Side

Training = tuple[Callable[[], Mapping[str, Any]], Callable[[], object]]
"""Its weights now, and one step of it."""

SEED = 0
STEPS = 24
CHECKED = 10
WEIGHTS = 1e-5
"""Float32 rounding after ten steps, of all weights but the angular logits: their gradients of 1e-7 are mostly rounding,
and the optimiser divides by them. The test suite compares all in float64.
"""


def comparisons() -> Sequence[Comparison]:
    """Both networks."""
    from cyclotron_loops import GRIDS

    return [_comparison(name) for name in GRIDS]


def _comparison(name: str) -> Comparison:
    replica, loop = _replica(name)[1], loop_training(name, SEED)[1]

    def check() -> str:
        (found, step), (expected, loop_step) = _replica(name), loop_training(name, SEED)
        for _ in range(CHECKED):
            step()
            loop_step()
        compared = [key for key in expected() if key != "angular_logits"]
        difference = max((found()[key] - expected()[key]).abs().max().item() for key in compared)
        assert difference <= WEIGHTS, f"weights differ by {difference:.2g} after {CHECKED} steps"
        return f"weights differ by at most {difference:.1e} after {CHECKED} steps, angular logits aside"

    def epoch(step: Callable[[], object]) -> Callable[[], None]:
        def timed() -> None:
            for _ in range(STEPS):
                step()

        return timed

    return Comparison(name, Side("loop", epoch(loop)), Side("grokkit", epoch(replica), 3), check)


def _replica(name: str) -> Training:
    """The recipe's own run."""
    from cyclotron_loops import GRIDS, started

    run = started(GRIDS[name], SEED)[-1]
    return run.result()[0].state_dict, run.step


def loop_training(name: str, seed: int) -> Training:
    """The loop network on the same batches, from the same weights, at the same learning rates."""
    from cyclotron_loops import GRIDS, loop_of, reference, started
    from torch import Tensor

    recipe, task, settings, run = started(GRIDS[name], seed)
    network = loop_of(run.result()[0], GRIDS[name])
    optimizer = reference().LoopOrthogonalAdamW(network.weights.values())
    batches, numbers = recipe.batches(task, settings, seed), count()

    def step() -> None:
        number = next(numbers)
        batch = batches(number)
        assert isinstance(batch.inputs, Tensor)
        pair = (batch.inputs.float(), batch.targets.float())
        reference().loop_training(network, optimizer, [pair], recipe.learning_rate(number, settings))

    return lambda: network.weights, step


BENCHMARK = Benchmark(
    name="cyclotron-epoch",
    what="One epoch of the recipe `cyclotron/published` as `grokkit train` runs it (batch, forward, backward, "
    "optimiser, loss) against the loop network with an optimiser of its own on the same batches.",
    seed=SEED,
    sizes="1,500 windows, batch 64, 24 steps",
    bound=Bound(least=6),
    comparisons=comparisons,
)
