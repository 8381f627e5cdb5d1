"""One attempt at an exact scheme, whatever the method: it goes on piece by piece, ends, and is then checked."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch

from grokkit_core.streams import stream, stream_seed
from grokkit_core.training.recipe import State
from grokkit_matmul.als import Als
from grokkit_matmul.attraction import Attraction
from grokkit_matmul.descent import Descent
from grokkit_matmul.discovery import SWEEPS, Discovery, settle
from grokkit_matmul.factors import Factors
from grokkit_matmul.flip_graph import FlipGraph
from grokkit_matmul.lifting import lift_along
from grokkit_matmul.packed import Ring
from grokkit_matmul.scheme import Format, Scheme

ALS_RESTARTS, ATTRACTION_RESTARTS, DESCENT_RESTARTS = 8, 64, 4
ALS_PIECE, ATTRACTION_PIECE, DESCENT_PIECE, FLIP_PIECE = 10, 10, 100, 5_000
DESCENT_STEPS = {7: (32, 3_000), 8: (256, 1_500)}
"""By number of slots at the start, batch size and steps of a phase."""

MOST_FLIPS = {"integers": 2_000_000, "gf2": 2_000_000}
"""Moves of one walk before another begins."""


class Hunt(ABC):
    """One attempt. `due` says whether now is a time to look at the curve."""

    due: bool = True

    @property
    @abstractmethod
    def ended(self) -> bool:
        """Whether there is nothing left to do but to check."""

    @abstractmethod
    def advance(self) -> float:
        """Do a piece of it; a loss."""

    @abstractmethod
    def factors(self) -> Factors:
        """The best factors "rank m k", etc., as they are now."""

    @abstractmethod
    def discovery(self) -> Discovery | None:
        """The exact scheme that it found, if it did; the same however often it is asked."""

    @abstractmethod
    def state(self) -> State:
        """All that a bit-equal resume needs."""

    @abstractmethod
    def restore(self, state: State) -> None:
        """Go on from a saved state."""


def _best(factors: Factors) -> Factors:
    return factors.select(int(torch.nan_to_num(factors.residual(), nan=torch.inf).argmin()))


def _loss(factors: Factors) -> float:
    """The mean squared error of an entry of C for standard normal entries: a share of the squared tensor error."""
    return float(_best(factors).residual().square()) / (factors.format.m * factors.format.n)


class AlsHunt(Hunt):
    """Eight restarts of alternating least squares."""

    def __init__(self, shape: Format, rank: int, seed: int, number: int) -> None:
        generator = stream(seed, "matmul", "als", number)
        self.search = Als(shape, rank, restarts=ALS_RESTARTS, sweeps=SWEEPS, generator=generator)

    @property
    def ended(self) -> bool:
        """After all sweeps."""
        return self.search.done

    def advance(self) -> float:
        """Ten sweeps."""
        for _ in range(ALS_PIECE):
            if not self.search.done:
                self.search.sweep()
        return _loss(self.search.factors)

    def factors(self) -> Factors:
        """Of the restart with the least residual."""
        return _best(self.search.factors)

    def discovery(self) -> Discovery | None:
        """By polish and gauge."""
        return settle(self.search.factors)

    def state(self) -> State:
        """That of the search."""
        return self.search.state()

    def restore(self, state: State) -> None:
        """That of the search."""
        self.search.restore(state)


class AttractionHunt(Hunt):
    """64 restarts of alternating least squares that are pulled to integers."""

    def __init__(self, shape: Format, rank: int, seed: int, number: int) -> None:
        generator = stream(seed, "matmul", "attraction", number)
        self.search = Attraction(shape, rank, restarts=ATTRACTION_RESTARTS, generator=generator)

    @property
    def ended(self) -> bool:
        """Once a restart is exact after rounding, or after all sweeps."""
        return self.search.done

    def advance(self) -> float:
        """Ten sweeps."""
        for _ in range(ATTRACTION_PIECE):
            if not self.search.done:
                self.search.sweep()
        return _loss(self.search.factors)

    def factors(self) -> Factors:
        """Of the restart with the least residual."""
        return _best(self.search.factors)

    def discovery(self) -> Discovery | None:
        """Among the restarts that were exact after rounding."""
        return settle(self.search.candidates()) if self.search.found else None

    def state(self) -> State:
        """That of the search."""
        return self.search.state()

    def restore(self, state: State) -> None:
        """That of the search."""
        self.search.restore(state)


class DescentHunt(Hunt):
    """Four restarts of AdamW on fresh samples."""

    def __init__(self, shape: Format, rank: int, slots: int, seed: int, number: int) -> None:
        batch, steps = DESCENT_STEPS[slots]
        own = stream_seed(seed, "matmul", "descent", number)
        self.search = Descent(shape, rank, slots=slots, batch=batch, steps=steps, seed=own, restarts=DESCENT_RESTARTS)

    @property
    def ended(self) -> bool:
        """After all steps."""
        return self.search.done

    def advance(self) -> float:
        """A hundred steps."""
        for _ in range(DESCENT_PIECE):
            if not self.search.done:
                self.search.step()
        return float(self.search.losses.min())

    def factors(self) -> Factors:
        """Of the restart with the least tensor error."""
        return _best(self.search.factors)

    def discovery(self) -> Discovery | None:
        """By polish and gauge."""
        return settle(self.search.factors)

    def state(self) -> State:
        """That of the search."""
        return self.search.state()

    def restore(self, state: State) -> None:
        """That of the search."""
        self.search.restore(state)


class FlipHunt(Hunt):
    """A walk over exact schemes; over GF(2) it goes on until one has signs that make it exact over the integers."""

    def __init__(self, shape: Format, rank: int, ring: Ring, seed: int, number: int) -> None:
        self.seed = stream_seed(seed, "matmul", "flips", number)
        self.search = FlipGraph(shape, rank, self.seed, ring)
        self.lifted: Scheme | None = None

    @property
    def ended(self) -> bool:
        """Once there is a scheme of the target rank over the integers, or after two million moves."""
        search = self.search
        arrived = search.reached if search.ring == "integers" else self.lifted is not None
        return arrived or search.flips >= MOST_FLIPS[search.ring]

    def advance(self) -> float:
        """5,000 moves; the loss is the number of products, since every scheme on the way is exact."""
        if self.search.ring == "integers":
            self.search.step(FLIP_PIECE)
        else:
            self.lifted = lift_along(self.search, FLIP_PIECE, seed=self.seed)
        return float(self.search.rank)

    def factors(self) -> Factors:
        """Of the scheme where the walk is."""
        return _as_factors(self.lifted or self.search.scheme())

    def discovery(self) -> Discovery | None:
        """The scheme itself; for <2,2,2:7> in the normal form of its gauge."""
        scheme = self.search.scheme() if self.search.ring == "integers" else self.lifted
        if scheme is None or not self.search.reached:
            return None
        return settle(_as_factors(scheme))

    def state(self) -> State:
        """The walk, and the scheme that was lifted."""
        found = {} if self.lifted is None else _as_factors(self.lifted).named()
        return State(found, self.search.state())

    def restore(self, state: State) -> None:
        """Go on with the walk."""
        self.search.restore(state.values)
        if state.tensors:
            self.lifted = Scheme(*(state.tensors[name].long().numpy() for name in "uvw"))


def _as_factors(scheme: Scheme) -> Factors:
    return Factors(*(torch.from_numpy(factor.astype("float64")) for factor in (scheme.u, scheme.v, scheme.w)))
