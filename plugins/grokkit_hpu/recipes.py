"""How the propagators and the Fourier neural operator are trained."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from grokkit_core.errors import UsageError
from grokkit_core.streams import stream
from grokkit_core.task import Batch, Task
from grokkit_core.training.gradient import GradientRecipe, epochs
from grokkit_core.training.quasi_newton import FullBatchRecipe
from grokkit_core.training.recipe import Recipe
from grokkit_hpu.law import BAND, Propagator
from grokkit_hpu.model import SplitStep
from grokkit_hpu.plugin import POTENTIAL_GRID

VALIDATION_FIELDS = 16


def fields(task: Task, settings: Mapping[str, Any], count: int, seed: int, purpose: str) -> Batch:
    """Random fields of the recipe's grid and band with what they become."""
    where = {"grid": settings["grid"], "band": settings.get("band", BAND)}
    return task.sample(count, generator=stream(seed, purpose), **where)


def common(task: Task, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The config fields that every propagator has."""
    assert isinstance(task, Propagator)
    return {"dt": task.dt, "grid": settings["grid"], "band": settings.get("band", BAND)}


def check_variant(task: Task, recipe: Recipe, *variants: str) -> None:
    """Raise `UsageError` for a law that the recipe's network cannot follow."""
    if task.parameters["variant"] not in variants:
        raise UsageError(
            f"recipe {recipe.spec.id} for variant={task.parameters['variant']}",
            expected=f"variant={' or '.join(variants)}",
        )


class _Fitted(FullBatchRecipe):
    """Full-batch L-BFGS on fields of one grid."""

    variant = "free"
    kept_pairs = 30

    def config(self, task: Task, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        """Time step, grid and band."""
        check_variant(task, self, self.variant)
        return common(task, parameters)

    def data(self, task: Task, settings: Mapping[str, Any], seed: int) -> Batch:
        """White fields."""
        return fields(task, settings, int(settings["fields"]), seed, "train")

    def validation(self, task: Task, parameters: Mapping[str, Any], seed: int) -> Batch:
        """Other fields on the same grid."""
        return fields(task, parameters, VALIDATION_FIELDS, seed, "validation")

    def iterations(self, settings: Mapping[str, Any]) -> int:
        """As the setting says."""
        return int(settings["iterations"])

    def history(self, settings: Mapping[str, Any]) -> int:
        """30, or 50 where the problem is harder."""
        return self.kept_pairs


class PhaseTableRecipe(_Fitted):
    """`hpu/phase-table`."""

    def summary(self, task: Task, parameters: Mapping[str, Any]) -> str:
        """One line for the manifest."""
        return f"free Schroedinger step of {task.parameters['dt']:g} on a torus: one phase a mode, up to |k| = {parameters['band']}"


class DispersionRecipe(_Fitted):
    """`hpu/dispersion`."""

    def summary(self, task: Task, parameters: Mapping[str, Any]) -> str:
        """One line for the manifest."""
        return f"free Schroedinger step of {task.parameters['dt']:g} on a torus: phases as a polynomial of |k|^2"


class SplitStepRecipe(_Fitted):
    """`hpu/split-step`: on 32 x 32 points, since on 16 a wrong potential (by 2 %) fits best."""

    variant = "potential"
    kept_pairs = 50

    def config(self, task: Task, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        """Time step, grid, band and integrator."""
        own = {"order": parameters["order"], "substeps": parameters["substeps"], "n_min": POTENTIAL_GRID}
        return {**super().config(task, parameters), **own}

    def summary(self, task: Task, parameters: Mapping[str, Any]) -> str:
        """One line for the manifest."""
        return f"Schroedinger step of {task.parameters['dt']:g} on a torus: a potential of 49 modes and a slope, learned inside a split step"

    def finish(
        self, task: Task, parameters: Mapping[str, Any], config: Mapping[str, Any], module: nn.Module
    ) -> tuple[Mapping[str, Any], Mapping[str, Tensor]]:
        """The potential is stored as the real function that the network uses: its Hermitian part."""
        assert isinstance(module, SplitStep)
        table = torch.view_as_real(module.symmetric().detach()).to(module.potential.dtype)
        return config, {**module.state_dict(), "potential": table.contiguous()}


class _Descent(GradientRecipe):
    """Adam with half a cosine on batches of 16 of a fixed set of fields."""

    rate, last_rate = 3e-2, 3e-6
    batch = 16

    def optimizer(self, parameters: Sequence[nn.Parameter], settings: Mapping[str, Any]) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(parameters, lr=self.rate)

    def steps(self, settings: Mapping[str, Any]) -> int:
        """As the setting says."""
        return int(settings["steps"])

    def batches(self, task: Task, settings: Mapping[str, Any], seed: int) -> Callable[[int], Batch]:
        """The training fields, reshuffled every epoch."""
        return epochs(fields(task, settings, int(settings["fields"]), seed, "train"), self.batch, seed)

    def evaluate_every(self, settings: Mapping[str, Any]) -> int:
        """30 rows of a curve."""
        return max(1, int(settings["steps"]) // 30)

    def learning_rate(self, step: int, settings: Mapping[str, Any]) -> float:
        """Half a cosine from the first to the last rate."""
        done = step / self.steps(settings)
        return self.last_rate + (self.rate - self.last_rate) * (1 + math.cos(math.pi * done)) / 2

    def validation(self, task: Task, parameters: Mapping[str, Any], seed: int) -> Batch:
        """Other fields on the same grid."""
        return fields(task, parameters, VALIDATION_FIELDS, seed, "validation")


class AdamRecipe(_Descent):
    """`hpu/adam`: the phase table by gradient descent."""

    def config(self, task: Task, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        """Time step, grid and band."""
        check_variant(task, self, "free")
        return common(task, parameters)


class FnoRecipe(_Descent):
    """`hpu/fno`: the mean relative L2 error of a small Fourier neural operator."""

    rate, last_rate = 4e-3, 0.0

    def config(self, task: Task, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        """The default network, for either variant."""
        check_variant(task, self, "free", "potential")
        return {}

    def loss(self, task: Task, prediction: Tensor, target: Tensor) -> Tensor:
        """The mean relative L2 error."""
        difference = (prediction - target).abs().square().sum((-2, -1)).sqrt()
        return (difference / target.abs().square().sum((-2, -1)).sqrt()).mean()
