"""From trained factors to integers that are proved: polish, fix the gauge or round, and check the tensor exactly.

A failure stays a failure: nothing here knows a right answer that could stand in for one that was not found.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from grokkit_core.errors import CheckFailed
from grokkit_core.streams import stream
from grokkit_matmul import als, gauge
from grokkit_matmul.factors import Factors
from grokkit_matmul.scheme import Format, Scheme

SWEEPS = 150
POLISHES = 3
"""Rounds of polish, each followed by a look at every restart; the second and third add 1 to 4 of 100 runs of descent."""

NEAR = 0.5
"""The tensor error below which a restart counts as trained: half of the least that six slots reach for <2,2,2>.

The polish is a training too: by itself, with the gauge, it solved 77 of 200 networks that had learned nothing. It may
finish what training has found, so it is not shown the rest.
"""


@dataclass(frozen=True, eq=False)
class Discovery:
    """An exact scheme and its way: `gauge.replay(raw, x, y, z, scales)` rounds to `scheme`.

    `raw` "rank m k", etc., are the float factors, polished where a gauge was fixed, and `residual` is their distance from
    the tensor of the product; `delta` is the largest distance of a replayed entry from its integer; `naive_exact` says
    whether rounding without a gauge would have been enough, before or after the polish.
    """

    scheme: Scheme
    raw: Factors
    x: Tensor
    y: Tensor
    z: Tensor
    scales: Tensor
    delta: float
    naive_exact: bool
    residual: float


def settle(factors: Factors) -> Discovery | None:
    """The first exact scheme among trained factors "rank m k" or "restart rank m k", best residual first; None: none is.

    <2,2,2:7> is polished and brought to integers by its gauge, where training has come near a solution. Other formats
    are rounded as they are, so they need factors that were drawn to integers while trained; their sandwich is the
    identity and their scales are one.
    """
    if factors.u.dim() == 3:
        factors = Factors(factors.u[None], factors.v[None], factors.w[None])
    trained = factors.double()
    if trained.format != gauge.SQUARE or trained.rank != gauge.RANK:
        return _first(_by_rounding(trained.select(index)) for index in _best_first(trained))
    trained = trained.select(torch.nonzero(trained.residual() < NEAR).flatten())
    polished = trained
    for _ in range(POLISHES):
        polished = als.polish(polished)
        found = _first(_by_gauge(trained.select(at), polished.select(at)) for at in _best_first(polished))
        if found is not None:
            return found
    return None


def _first(found: Iterable[Discovery | None]) -> Discovery | None:
    return next((each for each in found if each is not None), None)


def _best_first(factors: Factors) -> list[int]:
    order: list[int] = torch.nan_to_num(factors.residual(), nan=torch.inf).argsort(stable=True).tolist()
    return order


def _by_gauge(trained: Factors, polished: Factors) -> Discovery | None:
    gauged = gauge.fix(polished)
    if gauged is None or not gauged.scheme.is_exact:
        return None
    naive = any(gauge.rounded(raw)[0].is_exact for raw in (trained, polished))
    way = (gauged.x, gauged.y, gauged.z, gauged.scales, gauged.delta)
    return Discovery(gauged.scheme, polished, *way, naive, float(polished.residual()))


def _by_rounding(raw: Factors) -> Discovery | None:
    scheme, delta = gauge.rounded(raw)
    if not scheme.is_exact:
        return None
    shape = raw.format
    x, y, z = (torch.eye(size).to(raw.u) for size in (shape.m, shape.k, shape.n))
    return Discovery(scheme, raw, x, y, z, raw.u.new_ones(raw.rank, 2), delta, True, float(raw.residual()))


def discover(batches: Iterable[Factors]) -> Discovery:
    """The first exact scheme among batches of trained factors; raises `CheckFailed` where no batch holds one."""
    count = 0
    for factors in batches:
        found = settle(factors)
        if found is not None:
            return found
        count += 1
    raise CheckFailed(
        f"none of {count} batches of trained factors passed the exact check",
        hint="train more restarts or batches, or choose another seed",
    )


def discover_als(shape: Format, rank: int, seed: int, *, restarts: int = 8, batches: int = 20) -> Discovery:
    """An exact scheme of this rank by alternating least squares; raises `CheckFailed` where all batches fail.

    The same seed gives the same scheme. Rounding alone settles no other format than <2,2,2:7>.
    """
    return discover(_als_batches(shape, rank, seed, restarts, batches))


def _als_batches(shape: Format, rank: int, seed: int, restarts: int, batches: int) -> Iterator[Factors]:
    for number in range(batches):
        generator = stream(seed, "matmul", "als", number)
        yield als.Als(shape, rank, restarts=restarts, sweeps=SWEEPS, generator=generator).run()
