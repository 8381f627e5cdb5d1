"""What laws are checked with: the installed plugins, networks of every architecture, and samples to feed them."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy
import torch
from torch import Tensor

from grokkit_core.cassette import Cassette, draft, load, now, software, torch_dtype
from grokkit_core.dtypes import cast
from grokkit_core.errors import BadWeights, GrokkitError, UsageError
from grokkit_core.library import Entry, Library, Root
from grokkit_core.manifest import Curve, Provenance
from grokkit_core.plugins import Plugin, PluginHost, host, package_folder
from grokkit_core.specs import REQUIRED, ArchitectureSpec, CassetteRoot, FusionSpec, RecipeSpec, TaskSpec, TransferSpec
from grokkit_core.streams import stream
from grokkit_core.task import Batch, Inputs, Task, map_tensors, tensors_of
from grokkit_core.tensors import computing_dtypes, differences
from grokkit_core.testing.laws import Inapplicable, applies
from grokkit_core.workspace import Workspace

if TYPE_CHECKING:
    from grokkit_core.transfer.operator import TransferPlan

EXAMPLES = 8
"""Cases that hypothesis draws for a law; more find rarer faults and take longer."""

TRIES = 200
"""Random configs that are tried until the architecture accepts one."""


class Workbench:
    """The components of one plugin host, with networks and samples made from them once.

    `examples` is how many cases hypothesis draws for each law. Nothing is written outside of temporary folders.
    """

    def __init__(self, plugins: PluginHost | None = None, *, examples: int = EXAMPLES) -> None:
        self.plugins = plugins or host()
        self.examples = examples
        self._networks: dict[str, tuple[Cassette, ...]] = {}
        self._tasks: dict[str, Task] = {}
        self._growths: dict[str, list[tuple[Cassette, TransferPlan, Cassette]]] = {}

    # -- tasks -------------------------------------------------------------------------------------------------------

    def task(self, spec: TaskSpec) -> Task:
        """The task with the default constants of its law."""
        applies(bool(spec.signature.inputs), "its cassettes have no signature of their own: they answer by key")
        lacking = [field.name for field in spec.parameters if field.default is REQUIRED]
        applies(not lacking, f"its law has no default for {', '.join(lacking)}")
        if spec.id not in self._tasks:
            self._tasks[spec.id] = self.plugins.task(spec.id)
        return self._tasks[spec.id]

    def tasks(self) -> Iterator[Task]:
        """Every task that can be sampled."""
        for spec in self.plugins.specs(TaskSpec):
            try:
                yield self.task(spec)
            except Inapplicable:
                continue

    def tasks_of(self, architecture: ArchitectureSpec) -> list[tuple[TaskSpec, Mapping[str, Any]]]:
        """The tasks that an architecture is trained on, with the law of the recipe, or those whose signature it has."""
        recipes = [spec for spec in self.plugins.specs(RecipeSpec) if spec.architecture == architecture.id]
        if recipes:
            return [(self.plugins.spec(TaskSpec, recipe.task), recipe.law) for recipe in recipes]
        try:
            own = self.plugins.architecture(architecture.id).signature(_defaults(self, architecture))
        except (GrokkitError, KeyError, TypeError, ValueError):
            return []
        return [
            (s, {}) for s in self.plugins.specs(TaskSpec) if s.signature.inputs and not differences(s.signature, own)
        ]

    # -- networks ----------------------------------------------------------------------------------------------------

    def networks(self, architecture: str) -> tuple[Cassette, ...]:
        """Networks of an architecture: untrained ones of default and drawn configs, and those that plugins ship.

        Of an architecture that only operators or fusions make, those that they make.
        """
        if architecture not in self._networks:
            spec = self.plugins.spec(ArchitectureSpec, architecture)
            self._networks[architecture] = ()  # what is made of networks of this architecture needs no more of them
            try:
                found = [*self._untrained(spec), *self._shipped(architecture)]
                made = () if found else (*self._grown(architecture), *self._fused(architecture))
            except BaseException:
                del self._networks[architecture]
                raise
            self._networks[architecture] = (*found, *made)
        return self._networks[architecture]

    def some_network(self, architecture: str) -> tuple[Cassette, ...]:
        """As `networks`; leaves the law where there are none."""
        found = self.networks(architecture)
        applies(bool(found), "no recipe, operator, fusion or cassette gives a network of it to test")
        return found

    def all_networks(self) -> Iterator[Cassette]:
        """Networks of every installed architecture of which some can be made; its own laws tell what is wrong with others."""
        for spec in self.plugins.specs(ArchitectureSpec):
            with suppress(Exception):
                yield from self.networks(spec.id)

    def _untrained(self, spec: ArchitectureSpec) -> Iterator[Cassette]:
        if any(field.type == "json" for field in spec.config):
            return
        tasks = self.tasks_of(spec)
        for seed, config in enumerate([_defaults(self, spec), *self._drawn(spec)] if tasks else []):
            for like_trained in (False, True)[: seed + 1]:
                made = self.network(spec, config, tasks[0], seed=seed, like_trained=like_trained)
                if seed and not like_trained:
                    made = in_float64(made)
                with suppress(BadWeights):  # numbers that no training writes, of a network that checks them
                    made.architecture.check_tensors(made.manifest.architecture.config, made.tensors)
                    yield made

    def _drawn(self, spec: ArchitectureSpec) -> list[dict[str, Any]]:
        """One random small config that the architecture accepts."""
        architecture, generator = self.plugins.architecture(spec.id), stream(0, "config", spec.id)
        for _ in range(TRIES if spec.config else 0):
            config = {field.name: _value(field, generator) for field in spec.config}
            try:
                settled = architecture.settled(config)
                architecture.check(settled)
                self._law(settled, self.tasks_of(spec)[0])
            except UsageError:
                continue
            return [settled]
        return []

    def _law(self, config: Mapping[str, Any], trained_on: tuple[TaskSpec, Mapping[str, Any]]) -> Task:
        """The task with the constants that are sizes of the network, or that its recipe chooses."""
        spec, law = trained_on
        shared = {field.name: config[field.name] for field in spec.parameters if field.name in config}
        return self.plugins.task(spec.id, **{**law, **shared})

    def network(
        self,
        spec: ArchitectureSpec,
        config: Mapping[str, Any],
        trained_on: tuple[TaskSpec, Mapping[str, Any]],
        *,
        seed: int = 0,
        like_trained: bool = False,
    ) -> Cassette:
        """A network with default initialisation, or with weights as training leaves them: of very different sizes."""
        architecture = self.plugins.architecture(spec.id)
        settled = architecture.settled(config)
        task = self._law(settled, trained_on)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            state = architecture.build(settled).state_dict()
        return draft(
            "like-trained" if like_trained else "untrained",
            task=task,
            architecture=spec,
            config=settled,
            signature=architecture.signature(settled),
            tensors=_redrawn(state, stream(seed, "weights"), like_trained=like_trained),
            provenance=_provenance(self.plugins, task, spec),
            summary="made to test its architecture",
            plugins=self.plugins,
        )

    def _shipped(self, architecture: str) -> Iterator[Cassette]:
        with self.workspace() as place:
            for entry in place.library.entries():
                if entry.root.kind == "plugin" and entry.manifest and entry.manifest.architecture.id == architecture:
                    yield load(entry, library=place)

    def _grown(self, architecture: str) -> Iterator[Cassette]:
        """The first network of this architecture that each operator makes of another one."""
        from grokkit_core.testing.growth import grown_by, plans_for

        for spec in self.plugins.specs(TransferSpec):
            for source in self.all_networks():
                plan = next((p for p in plans_for(self, spec, source) if p.architecture.id == architecture), None)
                if plan is not None and source.manifest.architecture.id != architecture:
                    yield grown_by(self, spec, source, plan)
                    break

    def _fused(self, architecture: str) -> Iterator[Cassette]:
        """What each fusion makes of two networks, where it has this architecture."""
        from grokkit_core.testing.fusing import fused_by

        for spec in self.plugins.specs(FusionSpec):
            try:
                made = fused_by(self, spec)
            except Inapplicable:
                continue
            if made.cassette.manifest.architecture.id == architecture:
                yield made.cassette

    def growths(self, spec: TransferSpec) -> list[tuple[Cassette, TransferPlan, Cassette]]:
        """Source, plan and result of every growth by an operator that it does not refuse."""
        from grokkit_core.testing.growth import grown_networks

        if spec.id not in self._growths:
            self._growths[spec.id] = list(grown_networks(self, spec))
        return self._growths[spec.id]

    def entries(self, plugin: Plugin) -> list[Entry]:
        """The cassettes that a plugin ships, those that cannot be read too."""
        roots = [component for component in plugin.components if isinstance(component, CassetteRoot)]
        folders = [folder for root in roots if (folder := package_folder(root)) is not None]
        return Library([Root(folder, "plugin", plugin.distribution) for folder in folders]).entries()

    # -- samples -----------------------------------------------------------------------------------------------------

    @contextmanager
    def workspace(self) -> Iterator[Workspace]:
        """A library of its own in a temporary folder, in front of what plugins ship."""
        with tempfile.TemporaryDirectory() as folder:
            yield Workspace.open(Path(folder), plugins=self.plugins)

    def batch(self, cassette: Cassette, count: int, *, seed: int = 0, place: int = 0) -> Batch:
        """Samples of a cassette's law in its own precision."""
        applies(bool(cassette.signature.inputs), "it answers several tasks by key and has no inputs of its own")
        task = cassette.task
        where = task.evaluation[place % len(task.evaluation)]
        return task.sample(count, generator=stream(seed, "testing"), **where).to(cassette.dtype)


def in_float64(cassette: Cassette) -> Cassette:
    """The same network with weights of float64."""
    tensors = {name: cast(tensor, torch.float64) for name, tensor in cassette.tensors.items()}
    return Cassette(cassette.manifest, tensors, plugins=cassette.plugins)


def cloned(cassette: Cassette) -> Cassette:
    """The same network in memory of its own."""
    tensors = {name: tensor.clone() for name, tensor in cassette.tensors.items()}
    return Cassette(cassette.manifest, tensors, plugins=cassette.plugins)


def dtypes_of(cassette: Cassette) -> list[torch.dtype]:
    """The dtypes in which a cassette computes."""
    return [torch_dtype(name) for name in computing_dtypes(cassette.signature)]


def answer(cassette: Cassette, batch: Batch) -> Tensor:
    """The prediction for a copy of a batch, values outside of the domain included."""
    return cassette.predict(copied(batch.inputs), batch.context, force=True)


def copied(inputs: Inputs) -> Inputs:
    """The inputs in memory of their own."""
    return map_tensors(inputs, torch.clone)


def equal_inputs(first: Inputs, second: Inputs) -> bool:
    """Whether inputs are equal to the bit, NaN included."""
    pairs = zip(tensors_of(first), tensors_of(second), strict=True)
    return all(same_bits(a, b) for a, b in pairs)


def same_bits(first: Tensor, second: Tensor) -> bool:
    """Whether tensors have one shape, one dtype and equal numbers, NaN equal to NaN."""
    if first.shape != second.shape or first.dtype != second.dtype:
        return False
    return torch.equal(first, second) or bool(torch.isclose(first, second, rtol=0, atol=0, equal_nan=True).all())


def apart(first: Tensor, second: Tensor) -> float:
    """The largest difference relative to one or to the largest number; infinite for other shapes or where NaN is met."""
    if first.shape != second.shape:
        return float("inf")
    if not first.numel():
        return 0.0
    a, b = (tensor.to(torch.complex128 if tensor.is_complex() else torch.float64) for tensor in (first, second))
    difference = float((a - b).abs().max() / b.abs().max().clamp_min(1.0))
    return difference if difference == difference else float("inf")


def global_state() -> tuple[Any, ...]:
    """The states of the global generators of torch, numpy and Python, to see whether one of them was used."""
    kind, keys, *rest = numpy.random.get_state()
    return torch.get_rng_state().tolist(), kind, list(keys), rest, random.getstate()


def _defaults(bench: Workbench, spec: ArchitectureSpec) -> dict[str, Any]:
    """The default config; small values where there is no default."""
    generator = stream(0, "defaults", spec.id)
    missing = {field.name: _value(field, generator) for field in spec.config if field.default is REQUIRED}
    return bench.plugins.architecture(spec.id).settled(missing)


def _value(field: Any, generator: torch.Generator) -> Any:
    """A small value of a declared setting."""
    if field.choices:
        return field.choices[int(torch.randint(len(field.choices), (), generator=generator))]
    if field.type == "int":
        return (
            int(torch.randint(int(max(field.low, 1)), int(min(field.high, 9)) + 1, (), generator=generator))
            if (field.low <= 9)
            else int(field.low)
        )
    if field.type == "bool":
        return bool(torch.randint(2, (), generator=generator))
    if field.type == "ints":
        return tuple(sorted(torch.randperm(9, generator=generator)[:3].tolist()))
    return field.default


def _redrawn(state: Mapping[str, Tensor], generator: torch.Generator, *, like_trained: bool) -> dict[str, Tensor]:
    """Integers from -1, 0 and 1 (they have no initialisation); of trained networks, units of all sizes, some dead."""
    found = {}
    for name, tensor in state.items():
        if not (tensor.is_floating_point() or tensor.is_complex()):
            tensor = torch.randint(-1, 2, tensor.shape, generator=generator).to(tensor.dtype)
        elif like_trained and tensor.ndim:
            scale = 2.5 * torch.rand(tensor.shape[:1], generator=generator, dtype=torch.float64)
            scale[: len(scale) // 4] = 0
            tensor = tensor * scale.view(-1, *[1] * (tensor.ndim - 1)).to(tensor.dtype)
        found[name] = tensor.detach().clone()
    return found


def _provenance(plugins: PluginHost, task: Task, spec: ArchitectureSpec) -> Provenance:
    return Provenance(
        kind="trained",
        recipe=None,
        seed=0,
        steps=0,
        grok_step=None,
        curve=Curve((), ()),
        operator=None,
        gate=None,
        parents=(),
        software=software(plugins, task.spec, spec),
        created=now(),
    )
