"""Gradient descent on samples: the slots of a bilinear network learn from random matrices and their products.

The network is m_r = <U_r, A> <V_r, B>, C = sum_r m_r W_r, and its gradient is written out, so that several restarts are
one stack of matrix products. The loss is the mean squared error of C; AdamW is that of Loshchilov and Hutter 2019,
Decoupled weight decay regularization, algorithm 2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from grokkit_core.errors import UsageError
from grokkit_core.streams import stream
from grokkit_core.training.recipe import State
from grokkit_matmul.factors import Factors
from grokkit_matmul.scheme import Format

INITIAL_SCALE = 0.5
LAST_RATE = 1e-5
DECAY = 1e-4
BETAS, EPSILON = (0.9, 0.999), 1e-8
"""Of AdamW, as published."""


@dataclass(frozen=True)
class Phase:
    """A stretch of training: so many steps with the learning rate on a cosine from `rate` to 1e-5, and weight decay."""

    steps: int
    rate: float
    decay: float


class Descent:
    """A stack of restarts in progress, float32; `state()` is all that a bit-equal resume needs.

    With as many `slots` as the rank it is one phase of `steps`. With more, a second phase of as many steps at half the
    rate and without decay follows, and before it every restart drops the slots of the least product of norms.
    """

    def __init__(
        self,
        shape: Format,
        rank: int,
        *,
        slots: int | None = None,
        batch: int = 32,
        steps: int = 3000,
        lr: float = 0.02,
        seed: int = 0,
        restarts: int = 4,
    ) -> None:
        slots = rank if slots is None else slots
        if slots < rank or min(rank, batch, steps, restarts) < 1 or not lr > 0:
            raise UsageError(
                f"rank {rank}, {slots} slots, batch {batch}, {steps} steps, lr {lr:g}, {restarts} restarts",
                expected="positive values and at least as many slots as the rank",
            )
        self.shape, self.rank, self.batch = shape, rank, batch
        self.phases = (Phase(steps, lr, DECAY),) + ((Phase(steps, lr / 2, 0.0),) if slots > rank else ())
        self.step_count = 0
        self.generator = stream(seed, "matmul", "descent")
        self._sizes = [shape.m * shape.k, shape.k * shape.n, shape.m * shape.n]
        draw = torch.randn(restarts, slots, sum(self._sizes), generator=self.generator)
        self._load(INITIAL_SCALE * draw, torch.zeros_like(draw), torch.zeros_like(draw))
        self.losses = torch.full((restarts,), torch.nan)
        """The loss "restart" of the last step."""

    def _load(self, parameters: Tensor, mean: Tensor, square: Tensor) -> None:
        """Rows of one slot's U, V and W side by side: `parameters` and both moments "restart slot entry"."""
        self.parameters, self.mean, self.square = parameters, mean, square

    @property
    def steps(self) -> int:
        """Steps of all phases."""
        return sum(phase.steps for phase in self.phases)

    @property
    def done(self) -> bool:
        """Whether all steps are made."""
        return self.step_count >= self.steps

    @property
    def factors(self) -> Factors:
        """The factors "restart slot m k", etc., as they are now, float64."""
        m, k, n = self.shape.m, self.shape.k, self.shape.n
        parts = torch.split(self.parameters.double(), self._sizes, -1)
        lead, sizes = self.parameters.shape[:-1], ((m, k), (k, n), (m, n))
        return Factors(*(part.reshape(*lead, *size) for part, size in zip(parts, sizes, strict=True)))

    def step(self) -> None:
        """One step of every restart, on a batch of fresh samples of its own."""
        number, at = divmod(self.step_count, self.phases[0].steps)
        if number == 1 and at == 0:
            self._prune()
        phase = self.phases[number]
        rate = LAST_RATE + (phase.rate - LAST_RATE) * (1 + math.cos(math.pi * at / phase.steps)) / 2
        self._update(self._gradient(), rate, phase.decay, at + 1)
        self.step_count += 1

    def run(self) -> Factors:
        """Make the steps that are left; the factors "restart rank ...", exact or not."""
        while not self.done:
            self.step()
        return self.factors

    def _gradient(self) -> Tensor:
        """The gradient "restart slot entry" on fresh matrices with entries N(0, 1); keeps the losses."""
        lead, (m, k, n) = (len(self.parameters), self.batch), (self.shape.m, self.shape.k, self.shape.n)
        draw = torch.randn(*lead, m * k + k * n, generator=self.generator)
        left, right = torch.split(draw, self._sizes[:2], -1)
        target = (left.reshape(*lead, m, k) @ right.reshape(*lead, k, n)).flatten(-2)
        u, v, w = torch.split(self.parameters, self._sizes, -1)
        on_left, on_right = left @ u.mT, right @ v.mT
        products = on_left * on_right
        error = torch.baddbmm(target, products, w, beta=-1)
        self.losses = error.square().mean((-2, -1))
        error *= 2 / (self.batch * m * n)
        back = error @ w.mT
        parts = ((back * on_right).mT @ left, (back * on_left).mT @ right, products.mT @ error)
        return torch.cat(parts, -1)

    def _update(self, gradient: Tensor, rate: float, decay: float, count: int) -> None:
        """One step of AdamW, the `count`-th of its phase."""
        self.mean.lerp_(gradient, 1 - BETAS[0])
        self.square.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
        first, second = 1 - BETAS[0] ** count, 1 - BETAS[1] ** count
        scale = self.square.sqrt().div_(math.sqrt(second)).add_(EPSILON)
        self.parameters.mul_(1 - rate * decay).addcdiv_(self.mean, scale, value=-rate / first)

    def _prune(self) -> None:
        """Keep, in every restart, the slots of the largest products of norms, in their order; the moments start anew."""
        norms = [torch.linalg.vector_norm(part, dim=-1) for part in torch.split(self.parameters, self._sizes, -1)]
        kept = (norms[0] * norms[1] * norms[2]).topk(self.rank, -1).indices.sort(-1).values
        parameters = self.parameters.gather(1, kept.unsqueeze(-1).expand(-1, -1, self.parameters.shape[-1]))
        self._load(parameters, torch.zeros_like(parameters), torch.zeros_like(parameters))

    def state(self) -> State:
        """What `restore` goes on from: parameters, both moments, the generator and the number of steps."""
        tensors = {"parameters": self.parameters, "mean": self.mean, "square": self.square, "losses": self.losses}
        copies = {name: tensor.clone() for name, tensor in tensors.items()}
        return State({**copies, "generator": self.generator.get_state()}, {"step_count": self.step_count})

    def restore(self, state: State) -> None:
        """Go on from a saved state."""
        kept = {name: tensor.clone() for name, tensor in state.tensors.items()}
        self._load(kept["parameters"], kept["mean"], kept["square"])
        self.losses = kept["losses"]
        self.generator.set_state(kept["generator"])
        self.step_count = int(state.values["step_count"])
