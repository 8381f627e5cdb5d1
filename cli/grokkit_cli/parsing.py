"""Texts of options to values."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from grokkit_core.errors import UsageError
from grokkit_core.plugins import PluginHost
from grokkit_core.specs import FusionSpec, GateSpec, TaskSpec, parse_settings
from grokkit_core.text import printable

if TYPE_CHECKING:
    from grokkit_core.cassette import Cassette

MAX_SEEDS = 10_000


def gate_options(host: PluginHost, fusion: str, gate: str | None, pairs: Sequence[str]) -> dict[str, Any]:
    """`--set` values of the gate of a fusion; raises `UsageError` for a fusion that takes none."""
    fuser = host.spec(FusionSpec, fusion)
    if pairs and not fuser.gated:
        raise UsageError(f"--set {printable(pairs[0], 60)} for fusion {fuser.id}", expected="no --set: it has no gate")
    spec = host.spec(GateSpec, gate or "uniform")
    return parse_settings(spec.options, pairs, f"gate {spec.id}")


def training_settings(host: PluginHost, task: str, recipe: str | None, pairs: Sequence[str]) -> dict[str, Any]:
    """`--set` values of a recipe, and of the constants of the task's law."""
    spec = host.spec(TaskSpec, task)
    found = host.recipe_for(spec, recipe)
    return parse_settings([*found.parameters, *spec.parameters], pairs, f"recipe {found.id}")


def benchmark_settings(cassette: Cassette, pairs: Sequence[str]) -> dict[str, Any]:
    """`--set` values of the benchmark that a cassette's architecture brings."""
    architecture = cassette.architecture
    return parse_settings(architecture.benchmark_settings, pairs, f"the benchmark of {architecture.spec.id}")


def calibration(pairs: Sequence[str]) -> dict[str, list[float]]:
    """`omega=.85,1.35` as `{"omega": [0.85, 1.35]}`; raises `UsageError`."""
    result: dict[str, list[float]] = {}
    for pair in pairs:
        name, _, texts = pair.partition("=")
        try:
            values = [float(text) for text in texts.split(",")]
        except ValueError:
            raise UsageError(
                f"calibration contexts '{printable(pair, 80)}'", expected="name=number,number,..."
            ) from None
        result.setdefault(name, []).extend(values)
    return result


def sizes(pairs: Sequence[str], references: Collection[str] = ()) -> dict[str, Any]:
    """`n=2048` as `{"n": 2048}`, `dt=0.1` as `{"dt": 0.1}`; the names in `references` take a cassette's name instead.

    Raises `UsageError` for anything else.
    """
    result: dict[str, Any] = {}
    for pair in pairs:
        name, _, text = pair.partition("=")
        if name in references and text and name not in result:
            result[name] = text
            continue
        whole = re.fullmatch(r"[+-]?\d{1,18}", text)
        if not name or not (whole or re.fullmatch(r"[+-]?(\d+\.\d*|\.?\d+)(e[+-]?\d{1,3})?", text[:40], re.IGNORECASE)):
            others = "".join(f", or {reference}=REF" for reference in sorted(references))
            raise UsageError(
                f"size '{printable(pair, 80)}'",
                expected=f"name=whole number, e.g. n=2048, or a decimal, e.g. dt=0.1{others}",
            )
        if name in result:
            raise UsageError(f"size {printable(name, 60)} is given twice", expected="once")
        result[name] = int(text) if whole else float(text)
    return result


def seed_range(text: str | None) -> list[int] | None:
    """`0-9` as ten seeds; raises `UsageError`."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,15})(?:-(\d{1,15}))?", text)
    first = int(match[1]) if match else 0
    last = int(match[2] or match[1]) if match else -1
    if not match or last < first or last - first >= MAX_SEEDS:
        raise UsageError(
            f"seeds '{printable(text, 40)}'", expected=f"A-B with A <= B, at most {MAX_SEEDS} seeds, e.g. 0-9"
        )
    return list(range(first, last + 1))
