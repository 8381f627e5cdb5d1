"""Every input of a finite domain, in chunks: the truth table row by row, what fails first, and how far from failing."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from grokkit_core.contract import BATCH
from grokkit_core.errors import UsageError
from grokkit_core.tensors import ContextSpec, Domain, Signature, TensorSpec

MOST_ROWS = 2**40
"""More rows than this would take a core about a year at 30,000 rows a second."""

MOST_BITS = 62
"""Row numbers are int64."""

MOST_VALUES = 2**20
"""A set of integers with more members than this is not listed."""

MOST_DIGITS = 2**24
"""Binary digits of a domain's size; a larger one is not written out."""

_BOUNDS = {"bool": (0, 1), "uint8": (0, 255), "int64": (-(2**63), 2**63 - 1)}

Rows = TypeVar("Rows")


@dataclass(frozen=True)
class Exhausted:
    """What the check of every row of a domain found.

    `worst` is the least margin (not a number counts as -inf), `first` the number of the first wrong row.
    """

    checked: int
    wrong: int
    worst: float
    first: int | None

    @property
    def holds(self) -> bool:
        """Whether every row is right."""
        return self.wrong == 0


def exhaust(
    count: int,
    rows: Callable[[int, int], Rows],
    check: Callable[[Rows], Tensor],
    *,
    chunk: int = 65_536,
    progress: Callable[[int, int], None] | None = None,
) -> Exhausted:
    """Check rows 0 to `count` - 1 of a domain, at most `chunk` of them in memory at a time, without gradients.

    `rows(start, stop)` makes the rows of these numbers, a tensor or several by name. `check` gives the margin "row" of
    each, positive where the row is right, as bool or a number: True, logit of the right class less the other's,
    tolerance less error. Zero and NaN are wrong. `progress(done, count)` is called after every chunk.

    Raises `UsageError` if `count` is not within 1 to 2^40, `chunk` is not positive, or a margin is missing.
    """
    if count < 1:
        raise UsageError(f"{count} rows to check", expected="1 to 2^40")
    if count > MOST_ROWS:
        given = f"2^{math.log2(count):.2f} rows to check"
        raise UsageError(given, expected="1 to 2^40", hint="fix the inputs that do not matter, or sample")
    if chunk < 1:
        raise UsageError(f"chunks of {chunk} rows", expected="at least 1")
    found = Exhausted(0, 0, math.inf, None)
    with torch.inference_mode():
        for start in range(0, count, chunk):
            stop = min(start + chunk, count)
            found = _joined(found, _margins(check(rows(start, stop)), start, stop))
            if progress is not None:
                progress(stop, count)
    return found


def bit_rows(start: int, stop: int, width: int, *, dtype: torch.dtype) -> Tensor:
    """Rows `start` to `stop` - 1 of the truth table of `width` bits, "stop-start width", zeros and ones of `dtype`.

    Row r holds the binary digits of r, the most significant first. Raises `UsageError` unless
    0 <= start <= stop <= 2^width and 1 <= width <= 62.
    """
    if not 1 <= width <= MOST_BITS:
        raise UsageError(f"rows of {width} bits", expected=f"1 to {MOST_BITS}")
    if not 0 <= start <= stop <= 2**width:
        raise UsageError(f"rows {start} to {stop} of {width} bits", expected=f"0 <= start <= stop <= 2^{width}")
    numbers = torch.arange(start, stop, dtype=torch.int64)
    table = torch.empty(len(numbers), width, dtype=dtype)
    for column in range(width):  # one column at a time: int64 for all of them would be the larger part of the memory
        table[:, column] = (numbers >> (width - 1 - column)) & 1
    return table


def finite_values(spec: TensorSpec | ContextSpec) -> tuple[float, ...] | None:
    """The values that one element of a tensor (or a context variable) may have, ascending; None if they are not listed.

    Listed are a set of values, an interval of one point, and at most 2^20 integers where every dtype is bool or an
    integer. Of these only what some dtype can hold counts.
    """
    dtypes = spec.dtypes if isinstance(spec, TensorSpec) else ("float64",)
    if all(dtype in _BOUNDS for dtype in dtypes):
        return _integers(spec.domain, dtypes)
    if spec.domain.kind == "values":
        return spec.domain.values
    if spec.domain.kind == "interval" and spec.domain.low == spec.domain.high:
        return (spec.domain.low,)
    return None


def domain_size(signature: Signature) -> int | None:
    """How many different single samples a signature admits; None if infinitely many, or more than 2^(2^24).

    A sample is one entry of the leading axis `batch`, with every required context variable; optional context is left
    out. None too where another axis has no fixed size or a value set is not listed by `finite_values`.
    """
    sizes = [_tensor_size(spec) for spec in signature.inputs]
    sizes += [_power(finite_values(spec), 1) for spec in signature.context if spec.required]
    total = 1
    for size in sizes:
        if size is None or total.bit_length() + size.bit_length() > MOST_DIGITS + 2:
            return None
        total *= size
    return total


def _margins(margins: Tensor, start: int, stop: int) -> Exhausted:
    """What the margins "row" of rows `start` to `stop` - 1 say."""
    if margins.shape != (stop - start,):
        raise UsageError(
            f"margins {list(margins.shape)} for rows {start} to {stop}", expected=f"one a row: [{stop - start}]"
        )
    wrong = (~(margins > 0)).nonzero().flatten()
    worst = margins.double().nan_to_num(nan=-math.inf, posinf=math.inf, neginf=-math.inf).min().item()
    return Exhausted(stop - start, len(wrong), worst, start + int(wrong[0].item()) if len(wrong) else None)


def _joined(before: Exhausted, after: Exhausted) -> Exhausted:
    return Exhausted(
        before.checked + after.checked,
        before.wrong + after.wrong,
        min(before.worst, after.worst),
        after.first if before.first is None else before.first,
    )


def _integers(domain: Domain, dtypes: tuple[str, ...]) -> tuple[float, ...] | None:
    """The integers of a domain that one of these dtypes can hold, if they are few enough to list."""
    low, high = min(_BOUNDS[dtype][0] for dtype in dtypes), max(_BOUNDS[dtype][1] for dtype in dtypes)
    if domain.kind == "values":
        return tuple(value for value in domain.values if value.is_integer() and low <= value <= high)
    if domain.kind == "interval":
        low, high = max(low, math.ceil(domain.low)), min(high, math.floor(domain.high))
    return tuple(map(float, range(low, high + 1))) if high - low < MOST_VALUES else None


def _tensor_size(spec: TensorSpec) -> int | None:
    """How many different entries of its batch axis an input has."""
    axes = spec.axes[1:] if spec.axes[:1] == (BATCH,) else spec.axes
    fixed = [axis for axis in axes if isinstance(axis, int)]
    return _power(finite_values(spec), math.prod(fixed)) if len(fixed) == len(axes) else None


def _power(values: tuple[float, ...] | None, elements: int) -> int | None:
    """The number of ways to fill so many elements; None if that number is not to be written out."""
    if values is None:
        return None
    if len(values) > 1 and (elements > MOST_DIGITS or elements * math.log2(len(values)) > MOST_DIGITS):
        return None
    return int(len(values) ** elements)
