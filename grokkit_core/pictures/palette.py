"""The colours of pictures and reports: for each role one on light and one on dark paper, both legible as text there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Ink:
    """A colour on light and on dark paper."""

    light: str
    dark: str


PAPER = Ink("#ffffff", "#14171b")
CARD = Ink("#f5f6f8", "#1d2126")
TEXT = Ink("#1a1d21", "#e9ebee")
MUTED = Ink("#565d66", "#a9b0b9")
LINE = Ink("#c9ced5", "#3a4149")
FRAME = Ink("#7b838d", "#808995")
"""Borders of controls, which must be seen: three to one against the paper."""

ROLES: Mapping[str, Ink] = {
    "model": Ink("#0b5cad", "#79baff"),
    "second": Ink("#ad3f06", "#ffa06b"),
    "third": Ink("#1a7445", "#62cf97"),
    "fourth": Ink("#8236b0", "#d0a2f7"),
    "fifth": Ink("#8a5a00", "#e6bb5a"),
    "sixth": Ink("#ad2064", "#ff93c0"),
    "baseline": Ink("#5c636c", "#a9b0b9"),
    "exact": Ink("#1a1d21", "#e9ebee"),
}
"""What the roles of a chart's lines look like."""

VERDICTS: Mapping[str, Ink] = {
    "exact": Ink("#1a7445", "#62cf97"),
    "bounded": Ink("#0b5cad", "#79baff"),
    "estimated": Ink("#8a5a00", "#e6bb5a"),
    "failed": Ink("#b01f24", "#ff8f8a"),
}

NAMES: Mapping[str, Ink] = {
    "paper": PAPER,
    "card": CARD,
    "text": TEXT,
    "muted": MUTED,
    "line": LINE,
    "frame": FRAME,
    **{f"role-{name}": ink for name, ink in ROLES.items()},
    **{f"verdict-{name}": ink for name, ink in VERDICTS.items()},
}
"""Every colour by the name that a stylesheet knows it by."""


def contrast(first: str, second: str) -> float:
    """The contrast of two colours `#rrggbb` as WCAG 2 defines it, 1 to 21."""
    low, high = sorted((_luminance(first), _luminance(second)))
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: str) -> float:
    parts = [int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
