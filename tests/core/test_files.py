"""Arrays in files: every format means the same, anything malformed is one declared error, outputs appear whole or not at all."""

from __future__ import annotations

import errno
import io
import json
import pickle
import struct
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from grokkit_core import files
from grokkit_core.errors import GrokkitError, Incompatible, NotFound, StoreError, TooLarge, UsageError
from grokkit_core.files import SUFFIXES, ArrayWriter, read_arrays
from grokkit_core.tensors import ContextSpec, Signature, TensorSpec

FUZZ = settings(max_examples=100, deadline=None, derandomize=True)
BOTH = ("float32", "float64")
GRID = Signature([TensorSpec("x", ("batch", 2, 3), BOTH)], [], [ContextSpec("omega")])
VALUES = torch.arange(24, dtype=torch.float32).reshape(4, 2, 3) / 7 - 1


def of(dtype: str, *axes: str | int) -> Signature:
    return Signature([TensorSpec("x", axes or ("batch",), (dtype,))], [])


def npy(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def npz(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def encoded(suffix: str, values: Tensor = VALUES) -> bytes:
    """A file of that kind that holds `values` as the input x."""
    plain = values.numpy()
    writers: dict[str, Callable[[], bytes]] = {
        ".npy": lambda: npy(plain),
        ".npz": lambda: npz(x=plain),
        ".csv": lambda: "\n".join(",".join(map(repr, row)) for row in values.flatten(1).tolist()).encode(),
        ".json": lambda: json.dumps(values.tolist()).encode(),
        ".safetensors": lambda: safetensors.torch.save({"x": values}),
    }
    return writers[suffix]()


def header(shape: str, descr: str = "<f4") -> bytes:
    """A `.npy` file with this shape in its header and no data."""
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}}}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., dict[str, Tensor]]:
    """Writes bytes to a file of a name and reads it as arrays."""

    def call(
        name: str, data: bytes, signature: Signature = GRID, dtype: torch.dtype = torch.float32
    ) -> dict[str, Tensor]:
        (tmp_path / name).write_bytes(data)
        return read_arrays(tmp_path / name, signature, dtype)

    return call


Read = Callable[..., dict[str, Tensor]]


# -- what is read --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_gives_the_same_input(read: Read, suffix: str) -> None:
    found = read("a" + suffix, encoded(suffix))
    assert set(found) == {"x"}
    assert found["x"].dtype == torch.float32
    assert torch.equal(found["x"], VALUES)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_float64_survives_every_format(read: Read, suffix: str) -> None:
    values = VALUES.double() / 3
    found = read("a" + suffix, encoded(suffix, values), dtype=torch.float64)["x"]
    assert found.dtype == torch.float64
    assert torch.equal(found, values)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".safetensors"])
def test_files_with_dtypes_keep_them(read: Read, suffix: str) -> None:
    assert read("a" + suffix, encoded(suffix, VALUES.double()))["x"].dtype == torch.float64
    assert read("a" + suffix, encoded(suffix, VALUES.to(torch.int64)))["x"].dtype == torch.int64


@pytest.mark.parametrize("suffix", [".csv", ".json"])
def test_bare_numbers_take_the_first_dtype_where_the_wanted_one_is_not_listed(read: Read, suffix: str) -> None:
    assert read("a" + suffix, encoded(suffix), dtype=torch.int64)["x"].dtype == torch.float32


@pytest.mark.parametrize("name", ["A.NPY", "a.b.npy", "-.npy"])
def test_only_the_ending_of_a_name_counts(read: Read, name: str) -> None:
    assert torch.equal(read(name, encoded(".npy"))["x"], VALUES)


def test_memory_order_and_byte_order_do_not_matter(read: Read) -> None:
    for array in (np.asfortranarray(VALUES.numpy()), VALUES.numpy().astype(">f4")):
        assert torch.equal(read("a.npy", npy(array))["x"], VALUES)


def test_named_arrays_keep_their_names(read: Read) -> None:
    found = read("a.npz", npz(x=VALUES.numpy(), omega=np.ones(4)))
    assert {name: list(tensor.shape) for name, tensor in found.items()} == {"x": [4, 2, 3], "omega": [4]}


@pytest.mark.parametrize(
    ("suffix", "data"),
    [
        (".npz", npz(x=VALUES.numpy(), omega=np.array(1.5))),
        (".json", json.dumps({"x": VALUES.tolist(), "omega": 1.5}).encode()),
        (".safetensors", safetensors.torch.save({"x": VALUES, "omega": torch.tensor(1.5)})),
    ],
)
def test_one_number_stays_one_number(read: Read, suffix: str, data: bytes) -> None:
    omega = read("a" + suffix, data)["omega"]
    assert (omega.shape, omega.item()) == ((), 1.5)


def test_json_comes_from_standard_input_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(encoded(".json"))))
    assert torch.equal(read_arrays("-", GRID, torch.float32)["x"], VALUES)


# -- complex numbers, integers, bits -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("suffix", "encode"),
    [
        (".npy", lambda z: npy(z.numpy())),
        (".npz", lambda z: npz(x=z.numpy())),
        (".json", lambda z: json.dumps(torch.view_as_real(z).tolist()).encode()),
        (".safetensors", lambda z: safetensors.torch.save({"x": torch.view_as_real(z).contiguous()})),
    ],
)
def test_complex_inputs_are_read(read: Read, suffix: str, encode: Callable[[Tensor], bytes]) -> None:
    z = torch.complex(VALUES[:, 0, 0], VALUES[:, 1, 1])
    found = read("a" + suffix, encode(z), of("complex64"), torch.complex64)["x"]
    assert found.dtype == torch.complex64
    assert torch.equal(found, z)


def test_complex_json_without_pairs_is_refused(read: Read) -> None:
    with pytest.raises(Incompatible, match=r"\[real, imaginary\]"):
        read("a.json", b"[1, 2, 3]", of("complex64"))


@pytest.mark.parametrize("suffix", [".csv", ".json"])
@pytest.mark.parametrize(("dtype", "values"), [("int64", [3, -5]), ("uint8", [0, 255]), ("bool", [0, 1])])
def test_whole_numbers_become_what_the_input_takes(read: Read, suffix: str, dtype: str, values: list[int]) -> None:
    text = json.dumps(values) if suffix == ".json" else "\n".join(map(str, values))
    found = read("a" + suffix, text.encode(), of(dtype))["x"]
    assert found.dtype == getattr(torch, dtype)
    assert found.tolist() == values


@pytest.mark.parametrize("suffix", [".csv", ".json"])
@pytest.mark.parametrize(
    ("dtype", "number"),
    [
        ("int64", "2.7"),
        ("int64", "1e30"),
        ("int64", "9007199254740993"),
        ("uint8", "256"),
        ("uint8", "-1"),
        ("bool", "7"),
    ],
)
def test_a_number_that_the_dtype_cannot_hold_is_refused_not_rounded(
    read: Read, suffix: str, dtype: str, number: str
) -> None:
    data = (f"[{number}]" if suffix == ".json" else number).encode()
    with pytest.raises(Incompatible):
        read("a" + suffix, data, of(dtype))


# -- CSV -----------------------------------------------------------------------------------------------------------


def test_a_row_of_names_is_skipped(read: Read) -> None:
    assert torch.equal(read("a.csv", b"a,b,c,d,e,f\n" + encoded(".csv"))["x"], VALUES)


@pytest.mark.parametrize("change", [lambda t: t.replace(b"\n", b"\r\n"), lambda t: t + b"\n\n", lambda t: b"\n" + t])
def test_line_ends_and_blank_lines_do_not_matter(read: Read, change: Callable[[bytes], bytes]) -> None:
    assert torch.equal(read("a.csv", change(encoded(".csv")))["x"], VALUES)


def test_a_byte_order_mark_costs_no_sample(read: Read) -> None:
    assert torch.equal(read("a.csv", b"\xef\xbb\xbf" + encoded(".csv"))["x"], VALUES)


def test_a_first_row_with_one_bad_cell_is_no_row_of_names(read: Read) -> None:
    with pytest.raises(Incompatible, match="row 1 of .*a cell that is not a number"):
        read("a.csv", b"1,2,3,4,5,six\n1,2,3,4,5,6\n")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1,2,3,4,5\n", "row 1 of .* has 5 columns; expected 6 numbers"),
        ("1,2,3,4,5,6\n1,2,3,4,5,6,7\n", "row 2 of .* has 7 columns"),
        ("1,2,3,4,5,6\n1,2,3,4,5,x\n", "row 2 of .* has a cell that is not a number"),
        ("1,2,3,4,5,6\n1,2,3,4,5,\n", "row 2 of .* has a cell that is not a number"),
        ("1;2;3;4;5;6\n1;2;3;4;5;6\n", "row 1 of .* has 1 columns"),
        ("1;2;3;4;5;6\n", "row 1 of .* has 1 columns"),
    ],
)
def test_a_bad_row_is_named(read: Read, text: str, words: str) -> None:
    with pytest.raises(Incompatible, match=words):
        read("a.csv", text.encode())


def test_a_table_without_rows_has_no_samples(read: Read) -> None:
    for data in (b"", b"a,b,c,d,e,f\n"):
        assert read("a.csv", data)["x"].shape == (0, 2, 3)


def test_an_input_without_fixed_shape_needs_another_format(read: Read) -> None:
    with pytest.raises(Incompatible, match=r"\[batch, n\] has no fixed shape; use .npy, .npz, .json or .safetensors"):
        read("a.csv", b"1,2\n", of("float32", "batch", "n"))


# -- what is refused -----------------------------------------------------------------------------------------------


class Payload:
    """Unpickling it would be noticed."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return (pytest.fail, ("a pickle was run",))


def lying_zip() -> bytes:
    """An archive whose directory claims less than its member inflates to."""
    data = npz(x=np.zeros(1_000))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        size = struct.pack("<I", archive.infolist()[0].file_size)
    return data.replace(size, struct.pack("<I", 200))


def corrupt_deflate() -> bytes:
    data = bytearray(npz(x=np.arange(1_000.0)))
    data[80:200] = b"\xff" * 120
    return bytes(data)


MALFORMED: dict[str, tuple[str, bytes]] = {
    "pickled object": (".npy", npy(np.array([Payload()], dtype=object))),
    "plain pickle": (".npy", pickle.dumps([1.0])),
    "text array": (".npy", npy(np.array(["a", "b"]))),
    "record array": (".npy", npy(np.zeros(3, dtype=[("a", "f4"), ("b", "f4")]))),
    "dates": (".npy", npy(np.zeros(3, dtype="datetime64[s]"))),
    "empty npy": (".npy", b""),
    "no npy": (".npy", b"states"),
    "truncated npy": (".npy", encoded(".npy")[:-5]),
    "npy without data": (".npy", header("(4, 2, 3)")),
    "npy claims a terabyte": (".npy", header("(250000000000,)")),
    "npy claims more than can be counted": (".npy", header("(9999999999999999999,)")),
    "npy of negative size": (".npy", header("(-1,)")),
    "npy with an open bracket": (".npy", header("((((4, 2, 3)")),
    "npy with code for a shape": (".npy", header("__import__('os')")),
    "npy of a later version": (".npy", b"\x93NUMPY\x09\x00" + encoded(".npy")[8:]),
    "pickled object in npz": (".npz", npz(x=np.array([Payload()], dtype=object))),
    "empty npz": (".npz", b""),
    "truncated npz": (".npz", encoded(".npz")[:-30]),
    "no npz": (".npz", b"PK\x03\x04" + b"\x00" * 40),
    "npz that lies": (".npz", lying_zip()),
    "npz with broken data": (".npz", corrupt_deflate()),
    "npz of text": (".npz", npz(x=np.array(["a"]))),
    "text csv": (".csv", b"once upon a time\nthere was a row\n"),
    "binary csv": (".csv", bytes(range(256))),
    "csv with a huge cell": (".csv", b"1," + b"9" * 200_000),
    "no json": (".json", b"{states: 1}"),
    "json of text": (".json", b'["a"]'),
    "json of nothing": (".json", b"null"),
    "json with a hole": (".json", b"[[1, 2], [3, null]]"),
    "ragged json": (".json", b"[[1, 2], [3]]"),
    "json of objects": (".json", b'{"x": {"a": 1}}'),
    "deep json": (".json", b"[" * 20_000 + b"]" * 20_000),
    "truncated json": (".json", encoded(".json")[:-3]),
    "json in latin-1": (".json", '["ä"]'.encode("latin-1")),
    "json with a number of 400 digits": (".json", b"[1" + b"0" * 400 + b"]"),
    "json with a number of 5,000 digits": (".json", b"[1" + b"0" * 5_000 + b"]"),
    "empty safetensors": (".safetensors", b""),
    "truncated safetensors": (".safetensors", encoded(".safetensors")[:-3]),
    "no safetensors": (".safetensors", b"\xff" * 64),
    "safetensors claim a huge header": (".safetensors", struct.pack("<Q", 2**62) + b"{}"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_file_is_one_declared_error_that_names_it(read: Read, case: str) -> None:
    suffix, data = MALFORMED[case]
    with pytest.raises(Incompatible, match=r"of .*/a\.|/a\."):
        read("a" + suffix, data)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@pytest.mark.parametrize("suffix", SUFFIXES)
@FUZZ
@given(data=st.data())
def test_no_mutation_of_a_file_gives_any_other_error(folder: Path, suffix: str, data: st.DataObject) -> None:
    content = bytearray(encoded(suffix))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1) | st.integers(0, min(len(content) - 1, 90)))
        if data.draw(st.booleans()):
            content[place] = data.draw(st.integers(0, 255) | st.sampled_from(b"()[]{}',:0-9.\\\"\n"))
        else:
            content[place : place + data.draw(st.integers(0, 8))] = data.draw(st.binary(max_size=4))
    path = folder / f"fuzz{suffix}"
    path.write_bytes(bytes(content) or b"\0")
    try:
        found = read_arrays(path, GRID, torch.float32)
    except GrokkitError:
        return
    assert all(isinstance(tensor, Tensor) for tensor in found.values())


def test_a_missing_file_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"there is no input file .*missing\.npy"):
        read_arrays(tmp_path / "missing.npy", GRID, torch.float32)


@pytest.mark.parametrize("name", ["a.txt", "a", "a.npy.gz", "a.pt", "a.pkl", ".npy"])
def test_an_unknown_ending_is_a_usage_error_before_anything_is_read(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=r"ends with \.npy, \.npz, \.csv, \.json, \.safetensors"):
        read_arrays(tmp_path / name, GRID, torch.float32)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "folder.npy").mkdir()
    with pytest.raises(StoreError, match="EISDIR"):
        read_arrays(tmp_path / "folder.npy", GRID, torch.float32)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_above_the_cap_is_too_large(read: Read, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    monkeypatch.setattr(files, "MAX_BYTES", 64)
    with pytest.raises(TooLarge, match="expected at most 64 bytes"):
        read("a" + suffix, encoded(suffix))


def test_an_archive_that_would_inflate_above_the_cap_is_too_large(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = npz(x=np.zeros(100_000))
    monkeypatch.setattr(files, "MAX_BYTES", 10_000)
    assert len(bomb) < 10_000
    with pytest.raises(TooLarge, match="inflates to 800128 bytes; expected at most 10000"):
        read("a.npz", bomb)


def test_standard_input_has_the_same_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_BYTES", 10)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(encoded(".json"))))
    with pytest.raises(TooLarge, match="standard input is too large"):
        read_arrays("-", GRID, torch.float32)


def test_an_error_prints_no_control_characters(tmp_path: Path) -> None:
    with pytest.raises(NotFound) as caught:
        read_arrays(tmp_path / "\x1b[2J.npy", GRID, torch.float32)
    assert "\x1b" not in str(caught.value)


# -- writing -------------------------------------------------------------------------------------------------------


def back(path: Path) -> np.ndarray[Any, Any]:
    """What a written file holds, read without the code under test."""
    readers: dict[str, Callable[[], Any]] = {
        ".npy": lambda: np.load(path),
        ".npz": lambda: np.load(path)["outputs"],
        ".csv": lambda: np.loadtxt(path, delimiter=",", ndmin=2),
        ".json": lambda: np.array(json.loads(path.read_text())),
        ".safetensors": lambda: safetensors.torch.load_file(path)["outputs"].numpy(),
    }
    found: np.ndarray[Any, Any] = np.asarray(readers[path.suffix]())
    return found


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_outputs_are_written_to_the_last_digit(tmp_path: Path, suffix: str, dtype: torch.dtype) -> None:
    outputs = (torch.rand((5, 4), generator=torch.Generator(), dtype=torch.float64) / 3).to(dtype)
    with ArrayWriter(tmp_path / f"out{suffix}", None) as writer:
        writer.add(outputs)
    assert np.array_equal(back(tmp_path / f"out{suffix}").astype(outputs.numpy().dtype), outputs.numpy())


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_rollout_has_a_leading_step_axis(tmp_path: Path, suffix: str) -> None:
    steps = torch.rand(3, 5, 4, generator=torch.Generator())
    with ArrayWriter(tmp_path / f"out{suffix}", 3) as writer:
        for outputs in steps:
            writer.add(outputs)
    expected = steps.flatten(0, 1) if suffix == ".csv" else steps
    np.testing.assert_array_equal(back(tmp_path / f"out{suffix}").astype("f4"), expected.numpy())


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_complex_outputs_stay_complex_in_numpy_files(tmp_path: Path, suffix: str) -> None:
    outputs = torch.complex(torch.ones(2, 2), torch.arange(4.0).reshape(2, 2))
    with ArrayWriter(tmp_path / f"out{suffix}", None) as writer:
        writer.add(outputs)
    np.testing.assert_array_equal(back(tmp_path / f"out{suffix}"), outputs.numpy())


@pytest.mark.parametrize("suffix", [".json", ".safetensors"])
@pytest.mark.parametrize("conjugated", [False, True])
def test_complex_outputs_are_pairs_elsewhere(tmp_path: Path, suffix: str, conjugated: bool) -> None:
    outputs = torch.complex(torch.ones(2, 2), torch.arange(4.0).reshape(2, 2))
    with ArrayWriter(tmp_path / f"out{suffix}", None) as writer:
        writer.add(outputs.conj() if conjugated else outputs)
    sign = -1 if conjugated else 1
    assert back(tmp_path / f"out{suffix}").tolist()[0] == [[1.0, 0.0], [1.0, sign * 1.0]]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failure_leaves_no_file(tmp_path: Path, suffix: str, error: type[BaseException]) -> None:
    def write() -> None:
        with ArrayWriter(tmp_path / f"out{suffix}", 3) as writer:
            writer.add(torch.ones(2, 4))
            raise error

    with pytest.raises(error):
        write()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_failure_leaves_an_existing_file_as_it_was(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    path.write_text("precious")

    def write() -> None:
        with ArrayWriter(path, 3) as writer:
            writer.add(torch.ones(2, 4))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write()
    assert path.read_text() == "precious"


def test_a_file_appears_only_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "out.npy"
    path.write_text("old")
    with ArrayWriter(path, None) as writer:
        writer.add(torch.ones(2, 4))
        assert path.read_text() == "old"
    assert back(path).shape == (2, 4)
    assert [item.name for item in tmp_path.glob(".*")] == []


def test_an_existing_file_is_replaced_and_not_written_into(tmp_path: Path) -> None:
    path = tmp_path / "out.npy"
    path.write_text("old")
    with path.open() as reader:
        with ArrayWriter(path, None) as writer:
            writer.add(torch.ones(2, 4))
        assert reader.read() == "old"
    assert back(path).shape == (2, 4)


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "no space")

    path = tmp_path / "out.npy"
    path.write_text("old")
    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(StoreError, match="ENOSPC"), ArrayWriter(path, None) as writer:
        writer.add(torch.ones(2, 4))
    assert [item.read_text() for item in tmp_path.iterdir()] == ["old"]


def test_a_folder_that_is_missing_is_a_store_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="ENOENT"), ArrayWriter(tmp_path / "missing" / "out.npy", None):
        pass


def test_a_folder_in_the_place_of_the_file_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "out.npy").mkdir()
    with pytest.raises(StoreError), ArrayWriter(tmp_path / "out.npy", None) as writer:
        writer.add(torch.ones(1))
    assert [item.name for item in tmp_path.glob(".*")] == []


@pytest.mark.parametrize("name", ["out", "out.txt", "-"])
def test_an_output_of_an_unknown_ending_is_refused_before_anything_is_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="output file"):
        ArrayWriter(tmp_path / name, None)
