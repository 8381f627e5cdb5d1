"""What a plugin brings, as plain values. The code behind a spec stands as an import string and is loaded when it is used."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, Literal

from grokkit_core.errors import UsageError
from grokkit_core.tensors import Signature
from grokkit_core.text import nearest, printable

_BARE = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_OWNED = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?/[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_TARGET = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
REQUIRED: Any = object()
"""Default of a `Field` that has none."""

FieldType = Literal["int", "float", "bool", "str", "floats", "ints", "cassette", "json"]


@dataclass(frozen=True)
class Field:
    """One declared setting: of an architecture's config, a recipe, a gate, or a constant of a task's law.

    Values from manifests and from the command line are checked against type and range before anything is built.
    """

    name: str
    type: FieldType = "float"
    default: Any = REQUIRED
    low: float = -math.inf
    high: float = math.inf
    choices: tuple[str, ...] = ()
    help: str = ""

    @property
    def expected(self) -> str:
        """The admitted values, in words."""
        kinds = {"int": "an integer", "float": "a number", "bool": "true or false", "str": "a string"}
        kinds |= {"floats": "a list of numbers", "ints": "a list of integers", "cassette": "a cassette's name"}
        text = kinds.get(self.type, "a value")
        if self.choices:
            return "one of " + ", ".join(self.choices)
        if math.isfinite(self.low) and math.isfinite(self.high):
            return f"{text} from {self.low:g} to {self.high:g}"
        if math.isfinite(self.low):
            return f"{text} of at least {self.low:g}"
        if math.isfinite(self.high):
            return f"{text} of at most {self.high:g}"
        return text

    def admits(self, value: Any) -> bool:
        """Whether `value` has the declared type and lies in the declared range."""
        if self.type == "json":
            return True
        if self.type == "floats":
            return isinstance(value, (list, tuple)) and bool(value) and all(self._number(part) for part in value)
        if self.type == "ints":
            return isinstance(value, (list, tuple)) and all(self._number(part) for part in value)
        if self.type == "bool":
            return isinstance(value, bool)
        if self.type in ("str", "cassette"):
            return isinstance(value, str) and (not self.choices or value in self.choices)
        return self._number(value)

    def _number(self, value: Any) -> bool:
        kinds = (int,) if self.type in ("int", "ints") else (int, float)
        if type(value) not in kinds:
            return False
        try:
            return math.isfinite(value) and self.low <= value <= self.high
        except OverflowError:  # an integer beyond every float
            return False

    def parse(self, text: str) -> Any:
        """The value of `text` as typed on a command line (not yet checked)."""
        if self.type in ("str", "cassette"):
            return text
        if self.type in ("floats", "ints"):
            return [_literal(part) for part in text.split(",")]
        return _literal(text)


def _literal(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        try:
            return float(text)
        except ValueError:
            return text


def check_settings(fields: Sequence[Field], given: Mapping[str, Any], what: str) -> None:
    """Raise `UsageError` for a setting that is not declared or lies outside its type or range."""
    known = {item.name: item for item in fields}
    for name, value in given.items():
        if name not in known:
            raise UsageError(f"{what} has no setting '{printable(name, 60)}'", hint=nearest(name, known))
        if not known[name].admits(value):
            raise UsageError(f"{name}={printable(repr(value), 60)} of {what}", expected=known[name].expected)


def settle(fields: Sequence[Field], given: Mapping[str, Any], what: str) -> dict[str, Any]:
    """Every declared setting with its given or default value; raises `UsageError` for an unknown, missing or bad one."""
    check_settings(fields, given, what)
    values = {item.name: given.get(item.name, item.default) for item in fields}
    for item in fields:
        if values[item.name] is REQUIRED:
            raise UsageError(f"{what} needs a value for '{item.name}'", expected=item.expected)
    return values


def parse_settings(fields: Sequence[Field], pairs: Iterable[str], what: str) -> dict[str, Any]:
    """Settings from `k=v` texts, checked but without defaults; raises `UsageError`."""
    known = {item.name: item for item in fields}
    given: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise UsageError(f"setting '{printable(pair, 60)}'", expected="name=value")
        given[name] = known[name].parse(text) if name in known else text
    check_settings(fields, given, what)
    return given


def normal(identifier: str) -> str:
    """An id as it is compared: lower case, with '-', '_' and '.' equal."""
    return identifier.lower().replace("_", "-").replace(".", "-")


@dataclass(frozen=True)
class _Named:
    """Shared checks: the id has the form of its kind and the target is an import string."""

    kind: ClassVar[str] = "component"
    owned: ClassVar[bool | None] = None

    def __post_init__(self) -> None:
        identifier = getattr(self, "id", "")
        bare, owned = _BARE.fullmatch(identifier), _OWNED.fullmatch(identifier)
        if not (bare if self.owned is False else owned if self.owned else bare or owned):
            forms: dict[bool | None, str] = {False: "lower-case-with-hyphens", True: "package/name"}
            form = forms.get(self.owned, "name or package/name")
            raise UsageError(f"{self.kind} id '{printable(identifier, 80)}'", expected=form)
        target = getattr(self, "target", "")
        if not _TARGET.fullmatch(target):
            raise UsageError(f"target '{printable(target, 80)}' of {self.kind} {identifier}", expected="module:name")
        for name in ("parameters", "config", "options"):
            if hasattr(self, name):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        self._check_types(identifier)

    def _check_types(self, identifier: str) -> None:
        """Raise `UsageError` for an attribute of a wrong type; else it would be met where it is used or printed."""
        texts = ("summary", "metric", "unit", "recipe", "speed_baseline", "task", "architecture", "guarantee", "needs")
        for name in texts:
            if not isinstance(getattr(self, name, ""), str):
                raise UsageError(f"{name} of {self.kind} {identifier}", expected="a string")
        if hasattr(self, "signature") and not isinstance(self.signature, Signature):
            raise UsageError(f"signature of {self.kind} {identifier}", expected="a Signature")
        for name in ("parameters", "config", "options"):
            if not all(isinstance(item, Field) for item in getattr(self, name, ())):
                raise UsageError(f"{name} of {self.kind} {identifier}", expected="a list of Field")


@dataclass(frozen=True)
class TaskSpec(_Named):
    """A law: its signature, its metric with unit, and the constants that members of a composition must share.

    `target` names a `grokkit_core.task.Task`. `floor` is the metric's rounding floor: two figures below it agree.
    `speed_baseline` names the one of the task's baselines that `grokkit bench` times beside a cassette (empty: the first);
    it must compute on whatever device its inputs are on.
    """

    kind: ClassVar[str] = "task"
    owned: ClassVar[bool | None] = False
    id: str
    signature: Signature
    target: str
    metric: str = "mse"
    unit: str = "1"
    summary: str = ""
    parameters: Sequence[Field] = ()
    floor: float = 0.0
    higher_is_better: bool = False
    recipe: str = ""
    speed_baseline: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.metric == "accuracy":
            object.__setattr__(self, "higher_is_better", True)


@dataclass(frozen=True)
class ArchitectureSpec(_Named):
    """A family of networks with a declared config; `target` names a `grokkit_core.architecture.Architecture`."""

    kind: ClassVar[str] = "architecture"
    owned: ClassVar[bool | None] = True
    id: str
    version: int
    target: str
    config: Sequence[Field] = ()
    summary: str = ""


@dataclass(frozen=True)
class RecipeSpec(_Named):
    """How an architecture is trained on a task; `target` names a `grokkit_core.training.Recipe`.

    `dtypes` are those it can train in, its own choice first. `law` gives constants of the task's law that it trains on
    unless others are asked for.
    """

    kind: ClassVar[str] = "recipe"
    owned: ClassVar[bool | None] = True
    id: str
    task: str
    architecture: str
    target: str
    parameters: Sequence[Field] = ()
    summary: str = ""
    dtypes: Sequence[str] = ("float32", "float64")
    law: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.law, Mapping):
            raise UsageError(f"law of recipe {self.id}", expected="constants of the task by name")
        if not self.dtypes or not set(self.dtypes) <= {"float32", "float64"}:
            raise UsageError(f"dtypes of recipe {self.id}", expected="float32, float64 or both")


@dataclass(frozen=True)
class TransferSpec(_Named):
    """An operator that grows or re-discretises a cassette without training, with the guarantee it gives.

    A parameter of type `cassette` names a second one that it needs; it may also be given as a cassette. `control` marks a
    negative control, which shows what does not work and is never chosen unless it is named.
    """

    kind: ClassVar[str] = "transfer operator"
    id: str
    target: str
    guarantee: str = ""
    parameters: Sequence[Field] = ()
    summary: str = ""
    control: bool = False


@dataclass(frozen=True)
class FusionSpec(_Named):
    """A way to fuse cassettes into one; `gated` says whether it takes a gate."""

    kind: ClassVar[str] = "fusion"
    id: str
    target: str
    gated: bool = False
    summary: str = ""


@dataclass(frozen=True)
class GateSpec(_Named):
    """Weights that form a partition of unity over the members.

    `needs` is the context variable that the gate reads, `any-scalar` for the one that the members share, or empty.
    """

    kind: ClassVar[str] = "gate"
    id: str
    target: str
    needs: str = ""
    options: Sequence[Field] = ()
    summary: str = ""


@dataclass(frozen=True)
class CassetteRoot:
    """A folder of cassettes inside an installed package."""

    kind: ClassVar[str] = "cassette root"
    package: str
    path: str = "."

    @property
    def id(self) -> str:
        """Identity of the root: package and folder."""
        return f"{self.package}:{self.path}"


Component = TaskSpec | ArchitectureSpec | RecipeSpec | TransferSpec | FusionSpec | GateSpec | CassetteRoot
COMPONENT_TYPES = (TaskSpec, ArchitectureSpec, RecipeSpec, TransferSpec, FusionSpec, GateSpec, CassetteRoot)


@dataclass(frozen=True)
class Event:
    """Progress of a long operation: what happened (`train.step`, `certify.row`, `compose.fit` ...) and its figures."""

    name: str
    data: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
