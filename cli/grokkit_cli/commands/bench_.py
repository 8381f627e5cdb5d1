"""`grokkit bench`."""

from __future__ import annotations

import click

from grokkit_cli import render
from grokkit_cli.parsing import benchmark_settings
from grokkit_cli.session import CassetteRef, Session, device_option, dtype_option, verb


@verb
@click.argument("ref", type=CassetteRef())
@click.option("--recalibrate", is_flag=True, help="Measure anew what the architecture keeps from an earlier run.")
@click.option(
    "--set", "settings", multiple=True, metavar="K=V", help="A setting of the architecture's benchmark (repeatable)."
)
@click.option("--threads", type=click.IntRange(1), help="Default: torch's own; 1 for small networks.")
@device_option
@dtype_option
def bench_(
    session: Session,
    as_json: bool,
    ref: str,
    recalibrate: bool,
    settings: tuple[str, ...],
    threads: int | None,
    device: str,
    dtype: str | None,
) -> int:
    """Time a cassette beside a baseline in the same run; exit 1 where a measurement cannot be right."""
    from grokkit_cli.timings import line
    from grokkit_core.benchmark import bench
    from grokkit_core.cassette import load

    cassette = load(ref, library=session.workspace)
    chosen = benchmark_settings(cassette, settings)
    with render.working(f"timing {cassette.manifest.ref}") as tell:
        found = bench(
            cassette,
            recalibrate=recalibrate,
            settings=chosen,
            device=device,
            dtype=dtype,
            threads=threads,
            on_row=lambda row: tell(line(row)),
        )
    if as_json:
        render.as_json(found.to_json())
    else:
        render.benchmark(found)
    return 1 if found.problems else 0


command = bench_
