"""Flip graphs: every move keeps the scheme right, a walk resumes to the same end, signs are found or proved absent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import pytest
from grokkit_matmul import flip_graph
from grokkit_matmul.flip_graph import FlipGraph
from grokkit_matmul.lifting import LIFT_EVERY, lift_along, lift_signs
from grokkit_matmul.packed import Bits, Ring, Trits
from grokkit_matmul.scheme import Format, Scheme, product_tensor
from grokkit_matmul.shared_factors import SharedFactors
from hypothesis import given, settings
from hypothesis import strategies as st

from grokkit_core.errors import UsageError

RINGS: tuple[Ring, ...] = ("gf2", "integers")
STRASSEN = Format(2, 2, 2)
NO_SIGNS = 5
"""A seed whose scheme of <2,2,3:11> over GF(2) has no signs that make it right over Z."""

rings = st.sampled_from(RINGS)
sizes = st.integers(1, 3)
shapes = st.builds(Format, sizes, sizes, sizes)
seeds = st.integers(0, 2**32)


@pytest.fixture(scope="module", autouse=True)
def restless() -> Iterator[None]:
    """Short limits, so that a few hundred moves hold plus moves and restarts as well."""
    with pytest.MonkeyPatch.context() as patch:
        for ring in RINGS:
            patch.setitem(flip_graph.STUCK, ring, 150)
            patch.setitem(flip_graph.CAP, ring, 2_500)
        yield


def right(scheme: Scheme, ring: Ring) -> bool:
    wrong = scheme.tensor() - product_tensor(scheme.format)
    return not (wrong % 2 if ring == "gf2" else wrong).any()


def found(shape: Format, rank: int, seed: int, ring: Ring = "gf2") -> Scheme:
    search = FlipGraph(shape, rank, seed, ring)
    assert search.step(200_000)
    return search.scheme()


def mutations(scheme: Scheme, values: tuple[int, ...]) -> Iterator[Scheme]:
    """Every scheme with one entry set to another one of `values`."""
    for which, factor in enumerate((scheme.u, scheme.v, scheme.w)):
        for place in np.ndindex(factor.shape):
            for value in values:
                if value != factor[place]:
                    factors = [scheme.u.copy(), scheme.v.copy(), scheme.w.copy()]
                    factors[which][place] = value
                    yield Scheme(*factors)


def same(left: Scheme, right: Scheme) -> bool:
    return all(np.array_equal(getattr(left, name), getattr(right, name)) for name in "uvw")


# -- packed vectors and shared factors ---------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(-1, 1), st.integers(-1, 1)), min_size=1, max_size=9), st.integers(0, 3))
def test_packed_vectors_add_negate_and_compare_as_vectors_do(entries: list[tuple[int, int]], spare: int) -> None:
    left, right = ([pair[side] for pair in entries] for side in (0, 1))
    total = [a + b for a, b in entries]
    trits, bits = Trits(len(entries) + spare), Bits(len(entries) + spare)
    added = trits.add(trits.pack(left), trits.pack(right))
    assert added == (trits.pack(total) if max(map(abs, total)) < 2 else None)
    assert trits.unpack(trits.negate(trits.pack(left)), len(left)) == [-entry for entry in left]
    same = left == right or left == [-entry for entry in right]
    assert (trits.key(trits.pack(left)) == trits.key(trits.pack(right))) == same
    assert bits.unpack(bits.pack(left) ^ bits.pack(right), len(left)) == [entry % 2 for entry in total]


@given(st.lists(st.tuples(st.integers(0, 11), st.integers(0, 3)), max_size=60))
def test_pairs_that_share_a_key_are_exactly_those_a_full_scan_finds(changes: list[tuple[int, int]]) -> None:
    shared = SharedFactors(4)
    for cell, key in changes:
        shared.rekey(cell, key)
    axes = [range(4), range(4, 8), range(8, 12)]
    scan = {12 * x + y for axis in axes for x in axis for y in axis if x < y and shared.keys[x] == shared.keys[y] != 0}
    assert sorted(shared.pairs) == sorted(scan)


# -- the walk ----------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(shapes, rings, seeds, st.lists(st.integers(1, 400), min_size=1, max_size=8))
def test_the_identity_holds_after_every_few_moves(shape: Format, ring: Ring, seed: int, parts: list[int]) -> None:
    search = FlipGraph(shape, 1, seed, ring)
    for part in parts:
        search.wander(part)
        scheme = search.scheme()
        assert right(scheme, ring)
        assert scheme.rank == search.rank
        assert set(np.unique(np.concatenate([scheme.u.ravel(), scheme.v.ravel(), scheme.w.ravel()]))) <= (
            {0, 1} if ring == "gf2" else {-1, 0, 1}
        )
    assert search.flips == sum(parts)


@pytest.mark.parametrize("ring", RINGS)
def test_single_moves_keep_the_identity_through_reductions_plus_moves_and_restarts(ring: Ring) -> None:
    search = FlipGraph(STRASSEN, 6, 3, ring)
    changes = set()
    for _ in range(3_000):
        before, restarts = search.rank, search.restarts
        search.step(1)
        assert right(search.scheme(), ring)
        changes.add("restart" if search.restarts > restarts else search.rank - before)
    assert changes >= {-1, 0, 1, "restart"}


@pytest.mark.parametrize("ring", RINGS)
def test_a_walk_starts_from_the_standard_algorithm(ring: Ring) -> None:
    scheme = FlipGraph(Format(2, 3, 4), 24, 0, ring).scheme()
    assert scheme.rank == 24
    assert scheme.nonzeros == 3 * 24
    assert scheme.is_exact


def test_rank_seven_is_found_over_both_rings_and_only_the_integers_are_exact_over_z() -> None:
    over_z, modulo_2 = (found(STRASSEN, 7, seed=1, ring=ring) for ring in ("integers", "gf2"))
    assert over_z.rank == modulo_2.rank == 7
    assert over_z.is_exact
    assert right(modulo_2, "gf2")
    assert not modulo_2.is_exact


@pytest.mark.parametrize("ring", RINGS)
def test_no_change_of_one_entry_leaves_a_scheme_right(ring: Ring) -> None:
    values = (0, 1) if ring == "gf2" else (-1, 0, 1)
    changed = list(mutations(found(STRASSEN, 7, 0, ring), values))
    assert len(changed) == 84 * (len(values) - 1)
    assert not any(right(scheme, ring) for scheme in changed)


@pytest.mark.parametrize("ring", RINGS)
def test_rank_six_is_never_reached_for_two_by_two(ring: Ring) -> None:
    search = FlipGraph(STRASSEN, 6, 0, ring)
    assert not any(search.step(5_000) for _ in range(8))
    assert search.flips == 40_000
    assert search.restarts >= 10


def test_a_reached_target_stops_the_walk_and_wandering_goes_on() -> None:
    search = FlipGraph(STRASSEN, 7, 0, "gf2")
    assert search.step(200_000)
    flips, scheme = search.flips, search.scheme()
    assert search.step(1_000)
    assert search.flips == flips < 200_000
    search.wander(1)
    assert search.flips == flips + 1
    assert not same(search.scheme(), scheme)


@pytest.mark.parametrize("rank", [0, -1, 9])
def test_a_rank_that_no_walk_can_aim_at_is_refused(rank: int) -> None:
    with pytest.raises(UsageError, match=rf"rank {rank} for <2,2,2>; expected a rank from 1 to 8"):
        FlipGraph(STRASSEN, rank, 0, "gf2")


def test_an_unknown_ring_is_refused() -> None:
    with pytest.raises(UsageError, match="'integers' or 'gf2'"):
        FlipGraph(STRASSEN, 7, 0, "reals")  # type: ignore[arg-type]


# -- stop and resume ---------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(rings, seeds, st.lists(st.integers(1, 1_500), min_size=1, max_size=3), st.integers(1, 1_500))
def test_a_walk_resumed_from_json_ends_bit_for_bit_where_the_uninterrupted_one_does(
    ring: Ring, seed: int, cuts: list[int], rest: int
) -> None:
    shape = Format(2, 2, 3)
    whole, part = FlipGraph(shape, 10, seed, ring), FlipGraph(shape, 10, seed, ring)
    whole.step(sum(cuts) + rest)
    for cut in cuts:
        part.step(cut)
        stored = json.loads(json.dumps(part.state()))
        part = FlipGraph(shape, 10, 0, ring)
        part.restore(stored)
    part.step(rest)
    assert part.state() == whole.state()
    assert same(part.scheme(), whole.scheme())


def test_the_order_of_the_pairs_is_part_of_the_state() -> None:
    search, other = FlipGraph(Format(2, 2, 3), 10, 0, "gf2"), FlipGraph(Format(2, 2, 3), 10, 0, "gf2")
    search.step(500)
    state = search.state()
    other.restore({**state, "pairs": sorted(state["pairs"])})
    search.step(50)
    other.step(50)
    assert not same(search.scheme(), other.scheme())


def test_a_state_of_another_search_is_refused() -> None:
    state = FlipGraph(STRASSEN, 7, 0, "gf2").state()
    with pytest.raises(UsageError, match="expected a state of .*'target': 6"):
        FlipGraph(STRASSEN, 6, 0, "gf2").restore(state)
    with pytest.raises(UsageError, match="factors"):
        FlipGraph(STRASSEN, 7, 0, "gf2").restore({name: state[name] for name in state if name != "factors"})


def swapped(values: list[Any], index: int, value: Any) -> list[Any]:
    return [*values[:index], value, *values[index + 1 :]]


@pytest.mark.parametrize("ring", RINGS)
def test_a_damaged_state_is_refused_and_changes_nothing(ring: Ring) -> None:
    search = FlipGraph(STRASSEN, 7, 0, ring)
    search.step(40)
    state = search.state()
    damages: list[dict[str, Any]] = [
        {"factors": swapped(state["factors"], 0, value)} for value in (0, state["factors"][0] ^ 1, 1 << 20)
    ]
    damages += [{"factors": state["factors"][:-1]}, {"pairs": state["pairs"][1:]}]
    for damage in damages:
        with pytest.raises(UsageError, match="no walk has"):
            search.restore({**state, **damage})
        assert search.state() == state


# -- signs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_signs_make_a_scheme_modulo_2_exact_over_the_integers(seed: int) -> None:
    scheme = found(STRASSEN, 7, seed)
    lifted = lift_signs(scheme, seed=seed)
    assert lifted is not None
    assert lifted.is_exact
    assert all(np.array_equal(abs(getattr(lifted, name)), getattr(scheme, name)) for name in "uvw")


def test_no_change_of_one_entry_of_a_lifted_scheme_stays_exact() -> None:
    lifted = lift_signs(found(STRASSEN, 7, 0), seed=0)
    assert lifted is not None
    assert not any(scheme.is_exact for scheme in mutations(lifted, (-1, 0, 1)))


def test_a_scheme_with_one_bit_changed_is_refused() -> None:
    for scheme in mutations(found(STRASSEN, 7, 0), (0, 1)):
        with pytest.raises(UsageError, match="not right modulo 2"):
            lift_signs(scheme, seed=0)


def test_a_scheme_that_has_signs_already_is_refused() -> None:
    with pytest.raises(UsageError, match="other than 0 and 1"):
        lift_signs(found(STRASSEN, 7, 0, "integers"), seed=0)


def consistent(scheme: Scheme) -> bool:
    """Whether signs right modulo 4 exist, by ranks of dense matrices and loops over all entries of the tensor."""
    number: dict[tuple[str, int, int, int], int] = {}
    for name in "uvw":
        for r, row_of, column_of in np.argwhere(getattr(scheme, name)).tolist():
            number[name, r, row_of, column_of] = len(number)
    m, k, n = scheme.format.m, scheme.format.k, scheme.format.n
    rows = []
    for i, j, a, b, p, q in product(range(m), range(k), range(k), range(n), range(m), range(n)):
        row, terms = np.zeros(len(number) + 1, np.int64), 0
        for r in range(scheme.rank):
            if scheme.u[r, i, j] and scheme.v[r, a, b] and scheme.w[r, p, q]:
                terms += 1
                for sign in (("u", r, i, j), ("v", r, a, b), ("w", r, p, q)):
                    row[number[sign]] ^= 1
        row[-1] = (terms - (j == a and p == i and q == b)) // 2 % 2
        rows.append(row)
    matrix = np.array(rows)
    return rank_modulo_2(matrix) == rank_modulo_2(matrix[:, :-1])


def rank_modulo_2(matrix: np.ndarray[Any, Any]) -> int:
    left, rank = matrix.copy(), 0
    for column in range(left.shape[1]):
        below = rank + np.flatnonzero(left[rank:, column])
        if len(below):
            left[[rank, below[0]]] = left[[below[0], rank]]
            others = np.flatnonzero(left[:, column])
            left[others[others != rank]] ^= left[rank]
            rank += 1
    return rank


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limits of searches in earnest."""
    monkeypatch.setitem(flip_graph.STUCK, "gf2", 50_000)
    monkeypatch.setitem(flip_graph.CAP, "gf2", 2_000_000)


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("seed", [NO_SIGNS - 1, NO_SIGNS, NO_SIGNS + 1])
def test_signs_are_refused_exactly_where_the_equations_contradict_each_other(seed: int) -> None:
    scheme = found(Format(2, 2, 3), 11, seed)
    lifted = lift_signs(scheme, seed=0)
    assert (lifted is not None) == consistent(scheme) == (seed != NO_SIGNS)


def test_a_solution_modulo_4_that_is_not_exact_is_drawn_again() -> None:
    """1 = 1 + 1 + 1 (mod 2): one negative term gives 1, but three negative ones give -3, which is 1 modulo 4."""
    ones = Scheme(*(np.ones((3, 1, 1), np.int64) for _ in "uvw"))
    at_once = [lift_signs(ones, seed=seed, attempts=1) is not None for seed in range(40)]
    assert 20 <= sum(at_once) < 40
    assert all(lift_signs(ones, seed=seed) is not None for seed in range(40))


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize(
    ("shape", "rank", "seed", "cut"),
    [(STRASSEN, 7, 0, 77), (Format(2, 2, 4), 14, 0, 997)],
    ids=["every scheme lifts", "many attempts fail"],
)
def test_a_walk_goes_on_until_a_scheme_lifts_and_where_it_is_cut_changes_nothing(
    shape: Format, rank: int, seed: int, cut: int
) -> None:
    def search() -> FlipGraph:
        return FlipGraph(shape, rank, seed, "gf2")

    whole, part = search(), search()
    expected = lift_along(whole, 300_000, seed=0)
    assert expected is not None
    assert expected.is_exact
    assert whole.arrived or whole.flips % LIFT_EVERY == 0
    assert whole.flips > cut
    lifted = None
    while lifted is None and part.flips < whole.flips:
        lifted = lift_along(part, cut, seed=0)
        stored = json.loads(json.dumps(part.state()))
        part = search()
        part.restore(stored)
    assert lifted is not None
    assert same(lifted, expected)


def test_a_walk_over_the_integers_has_nothing_to_lift() -> None:
    with pytest.raises(UsageError, match="needs no signs"):
        lift_along(FlipGraph(STRASSEN, 7, 0, "integers"), 10, seed=0)
