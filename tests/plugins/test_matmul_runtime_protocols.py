"""Full protocols of the runtime: exact products up to size 1024, errors and memory of large ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from types import ModuleType

import pytest
import torch
from grokkit_matmul import levels as level_choice
from grokkit_matmul.model import scheme_of
from grokkit_matmul.recursion import Blockwise
from grokkit_matmul.runtime import Runtime
from grokkit_matmul.scheme import Scheme
from torch import Tensor

from grokkit_core.cassette import Cassette
from grokkit_core.streams import stream

pytestmark = pytest.mark.acceptance
SIZES = (1, 2, 3, 4, 5, 7, 8, 16, 31, 33, 64, 100, 127, 128, 129, 255, 256, 257, 500, 511, 513, 1000, 1023, 1024)
RECTANGULAR = ((1, 1000, 1), (1000, 1, 1000), (513, 255, 1), (1023, 511, 257), (3, 777, 1024), (640, 1001, 333))
Figure = Callable[..., None]


@pytest.fixture(autouse=True)
def uncalibrated() -> Iterator[None]:
    level_choice.forget()
    yield
    level_choice.forget()


@pytest.fixture(scope="module")
def scheme(learned: Cassette) -> Scheme:
    return scheme_of(learned.tensors)


def whole(shape: tuple[int, ...], seed: int) -> Tensor:
    """Integers from -8 to 8."""
    return torch.randint(-8, 9, shape, generator=stream(seed, "protocol")).double()


def test_learned_integers_multiply_exactly_up_to_size_1024(scheme: Scheme, schemes: ModuleType, figure: Figure) -> None:
    runtimes = {name: Runtime(other) for name, other in schemes.others(scheme).items()}
    runtimes = {"schedule": Runtime(scheme), "coefficients": Runtime(scheme), **runtimes}
    runtimes["coefficients"].recursion = Blockwise(scheme)
    shapes = [(n, n, n) for n in SIZES] + list(RECTANGULAR)
    right, cases = dict.fromkeys(runtimes, 0), 0
    for m, k, n in shapes:
        a, b = whole((m, k), 1), whole((k, n), 2)
        expected = (a.numpy().astype("int64") @ b.numpy().astype("int64")) if max(m, k, n) <= 257 else None
        oracle = a @ b if expected is None else torch.from_numpy(expected).double()
        cases += 4
        for name, runtime in runtimes.items():
            most = 2 if name == "4x4x4" else 3
            for levels in range(4):
                right[name] += torch.equal(runtime.multiply(a, b, levels=min(levels, most)), oracle)
    for name, count in right.items():
        figure(
            f"integers up to 8, float64, sizes 1 to 1024, 0 to 3 levels, {name}: bit-equal",
            f"{count} of {cases}",
            "all",
        )
    assert set(right.values()) == {cases}


def test_every_change_of_a_coefficient_is_detected(scheme: Scheme, schemes: ModuleType, figure: Figure) -> None:
    a, b = whole((128, 128), 1), whole((128, 128), 2)
    wrong, least = 0, float("inf")
    changed = list(schemes.mutations(scheme))
    for other in changed:
        runtime = Runtime(other)
        apart = min(float((runtime.multiply(a, b, levels=count) - a @ b).abs().max()) for count in (None, 1, 2, 3))
        wrong += not other.is_exact and not runtime.is_winograd and apart > 0
        least = min(least, apart)
    figure(
        "single changes of the 84 coefficients: refused and wrong at 128", f"{wrong} of {len(changed)}", "168 of 168"
    )
    figure("single changes of the 84 coefficients: least largest error at 128", f"{least:g}", "reported")
    assert wrong == len(changed) == 168


def bound(most: float, beside: bool) -> str:
    if math.isinf(most):
        return "reported"
    return f"<= {most:.3g}" + (" (relative to torch.mm, whose own error is beyond that of the facts)" if beside else "")


@pytest.mark.parametrize("n", [1024, 2048])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("entries", ["normal", "uniform"])
def test_errors_of_large_products(
    learned: Cassette, schemes: ModuleType, entries: str, dtype: torch.dtype, n: int, figure: Figure
) -> None:
    found = schemes.errors(learned.matmul, n, entries, dtype)
    for row in found:
        name = f"{entries} {str(dtype).removeprefix('torch.')} {n}, {row.levels} levels"
        figure(
            f"{name}: Frobenius error over that of torch.mm", f"{row.factor:.2f}", bound(row.most_factor, row.beside)
        )
        figure(
            f"{name}: largest error over u N max(A) max(B)", f"{row.largest:.3f}", bound(row.most_largest, row.beside)
        )
    assert all(row.within for row in found)


@pytest.mark.parametrize("n", [1023, 2048])
@pytest.mark.parametrize(("levels", "bound"), [(1, 0.26), (2, 0.41)])
def test_working_memory_of_large_products(scheme: Scheme, levels: int, bound: float, n: int, figure: Figure) -> None:
    runtime = Runtime(scheme)
    a, out = torch.ones(n, n), torch.empty(n, n)
    held = []
    for _ in range(2):
        runtime.multiply(a, a, out=out, levels=levels)
        held.append(runtime.recursion.buffers.bytes)
    share = held[1] / (3 * n**2 * a.element_size())
    figure(f"workspace at {n}, {levels} levels, over three matrices", f"{share:.3f}", f"<= {bound}")
    assert held[0] == held[1]
    assert share <= bound
