"""Is everything in order? Versions, libraries, plugins, cassettes, and whether a cassette could be saved."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import secrets
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from grokkit_core import store
from grokkit_core.errors import CassetteError, GrokkitError, StoreError
from grokkit_core.library import Root
from grokkit_core.text import printable
from grokkit_core.workspace import Workspace

DISTRIBUTIONS = ("grokkit", "torch", "numpy", "safetensors", "pluggy", "click", "rich")


@dataclass(frozen=True)
class Check:
    """One thing that was looked at, whether it is in order, and what was seen."""

    name: str
    ok: bool
    detail: str

    def to_json(self) -> dict[str, Any]:
        """The row of `grokkit doctor --json`."""
        return asdict(self)


def examine(workspace: Workspace) -> list[Check]:
    """Every check, in order; nothing is changed but for a probe file that is removed again."""
    return [
        Check("python", True, f"{platform.python_version()} on {platform.system()}"),
        *_versions(),
        *(_root(root) for root in workspace.library.roots),
        _writing(workspace),
        *_plugins(workspace),
        *_cassettes(workspace),
    ]


def _versions() -> Iterator[Check]:
    for name in DISTRIBUTIONS:
        try:
            yield Check(name, True, importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            yield Check(name, False, "not installed")


def _root(root: Root) -> Check:
    name = f"library {printable(root.source, 80)}"
    where = printable(root.path, 160)
    if reason := root.fault():
        return Check(name, False, f"{where}: not searched, {reason}")
    if not root.path.exists():
        missing_is_fault = root.kind == "plugin"
        return Check(name, not missing_is_fault, f"{where}: " + ("missing" if missing_is_fault else "not there yet"))
    if not root.path.is_dir() or not os.access(root.path, os.R_OK | os.X_OK):
        return Check(name, False, f"{where}: not a readable folder")
    return Check(name, True, f"{where}: " + ("writable" if root.writable else "read-only"))


def _writing(workspace: Workspace) -> Check:
    try:
        target = workspace.library.target
    except StoreError as error:
        return Check("saving", False, str(error))
    place = target.path
    while not place.exists():
        place = place.parent
    probe = place / f".probe-{secrets.token_hex(4)}"
    try:
        probe.write_bytes(b"probe")
    except OSError as error:
        return Check("saving", False, str(StoreError.from_os(error, f"writing to {printable(place, 160)}")))
    finally:
        with contextlib.suppress(OSError):
            probe.unlink(missing_ok=True)
    return Check("saving", True, f"new cassettes go to {printable(target.path, 160)} ({printable(target.source, 80)})")


def _plugins(workspace: Workspace) -> Iterator[Check]:
    for plugin in workspace.plugins.plugins:
        detail = plugin.complaint or (f"{plugin.status}: {plugin.reason}" if plugin.reason else plugin.remark or "ok")
        who = f"plugin {printable(plugin.name, 60)} ({printable(plugin.distribution, 80)} {printable(plugin.version, 40)})"
        yield Check(who, plugin.healthy, detail)


def _cassettes(workspace: Workspace) -> Iterator[Check]:
    """Every cassette is read whole: a manifest alone says nothing of damaged weights."""
    good = 0
    for entry in workspace.library.entries():
        try:
            if entry.manifest is None:
                raise CassetteError(entry.problem or "")
            store.read(entry.folder)
            good += 1
        except GrokkitError as error:
            yield Check(f"cassette {entry.name}@{entry.version}", False, str(error))
    yield Check("cassettes", True, f"{good} readable, hashes right")
