"""What a law is: one sentence about every component of a kind, and a function that looks for a counterexample."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from grokkit_core.loading import describe

if TYPE_CHECKING:
    from grokkit_core.testing.workbench import Workbench

LawKind = Literal["plugin", "task", "architecture", "transfer", "gate", "fusion", "cassette"]
KINDS: tuple[LawKind, ...] = ("plugin", "task", "architecture", "transfer", "gate", "fusion", "cassette")


class LawBroken(AssertionError):
    """A component breaks a law: which law, which component, what was seen, what was expected, how to mend it."""

    def __init__(self, law: Law, component: str, seen: str, expected: str) -> None:
        self.law, self.component, self.seen, self.expected = law, component, seen, expected
        lines = [f"{component} breaks the law {law.id}: {law.sentence}", f"  seen: {seen}"]
        lines += [f"  expected: {expected}"] if expected else []
        super().__init__("\n".join([*lines, f"  to mend it: {law.mend}"]))


class Violation(Exception):
    """A counterexample, as the function of a law meets it."""

    def __init__(self, seen: str, expected: str) -> None:
        self.seen, self.expected = seen, expected
        super().__init__(f"{seen}; expected {expected}")


class Inapplicable(Exception):
    """A law says nothing about this component; the message says why."""


def require(holds: bool, seen: str, expected: str) -> None:
    """Raise the counterexample unless it `holds`."""
    if not holds:
        raise Violation(seen, expected)


def applies(holds: bool, reason: str) -> None:
    """Leave the law, with the reason, unless it `holds`."""
    if not holds:
        raise Inapplicable(reason)


@dataclass(frozen=True)
class Law:
    """A law of one kind of component. `holds` raises `Violation`, or `Inapplicable` where it says nothing.

    `mend` is the advice to an author whose component breaks it.
    """

    id: str
    kind: LawKind
    sentence: str
    mend: str
    holds: Callable[[Any, Workbench], None]

    def check(self, component: Any, bench: Workbench) -> str:
        """Empty if the law holds, or the reason why it does not apply; raises `LawBroken`.

        Whatever else the component raises breaks the law too: no law gives it an input that it may not be given.
        """
        name = name_of(component)
        try:
            self.holds(component, bench)
        except Inapplicable as reason:
            return str(reason) or "it does not apply"
        except Exception as error:
            found = violation_in(error)
            seen = found.seen if found else f"it raised {describe(error)}"
            drawn = drawn_in(found or error)
            broken = LawBroken(self, name, seen + drawn, found.expected if found else "")
            raise broken from (None if found else error)
        return ""


def violation_in(error: BaseException) -> Violation | None:
    """The counterexample that an exception is, or holds: hypothesis wraps one that comes and goes."""
    if isinstance(error, Violation):
        return error
    inner = [*getattr(error, "exceptions", ()), *filter(None, [error.__cause__, error.__context__])]
    return next((found for other in inner if (found := violation_in(other))), None)


def drawn_in(error: BaseException) -> str:
    """The arguments that hypothesis drew for a counterexample, in brackets; empty where nothing was drawn."""
    for note in getattr(error, "__notes__", ()):
        if found := re.match(r"(?:Failing test case|Falsifying example): \w+\((.*)\)", note, flags=re.DOTALL):
            return f" ({' '.join(found[1].split()).rstrip(',')})"
    return ""


def name_of(component: Any) -> str:
    """What a component is called in messages: its id, a plugin's name or a cassette's reference."""
    return str(getattr(component, "id", "") or getattr(component, "ref", "") or component.name)


Holds = Callable[[Any, "Workbench"], None]


class Laws:
    """The laws of one kind, in the order in which they are written down."""

    def __init__(self, kind: LawKind) -> None:
        self.kind: LawKind = kind
        self._laws: list[Law] = []

    def __call__(self, name: str, sentence: str, *, mend: str) -> Callable[[Holds], Holds]:
        """Register the decorated function as a law with the id `kind.name`."""

        def register(holds: Holds) -> Holds:
            self._laws.append(Law(f"{self.kind}.{name}", self.kind, sentence, mend, holds))
            return holds

        return register

    def __iter__(self) -> Iterator[Law]:
        return iter(self._laws)
