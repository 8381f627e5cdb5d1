"""Networks that read the last two states of a window: the exact bilinear rotor and a generic residual network.

Two states are enough and one is not: the turn q = exp(i omega dt) is the quotient of two velocities, while a reader of
one state can only use the published sampler's fixed phase.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from grokkit_core.architecture import Architecture, BatchedForward, Layer
from grokkit_core.fusion.perceptrons import Perceptrons
from grokkit_core.tensors import Signature
from grokkit_cyclotron.plugin import SIGNATURE

AT_REST = 1e-30
"""Added to the squared speed [m^2/s^2 in the units of the data], so that a body at rest divides by something."""

STEP_SCALE, TURN_SCALE, OUTPUT_SCALE = 20.0, 10.0, 0.01
"""Factors of the generic network that bring differences of neighbouring states, and its correction, to order one."""


class RotorArchitecture(Architecture):
    """`grokkit_cyclotron/rotor`: no config."""

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        """A rotor with random weights, in float64."""
        return Rotor()

    def signature(self, config: Mapping[str, Any]) -> Signature:
        """`states` "batch 15 4" to `state` "batch 4"; omega may be given and is not read."""
        return SIGNATURE

    def batched(self, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> BatchedForward:
        """All members by batched products of the two states, which are read once."""
        first, second, third, metric = (tensors[name] for name in ("m1", "m2", "m3", "s"))
        members = len(first)
        forms = first.reshape(2 * members, 4).T, second.flatten(2).transpose(1, 2), third.flatten(2).transpose(1, 2)
        seen = metric.reshape(2 * members, 2).T

        def run(*inputs: Tensor, **context: Mapping[str, Tensor]) -> Tensor:
            return _rotate_all(inputs[0], members, forms, seen)

        return run


class Rotor(nn.Module):
    """28 numbers: a learned bilinear form finds the turn, two more apply it to velocity and to displacement.

    With (x_a, v_a) the state before the last and (x_b, v_b) the last:
    c = M1(v_b, v_a) / |S v_a|^2,  v' = M2(c, v_b),  x' = x_b + M3(c, x_b - x_a).
    """

    def __init__(self) -> None:
        super().__init__()
        self.m1, self.m2, self.m3 = (nn.Parameter(0.5 * torch.randn(2, 2, 2, dtype=torch.float64)) for _ in range(3))
        self.s = nn.Parameter(torch.eye(2, dtype=torch.float64) + 0.1 * torch.randn(2, 2, dtype=torch.float64))

    def forward(self, states: Tensor) -> Tensor:
        """The next state "batch 4" from a window "batch time 4", time >= 2; a body at rest stays at rest."""
        return rotate(states, self.m1, self.m2, self.m3, self.s)


def rotate(states: Tensor, m1: Tensor, m2: Tensor, m3: Tensor, s: Tensor) -> Tensor:
    """The rotor as a function of its weights: "batch time 4" to "batch 4"."""
    before, last = states[:, -2], states[:, -1]
    moved, turned = last[:, :2] - before[:, :2], last[:, 2:]
    size = (before[:, 2:] @ s.T).square().sum(1, keepdim=True) + AT_REST
    code = _bilinear(m1, turned, before[:, 2:]) / size
    return torch.cat((last[:, :2] + _bilinear(m3, code, moved), _bilinear(m2, code, turned)), 1)


def _rotate_all(states: Tensor, members: int, forms: tuple[Tensor, Tensor, Tensor], seen: Tensor) -> Tensor:
    """`rotate` of several rotors: "batch time 4" to "member batch 4".

    `seen` is S "2 2*member"; of the forms the first is "4 2*member", the others "member 4 2".
    """
    before, last = states[:, -2], states[:, -1]
    place, moved, turned, slow = last[:, :2], last[:, :2] - before[:, :2], last[:, 2:], before[:, 2:]
    size = (slow @ seen).view(-1, members, 2).square().sum(2, keepdim=True) + AT_REST
    pairs = (turned.unsqueeze(2) * slow.unsqueeze(1)).flatten(1)
    code = ((pairs @ forms[0]).view(-1, members, 2) / size).transpose(0, 1).unsqueeze(3)
    turn, shift = (
        torch.bmm((code * vector.unsqueeze(1)).flatten(2), form)
        for form, vector in ((forms[1], turned), (forms[2], moved))
    )
    return torch.cat((place + shift, turn), 2)


def rotate_jacobian(states: Tensor, m1: Tensor, m2: Tensor, m3: Tensor, s: Tensor) -> Tensor:
    """The derivative "batch 4 28" of `rotate` by m1, m2, m3 and s, each flattened, in this order.

    The rotor is linear in each form, and in S only through 1 / |S v_a|^2, by which everything scales.
    """
    before, last = states[:, -2], states[:, -1]
    slow, moved, turned = before[:, 2:], last[:, :2] - before[:, :2], last[:, 2:]
    seen = slow @ s.T
    size = seen.square().sum(1, keepdim=True) + AT_REST
    code = _bilinear(m1, turned, slow) / size
    pairs = (turned.unsqueeze(2) * slow.unsqueeze(1)).flatten(1) / size
    rows = []
    for form, vector in ((m3, moved), (m2, turned)):
        by_code = torch.einsum("kij,nj->nki", form, vector)
        by_first = (by_code.unsqueeze(3) * pairs[:, None, None]).flatten(2)
        own = torch.zeros(len(states), 2, 2, 4, dtype=states.dtype, device=states.device)
        for output in range(2):
            own[:, output, output] = (code.unsqueeze(2) * vector.unsqueeze(1)).flatten(1)
        shift = _bilinear(form, code, vector)
        by_metric = -2 * shift.unsqueeze(2) * ((seen.unsqueeze(2) * slow.unsqueeze(1)).flatten(1) / size).unsqueeze(1)
        other = torch.zeros_like(own.flatten(2))
        middle = (other, own.flatten(2)) if form is m3 else (own.flatten(2), other)
        rows.append(torch.cat((by_first, *middle, by_metric), 2))
    return torch.cat(rows, 1)


def _bilinear(form: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """sum_ij form[k, i, j] first[i] second[j]: "batch 2"."""
    pairs = (first.unsqueeze(2) * second.unsqueeze(1)).flatten(1)
    return pairs @ form.flatten(1).T


class TwoStateMlpArchitecture(Architecture):
    """`grokkit_cyclotron/two-state-mlp`: config `width`."""

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        """A network with PyTorch's default initialisation."""
        return TwoStateMlp(int(config["width"]))

    def layers(self, config: Mapping[str, Any]) -> Sequence[Layer]:
        """Two hidden layers of `width`; six features in and four corrections out are fixed."""
        return (
            Layer("layers.0.weight", "layers.0.bias", "tanh", outputs="width"),
            Layer("layers.2.weight", "layers.2.bias", "tanh", inputs="width", outputs="width"),
            Layer("layers.4.weight", "layers.4.bias", "identity", inputs="width"),
        )

    def signature(self, config: Mapping[str, Any]) -> Signature:
        """`states` "batch 15 4" to `state` "batch 4"; omega may be given and is not read."""
        return SIGNATURE

    def batched(self, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> BatchedForward:
        """All members by batched products."""
        layers = Perceptrons(self.layers(config), tensors)

        def run(*inputs: Tensor, **context: Mapping[str, Tensor]) -> Tensor:
            return _corrected(inputs[0], layers)

        return run


class TwoStateMlp(nn.Module):
    """The generic comparison: a 6-48-48-4 tanh network that corrects linear extrapolation. 2,884 parameters."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(6, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 4)
        )

    def forward(self, states: Tensor) -> Tensor:
        """The next state "batch 4" from a window "batch time 4", time >= 2."""
        return _corrected(states, self.layers)


def _corrected(states: Tensor, layers: Callable[[Tensor], Tensor]) -> Tensor:
    """Linear extrapolation of windows "batch time 4", corrected by one network or several: "... batch 4"."""
    before, last = states[:, -2], states[:, -1]
    change = last - before
    features = torch.cat((STEP_SCALE * change[:, :2], TURN_SCALE * change[:, 2:], last[:, 2:]), 1)
    return last + change + OUTPUT_SCALE * layers(features)
