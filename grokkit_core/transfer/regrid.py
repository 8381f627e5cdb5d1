"""The same weights on a finer grid: for networks whose tensors do not depend on the discretisation."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from grokkit_core.cassette import Cassette
from grokkit_core.errors import OtherNetwork
from grokkit_core.manifest import Manifest
from grokkit_core.task import Inputs, Place, Task, map_tensors
from grokkit_core.tensors import Signature, TensorSpec
from grokkit_core.transfer.operator import Target, TransferOperator, TransferPlan, check_target, sizes_of

GUARANTEE = "equal on inputs that the coarse grid resolves (below its Nyquist frequency), to rounding"


class Regrid(TransferOperator):
    """Copies every tensor and changes a grid size. Inputs are lifted and outputs projected by trigonometric
    interpolation along the axes of that size, which is exact for periodic fields below the coarse Nyquist frequency.
    """

    def plan(self, source: Manifest, target: Target, **options: Any) -> TransferPlan:
        """Finer grids of an architecture that names its grid sizes."""
        architecture, config = self.architecture_of(source)
        before = sizes_of(list(architecture.grids(config)), config)
        if not before:
            raise OtherNetwork(f"architecture {source.architecture.id} has no grid that can be refined")
        after = check_target(target, before, source.ref)
        return self.resized(source, before, after, guarantee=GUARANTEE, tolerance=math.inf)

    def apply(self, source: Cassette, plan: TransferPlan) -> Mapping[str, Tensor]:
        """The tensors as they are."""
        return dict(source.tensors)

    def places(self, task: Task, plan: TransferPlan) -> Sequence[Place]:
        """The first row of the task's tables, on the source's own grid where the row names one."""
        own = {name: size for name, size in plan.before.items() if any(name in place for place in task.evaluation)}
        return [{**next(iter(task.evaluation), {}), **own}]

    def lift(self, inputs: Inputs, plan: TransferPlan) -> Inputs:
        """Inputs on the finer grid."""
        sizes = _changed(plan.source.signature, plan.signature, "inputs", plan.after)
        return map_tensors(inputs, lambda tensor: resampled(tensor, sizes))

    def project(self, outputs: Tensor, plan: TransferPlan) -> Tensor:
        """Outputs on the coarser grid."""
        return resampled(outputs, _changed(plan.signature, plan.source.signature, "outputs", plan.before))


def _changed(first: Signature, second: Signature, role: str, sizes: Mapping[str, int]) -> dict[int, int]:
    """By axis of the first tensor, the new size: that of the second one where it is fixed, `sizes` where it is named."""
    pairs = zip(getattr(first, role)[0].axes, getattr(second, role)[0].axes, strict=True)
    fixed = {axis: new for axis, (old, new) in enumerate(pairs) if isinstance(new, int) and old != new}
    return fixed | {
        axis: sizes[str(getattr(first, role)[0].axes[axis])] for axis in grid_axes(getattr(first, role)[0], sizes)
    }


def grid_axes(spec: TensorSpec, names: Collection[str]) -> list[int]:
    """The axes of a tensor that are grids of these names, as for networks that take any size."""
    return [axis for axis, name in enumerate(spec.axes) if name in names]


def resampled(values: Tensor, sizes: Mapping[int, int]) -> Tensor:
    """A periodic field on another grid by trigonometric interpolation along these axes.

    Exact below both Nyquist frequencies; at that of an even coarse grid +f and -f share what cannot be told apart, so
    that refining and coarsening again gives the field back.
    """
    for axis, size in sizes.items():
        old = values.shape[axis]
        if old != size:
            spectrum = _spectrum(torch.fft.fft(values, dim=axis).movedim(axis, -1), size)
            field = torch.fft.ifft(spectrum * (size / old), dim=-1).movedim(-1, axis)
            values = field if values.is_complex() else field.real
    return values


def _spectrum(spectrum: Tensor, size: int) -> Tensor:
    """A spectrum "... old" cut or filled with zeros to "... size"; the Nyquist bin of an even coarse grid is shared."""
    old = spectrum.shape[-1]
    kept = min(old, size)
    half = (kept + 1) // 2
    result = spectrum.new_zeros(*spectrum.shape[:-1], size)
    result[..., :half] = spectrum[..., :half]
    if kept > half:
        result[..., size - (kept - half) :] = spectrum[..., old - (kept - half) :]
    if kept % 2 == 0 and old != size:
        middle = kept // 2
        if size > old:
            result[..., middle] = spectrum[..., middle] / 2
            result[..., -middle] = spectrum[..., middle] / 2
        else:
            result[..., middle] = spectrum[..., middle] + spectrum[..., -middle]
    return result
