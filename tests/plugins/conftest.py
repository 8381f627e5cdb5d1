"""Fixtures for tests of the built-in plugins: slow references written apart from the code under test."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from grokkit_core.cassette import Cassette


def _load(name: str) -> ModuleType:
    """A module of this folder; with `--import-mode=importlib` its neighbours cannot be imported by name."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


@pytest.fixture(scope="session")
def reference() -> ModuleType:
    """The published cyclotron network, sampler and optimiser as plain loops (`cyclotron_reference.py`)."""
    return _load("cyclotron_reference")


@pytest.fixture(scope="session")
def orbit() -> ModuleType:
    """Random points of the orbit of a bilinear algorithm (`matmul_orbit.py`)."""
    return _load("matmul_orbit")


@pytest.fixture(scope="session")
def schemes() -> ModuleType:
    """Schemes in several forms and formats, and a recursion and errors, written apart (`matmul_schemes.py`)."""
    return _load("matmul_schemes")


@pytest.fixture(scope="session")
def leapfrog() -> ModuleType:
    """The reference solver of the wave task in numpy (`wave_reference.py`)."""
    return _load("wave_reference")


@pytest.fixture(scope="session")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Cassette:
    """A cassette of <2,2,2:7> that was trained just now."""
    import grokkit_core as gk

    home = tmp_path_factory.mktemp("learned")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME"):
            patch.setenv(name, str(home / name.lower()))
        (trained,) = gk.train("matmul", seed=3, library=home / "library")
    return trained.cassette


@pytest.fixture(scope="session")
def two_body() -> ModuleType:
    """Orbits by numerical integration and by other formulas, and changes of frame (`kepler_reference.py`)."""
    return _load("kepler_reference")


@pytest.fixture(scope="session")
def discovery() -> ModuleType:
    """The tests of discovery, for their walk over imports (`closure`)."""
    return _load("test_matmul_discovery")
