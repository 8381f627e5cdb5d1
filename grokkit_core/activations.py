"""Activation functions that are slow in torch on some machines."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def fast_tanh(values: Tensor) -> Tensor:
    """tanh; without gradients on a CPU numpy's, since torch leaves it to MKL, which takes ten times longer on some."""
    if torch.is_grad_enabled() or values.device.type != "cpu" or torch.compiler.is_compiling():
        return torch.tanh(values)
    return torch.from_numpy(np.tanh(values.numpy()))
