"""The gates that the core brings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from grokkit_core.dtypes import real_dtype
from grokkit_core.errors import Incompatible
from grokkit_core.fusion.gate import Calibration, Gate, GateState, Latest, Numbers, is_plain, single
from grokkit_core.specs import Field, settle
from grokkit_core.task import Predictor

Predictions = Tensor | Sequence[Tensor]
"""Those of all members: "member batch *out", or a list of "batch *out"."""

_UNIFORM = (Field("members", "int", low=1),)
_SPECTRAL = (
    Field("members", "int", low=1, high=10**6),
    Field("variable", "str"),
    Field("width", "int", low=1, high=1024),
)
"""What `fit` writes and `build` reads back."""


class Uniform(Gate):
    """Equal weights: the baseline of every comparison."""

    def fit(self, members: Sequence[Predictor], batches: Calibration, *, generator: torch.Generator) -> GateState:
        """Nothing to fit."""
        return GateState({"members": len(members)})

    def build(self, state: GateState) -> nn.Module:
        """A module without parameters."""
        return _UniformModule(settle(_UNIFORM, state.config, "gate uniform")["members"])


class _UniformModule(nn.Module):
    def __init__(self, members: int) -> None:
        super().__init__()
        self.members = members

    def forward(self, inputs: Sequence[Tensor], context: Mapping[str, Tensor], predictions: Tensor) -> Tensor:
        dtype = real_dtype(predictions.dtype)
        return predictions.new_full(predictions.shape[:2], 1.0 / self.members, dtype=dtype)

    def fused(self, inputs: Sequence[Tensor], context: Mapping[str, Tensor], predictions: Predictions) -> Tensor:
        """The mean of the members."""
        if self.members == 2:
            return mix_two(0.5, 0.5, predictions)
        return mix_shared(predictions[0].new_full((self.members,), 1.0 / self.members), predictions)


class SpectralModule(nn.Module):
    """1-16-1 with a sigmoid for two members (49 numbers), 1-16-N with a softmax for more; tanh in between.

    The last layer starts at zero, so every context starts with equal weights exactly.
    """

    def __init__(self, variable: str, members: int, width: int = 16, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.variable, self.members = variable, members
        self._slopes, self._shifts, self._heads = Numbers(_listed), Numbers(_listed), Numbers(_listed)
        self._offset, self._latest = Numbers(Tensor.item), Latest[float]()
        with torch.random.fork_rng(devices=[]):
            self.hidden = nn.Linear(1, width)
            self.output = nn.Linear(width, 1 if members == 2 else members)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)
        if generator is not None:
            for parameter in self.hidden.parameters():
                with torch.no_grad():
                    parameter.uniform_(-1.0, 1.0, generator=generator)

    def weights(self, values: Tensor) -> Tensor:
        """Weights "member batch" for values "batch" of the context variable."""
        hidden = torch.tanh(self.hidden(values.to(self.hidden.weight.dtype).unsqueeze(1)))
        logits = self.output(hidden).T
        if self.members == 2:
            first = torch.sigmoid(logits[0])
            return torch.stack((first, 1 - first))
        return torch.softmax(logits, 0)

    def forward(self, inputs: Sequence[Tensor], context: Mapping[str, Tensor], predictions: Tensor) -> Tensor:
        return self.weights(context[self.variable])

    def fused(self, inputs: Sequence[Tensor], context: Mapping[str, Tensor], predictions: Predictions) -> Tensor | None:
        """The weighted sum where the variable is one number for all samples; for two members in Python's own numbers."""
        value = single(context[self.variable])
        if value is None or not is_plain(self.hidden.weight):
            return None
        if self.members > 2:
            return mix_shared(self.weights(context[self.variable][:1])[:, 0], predictions)
        tensors = (self.hidden.weight, self.hidden.bias, self.output.weight, self.output.bias)
        first = self._latest.of(value, tensors, lambda: self._first(value))
        return mix_two(first, 1 - first, predictions)

    def _first(self, value: float) -> float:
        """The first of two weights, in Python's own numbers."""
        logit = self._offset.of(self.output.bias)
        for slope, shift, head in zip(
            self._slopes.of(self.hidden.weight),
            self._shifts.of(self.hidden.bias),
            self._heads.of(self.output.weight),
            strict=True,
        ):
            logit += head * math.tanh(slope * value + shift)
        return 1 / (1 + math.exp(-logit)) if logit > 0 else 1 - 1 / (1 + math.exp(logit))


class Spectral(Gate):
    """A small network of one scalar context variable, fitted by Adam on fresh samples (fusion paper of supertopo3).

    Two members: the published protocol, Adam lr 0.1, 100 steps, 256 fresh samples at each calibration context a step,
    the losses added. More members: lr 0.02, 300 steps, contexts drawn afresh from the task's training range unless
    they are given. The start is balanced, which the published code is not.
    """

    def fit(self, members: Sequence[Predictor], batches: Calibration, *, generator: torch.Generator) -> GateState:
        """Adam on the summed losses over the contexts of `batches`."""
        if not batches.places:
            raise Incompatible(
                f"task {batches.task.spec.id} names no calibration contexts for gate {self.spec.id}",
                hint=f"give them: --calibrate {batches.variable}=...,...",
            )
        published = len(members) == 2
        module = SpectralModule(batches.variable, len(members), self.options["width"], generator)
        module.to(batches.device, real_dtype(batches.dtype))
        optimizer = torch.optim.Adam(module.parameters(), lr=self.options["lr"] or (0.1 if published else 0.02))
        for _ in range(self.options["steps"] or (100 if published else 300)):
            optimizer.zero_grad()
            self._loss(module, members, batches, drawn=not (published or batches.fixed)).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        config = {"members": len(members), "variable": batches.variable, "width": self.options["width"]}
        return GateState(config, {name: tensor.detach() for name, tensor in module.state_dict().items()})

    def _loss(
        self, module: SpectralModule, members: Sequence[Predictor], batches: Calibration, *, drawn: bool
    ) -> Tensor:
        total = torch.zeros((), dtype=real_dtype(batches.dtype), device=batches.device)
        for place in batches.places:
            batch = batches.draw(self.options["samples"], batches.random_place() if drawn else place)
            with torch.no_grad():
                predictions = torch.stack([member(batch.inputs, batch.context) for member in members])
            weights = module.weights(batch.context[batches.variable])
            total = total + batches.task.loss(mix(weights, predictions), batch.targets)
        return total

    def build(self, state: GateState) -> nn.Module:
        """The network of the fitted shape."""
        config = settle(_SPECTRAL, state.config, "gate spectral")
        return SpectralModule(config["variable"], config["members"], config["width"])


def mix(weights: Tensor, predictions: Tensor) -> Tensor:
    """The weighted sum over members: weights "member batch" or "member batch *out", predictions "member batch *out"."""
    if weights.ndim < 2 or weights.shape != predictions.shape[: weights.ndim]:
        raise Incompatible(
            f"a gate with weights of shape {list(weights.shape)} for predictions {list(predictions.shape)}",
            expected="weights [member, batch] or one more for each output",
        )
    missing = predictions.ndim - weights.ndim
    shaped = weights.reshape(*weights.shape, *([1] * missing)) if missing else weights
    if shaped.dtype != predictions.dtype:
        shaped = shaped.to(predictions.dtype)
    return (shaped * predictions).sum(0)


def mix_shared(weights: Tensor, predictions: Predictions) -> Tensor:
    """The weighted sum over members with the same weights for all samples, "member" or "member *out".

    As a sum, not as a product of matrices: for a thousand members its error is many times smaller.
    """
    together = predictions if isinstance(predictions, Tensor) else torch.stack(tuple(predictions))
    return mix(weights.unsqueeze(1).expand(-1, together.shape[1], *weights.shape[1:]), together)


def mix_two(own: float, other: float, predictions: Predictions) -> Tensor:
    """The weighted sum of two members, whose weights are numbers that sum to one."""
    first, second = predictions
    return torch.add(first * own, second, alpha=other) if first.is_complex() else torch.lerp(second, first, own)


def mix_two_per_output(weights: tuple[Tensor, Tensor], predictions: Predictions) -> Tensor:
    """The weighted sum of two members whose weights "out", which sum to one, are the same for all samples."""
    first, second = predictions
    own, other = weights
    return torch.addcmul(first * own, second, other) if first.is_complex() else torch.lerp(second, first, own)


def _listed(tensor: Tensor) -> list[float]:
    return tensor.flatten().tolist()
