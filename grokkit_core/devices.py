"""Which device to compute on."""

from __future__ import annotations

import torch

from grokkit_core.errors import UsageError

SMALL = 100_000
"""Networks with fewer parameters gain nothing from a GPU at the batch sizes used here."""


def choose_device(wanted: str, parameters: int) -> torch.device:
    """The device that `auto`, `cpu` or `cuda` means; auto takes a GPU where torch sees one and the net is large enough.

    Raises `UsageError` for an unknown name or for `cuda` without a GPU.
    """
    if wanted not in ("auto", "cpu", "cuda"):
        raise UsageError(f"device '{wanted}'", expected="auto, cpu or cuda")
    if wanted == "cuda" and not torch.cuda.is_available():
        raise UsageError("device 'cuda', but torch sees no GPU here", expected="--device cpu or auto")
    if wanted == "cuda" or (wanted == "auto" and parameters >= SMALL and torch.cuda.is_available()):
        return torch.device("cuda")
    return torch.device("cpu")
