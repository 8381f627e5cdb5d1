"""Fixtures for tests of the built-in plugins: slow references written apart from the code under test."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


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
