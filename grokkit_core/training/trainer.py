"""The trainer: loops over a run, evaluates, stops seeds, detects grokking, checkpoints and reports. It knows no method."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn

from grokkit_core.architecture import applied
from grokkit_core.certify.scores import CHUNK
from grokkit_core.errors import BadManifest
from grokkit_core.loading import describe
from grokkit_core.manifest import Curve
from grokkit_core.specs import Event
from grokkit_core.task import Batch, Task
from grokkit_core.training.checkpoint import Checkpoint, RunFolder
from grokkit_core.training.recipe import Recipe, Run, State
from grokkit_core.training.watch import Watch, grok_step, thin

CHECKPOINT_SECONDS = 30.0
Emit = Callable[[Event], None]


class Interrupted(KeyboardInterrupt):
    """Training stopped on request after a checkpoint was saved."""

    def __init__(self, task: str, run: str, step: int) -> None:
        super().__init__(f"stopped after step {step}; go on with: grokkit train {task} --resume {run}")
        self.run, self.step = run, step


@dataclass(frozen=True)
class Outcome:
    """A trained network of one seed with its curve. `steps` counts those it took, `grok_step` may be None."""

    seed: int
    module: nn.Module
    steps: int
    grok_step: int | None
    curve: Curve
    seconds: float
    figures: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class _Lane:
    seed: int
    validation: Batch
    training: Batch | None
    watch: Watch = field(default_factory=Watch)
    steps: int = 0
    seconds: float = 0.0
    stopped: bool = False


class Trainer:
    """Drives one run to its end.

    `emit` hears of every evaluation and checkpoint; `interrupted` is asked after every step; `folder` holds
    checkpoints, written every half minute and on interruption, with `about` inside.
    """

    def __init__(
        self,
        run: Run,
        recipe: Recipe,
        task: Task,
        settings: Mapping[str, Any],
        seeds: Sequence[int],
        *,
        dtype: torch.dtype,
        device: torch.device,
        folder: RunFolder,
        about: Mapping[str, Any],
        emit: Emit,
        interrupted: Callable[[], bool],
    ) -> None:
        self.run, self.task = run, task
        self.stopping, self.grokking = recipe.stopping(task, settings), recipe.grokking(task, settings)
        self.lanes = [
            _Lane(seed, recipe.validation(task, settings, seed).to(dtype, device), _moved(own, dtype, device))
            for seed in seeds
            for own in [recipe.training_set(task, settings, seed)]
        ]
        architecture = recipe.plugins.architecture(recipe.spec.architecture)
        self._predict = partial(applied, reads_context=architecture.reads_context)
        self.folder, self.about, self.emit, self.interrupted = folder, about, emit, interrupted
        self.elapsed = 0.0
        self._step = 0

    def fit(self) -> list[Outcome]:
        """Train to the end; raises `Interrupted` after saving a checkpoint when asked to stop."""
        started, saved = time.monotonic() - self.elapsed, time.monotonic()
        while not self.run.done:
            progress = self.run.step()
            self._step = progress.step
            self._observe(progress.losses)
            self.elapsed = time.monotonic() - started
            if progress.evaluate:
                self._evaluate()
            if self.interrupted():
                self.checkpoint()
                raise Interrupted(self.task.spec.id, self.folder.id, self._step)
            if time.monotonic() - saved > CHECKPOINT_SECONDS:
                self.checkpoint()
                saved = time.monotonic()
        self._evaluate()
        return [self._outcome(index, module) for index, module in enumerate(self.run.result())]

    @property
    def step(self) -> int:
        """The number of steps done."""
        return self._step

    def checkpoint(self) -> None:
        """Save everything needed to go on from here."""
        state = self.run.state()
        lanes = [
            {
                "total": lane.watch.total,
                "count": lane.watch.count,
                "steps": lane.steps,
                "seconds": lane.seconds,
                "stopped": lane.stopped,
            }
            for lane in self.lanes
        ]
        curves = {
            f"curve.{i}": torch.tensor(lane.watch.rows, dtype=torch.float64)
            for i, lane in enumerate(self.lanes)
            if lane.watch.rows
        }
        values = {"run": dict(state.values), "lanes": lanes, "step": self._step, "elapsed": self.elapsed}
        run_tensors = {f"run.{name}": tensor for name, tensor in state.tensors.items()}
        self.folder.save(self._step, Checkpoint(self.about, values, {**run_tensors, **curves}))
        self.emit(Event("train.checkpoint", {"run": self.folder.id, "step": self._step}))

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint; raises `BadManifest` where it does not fit the run."""
        try:
            self._restore(checkpoint)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, RuntimeError) as error:
            raise BadManifest(f"the checkpoint does not fit its run: {describe(error)}") from error

    def _restore(self, checkpoint: Checkpoint) -> None:
        values, tensors = checkpoint.values, checkpoint.tensors
        self._step, self.elapsed = int(values["step"]), float(values["elapsed"])
        for index, (lane, kept) in enumerate(zip(self.lanes, values["lanes"], strict=True)):
            rows = tensors[f"curve.{index}"].tolist() if f"curve.{index}" in tensors else []
            lane.watch = Watch([tuple(row) for row in rows], kept["total"], kept["count"])
            lane.steps, lane.seconds, lane.stopped = kept["steps"], kept["seconds"], kept["stopped"]
        run_tensors = {name.removeprefix("run."): t for name, t in tensors.items() if name.startswith("run.")}
        self.run.restore(State(run_tensors, values["run"]))

    def _observe(self, losses: Sequence[float]) -> None:
        for lane, loss in zip(self.lanes, losses, strict=True):
            if not lane.stopped:
                lane.watch.observe(loss)
                lane.steps = self._step

    def _evaluate(self) -> None:
        """Record a row for every seed that still trains, and stop those whose rule says so."""
        for index, (lane, module) in enumerate(zip(self.lanes, self.run.result(), strict=True)):
            if lane.stopped or (lane.watch.rows and lane.watch.rows[-1][0] == self._step):
                continue
            figures = [self._metric(module, batch) for batch in (lane.validation, lane.training) if batch is not None]
            lane.watch.record(self._step, *figures)
            own = self.run.seconds(index)
            lane.seconds = self.elapsed if own is None else own
            if lane.watch.should_stop(self.stopping):
                lane.stopped = True
                self.run.stop(index)
            lane.stopped = lane.stopped or self.run.finished(index)
        self._report()

    def _metric(self, module: nn.Module, batch: Batch) -> float:
        was_training = module.training
        module.eval()
        with torch.inference_mode():
            parts = [
                self.task.error(self._predict(module, chunk), chunk.targets).double() for chunk in batch.chunks(CHUNK)
            ]
        module.train(was_training)
        return torch.cat(parts).mean().item()

    def _report(self) -> None:
        data = {
            "step": self._step,
            "seeds": [lane.seed for lane in self.lanes],
            "train": [lane.watch.rows[-1][1] for lane in self.lanes],
            "validation": [lane.watch.rows[-1][2] for lane in self.lanes],
            "stopped": [lane.stopped for lane in self.lanes],
            "grokked": [grok_step(lane.watch.rows, self.grokking) for lane in self.lanes],
            "metric": self.task.spec.metric,
        }
        self.emit(Event("train.evaluation", data))

    def _outcome(self, index: int, module: nn.Module) -> Outcome:
        lane = self.lanes[index]
        grokked = grok_step(lane.watch.rows, self.grokking)
        figures = self.run.figures(index)
        return Outcome(lane.seed, module, lane.steps, grokked, thin(lane.watch.rows), lane.seconds, figures)


def _moved(batch: Batch | None, dtype: torch.dtype, device: torch.device) -> Batch | None:
    return None if batch is None else batch.to(dtype, device)
