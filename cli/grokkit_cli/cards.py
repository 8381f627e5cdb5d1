"""The larger pictures on a terminal: a cassette's card, a composition's plan and table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from grokkit_cli.charts import sparkline
from grokkit_cli.render import number, row, size, table
from grokkit_core.fusion.parts import parse_parts
from grokkit_core.manifest import COMPOSITE, Baseline, Certificate, Manifest, Metric, Provenance
from grokkit_core.strictjson import canonical
from grokkit_core.text import printable

MOST_COLUMNS = 6
"""Contexts that stand side by side; more of them stand below each other."""

WIDEST_HEADS = 90
"""Letters in the heads of such columns together; longer contexts stand below each other too."""

if TYPE_CHECKING:
    from grokkit_core.transfer.grow import Growth
    from grokkit_core.transfer.operator import TransferPlan


def print_card(manifest: Manifest, console: Console) -> None:
    """What it computes, its contract, its certificate with baselines, its curve and lineage."""
    facts = facts_table()
    row(facts, "cassette", manifest.ref)
    row(facts, "computes", manifest.summary)
    row(facts, "task", f"{manifest.task.id} {settings(manifest.task.parameters)}")
    for role, specs in (
        ("input", manifest.inputs),
        ("output", manifest.outputs),
        ("context", manifest.context),
    ):
        for spec in specs:
            row(facts, role, spec)
    row(facts, "network", f"{manifest.architecture.id} v{manifest.architecture.version} {_config(manifest)}")
    weights = manifest.weights
    row(
        facts,
        "weights",
        f"{weights.parameters:,} parameters, {size(weights.bytes)}, sha256 {weights.sha256[:16]}...",
    )
    _provenance(facts, manifest.provenance)
    for title, values in manifest.extra.items():
        row(facts, title, settings(values) if isinstance(values, Mapping) else values)
    row(facts, "digest", manifest.digest)
    console.print(facts)
    if manifest.task.id == COMPOSITE:
        console.print()
        console.print(_members(manifest))
    _certificate(manifest.certificate, console)


def _members(manifest: Manifest) -> Table:
    """The members of a router or a superposition, each with what it takes and how sure that is."""
    made = table("member", "task", "takes", "verdict", "method", "parameters", numbers=(5,))
    for part in parse_parts(manifest.architecture.config):
        takes = ", ".join(f"{spec.name} {spec.shape}" for spec in part.inputs)
        found = part.certificate
        row(made, part.key, part.task.id, takes, found.verdict, found.method, f"{part.parameters:,}")
    return made


def settings(values: Mapping[str, Any]) -> str:
    """`{"dt": 0.05}` as `dt = 0.05`."""
    return ", ".join(f"{name} = {'null' if value is None else value}" for name, value in values.items())


def facts_table() -> Table:
    """An empty table of names and facts."""
    made = Table(box=None, show_header=False, pad_edge=False)
    made.add_column(style="bold", no_wrap=True)
    made.add_column(overflow="fold")
    return made


def _config(manifest: Manifest) -> str:
    config = manifest.architecture.config
    members = config.get("members")
    if isinstance(members, list):
        count = sum(int(entry.get("count", 1)) for entry in members if isinstance(entry, dict))
        gate = config.get("gate")
        return f"({count} members" + (f", gate {gate.get('id', '')})" if isinstance(gate, dict) else ")")
    return f"({settings(config)})" if config else ""


def _provenance(facts: Table, found: Provenance) -> None:
    if found.recipe is not None:
        grokked = f", grokked at step {found.grok_step:,}" if found.grok_step is not None else ""
        row(facts, found.kind, f"by {found.recipe.id}, seed {found.seed}, {found.steps or 0:,} steps{grokked}")
        row(facts, "", settings(found.recipe.parameters))
    else:
        row(
            facts,
            found.kind,
            f"with gate {found.gate.get('id', '')}, seed {found.seed}" if found.gate else f"seed {found.seed}",
        )
    for parent in found.parents:
        row(facts, "parent", f"{parent.name}@{parent.version} {parent.digest[:23]}...")
    for index, name in enumerate(found.curve.columns[1:], 1):
        values = [line[index] for line in found.curve.rows]
        if values:
            row(
                facts,
                f"{name} curve",
                f"{sparkline(values, 48)}  {number(values[0])} to {number(values[-1])}",
            )
    software = ", ".join(f"{name} {version}" for name, version in found.software.plugins.items())
    row(facts, "made", f"{found.created} with {software}, torch {found.software.torch}")


def _certificate(found: Certificate, console: Console) -> None:
    console.print()
    console.print(
        f"certificate: {found.verdict.upper()} ({found.method}, {printable(found.dtype, 40)}, seed {found.seed})",
        style="bold",
    )
    console.print(printable(found.statement, 1_000))
    if found.domain:
        console.print("holds for " + printable(found.domain, 1_000))
    for line in found.formula:
        console.print(printable(line, 1_000))
    for bound in found.bounds:
        console.print(printable(f"{bound.name} <= {bound.value:.2g} [{bound.unit}]"))
    measured = {baseline.metric for baseline in found.baselines}
    tabled = [item for item in found.metrics if item.where] or [m for m in found.metrics if m.name in measured]
    tabled = [item for item in tabled if item.name == tabled[0].name]
    for item in found.metrics:
        if item not in tabled:
            beside = [f"{b.name} {number(b.value)}" for b in found.baselines if b.metric == item.name and not b.where]
            console.print(printable(f"{item.name} {number(item.value)} [{item.unit}]" + _bracketed(beside), 400))
    if tabled or (found.metrics and not found.baselines):
        console.print()
        shown = tabled or list(found.metrics)
        console.print(_figures(shown, [b for b in found.baselines if b.metric == shown[0].name]))
    elif found.baselines:
        told = (f"{item.name} {number(item.value)}" for item in found.baselines)
        console.print(printable(f"baselines, {found.baselines[0].metric}: {', '.join(told)}", 1_000))


def _bracketed(texts: Sequence[str]) -> str:
    return f" (baseline: {', '.join(texts)})" if texts else ""


def _figures(metrics: Sequence[Metric], baselines: Sequence[Baseline]) -> Table:
    """The model, its interval, each baseline and the ratio to the best one, in rows; turned round for many contexts."""
    places = [dict(metric.where) for metric in metrics]
    metric = metrics[0]
    lines = _lines(metrics, baselines, places)
    if len(places) <= MOST_COLUMNS and sum(len(place(where)) for where in places) <= WIDEST_HEADS:
        made = figures(metric.name, metric.n, places)
        for label, values in lines.items():
            row(made, label, *values)
        return made
    heads = [label.strip() for label in lines]
    made = table(f"{metric.name}, n = {metric.n:,}", *heads, numbers=range(1, len(heads) + 1))
    for index, where in enumerate(places):
        row(made, place(where), *(values[index] for values in lines.values()))
    return made


def _lines(
    metrics: Sequence[Metric], baselines: Sequence[Baseline], places: Sequence[Mapping[str, Any]]
) -> dict[str, list[str]]:
    """By label, a text for each context."""
    metric = metrics[0]
    lines = {
        "this cassette": [number(item.value) for item in metrics],
        f"  {metric.confidence:.0%} interval": [plus_minus(item.value, item.interval) for item in metrics],
    }
    columns = {canonical(dict(item)): index for index, item in enumerate(places)}
    values = {baseline.name: [math.nan] * len(places) for baseline in baselines}
    for baseline in baselines:
        if (index := columns.get(canonical(dict(baseline.where)))) is not None:
            values[baseline.name][index] = baseline.value
    lines |= {name: [number(value) for value in given] for name, given in values.items()}
    if values and all(value for given in values.values() for value in given) and metric.name != "accuracy":
        best = [min(given[index] for given in values.values()) for index in range(len(places))]
        ratios = [item.value / floor for item, floor in zip(metrics, best, strict=True)]
        lines["over the best baseline"] = [number(ratio) for ratio in ratios]
    return lines


def figures(metric: str, n: int, places: Sequence[Mapping[str, Any]], *more: str) -> Table:
    """A table with a column a context; where all contexts have one variable, its name stands in the first head."""
    variables = {name for where in places for name in where}
    if len(variables) == 1 and all(places):
        head, heads = f"{metric} by {variables.pop()}, n = {n:,}", [_value(*where.values()) for where in places]
    else:
        head, heads = f"{metric}, n = {n:,}", [place(where) for where in places]
    return table(head, *heads, *more, numbers=range(1, len(places) + len(more) + 1))


def plus_minus(value: float, interval: Sequence[float]) -> str:
    """Half the width of an interval, relative to the figure."""
    half = (interval[1] - interval[0]) / 2
    return f"±{half / abs(value):.1%}" if value else f"±{number(half)}"


def place(where: Mapping[str, Any]) -> str:
    """A context as a column head."""
    return ", ".join(f"{name} {_value(value)}" for name, value in where.items()) or "all"


def _amount(value: Any) -> str:
    return f"{value:,}" if isinstance(value, (int, float)) else str(value)


def _value(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def print_growth_plan(plan: TransferPlan, console: Console) -> None:
    """What a growth would do."""
    console.print(_growth(plan))
    console.print("nothing was read, computed or written (dry run)")


def print_growth(made: Growth, console: Console) -> None:
    """What was grown, and how far the function is kept."""
    manifest = made.cassette.manifest
    facts = _growth(made.plan)
    if made.max_abs_difference is not None:
        found = (
            f"largest difference {number(made.max_abs_difference)}" if made.max_abs_difference else "equal to the bit"
        )
        row(facts, "compared", f"{found} over {made.compared:,} samples")
    row(facts, "built in", f"{made.seconds * 1000:.1f} ms, {size(manifest.weights.bytes)} of weights")
    row(facts, "certificate", f"{manifest.certificate.verdict.upper()}: {manifest.certificate.statement}")
    console.print(facts)
    console.print(f"saved as {printable(manifest.ref)} ({manifest.digest[:19]}...)")


def _growth(plan: TransferPlan) -> Table:
    facts = facts_table()
    row(facts, "operator", plan.operator)
    row(facts, "source", f"{plan.source.ref}  ({plan.source.digest[:19]}...)")
    for name, partner in plan.partners.items():
        row(facts, name, f"{partner.ref}  ({partner.digest[:19]}...)")
    for name, value in plan.after.items():
        before = plan.before[name]
        row(facts, name, f"{_amount(before)} to {_amount(value)}" if value != before else f"{_amount(value)}, as it is")
    row(facts, "keeps", f"the function, {plan.guarantee}" if plan.tolerance is not None else plan.guarantee)
    row(facts, "stores", f"{plan.parameters:,} parameters")
    for role in ("inputs", "outputs", "context"):
        for spec in getattr(plan.signature, role):
            row(facts, role.removesuffix("s"), spec)
    return facts
