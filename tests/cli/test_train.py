"""`grokkit train`: what it makes, what it refuses, and that an interrupted run can be gone on with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from grokkit_core import store, strictjson
from grokkit_core.training.gradient import GradientRun
from grokkit_core.training.recipe import Progress

Cli = Callable[..., Any]
Refused = Callable[..., str]
QUICK = ("--set", "epochs=1", "--set", "samples=128")
LONGER = ("--set", "epochs=8", "--set", "samples=192", "--set", "threshold=0")
"""24 steps."""

ROW = {"name", "version", "seed", "steps", "grok_step", "seconds", "verdict", "metrics"}


@pytest.fixture
def ctrl_c(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """`ctrl_c(7)` presses Ctrl-C during step 7 of the next trainings, `ctrl_c(7, times=2)` twice."""
    original = GradientRun.step
    wanted: dict[int, int] = {}

    def step(self: GradientRun) -> Progress:
        progress = original(self)
        for _ in range(wanted.pop(progress.step, 0)):
            signal.raise_signal(signal.SIGINT)
        return progress

    def press(at: int, times: int = 1) -> None:
        wanted[at] = times

    monkeypatch.setattr(GradientRun, "step", step)
    before = signal.getsignal(signal.SIGINT)
    yield press
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def stopped(cli: Cli, ctrl_c: Callable[..., None], library: Path) -> Path:
    """The folder of a run that was stopped after step 7 of 24."""
    ctrl_c(7)
    assert cli("train", "cyclotron", *LONGER, "--name", "long", "--library", library).code == 130
    return only_run()


def runs_home() -> Path:
    return Path(os.environ["XDG_STATE_HOME"]) / "grokkit" / "runs"


def only_run() -> Path:
    (run,) = runs_home().iterdir()
    return run


def weights(library: Path, name: str, version: int = 1) -> str:
    return store.read_manifest(library / name / str(version)).weights.sha256


def rewrite(run: Path, change: Callable[[dict[str, Any]], object]) -> None:
    (state,) = run.glob("*/state.json")
    value = json.loads(state.read_text())
    change(value)
    state.write_bytes(strictjson.canonical(value))


# -- what it makes -----------------------------------------------------------------------------------------------------


def test_train_has_the_documented_json_keys(cli: Cli, library: Path) -> None:
    made = cli("train", "cyclotron", *QUICK, "--library", library, "--json")
    assert (made.code, made.err) == (0, "")
    assert list(made.json) == ["runs"]
    (row,) = made.json["runs"]
    assert set(row) >= ROW
    assert (row["name"], row["version"], row["seed"], row["steps"]) == ("cyclotron-published", 1, 0, 2)
    assert set(row["metrics"][0]) >= {"name", "value", "unit", "stderr", "interval", "confidence", "n", "where"}


def test_train_prints_a_table_and_nothing_else(cli: Cli, library: Path) -> None:
    made = cli("train", "cyclotron", *QUICK, "--library", library, "--name", "mine")
    assert (made.code, made.err) == (0, "")
    for word in ("mine@1", "estimated", "mse", "WORSE than"):
        assert word in made.out


def test_what_was_trained_is_in_the_library_and_its_run_is_gone(cli: Cli, library: Path) -> None:
    cli("train", "cyclotron", *QUICK, "--library", library, "--name", "mine")
    assert cli("show", "mine@1", "--library", library).code == 0
    assert not runs_home().exists() or not list(runs_home().iterdir())


def test_each_seed_becomes_a_version(cli: Cli, library: Path) -> None:
    made = cli("train", "cyclotron", *QUICK, "--seeds", "3-5", "--name", "many", "--library", library, "--json")
    assert [(row["version"], row["seed"]) for row in made.json["runs"]] == [(1, 3), (2, 4), (3, 5)]
    assert len({weights(library, "many", version) for version in (1, 2, 3)}) == 3


def test_a_seed_gives_the_same_network_alone_and_among_others(cli: Cli, library: Path) -> None:
    cli("train", "cyclotron", *QUICK, "--seeds", "0-1", "--name", "pair", "--library", library)
    cli("train", "cyclotron", *QUICK, "--seed", "1", "--name", "alone", "--library", library)
    assert weights(library, "alone") == weights(library, "pair", 2)


def test_a_short_recipe_name_and_the_full_one_mean_the_same(cli: Cli, library: Path) -> None:
    for recipe in ("published", "cyclotron/published"):
        assert cli("train", "cyclotron", *QUICK, "--recipe", recipe, "--library", library).code == 0
    assert weights(library, "cyclotron-published", 1) == weights(library, "cyclotron-published", 2)


def test_settings_are_kept_in_the_manifest(cli: Cli, library: Path) -> None:
    cli("train", "cyclotron", *QUICK, "--set", "lr=0.02", "--set", "dt=0.1", "--name", "mine", "--library", library)
    manifest = cli("show", "mine", "--json", "--library", library).json
    assert manifest["provenance"]["recipe"]["parameters"]["lr"] == 0.02
    assert manifest["task"]["parameters"] == {"dt": 0.1}


def test_double_precision_stands_in_the_certificate(cli: Cli, library: Path) -> None:
    cli("train", "cyclotron", *QUICK, "--dtype", "float64", "--name", "wide", "--library", library)
    assert cli("show", "wide", "--json", "--library", library).json["certificate"]["dtype"] == "float64"


def test_the_table_says_in_which_precision_it_was_trained(cli: Cli, library: Path) -> None:
    assert "float64" in cli("train", "cyclotron", *QUICK, "--dtype", "float64", "--library", library).out


# -- what it refuses ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["cyclotrn"], 5, ["'cyclotrn'", "did you mean 'cyclotron'?"]),
        (["foo/bar"], 4, ["foo/bar", "pip install foo"]),
        (["cyclotron", "--recipe", "publishd"], 5, ["'publishd'", "published"]),
        (["cyclotron", "--recipe", "foo/bar"], 4, ["foo/bar", "pip install foo"]),
        (["cyclotron", "--set", "epochs"], 2, ["'epochs'", "expected name=value"]),
        (["cyclotron", "--set", "epoch=1"], 2, ["'epoch'", "did you mean 'epochs'?"]),
        (["cyclotron", "--set", "epochs=0"], 2, ["epochs=0", "expected an integer from 1"]),
        (["cyclotron", "--set", "epochs=1.5"], 2, ["epochs=1.5", "expected an integer"]),
        (["cyclotron", "--set", "lr=nan"], 2, ["lr=nan", "expected a number"]),
        (["cyclotron", "--set", "lr=fast"], 2, ["lr='fast'", "expected a number"]),
        (["cyclotron", "--seed", "-1"], 2, ["--seed", "-1"]),
        (["cyclotron", "--seeds", "5-2"], 2, ["'5-2'", "expected A-B"]),
        (["cyclotron", "--seeds", "0-99999"], 2, ["'0-99999'", "at most 10000"]),
        (["cyclotron", "--seeds", "0,1"], 2, ["'0,1'", "e.g. 0-9"]),
        (["cyclotron", "--seed", "1", "--seeds", "0-2"], 2, ["--seed or --seeds"]),
        (["cyclotron", "--seed", "9" * 20], 2, ["expected distinct integers"]),
        (["cyclotron", "--name", "No Name"], 2, ["'No Name'", "expected 1 to 64"]),
        (["cyclotron", "--dtype", "float16"], 2, ["'float16'", "'float32'"]),
        (["cyclotron", "--device", "tpu"], 2, ["'tpu'", "'auto'"]),
        (["cyclotron", "--resume", "nothing"], 5, ["'nothing'"]),
        (["cyclotron", "--resume", "nothing", "--seed", "1"], 2, ["--resume"]),
        (["cyclotron", "--resume", "nothing", *QUICK], 2, ["--set"]),
        (["cyclotron", "--resume", ""], 5, ["run"]),
    ],
)
def test_a_bad_order_is_refused_and_nothing_is_written(
    refused: Refused, library: Path, words: list[str], code: int, says: list[str]
) -> None:
    refused(code, "train", *words, "--library", library, says=says)
    assert not list(library.rglob("*"))


def test_an_unwritable_library_is_reported_before_the_first_step(
    refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    def step(self: GradientRun) -> Progress:
        raise AssertionError("trained for nothing")

    monkeypatch.setattr(GradientRun, "step", step)
    refused(6, "train", "cyclotron", *QUICK, "--library", "/proc/grokkit", says=("/proc/grokkit", "--library"))


def test_a_full_disk_at_the_end_leaves_the_library_as_it_was(
    refused: Refused, shelf: Path, snapshot: Callable[..., Any], full_disk: None
) -> None:
    before = snapshot(shelf)
    refused(6, "train", "cyclotron", *QUICK, "--name", "mine", "--library", shelf, says=("ENOSPC", "free some space"))
    assert snapshot(shelf) == before


# -- Ctrl-C and going on -----------------------------------------------------------------------------------------------


def test_ctrl_c_saves_a_checkpoint_and_says_how_to_go_on(cli: Cli, ctrl_c: Callable[..., None], library: Path) -> None:
    ctrl_c(7)
    done = cli("train", "cyclotron", *LONGER, "--library", library)
    assert (done.code, done.out) == (130, "")
    assert done.err.strip().splitlines() == [
        f"grokkit: stopped after step 7; go on with: grokkit train cyclotron --resume {only_run().name}"
    ]
    assert not list(library.rglob("*"))


@pytest.mark.parametrize("reference", ["id", "path"])
def test_a_resumed_run_is_equal_to_the_bit(cli: Cli, library: Path, stopped: Path, reference: str) -> None:
    resume = stopped.name if reference == "id" else stopped
    assert cli("train", "cyclotron", "--resume", resume, "--library", library).code == 0
    assert cli("train", "cyclotron", *LONGER, "--name", "whole", "--library", library).code == 0
    assert weights(library, "long") == weights(library, "whole")
    long, whole = (cli("show", name, "--json", "--library", library).json for name in ("long", "whole"))
    for field in ("steps", "curve", "seed", "recipe"):
        assert long["provenance"][field] == whole["provenance"][field]


def test_a_run_may_be_stopped_again_and_again(
    cli: Cli, library: Path, stopped: Path, ctrl_c: Callable[..., None]
) -> None:
    for at in (8, 15):
        ctrl_c(at)
        assert cli("train", "cyclotron", "--resume", stopped.name, "--library", library).code == 130
    assert cli("train", "cyclotron", "--resume", stopped.name, "--library", library).code == 0
    cli("train", "cyclotron", *LONGER, "--name", "whole", "--library", library)
    assert weights(library, "long") == weights(library, "whole")
    assert not stopped.exists()


def test_several_seeds_are_stopped_and_resumed_together(cli: Cli, library: Path, ctrl_c: Callable[..., None]) -> None:
    ctrl_c(7)
    assert cli("train", "cyclotron", *LONGER, "--seeds", "0-1", "--name", "both", "--library", library).code == 130
    assert cli("train", "cyclotron", "--resume", only_run().name, "--library", library).code == 0
    cli("train", "cyclotron", *LONGER, "--seed", "1", "--name", "whole", "--library", library)
    assert weights(library, "both", 2) == weights(library, "whole")


def test_the_hint_of_a_run_that_was_resumed_by_path_works(
    cli: Cli, library: Path, stopped: Path, ctrl_c: Callable[..., None], tmp_path: Path
) -> None:
    elsewhere = stopped.rename(tmp_path / "elsewhere")
    ctrl_c(9)
    hint = cli("train", "cyclotron", "--resume", elsewhere, "--library", library).err
    resume = hint.strip().rpartition("--resume ")[2]
    assert cli("train", "cyclotron", "--resume", resume, "--library", library).code == 0


def test_a_second_ctrl_c_leaves_at_once(cli: Cli, ctrl_c: Callable[..., None], library: Path) -> None:
    ctrl_c(7, times=2)
    done = cli("train", "cyclotron", *LONGER, "--library", library)
    assert (done.code, done.err.strip()) == (130, "grokkit: interrupted")
    assert not list(library.rglob("*"))


def test_ctrl_c_while_certifying_can_be_gone_on_from(cli: Cli, library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from grokkit_cyclotron.law import Cyclotron

    def certify(*arguments: Any, **named: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("nobody listened")

    with monkeypatch.context() as patch:
        patch.setattr(Cyclotron, "certify", certify)
        done = cli("train", "cyclotron", *LONGER, "--seeds", "0-1", "--name", "long", "--library", library)
    assert done.code == 130
    assert "--resume" in done.err
    assert cli("train", "cyclotron", "--resume", only_run().name, "--library", library).code == 0
    assert cli("show", "long@2", "--library", library).code == 0


def test_a_real_ctrl_c_in_another_process_is_resumed_here(cli: Cli, library: Path, tmp_path: Path) -> None:
    marker = tmp_path / "started"
    code = (
        "import pathlib, sys, time\n"
        "from grokkit_core.training.gradient import GradientRun\n"
        "original = GradientRun.step\n"
        "def step(self):\n"
        f"    pathlib.Path({str(marker)!r}).touch()\n"
        "    time.sleep(0.05)\n"
        "    return original(self)\n"
        "GradientRun.step = step\n"
        "from grokkit_cli.__main__ import main\n"
        "main(sys.argv[1:])\n"
    )
    words = ["train", "cyclotron", *LONGER, "--set", "epochs=8", "--name", "long", "--library", str(library)]
    child = subprocess.Popen([sys.executable, "-c", code, *words], stdout=-1, stderr=-1, text=True)
    for _ in range(1200):
        if marker.exists() or child.poll() is not None:
            break
        time.sleep(0.05)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert (child.returncode, out) == (130, "")
    assert "Traceback" not in err
    assert f"--resume {only_run().name}" in err
    assert cli("train", "cyclotron", "--resume", only_run().name, "--library", library).code == 0
    cli("train", "cyclotron", *LONGER, "--name", "whole", "--library", library)
    assert weights(library, "long") == weights(library, "whole")


# -- checkpoints that do not fit ---------------------------------------------------------------------------------------


def test_an_unknown_run_lists_those_that_are_there(refused: Refused, stopped: Path) -> None:
    refused(5, "train", "cyclotron", "--resume", "nothing", says=("'nothing'", stopped.name))


def test_a_folder_without_checkpoint_is_no_run(refused: Refused, tmp_path: Path) -> None:
    refused(5, "train", "cyclotron", "--resume", tmp_path, says=("holds no checkpoint",))


@pytest.mark.parametrize(("name", "value"), [("threads", 99), ("torch", "1.0"), ("matmul", "medium")])
def test_other_circumstances_are_refused_unless_inexact_is_allowed(
    cli: Cli, refused: Refused, library: Path, stopped: Path, name: str, value: object
) -> None:
    rewrite(stopped, lambda state: state["about"]["circumstances"].update({name: value}))
    resume = ("train", "cyclotron", "--resume", stopped.name, "--library", library)
    refused(4, *resume, says=(f"{name} = {value}", "--allow-inexact"))
    assert cli(*resume, "--allow-inexact").code == 0


def test_resuming_in_another_precision_is_refused(refused: Refused, library: Path, stopped: Path) -> None:
    resume = ("train", "cyclotron", "--resume", stopped.name, "--library", library)
    refused(4, *resume, "--dtype", "float64", says=("float32", "float64"))


@pytest.mark.parametrize("file", ["state.json", "state.safetensors"])
def test_an_altered_checkpoint_is_refused(refused: Refused, library: Path, stopped: Path, file: str) -> None:
    (path,) = stopped.glob(f"*/{file}")
    path.write_bytes(path.read_bytes() + b"x")
    refused(3, "train", "cyclotron", "--resume", stopped.name, "--library", library)


@pytest.mark.parametrize("file", ["state.json", "state.safetensors"])
def test_a_checkpoint_with_a_missing_file_is_refused(refused: Refused, library: Path, stopped: Path, file: str) -> None:
    (path,) = stopped.glob(f"*/{file}")
    path.unlink()
    refused(3, "train", "cyclotron", "--resume", stopped.name, "--library", library, says=(file,))


MALFORMED: dict[str, Callable[[dict[str, Any]], object]] = {
    "empty": lambda state: state.update(about={}, values={}),
    "about is a list": lambda state: state.update(about=[]),
    "a seed is a text": lambda state: state["about"].update(seeds=["x"]),
    "settings are a list": lambda state: state["about"].update(settings=[1]),
    "a setting is missing": lambda state: state["about"]["settings"].pop("lr"),
    "a setting is another": lambda state: state["about"]["settings"].update(angular=2),
    "a constant is a text": lambda state: state["about"]["parameters"].update(dt="x"),
    "lanes are missing": lambda state: state["values"].pop("lanes"),
    "the step is a text": lambda state: state["values"]["run"].update(step="x"),
}


@pytest.mark.parametrize("change", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_checkpoint_is_refused_without_an_internal_error(
    cli: Cli, library: Path, stopped: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    rewrite(stopped, change)
    done = cli("train", "cyclotron", "--resume", stopped.name, "--library", library)
    assert done.code in (2, 3, 4), done.err
    assert "internal error" not in done.err
    assert not list(library.rglob("*"))


def test_the_newest_readable_checkpoint_is_taken(
    cli: Cli, library: Path, stopped: Path, ctrl_c: Callable[..., None]
) -> None:
    ctrl_c(12)
    cli("train", "cyclotron", "--resume", stopped.name, "--library", library)
    (stopped / "12" / "state.json").write_text("torn")
    assert cli("train", "cyclotron", "--resume", stopped.name, "--library", library).code == 0
    cli("train", "cyclotron", *LONGER, "--name", "whole", "--library", library)
    assert weights(library, "long") == weights(library, "whole")
