"""What can be proved of parity networks: the right class on every one of the 2^n inputs.

A network that provably reads k bits only is checked on the 2^k rows of those bits, in float32 and in float64. Where every
row is right and the margin is ten thousand times the difference of the two, neither summation order nor kernel choice
can flip a class on any input of zeros and ones, whatever the other bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from grokkit_core.certify.bounds import round_up
from grokkit_core.certify.sampled import certify_sampled
from grokkit_core.manifest import Baseline, Bound, Certificate, Level, Metric
from grokkit_parity.solvers import labels_of

if TYPE_CHECKING:
    from grokkit_core.cassette import Cassette
    from grokkit_parity.law import Parity

MOST_BITS = 20
"""Live bits up to which the whole truth table is checked."""

LEAST_MARGIN = 0.1
MOST_GAP = 1e-4
"""Of the margin: how far float32 and float64 may differ."""

SAMPLED_WIDTH = 4_096
"""Bits up to which baselines and the unpruned network are sampled."""

SHOWN_BITS = 4


@dataclass(frozen=True)
class TruthTable:
    """Every row of the live bits: the margins of the right class "row" in float32 and in float64, and their largest gap."""

    live: tuple[int, ...]
    single: Tensor
    double: Tensor
    gap: float

    @property
    def margin(self) -> float:
        """The least margin of both."""
        return min(float(self.single.min()), float(self.double.min()))

    @property
    def holds(self) -> bool:
        """Whether every row is right with a margin that no rounding can cross."""
        return self.margin > LEAST_MARGIN and self.gap <= MOST_GAP * self.margin


def truth_table(cassette: Cassette, support: Sequence[int]) -> TruthTable | None:
    """The table of a cassette that provably reads at most twenty bits, against the parity of `support`; None for others."""
    found = cassette.architecture.live_columns(cassette.manifest.architecture.config, cassette.tensors)
    if found is None:
        return None
    live = tuple(sorted(set(found) | set(support)))
    if len(live) > MOST_BITS:
        return None
    rows = _rows(len(live))
    labels = labels_of(rows, tuple(live.index(bit) for bit in support))
    width = int(cassette.manifest.inputs[0].axes[1])
    margins = {dtype: _margins(cassette, rows, live, width, labels, dtype) for dtype in (torch.float32, torch.float64)}
    single, double = margins[torch.float32], margins[torch.float64]
    gap = float((single - double).abs().max())
    return TruthTable(tuple(found), single, double, gap)


def certify_parity(task: Parity, cassette: Cassette, *, level: Level, seed: int) -> Certificate:
    """`exact` by the whole truth table of the live bits, `failed` where a row is wrong; sampled for networks that read more."""
    sampled = certify_sampled(task, cassette, level=level, seed=seed) if task.width <= SAMPLED_WIDTH else None
    table = truth_table(cassette, task.support)
    if table is None:
        return sampled or _unknown(task, cassette, level, seed)
    baselines = sampled.baselines if sampled else (Baseline("constant", "accuracy", 0.5, {}),)
    metrics = tuple(_metric(name, value, table.gap) for name, value in (("margin", table.margin), ("gap", table.gap)))
    wrong = int((torch.minimum(table.single, table.double) <= 0).sum())
    bits = ", ".join(map(str, task.support))
    count = len(table.single)
    made = Certificate(
        verdict="exact",
        statement=f"parity of bits {bits}: right on all 2^{task.width} inputs, margin {table.margin:.3g} against a "
        f"rounding of {table.gap:.1g}" + _solvers(baselines),
        domain=f"every input of {task.width} zeros and ones",
        method="exhaustive",
        formula=_formula(task.support, table),
        bounds=(Bound("gap over margin", round_up(table.gap / table.margin) if table.margin > 0 else 1e9, "1"),),
        metrics=metrics,
        baselines=baselines,
        seed=seed,
        dtype=str(cassette.dtype).removeprefix("torch.") if cassette.dtype.is_floating_point else "float32",
        level=level,
    )
    if table.holds:
        return made
    reason = (
        f"wrong on {wrong} of the {count} rows of its live bits" if wrong else "the margin does not exceed rounding"
    )
    return replace(made, verdict="failed", statement=f"parity of bits {bits}: {reason}", bounds=(), formula=())


def _rows(width: int) -> Tensor:
    """Every row of `width` bits, "2^width width", uint8, counting upwards."""
    numbers = torch.arange(2**width).unsqueeze(1)
    return (numbers >> torch.arange(width - 1, -1, -1) & 1).to(torch.uint8)


def _margins(
    cassette: Cassette, rows: Tensor, live: Sequence[int], width: int, labels: Tensor, dtype: torch.dtype
) -> Tensor:
    """How far the logit of the right class lies above the other, in float64, "row"; a NaN counts as wrong."""
    module, chunk = cassette.module_for(dtype), max(1, 2**26 // width)
    parts = []
    for start in range(0, len(rows), chunk):
        bits = torch.zeros(len(rows[start : start + chunk]), width, dtype=torch.uint8)
        bits[:, list(live)] = rows[start : start + chunk]
        with torch.inference_mode():
            logits = module(bits.to(cassette.device)).double().cpu()
        right = labels[start : start + chunk].unsqueeze(1)
        parts.append((logits.gather(1, right) - logits.gather(1, 1 - right))[:, 0])
    return torch.cat(parts).nan_to_num(nan=-torch.inf)


def _metric(name: str, value: float, gap: float) -> Metric:
    """A figure of the truth table; other machines may differ by rounding."""
    return Metric(name, value, "1", gap, (value - gap, value + gap), 1.0, 1, {})


def _formula(support: Sequence[int], table: TruthTable) -> tuple[str, ...]:
    """The law and, for few bits, the margin of every row."""
    law = " xor ".join(f"b{bit}" for bit in support)
    if len(support) > SHOWN_BITS or len(table.single) != 2 ** len(support):
        return (f"y = {law}",)
    rows = _rows(len(support)).tolist()
    lines = (f"{''.join(map(str, row))} -> {sum(row) % 2}" for row in rows)
    return (f"y = {law}", *lines)


def _solvers(baselines: Sequence[Baseline]) -> str:
    solved = [baseline.name for baseline in baselines if baseline.metric == "accuracy" and baseline.value == 1.0]
    return f"; so do the solvers {' and '.join(solved)}" if solved else ""


def _unknown(task: Parity, cassette: Cassette, level: Level, seed: int) -> Certificate:
    """A network too wide to sample that reads too many bits to check."""
    return Certificate(
        "failed",
        f"{task.width} bits are too many to sample and the network may read more than {MOST_BITS} of them",
        "",
        "sampled",
        (),
        (),
        (),
        (Baseline("constant", "accuracy", 0.5, {}),),
        seed,
        "float32",
        level,
    )
