"""Shared fixtures: an isolated user folder, libraries in temporary folders, the command line, acceptance figures."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
FIGURES = pytest.StashKey[list[tuple[str, str, str, str]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--acceptance-report", metavar="FILE", help="write the figures of acceptance tests there (markdown)"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[FIGURES] = []


@pytest.fixture(autouse=True)
def isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees or changes the user's own library, runs or settings."""
    for name in ("XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home" / name.lower()))
    for name in ("GROKKIT_LIBRARY", "GROKKIT_PLUGINS", "GROKKIT_DISABLE_PLUGINS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """Sums have one order, and tests that run side by side do not starve each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A folder for cassettes, empty."""
    return tmp_path / "library"


@dataclass(frozen=True)
class Outcome:
    """What a command line did: its exit code and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Runs `grokkit ARGUMENTS` in this process; `cli("list", "--json").json`."""
    from grokkit_cli.__main__ import run

    def call(*arguments: object) -> Outcome:
        capfd.readouterr()
        code = run([str(argument) for argument in arguments])
        printed = capfd.readouterr()
        return Outcome(code, printed.out, printed.err)

    return call


@pytest.fixture
def shell() -> Callable[..., Outcome]:
    """Runs `python -m grokkit_cli ARGUMENTS` in a process of its own; `path` folders go in front of `sys.path`."""

    def call(*arguments: object, path: tuple[Path, ...] = (), **environment: str) -> Outcome:
        environ = {**os.environ, **environment}
        if path:
            environ["PYTHONPATH"] = os.pathsep.join(map(str, path))
        done = subprocess.run(
            [sys.executable, "-m", "grokkit_cli", *map(str, arguments)],
            capture_output=True,
            text=True,
            env=environ,
            timeout=300,
            check=False,
        )
        return Outcome(done.returncode, done.stdout, done.stderr)

    return call


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Records a measured figure for `docs/acceptance.md`: `figure("what", "measured", "bound")`."""

    def record(what: str, measured: str, bound: str) -> None:
        request.config.stash[FIGURES].append((request.node.name, what, measured, bound))

    return record


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    target = session.config.getoption("--acceptance-report")
    rows = session.config.stash[FIGURES]
    if not target or not rows:
        return
    machine = (
        f"Python {platform.python_version()}, torch {torch.__version__}, {platform.machine()}, {os.cpu_count()} cores"
    )
    lines = [
        "# Acceptance figures",
        "",
        "Written by `make accept`; each row is one figure of a full protocol, with its bound.",
        f"Machine: {machine}, one thread.",
        "",
        "| test | what | measured | bound |",
        "|---|---|---|---|",
        *(f"| `{test}` | {what} | {measured} | {bound} |" for test, what, measured, bound in rows),
        "",
    ]
    Path(target).write_text("\n".join(lines))
