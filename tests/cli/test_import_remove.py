"""`grokkit import` and `grokkit remove`."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Cli = Callable[..., Any]
Refused = Callable[..., str]
Resave = Callable[..., Any]
Snapshot = Callable[..., Any]
Package = Callable[..., None]

SHIPS = """
    from grokkit_core import hookimpl
    from grokkit_core.specs import CassetteRoot

    @hookimpl
    def grokkit_components():
        yield CassetteRoot("shipped_cassettes")
"""


@pytest.fixture
def shipped(trained: Path, tmp_path: Path, package: Package) -> Path:
    """The folder of `gift@1`, which an installed package ships."""
    root = tmp_path / "site" / "shipped_cassettes"
    root.mkdir(parents=True)
    (root / "__init__.py").touch()
    package("shipper", SHIPS, distribution="gift-shop")
    shutil.copytree(trained, tmp_path / "copy")
    from grokkit_core import saving

    saving.install(root, tmp_path / "copy" / "alpha" / "1", "gift")
    return root / "gift" / "1"


# -- import ------------------------------------------------------------------------------------------------------------


def test_import_has_the_documented_json_keys(cli: Cli, trained: Path, library: Path) -> None:
    done = cli("import", trained / "alpha" / "1", "--library", library, "--json")
    assert (done.code, done.err, done.json) == (0, "", {"name": "alpha", "version": 1})


def test_import_says_what_came(cli: Cli, trained: Path, library: Path) -> None:
    done = cli("import", trained / "beta" / "1", "--library", library)
    assert (done.code, done.out, done.err) == (0, "imported beta@1\n", "")


def test_import_keeps_bytes_name_and_version(
    cli: Cli, shelf: Path, resave: Resave, tmp_path: Path, snapshot: Snapshot
) -> None:
    resave(shelf, "alpha")
    cli("import", shelf / "alpha" / "2", "--library", tmp_path / "other")
    assert snapshot(tmp_path / "other" / "alpha" / "2") == snapshot(shelf / "alpha" / "2")


def test_importing_again_changes_nothing(cli: Cli, trained: Path, library: Path, snapshot: Snapshot) -> None:
    cli("import", trained / "alpha" / "1", "--library", library)
    before = snapshot(library)
    assert cli("import", trained / "alpha" / "1", "--library", library).code == 0
    assert snapshot(library) == before


def test_a_new_name_is_given_with_as(cli: Cli, trained: Path, library: Path) -> None:
    words = ("import", trained / "alpha" / "1", "--as", "mine", "--library", library, "--json")
    assert [cli(*words).json["version"] for _ in range(2)] == [1, 2]
    assert cli("verify", "mine", "--library", library).code == 0


def test_a_version_that_is_taken_by_another_cassette_is_a_conflict(
    refused: Refused, shelf: Path, resave: Resave, trained: Path, tmp_path: Path, snapshot: Snapshot
) -> None:
    shutil.copytree(shelf / "beta", tmp_path / "other" / "beta")
    resave(tmp_path / "other", "beta", name="alpha")
    before = snapshot(shelf)
    refused(
        4, "import", tmp_path / "other" / "alpha" / "1", "--library", shelf, says=("alpha@1", "taken", "--as NAME")
    )  # fmt: skip
    assert snapshot(shelf) == before


def test_a_removed_version_number_is_not_used_again(cli: Cli, refused: Refused, shelf: Path, trained: Path) -> None:
    cli("remove", "alpha", "--library", shelf)
    refused(4, "import", trained / "alpha" / "1", "--library", shelf, says=("alpha@1", "removed", "--as NAME"))


@pytest.mark.parametrize("name", ["No Name", "", "-a", "con"])
def test_a_bad_new_name_is_refused(refused: Refused, trained: Path, library: Path, name: str) -> None:
    refused(2, "import", trained / "alpha" / "1", "--as", name, "--library", library, says=("expected 1 to 64",))
    assert not library.exists()


def test_a_folder_that_is_not_there_is_not_found(refused: Refused, tmp_path: Path, library: Path) -> None:
    refused(5, "import", tmp_path / "none", "--library", library, says=("none",))
    assert not library.exists()


@pytest.mark.parametrize("file", ["manifest.json", "weights.safetensors"])
def test_an_altered_cassette_is_not_imported(refused: Refused, shelf: Path, tmp_path: Path, file: str) -> None:
    path = shelf / "alpha" / "1" / file
    path.write_bytes(path.read_bytes().replace(b"a", b"b", 1))
    refused(3, "import", shelf / "alpha" / "1", "--library", tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("file", ["manifest.json", "weights.safetensors"])
def test_a_cassette_without_one_of_its_files_is_not_imported(
    refused: Refused, shelf: Path, tmp_path: Path, file: str
) -> None:
    (shelf / "alpha" / "1" / file).unlink()
    refused(3, "import", shelf / "alpha" / "1", "--library", tmp_path / "other", says=(file, "missing"))


def test_a_folder_with_other_things_in_it_is_refused(refused: Refused, shelf: Path, tmp_path: Path) -> None:
    (shelf / "alpha" / "1" / "run.sh").touch()
    refused(3, "import", shelf / "alpha" / "1", "--library", tmp_path / "other", says=("run.sh", "expected only"))


def test_a_linked_cassette_is_refused(refused: Refused, shelf: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(shelf / "alpha" / "1")
    refused(3, "import", tmp_path / "link", "--library", tmp_path / "other", says=("link",))


@pytest.mark.parametrize("how", [[], ["--as", "mine"]])
def test_a_full_disk_leaves_the_library_as_it_was(
    refused: Refused, trained: Path, shelf: Path, snapshot: Snapshot, full_disk: None, how: list[str]
) -> None:
    shutil.rmtree(shelf / "alpha")
    before = snapshot(shelf)
    refused(6, "import", trained / "alpha" / "1", *how, "--library", shelf, says=("ENOSPC", "free some space"))
    assert snapshot(shelf) == before


@pytest.mark.parametrize("place", ["/proc/grokkit", "/dev/null/library"])
def test_a_library_that_cannot_be_written_is_refused(refused: Refused, trained: Path, place: str) -> None:
    refused(6, "import", trained / "alpha" / "1", "--library", place, says=(place, "--library"))


def test_a_library_from_the_environment_that_others_can_write_is_refused(
    refused: Refused, trained: Path, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library.mkdir()
    library.chmod(0o777)
    monkeypatch.setenv("GROKKIT_LIBRARY", str(library))
    refused(6, "import", trained / "alpha" / "1", says=("GROKKIT_LIBRARY", "not safe", "chmod go-w"))


# -- remove ------------------------------------------------------------------------------------------------------------


def test_remove_has_the_documented_json_keys(cli: Cli, shelf: Path) -> None:
    done = cli("remove", "alpha", "--library", shelf, "--json")
    assert (done.code, done.err, done.json) == (0, "", {"name": "alpha", "version": 1})


def test_remove_says_what_went(cli: Cli, shelf: Path) -> None:
    done = cli("remove", "alpha@1", "--library", shelf)
    assert (done.code, done.out, done.err) == (0, "removed alpha@1\n", "")
    assert not (shelf / "alpha" / "1").exists()


def test_without_a_pin_the_highest_version_goes(cli: Cli, shelf: Path, resave: Resave) -> None:
    resave(shelf, "alpha")
    cli("remove", "alpha", "--library", shelf)
    assert cli("show", "alpha", "--library", shelf, "--json").json["version"] == 1


def test_a_removed_number_is_skipped_by_the_next_save(cli: Cli, shelf: Path, resave: Resave) -> None:
    resave(shelf, "alpha")
    cli("remove", "alpha@2", "--library", shelf)
    assert resave(shelf, "alpha").version == 3


def test_a_cassette_in_a_library_may_be_removed_by_its_path(cli: Cli, shelf: Path) -> None:
    assert cli("remove", shelf / "alpha" / "1", "--library", shelf).code == 0
    assert not (shelf / "alpha" / "1").exists()


def test_an_unknown_name_suggests_the_nearest(refused: Refused, shelf: Path) -> None:
    refused(5, "remove", "alpah", "--library", shelf, says=("'alpah'", "did you mean 'alpha'?"))


def test_a_name_whose_versions_are_all_gone_is_not_suggested(cli: Cli, refused: Refused, shelf: Path) -> None:
    cli("remove", "alpha", "--library", shelf)
    assert "did you mean 'alpha'" not in refused(5, "remove", "alpha", "--library", shelf)


@pytest.mark.parametrize("ref", ["gift", "gift@1"])
def test_a_shipped_cassette_cannot_be_removed(refused: Refused, shipped: Path, ref: str) -> None:
    refused(6, "remove", ref, says=("gift@1", "shipped by gift-shop", "uninstall"))
    assert (shipped / "manifest.json").exists()


def test_a_shipped_cassette_cannot_be_removed_by_its_path(refused: Refused, shipped: Path, snapshot: Snapshot) -> None:
    before = snapshot(shipped.parent)
    refused(6, "remove", shipped, says=("gift@1", "gift-shop"))
    assert snapshot(shipped.parent) == before


def test_a_folder_outside_every_library_is_not_removed(
    refused: Refused, shelf: Path, tmp_path: Path, snapshot: Snapshot
) -> None:
    exported = shutil.copytree(shelf / "alpha" / "1", tmp_path / "exported")
    before = snapshot(exported)
    refused(6, "remove", exported, says=("exported",))
    assert snapshot(exported) == before
    assert not list(tmp_path.glob(".removed-*"))


def test_what_ships_with_grokkit_cannot_be_removed(refused: Refused) -> None:
    refused(6, "remove", "cyclotron-1node", says=("cyclotron-1node@1", "shipped by grokkit"))


def test_a_library_that_cannot_be_changed_keeps_its_cassette(
    refused: Refused, shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    def rename(*arguments: object, **named: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "rename", rename)
    refused(6, "remove", "alpha", "--library", shelf, says=("alpha", "EACCES", "check the permissions"))
    assert (shelf / "alpha" / "1" / "manifest.json").exists()
