"""Compositions on a terminal: the plan, the table of members and baselines, the members of several tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from grokkit_cli.cards import facts_table, figures, plus_minus
from grokkit_cli.render import number, row, size, table
from grokkit_core.text import printable

if TYPE_CHECKING:
    from grokkit_core.fusion.compose import Composition
    from grokkit_core.fusion.fusion import FusionPlan
    from grokkit_core.fusion.table import Row

SHOWN_WEIGHTS = 8


def print_plan(plan: FusionPlan, console: Console) -> None:
    """What a composition would do."""
    facts = facts_table()
    row(facts, "fusion", plan.fusion)
    if plan.gate is not None:
        row(facts, "gate", plan.gate + (f", reads {plan.variable}" if plan.variable else ""))
    for label, manifest in zip(plan.members, plan.manifests, strict=True):
        row(facts, "member", f"{label}  ({manifest.ref}, {manifest.digest[:19]}...)")
    for role in ("inputs", "outputs", "context"):
        for spec in getattr(plan.signature, role):
            row(facts, role.removesuffix("s"), spec)
    for pair in plan.collisions:
        named = ", or by the names of inputs" if pair.by_name else ""
        row(facts, "needs a key", f"between {pair.first} and {pair.second}{named}")
    console.print(facts)
    console.print("nothing was read, fitted or written (dry run)")


def print_composition(made: Composition, console: Console) -> None:
    """Members, fusion and baselines by context; what was won, and what was not. Of several tasks, each member by itself."""
    console.print(_checks(made) if made.checks else _errors(made))
    console.print()
    for line in _sizes(made) if made.checks else _verdicts(made, made.table):
        console.print(printable(line, 2_000))
    manifest = made.cassette.manifest
    console.print(f"saved as {printable(manifest.ref)} ({manifest.digest[:19]}...)")


def _checks(made: Composition) -> Table:
    """Each member inside the composition beside itself alone."""
    shown = table("member", "task", "as alone", "others NaN", "outputs", "verdict")
    for check in made.checks:
        verdict = made.cassette.members[check.member].manifest.certificate.verdict
        equal, isolated = ("equal to the bit" if found else "DIFFERENT" for found in (check.equal, check.isolated))
        row(shown, check.member, check.task, equal, isolated, "vary" if check.live else "CONSTANT", verdict)
    return shown


def _sizes(made: Composition) -> list[str]:
    bytes_, alone = made.cassette.manifest.weights.bytes, made.alone_bytes
    share = f"{bytes_ / alone - 1:+.1%} of the sum of its members' files"
    compared = sum(check.compared for check in made.checks)
    return [
        f"{size(bytes_)} of weights, {share}; compared over {compared:,} samples",
        made.cassette.manifest.certificate.statement,
    ]


def _errors(made: Composition) -> Table:
    """A column a context."""
    rows = made.table
    shown = figures(rows[0].metric, rows[0].n, [item.where for item in rows], "mean")
    for label in made.plan.members:
        _line(shown, label, [item.members[label] for item in rows])
    _line(shown, f"{made.plan.gate} fusion", [item.fused for item in rows], style="bold")
    row(shown, "  95 % interval", *(plus_minus(item.fused, item.interval) for item in rows))
    row(shown, "  over best member", *(_ratio(item.ratio) for item in rows))
    for label in made.plan.members[:SHOWN_WEIGHTS] if rows[0].weights else ():
        row(shown, f"  weight {label}", *(_weight(item.weights[label]) for item in rows))
    row(shown, "  significant win", *("yes" if item.wins else "no" for item in rows))
    if any(item.calibration for item in rows):
        row(shown, "  gate fitted", *(_FITTED[item.calibration] for item in rows))
    analyses = [item.analysis for item in rows if item.analysis]
    if len(analyses) == len(rows):
        if len(made.plan.members) == 2:
            row(shown, "  error correlation", *(f"{item.correlation[0][1]:.2f}" for item in analyses))
        _line(shown, "equal weights", [item.uniform for item in analyses], style="dim")
        _line(shown, "best convex weights, fitted on test", [item.best for item in analyses], style="dim")
    for name in rows[0].baselines:
        _line(shown, name, [item.baselines[name] for item in rows], style="dim")
    return shown


def _ratio(value: float) -> str:
    """Three places, since differences of a percent matter; where they do not, three digits."""
    return f"{value:.3f}" if value < 100 else number(value)


_FITTED = {"fitted": "here", "interpolated": "between", "extrapolated": "beyond", "": "-"}


def _weight(value: float) -> str:
    """Three decimals, but never a small weight as none."""
    return f"{value:.3f}" if value == 0 or abs(value) >= 5e-4 else number(value)


def _line(target: Table, label: str, values: Sequence[float], style: str = "") -> None:
    row(target, label, *map(number, values), number(sum(values) / len(values)), style=style)


def _verdicts(made: Composition, rows: Sequence[Row]) -> list[str]:
    from grokkit_core.fusion.table import is_saturated

    of = len(rows)
    lines = [
        f"wins {made.wins} of {of}: better than every member, significant in paired tests (Holm, 5 %)",
        f"plainly below every member {sum(item.strict for item in rows)} of {of}; "
        f"at most 1.005 x the best member {sum(item.non_inferior for item in rows)} of {of}",
    ]
    amplified = max(item.amplification for item in rows)
    if amplified > 1.01:
        lines.append(
            f"weights of either sign, sum |w| up to {amplified:.2f}: a regression that extrapolates beyond its members"
        )
    if is_saturated(rows):
        lines.append("the gate is saturated: in every context some weight is below 1 % or above 99 %")
    if made.worse_than:
        lines.append(
            "WORSE than these baselines: "
            + ", ".join(f"{name} ({times} of {of})" for name, times in made.worse_than.items())
        )
    return lines
