"""`grokkit verify`."""

from __future__ import annotations

from typing import Literal

import click

from grokkit_cli import render
from grokkit_cli.session import CassetteRef, Session, device_option, dtype_option, verb


@verb
@click.argument("refs", nargs=-1, required=True, type=CassetteRef())
@click.option(
    "--level",
    type=click.Choice(["quick", "full"]),
    default="full",
    show_default=True,
    help="quick: a tenth of the samples.",
)
@click.option("--seed", type=click.IntRange(0), help="Seed of the test samples; default: the recorded one.")
@device_option
@dtype_option
def verify_(
    session: Session,
    as_json: bool,
    refs: tuple[str, ...],
    level: Literal["quick", "full"],
    seed: int | None,
    device: str,
    dtype: str | None,
) -> int:
    """Recompute certificates from oracle and weights and compare them with the manifests; exit 1 where one does not agree."""
    from grokkit_core.certify.verify import verify

    with render.working("verifying"):
        results = [
            verify(ref, level=level, seed=seed, device=device, dtype=dtype, library=session.workspace) for ref in refs
        ]
    if as_json:
        render.as_json({"results": [result.to_json() for result in results]})
    else:
        render.notes([note for result in results for note in result.notes])
        render.verifications(results)
    return 0 if all(result.agrees for result in results) else 1


command = verify_
