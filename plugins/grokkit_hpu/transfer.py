"""More modes for a phase table: by the dispersion relation that it has learned, or (as a negative control) by nothing."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from grokkit_core.cassette import Cassette
from grokkit_core.errors import Incompatible, OtherNetwork
from grokkit_core.manifest import Manifest
from grokkit_core.task import Place, Task
from grokkit_core.transfer.operator import Target, TransferOperator, TransferPlan, check_target
from grokkit_hpu.fourier import band_squares

ARCHITECTURE = "grokkit_hpu/phase-table"
RESIDUAL = {torch.float32: 1e-7, torch.float64: 1e-13}
"""Largest residual of the fit by the dtype of the weights; a well trained table has 3e-8 and 5e-15.

What the fit is wrong by grows up to (K' / K)^2 times in the new modes.
"""


class _MoreModes(TransferOperator):
    """A phase table of a larger band whose inner block is the source's, bit for bit."""

    guarantee = ""

    def plan(self, source: Manifest, target: Target, **options: Any) -> TransferPlan:
        """A larger `band` of a phase table."""
        if source.architecture.id != ARCHITECTURE:
            raise OtherNetwork(f"{source.ref} is a {source.architecture.id}", expected=ARCHITECTURE)
        _, config = self.architecture_of(source)
        before = {"band": int(config["band"])}
        after = check_target(target, before, source.ref)
        finer = {"grid": max(int(config["grid"]), 2 * after["band"] + 2)}
        fixed = {**finer, **self.fixed(config)}
        return self.resized(source, before, after, guarantee=self.guarantee, tolerance=math.inf, fixed=fixed)

    def places(self, task: Task, plan: TransferPlan) -> Sequence[Place]:
        """On a grid that holds the new band."""
        return [
            {**next(iter(task.evaluation)), "grid": int(plan.architecture.config["grid"]), "band": plan.before["band"]}
        ]

    def fixed(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Further config fields of the result."""
        return {}

    @abstractmethod
    def outer(self, theta: Tensor, plan: TransferPlan) -> Tensor:
        """Phases of the whole new band, of which those outside the old one are used."""

    def apply(self, source: Cassette, plan: TransferPlan) -> Mapping[str, Tensor]:
        """The larger table."""
        theta = source.tensors["theta"]
        grown = self.outer(theta, plan).to(theta)
        edge = plan.after["band"] - plan.before["band"]
        inner = slice(edge, grown.shape[-1] - edge)
        grown[inner, inner] = theta
        return {"theta": grown}


class GrowModes(_MoreModes):
    """`grokkit_hpu/grow-modes`: least squares theta = a + b |k|^2 in float64; refused where the table is not of that form."""

    guarantee = "equal on the old band, to rounding; beyond it the fitted dispersion relation"

    def outer(self, theta: Tensor, plan: TransferPlan) -> Tensor:
        """The fitted relation on the new band; raises `Incompatible` where it does not fit the old one."""
        if source_kept(plan.source) is not None:
            raise Incompatible(f"{plan.source.ref} drops modes of its band, which tell nothing about further ones")
        if plan.before["band"] < 1:
            raise Incompatible(
                f"{plan.source.ref} has a single mode", expected="a band of at least 1 to fit a relation to"
            )
        constant, slope, residual = fitted(theta)
        limit = RESIDUAL[theta.dtype]
        if not residual <= limit:
            raise Incompatible(
                f"the phases of {plan.source.ref} differ from a + b |k|^2 by {residual:.2g}",
                expected=f"at most {limit:g} for {str(theta.dtype).removeprefix('torch.')} weights",
                hint="train it longer, on fields that fill its band, in float64; or its law is another one",
            )
        return constant + slope * band_squares(plan.after["band"])


class PadModes(_MoreModes):
    """`grokkit_hpu/pad-modes`: new modes become zero. Declared wrong."""

    guarantee = "equal on the old band; NONE beyond it, where fields become zero"

    def fixed(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """The old band is kept."""
        return {"kept": int(config["kept"]) if config["kept"] >= 0 else int(config["band"])}

    def outer(self, theta: Tensor, plan: TransferPlan) -> Tensor:
        """No phase, which nothing reads."""
        return torch.zeros(2 * plan.after["band"] + 1, 2 * plan.after["band"] + 1, dtype=theta.dtype)


class PadModesIdentity(PadModes):
    """`grokkit_hpu/pad-modes-identity`: new modes stay as they are. Declared wrong."""

    guarantee = "equal on the old band; NONE beyond it, where fields do not move"

    def fixed(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """What is kept stays."""
        return {}


def source_kept(source: Manifest) -> int | None:
    """The band that a table does not drop, where that is not all of it."""
    config = source.architecture.config
    kept = int(config.get("kept", -1))
    return None if kept in (-1, int(config.get("band", kept))) else kept


def fitted(theta: Tensor) -> tuple[float, float, float]:
    """a, b and the largest residual of theta = a + b |k|^2 by least squares in float64.

    Phases are known modulo 2 pi: from the smallest |k| outwards each is taken next to what the modes before it predict.
    """
    squares = band_squares(theta.shape[-1] // 2).reshape(-1)
    order = squares.argsort(stable=True)
    squares, phases = squares[order], theta.double().cpu().reshape(-1)[order].clone()
    if float(phases.abs().max()) > math.pi / 2:
        for start in range(5, len(phases)):
            constant, slope = _line(squares[:start], phases[:start])
            turn = (constant + slope * squares[start] - phases[start]) / (2 * math.pi)
            phases[start] += 2 * math.pi * torch.round(turn)
    constant, slope = _line(squares, phases)
    return constant, slope, float((phases - constant - slope * squares).abs().max())


def _line(squares: Tensor, phases: Tensor) -> tuple[float, float]:
    design = torch.stack((torch.ones_like(squares), squares), 1)
    scale = float(squares.max().clamp_min(1.0))
    design[:, 1] /= scale
    solution = torch.linalg.lstsq(design, phases.unsqueeze(1), driver="gelsd").solution[:, 0]
    return float(solution[0]), float(solution[1]) / scale
