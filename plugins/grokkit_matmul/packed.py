"""Small vectors packed into one Python integer each, so that a search adds, negates and compares them in single steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Ring = Literal["integers", "gf2"]
"""Where the identity of a scheme holds: over Z (hence over every ring), or modulo 2 only."""


@dataclass(frozen=True)
class Bits:
    """Vectors over GF(2) of at most `width` entries: bit i is entry i."""

    width: int

    def pack(self, entries: Sequence[int]) -> int:
        """The vector as an integer; entries count modulo 2."""
        return sum((entry & 1) << index for index, entry in enumerate(entries))

    def unpack(self, vector: int, length: int) -> list[int]:
        """The first `length` entries, 0 or 1."""
        return [vector >> index & 1 for index in range(length)]

    def add(self, left: int, right: int) -> int | None:
        """The sum; never refused."""
        return left ^ right

    def negate(self, vector: int) -> int:
        """The vector itself: -1 = 1 modulo 2."""
        return vector

    def key(self, vector: int) -> int:
        """A number that two non-zero vectors have in common if and only if they are equal; 0 for the zero vector."""
        return vector


@dataclass(frozen=True)
class Trits:
    """Vectors with entries -1, 0 and 1: bit i says that entry i is 1, bit `width` + i that it is -1."""

    width: int

    def pack(self, entries: Sequence[int]) -> int:
        """The vector as an integer; entries are -1, 0 or 1."""
        return sum(1 << (index + self.width * (entry < 0)) for index, entry in enumerate(entries) if entry)

    def unpack(self, vector: int, length: int) -> list[int]:
        """The first `length` entries, -1, 0 or 1."""
        return [(vector >> index & 1) - (vector >> (self.width + index) & 1) for index in range(length)]

    def add(self, left: int, right: int) -> int | None:
        """The sum; None where an entry would leave {-1, 0, 1}, which is where both have one sign."""
        if left & right:
            return None
        either = left | right
        return either & ~self.negate(either)

    def negate(self, vector: int) -> int:
        """The vector with all signs changed."""
        return vector >> self.width | (vector & ((1 << self.width) - 1)) << self.width

    def key(self, vector: int) -> int:
        """A number that two vectors have in common if and only if they are equal up to sign; 0 for the zero vector."""
        return min(vector, self.negate(vector))
