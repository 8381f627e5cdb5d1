"""Completion in bash, zsh and fish."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Complete = Callable[..., tuple[list[str], str]]
SHELLS = ("bash", "zsh", "fish")


def plain(offered: tuple[list[str], str]) -> list[str]:
    """The words that bash is offered."""
    return [line.partition(",")[2] for line in offered[0] if line.startswith("plain,")]


@pytest.mark.parametrize("name", SHELLS)
def test_each_shell_gets_its_script(shell: Callable[..., Any], name: str) -> None:
    done = shell(_GROKKIT_COMPLETE=f"{name}_source")
    assert (done.code, done.err) == (0, "")
    assert f"_GROKKIT_COMPLETE={name}_complete" in done.out


@pytest.mark.parametrize("name", SHELLS)
def test_each_shell_is_offered_cassette_names(complete: Complete, name: str) -> None:
    lines, err = complete("show", "cyclotron-1", shell=name)
    assert "cyclotron-1node" in "\n".join(lines)
    assert "cyclotron-8node" not in "\n".join(lines)
    assert err == ""


def test_commands_are_offered(complete: Complete) -> None:
    assert plain(complete("ver")) == ["verify"]
    assert {"compose", "train", "run"} <= set(plain(complete("")))


@pytest.mark.parametrize("command", ["show", "verify", "bench", "compose", "run", "remove"])
def test_every_command_that_takes_a_cassette_offers_their_names(complete: Complete, command: str) -> None:
    assert "cyclotron-8node" in plain(complete(command, "cyc"))


@pytest.mark.parametrize("before", [True, False])
def test_a_named_library_takes_part(complete: Complete, trained: Path, before: bool) -> None:
    option = ("--library", str(trained))
    words = (*option, "show", "al") if before else ("show", *option, "al")
    assert plain(complete(*words)) == ["alpha"]


def test_a_second_member_is_offered_too(complete: Complete) -> None:
    assert "cyclotron-8node" in plain(complete("compose", "cyclotron-1node", "cyclotron-8"))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("train", "cyc"), "cyclotron"),
        (("train", "cyclotron", "--recipe", "pub"), "published"),
        (("list", "--task", ""), "cyclotron"),
        (("compose", "--gate", "spec"), "spectral"),
        (("compose", "--fusion", "ens"), "ensemble"),
        (("verify", "--level", "q"), "quick"),
        (("run", "--device", "a"), "auto"),
        (("train", "cyclotron", "--dtype", ""), "float64"),
        (("train", "cyclotron", "--see"), "--seeds"),
    ],
)
def test_names_of_components_and_choices_are_offered(complete: Complete, words: tuple[str, ...], expected: str) -> None:
    assert expected in plain(complete(*words))


@pytest.mark.parametrize("words", [("run", "x", "--input", "da"), ("run", "x", "--output", "da"), ("import", "da")])
def test_file_names_are_left_to_the_shell(complete: Complete, words: tuple[str, ...]) -> None:
    assert complete(*words)[0] == ["file,da"]


def test_an_unreadable_cassette_does_not_stop_completion(complete: Complete, shelf: Path) -> None:
    (shelf / "alpha" / "1" / "manifest.json").write_text("{}")
    assert "beta" in plain(complete("show", "--library", str(shelf), "b"))


def test_a_faulty_plugin_does_not_write_over_the_prompt(complete: Complete, package: Callable[..., None]) -> None:
    package("planted", "raise RuntimeError('out of order')")
    offered = complete("show", "cyclotron-1")
    assert plain(offered) == ["cyclotron-1node"]
    assert offered[1] == ""


def test_a_name_whose_versions_are_all_gone_is_not_offered(complete: Complete, shelf: Path, cli: Any) -> None:
    assert cli("remove", "alpha", "--library", shelf).code == 0
    assert plain(complete("show", "--library", str(shelf), "al")) == []


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_itself_completes_a_name(tmp_path: Path) -> None:
    program = tmp_path / "bin" / "grokkit"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m grokkit_cli "$@"\n')
    program.chmod(0o755)
    script = (
        f'export PATH="{program.parent}:$PATH"\n'
        'eval "$(_GROKKIT_COMPLETE=bash_source grokkit)"\n'
        "COMP_WORDS=(grokkit show cyclotron-8) COMP_CWORD=2\n"
        '_grokkit_completion grokkit\necho "${COMPREPLY[@]}"\n'
    )
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.strip() == "cyclotron-8node"
