"""Tensors to bytes and back: equal tensors give equal bytes, and nothing that is not finite goes in or comes out."""

from __future__ import annotations

import itertools
import json
import struct
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import toys
from torch import Tensor

from grokkit_core import packing, store, weights
from grokkit_core.errors import BadWeights, TooLarge
from grokkit_core.manifest import WEIGHTS

FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
WHOLES = [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8]
ODD_VALUES = {"NaN": float("nan"), "infinity": float("inf"), "minus infinity": float("-inf")}

NOT_FINITE: dict[str, tuple[str, bytes]] = {
    "F64 NaN": ("F64", struct.pack("<d", float("nan"))),
    "F64 infinity": ("F64", struct.pack("<d", float("inf"))),
    "F32 NaN": ("F32", struct.pack("<f", float("nan"))),
    "F32 signalling NaN": ("F32", b"\x01\x00\x80\x7f"),
    "F32 minus infinity": ("F32", struct.pack("<f", float("-inf"))),
    "F16 NaN": ("F16", struct.pack("<e", float("nan"))),
    "F16 infinity": ("F16", struct.pack("<e", float("inf"))),
    "BF16 NaN": ("BF16", b"\xc0\x7f"),
    "BF16 infinity": ("BF16", b"\x80\x7f"),
}


def example() -> dict[str, Tensor]:
    """Tensors of several dtypes and shapes."""
    torch.manual_seed(0)
    return {
        "b": torch.randn(3, 2, dtype=torch.float64),
        "a.weight": torch.randn(2, 2),
        "a.bias": torch.randn(2),
        "steps": torch.tensor(7),
        "mask": torch.tensor([True, False]),
    }


def same(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors agree in dtype, shape and every bit."""
    return first.dtype == second.dtype and torch.equal(first, second)


def by_hand(dtype: str, data: bytes) -> bytes:
    """A file with one tensor `w` of one number."""
    entry = json.dumps({"dtype": dtype, "shape": [1], "data_offsets": [0, len(data)]})
    return toys.raw(f'{{{toys.PT},"w":{entry}}}', data)


# -- round trip ------------------------------------------------------------------------------------------------------


def test_tensors_come_back_as_they_were() -> None:
    tensors = example()
    read = packing.unpack(packing.pack(tensors))
    assert set(read) == set(tensors)
    assert all(same(read[name], tensors[name]) for name in tensors)


@pytest.mark.parametrize("dtype", [*FLOATS, *WHOLES, torch.bool], ids=str)
def test_every_listed_dtype_comes_back(dtype: torch.dtype) -> None:
    tensor = torch.tensor([[0, 1], [1, 0]]).to(dtype)
    assert same(packing.unpack(packing.pack({"w": tensor}))["w"], tensor)


def test_the_listed_dtypes_are_those_of_the_format() -> None:
    assert set(packing.DTYPES.values()) == set(weights.ITEM_BYTES)


def test_the_bytes_do_not_depend_on_the_order_of_names() -> None:
    tensors = example()
    made = {packing.pack({name: tensors[name] for name in order}) for order in itertools.permutations(tensors)}
    assert len(made) == 1


def test_other_tensors_give_other_bytes() -> None:
    changed = example()
    changed["a.bias"][0] += 1
    assert packing.pack(changed) != packing.pack(example())


def test_packing_twice_gives_the_same_bytes() -> None:
    assert packing.pack(example()) == packing.pack(example())


def test_the_written_file_is_one_that_the_strict_reader_takes() -> None:
    assert set(weights.read_header(packing.pack(example()))) == set(example())


def test_a_view_is_written_as_its_own_numbers() -> None:
    tensor = torch.arange(12.0).reshape(3, 4)
    read = packing.unpack(packing.pack({"w": tensor.T, "row": tensor[1]}))
    assert torch.equal(read["w"], tensor.T)
    assert torch.equal(read["row"], tensor[1])


def test_tied_tensors_are_written_one_by_one() -> None:
    tensor = torch.ones(2)
    assert set(packing.unpack(packing.pack({"a": tensor, "b": tensor}))) == {"a", "b"}


def test_a_parameter_is_written_without_its_gradient() -> None:
    read = packing.unpack(packing.pack({"w": torch.nn.Parameter(torch.ones(2))}))["w"]
    assert not read.requires_grad
    assert torch.equal(read, torch.ones(2))


def test_packing_changes_no_tensor() -> None:
    tensors = example()
    packing.pack(tensors)
    assert all(same(tensors[name], example()[name]) for name in tensors)


# -- complex numbers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "stored"), [(torch.complex64, torch.float32), (torch.complex128, torch.float64)], ids=str
)
def test_a_complex_tensor_is_stored_as_a_real_view(dtype: torch.dtype, stored: torch.dtype) -> None:
    tensor = torch.tensor([[1 + 2j, 3 - 4j]], dtype=dtype)
    read = packing.unpack(packing.pack({"w": tensor}))["w"]
    assert (read.dtype, read.shape) == (stored, (1, 2, 2))
    assert same(torch.view_as_complex(read), tensor)


def test_a_lazily_conjugated_tensor_keeps_its_values() -> None:
    tensor = torch.tensor([1 + 2j, 3 - 4j]).conj()
    assert tensor.is_conj()
    read = packing.unpack(packing.pack({"w": tensor}))["w"]
    assert torch.equal(torch.view_as_complex(read), torch.tensor([1 - 2j, 3 + 4j]))


def test_a_lazily_negated_tensor_keeps_its_values() -> None:
    tensor = torch.tensor([1 + 2j]).conj().imag
    assert tensor.is_neg()
    assert packing.unpack(packing.pack({"w": tensor}))["w"].tolist() == [-2.0]


# -- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [*FLOATS, torch.complex64, torch.complex128], ids=str)
@pytest.mark.parametrize("value", ODD_VALUES.values(), ids=ODD_VALUES.keys())
def test_a_number_that_is_not_finite_is_not_written(dtype: torch.dtype, value: float) -> None:
    tensor = torch.ones(3, dtype=dtype)
    tensor[1] = value
    with pytest.raises(BadWeights, match="NaN or infinity") as caught:
        packing.pack({"w": tensor})
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(("dtype", "data"), NOT_FINITE.values(), ids=NOT_FINITE.keys())
def test_a_number_that_is_not_finite_is_not_read(dtype: str, data: bytes) -> None:
    with pytest.raises(BadWeights, match="NaN or infinity"):
        packing.unpack(by_hand(dtype, data))


@pytest.mark.parametrize("dtype", ["F64", "F32", "F16", "BF16"])
def test_the_same_file_with_a_finite_number_is_read(dtype: str) -> None:
    assert packing.unpack(by_hand(dtype, bytes(weights.ITEM_BYTES[dtype])))["w"].tolist() == [0.0]


@pytest.mark.parametrize(
    "name",
    ["", ".", "a..b", ".a", "a.", "-a", "a/b", "../a", "a b", "a\n", "é", "a\\b", 'a"b', "__metadata__", "a" * 129],
    ids=ascii,
)
def test_a_bad_tensor_name_is_not_written(name: str) -> None:
    with pytest.raises(BadWeights, match="tensor name"):
        packing.pack({name: torch.ones(1)})


def test_no_tensors_at_all_are_refused() -> None:
    with pytest.raises(BadWeights):
        packing.pack({})


@pytest.mark.parametrize("shape", [(0,), (2, 0), (0, 3)])
def test_an_empty_tensor_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(BadWeights):
        packing.pack({"w": torch.ones(shape)})


def test_nine_dimensions_are_refused() -> None:
    with pytest.raises(TooLarge):
        packing.pack({"w": torch.ones([1] * 9)})


@pytest.mark.parametrize("dtype", [torch.float8_e5m2, torch.float8_e4m3fn, torch.uint16], ids=str)
def test_a_dtype_outside_the_list_is_refused(dtype: torch.dtype) -> None:
    with pytest.raises(BadWeights, match="dtype"):
        packing.pack({"w": torch.zeros(2, dtype=torch.float32).to(dtype)})


def test_a_sparse_tensor_is_a_declared_error() -> None:
    with pytest.raises(BadWeights):
        packing.pack({"w": torch.eye(3).to_sparse()})


def test_a_tensor_without_values_is_a_declared_error() -> None:
    with pytest.raises(BadWeights):
        packing.pack({"w": torch.ones(2, device="meta")})


def test_what_the_strict_reader_refuses_is_not_unpacked() -> None:
    data = safetensors.torch.save({"w": torch.ones(1)}, metadata={"format": "pt", "note": "x"})
    assert set(safetensors.torch.load(data)) == {"w"}
    with pytest.raises(BadWeights, match="metadata"):
        packing.unpack(data)


@pytest.mark.parametrize("error", [KeyError, TypeError, ValueError, OverflowError, RuntimeError, MemoryError])
def test_a_failure_of_the_library_is_a_declared_error(monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    def fail(data: bytes) -> Any:
        raise error("broken")

    monkeypatch.setattr(safetensors.torch, "load", fail)
    with pytest.raises(BadWeights, match="broken"):
        packing.unpack(toys.weights())


OTHER_READINGS: dict[str, dict[str, Tensor]] = {
    "a tensor less": {"w": torch.ones(4)},
    "a tensor more": {"w": torch.ones(4), "ready": torch.ones(1, dtype=torch.bool), "x": torch.ones(1)},
    "another shape": {"w": torch.ones(2, 2), "ready": torch.ones(1, dtype=torch.bool)},
    "another dtype": {"w": torch.ones(4, dtype=torch.float64), "ready": torch.ones(1, dtype=torch.bool)},
}


@pytest.mark.parametrize("reading", OTHER_READINGS.values(), ids=OTHER_READINGS.keys())
def test_a_library_that_reads_something_else_is_not_believed(
    monkeypatch: pytest.MonkeyPatch, reading: dict[str, Tensor]
) -> None:
    monkeypatch.setattr(safetensors.torch, "load", lambda data: reading)
    with pytest.raises(BadWeights):
        packing.unpack(toys.weights())


# -- a file that changes after it was read ---------------------------------------------------------------------------


def test_editing_the_file_in_place_does_not_change_a_loaded_tensor(tmp_path: Path) -> None:
    folder = toys.toy(tmp_path)
    tensor = packing.unpack(store.read(folder).weights)["w"]
    (folder / WEIGHTS).write_bytes(toys.weights(fill=9.0))
    assert tensor.tolist() == [1.5] * 4


def test_editing_the_file_in_place_does_change_a_mapped_tensor(tmp_path: Path) -> None:
    path = toys.toy(tmp_path) / WEIGHTS
    size = path.stat().st_size
    mapped = torch.from_file(str(path), shared=True, size=size, dtype=torch.uint8)
    before = mapped.clone()
    with path.open("r+b") as file:
        file.write(toys.weights(fill=9.0))
    assert not torch.equal(mapped, before)


# -- digests and counts ----------------------------------------------------------------------------------------------


def test_the_tensor_digest_does_not_depend_on_the_order_of_names() -> None:
    tensors = example()
    assert packing.tensor_digest(tensors) == packing.tensor_digest(dict(reversed(tensors.items())))


def test_the_tensor_digest_changes_with_any_bit() -> None:
    changed = example()
    changed["mask"][1] = True
    assert packing.tensor_digest(changed) != packing.tensor_digest(example())


def test_the_tensor_digest_is_that_of_what_is_stored() -> None:
    tensors = {"w": torch.tensor([[1 + 2j, 3 - 4j]]).conj(), "x": torch.arange(6.0).reshape(2, 3).T}
    assert packing.tensor_digest(tensors) == packing.tensor_digest(packing.unpack(packing.pack(tensors)))


def test_the_tensor_digest_takes_a_lazily_negated_tensor() -> None:
    tensors = {"w": torch.tensor([1 + 2j]).conj().imag}
    assert packing.tensor_digest(tensors) == packing.tensor_digest({"w": torch.tensor([-2.0])})


def test_the_tensor_digest_takes_a_slice_of_one_number() -> None:
    tensors = {"w": torch.tensor([1.0, 2.0])[::2]}
    assert packing.tensor_digest(tensors) == packing.tensor_digest({"w": torch.tensor([1.0])})


def test_a_complex_number_counts_as_two_parameters() -> None:
    assert packing.count_parameters({"a": torch.ones(3), "b": torch.ones(2, dtype=torch.complex64)}) == 7


def test_whole_numbers_are_no_parameters() -> None:
    assert packing.count_parameters({"a": torch.ones(3), "steps": torch.tensor(5), "mask": torch.tensor([True])}) == 3
