"""Running code that is not ours: what it prints is kept away from stdout, what it raises is put into words."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from grokkit_core.text import printable


@dataclass
class Quiet:
    """What was printed inside a `quietly` block."""

    printed: str = ""


@contextlib.contextmanager
def quietly() -> Iterator[Quiet]:
    """Keep stdout clean while foreign code runs: Python's prints are collected, raw writes to descriptor 1 go to stderr."""
    quiet, collected = Quiet(), io.StringIO()
    saved = _descriptor_to_stderr()
    try:
        with contextlib.redirect_stdout(collected):
            yield quiet
    finally:
        if saved is not None:
            os.dup2(saved, 1)
            os.close(saved)
        quiet.printed = collected.getvalue().strip()


def _descriptor_to_stderr() -> int | None:
    """Point descriptor 1 at stderr and return a copy of what it was, where both exist."""
    try:
        with contextlib.suppress(ValueError, AttributeError):
            sys.stdout.flush()
        saved = os.dup(1)
        os.dup2(2, 1)
    except OSError:
        return None
    return saved


def describe(error: BaseException) -> str:
    """An exception in one safe line: its type and message."""
    message = printable(error, 160)
    return f"{type(error).__name__}: {message}" if message else type(error).__name__
