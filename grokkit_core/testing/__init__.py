"""The public conformance kit: laws that every component of a plugin must keep, for the tests of plugin authors.

    from grokkit_core.testing import check_plugin

    def test_conformance() -> None:
        check_plugin("grokkit_example")

`pytest --grokkit grokkit_example` shows the same laws one by one. Both need `pip install 'grokkit[testing]'`. Names are
imported when they are first used, because pytest loads this package wherever Grokkit is installed.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from grokkit_core.testing.conformance import LAWS as LAWS
    from grokkit_core.testing.conformance import Check as Check
    from grokkit_core.testing.conformance import check_architecture as check_architecture
    from grokkit_core.testing.conformance import check_cassette as check_cassette
    from grokkit_core.testing.conformance import check_fusion as check_fusion
    from grokkit_core.testing.conformance import check_gate as check_gate
    from grokkit_core.testing.conformance import check_plugin as check_plugin
    from grokkit_core.testing.conformance import check_task as check_task
    from grokkit_core.testing.conformance import check_transfer as check_transfer
    from grokkit_core.testing.conformance import checks_of as checks_of
    from grokkit_core.testing.laws import Law as Law
    from grokkit_core.testing.laws import LawBroken as LawBroken
    from grokkit_core.testing.workbench import Workbench as Workbench

_HOME = {
    "Check": "conformance",
    "LAWS": "conformance",
    "Law": "laws",
    "LawBroken": "laws",
    "Workbench": "workbench",
    "check_architecture": "conformance",
    "check_cassette": "conformance",
    "check_fusion": "conformance",
    "check_gate": "conformance",
    "check_plugin": "conformance",
    "check_task": "conformance",
    "check_transfer": "conformance",
    "checks_of": "conformance",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'grokkit_core.testing' has no attribute '{name}'")
    if _HOME[name] == "conformance":
        importlib.import_module("grokkit_core.testing.draws")  # says what to install where hypothesis is missing
    return getattr(importlib.import_module(f"grokkit_core.testing.{_HOME[name]}"), name)


def __dir__() -> Iterable[str]:
    return __all__
