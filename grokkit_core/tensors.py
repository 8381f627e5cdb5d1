"""What goes into and comes out of a cassette: named axes, dtypes, a unit and a domain; and whether two of them match."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, Literal

from grokkit_core.errors import BadManifest, UsageError
from grokkit_core.records import from_json, to_json
from grokkit_core.text import printable

DTYPES = ("bool", "uint8", "int64", "float32", "float64", "complex64", "complex128")
Axis = str | int
LEADING = "..."
"""As the first axis: any number of leading axes, none included, the same for all tensors of a signature."""


@dataclass(frozen=True)
class Domain:
    """The set of values for which a tensor or a context variable is valid.

    `any` admits NaN and infinity, `finite` every finite number, `interval` the closed interval [low, high], `values` a
    finite set. A finite set may choose a member of a router; an interval only refuses.
    """

    kind: Literal["any", "finite", "interval", "values"] = "finite"
    low: float = 0.0
    high: float = 0.0
    values: tuple[float, ...] = ()

    @classmethod
    def of(cls, given: Domain | Iterable[float] | tuple[float, float] | str | None) -> Domain:
        """A domain from shorthand: None or "finite", "any", a set of values, or a (low, high) tuple."""
        if given is None:
            return cls()
        if isinstance(given, Domain):
            return given
        if isinstance(given, str):
            if given not in ("any", "finite"):
                raise UsageError(f"domain '{given}'", expected="'any', 'finite', a set or a (low, high) tuple")
            return cls("any") if given == "any" else cls()
        numbers = _finite_numbers(given)
        if isinstance(given, tuple) and len(numbers) == 2 and numbers[0] <= numbers[1]:
            return cls("interval", low=numbers[0], high=numbers[1])
        if isinstance(given, tuple) or not numbers:
            raise UsageError(
                f"domain {printable(repr(given), 60)}",
                expected="'any', 'finite', a set of finite numbers or a (low, high) tuple with low <= high",
            )
        return cls("values", values=tuple(sorted(set(numbers))))

    def contains(self, value: float) -> bool:
        """Whether one number lies in the domain."""
        if self.kind == "any":
            return True
        if self.kind == "interval":
            return self.low <= value <= self.high
        if self.kind == "values":
            return value in self.values
        return math.isfinite(value)

    def intersects(self, other: Domain) -> bool:
        """Whether some value lies in both domains."""
        if "values" in (self.kind, other.kind):
            finite, against = (self, other) if self.kind == "values" else (other, self)
            return any(against.contains(value) for value in finite.values)
        if self.kind == other.kind == "interval":
            return max(self.low, other.low) <= min(self.high, other.high)
        return True

    def intersection(self, other: Domain) -> Domain:
        """The domain of what lies in both; the two must intersect."""
        first, second = (self, other) if _RANK[self.kind] >= _RANK[other.kind] else (other, self)
        if first.kind == "values":
            return Domain("values", values=tuple(v for v in first.values if second.contains(v)))
        if first.kind == second.kind == "interval":
            return Domain("interval", low=max(first.low, second.low), high=min(first.high, second.high))
        return first

    def __str__(self) -> str:
        if self.kind == "interval":
            return f"[{self.low:g}, {self.high:g}]"
        if self.kind == "values":
            shown = ", ".join(f"{value:g}" for value in self.values[:8])
            return "{" + shown + (", ..." if len(self.values) > 8 else "") + "}"
        return "all finite numbers" if self.kind == "finite" else "all numbers"

    def to_json(self) -> dict[str, Any]:
        """The manifest's form: only the fields that the kind has."""
        if self.kind == "interval":
            return {"kind": self.kind, "low": self.low, "high": self.high}
        if self.kind == "values":
            return {"kind": self.kind, "values": list(self.values)}
        return {"kind": self.kind}

    @classmethod
    def from_json(cls, value: Any, path: str) -> Domain:
        """Read the manifest's form; raises `BadManifest`."""
        kind = value.get("kind") if isinstance(value, dict) else None
        records: dict[object, type[_Plain] | type[_Interval] | type[_Values]] = {
            "interval": _Interval,
            "values": _Values,
        }
        read: _Plain | _Interval | _Values = from_json(records.get(str(kind), _Plain), value, path)
        if isinstance(read, _Interval) and read.low > read.high:
            raise BadManifest(f"{path} is the empty interval [{read.low:g}, {read.high:g}]", expected="low <= high")
        if isinstance(read, _Values) and (not read.values or list(read.values) != sorted(set(read.values))):
            raise BadManifest(f"{path}.values is not a sorted set of numbers", expected="at least one, ascending")
        return cls(**{name: getattr(read, name) for name in read.__dataclass_fields__})


def _finite_numbers(given: object) -> list[float]:
    """The numbers in `given` as floats; none if it is no collection of finite numbers alone."""
    if not isinstance(given, Iterable):
        return []
    values = list(given)
    try:
        numbers = [float(value) for value in values if isinstance(value, Real)]
    except OverflowError:
        return []
    return numbers if len(numbers) == len(values) and all(map(math.isfinite, numbers)) else []


_RANK = {"any": 0, "finite": 1, "interval": 2, "values": 3}


@dataclass(frozen=True)
class _Plain:
    kind: Literal["any", "finite"]


@dataclass(frozen=True)
class _Interval:
    kind: Literal["interval"]
    low: float
    high: float


@dataclass(frozen=True)
class _Values:
    kind: Literal["values"]
    values: tuple[float, ...]


def _check_name(name: str, what: str) -> None:
    if not (isinstance(name, str) and name.isascii() and name.replace("-", "_").isidentifier()):
        raise UsageError(f"{what} '{printable(name, 60)}' is not a name", expected="letters, digits and '_'")


@dataclass(frozen=True)
class TensorSpec:
    """One input or output: its name, axes (a string is symbolic, an integer fixed), dtypes (default first), unit, domain.

    A first axis "..." stands for any number of leading axes.
    """

    name: str
    axes: tuple[Axis, ...]
    dtypes: tuple[str, ...] = ("float32",)
    unit: str = "1"
    domain: Domain = field(default_factory=Domain)

    def __init__(
        self,
        name: str,
        axes: Sequence[Axis],
        dtypes: Sequence[str] = ("float32",),
        unit: str = "1",
        domain: Domain | Iterable[float] | tuple[float, float] | str | None = None,
    ) -> None:
        _check_name(name, "tensor name")
        shown = f"'{printable(name, 60)}'"
        for index, axis in enumerate(axes):
            if isinstance(axis, str):
                if axis != LEADING or index:
                    _check_name(axis, f"axis of {shown}")
            elif type(axis) is not int or axis < 1:
                raise UsageError(
                    f"axis {printable(repr(axis), 60)} of {shown}", expected="a name or a positive integer"
                )
        if not dtypes or any(dtype not in DTYPES for dtype in dtypes):
            raise UsageError(
                f"dtypes {printable(list(dtypes), 60)} of {shown}", expected=f"at least one of {', '.join(DTYPES)}"
            )
        for attribute, value in (
            ("name", name),
            ("axes", tuple(axes)),
            ("dtypes", tuple(dtypes)),
            ("unit", unit),
        ):
            object.__setattr__(self, attribute, value)
        object.__setattr__(self, "domain", Domain.of(domain))

    @property
    def shape(self) -> str:
        """The axes as text, e.g. `[batch, 15, 4]`."""
        return "[" + ", ".join(map(str, self.axes)) + "]"

    def __str__(self) -> str:
        return f"{self.name} {self.shape} {'|'.join(self.dtypes)}, unit {self.unit}, {self.domain}"

    @classmethod
    def from_json(cls, value: Any, path: str) -> TensorSpec:
        """Read the manifest's form; raises `BadManifest`."""
        read = from_json(_TensorRecord, value, path)
        try:
            return cls(read.name, read.axes, read.dtypes, read.unit, read.domain)
        except UsageError as error:
            raise BadManifest(f"{path}: {error}") from None


@dataclass(frozen=True)
class _TensorRecord:
    name: str
    axes: tuple[Any, ...]
    dtypes: tuple[str, ...]
    unit: str
    domain: Domain


@dataclass(frozen=True)
class ContextSpec:
    """A scalar conditioning variable that a gate (or a network) may see, one number a sample."""

    name: str
    unit: str = "1"
    domain: Domain = field(default_factory=Domain)
    required: bool = False

    def __init__(
        self,
        name: str,
        unit: str = "1",
        domain: Domain | Iterable[float] | tuple[float, float] | str | None = None,
        required: bool = False,
    ) -> None:
        _check_name(name, "context variable")
        for attribute, value in (
            ("name", name),
            ("unit", unit),
            ("domain", Domain.of(domain)),
            ("required", required),
        ):
            object.__setattr__(self, attribute, value)

    def __str__(self) -> str:
        return f"{self.name} [{self.unit}] in {self.domain}{', required' if self.required else ''}"

    @classmethod
    def from_json(cls, value: Any, path: str) -> ContextSpec:
        """Read the manifest's form; raises `BadManifest`."""
        read = from_json(_ContextRecord, value, path)
        try:
            return cls(read.name, read.unit, read.domain, read.required)
        except UsageError as error:
            raise BadManifest(f"{path}: {error}") from None


@dataclass(frozen=True)
class _ContextRecord:
    name: str
    unit: str
    required: bool
    domain: Domain


@dataclass(frozen=True)
class Signature:
    """The inputs, outputs and context variables of a cassette. Symbolic axes of one name have one size."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    context: tuple[ContextSpec, ...] = ()

    def __init__(
        self, inputs: Iterable[TensorSpec], outputs: Iterable[TensorSpec], context: Iterable[ContextSpec] = ()
    ) -> None:
        for attribute, value in (("inputs", inputs), ("outputs", outputs), ("context", context)):
            object.__setattr__(self, attribute, tuple(value))
        for group in (self.inputs, self.outputs, self.context):
            names = [item.name for item in group]
            if len(set(names)) != len(names):
                listed = printable(", ".join(names), 120)
                raise UsageError(f"signature names a tensor twice: {listed}", expected="distinct names")

    def variable(self, name: str) -> ContextSpec | None:
        """The context variable of that name, if there is one."""
        return next((item for item in self.context if item.name == name), None)

    def with_context(self, context: Iterable[ContextSpec]) -> Signature:
        """This signature with other context variables."""
        return Signature(self.inputs, self.outputs, context)

    def to_json(self) -> dict[str, Any]:
        """The three lists as they stand in a manifest."""
        return {name: [_plain(item) for item in getattr(self, name)] for name in ("inputs", "outputs", "context")}


def _plain(item: TensorSpec | ContextSpec) -> dict[str, Any]:
    return {name: to_json(getattr(item, name)) for name in item.__dataclass_fields__}


def differences(first: Signature, second: Signature) -> tuple[str, ...]:
    """What keeps two signatures from matching, in words; empty when they match.

    They match when names, axes and units agree, dtype lists intersect and domains intersect. Context variables do not
    take part; a gate states what it needs.
    """
    found: list[str] = []
    for role, left, right in (
        ("input", first.inputs, second.inputs),
        ("output", first.outputs, second.outputs),
    ):
        if len(left) != len(right):
            found.append(f"{len(left)} {role}s against {len(right)}")
        for a, b in zip(left, right, strict=False):
            found.extend(_tensor_differences(role, a, b))
    return tuple(found)


def _tensor_differences(role: str, a: TensorSpec, b: TensorSpec) -> list[str]:
    found = []
    if a.name != b.name:
        found.append(f"{role} is named '{a.name}' against '{b.name}'")
    what = f"{role} '{a.name}'"
    if len(a.axes) != len(b.axes):
        found.append(f"{what} has {len(a.axes)} axes {a.shape} against {len(b.axes)} axes {b.shape}")
    else:
        found.extend(
            f"axis {index} of {what} is {left} against {right}"
            for index, (left, right) in enumerate(zip(a.axes, b.axes, strict=True))
            if left != right
        )
    if a.unit != b.unit:
        found.append(f"unit of {what} is {a.unit} against {b.unit}")
    if not set(a.dtypes) & set(b.dtypes):
        found.append(f"dtypes of {what} are {'|'.join(a.dtypes)} against {'|'.join(b.dtypes)}")
    if not a.domain.intersects(b.domain):
        found.append(f"domain of {what} is {a.domain} against {b.domain}")
    return found


def common(signatures: Sequence[Signature]) -> Signature:
    """The signature of a call that every one of these matching signatures accepts, with the shared context variables."""
    first, *others = signatures
    inputs, outputs = list(first.inputs), list(first.outputs)
    context = list(first.context)
    for other in others:
        inputs = [_meet(a, b) for a, b in zip(inputs, other.inputs, strict=True)]
        outputs = [_meet(a, b) for a, b in zip(outputs, other.outputs, strict=True)]
        context = [_meet_context(item, match) for item in context if (match := _same_variable(item, other))]
    return Signature(inputs, outputs, context)


def _meet(a: TensorSpec, b: TensorSpec) -> TensorSpec:
    dtypes = [dtype for dtype in a.dtypes if dtype in b.dtypes]
    return TensorSpec(a.name, a.axes, dtypes, a.unit, a.domain.intersection(b.domain))


def _same_variable(item: ContextSpec, other: Signature) -> ContextSpec | None:
    match = other.variable(item.name)
    if match is None or match.unit != item.unit or not match.domain.intersects(item.domain):
        return None
    return match


def _meet_context(a: ContextSpec, b: ContextSpec) -> ContextSpec:
    return ContextSpec(a.name, a.unit, a.domain.intersection(b.domain), a.required or b.required)


def parse_context(pairs: Iterable[str]) -> Mapping[str, float]:
    """`["omega=1.5"]` as `{"omega": 1.5}`; raises `UsageError`."""
    result: dict[str, float] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        try:
            value = float(text)
        except ValueError:
            equals = ""
        if not equals or not name:
            raise UsageError(f"context '{printable(pair, 60)}'", expected="name=number, e.g. omega=1.5")
        if name.strip() in result:
            raise UsageError(f"context {printable(name.strip(), 60)} is given twice", expected="once")
        result[name.strip()] = value
    return result


def unread_context(declared: Iterable[ContextSpec], given: Iterable[str]) -> list[str]:
    """Remarks on context variables that are not declared; they are ignored, which may be a slip."""
    known = [variable.name for variable in declared]
    reads = f"; it reads {', '.join(known)}" if known else ""
    return [f"context '{printable(name, 60)}' is not read{reads}" for name in given if name not in known]


def computing_dtypes(signature: Signature) -> tuple[str, ...]:
    """The floating and complex dtypes that the first input lists; float32 and float64 where it takes whole numbers only."""
    listed = signature.inputs[0].dtypes if signature.inputs else ()
    return tuple(name for name in listed if name.startswith(("float", "complex"))) or ("float32", "float64")
