"""`grokkit run`: every file format in and out, rollouts, contexts, and inputs that do not fit."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from numpy.typing import NDArray

from grokkit_core import store

Cli = Callable[..., Any]
Refused = Callable[..., str]
Windows = NDArray[np.float32]
Write = Callable[..., Path]
FORMATS = ("npy", "npz", "csv", "json", "safetensors")
KEYS = {"outputs", "shape", "dtype", "seconds", "drift", "horizon", "routed"}
NODE = "cyclotron-1node"


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """`write("json", value)` or `write("npz", array, name="states")`: an input file of that format."""

    def call(kind: str, value: Any, *, name: str = "states", stem: str = "input", **more: Any) -> Path:
        path = tmp_path / f"{stem}.{kind}"
        if kind == "npy":
            np.save(path, value)
        elif kind == "npz":
            np.savez(path, **{name: value, **more})
        elif kind == "csv":
            np.savetxt(path, value.reshape(len(value), -1), delimiter=",")
        elif kind == "json":
            path.write_text(json.dumps(value.tolist() if isinstance(value, np.ndarray) else value))
        else:
            safetensors.numpy.save_file({name: value, **more}, path)
        return path

    return call


SMALL_FILES = 'ulimit -f 2; exec "$0" -m grokkit_cli "$@"'
"""Runs grokkit where a file may have 2 kB, as on a disk that is nearly full. Not in this process: its log is a file too."""


def read(path: Path) -> Any:
    """The array of an output file."""
    if path.suffix == ".npy":
        return np.load(path)
    if path.suffix == ".npz":
        return np.load(path)["outputs"]
    if path.suffix == ".csv":
        return np.loadtxt(path, delimiter=",", ndmin=2)
    if path.suffix == ".json":
        return np.array(json.loads(path.read_text()))
    return safetensors.numpy.load_file(path)["outputs"]


# -- what it prints ----------------------------------------------------------------------------------------------------


def test_run_has_the_documented_json_keys(cli: Cli, states: Path) -> None:
    done = cli("run", NODE, "--input", states, "--json")
    assert (done.code, done.err) == (0, "")
    assert set(done.json) >= KEYS
    assert (done.json["shape"], done.json["dtype"]) == ([3, 4], "float32")
    assert (done.json["drift"], done.json["routed"]) == (None, None)
    assert np.shape(done.json["outputs"]) == (3, 4)


def test_outputs_go_to_stdout_one_sample_a_line_and_the_rest_to_stderr(cli: Cli, states: Path) -> None:
    done = cli("run", NODE, "--input", states)
    assert done.code == 0
    assert np.shape([json.loads(line) for line in done.out.splitlines()]) == (3, 4)
    assert done.err.startswith("grokkit: [3, 4] float32 in ")
    assert len(done.err.splitlines()) == 1


def test_the_prediction_is_the_networks(cli: Cli, states: Path, windows: Windows) -> None:
    import torch

    import grokkit_core as gk

    expected = gk.load(NODE)(torch.from_numpy(windows.copy()))
    assert cli("run", NODE, "--input", states, "--json").json["outputs"] == expected.tolist()


# -- files in and out --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FORMATS)
def test_every_input_format_gives_the_same_outputs(
    cli: Cli, states: Path, windows: Windows, write: Write, kind: str
) -> None:
    expected = cli("run", NODE, "--input", states, "--json").json["outputs"]
    assert cli("run", NODE, "--input", write(kind, windows), "--json").json["outputs"] == expected


def test_json_is_read_from_stdin(cli: Cli, states: Path, windows: Windows, monkeypatch: pytest.MonkeyPatch) -> None:
    given = io.TextIOWrapper(io.BytesIO(json.dumps(windows.tolist()).encode()))
    monkeypatch.setattr(sys, "stdin", given)
    expected = cli("run", NODE, "--input", states, "--json").json["outputs"]
    assert cli("run", NODE, "--input", "-", "--json").json["outputs"] == expected


def test_a_header_line_of_a_csv_is_skipped(cli: Cli, windows: Windows, write: Write) -> None:
    path = write("csv", windows)
    path.write_text(",".join(f"x{i}" for i in range(60)) + "\n" + path.read_text())
    assert cli("run", NODE, "--input", path, "--json").json["shape"] == [3, 4]


@pytest.mark.parametrize("order", [">f4", "<f4"])
def test_either_byte_order_is_read(cli: Cli, windows: Windows, write: Write, order: str) -> None:
    assert cli("run", NODE, "--input", write("npy", windows.astype(order))).code == 0


@pytest.mark.parametrize("kind", ["npz", "json", "safetensors"])
def test_a_file_may_bring_its_context(cli: Cli, gated: Path, windows: Windows, write: Write, kind: str) -> None:
    omega = np.full(3, 1.25, dtype=np.float32)
    value: Any = {"states": windows.tolist(), "omega": omega.tolist()} if kind == "json" else windows
    path = write(kind, value, omega=omega)
    given = cli("run", gated, "--input", write("npy", windows), "--context", "omega=1.25", "--json").json
    found = cli("run", gated, "--input", path, "--json").json["outputs"]
    assert np.allclose(found, given["outputs"], rtol=0, atol=1e-6)  # one number for all is fused in fewer roundings


@pytest.mark.parametrize("kind", ["npz", "json", "safetensors"])
def test_a_context_in_a_file_may_be_one_number(
    cli: Cli, gated: Path, windows: Windows, write: Write, kind: str
) -> None:
    value: Any = {"states": windows.tolist(), "omega": 1.25} if kind == "json" else windows
    done = cli("run", gated, "--input", write(kind, value, omega=np.array(1.25)), "--json")
    assert done.code == 0, done.err


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("steps", [None, 3])
def test_every_output_format_holds_the_outputs(
    cli: Cli, states: Path, tmp_path: Path, kind: str, steps: int | None
) -> None:
    path = tmp_path / f"made.{kind}"
    more = () if steps is None else ("--steps", steps)
    expected = cli("run", NODE, "--input", states, *more, "--json").json["outputs"]
    done = cli("run", NODE, "--input", states, *more, "--output", path)
    assert (done.code, done.out) == (0, "")
    assert str(path) in done.err
    shape = (3, 4) if steps is None else (9, 4) if kind == "csv" else (3, 3, 4)
    assert read(path).shape == shape
    assert np.allclose(read(path).ravel(), np.ravel(expected), rtol=0, atol=0)


def test_with_an_output_file_json_holds_its_path(cli: Cli, states: Path, tmp_path: Path) -> None:
    path = tmp_path / "made.npy"
    done = cli("run", NODE, "--input", states, "--output", path, "--json")
    assert (done.json["outputs"], done.json["shape"]) == (str(path), [3, 4])


def test_double_precision_in_gives_double_precision_out(cli: Cli, windows: Windows, write: Write) -> None:
    assert cli("run", NODE, "--input", write("npy", windows.astype("f8")), "--json").json["dtype"] == "float64"
    assert cli("run", NODE, "--input", write("csv", windows), "--dtype", "float64", "--json").json["dtype"] == "float64"


def test_a_dtype_that_the_file_does_not_have_is_not_passed_over_in_silence(cli: Cli, states: Path) -> None:
    done = cli("run", NODE, "--input", states, "--dtype", "float64", "--json")
    assert done.code == 4 or done.json["dtype"] == "float64"


# -- rollouts ----------------------------------------------------------------------------------------------------------


def test_a_rollout_has_a_step_axis_and_the_drift_of_invariants(cli: Cli, states: Path) -> None:
    done = cli("run", NODE, "--input", states, "--steps", 5, "--json").json
    assert (done["shape"], np.shape(done["outputs"])) == ([5, 3, 4], (5, 3, 4))
    assert set(done["drift"]) == {"speed"}
    assert done["drift"]["speed"] > 0


def test_a_rollout_is_printed_as_it_comes_and_its_drift_afterwards(cli: Cli, states: Path) -> None:
    done = cli("run", NODE, "--input", states, "--steps", 2)
    assert len(done.out.splitlines()) == 6
    assert "speed drifted by at most" in done.err


def test_each_step_is_fed_into_the_next(cli: Cli, states: Path, windows: Windows, write: Write) -> None:
    rolled = cli("run", NODE, "--input", states, "--steps", 2, "--json").json["outputs"]
    first = np.array(rolled[0], dtype=np.float32)
    slid = np.concatenate((windows[:, 1:], first[:, None]), axis=1)
    again = cli("run", NODE, "--input", write("npy", slid), "--json").json["outputs"]
    assert rolled[1] == again


def test_an_interrupted_rollout_leaves_no_file(
    cli: Cli, states: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from grokkit_cyclotron.law import Cyclotron

    def advance(*arguments: object) -> None:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Cyclotron, "advance", advance)
    before = sorted(tmp_path.iterdir())
    done = cli("run", NODE, "--input", states, "--steps", 9, "--output", tmp_path / "made.npy")
    assert (done.code, done.out) == (130, "")
    assert sorted(tmp_path.iterdir()) == before


# -- contexts ----------------------------------------------------------------------------------------------------------


def test_a_context_changes_the_prediction_of_a_gated_cassette(cli: Cli, gated: Path, states: Path) -> None:
    outputs = [
        cli("run", gated, "--input", states, "--context", f"omega={omega}", "--json").json["outputs"]
        for omega in (0.5, 3.5)
    ]
    assert outputs[0] != outputs[1]


def test_a_missing_context_is_asked_for(refused: Refused, gated: Path, states: Path) -> None:
    refused(4, "run", gated, "--input", states, says=("'omega' is missing", "expected omega [rad/s] in [0, 4]"))


@pytest.mark.parametrize(("text", "shown"), [("omega=5", "holds 5"), ("omega=-1", "holds -1"), ("omega=nan", "NaN")])
def test_a_context_outside_its_domain_is_refused(
    refused: Refused, gated: Path, states: Path, text: str, shown: str
) -> None:
    refused(4, "run", gated, "--input", states, "--context", text, says=("'omega'", shown, "expected"))


def test_force_admits_a_context_outside_its_domain(cli: Cli, gated: Path, states: Path) -> None:
    assert cli("run", gated, "--input", states, "--context", "omega=5", "--force").code == 0


@pytest.mark.parametrize("text", ["omega", "omega=", "omega=x", "=1"])
def test_a_context_that_is_not_a_pair_is_a_usage_error(refused: Refused, states: Path, text: str) -> None:
    refused(2, "run", NODE, "--input", states, "--context", text, says=(f"'{text}'", "expected name=number"))


# -- inputs that do not fit --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda a: a[:, :14], ["axis 1 of input 'states' has size 14", "expected [batch, 15, 4]"]),
        (lambda a: a[:, :, :3], ["axis 2 of input 'states' has size 3", "expected [batch, 15, 4]"]),
        (lambda a: a[0], ["'states' has shape [15, 4]", "expected 3 axes [batch, 15, 4]"]),
        (lambda a: a[:0], ["'states'", "expected"]),
        (lambda a: a.astype("i8"), ["dtype int64", "expected float32 or float64", "cast it first"]),
        (lambda a: a.astype("i4"), ["dtype int32", "expected float32 or float64"]),
        (lambda a: a.astype("f2"), ["dtype float16", "expected float32 or float64"]),
        (lambda a: a > 0, ["dtype bool", "expected float32 or float64"]),
        (lambda a: a.astype("c8"), ["dtype complex64", "expected float32 or float64"]),
        (lambda a: np.where(a == a[0, 0, 0], np.nan, a), ["NaN or infinity in", "expected finite numbers"]),
        (lambda a: np.where(a == a[0, 0, 0], np.inf, a), ["NaN or infinity in", "expected finite numbers"]),
        (lambda a: a.astype(str), ["not a numeric .npy array"]),
        (lambda a: a.astype(np.longdouble), ["not a numeric .npy array"]),
    ],
)
def test_an_array_that_does_not_fit_is_refused(
    refused: Refused, windows: Windows, write: Write, tmp_path: Path, change: Callable[[Any], Any], says: list[str]
) -> None:
    made = tmp_path / "made.npy"
    refused(4, "run", NODE, "--input", write("npy", change(windows)), "--output", made, says=says)
    assert not made.exists()


def test_force_never_admits_a_wrong_shape(refused: Refused, windows: Windows, write: Write) -> None:
    refused(4, "run", NODE, "--input", write("npy", windows[:, :9]), "--force", says=("size 9",))


def test_force_admits_values_that_are_not_finite(cli: Cli, windows: Windows, write: Write) -> None:
    windows = windows.copy()
    windows[0, -1, 0] = np.nan
    assert cli("run", NODE, "--input", write("npy", windows), "--force").code == 0


def test_outputs_that_are_not_finite_are_still_valid_json(cli: Cli, gated: Path, states: Path) -> None:
    def strict(token: str) -> None:
        raise AssertionError(f"{token} is not JSON")

    done = cli("run", gated, "--input", states, "--context", "omega=nan", "--force", "--json")
    assert done.code == 0, done.err
    json.loads(done.out, parse_constant=strict)


@pytest.mark.parametrize("kind", ["npz", "json", "safetensors"])
def test_an_array_of_another_name_is_refused(refused: Refused, windows: Windows, write: Write, kind: str) -> None:
    path = write(kind, {"stats": windows.tolist()} if kind == "json" else windows, name="stats")
    refused(4, "run", NODE, "--input", path, says=("'stats'", "expected", "states"))


@pytest.mark.parametrize("kind", ["npz", "json", "safetensors"])
def test_an_array_too_many_is_refused(refused: Refused, windows: Windows, write: Write, kind: str) -> None:
    value: Any = {"states": windows.tolist(), "extra": [1.0]} if kind == "json" else windows
    refused(4, "run", NODE, "--input", write(kind, value, extra=np.ones(1)), says=("'extra'",))


@pytest.mark.parametrize("value", [{}, [], 5, None, "text", [[1, 2], [3]], [[["a"]]], {"states": None}])
def test_json_that_holds_no_fitting_array_is_refused(refused: Refused, write: Write, value: object) -> None:
    refused(4, "run", NODE, "--input", write("json", value), says=("states",))


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("content", [b"", b"junk", b"\x93NUMPY", b"PK\x03\x04", b"{" * 9, b"\xff\xfe\x00"])
def test_a_file_that_is_not_what_its_ending_says_is_refused(
    refused: Refused, tmp_path: Path, kind: str, content: bytes
) -> None:
    path = tmp_path / f"input.{kind}"
    path.write_bytes(content)
    refused(4, "run", NODE, "--input", path)


def test_a_row_of_the_wrong_length_is_named(refused: Refused, windows: Windows, write: Write) -> None:
    path = write("csv", windows)
    path.write_text(path.read_text() + "1,2,3\n")
    refused(4, "run", NODE, "--input", path, says=("row 4", "3 columns", "expected 60 numbers"))


def test_a_pickled_array_is_never_loaded(refused: Refused, tmp_path: Path) -> None:
    path = tmp_path / "evil.npy"
    np.save(path, np.array([print], dtype=object), allow_pickle=True)
    refused(4, "run", NODE, "--input", path, says=("evil.npy",))


def test_an_archive_that_inflates_beyond_the_cap_is_refused(
    refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, states=np.zeros((9_000, 15, 4), dtype=np.float32))
    monkeypatch.setattr("grokkit_core.files.MAX_BYTES", 1_000_000)
    refused(3, "run", NODE, "--input", path, says=("2160", "expected at most 1000000"))


def test_a_file_beyond_the_cap_is_refused(refused: Refused, states: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("grokkit_core.files.MAX_BYTES", 100)
    refused(3, "run", NODE, "--input", states, says=("too large", "at most 100 bytes"))


# -- files that are not there or cannot be written ---------------------------------------------------------------------


def test_a_missing_input_is_not_found(refused: Refused, tmp_path: Path) -> None:
    refused(5, "run", NODE, "--input", tmp_path / "none.npy", says=("none.npy",))


def test_a_folder_is_no_input(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "folder.npy").mkdir()
    refused(6, "run", NODE, "--input", tmp_path / "folder.npy", says=("folder.npy", "directory"))


@pytest.mark.parametrize("option", ["--input", "--output"])
def test_an_unknown_ending_lists_the_known_ones(refused: Refused, states: Path, tmp_path: Path, option: str) -> None:
    words = {"--input": states, "--output": tmp_path / "made.npy", option: tmp_path / "made.txt"}
    pairs = [part for pair in words.items() for part in pair]
    refused(2, "run", NODE, *pairs, says=("made.txt", ".npy, .npz, .csv, .json, .safetensors"))


@pytest.mark.parametrize("place", ["/proc/grokkit.npy", "/dev/null/made.npy", "{tmp}/no/such/folder/made.npy"])
def test_an_output_that_cannot_be_written_is_a_storage_error(
    refused: Refused, states: Path, tmp_path: Path, place: str
) -> None:
    path = place.format(tmp=tmp_path)
    refused(6, "run", NODE, "--input", states, "--output", path, says=("writing", path))


@pytest.mark.parametrize("kind", FORMATS)
def test_a_full_disk_leaves_no_part_of_an_output(states: Path, tmp_path: Path, kind: str) -> None:
    made = tmp_path / f"made.{kind}"
    made.write_bytes(b"old")
    before = sorted(tmp_path.iterdir())
    words = ["run", NODE, "--input", str(states), "--steps", "200", "--output", str(made)]
    done = subprocess.run(
        ["bash", "-c", SMALL_FILES, sys.executable, *words], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (6, "", 1)
    assert made.name in done.stderr
    assert made.read_bytes() == b"old"
    assert sorted(tmp_path.iterdir()) == before


def test_an_unknown_cassette_suggests_the_nearest(refused: Refused, states: Path) -> None:
    refused(5, "run", "cyclotron-1nod", "--input", states, says=("did you mean 'cyclotron-1node'?",))


def test_a_cassette_of_one_task_has_no_keys(refused: Refused, states: Path) -> None:
    refused(4, "run", NODE, "--input", states, "--key", "left", says=("'left'", "leave the key out"))


@pytest.mark.parametrize("steps", ["0", "-1", "x"])
def test_a_bad_number_of_steps_is_a_usage_error(refused: Refused, states: Path, steps: str) -> None:
    refused(2, "run", NODE, "--input", states, "--steps", steps, says=("--steps", steps))


def test_the_input_is_asked_for(refused: Refused) -> None:
    refused(2, "run", NODE, says=("--input",))


def test_altered_weights_never_predict(refused: Refused, shelf: Path, states: Path) -> None:
    path = shelf / "alpha" / "1" / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    assert store.read_manifest(shelf / "alpha" / "1")
    refused(3, "run", "alpha", "--input", states, "--library", shelf, says=("alpha@1", "altered"))


def test_a_context_that_nobody_reads_is_named(cli: Cli, states: Path) -> None:
    done = cli("run", NODE, "--input", states, "--context", "omga=1.5")
    assert done.code == 0
    assert done.err.splitlines()[0] == "grokkit: context 'omga' is not read; it reads omega"


def test_a_context_that_is_declared_is_not_remarked(cli: Cli, states: Path) -> None:
    assert "not read" not in cli("run", NODE, "--input", states, "--context", "omega=1.5").err


# -- notes -------------------------------------------------------------------------------------------------------------


def test_angles_outside_one_turn_are_said_to_be_wrapped(cli: Cli, tmp_path: Path) -> None:
    source = tmp_path / "states.json"
    source.write_text("[[14.0, 1.8, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0]]")
    done = cli("run", "pendulum", "--input", source, "--json")
    assert done.json["notes"] == ["angles of 1 states lie outside one turn: wrapped, and their whole turns added back"]
    source.write_text("[[1.0, 1.0, 0.0, 0.0]]")
    assert cli("run", "pendulum", "--input", source, "--json").json["notes"] == []


def test_outputs_that_are_not_finite_are_remarked_on(cli: Cli, tmp_path: Path) -> None:
    source = tmp_path / "pair.json"
    source.write_text(json.dumps([[[0.5, 1.0, -1.0], [0.4, 0.9, -1.0]]]))
    arguments = ("run", "wave", "--input", source, "--context", "lam2=1.5", "--force", "--steps", 3000)
    done = cli(*arguments, "--output", tmp_path / "out.npy")
    assert done.code == 0
    assert "NaN or infinite from step" in done.err


def test_energy_drift_is_measured_from_rest(cli: Cli, tmp_path: Path) -> None:
    """Both rods horizontal: the energy that textbooks write is zero there, and a drift relative to it is any number."""
    source = tmp_path / "states.json"
    source.write_text("[[1.5707963267948966, 1.5707963267948966, 0.0, 0.0]]")
    done = cli("run", "pendulum", "--input", source, "--steps", 200, "--json")
    assert 0 < done.json["drift"]["energy"] < 1e-3


def test_a_csv_whose_header_has_the_columns_in_another_order_is_refused(cli: Cli, tmp_path: Path) -> None:
    source = tmp_path / "states.csv"
    source.write_text("omega1,omega2,theta1,theta2\n0.1,0.2,1.0,1.5\n")
    done = cli("run", "pendulum", "--input", source)
    assert done.code == 4
    assert "expected theta1, theta2, omega1, omega2" in done.err
    for header in ("theta1,theta2,omega1,omega2", "a,b,c,d"):
        source.write_text(f"{header}\n1.0,1.5,0.1,0.2\n")
        assert cli("run", "pendulum", "--input", source).code == 0
