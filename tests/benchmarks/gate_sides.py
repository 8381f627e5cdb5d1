"""Every gate over ten pairs of cyclotron replicas, on the same test samples: figures of the section `gates`."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from grokkit_cyclotron.law import TEST_OMEGAS
from torch import Tensor

import grokkit_core as gk
from grokkit_core.cassette import Cassette
from grokkit_core.certify.compare import holm, is_non_inferior, win_p_value
from grokkit_core.fusion.gate import Calibration, GateState
from grokkit_core.fusion.gates import mix
from grokkit_core.fusion.optimum import best_weights
from grokkit_core.plugins import host
from grokkit_core.specs import GateSpec
from grokkit_core.streams import stream
from grokkit_core.task import Task

HELD_OUT = (0.95, 1.1, 1.65, 1.9, 2.35)
"""Frequencies [rad/s] on which nothing is ever fitted: no gate's by default, and none of the published tables."""

SAMPLES = 20_000
OTHER = 1_000
"""Added to the seeds of 8-node members, so that the members of a pair share no training data."""

OPTIONS: Mapping[str, Sequence[Mapping[str, bool]]] = {
    "interference": ({}, {"free": True}),
    "interference-per-output": ({}, {"free": True}),
    "stacking": ({}, {"free": True}),
    "sequence": ({}, {"per_output": True}),
}
"""Gates that are measured with more than their defaults."""

MOST_LISTED = 8
ORACLE = "best convex weights per omega, fitted on the test samples"
PERSISTENCE = "persistence"


@dataclass
class Line:
    """One predictor over all pairs: errors by omega and pair; for gates also wins and non-inferiority by pair and omega."""

    name: str
    fitted: str = ""
    errors: dict[float, list[float]] = field(default_factory=dict)
    wins: dict[float, int] = field(default_factory=dict)
    strict: dict[float, list[bool]] = field(default_factory=dict)
    non_inferior: dict[float, list[bool]] = field(default_factory=dict)
    worst: dict[float, float] = field(default_factory=dict)

    def mean(self, omegas: Sequence[float]) -> float:
        """Mean error over pairs and omegas."""
        values = [value for omega in omegas for value in self.errors[omega]]
        return sum(values) / len(values)

    def in_all(self, found: Mapping[float, Sequence[bool]], omegas: Sequence[float]) -> int:
        """The number of pairs for which something holds at every omega."""
        return sum(all(column) for column in zip(*(found[omega] for omega in omegas), strict=True))


def gates() -> list[tuple[str, Mapping[str, bool]]]:
    """Every registered gate that fits two members of the cyclotron, with the options it is measured with."""
    return [(spec.id, options) for spec in host().specs(GateSpec) for options in OPTIONS.get(spec.id, ({},))]


def label(name: str, options: Mapping[str, bool]) -> str:
    """The gate as it is typed."""
    return " ".join([name, *(f"{key}={str(value).lower()}" for key, value in options.items())])


def pairs(count: int, folder: Path) -> list[tuple[Cassette, Cassette]]:
    """Freshly trained 1-node and 8-node replicas."""
    ones = gk.train("cyclotron", seeds=range(count), name="one", library=folder)
    grid = {"angular": 4, "radial": 2}
    eights = gk.train("cyclotron", seeds=range(OTHER, OTHER + count), settings=grid, name="eight", library=folder)
    return [(one.cassette, eight.cassette) for one, eight in zip(ones, eights, strict=True)]


def fitted(
    name: str, options: Mapping[str, bool], members: Sequence[Cassette], seed: int
) -> tuple[torch.nn.Module, str]:
    """The module of a gate fitted as `compose` does it by default, and the frequencies that it was fitted on."""
    task = host().task("cyclotron")
    gate = host().gate(name, **options)
    places = gate.places(task)
    variable = "omega" if gate.spec.needs else ""
    data = stream(seed, "calibration")
    batches = Calibration(task, places, generator=data, dtype=torch.float32, variable=variable)
    state = gate.fit([member.predict for member in members], batches, generator=stream(seed, "gate"))
    module = gate.build(GateState(state.config))
    module.load_state_dict(dict(state.tensors))
    return module.eval(), _told([float(place["omega"]) for place in batches.seen.values()])


def _told(omegas: Sequence[float]) -> str:
    if len(omegas) > MOST_LISTED:
        return f"{len(omegas):,} drawn from {min(omegas):.2g} to {max(omegas):.2g}"
    return ", ".join(f"{omega:g}" for omega in omegas) or "nothing"


def measured(count: int, samples: int = SAMPLES) -> dict[str, Line]:
    """Lines by name, in the order of the table."""
    task = host().task("cyclotron")
    lines: dict[str, Line] = {}
    with tempfile.TemporaryDirectory() as folder:
        for seed, members in enumerate(pairs(count, Path(folder))):
            modules = {label(*gate): fitted(*gate, members, seed) for gate in gates()}
            p_values: dict[str, dict[float, float]] = {}
            for omega in (*TEST_OMEGAS, *HELD_OUT):
                rows = _errors(task, members, modules, omega, seed, samples)
                _add(lines, rows, modules, omega, p_values)
            _count_wins(lines, p_values)
    return lines


def _errors(
    task: Task,
    members: Sequence[Cassette],
    modules: Mapping[str, tuple[torch.nn.Module, str]],
    omega: float,
    seed: int,
    samples: int,
) -> dict[str, Tensor]:
    """Errors "n" of all predictors on the same samples at one frequency."""
    batch = task.sample(samples, generator=stream(seed, "gate table", round(1000 * omega)), omega=omega)
    given = batch.to(torch.float32)
    predictions = torch.stack([member.predict(given.inputs, given.context) for member in members])
    found = {
        "1-node": task.error(predictions[0], batch.targets),
        "8-node": task.error(predictions[1], batch.targets),
        PERSISTENCE: task.error(batch.inputs[:, -1], batch.targets),  # type: ignore[index]
    }
    with torch.inference_mode():
        for name, (module, _) in modules.items():
            weights = module((given.inputs,), given.context, predictions)
            found[name] = task.error(mix(weights, predictions), batch.targets)
    weights = best_weights(predictions, batch.targets)
    spread = weights.unsqueeze(1).expand(-1, samples)
    found[ORACLE] = task.error(mix(spread, predictions), batch.targets)
    return found


def _add(
    lines: dict[str, Line],
    rows: Mapping[str, Tensor],
    modules: Mapping[str, tuple[torch.nn.Module, str]],
    omega: float,
    p_values: dict[str, dict[float, float]],
) -> None:
    rivals = {name: rows[name] for name in ("1-node", "8-node")}
    best = [errors.mean().item() for errors in rivals.values()]
    for name, errors in rows.items():
        line = lines.setdefault(name, Line(name, modules[name][1] if name in modules else ""))
        value = errors.mean().item()
        line.errors.setdefault(omega, []).append(value)
        line.strict.setdefault(omega, []).append(value < min(best))
        line.non_inferior.setdefault(omega, []).append(is_non_inferior(value, best))
        line.worst[omega] = max(line.worst.get(omega, 0.0), value / min(best))
        if name in modules:
            p_values.setdefault(name, {})[omega] = win_p_value(errors, rivals)


def _count_wins(lines: Mapping[str, Line], p_values: Mapping[str, Mapping[float, float]]) -> None:
    """Holm over the frequencies of a pair, the published and the held-out ones apart."""
    for name, found in p_values.items():
        for omegas in (TEST_OMEGAS, HELD_OUT):
            for omega, won in zip(omegas, holm([found[omega] for omega in omegas]), strict=True):
                lines[name].wins[omega] = lines[name].wins.get(omega, 0) + won
