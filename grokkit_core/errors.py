"""Errors that a user can act on. Each says what was given, what was expected and what to do, and knows its exit code."""

from __future__ import annotations

from typing import ClassVar


class GrokkitError(Exception):
    """Base of every declared error.

    `given` says what was met, `expected` what was wanted instead, `hint` what to do next; the message joins them.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, given: str, *, expected: str = "", hint: str = "") -> None:
        self.given, self.expected, self.hint = given, expected, hint
        parts = [given, f"expected {expected}" if expected else "", hint]
        super().__init__("; ".join(part for part in parts if part))

    @property
    def code(self) -> str:
        """Stable name of the kind of error, for programs."""
        return type(self).__name__


class CheckFailed(GrokkitError):
    """A check ran and said no (exit 1)."""


class UsageError(GrokkitError):
    """The call itself is wrong: an option, a name, a value (exit 2)."""

    exit_code = 2


class BadName(UsageError):
    """A typed cassette name, version or reference that the format does not allow (exit 2)."""


class CassetteError(GrokkitError):
    """A cassette on disk is not what it should be (exit 3)."""

    exit_code = 3


class BadManifest(CassetteError):
    """The manifest is malformed, not canonical, or breaks the schema."""


class BadWeights(CassetteError):
    """The weights file is malformed or does not hold what the manifest says."""


class HashMismatch(CassetteError):
    """Bytes differ from the digest or size recorded for them."""


class TooLarge(CassetteError):
    """A file or a part of it exceeds its cap."""


class NotRegularFile(CassetteError):
    """A symbolic link, folder, device or pipe where a regular file must be."""


class Incompatible(GrokkitError):
    """Signatures, domains, units, gates or operators that do not fit together (exit 4)."""

    exit_code = 4


class OtherNetwork(Incompatible):
    """A transfer operator that works on other architectures than the one it was given."""


class NoMatch(Incompatible):
    """No member accepts the input."""


class Ambiguous(Incompatible):
    """Several candidates fit and none may be guessed."""


class SchemaUnsupported(Incompatible):
    """The manifest follows a schema that this version does not read."""


class PluginError(Incompatible):
    """A plugin that is needed is missing, broken or failed."""


class NotFound(GrokkitError):
    """A name that nothing answers to (exit 5)."""

    exit_code = 5


class StoreError(GrokkitError):
    """The file system said no: full, read-only, not permitted (exit 6)."""

    exit_code = 6

    @classmethod
    def from_os(cls, error: OSError, doing: str, *, keeping: bool = True) -> StoreError:
        """Wrap an `OSError` met while `doing` something, keeping the name of its errno.

        `keeping` says that a library was being written, so that the advice is to choose another one.
        """
        import errno

        name = errno.errorcode.get(error.errno or 0, "unknown error")
        advice = {
            "ENOSPC": "free some space or choose another --library",
            "EDQUOT": "free some space or choose another --library",
            "EACCES": "check the permissions or choose another --library",
            "EPERM": "check the permissions or choose another --library",
            "EROFS": "choose another --library",
            "EFBIG": "free some space or choose another --library",
            "ENOENT": "choose another --library",
            "ENOTDIR": "choose another --library",
        }
        if not keeping:
            advice = dict.fromkeys(("ENOSPC", "EDQUOT", "EFBIG"), "free some space or choose another place")
            advice |= dict.fromkeys(("EACCES", "EPERM", "EROFS"), "check the permissions or choose another place")
            advice |= {"ENOENT": "make the folder first or choose another place"}
        return cls(f"{doing} failed: {error.strerror or error} ({name})", hint=advice.get(name, ""))
