"""A flow map fed with its own outputs: one sample beside the exact rule, the error as it grows, the drift of invariants."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from grokkit_core.cassette import Cassette
from grokkit_core.devices import fitting_threads
from grokkit_core.dtypes import cast, real_view
from grokkit_core.errors import Incompatible
from grokkit_core.pictures.chart import HUES, Axis, Chart, Series, short
from grokkit_core.prediction import Drift
from grokkit_core.streams import stream
from grokkit_core.task import Batch, Place
from grokkit_core.text import printable

STEPS = 100
SAMPLES = 16
FIELD = 256
"""Samples of more numbers than this are fields: fewer of them, and a profile instead of a course in time."""

FIELD_SAMPLES = 2
MOST_NUMBERS = 8
"""Outputs of more numbers than this have no course in time that one line could show."""


@dataclass(frozen=True)
class Course:
    """What was rolled out: outputs "step batch *out" of the cassette and of the exact rule, errors "step batch", drift.

    Shorter than was asked for where the cassette refused what it had itself put out.
    """

    where: Place
    outputs: Tensor
    exact: Tensor
    errors: Tensor
    drift: tuple[Mapping[str, float], ...]


def rollout_charts(cassette: Cassette, *, seed: int, steps: int = STEPS) -> list[Chart]:
    """Panels of a rollout over `steps` steps from samples of `seed`; none for tasks that are no flow maps."""
    with fitting_threads(cassette.manifest.weights.parameters):
        try:
            course = roll_out(cassette, seed=seed, steps=steps)
        except NotAFlow:
            return []
    samples = course.errors.shape[1]
    where = ", ".join(f"{name} {value}" for name, value in course.where.items())
    caption = printable(f"{samples} samples, seed {seed}" + (f", {where}" if where else ""), 300)
    if len(course.outputs) < steps:
        caption += f"; it refuses its own output of step {len(course.outputs)}"
    return [_shown(cassette, course, caption), _errors(cassette, course, caption), *_drift(course, caption)]


class NotAFlow(Exception):
    """The task has no next input."""


def roll_out(cassette: Cassette, *, seed: int, steps: int) -> Course:
    """The cassette and the exact rule from the same inputs, each fed with what it gave; raises `NotAFlow`."""
    task = cassette.task
    where = task.evaluation[len(task.evaluation) // 2] if len(task.evaluation) > 2 else task.evaluation[0]
    first = _batch(cassette, where, seed)
    exact_inputs, exact = first.inputs, []
    try:
        for _ in range(steps):
            exact.append(task.oracle(exact_inputs, first.context))
            exact_inputs = task.advance(exact_inputs, exact[-1])
    except Incompatible as refusal:
        raise NotAFlow from refusal
    start = first.to(cassette.dtype, cassette.device)
    drift, outputs, drifted = Drift(task, first.inputs, first.context), [], []
    context = {
        name: start.context[name] for name in (v.name for v in cassette.signature.context) if name in start.context
    }
    try:
        for output in cassette.rollout(start.inputs, steps, context=context):
            drift.observe(output)
            drifted.append(dict(drift.worst))
            outputs.append(cast(output.cpu(), torch.float64))
    except Incompatible:
        if not outputs:
            raise
    exact = exact[: len(outputs)]
    errors = torch.stack([task.error(made, right) for made, right in zip(outputs, exact, strict=True)])
    return Course(where, torch.stack(outputs), torch.stack(exact), errors.double(), tuple(drifted))


def _batch(cassette: Cassette, where: Place, seed: int) -> Batch:
    draw = cassette.task.sample(1, generator=stream(seed, "picture", "rollout"), **where)
    count = SAMPLES if draw.targets.numel() <= FIELD else FIELD_SAMPLES
    return cassette.task.sample(count, generator=stream(seed, "picture", "rollout"), **where)


def _shown(cassette: Cassette, course: Course, caption: str) -> Chart:
    """The first number of the first sample in time; for fields the profile along the last axis at the end."""
    name = cassette.signature.outputs[0].name
    made, right = (_profile(tensor) for tensor in (course.outputs, course.exact))
    if made is None or right is None:
        series = [tensor[:, 0].flatten(1)[:, 0].double().tolist() for tensor in (course.outputs, course.exact)]
        steps = len(series[0])
        drawn = [tuple((float(step), value) for step, value in enumerate(line, 1)) for line in series]
        title, x, y = f"rollout over {steps} steps", "step", f"{name}[0]"
        unit = cassette.signature.outputs[0].unit
        y += f" [{unit}]" if unit != "1" and "," not in unit else ""
    else:
        drawn = [tuple((float(index), value) for index, value in enumerate(line)) for line in (made, right)]
        title, x, y = f"field after {len(course.outputs)} steps", "grid point", name
        y = f"Re {name}" if course.outputs.is_complex() else y
    lines = (Series("exact", drawn[1], "exact"), Series("this cassette", drawn[0], "model", dashed=True))
    return Chart("rollout", title, Axis(x), Axis(printable(y)), lines, f"first of {caption}")


def _profile(outputs: Tensor) -> list[float] | None:
    """The last outputs of the first sample along their last axis (real parts); None for few numbers."""
    last = outputs[-1, 0]
    if last.numel() <= MOST_NUMBERS:
        return None
    row = last.reshape(-1, last.shape[-1])[0]
    values: list[float] = (real_view(row)[..., 0] if row.is_complex() else row).double().tolist()
    return values


def _errors(cassette: Cassette, course: Course, caption: str) -> Chart:
    spec = cassette.task.spec
    points, spread = [], []
    for step, errors in enumerate(course.errors, 1):
        low, middle, high = errors.quantile(torch.tensor([0.1, 0.5, 0.9], dtype=errors.dtype)).tolist()
        points.append((float(step), middle))
        spread.append((low, high))
    known = [value for _, value in points if math.isfinite(value)]
    wide = not spec.higher_is_better and all(value > 0 for value in known)
    line = Series("median", tuple(points), "model", tuple(spread), band=True)
    unit = f" [{spec.unit}]" if spec.unit not in ("", "1") else ""
    return Chart(
        "rollout-error",
        f"{spec.metric} as the rollout goes on",
        Axis("step"),
        Axis(printable(spec.metric + unit), None if wide else False, None if wide else 0.0),
        (line,),
        f"against the exact rule; area: 10 to 90 % of {caption}{_broken(points)}",
    )


def _broken(points: Sequence[tuple[float, float]]) -> str:
    """From which step on the error is no number."""
    first = next((step for step, value in points if not math.isfinite(value)), None)
    return "" if first is None else f"; not finite from step {first:.0f} on"


def _drift(course: Course, caption: str) -> list[Chart]:
    """The largest relative change of each invariant since the start."""
    names = list(course.drift[0]) if course.drift else []
    lines = []
    for hue, name in zip(HUES, names, strict=False):
        points = [(float(step), worst[name]) for step, worst in enumerate(course.drift, 1)]
        lines.append(Series(short(name.replace("_", " ")), tuple(points), hue))
    if not lines:
        return []
    values = [value for line in lines for _, value in line.points]
    wide = any(value > 0 for value in values) and min(value for value in values if value > 0) * 16 < max(values)
    return [
        Chart(
            "drift",
            "drift of invariants",
            Axis("step"),
            Axis("largest relative change so far", True if wide else None, 0.0),
            tuple(lines),
            f"largest of {caption}",
        )
    ]
