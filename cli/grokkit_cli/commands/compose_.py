"""`grokkit compose`."""

from __future__ import annotations

import click

from grokkit_cli import render
from grokkit_cli.parsing import calibration, gate_options
from grokkit_cli.session import CassetteRef, ComponentName, Session, device_option, dtype_option, verb


@verb
@click.argument("refs", nargs=-1, required=True, type=CassetteRef())
@click.option("--fusion", type=ComponentName("fusion"), default="ensemble", show_default=True, help="How to fuse.")
@click.option("--gate", type=ComponentName("gate"), help="The gate that weights the members; default: uniform.")
@click.option("--set", "settings", multiple=True, metavar="K=V", help="A setting of the gate (repeatable).")
@click.option(
    "--calibrate",
    multiple=True,
    metavar="K=V,V...",
    help="Contexts that the gate is fitted on, e.g. omega=1.5,2.",
)
@click.option("--name", help="Name of the new cassette; default: <first member>-<gate>.")
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Seed of calibration and test samples.",
)
@click.option("--dry-run", is_flag=True, help="Print the plan and do nothing.")
@device_option
@dtype_option
def compose_(
    session: Session,
    as_json: bool,
    refs: tuple[str, ...],
    fusion: str,
    gate: str | None,
    settings: tuple[str, ...],
    calibrate: tuple[str, ...],
    name: str | None,
    seed: int,
    dry_run: bool,
    device: str,
    dtype: str | None,
) -> None:
    """Fuse two or more cassettes into a new one.

    Of one task, by an ensemble with a gate, measured against its members and the baselines. Of any tasks, by a router or a
    superposition, in which every member is compared with itself alone.
    """
    from grokkit_core.fusion.compose import compose, plan_composition

    options, contexts = gate_options(session.host, fusion, gate, settings), calibration(calibrate)
    plan = plan_composition(
        *refs, fusion=fusion, gate=gate, options=options, calibrate=contexts, library=session.workspace
    )
    render.notes(plan.notes)
    if dry_run:
        return render.as_json(plan.to_json()) if as_json else render.plan(plan)
    with render.working(f"composing {', '.join(plan.members)}"):
        made = compose(
            *refs,
            fusion=fusion,
            gate=gate,
            options=options,
            calibrate=contexts,
            name=name,
            seed=seed,
            device=device,
            dtype=dtype,
            library=session.workspace,
        )
    return render.as_json(made.to_json()) if as_json else render.composition(made)


command = compose_
