"""What transfer operators are checked with: plans for many sizes of many networks, and the networks they give."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from grokkit_core.cassette import Cassette
from grokkit_core.errors import Incompatible, UsageError
from grokkit_core.specs import TransferSpec
from grokkit_core.testing.workbench import Workbench, cloned
from grokkit_core.transfer.grow import construct
from grokkit_core.transfer.operator import TransferPlan

MOST = 10**6
"""Parameters of a grown network that is still built to be looked at."""


def sizes_in(config: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """Every integer of a config by name, those of an embedded network's sizes too."""
    for name, value in config.items():
        if type(value) is int:
            yield name, value
        elif isinstance(value, Mapping) and name == "sizes":
            yield from sizes_in(value)


def partners_of(bench: Workbench, spec: TransferSpec, source: Cassette) -> dict[str, Cassette]:
    """What an operator reads beside its source: a trained cassette of its kind, or the source itself."""
    shipped = [c for c in bench.networks(source.manifest.architecture.id) if c.manifest.certificate.verdict == "exact"]
    return {field.name: [*shipped, source][0] for field in spec.parameters if field.type == "cassette"}


def targets_for(source: Cassette) -> Iterator[dict[str, Any]]:
    """The same size, a little more and odd multiples of each size alone and of all; other values of each constant."""
    config = source.architecture.settled(source.manifest.architecture.config)
    sizes = dict(sizes_in(config))
    for name, size in sizes.items():
        yield from ({name: wanted} for wanted in (size, size + 1, 2 * size, 3 * size + 2))
    if len(sizes) > 1:
        yield {name: 2 * size for name, size in sizes.items()}
    for name, value in config.items():
        if type(value) is float:
            yield {name: 0.5 * value}
    for parameter in source.task.spec.parameters:
        if parameter.type in ("float", "json") and parameter.name not in config:
            yield {parameter.name: 0.5}


def plans_for(bench: Workbench, spec: TransferSpec, source: Cassette) -> list[TransferPlan]:
    """The plans of an operator for a network, each target that it accepts; none where it does not apply.

    Networks that answer several tasks by key have no inputs that could be compared, and are left out.
    """
    if not source.signature.inputs:
        return []
    operator = bench.plugins.operator(spec.id)
    partners = partners_of(bench, spec, source)
    plans = []
    for target in [{}] if partners else targets_for(source):
        given = {"partners": {name: cassette.manifest for name, cassette in partners.items()}} if partners else {}
        try:
            plan = operator.plan(source.manifest, target, **given)
        except (Incompatible, UsageError):
            continue
        if plan.parameters <= MOST:
            plans.append(plan)
    return plans


def grown_by(bench: Workbench, spec: TransferSpec, source: Cassette, plan: TransferPlan) -> Cassette:
    """What grows from a copy of the source, not certified. Raises `Incompatible` where the operator refuses the weights."""
    partners = partners_of(bench, spec, source) if plan.partners else {}
    with bench.workspace() as place:
        return construct(cloned(source), plan, partners=partners, name="grown", seed=0, place=place)


def grown_networks(bench: Workbench, spec: TransferSpec) -> Iterator[tuple[Cassette, TransferPlan, Cassette]]:
    """Source, plan and result of every growth that the operator does not refuse."""
    for source in bench.all_networks():
        for plan in plans_for(bench, spec, source):
            try:
                grown = grown_by(bench, spec, source, plan)
            except Incompatible:
                continue
            yield source, plan, grown
