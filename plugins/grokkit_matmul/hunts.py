"""One attempt at an exact scheme, whatever the method: it goes on piece by piece, ends, and is then checked."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Protocol

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
SWEEPS_AT_ONCE, STEPS_AT_ONCE, FLIPS_AT_ONCE = 10, 100, 5_000
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


class _Search(Protocol):
    """What the searches of `als`, `attraction` and `descent` share."""

    @property
    def factors(self) -> Factors: ...
    @property
    def done(self) -> bool: ...
    def state(self) -> State: ...
    def restore(self, state: State) -> None: ...


class _SearchHunt(Hunt):
    """A search over real factors, so many of its steps at a time."""

    def __init__(self, search: _Search, step: Callable[[], None], piece: int) -> None:
        self.search, self._step, self._piece = search, step, piece

    @property
    def ended(self) -> bool:
        """When the search is."""
        return self.search.done

    def advance(self) -> float:
        """A few steps."""
        for _ in range(self._piece):
            if not self.search.done:
                self._step()
        return self.loss()

    def loss(self) -> float:
        """The mean squared error of an entry of C for standard normal entries: a share of the squared tensor error."""
        factors = self.search.factors
        return float(_best(factors).residual().square()) / (factors.format.m * factors.format.n)

    def factors(self) -> Factors:
        """Of the restart with the least residual."""
        return _best(self.search.factors)

    def discovery(self) -> Discovery | None:
        """Among all restarts, by gauge or by rounding."""
        return settle(self.search.factors)

    def state(self) -> State:
        """That of the search."""
        return self.search.state()

    def restore(self, state: State) -> None:
        """That of the search."""
        self.search.restore(state)


class AlsHunt(_SearchHunt):
    """Eight restarts of alternating least squares."""

    def __init__(self, shape: Format, rank: int, seed: int, number: int) -> None:
        generator = stream(seed, "matmul", "als", number)
        search = Als(shape, rank, restarts=ALS_RESTARTS, sweeps=SWEEPS, generator=generator)
        super().__init__(search, search.sweep, SWEEPS_AT_ONCE)


class AttractionHunt(_SearchHunt):
    """64 restarts of alternating least squares that are pulled to integers; it ends as soon as one is exact."""

    def __init__(self, shape: Format, rank: int, seed: int, number: int) -> None:
        generator = stream(seed, "matmul", "attraction", number)
        self._attraction = Attraction(shape, rank, restarts=ATTRACTION_RESTARTS, generator=generator)
        super().__init__(self._attraction, self._attraction.sweep, SWEEPS_AT_ONCE)

    def discovery(self) -> Discovery | None:
        """Among the restarts that were exact after rounding."""
        return settle(self._attraction.candidates()) if self._attraction.found else None


class DescentHunt(_SearchHunt):
    """Four restarts of AdamW on fresh samples."""

    def __init__(self, shape: Format, rank: int, slots: int, seed: int, number: int) -> None:
        batch, steps = DESCENT_STEPS[slots]
        own = stream_seed(seed, "matmul", "descent", number)
        self._descent = Descent(shape, rank, slots=slots, batch=batch, steps=steps, seed=own, restarts=DESCENT_RESTARTS)
        super().__init__(self._descent, self._descent.step, STEPS_AT_ONCE)

    def loss(self) -> float:
        """That of the last batch, of the restart where it is least."""
        return float(self._descent.losses.min())


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
            self.search.step(FLIPS_AT_ONCE)
        else:
            self.lifted = lift_along(self.search, FLIPS_AT_ONCE, seed=self.seed)
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
