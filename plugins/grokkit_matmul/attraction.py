"""Alternating least squares with a pull to -1, 0 and 1: integers for any format, without a theorem about the orbit."""

from __future__ import annotations

import torch
from torch import Tensor

from grokkit_core.errors import UsageError
from grokkit_core.training.recipe import State
from grokkit_matmul.als import INITIAL_SCALE, geometric, sweep
from grokkit_matmul.factors import Factors, drawn, restored
from grokkit_matmul.gauge import leading_scales, rounded
from grokkit_matmul.scheme import Format

FREE_SWEEPS, FREE_WEIGHTS = 80, (0.3, 1e-3)
PULLED_SWEEPS, PULLS = 100, (1e-3, 1.0)
EVERY = 10
"""Sweeps between two equalisations while free, and between two looks at the rounded factors while pulled."""


def nearest_unit(factor: Tensor) -> Tensor:
    """The nearest of -1, 0 and 1, entry by entry."""
    return factor.round().clamp(-1, 1)


class Attraction:
    """A batch of restarts in progress: free sweeps, then sweeps that are pulled to integers ever more.

    `sweep_count`, `factors` and the restarts found so far are all that a bit-equal resume needs.
    """

    def __init__(self, shape: Format, rank: int, *, restarts: int, generator: torch.Generator) -> None:
        if min(rank, restarts) < 1:
            raise UsageError(f"rank {rank}, {restarts} restarts", expected="at least one of each")
        self.sweep_count = 0
        self.factors = drawn(shape, rank, restarts, INITIAL_SCALE, generator)
        self.found: tuple[int, ...] = ()
        """Restarts that were exact after rounding at the last look."""

    @property
    def exhausted(self) -> bool:
        """Whether all sweeps are made."""
        return self.sweep_count >= FREE_SWEEPS + PULLED_SWEEPS

    @property
    def done(self) -> bool:
        """Whether a restart is exact after rounding, or all sweeps are made."""
        return bool(self.found) or self.exhausted

    def sweep(self) -> None:
        """Update U, V and W of every restart once; every ten sweeps equalise the slots, later look at the integers."""
        at = self.sweep_count
        if at < FREE_SWEEPS:
            self.factors = sweep(self.factors, geometric(*FREE_WEIGHTS, at, FREE_SWEEPS))
        else:
            pull = geometric(*PULLS, at - FREE_SWEEPS, PULLED_SWEEPS)
            self.factors = sweep(self.factors, pull, nearest_unit)
        self.sweep_count = at + 1
        if self.sweep_count == FREE_SWEEPS:
            self.factors = self.factors.scaled(leading_scales(self.factors))
        elif self.sweep_count % EVERY == 0 and self.sweep_count < FREE_SWEEPS:
            self.factors = self.factors.equalised()
        elif self.sweep_count % EVERY == 0:
            self.found = exact_after_rounding(self.factors)

    def candidates(self) -> Factors:
        """The restarts that were exact after rounding at the last look, as floats: "restart rank ...", maybe none."""
        return self.factors.select(torch.tensor(self.found, dtype=torch.int64))

    def state(self) -> State:
        """What `restore` goes on from."""
        return State(self.factors.named(), {"sweep_count": self.sweep_count, "found": list(self.found)})

    def restore(self, state: State) -> None:
        """Go on from a saved state."""
        self.factors = restored(state.tensors, self.factors)
        self.sweep_count = int(state.values["sweep_count"])
        self.found = tuple(state.values["found"])


def exact_after_rounding(factors: Factors) -> tuple[int, ...]:
    """The numbers of the restarts "restart rank ..." whose nearest integers multiply matrices."""
    whole = Factors(factors.u.round(), factors.v.round(), factors.w.round())
    likely = torch.nonzero(whole.residual() < 0.5).flatten().tolist()  # a wrong integer tensor is off by one or more
    return tuple(index for index in likely if rounded(factors.select(index))[0].is_exact)


def attract(shape: Format, rank: int, *, restarts: int = 64, generator: torch.Generator) -> Factors:
    """One batch to its end: the restarts "restart rank ..." found exact after rounding, maybe none."""
    attraction = Attraction(shape, rank, restarts=restarts, generator=generator)
    while not attraction.done:
        attraction.sweep()
    return attraction.candidates()
