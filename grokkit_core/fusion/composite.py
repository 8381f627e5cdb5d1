"""Compositions of several tasks: members that keep their own task, signature and certificate, behind one cassette.

What a router and a superposition share; they differ in how the members' tensors lie in the weights file.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from grokkit_core import packing, strictjson
from grokkit_core.architecture import Architecture
from grokkit_core.building import build_module
from grokkit_core.cassette import Cassette, draft, software, stated_otherwise
from grokkit_core.dtypes import is_inexact
from grokkit_core.errors import BadWeights, Incompatible, NotFound, PluginError, TooLarge, UsageError
from grokkit_core.fusion.fusion import Fusion, FusionPlan, composed_from, labels
from grokkit_core.fusion.gate import Calibration, Gate
from grokkit_core.fusion.inherited import inherited
from grokkit_core.fusion.nesting import ENSEMBLE, MAX_NESTING, expanded, nesting
from grokkit_core.fusion.parts import MAX_MEMBERS, Part, parse_parts
from grokkit_core.fusion.routing import Collision, collisions
from grokkit_core.manifest import COMPOSITE, MAX_BYTES, Manifest
from grokkit_core.records import to_json
from grokkit_core.specs import ArchitectureSpec
from grokkit_core.tensors import Signature
from grokkit_core.text import printable

if TYPE_CHECKING:
    from grokkit_core.benchmark import Row

FEWER = "each member brings its certificate and signature: compose fewer"
NO_SIGNATURE = Signature((), ())


class CompositeArchitecture(Architecture):
    """Members of several tasks in one weights file. Its network only holds their tensors; the members compute."""

    composite = True

    @abstractmethod
    def layout(self, parts: Sequence[Part], tensors: Sequence[Mapping[str, Tensor]]) -> dict[str, Any]:
        """What the config says of where each member's tensors (by name, in the order of its layers) lie in the file."""

    @abstractmethod
    def packed(self, config: Mapping[str, Any], tensors: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """The tensors of the file, given each member's own; those without values give shapes and dtypes alone."""

    @abstractmethod
    def unpacked(self, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
        """Each member's own tensors, views in the order of the config; raises `BadWeights` where the file has too few."""

    @abstractmethod
    def empty(self, config: Mapping[str, Any], parts: Sequence[Part]) -> list[dict[str, Tensor]]:
        """Each member's tensors without values: names and shapes that its architecture builds, dtypes as they are stored."""

    def check(self, config: Mapping[str, Any]) -> None:
        """Raise for malformed entries, members that cannot be built, or a config that is not the one they give."""
        parts = parse_parts(config)
        for part in parts:
            if part.depth > MAX_NESTING:
                raise UsageError(f"member '{part.key}' is nested {part.depth} deep", expected=f"at most {MAX_NESTING}")
            architecture = self.architecture_of(part)
            architecture.check(architecture.settled(part.config))
            if found := stated_otherwise(part.signature, architecture.signature(part.config)):
                raise UsageError(f"the signature of member '{part.key}' is not its network's: {'; '.join(found)}")
        for name, wanted in self.layout(parts, self.empty(config, parts)).items():
            if config[name] != wanted:
                raise UsageError(f"config.{name} is not what the members give: {_apart(config[name], wanted)}")

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        """A module that holds the tensors under their names in the file, and is never called."""
        return _Held(self.packed(config, self.empty(config, parse_parts(config))))

    def signature(self, config: Mapping[str, Any]) -> Signature:
        """None of its own: each member has one."""
        return NO_SIGNATURE

    def check_tensors(self, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Raise `BadWeights` where a member's tensors are not those whose digest its entry records."""
        parts = parse_parts(config)
        for part, own in zip(parts, self.unpacked(config, tensors), strict=True):
            if packing.tensor_digest(own) != part.digest:
                raise BadWeights(f"the tensors of member '{part.key}' differ from their recorded digest")
            architecture = self.architecture_of(part)
            build_module(architecture, part.config, own)
            architecture.check_tensors(part.config, own)

    def members(self, cassette: Cassette) -> dict[str, Cassette]:
        """The members by key, as cassettes of one task each over views of the tensors."""
        config = cassette.manifest.architecture.config
        found = zip(parse_parts(config), self.unpacked(config, cassette.tensors), strict=True)
        return {
            part.key: Cassette(
                part.manifest(cassette.manifest, sum(tensor.nbytes for tensor in own.values())),
                own,
                plugins=cassette.plugins,
                device=cassette.device,
            )
            for part, own in found
        }

    def benchmark(self, cassette: Cassette, settings: Mapping[str, Any], *, recalibrate: bool) -> Iterable[Row]:
        """Each member's answer by key beside the member alone."""
        from grokkit_core.fusion.overhead import overhead

        return overhead(cassette)

    def architecture_of(self, part: Part) -> Architecture:
        """The installed architecture of a member; raises `PluginError` or `Incompatible` if there is none of its version."""
        try:
            found = self.plugins.architecture(part.architecture)
        except NotFound as error:
            raise PluginError(f"member '{part.key}' cannot be built: {error}") from error
        if found.spec.version != part.version:
            raise Incompatible(
                f"member '{part.key}' needs version {part.version} of {part.architecture}",
                expected=f"version {found.spec.version}, which is installed",
            )
        return found

    def states(self, parts: Sequence[Part]) -> list[dict[str, Tensor]]:
        """The tensors that each member's architecture builds, on the meta device, complex ones as real views."""
        found = []
        for part in parts:
            architecture = self.architecture_of(part)
            with torch.device("meta"):
                state = architecture.build(architecture.settled(part.config)).state_dict()
            found.append({name: stored(tensor) for name, tensor in state.items()})
        return found


class _Held(nn.Module):
    """Tensors by name, dots included."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        for name, tensor in tensors.items():
            *path, last = name.split(".")
            place: nn.Module = self
            for part in path:
                if part not in place._modules:
                    place.add_module(part, nn.Module())
                place = place._modules[part]  # type: ignore[assignment]
            place.register_buffer(last, tensor)


def _apart(given: Any, wanted: Any) -> str:
    """The first item in which a list of the config differs, in words."""
    if not isinstance(given, list):
        return "it is no list"
    pairs = zip(given, wanted, strict=False)
    index = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(given), len(wanted)))
    shown = [printable(repr(items[index]), 160) if index < len(items) else "nothing" for items in (given, wanted)]
    return f"entry {index} is {shown[0]} against {shown[1]}"


def stored(tensor: Tensor) -> Tensor:
    """A tensor as a weights file keeps it: a complex one as a real view with a last axis of two."""
    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor


def part_of(key: str, cassette: Cassette) -> Part:
    """The entry of a cassette of one task; one out of another composition keeps the source that it has there."""
    manifest = cassette.manifest
    reference = manifest.architecture
    return Part(
        key=key,
        source=manifest.provenance.parents[0] if "/" in key else manifest.parent(),
        summary=manifest.summary,
        task=manifest.task,
        architecture=reference.id,
        version=reference.version,
        config=reference.config,
        inputs=manifest.inputs,
        outputs=manifest.outputs,
        context=manifest.context,
        certificate=manifest.certificate,
        parameters=manifest.weights.parameters,
        digest=packing.tensor_digest(cassette.tensors),
    )


def without_others(cassette: Cassette, key: str) -> Cassette:
    """The composition with every number of the other members set to NaN, whole numbers to their least value.

    If the member `key` still gives what it gave, it reads no number of theirs.
    """
    architecture, config = cassette.architecture, cassette.manifest.architecture.config
    assert isinstance(architecture, CompositeArchitecture)
    found = zip(cassette.members, architecture.unpacked(config, cassette.tensors), strict=True)
    spoilt = [own if name == key else {n: _spoilt(t) for n, t in own.items()} for name, own in found]
    return Cassette(
        cassette.manifest, architecture.packed(config, spoilt), plugins=cassette.plugins, device=cassette.device
    )


def _spoilt(tensor: Tensor) -> Tensor:
    if is_inexact(tensor):
        return torch.full_like(tensor, torch.nan)
    return (
        torch.zeros_like(tensor)
        if tensor.dtype == torch.bool
        else torch.full_like(tensor, torch.iinfo(tensor.dtype).min)
    )


class CompositeFusion(Fusion):
    """Two or more cassettes of any tasks behind one, each answering what its own signature takes."""

    def plan(self, members: Sequence[Manifest], gate: str | None, **options: Any) -> FusionPlan:
        """Members of a composition take its place, so that there is one level; pairs that need a key are listed."""
        if len(members) < 2:
            raise UsageError(f"{len(members)} cassette(s) to compose", expected="two or more")
        if options:
            raise UsageError(f"settings {printable(', '.join(options), 80)}", expected=f"none for {self.spec.id}")
        offered = dict(_offered(members))
        if len(offered) > MAX_MEMBERS:
            raise Incompatible(f"{len(offered)} members", expected=f"at most {MAX_MEMBERS}")
        for key, (_, depth) in offered.items():
            if depth > MAX_NESTING:
                raise Incompatible(f"'{key}' would be nested {depth} deep", expected=f"at most {MAX_NESTING}")
        found = collisions({key: signature for key, (signature, _) in offered.items()})
        return FusionPlan(
            self.spec.id,
            None,
            labels(members),
            tuple(members),
            NO_SIGNATURE,
            notes=_notes(len(offered), found),
            task=COMPOSITE,
            collisions=found,
        )

    def compose(
        self,
        members: Sequence[Cassette],
        plan: FusionPlan,
        *,
        gate: Gate | None = None,
        batches: Calibration | None = None,
        seed: int,
        name: str,
    ) -> Cassette:
        """Put the members' tensors into one file. Their certificates carry over, since the bytes are the same."""
        plugins = members[0].plugins
        spec = plugins.spec(ArchitectureSpec, f"grokkit_core/{self.spec.id}")
        architecture = plugins.architecture(spec.id)
        assert isinstance(architecture, CompositeArchitecture)
        found = dict(inside(members, plan.members))
        parts = [part_of(key, member) for key, member in found.items()]
        orders = architecture.states(parts)
        tensors = [
            {name: stored(member.tensors[name]).to("cpu") for name in order}
            for member, order in zip(found.values(), orders, strict=True)
        ]
        layout = architecture.layout(parts, tensors)
        config = {"members": [to_json(part) for part in parts], **layout}
        components = (spec, *(p.spec for member in found.values() for p in (member.architecture, member.task)))
        task = plugins.task(COMPOSITE)
        provenance = composed_from(members, seed, software(plugins, task.spec, *components))
        made = draft(
            name,
            task=task,
            architecture=spec,
            config=config,
            signature=NO_SIGNATURE,
            tensors=architecture.packed(config, tensors),
            provenance=provenance,
            summary=_summary(self.spec.id, parts),
            plugins=plugins,
            components=components,
            requires=[name for member in members for name in member.manifest.requires.plugins],
        )
        made = made.with_certificate(inherited({part.key: part.certificate for part in parts}))
        _check_size(made.manifest, len(parts))
        return made


def _check_size(manifest: Manifest, members: int) -> None:
    """Raise `Incompatible` where the members' certificates and signatures are more than a manifest may hold."""
    data = manifest.to_bytes()
    try:
        strictjson.parse(data)
    except TooLarge as error:
        raise Incompatible(f"{members} members make a manifest that cannot be read: {error}", hint=FEWER) from None
    if len(data) > MAX_BYTES:
        raise Incompatible(
            f"{members} members make a manifest of {len(data):,} bytes", expected=f"at most {MAX_BYTES:,}", hint=FEWER
        )


def _summary(fusion: str, parts: Sequence[Part]) -> str:
    tasks = ", ".join(dict.fromkeys(part.task.id for part in parts))
    return f"{fusion} of {len(parts)} cassettes: {tasks}"[:200]


def _offered(members: Sequence[Manifest]) -> Iterator[tuple[str, tuple[Signature, int]]]:
    """The members that a composition will have, by key: the signature and the depth of each."""
    for label, manifest in zip(labels(members), members, strict=True):
        if manifest.task.id == COMPOSITE:
            for part in parse_parts(manifest.architecture.config):
                yield f"{label}/{part.key}", (part.signature, part.depth + 1)
        else:
            reference = manifest.architecture
            inner = nesting(expanded(reference.config)) if reference.id == ENSEMBLE else 0
            yield label, (manifest.signature, 1 + inner)


def inside(members: Sequence[Cassette], keys: Sequence[str]) -> Iterator[tuple[str, Cassette]]:
    """The cassettes of one task, by key, those inside a composition in its place."""
    for label, member in zip(keys, members, strict=True):
        if member.members:
            yield from ((f"{label}/{key}", inner) for key, inner in member.members.items())
        else:
            yield label, member


def _notes(count: int, found: Sequence[Collision]) -> tuple[str, ...]:
    """What the user should know of members that share inputs."""
    if not found:
        return (f"{count} members, no input fits two of them: no key is ever needed",)
    groups: list[set[str]] = []
    for pair in found:
        touched = [group for group in groups if pair.first in group or pair.second in group]
        groups = [group for group in groups if group not in touched]
        groups.append({pair.first, pair.second}.union(*touched))
    told = "; ".join(", ".join(sorted(group)) for group in groups)
    pairs = "1 pair takes" if len(found) == 1 else f"{len(found)} pairs take"
    return (f"{pairs} some inputs in common, which need a key there, among: {told}",)
