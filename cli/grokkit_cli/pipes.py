"""A reader of our output that goes away, which is its right; click would end the process with exit code 1."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


class ReaderGone(Exception):
    """Whoever read our output went away."""


@contextlib.contextmanager
def reader() -> Iterator[None]:
    """Turn a broken pipe into `ReaderGone` inside the block."""
    try:
        yield
    except BrokenPipeError as error:
        raise ReaderGone from error
