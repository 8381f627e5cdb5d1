"""Checks tensors against a signature. Nothing is padded, truncated, reshaped or cast: it fits, or there is one error."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from grokkit_core.dtypes import real_dtype, real_view
from grokkit_core.errors import Incompatible
from grokkit_core.tensors import LEADING, ContextSpec, Domain, Signature, TensorSpec
from grokkit_core.text import printable

BATCH = "batch"
EXACT = 2**53
"""From here on float64 does not hold every whole number."""

PIECE = 2**20
"""Numbers that are checked at a time, so that checking a large input needs no second one of its size."""


def named_inputs(signature: Signature, given: Sequence[Tensor], named: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Positional and named inputs by name; raises `Incompatible` for a missing, unknown or repeated one."""
    names = [spec.name for spec in signature.inputs]
    if len(given) > len(names):
        raise Incompatible(f"{len(given)} inputs given", expected=f"{len(names)} ({', '.join(names)})")
    inputs = dict(zip(names, given, strict=False))
    for name, tensor in named.items():
        if name not in names:
            raise Incompatible(f"unknown input '{printable(name, 60)}'", expected=", ".join(names))
        if name in inputs:
            raise Incompatible(f"input '{name}' is given twice", expected="once")
        inputs[name] = tensor
    missing = [name for name in names if name not in inputs]
    if missing:
        raise Incompatible(f"input '{missing[0]}' is missing", expected=f"inputs {', '.join(names)}")
    return {name: inputs[name] for name in names}


def check_inputs(signature: Signature, inputs: Mapping[str, Tensor], *, force: bool = False) -> dict[str, int]:
    """The sizes of the symbolic axes, once every input has the rank, sizes, dtype and values that its spec demands.

    `force` lets values outside the domain pass (a shape or dtype never). Raises `Incompatible`.
    """
    sizes: dict[str, int] = {}
    dtypes = set()
    _check_devices(inputs)
    for name, given in inputs.items():
        if isinstance(given, Tensor) and not is_plain(given):
            raise Incompatible(f"input '{name}' is {kind(given)}", expected="a dense tensor that holds values")
    leading: list[int] | None = None
    for spec in signature.inputs:
        tensor = inputs[spec.name]
        if isinstance(tensor, Tensor) and spec.axes[:1] == (LEADING,):
            leading = _check_leading(spec, tensor, leading)
        _check_tensor(spec, tensor, sizes)
        if not force:
            _check_values(spec, tensor)
        dtypes.add(tensor.dtype)
    if len({real_dtype(dtype) for dtype in dtypes if dtype.is_floating_point or dtype.is_complex}) > 1:
        raise Incompatible("inputs of different dtypes: " + ", ".join(sorted(map(str, dtypes))), expected="one dtype")
    return sizes


def check_context(
    signature: Signature, given: Mapping[str, Tensor | float], batch: int, *, force: bool = False
) -> dict[str, Tensor]:
    """The declared context variables as float64 tensors of shape `(batch,)`; anything extra is ignored.

    Raises `Incompatible` for a missing required one, a wrong shape, or (unless `force`) a value outside the domain.
    """
    context = {}
    for spec in signature.context:
        if spec.name not in given:
            if spec.required:
                raise Incompatible(
                    f"context variable '{spec.name}' is missing",
                    expected=f"{spec.name} [{spec.unit}] in {spec.domain}",
                )
            continue
        context[spec.name] = _context_tensor(spec, given[spec.name], batch, force)
    return context


def _context_tensor(spec: ContextSpec, value: Tensor | float, batch: int, force: bool) -> Tensor:
    try:
        tensor = torch.as_tensor(value, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        raise Incompatible(
            f"context variable '{spec.name}' is {printable(repr(value), 60)}", expected="a number"
        ) from None
    if tensor.ndim == 0:
        tensor = tensor.expand(batch)
    if tuple(tensor.shape) != (batch,):
        raise Incompatible(
            f"context variable '{spec.name}' has shape {list(tensor.shape)}",
            expected=f"a number or [{batch}]",
        )
    if not force:
        _check_domain(f"context variable '{spec.name}'", tensor, spec.domain, spec.unit)
    return tensor


def is_plain(tensor: Tensor) -> bool:
    """Whether it is dense and holds values: not sparse, nested, or on the meta device."""
    return tensor.layout is torch.strided and not tensor.is_nested and not tensor.is_meta


def kind(tensor: Tensor) -> str:
    """What a tensor is that `is_plain` refuses, in words."""
    if tensor.is_nested:
        return "a nested tensor"
    layout = str(tensor.layout).removeprefix("torch.")
    return "a tensor without values" if tensor.is_meta else f"a tensor of layout {layout}"


def _check_devices(inputs: Mapping[str, Tensor]) -> None:
    devices = {name: str(tensor.device) for name, tensor in inputs.items() if isinstance(tensor, Tensor)}
    if len(set(devices.values())) > 1:
        told = ", ".join(f"'{name}' on {device}" for name, device in devices.items())
        raise Incompatible(f"inputs {told}", expected="one device", hint="move them first")


def _check_leading(spec: TensorSpec, tensor: Tensor, known: list[int] | None) -> list[int]:
    """The sizes of the axes that "..." stands for, which all inputs share."""
    shape = list(tensor.shape)
    count = len(shape) - len(spec.axes) + 1
    if count < 0:
        raise Incompatible(
            f"input '{spec.name}' has shape {shape}", expected=f"at least {len(spec.axes) - 1} axes {spec.shape}"
        )
    if known is not None and shape[:count] != known:
        raise Incompatible(f"leading axes of input '{spec.name}' are {shape[:count]}", expected=f"{known}")
    return shape[:count]


def _check_tensor(spec: TensorSpec, tensor: Tensor, sizes: dict[str, int]) -> None:
    if not isinstance(tensor, Tensor):
        raise Incompatible(f"input '{spec.name}' is a {type(tensor).__name__}", expected="a torch.Tensor")
    shape = list(tensor.shape)
    axes: list[str | int] = list(spec.axes)
    if axes[:1] == [LEADING]:
        axes[:1] = shape[: len(shape) - len(axes) + 1]
    if len(shape) != len(axes):
        raise Incompatible(f"input '{spec.name}' has shape {shape}", expected=f"{len(axes)} axes {spec.shape}")
    for axis, (wanted, size) in enumerate(zip(axes, shape, strict=True)):
        known = sizes.setdefault(wanted, size) if isinstance(wanted, str) else wanted
        if size != known or size == 0:
            expected = f"{wanted} = {known}" if isinstance(wanted, str) and size else f"{spec.shape}"
            raise Incompatible(f"axis {axis} of input '{spec.name}' has size {size} (shape {shape})", expected=expected)
    dtype = str(tensor.dtype).removeprefix("torch.")
    if dtype not in spec.dtypes:
        raise Incompatible(
            f"input '{spec.name}' has dtype {dtype}", expected=" or ".join(spec.dtypes), hint="cast it first"
        )


def _check_values(spec: TensorSpec, tensor: Tensor) -> None:
    _check_domain(f"input '{spec.name}'", tensor, spec.domain, spec.unit)


def _check_domain(what: str, tensor: Tensor, domain: Domain, unit: str) -> None:
    if domain.kind == "any":
        return
    plain = real_view(tensor) if tensor.dtype != torch.bool else tensor.to(torch.uint8)
    pieces = torch.split(plain.reshape(-1), PIECE)
    if not all(bool(torch.isfinite(piece).all()) for piece in pieces):
        count = sum(int((~torch.isfinite(piece)).sum()) for piece in pieces)
        raise Incompatible(
            f"{what} holds NaN or infinity in {count} of {plain.numel()} places", expected="finite numbers"
        )
    for piece in pieces if domain.kind in ("interval", "values") else ():
        if domain.kind == "interval":
            good = (piece >= domain.low) & (piece <= domain.high)
        else:
            good = torch.isin(piece, held(domain, tensor.dtype).to(piece.device))
        if not bool(good.all()):
            worst = piece[~good][0].item()
            suffix = f" [{unit}]" if unit != "1" else ""
            raise Incompatible(
                f"{what} holds {worst:g}, outside its domain",
                expected=f"{domain}{suffix}",
                hint="--force skips this check",
            )


@functools.lru_cache(maxsize=256)
def held(domain: Domain, dtype: torch.dtype) -> Tensor:
    """The numbers of a finite set as a dtype holds them: rounded in a floating one, whole ones alone in any other.

    Those of a complex dtype are real, of its precision; those of booleans are 0 and 1, as uint8. Not to be changed: it is
    kept for the next call.
    """
    values = torch.tensor(domain.values, dtype=torch.float64)
    if dtype.is_floating_point or dtype.is_complex:
        rounded = values.to(real_dtype(dtype))
        return rounded[rounded.isfinite()]
    low, high = (0, 1) if dtype == torch.bool else (torch.iinfo(dtype).min, torch.iinfo(dtype).max)
    whole = (values == values.round()) & (values >= low) & (values < float(high) + (high < EXACT))
    return values[whole].to(torch.uint8 if dtype == torch.bool else dtype)
