"""The manifest of a cassette: what it computes, for which inputs, how well, how that was checked, where it came from."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Annotated, Any, Literal

from grokkit_core import names, strictjson
from grokkit_core.errors import BadManifest, HashMismatch, SchemaUnsupported, UsageError
from grokkit_core.notebook import Sheet, Shown, card
from grokkit_core.records import at_least, at_most, at_most_items, from_json, matching, to_json
from grokkit_core.tensors import ContextSpec, Signature, TensorSpec
from grokkit_core.text import printable

SCHEMA = 1
MAX_BYTES = 256 * 1024
MAX_CURVE_ROWS = 512
WEIGHTS = "weights.safetensors"
COMPOSITE = "composite"
"""The task of cassettes that hold members of several tasks."""

Verdict = Literal["exact", "bounded", "estimated", "failed"]
VERDICTS: tuple[Verdict, ...] = ("exact", "bounded", "estimated", "failed")
"""From strongest to weakest."""

Method = Literal["exhaustive", "algebraic", "interval", "operator-norm", "sampled", "inherited"]
Level = Literal["quick", "full"]
Count = Annotated[int, at_least(0)]
Positive = Annotated[int, at_least(1)]
Version = Annotated[int, at_least(1), at_most(names.MAX_VERSION)]
NonNegative = Annotated[float, at_least(0.0)]
CassetteName = Annotated[str, matching(names.is_name, "a cassette name")]
Digest = Annotated[str, matching(names.is_digest, "sha256:<64 hex digits>")]
Sha256 = Annotated[str, matching(lambda text: names.is_digest("sha256:" + text), "64 hex digits")]


@dataclass(frozen=True)
class TaskRef:
    """The task's id and the constants of its law."""

    id: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True)
class ArchitectureRef:
    """The architecture's id, its version and the config from which it is built."""

    id: str
    version: Positive
    config: Mapping[str, Any]


@dataclass(frozen=True)
class WeightsRef:
    """Size and hash of the weights file, and the number of parameters in it."""

    file: Literal["weights.safetensors"]
    bytes: Positive
    sha256: Sha256
    parameters: Count


@dataclass(frozen=True)
class Bound:
    """A proved upper limit, rounded up."""

    name: str
    value: float
    unit: str


@dataclass(frozen=True)
class Metric:
    """A measured figure with its standard error, interval and sample size, at one context."""

    name: str
    value: float
    unit: str
    stderr: NonNegative
    interval: Annotated[tuple[float, ...], lambda pair: "" if len(pair) == 2 else "two numbers"]
    confidence: float
    n: Positive
    where: Mapping[str, Any]


@dataclass(frozen=True)
class Baseline:
    """The same metric of a baseline, on the same samples."""

    name: str
    metric: str
    value: float
    where: Mapping[str, Any]


@dataclass(frozen=True)
class Certificate:
    """How well a cassette computes its law, and how that is known."""

    verdict: Verdict
    statement: str
    domain: str
    method: Method
    formula: tuple[str, ...]
    bounds: tuple[Bound, ...]
    metrics: tuple[Metric, ...]
    baselines: tuple[Baseline, ...]
    seed: int
    dtype: str
    level: Level


@dataclass(frozen=True)
class RecipeRef:
    """The recipe's id and every one of its settings."""

    id: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True)
class Curve:
    """The training curve: named columns, at most 512 rows."""

    columns: tuple[str, ...]
    rows: Annotated[tuple[tuple[float, ...], ...], at_most_items(MAX_CURVE_ROWS)]


def _rectangular(curve: Curve) -> str:
    """A check that every row of a curve has a value for each column."""
    return "" if all(len(row) == len(curve.columns) for row in curve.rows) else "rows as wide as the columns"


@dataclass(frozen=True)
class Parent:
    """A cassette that this one was made from."""

    name: CassetteName
    version: Version
    digest: Digest


@dataclass(frozen=True)
class Software:
    """The versions that made the cassette."""

    grokkit: str
    torch: str
    plugins: Mapping[str, Any]


@dataclass(frozen=True)
class Provenance:
    """Where a cassette came from: its recipe and seed, or its parents and operator or gate."""

    kind: Literal["trained", "grown", "composed"]
    recipe: RecipeRef | None
    seed: int | None
    steps: Count | None
    grok_step: Count | None
    curve: Annotated[Curve, _rectangular]
    operator: Mapping[str, Any] | None
    gate: Mapping[str, Any] | None
    parents: tuple[Parent, ...]
    software: Software
    created: str


@dataclass(frozen=True)
class Requires:
    """The distributions whose plugins are needed to build the network."""

    plugins: tuple[str, ...]


@dataclass(frozen=True)
class Manifest(Shown):
    """A parsed manifest. `digest` is the identity of the cassette: it covers every field and, through their hash, the weights."""

    name: CassetteName
    version: Version
    summary: str
    license: str
    tags: tuple[str, ...]
    task: TaskRef
    architecture: ArchitectureRef
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    context: tuple[ContextSpec, ...]
    weights: WeightsRef
    certificate: Certificate
    provenance: Provenance
    requires: Requires
    citation: tuple[str, ...] = ()
    extra: Mapping[str, Any] = dataclasses.field(default_factory=lambda: MappingProxyType({}))

    @cached_property
    def signature(self) -> Signature:
        """Inputs, outputs and context variables together."""
        return Signature(self.inputs, self.outputs, self.context)

    @property
    def ref(self) -> str:
        """`name@version`."""
        return f"{self.name}@{self.version}"

    @property
    def digest(self) -> str:
        """`sha256:` and the hash of the canonical manifest without its digest field."""
        return _digest(self._body())

    def _sheet(self) -> Sheet:
        return card(self)

    def _body(self) -> dict[str, Any]:
        return {"schema": SCHEMA, **to_json(_fields(self))}

    def to_json(self) -> dict[str, Any]:
        """The manifest as a JSON value, digest included."""
        body = self._body()
        return {**body, "digest": _digest(body)}

    def to_bytes(self) -> bytes:
        """The canonical bytes of `manifest.json`."""
        return strictjson.canonical(self.to_json())

    def replace(self, **changes: Any) -> Manifest:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def parent(self) -> Parent:
        """This cassette as an entry of another one's `parents`."""
        return Parent(self.name, self.version, self.digest)

    @classmethod
    def parse(cls, data: bytes) -> Manifest:
        """Read the bytes of a `manifest.json`: canonical form, digest, schema number, then every field.

        Raises `BadManifest`, `HashMismatch`, `TooLarge` (exit 3) or `SchemaUnsupported` (exit 4).
        """
        value = strictjson.parse(data)
        if not isinstance(value, dict) or strictjson.canonical(value) != data:
            raise BadManifest("manifest is not in canonical form", hint="restore it from its source")
        recorded = value.pop("digest", None)
        if recorded != _digest(value):
            raise HashMismatch("the manifest was altered: its digest does not match", hint="restore it from its source")
        schema = value.pop("schema", None)
        if type(schema) is not int or schema < 1:
            raise BadManifest(
                f"manifest.schema is {printable(repr(schema), 60)}", expected=f"an integer from 1 to {SCHEMA}"
            )
        if schema > SCHEMA:
            raise SchemaUnsupported(
                f"the manifest has schema {schema}", expected=f"at most {SCHEMA}", hint="upgrade grokkit"
            )
        manifest = from_json(cls, value)
        try:
            manifest.signature  # noqa: B018  (building it checks that names are distinct)
        except UsageError as error:
            raise BadManifest(f"manifest: {error}") from None
        return manifest


def _fields(record: Manifest) -> dict[str, Any]:
    return {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}


def _digest(body: Mapping[str, Any]) -> str:
    return "sha256:" + hashlib.sha256(strictjson.canonical(body)).hexdigest()
