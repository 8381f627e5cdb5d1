"""The published cyclotron network, sampler and optimiser as plain loops: slow, and simple enough to be judged by eye.

Written from a description of the public repository grisuno/supertopo3, not from the plugin's code; tests and benchmarks
compare the plugin with it. Every oddity of the published program is kept: all 15 states are encoded and 14 results
dropped, the code is added at full strength to every corner, indices are truncated towards zero, and the angular mix
reads the (radial, angular) grid as (angular, radial).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

EMBEDDING = 12
CODE = 3
STATES = 16
DT = 0.05


class LoopNetwork:
    """The published forward pass on an `angular` x `radial` grid, one state, one sample and one corner at a time.

    `weights` are those of a `TopoBrain.state_dict()`; they are copied, and `gradients` differentiates by them.
    """

    rounding: Callable[[float], int] = staticmethod(math.trunc)

    def __init__(self, weights: Mapping[str, Tensor], angular: int, radial: int) -> None:
        self.angular, self.radial, self.nodes = angular, radial, angular * radial
        self.weights = {name: tensor.detach().clone().requires_grad_() for name, tensor in weights.items()}
        self.dtype = self.weights["angular_logits"].dtype

    def __call__(self, states: Tensor) -> Tensor:
        """The next state "batch 4" from windows "batch 15 4"."""
        codes = [self.encode(states[:, t]) for t in range(states.shape[1])]
        grids = self.scatter(codes[-1])
        mixed = torch.matmul(self.mixing(), grids)
        nodes = self._linear("node_out", torch.tanh(self._linear("node_in", mixed)))
        flat = nodes.reshape(len(states), self.nodes * EMBEDDING)
        return self._linear("readout_out", torch.tanh(self._linear("readout_in", flat)))

    def encode(self, state: Tensor) -> Tensor:
        """The code (logR, phi, vnorm) "batch 3" of one state "batch 4"."""
        hidden = torch.tanh(self._linear("encoder.0", state))
        return self._linear("encoder.4", torch.tanh(self._linear("encoder.2", hidden)))

    def scatter(self, codes: Tensor) -> Tensor:
        """What each node receives from codes "batch 3": "batch node 12"."""
        grids = torch.zeros(len(codes), self.nodes, EMBEDDING, dtype=self.dtype)
        radii, angles = self.positions(codes)
        for b in range(len(codes)):
            for node, weight in self.corners(radii[b].item(), angles[b].item()):
                seen = torch.cat((codes[b], torch.tensor([weight], dtype=self.dtype)))
                grids[b, node] += nn.functional.pad(seen, (0, EMBEDDING - CODE - 1))
        return grids

    def positions(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Where codes "batch 3" lie on the grid, outwards and around: two tensors "batch"."""
        return torch.sigmoid(codes[:, 0]) * (self.radial - 1), (codes[:, 1] + math.pi) / (2 * math.pi) * self.angular

    def corners(self, r: float, p: float) -> list[tuple[int, float]]:
        """The flat index and the weight of every corner that counts."""
        r0, p0 = math.trunc(r), self.rounding(p)
        dr, dp = r - r0, p - p0
        found = []
        for i in (0, 1):
            for j in (0, 1):
                weight = (dr if i else 1 - dr) * (dp if j else 1 - dp)
                if weight > 0:
                    ring = min(r0 + i, self.radial - 1)
                    found.append((ring * self.angular + (p0 + j) % self.angular, weight))
        return found

    def mixing(self) -> Tensor:
        """The matrix over nodes, "node node"."""
        around = self.neighbours(self.weights["angular_logits"])
        outwards = self.neighbours(self.weights["radial_logits"])
        return (
            self._identity(self.nodes)
            + torch.kron(around, self._identity(self.radial))
            + torch.kron(outwards, self._identity(self.angular))
        )

    def neighbours(self, logits: Tensor) -> Tensor:
        """The ring of one direction, "n n": softmax weights of both neighbours, each row divided by its sum."""
        n = len(logits)
        shares = torch.softmax(logits, 0)
        absent = torch.zeros((), dtype=self.dtype)
        rows = []
        for i in range(n):
            linked = {(i - 1) % n, (i + 1) % n}
            row = torch.stack([shares[j] if j in linked else absent for j in range(n)])
            rows.append(row / torch.clamp(row.sum(), min=1e-6))
        return torch.stack(rows)

    def gradients(self, loss: Tensor) -> dict[str, Tensor]:
        """The gradient of a loss by name of the weight; zeros where a weight does not enter."""
        found = torch.autograd.grad(loss, list(self.weights.values()), allow_unused=True)
        return {
            name: torch.zeros_like(weight) if gradient is None else gradient
            for (name, weight), gradient in zip(self.weights.items(), found, strict=True)
        }

    def _linear(self, name: str, values: Tensor) -> Tensor:
        return nn.functional.linear(values, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def _identity(self, n: int) -> Tensor:
        return torch.eye(n, dtype=self.dtype)


class FloorLoopNetwork(LoopNetwork):
    """A mutant for controls: angular indices are rounded down instead of towards zero."""

    rounding = staticmethod(math.floor)


class LoopOrthogonalAdamW:
    """AdamW with the published projection, tensor by tensor, in the order in which the method is told."""

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        self.tensors, self.count = list(tensors), 0
        self.means = [torch.zeros_like(tensor) for tensor in self.tensors]
        self.squares = [torch.zeros_like(tensor) for tensor in self.tensors]

    @torch.no_grad()
    def step(self, gradients: Iterable[Tensor], lr: float) -> None:
        """One update with these gradients."""
        self.count += 1
        for p, g, mean, square in zip(self.tensors, gradients, self.means, self.squares, strict=True):
            if torch.linalg.vector_norm(g) > 0.1 * torch.linalg.vector_norm(p):
                g = g - torch.sum(g * p) / torch.clamp(torch.sum(p * p), min=1e-8) * p
            p.mul_(1 - lr * 1e-4)
            mean.mul_(0.9).add_(0.1 * g)
            square.mul_(0.99).add_(0.01 * g * g)
            unbiased_mean = mean / (1 - 0.9**self.count)
            unbiased_square = square / (1 - 0.99**self.count)
            p.sub_(lr * unbiased_mean / (torch.sqrt(unbiased_square) + 1e-8))


def loop_training(
    network: LoopNetwork, optimizer: LoopOrthogonalAdamW, batches: Iterable[tuple[Tensor, Tensor]], lr: float
) -> None:
    """One step of mean squared error a batch (states, target)."""
    for states, target in batches:
        loss = torch.mean((network(states) - target) ** 2)
        optimizer.step(network.gradients(loss).values(), lr)


def loop_state(
    draw: Sequence[float], omega: float, step: int, dt: float = DT, start: float = 0.0
) -> tuple[float, float, float, float]:
    """The state (X, Y, VX, VY) of the orbit drawn as (x0, y0, vx0, vy0), in float64."""
    x0, y0, vx0, vy0 = draw
    speed = math.sqrt(vx0 * vx0 + vy0 * vy0)
    radius = speed / omega
    phase = start + omega * step * dt
    sine, cosine = math.sin(phase), math.cos(phase)
    centre_x, centre_y = x0 + vy0 / omega, y0 - vx0 / omega
    return centre_x - radius * sine, centre_y + radius * cosine, -speed * cosine, -speed * sine


def loop_orbits(
    draws: Sequence[Sequence[float]], omega: float, dt: float = DT, starts: Sequence[float] | None = None
) -> Tensor:
    """The orbits "n 16 4" of many draws, in float64."""
    phases = starts or [0.0] * len(draws)
    return torch.tensor(
        [
            [loop_state(draw, omega, step, dt, start) for step in range(STATES)]
            for draw, start in zip(draws, phases, strict=True)
        ],
        dtype=torch.float64,
    )
