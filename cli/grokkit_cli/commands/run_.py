"""`grokkit run`."""

from __future__ import annotations

import click

from grokkit_cli import render
from grokkit_cli.session import CassetteRef, Session, device_option, dtype_option, verb
from grokkit_core.fusion.parts import contexts
from grokkit_core.tensors import parse_context, unread_context


@verb
@click.argument("ref", type=CassetteRef())
@click.option(
    "--input",
    "source",
    required=True,
    metavar="FILE",
    type=click.Path(allow_dash=True),
    help=".npy .npz .csv .json .safetensors, or - for JSON on stdin.",
)
@click.option(
    "--output", metavar="FILE", type=click.Path(), help="Write the outputs there, by its ending; default: stdout."
)
@click.option("--context", multiple=True, metavar="K=V", help="A context variable, e.g. omega=1.5 (repeatable).")
@click.option("--key", help="The member of a cassette of several tasks.")
@click.option("--steps", type=click.IntRange(1), help="Roll out this many steps of a flow map.")
@click.option(
    "--to-grid", type=click.IntRange(1), metavar="N", help="First take the inputs to a finer grid of N points."
)
@click.option("--force", is_flag=True, help="Admit values outside the domain.")
@device_option
@dtype_option
def run_(
    session: Session,
    as_json: bool,
    ref: str,
    source: str,
    output: str | None,
    context: tuple[str, ...],
    key: str | None,
    steps: int | None,
    to_grid: int | None,
    force: bool,
    device: str,
    dtype: str | None,
) -> None:
    """Predict on a file. With --steps a rollout, written as it is computed, with the drift of invariants."""
    given = parse_context(context)
    manifest = session.workspace.library.find(ref).manifest
    render.notes(unread_context(contexts(manifest), given) if manifest else ())
    from grokkit_core.prediction import run

    show_each = None if as_json or output else render.outputs
    made = run(
        ref,
        source,
        context=given,
        key=key,
        steps=steps,
        to_grid=to_grid,
        output=output,
        force=force,
        device=device,
        dtype=dtype,
        library=session.workspace,
        on_outputs=show_each,
    )
    return render.as_json(made.to_json()) if as_json else render.prediction(made)


command = run_
