"""The plugin host: finds entry points, loads each inside a guard, and answers typed questions about what they bring."""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.metadata
import importlib.util
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

import pluggy

from grokkit_core import hookspecs
from grokkit_core.errors import Incompatible, NotFound, PluginError, UsageError
from grokkit_core.loading import Quiet, describe, quietly
from grokkit_core.specs import (
    COMPONENT_TYPES,
    ArchitectureSpec,
    CassetteRoot,
    Component,
    Event,
    FusionSpec,
    GateSpec,
    RecipeSpec,
    TaskSpec,
    TransferSpec,
    normal,
)
from grokkit_core.text import nearest, printable

if TYPE_CHECKING:
    from grokkit_core.architecture import Architecture
    from grokkit_core.fusion.fusion import Fusion
    from grokkit_core.fusion.gate import Gate
    from grokkit_core.task import Task
    from grokkit_core.training.recipe import Recipe
    from grokkit_core.transfer.operator import TransferOperator

GROUP = "grokkit"
CORE = "core"
MAX_COMPONENTS = 1000
Status = Literal["ok", "broken", "clash", "disabled", "incompatible"]
Spec = TypeVar("Spec", TaskSpec, ArchitectureSpec, RecipeSpec, TransferSpec, FusionSpec, GateSpec)


@dataclass(frozen=True)
class Plugin:
    """One entry point: where it comes from, whether it could be used, and what it brings.

    `remark` says what is odd about a plugin that works; `noisy` that it printed while it loaded.
    """

    name: str
    distribution: str
    version: str
    status: Status = "ok"
    reason: str = ""
    components: tuple[Component, ...] = ()
    module: ModuleType | None = field(default=None, compare=False, repr=False)
    remark: str = ""
    noisy: bool = False

    @property
    def healthy(self) -> bool:
        """Whether nothing is wrong with it; a plugin disabled on request is not at fault."""
        return self.status in ("ok", "disabled") and not self.noisy

    @property
    def complaint(self) -> str:
        """One line for stderr: which plugin, of which distribution, what is wrong, what to do; empty if healthy."""
        if self.healthy:
            return ""
        if self.noisy and self.status == "ok":
            return f"{self.who} {self.remark}; its author should remove the print"
        return f"{self.who} is {self.status}: {self.reason}; {self.remedy}"

    @property
    def who(self) -> str:
        """The plugin, its distribution and version, safe to show."""
        return (
            f"plugin '{printable(self.name, 60)}' of {printable(self.distribution, 80)} {printable(self.version, 40)}"
        )

    @property
    def remedy(self) -> str:
        """What the user can do about a fault."""
        remedies = {
            "incompatible": f"upgrade grokkit, or run: pip uninstall {printable(self.distribution, 80)}",
            "clash": "uninstall one of them, or name the wanted distributions in GROKKIT_PLUGINS",
        }
        return remedies.get(self.status, f"upgrade or uninstall it: pip uninstall {printable(self.distribution, 80)}")

    def to_json(self) -> dict[str, Any]:
        """The row of `grokkit plugins --json`."""
        return {
            "name": self.name,
            "distribution": self.distribution,
            "version": self.version,
            "status": self.status,
            "reason": self.reason or self.remark,
            "components": [f"{component.kind} {component.id}" for component in self.components],
        }


class PluginHost:
    """Everything that the installed plugins bring. Loading it imports no torch, unless a plugin does.

    `allowed` is a list of distributions (None: all); `enabled=False` leaves only what the core brings.
    """

    def __init__(self, *, allowed: Sequence[str] | None = None, enabled: bool = True) -> None:
        self.manager = pluggy.PluginManager("grokkit")
        self.manager.add_hookspecs(hookspecs)
        core = self._load(CORE, "grokkit_core.plugin", "grokkit", _version("grokkit"))
        found = list(self._discover(allowed)) if enabled else []
        self.plugins = _without_clashes([core, *found])
        self._failed: set[str] = set()

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None, *, enabled: bool = True) -> PluginHost:
        """The host that `GROKKIT_PLUGINS` (allow-list of distributions) and `GROKKIT_DISABLE_PLUGINS` ask for."""
        environ = os.environ if environment is None else environment
        listed = environ.get("GROKKIT_PLUGINS")
        allowed = None if listed is None else [part.strip() for part in listed.split(",") if part.strip()]
        return cls(allowed=allowed, enabled=enabled and not environ.get("GROKKIT_DISABLE_PLUGINS"))

    # -- what plugins bring ------------------------------------------------------------------------------------------

    def specs(self, kind: type[Spec]) -> list[Spec]:
        """All specs of one kind, sorted by id."""
        return sorted((spec for spec, _ in self._components(kind)), key=lambda spec: spec.id)

    def spec(self, kind: type[Spec], name: str) -> Spec:
        """The spec with that id, or with that last part where it is unique; raises `NotFound` or `PluginError`."""
        known = {spec.id: spec for spec, _ in self._components(kind)}
        exact = [spec for spec in known.values() if normal(spec.id) == normal(name)]
        short = [spec for spec in known.values() if normal(spec.id.rpartition("/")[2]) == normal(name)]
        if matches := exact or short:
            if len(matches) > 1:
                listed = ", ".join(spec.id for spec in matches)
                raise Incompatible(f"{kind.kind} '{printable(name, 80)}' is ambiguous", expected=f"one of {listed}")
            return matches[0]
        raise self._missing(kind, name, known)

    def owner(self, spec: Component) -> Plugin:
        """The plugin that brought a spec."""
        return next(plugin for plugin in self.plugins if any(item is spec for item in plugin.components))

    def recipes_of(self, task: str) -> list[RecipeSpec]:
        """The recipes of a task, sorted by id."""
        return [spec for spec in self.specs(RecipeSpec) if spec.task == task]

    def recipe_for(self, task: TaskSpec, name: str | None) -> RecipeSpec:
        """The recipe of that id or short name, or the task's default; raises `NotFound`, `UsageError` or `Incompatible`."""
        own = self.recipes_of(task.id)
        listed = ", ".join(spec.id.rpartition("/")[2] for spec in own) or "none"
        if name is None:
            if not own:
                raise Incompatible(
                    f"no installed plugin brings a recipe for task {task.id}", hint="see `grokkit tasks`"
                )
            default = [spec for spec in own if spec.id == task.recipe] or (own if len(own) == 1 else [])
            if not default:
                raise UsageError(f"task {task.id} has several recipes", expected=f"--recipe with one of {listed}")
            return default[0]
        for spec in own:
            if normal(name) in (normal(spec.id), normal(spec.id.rpartition("/")[2])):
                return spec
        found = self.spec(RecipeSpec, name)
        raise Incompatible(f"recipe {found.id} trains task {found.task}, not {task.id}", expected=f"one of {listed}")

    def cassette_roots(self) -> Iterator[tuple[str, Path]]:
        """Distribution and folder of every cassette root that plugins bring."""
        for plugin in self.plugins:
            for component in plugin.components:
                if isinstance(component, CassetteRoot):
                    with_path = package_folder(component)
                    if with_path is not None:
                        yield plugin.distribution, with_path

    def faults(self) -> list[Plugin]:
        """The plugins that something is wrong with."""
        return [plugin for plugin in self.plugins if not plugin.healthy]

    # -- what stands behind the specs (imports torch) ----------------------------------------------------------------

    def task(self, name: str, **parameters: Any) -> Task:
        """The task of that id, with these constants of its law."""
        spec = self.spec(TaskSpec, name)
        return cast("Task", self.build(spec, **parameters))

    def architecture(self, name: str) -> Architecture:
        """The architecture of that id."""
        return cast("Architecture", self.build(self.spec(ArchitectureSpec, name)))

    def recipe(self, name: str) -> Recipe:
        """The recipe of that id."""
        return cast("Recipe", self.build(self.spec(RecipeSpec, name)))

    def fusion(self, name: str) -> Fusion:
        """The fusion of that id."""
        return cast("Fusion", self.build(self.spec(FusionSpec, name)))

    def operator(self, name: str) -> TransferOperator:
        """The transfer operator of that id."""
        return cast("TransferOperator", self.build(self.spec(TransferSpec, name)))

    def gate(self, name: str, **options: Any) -> Gate:
        """The gate of that id, with these options."""
        return cast("Gate", self.build(self.spec(GateSpec, name), **options))

    def build(
        self,
        spec: TaskSpec | ArchitectureSpec | RecipeSpec | FusionSpec | GateSpec | TransferSpec,
        **arguments: Any,
    ) -> Any:
        """Import what a spec's target names and call it with the spec; raises `PluginError` if that code fails.

        The result's `plugins` attribute is set to this host, so that composite components can resolve their parts.
        """
        plugin = self.owner(spec)
        try:
            made = resolved(spec.target)(spec, **arguments)
            made.plugins = self
        except Exception as error:
            from grokkit_core.errors import GrokkitError

            if isinstance(error, GrokkitError):
                raise
            raise PluginError(
                f"{spec.kind} {spec.id} of {printable(plugin.distribution, 80)} cannot be built: {describe(error)}",
                hint="report it to the plugin's author; --debug shows the traceback",
            ) from error
        return made

    def emit(self, event: Event) -> None:
        """Tell every plugin that observes; one that raises is named on stderr once and does not stop the work."""
        for plugin in self.plugins:
            observe = getattr(plugin.module, "grokkit_event", None)
            if plugin.status == "ok" and observe is not None:
                try:
                    with quietly():
                        observe(event=event)
                except KeyboardInterrupt:
                    raise
                except BaseException as error:
                    if plugin.name not in self._failed:
                        self._failed.add(plugin.name)
                        note = f"{plugin.who} failed on {event.name}: {describe(error)}; {plugin.remedy}"
                        print(f"grokkit: {note}", file=sys.stderr)

    # -- loading -----------------------------------------------------------------------------------------------------

    def _components(self, kind: type[Spec]) -> Iterator[tuple[Spec, Plugin]]:
        for plugin in self.plugins:
            for component in plugin.components:
                if isinstance(component, kind):
                    yield component, plugin

    def _missing(self, kind: type[Spec], name: str, known: Mapping[str, Spec]) -> Exception:
        package = name.partition("/")[0]
        shown = printable(name, 120)
        broken = [plugin for plugin in self.plugins if plugin.status not in ("ok", "disabled")]
        note = f" ({len(broken)} plugins are not loaded, see `grokkit plugins`)" if broken else ""
        if "/" in name and not any(other.startswith(package + "/") for other in known):
            distribution = package.replace("_", "-")
            return PluginError(
                f"no installed plugin brings the {kind.kind} {shown}{note}",
                hint=f"if you trust its source: pip install {printable(distribution)}",
            )
        return NotFound(f"no {kind.kind} is named '{shown}'{note}", hint=nearest(name, known))

    def _discover(self, allowed: Sequence[str] | None) -> Iterator[Plugin]:
        points = sorted(_entry_points(), key=lambda point: (point.name, _distribution(point)))
        wanted = None if allowed is None else {normal(name) for name in allowed}
        groups: dict[str, set[tuple[str, str]]] = {}
        unique = {(normal(p.name), normal(_distribution(p)), p.value): p for p in points}
        usable = [p for p in unique.values() if wanted is None or normal(_distribution(p)) in wanted]
        for point in usable:
            for claim in _claims(point):
                groups.setdefault(claim, set()).add((_distribution(point), f"{point.name} = {point.value}"))
        for point in unique.values():
            distribution, version = _distribution(point), (point.dist.version if point.dist else "") or "0"
            contested = next((claim for claim in _claims(point) if len(groups.get(claim, ())) > 1), None)
            if point not in usable:
                yield Plugin(point.name, distribution, version, "disabled", "not in GROKKIT_PLUGINS")
            elif contested or normal(point.name) == CORE:
                rivals = sorted({other for other, _ in groups.get(contested or "", ())} - {distribution})
                named = ", ".join(printable(rival, 80) for rival in rivals)
                what = (contested or "name").partition(" ")[0]
                own = "the same distribution" if contested else "grokkit itself"
                reason = f"the entry point {what} is also taken by {named or own}"
                yield Plugin(point.name, distribution, version, "clash", reason)
            else:
                yield self._load(point.name, point.value, distribution, version)

    def _load(self, name: str, value: str, distribution: str, version: str) -> Plugin:
        """Import one plugin and materialise what it brings: all of it or none. Only KeyboardInterrupt passes."""
        plugin = Plugin(name, distribution, version)
        heavy = "torch" in sys.modules
        with quietly() as quiet:
            try:
                plugin = self._register(plugin, value)
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                plugin = replace(plugin, status="broken", reason=describe(error))
        return _remarked(plugin, quiet, imported_torch="torch" in sys.modules and not heavy)

    def _register(self, plugin: Plugin, value: str) -> Plugin:
        module = importlib.import_module(value.partition(":")[0])
        for attribute in filter(None, value.partition(":")[2].split(".")):
            module = getattr(module, attribute)
        api = getattr(module, "GROKKIT_API", 1)
        if api != hookspecs.API:
            reason = f"it speaks plugin API {printable(api, 20)}, this grokkit speaks {hookspecs.API}"
            return replace(plugin, status="incompatible", reason=reason)
        self._check_hooks(module)
        hook = getattr(module, "grokkit_components", None)
        found = tuple(islice(hook() or (), MAX_COMPONENTS + 1)) if hook is not None else ()
        if len(found) > MAX_COMPONENTS:
            return replace(plugin, status="broken", reason=f"it brings more than {MAX_COMPONENTS} components")
        wrong = next((item for item in found if not isinstance(item, COMPONENT_TYPES)), None)
        if wrong is not None:
            reason = f"grokkit_components yields a {printable(type(wrong).__name__, 60)}, which is not a component spec"
            return replace(plugin, status="broken", reason=reason)
        lost = next((item for item in found if isinstance(item, CassetteRoot) and package_folder(item) is None), None)
        if lost is not None:
            reason = f"its cassette root names the package '{printable(lost.package, 80)}', which is not there"
            return replace(plugin, status="broken", reason=reason)
        return replace(plugin, components=found, module=module)

    def _check_hooks(self, module: ModuleType) -> None:
        """Register with pluggy, which checks argument names, and refuse hooks that do not exist."""
        self.manager.register(module)
        unknown = [
            name
            for name in dir(module)
            if self.manager.parse_hookimpl_opts(module, name) is not None and not hasattr(hookspecs, name)
        ]
        if unknown:
            self.manager.unregister(module)
            raise PluginError(
                f"it implements the unknown hook {printable(unknown[0], 60)}",
                expected="grokkit_components or grokkit_event",
            )


@functools.cache
def host(enabled: bool = True) -> PluginHost:
    """The process's plugin host, made once from the environment."""
    return PluginHost.from_environment(enabled=enabled)


def _remarked(plugin: Plugin, quiet: Quiet, *, imported_torch: bool) -> Plugin:
    if quiet.printed and plugin.status == "ok":
        plugin = replace(plugin, noisy=True, remark=f"printed while it was loaded: '{printable(quiet.printed, 80)}'")
    if imported_torch and plugin.status == "ok":
        note = "imports torch while it loads, which makes `grokkit list` slow"
        plugin = replace(plugin, remark=f"{plugin.remark}; {note}" if plugin.remark else note)
    return plugin


def _without_clashes(plugins: Iterable[Plugin]) -> tuple[Plugin, ...]:
    """Refuse every plugin that claims a component id which another one claims too; ids of the core are reserved."""
    plugins = list(plugins)
    claims: dict[tuple[str, str], list[Plugin]] = {}
    for plugin in plugins:
        for component in plugin.components:
            claims.setdefault((component.kind, normal(component.id)), []).append(plugin)
    checked = []
    for plugin in plugins:
        contested = next((key for key, claimants in claims.items() if len(claimants) > 1 and plugin in claimants), None)
        if contested is None or plugin.name == CORE:
            checked.append(plugin)
            continue
        rivals = sorted({f"'{p.name}' of {p.distribution}" for p in claims[contested] if p is not plugin}) or [
            "itself, twice"
        ]
        reason = f"{contested[0]} '{contested[1]}' is also claimed by {printable(', '.join(rivals), 160)}"
        checked.append(replace(plugin, status="clash", reason=reason, components=(), module=None))
    return tuple(checked)


def resolved(target: str) -> Any:
    """What an import string names; importing it may raise anything."""
    module, _, attributes = target.partition(":")
    found: Any = importlib.import_module(module)
    for attribute in attributes.split("."):
        found = getattr(found, attribute)
    return found


def _claims(point: importlib.metadata.EntryPoint) -> tuple[str, str]:
    """What an entry point takes for itself: its name and the module that it names."""
    return f"name {normal(point.name)}", f"module {point.value.partition(':')[0].strip()}"


def _entry_points() -> list[importlib.metadata.EntryPoint]:
    """Every entry point of the group; one distribution with unreadable ones does not hide those of the others."""
    try:
        return list(importlib.metadata.entry_points(group=GROUP))
    except Exception:
        found: dict[tuple[str, str], importlib.metadata.EntryPoint] = {}
        for distribution in importlib.metadata.distributions():
            with contextlib.suppress(Exception):
                for point in distribution.entry_points.select(group=GROUP):
                    found.setdefault((normal(distribution.name), point.name), point)
        return list(found.values())


def _distribution(point: importlib.metadata.EntryPoint) -> str:
    with contextlib.suppress(Exception):  # metadata may be missing; what then happens depends on the Python version
        if point.dist is not None and point.dist.name:
            return point.dist.name
    return "unknown"


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "0"


def package_folder(root: CassetteRoot) -> Path | None:
    """The folder of a cassette root; the package itself is not imported, since only loading is guarded."""
    try:
        found = importlib.util.find_spec(root.package)
        places = found.submodule_search_locations if found else None
        return Path(next(iter(places or ()))) / root.path
    except (ImportError, TypeError, ValueError, AttributeError, StopIteration):
        return None
