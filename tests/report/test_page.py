"""The report page as a file: complete, closed to the network, escaped by construction, equal for equal inputs."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import grokkit_core as gk
from grokkit_core.errors import NotFound, UsageError
from grokkit_core.manifest import Manifest
from grokkit_core.markup import Markup, table, tag
from grokkit_core.pictures.curve import curve_charts
from grokkit_core.pictures.errors import error_charts
from grokkit_core.pictures.palette import CARD, FRAME, MUTED, PAPER, ROLES, TEXT, VERDICTS, Ink, contrast
from grokkit_core.pictures.panels import Panels
from grokkit_core.reporting.certificate import beaten_by, worse_than
from grokkit_core.reporting.lineage import lineage_of
from grokkit_core.reporting.page import Part, document

Cli = Callable[..., Any]
KNOWN = frozenset(
    [
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "a",
        "header",
        "div",
        "p",
        "h1",
        "h2",
        "h3",
        "h4",
        "button",
        "main",
        "section",
        "article",
        "table",
        "caption",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "span",
        "b",
        "strong",
        "code",
        "pre",
        "dl",
        "dt",
        "dd",
        "ul",
        "li",
        "figure",
        "figcaption",
        "svg",
        "desc",
        "path",
        "text",
        "tspan",
        "circle",
        "rect",
        "footer",
        "script",
    ]
)
AA = 4.5


class Elements(HTMLParser):
    """Every element of a page with its attributes, its nesting checked, and the texts of some."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.open: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, name: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((name, dict(attrs)))
        self.open.append(name)

    def handle_startendtag(self, name: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((name, dict(attrs)))

    def handle_endtag(self, name: str) -> None:
        assert self.open.pop() == name

    def handle_data(self, data: str) -> None:
        if self.open:
            self.texts.setdefault(self.open[-1], []).append(data)

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for found, attributes in self.found if found == name]


def part(manifest: Manifest, **changes: Any) -> Part:
    charts = (*curve_charts(manifest), *error_charts(manifest))
    return Part(manifest, Panels(charts, ("a note",)), lineage_of(manifest, {}), **changes)


def page_of(*manifests: Manifest) -> str:
    return document([part(manifest) for manifest in manifests])


def check_closed(page: str) -> Elements:
    """Only known elements, no handlers, no styles, no addresses but places in the page."""
    elements = Elements(page)
    assert elements.open == []
    assert {name for name, _ in elements.found} <= KNOWN
    for _, attributes in elements.found:
        assert not any(name.startswith("on") or name in ("style", "src", "xlink:href") for name in attributes)
        assert (attributes.get("href") or "#").startswith("#")
    assert len(elements.all("script")) == len(elements.all("style")) == 1
    return elements


# -- contents ----------------------------------------------------------------------------------------------------------


def test_a_page_holds_what_the_manifest_says(page: Path) -> None:
    text = page.read_text()
    manifest = gk.show("cyclotron-fused")
    assert manifest.digest in text and manifest.weights.sha256 in text
    assert (
        "Worse than a baseline: </strong>on recorded figures it loses to persistence (5 of 5), euler (5 of 5)" in text
    )
    assert "[batch, 15, 4]" in text and "rad/s" in text
    for name in ("overview", "c1", "c6", "c1-certificate", "c3-lineage"):
        assert f'id="{name}"' in text


def test_headings_are_in_order_and_every_name_is_given_once(page: Path) -> None:
    elements = check_closed(page.read_text())
    levels = [int(name[1]) for name, _ in elements.found if re.fullmatch(r"h[1-6]", name)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(later - earlier <= 1 for earlier, later in pairwise(levels))
    names = [attributes["id"] for _, attributes in elements.found if "id" in attributes]
    assert len(names) == len(set(names))
    for _, attributes in elements.found:
        for key in ("aria-labelledby", "aria-describedby"):
            assert key not in attributes or attributes[key] in names


def test_tables_have_captions_and_heads_with_a_scope(page: Path) -> None:
    elements = Elements(page.read_text())
    assert len(elements.all("caption")) == len(elements.all("table")) > 10
    assert all(head.get("scope") in ("col", "row") for head in elements.all("th"))


def test_pictures_have_a_title_and_a_text(page: Path) -> None:
    elements = Elements(page.read_text())
    pictures = elements.all("svg")
    assert len(pictures) > 20
    assert all(p["role"] == "img" and p["aria-labelledby"] and p["aria-describedby"] for p in pictures)


def test_the_policy_admits_the_pages_own_script_and_style_and_nothing_else(page: Path) -> None:
    text = page.read_text()
    elements = Elements(text)
    (policy,) = [m["content"] for m in elements.all("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    rules = dict(rule.strip().split(" ", 1) for rule in str(policy).split(";"))
    assert rules.pop("default-src") == "'none'"
    for name in ("style", "script"):
        inline = "".join(elements.texts[name])
        digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
        assert rules.pop(f"{name}-src") == f"'sha256-{digest}'"
    assert rules == {"base-uri": "'none'", "form-action": "'none'"}


def test_equal_inputs_give_equal_pages(page: Path, tmp_path: Path) -> None:
    gk.report("matmul-4x4", tmp_path / "a.html")
    gk.report(["matmul-4x4"], tmp_path / "b.html")
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_a_cassette_that_is_named_twice_stands_there_once(tmp_path: Path) -> None:
    made = gk.report(["kepler", "kepler@1"], tmp_path / "k.html")
    assert [manifest.ref for manifest in made.cassettes] == ["kepler@1"]
    assert "Overview" not in (tmp_path / "k.html").read_text()


def test_a_composition_of_several_tasks_is_shown_by_its_members() -> None:
    base = gk.show("cyclotron-fused")
    own = {"verdict": "exact", "statement": "s"}
    members = [{"key": f"m{i}", "architecture": "a/b", "task": {"id": "parity"}, "certificate": own} for i in range(90)]
    certificate = type(base.certificate)(
        **{**vars(base.certificate), "method": "inherited", "metrics": (), "baselines": ()}
    )
    task = type(base.task)("composite", {})
    network = type(base.architecture)("grokkit_core/router", 1, {"members": members})
    many = base.replace(task=task, architecture=network, inputs=(), outputs=(), context=(), certificate=certificate)
    text = page_of(many)
    check_closed(text)
    assert "each member has one" in text and "and 40 more entries" in text
    assert text.count("parity") == 50


# -- verdicts ----------------------------------------------------------------------------------------------------------


def test_what_a_cassette_loses_to_is_counted_from_its_figures() -> None:
    certificate = gk.show("cyclotron-1node").certificate
    assert beaten_by(certificate) == {"persistence": (5, 5), "euler": (5, 5), "linear": (5, 5)}
    assert worse_than(gk.show("kepler").certificate) == ""


def test_figures_below_the_rounding_floor_are_equal() -> None:
    certificate = gk.show("matmul-4x4").certificate
    assert worse_than(certificate) == "plain-product (3 of 3)"
    assert worse_than(certificate, floor=1e-9) == ""


# -- hostile texts -----------------------------------------------------------------------------------------------------


def test_no_text_of_a_manifest_breaks_out(hostile: Manifest) -> None:
    text = page_of(hostile, gk.show("kepler"))
    elements = check_closed(text)
    assert text.count("&lt;script&gt;document.title=") > 20
    assert not set(text) & set("\u202e\u2066\u200b")
    assert elements.texts["title"][0].startswith("cyclotron-1node@1")


def test_a_text_that_is_not_escaped_would_be_noticed(hostile: Manifest) -> None:
    raw = page_of(hostile).replace("&lt;", "<")
    with pytest.raises(AssertionError):
        check_closed(raw)


@given(st.text(max_size=40), st.text(max_size=40))
def test_every_text_comes_back_as_text(value: str, attribute: str) -> None:
    made = tag("p", value, title=attribute)
    elements = Elements(made)
    assert [name for name, _ in elements.found] == ["p"]
    assert list(elements.found[0][1]) == ["title"]


def test_only_markup_goes_in_as_it_is() -> None:
    assert tag("b", "<i>", Markup("<i>"), tag("u", "&")) == "<b>&lt;i&gt;<i><u>&amp;</u></b>"
    assert tag("p", id=None, hidden=True, aria_label='"') == '<p hidden aria-label="&quot;"></p>'


def test_a_table_has_a_head_a_row_and_cells() -> None:
    made = table("cap", ("a", "b"), [("x", 1)], numbers=(1,))
    assert '<th scope="row">x</th><td class="figure">1</td>' in made


# -- colours -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ink", [TEXT, MUTED, *ROLES.values(), *VERDICTS.values()], ids=str)
@pytest.mark.parametrize("paper", [PAPER, CARD], ids=["paper", "card"])
def test_every_ink_is_legible_on_every_paper(ink: Ink, paper: Ink) -> None:
    assert contrast(ink.light, paper.light) >= AA
    assert contrast(ink.dark, paper.dark) >= AA


@pytest.mark.parametrize("paper", [PAPER, CARD], ids=["paper", "card"])
def test_borders_of_controls_are_seen(paper: Ink) -> None:
    assert contrast(FRAME.light, paper.light) >= 3
    assert contrast(FRAME.dark, paper.dark) >= 3


def test_contrast_is_that_of_the_standard() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


# -- refusals and the command line -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["report.pdf", "report"])
def test_another_suffix_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"ends with \.html"):
        gk.report("kepler", tmp_path / name)


def test_an_unknown_cassette_leaves_no_file_and_what_stood_there(tmp_path: Path) -> None:
    target = tmp_path / "r.html"
    target.write_text("old")
    with pytest.raises(NotFound):
        gk.report(["kepler", "keplr"], target)
    assert target.read_text() == "old"


def test_a_cassette_is_reported_as_its_reference_is(tmp_path: Path) -> None:
    gk.report(gk.load("kepler"), tmp_path / "a.html")
    gk.report("kepler", tmp_path / "b.html")
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_no_cassette_is_no_report(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="0 cassettes"):
        gk.report([], tmp_path / "r.html")


def test_the_command_writes_the_same_page(cli: Cli, tmp_path: Path) -> None:
    done = cli("report", "kepler", "matmul-2x2", "-o", tmp_path / "cli.html", "--seed", 2)
    assert (done.code, done.err) == (0, "")
    assert done.out == f"wrote {tmp_path / 'cli.html'} (2 cassettes)\n"
    gk.report(["kepler", "matmul-2x2"], tmp_path / "api.html", seed=2)
    assert (tmp_path / "cli.html").read_bytes() == (tmp_path / "api.html").read_bytes()


def test_the_command_tells_what_it_wrote_as_json(cli: Cli, tmp_path: Path) -> None:
    target = tmp_path / "r.html"
    done = cli("report", "parity-3of64", "-o", target, "--json")
    digest = gk.show("parity-3of64").digest
    cassette = {"name": "parity-3of64", "version": 1, "digest": digest}
    assert done.json == {"path": str(target), "cassettes": [cassette], "notes": []}


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("kepler", "-o", "r.txt"), 2),
        (("kepler",), 2),
        (("-o", "r.html"), 2),
        (("keplr", "-o", "r.html"), 5),
        (("matmul-2x2", "-o", "no/folder/r.html"), 6),
    ],
)
def test_what_cannot_be_reported_exits_with_its_code(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], code: int
) -> None:
    monkeypatch.chdir(tmp_path)
    done = cli("report", *words)
    assert (done.code, done.out) == (code, "")
    assert list(tmp_path.glob("*.html*")) == []
