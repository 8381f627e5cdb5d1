"""Bilinear algorithms with real coefficients: what training finds, before anything is an integer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from grokkit_core.errors import UsageError
from grokkit_matmul.scheme import Format, product_tensor


@dataclass(frozen=True, eq=False)
class Factors:
    """Real factors `u` "... rank m k", `v` "... rank k n", `w` "... rank m n"; leading axes count restarts."""

    u: Tensor
    v: Tensor
    w: Tensor

    def __post_init__(self) -> None:
        (*lead, m, k), n = self.u.shape, self.v.shape[-1]
        if not lead or self.v.shape != (*lead, k, n) or self.w.shape != (*lead, m, n):
            shapes = ", ".join(str(list(factor.shape)) for factor in (self.u, self.v, self.w))
            raise UsageError(
                f"factors of shapes {shapes}", expected="[..., rank, m, k], [..., rank, k, n], [..., rank, m, n]"
            )

    @property
    def format(self) -> Format:
        """The sizes of the product."""
        m, k = self.u.shape[-2:]
        return Format(m, k, self.v.shape[-1])

    @property
    def rank(self) -> int:
        """The number of multiplications."""
        return int(self.u.shape[-3])

    @property
    def is_finite(self) -> bool:
        """Whether no entry is infinite or NaN."""
        return all(bool(factor.isfinite().all()) for factor in (self.u, self.v, self.w))

    def tensor(self) -> Tensor:
        """sum_r U_r (x) V_r (x) W_r: "... m k k n m n"."""
        return torch.einsum("...rij,...rkl,...rpq->...ijklpq", self.u, self.v, self.w)

    def residual(self) -> Tensor:
        """Frobenius distance "..." from the tensor of the product; 0 for a right algorithm."""
        target = torch.from_numpy(product_tensor(self.format)).to(self.u)
        distance: Tensor = torch.linalg.vector_norm((self.tensor() - target).flatten(-6), dim=-1)
        return distance

    def select(self, index: int | Tensor) -> Factors:
        """One restart, or those that an index tensor names."""
        return Factors(self.u[index], self.v[index], self.w[index])

    def slots(self, order: Tensor) -> Factors:
        """The slots of these numbers "slot", in this order."""
        return Factors(self.u[..., order, :, :], self.v[..., order, :, :], self.w[..., order, :, :])

    def scaled(self, scales: Tensor) -> Factors:
        """The same tensor with U_r / a, V_r / b and a b W_r, for `scales` "... rank 2" of pairs (a, b)."""
        a, b = scales[..., 0, None, None], scales[..., 1, None, None]
        return Factors(self.u / a, self.v / b, self.w * (a * b))

    def equalised(self) -> Factors:
        """The same tensor with the three factors of each slot of one Frobenius norm; a slot that vanishes is left alone."""
        norms = torch.stack([torch.linalg.vector_norm(factor, dim=(-2, -1)) for factor in (self.u, self.v, self.w)], -1)
        shares = norms.prod(-1, keepdim=True).pow(1 / 3) / norms
        shares = torch.where((shares > 0) & shares.isfinite(), shares, 1.0).unsqueeze(-1).unsqueeze(-1)
        return Factors(self.u * shares[..., 0, :, :], self.v * shares[..., 1, :, :], self.w * shares[..., 2, :, :])

    def double(self) -> Factors:
        """The same values in float64."""
        return Factors(self.u.double(), self.v.double(), self.w.double())

    def named(self) -> dict[str, Tensor]:
        """The three tensors by name; `Factors(**named)` gives them back."""
        return {"u": self.u, "v": self.v, "w": self.w}


def drawn(shape: Format, rank: int, restarts: int, scale: float, generator: torch.Generator) -> Factors:
    """Restarts with independent entries `scale` N(0, 1), float64."""
    sizes = ((shape.m, shape.k), (shape.k, shape.n), (shape.m, shape.n))
    return Factors(
        *(scale * torch.randn(restarts, rank, *size, generator=generator, dtype=torch.float64) for size in sizes)
    )


def restored(tensors: Mapping[str, Tensor], like: Factors) -> Factors:
    """Copies of the tensors that `named` gave; raises `UsageError` where they are not shaped as `like`."""
    found = Factors(*(tensors[name].clone() for name in ("u", "v", "w")))
    if found.u.shape != like.u.shape or found.format != like.format:
        raise UsageError(f"factors {found.format} of shape {list(found.u.shape)}", expected=f"{list(like.u.shape)}")
    return found
