"""Certificates of compositions: those of the members, and what follows for the whole."""

from __future__ import annotations

import re
from collections.abc import Mapping

from grokkit_core.manifest import VERDICTS, Certificate

_WORSE = re.compile(r"WORSE than [^;.]*")


def inherited(members: Mapping[str, Certificate]) -> Certificate:
    """The certificate of a composition: the weakest verdict of its members, each of which keeps its own.

    What members lose against is said again. `seed` is 0: `verify` adds its seed to each member's own.
    """
    weakest = max((found.verdict for found in members.values()), key=VERDICTS.index)
    by_verdict: dict[str, list[str]] = {verdict: [] for verdict in VERDICTS}
    for key, found in members.items():
        by_verdict[found.verdict].append(key)
    listed = "; ".join(f"{verdict}: {', '.join(keys)}" for verdict, keys in by_verdict.items() if keys)
    losers = [f"{key} is {match[0].strip()}" for key, c in members.items() if (match := _WORSE.search(c.statement))]
    statement = f"each member answers as it does alone, bit for bit, under its own certificate. {listed}"
    kinds = {found.dtype for found in members.values()}
    return Certificate(
        verdict=weakest,
        statement=". ".join((statement, *losers)),
        domain="each member's own domain; a call names its member or fits one signature alone, and is refused otherwise",
        method="inherited",
        formula=(),
        bounds=(),
        metrics=(),
        baselines=(),
        seed=0,
        dtype=kinds.pop() if len(kinds) == 1 else "as each member's",
        level="full" if all(found.level == "full" for found in members.values()) else "quick",
    )
