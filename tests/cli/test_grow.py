"""`grokkit grow`."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import grokkit_core as gk
from grokkit_core import store

Cli = Callable[..., Any]
Refused = Callable[..., str]
Snapshot = Callable[..., Any]

KEYS = {"name", "version", "operator", "guarantee", "max_abs_difference", "seconds", "bytes"}
PLAN = {
    "operator",
    "source",
    "digest",
    "before",
    "after",
    "architecture",
    "task",
    "guarantee",
    "parameters",
    "settings",
}
SOURCE = "parity-3of64"


# -- what it makes -----------------------------------------------------------------------------------------------------


def test_grow_has_the_documented_json_keys(cli: Cli, library: Path) -> None:
    made = cli("grow", SOURCE, "--to", "n=128", "--to", "hidden=2048", "--library", library, "--json")
    assert (made.code, made.err) == (0, "")
    assert set(made.json) >= KEYS
    assert made.json["name"] == "parity-3of64-zero-pad"
    assert (made.json["version"], made.json["operator"], made.json["verdict"]) == (1, "zero-pad", "exact")
    assert made.json["max_abs_difference"] == 0.0
    assert "bit-exact" in made.json["guarantee"]
    assert made.json["after"] == {"n": 128, "hidden": 2048}
    assert 0 < made.json["seconds"] < 5
    folder = library / "parity-3of64-zero-pad" / "1"
    assert made.json["bytes"] == (folder / "weights.safetensors").stat().st_size
    assert made.json["digest"] == store.read(folder).manifest.digest


def test_what_was_grown_is_shown_listed_verified_and_run(cli: Cli, library: Path, tmp_path: Path) -> None:
    made = cli("grow", SOURCE, "--to", "n=100", "--library", library)
    assert (made.code, made.err) == (0, "")
    for word in ("zero-pad", "64 to 100", "equal to the bit over", "EXACT", "saved as parity-3of64-zero-pad@1"):
        assert word in made.out
    name = "parity-3of64-zero-pad"
    assert name in [row["name"] for row in cli("list", "--library", library, "--json").json["cassettes"]]
    manifest = cli("show", name, "--library", library, "--json").json
    assert manifest["provenance"]["kind"] == "grown"
    assert manifest["task"]["parameters"]["n"] == 100
    assert cli("verify", name, "--library", library).code == 0
    rows = tmp_path / "rows.csv"
    bits = [[0] * 100, [0] * 50 + [1] + [0] * 49]
    rows.write_text("\n".join(",".join(map(str, row)) for row in bits) + "\n")
    done = cli("run", name, "--input", rows, "--library", library, "--json")
    assert done.code == 0, done.err
    even, odd = done.json["outputs"]
    assert even[0] > even[1]
    assert odd[1] > odd[0]


@pytest.mark.parametrize(
    ("source", "to", "options", "name", "difference"),
    [
        (SOURCE, ["n=70"], [], "parity-3of64-zero-pad", 0.0),
        (SOURCE, ["hidden=300"], [], "parity-3of64-zero-pad", 0.0),
        (SOURCE, ["n=70"], ["--dense"], "parity-3of64-zero-pad", 1e-6),
        (SOURCE, ["hidden=200"], ["--operator", "widen"], "parity-3of64-widen", 2e-4),
        (SOURCE, ["n=70"], ["--name", "wider"], "wider", 0.0),
        (SOURCE, ["n=64"], [], "parity-3of64-zero-pad", 0.0),
        ("alpha", ["copies=3"], [], "alpha-duplicate-and-split", 1e-5),
        ("alpha", ["copies=2"], ["--operator", "duplicate-and-split"], "alpha-duplicate-and-split", 1e-5),
    ],
    ids=str,
)
def test_the_name_says_what_was_done_unless_one_is_given(
    cli: Cli, shelf: Path, source: str, to: Sequence[str], options: Sequence[str], name: str, difference: float
) -> None:
    sizes = [word for size in to for word in ("--to", size)]
    made = cli("grow", source, *sizes, *options, "--library", shelf, "--json")
    assert made.code == 0, made.err
    assert (made.json["name"], made.json["version"]) == (name, 1)
    assert made.json["max_abs_difference"] <= difference
    assert cli("verify", name, "--library", shelf).code == 0


def test_a_long_name_is_shortened_to_what_a_name_may_be(cli: Cli, library: Path) -> None:
    gk.grow(SOURCE, {"n": 65}, name="x" * 64, library=library)
    made = cli("grow", "x" * 64, "--to", "n=66", "--library", library, "--json")
    assert made.code == 0, made.err
    assert made.json["name"] == "x" * 55 + "-zero-pad"


def test_growing_again_makes_the_next_version_and_embeds_the_same_base(cli: Cli, library: Path) -> None:
    first = cli("grow", SOURCE, "--to", "n=128", "--library", library, "--json").json
    again = cli("grow", SOURCE, "--to", "n=128", "--library", library, "--json").json
    hop = cli("grow", first["name"], "--to", "n=256", "--name", "hop", "--library", library, "--json").json
    assert (first["version"], again["version"]) == (1, 2)
    direct = gk.grow(SOURCE, {"n": 256}, name="direct", library=library).cassette.manifest
    assert gk.show("hop", library=library).architecture == direct.architecture
    assert hop["bytes"] == first["bytes"]
    assert gk.show("hop", library=library).weights.sha256 == direct.weights.sha256


def test_the_dense_form_says_that_its_units_cannot_learn(cli: Cli, library: Path) -> None:
    made = cli("grow", SOURCE, "--to", "n=128", "--to", "hidden=256", "--dense", "--library", library, "--json")
    assert made.code == 0
    assert "cannot learn" in made.err
    shown = gk.show(made.json["name"], library=library)
    assert shown.architecture.id == "grokkit_parity/mlp"
    assert shown.weights.parameters == 128 * 256 + 256 + 256 * 256 + 256 + 2 * 256 + 2
    assert shown.certificate.verdict == "exact"


# -- the plan ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [[], ["--dense"], ["--operator", "zero-pad"]], ids=str)
def test_a_dry_run_prints_the_plan_and_writes_nothing(
    cli: Cli, library: Path, snapshot: Snapshot, options: Sequence[str]
) -> None:
    words = ("grow", SOURCE, "--to", "n=2048", "--to", "hidden=4096", *options, "--dry-run", "--library", library)
    shown = cli(*words)
    assert shown.code == 0
    for word in ("zero-pad", "64 to 2,048", "128 to 4,096", "bits [batch, 2048]", "dry run"):
        assert word in shown.out
    plan = cli(*words, "--json").json
    assert set(plan) >= PLAN
    assert plan["before"] == {"n": 64, "hidden": 128}
    assert plan["after"] == {"n": 2048, "hidden": 4096}
    assert plan["parameters"] == (
        17_282 if "--dense" not in options else 2048 * 4096 + 4096**2 + 2 * 4096 + 2 * 4096 + 2
    )
    assert snapshot(library) == {}


def test_a_dry_run_reads_no_weights(cli: Cli, library: Path) -> None:
    made = gk.load(SOURCE).save(library)
    (library / SOURCE / str(made.manifest.version) / "weights.safetensors").write_bytes(b"")
    words = ("grow", f"{SOURCE}@{made.manifest.version}", "--to", "n=128", "--library", library)
    assert cli(*words, "--dry-run").code == 0
    assert cli(*words).code == 3


# -- the same through Python -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "arguments"),
    [
        (["--to", "n=96"], {"to": {"n": 96}}),
        (["--to", "n=96", "--dense", "--seed", "4"], {"to": {"n": 96}, "dense": True, "seed": 4}),
        (["--to", "hidden=200", "--operator", "widen"], {"to": {"hidden": 200}, "operator": "widen"}),
        (
            ["--to", "n=96", "--name", "mine", "--dtype", "float64"],
            {"to": {"n": 96}, "name": "mine", "dtype": "float64"},
        ),
    ],
    ids=str,
)
def test_python_and_command_line_make_the_same(
    cli: Cli, tmp_path: Path, words: Sequence[str], arguments: dict[str, Any]
) -> None:
    typed = cli("grow", SOURCE, *words, "--library", tmp_path / "a", "--json")
    assert typed.code == 0, typed.err
    called = gk.grow(SOURCE, **arguments, library=tmp_path / "b")
    changing = {"seconds", "digest"}
    row = called.to_json()
    assert {k: v for k, v in typed.json.items() if k not in changing} == {
        k: v for k, v in row.items() if k not in changing
    }
    one = gk.show(typed.json["name"], library=tmp_path / "a")
    other = called.cassette.manifest
    assert one.weights.sha256 == other.weights.sha256
    assert one.architecture == other.architecture
    assert one.certificate == other.certificate
    assert one.provenance.operator == other.provenance.operator


# -- with a second cassette --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def schemes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library with `square`, a scheme for products of 2 x 2 matrices, and `row`, one for 1 x 2 with 2 x 2."""
    folder = tmp_path_factory.mktemp("schemes") / "library"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        gk.train("matmul", name="square", library=folder)
        gk.train("matmul", recipe="flip-graph", settings={"m": 1}, name="row", library=folder)
    return folder


def test_a_reference_is_given_as_a_size_is(cli: Cli, schemes: Path, library: Path) -> None:
    shutil.copytree(schemes, library)
    digest = gk.show("row", library=library).digest
    for index, ref in enumerate(("row", "row@1", f"row@{digest}", str(library / "row" / "1"))):
        made = cli("grow", "square", "--to", f"by={ref}", "--name", f"made-{index}", "--library", library, "--json")
        assert made.code == 0, made.err
        assert (made.json["operator"], made.json["verdict"]) == ("grokkit_matmul/kronecker", "exact")
        assert made.json["after"] == {"m": 2, "k": 4, "n": 4, "rank": 28}
        parents = gk.show(f"made-{index}", library=library).provenance.parents
        assert [parent.name for parent in parents] == ["square", "row"]
    called = gk.grow("square", {"by": "row"}, name="called", library=library).cassette.manifest
    assert called.weights.sha256 == gk.show("made-0", library=library).weights.sha256


def test_an_operator_that_needs_no_size_may_stand_alone(cli: Cli, schemes: Path, library: Path) -> None:
    shutil.copytree(schemes, library)
    made = cli("grow", "square", "--operator", "kronecker", "--library", library, "--json")
    assert made.code == 0, made.err
    assert (made.json["name"], made.json["after"]["rank"]) == ("square-kronecker", 49)


@pytest.mark.parametrize(
    ("code", "source", "words", "says"),
    [
        (2, "square", [], ["no new size", "--to", "--operator"]),
        (2, "square", ["--to", "by="], ["by="]),
        (2, "square", ["--to", "by=row", "--to", "by=row"], ["by"]),
        (2, "square", ["--to", "by=NOT A NAME"], ["NOT A NAME"]),
        (5, "square", ["--to", "by=rwo"], ["'rwo'", "row"]),
        (4, "square", ["--to", f"by={SOURCE}"], ["grokkit_parity/mlp"]),
        (4, "square", ["--to", "by=row", "--to", "n=4"], ["no size 'n'", "by=REF"]),
        (4, SOURCE, ["--to", "by=row"], ["no size 'by'"]),
        (4, SOURCE, ["--operator", "kronecker"], ["grokkit_parity/mlp", "grokkit_matmul/bilinear"]),
        (2, SOURCE, ["--operator", "zero-pad"], ["no new size", "n, hidden"]),
        (2, "square", ["--to", "by=row", "--dense", "--operator", "kronecker"], ["--dense"]),
    ],
    ids=str,
)
def test_a_second_cassette_that_does_not_fit_is_refused(
    refused: Refused,
    schemes: Path,
    snapshot: Snapshot,
    code: int,
    source: str,
    words: Sequence[str],
    says: Sequence[str],
) -> None:
    before = snapshot(schemes)
    refused(code, "grow", source, *words, "--library", schemes, says=says)
    assert snapshot(schemes) == before


# -- bad input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "words", "says"),
    [
        (4, ["--to", "n=63"], ["n = 63", "below the 64"]),
        (4, ["--to", "hidden=1", "--to", "n=128"], ["hidden = 1", "below the 128"]),
        (4, ["--to", "n=-5"], ["below the 64"]),
        (4, ["--to", "n=0"], ["below the 64"]),
        (4, ["--to", "n=2147483648"], ["n=2147483648", "2.14748e+09"]),
        (4, ["--to", "n=999999999999999999"], ["n=999999999999999999"]),
        (2, ["--to", "n=99999999999999999999999"], ["whole number"]),
        (2, ["--to", "n=1.5"], ["n = 1.5", "whole number"]),
        (2, ["--to", "n=1e3"], ["whole number"]),
        (2, ["--to", "n=128.0"], ["whole number"]),
        (2, ["--to", "n=true"], ["whole number"]),
        (2, ["--to", "n=NaN"], ["whole number"]),
        (2, ["--to", "n=inf"], ["whole number"]),
        (2, ["--to", "n=0x80"], ["whole number"]),
        (2, ["--to", "n="], ["whole number"]),
        (2, ["--to", "n"], ["name=whole number"]),
        (2, ["--to", "=5"], ["name=whole number"]),
        (2, ["--to", ""], ["name=whole number"]),
        (2, ["--to", "n=128", "--to", "n=256"], ["twice"]),
        (2, [], ["--to"]),
        (4, ["--to", "width=128"], ["no size 'width'", "n or hidden"]),
        (4, ["--to", "depth=3"], ["no size 'depth'"]),
        (4, ["--to", "n=128", "--operator", "widen"], ["hidden", "these operators apply: zero-pad"]),
        (4, ["--to", "hidden=256", "--operator", "regrid"], ["no grid", "these operators apply: widen, zero-pad"]),
        (4, ["--to", "n=128", "--operator", "duplicate-and-split"], ["these operators apply: zero-pad"]),
        (5, ["--to", "n=128", "--operator", "zero-pda"], ["zero-pda", "zero-pad"]),
        (2, ["--to", "hidden=256", "--operator", "widen", "--dense"], ["--dense", "zero-pad"]),
        (4, ["--to", "n=2048", "--to", "hidden=32768", "--dense"], ["1,140,981,762 parameters", "leave --dense out"]),
        (2, ["--to", "n=128", "--name", "No Name"], ["No Name"]),
        (2, ["--to", "n=128", "--seed", "-1"], ["seed"]),
        (2, ["--to", "n=128", "--device", "tpu"], ["tpu"]),
        (4, ["--to", "n=128", "--dtype", "float16"], ["float16"]),
    ],
    ids=str,
)
def test_bad_input_is_refused_with_its_reason_and_nothing_is_saved(
    refused: Refused, library: Path, snapshot: Snapshot, code: int, words: Sequence[str], says: Sequence[str]
) -> None:
    refused(code, "grow", SOURCE, *words, "--library", library, says=says)
    assert snapshot(library) == {}


@pytest.mark.parametrize("source", ["cyclotron", "cyclotron-fused"])
def test_a_cassette_that_nothing_can_grow_is_refused_with_every_reason(
    refused: Refused, library: Path, snapshot: Snapshot, source: str
) -> None:
    said = refused(4, "grow", source, "--to", "n=128", "--library", library, says=("no operator can grow",))
    for operator in ("zero-pad", "widen", "regrid", "duplicate-and-split"):
        assert operator in said
    assert snapshot(library) == {}


def test_an_unknown_source_is_not_found(refused: Refused, library: Path) -> None:
    refused(5, "grow", "parity-3of46", "--to", "n=128", "--library", library, says=("parity-3of46", SOURCE))


def test_a_missing_plugin_is_an_incompatibility(refused: Refused, library: Path, cli: Cli) -> None:
    gk.load(SOURCE).save(library)
    refused(4, "grow", SOURCE, "--to", "n=128", "--no-plugins", "--library", library, says=("grokkit_parity/mlp",))


def test_altered_weights_of_the_source_are_an_integrity_fault(refused: Refused, library: Path) -> None:
    made = gk.load(SOURCE).save(library).manifest
    path = library / SOURCE / str(made.version) / "weights.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    refused(3, "grow", f"{SOURCE}@{made.version}", "--to", "n=128", "--library", library, says=("altered",))


def test_a_full_disk_is_said_and_leaves_nothing(refused: Refused, library: Path, full_disk: None) -> None:
    refused(6, "grow", SOURCE, "--to", "n=128", "--library", library, says=("ENOSPC",))
    assert not list(library.glob("*/[0-9]*"))
