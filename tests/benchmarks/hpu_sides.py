"""The two sides of a rollout: a cassette and the reference solver in numpy."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any


def rollouts(
    name: str, grid: int, steps: int, *, dtype: str, seed: int, device: str = "cpu"
) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """`steps` steps of one random field by numpy (on the CPU) and by a cassette; each gives its last field."""
    from grokkit_hpu.bench import numpy_step
    from grokkit_hpu.fourier import drawn, values

    import grokkit_core as gk
    from grokkit_core.streams import stream

    cassette = gk.load(name).to(device, dtype)
    start = values(drawn(1, 5, stream(seed, "bench")), grid).to(cassette.dtype)
    step, field, placed = numpy_step(cassette, grid), start.numpy(), start.to(device)

    def reference() -> Any:
        moved = field
        for _ in range(steps):
            moved = step(moved)
        return moved

    def own() -> Any:
        return deque(cassette.rollout(placed, steps), maxlen=1)[0]

    return reference, own


def apart(reference: Any, own: Any) -> float:
    """Their relative L2 difference."""
    import torch

    expected = torch.from_numpy(reference)
    difference = (own.cpu() - expected).abs().square().sum() / expected.abs().square().sum()
    return float(difference.sqrt())
