"""Where the tutorial is followed: a fresh environment, an empty folder, its commands word by word and in order."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

PRINTED_HOME = "/home/you"
"""Stands in the page for the folder in which the commands were run."""

TIMES = re.compile(r"(?<=^built in) +[\d.]+ m?s|(?<= passed in) [\d.]+s|(?<=-) +[\d.]+(?=  float)")
"""The times that the tutorial's commands print: of growing, of pytest, and the seconds of a table of trainings."""

NOT_COPIED = shutil.ignore_patterns(".*", "build", "dist", "__pycache__")
"""What a checkout does not have."""

QUIET = {"PIP_NO_INDEX": "1", "PIP_NO_DEPS": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
"""For pip: nothing is fetched. By a quirk of its options, 0 means that builds are *not* isolated."""


class Workshop:
    """A folder to work in, a home of its own, and a virtual environment whose commands come first."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "work"
        self.environment = folder / "work" / "checkout" / ".venv"
        self.environment.parent.mkdir(parents=True)
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "GROKKIT_"))}
        self.environ = {
            **kept,
            "PATH": os.pathsep.join([str(self.environment / "bin"), os.environ["PATH"]]),
            "HOME": str(folder),
            **{name: str(folder / name.lower()) for name in ("XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME")},
            "OMP_NUM_THREADS": "1",
        }

    def install(self, commands: str, project: Path) -> None:
        """Run the page's own commands, one shell, in a copy of the project: its dependencies are fetched."""
        checkout = self.environment.parent
        shutil.copytree(project, checkout, ignore=NOT_COPIED, dirs_exist_ok=True)
        script = f"cd '{checkout}' && set -e\n{commands}"
        self.run(script)

    def borrow_packages(self, project: Path) -> None:
        """See the packages of this Python, and have the project built and installed: nothing is fetched."""
        subprocess.run([sys.executable, "-m", "venv", self.environment], check=True, timeout=300)
        self.environ |= QUIET
        paths = sysconfig.get_paths(vars={"base": str(self.environment), "platbase": str(self.environment)})
        outer = {path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")}
        (Path(paths["purelib"]) / "0-outer.pth").write_text("".join(f"{path}\n" for path in sorted(outer)))
        self.run(f"python -m pip install -q '{project}'")

    def run(self, command: str) -> list[str]:
        """What a command prints on stdout; it must succeed."""
        done = subprocess.run(
            command,
            shell=True,
            cwd=self.folder,
            capture_output=True,
            text=True,
            env=self.environ,
            timeout=900,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return [line.rstrip() for line in done.stdout.rstrip().replace(str(self.folder), PRINTED_HOME).splitlines()]

    def follow(self, transcripts: Iterable[Any]) -> Iterator[tuple[str, list[str], list[str]]]:
        """Each command of the blocks in order, with what the page says and what it prints."""
        for block in transcripts:
            for command, expected in block.commands():
                yield command, expected, self.run(command)


def without_times(lines: list[str]) -> list[str]:
    """The lines with every time masked: the only thing a transcript prints that differs from run to run."""
    return [TIMES.sub(" (time)", line) for line in lines]
