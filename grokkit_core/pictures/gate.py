"""The weights of a fusion's gate against the context that it reads, computed from its own tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from grokkit_core.cassette import Cassette
from grokkit_core.fusion.ensemble import Ensemble, parse_config
from grokkit_core.manifest import Manifest
from grokkit_core.pictures.chart import HUES, Axis, Chart, Series, short
from grokkit_core.streams import stream
from grokkit_core.task import Place, tensors_of
from grokkit_core.text import printable

SAMPLES = 64
POINTS = 41
MOST_MEMBERS = len(HUES)
WIDE = 0.005
"""Weights that differ more than this between samples of one context have their range drawn too."""


def gate_charts(cassette: Cassette, *, seed: int) -> list[Chart]:
    """Mean weight of each member against the gate's context variable; one row each for a gate that reads none.

    Of more than six members those with the largest weights. Empty for anything but an ensemble.
    """
    module = cassette.module_for(cassette.dtype)
    if not isinstance(module, Ensemble):
        return []
    _, gate = parse_config(cassette.manifest.architecture.config)
    places, fitted = _places(cassette, gate.variable)
    found = [_weights(cassette, module, where, seed) for where in places]
    means = torch.stack([mean for mean, _, _ in found])
    chosen = means.abs().mean(0).topk(min(MOST_MEMBERS, means.shape[1])).indices.sort().values.tolist()
    names = _names(cassette.manifest, means.shape[1])
    hidden = means.shape[1] - len(chosen)
    caption = f"gate {gate.id}; mean over {SAMPLES} samples a context, seed {seed}" + (
        f"; {hidden} members of smaller weights are not drawn" if hidden else ""
    )
    if not gate.variable:
        return [_rows(means[0], chosen, names, caption)]
    lines = []
    for hue, member in zip(HUES, chosen, strict=False):
        points = tuple((float(w[gate.variable]), float(m[member])) for w, (m, _, _) in zip(places, found, strict=True))
        spread = tuple((float(low[member]), float(high[member])) for _, low, high in found)
        wide = max(high - low for low, high in spread) > WIDE
        lines.append(Series(short(names[member]), points, hue, spread if wide else (), band=True))
    unit = next((item.unit for item in cassette.signature.context if item.name == gate.variable), "1")
    variable = f"{gate.variable} [{unit}]" if unit != "1" else gate.variable
    return [
        Chart(
            "gate",
            "gate weights",
            Axis(printable(variable)),
            Axis("weight", False, 0.0),
            tuple(lines),
            printable(caption + "; ticks below: contexts that it was fitted on", 400),
            ticks=fitted,
        )
    ]


def _places(cassette: Cassette, variable: str) -> tuple[list[Place], tuple[float, ...]]:
    """Contexts evenly over those that matter, the fitted ones among them; and the fitted ones."""
    task = cassette.task
    if not variable:
        return [task.evaluation[0]], ()
    recorded = (cassette.manifest.provenance.gate or {}).get("contexts", ())
    fitted = sorted({float(place[variable]) for place in recorded if isinstance(place, dict) and variable in place})
    known = fitted + [float(place[variable]) for place in task.evaluation if variable in place]
    known += task.training_range.get(variable, ())
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    steps = {low + (high - low) * index / (POINTS - 1) for index in range(POINTS)}
    return [{variable: value} for value in sorted(steps | set(fitted))], tuple(fitted)


def _weights(cassette: Cassette, module: Ensemble, where: Place, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, tenth and ninetieth percentile of each member's weight at one place, "member" each."""
    batch = cassette.task.sample(SAMPLES, generator=stream(seed, "picture", "gate"), **where)
    batch = batch.to(cassette.dtype, cassette.device)
    with torch.inference_mode():
        weights: Tensor = module.parts(*tensors_of(batch.inputs), context=batch.context)[1]
    flat = weights.flatten(1).double().cpu()
    low, high = flat.quantile(0.1, dim=1), flat.quantile(0.9, dim=1)
    return flat.mean(1), low, high


def _names(manifest: Manifest, count: int) -> list[str]:
    """A name for each member: its parent's where there is one a member, with `#2` for a repeat."""
    parents = manifest.provenance.parents
    if len(parents) != count:
        return [f"member {index}" for index in range(1, count + 1)]
    plain = [parent.name for parent in parents]
    return [name if plain.count(name) == 1 else f"{name}#{plain[: i + 1].count(name)}" for i, name in enumerate(plain)]


def _rows(weights: Tensor, chosen: Sequence[int], names: Sequence[str], caption: str) -> Chart:
    points = tuple((float(weights[member]), float(row)) for row, member in enumerate(chosen))
    series = Series("", tuple(point for point in points if math.isfinite(point[0])), marks=True, line=False)
    rows = tuple(short(names[member]) for member in chosen)
    return Chart(
        "gate", "gate weights", Axis("weight", False, 0.0), Axis(""), (series,), printable(caption, 400), rows=rows
    )
