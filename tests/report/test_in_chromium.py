"""The report page in a real browser, from file://, at 400 and 1,200 px, light and dark, with a keyboard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from chromium import Chromium, find_chromium
from test_page import page_of

import grokkit_core as gk
from grokkit_core.manifest import Manifest

WIDTHS = (320, 400, 1200)
AA, SEEN = 4.5, 3.0

CONTRASTS = """(() => {
  const parts = (colour) => (colour.match(/[\\d.]+/g) || []).map(Number);
  const channel = (value) => (value /= 255) <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const ratio = (a, b) => { const [x, y] = [light(a), light(b)]; return (Math.max(x, y) + .05) / (Math.min(x, y) + .05); };
  const behind = (element) => {
    if (element.matches("svg.lineage text")) return parts(getComputedStyle(document.querySelector(".node")).fill);
    for (let at = element; at; at = at.parentElement) {
      const colour = parts(getComputedStyle(at).backgroundColor);
      if (colour.length === 3 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const element of document.querySelectorAll("body *")) {
    const style = getComputedStyle(element);
    const drawn = element instanceof SVGElement;
    if (["TITLE", "DESC", "SCRIPT"].includes(element.tagName.toUpperCase())) continue;
    const told = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (told && element.getClientRects().length) {
      const ink = parts(drawn ? style.fill : style.color);
      found.push(["text", element.className.baseVal ?? element.tagName, ratio(ink, behind(element))]);
    } else if (drawn && element.matches(".line, .interval, .mark, .rug, .edge, .node")) {
      found.push(["line", element.className.baseVal, ratio(parts(style.stroke), behind(element.closest("svg")))]);
    } else if (drawn && element.matches(".dot")) {
      found.push(["line", element.className.baseVal, ratio(parts(style.fill), behind(element.closest("svg")))]);
    }
  }
  return found;
})()"""

CLIPPED = """[...document.querySelectorAll("svg text")].filter((text) => {
  const box = text.getBBox(), view = text.ownerSVGElement.viewBox.baseVal;
  return box.x < -0.5 || box.x + box.width > view.width + 0.5 || box.y < -0.5 || box.y + box.height > view.height + 0.5;
}).map((text) => text.textContent)"""

OVERLAPPING = """[...document.querySelectorAll("svg.chart")].flatMap((chart) => {
  const texts = [...chart.querySelectorAll("text")].map((text) => [text.textContent, text.getBBox()]);
  return texts.flatMap(([a, p], index) => texts.slice(index + 1).filter(([b, q]) =>
    p.x + 2 < q.x + q.width && q.x + 2 < p.x + p.width && p.y + 4 < q.y + q.height && q.y + 4 < p.y + p.height
  ).map(([b]) => [a, b]));
})"""

WIDER = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


def faint(found: list[tuple[str, str, float]]) -> list[tuple[str, str, float]]:
    """Texts below AA and lines that are hardly seen."""
    return [(kind, name, ratio) for kind, name, ratio in found if ratio < (AA if kind == "text" else SEEN)]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_no_complaint_no_sideways_scroll_and_every_text_is_legible(
    browser: Chromium, page: Path, width: int, dark: bool
) -> None:
    browser.open(page, width=width, dark=dark)
    assert browser.complaints == []
    assert browser.evaluate(WIDER) == 0
    contrasts = browser.evaluate(CONTRASTS)
    assert len(contrasts) > 500
    assert faint(contrasts) == []
    assert browser.evaluate(CLIPPED) == []
    assert browser.evaluate(OVERLAPPING) == []


def test_the_themes_are_different(browser: Chromium, page: Path) -> None:
    papers = []
    for dark in (False, True):
        browser.open(page, width=400, dark=dark)
        papers.append(browser.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert papers == ["rgb(255, 255, 255)", "rgb(20, 23, 27)"]


def test_pale_text_and_a_wide_page_would_be_noticed(browser: Chromium, page: Path) -> None:
    browser.open(page, width=400)
    browser.evaluate("document.querySelector('h1').style.color = '#999'")
    browser.evaluate("document.querySelector('.chart .label').style.fill = '#9ab'")
    browser.evaluate("document.querySelector('h1').style.width = '500px'")
    browser.evaluate("document.querySelector('.chart text').textContent = 'x'.repeat(200)")
    browser.evaluate(
        "(([a, b]) => b.setAttribute('y', a.getAttribute('y')))(document.querySelectorAll('.chart .label'))"
    )
    assert len(faint(browser.evaluate(CONTRASTS))) == 2
    assert browser.evaluate(OVERLAPPING) != []
    assert browser.evaluate(WIDER) > 0
    assert browser.evaluate(CLIPPED) == ["x" * 200]


def test_a_browser_that_meets_a_forbidden_thing_complains(browser: Chromium, page: Path, tmp_path: Path) -> None:
    spoilt = tmp_path / "spoilt.html"
    spoilt.write_text(
        page.read_text().replace("<main", '<p style="color:red">x</p><img src="http://127.0.0.1:9/a.png"><main')
    )
    browser.open(spoilt, width=400)
    said = " ".join(browser.complaints)
    assert ("style" in said and "img-src" in said) or "a.png" in said


def test_the_keyboard_reaches_everything_in_order(browser: Chromium, page: Path) -> None:
    browser.open(page, width=400)
    reached: list[Any] = []
    for _ in range(6):
        browser.press("Tab")
        reached.append(
            browser.evaluate(
                "document.activeElement.className || document.activeElement.id || document.activeElement.tagName"
            )
        )
        outline = browser.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid"
    assert reached[:3] == ["skip", "theme", "scroll"]
    assert set(reached[3:]) == {"A"}


def test_the_skip_link_shows_itself_and_leads_to_the_cassettes(browser: Chromium, page: Path) -> None:
    browser.open(page, width=400)
    assert browser.evaluate("document.querySelector('.skip').getBoundingClientRect().bottom") < 0
    browser.press("Tab")
    assert browser.evaluate("document.querySelector('.skip').getBoundingClientRect().top") >= 0
    browser.press("Enter")
    assert browser.evaluate("document.activeElement.id") == "main"


def test_the_theme_is_changed_by_key_and_told(browser: Chromium, page: Path) -> None:
    browser.open(page, width=400)
    browser.press("Tab")
    browser.press("Tab")
    assert browser.evaluate("document.activeElement.getAttribute('aria-pressed')") == "false"
    browser.press("Enter")
    assert browser.evaluate("document.activeElement.getAttribute('aria-pressed')") == "true"
    assert browser.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 27)"
    assert faint(browser.evaluate(CONTRASTS)) == []
    assert browser.complaints == []


def test_tables_scroll_inside_themselves(browser: Chromium, page: Path) -> None:
    browser.open(page, width=400)
    wide = "[...document.querySelectorAll('.scroll')].filter((box) => box.scrollWidth > box.clientWidth)"
    assert browser.evaluate(f"{wide}.length") > 0
    assert browser.evaluate(f"{wide}.every((box) => box.tabIndex === 0 && box.getAttribute('aria-label'))") is True


def test_targets_are_large_enough_for_a_finger(browser: Chromium, page: Path) -> None:
    browser.open(page, width=400)
    assert browser.evaluate("document.getElementById('theme').getBoundingClientRect().height") >= 44


def test_paper_is_white_and_shows_no_button(browser: Chromium, page: Path) -> None:
    browser.open(page, width=1200, dark=True, media="print")
    assert browser.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.evaluate("getComputedStyle(document.getElementById('theme')).display") == "none"
    assert faint(browser.evaluate(CONTRASTS)) == []


@pytest.mark.parametrize("width", [400, 1200])
def test_a_hostile_manifest_is_shown_and_does_nothing(
    browser: Chromium, hostile: Manifest, tmp_path: Path, width: int
) -> None:
    target = tmp_path / "hostile.html"
    target.write_text(page_of(hostile, gk.show("kepler")))
    browser.open(target, width=width)
    assert browser.complaints == []
    assert browser.evaluate("document.title").startswith("cyclotron-1node@1")
    assert browser.evaluate("document.images.length + document.scripts.length") == 1
    assert "<script>document.title='pwned'" in browser.evaluate("document.querySelector('.summary').textContent")
    assert browser.evaluate(WIDER) == 0
    assert browser.evaluate(CLIPPED) == []


def test_where_there_is_no_browser_none_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert find_chromium() is None


def test_without_scripts_the_page_is_whole(browser: Chromium, page: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare.html"
    text = page.read_text()
    bare.write_text(text[: text.index("<script>")] + "</body></html>")
    browser.open(bare, width=400)
    assert browser.complaints == []
    assert browser.evaluate("getComputedStyle(document.getElementById('theme')).display") == "none"
    assert browser.evaluate("document.querySelectorAll('article').length") == 6


def test_a_screenshot_is_not_empty(browser: Chromium, page: Path, tmp_path: Path) -> None:
    browser.open(page, width=1200)
    browser.screenshot(tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 100_000
