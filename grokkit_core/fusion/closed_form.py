"""Gates whose weights are solved, not learned: the best ones at some contexts, linear in between."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from grokkit_core.dtypes import cast, real_view
from grokkit_core.errors import BadWeights, Incompatible, UsageError
from grokkit_core.fusion.gate import Calibration, Gate, GateState, Latest, Numbers, is_plain, single
from grokkit_core.fusion.gates import Predictions, mix_shared, mix_two, mix_two_per_output
from grokkit_core.fusion.optimum import Combine, best_weights
from grokkit_core.specs import Field, settle
from grokkit_core.task import Place, Predictor, Task

MAX_KNOTS = 1_000
UNITY = 1e-5
"""By which stored weights may miss a sum of one: rounding, were they ever kept in float32."""

MAX_WEIGHTS = 10**9
"""Knots times members times outputs: more than any file holds, and less than overflows a size."""

_CONFIG = (
    Field("members", "int", low=1, high=10**6),
    Field("variable", "str"),
    Field("knots", "floats"),
    Field("outputs", "json"),
)
"""What `fit` writes and `build` reads back; `outputs` is the shape that weights have beside the member axis."""


class Interference(Gate):
    """The weights that minimise the squared error at each knot, in closed form; between knots they are interpolated.

    Two members: a* = 1/2 + (C_22 - C_11)/(2I), clipped to [0, 1] unless `free`. More: the best weights of the simplex,
    or with `free` the best of either sign. Beyond the outermost knots the weights stay what they are there.
    """

    combine: ClassVar[Combine] = "members"

    def places(self, task: Task) -> Sequence[Place]:
        """The task's knots, which leave its test contexts out."""
        return task.knots or task.calibration

    def fit(self, members: Sequence[Predictor], batches: Calibration, *, generator: torch.Generator) -> GateState:
        """Solve at every context of `batches`, on fresh samples with targets in float64."""
        variable, spec = batches.variable, batches.task.spec
        if spec.higher_is_better:
            raise Incompatible(
                f"gate {self.spec.id} minimises squared errors, task {spec.id} is measured by {spec.metric}",
                expected="a task measured by an error",
            )
        knots = sorted(float(place[variable]) for place in batches.places if variable in place)
        if not knots:
            raise Incompatible(
                f"task {spec.id} names no calibration contexts for gate {self.spec.id}",
                hint=f"give them: --calibrate {variable}=...,...",
            )
        if len(set(knots)) != len(knots):
            raise UsageError(f"a calibration context {variable} given twice", expected="different values")
        if len(knots) > MAX_KNOTS:
            raise UsageError(f"{len(knots)} calibration contexts", expected=f"at most {MAX_KNOTS}")
        solved = torch.stack([self._solve(members, batches, {variable: knot}) for knot in knots])
        config = {
            "members": len(members),
            "variable": variable,
            "knots": knots,
            "outputs": list(solved.shape[2:]),
        }
        return GateState(config, {"weights": solved})

    def _solve(self, members: Sequence[Predictor], batches: Calibration, place: Place) -> Tensor:
        """The weights "member" or "member *out" at one knot, in float64."""
        batch = batches.draw(self.options["samples"], place, exact_targets=True)
        with torch.no_grad():
            predictions = torch.stack(
                [cast(member(batch.inputs, batch.context), torch.float64).cpu() for member in members]
            )
        if not bool(torch.isfinite(real_view(predictions)).all()):
            where = ", ".join(f"{name} = {value:g}" for name, value in place.items())
            raise Incompatible(f"a member's predictions at {where} are not finite", hint="verify the members first")
        free = bool(self.options.get("free", False))
        return best_weights(predictions, batch.targets.cpu(), free=free, combine=self.combine)

    def check(self, state: GateState) -> None:
        """Raise `BadWeights` where the weights at some knot do not sum to one over the members."""
        off = (state.tensors["weights"].double().sum(1) - 1).abs().max().item()
        if not off <= UNITY * max(1.0, state.tensors["weights"].abs().max().item()):
            raise BadWeights(f"weights of gate {self.spec.id} sum to one but for {off:.2g}", expected="sums of one")

    def build(self, state: GateState) -> nn.Module:
        """The table of weights with its interpolation."""
        config = settle(_CONFIG, state.config, f"gate {self.spec.id}")
        knots, outputs = _knots(config["knots"]), _shape(config["outputs"])
        if len(knots) * config["members"] * math.prod(outputs) > MAX_WEIGHTS:
            raise UsageError(f"weights of gate {self.spec.id}", expected=f"at most {MAX_WEIGHTS}")
        return Knots(config["variable"], knots, config["members"], outputs)


class InterferencePerOutput(Interference):
    """As `interference`, with outputs kept apart: each has weights of its own, which breaks symmetries between them."""

    combine: ClassVar[Combine] = "outputs"


class Simplex(Interference):
    """The least squared error over non-negative weights that sum to one, solved at each knot: min w'Cw."""


class Knots(nn.Module):
    """Weights "knot member *out" at values of one context variable, linear in between and constant beyond."""

    def __init__(self, variable: str, knots: Sequence[float], members: int, outputs: Sequence[int]) -> None:
        super().__init__()
        self.variable, self.knots = variable, tuple(knots)
        self._numbers, self._tables = Numbers(Tensor.tolist), Numbers(self._table)
        self._latest, self._pairs = Latest[tuple[float, float]](), Latest[tuple[Tensor, Tensor]]()
        self.weights: Tensor
        self.register_buffer("weights", torch.empty(len(knots), members, *outputs, dtype=torch.float64))

    def forward(self, inputs: Sequence[Tensor], context: Mapping[str, Tensor], predictions: Tensor) -> Tensor:
        """Weights "member batch" or "member batch *out"."""
        values = context[self.variable].double()
        if is_plain(values) and is_plain(self.weights):
            return torch.from_numpy(self._interpolated(values.numpy())).movedim(0, 1)
        values = values.contiguous()  # one value for all comes expanded
        knots = torch.tensor(self.knots, dtype=torch.float64, device=values.device)
        below = (  # ONNX has no searchsorted
            (knots < values.unsqueeze(1)).sum(1) if torch.compiler.is_compiling() else torch.searchsorted(knots, values)
        )
        right = below.clamp(1, max(1, len(knots) - 1))
        left = right - 1
        if len(knots) == 1:
            right = left
        width = (knots[right] - knots[left]).clamp_min(torch.finfo(torch.float64).tiny)
        share = ((values - knots[left]) / width).clamp(0.0, 1.0)
        share = share.view(-1, *[1] * (self.weights.ndim - 1))
        weights = self.weights.double()
        return (weights[left] + share * (weights[right] - weights[left])).movedim(0, 1)

    def fused(self, inputs: Sequence[Tensor], context: Mapping[str, Tensor], predictions: Predictions) -> Tensor | None:
        """The weighted sum where the variable is one number for all samples; for two members in Python's own numbers."""
        value = single(context[self.variable])
        if value is None or not is_plain(self.weights):
            return None
        if self.weights.shape[1] != 2:
            return mix_shared(torch.from_numpy(self._interpolated(np.array([value]))[0]), predictions)
        if self.weights.ndim > 2:
            if self.weights.shape[2:] != predictions[0].shape[1:]:
                return None  # the weights of every sample are refused with the reason
            kind = predictions[0].dtype
            pair = self._pairs.of((value, kind), (self.weights,), lambda: self._pair(value, kind))
            return mix_two_per_output(pair, predictions)
        own, other = self._latest.of(value, (self.weights,), lambda: self._between(value))
        return mix_two(own, other, predictions)

    def _pair(self, value: float, kind: torch.dtype) -> tuple[Tensor, Tensor]:
        """The weights "out" of two members."""
        own, other = torch.from_numpy(self._interpolated(np.array([value]))[0]).to(kind)
        return own, other

    def _between(self, value: float) -> tuple[float, float]:
        """The weights of two members in Python's own numbers."""
        knots, last, weights = self.knots, len(self.knots) - 1, self._numbers.of(self.weights)
        right = min(max(bisect.bisect_left(knots, value), min(1, last)), last)
        left = max(right - 1, 0)
        share = min(max((value - knots[left]) / (knots[right] - knots[left]), 0.0), 1.0) if last else 0.0
        (own, other), (next_own, next_other) = weights[left], weights[right]
        return own + share * (next_own - own), other + share * (next_other - other)

    def _interpolated(self, values: Any) -> Any:
        """The same by numpy, "batch member *out" for an array "batch": for few samples torch's calls cost more."""
        knots, inner, widths, low, rise = self._tables.of(self.weights)
        left = inner.searchsorted(values)
        share = np.minimum(np.maximum((values - knots[left]) / widths[left], 0.0), 1.0)
        found = low[left]
        found += share.reshape(-1, *[1] * (found.ndim - 1)) * rise[left]
        return found

    def _table(self, weights: Tensor) -> tuple[Any, ...]:
        """Knots, those between two others, their distances, the weights at the left of each piece and how they rise in it."""
        values, knots = weights.double().numpy(), np.array(self.knots)
        if len(knots) == 1:
            return knots, knots[:0], np.ones(1), values, np.zeros_like(values)
        return knots, knots[1:-1], np.diff(knots), values[:-1], np.diff(values, axis=0)


def _knots(values: Sequence[float]) -> list[float]:
    """Checked knots; raises `UsageError`."""
    rising = all(left < right for left, right in itertools.pairwise(values))
    if not rising or len(values) > MAX_KNOTS or not all(map(math.isfinite, values)):
        raise UsageError(f"{len(values)} knots", expected=f"at most {MAX_KNOTS} finite numbers in rising order")
    return [float(value) for value in values]


def _shape(value: Any) -> list[int]:
    """A checked shape of outputs; raises `UsageError`."""
    if not isinstance(value, list | tuple) or len(value) > 8:
        raise UsageError("outputs of the gate", expected="a shape of at most eight axes")
    if not all(type(size) is int and 1 <= size < 2**31 for size in value):
        raise UsageError("outputs of the gate", expected="sizes from 1")
    return list(value)
