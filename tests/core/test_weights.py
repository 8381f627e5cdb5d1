"""The header of a weights file: what safetensors lets through and we do not, and agreement on everything else."""

from __future__ import annotations

import json
import random
import re
import struct
import time
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from typing import Any

import pytest
import safetensors
import toys

from grokkit_core.errors import BadWeights, GrokkitError, TooLarge
from grokkit_core.weights import ITEM_BYTES, MAX_DIMENSIONS, MAX_HEADER, MAX_TENSORS, read_header

PT = toys.PT
MEASURED_WITH = "0.8.0"
THEIR_ERRORS = (safetensors.SafetensorError, KeyError, TypeError, ValueError, OverflowError, RuntimeError)
"""What the safetensors library raises for a file that it does not read."""


def entry(dtype: Any = "U8", shape: Sequence[object] = (1,), offsets: Sequence[object] = (0, 1)) -> str:
    """One tensor entry as JSON text; the default is one byte."""
    return json.dumps({"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}, separators=(",", ":"))


def named(name: str, data: bytes = b"\1", **fields: Any) -> bytes:
    """A file with one tensor of this name, written into the header as it is."""
    return toys.raw(f'{{{PT},"{name}":{entry(**fields)}}}', data)


def one(text: str, data: bytes = b"\1") -> bytes:
    """A file with one tensor `w` whose entry is this text."""
    return toys.raw(f'{{{PT},"w":{text}}}', data)


def metadata(text: str) -> bytes:
    """A file with one good tensor and this metadata; an empty text leaves it out."""
    return toys.raw("{" + (f'"__metadata__":{text},' if text else "") + f'"w":{entry()}}}', b"\1")


def sized(dtype: str, shape: Sequence[int], size: int) -> bytes:
    """A file with one tensor of zero bytes."""
    return one(entry(dtype, shape, (0, size)), bytes(size))


def many(count: int) -> bytes:
    """A file with that many tensors of one byte."""
    entries = ",".join(f'"t{index}":{entry("U8", (1,), (index, index + 1))}' for index in range(count))
    return toys.raw(f"{{{PT},{entries}}}", bytes(count))


def extra(text: str) -> bytes:
    """A file whose tensor entry has more fields."""
    return one(entry()[:-1] + "," + text + "}")


NESTED = "[" * 120 + "]" * 120
GOOD = f'{{{PT},"w":{entry()}}}'
AB = entry("U8", (1,), (0, 1)), entry("U8", (1,), (1, 2))

ACCEPTED_BY_SAFETENSORS: dict[str, bytes] = {
    "1 duplicate name": toys.raw(f'{{{PT},"a":{AB[0]},"a":{AB[0]}}}', b"\1"),
    "2 duplicate name through an escape": toys.raw(f'{{{PT},"a":{AB[0]},"\\u0061":{AB[0]}}}', b"\1"),
    "3 duplicate metadata key": metadata('{"format":"pt","format":"pt"}'),
    "3 duplicate metadata key through an escape": metadata('{"format":"pt","\\u0066ormat":"pt"}'),
    "4 unknown field": extra('"note":1'),
    "4 unknown field nested 120 deep": extra(f'"note":{NESTED}'),
    "4 unknown field twice": extra('"note":1,"note":2'),
    "5 metadata null": metadata("null"),
    "5 no metadata": metadata(""),
    "5 empty metadata": metadata("{}"),
    "5 more metadata": metadata('{"format":"pt","note":"x"}'),
    "5 other format": metadata('{"format":"np"}'),
    "6 escape sequence in a metadata value": metadata('{"format":"\\u001b]0;x\\u0007"}'),
    "6 escape sequence in a metadata key": metadata('{"format":"pt","\\u001b[31m":"x"}'),
    "7 no tensors": toys.raw("{}"),
    "7 metadata only": toys.raw(f"{{{PT}}}"),
    "8 entry as a list": one('["U8",[1],[0,1]]'),
    "9 dtype as a map": one('{"dtype":{"U8":null},"shape":[1],"data_offsets":[0,1]}'),
    "10 dtype with escapes": one('{"dtype":"\\u00558","shape":[1],"data_offsets":[0,1]}'),
    "11 space before the brace": toys.raw(" " + GOOD, b"\1"),
    "12 newline after the brace": toys.raw(GOOD + "\n" * (-len(GOOD) % 8 or 8), b"\1"),
    "12 tab after the brace": toys.raw(GOOD + "\t" * (-len(GOOD) % 8 or 8), b"\1"),
    "12 newlines between tokens": toys.raw(GOOD.replace(",", ",\n"), b"\1"),
    "12 a mebibyte of spaces": toys.raw(GOOD + " " * MAX_HEADER, b"\1"),
    "13 header length off by one": toys.raw(GOOD + " " * ((-len(GOOD) % 8) + 1), b"\1", pad=False),
    "14 escape character in a name": named("a\\u001b[31m"),
    "14 newline in a name": named("a\\nb"),
    "14 markup in a name": named("[bold]a[/bold]"),
    "14 NUL in a name": named("a\\u0000"),
    "14 bidirectional override in a name": named("a\u202eb"),
    "14 escaped bidirectional override in a name": named("a\\u202eb"),
    "15 path as a name": named("../../etc/passwd"),
    "15 dots in a name": named("a..b"),
    "16 empty name": named(""),
    "16 name of 129 characters": named("a" * 129),
    "16 name of 500,000 characters": named("a" * 500_000),
    "17 two normal forms of a name": toys.raw(f'{{{PT},"\u00e9":{AB[0]},"e\u0301":{AB[1]}}}', b"\1\1"),
    "18 zero-size tensor": toys.raw(f'{{{PT},"a":{entry("U8", (0,), (0, 0))},"b":{AB[0]}}}', b"\1"),
    "18 nothing but a zero-size tensor": sized("F32", (0,), 0),
    "19 huge shape of zero size": sized("U8", (0, 2**63 - 1), 0),
    "19 shape of zero size at the end of 64 bits": sized("U8", (0, 2**64 - 1), 0),
    "20 9 dimensions": sized("U8", [1] * (MAX_DIMENSIONS + 1), 1),
    "20 66 dimensions": sized("U8", [1] * 66, 1),
    "20 3,001 dimensions": sized("U8", [1] * 3_001, 1),
    "22 boolean 7": one(entry("BOOL", (2,), (0, 2)), b"\1\7"),
    "22 boolean 255": one(entry("BOOL", (2,), (0, 2)), b"\xff\0"),
    "23 F4": sized("F4", (2,), 1),
    "24 F8_E8M0": sized("F8_E8M0", (1,), 1),
    "24 F6_E2M3": sized("F6_E2M3", (4,), 3),
    "24 F6_E3M2": sized("F6_E3M2", (4,), 3),
    "25 F8_E5M2": sized("F8_E5M2", (1,), 1),
    "25 F8_E4M3": sized("F8_E4M3", (1,), 1),
    "25 F8_E4M3FNUZ": sized("F8_E4M3FNUZ", (1,), 1),
    "25 C64": sized("C64", (1,), 8),
    "25 U16": sized("U16", (1,), 2),
    "25 U32": sized("U32", (1,), 4),
    "25 U64": sized("U64", (1,), 8),
    "26 4,097 tensors": many(MAX_TENSORS + 1),
    "26 100,000 tensors": many(100_000),
}

REFUSED_BY_BOTH: dict[str, bytes] = {
    "empty file": b"",
    "7 bytes": b"\0" * 7,
    "8 bytes": struct.pack("<Q", 0),
    "header beyond the file": struct.pack("<Q", 64) + b"{}",
    "header of 100,000,001 bytes": struct.pack("<Q", 100_000_001) + b"{}      ",
    "header of 2^64 - 1 bytes": b"\xff" * 8 + b"{}      ",
    "header of no bytes": struct.pack("<Q", 0) + b"{}      ",
    "bad UTF-8": toys.raw(GOOD.encode().replace(b'"w"', b'"\xff"'), b"\1"),
    "bad JSON": toys.raw(GOOD[:-1], b"\1"),
    "list": toys.raw("[]"),
    "byte order mark": toys.raw("\ufeff" + GOOD, b"\1"),
    "NUL padding": toys.raw(GOOD + "\0" * (-len(GOOD) % 8 or 8), b"\1"),
    "second document": toys.raw(GOOD + GOOD, b"\1"),
    "raw control byte": toys.raw(GOOD.replace('"w"', '"w\x01"'), b"\1"),
    "lone surrogate": named("a\\ud800"),
    "overlap": toys.raw(f'{{{PT},"a":{AB[0]},"b":{AB[0]}}}', b"\1"),
    "partial overlap": toys.raw(f'{{{PT},"a":{entry("U8", (2,), (0, 2))},"b":{AB[1]}}}', b"\1\1"),
    "hole": toys.raw(f'{{{PT},"a":{AB[0]},"b":{entry("U8", (1,), (2, 3))}}}', b"\1\1\1"),
    "hole at the start": one(entry("U8", (1,), (1, 2)), b"\1\1"),
    "trailing bytes": toys.raw(GOOD, b"\1\1"),
    "truncated": toys.raw(GOOD, b""),
    "shape larger than the bytes": one(entry("U8", (2,), (0, 1))),
    "shape smaller than the bytes": one(entry("U8", (1,), (0, 2)), b"\1\1"),
    "negative offset": one(entry("U8", (1,), (-1, 0)), b""),
    "reversed offsets": one(entry("U8", (1,), (1, 0))),
    "offset 1.0": one('{"dtype":"U8","shape":[1],"data_offsets":[0,1.0]}'),
    "offset 1e0": one('{"dtype":"U8","shape":[1],"data_offsets":[0,1e0]}'),
    "offset -0": one('{"dtype":"U8","shape":[1],"data_offsets":[-0,1]}'),
    "true as a dimension": one('{"dtype":"U8","shape":[true],"data_offsets":[0,1]}'),
    "string as a dimension": one('{"dtype":"U8","shape":["1"],"data_offsets":[0,1]}'),
    "negative dimension": one(entry("U8", (-1,), (0, 1))),
    "two negative dimensions": one(entry("U8", (-1, -1), (0, 1))),
    "null as a shape": one('{"dtype":"U8","shape":null,"data_offsets":[0,1]}'),
    "three offsets": one(entry("U8", (1,), (0, 1, 1))),
    "one offset": one(entry("U8", (1,), (0,))),
    "19 shape of zero size beyond 64 bits": sized("U8", (0, 2**64), 0),
    "shape that overflows": one(entry("F64", (2**40, 2**40), (0, 0)), b""),
    "shape that overflows to the right size": one(entry("U8", (2**32, 2**32, 2), (0, 0)), b""),
    "unknown dtype": one(entry("F31")),
    "lower-case dtype": one(entry("u8")),
    "missing dtype": one('{"shape":[1],"data_offsets":[0,1]}'),
    "missing shape": one('{"dtype":"U8","data_offsets":[0,1]}'),
    "missing offsets": one('{"dtype":"U8","shape":[1]}'),
    "metadata that is no string": metadata('{"format":1}'),
    "metadata that is a list": metadata('["format","pt"]'),
    "duplicate metadata": toys.raw(f'{{{PT},{PT},"w":{entry()}}}', b"\1"),
    "duplicate dtype": extra('"dtype":"U8"'),
    "duplicate shape": extra('"shape":[1]'),
    "zero-size tensor inside another": toys.raw(
        f'{{{PT},"a":{entry("U8", (2,), (0, 2))},"b":{entry("U8", (0,), (1, 1))}}}', b"\1\1"
    ),
    "zero-size tensor past the end": toys.raw(f'{{{PT},"a":{AB[0]},"b":{entry("U8", (0,), (9, 9))}}}', b"\1"),
    "nested 5,000 deep": extra('"note":' + "[" * 5_000 + "]" * 5_000),
    "nested 100,000 deep": extra('"note":' + "[" * 100_000 + "]" * 100_000),
    "nested 100,000 deep and left open": toys.raw('{"a":' + "[" * 100_000),
    "NaN in an unknown field": extra('"note":NaN'),
    "1e999 in an unknown field": extra('"note":1e999'),
    "odd number of F4": one(entry("F4", (3,), (0, 1))),
    "tensor that is null": one("null"),
    "gzip": b"\x1f\x8b\x08\x00" + bytes(60),
}


def refusal(data: bytes) -> GrokkitError:
    with pytest.raises((BadWeights, TooLarge)) as caught:
        read_header(data)
    return caught.value


# -- what is read ----------------------------------------------------------------------------------------------------


def test_a_valid_file_is_read_with_its_layout() -> None:
    header = read_header(toys.weights())
    assert {name: (info.dtype, info.shape, info.begin, info.end) for name, info in header.items()} == {
        "w": ("F32", (4,), 0, 16),
        "ready": ("BOOL", (1,), 16, 17),
    }


def test_tensors_come_in_file_order() -> None:
    data = toys.raw(f'{{"b":{AB[1]},{PT},"a":{AB[0]}}}', b"\1\1")
    assert list(read_header(data)) == ["a", "b"]


@pytest.mark.parametrize(("dtype", "size"), ITEM_BYTES.items())
def test_every_listed_dtype_is_read(dtype: str, size: int) -> None:
    assert read_header(sized(dtype, (3,), 3 * size))["w"].dtype == dtype


def test_a_scalar_is_read() -> None:
    assert read_header(sized("F32", (), 4))["w"].shape == ()


@pytest.mark.parametrize("name", ["w", "0", "_", "layers.0.weight", "a-b", "A_z9", "a" * 128])
def test_a_tensor_name_is_read(name: str) -> None:
    assert list(read_header(named(name))) == [name]


def test_the_caps_themselves_are_allowed() -> None:
    assert len(read_header(many(MAX_TENSORS))) == MAX_TENSORS
    assert len(read_header(sized("U8", [1] * MAX_DIMENSIONS, 1))["w"].shape) == MAX_DIMENSIONS


# -- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", ACCEPTED_BY_SAFETENSORS.values(), ids=ACCEPTED_BY_SAFETENSORS.keys())
def test_what_safetensors_accepts_is_refused(data: bytes) -> None:
    error = refusal(data)
    assert error.exit_code == 3
    assert len(str(error).splitlines()) == 1


@pytest.mark.skipif(version("safetensors") != MEASURED_WITH, reason=f"measured with safetensors {MEASURED_WITH}")
@pytest.mark.parametrize("data", ACCEPTED_BY_SAFETENSORS.values(), ids=ACCEPTED_BY_SAFETENSORS.keys())
def test_safetensors_does_accept_it(data: bytes) -> None:
    assert isinstance(safetensors.deserialize(data), list)


@pytest.mark.parametrize("data", REFUSED_BY_BOTH.values(), ids=REFUSED_BY_BOTH.keys())
def test_what_safetensors_refuses_is_refused(data: bytes) -> None:
    error = refusal(data)
    assert error.exit_code == 3
    assert len(str(error).splitlines()) == 1


@pytest.mark.parametrize("data", REFUSED_BY_BOTH.values(), ids=REFUSED_BY_BOTH.keys())
def test_safetensors_does_refuse_it(data: bytes) -> None:
    with pytest.raises(THEIR_ERRORS):
        safetensors.deserialize(data)


TOO_LARGE: dict[str, bytes] = {
    "header of 2 MiB": toys.raw(GOOD + " " * (2 << 20), b"\1"),
    "header that claims 2^64 - 1 bytes": b"\xff" * 8 + b"{}      ",
    "4,097 tensors": many(MAX_TENSORS + 1),
    "9 dimensions": sized("U8", [1] * (MAX_DIMENSIONS + 1), 1),
}


@pytest.mark.parametrize("data", TOO_LARGE.values(), ids=TOO_LARGE.keys())
def test_a_file_beyond_a_cap_is_called_too_large(data: bytes) -> None:
    assert isinstance(refusal(data), TooLarge)


@pytest.mark.parametrize("case", ["nested 100,000 deep", "26 100,000 tensors", "16 name of 500,000 characters"])
def test_a_hostile_header_is_refused_at_once(case: str) -> None:
    data = {**ACCEPTED_BY_SAFETENSORS, **REFUSED_BY_BOTH}[case]
    start = time.process_time()
    refusal(data)
    assert time.process_time() - start < 0.5


def test_a_header_full_of_duplicates_is_refused_at_once() -> None:
    entries = ",".join(f'"{index:x}":0' for index in range(90_000))
    data = toys.raw(f'{{{PT},{entries},"0":0}}')
    start = time.process_time()
    refusal(data)
    assert time.process_time() - start < 0.5


def test_a_refusal_quotes_only_a_little_of_a_name() -> None:
    assert len(str(refusal(named("x" * 5_000)))) < 400


# -- agreement with safetensors --------------------------------------------------------------------------------------

Mutation = Callable[[bytes, random.Random], bytes]


def seeds() -> list[bytes]:
    """Valid files from which mutants are made."""
    two = toys.raw(f'{{{PT},"a":{entry("F32", (2, 1), (0, 8))},"b.c":{entry("I16", (3,), (8, 14))}}}', bytes(range(14)))
    scalar = toys.raw(f'{{"s":{entry("F64", (), (0, 8))},{PT}}}', bytes(8))
    spaced = toys.raw(GOOD.replace(":", ": ").replace(",", " , "), b"\1")
    return [toys.weights(), two, scalar, spaced]


def split(data: bytes) -> tuple[bytes, bytes]:
    """Header text and data part of a seed."""
    end = 8 + struct.unpack("<Q", data[:8])[0]
    return data[8:end], data[end:]


def flip(data: bytes, chance: random.Random) -> bytes:
    """One bit anywhere."""
    changed = bytearray(data)
    changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def retype(data: bytes, chance: random.Random) -> bytes:
    """One byte of the header replaced by one that JSON likes."""
    header, body = split(data)
    place = chance.randrange(len(header))
    return toys.raw(
        header[:place] + bytes([chance.choice(b'"{}[]:,0123456789-.eE truefalsn\\')]) + header[place + 1 :], body
    )


def renumber(data: bytes, chance: random.Random) -> bytes:
    """One number of the header replaced."""
    header, body = split(data)
    spot = chance.choice(list(re.finditer(rb"\d+", header)))
    number = chance.choice([b"0", b"1", b"2", b"4", b"8", b"14", b"16", b"17", b"-1", b"-0", b"1.0", b"1e1", b"01"])
    return toys.raw(header[: spot.start()] + number + header[spot.end() :], body)


def recount(data: bytes, chance: random.Random) -> bytes:
    """The shape of one tensor replaced by another, often of the same size."""
    header, body = split(data)
    spot = chance.choice(list(re.finditer(rb'"shape" ?: ?\[[^]]*\]', header)))
    shape = chance.choice([b"", b"1", b"2", b"4", b"1,4", b"2,2", b"4,1", b"2,1,1", b"3,1", b"1,1,1", b"0", b"2,0"])
    return toys.raw(header[: spot.start()] + b'"shape":[' + shape + b"]" + header[spot.end() :], body)


def rename(data: bytes, chance: random.Random) -> bytes:
    """One string of the header replaced."""
    header, body = split(data)
    spot = chance.choice(list(re.finditer(rb'"[^"]*"', header)))
    texts = [b"w", b"a", b"x.y", b"F32", b"U8", b"I8", b"I32", b"BF16", b"dtype", b"shape", b"__metadata__", b"pt", b""]
    return toys.raw(header[: spot.start()] + b'"' + chance.choice(texts) + b'"' + header[spot.end() :], body)


def respace(data: bytes, chance: random.Random) -> bytes:
    """White space put between tokens or at the end."""
    header, body = split(data)
    place = chance.choice([spot.end() for spot in re.finditer(rb"[:,{}\[\]]", header)])
    return toys.raw(header[:place] + chance.choice([b" ", b"  ", b"\n", b"\t"]) + header[place:], body)


def resize(data: bytes, chance: random.Random) -> bytes:
    """Bytes cut off or added at the end."""
    return data[: -chance.randint(1, 3)] if chance.random() < 0.5 else data + bytes(chance.randint(1, 3))


def revalue(data: bytes, chance: random.Random) -> bytes:
    """One byte of the data part replaced."""
    header, body = split(data)
    changed = bytearray(body)
    changed[chance.randrange(len(changed))] = chance.randrange(256)
    return toys.raw(header, bytes(changed))


def repeat(data: bytes, chance: random.Random) -> bytes:
    """A piece of the header doubled or cut out."""
    header, body = split(data)
    begin, end = sorted(chance.sample(range(len(header) + 1), 2))
    piece = header[begin:end] * chance.choice([0, 2])
    return toys.raw(header[:begin] + piece + header[end:], body)


MUTATIONS: Sequence[Mutation] = (flip, retype, renumber, recount, rename, respace, resize, revalue, repeat)


def mutants(count: int, seed: int) -> Iterable[bytes]:
    """Mutants of valid files, one or two mutations each."""
    chance, sources = random.Random(seed), seeds()
    for _ in range(count):
        data = chance.choice(MUTATIONS)(chance.choice(sources), chance)
        if chance.random() < 0.2:
            data = revalue(data, chance) if _whole(data) else flip(data, chance)
        yield data


def _whole(data: bytes) -> bool:
    return len(data) > 8 and 8 + struct.unpack("<Q", data[:8])[0] < len(data)


def ours(data: bytes) -> dict[str, tuple[str, list[int], bytes]] | None:
    """Names, dtypes, shapes and bytes as we read them, or None if we refuse."""
    try:
        header = read_header(data)
    except (BadWeights, TooLarge):
        return None
    start = 8 + struct.unpack("<Q", data[:8])[0]
    return {
        name: (info.dtype, list(info.shape), data[start + info.begin : start + info.end])
        for name, info in header.items()
    }


def theirs(data: bytes) -> dict[str, tuple[str, list[int], bytes]] | None:
    """The same as safetensors reads it."""
    try:
        read = safetensors.deserialize(data)
    except THEIR_ERRORS:
        return None
    return {name: (item["dtype"], item["shape"], bytes(item["data"])) for name, item in read}


def compare(count: int, seed: int) -> tuple[int, int]:
    """How many mutants both readers accept, and how many only we refuse; they never differ otherwise."""
    both = stricter = 0
    for data in mutants(count, seed):
        mine, other = ours(data), theirs(data)
        if mine is None:
            stricter += other is not None
        else:
            assert mine == other, data
            both += 1
    return both, stricter


@pytest.mark.parametrize("data", seeds())
def test_mutants_start_from_files_that_both_read(data: bytes) -> None:
    assert ours(data) == theirs(data) is not None


def test_whatever_we_accept_safetensors_reads_the_same() -> None:
    both, stricter = compare(20_000, seed=1)
    assert both > 1_000
    assert stricter > 500


@pytest.mark.acceptance
def test_whatever_we_accept_of_100_000_mutants_safetensors_reads_the_same(figure: Callable[..., None]) -> None:
    both, stricter = compare(100_000, seed=2)
    figure("mutants that both readers accept, alike", f"{both:,} of 100,000", "all that ours accepts")
    figure("mutants that only ours refuses", f"{stricter:,} of 100,000", "any number")
    assert both > 5_000
    assert stricter > 2_500
