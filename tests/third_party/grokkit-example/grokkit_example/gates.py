"""A gate that trusts each member where it was good: inverse errors, interpolated over one context variable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from grokkit_core.errors import Incompatible
from grokkit_core.fusion.gate import Calibration, Gate, GateState
from grokkit_core.task import Batch, Predictor


class InverseError(Gate):
    """Weights proportional to error^-power, as if the members' errors were independent (Bates and Granger 1969).

    At each calibration context every member's loss is measured; between them its logarithm is interpolated linearly,
    outside them it stays constant. Power 1 is the least-variance average of unbiased, independent members.
    """

    def fit(self, members: Sequence[Predictor], batches: Calibration, *, generator: torch.Generator) -> GateState:
        """One measurement a member and context; nothing is drawn from `generator`.

        Raises `Incompatible` with fewer than two contexts, which leave nothing to interpolate.
        """
        variable = batches.variable
        places = {float(place[variable]): place for place in batches.places if variable in place}
        if len(places) < 2:
            raise Incompatible(
                f"gate {self.spec.id} got {len(places)} calibration contexts",
                expected="two or more",
                hint=f"give them: --calibrate {variable}=...,...",
            )
        knots = sorted(places)
        losses = [self._losses(members, batches, batches.draw(self.options["samples"], places[knot])) for knot in knots]
        config = {"members": len(members), "variable": variable, "knots": len(knots), "power": self.options["power"]}
        tensors = {
            "knots": torch.tensor(knots, dtype=batches.dtype),
            "log_losses": torch.stack(losses, 1).log().to(batches.dtype),
        }
        return GateState(config, tensors)

    def _losses(self, members: Sequence[Predictor], batches: Calibration, batch: Batch) -> Tensor:
        """The task's loss of each member on the same samples, in float64 and above zero: "member"."""
        with torch.no_grad():
            losses = [batches.task.loss(member(batch.inputs, batch.context), batch.targets) for member in members]
        return torch.stack(losses).double().cpu().clamp_min(torch.finfo(torch.float32).tiny)

    def build(self, state: GateState) -> nn.Module:
        """The table of the fitted shape."""
        config = state.config
        shape = (int(config["members"]), int(config["knots"]))
        return InverseErrorModule(str(config["variable"]), *shape, power=float(config["power"]))


class InverseErrorModule(nn.Module):
    """Logarithms of losses "member knot" at the contexts "knot", ascending, in the unit of the context variable."""

    knots: Tensor
    log_losses: Tensor

    def __init__(self, variable: str, members: int, knots: int, *, power: float) -> None:
        super().__init__()
        self.variable, self.power = variable, power
        self.register_buffer("knots", torch.zeros(knots))
        self.register_buffer("log_losses", torch.zeros(members, knots))

    def weights(self, values: Tensor) -> Tensor:
        """Weights "member batch", which sum to one over members, for values "batch" of the context variable."""
        values = values.to(self.knots.dtype).contiguous()
        right = torch.searchsorted(self.knots, values).clamp(1, len(self.knots) - 1)
        low, high = self.knots[right - 1], self.knots[right]
        share = ((values - low) / (high - low)).clamp(0, 1)
        loss = torch.lerp(self.log_losses[:, right - 1], self.log_losses[:, right], share)
        return torch.softmax(-self.power * loss, 0)

    def forward(self, inputs: Sequence[Tensor], context: Mapping[str, Tensor], predictions: Tensor) -> Tensor:
        """Weights "member batch" from the context alone."""
        return self.weights(context[self.variable])
