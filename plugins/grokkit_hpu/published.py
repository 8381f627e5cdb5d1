"""HPU-Core as published: its law, its network and the first stage of its training, to reproduce its figures.

Its law is no Hamiltonian flow: real white noise on 16 x 16 points, two explicit Euler steps of the heat equation on a
lattice, scaled back to the norm of the input. Its accuracy counts fields of MSE below 0.05, which the zero function passes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from grokkit_core.architecture import Architecture
from grokkit_core.certify.scores import CONFIDENCE, figure
from grokkit_core.errors import UsageError
from grokkit_core.manifest import Baseline, Metric
from grokkit_core.streams import stream
from grokkit_core.task import Batch, Task, tensors_of
from grokkit_core.tensors import Signature
from grokkit_core.training.gradient import epochs, initialised, load_optimizer, optimizer_tensors
from grokkit_core.training.lanes import Lane, LanesRun
from grokkit_core.training.recipe import Recipe, Run, State
from grokkit_hpu.plugin import REAL_SIGNATURE

if TYPE_CHECKING:
    from grokkit_core.cassette import Cassette

GRID = 16
EULER_STEPS = 2
ACCURATE = 0.05
"""MSE below which the published measure calls a field right; the zero function has 1 / 256."""

TRAINING_FIELDS, VALIDATION_FIELDS, BATCH = 140, 60, 32
BATCHES = -(-TRAINING_FIELDS // BATCH)
PER_DECADE = 100
NEAR_ZERO = 1e-3
RATE, DECAY = 5e-3, 0.01
KERNEL = (9, 16)
KERNEL_SCALE = 0.1


def heat_fields(n: int, dt: float, generator: torch.Generator, *, grid: int = GRID) -> Batch:
    """`n` real fields "n grid grid" of unit L2 norm with what they become."""
    field = torch.randn(n, grid, grid, generator=generator, dtype=torch.float64)
    field = field / field.square().sum((1, 2), keepdim=True).sqrt()
    return Batch(field, heat_step(field, dt))


def heat_step(field: Tensor, dt: float) -> Tensor:
    """Two Euler steps v + dt laplacian v by transform, wavenumbers in lattice units, rescaled to the input's norm."""
    k = 2 * torch.pi * torch.fft.fftfreq(field.shape[-1], dtype=torch.float64, device=field.device)
    factor = (1 - dt * (k[:, None].square() + k.square())) ** EULER_STEPS
    moved = torch.fft.ifft2(torch.fft.fft2(field) * factor).real
    norms = [part.square().sum((-2, -1), keepdim=True).sqrt() for part in (field, moved)]
    result: Tensor = moved * (norms[0] / norms[1].clamp_min(torch.finfo(torch.float64).tiny))
    return result


class PublishedArchitecture(Architecture):
    """`grokkit_hpu/published`; 589,921 parameters by default, of which the forward pass sees 18,529 different sums."""

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        """A network with random weights."""
        return SpectralNetwork(int(config["channels"]))

    def signature(self, config: Mapping[str, Any]) -> Signature:
        """`field` "batch grid grid", real, to the same."""
        return REAL_SIGNATURE


class SpectralNetwork(nn.Module):
    """1x1 convolution, GELU, two spectral layers with GELU, 1x1 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.input_proj = nn.Conv2d(1, channels, 1)
        self.spectral_layers = nn.ModuleList(_Spectral(channels) for _ in range(2))
        self.output_proj = nn.Conv2d(channels, 1, 1)

    def forward(self, field: Tensor) -> Tensor:
        """The field "batch grid grid" after two Euler steps."""
        hidden = nn.functional.gelu(self.input_proj(field.unsqueeze(1)))
        for layer in self.spectral_layers:
            hidden = nn.functional.gelu(layer(hidden))
        result: Tensor = self.output_proj(hidden)
        return result.squeeze(1)


class _Spectral(nn.Module):
    """Each channel's modes times one number each: kernels are averaged over their first axis and resized bilinearly."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.kernel_real = nn.Parameter(KERNEL_SCALE * torch.randn(channels, channels, *KERNEL))
        self.kernel_imag = nn.Parameter(KERNEL_SCALE * torch.randn(channels, channels, *KERNEL))

    def forward(self, hidden: Tensor) -> Tensor:
        """ "batch channel grid grid", real, to the same."""
        spectrum = torch.fft.rfft2(hidden)
        real, imaginary = (
            nn.functional.interpolate(kernel.mean(0, keepdim=True), size=spectrum.shape[-2:], mode="bilinear")
            for kernel in (self.kernel_real, self.kernel_imag)
        )
        result: Tensor = torch.fft.irfft2(spectrum * torch.complex(real, imaginary), s=hidden.shape[-2:])
        return result


class PublishedRecipe(Recipe):
    """`hpu/published`: AdamW on the mean squared error, then the penalty that is said to crystallise the network.

    The second stage adds lambda times the mean distance of the weights from integers, ten times larger every 100 epochs, with
    the gradient clipped to norm one. Its published end, 7.5e34, is not repeated: from about 1e3 on the clipped update does
    not depend on lambda, and from 1e25 on the gradient overflows in float32 and is clipped to zero.
    """

    def start(
        self,
        task: Task,
        parameters: Mapping[str, Any],
        seeds: Sequence[int],
        *,
        dtype: torch.dtype,
        device: torch.device,
    ) -> Run:
        """A run in which the seeds train in turn."""
        return LanesRun([_Stages(self, task, parameters, seed, dtype, device) for seed in seeds])

    def config(self, task: Task, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        """The published sizes."""
        if task.parameters["variant"] != "published":
            raise UsageError(
                f"recipe hpu/published for variant={task.parameters['variant']}", expected="variant=published"
            )
        return {}

    def validation(self, task: Task, parameters: Mapping[str, Any], seed: int) -> Batch:
        """60 other fields."""
        return task.sample(VALIDATION_FIELDS, generator=stream(seed, "validation"))


class _Stages(Lane):
    """Both stages for one seed; a step is an epoch."""

    def __init__(
        self,
        recipe: Recipe,
        task: Task,
        settings: Mapping[str, Any],
        seed: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        architecture = recipe.plugins.architecture(recipe.spec.architecture)
        self._module = initialised(architecture.build, architecture.settled({}), seed).to(device, dtype)
        data = task.sample(TRAINING_FIELDS, generator=stream(seed, "train")).to(dtype, device)
        self._batch = epochs(data, BATCH, seed)
        self._first, self._second = int(settings["epochs"]), int(settings["crystallise"])
        self.epoch = 0
        self._optimizer = self._new_optimizer()

    def _new_optimizer(self) -> torch.optim.Optimizer:
        """AdamW in the first stage, SGD in the second."""
        parameters = list(self._module.parameters())
        if self.epoch < self._first:
            return torch.optim.AdamW(parameters, lr=RATE, weight_decay=DECAY)
        return torch.optim.SGD(parameters, lr=RATE, momentum=0.9, weight_decay=1e-4)

    def step(self) -> tuple[float, bool]:
        """One epoch; its mean loss without the penalty."""
        if self.epoch == self._first:
            self._optimizer = self._new_optimizer()
        losses = [self._train(batch) for batch in range(BATCHES)]
        self.epoch += 1
        self.finished = self.epoch >= self._first + self._second
        return sum(losses) / BATCHES, self.finished or self.epoch % 10 == 0

    def _train(self, index: int) -> float:
        batch = self._batch(self.epoch * BATCHES + index)
        (field,) = tensors_of(batch.inputs)
        self._optimizer.zero_grad()
        loss = (self._module(field) - batch.targets.to(field)).square().mean()
        whole = loss
        if self.epoch >= self._first:
            whole = loss + 10.0 ** ((self.epoch - self._first) // PER_DECADE) * _distance(self._module)
        whole.backward()
        if self.epoch >= self._first:
            nn.utils.clip_grad_norm_(self._module.parameters(), 1.0)
        self._optimizer.step()
        return float(loss.detach())

    def network(self) -> nn.Module:
        """The network as it is."""
        return self._module

    def figures(self) -> Mapping[str, Any]:
        """The published measures of a state: the share of weights near zero, and delta."""
        weights = torch.cat([parameter.detach().reshape(-1) for parameter in self._module.parameters()])
        delta = float((weights - weights.round()).abs().max())
        return {"near_zero_weights": float((weights.abs() < NEAR_ZERO).double().mean()), "delta": delta}

    def state(self) -> State:
        """Weights, the optimiser's tensors and the epoch."""
        tensors = {f"model.{name}": tensor.clone() for name, tensor in self._module.state_dict().items()}
        tensors |= {f"optimizer.{name}": t.clone() for name, t in optimizer_tensors(self._optimizer)}
        return State(tensors, {"epoch": self.epoch})

    def restore(self, state: State) -> None:
        """Go on from there."""
        self.epoch = int(state.values["epoch"])
        self._module.load_state_dict(state.part("model."))
        kept = state.part("optimizer.")
        if kept:
            if self.epoch > self._first:
                self._optimizer = self._new_optimizer()
            load_optimizer(self._optimizer, kept)


def _distance(module: nn.Module) -> Tensor:
    """The mean distance of all weights from integers."""
    weights = torch.cat([parameter.reshape(-1) for parameter in module.parameters()])
    return (weights - weights.detach().round()).abs().mean()


def published_metrics(task: Task, cassette: Cassette, *, n: int, seed: int) -> tuple[list[Metric], list[Baseline]]:
    """The published measures of a cassette and of the task's baselines: MSE, and the share of fields below 0.05."""
    batch = task.sample(n, generator=stream(seed, "test", 0))
    predictors = {"": lambda inputs, context: cassette.predict(inputs, context, force=True), **task.baselines(batch)}
    metrics, baselines = [], []
    for name, predict in predictors.items():
        with torch.inference_mode():
            prediction = predict(batch.to(cassette.dtype).inputs, {}).cpu().double()
        squares = (prediction - batch.targets).square().mean((-2, -1))
        for what, values in (("published_mse", squares), ("published_accuracy", (squares < ACCURATE).double())):
            found = figure(values)
            if name:
                baselines.append(Baseline(name, what, found.value, {}))
            else:
                metrics.append(Metric(what, found.value, "1", found.stderr, found.interval, CONFIDENCE, n, {}))
    return metrics, baselines
