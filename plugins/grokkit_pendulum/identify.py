"""The law from pairs of states: Levenberg-Marquardt through the integrator, then coefficients rounded where they are known."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from grokkit_core.jacobian import rowwise_jacobian
from grokkit_core.streams import stream
from grokkit_core.task import Batch, Task, tensors_of
from grokkit_core.training.gradient import VALIDATION_SAMPLES
from grokkit_core.training.lanes import LanesRun
from grokkit_core.training.least_squares import DAMPING, LeastSquaresLane
from grokkit_core.training.recipe import Recipe, Run, State
from grokkit_pendulum.integrators import rk4
from grokkit_pendulum.lagrangian import DECIMALS, SIZES, Lagrangian, LagrangianFlow
from grokkit_pendulum.law import Pendulum, scaled

ITERATIONS = 200
ARRIVED = 0.1
"""Restart rule: a start that ends above this share of persistence's error is discarded."""

SURE = 5.0
"""Standard errors within which a coefficient may lie from its rounded value."""

CHANCE = 0.05
"""Share of the grid's spacing that these may span: a coefficient known no better would be rounded by chance."""

FINEST = 1e-6
"""Least standard error that is believed: what the steps of the integrator, which are no noise, leave in a coefficient."""

SPREAD = {"upper": (0.05,) * 4, "mixed": (0.1,) * 4, "lower": (0.1,) * 3, "potential": (0.005,) * 3 + (0.01,) * 5}
CENTRE = {"upper": {0: 0.75}, "potential": {0: -0.25, 3: -0.5}}
"""Initial coefficients: normal numbers of this spread, and centres of the three that keep a pendulum hanging."""


class Identify(Recipe):
    """19 coefficients from state pairs alone, without derivatives, in float64.

    The residuals are those of RK4 with a few substeps; Levenberg-Marquardt (Marquardt 1963) goes on until rounding admits no
    further step. Coefficients are rounded to the shortest decimals within five standard errors of them if that decides
    every one, else all are kept as they are. `noise` multiplies both states of each pair by 1 + noise N(0, 1).
    """

    citation = ("D. W. Marquardt, An algorithm for least-squares estimation of nonlinear parameters, 1963",)

    def config(self, task: Task, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        """The constants of the task, and the integrator."""
        return {**task.parameters, "integrator": parameters["integrator"], "step": parameters["step"]}

    def start(
        self,
        task: Task,
        parameters: Mapping[str, Any],
        seeds: Sequence[int],
        *,
        dtype: torch.dtype,
        device: torch.device,
    ) -> Run:
        """A run in which each seed is solved by itself."""
        architecture = self.plugins.architecture(self.spec.architecture)
        config = architecture.settled(self.config(task, parameters))
        return LanesRun([_Fit(cast(Pendulum, task), parameters, config, seed, device) for seed in seeds])

    def validation(self, task: Task, parameters: Mapping[str, Any], seed: int) -> Batch:
        """Fresh states."""
        return task.sample(VALIDATION_SAMPLES, generator=stream(seed, "validation"))

    def finish(
        self, task: Task, parameters: Mapping[str, Any], config: Mapping[str, Any], module: nn.Module
    ) -> tuple[Mapping[str, Any], Mapping[str, Tensor]]:
        """The coefficients; the config says whether they are rounded."""
        tensors = module.state_dict()
        values = [value for name in SIZES for value in tensors[name].tolist()]
        return {**config, "snapped": all(round(value, DECIMALS) == value for value in values)}, tensors

    def summary(self, task: Task, parameters: Mapping[str, Any]) -> str:
        """One line for the manifest."""
        noise = f", noise {parameters['noise']:g}" if parameters["noise"] else ""
        return f"double pendulum: Lagrangian of 19 coefficients from {parameters['pairs']} state pairs{noise}"


def pairs(task: Task, settings: Mapping[str, Any], seed: int) -> Batch:
    """The training pairs of a seed, with the noise that was asked for on both of their states."""
    batch = task.sample(settings["pairs"], generator=stream(seed, "train"))
    if not settings["noise"]:
        return batch
    generator = stream(seed, "noise")
    noisy = [
        states * (1 + settings["noise"] * torch.randn(states.shape, generator=generator, dtype=states.dtype))
        for states in (*tensors_of(batch.inputs), batch.targets)
    ]
    return Batch(noisy[0], noisy[1])


class _Fit(LeastSquaresLane):
    """The fit of one seed: its pairs, its coefficients as one vector, and where it stands."""

    def __init__(
        self, task: Pendulum, settings: Mapping[str, Any], config: Mapping[str, Any], seed: int, device: torch.device
    ) -> None:
        self._seed, self._device, self._settings, self._config = seed, device, settings, config
        self._rods, self._dt = task.rods, task.dt
        batch = pairs(task, settings, seed).to(torch.float64, device)
        self._states, self._targets = tensors_of(batch.inputs)[0].T.contiguous(), batch.targets
        self._persistence = float(scaled(self._states.T - self._targets).square().mean())
        self.restarts = 0
        self.known: dict[str, Any] = {}
        self._begin()

    def _begin(self) -> None:
        generator = stream(self._seed, "weights", self.restarts)
        self.weights = initial(generator).to(self._device)
        self.damping, self.taken = DAMPING, 0

    def step(self) -> tuple[float, bool]:
        """One iteration: the metric on the training pairs after it."""
        self.taken += 1
        error, moved = self.iterate()
        if not moved or self.taken >= ITERATIONS:
            self._end(error)
        return error, True

    def _end(self, error: float) -> None:
        """Accept and round, or begin again."""
        if not error <= ARRIVED * self._persistence and self.restarts < int(self._settings["restarts"]):
            self.restarts += 1
            self._begin()
            return
        errors = self.errors()
        rounded = snapped(self.weights, errors) if self._settings["snap"] else None
        self.known = {"largest_standard_error": _finite(errors), "rounded": rounded is not None}
        if rounded is not None:
            self.known["largest_change_by_rounding"] = _finite(rounded - self.weights)
            self.weights = rounded
        self.finished = True

    def residuals(self, weights: Tensor) -> Tensor:
        """Prediction less successor, angles in half turns, of every pair and component."""
        return self._rows(weights.expand(len(self._targets), -1)).reshape(-1)

    def jacobian(self, weights: Tensor) -> Tensor:
        """By four backward passes: every pair has coefficients of its own that happen to be equal."""
        return rowwise_jacobian(self._rows, weights.expand(len(self._targets), -1)).flatten(0, 1)

    def _rows(self, weights: Tensor) -> Tensor:
        """The residuals "pair 4" for coefficients "pair 19"."""
        law = Lagrangian({name: part.unbind() for name, part in named(weights.T).items()}, self._rods)
        moved = rk4(law.field, self._states, self._dt, int(self._settings["substeps"]))
        return scaled(moved.T - self._targets)

    def network(self) -> nn.Module:
        """The network with the coefficients as they are."""
        with torch.device("meta"):
            module = LagrangianFlow(self._config)
        module.load_state_dict({name: part.clone() for name, part in named(self.weights).items()}, assign=True)
        return module

    def figures(self) -> Mapping[str, Any]:
        """How many starts were discarded, and how well the coefficients are known."""
        return {"restarts": self.restarts, "iterations": self.taken, **self.known}

    def state(self) -> State:
        """Coefficients, damping and counters."""
        own = super().state()
        return State(own.tensors, {**own.values, "taken": self.taken, "restarts": self.restarts, "known": self.known})

    def restore(self, state: State) -> None:
        """Coefficients, damping and counters as they were."""
        super().restore(state)
        self.taken, self.restarts = int(state.values["taken"]), int(state.values["restarts"])
        self.known = dict(state.values["known"])


def named(weights: Tensor) -> dict[str, Tensor]:
    """A vector of 19 coefficients (or "19 pair") by tensor."""
    return dict(zip(SIZES, torch.split(weights, list(SIZES.values())), strict=True))


def initial(generator: torch.Generator) -> Tensor:
    """The coefficients with which a fit begins."""
    spread = torch.tensor([value for name in SIZES for value in SPREAD[name]], dtype=torch.float64)
    weights = spread * torch.randn(len(spread), generator=generator, dtype=torch.float64)
    for name, centres in CENTRE.items():
        for index, centre in centres.items():
            named(weights)[name][index] = centre
    return weights


def snapped(weights: Tensor, errors: Tensor) -> Tensor | None:
    """The shortest decimals that coefficients with these standard errors mean; None where some coefficient means none."""
    found = [
        _decimal(value, max(error, FINEST)) for value, error in zip(weights.tolist(), errors.tolist(), strict=True)
    ]
    return None if None in found else weights.new_tensor(found)


def _decimal(value: float, error: float) -> float | None:
    for places in range(DECIMALS + 1):
        near = round(value, places) + 0.0
        if abs(value - near) <= SURE * error <= CHANCE * 10**-places:
            return near
    return None


def _finite(values: Tensor) -> float | None:
    largest = float(values.abs().max())
    return largest if math.isfinite(largest) else None
