"""Complex numbers in the core: precision and kind are kept apart, and errors of complex outputs are counted whole."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import grokkit_core as gk
from grokkit_core.cassette import Cassette
from grokkit_core.dtypes import cast, cast_dtype, is_inexact, real_dtype, real_view, squared_size
from grokkit_core.errors import Incompatible
from grokkit_core.fusion.gate import Calibration, GateState
from grokkit_core.fusion.gates import mix
from grokkit_core.fusion.optimum import best_weights, error_covariance
from grokkit_core.plugins import host
from grokkit_core.streams import stream

REAL, COMPLEX = (torch.float32, torch.float64), (torch.complex64, torch.complex128)


def noise(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(size, dtype=torch.complex128, generator=stream(seed, "complex"))


# -- casts -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", [0, 1])
@pytest.mark.parametrize("given", [*REAL, *COMPLEX])
def test_a_cast_changes_the_precision_and_never_the_kind(given: torch.dtype, wanted: int) -> None:
    tensor = torch.ones(2, dtype=given)
    kind = COMPLEX if given.is_complex else REAL
    for dtype in (REAL[wanted], COMPLEX[wanted]):
        assert cast(tensor, dtype).dtype == kind[wanted]
        assert cast_dtype(dtype, given) == kind[wanted]


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool])
def test_whole_numbers_are_not_cast(dtype: torch.dtype) -> None:
    tensor = torch.ones(2, dtype=dtype)
    assert cast(tensor, torch.float64) is tensor
    assert not is_inexact(tensor)


def test_sizes_and_parts_of_complex_numbers() -> None:
    z = torch.tensor([3 - 4j])
    assert squared_size(z).tolist() == [25.0]
    assert squared_size(torch.tensor([-3.0])).tolist() == [9.0]
    assert real_view(z.conj()).tolist() == [[3.0, 4.0]]
    assert real_view(torch.tensor([1])).tolist() == [1]
    assert [real_dtype(dtype) for dtype in COMPLEX] == list(REAL)


# -- cassettes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("asked", "dtype"), [("float32", 0), ("complex64", 0), ("float64", 1), ("complex128", 1)])
def test_a_cassette_of_complex_fields_takes_either_name_of_a_precision(asked: str, dtype: int) -> None:
    assert gk.load("hpu-free").to("cpu", asked).dtype == COMPLEX[dtype]


@pytest.mark.parametrize("asked", ["complex64", "complex128"])
def test_so_does_one_of_real_states(one: Cassette, asked: str) -> None:
    assert not one.to("cpu", asked).dtype.is_complex


def test_a_precision_that_is_not_listed_is_refused() -> None:
    with pytest.raises(Incompatible, match="complex128 or complex64"):
        gk.load("hpu-free").to("cpu", "float16")


# -- fusions of complex outputs ----------------------------------------------------------------------------------------


def test_the_covariance_of_complex_errors_is_that_of_their_parts() -> None:
    predictions, targets = noise(3, 50, 4), noise(50, 4, seed=1)
    apart = torch.view_as_real(predictions).flatten(2), torch.view_as_real(targets).flatten(1)
    found = error_covariance(predictions, targets)
    assert not found.is_complex()
    assert torch.allclose(found, 2 * error_covariance(*apart))  # a mean over half as many numbers
    assert torch.allclose(found.diagonal(), (predictions - targets).abs().square().mean((1, 2)))


def test_the_covariance_of_each_complex_output_adds_up_to_that_of_all() -> None:
    predictions, targets = noise(2, 50, 4), noise(50, 4, seed=1)
    each = error_covariance(predictions, targets, per_output=True)
    assert each.shape == (4, 2, 2) and not each.is_complex()
    assert torch.allclose(each.mean(0), error_covariance(predictions, targets))


@pytest.mark.parametrize("free", [False, True])
def test_best_weights_see_errors_that_are_imaginary(free: bool) -> None:
    """Errors 3i and -i cancel with weights 1/4 and 3/4; by their real parts both members would be right."""
    targets = noise(20, 3)
    found = best_weights(torch.stack((targets + 3j, targets - 1j)), targets, free=free)
    assert found.tolist() == pytest.approx([0.25, 0.75])


def test_uniform_weights_of_complex_predictions_are_real() -> None:
    predictions = noise(2, 5, 4)
    weights = host().gate("uniform").build(GateState({"members": 2}))((), {}, predictions)
    assert weights.dtype == torch.float64
    assert torch.allclose(mix(weights, predictions), predictions.mean(0))


@pytest.mark.parametrize("exact", [False, True])
def test_calibration_keeps_the_imaginary_part_of_targets(exact: bool) -> None:
    task = host().task("hpu")
    drawn = Calibration(task, [{}], generator=stream(0, "test"), dtype=torch.complex64).draw(2, {}, exact_targets=exact)
    wanted = task.sample(2, generator=stream(0, "test"))
    assert drawn.targets.dtype == (torch.complex128 if exact else torch.complex64)
    assert torch.allclose(drawn.targets.to(torch.complex128), wanted.targets, atol=1e-6)
    assert isinstance(drawn.inputs, Tensor)
    assert drawn.inputs.dtype == torch.complex64
