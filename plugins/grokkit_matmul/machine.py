"""What a device could do at best, so that a baseline can be judged before anything is compared with it."""

from __future__ import annotations

import re
from pathlib import Path

import torch

FMA_UNITS = 2
"""Vector units of a core that multiply and add, as every current server core has."""

CUDA_LANES = {(7, 0): (64, 32), (8, 0): (64, 64), (8, 6): (128, 2), (8, 9): (128, 2), (9, 0): (128, 128)}
"""By compute capability, float32 and float64 multiply-adds of a multiprocessor in a cycle (tensor cores for float64)."""


def nominal_peak(dtype: torch.dtype, device: torch.device, threads: int) -> float | None:
    """Multiplications and additions a second at the nominal clock [FLOP/s]; None where it is not known."""
    if device.type == "cuda":
        return _cuda_peak(dtype, device)
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8", "replace")
    except OSError:
        return None
    flags, clock = re.search(r"^flags\s*:(.*)$", text, re.M), _nominal_hertz(text)
    if not flags or clock is None:
        return None
    known = set(flags[1].split())
    bits = 512 if "avx512f" in known else 256 if {"avx2", "fma"} <= known else 0
    lanes = bits // (8 * dtype.itemsize)
    return clock * lanes * FMA_UNITS * 2 * threads if lanes else None


def _nominal_hertz(text: str) -> float | None:
    """The clock in the model's name where it says one, else the least that a core shows now."""
    named = re.search(r"^model name.*@\s*([\d.]+)GHz", text, re.M)
    if named:
        return float(named[1]) * 1e9
    shown = [float(value) for value in re.findall(r"^cpu MHz\s*:\s*([\d.]+)", text, re.M)]
    return min(shown) * 1e6 if shown else None


def _cuda_peak(dtype: torch.dtype, device: torch.device) -> float | None:
    properties = torch.cuda.get_device_properties(device)
    lanes = CUDA_LANES.get((properties.major, properties.minor))
    clock = getattr(properties, "clock_rate", 0)  # [kHz]; older releases do not say
    if lanes is None or not clock or dtype not in (torch.float32, torch.float64):
        return None
    each = lanes[0] if dtype == torch.float32 else lanes[1]
    return float(properties.multi_processor_count * each * 2 * clock * 1e3)
