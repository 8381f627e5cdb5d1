"""The public API: what it holds, what importing it costs, and that the command line does nothing else."""

from __future__ import annotations

import importlib
import inspect
import itertools
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

import grokkit_core as gk
from grokkit_core.errors import GrokkitError
from grokkit_core.records import to_json

Cli = Callable[..., Any]
HEAVY = "{'torch', 'numpy', 'safetensors'}"
CHANGING = {"cost", "version", "digest", "seconds", "created"}


def heavy_after(code: str) -> str:
    """The heavy modules that a fresh interpreter has imported after `code`."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(sorted({HEAVY} & set(sys.modules)))"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout.splitlines()[-1]


def plain(value: Any) -> Any:
    """A value as JSON brings it back."""
    return json.loads(json.dumps(to_json(value)))


def lasting(value: dict[str, Any]) -> dict[str, Any]:
    """What two runs of one verb must agree on."""
    return {key: item for key, item in plain(value).items() if key not in CHANGING}


# -- contents ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", gk.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(gk, name) is not None


@pytest.mark.parametrize("name", gk.__all__)
def test_every_public_name_is_documented(name: str) -> None:
    assert inspect.getdoc(getattr(gk, name)) or name == "hookimpl"


def test_the_verbs_of_the_architecture_are_there() -> None:
    verbs = {
        "bench",
        "list",
        "plot",
        "report",
        "show",
        "load",
        "train",
        "verify",
        "compose",
        "run",
        "remove",
        "import_cassette",
    }
    assert verbs <= set(gk.__all__)
    assert all(callable(getattr(gk, name)) for name in verbs)


def test_the_contents_are_listed() -> None:
    assert set(gk.__all__) <= set(dir(gk))
    assert sorted(gk.__all__) == list(gk.__all__)


def test_type_checkers_see_what_is_there() -> None:
    source = inspect.getsource(gk)
    exported = re.findall(r"^    from grokkit_core\.\S+ import (\w+) as \1$", source, flags=re.MULTILINE)
    renamed = re.findall(r"^    (\w+) = \w+(?:  #.*)?$", source.partition("\n_HOME")[0], flags=re.MULTILINE)
    assert set(exported) | set(renamed) == set(gk.__all__)


def test_the_version_is_that_of_the_distribution() -> None:
    assert gk.__version__ == importlib.metadata.version("grokkit")


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="grokkit_core' has no attribute 'grow_everything'"):
        gk.grow_everything  # noqa: B018


# -- cost ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "code",
    [
        "import grokkit_core",
        "import grokkit_core.specs, grokkit_core.tensors, grokkit_core.manifest, grokkit_core.store",
        "import grokkit_core as gk; gk.list()",
        "import grokkit_core as gk; gk.Manifest, gk.Workspace, gk.GrokkitError, gk.hookimpl",
    ],
)
def test_describing_imports_neither_torch_nor_numpy(code: str) -> None:
    assert heavy_after(code) == "[]"


def test_showing_a_cassette_imports_neither(tiny: Path) -> None:
    assert heavy_after(f"import grokkit_core as gk; gk.show('one', library={str(tiny)!r})") == "[]"


def test_reporting_a_cassette_that_is_no_flow_map_imports_neither(tmp_path: Path) -> None:
    page = str(tmp_path / "page.html")
    assert heavy_after(f"import grokkit_core as gk; gk.report(['matmul-2x2', 'parity-3of64'], {page!r})") == "[]"


def test_a_heavy_import_would_be_noticed() -> None:
    assert heavy_after("import numpy") == "['numpy']"


# -- the command line gives the same results -----------------------------------------------------------------------


def test_list_gives_the_same(cli: Cli, tiny: Path) -> None:
    found = cli("list", "--library", tiny, "--json")
    assert found.code == 0
    assert found.json == {"cassettes": [entry.to_json() for entry in gk.list(library=tiny)]}
    assert {"one", "eight"} <= {entry["name"] for entry in found.json["cassettes"]}


def test_list_of_a_task_gives_the_same(cli: Cli, tiny: Path) -> None:
    found = cli("list", "--task", "cyclotron", "--library", tiny, "--json").json
    assert found == {"cassettes": [entry.to_json() for entry in gk.list(task="cyclotron", library=tiny)]}


def test_show_gives_the_manifest(cli: Cli, tiny: Path) -> None:
    found = cli("show", "one", "--library", tiny, "--json").json
    assert found == plain(gk.show("one", library=tiny).to_json())
    assert found == json.loads((tiny / "one" / "1" / "manifest.json").read_text())


@pytest.mark.parametrize("options", [{}, {"seed": 3}])
def test_plot_and_report_give_the_same(cli: Cli, tiny: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    typed = [part for key, value in options.items() for part in (f"--{key}", value)]
    files = [tmp_path / name for name in ("cli.svg", "api.svg", "cli.html", "api.html")]
    assert cli("show", "one", "--plot", files[0], "--library", tiny, *typed).code == 0
    gk.plot("one", files[1], library=tiny, **options)
    assert cli("report", "one", "eight", "-o", files[2], "--library", tiny, *typed).code == 0
    made = gk.report(["one", "eight"], files[3], library=tiny, **options)
    contents = [file.read_bytes() for file in files]
    assert contents[0] == contents[1] and contents[2] == contents[3]
    found = cli("report", "one", "eight", "-o", files[2], "--library", tiny, "--json", *typed).json
    assert found == {**plain(made.to_json()), "path": str(files[2])}


@pytest.mark.parametrize("options", [{}, {"seed": 3}, {"dtype": "float64"}])
def test_verify_gives_the_same(cli: Cli, tiny: Path, options: dict[str, Any]) -> None:
    typed = [part for key, value in options.items() for part in (f"--{key}", value)]
    found = cli("verify", "one", "eight", "--level", "quick", "--library", tiny, "--json", *typed)
    expected = [gk.verify(name, level="quick", library=tiny, **options) for name in ("one", "eight")]
    assert found.json == {"results": [plain(item.to_json()) for item in expected]}
    assert found.code == 0


@pytest.mark.parametrize("options", [{}, {"dtype": "float64"}, {"threads": 1}])
def test_bench_gives_the_same(cli: Cli, tiny: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]) -> None:
    seconds = itertools.count()
    monkeypatch.setattr("grokkit_core.benchmark.clock_for", lambda device: lambda: float(next(seconds)))

    def lasting_rows(found: dict[str, Any]) -> dict[str, Any]:
        machine = {"wall_s", "cpu_over_wall"}
        rows = [{key: value for key, value in row.items() if key not in machine} for row in found["rows"]]
        return {**found, "rows": rows}

    typed = [part for key, value in options.items() for part in (f"--{key}", value)]
    found = cli("bench", "one", "--library", tiny, "--json", *typed)
    assert found.code == 0
    assert lasting_rows(found.json) == lasting_rows(plain(gk.bench("one", library=tiny, **options).to_json()))


@pytest.mark.usefixtures("few_samples")
@pytest.mark.parametrize(
    ("typed", "options"),
    [
        ((), {}),
        (("--seed", 4, "--dtype", "float32"), {"seed": 4, "dtype": "float32"}),
        (("--gate", "spectral", "--set", "steps=2"), {"gate": "spectral", "options": {"steps": 2}}),
        (
            ("--gate", "spectral", "--set", "steps=2", "--calibrate", "omega=1,1.5"),
            {"gate": "spectral", "options": {"steps": 2}, "calibrate": {"omega": [1.0, 1.5]}},
        ),
        (("--name", "both"), {"name": "both"}),
    ],
)
def test_compose_gives_the_same(
    cli: Cli, tiny: Path, tmp_path: Path, typed: tuple[object, ...], options: dict[str, Any]
) -> None:
    places = [tmp_path / name for name in ("first", "second")]
    found = cli("compose", "one", "eight", "--library", places[0], "--library", tiny, "--json", *typed)
    assert found.code == 0
    made = gk.compose("one", "eight", library=[places[1], tiny], **options)
    assert lasting(found.json) == lasting(made.to_json())
    (name,) = (path.name for path in places[0].iterdir())
    written = [gk.show(name, library=place) for place in places]
    assert written[0].weights == written[1].weights
    assert written[0].certificate == written[1].certificate


def test_a_dry_run_gives_the_plan(cli: Cli, tiny: Path, library: Path) -> None:
    found = cli("compose", "one", "eight", "--dry-run", "--library", library, "--library", tiny, "--json")
    assert found.json == plain(gk.plan("one", "eight", library=[library, tiny]).to_json())
    assert not library.exists()


@pytest.mark.parametrize("options", [{}, {"steps": 3}, {"dtype": "float64"}, {"context": {"omega": 1.5}}])
def test_run_gives_the_same(cli: Cli, tiny: Path, tmp_path: Path, states: Tensor, options: dict[str, Any]) -> None:
    source = tmp_path / "states.json"
    source.write_text(json.dumps(states.tolist()))
    typed = [
        part
        for key, value in options.items()
        for part in (f"--{key}", f"omega={value['omega']}" if key == "context" else value)
    ]
    found = cli("run", "one", "--input", source, "--library", tiny, "--json", *typed)
    assert found.code == 0
    assert lasting(found.json) == lasting(gk.run("one", source, library=tiny, **options).to_json())


@pytest.mark.usefixtures("few_samples")
def test_train_gives_the_same(cli: Cli, tmp_path: Path) -> None:
    places = [tmp_path / name for name in ("first", "second")]
    typed = ("--seeds", "3-4", "--set", "epochs=1", "--set", "samples=64", "--json")
    found = cli("train", "cyclotron", "--library", places[0], *typed).json["runs"]
    made = gk.train("cyclotron", seeds=[3, 4], settings={"epochs": 1, "samples": 64}, library=places[1])
    assert [lasting(item) for item in found] == [lasting(item.to_json()) for item in made]
    for version in (1, 2):
        weights = [gk.show(f"cyclotron-published@{version}", library=place).weights for place in places]
        assert weights[0] == weights[1]


@pytest.mark.parametrize(
    ("typed", "call"),
    [
        (("show", "nobody"), lambda place: gk.show("nobody", library=place)),
        (("show", "Bad Name"), lambda place: gk.show("Bad Name", library=place)),
        (("show", "one", "--plot", "one.gif"), lambda place: gk.plot("one", "one.gif", library=place)),
        (("report", "nobody", "-o", "r.html"), lambda place: gk.report("nobody", "r.html", library=place)),
        (("report", "one", "-o", "r.txt"), lambda place: gk.report("one", "r.txt", library=place)),
        (("verify", "one", "--dtype", "float16"), lambda place: gk.verify("one", dtype="float16", library=place)),
        (("bench", "one", "--recalibrate"), lambda place: gk.bench("one", recalibrate=True, library=place)),
        (("bench", "one", "--set", "x=1"), lambda place: gk.bench("one", settings={"x": 1}, library=place)),
        (("compose", "one"), lambda place: gk.compose("one", library=place)),
        (
            ("compose", "one", "eight", "--calibrate", "omega=9"),
            lambda place: gk.compose("one", "eight", calibrate={"omega": [9]}, library=place),
        ),
        (("run", "one", "--input", "missing.npy"), lambda place: gk.run("one", "missing.npy", library=place)),
        (("train", "cyclotrn"), lambda place: gk.train("cyclotrn", library=place)),
    ],
)
def test_an_error_has_the_same_words_and_its_exit_code(
    cli: Cli, tiny: Path, library: Path, typed: tuple[str, ...], call: Callable[[Any], Any]
) -> None:
    with pytest.raises(GrokkitError) as caught:
        call([library, tiny])
    found = cli(*typed, "--library", library, "--library", tiny, "--json")
    assert found.code == caught.value.exit_code
    assert found.out == ""
    assert found.err == f"grokkit: {caught.value}\n"
