"""Levenberg-Marquardt as a lane: it arrives, says when nothing moves, knows its errors, and resumes to the bit."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from grokkit_core.jacobian import rowwise_jacobian
from grokkit_core.streams import stream
from grokkit_core.training.least_squares import LeastSquaresLane

TRUE = torch.tensor([1.5, -0.7, 0.3], dtype=torch.float64)
STEPS = 60


class Decay(LeastSquaresLane):
    """y = p0 exp(p1 x) + p2 on 200 points, with noise whose size may grow with x."""

    def __init__(self, noise: float = 0.0, seed: int = 0, *, growing: bool = False) -> None:
        self.x = torch.linspace(0, 4, 200, dtype=torch.float64)
        size = noise * (self.x if growing else torch.ones_like(self.x))
        self.y = self.model(TRUE) + size * torch.randn(200, generator=stream(seed, "noise"), dtype=torch.float64)
        self.weights = torch.tensor([1.0, -0.1, 0.0], dtype=torch.float64)

    def model(self, weights: Tensor) -> Tensor:
        return weights[0] * torch.exp(weights[1] * self.x) + weights[2]

    def residuals(self, weights: Tensor) -> Tensor:
        return self.model(weights) - self.y

    def jacobian(self, weights: Tensor) -> Tensor:
        decay = torch.exp(weights[1] * self.x)
        return torch.stack((decay, weights[0] * self.x * decay, torch.ones_like(decay)), 1)

    def step(self) -> tuple[float, bool]:
        error, moved = self.iterate()
        self.finished = not moved
        return error, True

    def network(self) -> nn.Module:
        return nn.Identity()


def solve(lane: Decay) -> Decay:
    for _ in range(STEPS):
        if not lane.finished:
            lane.step()
    return lane


def test_a_fit_without_noise_arrives_and_says_that_nothing_moves_any_more() -> None:
    lane = solve(Decay())
    assert lane.finished
    assert float((lane.weights - TRUE).abs().max()) < 1e-13


def test_no_step_raises_the_sum_of_squares() -> None:
    lane, last = Decay(noise=0.1), math.inf
    while not lane.finished:
        error, _ = lane.step()
        assert error <= last
        last = error


def test_a_wrong_jacobian_does_not_arrive() -> None:
    class Wrong(Decay):
        def jacobian(self, weights: Tensor) -> Tensor:
            return super().jacobian(weights).flip(1)

    assert float((solve(Wrong()).weights - TRUE).abs().max()) > 0.1


@pytest.mark.parametrize("growing", [False, True], ids=["even noise", "growing noise"])
def test_standard_errors_are_those_that_other_noise_shows(growing: bool) -> None:
    fits = [solve(Decay(0.05, seed, growing=growing)) for seed in range(200)]
    seen = torch.stack([fit.weights for fit in fits]).std(0)
    stated = torch.stack([fit.errors() for fit in fits]).mean(0)
    assert torch.allclose(stated, seen, rtol=0.2)


def test_a_weight_that_nothing_determines_has_an_infinite_error() -> None:
    class Idle(Decay):
        def jacobian(self, weights: Tensor) -> Tensor:
            return torch.cat((super().jacobian(weights)[:, :2], torch.zeros(200, 1, dtype=torch.float64)), 1)

    assert bool(Idle().errors().isinf().all())


def test_a_resumed_fit_is_equal_to_the_bit() -> None:
    lane, other = Decay(noise=0.1), Decay(noise=0.1)
    for _ in range(4):
        lane.step()
    other.restore(lane.state())
    assert torch.equal(solve(lane).weights, solve(other).weights)


def test_the_rowwise_jacobian_is_that_of_every_row() -> None:
    rows = torch.randn(5, 3, generator=stream(0, "rows"), dtype=torch.float64)

    def function(inputs: Tensor) -> Tensor:
        return torch.stack((inputs[:, 0] * inputs[:, 1], torch.sin(inputs[:, 2]), inputs[:, 0] ** 3), 1)

    with torch.inference_mode():
        found = rowwise_jacobian(function, rows)
    for index, (a, b, c) in enumerate(rows.tolist()):
        expected = torch.tensor([[b, a, 0], [0, 0, math.cos(c)], [3 * a * a, 0, 0]], dtype=torch.float64)
        assert torch.allclose(found[index], expected, rtol=1e-14)
