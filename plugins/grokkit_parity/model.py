"""The parity network: bits as +1 and -1, one or two ReLU layers, two logits or one signed number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from grokkit_core.architecture import Architecture, BatchedForward, Layer, StackedForward
from grokkit_core.errors import UsageError
from grokkit_core.fusion.perceptrons import Perceptrons
from grokkit_core.tensors import Signature, TensorSpec
from grokkit_parity.plugin import BITS, LOGITS

HALVES = torch.tensor([0.5, -0.5])
"""What a signed readout is multiplied with: exact in every precision."""


class ParityMlpArchitecture(Architecture):
    """`grokkit_parity/mlp`: config `n`, `hidden`, `depth`, `readout`, `live`."""

    def check(self, config: Mapping[str, Any]) -> None:
        """Live bits are different, in rising order and below n."""
        live = config["live"]
        if list(live) != sorted(set(live)) or (live and live[-1] >= config["n"]):
            raise UsageError("live bits", expected=f"different ones in rising order, below n = {config['n']}")

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        """The network with PyTorch's default initialisation."""
        return ParityMlp(**self.settled(config))

    def signature(self, config: Mapping[str, Any]) -> Signature:
        """`bits` "batch n" to `logits` "batch 2"."""
        bits = TensorSpec(BITS.name, axes=("batch", int(config["n"])), dtypes=BITS.dtypes, domain=BITS.domain)
        return Signature([bits], [LOGITS])

    def layers(self, config: Mapping[str, Any]) -> Sequence[Layer]:
        """One or two hidden layers and the readout; the first reads the live bits."""
        hidden = [Layer("first.weight", "first.bias", "relu", inputs="n", outputs="hidden", live=tuple(config["live"]))]
        if config["depth"] == 2:
            hidden.append(Layer("second.weight", "second.bias", "relu", inputs="hidden", outputs="hidden"))
        bias = "last.bias" if config["readout"] == "logits" else None
        return [*hidden, Layer("last.weight", bias, "identity", inputs="hidden")]

    def without_gather(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """The same with every bit read."""
        return {**config, "live": ()}

    def live_columns(self, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Sequence[int]:
        """The gathered bits, or those whose column is not zero throughout."""
        used = (tensors["first.weight"] != 0).any(0).nonzero()[:, 0].tolist()
        live = tuple(config["live"]) or tuple(range(int(config["n"])))
        return [live[column] for column in used]

    def stacked(self, config: Mapping[str, Any]) -> StackedForward | None:
        """All seeds by batched products."""
        return StackedParityMlp(config["depth"], config["readout"]) if not config["live"] else None

    def batched(self, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> BatchedForward:
        """All members by batched products; the bits are read once."""
        return _Batched(self.layers(config), config["live"], tensors)


class _Batched:
    """Frozen networks on the same bits: "batch n" to logits "member batch 2"."""

    def __init__(self, layers: Sequence[Layer], live: Sequence[int], tensors: Mapping[str, Tensor]) -> None:
        self._layers, self._live = Perceptrons(layers, tensors), live
        self._dtype = tensors["first.weight"].dtype

    def __call__(self, *inputs: Tensor, **context: Mapping[str, Tensor]) -> Tensor:
        (bits,) = inputs
        return _logits(self._layers(_signs(bits, self._live, self._dtype)))


class ParityMlp(nn.Module):
    """`forward` maps bits "batch n" to logits "batch 2". With `live` bits only these are gathered and read."""

    def __init__(self, n: int, hidden: int, depth: int, readout: str, live: Sequence[int]) -> None:
        super().__init__()
        self.live = tuple(live)
        self.first = nn.Linear(len(self.live) or n, hidden)
        self.second = nn.Linear(hidden, hidden) if depth == 2 else None
        self.last = nn.Linear(hidden, 2) if readout == "logits" else nn.Linear(hidden, 1, bias=False)

    def forward(self, bits: Tensor) -> Tensor:
        """The logits "batch 2" in the dtype of the weights."""
        hidden = torch.relu(self.first(_signs(bits, self.live, self.first.weight.dtype)))
        if self.second is not None:
            hidden = torch.relu(self.second(hidden))
        return _logits(self.last(hidden))


class StackedParityMlp:
    """The forward pass of several networks, for training: parameters "seed *shape", bits "seed batch n"."""

    def __init__(self, depth: int, readout: str) -> None:
        self.names = ("first", "second")[:depth]
        self.readout = readout

    def __call__(self, parameters: Mapping[str, Tensor], *inputs: Tensor) -> Tensor:
        """The logits "seed batch 2"."""
        (bits,) = inputs
        values = 1 - 2 * bits.to(parameters["first.weight"].dtype)
        for name in self.names:
            bias = parameters[f"{name}.bias"].unsqueeze(1)
            values = torch.relu(torch.baddbmm(bias, values, parameters[f"{name}.weight"].transpose(1, 2)))
        out = torch.bmm(values, parameters["last.weight"].transpose(1, 2))
        return _logits(out + parameters["last.bias"].unsqueeze(1) if self.readout == "logits" else out)


def _signs(bits: Tensor, live: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Bits as +1 and -1, the live ones only where some are named."""
    read = bits.index_select(1, torch.tensor(live, device=bits.device)) if live else bits
    return 1 - 2 * read.to(dtype)


def _logits(out: Tensor) -> Tensor:
    """Two logits as they are; one signed number f, positive for even, as (f/2, -f/2), whose difference is f exactly."""
    return out if out.shape[-1] == 2 else out * HALVES.to(out.device)
