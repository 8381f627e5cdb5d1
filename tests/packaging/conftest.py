"""Fixtures for tests of packaging and documentation: the blocks of the pages, one test each."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


def _load(name: str) -> ModuleType:
    """A module of this folder; with `--import-mode=importlib` its neighbours cannot be imported by name."""
    key = f"grokkit_packaging_{name}"
    if key not in sys.modules:
        spec = importlib.util.spec_from_file_location(key, Path(__file__).with_name(f"{name}.py"))
        assert spec is not None
        assert spec.loader is not None
        sys.modules[key] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[key])
    return sys.modules[key]


@pytest.fixture(scope="session")
def pages() -> ModuleType:
    """README and docs as blocks (`pages.py`)."""
    return _load("pages")


@pytest.fixture(scope="session")
def workshop() -> ModuleType:
    """Where the tutorial is followed (`workshop.py`)."""
    return _load("workshop")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that takes `transcript`, `snippet`, `quotation` or `typed` runs once for each such block."""
    pages = _load("pages")
    kinds = {
        "transcript": pages.of("console"),
        "snippet": pages.of("python"),
        "quotation": [block for block in pages.BLOCKS if "source=" in block.language],
        "typed": pages.of(""),
    }
    for name in kinds.keys() & set(metafunc.fixturenames):
        metafunc.parametrize(name, kinds[name], ids=str)
