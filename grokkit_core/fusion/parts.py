"""Members of a composition of several tasks as its config keeps them. Nothing here needs torch, so a card can show them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any

from grokkit_core.errors import BadManifest
from grokkit_core.fusion.nesting import ENSEMBLE, expanded, nesting
from grokkit_core.manifest import (
    COMPOSITE,
    ArchitectureRef,
    Certificate,
    Count,
    Digest,
    Manifest,
    Parent,
    Positive,
    Requires,
    TaskRef,
    WeightsRef,
)
from grokkit_core.records import from_json, matching
from grokkit_core.tensors import ContextSpec, Signature, TensorSpec

MAX_MEMBERS = 256
_KEY = re.compile(r"[a-z0-9][a-z0-9@#-]{0,79}(/[a-z0-9][a-z0-9@#-]{0,79})*")
Key = Annotated[str, matching(lambda text: _KEY.fullmatch(text) is not None, "a name, or names joined by '/'")]


@dataclass(frozen=True)
class Part:
    """A member as the config of a composition keeps it: what a manifest says of it, and the digest of its tensors.

    `source` is the cassette that it was, `parameters` the number of its parameters.
    """

    key: Key
    source: Parent
    summary: str
    task: TaskRef
    architecture: str
    version: Positive
    config: Mapping[str, Any]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    context: tuple[ContextSpec, ...]
    certificate: Certificate
    parameters: Count
    digest: Digest

    @property
    def signature(self) -> Signature:
        """Its inputs, outputs and context variables."""
        return Signature(self.inputs, self.outputs, self.context)

    @property
    def depth(self) -> int:
        """How deep it is nested: 1 for a plain network in a composition."""
        inner = nesting(expanded(self.config)) if self.architecture == ENSEMBLE else 0
        return 1 + self.key.count("/") + inner

    def manifest(self, whole: Manifest, size: int) -> Manifest:
        """The manifest of this member taken out of the composition `whole`, its weights being `size` bytes."""
        provenance = replace(whole.provenance, parents=(self.source,))
        return Manifest(
            name=self.source.name,
            version=self.source.version,
            summary=self.summary,
            license=whole.license,
            tags=(),
            task=self.task,
            architecture=ArchitectureRef(self.architecture, self.version, self.config),
            inputs=self.inputs,
            outputs=self.outputs,
            context=self.context,
            weights=WeightsRef("weights.safetensors", size, "0" * 64, self.parameters),
            certificate=self.certificate,
            provenance=provenance,
            requires=Requires(whole.requires.plugins),
        )


def parse_parts(config: Mapping[str, Any]) -> tuple[Part, ...]:
    """The members in a composition's config; raises `BadManifest`."""
    parts = from_json(tuple[Part, ...], config.get("members"), "config.members")
    repeated = [key for key, count in Counter(part.key for part in parts).items() if count > 1]
    if repeated or not 1 <= len(parts) <= MAX_MEMBERS:
        given = f"repeat the key '{repeated[0]}'" if repeated else f"has {len(parts)} entries"
        raise BadManifest(f"config.members {given}", expected=f"1 to {MAX_MEMBERS} members with keys of their own")
    for part in parts:
        if part.task.id == COMPOSITE:
            raise BadManifest(f"member '{part.key}' is a composition itself", expected="its members in its place")
    return parts


def contexts(manifest: Manifest) -> tuple[ContextSpec, ...]:
    """The context variables that a cassette, or some member of it, reads."""
    if manifest.task.id != COMPOSITE:
        return manifest.context
    found = {variable.name: variable for part in parse_parts(manifest.architecture.config) for variable in part.context}
    return tuple(found.values())
