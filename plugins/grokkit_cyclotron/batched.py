"""Several frozen networks of one grid on the same windows, as one computation: members of an ensemble."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from grokkit_core.activations import fast_tanh
from grokkit_core.architecture import Layer
from grokkit_core.fusion.perceptrons import Perceptrons
from grokkit_cyclotron.model import CODE, EMBEDDING, HIDDEN, mixing, scatter

ENCODER: Sequence[Layer] = (
    Layer("encoder.0.weight", "encoder.0.bias", "tanh"),
    Layer("encoder.2.weight", "encoder.2.bias", "tanh"),
    Layer("encoder.4.weight", "encoder.4.bias", "identity"),
)


class BatchedTopoBrain:
    """Frozen networks on one grid: windows "batch time 4" to next states "member batch 4".

    As in a frozen network the second layer of the node network is folded into the readout, here once.
    """

    def __init__(self, angular: int, radial: int, copies: int, tensors: Mapping[str, Tensor]) -> None:
        self._grid = angular, radial, copies
        self._nodes = angular * radial * copies
        self._members = len(tensors["node_in.weight"])
        self._encode = Perceptrons(ENCODER, tensors)
        self._mixing = mixing(tensors["angular_logits"], tensors["radial_logits"], copies).transpose(1, 2)
        self._living = tensors["node_in.weight"][:, :, : CODE + 1].transpose(1, 2).contiguous()
        self._living_bias = tensors["node_in.bias"].unsqueeze(1)
        blocks = tensors["readout_in.weight"].view(self._members, HIDDEN, self._nodes, EMBEDDING)
        folded = blocks @ tensors["node_out.weight"].unsqueeze(1)
        self._read = folded.flatten(2).transpose(1, 2)
        summed = torch.bmm(blocks.sum(2), tensors["node_out.bias"].unsqueeze(2))
        self._read_bias = (tensors["readout_in.bias"].unsqueeze(2) + summed).transpose(1, 2)
        self._last = tensors["readout_out.weight"].transpose(1, 2)
        self._last_bias = tensors["readout_out.bias"].unsqueeze(1)

    def __call__(self, *inputs: Tensor, **context: Mapping[str, Tensor]) -> Tensor:
        """The next state "member batch 4" of each member; only the last state of a window is read."""
        (states,) = inputs
        code = self._encode(states[:, -1])
        members, batch = code.shape[:2]
        counts, shares = scatter(code.detach().reshape(-1, CODE), *self._grid)
        addressed = torch.cat((counts.view(members, batch, -1), shares.view(members, batch, -1)), 1)
        mixed = torch.bmm(addressed, self._mixing)
        seen, share = mixed[:, :batch], mixed[:, batch:]
        entering = torch.cat((seen.unsqueeze(3) * code.unsqueeze(2), share.unsqueeze(3)), 3).flatten(1, 2)
        nodes = fast_tanh(torch.baddbmm(self._living_bias, entering, self._living)).view(members, batch, -1)
        hidden = fast_tanh(torch.baddbmm(self._read_bias, nodes, self._read))
        return torch.baddbmm(self._last_bias, hidden, self._last)
