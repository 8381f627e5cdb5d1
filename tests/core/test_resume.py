"""A training that was interrupted or killed ends, once gone on with, in the very bytes of one that was not."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import toys

import grokkit_core as gk
from grokkit_core.certify.sampled import SAMPLES
from grokkit_core.manifest import WEIGHTS
from grokkit_core.plugins import host
from grokkit_core.training import trainer
from grokkit_core.training.checkpoint import RunFolder, runs_home
from grokkit_core.training.trainer import Interrupted

Settings = Mapping[str, float]
Hook = Callable[[int], None]

RECIPE = "cyclotron/published"
SMALL: Settings = {"samples": 200, "epochs": 12, "threshold": 0.0}
"""48 steps."""

PUBLISHED: Settings = {}
SEEDS = (0, 1)
WATCHED = """
import json, os, signal, sys, time
from grokkit_core.certify.sampled import SAMPLES
from grokkit_core.plugins import host
from grokkit_core.training import trainer
trainer.CHECKPOINT_SECONDS = -1
kind = type(host().recipe("cyclotron/published"))
start = kind.start
def hooked(self, *arguments, **named):
    run = start(self, *arguments, **named)
    original = run.step
    def step():
        progress = original()
        after(progress.step)
        return progress
    run.step = step
    return run
kind.start = hooked
def say(text):
    os.write(1, f"{text}\\n".encode())
"""
"""The beginning of a child's code: a checkpoint after every step, and `after(step)` is called when that is done."""

TRAINING = (
    WATCHED
    + """
import grokkit_core as gk
library, seeds, settings, samples, trainer.CHECKPOINT_SECONDS = map(json.loads, sys.argv[1:])
SAMPLES.update(samples)
after = say
def tell(event):
    if event.name in ("train.certify", "train.saved"):
        say(event.name)
gk.train("cyclotron", seeds=seeds, settings=settings, name="toy", library=library, on_event=tell)
"""
)
"""A training that says a line for every step, for every network that it certifies and for every one that it saves."""

STUCK = (
    WATCHED
    + """
from grokkit_cli.__main__ import main
def after(step):
    if step == 20:
        say("stuck")
        time.sleep(600)
main(sys.argv[1:])
"""
)


@pytest.fixture(autouse=True)
def few_samples(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Certificates from few samples, as figures do not matter here, but not in the full protocols."""
    if request.node.get_closest_marker("acceptance") is None:
        monkeypatch.setitem(SAMPLES, "full", 64)  # type: ignore[misc]


@pytest.fixture
def after_step(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Hook]]:
    """A list of functions that every training in this process calls with the number of each step that it has done."""
    kind, hooks = type(host().recipe(RECIPE)), []
    start = kind.start

    def hooked(self: Any, *arguments: Any, **named: Any) -> Any:
        run = start(self, *arguments, **named)
        original = run.step

        def step() -> Any:
            progress = original()
            for hook in hooks:
                hook(progress.step)
            return progress

        run.step = step  # type: ignore[method-assign]
        return run

    monkeypatch.setattr(kind, "start", hooked)
    before = signal.getsignal(signal.SIGINT)
    yield hooks
    signal.signal(signal.SIGINT, before)


@dataclass(frozen=True)
class End:
    """What a training leaves: the sha256 of every weights file, and all of the manifests that does not name the time."""

    files: Sequence[str]
    steps: Sequence[int | None]
    figures: Sequence[object]


def end(library: Path, name: str = "toy", last: int | None = None) -> End:
    """The end of a training as it lies in its library; of the last so many versions, where there may be more."""
    folders = [library / name / str(version) for version in toys.versions(library / name)[-last if last else 0 :]]
    found = [gk.load(str(folder)).manifest for folder in folders]
    return End(
        [hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest() for folder in folders],
        [manifest.provenance.steps for manifest in found],
        [(manifest.certificate, manifest.provenance.curve, manifest.provenance.grok_step) for manifest in found],
    )


def whole(library: Path, settings: Settings) -> End:
    """The end of a training that nothing disturbed."""
    gk.train("cyclotron", recipe="published", seeds=SEEDS, settings=settings, name="toy", library=library)
    return end(library)


# -- interrupted -----------------------------------------------------------------------------------------------------


def interrupt(library: Path, hooks: list[Hook], step: int, **order: Any) -> str:
    """Press Ctrl-C during a step of a training; returns the id of the run."""
    hooks[:] = [lambda done: signal.raise_signal(signal.SIGINT) if done == step else None]
    with pytest.raises(Interrupted) as caught:
        gk.train("cyclotron", recipe="published", library=library, **order)
    assert caught.value.step == step
    hooks.clear()
    return caught.value.run


def interrupt_and_resume(library: Path, hooks: list[Hook], step: int, settings: Settings) -> End:
    """The end of a training in which Ctrl-C was pressed during a step, and which was then gone on with."""
    run = interrupt(library, hooks, step, seeds=SEEDS, settings=settings, name="toy")
    gk.train("cyclotron", resume=run, library=library)
    assert not list(runs_home().iterdir())
    return end(library)


def count_equal_after_interrupts(
    folder: Path, hooks: list[Hook], count: int, settings: Settings, seed: int
) -> tuple[int, int]:
    """How many of so many interrupted trainings end in the same bytes and figures, and the most steps of a seed."""
    expected = whole(folder / "whole", settings)
    last = max(steps for steps in expected.steps if steps)
    moments = random.Random(seed).sample(range(1, last + 1), count)
    equal = sum(interrupt_and_resume(folder / str(step), hooks, step, settings) == expected for step in moments)
    return equal, last


def test_trainings_interrupted_at_random_steps_end_in_the_same_bytes(tmp_path: Path, after_step: list[Hook]) -> None:
    equal, last = count_equal_after_interrupts(tmp_path, after_step, 5, SMALL, seed=1)
    assert (equal, last) == (5, 48)


@pytest.mark.acceptance
def test_20_interrupted_trainings_end_in_the_same_bytes(
    tmp_path: Path, after_step: list[Hook], figure: Callable[..., None]
) -> None:
    equal, last = count_equal_after_interrupts(tmp_path, after_step, 20, PUBLISHED, seed=2)
    figure(
        f"trainings after Ctrl-C at 20 of {last} steps: weights, curves, certificates equal to the bit",
        f"{equal} of 20",
        "20",
    )
    assert equal == 20


def test_a_training_from_a_touched_checkpoint_ends_in_other_bytes(
    tmp_path: Path, after_step: list[Hook], monkeypatch: pytest.MonkeyPatch
) -> None:
    load = RunFolder.load

    def touched(self: RunFolder) -> Any:
        kept = load(self)
        for name, tensor in kept.tensors.items():
            if name.startswith("run.") and tensor.is_floating_point():
                tensor *= 1.001
        return kept

    expected = whole(tmp_path / "whole", SMALL)
    monkeypatch.setattr(RunFolder, "load", touched)
    assert interrupt_and_resume(tmp_path / "other", after_step, 20, SMALL).files != expected.files


def test_a_torn_checkpoint_is_replaced_when_its_step_comes_again(tmp_path: Path, after_step: list[Hook]) -> None:
    library = tmp_path / "library"
    run = interrupt(library, after_step, 20, seeds=SEEDS, settings=SMALL, name="toy")
    interrupt(library, after_step, 30, resume=run)
    (runs_home() / run / "30" / "state.json").write_text("torn")
    interrupt(library, after_step, 30, resume=run)
    assert RunFolder.find(run).load().values["step"] == 30
    gk.train("cyclotron", resume=run, library=library)
    assert end(library) == whole(tmp_path / "whole", SMALL)


# -- killed ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Moment:
    """When a process is killed: a while after it has said so many lines."""

    lines: int
    seconds: float


def child(code: str, *arguments: str) -> subprocess.Popen[str]:
    """A process that runs this code."""
    return subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=-1, stderr=-1, text=True)


def kill(library: Path, moment: Moment, settings: Settings, pause: float) -> None:
    """Start a training in a process of its own, with a checkpoint whenever `pause` has passed, and kill it."""
    with child(TRAINING, *map(json.dumps, (str(library), SEEDS, settings, SAMPLES, pause))) as process:
        assert process.stdout is not None
        for _ in range(moment.lines):
            assert process.stdout.readline()
        time.sleep(moment.seconds)
        process.kill()


def what_was_left(library: Path) -> str:
    """What a kill left: everything, a checkpoint or nothing. The newest checkpoint can be read."""
    if len(toys.versions(library / "toy")) == len(SEEDS):
        return "everything"
    steps = [toys.versions(run) for run in runs_home().glob("*")]
    if not any(steps):
        return "nothing"
    (run,) = runs_home().iterdir()
    assert RunFolder(run).load().values["step"] == steps[0][-1]
    return "checkpoint"


def go_on(library: Path, left: str, settings: Settings) -> End:
    """The end of a killed training that is gone on with, or begun again where it left nothing."""
    if left == "checkpoint":
        (run,) = runs_home().iterdir()
        gk.train("cyclotron", resume=run.name, library=library)
        assert not list(runs_home().iterdir())
    elif left == "nothing":
        whole(library, settings)
    return end(library, last=len(SEEDS))


def kill_and_go_on(
    folder: Path, patch: pytest.MonkeyPatch, moments: Sequence[Moment], expected: End, settings: Settings, pause: float
) -> tuple[int, Counter[str]]:
    """How many of the trainings killed at these moments come to the same end, and what the kills left."""
    equal, left = 0, Counter[str]()
    for index, moment in enumerate(moments):
        patch.setenv("XDG_STATE_HOME", str(folder / f"state-{index}"))
        kill(folder / str(index), moment, settings, pause)
        found = what_was_left(folder / str(index))
        equal += go_on(folder / str(index), found, settings) == expected
        left[found] += 1
    return equal, left


def test_killed_trainings_end_in_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(3)
    moments = [Moment(chance.randint(2, 47), chance.uniform(0, 0.02)), Moment(48 + len(SEEDS) + 1, 0)]
    equal, left = kill_and_go_on(tmp_path, monkeypatch, moments, whole(tmp_path / "whole", SMALL), SMALL, pause=-1)
    assert equal == 2
    assert left["checkpoint"] > 0


@pytest.mark.acceptance
def test_20_killed_trainings_end_in_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, figure: Callable[..., None]
) -> None:
    expected, chance = whole(tmp_path / "whole", PUBLISHED), random.Random(4)
    last = max(steps for steps in expected.steps if steps)
    moments = [Moment(0, chance.uniform(0, 1))]
    moments += [Moment(chance.randint(1, last), chance.uniform(0, 0.05)) for _ in range(15)]
    moments += [Moment(last + line, chance.uniform(0, 0.2 / line)) for line in range(1, 2 * len(SEEDS) + 1)]
    equal, left = kill_and_go_on(tmp_path, monkeypatch, moments, expected, PUBLISHED, pause=0.01)
    found = ", ".join(f"{what} {left[what]}" for what in ("checkpoint", "nothing", "everything"))
    figure("trainings after SIGKILL: weights, curves, certificates equal to the bit", f"{equal} of 20", "20")
    figure(
        f"what kills before the first, at 15 of {last} and 4 times after the last step left",
        found,
        "a checkpoint in 10 or more",
    )
    assert equal == 20
    assert left["checkpoint"] >= 10


# -- Ctrl-C twice ----------------------------------------------------------------------------------------------------


def test_ctrl_c_twice_in_another_process_leaves_at_once_with_the_last_checkpoint(tmp_path: Path) -> None:
    expected = whole(tmp_path / "whole", SMALL)
    library = tmp_path / "library"
    chosen = [word for name, value in SMALL.items() for word in ("--set", f"{name}={value:g}")]
    words = ["train", "cyclotron", "--recipe", "published", "--seeds", "0-1", *chosen, "--name", "toy"]
    with child(STUCK, *words, "--library", str(library)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "stuck\n"
        process.send_signal(signal.SIGINT)
        time.sleep(1)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err.strip()) == (130, "", "grokkit: interrupted")
    assert not toys.versions(library / "toy")
    (run,) = runs_home().iterdir()
    assert RunFolder.find(run.name).load().values["step"] == 19
    gk.train("cyclotron", resume=run.name, library=library)
    assert end(library) == expected


@pytest.mark.parametrize("call", [1, 2, 3, 4])
def test_ctrl_c_in_the_midst_of_a_checkpoint_leaves_one_to_go_on_from(
    call: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint is synced four times: two files, their folder and the folder around it."""
    expected, synced, fsync = whole(tmp_path / "whole", SMALL), 0, os.fsync

    def press(descriptor: int) -> None:
        nonlocal synced
        synced += 1
        if synced == 4 * 19 + call:
            raise KeyboardInterrupt
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "CHECKPOINT_SECONDS", -1.0)
        patch.setattr(os, "fsync", press)
        with pytest.raises(KeyboardInterrupt):
            gk.train("cyclotron", seeds=SEEDS, settings=SMALL, name="toy", library=tmp_path / "library")
    (run,) = runs_home().iterdir()
    assert toys.versions(run) == ([18, 19, 20] if call == 4 else [18, 19])
    assert RunFolder(run).load().values["step"] == toys.versions(run)[-1]
    gk.train("cyclotron", resume=run.name, library=tmp_path / "library")
    assert end(tmp_path / "library") == expected
