"""The documentation site: built without a warning, whole, without a broken link, and without anything from elsewhere."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
SHIPPED = ROOT / "cassettes" / "grokkit_cassettes"
LOADED = {
    "script": "src",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "video": "src",
    "audio": "src",
    "object": "data",
}
"""Elements that make a browser fetch something, with the attribute that says what; `link` is looked at apart."""

RECORD = re.compile(r"\d+(?:\.\d+)?e[+-]?\d+|\d+\.\d+|\d{1,3}(?:,\d{3})+")
"""Figures that name a measurement: with a decimal point, an exponent or a thousands separator."""


@dataclass
class Page:
    """What a built page is linked with: anchors that it has, links that it makes, resources that it loads."""

    anchors: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)
    images: list[tuple[str, str]] = field(default_factory=list)


class Reader(HTMLParser):
    """Fills a `Page` from HTML."""

    def __init__(self) -> None:
        super().__init__()
        self.page = Page()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if "id" in given:
            self.page.anchors.add(given["id"])
        if tag == "a" and "href" in given:
            self.page.links.append(given["href"])
        if tag == "link" and given.get("rel") not in ("canonical", "prev", "next"):
            self.page.loaded.append(given.get("href", ""))
        if LOADED.get(tag, "") in given:
            self.page.loaded.append(given[LOADED[tag]])
        if tag == "img":
            self.page.images.append((given.get("src", ""), given.get("alt", "")))
        self.page.loaded += re.findall(r"url\(([^)]*)\)", given.get("style", ""))


def read(text: str) -> Page:
    """The page that a piece of HTML makes."""
    reader = Reader()
    reader.feed(text)
    return reader.page


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site as `make docs` builds it."""
    if any(importlib.util.find_spec(name) is None for name in ("mkdocs", "material", "mkdocstrings")):
        pytest.skip("mkdocs is not installed: pip install 'grokkit[docs]'")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def built(site: Path) -> dict[Path, Page]:
    """Every page of the site."""
    return {path: read(path.read_text()) for path in sorted(site.rglob("*.html"))}


# -- the built site --------------------------------------------------------------------------------------------------


def broken(path: Path, link: str, site: Path, built: dict[Path, Page]) -> str:
    """Why an internal link leads nowhere, or nothing."""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return ""
    place = unquote(parts.path)
    target = path if not place else (site / place.lstrip("/") if place.startswith("/") else path.parent / place)
    target = Path(os.path.normpath(target))
    target = target / "index.html" if target.is_dir() else target
    if not target.is_file() or not target.is_relative_to(site):
        return f"{path.relative_to(site)}: no file {link}"
    anchor = unquote(parts.fragment)
    if anchor and target.suffix == ".html" and anchor not in built[target].anchors:
        return f"{path.relative_to(site)}: no anchor {link}"
    return ""


def test_no_link_and_no_anchor_is_broken(site: Path, built: dict[Path, Page]) -> None:
    links = [(path, link) for path, page in built.items() for link in (*page.links, *page.loaded)]
    assert len(links) > 1000
    assert [why for path, link in links if (why := broken(path, link, site, built))] == []


@pytest.mark.parametrize(
    "link", ["nowhere.html", "cli.html#no-such-anchor", "/nowhere.html", "../outside.html", "#none"]
)
def test_a_broken_link_is_noticed(link: str, site: Path, built: dict[Path, Page]) -> None:
    assert broken(site / "index.html", link, site, built)
    assert not broken(site / "index.html", "cli.html#exit-codes", site, built)


def elsewhere(text: str) -> list[str]:
    """Addresses with a host that a style sheet fetches."""
    found = re.findall(r"url\(\s*['\"]?([^'\")]+)|@import\s+['\"]([^'\"]+)", text)
    return [address for pair in found for address in pair if re.match(r"(?:https?:)?//", address)]


def test_nothing_is_loaded_from_elsewhere(site: Path, built: dict[Path, Page]) -> None:
    outside = [(path.name, link) for path, page in built.items() for link in page.loaded if urlsplit(link).netloc]
    assert outside == []
    sheets = [*site.rglob("*.css"), *site.rglob("*.svg"), *built]
    assert len([path for path in sheets if path.suffix == ".css"]) > 0
    assert [(path.name, found) for path in sheets if (found := elsewhere(path.read_text()))] == []
    diagrams = [path.name for path in built if re.search(r'class="[^"]*mermaid', path.read_text())]
    assert diagrams == []  # what draws them would be fetched by the theme's script


def test_a_resource_from_elsewhere_is_noticed() -> None:
    page = read('<script src="https://a.example/x.js"></script><link rel="stylesheet" href="//b.example/y.css">')
    assert [urlsplit(link).netloc for link in page.loaded] == ["a.example", "b.example"]
    sheet = "@import 'https://fonts.example/css'; a { background: url(//c.example/z.png) }"
    assert elsewhere(sheet) == ["https://fonts.example/css", "//c.example/z.png"]
    assert elsewhere("a { background: url(data:image/png;base64,AAAA) }") == []


def test_every_page_is_reached_from_the_first(site: Path, built: dict[Path, Page]) -> None:
    reached, waiting = set(), [site / "index.html"]
    while waiting:
        path = waiting.pop()
        if path in reached or path not in built:
            continue
        reached.add(path)
        places = [unquote(urlsplit(link).path) for link in built[path].links if not urlsplit(link).netloc]
        waiting += [Path(os.path.normpath(path.parent / place)) for place in places if place.endswith(".html")]
    assert set(built) - reached == {site / "404.html"}


def test_every_card_has_a_figure_with_a_text_in_its_place(site: Path, built: dict[Path, Page]) -> None:
    for name in shipped():
        ((source, text),) = built[site / "cassettes" / f"{name}.html"].images
        assert source == f"figures/{name}.svg"
        assert "<svg" in (site / "cassettes" / source).read_text()
        assert len(text.split()) > 5


# -- what must be there ----------------------------------------------------------------------------------------------


def shipped() -> list[str]:
    """The names of the shipped cassettes."""
    return sorted({path.parent.parent.name for path in SHIPPED.glob("*/*/manifest.json")})


def test_every_page_is_in_the_navigation() -> None:
    text = (ROOT / "mkdocs.yml").read_text()
    named = set(re.findall(r"[\w/-]+\.md", text.partition("\nnav:")[2])) - {"changelog.md"}
    assert named == {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}


def test_every_shipped_cassette_has_a_page_and_no_other() -> None:
    pages = {path.stem for path in (DOCS / "cassettes").glob("*.md")} - {"index"}
    assert pages == set(shipped())
    for name in pages:
        text = (DOCS / "cassettes" / f"{name}.md").read_text()
        assert f"$ grokkit show {name}\n" in text
        headings = re.findall(r"^## (.*)$", text, flags=re.MULTILINE)
        assert headings == [
            "Card",
            "Law",
            "How it was made",
            "What the certificate proves",
            "What it does not prove",
            "Baselines",
        ]


def test_every_command_has_a_section_with_its_help() -> None:
    from grokkit_cli.main import COMMANDS

    text = (DOCS / "commands.md").read_text()
    assert set(re.findall(r"^## ([a-z]+)$", text, flags=re.MULTILINE)) == set(COMMANDS)
    assert set(re.findall(r"^\$ grokkit ([a-z]+) --help$", text, flags=re.MULTILINE)) == set(COMMANDS)


def test_every_public_name_is_documented(pages: ModuleType) -> None:
    import grokkit_core as gk

    text = "\n".join(path.read_text() for path in (DOCS / "api").glob("*.md"))
    objects = set(re.findall(r"^::: (\S+)$", text, flags=re.MULTILINE))
    homes = [f"grokkit_core.{place.replace(':', '.')}" for place in gk._HOME.values()]
    assert [home for home in homes if not {home, home.rpartition(".")[0]} & objects] == []


# -- the comparison --------------------------------------------------------------------------------------------------


def figures(text: str) -> Iterator[float]:
    """Figures of a text as numbers, so that 3.91e-03 and 0.00391 are one."""
    for found in RECORD.findall(text):
        yield float(found.replace(",", ""))


def unrecorded(table: str, records: set[float]) -> list[float]:
    """Figures in the last column of rows of three columns that stand in no record."""
    rows = [line.split("|") for line in table.splitlines() if line.startswith("|") and line.count("|") == 4]
    return [figure for row in rows for figure in figures(row[3]) if figure not in records]


def test_every_figure_of_the_comparison_stands_in_a_record() -> None:
    sources = [DOCS / "acceptance.md", DOCS / "benchmarks.md", DOCS / "cassettes"]
    files = [path for source in sources for path in ([source] if source.is_file() else source.glob("*.md"))]
    records = {figure for path in files for figure in figures(path.read_text())}
    text = (DOCS / "comparison.md").read_text()
    assert sum(1 for _ in figures(text)) > 50
    assert unrecorded(text, records) == []
    assert unrecorded("| a | 1.5 | 123.456 |", records) == [123.456]
