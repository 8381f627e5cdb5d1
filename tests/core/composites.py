"""Compositions of several tasks made in memory, untrained members, and an oracle of signatures of the tests' own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from grokkit_core import packing
from grokkit_core.cassette import Cassette
from grokkit_core.fusion.isolation import sampled
from grokkit_core.fusion.superposition import SuperpositionArchitecture
from grokkit_core.plugins import host
from grokkit_core.streams import stream
from grokkit_core.task import Batch, Inputs, map_tensors

BATCHES = (1, 2, 3, 7, 16, 33, 1000)
ROWS = 256
"""Distinct samples of a task; a larger batch repeats them."""

FUSIONS = ("router", "superposition")
JSON = Mapping[str, Any]


def assemble(fusion: str, members: Iterable[Cassette], name: str = "atlas") -> Cassette:
    """A composition of these cassettes, not saved."""
    chosen = list(members)
    made = host().fusion(fusion)
    plan = made.plan([member.manifest for member in chosen], None)
    return made.compose(chosen, plan, gate=None, batches=None, seed=0, name=name)


def rows(batch: Batch, size: int) -> tuple[Inputs, dict[str, Tensor]]:
    """The first `size` samples of a batch, from its beginning again where it has fewer, and their context."""
    index = torch.arange(size) % ROWS
    return map_tensors(batch.inputs, lambda tensor: tensor[index]), {n: t[index] for n, t in batch.context.items()}


def samples(cassette: Cassette) -> Batch:
    """Samples of a cassette's task in its dtype."""
    return sampled(cassette, ROWS, 0)


def untrained(cassette: Cassette) -> Cassette:
    """The same network with random numbers for weights."""
    generator = stream(1, "untrained", cassette.manifest.name)

    def drawn(tensor: Tensor) -> Tensor:
        if tensor.is_floating_point():
            return torch.randn(tensor.shape, generator=generator, dtype=torch.float64).mul(0.3).to(tensor.dtype)
        return torch.randint(-1, 2, tensor.shape, generator=generator).to(tensor.dtype)

    return Cassette(cassette.manifest, {name: drawn(tensor) for name, tensor in cassette.tensors.items()})


def with_config(cassette: Cassette, **changes: Any) -> Cassette:
    """A composition whose config says something else, as if nothing had checked it."""
    reference = cassette.manifest.architecture
    changed = replace(reference, config={**reference.config, **changes})
    return Cassette(cassette.manifest.replace(architecture=changed), cassette.tensors, plugins=cassette.plugins)


def blocks(cassette: Cassette, key: str) -> str:
    """The digest of the tensors of one member as they lie in the file."""
    architecture, config = cassette.architecture, cassette.manifest.architecture.config
    own = dict(zip(cassette.members, architecture.unpacked(config, cassette.tensors), strict=True))  # type: ignore[attr-defined]
    return packing.tensor_digest(own[key])


def table(cassette: Cassette) -> list[dict[str, Any]]:
    """The rows of a superposition's table, to be changed."""
    assert isinstance(cassette.architecture, SuperpositionArchitecture)
    return [dict(row) for row in cassette.manifest.architecture.config["table"]]


# -- an oracle of signatures, from the JSON of a manifest alone -------------------------------------------------------


def admits(inputs: Sequence[JSON], given: Sequence[Tensor]) -> bool:
    """Whether tensors satisfy the `inputs` of a manifest, in order: rank, sizes, dtypes and values, intervals aside."""
    if len(inputs) != len(given):
        return False
    return shapes_fit(inputs, [tuple(tensor.shape) for tensor in given]) and _numbers_fit(inputs, given)


def shapes_fit(inputs: Sequence[JSON], shapes: Sequence[Sequence[int]]) -> bool:
    """Whether shapes fit the axes: equal names have equal sizes, "..." is the same for all, nothing is empty."""
    sizes: dict[object, object] = {}
    for spec, shape in zip(inputs, shapes, strict=True):
        axes = list(spec["axes"])
        if axes[:1] == ["..."]:
            count = len(shape) - len(axes) + 1
            if count < 0 or sizes.setdefault("...", tuple(shape[:count])) != tuple(shape[:count]):
                return False
            axes[:1] = shape[:count]
        if len(axes) != len(shape) or 0 in shape:
            return False
        for axis, size in zip(axes, shape, strict=True):
            if (sizes.setdefault(axis, size) if isinstance(axis, str) else axis) != size:
                return False
    return True


def _numbers_fit(inputs: Sequence[JSON], given: Sequence[Tensor]) -> bool:
    precisions = {precision(str(tensor.dtype).removeprefix("torch.")) for tensor in given} - {""}
    return len(precisions) <= 1 and all(_values_fit(spec, tensor) for spec, tensor in zip(inputs, given, strict=True))


def precision(dtype: str) -> str:
    """The floating precision of a dtype; empty for whole numbers."""
    return {"float32": "single", "complex64": "single", "float64": "double", "complex128": "double"}.get(dtype, "")


def _values_fit(spec: JSON, tensor: Tensor) -> bool:
    dtype = str(tensor.dtype).removeprefix("torch.")
    if dtype not in spec["dtypes"]:
        return False
    numbers = (torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor).detach().numpy().ravel()
    domain = spec["domain"]
    if domain["kind"] == "any":
        return True
    if not np.isfinite(numbers).all():
        return False
    return domain["kind"] != "values" or set(numbers.tolist()) <= set(held(domain["values"], dtype))


def held(values: Iterable[float], dtype: str) -> list[float]:
    """What a dtype makes of listed values: the nearest of its floating numbers, or those that it holds exactly."""
    if width := precision(dtype):
        kind = np.float32 if width == "single" else np.float64
        with np.errstate(over="ignore"):
            return [float(kind(value)) for value in values if np.isfinite(kind(value))]
    low, high = {"bool": (0, 1), "uint8": (0, 255), "int64": (-(2**63), 2**63 - 1)}[dtype]
    return [value for value in values if float(value).is_integer() and low <= int(value) <= high]
