"""Text from data, made safe to show."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable

_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def printable(text: object, cap: int = 200) -> str:
    """`text` with every control, format, surrogate and line-separator character replaced by U+FFFD, at most `cap` long.

    Used for every string that comes from a file, a plugin or the command line before it reaches a terminal.
    """
    raw = str(text)
    if len(raw) > cap:
        raw = raw[: max(cap - 1, 0)] + "…"
    if raw.isascii() and raw.isprintable():
        return raw
    return "".join("\ufffd" if unicodedata.category(char) in _UNSAFE else char for char in raw)


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint that names the known word nearest to `word`, or lists a few; empty when nothing is known."""
    names = sorted(set(known))
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if close:
        return f"did you mean '{close[0]}'?"
    if not names:
        return ""
    listed = ", ".join(names[:8]) + (" ..." if len(names) > 8 else "")
    return f"known: {listed}"
