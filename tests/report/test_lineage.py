"""Lineage: parents by digest, each once and below its children, and what is missing said so."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import grokkit_core as gk
from grokkit_core.manifest import Manifest, Parent
from grokkit_core.reporting.lineage import MOST, by_digest, drawn, lineage_of, told
from grokkit_core.workspace import workspace


def child(name: str, *parents: Manifest) -> Manifest:
    """A manifest made from others."""
    base = gk.show("cyclotron-fused")
    found = dataclasses.replace(base.provenance, parents=tuple(parent.parent() for parent in parents))
    return base.replace(name=name, provenance=found)


def test_parents_are_found_in_the_library_by_their_digest() -> None:
    found = lineage_of(gk.show("cyclotron-fused"), by_digest(workspace(None).library))
    assert [node.ref for node in found.nodes] == ["cyclotron-fused@1", "cyclotron-1node@1", "cyclotron-8node@1"]
    assert [node.depth for node in found.nodes] == [0, 1, 1]
    assert found.missing == ()


def test_a_parent_that_is_not_there_is_said_to_be_missing() -> None:
    found = lineage_of(gk.show("cyclotron-fused"), {})
    assert [node.ref for node in found.missing] == ["cyclotron-1node@1", "cyclotron-8node@1"]
    assert "not found in the library" in drawn(found, "x") and "not found in the library" in told(found, "x")


def test_a_name_alone_is_not_enough() -> None:
    other = gk.show("cyclotron-1node").replace(summary="another network of that name")
    assert len(lineage_of(gk.show("cyclotron-fused"), {other.digest: other}).missing) == 2


def test_grandparents_are_followed_and_shared_ones_stand_once_below_all_their_children() -> None:
    root = gk.show("cyclotron-1node")
    first, second = child("first", root), child("second", root)
    whole = child("whole", first, second, root)
    known = {manifest.digest: manifest for manifest in (root, first, second)}
    found = lineage_of(whole, known)
    assert sorted(node.ref for node in found.nodes) == ["cyclotron-1node@1", "first@1", "second@1", "whole@1"]
    rows = {node.ref: index for index, node in enumerate(found.nodes)}
    assert rows["whole@1"] == 0 and rows["cyclotron-1node@1"] == 3
    assert found.nodes[3].depth == 2


def test_a_thousand_parents_are_counted_and_not_drawn() -> None:
    base = gk.show("cyclotron-fused")
    parents = tuple(Parent(f"member-{index}", 1, f"sha256:{index:064x}") for index in range(1_000))
    many = base.replace(provenance=dataclasses.replace(base.provenance, parents=parents))
    found = lineage_of(many, {})
    assert len(found.nodes) == MOST + 1 and found.left_out == 1_000 - MOST
    assert "and 960 more ancestors" in told(found, "x")


def test_an_unreadable_neighbour_is_no_reason_to_fail(library: Path) -> None:
    (library / "broken" / "1").mkdir(parents=True)
    (library / "broken" / "1" / "manifest.json").write_text("{")
    assert gk.show("kepler").digest in by_digest(workspace(library).library)
