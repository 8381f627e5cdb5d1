"""Memory that the recursion works in, kept between calls."""

from __future__ import annotations

import math
import threading

import torch
from torch import Tensor

from grokkit_matmul.finite import Watch

Place = tuple[int, int]
"""Depth of the recursion and number of the buffer there."""


class Buffers(threading.local):
    """One flat buffer a place, dtype, device and stream, as large as was ever asked for; each thread has its own."""

    def __init__(self) -> None:
        self._kept: dict[tuple[Place, torch.dtype, torch.device, int], Tensor] = {}
        self.watch: Watch | None = None
        """What was asked of the product in progress."""

    def take(self, place: Place, shape: tuple[int, int], like: Tensor) -> Tensor:
        """A matrix of this shape whose content is anything; the same memory whenever the place is the same."""
        stream = torch.cuda.current_stream(like.device).cuda_stream if like.is_cuda else 0
        slot = (place, like.dtype, like.device, stream)
        size = math.prod(shape)
        kept = self._kept.get(slot)
        if kept is None or kept.numel() < size:
            self._kept.pop(slot, None)
            kept = None  # freed before the larger one is allocated
            with torch.inference_mode(False):
                kept = self._kept[slot] = torch.empty(size, dtype=like.dtype, device=like.device)
        return kept[:size].view(shape)

    @property
    def bytes(self) -> int:
        """What this thread holds."""
        return sum(buffer.numel() * buffer.element_size() for buffer in self._kept.values())

    def release(self) -> None:
        """Give this thread's memory back."""
        self._kept.clear()
