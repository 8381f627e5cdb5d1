"""The checks that authors call: every law of a kind for one component, or of all kinds for a whole plugin."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from grokkit_core.errors import NotFound
from grokkit_core.library import Entry, Library, Root
from grokkit_core.names import expanded
from grokkit_core.plugins import Plugin
from grokkit_core.specs import ArchitectureSpec, FusionSpec, GateSpec, TaskSpec, TransferSpec, normal
from grokkit_core.testing import architectures, cassettes, fusions, gates, plugins, tasks, transfers
from grokkit_core.testing.laws import Law, LawBroken, LawKind, name_of
from grokkit_core.testing.workbench import Workbench
from grokkit_core.text import nearest, printable

LAWS: tuple[Law, ...] = (
    *plugins.LAWS,
    *tasks.LAWS,
    *architectures.LAWS,
    *transfers.LAWS,
    *gates.LAWS,
    *fusions.LAWS,
    *cassettes.LAWS,
)
"""Every law, in the order in which a plugin is checked."""

SPECS: dict[type[Any], LawKind] = {
    TaskSpec: "task",
    ArchitectureSpec: "architecture",
    TransferSpec: "transfer",
    GateSpec: "gate",
    FusionSpec: "fusion",
}
"""Of which kind of laws a component's spec is the subject; recipes are checked with their plugin."""


@dataclass(frozen=True)
class Check:
    """One law about one component. `run` gives the reason why it does not apply, or an empty string."""

    law: Law
    component: Any
    bench: Workbench

    def __str__(self) -> str:
        return f"{name_of(self.component)}: {self.law.sentence}"

    @property
    def name(self) -> str:
        """What the component is called."""
        return name_of(self.component)

    def run(self) -> str:
        """Check it; raises `LawBroken`."""
        return self.law.check(self.component, self.bench)


def laws_of(kind: LawKind) -> list[Law]:
    """The laws of one kind."""
    return [law for law in LAWS if law.kind == kind]


def checks_of(name: str, bench: Workbench | None = None) -> Iterator[Check]:
    """Every law for every component of the plugins that a name means; raises `NotFound`.

    The name is that of a distribution, of an import package or of an entry point: `grokkit-example`, `grokkit_example` or
    `example`. `grokkit` means everything that Grokkit itself brings.
    """
    bench = bench or Workbench()
    for plugin in plugins_named(name, bench):
        subjects: list[tuple[LawKind, Any]] = [("plugin", plugin)]
        subjects += [(SPECS[type(spec)], spec) for spec in plugin.components if type(spec) in SPECS]
        subjects += [("cassette", entry) for entry in bench.entries(plugin)]
        for kind, subject in subjects:
            yield from (Check(law, subject, bench) for law in laws_of(kind))


def plugins_named(name: str, bench: Workbench) -> list[Plugin]:
    """The plugins of that distribution, import package or entry point; raises `NotFound`."""
    installed = bench.plugins.plugins
    found = [plugin for plugin in installed if normal(name) in names_of(plugin)]
    if not found:
        known = sorted({printable(plugin.distribution, 80) for plugin in installed})
        raise NotFound(
            f"no plugin is installed as '{printable(name, 80)}'",
            expected=f"one of {', '.join(known)}",
            hint=nearest(name, [other for plugin in installed for other in names_of(plugin)]) or "pip install it first",
        )
    return found


def names_of(plugin: Plugin) -> set[str]:
    """What a plugin answers to, as names are compared."""
    package = plugin.module.__name__.partition(".")[0] if plugin.module else plugin.distribution
    return {normal(name) for name in (plugin.name, plugin.distribution, package)}


def check_all(checks: Iterable[Check]) -> dict[str, str]:
    """Run all of them; raises the first `LawBroken`, with notes on the others.

    Returns the checks that did not apply, each with its reason.
    """
    skipped: dict[str, str] = {}
    broken: list[LawBroken] = []
    for check in checks:
        try:
            reason = check.run()
        except LawBroken as error:
            broken.append(error)
            continue
        if reason:
            skipped[f"{check.name} {check.law.id}"] = reason
    if broken:
        first, *others = broken
        for other in others:
            first.add_note(f"also broken: {other.law.id} by {other.component}: {other.seen}")
        raise first
    return skipped


def check_plugin(name: str, bench: Workbench | None = None) -> dict[str, str]:
    """Check every component of the plugins that a name means against every law; raises `LawBroken` or `NotFound`.

    Returns the laws that say nothing about a component, each with the reason.
    """
    return check_all(checks_of(name, bench))


def _check(kind: LawKind, spec_type: type[Any], name: str, bench: Workbench | None) -> dict[str, str]:
    bench = bench or Workbench()
    spec = bench.plugins.spec(spec_type, name)
    return check_all(Check(law, spec, bench) for law in laws_of(kind))


def check_task(name: str, bench: Workbench | None = None) -> dict[str, str]:
    """Check one installed task, e.g. `automaton`, as `check_plugin` does."""
    return _check("task", TaskSpec, name, bench)


def check_architecture(name: str, bench: Workbench | None = None) -> dict[str, str]:
    """Check one installed architecture, e.g. `grokkit_example/local`, as `check_plugin` does."""
    return _check("architecture", ArchitectureSpec, name, bench)


def check_transfer(name: str, bench: Workbench | None = None) -> dict[str, str]:
    """Check one installed transfer operator on the networks of all installed architectures, as `check_plugin` does."""
    return _check("transfer", TransferSpec, name, bench)


def check_gate(name: str, bench: Workbench | None = None) -> dict[str, str]:
    """Check one installed gate, as `check_plugin` does."""
    return _check("gate", GateSpec, name, bench)


def check_fusion(name: str, bench: Workbench | None = None) -> dict[str, str]:
    """Check one installed fusion, as `check_plugin` does."""
    return _check("fusion", FusionSpec, name, bench)


def check_cassette(ref: str, bench: Workbench | None = None) -> dict[str, str]:
    """Check one cassette: a name, which the standard places are searched for, or the path of a version folder.

    Raises `NotFound` or `LawBroken`.
    """
    bench = bench or Workbench()
    with bench.workspace() as place:
        entry = _entry_at(ref) or place.library.find(ref)
    return check_all(Check(law, entry, bench) for law in laws_of("cassette"))


def _entry_at(ref: str) -> Entry | None:
    """The entry of a version folder, readable or not."""
    folder = expanded(ref)
    if not (folder / "manifest.json").exists():
        return None
    listed = Library([Root(folder.parent.parent, "option", "path")]).entries()
    return next((entry for entry in listed if entry.folder.resolve() == folder.resolve()), None)
