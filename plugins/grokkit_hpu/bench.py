"""Rollouts beside the reference solver of the task, a split step in numpy, in one run."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from grokkit_core.benchmark import Row
from grokkit_core.errors import Incompatible
from grokkit_core.streams import stream
from grokkit_core.timing import clock_for, paired
from grokkit_hpu.fourier import drawn, resolves, squared_wavenumbers, values
from grokkit_hpu.law import potential_on
from grokkit_hpu.model import SplitStep
from grokkit_hpu.split_step import factors

if TYPE_CHECKING:
    from grokkit_core.cassette import Cassette

PAIRS = 7
AGREE = {torch.complex128: 1e-4, torch.complex64: 1e-3}
"""Relative difference after the rollout above which a row is reported as wrong."""

Field = NDArray[Any]
Step = Callable[[Field], Field]


def rollout_rows(cassette: Cassette, settings: Mapping[str, Any]) -> Iterator[Row]:
    """Two rows: `steps` steps of one field on n x n points by the cassette and by numpy."""
    grid, steps = int(settings["n"]), int(settings["steps"])
    band = int(cassette.manifest.architecture.config.get("band", 5))
    if not resolves(grid, band):
        raise Incompatible(f"n = {grid} for modes up to {band}", expected=f"at least {2 * band + 2}")
    start = values(drawn(1, band, stream(0, "bench")), grid).to(cassette.device, cassette.dtype)
    step = numpy_step(cassette, grid)
    field = start.cpu().numpy()

    def reference() -> Field:
        moved = field
        for _ in range(steps):
            moved = step(moved)
        return moved

    def own() -> Tensor:
        return deque(cassette.rollout(start, steps), maxlen=1)[0]

    expected = torch.from_numpy(reference())
    apart = float((own().cpu() - expected).abs().square().sum().sqrt() / expected.abs().square().sum().sqrt())
    clock = clock_for(cassette.device)
    times = paired(reference, own, pairs=PAIRS, clock=clock)
    problem = "" if apart <= AGREE[cassette.dtype] else f"differs from the reference by {apart:.2g}"
    figures = {"steps_per_second": steps / times.second_s, "apart": apart}
    yield Row(
        f"{cassette.manifest.ref}, {steps} steps, n = {grid}", 1, times.second_s, times.ratio, figures, problem=problem
    )
    yield Row("numpy split step", 1, times.first_s, None, {"steps_per_second": steps / times.first_s, "apart": 0.0})


def numpy_step(cassette: Cassette, grid: int) -> Step:
    """One step of the reference solver: two transforms for a diagonal law, the same integrator with the true V otherwise."""
    task, module = cassette.task, cassette.module
    dt = float(task.parameters["dt"])
    if isinstance(module, SplitStep):
        made = factors(potential_on(grid), 0.5, dt, order=module.order, substeps=module.substeps, dtype=cassette.dtype)
        in_x, in_k = [part.numpy() for part in made.potential], [part.numpy() for part in made.kinetic]

        def split_step(field: Field) -> Field:
            field = field * in_x[0]
            for kinetic, potential in zip(in_k, in_x[1:], strict=True):
                field = np.fft.ifft2(np.fft.fft2(field) * kinetic) * potential
            return field

        return split_step
    phase = np.exp(-0.5j * dt * squared_wavenumbers(grid).numpy()).astype(str(cassette.dtype).removeprefix("torch."))
    return lambda field: np.fft.ifft2(np.fft.fft2(field) * phase)
