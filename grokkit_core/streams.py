"""Named random streams: every data set, initialisation and shuffle draws from a generator of its own, made from one seed."""

from __future__ import annotations

import hashlib

import torch


def stream(seed: int, *path: str | int) -> torch.Generator:
    """A CPU generator that depends on `seed` and on the whole path, e.g. `stream(0, "test", 3)`.

    Different paths give independent streams, so training, calibration and test data never share numbers.
    """
    return torch.Generator().manual_seed(stream_seed(seed, *path))


def stream_seed(seed: int, *path: str | int) -> int:
    """The 63-bit seed behind `stream`."""
    text = "/".join(map(str, (seed, *path)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1
