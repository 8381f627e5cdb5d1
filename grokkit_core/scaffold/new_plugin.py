"""The verb `new plugin`: an installable package from the files beside this one. Nothing here needs torch."""

from __future__ import annotations

import keyword
import re
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from grokkit_core import saving
from grokkit_core.errors import Incompatible, UsageError
from grokkit_core.names import expanded
from grokkit_core.plugins import PluginHost, host
from grokkit_core.specs import TaskSpec, normal
from grokkit_core.text import printable

_NAME = re.compile(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?")
SUFFIX = ".in"
"""Ends the names of template files, so that no tool takes them for code."""


@dataclass(frozen=True)
class NewPlugin:
    """A package that was written: its folder and its files, relative to it."""

    path: str
    files: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The object of `grokkit new plugin --json`."""
        return {"path": self.path, "files": list(self.files)}


def new_plugin(name: str, path: str | Path | None = None, *, plugins: PluginHost | None = None) -> NewPlugin:
    """Write the package `grokkit-NAME` into `path` (default: a folder of that name here), which must be empty or missing.

    It works as it is: it installs, trains, verifies and passes the conformance kit. Raises `UsageError` for a bad name or
    a folder that is in use, `Incompatible` for a name that an installed plugin has, `StoreError` where nothing can be written.
    """
    if _NAME.fullmatch(name) is None or keyword.iskeyword(name) or "--" in name:
        raise UsageError(
            f"plugin name '{printable(name, 60)}'",
            expected="1 to 40 of a-z, 0-9 and single '-', beginning with a letter, no Python keyword",
        )
    _check_free(name, plugins)
    folder = expanded(path if path is not None else f"grokkit-{name}").absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(
            f"{printable(folder, 160)} is in use", expected="an empty or missing folder", hint="--path DIR"
        )
    files = {_renamed(place, name): _filled(text, name).encode() for place, text in templates().items()}
    saving.write_files(folder, files)
    return NewPlugin(str(folder), tuple(sorted(files)))


def templates() -> dict[str, str]:
    """The template files by their place in the package."""
    return dict(_below(resources.files("grokkit_core.scaffold") / "plugin", ""))


def _below(folder: Traversable, prefix: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for entry in sorted(folder.iterdir(), key=lambda item: item.name):
        if entry.is_dir():
            found += _below(entry, f"{prefix}{entry.name}/")
        elif entry.name.endswith(SUFFIX):
            found.append((prefix + entry.name.removesuffix(SUFFIX), entry.read_text("utf-8")))
    return found


def _renamed(place: str, name: str) -> str:
    if place == "gitignore":
        return ".gitignore"
    package = _package(name)
    return _filled(place.replace("package/", f"{package}/", 1) if place.startswith("package/") else place, name)


def _package(name: str) -> str:
    return "grokkit_" + name.replace("-", "_")


def _filled(text: str, name: str) -> str:
    """The template with the author's name in the form that each place needs."""
    camel = "".join(part.capitalize() for part in name.split("-"))
    for token, value in (
        ("grokkit_newname", _package(name)),
        ("test_newname", "test_" + name.replace("-", "_")),
        ("NewName", camel),
        ("newname", name),
    ):
        text = text.replace(token, value)
    return text


def _check_free(name: str, plugins: PluginHost | None) -> None:
    """Raise `Incompatible` where an installed plugin or task already has the name."""
    known = plugins or host()
    tasks = {normal(spec.id) for spec in known.specs(TaskSpec)}
    names = {normal(plugin.name) for plugin in known.plugins} | {normal(p.distribution) for p in known.plugins}
    if normal(name) in tasks | names or normal(f"grokkit-{name}") in names:
        raise Incompatible(f"'{name}' is the name of an installed plugin or task", expected="a name of its own")
