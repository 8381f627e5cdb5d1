"""Multi-layer perceptrons of one shape on the same inputs, as a few products: what many networks have at their core."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.functional import linear, silu

from grokkit_core.architecture import Layer

ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "silu": silu,
    "tanh": torch.tanh,
}
"""By the name that a `Layer` gives; "identity" is none of them."""


class Perceptrons:
    """The affine layers of several networks: `forward(values)` maps "batch in" to "member batch out".

    All members read the same values, so that the first layer is one product with the rows of all members' weights.
    """

    def __init__(self, layers: Sequence[Layer], parameters: Mapping[str, Tensor]) -> None:
        first, *others = layers
        weight = parameters[first.weight]
        self._members = len(weight)
        self._first = weight.flatten(0, 1)
        self._first_bias = parameters[first.bias].flatten() if first.bias else None
        self._activation = ACTIVATIONS.get(first.activation)
        self._others = [
            (
                parameters[layer.weight].transpose(1, 2),
                parameters[layer.bias].unsqueeze(1) if layer.bias else None,
                ACTIVATIONS.get(layer.activation),
            )
            for layer in others
        ]

    def __call__(self, values: Tensor) -> Tensor:
        """The outputs "member batch out" for values "batch in"."""
        hidden = linear(values, self._first, self._first_bias)
        if self._activation is not None:
            hidden = self._activation(hidden)
        hidden = hidden.view(len(values), self._members, -1).transpose(0, 1)
        for weight, bias, activation in self._others:
            hidden = torch.bmm(hidden, weight) if bias is None else torch.baddbmm(bias, hidden, weight)
            if activation is not None:
                hidden = activation(hidden)
        return hidden
