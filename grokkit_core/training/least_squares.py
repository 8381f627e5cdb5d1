"""Levenberg-Marquardt: for few parameters and residuals that can vanish, where the last digits count."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from grokkit_core.training.lanes import Lane
from grokkit_core.training.recipe import State

TRIES = 10
"""Dampings that one iteration tries before nothing moves any more."""

DAMPING, LEAST_DAMPING, MOST_DAMPING = 1e-3, 1e-15, 1e12
EASED, TIGHTENED = 5.0, 4.0
LEAST_DIAGONAL = 1e-12


class LeastSquaresLane(Lane):
    """One seed whose `weights`, one vector, are fitted to residuals. A subclass sets the weights and says what is left.

    Damping by the diagonal of J'J (Marquardt 1963), so that the units of the weights do not matter. The subclass's `step`
    calls `iterate`; what it keeps beside weights and damping it adds to `state`.
    """

    weights: Tensor
    damping: float = DAMPING

    @abstractmethod
    def residuals(self, weights: Tensor) -> Tensor:
        """What shall vanish: a vector of more entries than `weights` has, on its device."""

    @abstractmethod
    def jacobian(self, weights: Tensor) -> Tensor:
        """The derivative "residual weight" of the residuals; see `grokkit_core.jacobian` where no closed form is at hand."""

    def iterate(self) -> tuple[float, bool]:
        """One accepted step: the mean square of the residuals after it, and whether there was one.

        A step is accepted where the sum of squares falls; there is none where rounding admits no further one.
        """
        residuals = self.residuals(self.weights)
        jacobian = self.jacobian(self.weights)
        normal, slope = jacobian.T @ jacobian, jacobian.T @ residuals
        scale = torch.diag(normal.diagonal().clamp_min(LEAST_DIAGONAL))
        before = residuals.square().sum()
        for _ in range(TRIES):
            candidate, trouble = torch.linalg.solve_ex(normal + self.damping * scale, slope)
            trial = self.weights - candidate
            after = self.residuals(trial).square().sum()
            if trouble == 0 and after < before:
                self.weights, self.damping = trial, max(self.damping / EASED, LEAST_DAMPING)
                return (after / residuals.numel()).item(), True
            self.damping = min(TIGHTENED * self.damping, MOST_DAMPING)
        return (before / residuals.numel()).item(), False

    def errors(self) -> Tensor:
        """The standard error of each weight, from the residuals that are left and the curvature there.

        H^-1 J' diag(r^2) J H^-1 with H = J'J, times n / (n - p): residuals may differ in variance (White 1980). Infinite
        where some combination of weights is not determined.
        """
        residuals, jacobian = self.residuals(self.weights), self.jacobian(self.weights)
        inverse, trouble = torch.linalg.inv_ex(jacobian.T @ jacobian)
        if trouble != 0:
            return torch.full_like(self.weights, torch.inf)
        influence = inverse @ (jacobian * residuals.unsqueeze(1)).T
        freedom = max(1, len(residuals) - len(self.weights))
        variance: Tensor = influence.square().sum(1) * (len(residuals) / freedom)
        return variance.sqrt()

    def state(self) -> State:
        """Weights and damping."""
        return State({"weights": self.weights}, {"damping": self.damping})

    def restore(self, state: State) -> None:
        """Weights and damping as they were."""
        self.weights, self.damping = state.tensors["weights"].clone(), float(state.values["damping"])
