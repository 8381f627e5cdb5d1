"""`grokkit train`."""

from __future__ import annotations

import click

from grokkit_cli import render
from grokkit_cli.live import TrainingView
from grokkit_cli.parsing import seed_range, training_settings
from grokkit_cli.session import ComponentName, Session, device_option, verb
from grokkit_core.errors import UsageError


@verb
@click.argument("task", type=ComponentName("task"))
@click.option("--recipe", type=ComponentName("recipe"), help="The recipe; default: the task's own.")
@click.option("--seed", type=click.IntRange(0), help="One seed; default: 0.")
@click.option("--seeds", metavar="A-B", help="Several seeds, one cassette version each.")
@click.option("--set", "settings", multiple=True, metavar="K=V", help="A setting of the recipe (repeatable).")
@click.option("--name", help="Name of the cassette; default: <task>-<recipe>.")
@click.option("--resume", metavar="RUN", help="Go on with an interrupted run (id or path).")
@click.option("--allow-inexact", is_flag=True, help="Resume although the result will not be equal to the bit.")
@device_option
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float64"]),
    help="Of weights and training; default: the recipe's own, or what the resumed run has.",
)
def train_(
    session: Session,
    as_json: bool,
    task: str,
    recipe: str | None,
    seed: int | None,
    seeds: str | None,
    settings: tuple[str, ...],
    name: str | None,
    resume: str | None,
    allow_inexact: bool,
    device: str,
    dtype: str | None,
) -> None:
    """Train a cassette, certify it and save it. Ctrl-C saves a checkpoint to go on from; a second one leaves at once."""
    if (seed is not None and seeds) or (resume is not None and (seed is not None or seeds or settings or name)):
        raise UsageError(
            "options that exclude each other",
            expected="--seed or --seeds; --resume with neither, nor --set or --name",
        )
    wanted = seed_range(seeds)
    given = training_settings(session.host, task, recipe, settings) if resume is None else {}
    from grokkit_core.training.train import train

    with TrainingView(enabled=render.live_allowed()) as view:
        runs = train(
            task,
            recipe=recipe,
            seed=seed or 0,
            seeds=wanted,
            settings=given,
            name=name,
            resume=resume,
            allow_inexact=allow_inexact,
            device=device,
            dtype=dtype,
            library=session.workspace,
            on_event=view.on_event,
        )
    return render.as_json({"runs": [run.to_json() for run in runs]}) if as_json else render.trained(runs)


command = train_
