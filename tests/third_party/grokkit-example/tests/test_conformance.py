"""Everything that this package brings keeps the laws of Grokkit's conformance kit."""

from __future__ import annotations

from grokkit_core.testing import check_plugin


def test_conformance() -> None:
    check_plugin("grokkit_example")
