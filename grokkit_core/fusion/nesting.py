"""Ensembles inside ensembles: a tree in memory, a flat table in the manifest, whose depth no JSON limit bounds.

In the tree an entry's config is that of the inner ensemble. In a manifest it is `{"nested": k}` and the inner config is the
k-th of the outermost config's `nested`, whose own entries refer to later ones. Each is referred to once, so that a table
of a few lines cannot unfold into a tree of millions, and none can hold itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeGuard

from grokkit_core.errors import BadManifest

MAX_NESTING = 8
MAX_NESTED = 1_024
"""Inner ensembles in one cassette, all levels together."""

REFERENCE = "nested"
ENSEMBLE = "grokkit_core/ensemble"
Config = Mapping[str, Any]


def flat(config: Config) -> dict[str, Any]:
    """The config of an ensemble as a manifest keeps it; `config` may be a tree, or have parts that are flat already."""
    table: list[dict[str, Any]] = []

    def stored(tree: Config) -> dict[str, Any]:
        return {**tree, "members": [entry_of(entry) for entry in tree["members"]]}

    def entry_of(entry: Config) -> dict[str, Any]:
        inner = entry["config"]
        if not is_ensemble(inner):
            return dict(entry)
        index = len(table)
        table.append({})
        table[index] = stored(expanded(inner))
        return {**entry, "config": {REFERENCE: index}}

    outer = stored(expanded(config))
    return {**outer, REFERENCE: table} if table else outer


def expanded(config: Config) -> dict[str, Any]:
    """The tree of a config; raises `BadManifest` for a table that is no tree or nested deeper than eight."""
    table = config.get(REFERENCE) or ()
    if not isinstance(table, list | tuple) or len(table) > MAX_NESTED or not all(isinstance(i, Mapping) for i in table):
        raise BadManifest("config.nested is no table of configs", expected=f"a list of at most {MAX_NESTED}")
    used: set[int] = set()

    def tree(part: Config, index: int, depth: int) -> dict[str, Any]:
        if depth > MAX_NESTING:
            raise BadManifest(f"ensembles nested more than {MAX_NESTING} deep", expected=f"at most {MAX_NESTING}")
        members = part.get("members")
        if not isinstance(members, list | tuple):
            raise BadManifest("config.members is no list", expected="member entries")
        own = {name: value for name, value in part.items() if name != REFERENCE}
        return {**own, "members": [entry_of(entry, index, depth) for entry in members]}

    def entry_of(entry: Any, index: int, depth: int) -> Any:
        inner = entry.get("config") if isinstance(entry, Mapping) else None
        if not isinstance(inner, Mapping) or set(inner) != {REFERENCE} or entry.get("architecture") != ENSEMBLE:
            return entry
        number = inner[REFERENCE]
        if type(number) is not int or not index < number < len(table) or number in used:
            raise BadManifest(f"config.members refer to nested {number!r:.20}", expected="later entries, each once")
        used.add(number)
        return {**entry, "config": tree(table[number], number, depth + 1)}

    found = tree(config, -1, 1)
    if len(used) != len(table):
        raise BadManifest(f"{len(table) - len(used)} entries of config.nested belong to no member", expected="none")
    return found


def is_ensemble(config: Any) -> TypeGuard[Config]:
    """Whether a member's config is that of an ensemble."""
    return isinstance(config, Mapping) and {"members", "gate"} <= set(config)


def nesting(config: Config) -> int:
    """How deep ensembles stand inside each other: 1 for an ensemble of plain networks."""
    return 1 + max((nesting(inner) for inner in _inner(config)), default=0)


def _inner(config: Config) -> Iterator[Config]:
    members = config.get("members")
    for entry in members if isinstance(members, list | tuple) else ():
        inner = entry.get("config") if isinstance(entry, Mapping) else None
        if is_ensemble(inner):
            yield inner
