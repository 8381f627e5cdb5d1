"""One cassette in a report: what it computes, its certificate, its pictures, where it came from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from grokkit_core.manifest import Manifest, Provenance
from grokkit_core.markup import Child, Markup, join, table, tag
from grokkit_core.pictures.panels import Panels
from grokkit_core.records import to_json
from grokkit_core.reporting import certificate
from grokkit_core.reporting.certificate import badge, scrolling
from grokkit_core.reporting.lineage import Lineage, drawn, told
from grokkit_core.reporting.svg import figure_of
from grokkit_core.text import printable

MOST_MEMBERS = 50
DEEPEST = 600
"""Letters of one free value of a manifest."""


def article(manifest: Manifest, panels: Panels, lineage: Lineage, identifier: str) -> Markup:
    """The part of the page that is one cassette's; `identifier` is unique in the page."""
    return tag(
        "article",
        tag("h2", f"{manifest.ref} ", badge(manifest.certificate), id=identifier),
        tag("p", manifest.summary, class_="summary"),
        tag("p", tag("code", manifest.digest), class_="digest"),
        _computes(manifest, identifier),
        certificate.section(manifest.certificate, identifier, panels.floor),
        _pictures(panels, identifier),
        _members(manifest, identifier),
        _provenance(manifest, identifier),
        _ancestors(manifest, lineage, identifier),
        aria_labelledby=identifier,
    )


def settings(values: Mapping[str, Any]) -> str:
    """`{"dt": 0.05}` as `dt = 0.05`, short enough to read."""
    return printable(", ".join(f"{name} = {_plain(value)}" for name, value in values.items()), DEEPEST)


def _plain(value: Any) -> str:
    """A text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(to_json(value), ensure_ascii=False)


def facts(pairs: Sequence[tuple[str, Child]]) -> Markup:
    """A list of terms and what they are; empty ones are left out."""
    known = [(name, value) for name, value in pairs if value not in ("", None)]
    return tag("dl", *(tag("div", tag("dt", name), tag("dd", value)) for name, value in known))


def _section(title: str, identifier: str, *children: Child) -> Markup:
    name = f"{identifier}-{title.split()[0].lower()}"
    return tag("section", tag("h3", title, id=name), *children, aria_labelledby=name)


def _computes(manifest: Manifest, identifier: str) -> Markup:
    task, network, weights = manifest.task, manifest.architecture, manifest.weights
    config = {name: value for name, value in network.config.items() if not _is_table(value)}
    rows: list[Sequence[Child]] = []
    for role, specs in (("input", manifest.inputs), ("output", manifest.outputs)):
        for spec in specs:
            rows.append((spec.name, role, spec.shape, ", ".join(spec.dtypes), spec.unit, str(spec.domain)))
    for variable in manifest.context:
        role = "context, required" if variable.required else "context"
        rows.append((variable.name, role, "[batch]", "", variable.unit, str(variable.domain)))
    columns = ("name", "role", "axes", "dtypes", "unit", "domain")
    signature = (
        scrolling("Inputs and outputs", table("Inputs, outputs and context", columns, rows))
        if rows
        else tag("p", "No signature of its own: each member has one.")
    )
    return _section(
        "What it computes",
        identifier,
        facts(
            [
                ("Task", join([task.id, f" ({settings(task.parameters)})" if task.parameters else ""])),
                ("Network", join([f"{network.id} v{network.version}", f" ({settings(config)})" if config else ""])),
                ("Weights", f"{weights.parameters:,} parameters, {weights.bytes:,} bytes"),
                ("SHA-256 of weights", tag("code", weights.sha256)),
                ("License", manifest.license),
                ("Tags", ", ".join(manifest.tags)),
            ]
        ),
        signature,
    )


def _is_table(value: Any) -> bool:
    """Whether a value of a config is a list of records, which has a place of its own or is no reading."""
    return isinstance(value, list) and any(isinstance(item, Mapping) for item in value)


def _pictures(panels: Panels, identifier: str) -> Markup:
    if not panels.charts and not panels.notes:
        return Markup()
    figures = [figure_of(chart, f"{identifier}-p{index}") for index, chart in enumerate(panels.charts)]
    notes = [tag("p", note, class_="note") for note in panels.notes]
    return _section("Pictures", identifier, tag("div", *figures, class_="figures"), *notes)


def _members(manifest: Manifest, identifier: str) -> Markup:
    """The members that a composition holds, as its config tells them."""
    entries = manifest.architecture.config.get("members")
    members = [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    if not members:
        return Markup()
    rows = []
    for entry in members[:MOST_MEMBERS]:
        own = entry.get("certificate")
        verdict = own.get("verdict", "") if isinstance(own, dict) else ""
        task = entry.get("task")
        law = task.get("id", "") if isinstance(task, dict) else task
        rows.append(
            (entry.get("key"), entry.get("architecture"), law, verdict, entry.get("count"), _short(entry.get("digest")))
        )
    heads = ("member", "network", "task", "verdict", "count", "tensors")
    kept = [index for index in range(len(heads)) if any(row[index] not in ("", None) for row in rows)]
    shown = [[row[index] for index in kept] for row in rows]
    numbers = [place for place, index in enumerate(kept) if heads[index] == "count"]
    made = table("Members", [heads[index] for index in kept], shown, numbers=numbers)
    more = len(members) - MOST_MEMBERS
    note = tag("p", f"and {more:,} more entries", class_="note") if more > 0 else ""
    return _section("Members", identifier, scrolling("Members", made), note)


def _short(digest: object) -> Markup:
    return tag("code", f"{str(digest)[:19]}…") if digest else Markup()


def _provenance(manifest: Manifest, identifier: str) -> Markup:
    found = manifest.provenance
    software = found.software
    versions = ", ".join(f"{name} {version}" for name, version in software.plugins.items())
    extra = [
        (name, settings(value) if isinstance(value, Mapping) else _plain(value))
        for name, value in manifest.extra.items()
    ]
    sources = tag("ul", *(tag("li", line) for line in manifest.citation)) if manifest.citation else ""
    return _section(
        "Provenance",
        identifier,
        facts(
            [
                ("Made", f"{found.kind}, {found.created}"),
                *_origin(found),
                ("Software", f"grokkit {software.grokkit}, torch {software.torch}; plugins of {versions}"),
                ("Needs plugins of", ", ".join(manifest.requires.plugins)),
                *extra,
                ("Sources", sources),
            ]
        ),
    )


def _origin(found: Provenance) -> list[tuple[str, Child]]:
    pairs: list[tuple[str, Child]] = []
    if found.recipe is not None:
        pairs += [("Recipe", found.recipe.id), ("Settings", settings(found.recipe.parameters))]
    if found.seed is not None:
        pairs.append(("Seed", str(found.seed)))
    if found.steps is not None:
        pairs.append(("Steps", f"{found.steps:,}"))
    if found.grok_step is not None:
        pairs.append(("Grokked at step", f"{found.grok_step:,}"))
    pairs += [(name, settings(value)) for name, value in (("Operator", found.operator), ("Gate", found.gate)) if value]
    return pairs


def _ancestors(manifest: Manifest, lineage: Lineage, identifier: str) -> Markup:
    if len(lineage.nodes) == 1:
        return _section("Lineage", identifier, tag("p", f"It was {manifest.provenance.kind} and has no parents."))
    missing = lineage.missing
    note = (
        tag("p", f"{len(missing)} of its ancestors were not found in the library by their digest.", class_="note")
        if missing
        else ""
    )
    graph = tag(
        "div", drawn(lineage, f"{identifier}-tree"), class_="scroll", tabindex=0, role="region", aria_label="Lineage"
    )
    return _section("Lineage", identifier, graph, note, told(lineage, f"{identifier}-tree"))
