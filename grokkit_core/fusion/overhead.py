"""What it costs to be a member: a composition's answer by key beside the member alone, in one run."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from grokkit_core.benchmark import BATCHES, PAIRS, SEED, Row
from grokkit_core.cassette import Cassette
from grokkit_core.fusion.isolation import sampled
from grokkit_core.task import Batch
from grokkit_core.timing import calls_for, clock_for, paired


def overhead(cassette: Cassette) -> Iterator[Row]:
    """A row a member and batch size; the ratio is the time of the member alone over that of the composition."""
    clock = clock_for(cassette.device)
    for key in cassette.members:
        member = cassette.route(key=key).cassette
        for size in BATCHES:
            batch = sampled(member, size, SEED)

            def alone(member: Cassette = member, batch: Batch = batch) -> Tensor:
                return member.predict(batch.inputs, batch.context, force=True)

            def inside(key: str = key, batch: Batch = batch) -> Tensor:
                return cassette.predict(batch.inputs, batch.context, key=key, force=True)

            with torch.inference_mode():
                calls = calls_for(alone, clock), calls_for(inside, clock)
                times = paired(alone, inside, pairs=PAIRS, clock=clock, calls=calls)
            yield Row(key, size, times.second_s, times.ratio, {"alone_s": times.first_s})
