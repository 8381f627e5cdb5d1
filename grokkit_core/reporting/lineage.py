"""The ancestors of a cassette: found in the library by digest, drawn as a graph that fits a phone, and told as a list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from grokkit_core.library import Library
from grokkit_core.manifest import Manifest, Parent
from grokkit_core.markup import Markup, tag
from grokkit_core.text import printable

MOST = 40
"""Ancestors that are followed; a fusion may have thousands."""

ROW, STEP, BOX, INDENT = 46, 22, 34, 8
MOST_STEPS = 5
LETTERS = 25


@dataclass(frozen=True)
class Node:
    """A cassette in a lineage at a `depth` (0: the cassette itself), `parents` by digest; no manifest where it was not found."""

    ref: str
    digest: str
    depth: int
    manifest: Manifest | None
    parents: tuple[str, ...] = ()

    @property
    def made(self) -> str:
        """How it came to be, in a few words."""
        if self.manifest is None:
            return "not found in the library"
        found = self.manifest.provenance
        how = found.operator or found.gate or {}
        by = found.recipe.id if found.recipe else printable(how.get("id", ""), 60)
        return f"{found.kind}{f' by {by}' if by else ''}, {self.manifest.certificate.verdict}"


@dataclass(frozen=True)
class Lineage:
    """The cassette first, every ancestor after all of its children, and how many were left out."""

    nodes: tuple[Node, ...]
    left_out: int = 0

    @property
    def missing(self) -> tuple[Node, ...]:
        """Ancestors that no root of the library holds."""
        return tuple(node for node in self.nodes if node.manifest is None)


def by_digest(library: Library) -> dict[str, Manifest]:
    """Every readable cassette of a library by its digest."""
    found = [entry.manifest for entry in library.entries() if entry.manifest is not None]
    return {manifest.digest: manifest for manifest in found}


def lineage_of(manifest: Manifest, known: Mapping[str, Manifest]) -> Lineage:
    """The ancestors among `known`, breadth first, each once and as deep as its longest way."""
    parents: dict[str, tuple[Parent, ...]] = {manifest.digest: manifest.provenance.parents}
    refs = {manifest.digest: manifest.ref}
    queue, left_out = [manifest.digest], set[str]()
    while queue:
        for parent in parents[queue.pop(0)]:
            if parent.digest in parents:
                continue
            if len(parents) > MOST:
                left_out.add(parent.digest)
                continue
            found = known.get(parent.digest)
            refs[parent.digest] = found.ref if found else f"{parent.name}@{parent.version}"
            parents[parent.digest] = found.provenance.parents if found else ()
            queue.append(parent.digest)
    depths = _depths(manifest.digest, {digest: [p.digest for p in given] for digest, given in parents.items()})
    nodes = [
        Node(
            refs[digest],
            digest,
            depths[digest],
            manifest if digest == manifest.digest else known.get(digest),
            tuple(dict.fromkeys(p.digest for p in parents[digest] if p.digest in parents)),
        )
        for digest in _ordered(manifest.digest, parents)
    ]
    return Lineage(tuple(nodes), len(left_out))


def _depths(root: str, parents: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """The longest way from the root to each; a digest cannot be its own ancestor, so the ways end."""
    depths = {root: 0}
    front = {root}
    for depth in range(1, len(parents) + 1):
        front = {parent for digest in front for parent in parents.get(digest, ()) if parent in parents}
        depths |= dict.fromkeys(front, depth)
    return depths


def _ordered(root: str, parents: Mapping[str, Sequence[Parent]]) -> list[str]:
    """Depth first, each after the last of its children: near to them, and lines go only downwards."""
    done: list[str] = []
    seen: set[str] = set()

    def visit(digest: str) -> None:
        seen.add(digest)
        for parent in reversed(parents[digest]):
            if parent.digest in parents and parent.digest not in seen:
                visit(parent.digest)
        done.append(digest)

    visit(root)
    return done[::-1]


def drawn(lineage: Lineage, identifier: str) -> Markup:
    """The graph, the cassette on top and its ancestors below; with a text alternative that a list repeats."""
    places = {node.digest: index for index, node in enumerate(lineage.nodes)}
    parts: list[Markup] = []
    for node in lineage.nodes:
        parts.extend(_edge(lineage.nodes[places[parent]], node, places) for parent in node.parents)
    for node in lineage.nodes:
        parts.extend(_box(node, places[node.digest]))
    width = 330 + STEP * min(MOST_STEPS, max(node.depth for node in lineage.nodes))
    return tag(
        "svg",
        tag("title", f"Lineage of {lineage.nodes[0].ref}", id=f"{identifier}-title"),
        *parts,
        viewBox=f"0 0 {width} {ROW * len(lineage.nodes)}",
        width=width,
        role="img",
        aria_labelledby=f"{identifier}-title",
        aria_describedby=f"{identifier}-list",
        class_="lineage",
    )


def _left(node: Node) -> int:
    return INDENT + STEP * min(node.depth, MOST_STEPS)


def _edge(parent: Node, child: Node, places: Mapping[str, int]) -> Markup:
    start = ROW * places[child.digest] + BOX + 2
    end = ROW * places[parent.digest] + 2 + BOX // 2
    rail = _left(child) + 9
    kind = "edge" if parent.manifest is not None else "edge missing"
    return tag("path", d=f"M{rail} {start}V{end - 6}Q{rail} {end} {rail + 6} {end}H{_left(parent)}", class_=kind)


def _box(node: Node, row: int) -> list[Markup]:
    left, top = _left(node), ROW * row + 2
    kind = "node" if node.manifest is not None else "node missing"
    return [
        tag("rect", x=left, y=top, width=316, height=BOX, rx=5, class_=kind),
        tag("text", printable(node.ref, LETTERS + 12), x=left + 10, y=top + 14, class_="node-name"),
        tag("text", printable(node.made, LETTERS + 28), x=left + 10, y=top + 28, class_="node-text"),
    ]


def told(lineage: Lineage, identifier: str) -> Markup:
    """The same as a list: who was made from whom."""
    names = {node.digest: node.ref for node in lineage.nodes}
    items = []
    for node in lineage.nodes:
        origin = ", ".join(names[parent] for parent in node.parents)
        items.append(
            tag("li", tag("b", node.ref), f": {node.made}", f", from {origin}" if origin else "", " ", _digest(node))
        )
    more = [tag("li", f"and {lineage.left_out:,} more ancestors")] if lineage.left_out else []
    return tag("ul", *items, *more, id=f"{identifier}-list", class_="ancestors")


def _digest(node: Node) -> Markup:
    return tag("code", f"{node.digest[:19]}…")
