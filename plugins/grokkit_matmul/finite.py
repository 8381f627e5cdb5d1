"""Is a result finite? Asked with one pass over parts of it, and on a GPU without waiting for what is still to come."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def is_finite(tensors: Sequence[Tensor]) -> bool:
    """Whether no entry is NaN or infinite. A sum of finite terms that overflows counts as infinite. Waits for a GPU."""
    return math.isfinite(_total(tensors).item())


class Watch:
    """The same question, asked now and answered later: a GPU goes on computing meanwhile."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        total = _total(tensors)
        self._answer = torch.empty((), dtype=total.dtype, pin_memory=True)
        self._answer.copy_(total, non_blocking=True)
        self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._event.record(torch.cuda.current_stream(total.device))

    @property
    def finite(self) -> bool:
        """The answer, as soon as the question has been reached."""
        self._event.synchronize()
        return math.isfinite(self._answer.item())


def _total(tensors: Sequence[Tensor]) -> Tensor:
    """A number that is NaN or infinite if some entry is: sums of finite numbers are finite, in float32 for short floats."""
    first, *others = (x.sum(dtype=torch.float32 if x.itemsize == 2 else None) for x in tensors)
    for other in others:
        first = first + other
    return first.abs()
