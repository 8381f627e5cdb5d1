"""`grokkit grow`."""

from __future__ import annotations

import click

from grokkit_cli import render
from grokkit_cli.parsing import sizes
from grokkit_cli.session import CassetteRef, ComponentName, Session, device_option, dtype_option, verb
from grokkit_core.specs import TransferSpec


@verb
@click.argument("ref", type=CassetteRef())
@click.option("--to", "to", multiple=True, metavar="K=V", help="A new size, or by=REF (repeatable).")
@click.option(
    "--operator",
    type=ComponentName("transfer operator"),
    help="How to grow; default: the strongest guarantee that applies.",
)
@click.option("--name", help="Name of the new cassette; default: <source>-<operator>.")
@click.option("--dense", is_flag=True, help="Store the zeros of zero-pad instead of the sizes.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the comparison samples.")
@click.option("--dry-run", is_flag=True, help="Print the plan and do nothing.")
@device_option
@dtype_option
def grow_(
    session: Session,
    as_json: bool,
    ref: str,
    to: tuple[str, ...],
    operator: str | None,
    name: str | None,
    dense: bool,
    seed: int,
    dry_run: bool,
    device: str,
    dtype: str | None,
) -> None:
    """Make a cassette larger or finer without training, and check that its function is kept."""
    from grokkit_core.transfer.grow import grow, plan_growth

    operators = session.workspace.plugins.specs(TransferSpec)
    wanted = sizes(to, {field.name for spec in operators for field in spec.parameters if field.type == "cassette"})
    plan = plan_growth(ref, wanted, operator=operator, dense=dense, library=session.workspace)
    render.notes(plan.notes)
    if dry_run:
        return render.as_json(plan.to_json()) if as_json else render.growth_plan(plan)
    with render.working(f"growing {plan.source.ref}"):
        made = grow(
            ref,
            wanted,
            operator=operator,
            dense=dense,
            name=name,
            seed=seed,
            device=device,
            dtype=dtype,
            library=session.workspace,
        )
    return render.as_json(made.to_json()) if as_json else render.growth(made)


command = grow_
