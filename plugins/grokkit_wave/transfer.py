"""Operators on wave cassettes: the same stencil elsewhere, one lam2 of all, and channels that do nothing.

A stencil does not know its grid. What changes the law is another lam2 or another rule at the ends, and what is bound to
the range it was trained on is a nonlinear network: both are refused here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from grokkit_core.cassette import Cassette
from grokkit_core.errors import Incompatible, OtherNetwork, UsageError
from grokkit_core.manifest import ArchitectureRef, Manifest
from grokkit_core.task import Place, Task
from grokkit_core.text import nearest, printable
from grokkit_core.transfer.operator import (
    ROUNDING,
    Target,
    TransferOperator,
    TransferPlan,
    check_target,
    grown_task,
    parameters_of,
)
from grokkit_wave.certify import CONDITIONAL, LARGEST_SAMPLED, SINE, STENCIL
from grokkit_wave.law import SIZES


class ReuseStencil(TransferOperator):
    """The 6 numbers as they are, on another grid, at equal lam2 and boundary."""

    def plan(self, source: Manifest, target: Target, **options: Any) -> TransferPlan:
        """Another `grid`, finer or coarser, of a `grokkit_wave/stencil`; raises `Incompatible` for another law."""
        if source.architecture.id == SINE:
            amplitude = source.architecture.config.get("amplitude", "one")
            raise Incompatible(
                f"{source.ref} is nonlinear: it fits fields of amplitude {amplitude} and knows no stencil to reuse",
                expected=STENCIL,
                hint="it runs on other grids, without any guarantee: see its certificate",
            )
        if source.architecture.id == CONDITIONAL:
            raise Incompatible(
                f"{source.ref} serves every grid as it is", hint="fix-lambda makes a stencil of one lam2"
            )
        if source.architecture.id != STENCIL:
            raise OtherNetwork(f"architecture {source.architecture.id}", expected=STENCIL)
        config = self.architecture_of(source)[1]
        for name in ("lam2", "boundary"):
            if name in target and target[name] != config[name]:
                raise Incompatible(
                    f"{name} = {printable(target[name], 40)} for a stencil of {name} = {config[name]}: another law",
                    expected=f"{name} = {config[name]}",
                    hint="a conditional stencil holds for every lam2 in [0, 1]" if name == "lam2" else "train one",
                )
        wanted = {name: value for name, value in target.items() if name not in ("lam2", "boundary")}
        if not wanted:
            raise UsageError("no new size", expected="--to grid=...")
        for name in wanted:
            if name != "grid":
                raise Incompatible(f"{source.ref} has no size '{printable(name, 60)}'", hint=nearest(name, ["grid"]))
        if type(wanted["grid"]) is not int:
            raise UsageError(f"grid = {printable(repr(wanted['grid']), 60)}", expected="a whole number")
        before = {"grid": int(config["grid"])}
        return self.resized(source, before, wanted, guarantee="bit-exact: the same numbers", tolerance=0.0)

    def apply(self, source: Cassette, plan: TransferPlan) -> Mapping[str, Tensor]:
        """The tensors as they are."""
        return dict(source.tensors)

    def places(self, task: Task, plan: TransferPlan) -> Sequence[Place]:
        """Fields of the new size."""
        return [{"grid": min(int(plan.after["grid"]), LARGEST_SAMPLED)}]


class FixLambda(TransferOperator):
    """K0 + lam2 K1 as the 6 numbers of one lam2."""

    def plan(self, source: Manifest, target: Target, **options: Any) -> TransferPlan:
        """A `lam2` in [0, 1] for a `grokkit_wave/conditional-stencil`."""
        if source.architecture.id != CONDITIONAL:
            raise OtherNetwork(f"architecture {source.architecture.id}", expected=CONDITIONAL)
        if set(target) != {"lam2"}:
            other = next((name for name in target if name != "lam2"), "")
            given = f"no size '{printable(other, 60)}'" if other else "no lam2"
            raise Incompatible(f"{given} for a stencil that serves every grid as it is", expected="--to lam2=...")
        lam2 = target["lam2"]
        if type(lam2) not in (int, float) or not 0 <= lam2 <= 1:
            raise Incompatible(
                f"lam2 = {printable(repr(lam2), 60)}", expected="a number in [0, 1], above which leapfrog is unstable"
            )
        _, own = self.architecture_of(source)
        architecture = self.plugins.architecture(STENCIL)
        after = {"lam2": float(lam2)}
        config = architecture.settled({"boundary": own["boundary"], **after})
        return TransferPlan(
            self.spec.id,
            source,
            {"lam2": "any"},
            after,
            grown_task(source, after),
            ArchitectureRef(architecture.spec.id, architecture.spec.version, config),
            architecture.signature(config),
            "exact in real arithmetic; to one rounding of each coefficient here",
            ROUNDING,
            parameters_of(architecture, config),
        )

    def apply(self, source: Cassette, plan: TransferPlan) -> Mapping[str, Tensor]:
        """The sum, in float64."""
        fixed, slope = source.tensors["weight"].double()
        return {"weight": fixed + float(plan.after["lam2"]) * slope}

    def places(self, task: Task, plan: TransferPlan) -> Sequence[Place]:
        """Fields of the tables' smallest size at this lam2."""
        return [{"grid": SIZES[0], "lam2": plan.after["lam2"]}]


class PadChannels(TransferOperator):
    """New channels of a sine convolution with zero weights on both sides; sin(0) = 0, so that they stay dead."""

    def plan(self, source: Manifest, target: Target, **options: Any) -> TransferPlan:
        """More `channels` of a `grokkit_wave/sine-conv`."""
        if source.architecture.id != SINE:
            raise OtherNetwork(f"architecture {source.architecture.id}", expected=SINE)
        before = {"channels": int(self.architecture_of(source)[1]["channels"])}
        after = check_target(target, before, source.ref)
        guarantee = "exact in real arithmetic; to rounding of the sums here (1e-6 in float32, 1e-12 in float64)"
        return self.resized(source, before, after, guarantee=guarantee, tolerance=ROUNDING)

    def apply(self, source: Cassette, plan: TransferPlan) -> Mapping[str, Tensor]:
        """Each tensor in the leading corner of its larger one."""
        architecture = self.plugins.architecture(SINE)
        with torch.device("meta"):
            larger = architecture.build(plan.architecture.config).state_dict()
        grown = {}
        for name, tensor in source.tensors.items():
            grown[name] = tensor.new_zeros(larger[name].shape)
            grown[name][tuple(slice(size) for size in tensor.shape)] = tensor
        return grown
