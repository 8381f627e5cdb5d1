"""The verb `report`: one HTML file that needs no network, for one or several cassettes."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grokkit_core.errors import UsageError
from grokkit_core.fusion.parts import parse_parts
from grokkit_core.manifest import COMPOSITE, Manifest
from grokkit_core.markup import Markup, table, tag
from grokkit_core.names import expanded
from grokkit_core.pictures.palette import NAMES, ROLES, VERDICTS
from grokkit_core.pictures.panels import Panels, panels_of, subject_of
from grokkit_core.reporting.card import article
from grokkit_core.reporting.certificate import badge, scrolling, worse_than
from grokkit_core.reporting.lineage import Lineage, by_digest, lineage_of
from grokkit_core.specs import TaskSpec
from grokkit_core.text import printable
from grokkit_core.workspace import Where, Workspace, workspace
from grokkit_core.writing import replace_file

if TYPE_CHECKING:
    from grokkit_core.cassette import Cassette

SUFFIXES = (".html", ".htm")
MOST_CASSETTES = 200


@dataclass(frozen=True)
class Report:
    """A page at `path` on these cassettes, and `notes` on pictures that could not be made."""

    path: str
    cassettes: tuple[Manifest, ...]
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The object of `grokkit report --json`."""
        return {
            "path": self.path,
            "cassettes": [{"name": m.name, "version": m.version, "digest": m.digest} for m in self.cassettes],
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class Part:
    """What a page shows of one cassette; `losers` are the members of a composition that lose to a baseline."""

    manifest: Manifest
    panels: Panels
    lineage: Lineage
    losers: tuple[str, ...] = ()


def report(
    refs: str | Cassette | Sequence[str | Cassette], path: str | Path, *, seed: int = 0, library: Where = None
) -> Report:
    """Write a page with card, certificate, pictures and lineage of each cassette; a repeated one stands there once.

    The file holds everything it shows, runs nothing but its own script and is replaced as a whole. `seed` draws the
    samples of what is computed. Raises `UsageError` for another suffix, and what `gk.show` raises for a reference.
    """
    target = expanded(path)
    if target.suffix.lower() not in SUFFIXES:
        raise UsageError(f"report {printable(target, 160)}", expected="a file that ends with .html")
    wanted = list(refs) if isinstance(refs, Sequence) and not isinstance(refs, str) else [refs]
    if not 1 <= len(wanted) <= MOST_CASSETTES:
        raise UsageError(f"a report on {len(wanted)} cassettes", expected=f"1 to {MOST_CASSETTES} references")
    place = workspace(library)
    subjects = {subject.manifest.digest: subject for subject in (subject_of(ref, place) for ref in wanted)}
    known = by_digest(place.library)
    parts = [
        Part(m, panels_of(subject, place, seed=seed), lineage_of(m, known), _losers(m, place))
        for subject in subjects.values()
        for m in (subject.manifest,)
    ]
    replace_file(target, document(parts).encode())
    notes = tuple(note for part in parts for note in part.panels.notes)
    return Report(str(target), tuple(part.manifest for part in parts), notes)


def document(parts: Sequence[Part]) -> str:
    """The whole page."""
    from importlib.metadata import version

    style, script = stylesheet(), _source("script.js")
    names = [part.manifest.ref for part in parts]
    title = f"{names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''}, Grokkit report"
    policy = (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; base-uri 'none'; form-action 'none'"
    )
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("title", title),
        tag("style", Markup(style)),
    )
    toggle = tag("button", "Dark theme", id="theme", type="button", aria_pressed="false", hidden=True)
    body = tag(
        "body",
        tag("a", "Skip to the cassettes", href="#main", class_="skip"),
        tag("header", tag("div", tag("p", "Grokkit report", class_="kind"), tag("h1", _heading(names))), toggle),
        tag(
            "main",
            _overview(parts) if len(parts) > 1 else "",
            *(article(p.manifest, p.panels, p.lineage, f"c{index}") for index, p in enumerate(parts, 1)),
            id="main",
            tabindex=-1,
        ),
        tag(
            "footer",
            tag("p", f"Written by grokkit {version('grokkit')} from manifests and weights; this page loads nothing."),
        ),
        tag("script", Markup(script)),
    )
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def _heading(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{len(names)} cassettes"


def _overview(parts: Sequence[Part]) -> Markup:
    rows = []
    for index, part in enumerate(parts, 1):
        manifest = part.manifest
        rows.append(
            (
                tag("a", manifest.ref, href=f"#c{index}"),
                manifest.summary,
                manifest.task.id,
                badge(manifest.certificate),
                _loses(part),
                f"{manifest.weights.parameters:,}",
            )
        )
    columns = ("cassette", "computes", "task", "verdict", "loses to a baseline", "parameters")
    made = table("Cassettes of this report", columns, rows, numbers=(5,))
    return tag("section", tag("h2", "Overview", id="overview"), scrolling("Overview", made), aria_labelledby="overview")


def _loses(part: Part) -> str:
    """To which baselines a cassette loses; of a composition, which members do."""
    if part.manifest.task.id == COMPOSITE:
        return f"some members do: {', '.join(part.losers)}" if part.losers else "no member does"
    worse = worse_than(part.manifest.certificate, part.panels.floor)
    return f"worse than {worse}" if worse else "no"


def _losers(manifest: Manifest, place: Workspace) -> tuple[str, ...]:
    """The members of a composition that lose to a baseline on their recorded figures."""
    if manifest.task.id != COMPOSITE:
        return ()
    floors = {spec.id: spec.floor for spec in place.plugins.specs(TaskSpec)}
    members = parse_parts(manifest.architecture.config)
    return tuple(m.key for m in members if worse_than(m.certificate, floors.get(m.task.id, 0.0)))


def stylesheet() -> str:
    """The page's style: every colour of the palette as a variable, classes of roles and verdicts, then the rules."""
    inks = "".join(f"--{name}:light-dark({ink.light},{ink.dark});" for name, ink in NAMES.items())
    roles = "".join(f".role-{name}{{color:var(--role-{name})}}" for name in ROLES)
    verdicts = "".join(f".verdict-{name}{{color:var(--verdict-{name})}}" for name in VERDICTS)
    return f":root{{color-scheme:light dark;{inks}}}\n{roles}\n{verdicts}\n{_source('style.css')}"


def _source(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


def _hash(inline: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()}'"
