"""Members inside a router or a superposition beside themselves alone: equal to the bit, isolated, alive."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from grokkit_core.cassette import Cassette
from grokkit_core.dtypes import real_view
from grokkit_core.errors import CheckFailed
from grokkit_core.fusion.composite import without_others
from grokkit_core.streams import stream
from grokkit_core.task import Batch

BATCHES = (1, 2, 3, 7, 16, 33, 64)
"""Batch sizes on which a member is compared with itself alone: kernels differ by size."""


@dataclass(frozen=True)
class Check:
    """A member inside a composition beside itself alone, over `compared` samples of its task.

    `equal`: the same outputs, bit for bit. `isolated`: still the same with every number of all other members set to NaN,
    so that none of them is read. `live`: every output differs from sample to sample.
    """

    member: str
    task: str
    compared: int
    equal: bool
    isolated: bool
    live: bool

    def to_json(self) -> dict[str, Any]:
        """The entry of `checks` in `grokkit compose --json`."""
        return dict(vars(self))


def check_members(made: Cassette, alone: Mapping[str, Cassette], seed: int) -> tuple[Check, ...]:
    """Compare every member with itself alone; raises `CheckFailed` where one differs or reads what is not its own."""
    checks = tuple(_check(made, key, member, seed) for key, member in alone.items())
    for check in checks:
        if not (check.equal and check.isolated):
            what = "gives other outputs" if not check.equal else "reads numbers of other members"
            raise CheckFailed(
                f"member '{check.member}' {what} inside the composition", hint="nothing was saved; please report it"
            )
    return checks


def _check(made: Cassette, key: str, alone: Cassette, seed: int) -> Check:
    apart = without_others(made, key)
    equal = isolated = True
    outputs: list[Tensor] = []
    for size in BATCHES:
        batch = sampled(alone, size, seed)
        expected = alone.predict(batch.inputs, batch.context, force=True)
        inside = made.predict(batch.inputs, batch.context, key=key, force=True)
        isolated &= same(apart.predict(batch.inputs, batch.context, key=key, force=True), expected)
        equal &= same(inside, expected)
        outputs.append(expected)
    last = real_view(outputs[-1])
    live = bool((last != last[:1]).any(0).all())
    return Check(key, alone.manifest.task.id, sum(BATCHES), equal, isolated, live)


def sampled(cassette: Cassette, size: int, seed: int) -> Batch:
    """Samples of a cassette's task in the dtype in which it computes."""
    place = next(iter(cassette.task.evaluation), {})
    batch = cassette.task.sample(size, generator=stream(seed, "composition", size), **place)
    return batch.to(cassette.dtype, cassette.device)


def same(found: Tensor, expected: Tensor) -> bool:
    """Whether two tensors are equal to the bit, NaN for NaN."""
    one, two = real_view(found), real_view(expected)
    return (
        one.dtype == two.dtype
        and torch.equal(one.isnan(), two.isnan())
        and torch.equal(one.nan_to_num(), two.nan_to_num())
    )
