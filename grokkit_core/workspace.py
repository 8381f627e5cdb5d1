"""A library together with a plugin host: what every verb works on, and the verbs that need no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from grokkit_core import plugins as plugin_host
from grokkit_core import saving
from grokkit_core.errors import StoreError
from grokkit_core.library import Library, Listing
from grokkit_core.manifest import Manifest
from grokkit_core.names import expanded
from grokkit_core.plugins import PluginHost
from grokkit_core.text import printable


@dataclass(frozen=True)
class Workspace:
    """Where cassettes are looked for and saved, and which plugins are there."""

    library: Library
    plugins: PluginHost

    @classmethod
    def open(cls, library: str | Path | Sequence[str | Path] = (), *, plugins: PluginHost | None = None) -> Workspace:
        """A workspace over these folders, `$GROKKIT_LIBRARY`, the user library and the roots of the installed plugins."""
        host = plugins or plugin_host.host()
        paths = [library] if isinstance(library, (str, Path)) else library
        return cls(Library.standard(paths, plugin_roots=host.cassette_roots()), host)


Where = Workspace | str | Path | Sequence[str | Path] | None
"""What every verb takes as `library`: a workspace, one or more folders, or nothing for the standard places."""


def workspace(where: Where) -> Workspace:
    """The workspace that a verb's `library` argument means."""
    return where if isinstance(where, Workspace) else Workspace.open(where or ())


def list_cassettes(*, task: str | None = None, library: Where = None) -> Listing:
    """Every version of every cassette, sorted; with `task`, only those of that task. Unreadable ones carry a `problem`."""
    entries = workspace(library).library.entries()
    return Listing(entry for entry in entries if task is None or (entry.manifest and entry.manifest.task.id == task))


def show(ref: str, *, library: Where = None) -> Manifest:
    """The manifest that a reference means; no weights are read."""
    entry = workspace(library).library.find(ref)
    assert entry.manifest is not None  # `find` raises rather than return an unreadable entry
    return entry.manifest


def remove(ref: str, *, library: Where = None) -> Manifest:
    """Delete one version from a writable root, leaving a tombstone; returns its manifest.

    Without a pin the highest version is removed. Raises `StoreError` for a cassette that a plugin ships or
    that lies in no library.
    """
    entry = workspace(library).library.find(ref)
    assert entry.manifest is not None
    if entry.root.kind == "plugin":
        raise StoreError(
            f"{entry.manifest.ref} is shipped by {printable(entry.root.source, 80)} and cannot be removed",
            hint="uninstall the package that ships it",
        )
    if entry.root.source == "path":
        raise StoreError(
            f"{printable(entry.folder, 160)} is in no library", hint="name its library with --library PATH"
        )
    saving.remove(entry.folder)
    return entry.manifest


def import_cassette(path: str | Path, *, name: str | None = None, library: Where = None) -> Manifest:
    """Copy a cassette folder into the library, bytes, name and version kept; `name` reissues it under a new name.

    Raises `Incompatible` where the version number is taken by other bytes.
    """
    return saving.install(workspace(library).library.target.path, expanded(path), name)
