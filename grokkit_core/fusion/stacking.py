"""Gates with one set of weights for all contexts: given, or solved once on everything that calibrates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from grokkit_core.dtypes import cast, real_view
from grokkit_core.errors import BadWeights, Incompatible, UsageError
from grokkit_core.fusion.gate import Calibration, Gate, GateState, Numbers, is_plain
from grokkit_core.fusion.gates import Predictions, mix_shared, mix_two
from grokkit_core.fusion.optimum import best_weights
from grokkit_core.specs import Field, settle
from grokkit_core.task import Place, Predictor, Task

UNITY = 1e-6
"""By which weights may miss a sum of one."""

_CONFIG = (Field("members", "int", low=1, high=10**6),)
"""What `fit` writes and `build` reads back."""


class Stacking(Gate):
    """The least squared error over one set of weights, with the error covariance pooled over all contexts: min w'Cw.

    On the simplex, so that the weights are a gate; `free` ones only sum to one. It needs no context variable.
    """

    def places(self, task: Task) -> Sequence[Place]:
        """The task's knots, its calibration contexts, or its sampler as it is."""
        return task.knots or task.calibration or ({},)

    def fit(self, members: Sequence[Predictor], batches: Calibration, *, generator: torch.Generator) -> GateState:
        """Solve on fresh samples of every context, with targets in float64."""
        check_metric(self, batches)
        parts = [self._drawn(members, batches, place) for place in batches.places]
        predictions = torch.cat([predictions for predictions, _ in parts], 1)
        targets = torch.cat([targets for _, targets in parts])
        return _state(best_weights(predictions, targets, free=bool(self.options.get("free", False))))

    def _drawn(self, members: Sequence[Predictor], batches: Calibration, place: Place) -> tuple[Tensor, Tensor]:
        """Predictions "member batch *out" and targets "batch *out" at one context, float64, complex ones as two numbers."""
        batch = batches.draw(self.options["samples"], place, exact_targets=True)
        with torch.no_grad():
            predictions = torch.stack([_exact(member(batch.inputs, batch.context)) for member in members])
        if not bool(torch.isfinite(predictions).all()):
            raise Incompatible("a member's predictions are not finite", hint="verify the members first")
        return predictions.flatten(2), _exact(batch.targets).flatten(1)

    def check(self, state: GateState) -> None:
        """Raise `BadWeights` where the weights do not sum to one."""
        off = abs(float(state.tensors["weights"].double().sum()) - 1)
        if not off <= UNITY * max(1.0, float(state.tensors["weights"].abs().max())):
            raise BadWeights(f"weights of gate {self.spec.id} sum to one but for {off:.2g}", expected="a sum of one")

    def build(self, state: GateState) -> nn.Module:
        """The weights, the same for every sample."""
        return Fixed(settle(_CONFIG, state.config, f"gate {self.spec.id}")["members"])


class Constant(Stacking):
    """Weights that were given, or else fitted once over all contexts on the simplex: a baseline for gates that read more."""

    def fit(self, members: Sequence[Predictor], batches: Calibration, *, generator: torch.Generator) -> GateState:
        """The given weights, or those of `stacking`."""
        self.check_members(len(members))
        given = self._given_weights
        if not given:
            return super().fit(members, batches, generator=generator)
        return _state(torch.tensor(given, dtype=torch.float64))

    @property
    def _given_weights(self) -> list[float]:
        return [float(weight) for weight in self.options["weights"]]

    def check_members(self, count: int) -> None:
        """Raise `UsageError` for weights that are not one for each member, or do not sum to one."""
        given = self._given_weights
        if given and (len(given) != count or abs(sum(given) - 1) > UNITY):
            raise UsageError(
                f"weights {', '.join(f'{weight:g}' for weight in given[:8])}",
                expected=f"{count} numbers that sum to one",
            )


class Fixed(nn.Module):
    """One weight a member."""

    def __init__(self, members: int) -> None:
        super().__init__()
        self._numbers = Numbers(Tensor.tolist)
        self.weights: Tensor
        self.register_buffer("weights", torch.empty(members, dtype=torch.float64))

    def forward(self, inputs: Sequence[Tensor], context: Mapping[str, Tensor], predictions: Tensor) -> Tensor:
        """Weights "member batch"."""
        return self.weights.double().unsqueeze(1).expand(predictions.shape[:2])

    def fused(self, inputs: Sequence[Tensor], context: Mapping[str, Tensor], predictions: Predictions) -> Tensor:
        """The weighted sum."""
        if len(self.weights) != 2 or not is_plain(self.weights):
            return mix_shared(self.weights, predictions)
        own, other = self._numbers.of(self.weights)
        return mix_two(own, other, predictions)


def _state(weights: Tensor) -> GateState:
    return GateState({"members": len(weights)}, {"weights": weights})


def check_metric(gate: Gate, batches: Calibration) -> None:
    """Raise `Incompatible` for a task whose metric is no error."""
    spec = batches.task.spec
    if spec.higher_is_better:
        raise Incompatible(
            f"gate {gate.spec.id} minimises squared errors, task {spec.id} is measured by {spec.metric}",
            expected="a task measured by an error",
        )


def _exact(tensor: Tensor) -> Tensor:
    return real_view(cast(tensor.cpu(), torch.float64)).double()
