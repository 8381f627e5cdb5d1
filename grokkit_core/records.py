"""Typed records: frozen dataclasses read strictly from JSON and written back, with the path of every fault.

A field's annotation is its schema: `str`, `int`, `float`, `bool`, `Literal`, `tuple[X, ...]`, `X | None`,
`Mapping[str, Any]`, another record, or a class with `from_json` / `to_json`. `Annotated[X, check]` adds a check: a
function that returns what was expected, or an empty string.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, TypeVar, Union

from grokkit_core.errors import BadManifest
from grokkit_core.text import nearest, printable

T = TypeVar("T")
Check = Callable[[Any], str]


def at_least(low: float) -> Check:
    """A check that a number is not below `low`."""
    return lambda value: "" if value >= low else f"at least {low}"


def at_most(high: float) -> Check:
    """A check that a number is not above `high`."""
    return lambda value: "" if value <= high else f"at most {high}"


def at_most_items(count: int) -> Check:
    """A check on the length of a list."""
    return lambda value: "" if len(value) <= count else f"at most {count} items"


def matching(rule: Callable[[str], bool], expected: str) -> Check:
    """A check that a string satisfies `rule`, described as `expected`."""
    return lambda value: "" if rule(value) else expected


def from_json(kind: type[T], value: Any, path: str = "manifest") -> T:
    """Read `value` as a record of type `kind`; raises `BadManifest` that names the path, the value and what was expected."""
    result: T = _read(kind, value, path)
    return result


def to_json(value: Any) -> Any:
    """The JSON form of a record, a tuple of records or a plain value."""
    if hasattr(value, "to_json"):
        return value.to_json()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: to_json(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [to_json(item) for item in value]
    return value


def _fault(path: str, value: Any, expected: str) -> BadManifest:
    return BadManifest(f"{printable(path, 120)} is {printable(repr(value), 60)}", expected=expected)


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind, include_extras=True)


def _read(kind: Any, value: Any, path: str) -> Any:
    origin = typing.get_origin(kind)
    if origin is Annotated:
        base, *checks = typing.get_args(kind)
        result = _read(base, value, path)
        for check in checks:
            if expected := check(result):
                raise _fault(path, value, expected)
        return result
    if origin is Literal:
        return _read_literal(typing.get_args(kind), value, path)
    if origin in (Union, types.UnionType):
        inner = next(arg for arg in typing.get_args(kind) if arg is not type(None))
        return None if value is None else _read(inner, value, path)
    if origin is tuple:
        return _read_tuple(typing.get_args(kind)[0], value, path)
    if origin is not None and issubclass(origin, Mapping):
        return _read_mapping(value, path)
    if hasattr(kind, "from_json"):
        return kind.from_json(value, path)
    if dataclasses.is_dataclass(kind):
        return _read_record(typing.cast(type, kind), value, path)
    return _read_scalar(kind, value, path)


def _read_literal(allowed: tuple[Any, ...], value: Any, path: str) -> Any:
    if not isinstance(value, str) or value not in allowed:
        raise _fault(path, value, "one of " + ", ".join(map(str, allowed)))
    return value


def _read_tuple(item: Any, value: Any, path: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise _fault(path, value, "a list")
    return tuple(_read(item, part, f"{path}[{index}]") for index, part in enumerate(value))


def _read_mapping(value: Any, path: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise _fault(path, value, "an object")
    return types.MappingProxyType(value)


def _read_record(kind: type, value: Any, path: str) -> Any:
    if not isinstance(value, dict):
        raise _fault(path, value, "an object")
    hints = _hints(kind)
    names = [field.name for field in dataclasses.fields(kind)]
    for key in value:
        if key not in names:
            raise BadManifest(
                f"{printable(path, 120)} has an unknown field '{printable(key, 60)}'",
                hint=nearest(key, names),
            )
    for name in names:
        if name not in value:
            raise BadManifest(f"{printable(path, 120)} lacks the field '{name}'")
    return kind(**{name: _read(hints[name], value[name], f"{path}.{name}") for name in names})


def _read_scalar(kind: Any, value: Any, path: str) -> Any:
    if kind is Any:
        return value
    words = {str: "a string", int: "an integer", float: "a number", bool: "true or false"}
    accepted = (int, float) if kind is float else (kind,)
    if type(value) not in accepted:
        raise _fault(path, value, words.get(kind, str(kind)))
    return value
