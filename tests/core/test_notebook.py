"""What values show in a notebook and to rich: the facts, and no text of a file raw."""

from __future__ import annotations

import io
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import grokkit_core as gk
from grokkit_core.cassette import Cassette
from grokkit_core.notebook import Sheet, Shown

EVIL = '<script>alert(1)</script>[red]\u202e&"'


def cells(page: str) -> list[str]:
    """The texts of the cells of a table, in order."""
    found: list[str] = []

    class Cells(HTMLParser):
        def handle_starttag(self, name: str, attrs: Any) -> None:
            assert name in {"table", "caption", "thead", "tbody", "tr", "th", "td"}
            if name in {"th", "td", "caption"}:
                found.append("")

        def handle_data(self, data: str) -> None:
            found[-1] += data

    Cells().feed(page)
    return found


def printed(value: Shown) -> str:
    console = Console(file=io.StringIO(), width=160, color_system=None)
    with console.capture() as captured:
        console.print(value)
    return captured.get()


def test_a_cassette_shows_what_it_computes_and_how_well(one: Cassette) -> None:
    shown = cells(one._repr_html_())
    for text in (one.manifest.ref, one.manifest.summary, one.manifest.digest, "estimated (sampled)"):
        assert text in shown
        assert text in printed(one)


def test_a_manifest_shows_the_same_as_its_cassette(one: Cassette) -> None:
    assert one.manifest._repr_html_() == one._repr_html_()


def test_a_listing_is_a_list_that_shows_itself(tiny: Path) -> None:
    found = gk.list(library=tiny)
    assert isinstance(found, list) and found[:1] == [found[0]]
    shown = cells(found._repr_html_())
    assert {"one@1", "eight@1", "cyclotron-fused@1"} <= set(shown)
    assert f"{len(found)} cassettes" == shown[0]


def test_a_listing_says_what_cannot_be_read(tiny: Path, library: Path) -> None:
    (library / "broken" / "1").mkdir(parents=True)
    (library / "broken" / "1" / "manifest.json").write_text("{")
    found = gk.list(library=library)
    assert any("cannot be read" in cell for cell in cells(found._repr_html_()))


@pytest.mark.usefixtures("few_samples")
def test_a_verification_says_whether_it_agrees_and_why_not(tiny: Path, one: Cassette) -> None:
    assert "one@1: the certificate agrees" in cells(gk.verify(one, level="quick")._repr_html_())
    certificate = one.manifest.certificate
    wrong = one.with_certificate(type(certificate)(**{**vars(certificate), "verdict": "exact"}))
    found = gk.verify(wrong, level="quick")
    shown = cells(found._repr_html_())
    assert "one@1: the certificate does NOT agree" in shown
    assert found.reasons[0] in shown


@pytest.mark.usefixtures("few_samples")
def test_a_composition_shows_its_table(tiny: Path, library: Path) -> None:
    made = gk.compose("one", "eight", library=[library, tiny])
    shown = cells(made._repr_html_())
    assert {"one", "eight", "fusion", "omega 0.9", "omega 2.2"} <= set(shown)
    assert f"{made.table[0].fused:.3g}" in shown


@pytest.mark.parametrize("place", ["summary", "license"])
def test_no_text_of_a_manifest_is_shown_raw(
    one: Cassette, reissue: Callable[..., str], library: Path, place: str
) -> None:
    manifest = one.manifest.replace(**{place: EVIL})
    page, text = manifest._repr_html_(), printed(manifest)
    assert "<script" not in page and "\u202e" not in page + text
    if place == "summary":
        assert "&lt;script&gt;" in page and "<script>alert(1)</script>[red]" in text


def test_a_sheet_has_its_figures_on_the_right() -> None:
    class Two(Shown):
        def _sheet(self) -> Sheet:
            return Sheet("two", ("name", "count"), (("a", "1"), ("b", "20")), (1,))

    assert '<td class="figure">20</td>' in Two()._repr_html_()
    assert [line.rstrip() for line in printed(Two()).splitlines()[-4:]] != []
    assert "     1" in printed(Two())
