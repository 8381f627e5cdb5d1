"""A cassette that can be called: its manifest, its tensors and, once it is needed, its network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from itertools import islice
from types import MappingProxyType
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from grokkit_core import contract, packing, saving, store
from grokkit_core.architecture import Architecture
from grokkit_core.building import aligned, build_module
from grokkit_core.devices import choose_device
from grokkit_core.dtypes import cast, is_inexact, real_dtype
from grokkit_core.errors import BadManifest, GrokkitError, Incompatible, NotFound, PluginError, UsageError
from grokkit_core.fusion import routing
from grokkit_core.library import Entry
from grokkit_core.manifest import (
    ArchitectureRef,
    Certificate,
    Manifest,
    Provenance,
    Requires,
    Software,
    TaskRef,
    WeightsRef,
)
from grokkit_core.notebook import Sheet, Shown, card
from grokkit_core.plugins import PluginHost, host
from grokkit_core.specs import ArchitectureSpec, Component
from grokkit_core.task import Inputs, Task, map_tensors, tensors_of
from grokkit_core.tensors import Signature, computing_dtypes, differences
from grokkit_core.text import printable
from grokkit_core.workspace import Where, workspace

Found = TypeVar("Found")
AHEAD = 2**16
"""Numbers that a rollout of an architecture's own may compute before the first of them is asked for."""

UNCERTIFIED = Certificate(
    "failed", "not certified yet", "", "sampled", (), (), (), (), seed=0, dtype="float32", level="quick"
)


class Cassette(Shown):
    """An immutable trained network with its manifest. Calling it checks the inputs against its signature.

    `tensors` are the weights by name. Surgery returns new cassettes; nothing here changes one.
    """

    def __init__(
        self,
        manifest: Manifest,
        tensors: Mapping[str, Tensor],
        *,
        plugins: PluginHost | None = None,
        device: torch.device | str = "cpu",
        dtype: str | None = None,
    ) -> None:
        self.manifest = manifest
        self.plugins = plugins or host()
        self.device = torch.device(device)
        self.tensors: Mapping[str, Tensor] = MappingProxyType(
            {name: _ordinary(tensor).to(self.device) for name, tensor in tensors.items()}
        )
        self._modules: dict[torch.dtype, nn.Module] = {}
        self.routes: dict[str | None, routing.Route] = {}
        listed = computing_dtypes(manifest.signature)
        dtype = dtype and _counterpart(dtype, listed)
        if dtype is not None and dtype not in listed:
            raise Incompatible(
                f"{manifest.ref} does not take dtype '{printable(dtype, 40)}'", expected=" or ".join(listed)
            )
        self._dtype = dtype

    @cached_property
    def members(self) -> Mapping[str, Cassette]:
        """The cassettes of one task each inside a router or a superposition, by key; empty for a cassette of one task."""
        return MappingProxyType(self.architecture.members(self))

    def __repr__(self) -> str:
        certificate = self.manifest.certificate
        return f"<Cassette {self.manifest.ref}: {self.manifest.task.id}, {certificate.verdict}>"

    def _sheet(self) -> Sheet:
        return card(self.manifest)

    @property
    def signature(self) -> Signature:
        """Inputs, outputs and context variables."""
        return self.manifest.signature

    @property
    def dtype(self) -> torch.dtype:
        """The dtype in which it computes: the one it was moved `to`, else the first floating one that is listed."""
        return torch_dtype(self._dtype or computing_dtypes(self.manifest.signature)[0])

    @cached_property
    def architecture(self) -> Architecture:
        """The installed architecture that builds the network; raises `PluginError` or `Incompatible` if it cannot."""
        reference = self.manifest.architecture
        found = self._needed(lambda: self.plugins.architecture(reference.id))
        if found.spec.version != reference.version:
            raise Incompatible(
                f"{self.manifest.ref} needs version {reference.version} of architecture {reference.id}",
                expected=f"version {found.spec.version}, which is installed",
                hint="install the plugin version named in the manifest",
            )
        return found

    @property
    def task(self) -> Task:
        """The installed task, with the law constants of this cassette."""
        reference = self.manifest.task
        return self._needed(lambda: self.plugins.task(reference.id, **reference.parameters))

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """A verb of the architecture with this cassette as its first argument, kept so that it is looked for once.

        Raises `AttributeError` for any other name, also where the architecture cannot be asked.
        """
        if name.startswith("_") or "manifest" not in vars(self):
            raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")
        if hasattr(type(self), name):  # a property that raised an `AttributeError`: it has to be seen, not this one
            return object.__getattribute__(self, name)  # type: ignore[no-any-return]
        try:
            architecture = self.architecture
        except GrokkitError as error:
            raise AttributeError(f"{self.manifest.ref} has no attribute '{name}', or cannot say so: {error}") from error
        verb = vars(self)[name] = architecture.verb(name, self)
        return verb

    def _needed(self, find: Callable[[], Found]) -> Found:
        """What an installed plugin must bring for this cassette; raises `PluginError` that names the distributions."""
        try:
            return find()
        except (NotFound, PluginError) as error:
            wanted = ", ".join(printable(name, 80) for name in self.manifest.requires.plugins)
            raise PluginError(f"{self.manifest.ref} cannot be built: {error}", hint=f"it needs {wanted}") from error

    @property
    def module(self) -> nn.Module:
        """The network in the dtype of its weights: frozen, in evaluation mode."""
        inexact = [real_dtype(tensor.dtype) for tensor in self.tensors.values() if is_inexact(tensor)]
        return self.module_for(inexact[0] if inexact else torch.float32)

    def module_for(self, dtype: torch.dtype) -> nn.Module:
        """The network with its weights in the precision of `dtype`; built once for each."""
        dtype = real_dtype(dtype)
        if dtype not in self._modules:
            keep = self.architecture.composite
            with torch.inference_mode(False):
                tensors = {n: aligned(t if keep else cast(t, dtype)) for n, t in self.tensors.items()}
                self._modules[dtype] = build_module(self.architecture, self.manifest.architecture.config, tensors)
        return self._modules[dtype]

    def __call__(
        self,
        *inputs: Tensor,
        context: Mapping[str, Tensor | float] | None = None,
        key: str | None = None,
        **named: Any,
    ) -> Any:
        """The prediction "batch *out" for inputs that fit the signature; never padded, truncated or guessed.

        `context` gives the conditioning variables, a number or "batch" each; extra ones are ignored. Of a cassette of
        several tasks the member answers that `key` names (itself or its task), or the only one whose signature the inputs
        fit; inputs of several members, named by key, task or input name, give a mapping of predictions by those names.
        Raises `Incompatible` for anything that does not fit, `NoMatch` and `Ambiguous` with the candidates.
        """
        if self.members and key is None and named and not inputs:
            routes = routing.by_name(self, named, lambda name, member: _takes(member, (), {name: named[name]}))
            if routes is not None:
                return {name: route.cassette.predict(named[name], context) for name, route in routes.items()}
        chosen = self.route(*inputs, key=key, **named).cassette
        return chosen.predict(contract.named_inputs(chosen.signature, inputs, named), context)

    def predict(
        self,
        inputs: Inputs,
        context: Mapping[str, Tensor | float] | None = None,
        *,
        key: str | None = None,
        force: bool = False,
    ) -> Tensor:
        """As a call, with inputs as a task samples them; `force` admits values outside the domain."""
        if self.members or key is not None:
            return self._answering(inputs, key).predict(inputs, context, force=force)
        call = self._checked(inputs, context, force=force)
        with torch.inference_mode(not any(tensor.requires_grad for tensor in call.tensors)):
            if self.architecture.reads_context:
                result: Tensor = call.module(*call.tensors, context=call.context)
            else:
                result = call.module(*call.tensors)
        return result

    def route(self, *inputs: Tensor, key: str | None = None, **named: Tensor) -> routing.Route:
        """Which member would answer, and why; nothing is computed. Of a cassette of one task, itself.

        Raises `NoMatch` or `Ambiguous` with the candidates, `NotFound` for a key of nothing.
        """
        return routing.route(
            self, key, lambda member: _takes(member, inputs, named), lambda: routing.shapes(inputs, named)
        )

    def _answering(self, inputs: Inputs, key: str | None) -> Cassette:
        positional, named = ((inputs,), {}) if isinstance(inputs, Tensor) else ((), inputs)
        return self.route(*positional, key=key, **named).cassette

    def _checked(self, inputs: Inputs, context: Mapping[str, Tensor | float] | None, *, force: bool) -> _Call:
        """The network and what it is called with, once everything fits."""
        given = ((inputs,), {}) if isinstance(inputs, Tensor) else ((), inputs)
        named = contract.named_inputs(self.signature, *given)
        sizes = contract.check_inputs(self.signature, named, force=force)
        batch = sizes.get(contract.BATCH, len(next(iter(named.values()))))
        settled = contract.check_context(self.signature, context or {}, batch, force=force)
        tensors = [tensor.to(self.device) for tensor in named.values()]
        inexact = [real_dtype(tensor.dtype) for tensor in tensors if is_inexact(tensor)]
        module = self.module_for(inexact[0]) if inexact else self.module
        placed = {name: tensor.to(self.device) for name, tensor in settled.items()}
        self.architecture.check_inputs(module, tensors, placed, force=force)
        return _Call(module, tensors, placed)

    def rollout(
        self,
        inputs: Inputs,
        steps: int,
        *,
        context: Mapping[str, Tensor | float] | None = None,
        key: str | None = None,
        force: bool = False,
    ) -> Iterator[Tensor]:
        """The outputs of `steps` successive applications.

        An architecture may have a form of its own for them, which computes in the dtype of the inputs. Otherwise each is
        fed back through the task's `advance`, and a cassette with float64 weights is then rolled out in float64 where its
        signature admits that, since rounding would be fed back at every step; the outputs have the dtype of the inputs
        all the same. Raises `UsageError` for a number of steps that is none.
        """
        if not isinstance(steps, int) or steps < 0:
            raise UsageError(f"{printable(repr(steps), 40)} steps", expected="a whole number from 0 on")
        if self.members or key is not None:
            yield from self._answering(inputs, key).rollout(inputs, steps, context=context, force=force)
            return
        task = self.task
        if not isinstance(inputs, Tensor) and len(self.signature.inputs) == 1:
            (inputs,) = contract.named_inputs(self.signature, (), inputs).values()
        call = self._checked(inputs, context, force=force)
        own = self.architecture.rollout(call.module, call.tensors, call.context)
        if own is not None:
            yield from _taken(own, steps)
            return
        narrow = self._is_exact and all(tensor.dtype == torch.float32 for tensor in tensors_of(inputs))
        if narrow:
            inputs = map_tensors(inputs, Tensor.double)
        for _ in range(steps):
            outputs = self.predict(inputs, context, force=force)
            yield outputs.float() if narrow else outputs
            inputs = task.advance(inputs, outputs)

    @property
    def _is_exact(self) -> bool:
        """Whether all floating weights are float64 and every input may be."""
        weights = [real_dtype(tensor.dtype) for tensor in self.tensors.values() if is_inexact(tensor)]
        admitted = all("float64" in spec.dtypes for spec in self.signature.inputs)
        return admitted and bool(weights) and set(weights) == {torch.float64}

    def to(self, device: torch.device | str, dtype: str | None = None) -> Cassette:
        """The same cassette on another device, and measured in another of its listed dtypes.

        float32 and float64 also mean the complex dtype of that precision where the inputs are complex.
        """
        return Cassette(self.manifest, self.tensors, plugins=self.plugins, device=device, dtype=dtype)

    def placed(self, member: Cassette) -> Cassette:
        """A member on this cassette's device, in the dtype that this one was moved to if any."""
        return member if self._dtype is None else member.to(self.device, self._dtype)

    def with_certificate(self, certificate: Certificate) -> Cassette:
        """The same network with another certificate."""
        return self._with(self.manifest.replace(certificate=certificate))

    def with_extra(self, extra: Mapping[str, Any]) -> Cassette:
        """The same network with these free fields in its manifest."""
        return self._with(self.manifest.replace(extra=dict(extra)))

    def save(self, library: Where = None) -> Cassette:
        """Write the cassette to the library as the next version of its name; returns it with that version."""
        target = workspace(library).library.target
        return self._with(saving.save(target.path, self.manifest, packing.pack(self.tensors)))

    def _with(self, manifest: Manifest) -> Cassette:
        other = Cassette(manifest, {}, plugins=self.plugins, device=self.device, dtype=self._dtype)
        other.tensors, other._modules = self.tensors, self._modules
        return other


@dataclass(frozen=True)
class _Call:
    """A network and the checked inputs and context that it is called with, on its device."""

    module: nn.Module
    tensors: list[Tensor]
    context: Mapping[str, Tensor]


def _takes(member: Cassette, inputs: Sequence[Tensor], named: Mapping[str, Any]) -> None:
    routing.takes(member.signature, inputs, named)


def _taken(outputs: Iterator[Tensor], steps: int) -> Iterator[Tensor]:
    """The first `steps` of an endless rollout, computed outside autograd; small ones some steps ahead, which costs less."""
    left, ahead = steps, 1
    while left:
        with torch.inference_mode():
            found = list(islice(outputs, min(ahead, left)))
        yield from found
        left -= len(found)
        ahead = max(1, min(2 * ahead, AHEAD // found[0].numel()))


def _counterpart(dtype: str, listed: Sequence[str]) -> str:
    """`dtype`, or the complex (or real) dtype of its precision where only that is listed."""
    kinds = {"float32": "complex64", "float64": "complex128", "complex64": "float32", "complex128": "float64"}
    other = kinds.get(dtype, dtype)
    return other if dtype not in listed and other in listed else dtype


def _ordinary(tensor: Tensor) -> Tensor:
    """The tensor without its history, usable in autograd even where it was made in inference mode."""
    if tensor.is_inference():
        with torch.inference_mode(False):
            return tensor.clone()
    return tensor.detach()


def load(ref: str | Entry, *, library: Where = None, device: torch.device | str = "cpu") -> Cassette:
    """The cassette that a reference means, its bytes verified and its tensors compared with what its architecture builds.

    Raises `NotFound`, children of `CassetteError`, or `Incompatible` when the plugin that builds it is missing,
    and `UsageError` for a GPU that torch does not see.
    """
    if torch.device(device).type == "cuda":
        choose_device("cuda", 0)
    place = workspace(library)
    entry = place.library.find(ref) if isinstance(ref, str) else ref
    stored = store.read(entry.folder)
    return from_stored(stored.manifest, stored.weights, plugins=place.plugins, device=device)


def from_stored(
    manifest: Manifest, data: bytes, *, plugins: PluginHost, device: torch.device | str = "cpu"
) -> Cassette:
    """A cassette from a manifest and the verified bytes of its weights; the network is built and compared at once."""
    cassette = Cassette(manifest, packing.unpack(data), plugins=plugins, device=device)
    cassette.module  # noqa: B018  (building it is the check)
    architecture, config = cassette.architecture, manifest.architecture.config
    architecture.check_tensors(config, cassette.tensors)
    if found := stated_otherwise(manifest.signature, architecture.signature(config)):
        raise BadManifest(f"{manifest.ref} states another signature than its network has: {'; '.join(found)}")
    return cassette


def stated_otherwise(stated: Signature, built: Signature) -> list[str]:
    """Where the signature that a manifest states is not the one that its network has, in words."""
    required = [variable.name for variable in stated.context if variable.required]
    lost = [f"context variable '{v.name}' is required" for v in built.context if v.required and v.name not in required]
    return [*differences(stated, built), *lost]


def draft(
    name: str,
    *,
    task: Task,
    architecture: ArchitectureSpec,
    config: Mapping[str, Any],
    signature: Signature,
    tensors: Mapping[str, Tensor],
    provenance: Provenance,
    summary: str,
    plugins: PluginHost,
    extra: Mapping[str, Any] | None = None,
    components: tuple[Component, ...] = (),
    requires: Iterable[str] = (),
    citation: tuple[str, ...] = (),
) -> Cassette:
    """A new cassette, not yet certified or saved.

    It requires the distributions of its task, its architecture and further `components`, and those in `requires`.
    """
    needed = {plugins.owner(spec).distribution for spec in (task.spec, architecture, *components)} | set(requires)
    manifest = Manifest(
        name=name,
        version=1,
        summary=summary,
        license="Apache-2.0",
        tags=(),
        task=TaskRef(task.spec.id, task.parameters),
        architecture=ArchitectureRef(architecture.id, architecture.version, config),
        inputs=signature.inputs,
        outputs=signature.outputs,
        context=signature.context,
        weights=WeightsRef("weights.safetensors", 1, "0" * 64, packing.count_parameters(tensors)),
        certificate=UNCERTIFIED,
        provenance=provenance,
        requires=Requires(tuple(sorted(needed))),
        citation=citation,
        extra=extra or {},
    )
    data = packing.pack(tensors)
    return Cassette(saving.with_weights(manifest, data), tensors, plugins=plugins)


def software(plugins: PluginHost, *specs: Component) -> Software:
    """The versions of grokkit, torch and the plugins behind these specs, for a manifest."""
    owners = {plugins.owner(spec) for spec in specs}
    return Software(
        _grokkit_version(), torch.__version__.partition("+")[0], {p.distribution: p.version for p in owners}
    )


def now() -> str:
    """The time as a manifest writes it, UTC to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def torch_dtype(name: str) -> torch.dtype:
    """The torch dtype of a signature's dtype name."""
    found = getattr(torch, name)
    assert isinstance(found, torch.dtype)
    return found


def _grokkit_version() -> str:
    from importlib.metadata import version

    return version("grokkit")
