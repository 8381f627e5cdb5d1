"""Makes `probes` importable whatever the import mode of pytest; one bench over all that is installed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from grokkit_core.testing import Workbench

sys.path.append(str(Path(__file__).resolve().parent))


@pytest.fixture(scope="session")
def installed() -> Workbench:
    """The installed plugins; networks are made once for all tests."""
    return Workbench()
