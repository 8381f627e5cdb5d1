"""`grokkit export`."""

from __future__ import annotations

import click

from grokkit_cli import render
from grokkit_cli.session import CassetteRef, Session, dtype_option, verb


@verb
@click.argument("ref", type=CassetteRef())
@click.argument("path", type=click.Path())
@click.option(
    "--to",
    "kind",
    type=click.Choice(["folder", "onnx", "pt2"]),
    required=True,
    help="The cassette's own files, an ONNX model, or an archive of torch.export.",
)
@click.option("--key", help="Only this member of a cassette of several tasks.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the comparison samples.")
@dtype_option
def export_(
    session: Session, as_json: bool, ref: str, path: str, kind: str, key: str | None, seed: int, dtype: str | None
) -> None:
    """Write a cassette to PATH in another form, load it again and compare its outputs.

    A pt2 archive contains a pickled sample input: load only those that you have written.
    """
    from grokkit_core.exporting import export

    with render.working(f"exporting {ref}"):
        made = export(ref, kind, path, key=key, dtype=dtype, seed=seed, library=session.workspace)
    return render.as_json(made.to_json()) if as_json else render.exported(made)


command = export_
