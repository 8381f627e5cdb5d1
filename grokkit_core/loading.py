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
            _flush()  # what was written to `sys.__stdout__` itself must not stay in its buffer
            os.dup2(saved, 1)
            os.close(saved)
        quiet.printed = collected.getvalue().strip()


def _descriptor_to_stderr() -> int | None:
    """Point descriptor 1 at stderr and return a copy of what it was, where both exist."""
    try:
        _flush()
        saved = os.dup(1)
        os.dup2(2, 1)
    except OSError:
        return None
    return saved


def _flush() -> None:
    for stream in (sys.stdout, sys.__stdout__):
        with contextlib.suppress(ValueError, AttributeError, OSError):
            stream.flush()  # type: ignore[union-attr]


def describe(error: BaseException) -> str:
    """An exception in one safe line: its type and message."""
    kind = printable(type(error).__name__, 60)
    try:
        message = printable(error, 160)
    except KeyboardInterrupt:
        raise
    except BaseException:
        message = "its message cannot be read"
    return f"{kind}: {message}" if message else kind
