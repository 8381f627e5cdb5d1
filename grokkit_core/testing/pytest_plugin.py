"""`pytest --grokkit NAME`: one test item for every law and component of an installed plugin.

Pytest imports this module in every run on a machine that has Grokkit, so it imports nothing but pytest until the option
is given.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from grokkit_core.testing.conformance import Check


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare `--grokkit`."""
    parser.getgroup("grokkit").addoption(
        "--grokkit",
        action="append",
        default=[],
        metavar="NAME",
        help="check an installed Grokkit plugin against the laws of the conformance kit: its distribution, import package or "
        "entry point; without paths only these laws run (may be repeated)",
    )


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Without paths on the command line, `--grokkit` collects laws only."""
    alone = config.args_source is not pytest.Config.ArgsSource.ARGS
    return True if config.getoption("--grokkit") and alone else None


def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    """Add the laws of the plugins that were asked for."""
    for name in config.getoption("--grokkit"):
        items.extend(Conformance.from_parent(session, name=name).collect())


class Conformance(pytest.Collector):
    """One plugin as a collection of laws."""

    def collect(self) -> Iterator[LawItem]:
        """An item for each law and component; raises `pytest.UsageError` for a plugin that is not there."""
        from grokkit_core.errors import GrokkitError

        try:
            from grokkit_core.testing import checks_of

            checks = list(checks_of(self.name))
        except GrokkitError as error:
            raise pytest.UsageError(str(error)) from None
        for check in checks:
            yield LawItem.from_parent(self, name=str(check), check=check)


class LawItem(pytest.Item):
    """One law about one component; skipped, with the reason, where the law says nothing about it."""

    def __init__(self, *, check: Check, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.check = check

    def runtest(self) -> None:
        """Check it."""
        reason = self.check.run()
        if reason:
            pytest.skip(f"{self.check.name}: {reason}")

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """What was seen and how to mend it; with the traceback where the component raised something of its own."""
        if isinstance(excinfo.value, AssertionError) and excinfo.value.__cause__ is None:
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """The sentence of the report."""
        return self.path, None, self.name
