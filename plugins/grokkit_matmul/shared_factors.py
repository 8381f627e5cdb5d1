"""Which slots of a scheme share a factor: a list of pairs to draw from, kept up to date one factor at a time."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

Move = tuple[int, int, int, int, int, int]
"""Cells (f, f', g, g', h, h'): slots r and s agree in f; g and h are the other factors of r, primed those of s."""


@cache
def moves(slots: int) -> dict[int, tuple[Move, ...]]:
    """For each pair of cells that may agree, the four ways to flip it: which slot is r, and which factor is g."""
    found: dict[int, tuple[Move, ...]] = {}
    for axis in range(3):
        f, first, second = (other * slots for other in (axis, (axis + 1) % 3, (axis + 2) % 3))
        for low in range(slots):
            for high in range(low + 1, slots):
                found[(f + low) * 3 * slots + f + high] = tuple(
                    (f + r, f + s, g + r, g + s, h + r, h + s)
                    for r, s in ((low, high), (high, low))
                    for g, h in ((first, second), (second, first))
                )
    return found


class SharedFactors:
    """The pairs of cells of one axis with the same key; cell `axis * slots + slot` holds one factor of one slot.

    A pair (x, y), x < y, stands in `pairs` as the number `x * cells + y`. Key 0 means that the cell is empty. The order
    of `pairs` depends on the history and decides what a draw means, so it is part of the state of a search.
    """

    def __init__(self, slots: int) -> None:
        self.cells = 3 * slots
        self.keys = [0] * self.cells
        self.pairs: list[int] = []
        self._where = [0] * self.cells**2
        axes: list[dict[int, int]] = [{}, {}, {}]
        self._holders = [axes[cell // slots] for cell in range(self.cells)]

    def rekey(self, cell: int, key: int) -> None:
        """Give the cell a new key: the pairs that it leaves go, those that it joins come."""
        holders, cells, pairs, where = self._holders[cell], self.cells, self.pairs, self._where
        old, bit = self.keys[cell], 1 << cell
        self.keys[cell] = key
        if old:
            rest = holders[old] ^ bit
            if rest:
                holders[old] = rest
                while rest:
                    other = rest.bit_length() - 1
                    rest ^= 1 << other
                    pair = cell * cells + other if cell < other else other * cells + cell
                    last = pairs.pop()
                    if last != pair:
                        index = where[last] = where[pair]
                        pairs[index] = last
            else:
                del holders[old]
        if key:
            rest = holders.get(key, 0)
            holders[key] = rest | bit
            while rest:
                other = rest.bit_length() - 1
                rest ^= 1 << other
                pair = cell * cells + other if cell < other else other * cells + cell
                where[pair] = len(pairs)
                pairs.append(pair)

    def reorder(self, pairs: Iterable[int]) -> bool:
        """Put the pairs into the given order; False, and nothing done, if they are not the same pairs."""
        wanted = list(pairs)
        if sorted(wanted) != sorted(self.pairs):
            return False
        self.pairs[:] = wanted
        for index, pair in enumerate(wanted):
            self._where[pair] = index
        return True
