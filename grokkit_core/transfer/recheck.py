"""Is a grown cassette still the function that it grew from? Its parent is looked for by digest."""

from __future__ import annotations

from grokkit_core.cassette import Cassette, load
from grokkit_core.errors import GrokkitError
from grokkit_core.text import printable
from grokkit_core.transfer.grow import preservation
from grokkit_core.workspace import Workspace

SEED = 1
"""Not the seed with which cassettes are grown by default: other samples than those of the record."""


def recheck_growth(cassette: Cassette, place: Workspace) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Reasons why the recorded growth does not hold, and notes on what could not be checked."""
    provenance, ref = cassette.manifest.provenance, cassette.manifest.ref
    record = provenance.operator or {}
    if len(provenance.parents) != 1 or not {"id", "after", "settings"} <= set(record):
        return (f"{ref} does not say from which cassette and by which operator it grew",), ()
    parent = provenance.parents[0]
    try:
        source = load(f"{parent.name}@{parent.digest}", library=place)
    except GrokkitError:
        name = printable(f"{parent.name}@{parent.version}", 80)
        return (), (f"{ref}: its parent {name} is not in the library, so function preservation was not rechecked",)
    try:
        operator = place.plugins.operator(str(record["id"]))
        plan = operator.plan(source.manifest, dict(record["after"]), **dict(record["settings"]))
        source = source.to(cassette.device)
        kept = preservation(source, cassette, plan, seed=SEED)
    except (GrokkitError, TypeError, ValueError) as error:
        return (f"the growth from {parent.name} cannot be repeated: {error}",), ()
    if kept.keeps(plan):
        return (), ()
    return (
        f"it differs from its parent {parent.name} by {kept.difference:.3g}, {plan.operator} keeps the function",
    ), ()
