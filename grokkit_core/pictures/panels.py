"""Which panels a cassette has: from its manifest, and computed where its task and its plugins allow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from grokkit_core.errors import GrokkitError
from grokkit_core.loading import describe
from grokkit_core.manifest import Manifest
from grokkit_core.pictures.chart import Chart
from grokkit_core.pictures.curve import curve_charts
from grokkit_core.pictures.errors import error_charts
from grokkit_core.pictures.members import member_charts
from grokkit_core.specs import TaskSpec
from grokkit_core.text import printable
from grokkit_core.workspace import Workspace

if TYPE_CHECKING:
    from grokkit_core.cassette import Cassette

GATED = "grokkit_core/ensemble"


@dataclass(frozen=True)
class Panels:
    """The charts of one cassette, why others could not be made, and the rounding floor of its task's metric."""

    charts: tuple[Chart, ...]
    notes: tuple[str, ...] = ()
    floor: float = 0.0


@dataclass(frozen=True)
class Subject:
    """A cassette that is to be drawn: its manifest, and what opens it where something has to be computed."""

    manifest: Manifest
    open: Callable[[], Cassette]


def subject_of(ref: str | Cassette, place: Workspace) -> Subject:
    """What a reference means, or a cassette as it is, saved or not; raises what `gk.show` raises. Reads no weights."""
    if not isinstance(ref, str):
        return Subject(ref.manifest, lambda: ref)
    entry = place.library.find(ref)
    assert entry.manifest is not None  # `find` raises rather than return an unreadable entry

    def opened() -> Cassette:
        from grokkit_core.cassette import load

        return load(entry, library=place)

    return Subject(entry.manifest, opened)


def recorded_charts(manifest: Manifest, place: Workspace) -> list[Chart]:
    """What stands in the manifest: training curve, errors, members. Imports neither torch nor numpy."""
    spec = _task_spec(manifest, place)
    metric = spec.metric if spec else ""
    return [
        *curve_charts(manifest, metric=metric, accuracy=bool(spec and spec.higher_is_better)),
        *error_charts(manifest),
        *member_charts(manifest),
    ]


def panels_of(subject: Subject, place: Workspace, *, seed: int = 0) -> Panels:
    """Every panel that makes sense for a cassette; a computed one that fails leaves a note instead of the picture."""
    manifest = subject.manifest
    charts, notes = recorded_charts(manifest, place), []
    for what, make in _computed(subject, seed).items():
        try:
            charts.extend(make())
        except GrokkitError as error:
            notes.append(f"no picture of the {what} of {manifest.ref}: {printable(error, 300)}")
        except Exception as error:  # a task is a plugin's: its fault is no reason to show nothing of the others
            notes.append(f"no picture of the {what} of {manifest.ref}: {describe(error)}")
    spec = _task_spec(manifest, place)
    return Panels(tuple(charts), tuple(notes), spec.floor if spec else 0.0)


def _computed(subject: Subject, seed: int) -> Mapping[str, Callable[[], list[Chart]]]:
    """What has to be computed, each imported only when it is wanted."""
    manifest = subject.manifest

    def gate() -> list[Chart]:
        from grokkit_core.pictures.gate import gate_charts

        return gate_charts(subject.open(), seed=seed)

    def rollout() -> list[Chart]:
        from grokkit_core.pictures.rollout import rollout_charts

        return rollout_charts(subject.open(), seed=seed)

    wanted: dict[str, Callable[[], list[Chart]]] = {}
    if manifest.provenance.gate is not None and manifest.architecture.id == GATED:
        wanted["gate"] = gate
    if may_roll_out(manifest):
        wanted["rollout"] = rollout
    return wanted


def may_roll_out(manifest: Manifest) -> bool:
    """Whether some input could hold what comes out: same unit, and the outputs' axes, in order, among its own."""
    for output in manifest.outputs:
        for given in manifest.inputs:
            axes = iter(given.axes)
            if given.unit == output.unit and all(axis in axes for axis in output.axes):
                return True
    return False


def _task_spec(manifest: Manifest, place: Workspace) -> TaskSpec | None:
    try:
        return place.plugins.spec(TaskSpec, manifest.task.id)
    except GrokkitError:
        return None
