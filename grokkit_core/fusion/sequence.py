"""A gate that reads the input itself: weights for every sample, from a small network."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from grokkit_core.activations import fast_tanh
from grokkit_core.errors import Incompatible
from grokkit_core.fusion.gate import Calibration, Gate, GateState
from grokkit_core.fusion.gates import Predictions, mix
from grokkit_core.fusion.stacking import check_metric
from grokkit_core.specs import Field, settle
from grokkit_core.task import Batch, Place, Predictor, Task, tensors_of

CONTEXTS = 3
"""Contexts drawn in each step where the task names a range to train in."""

SMALL = 256
"""Numbers up to which torch's own tanh is never slower."""

LARGEST = 2**24
"""Numbers that the gate may read or weigh in one sample."""

_CONFIG = (
    Field("members", "int", low=1, high=10**6),
    Field("inputs", "int", low=1, high=LARGEST),
    Field("outputs", "int", low=0, high=LARGEST),
    Field("width", "int", low=1, high=1024),
)
"""What `fit` writes and `build` reads back; `outputs` is 0 where all outputs of a sample share their weights."""


class SequenceModule(nn.Module):
    """inputs-width-1 with a sigmoid for two members, inputs-width-N with a softmax for more; tanh in between.

    The last layer starts at zero, so that every input starts with equal weights exactly.
    """

    def __init__(
        self, members: int, inputs: int, outputs: int, width: int, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.members, self.outputs = members, outputs
        with torch.random.fork_rng(devices=[]):
            self.hidden = nn.Linear(inputs, width)
            self.output = nn.Linear(width, (1 if members == 2 else members) * max(1, outputs))
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)
        if generator is not None:
            reach = 1 / math.sqrt(inputs)
            for parameter in self.hidden.parameters():
                with torch.no_grad():
                    parameter.uniform_(-reach, reach, generator=generator)

    def forward(self, inputs: Sequence[Tensor], context: Mapping[str, Tensor], predictions: Tensor) -> Tensor:
        """Weights "member batch" or "member batch *out"."""
        given = 1 if self.members == 2 else self.members
        heads = self._logits(inputs).view(-1, given, max(1, self.outputs)).movedim(1, 0)
        if self.members == 2:
            first = torch.sigmoid(heads[0])
            weights = torch.stack((first, 1 - first))
        else:
            weights = torch.softmax(heads, 0)
        return weights.reshape(predictions.shape) if self.outputs else weights.squeeze(2)

    def fused(self, inputs: Sequence[Tensor], context: Mapping[str, Tensor], predictions: Predictions) -> Tensor | None:
        """The weighted sum of two members: one weight for each sample says both."""
        first, second = predictions if self.members == 2 and not self.outputs else (None, None)
        if first is None or second is None or first.is_complex():
            return None
        share = torch.sigmoid(self._logits(inputs)).to(first.dtype)
        return torch.lerp(second, first, share.view(-1, *[1] * (first.ndim - 1)))

    def _logits(self, inputs: Sequence[Tensor]) -> Tensor:
        hidden, output = self.hidden, self.output
        read = linear(flattened(inputs, hidden.weight.dtype), hidden.weight, hidden.bias)
        seen = torch.tanh(read) if read.numel() <= SMALL else fast_tanh(read)
        return linear(seen, output.weight, output.bias)


def flattened(inputs: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """All inputs of a sample in one row: "batch number"."""
    rows = [tensor.reshape(len(tensor), -1).to(dtype) for tensor in inputs]
    return rows[0] if len(rows) == 1 else torch.cat(rows, 1)


class SequenceGate(Gate):
    """A small network of the whole input (60-32-1 for windows of 15 states and two members), by Adam on fresh samples.

    In each step three contexts from the task's training range, unless some are given. `per_output` gives every output
    weights of its own.
    """

    def places(self, task: Task) -> Sequence[Place]:
        """The task's calibration contexts, or its sampler as it is."""
        return task.calibration or ({},)

    def fit(self, members: Sequence[Predictor], batches: Calibration, *, generator: torch.Generator) -> GateState:
        """Adam on the summed losses."""
        check_metric(self, batches)
        config = self._config(members, batches)
        module = SequenceModule(**config, generator=generator).to(batches.device, batches.dtype)
        optimizer = torch.optim.Adam(module.parameters(), lr=self.options["lr"])
        for _ in range(self.options["steps"]):
            optimizer.zero_grad()
            total = torch.zeros((), dtype=batches.dtype, device=batches.device)
            for place in self._contexts(batches):
                total = total + self._loss(module, members, batches, place)
            total.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        return GateState(config, {name: tensor.detach() for name, tensor in module.state_dict().items()})

    def _config(self, members: Sequence[Predictor], batches: Calibration) -> dict[str, Any]:
        """The sizes of the network; raises `Incompatible` where inputs or weighed outputs have no fixed size."""
        signature = batches.task.spec.signature
        inputs = sum(_size(spec.axes, self, f"input '{spec.name}'") for spec in signature.inputs)
        wanted = signature.outputs if self.options["per_output"] else ()
        outputs = sum(_size(spec.axes, self, f"output '{spec.name}'") for spec in wanted)
        return {"members": len(members), "inputs": inputs, "outputs": outputs, "width": self.options["width"]}

    def _contexts(self, batches: Calibration) -> Sequence[Place]:
        if batches.fixed or len(batches.task.training_range) != 1:
            return batches.places
        return [batches.random_place() for _ in range(CONTEXTS)]

    def _loss(self, module: SequenceModule, members: Sequence[Predictor], batches: Calibration, place: Place) -> Tensor:
        batch: Batch = batches.draw(self.options["samples"], place)
        with torch.no_grad():
            predictions = torch.stack([member(batch.inputs, batch.context) for member in members])
        weights = module(tensors_of(batch.inputs), batch.context, predictions)
        return batches.task.loss(mix(weights, predictions), batch.targets)

    def build(self, state: GateState) -> nn.Module:
        """The network of the fitted sizes."""
        return SequenceModule(**settle(_CONFIG, state.config, f"gate {self.spec.id}"))


def _size(axes: Sequence[str | int], gate: Gate, what: str) -> int:
    """The numbers of one sample; raises `Incompatible` where an axis beside the batch has no fixed size."""
    free = [axis for axis in axes[1:] if isinstance(axis, str)]
    if free or axes[:1] != ("batch",):
        raise Incompatible(
            f"gate {gate.spec.id} weighs by {what} of any size {list(axes)}", expected="axes of fixed size"
        )
    return math.prod(axis for axis in axes[1:] if isinstance(axis, int))
