"""Larger formats from smaller ones: the Kronecker product of two schemes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from grokkit_core.cassette import Cassette
from grokkit_core.certify.algebraic import Integers, exact_einsum
from grokkit_core.errors import Incompatible, OtherNetwork, UsageError
from grokkit_core.manifest import Manifest
from grokkit_core.task import Inputs
from grokkit_core.text import printable
from grokkit_core.transfer.operator import ROUNDING, Target, TransferOperator, TransferPlan
from grokkit_matmul.scheme import Scheme, scheme_of

BILINEAR = "grokkit_matmul/bilinear"
GUARANTEE = "the same product on larger blocks; exact where both schemes are"


class Kronecker(TransferOperator):
    """Sizes and ranks multiply: <4,4,4:49> from two of <2,2,2:7>. Only the given scheme's coefficients are used."""

    def plan(self, source: Manifest, target: Target, **options: Any) -> TransferPlan:
        """`by` names the second scheme (the source itself by default); `partners` holds its manifest."""
        if source.architecture.id != BILINEAR:
            raise OtherNetwork(f"architecture {source.architecture.id}", expected=BILINEAR)
        for name in target:
            if name != "by":
                raise Incompatible(f"{source.ref} has no size '{printable(name, 60)}' that grows", expected="by=REF")
        second = dict(options.get("partners") or {}).get("by", source)
        if second.architecture.id != BILINEAR:
            raise Incompatible(f"architecture {second.architecture.id} of {second.ref}", expected=BILINEAR)
        before, by = (self.architecture_of(manifest)[1] for manifest in (source, second))
        sizes = {name: int(before[name]) for name in ("m", "k", "n", "rank")}
        after = {name: size * int(by[name]) for name, size in sizes.items()}
        plan = self.resized(source, sizes, after, fixed={"raw": False}, guarantee=GUARANTEE, tolerance=ROUNDING)
        return plan.with_partners({"by": second})

    def apply(self, source: Cassette, plan: TransferPlan) -> Mapping[str, Tensor]:
        """The product of a scheme with itself."""
        return self.combine(source, {"by": source}, plan)

    def combine(self, source: Cassette, partners: Mapping[str, Cassette], plan: TransferPlan) -> Mapping[str, Tensor]:
        """The products of all pairs of slots."""
        second = partners["by"]
        product = kronecker(scheme_of(source.tensors), scheme_of(second.tensors))
        factors = zip("UVW", (product.u, product.v, product.w), strict=True)
        if any(np.abs(factor).max() > torch.iinfo(torch.int8).max for factor in (product.u, product.v, product.w)):
            raise Incompatible(f"coefficients of the product of {source.manifest.ref}", expected="at most 127 in size")
        return {name: torch.from_numpy(factor.astype(np.int8)) for name, factor in factors}

    def lift(self, inputs: Inputs, plan: TransferPlan) -> Inputs:
        """Every entry in the corner of a block of zeros."""
        factors = _blocks(plan)
        sizes = {"a": (factors["m"], factors["k"]), "b": (factors["k"], factors["n"])}
        if isinstance(inputs, Tensor):
            raise UsageError("one input", expected="a and b")
        return {name: _spaced(tensor, sizes[name]) for name, tensor in inputs.items()}

    def project(self, outputs: Tensor, plan: TransferPlan) -> Tensor:
        """The corners of the blocks."""
        factors = _blocks(plan)
        return outputs[..., :: factors["m"], :: factors["n"]]


def kronecker(first: Scheme, second: Scheme) -> Scheme:
    """All pairs of slots: entry (i m' + k, j k' + l) of a factor is the product of entries (i, j) and (k, l)."""
    pairs = zip((first.u, first.v, first.w), (second.u, second.v, second.w), strict=True)
    return Scheme(*(_product(left, right) for left, right in pairs))


def _product(left: Integers, right: Integers) -> Integers:
    """Factors "rank rows columns" of all pairs."""
    (r, i, j), (s, k, n) = left.shape, right.shape
    return exact_einsum("rij,skl->rsikjl", left, right).reshape(r * s, i * k, j * n)


def _blocks(plan: TransferPlan) -> dict[str, int]:
    return {name: plan.after[name] // plan.before[name] for name in plan.before}


def _spaced(tensor: Tensor, block: tuple[int, int]) -> Tensor:
    """ "... i j" to "... (i block) (j block)", zeros beside every entry."""
    rows, columns = tensor.shape[-2:]
    result = tensor.new_zeros(*tensor.shape[:-2], rows * block[0], columns * block[1])
    result[..., :: block[0], :: block[1]] = tensor
    return result
