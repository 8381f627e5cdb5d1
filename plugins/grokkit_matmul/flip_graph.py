"""Search for schemes of low rank without training: a random walk over exact schemes, by flips.

The walk starts from the standard algorithm and never leaves the set of right schemes. Two slots that share a factor
trade their other factors (flip); a slot with a zero factor is dropped (reduction); a walk that is stuck takes one slot
more (plus). Flips and reductions: Kauers & Moosbauer, "Flip graphs for matrix multiplication" (2022). Plus moves: Arai,
Ichikawa & Hukushima, "Adaptive flip graph algorithm for matrix multiplication" (2024).
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import Any

import numpy as np

from grokkit_core.errors import UsageError
from grokkit_matmul.packed import Bits, Ring, Trits
from grokkit_matmul.scheme import Format, Scheme, product_tensor
from grokkit_matmul.shared_factors import SharedFactors, moves

STUCK = {"gf2": 50_000, "integers": 30_000}
"""Moves without a reduction after which a slot is added."""

CAP = {"gf2": 2_000_000, "integers": 2_000_000}
"""Moves after which the walk begins again from the standard algorithm."""

SPARE = 2
"""Slots beyond those of the standard algorithm, so that a walk that is stuck at the very start can add one."""

PLUS_DRAWS = 100
"""Draws for a plus move with coefficients in {-1, 0, 1}; a walk that finds none goes on as it was."""

ROLES = tuple(permutations(range(3)))
"""Which factors play a, b and c in a plus move."""

COUNTERS = ("flips", "restarts", "_since_reduction", "_since_restart")


class FlipGraph:
    """A walk towards a scheme of `rank` slots for `shape`; it can be stopped, stored and resumed to the same end.

    `rank` is the number of slots now, `flips` the moves drawn so far (over Z also those refused because a coefficient
    would leave {-1, 0, 1}), `restarts` how often the walk began again. After every move sum_r U_r (x) V_r (x) W_r is
    the tensor of the product, over Z or modulo 2. Raises `UsageError` for a rank that no walk can have as its target.
    """

    _factors: list[int]
    _shared: SharedFactors
    _rank: int

    def __init__(self, shape: Format, rank: int, seed: int, ring: Ring = "integers") -> None:
        self._standard = _standard(shape)
        if not 1 <= rank <= len(self._standard):
            raise UsageError(f"rank {rank} for {shape}", expected=f"a rank from 1 to {len(self._standard)}")
        if ring not in STUCK:
            raise UsageError(f"ring {ring!r}", expected="'integers' or 'gf2'")
        self.shape, self.target, self.ring = shape, rank, ring
        self._lengths = (shape.m * shape.k, shape.k * shape.n, shape.m * shape.n)
        self._vectors = (Bits if ring == "gf2" else Trits)(max(self._lengths))
        self._slots = len(self._standard) + SPARE
        self._random = random.Random(seed)
        self.flips = self.restarts = self._since_reduction = self._since_restart = 0
        self._fill(self._start())

    @property
    def rank(self) -> int:
        """The number of slots now."""
        return self._rank

    @property
    def reached(self) -> bool:
        """Whether the scheme now has no more slots than asked for."""
        return self._rank <= self.target

    @property
    def arrived(self) -> bool:
        """Whether the last move reached the target."""
        return self.reached and self._since_reduction == 0

    def step(self, flips: int) -> bool:
        """Up to `flips` more moves; whether the target is reached (then it stops at once and moves no further)."""
        return self.reached or self.wander(flips)

    def wander(self, flips: int) -> bool:
        """Up to `flips` more moves, on from the target too: other schemes of about this rank; whether one of them is now.

        It stops early only where a reduction arrives at the target (again).
        """
        self._advance(self.flips + flips)
        return self.reached

    def restart(self) -> None:
        """Begin again from the standard algorithm; the random numbers go on, so the walk is another one."""
        self.restarts += 1
        self._since_reduction = self._since_restart = 0
        self._fill(self._start())

    def scheme(self) -> Scheme:
        """The scheme now: int64 factors "rank m k", "rank k n", "rank m n", entries 0 and 1 (gf2) or -1, 0 and 1."""
        m, k, n = self.shape.m, self.shape.k, self.shape.n
        live = self._live()
        u, v, w = (
            np.array(
                [self._vectors.unpack(self._factors[axis * self._slots + slot], length) for slot in live], np.int64
            )
            for axis, length in enumerate(self._lengths)
        )
        return Scheme(u.reshape(-1, m, k), v.reshape(-1, k, n), w.reshape(-1, m, n))

    def state(self) -> dict[str, Any]:
        """Everything that the rest of the walk depends on, as numbers, strings, lists and None: JSON keeps it."""
        version, words, gauss = self._random.getstate()
        return {
            **self._problem(),
            **{name.lstrip("_"): getattr(self, name) for name in COUNTERS},
            "factors": list(self._factors),
            "pairs": list(self._shared.pairs),
            "random": [version, list(words), gauss],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a state of a walk with the same shape, target and ring.

        Raises `UsageError`, and stays as it was, where the state belongs to another search or holds no right scheme.
        """
        names, problem = self.state().keys(), self._problem()
        if state.keys() != names:
            raise UsageError(f"a state with {', '.join(state)}", expected=", ".join(names))
        given = {name: state[name] for name in problem}
        if given != problem:
            raise UsageError(f"a state of {given}", expected=f"a state of {problem}")
        before = self._factors, self._shared, self._rank
        if not (self._legal(state["factors"]) and self._adopt(state["factors"], state["pairs"])):
            self._factors, self._shared, self._rank = before
            raise UsageError("a state with factors or pairs that no walk has", expected="what state() returned")
        for name in COUNTERS:
            setattr(self, name, int(state[name.lstrip("_")]))
        version, words, gauss = state["random"]
        self._random.setstate((version, tuple(words), gauss))

    def _problem(self) -> dict[str, Any]:
        shape = self.shape
        return {"shape": [shape.m, shape.k, shape.n], "target": self.target, "ring": self.ring}

    def _start(self) -> list[int]:
        """The factors of the standard algorithm, axis by axis, and zeros where a slot is free."""
        axes = zip(*self._standard, strict=True)
        return [factor for places in axes for factor in (*(1 << place for place in places), *[0] * SPARE)]

    def _fill(self, factors: Sequence[int]) -> None:
        self._factors = list(factors)
        self._shared = SharedFactors(self._slots)
        for cell, factor in enumerate(self._factors):
            self._shared.rekey(cell, self._vectors.key(factor))
        self._rank = len(self._live())

    def _live(self) -> list[int]:
        return [slot for slot in range(self._slots) if self._factors[slot]]

    def _legal(self, factors: Sequence[int]) -> bool:
        """Whether these are vectors of the ring, one for each cell, and no slot has some zero factors and some not."""
        cells = 3 * self._slots
        return (
            len(factors) == cells
            and all(len({bool(factor) for factor in factors[slot :: self._slots]}) == 1 for slot in range(self._slots))
            and all(
                self._vectors.pack(self._vectors.unpack(factor, self._lengths[cell // self._slots])) == factor
                for cell, factor in enumerate(factors)
            )
        )

    def _adopt(self, factors: Sequence[int], pairs: Sequence[int]) -> bool:
        """Take over factors and pairs from outside; False where they are no right scheme or not its pairs."""
        self._fill(factors)
        difference = self.scheme().tensor() - product_tensor(self.shape)
        wrong = difference % 2 if self.ring == "gf2" else difference
        return not wrong.any() and self._shared.reorder(pairs)

    def _advance(self, end: int) -> None:
        """Moves until `flips` is `end` or a reduction arrives at the target; where it is cut changes nothing."""
        walk = self._walk_gf2 if self.ring == "gf2" else self._walk_integers
        stuck, cap = STUCK[self.ring], CAP[self.ring]
        while self.flips < end:
            if self._since_restart >= cap:
                self.restart()
            room = min(end - self.flips, stuck - self._since_reduction, cap - self._since_restart)
            if room and self._shared.pairs:
                before = self._rank
                done = walk(room)
                self._count(done)
                if self._rank < before:
                    self._since_reduction = 0
                    if self.reached:
                        return
            else:
                if not (self._plus() or self._shared.pairs):
                    self.restart()
                self._count(1)
                self._since_reduction = 0

    def _count(self, moved: int) -> None:
        self.flips += moved
        self._since_reduction += moved
        self._since_restart += moved

    def _walk_gf2(self, room: int) -> int:
        """Flips modulo 2 until the rank falls, no pair is left or `room` is used up; how many."""
        draw, factors, pairs, rekey = self._random.random, self._factors, self._shared.pairs, self._shared.rekey
        table = moves(self._slots)
        for done in range(1, room + 1):
            choice = int(draw() * (4 * len(pairs)))
            _, _, g, g_other, h, h_other = table[pairs[choice >> 2]][choice & 3]
            new_g = factors[g] ^ factors[g_other]
            new_h = factors[h_other] ^ factors[h]
            if new_g and new_h:
                factors[g] = new_g
                factors[h_other] = new_h
                rekey(g, new_g)
                rekey(h_other, new_h)
                if not pairs:
                    return done
            else:
                self._reduce(g, new_g, h_other, new_h)
                return done
        return room

    def _walk_integers(self, room: int) -> int:
        """The same over Z, with both signs; a flip that leaves {-1, 0, 1} is refused and counts."""
        draw, factors, pairs, rekey = self._random.random, self._factors, self._shared.pairs, self._shared.rekey
        table = moves(self._slots)
        width = self._vectors.width
        low = (1 << width) - 1
        for done in range(1, room + 1):
            choice = int(draw() * (8 * len(pairs)))
            f, f_other, g, g_other, h, h_other = table[pairs[choice >> 3]][choice >> 1 & 3]
            minus = choice & 1
            add_g, add_h = factors[g_other], factors[h]
            if minus:
                add_g = add_g >> width | (add_g & low) << width
            if minus != (factors[f] == factors[f_other]):
                add_h = add_h >> width | (add_h & low) << width
            new_g, new_h = factors[g], factors[h_other]
            if new_g & add_g or new_h & add_h:
                continue
            new_g |= add_g
            new_g &= ~(new_g >> width | (new_g & low) << width)
            new_h |= add_h
            new_h &= ~(new_h >> width | (new_h & low) << width)
            if new_g and new_h:
                factors[g] = new_g
                factors[h_other] = new_h
                minus_g, minus_h = new_g >> width | (new_g & low) << width, new_h >> width | (new_h & low) << width
                rekey(g, new_g if new_g < minus_g else minus_g)
                rekey(h_other, new_h if new_h < minus_h else minus_h)
                if not pairs:
                    return done
            else:
                self._reduce(g, new_g, h_other, new_h)
                return done
        return room

    def _reduce(self, *changes: int) -> None:
        """Set cells, given as cell, factor, cell, factor ..., and drop every slot of theirs that has a zero factor."""
        for cell, factor in zip(changes[::2], changes[1::2], strict=True):
            self._put(cell, factor)
        for slot in {cell % self._slots for cell in changes[::2]}:
            cells = range(slot, 3 * self._slots, self._slots)
            if not all(self._factors[cell] for cell in cells):
                for cell in cells:
                    self._put(cell, 0)
                self._rank -= 1

    def _put(self, cell: int, factor: int) -> None:
        self._factors[cell] = factor
        self._shared.rekey(cell, self._vectors.key(factor))

    def _plus(self) -> bool:
        """abc + a'b'c' = a(b+b')c + ab'(c'-c) + (a'-a)b'c' on two slots; False where no slot is free or no draw fits."""
        live = self._live()
        free = next((slot for slot in range(self._slots) if not self._factors[slot]), None)
        if free is None or len(live) < 2:
            return False
        add, negate, factors = self._vectors.add, self._vectors.negate, self._factors
        for _ in range(PLUS_DRAWS):
            r, s = self._random.sample(live, 2)
            a, b, c = (axis * self._slots for axis in self._random.choice(ROLES))
            sum_b = add(factors[b + r], factors[b + s])
            rest_c = add(factors[c + s], negate(factors[c + r]))
            rest_a = add(factors[a + s], negate(factors[a + r]))
            if sum_b and rest_c and rest_a:
                for axis, factor in ((a, rest_a), (b, factors[b + s]), (c, factors[c + s])):
                    self._put(axis + free, factor)
                self._put(a + s, factors[a + r])
                self._put(b + r, sum_b)
                self._put(c + s, rest_c)
                self._rank += 1
                return True
        return False


def _standard(shape: Format) -> list[tuple[int, int, int]]:
    """The m k n products of one entry of A and one of B, each as the places of its three ones."""
    return [
        (row * shape.k + inner, inner * shape.n + column, row * shape.n + column)
        for row in range(shape.m)
        for inner in range(shape.k)
        for column in range(shape.n)
    ]
