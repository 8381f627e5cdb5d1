"""Starting the command line against importing torch, which it must not do to list cassettes."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from timing import Benchmark, Bound, Comparison, Side, childrens_time

LIST = [str(Path(sys.executable).with_name("grokkit")), "list", "--json"]
IMPORT = [sys.executable, "-c", "import torch"]
PROBE = """
import contextlib, io, sys
from grokkit_cli.__main__ import run
with contextlib.redirect_stdout(io.StringIO()):
    code = run(["list", "--json"])
heavy = {"torch", "numpy"} & set(sys.modules)
sys.exit(f"exit code {code}, imported {sorted(heavy)}" if code or heavy else 0)
"""


def comparisons() -> Sequence[Comparison]:
    """One comparison, in an empty home."""
    home = tempfile.mkdtemp(prefix="grokkit-bench-")
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GROKKIT_")}
    environment = {**kept, **{f"XDG_{kind}_HOME": home for kind in ("DATA", "STATE", "CACHE")}}

    def child(command: Sequence[str]) -> str:
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout

    def check() -> str:
        listed = json.loads(child(LIST))
        done = subprocess.run([sys.executable, "-c", PROBE], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        child(IMPORT)
        return f"{len(listed['cassettes'])} cassettes were listed, neither torch nor numpy was imported; bytecode was compiled"

    return [
        Comparison(
            "start-up",
            Side("grokkit list --json", lambda: child(LIST)),
            Side("import torch", lambda: child(IMPORT)),
            check,
        )
    ]


BENCHMARK = Benchmark(
    name="start-up",
    what='CPU time, user and system, of `grokkit list --json` against `python -c "import torch"`, each a process of '
    "its own.",
    seed=0,
    sizes="the shipped cassettes and an empty library",
    bound=Bound(most=0.25),
    comparisons=comparisons,
    runs=9,
    clock=childrens_time,
)
