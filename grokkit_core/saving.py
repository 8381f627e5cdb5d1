"""Atomic, lock-free writing of cassette folders: stage, sync, rename. A version never changes once it has its number."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from grokkit_core import store
from grokkit_core.errors import Incompatible, NotFound, StoreError, TooLarge
from grokkit_core.manifest import MAX_BYTES, WEIGHTS, Manifest
from grokkit_core.names import MAX_VERSION, check_name, is_version
from grokkit_core.text import printable

STALE_SECONDS = 3_600
"""Staging folders older than this are the remains of a killed save."""

_TAKEN = frozenset({errno.ENOTEMPTY, errno.EEXIST})
_TOMBSTONE = re.compile(r"\.removed-([1-9][0-9]{0,8})")


def save(root: Path, manifest: Manifest, data: bytes) -> Manifest:
    """Write a cassette as the next free version of its name below `root`; returns the manifest with that version.

    The bytes are checked as a reader would check them before anything is written. Raises `StoreError` (exit 6) or
    children of `CassetteError`; on any failure nothing is left but the old versions.
    """
    check_name(manifest.name)
    manifest = Manifest.parse(with_weights(manifest, data).to_bytes())
    size = len(manifest.replace(version=MAX_VERSION).to_bytes())
    if size > MAX_BYTES:
        raise TooLarge(
            f"the manifest of {manifest.name} would have {size} bytes",
            expected=f"at most {MAX_BYTES}",
            hint="a composition is kept small by composing fewer cassettes",
        )
    store.check_weights(manifest, data)
    with _writing(root, manifest.name) as home, _staged(home) as staging:
        _write(staging / WEIGHTS, data)
        while True:
            manifest = manifest.replace(version=_next_version(home))
            _write(staging / store.MANIFEST, manifest.to_bytes())
            _sync_folder(staging)
            if not _tombstone(home, manifest.version).exists() and _committed(staging, home / str(manifest.version)):
                return manifest


def install(root: Path, folder: Path, name: str | None = None) -> Manifest:
    """Copy the cassette in `folder` into `root`, bytes, name and version kept; `name` reissues it under a new name.

    Raises `Incompatible` when the version number is taken by other bytes or was removed.
    """
    stored = store.read(folder)
    if name is not None:
        return save(root, stored.manifest.replace(name=check_name(name)), stored.weights)
    manifest = stored.manifest
    with _writing(root, manifest.name) as home:
        target = home / str(manifest.version)
        if target.exists():
            return _same(target, manifest)
        if _tombstone(home, manifest.version).exists():
            raise Incompatible(
                f"{manifest.ref} was removed here and its number is not used again", hint="use --as NAME"
            )
        with _staged(home) as staging:
            _write(staging / WEIGHTS, stored.weights)
            _write(staging / store.MANIFEST, manifest.to_bytes())
            _sync_folder(staging)
            return manifest if _committed(staging, target) else _same(target, manifest)


def remove(folder: Path) -> None:
    """Delete a version folder, leaving a tombstone so that its number is never used again; raises `StoreError`."""
    home = folder.parent
    if not folder.is_dir():
        raise NotFound(f"there is no cassette folder {printable(folder, 160)}")
    try:
        _tombstone(home, folder.name).touch(exist_ok=True)
        _sync_folder(home)
        trash = home / f".trash-{secrets.token_hex(8)}"
        os.rename(folder, trash)
        _sync_folder(home)
        shutil.rmtree(trash)
    except OSError as error:
        raise StoreError.from_os(error, f"removing {printable(folder, 160)}") from None


def with_weights(manifest: Manifest, data: bytes) -> Manifest:
    """The manifest with size and hash of these weights."""
    import dataclasses

    digest = hashlib.sha256(data).hexdigest()
    return manifest.replace(weights=dataclasses.replace(manifest.weights, bytes=len(data), sha256=digest))


def highest_version(home: Path) -> int:
    """The highest version number ever used below the folder of a name, tombstones counted; 0 if none."""
    found = [0]
    for entry in os.listdir(home):
        tombstone = _TOMBSTONE.fullmatch(entry)
        if is_version(entry):
            found.append(int(entry))
        elif tombstone:
            found.append(int(tombstone[1]))
    return max(found)


def _next_version(home: Path) -> int:
    highest = highest_version(home)
    if highest >= MAX_VERSION:
        raise StoreError(f"the version numbers of '{home.name}' are used up", hint="choose another name")
    return highest + 1


def _tombstone(home: Path, version: int | str) -> Path:
    return home / f".removed-{version}"


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write a new folder with these files, staged next to it, synced and renamed; raises `StoreError`.

    The folder must not exist or be empty. Names may have folders of their own.
    """
    with _storing(folder), _staged(folder.parent) as staging:
        for name, data in files.items():
            (staging / name).parent.mkdir(parents=True, exist_ok=True)
            _write(staging / name, data)
        _sync_folder(staging)
        os.rename(staging, folder)
        _sync_folder(folder.parent)


@contextlib.contextmanager
def _storing(place: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError.from_os(error, f"writing to {printable(place, 160)}") from None


@contextlib.contextmanager
def _writing(root: Path, name: str) -> Iterator[Path]:
    """The folder of a name, made if it is missing; OS errors inside the block become `StoreError`."""
    home = root / name
    with _storing(root):
        root.mkdir(parents=True, exist_ok=True)
        if not home.is_dir():
            home.mkdir(exist_ok=True)
            _sync_folder(root)
        yield home
    with contextlib.suppress(OSError):
        _clean(home)


@contextlib.contextmanager
def _staged(home: Path) -> Iterator[Path]:
    """A staging folder beside its target, removed again unless it was renamed away."""
    staging = home / f".staging-{secrets.token_hex(8)}"
    staging.mkdir()
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _write(path: Path, data: bytes) -> None:
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _committed(staging: Path, target: Path) -> bool:
    """Whether the rename took the number; the rename is the commit point and fails if another writer was first.

    A version that cannot be made durable is taken back.
    """
    try:
        os.rename(staging, target)
    except OSError as error:
        if error.errno in _TAKEN:
            return False
        raise
    try:
        _sync_folder(target.parent)
    except OSError:
        os.rename(target, staging)
        raise
    return True


def _same(target: Path, manifest: Manifest) -> Manifest:
    present = store.read_manifest(target)
    if present.digest != manifest.digest:
        raise Incompatible(
            f"{manifest.ref} is taken by another cassette ({present.digest[:19]}...)",
            hint="use --as NAME to reissue it",
        )
    return present


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _clean(home: Path) -> None:
    limit = time.time() - STALE_SECONDS
    for entry in home.iterdir():
        if entry.name.startswith((".staging-", ".trash-")):
            with contextlib.suppress(OSError):
                if entry.stat().st_mtime < limit:
                    shutil.rmtree(entry, ignore_errors=True)
