"""Names and references of cassettes: `name`, `name@2`, `name@sha256:<hex>` or a path to a version folder."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from grokkit_core.errors import BadName
from grokkit_core.text import printable

MAX_VERSION = 999_999_999
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?")
_VERSION = re.compile(r"[1-9][0-9]{0,8}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_DEVICES = frozenset({"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))})
_RULE = "1 to 64 of a-z, 0-9 and '-', not starting or ending with '-', and no Windows device name"


def is_name(text: str) -> bool:
    """Whether `text` is a valid cassette name."""
    return _NAME.fullmatch(text) is not None and text not in _DEVICES


def is_version(text: str) -> bool:
    """Whether `text` is a version number as it stands in a folder name."""
    return _VERSION.fullmatch(text) is not None


def is_digest(text: str) -> bool:
    """Whether `text` is `sha256:` and 64 lower-case hexadecimal digits."""
    return _DIGEST.fullmatch(text) is not None


def check_name(text: str) -> str:
    """Return `text` if it is a valid cassette name, else raise `BadName`."""
    if not is_name(text):
        raise BadName(f"'{printable(text, 80)}' is not a cassette name", expected=_RULE)
    return text


def expanded(path: str | Path) -> Path:
    """`path` with a leading `~` replaced; raises `BadName` where that user does not exist."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise BadName(f"path '{printable(path, 160)}' is below a user that does not exist") from None


@dataclass(frozen=True)
class Ref:
    """A parsed reference: a name with an optional pin, or a path."""

    text: str
    name: str = ""
    version: int | None = None
    digest: str | None = None
    path: Path | None = None

    @classmethod
    def parse(cls, text: str) -> Ref:
        """Parse a reference as typed; raises `BadName`."""
        if text.startswith((".", "/", "~")) or os.sep in text:
            return cls(text, path=expanded(text))
        name, at, pin = text.partition("@")
        check_name(name)
        if not at:
            return cls(text, name=name)
        if is_version(pin):
            return cls(text, name=name, version=int(pin))
        if is_digest(pin):
            return cls(text, name=name, digest=pin)
        raise BadName(
            f"'{printable(text, 120)}' is not a cassette reference",
            expected="name, name@2, name@sha256:<64 hex digits> or a path to a version folder",
        )
