"""`grokkit new plugin`: a package that is complete, clean and nobody else's."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import grokkit_core as gk
from grokkit_core.errors import Incompatible, StoreError, UsageError
from grokkit_core.scaffold.new_plugin import templates

ROOT = Path(__file__).resolve().parents[2]
STRICTER = "E,F,W,I,B,UP,C4,SIM,RUF,PT,RET,PIE"


@pytest.mark.parametrize(
    ("name", "package", "law"),
    [
        ("majority", "grokkit_majority", "Majority"),
        ("two-words", "grokkit_two_words", "TwoWords"),
        ("x", "grokkit_x", "X"),
        ("a1-b2-c3", "grokkit_a1_b2_c3", "A1B2C3"),
    ],
)
def test_every_place_has_the_name_in_the_form_it_needs(name: str, package: str, law: str, tmp_path: Path) -> None:
    made = gk.new_plugin(name, tmp_path / "new")
    folder = Path(made.path)
    assert set(made.files) == {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    assert len(made.files) == len(templates())
    project = tomllib.loads((folder / "pyproject.toml").read_text())
    assert project["project"]["name"] == f"grokkit-{name}"
    assert project["project"]["entry-points"]["grokkit"] == {name: f"{package}.plugin"}
    assert f"class {law}(Task):" in (folder / package / "law.py").read_text()
    assert f'"{name}",' in (folder / package / "plugin.py").read_text()
    for file in made.files:
        text = (folder / file).read_text().lower()
        assert "newname" not in text
        assert "newname" not in file
        if file.endswith(".py"):
            compile(text, file, "exec")


def test_what_is_written_passes_linter_formatter_and_type_checker(tmp_path: Path) -> None:
    folder = Path(gk.new_plugin("two-words", tmp_path / "new").path)
    ruff = [sys.executable, "-m", "ruff"]
    path = os.pathsep.join(str(ROOT / part) for part in ("", "cli", "plugins"))
    for command in (
        [*ruff, "check", "--no-cache", "--select", STRICTER, "."],
        [*ruff, "format", "--no-cache", "--check", "."],
        [
            sys.executable,
            "-m",
            "mypy",
            "--strict",
            "--follow-imports=silent",
            f"--cache-dir={tmp_path}",
            "grokkit_two_words",
        ],
    ):
        done = subprocess.run(
            command, cwd=folder, env={**os.environ, "MYPYPATH": path}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "name", ["", "Major", "1st", "a--b", "-a", "a-", "class", "a b", "../up", "a" * 41, "ünder", "a_b"]
)
def test_a_name_that_no_package_can_have_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="plugin name"):
        gk.new_plugin(name, tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ["parity", "kepler-equation", "core", "composite", "cassettes"])
def test_the_name_of_an_installed_plugin_or_task_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(Incompatible, match="installed plugin or task"):
        gk.new_plugin(name, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_folder_in_use_is_left_alone_and_an_empty_one_is_taken(tmp_path: Path) -> None:
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "thesis.tex").write_text("mine")
    with pytest.raises(UsageError, match="in use"):
        gk.new_plugin("majority", tmp_path / "used")
    assert [p.name for p in (tmp_path / "used").iterdir()] == ["thesis.tex"]
    (tmp_path / "empty").mkdir()
    assert gk.new_plugin("majority", tmp_path / "empty").files


def test_a_place_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError):
        gk.new_plugin("majority", tmp_path / "file" / "new")


def test_the_default_folder_stands_beside_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert gk.new_plugin("majority").path == str(tmp_path / "grokkit-majority")
