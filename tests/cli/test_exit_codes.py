"""Exit codes, the one line of an error, `--debug`, `--help`, and global options before and after the command."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from grokkit_cli.main import COMMANDS
from grokkit_cli.main import cli as program

Cli = Callable[..., Any]
Refused = Callable[..., str]
TRACEBACK = "Traceback (most recent call last)"


def raising(error: BaseException) -> Callable[..., None]:
    def call(*arguments: object, **named: object) -> None:
        raise error

    return call


@pytest.fixture
def listing(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """Makes `grokkit list` fail with an exception."""
    return lambda error: monkeypatch.setattr("grokkit_cli.commands.list_.list_cassettes", raising(error))


# -- the codes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [["list"], ["tasks"], ["plugins"], ["doctor"], ["show", "cyclotron-1node"]])
def test_zero_is_success(cli: Cli, words: list[str]) -> None:
    done = cli(*words)
    assert (done.code, done.err) == (0, "")
    assert done.out


@pytest.mark.parametrize(
    "words",
    [
        ["lits"],
        ["list", "surplus"],
        ["list", "--unknown"],
        ["show"],
        ["show", "No Name"],
        ["run", "cyclotron-1node"],
        ["verify", "cyclotron-1node", "--level", "deep"],
        ["bench", "cyclotron-1node", "--threads", "none"],
        ["compose", "cyclotron-1node"],
        ["train", "cyclotron", "--seed", "one"],
        ["train", "cyclotron", "--set"],
        ["import"],
        ["remove"],
    ],
)
def test_two_is_a_wrong_call(refused: Refused, words: list[str]) -> None:
    refused(2, *words)


def test_one_is_a_check_that_failed(cli: Cli, shelf: Path) -> None:
    (shelf / "alpha" / "1" / "manifest.json").write_text("{}")
    assert cli("doctor", "--library", shelf).code == 1


def test_three_is_a_broken_cassette(refused: Refused, shelf: Path) -> None:
    (shelf / "alpha" / "1" / "manifest.json").write_text("{}")
    refused(3, "show", "alpha", "--library", shelf)


def test_four_is_what_does_not_fit(refused: Refused) -> None:
    refused(4, "compose", "cyclotron-1node", "cyclotron-8node", "--gate", "foo/bar", says=("pip install foo",))


@pytest.mark.parametrize(
    "words",
    [
        ["show", "cyclotron-2node"],
        ["remove", "nothing"],
        ["verify", "nothing"],
        ["bench", "nothing"],
        ["train", "nothing"],
        ["import", "/nothing"],
        ["compose", "nothing", "nothing"],
        ["compose", "cyclotron-1node", "cyclotron-8node", "--gate", "nothing"],
    ],
)
def test_five_is_an_unknown_name(refused: Refused, words: list[str]) -> None:
    refused(5, *words)


def test_six_is_storage(refused: Refused, trained: Path) -> None:
    refused(6, "import", trained / "alpha" / "1", "--library", "/dev/null", says=("/dev/null", "--library"))


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), 6),
        (PermissionError(errno.EACCES, os.strerror(errno.EACCES)), 6),
        (OSError(errno.EMFILE, os.strerror(errno.EMFILE)), 6),
        (MemoryError(), 6),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 320000000000 bytes."), 6),
    ],
)
def test_what_the_system_refuses_is_storage(
    refused: Refused, listing: Callable[..., None], error: Exception, code: int
) -> None:
    listing(error)
    refused(code, "list")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), click.Abort()])
def test_130_is_an_interruption(cli: Cli, listing: Callable[..., None], error: BaseException) -> None:
    listing(error)
    done = cli("list")
    assert (done.code, done.out, done.err.strip()) == (130, "", "grokkit: interrupted")


def test_a_fault_of_grokkit_itself_asks_for_a_report(cli: Cli, listing: Callable[..., None]) -> None:
    listing(RuntimeError("the moon is full"))
    done = cli("list")
    assert (done.code, done.out) == (1, "")
    (line,) = done.err.splitlines()
    for word in ("internal error", "RuntimeError", "the moon is full", "--debug"):
        assert word in line


# -- messages ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ["lits"],
        ["show", "nothing"],
        ["show", "/nothing"],
        ["train", "cyclotron", "--set", "epochs=x"],
        ["run", "cyclotron-1node", "--input", "nothing.npy"],
        ["compose", "cyclotron-1node", "cyclotron-8node", "--gate", "nothing"],
    ],
)
@pytest.mark.parametrize("json", [[], ["--json"]])
def test_an_error_leaves_stdout_empty(cli: Cli, words: list[str], json: list[str]) -> None:
    done = cli(*words, *(json if len(words) > 1 else []))
    assert done.code
    assert done.out == ""
    assert len(done.err.splitlines()) == 1
    assert done.err.startswith("grokkit: ")


def test_an_unknown_command_suggests_the_nearest(refused: Refused) -> None:
    refused(2, "compse", says=("'compse'", "did you mean 'compose'?"))


@pytest.mark.parametrize("before", [True, False])
def test_debug_shows_a_traceback_and_the_same_message(cli: Cli, before: bool) -> None:
    plain = cli("show", "nothing")
    words = ("--debug", "show", "nothing") if before else ("show", "nothing", "--debug")
    done = cli(*words)
    assert (done.code, done.out) == (5, "")
    assert TRACEBACK in done.err
    assert done.err.splitlines()[-1] == plain.err.strip()
    assert TRACEBACK not in plain.err


# -- global options ----------------------------------------------------------------------------------------------------


def test_a_library_may_be_named_before_and_after_the_command(cli: Cli, trained: Path) -> None:
    before = cli("--library", trained, "show", "alpha", "--json")
    after = cli("show", "alpha", "--json", "--library", trained)
    assert before == after
    assert before.code == 0


def test_libraries_before_the_command_come_first(cli: Cli, shelf: Path, trained: Path) -> None:
    listed = cli("--library", shelf, "list", "--library", trained, "--json").json["cassettes"]
    assert [row["problem"] is None for row in listed if row["name"] == "alpha"] == [True, False]


@pytest.mark.parametrize("words", [["--no-plugins", "list", "--json"], ["list", "--json", "--no-plugins"]])
def test_plugins_may_be_switched_off_before_and_after_the_command(cli: Cli, words: list[str]) -> None:
    assert cli(*words).json == {"cassettes": []}


@pytest.mark.parametrize("variable", ["GROKKIT_PLUGINS", "GROKKIT_DISABLE_PLUGINS"])
def test_plugins_may_be_switched_off_by_the_environment(shell: Cli, variable: str) -> None:
    value = {"GROKKIT_PLUGINS": "", "GROKKIT_DISABLE_PLUGINS": "1"}[variable]
    assert shell("list", "--json", **{variable: value}).json == {"cassettes": []}


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_takes_the_global_options_and_json(name: str) -> None:
    command = program.get_command(click.Context(program), name)
    assert command is not None
    options = {option for parameter in command.params for option in parameter.opts}
    assert options >= {"--library", "--no-plugins", "--debug", "--json"}


# -- help --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flag", ["-h", "--help"])
@pytest.mark.parametrize("name", ["", *sorted(COMMANDS)])
def test_help_goes_to_stdout(cli: Cli, name: str, flag: str) -> None:
    done = cli(*filter(None, [name]), flag)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"Usage: grokkit {name}".strip())


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_option_is_explained(name: str) -> None:
    command = program.get_command(click.Context(program), name)
    assert command is not None
    assert command.help
    silent = [p.opts for p in command.params if isinstance(p, click.Option) and not p.help]
    assert silent == []


def test_grokkit_alone_shows_its_commands(cli: Cli) -> None:
    done = cli()
    lines = (done.out + done.err).splitlines()
    assert any(line.split()[:1] == ["compose"] for line in lines)
    assert any(line.split()[:1] == ["verify"] for line in lines)


def test_version_names_grokkit_torch_and_python(cli: Cli) -> None:
    done = cli("--version")
    assert (done.code, done.err) == (0, "")
    for word in ("grokkit ", "torch ", "Python "):
        assert word in done.out
