"""Is a grown cassette still the function that it grew from? Its parent is looked for by digest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from grokkit_core.cassette import Cassette, load
from grokkit_core.errors import GrokkitError
from grokkit_core.text import printable
from grokkit_core.transfer.grow import preservation
from grokkit_core.transfer.operator import TransferOperator, TransferPlan
from grokkit_core.workspace import Workspace

SEED = 1
"""Not the seed with which cassettes are grown by default: other samples than those of the record."""


def recheck_growth(cassette: Cassette, place: Workspace) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Reasons why the recorded growth does not hold, and notes on what could not be checked."""
    provenance, ref = cassette.manifest.provenance, cassette.manifest.ref
    record = provenance.operator or {}
    names = record.get("partners", [])
    if not isinstance(names, list) or len(provenance.parents) != 1 + len(names):
        record = {}
    if not {"id", "after", "settings"} <= set(record):
        return (f"{ref} does not say from which cassette and by which operator it grew",), ()
    parent = provenance.parents[0]
    try:
        source, *others = (load(f"{one.name}@{one.digest}", library=place) for one in provenance.parents)
    except GrokkitError:
        named = sorted({printable(f"{one.name}@{one.version}", 80) for one in provenance.parents})
        whole = f"its parent {named[0]} is" if len(named) == 1 else f"one of its parents {', '.join(named)} is"
        return (), (f"{ref}: {whole} not in the library, so function preservation was not rechecked",)
    try:
        operator = place.plugins.operator(str(record["id"]))
        plan = _plan(operator, source, dict(zip(names, others, strict=True)), record)
        source = source.to(cassette.device)
        if dict(plan.after) != dict(record["after"]):
            return (f"growing {parent.name} so gives {dict(plan.after)}, not {record['after']}",), ()
        if plan.tolerance is None:
            return _unequal(operator.apply(source, plan), cassette, parent.name), ()
        kept = preservation(source, cassette, plan, seed=SEED)
    except (GrokkitError, TypeError, ValueError) as error:
        return (f"the growth from {parent.name} cannot be repeated: {error}",), ()
    if kept.keeps(plan):
        return (), ()
    return (
        f"it differs from its parent {parent.name} by {kept.difference:.3g}, {plan.operator} keeps the function",
    ), ()


def _unequal(expected: Mapping[str, Tensor], cassette: Cassette, parent: str) -> tuple[str, ...]:
    """Why tensors are not those that the operator makes of the parent's, where the function itself is another one."""
    found = {name: tensor.cpu() for name, tensor in cassette.tensors.items()}
    same = set(found) == set(expected) and all(torch.equal(found[name], expected[name].cpu()) for name in found)
    return () if same else (f"its tensors are not those of its parent {parent}",)


def _plan(
    operator: TransferOperator, source: Cassette, partners: Mapping[str, Cassette], record: Mapping[str, Any]
) -> TransferPlan:
    """The recorded growth as a plan, made anew from the parents."""
    settings = dict(record["settings"])
    if not partners:
        return operator.plan(source.manifest, dict(record["after"]), **settings)
    manifests = {name: cassette.manifest for name, cassette in partners.items()}
    return operator.plan(source.manifest, {}, partners=manifests, **settings)
