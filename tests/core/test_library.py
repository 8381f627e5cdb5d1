"""Names, references and roots: what is found, where, in which order, and what is refused on the way."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import toys

from grokkit_core import store
from grokkit_core.errors import (
    BadManifest,
    BadName,
    CassetteError,
    GrokkitError,
    Incompatible,
    NotFound,
    NotRegularFile,
    StoreError,
)
from grokkit_core.library import Entry, Library, Root, user_library
from grokkit_core.manifest import WEIGHTS
from grokkit_core.names import Ref, check_name, is_name, is_version
from grokkit_core.plugins import PluginHost
from grokkit_core.workspace import Workspace, list_cassettes, remove, show

BAD_NAMES = [
    "",
    "a..b",
    "a.b",
    ".",
    "..",
    ".a",
    "a.",
    "../a",
    "a/b",
    "/a",
    "a\\b",
    "con",
    "prn",
    "aux",
    "nul",
    "com0",
    "com9",
    "lpt1",
    "con.v1",
    "nul.txt",
    "a\n",
    "\na",
    "a\nb",
    "a\r",
    "a\t",
    " a",
    "a ",
    "a b",
    "A",
    "aB",
    "CON",
    "-a",
    "a-",
    "-",
    "--library",
    "a" * 65,
    "a_b",
    "a@b",
    "a:b",
    "a\0",
    "a\x1b[31m",
    "é",
    "e\u0301",
    "\u0430",
    "\uff41",
    "\u202ea",
    "a\u200bb",
    "١",
    "a*",
    "~a",
    "\ud800",
]
GOOD_NAMES = ["a", "0", "a-b", "a--b", "cyclotron-8node", "console", "com10", "com", "a" * 64]
BAD_PINS = ["toy@", "toy@0", "toy@01", "toy@-1", "toy@1.0", "toy@x", "toy@1\n", "toy@1@2", "toy@sha256:12", "toy@²"]
NO_SUCH_USER = "~no-such-user-here/library"


def option(path: Path) -> Root:
    """A root as `--library` gives it."""
    return Root(path, "option", "--library")


def plugin(path: Path, distribution: str) -> Root:
    """A root as a plugin brings it."""
    return Root(path, "plugin", distribution)


def environment(path: Path) -> Root:
    """A root as `$GROKKIT_LIBRARY` names it."""
    return Root(path, "environment", "$GROKKIT_LIBRARY")


def filled(path: Path, *names: str, **changes: Any) -> Path:
    """A folder with a toy cassette of each of these names."""
    for name in names:
        toys.toy(path, name, **changes)
    return path


def refs(entries: Sequence[Entry]) -> list[str]:
    """What a listing shows, problems marked with a `!`."""
    return [f"{entry.name}@{entry.version}{'!' if entry.problem else ''}" for entry in entries]


# -- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BAD_NAMES, ids=ascii)
def test_a_bad_name_is_refused_in_one_safe_line(name: str) -> None:
    with pytest.raises(BadName) as caught:
        check_name(name)
    assert caught.value.exit_code == 2
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", GOOD_NAMES)
def test_a_good_name_is_taken(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["a..b", "con", "a\\n", "A", "a" * 65, ""], ids=ascii)
def test_a_bad_name_in_a_manifest_is_a_fault_of_the_cassette(tmp_path: Path, name: str) -> None:
    folder = toys.toy(tmp_path)
    (folder / store.MANIFEST).write_bytes(toys.sealed({**toys.manifest().to_json(), "name": name}))
    with pytest.raises(BadManifest, match=r"manifest\.name") as caught:
        store.read(folder)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    "text", ["0", "01", "-1", "+1", "1 ", "1\n", "1.0", "1_0", "²", "١", "", "1000000000"], ids=ascii
)
def test_a_bad_version_is_refused(text: str) -> None:
    assert not is_version(text)


def test_the_last_version_is_a_version() -> None:
    assert is_version("999999999")


# -- references ------------------------------------------------------------------------------------------------------


def test_a_reference_may_be_a_name() -> None:
    assert Ref.parse("toy") == Ref("toy", name="toy")


def test_a_reference_may_pin_a_version() -> None:
    assert Ref.parse("toy@12").version == 12


def test_a_reference_may_pin_a_digest() -> None:
    digest = toys.manifest().digest
    assert Ref.parse(f"toy@{digest}").digest == digest


@pytest.mark.parametrize("text", ["./toy", "/a/toy/1", "..", "a/b", "~/toy/1"])
def test_a_reference_may_be_a_path(text: str) -> None:
    assert Ref.parse(text).path == Path(text).expanduser()


@pytest.mark.parametrize("text", [*BAD_PINS, "Toy@1", "@1", f"toy@sha256:{'A' * 64}"], ids=ascii)
def test_a_bad_reference_is_refused(text: str) -> None:
    with pytest.raises(BadName):
        Ref.parse(text)


def test_a_path_below_a_user_that_does_not_exist_is_a_declared_error() -> None:
    with pytest.raises(GrokkitError):
        Ref.parse(NO_SUCH_USER)


def test_a_path_with_a_null_byte_is_a_declared_error(library: Path) -> None:
    with pytest.raises(GrokkitError):
        Library([option(library)]).find("./a\0b")


@pytest.mark.parametrize("name", ["a..b", "A", "con", "a\n", "a" * 65], ids=ascii)
def test_a_bad_name_on_the_command_line_is_a_matter_of_usage(cli: Callable[..., Any], library: Path, name: str) -> None:
    done = cli("--library", library, "show", name)
    assert (done.code, done.out, len(done.err.splitlines())) == (2, "", 1)


# -- finding ---------------------------------------------------------------------------------------------------------


def test_a_name_means_its_highest_version(library: Path) -> None:
    for version in (2, 10, 9):
        toys.toy(library, version=version)
    assert Library([option(library)]).find("toy").version == 10


def test_a_pinned_version_is_found(library: Path) -> None:
    for version in (1, 2):
        toys.toy(library, version=version)
    assert Library([option(library)]).find("toy@1").version == 1


def test_a_missing_version_lists_those_that_are_there(library: Path) -> None:
    for version in (1, 3):
        toys.toy(library, version=version)
    with pytest.raises(NotFound, match="one of 1, 3"):
        Library([option(library)]).find("toy@2")


def test_a_pinned_digest_is_found_below_a_later_version(library: Path) -> None:
    for version in (1, 2):
        toys.toy(library, version=version)
    digest = toys.manifest(version=1).digest
    assert Library([option(library)]).find(f"toy@{digest}").version == 1


def test_a_digest_that_no_version_has_is_not_found(library: Path) -> None:
    toys.toy(library)
    with pytest.raises(NotFound, match="digest"):
        Library([option(library)]).find(f"toy@sha256:{'0' * 64}")


def test_a_bad_version_does_not_hide_a_pinned_digest(library: Path) -> None:
    toys.toy(library)
    (toys.toy(library, version=2) / store.MANIFEST).write_text("{}")
    found = Library([option(library)]).find(f"toy@{toys.manifest().digest}")
    assert found.version == 1


def test_a_path_finds_a_cassette_outside_every_library(library: Path, tmp_path: Path) -> None:
    folder = toys.toy(tmp_path / "elsewhere")
    assert Library([option(library)]).find(str(folder)).manifest == toys.manifest()


def test_a_path_may_name_the_manifest(library: Path) -> None:
    folder = toys.toy(library)
    assert Library([option(library)]).find(str(folder / store.MANIFEST)).folder == folder


def test_an_unknown_name_suggests_the_nearest(library: Path) -> None:
    filled(library, "toy", "parity")
    with pytest.raises(NotFound, match="did you mean 'parity'") as caught:
        Library([option(library)]).find("partiy")
    assert caught.value.exit_code == 5


def test_an_unknown_name_in_an_empty_library_says_how_to_look(library: Path) -> None:
    with pytest.raises(NotFound, match="grokkit list"):
        Library([option(library)]).find("toy")


def test_show_gives_the_manifest(library: Path) -> None:
    toys.toy(library)
    assert show("toy", library=library) == toys.manifest()


# -- roots -----------------------------------------------------------------------------------------------------------


def test_roots_come_in_their_contractual_order(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in "abcde"]
    found = Library.standard(
        paths[:2],
        plugin_roots=[("shipped", paths[4])],
        environment={"GROKKIT_LIBRARY": f"{paths[2]}{os.pathsep}{paths[3]}"},
    )
    assert [root.path for root in found.roots] == [*paths[:4], user_library(), paths[4]]
    assert [root.kind for root in found.roots] == ["option"] * 2 + ["environment"] * 2 + ["user", "plugin"]


def test_an_empty_variable_names_no_root() -> None:
    assert [root.kind for root in Library.standard(environment={"GROKKIT_LIBRARY": ""}).roots] == ["user"]


def test_an_option_below_a_user_that_does_not_exist_is_a_declared_error() -> None:
    with pytest.raises(GrokkitError):
        Library.standard([NO_SUCH_USER])


def test_a_variable_below_a_user_that_does_not_exist_is_a_declared_error() -> None:
    with pytest.raises(GrokkitError):
        Library.standard(environment={"GROKKIT_LIBRARY": NO_SUCH_USER})


def test_an_import_from_a_user_that_does_not_exist_ends_with_one_line(cli: Callable[..., Any], library: Path) -> None:
    done = cli("--library", library, "import", NO_SUCH_USER)
    assert done.code in (2, 5)
    assert "internal error" not in done.err


@pytest.mark.parametrize("second", [option, environment, lambda path: plugin(path, "shipped")])
def test_the_first_root_wins(tmp_path: Path, second: Callable[[Path], Root]) -> None:
    first = filled(tmp_path / "first", "toy", summary="first")
    other = filled(tmp_path / "second", "toy", summary="second", version=2)
    found = Library([option(first), second(other)]).find("toy")
    assert found.manifest is not None
    assert found.manifest.summary == "first"


def test_what_only_a_later_root_holds_is_found_there(tmp_path: Path) -> None:
    first = filled(tmp_path / "first", "other")
    second = filled(tmp_path / "second", "toy")
    assert Library([option(first), option(second)]).find("toy").root.path == second


def test_an_empty_folder_of_a_name_does_not_win(tmp_path: Path) -> None:
    (tmp_path / "first" / "toy").mkdir(parents=True)
    second = filled(tmp_path / "second", "toy")
    assert Library([option(tmp_path / "first"), option(second)]).find("toy").root.path == second


def test_a_hidden_cassette_is_marked_with_what_hides_it(tmp_path: Path) -> None:
    first, second = (filled(tmp_path / name, "toy") for name in ("first", "second"))
    shown, hidden = Library([option(first), plugin(second, "shipped")]).entries()
    assert shown.problem is None
    assert hidden.problem == "hidden by the same name in --library"


def test_two_plugins_with_one_name_are_refused_and_both_named(tmp_path: Path) -> None:
    first, second = (filled(tmp_path / name, "toy") for name in ("first", "second"))
    with pytest.raises(Incompatible, match="one-dist/toy, two-dist/toy") as caught:
        Library([plugin(first, "one-dist"), plugin(second, "two-dist")]).find("toy")
    assert caught.value.exit_code == 4


def test_a_listing_marks_what_two_plugins_offer(tmp_path: Path) -> None:
    first, second = (filled(tmp_path / name, "toy") for name in ("first", "second"))
    problems = [entry.problem for entry in Library([plugin(first, "one"), plugin(second, "two")]).entries()]
    assert problems == [None, "also offered by one"]


def test_a_root_of_the_user_settles_a_clash_of_plugins(tmp_path: Path) -> None:
    own, first, second = (filled(tmp_path / name, "toy") for name in ("own", "first", "second"))
    assert Library([option(own), plugin(first, "one"), plugin(second, "two")]).find("toy").root.path == own


def test_the_names_of_all_roots_are_known(tmp_path: Path) -> None:
    first, second = filled(tmp_path / "first", "b", "toy"), filled(tmp_path / "second", "a", "toy")
    assert Library([option(first), plugin(second, "shipped")]).names() == ["a", "b", "toy"]


# -- roots that are not trusted --------------------------------------------------------------------------------------


@pytest.fixture
def open_root(tmp_path: Path) -> Path:
    """A library with a toy, which every user may write."""
    root = filled(tmp_path / "open", "toy")
    root.chmod(0o777)
    return root


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o757])
def test_a_root_of_the_environment_that_others_may_write_is_refused(open_root: Path, mode: int) -> None:
    open_root.chmod(mode)
    with pytest.raises(StoreError, match="GROKKIT_LIBRARY") as caught:
        Library([environment(open_root)]).find("toy")
    assert caught.value.exit_code == 6


def test_a_root_of_the_environment_that_only_its_owner_may_write_is_used(open_root: Path) -> None:
    open_root.chmod(0o755)
    assert Library([environment(open_root)]).find("toy").version == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_root_of_the_environment_that_belongs_to_another_user_is_refused(open_root: Path) -> None:
    open_root.chmod(0o755)
    os.chown(open_root, 12_345, 12_345)
    with pytest.raises(StoreError, match="another user"):
        Library([environment(open_root)]).find("toy")


def test_an_unsafe_root_is_never_written_to(open_root: Path) -> None:
    with pytest.raises(StoreError, match="not safe"):
        _ = Library([environment(open_root)]).target


def test_a_root_given_by_hand_is_trusted(open_root: Path) -> None:
    assert Library([option(open_root)]).find("toy").version == 1


def test_an_unsafe_root_ends_a_command_with_one_line(
    open_root: Path, cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GROKKIT_LIBRARY", str(open_root))
    done = cli("show", "toy")
    assert (done.code, done.out, len(done.err.splitlines())) == (6, "", 1)
    assert "chmod" in done.err


def test_an_unsafe_root_is_not_listed(open_root: Path) -> None:
    assert Library([environment(open_root)]).entries() == []
    assert Library([environment(open_root)]).names() == []


# -- where new cassettes go ------------------------------------------------------------------------------------------


def test_new_cassettes_go_to_the_first_given_folder(tmp_path: Path) -> None:
    found = Library([option(tmp_path / "a"), option(tmp_path / "b"), environment(tmp_path / "c")])
    assert found.target.path == tmp_path / "a"


def test_new_cassettes_never_go_to_a_plugin(tmp_path: Path) -> None:
    assert not plugin(tmp_path, "shipped").writable


def test_a_given_folder_that_cannot_be_written_is_passed_over_for_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path / "a" and real(path, mode))
    assert Library([option(tmp_path / "a"), option(tmp_path / "b")]).target.path == tmp_path / "b"


def test_what_was_asked_for_one_folder_never_lands_in_another_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    with pytest.raises(StoreError, match="--library PATH") as caught:
        _ = Library([option(tmp_path), environment(tmp_path / "env"), Root(tmp_path / "user", "user", "user")]).target
    assert caught.value.exit_code == 6


def test_a_folder_below_a_file_takes_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError):
        _ = Library([option(tmp_path / "file" / "library")]).target


def test_an_import_into_a_read_only_place_ends_with_one_line(tmp_path: Path, cli: Callable[..., Any]) -> None:
    done = cli("--library", "/proc/grokkit-library", "import", toys.toy(tmp_path))
    assert (done.code, done.out, len(done.err.splitlines())) == (6, "", 1)


# -- folders that are not what they should be ------------------------------------------------------------------------


def test_a_link_to_a_version_folder_is_refused(library: Path, tmp_path: Path) -> None:
    folder = toys.toy(tmp_path / "elsewhere")
    (library / "toy").mkdir(parents=True)
    (library / "toy" / "1").symlink_to(folder)
    with pytest.raises(NotRegularFile) as caught:
        Library([option(library)]).find("toy")
    assert caught.value.exit_code == 3


def test_a_link_to_the_folder_of_a_name_is_not_followed(library: Path, tmp_path: Path) -> None:
    folder = toys.toy(tmp_path / "elsewhere")
    library.mkdir()
    (library / "toy").symlink_to(folder.parent)
    assert Library([option(library)]).entries() == []
    with pytest.raises((NotFound, CassetteError)):
        Library([option(library)]).find("toy")


def test_a_library_itself_may_be_a_link(library: Path, tmp_path: Path) -> None:
    library.symlink_to(filled(tmp_path / "elsewhere", "toy"))
    assert Library([option(library)]).find("toy").version == 1


@pytest.mark.parametrize("kind", [Path.touch, os.mkfifo], ids=["file", "FIFO"])
def test_what_is_no_version_folder_is_refused_at_once(library: Path, kind: Callable[[Path], None]) -> None:
    (library / "toy").mkdir(parents=True)
    kind(library / "toy" / "1")
    start = time.perf_counter()
    with pytest.raises(NotRegularFile):
        Library([option(library)]).find("toy")
    assert time.perf_counter() - start < 1.0


def test_a_cassette_served_under_another_name_is_refused(library: Path) -> None:
    toys.toy(library).parent.rename(library / "other")
    with pytest.raises(BadManifest, match="toy@1") as caught:
        Library([option(library)]).find("other")
    assert caught.value.exit_code == 3


def test_a_cassette_served_under_another_number_is_refused(library: Path) -> None:
    folder = toys.toy(library)
    folder.rename(folder.with_name("2"))
    with pytest.raises(BadManifest, match="toy@1"):
        Library([option(library)]).find("toy")


def test_an_unknown_entry_in_a_version_folder_is_refused(library: Path) -> None:
    (toys.toy(library) / "notes.txt").touch()
    with pytest.raises(BadManifest, match="unknown entry"):
        Library([option(library)]).find("toy")


# -- listing ---------------------------------------------------------------------------------------------------------


def test_a_listing_is_sorted_by_name_and_number(library: Path) -> None:
    for version in (2, 10, 1):
        toys.toy(library, version=version)
    toys.toy(library, "a")
    assert refs(Library([option(library)]).entries()) == ["a@1", "toy@1", "toy@2", "toy@10"]


def test_a_listing_of_a_folder_that_is_not_there_is_empty(library: Path) -> None:
    assert Library([option(library)]).entries() == []


def test_a_listing_passes_over_what_is_no_cassette(library: Path) -> None:
    toys.toy(library)
    for name in (".git", "Toy", "con", "toy/.staging-0", "toy/.removed-9", "toy/v1"):
        (library / name).mkdir()
    (library / "file").touch()
    assert refs(Library([option(library)]).entries()) == ["toy@1"]


def spoil_with_folder(folder: Path) -> None:
    (folder / store.MANIFEST).unlink()
    (folder / store.MANIFEST).mkdir()


def spoil_with_fifo(folder: Path) -> None:
    (folder / store.MANIFEST).unlink()
    os.mkfifo(folder / store.MANIFEST)


def spoil_with_link(folder: Path) -> None:
    target = (folder / store.MANIFEST).rename(folder.parent.parent.parent / store.MANIFEST)
    (folder / store.MANIFEST).symlink_to(target)


def spoil_name(folder: Path) -> None:
    folder.rename(folder.with_name("9"))


SPOILED: dict[str, Callable[[Path], Any]] = {
    "empty manifest": lambda folder: (folder / store.MANIFEST).write_bytes(b""),
    "binary manifest": lambda folder: (folder / store.MANIFEST).write_bytes(bytes(range(256))),
    "brackets": lambda folder: (folder / store.MANIFEST).write_bytes(b"[" * 200_000),
    "future schema": lambda folder: (folder / store.MANIFEST).write_bytes(
        toys.sealed({**toys.manifest("bad").to_json(), "schema": 99})
    ),
    "huge manifest": lambda folder: os.truncate(folder / store.MANIFEST, 1 << 30),
    "no manifest": lambda folder: (folder / store.MANIFEST).unlink(),
    "folder for a manifest": spoil_with_folder,
    "FIFO for a manifest": spoil_with_fifo,
    "link for a manifest": spoil_with_link,
    "unknown entry": lambda folder: (folder / "\x1b[31mx").touch(),
    "wrong number": spoil_name,
}


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED.keys())
def test_a_bad_cassette_never_stops_a_listing(
    library: Path, cli: Callable[..., Any], spoil: Callable[[Path], Any]
) -> None:
    toys.toy(library)
    spoil(toys.toy(library, "bad"))
    done = cli("--library", library, "list", "--json")
    rows = {row["name"]: row for row in done.json["cassettes"]} if done.code == 0 else {}
    assert done.code == 0
    assert rows["toy"]["problem"] is None
    assert rows["bad"]["problem"]
    assert rows["bad"]["digest"] is None


def test_a_bad_cassette_is_shown_with_its_problem(library: Path, cli: Callable[..., Any]) -> None:
    (toys.toy(library, "bad") / store.MANIFEST).write_text("{}")
    done = cli("--library", library, "list")
    assert done.code == 0
    assert "bad@1" in done.out
    assert "cannot be read" in done.out


def test_a_listing_prints_no_control_character_from_a_file_name(library: Path, cli: Callable[..., Any]) -> None:
    (toys.toy(library) / "\x1b]0;title\x07").touch()
    done = cli("--library", library, "list")
    assert "\x1b" not in done.out + done.err
    assert "\x07" not in done.out + done.err


def test_a_listing_in_json_has_the_contractual_fields(library: Path) -> None:
    toys.toy(library)
    (row,) = [entry.to_json() for entry in Library([option(library)]).entries()]
    made = toys.manifest()
    assert json.loads(json.dumps(row)) == {
        "name": "toy",
        "version": 1,
        "task": "toy",
        "kind": "trained",
        "verdict": "estimated",
        "parameters": 4,
        "bytes": len(toys.weights()),
        "digest": made.digest,
        "source": "--library",
        "problem": None,
    }


def test_a_listing_can_be_narrowed_to_a_task(library: Path) -> None:
    place = Workspace(Library([option(filled(library, "toy"))]), PluginHost(enabled=False))
    assert refs(list_cassettes(task="toy", library=place)) == ["toy@1"]
    assert refs(list_cassettes(task="other", library=place)) == []


# -- removal through a workspace -------------------------------------------------------------------------------------


def test_what_a_plugin_ships_cannot_be_removed(tmp_path: Path) -> None:
    place = Workspace(Library([plugin(filled(tmp_path, "toy"), "shipped")]), PluginHost(enabled=False))
    with pytest.raises(StoreError, match="shipped"):
        remove("toy", library=place)
    assert store.read(tmp_path / "toy" / "1").weights == toys.weights()


def test_what_a_plugin_ships_cannot_be_removed_by_its_path_either(tmp_path: Path) -> None:
    place = Workspace(Library([plugin(filled(tmp_path, "toy"), "shipped")]), PluginHost(enabled=False))
    with pytest.raises(StoreError, match="shipped"):
        remove(str(tmp_path / "toy" / "1"), library=place)
    assert store.read(tmp_path / "toy" / "1").weights == toys.weights()


def test_a_removal_without_a_pin_takes_the_highest_version(library: Path) -> None:
    for version in (1, 2):
        toys.toy(library, version=version)
    assert remove("toy", library=library).version == 2
    assert toys.versions(library / "toy") == [1]


def test_a_cassette_with_a_wrong_name_is_not_removed_by_it(library: Path) -> None:
    toys.toy(library).parent.rename(library / "other")
    with pytest.raises(BadManifest):
        remove("other", library=library)
    assert (library / "other" / "1" / WEIGHTS).exists()


def test_forty_bad_names_were_tried() -> None:
    assert len({name for name in BAD_NAMES if not is_name(name)}) >= 40
