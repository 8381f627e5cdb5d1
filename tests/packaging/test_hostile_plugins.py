"""Plugins that misbehave: each is named once, with its distribution and a remedy, and every command still works.

A hostile package here is a module and a hand-written `*.dist-info` in a folder on PYTHONPATH, which is all that an
installed package is to Python.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.conftest import Outcome

    Shell = Callable[..., Outcome]

CASSETTES = Path(__file__).parent.parent / "third_party" / "grokkit-example" / "grokkit_example" / "cassettes"
CASSETTE = "rule-110"
"""A cassette whose plugin is not installed here; to show it takes none."""

GOOD = """
    from grokkit_core import hookimpl
    from grokkit_core.specs import *
    from grokkit_core.tensors import Signature, TensorSpec

    X = TensorSpec("x", axes=("batch", 1))
    NOTHING = Signature([X], [X])
"""
"""What a plugin module starts with."""

UNINSTALL, CHOOSE, UPGRADE, TELL = "pip uninstall", "GROKKIT_PLUGINS", "upgrade grokkit", "its author"
"""What the user is told to do."""


@dataclass(frozen=True)
class Fault:
    """What must be said of one faulty entry point: its name and distribution, its status, why, and the remedy."""

    entry: str
    distribution: str
    status: str
    because: str
    remedy: str


@dataclass(frozen=True)
class Package:
    """A distribution with one entry point and the source of the module that it names."""

    entry: str
    distribution: str
    source: str = ""
    module: str = ""


def plant(folder: Path, entry: str, source: str, *, distribution: str = "", module: str = "") -> Path:
    """Put a package there that Python takes for installed; returns the folder."""
    distribution = distribution or entry
    module = module or distribution.replace("-", "_").replace(".", "_")
    folder.mkdir(exist_ok=True)
    if source:
        (folder / f"{module}.py").write_text(dedent(source))
    metadata = folder / f"{distribution.replace('-', '_')}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[grokkit]\n{entry} = {module}\n")
    return folder


def spec(kind: str) -> str:
    """Source of a good component spec."""
    return {
        "task": 'TaskSpec("good", NOTHING, target="nowhere:Good")',
        "gate": 'GateSpec("hostile/good", target="nowhere:Good")',
    }[kind]


HARMLESS = "GROKKIT_API = 1"

CASES: dict[str, tuple[tuple[Package, ...], tuple[Fault, ...]]] = {
    "ImportError at import": (
        (Package("importer", "evil-import", "import a_module_that_is_not_there"),),
        (Fault("importer", "evil-import", "broken", "a_module_that_is_not_there", UNINSTALL),),
    ),
    "SystemExit at import": (
        (Package("leaver", "evil-exit", "import sys; sys.exit(3)"),),
        (Fault("leaver", "evil-exit", "broken", "SystemExit: 3", UNINSTALL),),
    ),
    "prints at import": (
        (Package("printer", "evil-print", r'import os; print("a word"); os.write(1, b"raw noise\n")'),),
        (Fault("printer", "evil-print", "ok", "'a word'", TELL),),
    ),
    "a generator that fails late": (
        (
            Package(
                "late",
                "evil-late",
                f"""{GOOD}
    @hookimpl
    def grokkit_components():
        yield {spec("task")}
        yield {spec("gate")}
        raise RuntimeError("too late")
""",
            ),
        ),
        (Fault("late", "evil-late", "broken", "RuntimeError: too late", UNINSTALL),),
    ),
    "two distributions with one entry point": (
        (Package("twin", "evil-twin-a", HARMLESS), Package("twin", "evil-twin-b", HARMLESS)),
        (
            Fault("twin", "evil-twin-a", "clash", "evil-twin-b", CHOOSE),
            Fault("twin", "evil-twin-b", "clash", "evil-twin-a", CHOOSE),
        ),
    ),
    "names that differ in case and punctuation": (
        (Package("Near_Name", "evil-near-a", HARMLESS), Package("near.name", "evil-near-b", HARMLESS)),
        (
            Fault("Near_Name", "evil-near-a", "clash", "evil-near-b", CHOOSE),
            Fault("near.name", "evil-near-b", "clash", "evil-near-a", CHOOSE),
        ),
    ),
    "the name of a built-in plugin": (
        (Package("cyclotron", "evil-cyclotron", HARMLESS),),
        (
            Fault("cyclotron", "evil-cyclotron", "clash", "taken by grokkit", CHOOSE),
            Fault("cyclotron", "grokkit", "clash", "evil-cyclotron", CHOOSE),
        ),
    ),
    "too new an API": (
        (Package("future", "evil-future", "GROKKIT_API = 99"),),
        (Fault("future", "evil-future", "incompatible", "plugin API 99", UPGRADE),),
    ),
}
CASES["all at once"] = (
    tuple(package for packages, _ in CASES.values() for package in packages),
    tuple(fault for _, faults in CASES.values() for fault in faults),
)

DESCRIBING = {
    "list": ["list"],
    "tasks": ["tasks"],
    "plugins": ["plugins"],
    "show": ["show", CASSETTE],
}
SILENCED: dict[str, tuple[list[str], dict[str, str]]] = {
    "GROKKIT_PLUGINS": ([], {"GROKKIT_PLUGINS": "grokkit"}),
    "GROKKIT_DISABLE_PLUGINS": ([], {"GROKKIT_DISABLE_PLUGINS": "1"}),
    "--no-plugins": (["--no-plugins"], {}),
}


@dataclass(frozen=True)
class Case:
    """A planted case: what must be said of it, and what each command did."""

    faults: tuple[Fault, ...]
    done: dict[str, subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """The packages of a case are planted, and every command has been run beside them, two at a time."""
    packages, faults = CASES[request.param]
    home = tmp_path_factory.mktemp("case")
    for package in packages:
        plant(home / "site", package.entry, package.source, distribution=package.distribution)
    shutil.copytree(CASSETTES, home / "library")
    doctor = ["doctor", "--json"]
    commands: dict[str, tuple[list[str], dict[str, str]]] = {
        **{name: ([*arguments, "--json"], {}) for name, arguments in DESCRIBING.items()},
        **{name: ([*options, *doctor], environment) for name, (options, environment) in SILENCED.items()},
        "doctor": (doctor, {}),
        "--help": (["--help"], {}),
        "--version": (["--version"], {}),
    }
    with ThreadPoolExecutor(2) as pool:
        done = pool.map(lambda command: grokkit(home, *command), commands.values())
    return Case(faults, dict(zip(commands, done, strict=True)))


def grokkit(home: Path, arguments: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """A command with the packages, the library and the user's folders below `home`."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("GROKKIT", "PYTHON"))}
    folders = {f"XDG_{name}_HOME": str(home / name) for name in ("DATA", "STATE", "CACHE")}
    return subprocess.run(
        [sys.executable, "-m", "grokkit_cli", "--library", str(home / "library"), *arguments],
        capture_output=True,
        text=True,
        env={**clean, **folders, "PYTHONPATH": str(home / "site"), **environment},
        timeout=60,
        check=False,
    )


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python buffers stdout, as it does by default: what is written too early may come out too late. One thread."""
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder for packages, empty."""
    return tmp_path / "site"


def complaints(stderr: str) -> list[str]:
    """The lines that grokkit itself wrote to stderr."""
    return [line for line in stderr.splitlines() if line.startswith("grokkit: ")]


def of(rows: Sequence[dict[str, Any]], distribution: str, name: str | None = None) -> dict[str, Any]:
    """The row of `plugins --json` of a distribution (and entry point)."""
    (found,) = [row for row in rows if row["distribution"] == distribution and name in (None, row["name"])]
    return found


def only_complaint(outcome: Outcome, distribution: str) -> str:
    """The one line of stderr, which must name the distribution."""
    (line,) = outcome.err.splitlines()
    assert f"of {distribution} " in line
    return line


# -- the cases, alone and together -----------------------------------------------------------------------------------


@pytest.mark.parametrize("command", DESCRIBING)
def test_a_describing_command_works_and_names_each_faulty_plugin_once(case: Case, command: str) -> None:
    done = case.done[command]
    assert done.returncode == 0
    assert isinstance(json.loads(done.stdout), dict)
    said = complaints(done.stderr)
    for fault in case.faults:
        (line,) = [line for line in said if f"plugin '{fault.entry}' of {fault.distribution} " in line]
        assert fault.because in line
        assert fault.remedy in line
    assert len(said) == len(case.faults)
    assert set(done.stderr.splitlines()) - set(said) <= {"raw noise"}


def test_plugins_tells_the_status_of_each_faulty_plugin_and_that_it_brings_nothing(case: Case) -> None:
    rows = json.loads(case.done["plugins"].stdout)["plugins"]
    for fault in case.faults:
        row = of(rows, fault.distribution, fault.entry)
        assert (row["status"], row["components"]) == (fault.status, [])
        assert fault.because in row["reason"]


def test_the_plugins_beside_a_faulty_one_keep_what_they_bring(case: Case) -> None:
    blamed = {(fault.distribution, fault.entry) for fault in case.faults}
    rows = json.loads(case.done["plugins"].stdout)["plugins"]
    others = [row for row in rows if (row["distribution"], row["name"]) not in blamed]
    assert {row["name"] for row in others} >= {"core", "cassettes"}
    assert all(row["status"] == "ok" and row["components"] for row in others)


def test_doctor_reports_each_faulty_plugin_and_exits_1(case: Case) -> None:
    done = case.done["doctor"]
    assert done.returncode == 1
    bad = [check for check in json.loads(done.stdout)["checks"] if not check["ok"]]
    assert len(bad) == len(case.faults)
    for fault in case.faults:
        (check,) = [check for check in bad if f"plugin {fault.entry} ({fault.distribution} " in check["name"]]
        assert fault.because in check["detail"]
        assert fault.remedy in check["detail"]


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version_load_no_plugin(case: Case, option: str) -> None:
    done = case.done[option]
    assert (done.returncode, done.stderr) == (0, "")
    assert "grokkit" in done.stdout.lower()


@pytest.mark.parametrize("switch", SILENCED)
def test_a_switch_silences_faulty_plugins(case: Case, switch: str) -> None:
    done = case.done[switch]
    assert (done.returncode, done.stderr) == (0, "")
    assert all(check["ok"] for check in json.loads(done.stdout)["checks"])


# -- what comes through, what does not ------------------------------------------------------------------------------


def test_a_keyboard_interrupt_at_import_passes(site: Path, shell: Shell) -> None:
    outcome = shell("list", "--json", path=(plant(site, "stopper", "raise KeyboardInterrupt"),))
    assert (outcome.code, outcome.out) == (130, "")


def test_any_other_base_exception_does_not_pass(site: Path, shell: Shell) -> None:
    outcome = shell("list", "--json", path=(plant(site, "odd", "class Odd(BaseException): ...\nraise Odd('odd one')"),))
    assert outcome.code == 0
    assert "Odd: odd one" in only_complaint(outcome, "odd")


@pytest.mark.parametrize(
    "source",
    [
        "raise ValueError('two\\nlines')",
        "raise ValueError('\\x1b[31mred\\x1b[0m \\u202e \\u2028')",
        "raise ValueError('long ' * 10_000)",
        "raise type('Two\\nLines', (Exception,), {})",
        "raise type('Mute', (Exception,), {'__str__': lambda self: 1 / 0})",
        "from grokkit_core import hookimpl\n@hookimpl\ndef grokkit_components(): yield type('Two\\nLines', (), {})()",
        "GROKKIT_API = 'two\\nlines'",
    ],
    ids=["newline", "escapes", "long", "name of the exception", "no message", "name of a type", "API"],
)
def test_whatever_text_a_fault_carries_it_is_told_in_one_safe_line(site: Path, shell: Shell, source: str) -> None:
    outcome = shell("list", "--json", path=(plant(site, "texter", source),))
    assert outcome.code == 0
    assert isinstance(outcome.json, dict)
    line = only_complaint(outcome, "texter")
    assert len(line) < 500
    assert "\x1b" not in line


@pytest.mark.parametrize(
    "source",
    [
        "print('noise', flush=True)",
        "import sys; sys.__stdout__.write('noise')",
        "import os; os.write(1, b'noise')",
        "import os; os.system('echo noise')",
        "from grokkit_core import hookimpl\n@hookimpl\ndef grokkit_components():\n    print('noise')\n    return []",
        "import os; os.close(1)",
        "import sys; sys.stdout = None",
    ],
    ids=["print", "the original stdout", "raw", "a child", "in the hook", "closes it", "takes it away"],
)
def test_nothing_that_a_plugin_does_to_stdout_while_it_loads_reaches_it(site: Path, shell: Shell, source: str) -> None:
    outcome = shell("list", "--json", path=(plant(site, "noisy", source),))
    assert outcome.code == 0
    assert set(outcome.json) == {"cassettes"}


def test_an_empty_allow_list_admits_no_plugin(site: Path, shell: Shell) -> None:
    outcome = shell("plugins", "--json", path=(plant(site, "breaker", "1 / 0"),), GROKKIT_PLUGINS="")
    assert (outcome.code, outcome.err) == (0, "")
    status = {row["name"]: row["status"] for row in outcome.json["plugins"]}
    assert status.pop("core") == "ok"
    assert set(status.values()) == {"disabled"}


def test_the_allow_list_resolves_a_clash_of_entry_points(site: Path, shell: Shell) -> None:
    for distribution in ("twin-a", "twin-b"):
        plant(site, "twin", HARMLESS, distribution=distribution)
    outcome = shell("plugins", "--json", path=(site,), GROKKIT_PLUGINS="grokkit, Twin_A")
    assert outcome.err == ""
    status = {row["distribution"]: row["status"] for row in outcome.json["plugins"]}
    assert (status["twin-a"], status["twin-b"]) == ("ok", "disabled")


# -- the metadata of a distribution ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("METADATA", None),
        ("METADATA", ""),
        ("entry_points.txt", "[grokkit]\nthis is no entry point\n"),
        ("entry_points.txt", "[grokkit]\nodd = not a module!\n"),
        ("entry_points.txt", "[grokkit]\nodd =\n"),
    ],
    ids=["METADATA missing", "METADATA empty", "no entry point", "no module", "nothing"],
)
def test_a_distribution_with_broken_metadata_does_not_stop_the_others(
    site: Path, shell: Shell, file: str, text: str | None
) -> None:
    plant(site, "odd", HARMLESS)
    broken = site / "odd-1.0.dist-info" / file
    broken.unlink() if text is None else broken.write_text(text)
    outcome = shell("plugins", "--json", path=(site,))
    assert outcome.code == 0, outcome.err
    assert of(outcome.json["plugins"], "grokkit", "cyclotron")["status"] == "ok"


def test_two_entry_points_of_one_distribution_with_one_name_do_not_blame_grokkit(site: Path, shell: Shell) -> None:
    plant(site, "same", HARMLESS)
    points = site / "same-1.0.dist-info" / "entry_points.txt"
    points.write_text("[grokkit]\nsame = same\nSame = same:other\n")
    outcome = shell("list", "--json", path=(site,))
    assert outcome.code == 0
    for line in complaints(outcome.err):
        assert "of same 1.0 is clash" in line
        assert "grokkit itself" not in line


def test_an_entry_point_for_a_built_in_module_does_not_take_its_components_over(site: Path, shell: Shell) -> None:
    outcome = shell("plugins", "--json", path=(plant(site, "aaa", "", module="grokkit_cyclotron.plugin"),))
    assert of(outcome.json["plugins"], "aaa")["components"] == []
    (line,) = [line for line in complaints(outcome.err) if "'aaa' of aaa" in line]
    assert "grokkit" in line.partition("is ")[2]


# -- hooks and what they yield --------------------------------------------------------------------------------------


def hook(*components: str) -> str:
    """A plugin module that yields these specs."""
    body = "".join(f"        yield {component}\n" for component in components)
    return f"{GOOD}\n    @hookimpl\n    def grokkit_components():\n{body}"


@pytest.mark.parametrize(
    ("source", "because"),
    [
        (f"{GOOD}\n    @hookimpl\n    def grokkit_event(evnt): ...\n", "evnt"),
        (f"{GOOD}\n    @hookimpl\n    def grokkit_componets(): ...\n", "grokkit_componets"),
        (hook(spec("task"), "42"), "int"),
        (hook(f"from_a_list if False else [{spec('task')}]"), "list"),
        (f"{GOOD}\n    @hookimpl\n    def grokkit_components(): return 42\n", "TypeError"),
        (hook(spec("task")) + f"        yield from [{spec('gate')}] * 10**6\n", "more than 1000"),
        (hook(spec("task"), spec("task")), "task 'good'"),
        (hook('TaskSpec("Not A Name", NOTHING, target="nowhere:Good")'), "Not A Name"),
        (hook('GateSpec("hostile/good", target="no target")'), "no target"),
        (hook('GateSpec("hostile/good", target="nowhere:Good", summary=object())'), "summary"),
        (hook('GateSpec("hostile/good", target="nowhere:Good", options=["width"])'), "options"),
        (hook('TaskSpec("good", None, target="nowhere:Good")'), "signature"),
    ],
    ids=[
        "wrong argument",
        "unknown hook",
        "no spec",
        "a list of specs",
        "not iterable",
        "a million specs",
        "one id twice",
        "bad id",
        "bad target",
        "summary of no text",
        "options of no fields",
        "task of no signature",
    ],
)
def test_a_plugin_whose_hook_is_wrong_brings_nothing_and_is_told_why(
    site: Path, shell: Shell, source: str, because: str
) -> None:
    outcome = shell("tasks", "--json", path=(plant(site, "wrong", source),))
    assert outcome.code == 0
    assert because in only_complaint(outcome, "wrong")
    assert not [row for rows in outcome.json.values() for row in rows if row["plugin"] == "wrong"]


def test_a_hook_that_never_ends_is_cut_off(site: Path, shell: Shell) -> None:
    source = hook(spec("task")) + f"        while True: yield {spec('gate')}\n"
    assert "more than 1000" in only_complaint(
        shell("list", "--json", path=(plant(site, "endless", source),)), "endless"
    )


@pytest.mark.parametrize(
    "component",
    [
        'TaskSpec("cyclotron", NOTHING, target="nowhere:Good")',
        'RecipeSpec("cyclotron/published", task="cyclotron", architecture="x/y", target="nowhere:Good")',
        'ArchitectureSpec("Grokkit_Cyclotron/topobrain", version=1, target="nowhere:Good")',
    ],
    ids=["task", "recipe", "architecture in another spelling"],
)
def test_a_component_id_of_a_built_in_plugin_refuses_both_and_names_both(
    site: Path, shell: Shell, component: str
) -> None:
    outcome = shell("plugins", "--json", path=(plant(site, "rival", hook(component)),))
    mine, theirs = of(outcome.json["plugins"], "rival"), of(outcome.json["plugins"], "grokkit", "cyclotron")
    assert [row["status"] for row in (mine, theirs)] == ["clash", "clash"]
    assert [row["components"] for row in (mine, theirs)] == [[], []]
    assert "'cyclotron' of grokkit" in mine["reason"]
    assert "'rival' of rival" in theirs["reason"]
    assert len(complaints(outcome.err)) == 2


def test_a_component_id_of_the_core_is_refused_and_the_core_keeps_its_own(site: Path, shell: Shell) -> None:
    source = hook(spec("task"), 'GateSpec("spectral", target="nowhere:Evil")')
    outcome = shell("tasks", "--json", path=(plant(site, "usurper", source),))
    (gate,) = [row for row in outcome.json["gates"] if row["name"] == "spectral"]
    assert gate["plugin"] == "core"
    assert "gate 'spectral'" in only_complaint(outcome, "usurper")
    assert "good" not in [row["name"] for row in outcome.json["tasks"]]


# -- cassette roots -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source", ["import sys; sys.exit(3)", "print('noise')", "1 / 0"], ids=["exits", "prints", "raises"]
)
def test_a_cassette_root_in_a_package_that_misbehaves_at_import_stops_nothing(
    site: Path, shell: Shell, source: str
) -> None:
    plant(site, "rooted", hook('CassetteRoot("rooted_data")'))
    (site / "rooted_data").mkdir()
    (site / "rooted_data" / "__init__.py").write_text(source)
    outcome = shell("list", "--json", path=(site,))
    assert outcome.code == 0, outcome.err
    assert set(outcome.json) == {"cassettes"}


def test_doctor_names_a_cassette_root_whose_package_is_not_there(site: Path, shell: Shell) -> None:
    outcome = shell("doctor", "--json", path=(plant(site, "rooted", hook('CassetteRoot("a_misspelt_package")')),))
    assert outcome.code == 1
    assert [check for check in outcome.json["checks"] if not check["ok"] and "a_misspelt_package" in json.dumps(check)]


# -- torch ----------------------------------------------------------------------------------------------------------


def test_a_plugin_that_imports_torch_while_it_loads_is_ok_with_a_remark(site: Path, shell: Shell) -> None:
    outcome = shell("plugins", "--json", path=(plant(site, "heavy", "import torch"),))
    row = of(outcome.json["plugins"], "heavy")
    assert (outcome.code, outcome.err, row["status"]) == (0, "", "ok")
    assert "imports torch" in row["reason"]


# -- observers and what runs later ----------------------------------------------------------------------------------

TRAIN = ("--set", "epochs=1", "--set", "samples=64", "--json")


def test_observers_that_raise_at_every_event_are_named_once_each_and_do_not_stop_a_training(
    site: Path, shell: Shell, library: Path
) -> None:
    for name, error in (("watcher", "ValueError"), ("leaver", "SystemExit")):
        plant(site, name, f"{GOOD}\n    @hookimpl\n    def grokkit_event(event): raise {error}('not me')\n")
    outcome = shell("--library", library, "train", "cyclotron", *TRAIN, path=(site,))
    assert outcome.code == 0, outcome.err
    (run,) = outcome.json["runs"]
    assert run["name"] == "cyclotron-published"
    leaver, watcher = sorted(complaints(outcome.err))
    assert "plugin 'leaver' of leaver " in leaver
    assert "SystemExit: not me" in leaver
    assert "plugin 'watcher' of watcher " in watcher
    assert "ValueError: not me" in watcher


CHATTY = f"""{GOOD}
    from grokkit_cyclotron import plugin as cyclotron

    published = next(item for item in cyclotron.grokkit_components() if item.id == "cyclotron/published")

    @hookimpl
    def grokkit_components():
        yield TaskSpec(
            "chatty", cyclotron.SIGNATURE, target="chatty_law:Chatty", parameters=[Field("dt", default=0.05)]
        )
        yield RecipeSpec(
            "chatty/published",
            task="chatty",
            architecture="grokkit_cyclotron/topobrain",
            target="grokkit_cyclotron.recipes:Published",
            parameters=published.parameters,
        )
"""
CHATTY_LAW = """
    from grokkit_cyclotron.law import Cyclotron

    print("noise at import")


    class Chatty(Cyclotron):
        evaluation = Cyclotron.evaluation[:1]

        def sample(self, n, **where):
            print("noise while sampling")
            return super().sample(n, **where)
"""


def test_what_a_task_prints_while_it_is_trained_does_not_reach_stdout(site: Path, shell: Shell, library: Path) -> None:
    plant(site, "chatty", CHATTY)
    (site / "chatty_law.py").write_text(dedent(CHATTY_LAW))
    outcome = shell("--library", library, "train", "chatty", *TRAIN, path=(site,))
    assert outcome.code == 0, outcome.err
    assert set(outcome.json) == {"runs"}


def test_a_task_without_a_recipe_cannot_be_trained_and_the_message_says_just_that(site: Path, shell: Shell) -> None:
    outcome = shell("train", "good", path=(plant(site, "bare", hook(spec("task"))),))
    assert outcome.code in (4, 5)
    assert "several" not in outcome.err
    assert "recipe" in outcome.err
