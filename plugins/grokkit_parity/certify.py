"""What can be proved of parity networks: the right class on every one of the 2^n inputs.

A network that provably reads k bits only is checked on the 2^k rows of those bits, in float32 and in float64. Where every
row is right and the margin is ten thousand times the difference of the two, neither summation order nor kernel choice
can flip a class on any input of zeros and ones, whatever the other bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from grokkit_core.architecture import Layer
from grokkit_core.certify.bounds import round_up
from grokkit_core.certify.exhaustive import Exhausted, bit_rows, exhaust
from grokkit_core.certify.intervals import Activation, Affine, output_box
from grokkit_core.certify.sampled import certify_sampled
from grokkit_core.manifest import Baseline, Bound, Certificate, Level, Metric
from grokkit_core.specs import Event
from grokkit_parity.solvers import labels_of

if TYPE_CHECKING:
    from grokkit_core.cassette import Cassette
    from grokkit_parity.law import Parity

MOST_BITS = 20
"""Live bits up to which the whole truth table is checked."""

MOST_PROVED_BITS = 12
MOST_ELEMENTS = 2**26
LEAST_MARGIN = 0.1
MOST_GAP = 1e-4
"""Of the margin: how far float32 and float64 may differ."""

SAMPLED_WIDTH = 4_096
"""Bits up to which baselines and the unpruned network are sampled."""

SHOWN_BITS = 4


@dataclass(frozen=True)
class TruthTable:
    """Every row of the `live` bits, which are those that are read or count, against the parity of the support.

    `checked` counts rows with the least margin of the right class in float32 and in float64, `gap` is their largest
    difference. `proved` is a lower bound of the float32 margin for every filling of the other bits and every order of
    summation, by interval arithmetic; None where the layers are not declared or there are too many rows.
    """

    live: tuple[int, ...]
    checked: Exhausted
    gap: float
    proved: float | None

    @property
    def margin(self) -> float:
        """The least margin."""
        return self.checked.worst

    @property
    def holds(self) -> bool:
        """Whether every row is right with a margin that no rounding can cross."""
        return self.checked.holds and self.margin > LEAST_MARGIN and self.gap <= MOST_GAP * self.margin


def truth_table(
    cassette: Cassette, support: Sequence[int], progress: Callable[[int, int], None] | None = None
) -> TruthTable | None:
    """The table of a cassette that provably reads at most twenty bits, against the parity of `support`; None for others."""
    found = cassette.architecture.live_columns(cassette.manifest.architecture.config, cassette.tensors)
    if found is None:
        return None
    live = sorted(set(found) | set(support))
    if len(live) > MOST_BITS:
        return None
    width = int(cassette.manifest.inputs[0].axes[1])
    places = tuple(live.index(bit) for bit in support)
    gaps = [0.0]

    def check(rows: Tensor) -> Tensor:
        labels = labels_of(rows, places)
        bits = torch.zeros(len(rows), width, dtype=torch.uint8)
        bits[:, live] = rows
        single, double = (_margins(cassette, bits, labels, dtype) for dtype in (torch.float32, torch.float64))
        gaps.append(float((single - double).abs().max()))
        return torch.minimum(single, double)

    checked = exhaust(
        2 ** len(live),
        lambda start, stop: bit_rows(start, stop, len(live), dtype=torch.uint8),
        check,
        chunk=max(1, MOST_ELEMENTS // width),
        progress=progress,
    )
    return TruthTable(tuple(live), checked, max(gaps), proved_margin(cassette, live, places))


def _margins(cassette: Cassette, bits: Tensor, labels: Tensor, dtype: torch.dtype) -> Tensor:
    """How far the logit of the right class lies above the other, in float64, "row"; a NaN counts as wrong."""
    logits: Tensor = cassette.module_for(dtype)(bits.to(cassette.device)).double().cpu()
    right = labels.unsqueeze(1)
    margins = (logits.gather(1, right) - logits.gather(1, 1 - right))[:, 0]
    return margins.nan_to_num(nan=-torch.inf)


def proved_margin(cassette: Cassette, live: Sequence[int], places: Sequence[int]) -> float | None:
    """A lower bound of the float32 margin of the right class for all inputs, in any order of summation.

    For every row of the `live` bits the other bits range over the whole box [0, 1]; `places` are those of the live bits
    that count. None where the architecture does not declare its layers, or for more than 4,096 rows.
    """
    architecture, config, tensors = cassette.architecture.innermost(
        cassette.manifest.architecture.config, cassette.tensors
    )
    layers = architecture.layers(config)
    if layers is None or len(live) > MOST_PROVED_BITS:
        return None
    affine = [_affine(layer, tensors) for layer in layers]
    columns = list(layers[0].live) or list(range(affine[0].weight.shape[1]))
    rows = bit_rows(0, 2 ** len(live), len(live), dtype=torch.uint8)
    low = torch.full((len(rows), len(columns)), -1.0, dtype=torch.float64)
    high = -low
    for index, bit in enumerate(live):
        if bit in columns:
            low[:, columns.index(bit)] = high[:, columns.index(bit)] = 1 - 2 * rows[:, index].double()
    lowest, highest = output_box(affine, low, high, dtype=torch.float32)
    right = labels_of(rows, tuple(places)).unsqueeze(1)
    if lowest.shape[1] == 1:  # one signed number, positive for even
        return float(torch.where(right == 0, lowest, -highest).min())
    return float((lowest.gather(1, right) - highest.gather(1, 1 - right)).min())


def _affine(layer: Layer, tensors: Mapping[str, Tensor]) -> Affine:
    weight = tensors[layer.weight].cpu()
    bias = tensors[layer.bias].cpu() if layer.bias else weight.new_zeros(len(weight))
    return Affine(weight, bias, cast(Activation, layer.activation))


def certify_parity(task: Parity, cassette: Cassette, *, level: Level, seed: int) -> Certificate:
    """`exact` by the whole truth table of the live bits, `failed` where a row is wrong; sampled for networks that read more."""
    sampled = certify_sampled(task, cassette, level=level, seed=seed) if task.width <= SAMPLED_WIDTH else None

    def progress(done: int, count: int) -> None:
        task.plugins.emit(Event("certify.exhaustive", {"rows": done, "of": count}))

    table = truth_table(cassette, task.support, progress)
    if table is None:
        return sampled or _unknown(task, cassette, level, seed)
    baselines = sampled.baselines if sampled else (Baseline("constant", "accuracy", 0.5, {}),)
    bits = ", ".join(map(str, task.support))
    made = Certificate(
        verdict="exact",
        statement=f"parity of bits {bits}: right on all 2^{task.width} inputs, margin {table.margin:.3g} against a "
        f"rounding of {table.gap:.1g}" + _solvers(baselines),
        domain=f"every input of {task.width} zeros and ones" + _orders(table),
        method="exhaustive",
        formula=_formula(task.support, table),
        bounds=(Bound("gap_over_margin", round_up(table.gap / table.margin), "1"),) if table.holds else (),
        metrics=tuple(_metrics(table)),
        baselines=baselines,
        seed=seed,
        dtype=str(cassette.dtype).removeprefix("torch."),
        level=level,
    )
    if table.holds:
        return made
    wrong = f"wrong on {table.checked.wrong} of the {table.checked.checked} rows of its live bits"
    reason = "the margin does not exceed rounding" if table.checked.holds else wrong
    return replace(made, verdict="failed", statement=f"parity of bits {bits}: {reason}", formula=())


def _metrics(table: TruthTable) -> Iterator[Metric]:
    yield _metric("margin", table.margin, table.gap)
    yield _metric("gap", table.gap, table.gap)
    if table.proved is not None and table.proved > 0:
        yield _metric("margin_float32_any_order", table.proved, table.gap)


def _orders(table: TruthTable) -> str:
    return ", in any order of summation" if table.proved is not None and table.proved > 0 else ""


def _metric(name: str, value: float, gap: float) -> Metric:
    """A figure of the truth table; other machines may differ by rounding."""
    return Metric(name, value, "1", gap, (value - gap, value + gap), 1.0, 1, {})


def _formula(support: Sequence[int], table: TruthTable) -> tuple[str, ...]:
    """The law and, for few bits, its truth table."""
    law = " xor ".join(f"b{bit}" for bit in support)
    if len(support) > SHOWN_BITS or table.checked.checked != 2 ** len(support):
        return (f"y = {law}",)
    rows = bit_rows(0, 2 ** len(support), len(support), dtype=torch.uint8).tolist()
    return (f"y = {law}", *(f"{''.join(map(str, row))} -> {sum(row) % 2}" for row in rows))


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
