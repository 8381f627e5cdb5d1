"""Prediction-level ensembles: frozen members of one task and a gate, as one cassette that needs no parent."""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, cast

import torch
from torch import Tensor, nn

from grokkit_core import packing
from grokkit_core.architecture import Architecture
from grokkit_core.building import aligned, build_module
from grokkit_core.cassette import Cassette, draft, software
from grokkit_core.errors import BadManifest, BadWeights, Incompatible, UsageError
from grokkit_core.fusion.batched import Batched, batched, rows
from grokkit_core.fusion.fusion import Fusion, FusionPlan, composed_from, gate_variable, labels, shared_signature
from grokkit_core.fusion.gate import Calibration, Gate, GateState
from grokkit_core.fusion.gates import mix
from grokkit_core.fusion.nesting import ENSEMBLE, MAX_NESTING, expanded, flat, nesting
from grokkit_core.manifest import Digest, Manifest, Positive
from grokkit_core.records import at_least, at_most, from_json, to_json
from grokkit_core.specs import ArchitectureSpec, Component, GateSpec, settle
from grokkit_core.strictjson import canonical
from grokkit_core.tensors import ContextSpec, Signature, common

MAX_ENTRIES = 256
MAX_COUNT = 1_000_000
GATE_PREFIX = "gate."
GATE_WEIGHTS = GATE_PREFIX + "weights"
"""Name of the weights of gates that are solved: "member", or "knot member *out"."""

_PREFIX = re.compile(r"m[0-9]{1,4}\.")
Architectures = Mapping[str, Architecture]


@dataclass(frozen=True)
class MemberEntry:
    """Members of equal architecture and config: how to build one, how many, and where their stacked tensors lie."""

    key: str
    architecture: str
    version: Positive
    config: Mapping[str, Any]
    count: Annotated[int, at_least(1), at_most(MAX_COUNT)]
    digest: Digest
    prefix: str


@dataclass(frozen=True)
class GateEntry:
    """The gate of an ensemble: its id, the context variable it reads, its fitted config."""

    id: str
    variable: str
    config: Mapping[str, Any]


def parse_config(config: Mapping[str, Any]) -> tuple[tuple[MemberEntry, ...], GateEntry]:
    """The typed form of an ensemble's config, inner ensembles in place; raises `BadManifest`."""
    config = expanded(config)
    members = from_json(tuple[MemberEntry, ...], config["members"], "config.members")
    gate = from_json(GateEntry, config["gate"], "config.gate")
    prefixes = [entry.prefix for entry in members]
    if not all(map(_PREFIX.fullmatch, prefixes)) or len(set(prefixes)) != len(prefixes):
        raise BadManifest("config.members have bad or repeated prefixes", expected="m0., m1., ...")
    if not 1 <= len(members) <= MAX_ENTRIES:
        raise BadManifest(f"config.members has {len(members)} entries", expected=f"1 to {MAX_ENTRIES}")
    return members, gate


class EnsembleArchitecture(Architecture):
    """Builds a fused network from its members' own architectures and its gate, all of which must be installed."""

    reads_context = True

    def check(self, config: Mapping[str, Any]) -> None:
        """Raise for malformed entries or nesting deeper than eight."""
        config = expanded(config)
        if nesting(config) > MAX_NESTING:
            raise UsageError(f"ensembles nested {nesting(config)} deep", expected=f"at most {MAX_NESTING}")
        members, gate = parse_config(config)
        for entry in members:
            architecture = self._architecture(entry)
            architecture.check(_settled(architecture, entry))
        for name, wanted in (("members", sum(entry.count for entry in members)), ("variable", gate.variable)):
            if gate.config.get(name, wanted) != wanted:
                raise UsageError(f"gate {gate.id} with {name} = {gate.config[name]!r:.60}", expected=repr(wanted))

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        """The ensemble with stacked member parameters; raises `PluginError` for what is not installed."""
        members, gate = parse_config(config)
        stacks = {entry.prefix[:-1]: Stack(self._architecture(entry), entry) for entry in members}
        state = GateState(gate.config)
        return Ensemble(stacks, self.plugins.gate(gate.id).build(state))

    def signature(self, config: Mapping[str, Any]) -> Signature:
        """What all members accept; the gate's context variable is required."""
        members, gate = parse_config(config)
        shared = common([self._architecture(entry).signature(entry.config) for entry in members])
        return requiring(shared, gate.variable)

    def check_inputs(
        self, module: nn.Module, inputs: Sequence[Tensor], context: Mapping[str, Tensor], *, force: bool
    ) -> None:
        """What any member refuses is refused."""
        assert isinstance(module, Ensemble)
        for stack in module.in_order():
            stack._check_inputs(inputs, context, force=force)

    def exportable(self, module: nn.Module) -> nn.Module:
        """The same, with the network of every member built: a tracer sees them one by one."""
        assert isinstance(module, Ensemble)
        module.prepare()
        return module

    def check_tensors(self, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Raise `BadWeights` where a member's tensors are not those whose digest the manifest records, or a gate's are
        no weights.
        """
        members, gate = parse_config(config)
        own_gate = {name.removeprefix(GATE_PREFIX): t for name, t in tensors.items() if name.startswith(GATE_PREFIX)}
        self.plugins.gate(gate.id).check(GateState(gate.config, own_gate))
        for entry in members:
            own = {name: tensor for name, tensor in tensors.items() if name.startswith(entry.prefix)}
            if packing.tensor_digest(own) != entry.digest:
                raise BadWeights(f"the tensors of member '{entry.key}' differ from their recorded digest")
            architecture = self._architecture(entry)
            if type(architecture).check_tensors is Architecture.check_tensors:
                continue
            for index in range(entry.count):
                plain = {name.removeprefix(entry.prefix): tensor for name, tensor in own.items()}
                alone = {name: part_of(entry, name, tensor, index) for name, tensor in plain.items()}
                architecture.check_tensors(entry.config, alone)

    def _architecture(self, entry: MemberEntry) -> Architecture:
        found = self.plugins.architecture(entry.architecture)
        if found.spec.version != entry.version:
            raise Incompatible(
                f"member '{entry.key}' needs version {entry.version} of {entry.architecture}",
                expected=f"version {found.spec.version}, which is installed",
            )
        return found


def _settled(architecture: Architecture, entry: MemberEntry) -> dict[str, Any]:
    return settle(architecture.spec.config, entry.config, f"member '{entry.key}'")


def _like(own: Tensor, stacked: Tensor) -> Tensor:
    """Stacked tensors as the network holds its own: complex where their real view is stored."""
    return torch.view_as_complex(stacked) if own.is_complex() and not stacked.is_complex() else stacked


def requiring(signature: Signature, variable: str) -> Signature:
    """The signature with one context variable made required."""
    context = [ContextSpec(v.name, v.unit, v.domain, v.required or v.name == variable) for v in signature.context]
    return signature.with_context(context)


class Stack(nn.Module):
    """The tensors of `count` networks of one architecture, each with a leading axis, and the networks over them.

    Its own attributes start with an underscore: every other name may be that of a member's tensor or submodule.
    """

    def __init__(self, architecture: Architecture, entry: MemberEntry) -> None:
        super().__init__()
        self._architecture, self._entry = architecture, entry
        self._signature = architecture.signature(entry.config)
        self._built: list[nn.Module] | None = None
        self._prepared, self._together = False, cast(Batched | None, None)
        template = architecture.build(_settled(architecture, entry))
        for name, tensor in template.state_dict().items():
            own = list(tensor.shape)
            shape = [entry.count * own[0], *own[1:]] if is_stacked(entry.architecture, name) else [entry.count, *own]
            self._hold(name, torch.empty(shape, dtype=tensor.dtype, device=tensor.device))

    def _hold(self, name: str, tensor: Tensor) -> None:
        """Register a tensor under its dotted name."""
        *path, last = name.split(".")
        place: nn.Module = self
        for part in path:
            if part not in place._modules:
                place.add_module(part, nn.Module())
            place = place._modules[part]  # type: ignore[assignment]
        place.register_buffer(last, tensor)

    def _networks(self) -> list[nn.Module]:
        """One network a member, over views of the stacked tensors; built when first needed."""
        if self._built is None:
            state = self.state_dict()
            with torch.inference_mode(False):
                self._built = [self._network(state, index) for index in range(self._entry.count)]
        return self._built

    def _network(self, state: Mapping[str, Tensor], index: int) -> nn.Module:
        own = {name: aligned(part_of(self._entry, name, tensor, index)) for name, tensor in state.items()}
        return build_module(self._architecture, self._entry.config, own)

    def _batched(self) -> Batched | None:
        """The members as one computation, prepared when first needed; None where there is none, or one member."""
        if not self._prepared:
            if self._entry.count > 1 and self._entry.architecture != ENSEMBLE:
                with torch.inference_mode(False), torch.no_grad():
                    network = self._network(self.state_dict(), 0)
                    config = _settled(self._architecture, self._entry)
                    names = network.state_dict()
                    tensors = {n: _like(names[n], tensor) for n, tensor in self.state_dict().items()}
                    self._together = batched(self._architecture, config, tensors, network)
            self._prepared = True
        return self._together

    def _check_inputs(self, inputs: Sequence[Tensor], context: Mapping[str, Tensor], *, force: bool) -> None:
        """Raise `Incompatible` for inputs that one of the members does not answer."""
        if type(self._architecture).check_inputs is Architecture.check_inputs:
            return
        for network in self._networks():
            self._architecture.check_inputs(network, inputs, context, force=force)

    def forward(self, inputs: Sequence[Tensor], context: Mapping[str, Tensor]) -> Tensor:
        """The predictions "member batch *out", in one computation where `batched` says that it wins.

        A tracer sees the loop.
        """
        given = {"context": context} if self._architecture.reads_context else {}
        together = None if torch.compiler.is_compiling() else self._batched()
        if together is not None and together.wins(count := rows(self._signature, inputs)):
            return together.run(count, inputs, given)
        found = [network(*inputs, **given) for network in self._networks()]
        return found[0].unsqueeze(0) if len(found) == 1 else torch.stack(found)

    def _alone(self) -> list[tuple[Callable[..., Tensor], bool]]:
        """The `forward` of a stack's only network, and whether it reads context; empty for several members.

        Nobody else can hang a hook on these networks, so that a module's own call would only cost time.
        """
        reads = self._architecture.reads_context
        return [(network.forward, reads) for network in self._networks()] if self._entry.count == 1 else []

    def _prepare(self) -> None:
        """Build every network now, those of inner ensembles too."""
        for network in self._networks():
            if isinstance(network, Ensemble):
                network.prepare()


class Ensemble(nn.Module):
    """Members, a gate, and the weighted sum of the members' predictions."""

    def __init__(self, stacks: Mapping[str, Stack], gate: nn.Module) -> None:
        super().__init__()
        for name, stack in stacks.items():
            self.add_module(name, stack)
        self.stacks = tuple(stacks)
        self.gate = gate
        self._fused: Callable[..., Tensor | None] | None = getattr(gate, "fused", None)
        self._single: list[tuple[Callable[..., Tensor], bool]] | None = None

    def prepare(self) -> None:
        """Build every member's network, which is otherwise done when it is first needed: a tracer must find them built."""
        for stack in self.in_order():
            stack._prepare()

    def parts(self, *inputs: Tensor, context: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Predictions "member batch *out" and weights "member batch" or "member batch *out"."""
        found = self._found(inputs, context)
        predictions = found if isinstance(found, Tensor) else torch.stack(found)
        weights: Tensor = self.gate(inputs, context, predictions)
        return predictions, weights

    def forward(self, *inputs: Tensor, context: Mapping[str, Tensor]) -> Tensor:
        """The fused prediction "batch *out"."""
        found = self._found(inputs, context)
        if self._fused is not None and not torch.compiler.is_compiling():
            fused = self._fused(inputs, context, found)
            if fused is not None:
                return fused
        predictions = found if isinstance(found, Tensor) else torch.stack(found)
        return mix(self.gate(inputs, context, predictions), predictions)

    def _found(self, inputs: Sequence[Tensor], context: Mapping[str, Tensor]) -> Tensor | list[Tensor]:
        """The predictions of all members, "member batch *out", or one by one where each has a stack of its own."""
        if self._single is None:
            stacks = self.in_order()
            self._single = [pair for stack in stacks for pair in stack._alone()] if len(stacks) > 1 else []
        if len(self._single) == len(self.stacks):
            return [call(*inputs, context=context) if reads else call(*inputs) for call, reads in self._single]
        blocks = [stack.forward(inputs, context) for stack in self.in_order()]
        return blocks[0] if len(blocks) == 1 else torch.cat(blocks)

    def in_order(self) -> list[Stack]:
        """The stacks in the order of the config."""
        return [self._modules[name] for name in self.stacks]  # type: ignore[misc]


class EnsembleFusion(Fusion):
    """N >= 2 frozen members of one task, weighted by a gate."""

    def plan(self, members: Sequence[Manifest], gate: str | None, **options: Any) -> FusionPlan:
        """Compare signatures and the gate's needs; members of one architecture are put next to each other."""
        spec = self.plugins.spec(GateSpec, gate or "uniform")
        shared = shared_signature(members)
        variable = gate_variable(spec, members, shared, str(options.get("variable", "")))
        groups = _grouped(members)
        if len(groups) > MAX_ENTRIES:
            raise Incompatible(f"{len(groups)} different architectures", expected=f"at most {MAX_ENTRIES}")
        ordered = [manifest for group in groups.values() for manifest in group]
        depth = 1 + max((nesting(expanded(m.architecture.config)) for m in ordered if _is_ensemble(m)), default=0)
        if depth > MAX_NESTING:
            raise Incompatible(f"the composition would be nested {depth} deep", expected=f"at most {MAX_NESTING}")
        digests = [manifest.digest for manifest in members]
        counts = Counter(digests)
        repeated = sorted({m.ref for m, digest in zip(members, digests, strict=True) if counts[digest] > 1})
        notes = [f"{ref} is a member more than once; repeats share one opinion" for ref in repeated]
        chosen = self.plugins.gate(spec.id, **options)
        chosen.check_members(len(members))
        notes.extend(chosen.notes)
        return FusionPlan(
            self.spec.id,
            spec.id,
            labels(ordered),
            tuple(ordered),
            requiring(shared, variable),
            variable,
            options,
            tuple(notes),
        )

    def compose(
        self,
        members: Sequence[Cassette],
        plan: FusionPlan,
        *,
        gate: Gate | None,
        batches: Calibration | None,
        seed: int,
        name: str,
    ) -> Cassette:
        """Fit the gate on `batches` with the members frozen, and put everything into one cassette."""
        from grokkit_core.streams import stream

        assert gate is not None
        assert batches is not None
        predictors = [member.predict for member in members]
        state = gate.fit(predictors, batches, generator=stream(seed, "gate"))
        entries, tensors = _entries(members, plan.members)
        tensors |= {GATE_PREFIX + key: tensor for key, tensor in state.tensors.items()}
        architecture = self.plugins.spec(ArchitectureSpec, ENSEMBLE)
        own_gate = {"id": gate.spec.id, "variable": plan.variable, "config": dict(state.config)}
        config = flat({"members": [to_json(entry) for entry in entries], "gate": own_gate})
        components: tuple[Component, ...] = (architecture, gate.spec, *(member.architecture.spec for member in members))
        used = software(self.plugins, batches.task.spec, *components)
        provenance = composed_from(members, seed, used, gate_record(gate, batches, plan.variable))
        return draft(
            name,
            task=batches.task,
            architecture=architecture,
            config=config,
            signature=plan.signature,
            tensors=tensors,
            provenance=provenance,
            summary=f"{gate.spec.id} fusion of {', '.join(plan.members)}"[:200],
            plugins=self.plugins,
            components=components,
            requires=[name for member in members for name in member.manifest.requires.plugins],
        )


def gate_record(gate: Gate, batches: Calibration, variable: str) -> dict[str, Any]:
    """What provenance says of a gate: its options and the data it was fitted on."""
    return {
        "id": gate.spec.id,
        "variable": variable,
        "options": dict(gate.options),
        "contexts": [dict(place) for place in batches.places],
        "data": batches.digest,
    }


def _is_ensemble(manifest: Manifest) -> bool:
    return manifest.architecture.id == ENSEMBLE


def _grouped(manifests: Sequence[Manifest]) -> dict[bytes, list[Manifest]]:
    """Members by architecture, config and parameter count, in order of first appearance."""
    groups: dict[bytes, list[Manifest]] = {}
    for manifest in manifests:
        reference = manifest.architecture
        key = canonical([reference.id, reference.version, to_json(reference.config), manifest.weights.parameters])
        groups.setdefault(key, []).append(manifest)
    return groups


def _entries(members: Sequence[Cassette], keys: Sequence[str]) -> tuple[list[MemberEntry], dict[str, Tensor]]:
    """Member entries in plan order and their stacked tensors by full name."""
    entries: list[MemberEntry] = []
    tensors: dict[str, Tensor] = {}
    for index, (key, group) in enumerate(_runs(members, keys)):
        prefix = f"m{index}."
        reference = group[0].manifest.architecture
        stacked = {
            prefix + name: _together([m.tensors[name] for m in group], along=is_stacked(reference.id, name))
            for name in group[0].tensors
        }
        digest = packing.tensor_digest(stacked)
        entries.append(MemberEntry(key, reference.id, reference.version, reference.config, len(group), digest, prefix))
        tensors |= stacked
    return entries, tensors


def _together(tensors: Sequence[Tensor], *, along: bool) -> Tensor:
    """One tensor with a leading member axis, in the widest dtype of its own: what a member's digests cover stays as it is.

    `along` a member axis that they have already.
    """
    dtype = functools.reduce(torch.promote_types, (tensor.dtype for tensor in tensors))
    moved = [tensor.to("cpu", dtype) for tensor in tensors]
    return torch.cat(moved) if along else torch.stack(moved)


def is_stacked(architecture: str, name: str) -> bool:
    """Whether a tensor of a network has a member axis first: the members' tensors of an ensemble.

    Stacking ensembles lengthens it, so that no depth of nesting adds an axis.
    """
    return architecture == ENSEMBLE and _PREFIX.match(name) is not None


def part_of(entry: MemberEntry, name: str, tensor: Tensor, index: int) -> Tensor:
    """One member's own of an entry's stacked tensors: a view."""
    if not is_stacked(entry.architecture, name):
        return tensor[index]
    length = len(tensor) // entry.count
    return tensor[index * length : (index + 1) * length]


def _runs(members: Sequence[Cassette], keys: Sequence[str]) -> Iterator[tuple[str, list[Cassette]]]:
    """Neighbours of one architecture and config, with the label of the first; the plan has put them together."""
    position = 0
    for group in _grouped([member.manifest for member in members]).values():
        yield keys[position], list(members[position : position + len(group)])
        position += len(group)
