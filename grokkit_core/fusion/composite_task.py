"""The task of compositions of several tasks: it has no law of its own, only those of the members."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NoReturn

import torch
from torch import Tensor

from grokkit_core.cassette import Cassette
from grokkit_core.certify.agree import disagreements
from grokkit_core.errors import Incompatible
from grokkit_core.fusion.inherited import inherited
from grokkit_core.manifest import Certificate, Level
from grokkit_core.task import Batch, Inputs, Task


class CompositeTask(Task):
    """Each member's own task; certificates are those of the members, recomputed."""

    evaluation = ()

    def sample(self, n: int, *, generator: torch.Generator, **where: object) -> Batch:
        """Raises `Incompatible`: each member has samples of its own."""
        self._refuse("samples")

    def oracle(self, inputs: Inputs, context: Mapping[str, Tensor]) -> Tensor:
        """Raises `Incompatible`: each member has an oracle of its own."""
        self._refuse("an oracle")

    def certify(self, cassette: Cassette, *, level: Level, seed: int) -> Certificate:
        """The certificates of all members recomputed, each from its own seed plus `seed`, in its recorded dtype.

        One that does not agree with its record makes the composition's fail, with the reason.
        """
        found: dict[str, Certificate] = {}
        problems: list[str] = []
        for key, member in cassette.members.items():
            recorded = member.manifest.certificate
            task = member.task
            placed = member.to(cassette.device, recorded.dtype)
            found[key] = task.certify(placed, level=level, seed=recorded.seed + seed)
            reasons = disagreements(recorded, found[key], floor=task.spec.floor)
            problems += [f"{key}: {reason}" for reason in reasons]
        made = inherited(found)
        return replace(made, verdict="failed", statement="; ".join(problems)) if problems else made

    def _refuse(self, what: str) -> NoReturn:
        raise Incompatible(
            f"a composition of several tasks has no {what} of its own", hint="choose a member with its key"
        )
