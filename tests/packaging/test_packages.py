"""What is built and installed: the right packages with all their files, importable by the right names, free of traps."""

from __future__ import annotations

import ast
import json
import os
import site
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
SHIPPED = ROOT / "cassettes" / "grokkit_cassettes"
EXAMPLE = ROOT / "tests" / "third_party" / "grokkit-example" / "grokkit_example" / "cassettes"
PIP = ("-m", "pip", "--disable-pip-version-check", "--no-input", "--quiet")
HEAVY = ("torch", "numpy", "rich")
"""What a command that only describes must not import."""


def packages() -> list[str]:
    """The folders of packages, relative to the root: `grokkit_core` and those in the three containers."""
    found = [
        ROOT / "grokkit_core",
        *(path for name in ("cli", "cassettes", "plugins") for path in (ROOT / name).iterdir()),
    ]
    return sorted(path.relative_to(ROOT).as_posix() for path in found if (path / "__init__.py").is_file())


def files_of(package: str) -> Iterator[str]:
    """Every file of a package as a wheel names it."""
    folder = ROOT / package
    for path in folder.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path.relative_to(folder.parent).as_posix()


def shipped() -> list[tuple[str, int]]:
    """Name and version of every shipped cassette, by its folder."""
    return sorted((path.parent.parent.name, int(path.parent.name)) for path in SHIPPED.glob("*/*/manifest.json"))


def run(*command: object, cwd: Path, **environment: str) -> str:
    """The stdout of a command that succeeds, far from the repository and its environment."""
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | environment
    done = subprocess.run(
        [*map(str, command)], cwd=cwd, env=environ, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# -- the list of packages --------------------------------------------------------------------------------------------


def test_the_build_lists_every_package_that_exists_and_no_other() -> None:
    assert sorted(PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]) == packages()


def test_every_package_has_a_name_of_its_own_that_starts_with_grokkit() -> None:
    names = [package.rpartition("/")[2] for package in packages()]
    assert all(name.startswith("grokkit_") for name in names)
    assert len(set(names)) == len(names)


def test_every_plugin_and_the_cassettes_have_an_entry_point() -> None:
    points = PROJECT["project"]["entry-points"]["grokkit"]
    plugins = [package.rpartition("/")[2] for package in packages() if package.startswith("plugins/")]
    wanted = {name.removeprefix("grokkit_"): f"{name}.plugin" for name in plugins}
    assert points == {**wanted, "cassettes": "grokkit_cassettes"}


# -- the wheel -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", folder)
    run(sys.executable, *PIP, "wheel", *options, ROOT, cwd=folder)
    (built,) = folder.glob("grokkit-*.whl")
    return built


@pytest.fixture(scope="module")
def contents(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.mark.install
def test_the_wheel_has_only_top_level_names_of_grokkit(contents: set[str]) -> None:
    tops = {name.partition("/")[0] for name in contents}
    (metadata,) = (name for name in tops if name.endswith(".dist-info"))
    assert metadata.startswith("grokkit-")
    assert tops - {metadata} == {package.rpartition("/")[2] for package in packages()}


@pytest.mark.install
def test_the_wheel_has_every_file_of_every_package(contents: set[str]) -> None:
    wanted = {name for package in packages() for name in files_of(package)}
    assert wanted - contents == set()
    assert {name for name in contents if ".dist-info/" not in name} - wanted == set()


@pytest.mark.install
def test_the_wheel_has_both_files_of_every_shipped_cassette(contents: set[str]) -> None:
    for name, version in shipped():
        folder = f"grokkit_cassettes/{name}/{version}"
        held = {entry for entry in contents if entry.startswith(folder + "/")}
        assert held == {f"{folder}/manifest.json", f"{folder}/weights.safetensors"}


@pytest.mark.install
@pytest.mark.parametrize("package", packages())
def test_the_wheel_says_that_a_package_is_typed(contents: set[str], package: str) -> None:
    assert f"{package.rpartition('/')[2]}/py.typed" in contents


@pytest.mark.install
def test_the_installed_wheel_lists_exactly_the_shipped_cassettes(wheel: Path, tmp_path: Path) -> None:
    folder = tmp_path / "site"
    options = ("--no-deps", "--no-index", "--no-compile", "--target", folder)
    run(sys.executable, *PIP, "install", *options, wheel, cwd=tmp_path)
    code = (
        "import grokkit_core, grokkit_cli.__main__ as cli; print(grokkit_core.__file__); cli.main(['list', '--json'])"
    )
    where, _, listing = run(sys.executable, "-c", code, cwd=tmp_path, PYTHONPATH=str(folder)).partition("\n")
    assert Path(where).is_relative_to(folder)
    assert sorted((row["name"], row["version"]) for row in json.loads(listing)["cassettes"]) == shipped()


# -- the editable install --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def editable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of a fresh environment with an editable install, which borrows its dependencies from this one.

    The folders of this environment are added by a `.pth` file; the `.pth` files inside them are not read, so an
    editable install of this environment is not seen. It is read first, since that of the new install needs them.
    """
    home = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", home, cwd=home)
    python = home / "bin" / "python"
    (packages_home,) = home.glob("lib/python*/site-packages")
    places = [entry for entry in sys.path if Path(entry).name in ("site-packages", "dist-packages")]
    (packages_home / "00-borrowed.pth").write_text("\n".join(dict.fromkeys([*site.getsitepackages(), *places])) + "\n")
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--ignore-installed")
    run(python, *PIP, "install", *options, "--editable", ROOT, cwd=home)
    return home / "bin"


@pytest.mark.install
@pytest.mark.parametrize("name", [package.rpartition("/")[2] for package in packages()])
def test_an_editable_install_makes_the_package_importable_from_the_repository(
    editable: Path, tmp_path: Path, name: str
) -> None:
    found = run(editable / "python", "-c", f"import {name}; print({name}.__file__)", cwd=tmp_path)
    assert Path(found.strip()).is_relative_to(ROOT)


@pytest.mark.install
@pytest.mark.parametrize("name", ["cli", "plugins", "tests", "cassettes", "docs", "conftest"])
def test_an_editable_install_does_not_make_the_container_importable(editable: Path, tmp_path: Path, name: str) -> None:
    code = (
        f"from importlib.util import find_spec as find; found = find({name!r});"
        "print(*([found.origin, *(found.submodule_search_locations or [])] if found else []), sep='\\n')"
    )
    places = run(editable / "python", "-c", code, cwd=tmp_path).split()
    assert not [place for place in places if Path(place).is_relative_to(ROOT)]


@pytest.mark.install
def test_an_editable_install_lists_exactly_the_shipped_cassettes(editable: Path, tmp_path: Path) -> None:
    rows = json.loads(run(editable / "grokkit", "list", "--json", cwd=tmp_path))["cassettes"]
    assert sorted((row["name"], row["version"]) for row in rows) == shipped()
    assert all(row["problem"] is None for row in rows)


@pytest.mark.install
def test_an_editable_install_has_every_plugin_once_and_in_order(editable: Path, tmp_path: Path) -> None:
    rows = json.loads(run(editable / "grokkit", "plugins", "--json", cwd=tmp_path))["plugins"]
    assert sorted(row["name"] for row in rows) == sorted(["core", *PROJECT["project"]["entry-points"]["grokkit"]])
    assert {row["status"] for row in rows} == {"ok"}


# -- what the code must not contain ----------------------------------------------------------------------------------

MODULES = {"pickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "tarfile", "zipfile"}
BUILTINS = {"eval", "exec"}
CALLS = {
    "shutil.unpack_archive",
    "torch.hub.load",
    "torch.jit.load",
    "torch.load",
    "torch.serialization.load",
    "yaml.full_load",
    "yaml.load",
    "yaml.unsafe_load",
}
EXCEPTED = {"grokkit_core/files.py": {"zipfile"}}
"""The reader of `.npz` inputs checks the sizes of members before it inflates them."""


def traps(source: str) -> set[str]:
    """The ways in which code could run what a file says, or inflate what it hides."""
    tree = ast.parse(source)
    meaning = dict(_imported(tree))
    found = {name.partition(".")[0] for name in meaning.values()} & MODULES
    found |= {name for name in meaning.values() if name in CALLS}
    for node in ast.walk(tree):
        dotted = _dotted(node, meaning)
        if dotted in CALLS or dotted.removeprefix("builtins.") in BUILTINS:
            found.add(dotted.removeprefix("builtins."))
        if isinstance(node, ast.Call):
            found |= set(_by_name(node))
    return found


def _imported(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Each imported name with what it stands for."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.asname or alias.name, alias.name
        if isinstance(node, ast.ImportFrom) and not node.level:
            for alias in node.names:
                yield alias.asname or alias.name, f"{node.module}.{alias.name}"


def _dotted(node: ast.AST, meaning: dict[str, str]) -> str:
    """`t.load` as `torch.load` where t is torch; empty for what is no dotted name."""
    if isinstance(node, ast.Name):
        return meaning.get(node.id, node.id)
    if isinstance(node, ast.Attribute) and (before := _dotted(node.value, meaning)):
        return f"{before}.{node.attr}"
    return ""


def _by_name(call: ast.Call) -> Iterator[str]:
    """Modules imported by a literal name, and pickles admitted by a literal option."""
    for argument in call.args[:1]:
        name = _dotted(call.func, {}).rpartition(".")[2]
        if name in ("__import__", "import_module") and isinstance(argument, ast.Constant):
            yield from {str(argument.value).partition(".")[0]} & MODULES
    for option in call.keywords:
        if option.arg == "allow_pickle" and not (
            isinstance(option.value, ast.Constant) and option.value.value is False
        ):
            yield "allow_pickle"


def test_no_code_can_be_made_to_run_what_a_file_says() -> None:
    sources = [path for package in packages() for path in (ROOT / package).rglob("*.py")]
    found = {path.relative_to(ROOT).as_posix(): traps(path.read_text()) for path in sources}
    assert len(found) > 50
    assert {path: names for path, names in found.items() if names} == EXCEPTED


@pytest.mark.parametrize(
    ("source", "trap"),
    [
        ("import torch\ntorch.load(path)", "torch.load"),
        ("import torch as t\nt.load(path)", "torch.load"),
        ("from torch import load as read\nread(path)", "torch.load"),
        ("def late():\n    import torch.jit\n    return torch.jit.load", "torch.jit.load"),
        ("import pickle", "pickle"),
        ("from pickle import loads", "pickle"),
        ("import importlib\nimportlib.import_module('marshal')", "marshal"),
        ("__import__('shelve')", "shelve"),
        ("import yaml\nyaml.load(text)", "yaml.load"),
        ("eval(text)", "eval"),
        ("run = exec", "exec"),
        ("import builtins\nbuiltins.eval(text)", "eval"),
        ("import tarfile", "tarfile"),
        ("import zipfile", "zipfile"),
        ("import shutil\nshutil.unpack_archive(path)", "shutil.unpack_archive"),
        ("import numpy as np\nnp.load(path, allow_pickle=True)", "allow_pickle"),
        ("import numpy as np\nnp.load(path, allow_pickle=chosen)", "allow_pickle"),
    ],
)
def test_the_gate_sees_a_trap(source: str, trap: str) -> None:
    assert traps(source) == {trap}


@pytest.mark.parametrize(
    "source",
    [
        "model.eval()",
        "import json\njson.load(file)",
        "import numpy as np\nnp.load(path, allow_pickle=False)",
        "from safetensors.torch import load\nload(data)",
        "'torch.load, pickle and eval are never used'",
    ],
)
def test_the_gate_lets_pass_what_is_none(source: str) -> None:
    assert traps(source) == set()


# -- what a describing command imports -------------------------------------------------------------------------------

PROBE = f"""
import sys
from grokkit_cli.__main__ import run
code = run(sys.argv[1:])
print(*sorted(set({HEAVY}) & set(sys.modules)), file=sys.stderr)
sys.exit(code)
"""


@pytest.mark.parametrize(
    "command",
    [
        ["--help"],
        ["--version"],
        ["doctor", "--json"],
        ["list", "--json"],
        ["plugins", "--json"],
        ["show", "rule-110", "--json", "--library", str(EXAMPLE)],
        ["tasks", "--json"],
        ["train", "--help"],
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_a_describing_command_imports_nothing_heavy(command: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *command], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr.strip()) == (0, "")
    assert done.stdout


def test_a_command_that_computes_imports_torch_which_shows_that_the_probe_works() -> None:
    command = ["verify", "--json", "no-such-cassette"]
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *command], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 5
    assert "torch" in done.stderr.splitlines()[-1]
