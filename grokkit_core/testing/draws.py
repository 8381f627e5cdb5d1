"""Values that hypothesis draws: settings inside and outside of their declared ranges, sizes of batches, seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from grokkit_core.errors import UsageError
from grokkit_core.specs import REQUIRED, Field

try:
    from hypothesis import HealthCheck, given, settings
    from hypothesis import strategies as st
except ImportError:
    raise UsageError("the conformance kit needs hypothesis", expected="pip install 'grokkit[testing]'") from None

Strategy = st.SearchStrategy[Any]
SEEDS: Strategy = st.integers(0, 2**32)
COUNTS: Strategy = st.integers(1, 9)
LARGE = 9
"""Sizes are drawn up to this: a law that fails for large ones fails for small ones."""
COUNT = 1_000
"""A setting that may exceed this is an amount of work and not a shape of anything."""
MODEST = 8


def for_all(examples: int, **strategies: Strategy) -> Callable[[Callable[..., None]], None]:
    """A decorator that calls the function at once, with drawn arguments, the same in every run; the first failure raises."""

    def run(holds: Callable[..., None]) -> None:
        chosen = settings(
            max_examples=examples,
            deadline=None,
            derandomize=True,
            database=None,
            print_blob=False,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        )
        chosen(given(**strategies)(holds))()

    return run


def admitted(field: Field) -> Strategy:
    """Small values that a declared setting admits; its default where none can be guessed."""
    low, high = max(field.low, -LARGE), min(field.high, max(field.low, 0) + LARGE)
    if field.choices:
        return st.sampled_from(field.choices)
    if field.type == "int":
        return st.integers(math.ceil(low), math.floor(high))
    if field.type == "float":
        return st.floats(low, high, allow_subnormal=False)
    if field.type == "bool":
        return st.booleans()
    if field.type == "ints":
        return st.lists(st.integers(math.ceil(low), math.floor(high)), unique=True, max_size=3).map(sorted).map(tuple)
    return st.just("" if field.default is REQUIRED else field.default)


def refused(field: Field) -> Strategy:
    """Values of a wrong type or outside of the range of a declared setting."""
    outside = [value for value in (field.low - 1, field.high + 1) if math.isfinite(value)]
    whole = [math.floor(field.low - 1)] if math.isfinite(field.low) else []
    whole += [math.ceil(field.high + 1)] if math.isfinite(field.high) else []
    odd: list[Any] = [None, True, "no-such-value", math.nan, math.inf, [], ["x"], {"x": 1}, 0.5, *outside, *whole]
    return st.sampled_from([value for value in odd if not field.admits(value)])


def bad_settings(fields: Sequence[Field], required: Mapping[str, Any]) -> Strategy:
    """Settings of which one is unknown or bad; `required` gives those that have no default."""
    unknown = st.just({**required, "no_such_setting": 1})
    checked = [field for field in fields if field.type != "json"]
    bad = [st.builds(_replaced, st.just(required), st.just(field.name), refused(field)) for field in checked]
    return st.one_of(unknown, *bad)


def modest(fields: Sequence[Field]) -> dict[str, Any]:
    """Settings that ask for little work: counts of samples and steps are small, everything else stays out."""
    counts = [field for field in fields if field.type == "int" and field.high >= COUNT]
    return {field.name: max(MODEST, int(field.low)) for field in counts}


def _replaced(settings: Mapping[str, Any], name: str, value: Any) -> dict[str, Any]:
    return {**settings, name: value}
