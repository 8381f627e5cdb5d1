"""Shipped cassettes as pictures take them."""

from __future__ import annotations

import pytest

import grokkit_core as gk
from grokkit_core.pictures.panels import Subject, subject_of
from grokkit_core.workspace import Workspace, workspace


@pytest.fixture
def place() -> Workspace:
    """The shipped cassettes and every built-in plugin."""
    return workspace(None)


SHIPPED = [entry.name for entry in gk.list() if entry.root.kind == "plugin"]


@pytest.fixture(params=SHIPPED)
def shipped(request: pytest.FixtureRequest, place: Workspace) -> Subject:
    """Each shipped cassette."""
    return subject_of(request.param, place)
