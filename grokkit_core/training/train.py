"""The verb `train`: run a recipe for one or several seeds, certify each network, save each as a cassette."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from grokkit_core.cassette import Cassette, draft, now, software, torch_dtype
from grokkit_core.devices import choose_device, fitting_threads
from grokkit_core.errors import BadManifest, Incompatible, StoreError, UsageError
from grokkit_core.manifest import Provenance, RecipeRef
from grokkit_core.names import check_name
from grokkit_core.plugins import PluginHost
from grokkit_core.records import to_json
from grokkit_core.specs import ArchitectureSpec, Event, RecipeSpec, TaskSpec, settle
from grokkit_core.task import Task
from grokkit_core.text import printable
from grokkit_core.training.checkpoint import Checkpoint, RunFolder, check_circumstances, circumstances
from grokkit_core.training.recipe import Recipe
from grokkit_core.training.trainer import Emit, Interrupted, Outcome, Trainer
from grokkit_core.workspace import Where, Workspace, workspace


@dataclass(frozen=True)
class Trained:
    """One trained, certified and saved network."""

    cassette: Cassette
    seed: int
    steps: int
    grok_step: int | None
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """The row of `grokkit train --json`."""
        manifest = self.cassette.manifest
        return {
            "name": manifest.name,
            "version": manifest.version,
            "seed": self.seed,
            "steps": self.steps,
            "grok_step": self.grok_step,
            "seconds": round(self.seconds, 3),
            "verdict": manifest.certificate.verdict,
            "metrics": to_json(manifest.certificate.metrics),
        }


@dataclass(frozen=True)
class Order:
    """What is to be trained, fully settled; a checkpoint keeps it."""

    task: TaskSpec
    recipe: RecipeSpec
    settings: Mapping[str, Any]
    parameters: Mapping[str, Any]
    seeds: tuple[int, ...]
    name: str
    dtype: str

    def about(self) -> dict[str, Any]:
        """The order as a checkpoint writes it."""
        return {
            "task": self.task.id,
            "recipe": self.recipe.id,
            "settings": dict(self.settings),
            "parameters": dict(self.parameters),
            "seeds": list(self.seeds),
            "name": self.name,
        }


def train(
    task: str,
    *,
    recipe: str | None = None,
    seed: int = 0,
    seeds: Sequence[int] | None = None,
    settings: Mapping[str, Any] | None = None,
    name: str | None = None,
    resume: str | None = None,
    allow_inexact: bool = False,
    device: str = "auto",
    dtype: str | None = None,
    library: Where = None,
    on_event: Emit | None = None,
) -> list[Trained]:
    """Train a recipe of a task, one network a seed, certify each and save each as the next version of `name`.

    `seeds` takes the place of `seed`; `settings` are those of the recipe (and constants of the task's law). `resume`
    goes on with an interrupted run. Raises `UsageError` for bad settings, `NotFound` for unknown names, `Incompatible`
    for a checkpoint that does not fit. Ctrl-C saves a checkpoint and raises `KeyboardInterrupt`.
    """
    place = workspace(library)
    host = place.plugins
    folder = RunFolder.find(resume) if resume is not None else None
    checkpoint = folder.load() if folder else None
    order = (
        _resumed(host, task, recipe, checkpoint, dtype)
        if checkpoint
        else _order(host, task, recipe, seeds or (seed,), settings or {}, name, dtype)
    )
    place.library.prepare()
    emit = _emitter(host, on_event)
    found, law = host.recipe(order.recipe.id), host.task(order.task.id, **order.parameters)
    size = _size(found, law, order)
    with fitting_threads(size):
        place_for_run = folder or RunFolder.new(order.name)
        place_for_run.prepare()
        with first_interrupt() as interrupted:
            target = choose_device(device, size)
            trainer = _trainer(found, law, order, target, place_for_run, checkpoint, allow_inexact, emit, interrupted)
            outcomes = trainer.fit()
        with contextlib.suppress(StoreError):
            trainer.checkpoint()  # the networks are not in the library yet
        try:
            certified = [_certified(outcome, order, found, law, place, emit) for outcome in outcomes]
            saved = [
                _save(cassette, outcome, place, emit) for cassette, outcome in zip(certified, outcomes, strict=True)
            ]
        except KeyboardInterrupt as error:
            raise Interrupted(order.task.id, trainer.folder.id, trainer.step) from error
        except StoreError as error:
            raise StoreError(
                str(error),
                hint=f"the networks are kept, go on with: grokkit train {order.task.id} --resume {trainer.folder.id}",
            ) from error
    trainer.folder.delete()
    return saved


def _order(
    host: PluginHost,
    task_name: str,
    recipe_name: str | None,
    seeds: Sequence[int],
    given: Mapping[str, Any],
    name: str | None,
    dtype: str | None,
) -> Order:
    task = host.spec(TaskSpec, task_name)
    recipe = host.recipe_for(task, recipe_name)
    law = {field.name for field in task.parameters}
    constants = {**recipe.law, **{k: v for k, v in given.items() if k in law}}
    parameters = settle(task.parameters, constants, f"task {task.id}")
    settings = settle(recipe.parameters, {k: v for k, v in given.items() if k not in law}, f"recipe {recipe.id}")
    if len(set(seeds)) != len(seeds) or not all(type(s) is int and 0 <= s < 2**53 for s in seeds):
        raise UsageError(f"seeds {list(seeds)[:8]}", expected="distinct integers from 0")
    chosen = dtype or recipe.dtypes[0]
    if chosen not in recipe.dtypes:
        raise UsageError(f"dtype '{printable(chosen, 40)}' for recipe {recipe.id}", expected=" or ".join(recipe.dtypes))
    new_name = check_name(name or f"{task.id}-{recipe.id.rpartition('/')[2]}")
    return Order(task, recipe, settings, parameters, tuple(seeds), new_name, chosen)


def _resumed(host: PluginHost, task: str, recipe: str | None, checkpoint: Checkpoint, dtype: str | None) -> Order:
    about = checkpoint.about
    made_with = about["circumstances"]["dtype"]
    if dtype is not None and dtype != made_with:
        raise Incompatible(
            f"--dtype {dtype} for a run that trains in {made_with}", expected=f"--dtype {made_with}, or none"
        )
    spec = host.spec(TaskSpec, task)
    wanted = host.recipe_for(spec, recipe) if recipe else None
    if spec.id != about["task"] or (wanted and wanted.id != about["recipe"]):
        raise Incompatible(
            f"the run trains {printable(about['recipe'], 80)} of task {printable(about['task'], 80)}",
            expected=f"a run of {wanted.id if wanted else spec.id}",
        )
    found = host.spec(RecipeSpec, about["recipe"])
    for fields, given in ((found.parameters, about["settings"]), (spec.parameters, about["parameters"])):
        if {field.name for field in fields} != set(given):
            raise BadManifest("the checkpoint has other settings than its recipe and its task declare")
    return Order(
        spec,
        found,
        settle(found.parameters, about["settings"], f"recipe {found.id}"),
        settle(spec.parameters, about["parameters"], f"task {spec.id}"),
        tuple(about["seeds"]),
        check_name(about["name"]),
        about["circumstances"]["dtype"],
    )


def _trainer(
    recipe: Recipe,
    task: Task,
    order: Order,
    device: torch.device,
    folder: RunFolder,
    checkpoint: Checkpoint | None,
    allow_inexact: bool,
    emit: Emit,
    interrupted: Callable[[], bool],
) -> Trainer:
    """The trainer of an order, restored from its checkpoint where there is one."""
    dtype = torch_dtype(order.dtype)
    around = circumstances(dtype, device)
    if checkpoint and not allow_inexact:
        check_circumstances(checkpoint.about["circumstances"], around)
    trainer = Trainer(
        recipe.start(task, order.settings, order.seeds, dtype=dtype, device=device),
        recipe,
        task,
        order.settings,
        order.seeds,
        dtype=dtype,
        device=device,
        folder=folder,
        about={**order.about(), "circumstances": around},
        emit=emit,
        interrupted=interrupted,
    )
    if checkpoint:
        trainer.restore(checkpoint)
    return trainer


def _size(recipe: Recipe, task: Task, order: Order) -> int:
    """The number of parameters of the network to be trained, without allocating it."""
    with torch.device("meta"):
        architecture = recipe.plugins.architecture(order.recipe.architecture)
        module = architecture.build(architecture.settled(recipe.config(task, order.settings)))
    return sum(parameter.numel() for parameter in module.parameters())


def _certified(outcome: Outcome, order: Order, recipe: Recipe, task: Task, place: Workspace, emit: Emit) -> Cassette:
    """One network as a cassette with its certificate."""
    host = place.plugins
    architecture = host.spec(ArchitectureSpec, order.recipe.architecture)
    built = host.architecture(architecture.id)
    task = recipe.task_for(task, outcome.seed)
    trained = built.settled(recipe.config(task, order.settings))
    config, tensors = recipe.finish(task, order.settings, trained, outcome.module)
    provenance = Provenance(
        kind="trained",
        recipe=RecipeRef(order.recipe.id, dict(order.settings)),
        seed=outcome.seed,
        steps=outcome.steps,
        grok_step=outcome.grok_step,
        curve=outcome.curve,
        operator=None,
        gate=None,
        parents=(),
        software=software(host, order.task, architecture, order.recipe),
        created=now(),
    )
    cassette = draft(
        order.name,
        task=task,
        architecture=architecture,
        config=config,
        signature=built.signature(config),
        tensors=tensors,
        provenance=provenance,
        summary=recipe.summary(task, order.settings),
        plugins=host,
        components=(order.recipe,),
        extra={"training": dict(outcome.figures)} if outcome.figures else {},
        citation=tuple(recipe.citation),
    )
    emit(Event("train.certify", {"seed": outcome.seed}))
    measured = cassette.to("cpu", order.dtype)
    return cassette.with_certificate(task.certify(measured, level="full", seed=outcome.seed))


def _save(cassette: Cassette, outcome: Outcome, place: Workspace, emit: Emit) -> Trained:
    saved = cassette.save(place)
    emit(Event("train.saved", {"name": saved.manifest.ref, "seed": outcome.seed}))
    return Trained(saved, outcome.seed, outcome.steps, outcome.grok_step, outcome.seconds)


def _emitter(host: PluginHost, on_event: Emit | None) -> Emit:
    def emit(event: Event) -> None:
        if on_event is not None:
            on_event(event)
        host.emit(event)

    return emit


@contextlib.contextmanager
def first_interrupt() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C was pressed. The first press only sets the answer; the second interrupts at once."""
    pressed = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield pressed.is_set
        return
    before = signal.getsignal(signal.SIGINT)
    if getattr(before, "pressed", False):  # while something loaded that swallowed it
        pressed.set()

    def handle(number: int, frame: object) -> None:
        pressed.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    signal.signal(signal.SIGINT, handle)
    try:
        yield pressed.is_set
    finally:
        signal.signal(signal.SIGINT, before)
