"""Fixtures for tests of the command line: trained cassettes, forged manifests, fake packages, and what a refusal is."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from grokkit_core import plugins, saving, store, strictjson
from grokkit_core.certify.sampled import SAMPLES
from grokkit_core.manifest import Manifest

QUICK = ("--set", "epochs=1", "--set", "samples=128")
"""Settings of a training that takes a moment."""

FEW = {"full": 400, "quick": 100}
"""Samples a certificate here: no test in this folder reads figures closely enough to wait for 20,000."""


@contextlib.contextmanager
def few() -> Iterator[None]:
    """Certificates from few samples inside the block."""
    with pytest.MonkeyPatch.context() as patch:
        for level, count in FEW.items():
            patch.setitem(SAMPLES, level, count)  # type: ignore[arg-type]
        yield


@pytest.fixture(autouse=True)
def few_samples() -> Iterator[None]:
    """Certificates from few samples, in this folder only."""
    with few():
        yield


@pytest.fixture(scope="package")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library with `alpha@1` (seed 0) and `beta@1` (seed 1). Not to be changed; `shelf` is a copy."""
    from grokkit_cli.__main__ import run

    library = tmp_path_factory.mktemp("trained") / "library"
    for seed, name in enumerate(("alpha", "beta")):
        words = ["train", "cyclotron", *QUICK, "--seed", str(seed), "--name", name, "--library", str(library)]
        with few():
            assert run(words) == 0
    return library


@pytest.fixture(scope="package")
def gated(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `gated@1`, a spectral fusion of both that needs omega. Not to be changed."""
    import grokkit_core as gk

    library = tmp_path_factory.mktemp("gated") / "library"
    members = [str(trained / name / "1") for name in ("alpha", "beta")]
    with few():
        gk.compose(*members, gate="spectral", options={"steps": 3}, name="gated", library=library)
    return library / "gated" / "1"


@pytest.fixture
def shelf(trained: Path, library: Path) -> Path:
    """A library of one's own with `alpha@1` and `beta@1`."""
    shutil.copytree(trained, library)
    return library


@pytest.fixture(scope="package")
def windows() -> NDArray[np.float32]:
    """Three windows "3 15 4" of circular motion at omega = 1.5 rad/s."""
    from grokkit_cyclotron.law import circle

    draw = 2 * torch.rand((3, 4), generator=torch.Generator().manual_seed(7), dtype=torch.float64) - 1
    return circle(draw, 1.5, 0.05, torch.zeros(3))[:, :15].float().numpy()


@pytest.fixture
def states(windows: NDArray[np.float32], tmp_path: Path) -> Path:
    """The windows in a `.npy` file."""
    np.save(tmp_path / "states.npy", windows)
    return tmp_path / "states.npy"


@pytest.fixture
def refused(cli: Callable[..., Any]) -> Callable[..., str]:
    """Runs a command line that must be refused with a code and one line on stderr that says certain things.

    `refused(5, "show", "alhpa", says=("alhpa", "alpha"))`; returns the line.
    """

    def call(code: int, *arguments: object, says: Sequence[str] = ()) -> str:
        outcome = cli(*arguments)
        assert outcome.code == code, outcome.err
        assert outcome.out == ""
        lines = [line for line in outcome.err.splitlines() if line]
        assert len(lines) == 1, outcome.err
        assert lines[0].startswith("grokkit: ")
        assert "Traceback" not in lines[0]
        assert "internal error" not in lines[0]
        for part in says:
            assert part in lines[0], lines[0]
        return str(lines[0])

    return call


@pytest.fixture
def snapshot() -> Callable[[Path], dict[str, bytes]]:
    """Every file below a folder, by its path in there. Empty folders hold nothing and are left out."""

    def take(folder: Path) -> dict[str, bytes]:
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    return take


@pytest.fixture
def resave() -> Callable[..., Manifest]:
    """`resave(library, "alpha", name="gamma", context=())`: a copy with other fields and right digests."""

    def call(library: Path, source: str, /, **changes: Any) -> Manifest:
        stored = store.read(library / source / "1")
        return saving.save(library, stored.manifest.replace(**changes), stored.weights)

    return call


@pytest.fixture
def forge() -> Callable[..., None]:
    """`forge(folder, change)`: change the JSON of a manifest in place and give it the digest that it then has."""

    def call(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
        path = folder / "manifest.json"
        body = json.loads(path.read_text())
        del body["digest"]
        change(body)
        digest = "sha256:" + hashlib.sha256(strictjson.canonical(body)).hexdigest()
        path.write_bytes(strictjson.canonical({**body, "digest": digest}))

    return call


@pytest.fixture
def fuse(cli: Callable[..., Any]) -> Callable[..., str]:
    """`fuse(library)`: compose `alpha` and `beta` there; returns the name of the fusion."""

    def call(library: Path, gate: str = "uniform") -> str:
        fitted = ("--set", "steps=3") if gate == "spectral" else ()
        made = cli("compose", "alpha", "beta", "--gate", gate, *fitted, "--library", library, "--json")
        assert made.code == 0, made.err
        return str(made.json["name"])

    return call


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """`package("name", "source", distribution=..., version=...)`: install a fake package with one entry point.

    A module and a hand-written `*.dist-info` on `sys.path` are all that an installed package is to Python.
    """
    site = tmp_path / "site"
    planted: list[str] = []

    def plant(entry: str, source: str, *, distribution: str = "", version: str = "1.0") -> None:
        module = f"planted_{len(planted)}_{site.parent.name}".replace("-", "_")
        planted.append(module)
        metadata = site / f"{module}-1.0.dist-info"
        metadata.mkdir(parents=True)
        (site / f"{module}.py").write_text(dedent(source))
        (metadata / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution or entry}\nVersion: {version}\n", encoding="utf-8"
        )
        (metadata / "entry_points.txt").write_text(f"[grokkit]\n{entry} = {module}\n", encoding="utf-8")
        if len(planted) == 1:
            monkeypatch.syspath_prepend(site)
        plugins.host.cache_clear()

    plugins.host.cache_clear()
    yield plant
    plugins.host.cache_clear()
    for module in planted:
        sys.modules.pop(module, None)


@pytest.fixture
def complete(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """`complete("show", "al")`: what the shell is offered for the last word, and what is printed on stderr."""
    from grokkit_cli.__main__ import run

    def call(*words: str, shell: str = "bash") -> tuple[list[str], str]:
        monkeypatch.setenv("_GROKKIT_COMPLETE", f"{shell}_complete")
        monkeypatch.setenv("COMP_WORDS", " ".join(["grokkit", *words]))
        monkeypatch.setenv("COMP_CWORD", words[-1] if shell == "fish" else str(len(words)))
        capfd.readouterr()
        with contextlib.suppress(SystemExit):
            run([])
        printed = capfd.readouterr()
        return printed.out.splitlines(), printed.err

    return call


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every write to a file descriptor finds the disk full."""

    def write(descriptor: int, data: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", write)
