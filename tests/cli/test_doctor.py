"""`grokkit doctor`."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Cli = Callable[..., Any]
Package = Callable[..., None]


def faults(cli: Cli, *arguments: object) -> dict[str, str]:
    """The faults that doctor finds, by check; its exit code must say the same."""
    done = cli("doctor", "--json", *arguments)
    found = {check["name"]: check["detail"] for check in done.json["checks"] if not check["ok"]}
    assert done.code == bool(found)
    return found


def test_doctor_has_the_documented_json_keys(cli: Cli, trained: Path) -> None:
    done = cli("doctor", "--library", trained, "--json")
    assert (done.code, done.err) == (0, "")
    assert list(done.json) == ["checks"]
    assert all(set(check) >= {"name", "ok", "detail"} for check in done.json["checks"])


def test_a_healthy_installation_shows_versions_libraries_and_plugins(cli: Cli, trained: Path) -> None:
    done = cli("doctor", "--library", trained)
    assert (done.code, done.err) == (0, "")
    for word in ("python", "torch", "safetensors", "library --library", "plugin cyclotron", "saving"):
        assert word in done.out
    assert "FAULT" not in done.out


def test_doctor_says_where_new_cassettes_go(cli: Cli, library: Path) -> None:
    checks = {check["name"]: check["detail"] for check in cli("doctor", "--library", library, "--json").json["checks"]}
    assert str(library) in checks["saving"]


def test_doctor_changes_nothing(cli: Cli, shelf: Path, snapshot: Callable[..., Any]) -> None:
    before = snapshot(shelf)
    cli("doctor", "--library", shelf)
    assert snapshot(shelf) == before


def test_a_cassette_that_cannot_be_read_is_a_fault(cli: Cli, shelf: Path) -> None:
    (shelf / "alpha" / "1" / "manifest.json").write_text("{}")
    assert "cassette alpha@1" in faults(cli, "--library", shelf)
    done = cli("doctor", "--library", shelf)
    assert (done.code, done.err) == (1, "")
    assert "FAULT" in done.out


@pytest.mark.parametrize("damage", ["altered", "missing"])
def test_a_cassette_with_damaged_weights_is_a_fault(cli: Cli, shelf: Path, damage: str) -> None:
    path = shelf / "alpha" / "1" / "weights.safetensors"
    path.unlink() if damage == "missing" else path.write_bytes(path.read_bytes()[:-1] + b"\0")
    assert "cassette alpha@1" in faults(cli, "--library", shelf)


@pytest.mark.parametrize(("place", "says"), [("/proc/grokkit", "/proc"), ("/dev/null", "/dev/null")])
def test_a_library_that_cannot_be_written_is_a_fault(cli: Cli, place: str, says: str) -> None:
    assert says in faults(cli, "--library", place)["saving"]


def test_a_full_disk_is_a_fault_and_no_probe_is_left(
    cli: Cli, shelf: Path, snapshot: Callable[..., Any], full_disk: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Path.write_bytes

    def write_bytes(self: Path, data: bytes) -> int:
        original(self, b"")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = snapshot(shelf)
    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    assert "ENOSPC" in faults(cli, "--library", shelf)["saving"]
    assert snapshot(shelf) == before


def test_an_unsafe_library_from_the_environment_is_a_fault(
    cli: Cli, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library.mkdir()
    library.chmod(0o777)
    monkeypatch.setenv("GROKKIT_LIBRARY", str(library))
    assert "chmod go-w" in faults(cli)["library $GROKKIT_LIBRARY"]


def test_a_broken_plugin_is_a_fault_with_a_remedy(cli: Cli, package: Package) -> None:
    package("planted", "raise RuntimeError('out of order')", distribution="planted-dist")
    (detail,) = faults(cli).values()
    for word in ("planted-dist", "out of order", "pip uninstall"):
        assert word in detail


def test_a_plugin_that_prints_while_it_loads_is_a_fault(cli: Cli, package: Package) -> None:
    package("planted", "print('hello')")
    (detail,) = faults(cli).values()
    assert "hello" in detail


def test_a_plugin_that_was_switched_off_is_no_fault(
    cli: Cli, package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    package("planted", "raise RuntimeError('out of order')")
    monkeypatch.setenv("GROKKIT_PLUGINS", "grokkit")
    assert faults(cli) == {}
