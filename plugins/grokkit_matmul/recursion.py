"""Block recursion: a bilinear scheme carried out on blocks of any matrices, level by level, down to `torch.mm`.

Sizes that a format does not divide are peeled: the scheme works on the largest part that it does divide, and thin
ordinary products do the rest (dynamic peeling, Huss-Lederman et al. 1996), anew at every level.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from grokkit_core.certify.algebraic import Integers
from grokkit_matmul.buffers import Buffers
from grokkit_matmul.finite import Watch, is_finite
from grokkit_matmul.scheme import Format, Scheme
from grokkit_matmul.winograd import FUSED, UNFUSED, WATCHED, WITNESSES, Step


class Recursion(ABC):
    """Multiplies into a given matrix with a number of levels; every level divides the sizes by those of the format."""

    def __init__(self, shape: Format) -> None:
        self.format = shape
        self.buffers = Buffers()

    def multiply(self, a: Tensor, b: Tensor, out: Tensor, levels: int, depth: int = 0) -> None:
        """`out` "m n" becomes `a` "m k" times `b` "k n"; any strides, no overlap, autograd off.

        `depth` counts the levels above; buffers belong to it, so that one level and the upper of two share theirs.
        """
        (m, k), n = a.shape, b.shape[1]
        if levels < 1 or m < self.format.m or k < self.format.k or n < self.format.n:
            torch.mm(a, b, out=out)
            return
        rows, inner, columns = m - m % self.format.m, k - k % self.format.k, n - n % self.format.n
        core = out[:rows, :columns]
        self._level(a[:rows, :inner], b[:inner, :columns], core, levels, depth)
        if inner < k:
            core.addmm_(a[:rows, inner:], b[inner:, :columns])
        if columns < n:
            torch.mm(a[:rows], b[:, columns:], out=out[:rows, columns:])
        if rows < m:
            torch.mm(a[rows:], b, out=out[rows:])

    def is_finite(self, out: Tensor) -> bool:
        """Whether the product that `multiply` has just written met no NaN and no infinity on its way."""
        return is_finite([out])

    @abstractmethod
    def _level(self, a: Tensor, b: Tensor, out: Tensor, levels: int, depth: int) -> None:
        """One level on sizes that the format divides."""


class Winograd(Recursion):
    """The schedule of `winograd`; only for schemes that it is proved to run."""

    def __init__(self) -> None:
        super().__init__(Format(2, 2, 2))

    def is_finite(self, out: Tensor) -> bool:
        """By two quadrants that tell of all; on a GPU by what was asked before its last product."""
        watch, self.buffers.watch = self.buffers.watch, None
        if watch is not None:
            return watch.finite
        blocks = _Quadrants(C=out[: out.shape[0] // 2 * 2, : out.shape[1] // 2 * 2])
        return is_finite([blocks[name] for name in WITNESSES])

    def _level(self, a: Tensor, b: Tensor, out: Tensor, levels: int, depth: int) -> None:
        blocks, last = _Quadrants(A=a, B=b, C=out), levels == 1
        for name, like, slot in (("S", "A11", 0), ("T", "B11", 1), ("V", "B11", 2) if last else ("P", "C11", 2)):
            height, width = blocks.shape(like)
            blocks[name] = self.buffers.take((depth, slot), (height, width), a)
        for step in FUSED if last else UNFUSED:
            self._run(step, blocks, levels - 1, depth + 1)

    def _run(self, step: Step, blocks: Mapping[str, Tensor], levels: int, depth: int) -> None:
        if step.op == "watch":
            if depth == 1 and blocks["C11"].is_cuda:
                self.buffers.watch = Watch([blocks[name] for name in WATCHED])
            return
        left, right, out = blocks[step.left], blocks[step.right] if step.right else None, blocks[step.out]
        if right is None:
            out.copy_(left)
        elif step.op == "sum":
            torch.add(left, right, alpha=step.sign, out=out)
        elif step.op == "accumulate":
            out.addmm_(left, right, alpha=step.sign)
        else:
            self.multiply(left, right, out, levels, depth)


class Blockwise(Recursion):
    """Any scheme, its coefficients read one by one; slower than a schedule that shares sums."""

    def __init__(self, scheme: Scheme) -> None:
        super().__init__(scheme.format)
        self.scheme = scheme

    def _level(self, a: Tensor, b: Tensor, out: Tensor, levels: int, depth: int) -> None:
        left, right = _blocks(a, self.format.m, self.format.k), _blocks(b, self.format.k, self.format.n)
        target = _Target(_blocks(out, self.format.m, self.format.n))
        for u, v, w in zip(self.scheme.u, self.scheme.v, self.scheme.w, strict=True):
            if not (u.any() and v.any() and w.any()):
                continue
            s, t = self._sum(left, u, (depth, 0)), self._sum(right, v, (depth, 1))
            if levels == 1 and target.accumulate(s, t, w):
                continue
            product = self.buffers.take((depth, 2), (s.shape[0], t.shape[1]), s)
            self.multiply(s, t, product, levels - 1, depth + 1)
            target.spread(product, w)
        target.finish()

    def _sum(self, blocks: list[Tensor], weights: Integers, slot: tuple[int, int]) -> Tensor:
        """The weighted sum of some blocks; a block itself where it is only that one."""
        (first, scale), *rest = [(block, int(x)) for block, x in zip(blocks, weights.flat, strict=True) if x]
        if scale == 1 and not rest:
            return first
        total = self.buffers.take(slot, (first.shape[0], first.shape[1]), first)
        torch.mul(first, scale, out=total)
        for block, factor in rest:
            total.add_(block, alpha=factor)
        return total


class _Target:
    """The blocks of a result, which hold anything until they are first written."""

    def __init__(self, blocks: list[Tensor]) -> None:
        self.blocks = blocks
        self.written: set[int] = set()

    def accumulate(self, left: Tensor, right: Tensor, weights: Integers) -> bool:
        """Add a product while it is computed, if it goes to one block only that has been written."""
        places = np.flatnonzero(weights)
        if len(places) != 1 or int(places[0]) not in self.written:
            return False
        index = int(places[0])
        self.blocks[index].addmm_(left, right, alpha=int(weights.flat[index]))
        return True

    def spread(self, product: Tensor, weights: Integers) -> None:
        """Add a product to every block that it has a weight in."""
        for index in map(int, np.flatnonzero(weights)):
            factor = int(weights.flat[index])
            if index in self.written:
                self.blocks[index].add_(product, alpha=factor)
            else:
                torch.mul(product, factor, out=self.blocks[index])
                self.written.add(index)

    def finish(self) -> None:
        """Zero the blocks that no product goes to."""
        for index in set(range(len(self.blocks))) - self.written:
            self.blocks[index].zero_()


class _Quadrants(dict[str, Tensor]):
    """Quadrants such as A12 of matrices with even sizes, cut when they are first needed."""

    def __init__(self, **matrices: Tensor) -> None:
        super().__init__()
        self._matrices = matrices

    def shape(self, name: str) -> tuple[int, int]:
        """Rows and columns of a quadrant."""
        rows, columns = self._matrices[name[0]].shape
        return rows // 2, columns // 2

    def __missing__(self, name: str) -> Tensor:
        matrix = self._matrices[name[0]]
        height, width = self.shape(name)
        top, left = height * (name[1] == "2"), width * (name[2] == "2")
        block = self[name] = matrix[top : top + height, left : left + width]
        return block


def _blocks(matrix: Tensor, rows: int, columns: int) -> list[Tensor]:
    """Equal blocks, row by row; views."""
    height, width = matrix.shape[0] // rows, matrix.shape[1] // columns
    return [
        matrix[i * height : (i + 1) * height, j * width : (j + 1) * width] for i in range(rows) for j in range(columns)
    ]
