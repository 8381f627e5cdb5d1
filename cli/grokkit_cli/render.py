"""Everything that is printed: JSON or tables on stdout, progress and notes on stderr. Text from data is made safe here."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from grokkit_core.text import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from torch import Tensor

    from grokkit_core.benchmark import Bench
    from grokkit_core.certify.verify import Verification
    from grokkit_core.doctor import Check
    from grokkit_core.exporting import Exported
    from grokkit_core.fusion.compose import Composition
    from grokkit_core.fusion.fusion import FusionPlan
    from grokkit_core.library import Entry
    from grokkit_core.manifest import Manifest
    from grokkit_core.pictures.plot import Picture
    from grokkit_core.prediction import Prediction
    from grokkit_core.reporting.page import Report
    from grokkit_core.scaffold.new_plugin import NewPlugin
    from grokkit_core.training.train import Trained
    from grokkit_core.transfer.grow import Growth
    from grokkit_core.transfer.operator import TransferPlan

PLAIN_WIDTH = 140
"""Width of tables where stdout is no terminal."""

LIST_WIDTH = 100
"""Narrower than this, cassettes are listed below each other."""

WHOLE = frozenset({"cassette"})
"""Columns whose cells are never broken, beside those of numbers: they are copied into the next command."""


_stdout: TextIO | None = None


@contextlib.contextmanager
def only_json() -> Iterator[None]:
    """What plugins print meanwhile goes to stderr; `as_json` alone writes to stdout."""
    global _stdout
    _stdout = sys.stdout
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        _stdout = None


def as_json(value: Any) -> None:
    """Print a JSON value; every character outside ASCII is escaped."""
    text = json.dumps(value, indent=2, ensure_ascii=True, allow_nan=False, default=_plain)
    print(text, file=_stdout or sys.stdout)


def _plain(value: Any) -> Any:
    from grokkit_core.records import to_json

    return to_json(value)


def console() -> Console:
    """Rich on stdout; plain and wide where that is no terminal."""
    from rich.console import Console

    class Output(Console):
        def on_broken_pipe(self) -> None:
            raise  # rich would exit with code 1, which means that a check failed

    return Output(width=None if sys.stdout.isatty() else PLAIN_WIDTH, highlight=False, emoji=False, markup=False)


def live_allowed() -> bool:
    """Whether progress may be drawn."""
    return sys.stderr.isatty()


@contextlib.contextmanager
def working(what: str) -> Iterator[Callable[[str], None]]:
    """A spinner on stderr while something takes time, where stderr is a terminal; yields what prints a line above it."""
    if not live_allowed():
        yield lambda line: None
        return
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    with console.status(_text(what)):
        yield lambda line: console.print(_text(line))


def notes(lines: Sequence[str]) -> None:
    """Remarks on stderr."""
    for line in lines:
        print(f"grokkit: {printable(line, 400)}", file=sys.stderr)


def table(*columns: str, numbers: Sequence[int] = ()) -> Table:
    """A plain table; the columns in `numbers` are aligned right."""
    from rich import box
    from rich.table import Table

    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, collapse_padding=True)
    for index, name in enumerate(columns):
        whole = index in numbers or name in WHOLE
        made.add_column(_text(name), justify="right" if index in numbers else "left", overflow="fold", no_wrap=whole)
    return made


def row(target: Table, *cells: object, style: str = "") -> None:
    """Add a row of safe texts."""
    target.add_row(*(_text(cell) for cell in cells), style=style or None)


def _text(value: object, cap: int = 400) -> Any:
    from rich.text import Text

    return value if isinstance(value, Text) else Text("" if value is None else printable(value, cap))


def number(value: float) -> str:
    """A figure with three digits, at most eight characters: `0.0525`, `1.53e-6`."""
    if value == 0 or 1e-3 <= abs(value) < 999.5:
        return f"{value:#.3g}".rstrip(".")
    mantissa, _, exponent = f"{value:.2e}".partition("e")
    return f"{mantissa}e{int(exponent)}" if exponent else mantissa


def size(count: int) -> str:
    """A byte count for people."""
    amount, unit = float(count), "B"
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000 or unit == "GB":
            break
        amount /= 1000
    return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"


# -- one function a command ------------------------------------------------------------------------------------------


def entries(found: Sequence[Entry]) -> None:
    """The table of `grokkit list`."""
    if not found:
        print("no cassettes here yet: `grokkit train TASK` makes one, `grokkit tasks` shows what can be trained")
        return
    if console().width < LIST_WIDTH:
        _entries_below_each_other(found)
        return
    made = table("cassette", "computes", "verdict", "parameters", "size", "source", numbers=(3, 4))
    for entry in found:
        name = f"{entry.name}@{entry.version}"
        if entry.manifest is None:
            row(made, name, f"cannot be read: {entry.problem}", "", "", "", entry.root.source, style="red")
            continue
        manifest = entry.manifest
        note = f"  ({entry.problem})" if entry.problem else ""
        row(
            made,
            name,
            manifest.summary + note,
            manifest.certificate.verdict,
            f"{manifest.weights.parameters:,}",
            size(manifest.weights.bytes),
            entry.root.source,
            style="dim" if entry.problem else "",
        )
    console().print(made)


def _entries_below_each_other(found: Sequence[Entry]) -> None:
    """The same where there is no room for columns."""
    from rich.padding import Padding

    for entry in found:
        manifest, name = entry.manifest, f"{entry.name}@{entry.version}"
        if manifest is None:
            told, facts = f"cannot be read: {entry.problem}", entry.root.source
        else:
            note = f"  ({entry.problem})" if entry.problem else ""
            told, weights = manifest.summary + note, manifest.weights
            facts = f"{manifest.certificate.verdict}, {weights.parameters:,} parameters, {size(weights.bytes)}, {entry.root.source}"
        console().print(_text(f"{name}: {facts}"), style="bold")
        console().print(Padding(_text(told), (0, 0, 0, 2)), style="dim" if entry.problem else "")


def components(found: dict[str, list[dict[str, Any]]]) -> None:
    """The tables of `grokkit tasks`."""
    made = table("kind", "name", "what it is", "plugin")
    for title, rows in found.items():
        for index, item in enumerate(rows):
            row(made, title if index == 0 else "", item["name"], item["summary"], item["plugin"])
    console().print(made)


def plugins(rows: Sequence[dict[str, Any]]) -> None:
    """The table of `grokkit plugins`."""
    made = table("plugin", "distribution", "version", "status", "brings", "remark")
    for item in rows:
        count = f"{len(item['components'])} components"
        row(made, item["name"], item["distribution"], item["version"], item["status"], count, item["reason"])
    console().print(made)


def card(manifest: Manifest) -> None:
    """The card of `grokkit show`."""
    from grokkit_cli.cards import print_card

    print_card(manifest, console())


def verifications(results: Sequence[Verification]) -> None:
    """The report of `grokkit verify`."""
    made = table("cassette", "recorded", "recomputed", "agrees", "measured", "because")
    for result in results:
        recorded = result.manifest.certificate.verdict
        because = "; ".join(result.reasons) or result.certificate.statement
        agrees = "yes" if result.agrees else "NO"
        found = result.certificate
        how = f"{found.level}, {found.dtype}, seed {found.seed}"
        row(made, result.manifest.ref, recorded, found.verdict, agrees, how, because)
    console().print(made)


def benchmark(found: Bench) -> None:
    """The table of `grokkit bench`."""
    from grokkit_cli.timings import print_benchmark

    print_benchmark(found, console())


def plan(planned: FusionPlan) -> None:
    """The plan of `grokkit compose --dry-run`."""
    from grokkit_cli.compositions import print_plan

    print_plan(planned, console())


def composition(made: Composition) -> None:
    """The table of `grokkit compose`."""
    from grokkit_cli.compositions import print_composition

    print_composition(made, console())


def growth_plan(planned: TransferPlan) -> None:
    """The plan of `grokkit grow --dry-run`."""
    from grokkit_cli.cards import print_growth_plan

    print_growth_plan(planned, console())


def growth(made: Growth) -> None:
    """What `grokkit grow` did."""
    from grokkit_cli.cards import print_growth

    print_growth(made, console())


def trained(runs: Sequence[Trained]) -> None:
    """The table of `grokkit train`."""
    made = table(
        "cassette", "seed", "steps", "grokked at", "seconds", "dtype", "verdict", "certificate", numbers=(1, 2, 3, 4)
    )
    for run in runs:
        certificate = run.cassette.manifest.certificate
        grokked = "-" if run.grok_step is None else run.grok_step
        name = run.cassette.manifest.ref
        row(
            made,
            name,
            run.seed,
            run.steps,
            grokked,
            f"{run.seconds:.1f}",
            certificate.dtype,
            certificate.verdict,
            certificate.statement,
        )
    console().print(made)


def outputs(tensor: Tensor) -> None:
    """One step's outputs on stdout, one sample a line, flushed so that a rollout can be followed."""
    from grokkit_core.prediction import nested

    for sample in nested(tensor):
        print(json.dumps(sample), flush=True)


def prediction(made: Prediction) -> None:
    """What `grokkit run` says on stderr after its outputs; those of several members stand on stdout, one object a line."""
    from grokkit_core.prediction import nested

    where = f" to {made.path}" if made.path else ""
    for name, part in made.parts.items():
        if part.outputs is not None and made.path is None:
            print(json.dumps({name: nested(part.outputs)}), flush=True)
        routed(part, f"{printable(name, 80)}: ")
        _kept(part, f"{printable(name, 80)}: ")
    if made.parts:
        print(f"grokkit: {len(made.parts)} inputs in {made.seconds:.3f} s{printable(where)}", file=sys.stderr)
        notes(made.notes)
        return
    routed(made)
    print(f"grokkit: {list(made.shape)} {made.dtype} in {made.seconds:.3f} s{printable(where)}", file=sys.stderr)
    _kept(made)
    notes(made.notes)


def _kept(made: Prediction, what: str = "") -> None:
    """What the invariants of a rollout drifted by, and how long it can hold."""
    for name, worst in (made.drift or {}).items():
        print(f"grokkit: {what}{printable(name)} drifted by at most {worst:.3g} (relative)", file=sys.stderr)
    for name, value in (made.horizon or {}).items():
        print(f"grokkit: {what}{printable(name.replace('_', ' '))} {value:.3g}", file=sys.stderr)


def routed(made: Prediction, what: str = "") -> None:
    """Which member of a composition answered, and why."""
    if made.routed:
        by = {
            "key": "by its key",
            "task": "as the only one of its task",
            "signature": "as the only one that takes the input",
        }
        key, rule = printable(made.routed["key"], 200), made.routed["rule"]
        print(f"grokkit: {what}answered by {key}, {by[rule]}", file=sys.stderr)


def exported(made: Exported) -> None:
    """What was written, what it takes, and how near its outputs are."""
    equal = "equal to the bit" if not made.max_abs_difference else f"largest difference {made.max_abs_difference:.2g}"
    print(f"wrote {printable(made.path)} ({made.kind}, {made.dtype}), takes {', '.join(made.inputs)}")
    print(f"read back and compared: {equal} over {made.compared} samples")
    notes(made.notes)


def scaffolded(made: NewPlugin, name: str) -> None:
    """The files of a new plugin and what to do next."""
    for file in made.files:
        print(printable(file))
    print(f"wrote {len(made.files)} files to {printable(made.path)}")
    print(f"next: pip install -e '{printable(made.path)}[test]', then grokkit train {name}, grokkit verify {name}-adam")


def picture(made: Picture) -> None:
    """Where a picture was written, on stderr: stdout belongs to the card."""
    panels = ", ".join(dict.fromkeys(made.panels))
    notes([f"wrote {made.path} ({panels})", *made.notes])


def reported(made: Report) -> None:
    """Where a report was written, and on what."""
    count = len(made.cassettes)
    print(f"wrote {printable(made.path)} ({count} cassette{'s' if count > 1 else ''})")
    notes(made.notes)


def done(verb: str, manifest: Manifest, *, as_json: bool) -> None:
    """One line for `import` and `remove`."""
    if as_json:
        print(json.dumps({"name": manifest.name, "version": manifest.version}, indent=2), file=_stdout or sys.stdout)
    else:
        print(f"{verb} {printable(manifest.ref)}")


def checks(found: Sequence[Check]) -> None:
    """The list of `grokkit doctor`."""
    made = table("", "check", "detail")
    for check in found:
        row(made, "ok" if check.ok else "FAULT", check.name, check.detail, style="" if check.ok else "red")
    console().print(made)
