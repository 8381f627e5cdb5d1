"""Where cassettes are found: roots in order, names, versions and digests. A listing is a scan of folders, nothing else."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from grokkit_core import store
from grokkit_core.errors import BadManifest, GrokkitError, Incompatible, NotFound, StoreError
from grokkit_core.manifest import Manifest
from grokkit_core.names import Ref, expanded, is_name, is_version
from grokkit_core.notebook import Sheet, Shown
from grokkit_core.text import nearest, printable

RootKind = Literal["option", "environment", "user", "plugin"]
VARIABLE = "GROKKIT_LIBRARY"


@dataclass(frozen=True)
class Root:
    """A folder of cassettes and how it came to be searched. `source` is what a listing shows."""

    path: Path
    kind: RootKind
    source: str

    @property
    def writable(self) -> bool:
        """Whether new cassettes can go here: never to a plugin's root; a missing folder counts as its nearest parent."""
        if self.kind == "plugin":
            return False
        place = self.path
        while not place.exists() and place != place.parent:
            place = place.parent
        return place.is_dir() and os.access(place, os.W_OK | os.X_OK)

    def fault(self) -> str:
        """Why the root must not be trusted, or an empty string.

        A root named by the environment must not be writable by others and must belong to this user or to root.
        """
        if self.kind != "environment":
            return ""
        try:
            status = self.path.stat()
        except OSError:
            return ""
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return "it can be written by other users (chmod go-w)"
        if hasattr(os, "geteuid") and status.st_uid not in (os.geteuid(), 0):
            return "it belongs to another user"
        return ""


@dataclass(frozen=True)
class Entry:
    """One version of one cassette in a root, with its manifest or the problem that keeps it from being read."""

    name: str
    version: int
    folder: Path
    root: Root
    manifest: Manifest | None
    problem: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The row of `grokkit list --json`."""
        found = self.manifest
        return {
            "name": self.name,
            "version": self.version,
            "task": found.task.id if found else None,
            "kind": found.provenance.kind if found else None,
            "verdict": found.certificate.verdict if found else None,
            "parameters": found.weights.parameters if found else None,
            "bytes": found.weights.bytes if found else None,
            "digest": found.digest if found else None,
            "source": self.root.source,
            "problem": self.problem,
        }


class Listing(list[Entry], Shown):
    """Cassettes that were found; a list that shows itself as a table."""

    def _sheet(self) -> Sheet:
        rows = []
        for entry in self:
            found, name = entry.manifest, f"{entry.name}@{entry.version}"
            if found is None:
                rows.append((name, f"cannot be read: {entry.problem}", "", "", entry.root.source))
                continue
            count = f"{found.weights.parameters:,}"
            rows.append((name, found.summary, found.certificate.verdict, count, entry.root.source))
        columns = ("cassette", "computes", "verdict", "parameters", "source")
        return Sheet(f"{len(self)} cassettes", columns, tuple(rows), (3,))


class Library:
    """The roots that are searched, first to last. The first root that holds a name wins."""

    def __init__(self, roots: Iterable[Root]) -> None:
        self.roots = tuple(roots)

    @classmethod
    def standard(
        cls,
        paths: Sequence[str | Path] = (),
        *,
        plugin_roots: Iterable[tuple[str, Path]] = (),
        environment: Mapping[str, str] | None = None,
    ) -> Library:
        """Roots in their contractual order: given paths, `$GROKKIT_LIBRARY`, the user library, the roots of plugins."""
        environ = os.environ if environment is None else environment
        roots = [Root(expanded(path), "option", "--library") for path in paths]
        listed = environ.get(VARIABLE, "")
        roots += [Root(expanded(part), "environment", f"${VARIABLE}") for part in listed.split(os.pathsep) if part]
        roots.append(Root(user_library(), "user", "user library"))
        roots += [Root(path, "plugin", distribution) for distribution, path in plugin_roots]
        return cls(roots)

    @cached_property
    def target(self) -> Root:
        """The root that new cassettes go to: the first writable one of the first kind given (option, environment, user).

        Raises `StoreError` when there is none: what was asked for one folder never lands in another.
        """
        kind = next(root.kind for root in self.roots if root.kind != "plugin")
        candidates = [root for root in self.roots if root.kind == kind]
        for root in candidates:
            _trusted(root)
        for root in candidates:
            if root.writable:
                return root
        shown = ", ".join(printable(root.path, 160) for root in candidates)
        raise StoreError(f"no permission to write to the library {shown}", hint="choose another with --library PATH")

    def prepare(self) -> None:
        """Make the folder that new cassettes go to; raises `StoreError` where that is refused, before any work."""
        target = self.target
        try:
            target.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError.from_os(error, f"writing to {printable(target.path, 160)}") from None

    def entries(self) -> list[Entry]:
        """Every version of every cassette in every root, sorted by name and version; a bad one carries its problem."""
        seen: dict[str, Root] = {}
        found = []
        for root in self.roots:
            if root.fault():
                continue
            for name in _names(root):
                versions = _versions(root.path / name)
                owner = seen.setdefault(name, root) if versions else root
                for version in versions:
                    found.append(_entry(root, name, version, owner))
        return sorted(found, key=lambda entry: (entry.name, entry.version, self.roots.index(entry.root)))

    def find(self, text: str) -> Entry:
        """The cassette that a reference means; raises `BadName`, `NotFound`, `Incompatible` or the problem of reading it."""
        ref = Ref.parse(text)
        if ref.path is not None:
            return self._at(ref.path)
        root = self._root_of(ref.name)
        versions = _versions(root.path / ref.name)
        if ref.version is not None:
            if ref.version not in versions:
                listed = ", ".join(map(str, versions))
                raise NotFound(f"'{ref.name}' has no version {ref.version}", expected=f"one of {listed}")
            return _read_entry(root, ref.name, ref.version)
        if ref.digest is not None:
            return self._pinned(root, ref, versions)
        return _read_entry(root, ref.name, versions[-1])

    def names(self) -> list[str]:
        """Every cassette name, for completion and suggestions."""
        return sorted(
            {name for root in self.roots if not root.fault() for name in _names(root) if _versions(root.path / name)}
        )

    def _at(self, path: Path) -> Entry:
        folder = path if path.name != store.MANIFEST else path.parent
        manifest = store.read_manifest(folder)
        place = folder.resolve().parent.parent
        root = next((root for root in self.roots if root.path.resolve() == place), Root(place, "option", "path"))
        return Entry(manifest.name, manifest.version, folder, root, manifest)

    def _root_of(self, name: str) -> Root:
        holders = []
        for root in self.roots:
            if _versions(root.path / name):
                _trusted(root)
                holders.append(root)
        if not holders:
            raise NotFound(
                f"no cassette is named '{name}'",
                hint=nearest(name, self.names()) or "`grokkit list` shows them",
            )
        if holders[0].kind == "plugin" and len(holders) > 1:
            listed = ", ".join(f"{printable(root.source)}/{name}" for root in holders)
            raise Incompatible(
                f"'{name}' is offered by several plugins: {listed}", hint="uninstall one, or give its path"
            )
        return holders[0]

    def _pinned(self, root: Root, ref: Ref, versions: Sequence[int]) -> Entry:
        for version in reversed(versions):
            try:
                entry = _read_entry(root, ref.name, version)
            except GrokkitError:
                continue
            if entry.manifest is not None and entry.manifest.digest == ref.digest:
                return entry
        raise NotFound(
            f"no version of '{ref.name}' has the digest {ref.digest}",
            hint=f"`grokkit show {ref.name}` prints it",
        )


def user_library() -> Path:
    """The folder of the user's own cassettes."""
    from platformdirs import user_data_path

    return user_data_path("grokkit", appauthor=False) / "cassettes"


def _trusted(root: Root) -> None:
    if reason := root.fault():
        raise StoreError(f"library {printable(root.path, 160)} from ${VARIABLE} is not safe: {reason}")


def _names(root: Root) -> list[str]:
    try:
        with os.scandir(root.path) as entries:
            return sorted(
                entry.name for entry in entries if is_name(entry.name) and entry.is_dir(follow_symlinks=False)
            )
    except OSError:
        return []


def _versions(home: Path) -> list[int]:
    if home.is_symlink():
        return []
    try:
        with os.scandir(home) as entries:
            return sorted(int(entry.name) for entry in entries if is_version(entry.name))
    except OSError:
        return []


def _read_entry(root: Root, name: str, version: int) -> Entry:
    """Read one version; its manifest must carry the name and number of its folder."""
    folder = root.path / name / str(version)
    manifest = store.read_manifest(folder)
    if (manifest.name, manifest.version) != (name, version):
        raise BadManifest(f"{printable(folder, 160)} holds the manifest of {manifest.ref}", hint="use `grokkit import`")
    return Entry(name, version, folder, root, manifest)


def _entry(root: Root, name: str, version: int, owner: Root) -> Entry:
    try:
        entry = _read_entry(root, name, version)
    except GrokkitError as error:
        return Entry(name, version, root.path / name / str(version), root, None, printable(error, 400))
    if owner is not root:
        both = root.kind == owner.kind == "plugin"
        note = f"also offered by {owner.source}" if both else f"hidden by the same name in {owner.source}"
        return Entry(name, version, entry.folder, root, entry.manifest, printable(note))
    return entry
