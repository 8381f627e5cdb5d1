"""`grokkit new plugin`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

Cli = Callable[..., Any]
Refused = Callable[..., str]


def test_new_plugin_has_the_documented_json_keys(cli: Cli, tmp_path: Path) -> None:
    made = cli("new", "plugin", "majority", "--path", tmp_path / "new", "--json")
    assert (made.code, made.err) == (0, "")
    assert set(made.json) == {"path", "files"}
    assert made.json["path"] == str(tmp_path / "new")
    assert all((tmp_path / "new" / file).is_file() for file in made.json["files"])


def test_it_says_what_it_wrote_and_what_to_type_next(cli: Cli, tmp_path: Path) -> None:
    made = cli("new", "plugin", "majority", "--path", tmp_path / "new")
    for words in ("grokkit_majority/law.py", "wrote 10 files", "pip install -e", "grokkit train majority"):
        assert words in made.out


def test_what_is_not_a_plugin_is_a_usage_error(refused: Refused) -> None:
    refused(2, "new", "cassette", "majority", says=("'plugin'",))


def test_a_bad_name_is_a_usage_error_and_a_taken_one_incompatible(refused: Refused, tmp_path: Path) -> None:
    refused(2, "new", "plugin", "Majority", "--path", tmp_path / "new", says=("plugin name 'Majority'", "expected"))
    refused(4, "new", "plugin", "parity", "--path", tmp_path / "new", says=("'parity'", "a name of its own"))
