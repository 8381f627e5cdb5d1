"""Learned coefficients multiply: exactly on integers, as `torch.matmul` everywhere else, and wrongly once changed."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from grokkit_matmul import levels as level_choice
from grokkit_matmul import recursion, winograd
from grokkit_matmul.levels import Circumstances, Measured
from grokkit_matmul.model import BilinearNetwork, scheme_of
from grokkit_matmul.recursion import Blockwise, Winograd
from grokkit_matmul.runtime import Runtime
from grokkit_matmul.scheme import Scheme, slot_set
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from grokkit_core.cassette import Cassette
from grokkit_core.errors import Incompatible, UsageError
from grokkit_core.streams import stream

SHAPES = (
    (1, 1, 1),
    (2, 2, 2),
    (3, 3, 3),
    (1, 9, 1),
    (7, 1, 7),
    (2, 3, 5),
    (16, 16, 16),
    (17, 31, 19),
    (64, 64, 64),
    (63, 65, 64),
    (5, 129, 12),
    (130, 3, 77),
    (127, 127, 127),
    (130, 66, 129),
)
"""m, k, n: even, odd, thin, smaller than a format."""

LEVELS = (0, 1, 2, 3)
FLOATS = {torch.float32: 1e-4, torch.float64: 1e-12, torch.complex64: 1e-4, torch.bfloat16: 0.5, torch.float16: 0.05}
"""What two orders of summation may differ by, for a few terms of size one and at most two levels."""


Multiply = Callable[..., Tensor]


@pytest.fixture(autouse=True)
def uncalibrated() -> Iterator[None]:
    """No number of levels is known but what a test records."""
    level_choice.forget()
    yield
    level_choice.forget()


@pytest.fixture(scope="module")
def scheme(learned: Cassette) -> Scheme:
    return scheme_of(learned.tensors)


@pytest.fixture(scope="module")
def runtimes(scheme: Scheme, schemes: ModuleType) -> dict[str, Runtime]:
    """The schedule, the same coefficients read one by one, and forms and formats without a schedule."""
    found = {name: Runtime(other) for name, other in schemes.others(scheme).items()}
    plain = Runtime(scheme)
    plain.recursion = Blockwise(scheme)
    return {"winograd": Runtime(scheme), "coefficients": plain, **found}


@pytest.fixture
def multiply(learned: Cassette) -> Multiply:
    return learned.matmul


def whole(shape: tuple[int, ...], seed: int, dtype: torch.dtype = torch.float64, size: int = 8) -> Tensor:
    """Integers from -size to size."""
    return torch.randint(-size, size + 1, shape, generator=stream(seed, "whole")).to(dtype)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    kind = dtype if dtype.is_complex else torch.float64
    return torch.randn(shape, generator=stream(seed, "normal", *shape), dtype=kind).to(dtype)


def mixed(factor: np.ndarray, left: Tensor) -> Tensor:
    return torch.einsum("rij,ij->r", torch.from_numpy(factor).double(), left)


def exact(runtime: Runtime, m: int, k: int, n: int, levels: int | None) -> bool:
    """Whether a product of integers is right to the bit."""
    a, b = whole((m, k), 1), whole((k, n), 2)
    expected = (a.long() @ b.long()).double()
    return torch.equal(runtime.multiply(a, b, levels=levels), expected)


def wins_from(n: int, levels: int = 1, runtime: Runtime | None = None, dtype: torch.dtype = torch.float64) -> None:
    """Let calibration have found that some levels pay from a size on."""
    form = runtime.form if runtime else "winograd"
    where = Circumstances(form, dtype, torch.device("cpu"), torch.get_num_threads())
    level_choice.record(where, [Measured(n, levels, 1.5)])


# -- exact on integers -------------------------------------------------------------------------------------------------


def test_the_learned_coefficients_are_what_the_schedule_runs(learned: Cassette, runtimes: dict[str, Runtime]) -> None:
    runtime = learned.architecture.runtime(learned)  # type: ignore[attr-defined]
    assert runtime.is_exact and runtime.is_winograd
    assert isinstance(runtime.recursion, Winograd)
    assert runtime.form == "winograd"
    others = {name: runtimes[name] for name in ("2x2x3", "4x4x4", "other gauge")}
    assert all(other.is_exact and isinstance(other.recursion, Blockwise) for other in others.values())
    assert len({other.form for other in others.values()}) == 3


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("name", ["winograd", "coefficients", "2x2x3", "4x4x4", "other gauge"])
def test_integers_are_multiplied_exactly_at_every_shape(runtimes: dict[str, Runtime], name: str, levels: int) -> None:
    shapes = SHAPES if name != "4x4x4" or levels < 3 else [shape for shape in SHAPES if max(shape) < 64]
    assert all(exact(runtimes[name], *shape, levels) for shape in shapes)


@given(st.tuples(*[st.integers(1, 130)] * 3), st.sampled_from(LEVELS), st.integers(0, 4))
@settings(max_examples=60, deadline=None)
def test_integers_are_multiplied_exactly_at_any_shape(
    runtimes: dict[str, Runtime], shape: tuple[int, int, int], levels: int, which: int
) -> None:
    name, runtime = list(runtimes.items())[which]
    assert exact(runtime, *shape, min(levels, 2) if name == "4x4x4" else levels)


@pytest.mark.parametrize("name", ["winograd", "4x4x4", "other gauge"])
@pytest.mark.parametrize("power", [1, 2, 3])
def test_a_recursion_written_apart_gives_the_same(
    runtimes: dict[str, Runtime], schemes: ModuleType, name: str, power: int
) -> None:
    runtime = runtimes[name]
    n = runtime.scheme.format.m**power
    a, b = whole((n, n), 3), whole((n, n), 4)
    expected = schemes.by_recursion(runtime.scheme, a, b)
    assert torch.equal(expected, a @ b)
    for levels in range(3 if n == 64 else 4):
        assert torch.equal(runtime.multiply(a, b, levels=levels), expected)


def test_matrices_of_the_format_are_multiplied_by_the_coefficients_themselves(
    scheme: Scheme, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = normal(9, 2, 2), normal(9, 2, 2, seed=1)
    u, v, w = scheme.u, scheme.v, scheme.w
    by_hand = torch.stack(
        [
            torch.einsum("r,rij->ij", mixed(u, x) * mixed(v, y), torch.from_numpy(w).double())
            for x, y in zip(a, b, strict=True)
        ]
    )
    runtime = Runtime(scheme)
    monkeypatch.setattr(torch, "matmul", None)
    torch.testing.assert_close(runtime.multiply(a, b), by_hand, rtol=1e-14, atol=1e-14)
    assert runtime.chosen_levels(a[0], b[0]) == runtime.chosen_levels(a, b) == 1
    assert runtime.chosen_levels(normal(3, 2), normal(2, 2)) == 0


# -- changed coefficients ----------------------------------------------------------------------------------------------


def test_every_single_change_is_inexact_refused_by_the_schedule_and_multiplies_wrongly(
    scheme: Scheme, schemes: ModuleType
) -> None:
    a, b = whole((6, 5), 5), whole((5, 4), 6)
    small, other = torch.tensor([[2.0, 3.0], [5.0, 11.0]]), torch.tensor([[17.0, 41.0], [97.0, 331.0]])
    changed = list(schemes.mutations(scheme))
    assert len(changed) == 168
    for wrong in changed:
        runtime = Runtime(wrong)
        assert not (wrong.is_exact or winograd.runs(wrong) or runtime.is_winograd)
        assert runtime.form != "winograd"
        for levels in (None, 1, 2):
            assert not torch.equal(runtime.multiply(a, b, levels=levels), a @ b)
        assert not torch.equal(runtime.multiply(small, other), small @ other)
        assert torch.equal(runtime.multiply(a, b, levels=0), a @ b)


def test_changed_coefficients_are_wrong_in_batches_gradients_and_integers_too(
    scheme: Scheme, schemes: ModuleType
) -> None:
    runtime = Runtime(next(schemes.mutations(scheme)))
    a, b = whole((3, 4, 4), 1), whole((3, 4, 4), 2)
    assert not torch.equal(runtime.multiply(a, b), a @ b)
    assert not torch.equal(runtime.multiply(a.long(), b.long()), a.long() @ b.long())
    assert not torch.equal(runtime.multiply(a.requires_grad_(), b), a @ b)


def test_blocks_that_no_product_goes_to_are_zero(scheme: Scheme) -> None:
    runtime = Runtime(Scheme(scheme.u, scheme.v, scheme.w * np.array([[1, 0], [1, 1]])))
    out = torch.full((6, 6), float("nan"), dtype=torch.float64)
    a, b = whole((6, 6), 1), whole((6, 6), 2)
    expected = a @ b
    expected[:3, 3:] = 0
    assert torch.equal(runtime.multiply(a, b, out=out, levels=1), expected)


def test_a_slot_that_does_nothing_keeps_a_scheme_exact_but_not_the_schedules(scheme: Scheme) -> None:
    wider = Scheme(*(np.concatenate((factor, 0 * factor[:1])) for factor in (scheme.u, scheme.v, scheme.w)))
    runtime = Runtime(wider)
    assert runtime.is_exact and not runtime.is_winograd
    assert exact(runtime, 13, 12, 11, 2)


def test_slots_in_another_order_and_with_other_signs_are_still_the_schedules(scheme: Scheme) -> None:
    signs = np.array([1, -1, 1, -1, -1, 1, 1])[:, None, None]
    turned = Scheme(*(factor[::-1] for factor in (scheme.u * signs, scheme.v, scheme.w * signs)))
    assert turned.is_exact and Runtime(turned).is_winograd


# -- programs ----------------------------------------------------------------------------------------------------------

PROGRAMS = ("FUSED", "UNFUSED")


def alterations(program: tuple[winograd.Step, ...]) -> Iterator[tuple[winograd.Step, ...]]:
    """Programs with one sign turned or one quadrant exchanged."""
    other = {"1": "2", "2": "1"}
    for index, step in enumerate(program):
        changed = []
        if step.op == "watch":
            continue
        if step.op in ("sum", "accumulate"):
            changed.append(replace(step, sign=-step.sign))
        if step.left[0] in "AB":
            changed.append(replace(step, left=step.left[:2] + other[step.left[2]]))
        if step.right[:1] in ("A", "B"):
            changed.append(replace(step, right=step.right[:2] + other[step.right[2]]))
        for altered in changed:
            yield (*program[:index], altered, *program[index + 1 :])


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_says_of_itself_that_it_is_exact_with_42_coefficients(name: str) -> None:
    read = winograd.coefficients(getattr(winograd, name))
    assert read.is_exact
    assert [int(np.count_nonzero(factor)) for factor in (read.u, read.v, read.w)] == [14, 14, 14]


def test_both_programs_are_one_algorithm_and_the_ones_that_run() -> None:
    assert slot_set(winograd.coefficients(winograd.FUSED)) == slot_set(winograd.coefficients(winograd.UNFUSED))
    assert recursion.FUSED is winograd.FUSED
    assert recursion.UNFUSED is winograd.UNFUSED


def test_the_programs_have_the_operations_that_the_facts_count() -> None:
    def counted(program: tuple[winograd.Step, ...]) -> dict[str, int]:
        kinds = [step.op for step in program]
        return {kind: kinds.count(kind) for kind in ("product", "accumulate", "sum", "copy")}

    assert counted(winograd.FUSED) == {"product": 2, "accumulate": 5, "sum": 10, "copy": 2}
    assert counted(winograd.UNFUSED) == {"product": 7, "accumulate": 0, "sum": 15, "copy": 0}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_with_one_altered_step_is_refused(scheme: Scheme, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    altered = list(alterations(getattr(winograd, name)))
    assert len(altered) > 20
    for program in altered:
        monkeypatch.setattr(winograd, name, program)
        assert not winograd.coefficients(program).is_exact
        runtime = Runtime(scheme)
        assert not runtime.is_winograd
        assert isinstance(runtime.recursion, Blockwise)


# -- workspace ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [255, 256])
@pytest.mark.parametrize(("levels", "bound"), [(1, 0.26), (2, 0.41)])
def test_working_memory_is_a_share_of_the_matrices_and_does_not_grow(
    scheme: Scheme, n: int, levels: int, bound: float
) -> None:
    runtime = Runtime(scheme)
    buffers, held = runtime.recursion.buffers, []
    a, out = normal(n, n), torch.empty(n, n, dtype=torch.float64)
    for _ in range(3):
        runtime.multiply(a, a, out=out, levels=levels)
        held.append(buffers.bytes / a.element_size())
    assert held[0] == held[1] == held[2]
    assert 0 < held[1] <= bound * 3 * n**2
    buffers.release()
    assert buffers.bytes == 0
    runtime.multiply(a, a, out=out, levels=0)
    assert buffers.bytes == 0


def test_one_level_works_in_the_memory_that_two_levels_left(scheme: Scheme) -> None:
    runtime = Runtime(scheme)
    a = normal(128, 128)
    runtime.multiply(a, a, levels=2)
    before = runtime.recursion.buffers.bytes
    runtime.multiply(a, a, levels=1)
    runtime.multiply(a[:64], a, levels=2)
    assert runtime.recursion.buffers.bytes == before


def test_every_thread_has_memory_of_its_own(runtimes: dict[str, Runtime]) -> None:
    for runtime in (runtimes["winograd"], runtimes["other gauge"]):
        runtime.recursion.buffers.release()
        cases = [(whole((n, n), n), whole((n, n), n + 1)) for n in (65, 96)]
        wrong: list[int] = []
        held: list[int] = []
        together = threading.Barrier(2)

        def work(
            a: Tensor,
            b: Tensor,
            runtime: Runtime = runtime,
            wrong: list[int] = wrong,
            held: list[int] = held,
            together: threading.Barrier = together,
        ) -> None:
            expected = a @ b
            together.wait()
            for turn in range(20):
                if not torch.equal(runtime.multiply(a, b, levels=1 + turn % 2), expected):
                    wrong.append(turn)
            held.append(runtime.recursion.buffers.bytes)

        threads = [threading.Thread(target=work, args=case) for case in cases]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []
        assert len(held) == 2 and min(held) > 0
        assert runtime.recursion.buffers.bytes == 0


def test_a_copied_network_multiplies_with_a_runtime_of_its_own(learned: Cassette) -> None:
    network = learned.module
    assert isinstance(network, BilinearNetwork)
    a, b = whole((9, 9), 1), whole((9, 9), 2)
    assert torch.equal(network(a, b), a @ b)
    for copied in (copy.deepcopy(network), copy.copy(network)):
        assert torch.equal(copied(a, b), a @ b)
        assert copied.runtime is not network.runtime
    changed = copy.deepcopy(network)
    changed.U[0, 0, 0] += 1
    assert not torch.equal(changed(a, b), a @ b)
    assert torch.equal(network(a, b), a @ b)


# -- layouts and out ---------------------------------------------------------------------------------------------------

VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    "rows apart": lambda x: torch.cat((x, x), 1)[:, : x.shape[1]],
    "every second row": lambda x: x.repeat_interleave(2, 0)[::2],
    "every second column": lambda x: x.repeat_interleave(2, 1)[:, ::2],
    "transposed": lambda x: x.T.contiguous().T,
    "transposed and strided": lambda x: x.T.repeat_interleave(3, 1)[:, ::3].T,
    "offset": lambda x: torch.nn.functional.pad(x, (1, 2, 3, 4))[3:-4, 1:-2],
}


@pytest.mark.parametrize("levels", [None, 0, 1, 2])
@pytest.mark.parametrize("name", VIEWS)
def test_views_are_multiplied_as_their_copies(multiply: Multiply, name: str, levels: int | None) -> None:
    a, b = whole((11, 14), 1), whole((14, 9), 2)
    view = VIEWS[name]
    assert torch.equal(view(a), a) and torch.equal(view(b), b)
    for left, right in ((view(a), b), (a, view(b)), (view(a), view(b))):
        assert torch.equal(multiply(left, right, levels=levels), a @ b)
        out = view(torch.zeros(11, 9, dtype=torch.float64))
        assert multiply(left, right, out=out, levels=levels) is out
        assert torch.equal(out, a @ b)


@pytest.mark.parametrize("levels", [None, 0, 1, 2])
def test_rows_that_are_one_and_the_same_are_multiplied(multiply: Multiply, levels: int | None) -> None:
    a, b = whole((1, 6), 1).expand(5, 6), whole((6, 1), 2).expand(6, 7)
    assert torch.equal(multiply(a, b, levels=levels), a @ b)


@pytest.mark.parametrize("kind", ["conj", "imag"])
@pytest.mark.parametrize("levels", [0, 1, 2])
def test_lazily_conjugated_and_negated_views_are_multiplied_as_they_read(
    multiply: Multiply, kind: str, levels: int
) -> None:
    a = torch.complex(whole((6, 6), 1), whole((6, 6), 2)).conj()
    view = a if kind == "conj" else a.imag
    assert view.is_conj() or view.is_neg()
    plain = view.resolve_conj().resolve_neg()
    assert torch.equal(multiply(view, view, levels=levels), plain @ plain)
    out = torch.zeros(6, 6, dtype=torch.complex128).conj() if kind == "conj" else torch.zeros(6, 6).double()
    assert torch.equal(multiply(view, view, out=out, levels=levels), plain @ plain)


@pytest.mark.parametrize("levels", [None, 0, 1, 2])
def test_out_may_overlap_what_is_multiplied(multiply: Multiply, levels: int | None) -> None:
    a, b = whole((8, 8), 1), whole((8, 8), 2)
    expected = a @ b
    for place in ("left", "right", "both", "rows below", "transposed"):
        left, right = a.clone(), b.clone()
        if place == "both":
            assert torch.equal(multiply(left, left, out=left, levels=levels), a @ a)
            continue
        if place == "rows below":
            room = torch.cat((a, a))
            left, out = room[:8], room[3:11]
        else:
            out = {"left": left, "right": right, "transposed": left.T}[place]
        assert multiply(left, right, out=out, levels=levels) is out
        assert torch.equal(out, expected), place


@pytest.mark.parametrize("levels", [None, 0, 1, 2])
def test_out_may_lie_in_an_array_that_an_input_lies_in(multiply: Multiply, levels: int | None) -> None:
    array = np.concatenate((whole((8, 8), 1).numpy(), np.zeros((8, 8))))
    a, out, b = torch.from_numpy(array[:8]), torch.from_numpy(array[2:10]), whole((8, 8), 2)
    assert a.untyped_storage().data_ptr() != out.untyped_storage().data_ptr()
    expected = a.clone() @ b
    assert torch.equal(multiply(a, b, out=out, levels=levels), expected)


@pytest.mark.parametrize("levels", [None, 0, 1])
def test_out_keeps_nothing_of_what_it_held(multiply: Multiply, levels: int | None) -> None:
    a, b = whole((7, 5), 1), whole((5, 6), 2)
    out = torch.full((7, 6), float("nan"), dtype=torch.float64)
    assert torch.equal(multiply(a, b, out=out, levels=levels), a @ b)


@pytest.mark.parametrize("levels", [None, 0, 1])
@pytest.mark.parametrize(
    ("out", "words"),
    [
        (torch.empty(4, 5), r"out is \[4, 5\] torch.float32 on cpu; expected \[5, 5\] torch.float32 on cpu"),
        (torch.empty(1, 5, 5), r"out is \[1, 5, 5\]"),
        (torch.empty(5, 5, dtype=torch.float64), "out is .* torch.float64"),
        (torch.empty(5, 5, device="meta"), "on meta; expected .* on cpu"),
        ([1.0], "out is a list; expected a torch.Tensor"),
    ],
    ids=["shape", "batch", "dtype", "device", "list"],
)
def test_an_out_that_does_not_fit_is_refused(multiply: Multiply, out: Any, words: str, levels: int | None) -> None:
    with pytest.raises(Incompatible, match=words):
        multiply(torch.ones(5, 5), torch.ones(5, 5), out=out, levels=levels)


@pytest.mark.parametrize("levels", [None, 0, 1])
@pytest.mark.parametrize("which", [0, 1, 2])
def test_out_with_tensors_that_need_gradients_is_refused(multiply: Multiply, which: int, levels: int | None) -> None:
    tensors = [torch.ones(5, 5) for _ in range(3)]
    tensors[which].requires_grad_()
    a, b, out = tensors
    with pytest.raises(Incompatible, match="out= with tensors that need gradients.*no_grad"):
        multiply(a, b, out=out, levels=levels)
    with torch.no_grad():
        assert torch.equal(multiply(a, b, out=out, levels=levels), torch.full((5, 5), 5.0))


# -- edges of what is multiplied ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [None, 0, 1, 2])
@pytest.mark.parametrize("shape", [(0, 3, 4), (3, 0, 4), (3, 4, 0), (0, 0, 0), (0, 0, 4)])
@pytest.mark.parametrize("batch", [(), (3,), (0,), (2, 0)])
def test_empty_matrices_are_multiplied_as_torch_does(
    multiply: Multiply, batch: tuple[int, ...], shape: tuple[int, int, int], levels: int | None
) -> None:
    m, k, n = shape
    a, b = torch.ones(*batch, m, k), torch.ones(*batch, k, n)
    assert torch.equal(multiply(a, b, levels=levels), a @ b)
    out = torch.full((*batch, m, n), float("nan"))
    assert torch.equal(multiply(a, b, out=out, levels=levels), a @ b)


@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        (torch.ones(3, 4), torch.ones(5, 3), r"\[3, 4\] times a matrix \[5, 3\]; expected 4 rows in b"),
        (torch.ones(4, 4), torch.ones(4, 4).double(), "torch.float32 and torch.float64; expected one dtype"),
        (torch.ones(4, 4), torch.ones(4, 4, device="meta"), "cpu and meta; expected one device"),
        (torch.ones(4), torch.ones(4, 4), r"'a' has shape \[4\]; expected a matrix"),
        (torch.ones(4, 4), torch.ones(4), r"'b' has shape \[4\]"),
        (torch.ones(()), torch.ones(4, 4), r"'a' has shape \[\]"),
        ([[1.0]], torch.ones(1, 1), "'a' is a list; expected a torch.Tensor"),
        (torch.ones(1, 1), np.ones((1, 1)), "'b' is a ndarray"),
        (torch.ones(2, 4, 4), torch.ones(3, 4, 4), r"batches \[2\] and \[3\]; expected leading axes that broadcast"),
    ],
    ids=["inner", "dtype", "device", "vector", "vector-b", "scalar", "list", "array", "batches"],
)
@pytest.mark.parametrize("levels", [None, 0, 1])
def test_what_is_no_product_is_refused_with_what_was_given(
    multiply: Multiply, a: Any, b: Any, words: str, levels: int | None
) -> None:
    with pytest.raises(Incompatible, match=words):
        multiply(a, b, levels=levels)


@pytest.mark.parametrize("levels", [-1, 17, 99, 1.5, 1.0, True, False, "1", (1,)], ids=repr)
def test_levels_that_make_no_sense_are_refused(multiply: Multiply, levels: Any) -> None:
    with pytest.raises(UsageError, match="levels .*; expected a whole number from 0 to 16"):
        multiply(torch.ones(4, 4), torch.ones(4, 4), levels=levels)


def test_more_levels_than_fit_are_as_many_as_fit(multiply: Multiply) -> None:
    a, b = whole((20, 13), 1), whole((13, 9), 2)
    assert torch.equal(multiply(a, b, levels=16), a @ b)


@pytest.mark.parametrize("levels", [None, 0, 1, 2])
@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8])
@pytest.mark.parametrize("shape", [(2, 2, 2), (7, 5, 6)])
def test_integers_stay_integers_and_are_exact(
    multiply: Multiply, shape: tuple[int, int, int], dtype: torch.dtype, levels: int | None
) -> None:
    m, k, n = shape
    a, b = (whole(size, 1, torch.int64, 5).abs() for size in ((m, k), (k, n)))
    found = multiply(a.to(dtype), b.to(dtype), levels=levels)
    assert found.dtype == dtype
    assert torch.equal(found.long(), a @ b)


def test_integers_of_which_only_block_sums_overflow_are_exact(multiply: Multiply) -> None:
    a, b = torch.full((8, 8), 100, dtype=torch.int8), torch.zeros(8, 8, dtype=torch.int8)
    b[0] = 1
    with pytest.raises(Incompatible, match="sums that fit"):
        multiply(a, b, levels=1)
    large = torch.full((8, 8), 2**61)
    one = torch.zeros(8, 8, dtype=torch.int64)
    assert torch.equal(multiply(large, one, levels=2), one)
    assert torch.equal(multiply(large[:, :1], one[:1] + 1, levels=1), large)


@pytest.mark.parametrize(
    ("dtype", "value"), [(torch.int8, 12), (torch.int32, 2**15), (torch.int64, 2**31), (torch.int64, -(2**63))]
)
@pytest.mark.parametrize("levels", [None, 0, 1])
def test_integers_whose_sums_may_not_fit_are_refused(
    multiply: Multiply, dtype: torch.dtype, value: int, levels: int | None
) -> None:
    a = torch.full((2, 2), value, dtype=dtype)
    with pytest.raises(Incompatible, match="over 2 terms in .*; expected sums that fit the dtype; cast"):
        multiply(a, a, levels=levels)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint16])
@pytest.mark.parametrize("levels", [None, 0, 1])
def test_dtypes_that_torch_does_not_multiply_are_refused(
    multiply: Multiply, dtype: torch.dtype, levels: int | None
) -> None:
    a = torch.ones(4, 4).to(dtype)
    with pytest.raises(Incompatible, match=f"inputs of dtype {dtype}; expected floats or"):
        multiply(a, a, levels=levels)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("levels", [None, 0, 1, 2])
@pytest.mark.parametrize("shape", [(2, 2, 2), (9, 8, 7)])
def test_every_floating_dtype_is_multiplied_in_itself(
    multiply: Multiply, shape: tuple[int, int, int], levels: int | None, dtype: torch.dtype
) -> None:
    m, k, n = shape
    a, b = normal(m, k, dtype=dtype), normal(k, n, seed=1, dtype=dtype)
    found = multiply(a, b, levels=levels)
    wide = torch.complex128 if dtype.is_complex else torch.float64
    assert found.dtype == dtype
    torch.testing.assert_close(found.to(wide), a.to(wide) @ b.to(wide), rtol=0, atol=FLOATS[dtype])


def test_short_floats_never_take_levels_by_themselves(scheme: Scheme) -> None:
    runtime = Runtime(scheme)
    for dtype in (torch.bfloat16, torch.float16, torch.complex64, torch.int64):
        wins_from(4, dtype=dtype)
        a = torch.ones(8, 8, dtype=dtype)
        assert runtime.chosen_levels(a, a) == 0
    wins_from(4)
    assert runtime.chosen_levels(a.double(), a.double()) == 1


first_use_warns = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
"""Torch warns of itself at the first forward-mode derivative of a process."""

BATCHES = [
    ((3,), (3,)),
    ((3,), ()),
    ((), (2, 3)),
    ((2, 1), (3,)),
    ((1, 3), (2, 1)),
    ((2, 3), (1,)),
]


@pytest.mark.parametrize(("first", "second"), BATCHES)
@pytest.mark.parametrize("levels", [None, 0, 1, 2])
@pytest.mark.parametrize("shape", [(2, 2, 2), (6, 5, 7)])
def test_batches_broadcast_as_those_of_torch(
    multiply: Multiply,
    shape: tuple[int, int, int],
    levels: int | None,
    first: tuple[int, ...],
    second: tuple[int, ...],
) -> None:
    m, k, n = shape
    a, b = whole((*first, m, k), 1), whole((*second, k, n), 2)
    assert torch.equal(multiply(a, b, levels=levels), a @ b)
    out = torch.empty_like(a @ b)
    assert multiply(a, b, out=out, levels=levels) is out
    assert torch.equal(out, a @ b)


# -- what is not finite ------------------------------------------------------------------------------------------------


def alike(found: Tensor, expected: Tensor) -> bool:
    """NaN and infinities in the same places; the rest equal but for rounding."""
    return torch.allclose(found, expected, rtol=1e-4, atol=1e-4, equal_nan=True)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("levels", [None, 0, 1, 2])
@pytest.mark.parametrize("n", [2, 9])
def test_nan_and_infinity_stay_in_their_row_and_column(
    multiply: Multiply, n: int, levels: int | None, value: float
) -> None:
    a, b = normal(n, n, dtype=torch.float32), normal(n, n, seed=1, dtype=torch.float32)
    a[0, 1] = value
    b[1, n - 1] = value
    b[0, 0] = 0
    expected = torch.mm(a, b)
    assert 0 < int(torch.isfinite(expected).sum()) < n * n
    assert alike(multiply(a, b, levels=levels), expected)
    assert alike(multiply(a, b, out=torch.empty(n, n), levels=levels), expected)
    assert alike(multiply(torch.stack((a, b)), b, levels=levels), torch.stack((expected, torch.mm(b, b))))


def test_without_the_plain_product_nan_would_spread(scheme: Scheme) -> None:
    a = normal(8, 8)
    a[0, 0] = float("nan")
    out = torch.empty_like(a)
    Runtime(scheme).recursion.multiply(a, a, out, 1)
    assert int(out.isnan().sum()) > int((a @ a).isnan().sum())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("levels", [None, 1, 2])
@pytest.mark.parametrize("n", [2, 8])
def test_a_finite_product_is_finite_although_sums_of_blocks_overflow(
    multiply: Multiply, n: int, levels: int | None, dtype: torch.dtype
) -> None:
    large = 0.75 * torch.finfo(dtype).max
    a = torch.full((n, n), large, dtype=dtype)
    b = torch.eye(n, dtype=dtype) / 2
    assert torch.isinf(a + a).all()
    assert torch.equal(multiply(a, b, levels=levels), a / 2)


def test_gradients_of_what_is_not_finite_are_those_of_torch(multiply: Multiply) -> None:
    for n, levels in ((2, None), (6, 1)):
        a = normal(n, n)
        a[0, 0] = float("inf")
        b = normal(n, n, seed=1)
        grads = []
        for product in (torch.matmul, lambda x, y, count=levels: multiply(x, y, levels=count)):
            left, right = a.clone().requires_grad_(), b.clone().requires_grad_()
            grads.append(torch.autograd.grad(product(left, right).sum(), (left, right)))
        assert all(alike(mine, theirs) for mine, theirs in zip(*grads, strict=True))


# -- autograd ----------------------------------------------------------------------------------------------------------

DIFFERENTIATED = [((5, 4), (4, 3)), ((2, 5, 4), (4, 3)), ((1, 4, 4), (2, 4, 5)), ((2, 2), (2, 2)), ((3, 2, 2), (2, 2))]


@pytest.mark.parametrize(("first", "second"), DIFFERENTIATED)
@pytest.mark.parametrize("levels", [None, 1, 2])
def test_first_and_second_derivatives_are_right(
    multiply: Multiply, first: tuple[int, ...], second: tuple[int, ...], levels: int | None
) -> None:
    inputs = normal(*first).requires_grad_(), normal(*second, seed=1).requires_grad_()

    def product(a: Tensor, b: Tensor) -> Tensor:
        return multiply(a, b, levels=levels)

    assert torch.autograd.gradcheck(product, inputs)
    assert torch.autograd.gradgradcheck(product, inputs, fast_mode=True)


def test_derivatives_of_complex_products_are_right(multiply: Multiply) -> None:
    inputs = [normal(4, 4, seed=seed, dtype=torch.complex128).requires_grad_() for seed in (0, 1)]
    assert torch.autograd.gradcheck(lambda a, b: multiply(a, b, levels=1), inputs)


def test_derivatives_of_changed_coefficients_are_not_those_of_what_they_compute(
    scheme: Scheme, schemes: ModuleType
) -> None:
    runtime = Runtime(next(schemes.mutations(scheme)))
    inputs = [normal(4, 4, seed=seed).requires_grad_() for seed in (0, 1)]
    assert not torch.autograd.gradcheck(lambda a, b: runtime.multiply(a, b, levels=1), inputs, raise_exception=False)


@pytest.mark.parametrize("levels", [None, 1])
@pytest.mark.parametrize("which", [0, 1])
def test_only_what_needs_a_gradient_gets_one(multiply: Multiply, which: int, levels: int | None) -> None:
    inputs = [normal(6, 6), normal(6, 6, seed=1)]
    inputs[which].requires_grad_()
    multiply(*inputs, levels=levels).sum().backward()
    ones = torch.ones(6, 6, dtype=torch.float64)
    expected = ones @ inputs[1].T if which == 0 else inputs[0].T @ ones
    torch.testing.assert_close(inputs[which].grad, expected)
    assert inputs[1 - which].grad is None


def test_levels_that_calibration_chose_are_taken_with_gradients_too(scheme: Scheme) -> None:
    runtime = Runtime(scheme)
    wins_from(16)
    a = whole((16, 16), 1).requires_grad_()
    found = runtime.multiply(a, a)
    assert runtime.recursion.buffers.bytes > 0
    (grad,) = torch.autograd.grad(found.sum(), a)
    assert torch.equal(found, a @ a)
    assert torch.equal(grad, torch.autograd.grad((a @ a).sum(), a)[0])


@first_use_warns
@pytest.mark.parametrize("levels", [None, 0, 1, 2])
@pytest.mark.parametrize("n", [2, 6])
def test_transforms_of_torch_see_a_product(multiply: Multiply, n: int, levels: int | None) -> None:
    a, b, t = (whole((3, n, n), seed) for seed in (1, 2, 3))

    def product(x: Tensor, y: Tensor) -> Tensor:
        return multiply(x, y, levels=levels)

    assert torch.equal(torch.func.vmap(product)(a, b), a @ b)
    assert torch.equal(torch.func.vmap(product, in_dims=(0, None))(a, b[0]), a @ b[0])
    grad = torch.func.grad(lambda x: (product(x, b[0]) * t[0]).sum())(a[0])
    assert torch.equal(grad, t[0] @ b[0].T)
    value, tangent = torch.func.jvp(product, (a[0], b[0]), (t[0], t[1]))
    assert torch.equal(value, a[0] @ b[0])
    assert torch.equal(tangent, t[0] @ b[0] + a[0] @ t[1])
    per_sample = torch.func.vmap(torch.func.grad(lambda x, y: product(x, y).sum()))(a, b)
    assert torch.equal(per_sample, torch.ones_like(a) @ b.mT)


@first_use_warns
@pytest.mark.parametrize("levels", [None, 0, 1])
def test_forward_mode_carries_tangents(multiply: Multiply, levels: int | None) -> None:
    a, b, t = (whole((6, 6), seed) for seed in (1, 2, 3))
    with torch.autograd.forward_ad.dual_level():
        found = multiply(torch.autograd.forward_ad.make_dual(a, t), b, levels=levels)
        value, tangent = torch.autograd.forward_ad.unpack_dual(found)
    assert torch.equal(value, a @ b)
    assert tangent is not None and torch.equal(tangent, t @ b)


@pytest.mark.parametrize("levels", [None, 0, 1])
@pytest.mark.parametrize("n", [2, 6])
def test_gradients_may_be_asked_for_in_batches(multiply: Multiply, n: int, levels: int | None) -> None:
    a, b = whole((n, n), 1), whole((n, n), 2)
    jacobian = torch.autograd.functional.jacobian
    found = jacobian(lambda x: multiply(x, b, levels=levels), a, vectorize=True)
    torch.testing.assert_close(found, jacobian(lambda x: x @ b, a), rtol=0, atol=0)


@pytest.mark.parametrize("levels", [None, 0, 1])
def test_autocast_computes_in_its_dtype(multiply: Multiply, levels: int | None) -> None:
    a = whole((6, 6), 1, torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert multiply(a, a, levels=levels).dtype == torch.bfloat16
    assert multiply(a, a, levels=levels).dtype == torch.float32


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode], ids=["no_grad", "inference_mode"])
@pytest.mark.parametrize("levels", [None, 1, 2])
@pytest.mark.parametrize("shape", [(2, 2), (7, 7), (3, 6, 6)])
def test_modes_without_gradients_leave_nothing_behind(
    scheme: Scheme, mode: Callable[[], Any], levels: int | None, shape: tuple[int, ...]
) -> None:
    runtime = Runtime(scheme)
    a, b = whole(shape, 1).requires_grad_(), whole(shape, 2)
    expected = a.detach() @ b
    with mode():
        found = runtime.multiply(a, b, levels=levels)
        assert not found.requires_grad
        assert torch.equal(found, expected)
    again = runtime.multiply(a, b, levels=levels)
    assert again.requires_grad
    assert torch.equal(again, expected)
    assert not again.is_inference()
    again.sum().backward()


class Tagged(Tensor):
    """A subclass that hears which functions of torch it goes through."""

    heard: list[str] = []

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        cls.heard.append(getattr(function, "__name__", ""))
        return super().__torch_function__(function, types, args, kwargs)


@pytest.mark.parametrize("levels", [None, 0, 1])
def test_subclasses_parameters_and_tensors_without_data_are_what_torch_makes_of_them(
    multiply: Multiply, levels: int | None
) -> None:
    a, b = whole((6, 6), 1), whole((6, 6), 2)
    Tagged.heard.clear()
    tagged = multiply(a.as_subclass(Tagged), b, levels=levels)
    assert "matmul" in Tagged.heard
    assert not {"addmm_", "mm", "new_empty"} & set(Tagged.heard)
    assert type(tagged) is Tagged
    assert torch.equal(tagged.as_subclass(Tensor), a @ b)
    parameter = multiply(torch.nn.Parameter(a), b, levels=levels)
    assert parameter.requires_grad and type(parameter) is Tensor
    assert multiply(a.to("meta"), b.to("meta"), levels=levels).shape == (6, 6)
    assert torch.equal(multiply(a.to_sparse(), b, levels=levels), a @ b)


# -- error -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("entries", ["normal", "uniform"])
def test_errors_stay_within_their_bounds(
    multiply: Multiply, schemes: ModuleType, entries: str, dtype: torch.dtype
) -> None:
    found = schemes.errors(multiply, 512, entries, dtype)
    assert all(row.within for row in found)
    if entries == "normal":
        assert 1 < found[1].factor < found[2].factor < found[3].factor


def test_an_error_beyond_its_bound_is_seen(scheme: Scheme, schemes: ModuleType) -> None:
    wrong = Runtime(next(schemes.mutations(scheme)))
    assert not any(row.within for row in schemes.errors(wrong.multiply, 128, "normal", torch.float32)[1:3])


def test_small_entries_beside_large_blocks_lose_their_accuracy_but_for_levels_0(multiply: Multiply) -> None:
    a, b = normal(64, 64), normal(64, 64, seed=1)
    a[32:, :32] *= 1e12
    expected = (a.numpy().astype(np.longdouble) @ b.numpy().astype(np.longdouble))[:32]

    def lost(levels: int) -> float:
        apart = multiply(a, b, levels=levels)[:32].numpy() - expected
        return float(np.abs(apart).max() / np.abs(expected).max())

    assert lost(0) < 1e-14
    assert lost(1) > 1e-8


# -- the cassette ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second"), [((4, 4), (4, 4)), ((3, 5), (5, 2)), ((2, 3, 4), (2, 4, 5)), ((2, 3, 2, 2), (2, 3, 2, 2))]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64])
def test_a_call_is_the_verb(
    learned: Cassette, first: tuple[int, ...], second: tuple[int, ...], dtype: torch.dtype
) -> None:
    a, b = whole(first, 1, dtype), whole(second, 2, dtype)
    assert torch.equal(learned(a, b), learned.matmul(a, b))
    assert torch.equal(learned(a=a, b=b), a @ b)
    assert learned(a, b).dtype == dtype


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ((2, 4, 4), (3, 4, 4)),
        ((2, 4, 4), (4, 4)),
        ((4, 4), (2, 4, 4)),
        ((1, 4, 4), (2, 4, 4)),
        ((4,), (4, 4)),
        ((4, 4), (4,)),
        ((), ()),
        ((4, 3), (4, 3)),
    ],
    ids=str,
)
def test_a_call_refuses_what_its_signature_does(
    learned: Cassette, first: tuple[int, ...], second: tuple[int, ...]
) -> None:
    with pytest.raises(Incompatible) as caught:
        learned(torch.ones(first), torch.ones(second))
    assert caught.value.exit_code == 4


def test_a_call_admits_nan_and_infinity(learned: Cassette) -> None:
    a = whole((5, 5), 1)
    a[2, 3], a[0, 0] = float("nan"), float("inf")
    assert alike(learned(a, a), a @ a)


def test_a_call_with_a_gradient_has_one(learned: Cassette) -> None:
    a = whole((5, 5), 1).requires_grad_()
    assert learned(a, a).requires_grad
    assert not learned(a.detach(), a.detach()).requires_grad
