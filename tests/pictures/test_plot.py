"""Pictures in files: equal for equal inputs, whole or not at all, and matplotlib is left as it was found."""

from __future__ import annotations

import importlib.util
import itertools
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

import grokkit_core as gk
from grokkit_core import saving, store
from grokkit_core.errors import GrokkitError, Incompatible, NotFound, StoreError, UsageError
from grokkit_core.pictures.draw import _figure
from grokkit_core.pictures.panels import panels_of, subject_of
from grokkit_core.workspace import Workspace
from grokkit_core.writing import replace_file

Cli = Callable[..., Any]


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_equal_inputs_give_equal_bytes(tmp_path: Path, suffix: str) -> None:
    files = [tmp_path / f"{index}.{suffix}" for index in range(2)]
    for file in files:
        gk.plot("cyclotron-fused", file)
    assert files[0].read_bytes() == files[1].read_bytes()
    assert b"20" + b"26-" not in files[0].read_bytes()


def test_another_seed_draws_other_samples(tmp_path: Path) -> None:
    for seed in (0, 1):
        gk.plot("kepler", tmp_path / f"{seed}.svg", seed=seed)
    assert (tmp_path / "0.svg").read_bytes() != (tmp_path / "1.svg").read_bytes()


def test_an_svg_is_well_formed_and_tells_what_it_shows(tmp_path: Path) -> None:
    made = gk.plot("parity-3of64-grokked", tmp_path / "parity.svg")
    text = (tmp_path / "parity.svg").read_text()
    ET.fromstring(text)
    assert "grokked at 1.47e4" in text
    assert made.panels == ("curve", "curve")
    assert not re.search(r"<script|<image|href=\"http", text)


def test_a_png_is_large_enough_to_read(tmp_path: Path) -> None:
    gk.plot("kepler", tmp_path / "k.png")
    data = (tmp_path / "k.png").read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = (int.from_bytes(data[start : start + 4], "big") for start in (16, 20))
    assert width > 1500 and height > 1000


@pytest.mark.parametrize(
    "name", ["wave", "kepler", "parity-3of64", "parity-3of64-grokked", "cyclotron-fused", "pendulum-mlp"]
)
def test_every_text_lies_inside_the_picture_and_none_over_another(name: str, place: Workspace) -> None:
    charts = panels_of(subject_of(name, place), place).charts
    figure = _figure(charts, f"{name}@1, exact", 60 * "certificate ")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()

    def crowded() -> tuple[list[str], list[tuple[str, str]]]:
        shown = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]
        boxes = [text.get_window_extent(renderer).padded(-1.0) for text in shown]
        outside = [t.get_text() for t, box in zip(shown, boxes, strict=True) if box.x0 < 0 or box.x1 > figure.bbox.x1]
        pairs = itertools.combinations(zip(shown, boxes, strict=True), 2)
        return outside, [(a.get_text(), b.get_text()) for (a, p), (b, q) in pairs if p.overlaps(q)]

    assert crowded() == ([], [])
    figure.text(0.98, 0.5, "too far to the right")
    figure.text(0.98, 0.5, "and over it")
    assert crowded() == (["too far to the right", "and over it"], [("too far to the right", "and over it")])


def test_settings_of_the_user_change_nothing_and_are_left_alone(tmp_path: Path) -> None:
    gk.plot("parity-3of64", tmp_path / "a.svg")
    before = dict(matplotlib.rcParams)
    with matplotlib.rc_context({"font.size": 30.0, "axes.grid": True, "svg.hashsalt": "other"}):
        gk.plot("parity-3of64", tmp_path / "b.svg")
        assert matplotlib.rcParams["font.size"] == 30.0
    assert dict(matplotlib.rcParams) == before
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_texts_are_neither_formulas_nor_missing_letters(tmp_path: Path, library: Path) -> None:
    stored = store.read(gk.Workspace.open().library.find("parity-3of64").folder)
    odd = stored.manifest.replace(summary="x")
    certificate = odd.certificate
    wild = type(certificate)(**{**vars(certificate), "statement": r"$\frac{1}$ 漢字 \alpha_{ $x$ & <b>"})
    saving.save(library, odd.replace(certificate=wild), stored.weights)
    gk.plot("parity-3of64", tmp_path / "odd.svg", library=library)
    ET.fromstring((tmp_path / "odd.svg").read_text())


@pytest.mark.parametrize("name", ["picture.pdf", "picture", "picture.svg.txt"])
def test_another_suffix_is_refused_before_anything_is_read(name: str) -> None:
    with pytest.raises(UsageError, match=r"ends with \.svg or \.png"):
        gk.plot("nobody", name)


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "matplotlib" else found(name))
    with pytest.raises(UsageError, match=r"pip install 'grokkit\[plot\]'"):
        gk.plot("kepler", tmp_path / "k.svg")
    assert list(tmp_path.glob("k*")) == []


def test_an_unknown_cassette_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        gk.plot("keplr", tmp_path / "k.svg")
    assert list(tmp_path.glob("*k.svg*")) == []


def test_a_cassette_of_which_there_is_nothing_to_draw_says_so(tmp_path: Path, library: Path) -> None:
    stored = store.read(gk.Workspace.open().library.find("matmul-2x2").folder)
    certificate = stored.manifest.certificate
    bare = type(certificate)(**{**vars(certificate), "metrics": (), "baselines": ()})
    found = stored.manifest.provenance
    plain = type(found)(**{**vars(found), "curve": type(found.curve)((), ())})
    saving.save(library, stored.manifest.replace(certificate=bare, provenance=plain), stored.weights)
    with pytest.raises(Incompatible, match="nothing to draw of matmul-2x2@1"):
        gk.plot("matmul-2x2", tmp_path / "m.svg", library=library)


def test_a_file_is_replaced_as_a_whole_or_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "file.svg"
    target.write_bytes(b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(StoreError, match="ENOSPC"):
            replace_file(target, b"new")
    assert target.read_bytes() == b"old"
    replace_file(target, b"new")
    assert target.read_bytes() == b"new"
    assert [path.name for path in tmp_path.glob("*file.svg*")] == ["file.svg"]


# -- command line ------------------------------------------------------------------------------------------------------


def test_show_draws_beside_the_card(cli: Cli, tmp_path: Path) -> None:
    done = cli("show", "parity-3of64", "--plot", tmp_path / "p.svg")
    assert done.code == 0
    assert "certificate: EXACT" in done.out
    assert done.err == f"grokkit: wrote {tmp_path / 'p.svg'} (curve)\n"
    gk.plot("parity-3of64", tmp_path / "api.svg")
    assert (tmp_path / "p.svg").read_bytes() == (tmp_path / "api.svg").read_bytes()


def test_show_json_is_the_manifest_with_a_picture_too(cli: Cli, tmp_path: Path) -> None:
    done = cli("show", "kepler", "--plot", tmp_path / "k.png", "--seed", 5, "--json")
    assert done.json["name"] == "kepler"
    gk.plot("kepler", tmp_path / "api.png", seed=5)
    assert (tmp_path / "k.png").read_bytes() == (tmp_path / "api.png").read_bytes()


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("kepler", "--plot", "k.pdf"), 2),
        (("keplr", "--plot", "k.svg"), 5),
        (("kepler", "--plot", "no/such/folder/k.svg"), 6),
        (("kepler", "--plot", "k.svg", "--seed", "-1"), 2),
    ],
)
def test_what_cannot_be_drawn_exits_with_its_code(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], code: int
) -> None:
    monkeypatch.chdir(tmp_path)
    done = cli("show", *words)
    assert (done.code, done.out) == (code, "")
    assert done.err.count("\n") == 1
    assert list(tmp_path.glob("*k.*")) == []


def test_pictures_have_errors_of_grokkit_only(tmp_path: Path) -> None:
    with pytest.raises(GrokkitError):
        gk.plot("kepler", tmp_path / "missing" / "k.svg")
