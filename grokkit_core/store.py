"""One cassette folder on disk, read strictly: regular files only, every byte read once, hashed, then parsed."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from grokkit_core import manifest as manifests
from grokkit_core import weights
from grokkit_core.errors import (
    BadManifest,
    BadWeights,
    HashMismatch,
    NotFound,
    NotRegularFile,
    StoreError,
    TooLarge,
)
from grokkit_core.manifest import WEIGHTS, Manifest
from grokkit_core.text import printable

MANIFEST = "manifest.json"
README = "README.md"
_ALLOWED = frozenset({MANIFEST, WEIGHTS, README})
_NOT_REGULAR = frozenset({errno.ELOOP, errno.ENXIO, errno.EISDIR, errno.ENODEV, errno.ENOTDIR})


@dataclass(frozen=True)
class Stored:
    """A cassette as it lies on disk: its folder, its manifest and the verified bytes of its weights."""

    folder: Path
    manifest: Manifest
    weights: bytes


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a version folder; raises children of `CassetteError`, `NotFound` or `StoreError`."""
    with _opened(folder) as descriptor:
        return _manifest(descriptor, folder)


def read(folder: Path, *, cap: int = weights.MAX_BYTES) -> Stored:
    """Manifest and weights of a version folder; size and hash are compared with the manifest before the header is parsed.

    Raises children of `CassetteError` (exit 3), `NotFound` (exit 5) or `StoreError` (exit 6).
    """
    with _opened(folder) as descriptor:
        manifest = _manifest(descriptor, folder)
        data = _read_file(descriptor, WEIGHTS, min(cap, manifest.weights.bytes), folder)
    check_weights(manifest, data)
    return Stored(folder, manifest, data)


def check_weights(manifest: Manifest, data: bytes) -> None:
    """Raise unless `data` has the size, the hash and a header that the manifest and the format demand."""
    if len(data) != manifest.weights.bytes:
        raise HashMismatch(f"{WEIGHTS} of {manifest.ref} has {len(data)} bytes", expected=str(manifest.weights.bytes))
    if hashlib.sha256(data).hexdigest() != manifest.weights.sha256:
        raise HashMismatch(
            f"{WEIGHTS} of {manifest.ref} was altered: its sha256 does not match the manifest",
            hint="restore it from its source",
        )
    if manifest.weights.parameters > 8 * len(data):
        raise BadWeights(
            f"{manifest.ref} claims {manifest.weights.parameters} parameters", expected="no more than stored"
        )
    weights.read_header(data)


def files_of(folder: Path) -> dict[str, bytes]:
    """The exact bytes of both files of a valid cassette folder, for copying."""
    stored = read(folder)
    return {MANIFEST: stored.manifest.to_bytes(), WEIGHTS: stored.weights}


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[int]:
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except ValueError:
        raise NotFound(f"there is no cassette folder {printable(folder, 160)}") from None
    except OSError as error:
        raise _from_os(error, folder, "folder") from None
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _manifest(descriptor: int, folder: Path) -> Manifest:
    try:
        unknown = sorted(set(os.listdir(descriptor)) - _ALLOWED)
    except OSError as error:
        raise _from_os(error, folder, "folder") from None
    if unknown:
        raise BadManifest(
            f"{printable(folder, 120)} holds the unknown entry '{printable(unknown[0], 60)}'",
            expected="only " + ", ".join(sorted(_ALLOWED)),
        )
    return Manifest.parse(_read_file(descriptor, MANIFEST, manifests.MAX_BYTES, folder))


def _read_file(directory: int, name: str, cap: int, folder: Path) -> bytes:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(name, flags, dir_fd=directory)
    except OSError as error:
        raise _from_os(error, folder / name, "file") from None
    shown = printable(folder / name, 160)
    try:
        return _contents(descriptor, cap, shown)
    except OSError as error:
        raise StoreError.from_os(error, f"reading {shown}") from None
    finally:
        os.close(descriptor)


def _contents(descriptor: int, cap: int, shown: str) -> bytes:
    """All bytes of an open file. Its kind is checked first: Python refuses to wrap the descriptor of a folder."""
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise NotRegularFile(f"{shown} is not a regular file", expected="a regular file")
    if status.st_size > cap:
        raise TooLarge(f"{shown} has {status.st_size} bytes", expected=f"at most {cap}")
    with os.fdopen(descriptor, "rb", closefd=False) as file:
        data = file.read(cap + 1)
    if len(data) != status.st_size:
        raise HashMismatch(f"{shown} changed its size while it was read")
    return data


def _from_os(error: OSError, path: Path, what: str) -> Exception:
    shown = printable(path, 160)
    if error.errno == errno.ENOENT:
        if what == "file":
            return BadManifest(f"{shown} is missing", expected=f"{MANIFEST} and {WEIGHTS} in the folder")
        return NotFound(f"there is no cassette folder {shown}")
    if error.errno in _NOT_REGULAR:
        wanted = "a folder, not a link" if what == "folder" else "a regular file, not a link"
        return NotRegularFile(f"{shown} is not a {what} that may be read", expected=wanted)
    return StoreError.from_os(error, f"opening {shown}")
