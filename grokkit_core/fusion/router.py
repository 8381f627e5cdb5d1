"""The router: cassettes of several tasks side by side in one file, each with its own tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from grokkit_core.fusion.composite import CompositeArchitecture, CompositeFusion
from grokkit_core.fusion.parts import Part


class RouterFusion(CompositeFusion):
    """Members keep their own tensors, under a prefix each."""


class RouterArchitecture(CompositeArchitecture):
    """The k-th member's tensors are named `mk.` and their own name."""

    def layout(self, parts: Sequence[Part], tensors: Sequence[Mapping[str, Tensor]]) -> dict[str, Any]:
        """Nothing: the names say it."""
        return {}

    def empty(self, config: Mapping[str, Any], parts: Sequence[Part]) -> list[dict[str, Tensor]]:
        """What the members' architectures build."""
        return self.states(parts)

    def packed(self, config: Mapping[str, Any], tensors: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """All tensors under their prefixed names."""
        return {f"m{index}.{name}": tensor for index, own in enumerate(tensors) for name, tensor in own.items()}

    def unpacked(self, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
        """The tensors of each prefix."""
        found: list[dict[str, Tensor]] = [{} for _ in config["members"]]
        for name, tensor in tensors.items():
            prefix, _, own = name.partition(".")
            found[int(prefix[1:])][own] = tensor
        return found
