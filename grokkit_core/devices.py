"""Which device to compute on, and with how many threads."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import torch

from grokkit_core.errors import UsageError

SMALL = 100_000
"""Networks with fewer parameters gain nothing from a GPU or from several threads at the batch sizes used here."""


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


@contextlib.contextmanager
def fitting_threads(parameters: int) -> Iterator[None]:
    """One thread inside the block for a small network, torch's own setting otherwise; restored afterwards.

    On a busy machine two threads that wait for each other at every tiny product are many times slower than one (a
    factor of 50 was measured), and with one thread the result does not depend on how many there are.
    """
    before = torch.get_num_threads()
    if parameters < SMALL:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@cache
def device_name(device: torch.device) -> str:
    """The model of a GPU, or of this machine's processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or "unknown processor"


@contextlib.contextmanager
def using_threads(threads: int | None) -> Iterator[None]:
    """`threads` threads of torch inside the block, as many as before where that is None; restored afterwards.

    Raises `UsageError` for fewer than one or more than there are cores.
    """
    cores = os.cpu_count() or 1
    if threads is not None and not 1 <= threads <= cores:
        raise UsageError(f"{threads} threads", expected=f"1 to {cores}, the cores of this machine")
    before = torch.get_num_threads()
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
