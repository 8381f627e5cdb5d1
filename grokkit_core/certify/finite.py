"""The certificate of a cassette whose domain is finite: every input is tried against the task's oracle."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from grokkit_core.certify.exhaustive import Exhausted, domain_size, exhaust, finite_values
from grokkit_core.certify.sampled import certify_sampled
from grokkit_core.errors import UsageError
from grokkit_core.manifest import Certificate, Level, Metric
from grokkit_core.specs import Event
from grokkit_core.task import Task
from grokkit_core.tensors import Signature

if TYPE_CHECKING:
    from grokkit_core.cassette import Cassette

HALF = 0.5
"""An output closer to a whole number than this rounds to it."""

CHUNK_ELEMENTS = 2**22
"""Input elements that are in memory at a time."""

Margin = Callable[[Tensor, Tensor], Tensor]
"""How far each prediction "batch *out" is from being wrong, given the oracle's "batch *out": "batch", positive if right."""


def rounds_right(predictions: Tensor, exact: Tensor) -> Tensor:
    """The default margin: one half less the largest distance of an output from the oracle's, "batch"."""
    return HALF - (predictions.double() - exact.double()).abs().flatten(1).amax(1)


def certify_exhaustive(
    task: Task, cassette: Cassette, *, level: Level, seed: int, margin: Margin = rounds_right
) -> Certificate:
    """`exact` where every input of the cassette's finite domain is right by `margin`, `failed` where one is not.

    Metrics and baselines are those of a sampled certificate, with the least margin added. The proof is made at either
    level. Raises `UsageError` for a domain that is not finite or that has more than 2^40 inputs.
    """
    signature = cassette.signature
    count = domain_size(signature)
    if count is None:
        raise UsageError(f"the domain of {cassette.manifest.ref}", expected="finite sets of values on fixed axes")
    sampled = certify_sampled(task, cassette, level=level, seed=seed)
    found = _tried(task, cassette, count, margin)
    worst = Metric("least_margin", found.worst, "1", 0.0, (found.worst, found.worst), 1.0, found.checked, {})
    if not found.holds or sampled.verdict == "failed":
        reason = f"wrong on {found.wrong:,} of {count:,} inputs, first on number {found.first}"
        return replace(
            sampled, verdict="failed", statement=reason, domain=f"all {count:,} inputs", method="exhaustive", metrics=()
        )
    statement = f"right on all {count:,} inputs, least margin {found.worst:.3g}; {sampled.statement}"
    return replace(
        sampled,
        verdict="exact",
        statement=statement,
        domain=f"all {count:,} inputs of the domain",
        method="exhaustive",
        metrics=(*sampled.metrics, worst),
    )


def domain_rows(signature: Signature, start: int, stop: int, dtype: torch.dtype) -> dict[str, Tensor]:
    """Inputs number `start` to `stop` - 1 of a finite domain by name, "stop-start *in"; the last element counts fastest.

    Each tensor has `dtype` where its spec lists that, else the first dtype that is listed.
    """
    rest = torch.arange(start, stop, dtype=torch.int64)
    made: dict[str, Tensor] = {}
    for spec in reversed(signature.inputs):
        values = torch.tensor(finite_values(spec), dtype=torch.float64)
        shape = [axis for axis in spec.axes[1:] if isinstance(axis, int)]
        columns = []
        for _ in range(math.prod(shape)):
            columns.append(values[rest % len(values)])
            rest = rest // len(values)
        name = str(dtype).removeprefix("torch.")
        kind = getattr(torch, name if name in spec.dtypes else spec.dtypes[0])
        made[spec.name] = torch.stack(columns[::-1], 1).reshape(len(rest), *shape).to(kind)
    return {spec.name: made[spec.name] for spec in signature.inputs}


def _tried(task: Task, cassette: Cassette, count: int, margin: Margin) -> Exhausted:
    signature = cassette.signature
    elements = sum(math.prod(axis for axis in spec.axes if isinstance(axis, int)) for spec in signature.inputs)

    def check(rows: Mapping[str, Tensor]) -> Tensor:
        inputs = next(iter(rows.values())) if len(rows) == 1 else rows
        return margin(cassette.predict(inputs).cpu(), task.oracle(inputs, {}))

    return exhaust(
        count,
        lambda start, stop: domain_rows(signature, start, stop, cassette.dtype),
        check,
        chunk=max(1, CHUNK_ELEMENTS // max(1, elements)),
        progress=lambda done, of: task.plugins.emit(Event("certify.exhaustive", {"rows": done, "of": of})),
    )
