"""Propagators as they are before training: what a trained one must beat by orders of magnitude."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import nn

from grokkit_hpu.model import PhaseTable, SplitStep

SPLIT_STEP: dict[str, Any] = {"order": 4, "substeps": 4, "n_min": 3, "potential_band": 3}


@cache
def untrained(variant: str, dt: float) -> nn.Module:
    """The default network of a variant with its initial weights of seed 0."""
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False):
        torch.default_generator.manual_seed(0)
        if variant == "published":
            from grokkit_hpu.published import SpectralNetwork

            return SpectralNetwork(32).requires_grad_(False)
        network = PhaseTable(5, -1, "project") if variant == "free" else SplitStep({**SPLIT_STEP, "dt": dt})
        return network.requires_grad_(False)
