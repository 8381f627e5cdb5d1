"""What reaches a terminal: nothing raw from data, nothing broken on narrow, ASCII, closed or full outputs."""

from __future__ import annotations

import copy
import json
import os
import pty
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grokkit_core import strictjson

Cli = Callable[..., Any]
Forge = Callable[..., None]
Package = Callable[..., None]

CONTROLS = [chr(code) for code in (*range(0x20), *range(0x7F, 0xA0))]
"""C0, DEL and C1."""

BIDI = [chr(code) for code in (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))]
INVISIBLE = [chr(code) for code in (0xAD, 0x200B, 0x200C, 0x200D, 0x2028, 0x2029, 0x2060, 0xFEFF, 0xE0041)]
HOSTILE = frozenset(CONTROLS + BIDI + INVISIBLE)
EVIL = "\x1b[31m\x9b2J\x07\x7f\u202egpj\u2066\u2028"
"""A little of everything."""

NODE = "cyclotron-1node"
MANIFEST = Path(__file__).parents[2] / "cassettes" / "grokkit_cassettes" / NODE / "1" / "manifest.json"


def assert_clean(*texts: str) -> None:
    """No control, bidi or invisible character but the line ends that Grokkit itself prints."""
    for text in texts:
        raw = sorted({f"U+{ord(char):04X}" for char in text if char in HOSTILE and char != "\n"})
        assert not raw, f"{raw} in {text[:300]!r}"


def clean(done: Any) -> Any:
    assert_clean(done.out, done.err)
    assert "Traceback" not in done.err
    return done


# -- manifests ---------------------------------------------------------------------------------------------------------


def template() -> dict[str, Any]:
    """A manifest in which every text field that there is holds a text."""
    body: dict[str, Any] = json.loads(MANIFEST.read_text())
    del body["digest"]
    certificate, provenance = body["certificate"], body["provenance"]
    certificate["formula"] = ["y = x"]
    certificate["bounds"] = [{"name": "max error", "value": 1.0, "unit": "m"}]
    for figures in ("metrics", "baselines"):
        certificate[figures] = certificate[figures][:1]
        certificate[figures][0]["where"] = {"phase": "random"}
    provenance["curve"]["rows"] = provenance["curve"]["rows"][:2]
    provenance["operator"] = {"id": "grow", "note": "text"}
    provenance["gate"] = {"id": "flat", "note": "text"}
    provenance["parents"] = [{"name": "alpha", "version": 1, "digest": "sha256:" + "0" * 64}]
    provenance["recipe"]["parameters"] = {"note": "text"}
    body["task"]["parameters"] = {"note": "text"}
    body["architecture"]["config"] = {"note": "text"}
    body["requires"]["plugins"], body["tags"], body["extra"] = ["grokkit"], ["tag"], {"note": "text"}
    for role in ("inputs", "outputs", "context"):
        body[role] = body[role][:1]
    return body


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every text in a JSON value, and of every key (a path that ends with `None`)."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield (*path, key, None)
            yield from places(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from places(item, (*path, index))
    elif isinstance(value, str):
        yield path


def put(body: dict[str, Any], path: Sequence[Any], text: str) -> None:
    """Replace the text (or, where the path ends with `None`, the key) at a path."""
    *way, last = path[:-1] if path[-1] is None else path
    place: Any = body
    for step in way:
        place = place[step]
    if path[-1] is None:
        place[f"{last}{text}"] = place.pop(last)
    else:
        place[last] = text


PLACES = list(places(template()))


@pytest.fixture
def card(trained: Path, library: Path, forge: Forge) -> Callable[[Sequence[Any], str], Path]:
    """`card(path, text)`: a library with one cassette `alpha@1` whose manifest holds the text at that place."""

    def make(path: Sequence[Any], text: str) -> Path:
        shutil.rmtree(library, ignore_errors=True)
        shutil.copytree(trained / "alpha", library / "alpha")

        def change(body: dict[str, Any]) -> None:
            body.update(copy.deepcopy(template()), name="alpha", weights=body["weights"])
            put(body, path, text)

        forge(library / "alpha" / "1", change)
        return library

    return make


def look(cli: Cli, library: Path) -> list[Any]:
    """What every command that only describes says of `alpha` in a library."""
    lines = ("list", "show alpha", "compose alpha alpha --dry-run", "show alpha --json")
    return [clean(cli(*line.split(), "--no-plugins", "--library", library)) for line in lines]


@pytest.mark.parametrize("path", PLACES, ids=lambda path: ".".join("key" if p is None else str(p) for p in path))
def test_no_text_of_a_manifest_reaches_the_terminal_raw(
    cli: Cli, card: Callable[..., Path], path: tuple[Any, ...]
) -> None:
    assert look(cli, card(path, "".join(BIDI + INVISIBLE)))[-1].out.isascii()


@pytest.mark.parametrize("path", PLACES, ids=lambda path: ".".join("key" if p is None else str(p) for p in path))
def test_no_text_of_a_manifest_may_hold_a_control_character(
    cli: Cli, card: Callable[..., Path], path: tuple[Any, ...]
) -> None:
    library = card(path, "".join(CONTROLS))
    clean(cli("list", "--no-plugins", "--library", library))
    assert clean(cli("show", "alpha", "--no-plugins", "--library", library)).code == 3


@pytest.mark.parametrize("char", CONTROLS, ids=lambda char: f"U+{ord(char):04X}")
def test_every_control_character_is_refused(cli: Cli, card: Callable[..., Path], char: str) -> None:
    library = card(("summary",), f"a{char}b")
    assert clean(cli("show", "alpha", "--no-plugins", "--library", library)).code == 3


@pytest.mark.parametrize("char", BIDI + INVISIBLE, ids=lambda char: f"U+{ord(char):04X}")
def test_every_format_character_is_shown_as_a_replacement(cli: Cli, card: Callable[..., Path], char: str) -> None:
    shown = clean(cli("show", "alpha", "--no-plugins", "--library", card(("summary",), f"a{char}b")))
    assert "a\ufffdb" in shown.out


@pytest.mark.parametrize(
    "path", [("summary",), ("certificate", "statement"), ("certificate", "domain"), ("license",), ("tags",)]
)
def test_commands_that_compute_show_nothing_raw_either(
    cli: Cli, shelf: Path, forge: Forge, states: Path, path: tuple[str, ...]
) -> None:
    text: Any = ["".join(BIDI)] if path == ("tags",) else "".join(BIDI)
    forge(shelf / "alpha" / "1", lambda body: put(body, path, text))
    for words in (
        ["verify", "alpha"],
        ["run", "alpha", "--input", states],
        ["compose", "alpha", "beta"],
        ["import", shelf / "alpha" / "1", "--as", "again"],
        ["remove", "alpha"],
    ):
        assert clean(cli(*words, "--library", shelf)).code == 0


def test_a_manifest_that_lies_about_its_metric_is_safe_in_the_reasons_of_verify(
    cli: Cli, shelf: Path, forge: Forge
) -> None:
    evil = "".join(BIDI)

    def change(body: dict[str, Any]) -> None:
        body["certificate"]["metrics"][0].update(name=evil, where={evil: evil})
        body["certificate"]["baselines"][0].update(name=evil, where={evil: evil})

    forge(shelf / "alpha" / "1", change)
    assert clean(cli("verify", "alpha", "--library", shelf)).code == 1


# -- arguments, file names, plugins, errors ----------------------------------------------------------------------------

ARGUMENTS = [
    "{x}",
    "--{x}",
    "show {x}",
    "show ./{x}",
    f"show {NODE}@{{x}}",
    "show --{x}",
    "show a {x}",
    "verify {x}",
    f"verify {NODE} --level {{x}}",
    f"verify {NODE} --seed {{x}}",
    f"verify {NODE} --dtype {{x}}",
    "bench {x}",
    f"bench {NODE} --dtype {{x}}",
    f"bench {NODE} --threads {{x}}",
    f"bench {NODE} --set {{x}}",
    f"bench {NODE} --set {{x}}=1",
    "remove {x}",
    "remove ./{x}",
    "import {x}",
    f"import {MANIFEST.parent} --as {{x}}",
    "list --task {x}",
    "list --library {x}",
    "doctor --library {x}",
    "train {x}",
    "train {x}/{x}",
    "train cyclotron --recipe {x}",
    "train cyclotron --set {x}",
    "train cyclotron --set {x}=1",
    "train cyclotron --set epochs={x}",
    "train cyclotron --seeds {x}",
    "train cyclotron --name {x}",
    "train cyclotron --resume {x}",
    "train cyclotron --dtype {x}",
    f"compose {NODE} {{x}}",
    f"compose {NODE} {NODE} --gate {{x}}",
    f"compose {NODE} {NODE} --gate {{x}}/{{x}}",
    f"compose {NODE} {NODE} --fusion {{x}}",
    f"compose {NODE} {NODE} --set {{x}}=1",
    f"compose {NODE} {NODE} --calibrate {{x}}",
    f"compose {NODE} {NODE} --calibrate {{x}}=1",
    f"compose {NODE} {NODE} --name {{x}}",
    f"run {NODE} --input {{x}}",
    f"run {NODE} --input {{x}}.npy",
    f"run {NODE} --input states.npy --output {{x}}",
    f"run {NODE} --input states.npy --output {{x}}/made.npy",
    f"run {NODE} --input states.npy --context {{x}}",
    f"run {NODE} --input states.npy --context {{x}}=1",
    f"run {NODE} --input states.npy --key {{x}}",
    f"run {NODE} --input states.npy --steps {{x}}",
]


@pytest.mark.parametrize("line", ARGUMENTS)
def test_no_argument_comes_back_raw(cli: Cli, states: Path, monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    monkeypatch.chdir(states.parent)
    chars = sorted(HOSTILE - {"\0"}) + ["\udcff", "\ud800"]
    for start in range(0, len(chars), 15):
        text = "x" + "x".join(chars[start : start + 15]) + "x"
        clean(cli(*(word.replace("{x}", text) for word in line.split())))


@pytest.mark.parametrize("char", sorted(HOSTILE - {"\0"}), ids=lambda char: f"U+{ord(char):04X}")
def test_no_character_of_a_name_comes_back_raw(cli: Cli, char: str) -> None:
    assert clean(cli("show", f"a{char}b")).code == 2


def test_bytes_that_are_not_utf8_come_back_as_replacements(cli: Cli) -> None:
    assert "'a\ufffdb'" in clean(cli("show", os.fsdecode(b"a\xffb"))).err


def test_entries_of_a_folder_are_shown_safely(cli: Cli, shelf: Path) -> None:
    for number, char in enumerate(sorted(HOSTILE - {"\0"})):
        folder = shelf / f"name{number}" / "1"
        folder.mkdir(parents=True)
        (folder / f"x{char}y").touch()
        assert clean(cli("show", folder)).code == 3
    for words in (["list"], ["doctor"], ["list", "--json"], ["doctor", "--json"]):
        clean(cli(*words, "--library", shelf))


@pytest.mark.parametrize("words", [["list"], ["doctor"], ["show", "alpha"], ["show", "alhpa"], ["verify", "broken"]])
def test_the_name_of_a_library_is_shown_safely(cli: Cli, shelf: Path, words: list[str]) -> None:
    place = shelf.rename(shelf.with_name(EVIL))
    (place / "broken" / "1").mkdir(parents=True)
    for how in ([], ["--json"]):
        clean(cli(*words, *how, "--library", place))


def test_the_names_of_input_and_output_files_are_shown_safely(cli: Cli, states: Path, tmp_path: Path) -> None:
    given = states.rename(tmp_path / f"{EVIL}.npy")
    assert clean(cli("run", NODE, "--input", given, "--output", tmp_path / f"made{EVIL}.npy")).code == 0
    done = clean(cli("run", NODE, "--input", given, "--output", tmp_path / f"made{EVIL}.npy", "--json"))
    assert done.out.isascii()


@pytest.mark.parametrize("kind", ["npz", "json", "safetensors"])
def test_names_inside_an_input_file_are_shown_safely(cli: Cli, tmp_path: Path, kind: str) -> None:
    import safetensors.numpy

    path, name = tmp_path / f"input.{kind}", EVIL
    if kind == "npz":
        np.savez(path, **{name: np.array(["text"])})
    elif kind == "json":
        path.write_text(json.dumps({name: "text"}))
    else:
        safetensors.numpy.save_file({name: np.zeros(3, dtype=np.float32)}, path)
    assert clean(cli("run", NODE, "--input", path)).code == 4


@pytest.mark.parametrize("words", [["plugins"], ["tasks"], ["list"], ["doctor"], ["show", NODE]])
@pytest.mark.parametrize("how", [[], ["--json"]])
def test_the_error_of_a_plugin_is_shown_safely(cli: Cli, package: Package, words: list[str], how: list[str]) -> None:
    package("planted", f"raise RuntimeError({EVIL!r})")
    done = clean(cli(*words, *how))
    assert "planted" in done.err
    assert not how or done.out.isascii()


@pytest.mark.parametrize("words", [["plugins"], ["tasks"], ["list"], ["doctor"]])
@pytest.mark.parametrize("how", [[], ["--json"]])
def test_the_name_of_a_plugin_is_shown_safely(cli: Cli, package: Package, words: list[str], how: list[str]) -> None:
    evil = EVIL.replace("\u2028", "")
    package(f"planted{evil}", "raise RuntimeError", distribution=f"dist{evil}", version=f"1{evil}")
    done = clean(cli(*words, *how))
    assert "planted" in done.err


def test_what_a_plugin_prints_while_it_loads_is_shown_safely(cli: Cli, package: Package) -> None:
    package("planted", f"print({EVIL!r})")
    assert "printed" in clean(cli("list")).err


@pytest.mark.parametrize("how", [[], ["--json"]])
def test_the_summary_of_a_plugins_gate_is_shown_safely(cli: Cli, package: Package, how: list[str]) -> None:
    package(
        "planted",
        f"""
        from grokkit_core import hookimpl
        from grokkit_core.specs import GateSpec

        @hookimpl
        def grokkit_components():
            yield GateSpec("planted/gate", target="planted:Gate", summary={EVIL!r})
        """,
    )
    done = clean(cli("tasks", *how))
    assert "planted/gate" in done.out


def test_a_gate_that_cannot_be_built_is_named_safely(cli: Cli, package: Package) -> None:
    package(
        "planted",
        f"""
        from grokkit_core import hookimpl
        from grokkit_core.specs import GateSpec

        @hookimpl
        def grokkit_components():
            yield GateSpec("planted/gate", target="planted_gate_that_is_missing:Gate", summary={EVIL!r})
        """,
    )
    done = clean(cli("compose", NODE, "cyclotron-8node", "--gate", "planted/gate"))
    assert done.code == 4
    assert "planted/gate" in done.err


@pytest.mark.parametrize("error", [RuntimeError(EVIL), OSError(28, EVIL), ValueError("a\x1bb\nc")])
def test_an_unexpected_error_is_shown_safely(cli: Cli, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(**named: object) -> None:
        raise error

    monkeypatch.setattr("grokkit_cli.commands.list_.list_cassettes", fail)
    assert len(clean(cli("list")).err.splitlines()) == 1


def test_a_traceback_shows_no_text_from_data_raw(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**named: object) -> None:
        raise RuntimeError(EVIL)

    monkeypatch.setattr("grokkit_cli.commands.list_.list_cassettes", fail)
    done = cli("list", "--debug")
    assert "Traceback" in done.err
    assert_clean(done.out, done.err)


def test_names_of_runs_and_texts_of_checkpoints_are_shown_safely(cli: Cli, library: Path) -> None:
    home = Path(os.environ["XDG_STATE_HOME"]) / "grokkit" / "runs"
    (home / EVIL).mkdir(parents=True)
    assert clean(cli("train", "cyclotron", "--resume", "nothing", "--library", library)).code == 5
    assert clean(cli("train", "cyclotron", "--resume", home / EVIL, "--library", library)).code == 5
    (home / "run" / "3").mkdir(parents=True)
    (home / "run" / "3" / "state.json").write_bytes(strictjson.canonical({EVIL: EVIL}))
    (home / "run" / "3" / "state.safetensors").touch()
    assert clean(cli("train", "cyclotron", "--resume", "run", "--library", library)).code == 3


@pytest.mark.parametrize(
    "words",
    [
        ["list"],
        ["show", "alpha"],
        ["tasks"],
        ["plugins"],
        ["doctor"],
        ["verify", "alpha"],
        ["compose", "alpha", "beta", "--dry-run"],
        ["compose", "alpha", "beta"],
        ["remove", "alpha"],
    ],
)
def test_json_is_pure_ascii(cli: Cli, shelf: Path, forge: Forge, words: list[str]) -> None:
    place = shelf.rename(shelf.with_name("bücherei ☃"))
    forge(place / "alpha" / "1", lambda body: body.update(summary="naïve ☃ 圆", license="©"))
    done = cli(*words, "--json", "--library", place)
    assert (done.code, done.out.isascii()) == (0, True)
    assert done.json


# -- narrow, ASCII, closed, full and broken outputs --------------------------------------------------------------------


def words_of(text: str) -> set[str]:
    """Figures and references in a text."""
    return set(re.findall(r"(?<!\S)[±\d.e+-]+%?(?!\S)|[a-z0-9-]+@\d+", text))


@pytest.mark.parametrize(
    "line", ["list", f"show {NODE}", f"verify {NODE}", f"compose {NODE} cyclotron-8node", "tasks", "plugins", "doctor"]
)
def test_at_sixty_columns_no_figure_or_reference_is_broken(
    cli: Cli, library: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    wide = cli(*line.split(), "--library", library).out
    shutil.rmtree(library, ignore_errors=True)
    monkeypatch.setattr("grokkit_cli.render.PLAIN_WIDTH", 60)
    narrow = cli(*line.split(), "--library", library).out
    assert max(map(len, narrow.splitlines())) <= 60
    assert words_of(wide) - words_of(narrow) == set()


def on_terminal(arguments: Sequence[str], columns: int) -> str:
    """What a command prints on a terminal of that width."""
    leader, follower = pty.openpty()
    try:
        import fcntl
        import struct
        import termios

        fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        environ = {**os.environ, "TERM": "xterm"}
        environ.pop("COLUMNS", None)
        child = subprocess.Popen(
            [sys.executable, "-m", "grokkit_cli", *arguments], stdout=follower, stderr=follower, env=environ
        )
        os.close(follower)
        printed = b""
        while True:
            try:
                part = os.read(leader, 65_536)
            except OSError:
                break
            if not part:
                break
            printed += part
        assert child.wait(60) == 0
    finally:
        os.close(leader)
    return printed.decode()


def test_a_terminal_of_sixty_columns_is_respected() -> None:
    printed = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", on_terminal(["list"], 60))
    assert max(len(line.rstrip("\r")) for line in printed.splitlines()) <= 60
    assert NODE in printed


def test_away_from_a_terminal_there_is_no_colour(cli: Cli, trained: Path) -> None:
    for words in (["list"], ["show", "alpha"], ["doctor"], ["verify", "alpha"]):
        assert "\x1b" not in cli(*words, "--library", trained).out


@pytest.mark.parametrize(("line", "code"), [("list", 0), (f"show {NODE}", 0), ("show ☃", 2)])
def test_an_output_without_unicode_is_no_fault(shell: Cli, line: str, code: int) -> None:
    done = shell(*line.split(), PYTHONIOENCODING="ascii", LC_ALL="C")
    assert done.code == code, done.err
    assert "Traceback" not in done.err
    assert (NODE if code == 0 else "not a cassette name") in done.out + done.err


def test_a_composition_is_shown_on_an_output_without_unicode(library: Path) -> None:
    code = (
        "import sys\nfrom grokkit_core.certify.sampled import SAMPLES\nSAMPLES.update(full=50)\n"
        "from grokkit_cli.__main__ import main\nmain(sys.argv[1:])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "compose", NODE, "cyclotron-8node", "--library", library],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C"},
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "wins " in done.stdout


def grokkit(line: str) -> str:
    return f"{shlex.quote(sys.executable)} -m grokkit_cli {line}"


@pytest.mark.parametrize("line", ["list", "list --json", f"show {NODE}", "--help"])
def test_a_reader_that_goes_away_is_no_fault(line: str) -> None:
    with subprocess.Popen(shlex.split(grokkit(line)), stdout=-1, stderr=-1, text=True) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.close()
        assert (child.stderr.read(), child.wait(60)) == ("", 0)


def test_a_rollout_stops_when_its_reader_goes_away(states: Path) -> None:
    line = grokkit(f"run {NODE} --input {states} --steps 1000000")
    with subprocess.Popen(shlex.split(line), stdout=-1, stderr=-1, text=True) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        assert child.stdout.readline().startswith("[")
        child.stdout.close()
        assert (child.stderr.read(), child.wait(60)) == ("", 0)


@pytest.mark.parametrize("line", ["list", "list --json", "--version", "show nothing"])
def test_a_closed_stdout_is_no_fault_of_grokkit(line: str) -> None:
    done = subprocess.run(["sh", "-c", f"exec {grokkit(line)} >&-"], stderr=-1, text=True, timeout=60, check=False)
    assert "Traceback" not in done.stderr
    assert "internal error" not in done.stderr
    assert done.returncode in (0, 5, 6)


@pytest.mark.parametrize("line", ["list", "list --json", "--help"])
def test_a_full_disk_behind_stdout_is_a_storage_error(line: str) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            shlex.split(grokkit(line)), stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False
        )
    assert done.returncode == 6
    assert len(done.stderr.splitlines()) == 1
    assert "ENOSPC" in done.stderr
    assert "--library" not in done.stderr, "the library is not to blame"


def test_a_closed_stdin_is_no_fault_of_grokkit(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    done = cli("run", NODE, "--input", "-")
    assert done.code in (4, 5, 6), done.err
    assert "internal error" not in done.err
    assert len(done.err.splitlines()) == 1
