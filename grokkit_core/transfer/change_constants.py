"""The same learned law with other constants: for networks that hold the law itself and not one step of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from grokkit_core.cassette import Cassette
from grokkit_core.errors import Incompatible, OtherNetwork, UsageError
from grokkit_core.manifest import Manifest
from grokkit_core.specs import check_settings
from grokkit_core.text import nearest, printable
from grokkit_core.transfer.operator import Target, TransferOperator, TransferPlan

GUARANTEE = "none of the function, which is another one; the certificate says how well the law holds with them"


class ChangeConstants(TransferOperator):
    """Gives constants of the law (a time step, masses, lengths) new values, where the architecture says that it holds.

    What was learned stays: a generator of the flow, or a rule into which the constants enter. The new cassette belongs to
    the task with these constants, whose oracle and baselines its certificate is computed from.
    """

    def plan(self, source: Manifest, target: Target, **options: Any) -> TransferPlan:
        """New values of constants that the architecture names."""
        architecture, config = self.architecture_of(source)
        known = list(architecture.constants(config))
        if not known:
            raise OtherNetwork(f"architecture {source.architecture.id} has no constants that change without training")
        if not target:
            raise UsageError("no new constant", expected=f"--to with one of {', '.join(known)}")
        for name in target:
            if name not in known:
                raise Incompatible(
                    f"{source.ref} has no constant '{printable(name, 60)}' that changes without training",
                    expected=" or ".join(known),
                    hint=nearest(name, known),
                )
        after = {name: _number(target.get(name, config[name])) for name in known}
        check_settings(architecture.spec.config, after, f"architecture {source.architecture.id}")
        before = {name: config[name] for name in known}
        return self.resized(source, before, after, guarantee=GUARANTEE, tolerance=None)

    def apply(self, source: Cassette, plan: TransferPlan) -> Mapping[str, Tensor]:
        """The tensors as the architecture carries them over, for most as they are."""
        config = source.manifest.architecture.config
        return source.architecture.with_constants(config, source.tensors, plan.after)


def _number(value: Any) -> Any:
    return float(value) if type(value) is int else value
