"""Routers and superpositions on the command line: composed, shown, run by key, by name and by signature, checked, exported."""

from __future__ import annotations

import importlib.util
import io
import itertools
import json
import shutil
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

import grokkit_core as gk
from grokkit_core.fusion import overhead

Cli = Callable[..., Any]
Refused = Callable[..., str]
Forge = Callable[..., None]

FUSIONS = ("router", "superposition")
MEMBERS = ("parity-3of64-grokked", "pendulum", "kepler", "cyclotron", "wave", "matmul-2x2")
BITS = np.eye(3, 64, dtype=np.float32)
STATES = np.linspace(0.1, 0.4, 8).reshape(2, 4)
ANGLES = np.arange(15)[None, :, None] * 0.05 + np.array([0.0, np.pi / 2, np.pi / 2, np.pi])
WINDOWS = np.sin(ANGLES + np.zeros((2, 1, 1)))
PAIRS = np.sin(np.linspace(0, 3, 64)).reshape(2, 2, 16)
CARD = {"name", "version", "fusion", "gate", "members", "checks", "collisions", "notes", "verdict", "digest"}
needs_onnx = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("onnx", "onnxscript", "onnxruntime")),
    reason="the extra grokkit[export] is not installed",
)


@pytest.fixture(scope="module")
def composed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library with `router@1` and `superposition@1` of six shipped cassettes. Not to be changed."""
    library = tmp_path_factory.mktemp("composed") / "library"
    for fusion in FUSIONS:
        gk.compose(*MEMBERS, fusion=fusion, name=fusion, library=library)
    return library


@pytest.fixture(params=FUSIONS)
def fused(request: pytest.FixtureRequest, composed: Path) -> str:
    """The path of each in turn."""
    return str(composed / request.param / "1")


@pytest.fixture
def router(composed: Path) -> str:
    """The path of the router."""
    return str(composed / "router" / "1")


@pytest.fixture
def put(tmp_path: Path) -> Callable[..., Path]:
    """`put("in.npz", bits=..., pair=...)`: arrays in a file of any kind; one array alone is positional."""

    def write(name: str, *alone: Any, **arrays: Any) -> Path:
        path = tmp_path / name
        if name.endswith(".npy"):
            np.save(path, alone[0])
        elif name.endswith(".npz"):
            np.savez(path, **arrays)
        elif name.endswith(".csv"):
            np.savetxt(path, alone[0].reshape(len(alone[0]), -1), delimiter=",")
        elif name.endswith(".safetensors"):
            safetensors.numpy.save_file({key: np.ascontiguousarray(value) for key, value in arrays.items()}, path)
        else:
            lists = {key: np.asarray(value).tolist() for key, value in arrays.items()}
            path.write_text(json.dumps(lists or np.asarray(alone[0]).tolist()))
        return path

    return write


def digest(name: str) -> str:
    return gk.show(name).digest


# -- compose ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fusion", FUSIONS)
def test_compose_says_how_each_member_compared(fusion: str, cli: Cli, library: Path) -> None:
    made = cli("compose", "pendulum", "kepler", "wave", "--fusion", fusion, "--library", library, "--json")
    assert made.code == 0, made.err
    assert set(made.json) >= CARD
    assert (made.json["name"], made.json["fusion"], made.json["gate"]) == (f"pendulum-{fusion}", fusion, None)
    assert made.json["members"] == ["pendulum", "kepler", "wave"]
    assert all(check["equal"] and check["isolated"] and check["live"] for check in made.json["checks"])
    assert made.json["collisions"] == [{"members": ["pendulum", "kepler"], "by_name": False}]
    shown = cli("compose", "pendulum", "kepler", "wave", "--fusion", fusion, "--library", library)
    for word in ("equal to the bit", "vary", "of the sum of its members' files", f"saved as pendulum-{fusion}@2"):
        assert word in shown.out


@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_dry_run_prints_the_plan_and_writes_nothing(fusion: str, cli: Cli, library: Path) -> None:
    made = cli("compose", "pendulum", "kepler", "--fusion", fusion, "--dry-run", "--library", library)
    assert made.code == 0
    assert "between pendulum and kepler" in made.out
    assert not any(library.rglob("*.json"))


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("extra", [("--gate", "uniform"), ("--set", "free=true"), ("--calibrate", "omega=1,2")])
def test_a_composition_takes_no_gate_setting_or_calibration(
    fusion: str, extra: tuple[str, str], refused: Refused, library: Path
) -> None:
    refused(2, "compose", "pendulum", "wave", "--fusion", fusion, *extra, "--library", library, says=(fusion,))
    assert not any(library.rglob("*.json"))


def test_one_cassette_or_none_is_a_usage_error(refused: Refused, cli: Cli) -> None:
    refused(2, "compose", "pendulum", "--fusion", "router", says=("two or more",))
    assert cli("compose", "--fusion", "router").code == 2


def test_a_gate_of_a_missing_package_exits_4_and_names_it(refused: Refused) -> None:
    pair = ("cyclotron-1node", "cyclotron-8node")
    refused(4, "compose", *pair, "--gate", "grokkit_elsewhere/best", says=("grokkit_elsewhere",))
    refused(5, "compose", *pair, "--gate", "spektral", says=("spectral",))


def test_an_ensemble_refuses_a_composition(refused: Refused, router: str) -> None:
    refused(4, "compose", router, "pendulum", says=("several tasks", "--fusion router"))


# -- show, list, verify -----------------------------------------------------------------------------------------------


def test_show_lists_the_members_with_task_input_and_verdict(cli: Cli, fused: str) -> None:
    shown = cli("show", fused)
    assert shown.code == 0
    for name in MEMBERS:
        assert name in shown.out
    for word in ("composite", "bits [batch, 64]", "inherited", "algebraic"):
        assert word in shown.out
    assert [entry["key"] for entry in cli("show", fused, "--json").json["architecture"]["config"]["members"]] == [
        *MEMBERS
    ]


def test_list_finds_compositions_by_their_task(cli: Cli, composed: Path) -> None:
    found = cli("list", "--task", "composite", "--library", composed, "--json").json["cassettes"]
    assert {entry["name"] for entry in found} >= set(FUSIONS)
    assert all((entry["task"], entry["kind"], entry["problem"]) == ("composite", "composed", None) for entry in found)


def test_verify_recomputes_the_certificates_of_all_members(
    cli: Cli, composed: Path, tmp_path: Path, forge: Forge
) -> None:
    honest = cli("verify", composed / "router" / "1", "--level", "quick", "--json")
    assert honest.code == 0, honest.out
    assert honest.json["results"][0]["agrees"]
    forged = tmp_path / "forged" / "1"
    shutil.copytree(composed / "router" / "1", forged)

    def improve(body: dict[str, Any]) -> None:
        for bound in body["architecture"]["config"]["members"][3]["certificate"]["bounds"]:
            bound["value"] /= 1e9

    forge(forged, improve)
    found = cli("verify", forged, "--level", "quick", "--json")
    assert found.code == 1
    assert "cyclotron" in str(found.json["results"][0]["reasons"])


def test_a_flipped_byte_exits_3(refused: Refused, composed: Path, tmp_path: Path, put: Callable[..., Path]) -> None:
    copied = tmp_path / "flipped" / "1"
    shutil.copytree(composed / "superposition" / "1", copied)
    data = bytearray((copied / "weights.safetensors").read_bytes())
    data[-9] ^= 4
    (copied / "weights.safetensors").write_bytes(data)
    refused(3, "run", copied, "--input", put("x.npy", BITS))
    refused(3, "verify", copied)


# -- run --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "name", "rule"),
    [("pendulum", "pendulum", "key"), ("matmul", "matmul-2x2", "task"), ("parity", "parity-3of64-grokked", "task")],
)
def test_a_key_names_the_member_and_its_own_digest_is_told(
    key: str, name: str, rule: str, cli: Cli, fused: str, put: Callable[..., Path]
) -> None:
    arrays = {"matmul": {"a": np.eye(2), "b": np.eye(2)}, "pendulum": {"state": STATES}, "parity": {"bits": BITS}}
    path = put("in.npz", **arrays[key])
    found = cli("run", fused, "--input", path, "--key", key, "--json")
    assert found.code == 0, found.err
    assert found.json["routed"] == {"key": name, "rule": rule, "digest": digest(name)}
    assert found.json["outputs"] == cli("run", name, "--input", path, "--json").json["outputs"]


def test_without_a_key_the_signature_decides(cli: Cli, fused: str, put: Callable[..., Path]) -> None:
    for name, array in (("parity-3of64-grokked", BITS), ("cyclotron", WINDOWS)):
        found = cli("run", fused, "--input", put("in.npy", array), "--json")
        assert found.json["routed"] == {"key": name, "rule": "signature", "digest": digest(name)}
        assert found.json["outputs"] == cli("run", name, "--input", put("in.npy", array), "--json").json["outputs"]


def test_a_cassette_of_one_task_is_routed_nowhere(cli: Cli, refused: Refused, put: Callable[..., Path]) -> None:
    path = put("in.npy", STATES)
    assert cli("run", "pendulum", "--input", path, "--json").json["routed"] is None
    refused(4, "run", "pendulum", "--input", path, "--key", "pendulum", says=("leave the key out",))


@pytest.mark.parametrize(
    ("extra", "code", "says"),
    [
        ((), 4, ("pendulum", "kepler", "key")),
        (("--key", "pendulm"), 5, ("pendulum",)),
        (("--key", "parity"), 4, ("64",)),
        (("--key", "cyclotron"), 4, ("15",)),
    ],
)
def test_what_is_not_clear_is_refused_with_the_candidates(
    extra: tuple[str, ...], code: int, says: tuple[str, ...], refused: Refused, fused: str, put: Callable[..., Path]
) -> None:
    refused(code, "run", fused, "--input", put("in.npy", STATES), *extra, says=says)


def test_a_task_of_two_members_is_no_key(refused: Refused, library: Path, put: Callable[..., Path]) -> None:
    gk.compose("parity-3of64", "parity-3of64-grokked", fusion="router", name="two", library=library)
    path = put("in.npy", BITS)
    refused(4, "run", "two", "--input", path, "--key", "parity", "--library", library, says=("parity-3of64-grokked",))


@pytest.mark.parametrize(
    "array",
    [np.ones((3, 65), "f4"), np.ones((3, 20), "f4"), np.full((2, 64), 0.5, "f4"), np.full((2, 15, 4), np.nan)],
    ids=["width 65", "width 20", "no bits", "nan"],
)
def test_what_fits_nobody_is_refused_with_every_reason(
    array: Any, refused: Refused, fused: str, put: Callable[..., Path]
) -> None:
    refused(4, "run", fused, "--input", put("in.npy", array), says=("no member", *MEMBERS))


@pytest.mark.parametrize("kind", ["npz", "json", "safetensors"])
def test_named_arrays_go_each_to_its_member(kind: str, cli: Cli, fused: str, put: Callable[..., Path]) -> None:
    path = put(f"in.{kind}", bits=BITS, pair=PAIRS, lam2=np.array([0.25, 0.5]), kepler=[[1.0, 0.0, 0.0, 1.0]])
    found = cli("run", fused, "--input", path, "--json")
    assert found.code == 0, found.err
    assert {name: routed["key"] for name, routed in found.json["routed"].items()} == {
        "bits": "parity-3of64-grokked", "pair": "wave", "kepler": "kepler"
    }  # fmt: skip
    assert found.json["routed"]["kepler"]["digest"] == digest("kepler")
    assert found.json["shape"] == {"bits": [3, 2], "pair": [2, 16], "kepler": [1, 4]}
    alone = cli("run", "wave", "--input", put(f"wave.{kind}", pair=PAIRS, lam2=np.array([0.25, 0.5])), "--json")
    assert found.json["outputs"]["pair"] == alone.json["outputs"]


def test_so_do_those_on_standard_input(cli: Cli, fused: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = json.dumps({"bits": BITS.tolist(), "states": WINDOWS.tolist()}).encode()
    monkeypatch.setattr("sys.stdin", types.SimpleNamespace(buffer=io.BytesIO(text), isatty=lambda: False))
    found = cli("run", fused, "--input", "-", "--json")
    assert {name: routed["rule"] for name, routed in found.json["routed"].items()} == dict.fromkeys(
        ("bits", "states"), "signature"
    )


@pytest.mark.parametrize("name", ["bist", "state"])
def test_a_name_of_nobody_or_of_two_is_refused(
    name: str, refused: Refused, fused: str, put: Callable[..., Path]
) -> None:
    path = put("in.npz", **{name: STATES, "pair": PAIRS})
    refused(5 if name == "bist" else 4, "run", fused, "--input", path, says=("bits" if name == "bist" else "kepler",))


@pytest.mark.parametrize("number", ["1.000000001", "1e-46", "0.5", "2"])
def test_a_number_that_is_no_bit_is_not_rounded_to_one(
    number: str, refused: Refused, fused: str, tmp_path: Path
) -> None:
    for name, text in (("in.json", f"[[{', '.join([number] * 64)}]]"), ("in.csv", ",".join([number] * 64))):
        (tmp_path / name).write_text(text)
        refused(4, "run", fused, "--input", tmp_path / name, says=("no member",))


@pytest.mark.parametrize("text", ["[[1, 2, 3], [4, 5]]", "{}", "[]", "3", '{"bits": null}', '"bits"', "{"])
def test_json_that_is_no_input_is_refused(text: str, refused: Refused, fused: str, tmp_path: Path) -> None:
    (tmp_path / "in.json").write_text(text)
    refused(4, "run", fused, "--input", tmp_path / "in.json")


def test_a_csv_is_read_for_the_member_that_it_fits(
    cli: Cli, refused: Refused, fused: str, put: Callable[..., Path]
) -> None:
    found = cli("run", fused, "--input", put("in.csv", BITS), "--json").json
    assert found["routed"]["key"] == "parity-3of64-grokked"
    assert cli("run", fused, "--input", put("in.csv", WINDOWS), "--json").json["routed"]["key"] == "cyclotron"
    refused(4, "run", fused, "--input", put("in.csv", STATES), says=("pendulum", "kepler"))
    assert cli("run", fused, "--input", put("in.csv", STATES), "--key", "pendulum").code == 0
    refused(4, "run", fused, "--input", put("in.csv", BITS + 2))


@pytest.mark.parametrize("kind", ["npy", "npz", "csv", "json", "safetensors"])
def test_every_output_format_holds_a_members_outputs(
    kind: str, cli: Cli, fused: str, put: Callable[..., Path], tmp_path: Path
) -> None:
    out, alone = tmp_path / f"out.{kind}", tmp_path / f"alone.{kind}"
    path = put("in.npy", STATES)
    made = cli("run", fused, "--input", path, "--key", "pendulum", "--output", out, "--json")
    assert made.json["outputs"] == str(out)
    assert cli("run", "pendulum", "--input", path, "--output", alone).code == 0
    if kind == "npz":
        assert np.array_equal(np.load(out)["outputs"], np.load(alone)["outputs"])
    else:
        assert out.read_bytes() == alone.read_bytes()


@pytest.mark.parametrize("kind", ["npz", "json", "safetensors"])
def test_outputs_of_several_members_keep_their_names(
    kind: str, cli: Cli, fused: str, put: Callable[..., Path], tmp_path: Path
) -> None:
    out = tmp_path / f"out.{kind}"
    assert cli("run", fused, "--input", put("in.npz", bits=BITS, states=WINDOWS), "--output", out).code == 0
    readers: dict[str, Callable[[Path], Any]] = {
        "npz": np.load, "json": lambda path: json.loads(path.read_text()), "safetensors": safetensors.numpy.load_file
    }  # fmt: skip
    found = readers[kind](out)
    assert {name: np.shape(found[name]) for name in found} == {"bits": (3, 2), "states": (2, 4)}


@pytest.mark.parametrize("kind", ["npy", "csv"])
def test_a_format_without_names_is_refused_and_nothing_written(
    kind: str, refused: Refused, router: str, put: Callable[..., Path], tmp_path: Path
) -> None:
    path = put("in.npz", bits=BITS, states=WINDOWS)
    refused(2, "run", router, "--input", path, "--output", tmp_path / f"out.{kind}", says=(".npz",))
    assert [entry.name for entry in tmp_path.iterdir() if entry.is_file()] == ["in.npz"]


def test_a_rollout_by_key_is_the_members_with_its_drift(
    cli: Cli, refused: Refused, fused: str, put: Callable[..., Path]
) -> None:
    path = put("in.npy", STATES)
    found = cli("run", fused, "--input", path, "--key", "pendulum", "--steps", 3, "--json").json
    alone = cli("run", "pendulum", "--input", path, "--steps", 3, "--json").json
    assert found["shape"] == [3, 2, 4]
    assert found["drift"]
    assert [found[field] for field in ("outputs", "drift", "horizon")] == [
        alone[field] for field in ("outputs", "drift", "horizon")
    ]
    refused(4, "run", fused, "--input", put("in.npy", BITS), "--steps", 2, says=("parity", "flow map"))


def test_a_terminal_is_told_who_answered(cli: Cli, fused: str, put: Callable[..., Path]) -> None:
    told = cli("run", fused, "--input", put("in.npz", bits=BITS, states=WINDOWS))
    assert told.code == 0
    assert "answered by parity-3of64-grokked" in told.err
    assert "answered by cyclotron" in told.err
    assert len(told.out.splitlines()) == 2


# -- export, import, bench --------------------------------------------------------------------------------------------


def test_an_exported_folder_comes_back_as_it_was(
    cli: Cli, fused: str, library: Path, tmp_path: Path, put: Callable[..., Path]
) -> None:
    made = cli("export", fused, tmp_path / "out", "--to", "folder", "--json")
    assert made.code == 0, made.err
    assert made.json["max_abs_difference"] == 0
    back = cli("import", tmp_path / "out", "--library", library, "--json").json
    assert gk.show(back["name"], library=library).digest == gk.show(fused).digest
    path = put("in.npy", STATES)
    runs = [
        cli("run", ref, "--input", path, "--key", "kepler", "--force", "--json").json
        for ref in (fused, tmp_path / "out")
    ]
    assert runs[0]["outputs"] == runs[1]["outputs"]


def test_a_member_is_exported_alone(cli: Cli, fused: str, tmp_path: Path, put: Callable[..., Path]) -> None:
    assert cli("export", fused, tmp_path / "out", "--to", "folder", "--key", "pendulum").code == 0
    found = gk.load(str(tmp_path / "out"))
    assert found.manifest.task.id == "pendulum"
    assert [parent.digest for parent in found.manifest.provenance.parents] == [digest("pendulum")]
    path = put("in.npy", STATES)
    one, two = (cli("run", ref, "--input", path, "--json").json["outputs"] for ref in (tmp_path / "out", "pendulum"))
    assert one == two
    assert cli("verify", tmp_path / "out", "--level", "quick").code == 0


@pytest.mark.parametrize("kind", ["onnx", "pt2"])
def test_a_single_graph_holds_no_composition(kind: str, refused: Refused, fused: str, tmp_path: Path) -> None:
    refused(4, "export", fused, tmp_path / "out", "--to", kind, says=("--key", "pendulum"))
    refused(5, "export", fused, tmp_path / "out", "--to", kind, "--key", "pendulm", says=("pendulum",))
    refused(4, "export", "pendulum", tmp_path / "out", "--to", kind, "--key", "pendulum")
    assert not any(tmp_path.glob("out*"))


@needs_onnx
def test_a_member_can_be_one(cli: Cli, fused: str, tmp_path: Path) -> None:
    made = cli("export", fused, tmp_path / "out.onnx", "--to", "onnx", "--key", "parity", "--json")
    assert made.code == 0, made.err
    assert made.json["max_abs_difference"] <= 1e-5
    assert made.json["inputs"] == ["bits"]


@pytest.fixture
def fake_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every sample takes a second."""
    seconds = itertools.count()
    monkeypatch.setattr(overhead, "clock_for", lambda device: lambda: float(next(seconds)))


def test_bench_times_each_member_by_key_beside_itself(cli: Cli, fused: str, fake_clock: None) -> None:
    found = cli("bench", fused, "--json")
    assert found.code == 0, found.err
    rows = found.json["rows"]
    assert {row["what"] for row in rows} == set(MEMBERS)
    assert all(row["median_s"] > 0 and row["ratio"] == 1 for row in rows)
