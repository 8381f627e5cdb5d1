"""From a scheme that is right modulo 2 to one that is right over the integers: signs for its ones.

An entry of the tensor is a sum of products u v w = (-1)^s with s = s_u + s_v + s_w over the slots where none of the three
is zero. Over such terms sum (-1)^s = terms - 2 sum s (mod 4), so a scheme that is right modulo 4 solves the equations
sum s = (terms - T) / 2 (mod 2), linear over GF(2) in the unknown signs. This is the first step of the Hensel lifting of
Kauers & Moosbauer, "Flip graphs for matrix multiplication" (2022), held to coefficients in {-1, 0, 1}.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from itertools import product

import numpy as np

from grokkit_core.certify.algebraic import Integers
from grokkit_core.errors import UsageError
from grokkit_matmul.flip_graph import FlipGraph
from grokkit_matmul.scheme import Scheme, product_tensor

ATTEMPTS = 20
"""Solutions modulo 4 that are tried over Z; every consistent system that searches produced was exact at the first."""

LIFT_EVERY = 1_000
"""Moves between two attempts along a walk: a lift costs about as much as 2,000 moves of <3,3,3>."""


def lift_signs(scheme: Scheme, *, seed: int, attempts: int = ATTEMPTS) -> Scheme | None:
    """The scheme with signs on its ones that make it exact over the integers; None where none were found.

    Entries are 0 and 1 and right modulo 2, else `UsageError`. None after inconsistent equations is final: no choice of
    signs is right modulo 4. Otherwise up to `attempts` solutions, drawn with `seed`, were right modulo 4 and not exact.
    """
    factors = (scheme.u, scheme.v, scheme.w)
    if not all(np.isin(factor, (0, 1)).all() for factor in factors):
        raise UsageError("a scheme with entries other than 0 and 1", expected="a scheme over GF(2)")
    target = product_tensor(scheme.format)
    if ((scheme.tensor() - target) % 2).any():
        raise UsageError(f"a scheme that is not right modulo 2 for {scheme.format}", expected="a scheme over GF(2)")
    unknowns = scheme.nonzeros
    rows = _eliminate(_equations(scheme, target), unknowns)
    if rows is None:
        return None
    generator = random.Random(seed)
    for _ in range(attempts):
        candidate = _signed(scheme, _solution(rows, unknowns, generator))
        if candidate.is_exact:
            return candidate
    return None


def lift_along(search: FlipGraph, flips: int, *, seed: int, attempts: int = ATTEMPTS) -> Scheme | None:
    """Walk on over GF(2) for up to `flips` moves until a scheme of the target rank lifts; that scheme, or None.

    Most schemes of a walk have no signs, some of their neighbours do. Attempts fall on arrivals and on multiples
    of `LIFT_EVERY` moves, so a walk that is stopped, stored and resumed ends with the same scheme.
    """
    if search.ring != "gf2":
        raise UsageError(f"a search over {search.ring}", expected="a search over gf2; the other needs no signs")
    end = search.flips + flips
    while True:
        if search.arrived or (search.reached and search.flips % LIFT_EVERY == 0):
            lifted = lift_signs(search.scheme(), seed=seed, attempts=attempts)
            if lifted is not None:
                return lifted
        if search.flips >= end:
            return None
        search.wander(min(LIFT_EVERY - search.flips % LIFT_EVERY, end - search.flips))


def _equations(scheme: Scheme, target: Integers) -> Iterable[int]:
    """One row for each entry of the tensor that has terms: bits of the unknowns, and above them the right-hand side.

    Unknown i is the sign of the i-th non-zero of u, then v, then w, in the order of their storage.
    """
    bit = 1
    places: list[list[list[tuple[tuple[int, int], int]]]] = []
    for factor in (scheme.u, scheme.v, scheme.w):
        slots: list[list[tuple[tuple[int, int], int]]] = [[] for _ in range(scheme.rank)]
        for slot, first, second in np.argwhere(factor):
            slots[slot].append(((int(first), int(second)), bit))
            bit <<= 1
        places.append(slots)
    rows: dict[tuple[int, ...], int] = {}
    terms: dict[tuple[int, ...], int] = {}
    for of_u, of_v, of_w in zip(*places, strict=True):
        for (ij, sign_u), (kl, sign_v), (pq, sign_w) in product(of_u, of_v, of_w):
            entry = ij + kl + pq
            rows[entry] = rows.get(entry, 0) ^ sign_u ^ sign_v ^ sign_w
            terms[entry] = terms.get(entry, 0) + 1
    return (row | bit * ((terms[entry] - int(target[entry])) // 2 & 1) for entry, row in rows.items())


def _eliminate(equations: Iterable[int], unknowns: int) -> dict[int, int] | None:
    """Rows in echelon form by their highest unknown; None where they contradict each other."""
    mask = (1 << unknowns) - 1
    rows: dict[int, int] = {}
    for equation in equations:
        row = equation
        while row & mask:
            pivot = (row & mask).bit_length() - 1
            if pivot not in rows:
                rows[pivot] = row
                break
            row ^= rows[pivot]
        else:
            if row:
                return None
    return rows


def _solution(rows: dict[int, int], unknowns: int, generator: random.Random) -> int:
    """A solution drawn uniformly: free unknowns are coins, the others follow from lower ones."""
    found = 0
    for unknown in range(unknowns):
        if unknown in rows:
            row = rows[unknown]
            sign = (row >> unknowns) ^ (row & found).bit_count() & 1
        else:
            sign = generator.getrandbits(1)
        found |= sign << unknown
    return found


def _signed(scheme: Scheme, signs: int) -> Scheme:
    """The scheme whose i-th one carries the sign of bit i."""
    factors = []
    for factor in (scheme.u, scheme.v, scheme.w):
        signed = factor.copy()
        for place in np.argwhere(factor):
            signed[tuple(place)] = 1 - 2 * (signs & 1)
            signs >>= 1
        factors.append(signed)
    return Scheme(*factors)
