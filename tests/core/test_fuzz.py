"""Mutants by the hundred thousand: readers of weights, manifests and folders raise declared errors and nothing else."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import math
import random
import re
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
import toys

from grokkit_core import packing, saving, store, strictjson, weights
from grokkit_core.errors import (
    BadManifest,
    BadWeights,
    CassetteError,
    GrokkitError,
    HashMismatch,
    SchemaUnsupported,
    TooLarge,
)
from grokkit_core.manifest import WEIGHTS, Manifest, Parent, RecipeRef
from grokkit_core.tensors import ContextSpec, TensorSpec

T = TypeVar("T")
Errors = tuple[type[GrokkitError], ...]
Mutator = Callable[[bytes, bytes, random.Random], bytes]
"""From a valid file, another valid one and a source of chance to a mutant."""

FILES = (store.MANIFEST, WEIGHTS)
SHIPPED = Path(__file__).resolve().parents[2] / "cassettes" / "grokkit_cassettes" / "cyclotron-1node" / "1"
LONGEST = 1_000
"""What the command line prints of a message."""

OF_WEIGHTS: Errors = (BadWeights, TooLarge)
OF_MANIFESTS: Errors = (BadManifest, HashMismatch, TooLarge, SchemaUnsupported)
OF_FOLDERS: Errors = (BadManifest, BadWeights, HashMismatch, TooLarge)
"""What the readers say that they raise. A child of these classes would be another error, so the very class counts."""


# -- mutators of bytes -----------------------------------------------------------------------------------------------


def span(data: bytes, chance: random.Random, most: int = 64) -> tuple[int, int]:
    """A short random range of bytes."""
    begin = chance.randrange(len(data) + 1)
    return begin, min(len(data), begin + chance.randint(1, most))


def flip(data: bytes, other: bytes, chance: random.Random) -> bytes:
    """A few bits changed."""
    changed = bytearray(data)
    for _ in range(chance.randint(1, 8)):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def overwrite(data: bytes, other: bytes, chance: random.Random) -> bytes:
    """A run of bytes that parsers stumble over."""
    begin, end = span(data, chance, 8)
    return data[:begin] + chance.choice([b"\0", b"\xff", b"\x7f", b"\x80", b" ", b"9"]) * (end - begin) + data[end:]


def insert(data: bytes, other: bytes, chance: random.Random) -> bytes:
    """Random bytes more."""
    place = chance.randrange(len(data) + 1)
    return data[:place] + chance.randbytes(chance.randint(1, 9)) + data[place:]


def cut(data: bytes, other: bytes, chance: random.Random) -> bytes:
    """Some bytes less."""
    begin, end = span(data, chance)
    return data[:begin] + data[end:]


def double(data: bytes, other: bytes, chance: random.Random) -> bytes:
    """A piece repeated where it stands."""
    begin, end = span(data, chance)
    return data[:end] + data[begin:end] * chance.randint(1, 3) + data[end:]


def move(data: bytes, other: bytes, chance: random.Random) -> bytes:
    """A piece taken to another place."""
    begin, end = span(data, chance)
    return insert_at(data[:begin] + data[end:], data[begin:end], chance)


def insert_at(data: bytes, piece: bytes, chance: random.Random) -> bytes:
    place = chance.randrange(len(data) + 1)
    return data[:place] + piece + data[place:]


def truncate(data: bytes, other: bytes, chance: random.Random) -> bytes:
    """Only the beginning, mostly all but a few bytes."""
    return data[: chance.randrange(len(data))] if chance.random() < 0.3 else data[: -chance.randint(1, 9)]


def splice(data: bytes, other: bytes, chance: random.Random) -> bytes:
    """The beginning of one file and the end of another."""
    return data[: chance.randrange(len(data) + 1)] + other[chance.randrange(len(other) + 1) :]


def graft(data: bytes, other: bytes, chance: random.Random) -> bytes:
    """A piece of another file."""
    begin, end = span(other, chance)
    return insert_at(data, other[begin:end], chance)


BYTES: Sequence[Mutator] = (flip, overwrite, insert, cut, double, move, truncate, splice, graft)


# -- mutators of JSON text -------------------------------------------------------------------------------------------

TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null')
STRING = re.compile(rb'"(?:[^"\\]|\\.)*"')
NUMBER = re.compile(rb"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")
KEY = re.compile(rb'"(?:[^"\\]|\\.)*"(?= ?:)')
NUMBERS = (
    b"0 1 2 3 4 8 16 17 255 -1 -0 -0.0 0.0 1.0 1e1 1E1 1e-1 1e400 -1e400 5e-324 1e308 0.1 1.50 01 +1 1. .5 0x1 1_0 NaN "
    b"Infinity -Infinity 2147483647 2147483648 9007199254740991 9007199254740992 -9007199254740992 18446744073709551615"
).split() + [b"9" * 4_000, b"9" * 5_000, b"0." + b"1" * 400, "١".encode()]
TEXTS = [
    *[text.encode() for text in ("", "w", "F32", "U8", "F4", "dtype", "shape", "data_offsets", "__metadata__", "pt")],
    *[text.encode() for text in ("kind", "any", "interval", "values", "name", "toy", "x", "float32", "exact", "batch")],
    *[text.encode() for text in ("../../etc/passwd", "con", "a..b", "x" * 129, "x" * 4_097, "e\u0301", "\u00e9")],
    *[text.encode() for text in ("\u202e", "\u2028", "\ufeff", "\U0001f512", "\x9b31m", "[bold]", "{0}", "%s", "$(x)")],
    *[rb"\u0000", rb"\u001b]0;x\u0007", rb"\ud800", rb"\udfff", rb"\ud83d\ude00", rb"\n", rb"\/", rb"\x", rb"\u00e"],
    *[b"\x00", b"\x1b[31m", b"\x7f", b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"sha256:" + b"0" * 64, b"0" * 64],
]
VALUES = (b"null", b"true", b"false", b"[]", b"{}", b"[[]]", b"[1]", b'[""]', b'{"kind": "any"}', b'{"a": [null]}', b"")
STRUCTURE = b'"{}[]:,0-.eE\\ \n\t/'


def put(data: bytes, found: re.Match[bytes], text: bytes) -> bytes:
    """The text with a match replaced."""
    return data[: found.start()] + text + data[found.end() :]


def pick(pattern: re.Pattern[bytes], data: bytes, chance: random.Random) -> re.Match[bytes] | None:
    """One of the matches, None where there is none."""
    found = list(pattern.finditer(data))
    return chance.choice(found) if found else None


def replacing(pattern: re.Pattern[bytes], choose: Callable[[bytes, random.Random], bytes]) -> Mutator:
    """A mutator that puts something else in the place of one match."""

    def mutate(data: bytes, other: bytes, chance: random.Random) -> bytes:
        found = pick(pattern, data, chance)
        return put(data, found, choose(found[0], chance)) if found else data

    return mutate


def near(number: bytes, chance: random.Random) -> bytes:
    """A hostile number, or one that is off by little."""
    if chance.random() < 0.6 or not number.isdigit() or len(number) > 20:
        return chance.choice(NUMBERS)
    return str(int(number) + chance.choice([-8, -4, -1, 1, 2, 4, 8])).encode()


def escaped(string: bytes, chance: random.Random) -> bytes:
    """The same string with one character written as an escape."""
    text = string[1:-1].decode("utf-8", "replace")
    if not text or "\\" in text:
        return string
    place = chance.randrange(len(text))
    return f'"{text[:place]}\\u{ord(text[place]) & 0xFFFF:04x}{text[place + 1 :]}"'.encode()


def nested(token: bytes, chance: random.Random) -> bytes:
    """A token inside many lists or objects, sometimes never closed."""
    depth = chance.choice([1, 2, 8, 12, 15, 16, 17, 40, 500, 1_500, 20_000])
    begin, end = chance.choice([(b"[", b"]"), (b'{"a":', b"}"), (b'[{"a":', b"}]")])
    return begin * depth + token + end * (depth - (chance.random() < 0.2))


def repeat_key(data: bytes, other: bytes, chance: random.Random) -> bytes:
    """A key given twice, sometimes through an escape."""
    found = pick(KEY, data, chance)
    if not found:
        return data
    key = escaped(found[0], chance) if chance.random() < 0.3 else found[0]
    return data[: found.start()] + key + b": " + chance.choice(VALUES) + b", " + data[found.start() :]


def swap(data: bytes, other: bytes, chance: random.Random) -> bytes:
    """Two tokens in each other's place."""
    found = list(TOKEN.finditer(data))
    if len(found) < 2:
        return data
    first, second = sorted(chance.sample(found, 2), key=lambda token: token.start())
    return put(put(data, second, first[0]), first, second[0])


def punctuate(data: bytes, other: bytes, chance: random.Random) -> bytes:
    """A character of JSON's own more, or in the place of another."""
    place = chance.randrange(len(data) + 1)
    return data[:place] + bytes([chance.choice(STRUCTURE)]) + data[place + chance.randint(0, 1) :]


def fill(data: bytes, other: bytes, chance: random.Random) -> bytes:
    """A list with many members."""
    found = pick(re.compile(rb"\["), data, chance)
    return put(data, found, b"[" + b"0, " * chance.choice([1, 9, 600, 10_000])) if found else data


rewrite = replacing(STRING, lambda _, chance: b'"' + chance.choice(TEXTS) + b'"')
lengthen = replacing(STRING, lambda text, chance: text[:-1] + b"x" * chance.choice([60, 200, 4_096]) + b'"')
nest = replacing(TOKEN, nested)
TEXT: Sequence[Mutator] = (
    replacing(NUMBER, near),
    rewrite,
    lengthen,
    replacing(STRING, escaped),
    replacing(TOKEN, lambda _, chance: chance.choice(VALUES)),
    nest,
    repeat_key,
    swap,
    punctuate,
    fill,
)


# -- mutators of JSON values -----------------------------------------------------------------------------------------

Change = Callable[[Any, Any, Any, random.Random], None]
"""Changes a node: from its holder, its key there, a node of another file and a source of chance."""

ODD: Sequence[Any] = json.loads(
    """[null, true, false, 0, -1, 2, 3, 1.5, -0.0, 1e308, 9007199254740991, "", "x", "kind", "F64", "finite", "\u202e",
    [], [1], [null], ["x"], [0, 0], [[]], {}, {"kind": "any"}, {"kind": []}, {"kind": "values", "values": []}]"""
)


def nodes(value: Any) -> Iterator[tuple[Any, Any]]:
    """Holder and key of every node below the top."""
    for key, item in list(value.items()) if isinstance(value, dict) else enumerate(value):
        yield value, key
        if isinstance(item, (dict, list)):
            yield from nodes(item)


def in_tree(change: Change) -> Mutator:
    """A mutator of the value that a text stands for."""

    def mutate(data: bytes, other: bytes, chance: random.Random) -> bytes:
        try:
            value, foreign = json.loads(data), list(nodes(json.loads(other)))
            holder, key = chance.choice(list(nodes(value)))
            source, place = chance.choice(foreign)
            change(holder, key, copy.deepcopy(source[place]), chance)
            return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
        except (ValueError, RecursionError, TypeError, IndexError, OverflowError):
            return data

    return mutate


def become_odd(holder: Any, key: Any, foreign: Any, chance: random.Random) -> None:
    holder[key] = chance.choice(ODD)


def become_foreign(holder: Any, key: Any, foreign: Any, chance: random.Random) -> None:
    holder[key] = foreign


def vanish(holder: Any, key: Any, foreign: Any, chance: random.Random) -> None:
    del holder[key]


def take_another_place(holder: Any, key: Any, foreign: Any, chance: random.Random) -> None:
    holder[chance.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))] = holder[key]


def multiply(holder: Any, key: Any, foreign: Any, chance: random.Random) -> None:
    if isinstance(holder, list):
        holder[key:key] = [holder[key]] * chance.choice([1, 2, 8, 600])
    else:
        holder[chance.choice(["x", "name", "kind", "values", "low", "extra"])] = holder[key]


def count_differently(holder: Any, key: Any, foreign: Any, chance: random.Random) -> None:
    if type(holder[key]) in (int, float):
        holder[key] += chance.choice([-8, -4, -1, 0.0, 0.5, 1, 2, 4, 8])
    else:
        holder[key] = [holder[key]]


def reorder(holder: Any, key: Any, foreign: Any, chance: random.Random) -> None:
    if isinstance(holder, dict):
        items = list(holder.items())
        holder.clear()
        holder.update(chance.sample(items, len(items)))
    else:
        chance.shuffle(holder)


CHANGES = (become_odd, become_foreign, vanish, take_another_place, multiply, count_differently, reorder)
TREE = tuple(map(in_tree, CHANGES))


# -- mutants of weights files ----------------------------------------------------------------------------------------


@cache
def valid_weights() -> Sequence[bytes]:
    """Weights files of every dtype, a scalar among them, and a shipped one."""
    numbers = torch.arange(6).reshape(2, 3)
    every = {f"layers.{index}.w": numbers.to(dtype) for index, dtype in enumerate(packing.DTYPES)}
    floats = {"a": torch.full((2, 1, 2), 0.5), "scale": torch.tensor(3.0, dtype=torch.float64)}
    return toys.weights(), packing.pack(every), packing.pack(floats), (SHIPPED / WEIGHTS).read_bytes()


def parts(data: bytes) -> tuple[bytes, bytes]:
    """Header and data part of a weights file, as long as it claims."""
    end = 8 + int.from_bytes(data[:8], "little")
    return data[8:end], data[end:]


def in_header(mutate: Mutator) -> Mutator:
    """A mutator of the header alone, whose length is told as it then is."""

    def mutated(data: bytes, other: bytes, chance: random.Random) -> bytes:
        header, body = parts(data)
        return toys.raw(mutate(header, parts(other)[0], chance), body) if header else data

    return mutated


def in_data(mutate: Mutator) -> Mutator:
    """A mutator of the data part alone."""

    def mutated(data: bytes, other: bytes, chance: random.Random) -> bytes:
        header, body = parts(data)
        return toys.raw(header, mutate(body, parts(other)[1], chance), pad=False) if body else data

    return mutated


def number(data: bytes, other: bytes, chance: random.Random) -> bytes:
    """A number that is odd in some dtype: NaN, an infinity, the least, the greatest, not quite a boolean."""
    text = chance.choice([struct.pack("<d", x) for x in (math.nan, math.inf, -0.0, 5e-324)] + [b"\xff" * 8, b"\2"])
    text = chance.choice([text, struct.pack("<f", math.nan), struct.pack("<e", math.inf), b"\x80\x7f"])
    place = chance.randrange(len(data)) // len(text) * len(text)
    return data[:place] + text[: len(data) - place] + data[place + len(text) :]


def mix(data: bytes, other: bytes, chance: random.Random) -> bytes:
    """The header of one file and the data of another."""
    return toys.raw(parts(data)[0], parts(other)[1])


def claim(data: bytes, other: bytes, chance: random.Random) -> bytes:
    """Another length of the header."""
    length = len(parts(data)[0])
    told = chance.choice([0, 1, 2, 8, length - 8, length - 1, length + 1, length + 8, 1 << 20, 1 << 63, 2**64 - 1])
    return struct.pack("<Q", max(told, 0)) + data[8:]


def shape(data: bytes, other: bytes, chance: random.Random) -> bytes:
    """Other sizes of a tensor, often of as many numbers."""
    found = pick(re.compile(rb"\[[\d, ]*\](?=,\"data)"), data, chance)
    sizes = [chance.choice([1, 1, 1, 2, 3, 4, 6, 2**31, 2**62]) for _ in range(chance.choice([0, 1, 2, 3, 8, 9, 70]))]
    return put(data, found, json.dumps(sizes).encode()) if found else data


OF_A_HEADER = (*TREE, *TREE, *TREE, *TEXT, shape, insert, cut, double, move, splice, graft)
IN_DATA = (flip, overwrite, number) * 4
WEIGHTS_MUTATORS: Sequence[Mutator] = (*BYTES, mix, claim, *map(in_header, OF_A_HEADER), *map(in_data, IN_DATA))


# -- mutants of manifests --------------------------------------------------------------------------------------------


@cache
def valid_manifests() -> Sequence[bytes]:
    """Manifests with every kind of domain and of provenance, one with names of other scripts, and a shipped one."""
    toy = toys.manifest()
    parents = (Parent("toy", 1, toy.digest), Parent("toy", 999_999_999, toy.digest))
    composed = replace(
        toy.provenance, kind="composed", recipe=None, seed=None, gate={"id": "spectral", "on": ["k"]}, parents=parents
    )
    free = {"π": [None, True, -0.0, 1e308, {"": "\U0001f512"}], "a": {"b": {"c": {"d": [[[[1]]]]}}}}
    trained = replace(toy.provenance, recipe=RecipeRef("toys/plain", free), grok_step=0, steps=None)
    return (
        toy.to_bytes(),
        toy.replace(
            inputs=(TensorSpec("x", ("batch", 4), ("float64", "bool"), "m", "any"), TensorSpec("y", (1,))),
            context=(ContextSpec("k", "1", {1.0, 2.0}), ContextSpec("phase", "rad", required=True)),
            provenance=composed,
        ).to_bytes(),
        toy.replace(summary="été", tags=("été", "\u202e"), provenance=trained, extra=free, citation=()).to_bytes(),
        (SHIPPED / store.MANIFEST).read_bytes(),
    )


def sealed(data: bytes, chance: random.Random) -> bytes:
    """The mutant with a digest that fits, as often as not in canonical form; where that cannot be, as it is."""
    try:
        value = json.loads(data)
        fitting = toys.sealed(value)
    except (ValueError, RecursionError, AttributeError, GrokkitError):
        return data
    if chance.random() < 0.6:
        return fitting
    digest: str = json.loads(fitting)["digest"]
    return re.sub(rb'"digest": "[^"]*"', b'"digest": "' + digest.encode() + b'"', data)


schema = replacing(re.compile(rb'(?<="schema": )[^,]+'), near)
MANIFEST_MUTATORS: Sequence[Mutator] = (*BYTES, *TREE, *TREE, *TREE, *TEXT, schema)


# -- the run ---------------------------------------------------------------------------------------------------------


def mutants(
    sources: Sequence[bytes], mutators: Sequence[Mutator], count: int, seed: int
) -> Iterator[tuple[bytes, random.Random]]:
    """So many mutants of valid files, of one to three mutations each and none of them valid by doing nothing."""
    chance = random.Random(seed)
    for _ in range(count):
        data = chance.choice(sources)
        rounds = chance.choice([1, 1, 1, 2, 3])
        while rounds > 0 or data in sources:
            data = chance.choice(mutators)(data or b"{}", chance.choice(sources), chance)
            rounds -= 1
        yield data, chance


def weights_mutants(count: int, seed: int) -> Iterator[bytes]:
    return (data for data, _ in mutants(valid_weights(), WEIGHTS_MUTATORS, count, seed))


def manifest_mutants(count: int, seed: int) -> Iterator[bytes]:
    """Two of three with a digest that fits, which alone get beyond the check of the digest."""
    for data, chance in mutants(valid_manifests(), MANIFEST_MUTATORS, count, seed):
        yield sealed(data, chance) if chance.random() < 2 / 3 else data


def attempt(read: Callable[[bytes], T], data: bytes, declared: Errors) -> T | GrokkitError:
    """What a reader gives for a mutant, or the declared error that it raises; anything else fails the test."""
    try:
        return read(data)
    except GrokkitError as error:
        if type(error) in declared and len(str(error)) <= LONGEST and str(error).isprintable():
            return error
        raise AssertionError(f"{error!r} for the mutant {data!r}") from error
    except Exception as error:
        raise AssertionError(f"{error!r} for the mutant {data!r}") from error


@dataclass
class Tally:
    """How many mutants were accepted, and how many refused, by class of error and by what was said without figures."""

    accepted: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    sayings: Counter[str] = field(default_factory=Counter)

    def add(self, result: object) -> None:
        if isinstance(result, GrokkitError):
            self.errors[result.code] += 1
            self.sayings[re.sub(r"'.*'|[\d.]+|\[.*\]", "#", result.given)[:40]] += 1
        else:
            self.accepted += 1

    @property
    def count(self) -> int:
        return self.accepted + self.errors.total()

    def __str__(self) -> str:
        refused = ", ".join(f"{number:,} {name}" for name, number in sorted(self.errors.items()))
        return f"{self.accepted:,} accepted, {refused}"


def fuzz_weights(count: int, seed: int) -> Tally:
    """Read mutants by header and as a whole. What passes both is packed to the same tensors again."""
    tally = Tally()
    for data in weights_mutants(count, seed):
        header = attempt(weights.read_header, data, OF_WEIGHTS)
        tensors = attempt(packing.unpack, data, OF_WEIGHTS)
        tally.add(tensors)
        if isinstance(header, GrokkitError):
            assert type(tensors) is type(header), data
        elif isinstance(tensors, GrokkitError):
            assert "NaN or infinity" in str(tensors), data
        else:
            assert {name: (packing.DTYPES[t.dtype], tuple(t.shape)) for name, t in tensors.items()} == {
                name: (info.dtype, info.shape) for name, info in header.items()
            }, data
            again = packing.unpack(packing.pack(tensors))
            assert packing.tensor_digest(again) == packing.tensor_digest(tensors), data
    return tally


def fuzz_manifests(count: int, seed: int) -> Tally:
    """Parse mutants. What is accepted is canonical and written again as the same bytes."""
    tally = Tally()
    for data in manifest_mutants(count, seed):
        read = attempt(Manifest.parse, data, OF_MANIFESTS)
        tally.add(read)
        if isinstance(read, Manifest):
            assert read.to_bytes() == data == strictjson.canonical(json.loads(data)), data
    return tally


def test_every_source_of_mutants_is_accepted() -> None:
    for data in valid_weights():
        assert packing.unpack(data)
    for data in valid_manifests():
        assert Manifest.parse(data).to_bytes() == data


def test_mutants_are_a_function_of_their_seed() -> None:
    digests = [
        hashlib.sha256(b"".join(make(200, seed))).hexdigest()
        for make in (weights_mutants, manifest_mutants)
        for seed in (1, 1, 2)
    ]
    assert digests[0] == digests[1] != digests[2]
    assert digests[3] == digests[4] != digests[5]


def test_two_thousand_mutated_weights_files_raise_nothing_but_declared_errors() -> None:
    tally = fuzz_weights(2_000, seed=1)
    assert tally.accepted > 100
    assert set(tally.errors) == {kind.__name__ for kind in OF_WEIGHTS}
    assert len(tally.sayings) > 20


def test_two_thousand_mutated_manifests_raise_nothing_but_declared_errors() -> None:
    tally = fuzz_manifests(2_000, seed=1)
    assert tally.accepted > 100
    assert set(tally.errors) == {kind.__name__ for kind in OF_MANIFESTS}
    assert len(tally.sayings) > 20


@pytest.mark.acceptance
def test_100_000_mutated_weights_files_raise_nothing_but_declared_errors(figure: Callable[..., None]) -> None:
    tally = fuzz_weights(100_000, seed=2)
    figure("mutated weights files that raise an undeclared error", f"0 of {tally.count:,}", "0")
    figure("what came of them", str(tally), "any numbers")
    assert tally.count == 100_000
    assert tally.accepted > 5_000


@pytest.mark.acceptance
def test_100_000_mutated_manifests_raise_nothing_but_declared_errors(figure: Callable[..., None]) -> None:
    tally = fuzz_manifests(100_000, seed=2)
    figure("mutated manifests that raise an undeclared error", f"0 of {tally.count:,}", "0")
    figure("what came of them, the accepted canonical and written as the same bytes", str(tally), "any numbers")
    assert tally.count == 100_000
    assert tally.accepted > 5_000


# -- folders ---------------------------------------------------------------------------------------------------------


def folder_mutants(count: int, seed: int) -> Iterator[dict[str, bytes]]:
    """Both files of a cassette, one or both of them mutated, or taken from another cassette."""
    chance = random.Random(seed)
    pairs = [
        {store.MANIFEST: toys.manifest(data=data, summary=str(index)).to_bytes(), WEIGHTS: data}
        for index, data in enumerate(valid_weights())
    ]
    pairs.append({name: (SHIPPED / name).read_bytes() for name in FILES})
    for _ in range(count):
        original, other = chance.sample(pairs, 2)
        files = dict(original)
        while files == original:
            for name in chance.choice([FILES[:1], FILES[1:], FILES]):
                mutators = MANIFEST_MUTATORS if name == store.MANIFEST else WEIGHTS_MUTATORS
                files[name] = chance.choice([*mutators, lambda data, other, _: other])(
                    original[name], other[name], chance
                )
        if files != other:
            yield files


def read_folder(folder: Path, files: dict[str, bytes]) -> store.Stored:
    """The folder as it is read with these files in it."""
    folder.mkdir(exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return store.read(folder)


def count_refused_folders(folder: Path, count: int, seed: int) -> tuple[int, int]:
    """How many mutated folders are refused with exit code 3, and how many there are."""
    refused = total = 0
    for files in folder_mutants(count, seed):
        read = attempt(lambda _, files=files: read_folder(folder, files), repr(files).encode(), OF_FOLDERS)
        total += 1
        refused += isinstance(read, CassetteError) and read.exit_code == 3
    return refused, total


def test_a_mutated_folder_is_always_refused(tmp_path: Path) -> None:
    refused, total = count_refused_folders(tmp_path / "toy", 1_000, seed=3)
    assert refused == total > 900


@pytest.mark.acceptance
def test_20_000_mutated_folders_are_refused(tmp_path: Path, figure: Callable[..., None]) -> None:
    refused, total = count_refused_folders(tmp_path / "toy", 20_000, seed=4)
    figure("mutated folders that are refused with exit code 3", f"{refused:,} of {total:,}", "all")
    assert refused == total > 18_000


def test_a_folder_of_mutated_weights_whose_hash_fits_is_judged_by_its_weights(tmp_path: Path) -> None:
    read_by_header = partial(attempt, weights.read_header, declared=OF_WEIGHTS)
    made = toys.manifest()
    accepted = 0
    for data in weights_mutants(500, seed=5):
        fitting = saving.with_weights(made, data).to_bytes()
        files = {store.MANIFEST: fitting, WEIGHTS: data}
        read = attempt(lambda _, files=files: read_folder(tmp_path / "toy", files), data, OF_FOLDERS)
        if isinstance(read, store.Stored):
            accepted += 1
            assert read.weights == data
        assert isinstance(read, GrokkitError) == (isinstance(read_by_header(data=data), GrokkitError) or not data)
    assert accepted > 20


# -- what the mutants would find -------------------------------------------------------------------------------------

WEAKER_HEADERS: dict[str, tuple[str, Callable[..., Any]]] = {
    "coverage": ("_check_coverage", lambda ordered, size: None),
    "booleans": ("_check_booleans", lambda ordered, data, start: None),
    "duplicates": ("_unique", dict),
    "names": ("is_tensor_name", lambda name: True),
}


@pytest.mark.parametrize(("name", "weaker"), WEAKER_HEADERS.values(), ids=WEAKER_HEADERS)
def test_a_reader_of_weights_without_a_check_accepts_some_mutants(
    name: str, weaker: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [data for data in weights_mutants(4_000, seed=6) if refuses(weights.read_header, data)]
    monkeypatch.setattr(weights, name, weaker)
    assert not all(refuses(weights.read_header, data) for data in files)


def test_an_unpacker_without_the_check_of_numbers_accepts_some_mutants(monkeypatch: pytest.MonkeyPatch) -> None:
    files = [data for data in weights_mutants(2_000, seed=7) if refuses(packing.unpack, data)]
    monkeypatch.setattr(packing, "check_finite", lambda tensors: None)
    assert not all(refuses(packing.unpack, data) for data in files)


WEAKER_MANIFESTS: dict[str, Callable[[bytes], object]] = {
    "digest": lambda data: Manifest.parse(toys.sealed(strictjson.parse(data))),
    "canonical form": lambda data: Manifest.parse(strictjson.canonical(strictjson.parse(data))),
    "duplicates": lambda data: Manifest.parse(strictjson.canonical(json.loads(data))),
}


@pytest.mark.parametrize("weaker", WEAKER_MANIFESTS.values(), ids=WEAKER_MANIFESTS)
def test_a_reader_of_manifests_without_a_check_accepts_some_mutants(weaker: Callable[[bytes], object]) -> None:
    files = [data for data in manifest_mutants(2_000, seed=8) if refuses(Manifest.parse, data)]
    assert not all(refuses(weaker, data) for data in files)


def test_a_reader_of_folders_that_does_not_hash_the_weights_accepts_some_mutants(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "check_weights", lambda manifest, data: None)
    refused, total = count_refused_folders(tmp_path / "toy", 500, seed=9)
    assert refused < total


CAPS: dict[str, Mutator] = {"MAX_DEPTH": nest, "MAX_NODES": fill, "MAX_STRING": lengthen}


@pytest.mark.parametrize(("cap", "mutate"), CAPS.items(), ids=CAPS)
def test_a_reader_of_manifests_without_a_cap_accepts_some_mutants(
    cap: str, mutate: Mutator, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = (sealed(data, chance) for data, chance in mutants(valid_manifests()[2:3], [mutate], 200, seed=10))
    files = [data for data in made if refuses(Manifest.parse, data)]
    monkeypatch.setattr(strictjson, cap, 10**9)
    assert not all(refuses(Manifest.parse, data) for data in files)


def test_a_reader_that_raises_something_else_fails_with_the_mutant() -> None:
    good = valid_manifests()[0]
    with pytest.raises(AssertionError, match=r"^KeyError.*for the mutant b'\{\}'$"):
        attempt(lambda data: json.loads(data)["certificate"], b"{}", OF_MANIFESTS)
    assert attempt(lambda data: json.loads(data)["certificate"], good, OF_MANIFESTS)


def test_a_reader_that_raises_the_wrong_declared_error_fails_with_the_mutant() -> None:
    with pytest.raises(AssertionError, match=r"^BadManifest.*for the mutant b'\[\]'$"):
        attempt(Manifest.parse, b"[]", OF_WEIGHTS)


def test_a_message_that_would_move_the_cursor_fails_with_the_mutant() -> None:
    def read(data: bytes) -> object:
        raise BadManifest("\x1b[2J")

    with pytest.raises(AssertionError, match=r"^BadManifest.*for the mutant b'\[\]'$"):
        attempt(read, b"[]", OF_MANIFESTS)


def refuses(read: Callable[[bytes], object], data: bytes) -> bool:
    """Whether a reader raises anything for this file."""
    with contextlib.suppress(Exception):
        read(data)
        return False
    return True
