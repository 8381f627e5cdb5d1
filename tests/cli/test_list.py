"""`grokkit list`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

Cli = Callable[..., Any]
KEYS = {"name", "version", "task", "kind", "verdict", "parameters", "bytes", "digest", "source", "problem"}


def rows(cli: Cli, *arguments: object) -> dict[str, Any]:
    found = cli("list", "--json", *arguments).json["cassettes"]
    return {f"{row['name']}@{row['version']} {row['source']}": row for row in found}


def test_list_shows_what_ships_and_what_was_trained(cli: Cli, trained: Path) -> None:
    listed = cli("list", "--library", trained)
    assert listed.code == 0
    assert listed.err == ""
    for word in ("cyclotron-1node@1", "cyclotron-8node@1", "alpha@1", "beta@1", "estimated", "1,821"):
        assert word in listed.out


def test_list_has_the_documented_json_keys(cli: Cli, trained: Path) -> None:
    listed = cli("list", "--json", "--library", trained)
    assert (listed.code, listed.err) == (0, "")
    assert list(listed.json) == ["cassettes"]
    assert all(set(row) >= KEYS for row in listed.json["cassettes"])


def test_a_listed_row_says_what_the_manifest_says(cli: Cli, trained: Path) -> None:
    manifest = cli("show", "alpha", "--json", "--library", trained).json
    row = rows(cli, "--library", trained)["alpha@1 --library"]
    assert row["digest"] == manifest["digest"]
    assert row["bytes"] == manifest["weights"]["bytes"]
    assert row["parameters"] == manifest["weights"]["parameters"]
    assert (row["task"], row["kind"], row["verdict"], row["problem"]) == ("cyclotron", "trained", "estimated", None)


def test_list_is_sorted_by_name_and_version(cli: Cli, shelf: Path, resave: Callable[..., Any]) -> None:
    for _ in range(10):
        resave(shelf, "alpha")
    own = [(row["name"], row["version"]) for row in rows(cli, "--library", shelf).values()]
    assert own == sorted(own)
    assert ("alpha", 11) in own


def test_list_of_one_task_leaves_out_the_others(
    cli: Cli, shelf: Path, resave: Callable[..., Any], forge: Callable[..., None]
) -> None:
    resave(shelf, "alpha", name="other")
    forge(shelf / "other" / "1", lambda body: body["task"].update(id="tides"))
    names = {row["name"] for row in rows(cli, "--library", shelf, "--task", "tides").values()}
    assert names == {"other"}
    assert "other@1 --library" not in rows(cli, "--library", shelf, "--task", "cyclotron")


def test_list_of_an_unknown_task_names_the_nearest(refused: Callable[..., str]) -> None:
    refused(5, "list", "--task", "cyclotrn", says=("cyclotrn", "did you mean 'cyclotron'"))


def test_list_without_cassettes_says_how_to_make_one(cli: Cli, library: Path) -> None:
    listed = cli("list", "--no-plugins", "--library", library)
    assert listed.code == 0
    assert "grokkit train TASK" in listed.out + listed.err
    assert cli("list", "--no-plugins", "--json", "--library", library).json == {"cassettes": []}


def test_list_names_what_cannot_be_read_and_shows_the_rest(cli: Cli, shelf: Path) -> None:
    (shelf / "alpha" / "1" / "manifest.json").write_text("{}")
    listed = cli("list", "--library", shelf)
    assert listed.code == 0
    assert "cannot be read" in listed.out
    assert "beta@1" in listed.out
    row = rows(cli, "--library", shelf)["alpha@1 --library"]
    assert row["problem"]
    assert row["digest"] is None


def test_list_marks_a_name_that_an_earlier_library_hides(cli: Cli, shelf: Path, trained: Path) -> None:
    listed = cli("list", "--json", "--library", shelf, "--library", trained).json["cassettes"]
    problems = [row["problem"] for row in listed if row["name"] == "alpha"]
    assert problems[0] is None
    assert "hidden" in problems[1]


def test_an_empty_folder_hides_no_cassette(cli: Cli, library: Path) -> None:
    (library / "cyclotron-8node").mkdir(parents=True)
    assert rows(cli, "--library", library)["cyclotron-8node@1 grokkit"]["problem"] is None


def test_list_and_show_agree_on_a_linked_name(cli: Cli, trained: Path, library: Path) -> None:
    library.mkdir()
    (library / "alpha").symlink_to(trained / "alpha")
    listed = "alpha@1 --library" in rows(cli, "--library", library)
    assert cli("show", "alpha", "--library", library).code == (0 if listed else 5)


def test_a_library_that_is_not_there_yet_is_an_empty_one(cli: Cli, library: Path) -> None:
    listed = cli("list", "--library", library / "deep")
    assert listed.code == 0
    assert not library.exists()


def test_commands_that_only_describe_import_no_torch() -> None:
    lines = ["list", "show cyclotron-1node", "tasks", "plugins", "doctor", "--help", "compose --help", "show nothing"]
    code = (
        "import sys\nfrom grokkit_cli.__main__ import run\n"
        f"for line in {lines!r}:\n"
        "    run(line.split())\n"
        "    assert 'torch' not in sys.modules, line\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
