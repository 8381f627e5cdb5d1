"""The vectorised forward pass of the replicas against the published per-sample loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from timing import Benchmark, Bound, Comparison, Side

SEED = 0
BATCH = 500
FROZEN = "frozen, inference mode"
FORWARD = 2e-6
"""The tolerance of the test suite."""


def comparisons() -> Sequence[Comparison]:
    """Both networks, frozen in inference mode as in a cassette, and with a record of gradients as in training."""
    import torch
    from cyclotron_loops import GRIDS

    modes: dict[str, Callable[[], AbstractContextManager[object]]] = {
        FROZEN: torch.inference_mode,
        "recording gradients": torch.enable_grad,
    }
    return [_comparison(name, label, mode) for name in GRIDS for label, mode in modes.items()]


def _comparison(name: str, label: str, mode: Callable[[], AbstractContextManager[object]]) -> Comparison:
    from cyclotron_loops import GRIDS, loop_of, network, windows

    module = network(GRIDS[name], SEED)
    if label == FROZEN:
        module.requires_grad_(False).eval()
    loop, states = loop_of(module, GRIDS[name]), windows(BATCH, SEED)

    def check() -> str:
        difference = (loop(states) - module(states)).abs().max().item()
        assert difference <= FORWARD, f"outputs differ by {difference:.2g}"
        return f"outputs differ by at most {difference:.1e}"

    def under(call: Callable[[Any], object]) -> Callable[[], object]:
        def timed() -> object:
            with mode():
                return call(states)

        return timed

    return Comparison(f"{name}, {label}", Side("loop", under(loop), 3), Side("replica", under(module), 100), check)


BENCHMARK = Benchmark(
    name="cyclotron-forward",
    what="Forward pass of the cyclotron replicas against the published one in the shape of its program: every state is "
    "encoded in turn, and the corners of every sample are added in a Python loop. Both sides run in the same mode.",
    seed=SEED,
    sizes=f"batch {BATCH}, windows of 15 states, networks of 1,821 and 3,841 parameters",
    bound=Bound(least=50),
    comparisons=comparisons,
    runs=7,
)
