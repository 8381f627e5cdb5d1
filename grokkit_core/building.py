"""From a config and tensors to a network that holds exactly these: checked against what its architecture builds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from grokkit_core.architecture import Architecture
from grokkit_core.dtypes import cast, is_inexact
from grokkit_core.errors import BadManifest, BadWeights, UsageError
from grokkit_core.text import printable

ALIGNMENT = 64
"""Bytes: a cache line, and the widest vector register."""


def aligned(tensor: Tensor) -> Tensor:
    """The tensor at an address that no kernel treats differently, so that outputs do not depend on its place in a file."""
    return tensor.clone() if tensor.data_ptr() % ALIGNMENT else tensor


def build_module(architecture: Architecture, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> nn.Module:
    """The network of `config` holding exactly these tensors: frozen, in evaluation mode.

    It is built on the meta device first, so that a config cannot allocate more than the weights file holds. Raises
    `BadManifest` for a config that the architecture refuses and `BadWeights` for tensors that it does not expect.
    """
    identifier = architecture.spec.id
    try:
        settled = architecture.settled(config)
        architecture.check(settled)
        with torch.device("meta"):
            module = architecture.build(settled)
    except UsageError as error:
        raise BadManifest(f"config: {error}") from None
    expected = module.state_dict()
    _compare(expected, tensors, identifier)
    complex_names = {name for name, tensor in expected.items() if tensor.is_complex()}
    state = {name: _as_complex(t) if name in complex_names else t for name, t in tensors.items()}
    module.load_state_dict(state, assign=True, strict=True)
    if any(tensor.is_meta for tensor in (*module.parameters(), *module.buffers())):
        module = _rebuilt(architecture, settled, state)
    return module.requires_grad_(False).eval()


def _rebuilt(architecture: Architecture, config: Mapping[str, Any], state: Mapping[str, Tensor]) -> nn.Module:
    """The same on a real device, for networks that compute constants while they are built."""
    with torch.random.fork_rng(devices=[]), next(iter(state.values())).device:
        module = architecture.build(config)
    kinds = [tensor.dtype for tensor in state.values() if is_inexact(tensor)]
    if kinds:
        module._apply(lambda tensor: cast(tensor, kinds[0]))  # type: ignore[no-untyped-call]
    module.load_state_dict(dict(state), assign=True, strict=True)
    return module


def _compare(expected: Mapping[str, Tensor], tensors: Mapping[str, Tensor], identifier: str) -> None:
    for name in sorted(set(expected) ^ set(tensors)):
        verb = "lacks" if name in expected else "holds the unexpected"
        raise BadWeights(
            f"the weights file {verb} tensor '{printable(name, 80)}'", expected=f"what {identifier} builds"
        )
    for name, tensor in tensors.items():
        wanted = expected[name]
        shape = [*wanted.shape, 2] if wanted.is_complex() and not tensor.is_complex() else list(wanted.shape)
        if list(tensor.shape) != shape:
            raise BadWeights(
                f"tensor '{name}' has shape {list(tensor.shape)}",
                expected=f"{shape}, which {identifier} builds",
            )
        inexact = is_inexact(wanted)
        if inexact != is_inexact(tensor) or not (inexact or wanted.dtype == tensor.dtype):
            raise BadWeights(f"tensor '{name}' has dtype {tensor.dtype}", expected=str(wanted.dtype))


def _as_complex(tensor: Tensor) -> Tensor:
    return tensor if tensor.is_complex() else torch.view_as_complex(tensor.contiguous())
