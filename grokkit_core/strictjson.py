"""JSON for data that travels: one canonical form, and a reader that refuses everything else."""

from __future__ import annotations

import json
import math
import unicodedata
from collections import Counter
from typing import Any

from grokkit_core.errors import BadManifest, TooLarge
from grokkit_core.text import printable

MAX_DEPTH = 16
MAX_NODES = 10_000
MAX_STRING = 4_096
MAX_INTEGER = 2**53 - 1


def canonical(value: Any) -> bytes:
    """The one byte form of `value`: UTF-8, sorted keys, two-space indent, finite numbers, one final newline."""
    try:
        text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
        return (text + "\n").encode("utf-8")
    except (ValueError, TypeError) as error:
        raise BadManifest(f"a value cannot be written as JSON: {printable(error)}") from None


def parse(data: bytes, what: str = "manifest") -> Any:
    """Parse strict JSON within the caps of the format; raises `BadManifest` or `TooLarge`, nothing else."""
    try:
        value = json.loads(
            data.decode("utf-8", "strict"),
            object_pairs_hook=_unique,
            parse_constant=_no_constant,
            parse_float=_finite,
            parse_int=_integer,
        )
    except BadManifest as error:
        raise BadManifest(f"{what}: {error}") from None
    except (ValueError, RecursionError) as error:
        raise BadManifest(f"{what} is not strict JSON: {printable(error)}") from None
    _check_tree(value, what)
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise BadManifest(f"key '{printable(twice, 60)}' stands twice in one object")
    return result


def _no_constant(token: str) -> Any:
    raise BadManifest(f"{token} is not a JSON number", expected="finite numbers")


def _finite(token: str) -> float:
    value = float(token)
    if not math.isfinite(value):
        raise BadManifest(f"number {printable(token, 40)} overflows", expected="finite numbers")
    return value


def _integer(token: str) -> int:
    if len(token) > 17 or abs(int(token)) > MAX_INTEGER:
        raise BadManifest(f"integer {printable(token, 40)} is too large", expected="at most 2^53 - 1")
    return int(token)


def _check_tree(value: Any, what: str) -> None:
    """Walk without recursion; count nodes, depth, string lengths; refuse control characters and lone surrogates."""
    nodes, pending = 0, [(value, 1)]
    while pending:
        node, depth = pending.pop()
        nodes += 1
        if nodes > MAX_NODES or depth > MAX_DEPTH:
            raise TooLarge(f"{what} is nested too deep or has too many parts", expected="depth 16, 10,000 parts")
        if isinstance(node, str):
            _check_string(node, what)
        elif isinstance(node, dict):
            for key, item in node.items():
                _check_string(key, what)
                pending.append((item, depth + 1))
        elif isinstance(node, list):
            pending.extend((item, depth + 1) for item in node)


def _check_string(text: str, what: str) -> None:
    if len(text) > MAX_STRING:
        raise TooLarge(f"a string of {what} has {len(text)} characters", expected=f"at most {MAX_STRING}")
    if text.isascii() and text.isprintable():
        return
    if any(unicodedata.category(char) in {"Cc", "Cs"} for char in text):
        raise BadManifest(f"{what}: '{printable(text, 60)}' holds a control character")
