"""Generic networks of one time step: the residual one, and the published one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from grokkit_core.architecture import Architecture, BatchedForward, Layer
from grokkit_core.fusion.perceptrons import Perceptrons
from grokkit_core.tensors import Signature
from grokkit_pendulum.lagrangian import Wrapping, split_turns
from grokkit_pendulum.law import FASTEST
from grokkit_pendulum.plugin import SIGNATURE

GAIN = 0.8
"""Of the published network's orthogonal initialisation."""


class _Generic(Architecture):
    """Two hidden layers of `width`; inputs and outputs are fixed."""

    activation: str

    def signature(self, config: Mapping[str, Any]) -> Signature:
        """`state` "batch 4" to `state` "batch 4"."""
        return SIGNATURE

    def layers(self, config: Mapping[str, Any]) -> Sequence[Layer]:
        """Three affine layers."""
        return (
            Layer("layers.0.weight", "layers.0.bias", self.activation, outputs="width"),
            Layer("layers.2.weight", "layers.2.bias", self.activation, inputs="width", outputs="width"),
            Layer("layers.4.weight", "layers.4.bias", "identity", inputs="width"),
        )


class MlpArchitecture(_Generic, Wrapping):
    """`grokkit_pendulum/mlp`: config `width`. It holds for the time step that it was trained on."""

    activation = "silu"

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        """A network with PyTorch's default initialisation."""
        return Mlp(int(config["width"]))

    def batched(self, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> BatchedForward:
        """All members by batched products; the features are computed once."""
        layers = Perceptrons(self.layers(config), tensors)
        mean, spread = (tensors[name].unsqueeze(1) for name in ("mean", "spread"))

        def run(*inputs: Tensor, **context: Mapping[str, Tensor]) -> Tensor:
            return _stepped(inputs[0], layers, mean, spread)

        return run


class Mlp(nn.Module):
    """The change of state in one step, in units of its `spread` about its `mean`, from sines, cosines and velocities."""

    mean: Tensor
    spread: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(6, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 4)
        )
        self.register_buffer("mean", torch.zeros(4))
        self.register_buffer("spread", torch.ones(4))

    def forward(self, state: Tensor) -> Tensor:
        """The next states "batch 4"; whole turns of the angles are set aside and added again."""
        return _stepped(state, self.layers, self.mean, self.spread)


def _stepped(state: Tensor, layers: Callable[[Tensor], Tensor], mean: Tensor, spread: Tensor) -> Tensor:
    """The next states of states "batch 4", of one network or of several: "... batch 4"."""
    wrapped, turns = split_turns(state)
    angles, velocities = wrapped[:, :2], wrapped[:, 2:]
    features = torch.cat((torch.sin(angles), torch.cos(angles), velocities / FASTEST), 1)
    return wrapped + (mean + spread * layers(features)) + turns


class PublishedArchitecture(_Generic):
    """`grokkit_pendulum/published`: config `width`. Angles are not wrapped, as published."""

    activation = "tanh"

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        """A network with orthogonal weights of gain 0.8 and no biases."""
        return PublishedNet(int(config["width"]))

    def batched(self, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> BatchedForward:
        """All members by batched products."""
        layers = Perceptrons(self.layers(config), tensors)

        def run(*inputs: Tensor, **context: Mapping[str, Tensor]) -> Tensor:
            return _in_units(inputs[0], layers)

        return run


class PublishedNet(nn.Module):
    """The tanh network 4-width-width-4 of grisuno/chaotic_pendulum_grokked, on angles in half turns."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(4, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 4)
        )
        for layer in (self.layers[0], self.layers[2], self.layers[4]):
            assert isinstance(layer, nn.Linear)
            if not layer.weight.is_meta:
                nn.init.orthogonal_(layer.weight, gain=GAIN)
            nn.init.zeros_(layer.bias)

    def forward(self, state: Tensor) -> Tensor:
        """The next states "batch 4"."""
        return _in_units(state, self.layers)


def _in_units(state: Tensor, layers: Callable[[Tensor], Tensor]) -> Tensor:
    """What layers give for states "batch 4" with angles in half turns."""
    units = state.new_tensor([math.pi, math.pi, 1.0, 1.0])
    return layers(state / units) * units
