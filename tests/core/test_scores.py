"""Per-sample errors and their figures, against numpy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from grokkit_core.certify import scores
from grokkit_core.certify.scores import batch_digest, errors_of, figure, measure
from grokkit_core.plugins import host
from grokkit_core.specs import TaskSpec
from grokkit_core.streams import stream
from grokkit_core.task import Batch, Inputs, Task
from grokkit_core.tensors import Signature

LAW = settings(max_examples=60, deadline=None, derandomize=True)


@pytest.fixture
def cyclotron() -> Task:
    return host().task("cyclotron")


def zero(inputs: Inputs, context: Mapping[str, Tensor]) -> Tensor:
    """Predicts the origin at rest."""
    assert isinstance(inputs, Tensor)
    return inputs.new_zeros(len(inputs), 4)


def of(task: Task, row: int = 0, **changes: Any) -> scores.Scores:
    options = {"n": 300, "seed": 5, "dtype": torch.float32} | changes
    return measure(task, {"zero": zero}, row, **options)


# -- figures -------------------------------------------------------------------------------------------------------


@LAW
@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=50).filter(lambda v: not set(v) <= {0.0, 1.0}))
def test_mean_and_standard_error_are_those_of_numpy(values: list[float]) -> None:
    found = figure(torch.tensor(values, dtype=torch.float64))
    assert found.value == pytest.approx(np.mean(values), rel=1e-12, abs=1e-12)
    assert found.stderr == pytest.approx(np.std(values, ddof=1) / math.sqrt(len(values)), rel=1e-9, abs=1e-12)


def test_the_interval_is_normal_at_95_percent() -> None:
    found = figure(torch.tensor([1.0, 2.0, 4.0, 9.0]))
    low, high = found.interval
    assert (low + high) / 2 == pytest.approx(found.value)
    assert (high - low) / 2 == pytest.approx(1.959964 * found.stderr)


def test_one_sample_has_no_spread() -> None:
    assert figure(torch.tensor([2.5])).interval == (2.5, 2.5)


def test_a_wide_interval_covers_the_truth_about_95_times_in_100() -> None:
    draws = torch.randn((2_000, 50), generator=stream(0, "coverage"), dtype=torch.float64)
    covered = sum(low <= 0 <= high for low, high in (figure(row).interval for row in draws))
    assert 0.92 < covered / 2_000 < 0.97


def binomial_tail(n: int, least: int, share: float) -> float:
    """The probability of at least so many successes."""
    return sum(math.comb(n, k) * share**k * (1 - share) ** (n - k) for k in range(least, n + 1))


@LAW
@given(st.integers(1, 60), st.floats(0, 1))
def test_the_interval_of_a_share_is_clopper_and_pearsons(n: int, share: float) -> None:
    right = round(share * n)
    low, high = figure(torch.tensor([1.0] * right + [0.0] * (n - right), dtype=torch.float64)).interval
    assert (low == 0) if right == 0 else binomial_tail(n, right, low) == pytest.approx(0.025, rel=1e-6)
    assert (high == 1) if right == n else 1 - binomial_tail(n, right + 1, high) == pytest.approx(0.025, rel=1e-6)


def test_the_exact_interval_of_a_known_case() -> None:
    found = figure(torch.tensor([1.0] * 8 + [0.0] * 2))
    assert found.interval == pytest.approx((0.4439045, 0.9747893), abs=1e-6)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_perfect_share_is_not_claimed_to_be_certain(share: float) -> None:
    low, high = figure(torch.full((100,), share)).interval
    assert high - low == pytest.approx(1 - 0.025 ** (1 / 100), abs=1e-6)


# -- measuring -----------------------------------------------------------------------------------------------------


def test_a_measured_figure_is_the_mean_squared_error(cyclotron: Task) -> None:
    batch = cyclotron.sample(300, generator=stream(5, "test", 2), **cyclotron.evaluation[2])
    expected = (batch.targets.numpy() ** 2).mean(1)
    np.testing.assert_allclose(of(cyclotron, 2).errors["zero"].numpy(), expected, rtol=1e-12)


def test_persistence_is_measured_on_the_same_samples(cyclotron: Task) -> None:
    batch = cyclotron.sample(300, generator=stream(5, "test", 0), **cyclotron.evaluation[0])
    assert isinstance(batch.inputs, Tensor)
    expected = ((batch.inputs[:, -1] - batch.targets).numpy() ** 2).mean(1)
    found = of(cyclotron, dtype=torch.float64).errors["baseline:persistence"]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)


def test_every_baseline_of_the_task_is_measured(cyclotron: Task) -> None:
    assert set(of(cyclotron).errors) == {"zero"} | {f"baseline:{n}" for n in ("persistence", "euler", "linear", "mean")}


def test_a_fitted_baseline_does_not_see_the_test_samples(cyclotron: Task) -> None:
    calibration = cyclotron.sample(300, generator=stream(5, "baseline", 0), **cyclotron.evaluation[0])
    test = cyclotron.sample(300, generator=stream(5, "test", 0), **cyclotron.evaluation[0])
    own, seen = (
        ((mean - test.targets) ** 2).mean().item() for mean in (calibration.targets.mean(0), test.targets.mean(0))
    )
    assert of(cyclotron).mean("baseline:mean") == pytest.approx(own, rel=1e-12)
    assert own > seen


def test_errors_are_kept_in_float64(cyclotron: Task) -> None:
    assert all(errors.dtype == torch.float64 for errors in of(cyclotron).errors.values())


def test_equal_seeds_measure_on_equal_samples(cyclotron: Task) -> None:
    assert of(cyclotron).data == of(cyclotron, dtype=torch.float64).data


@pytest.mark.parametrize("changes", [{"seed": 6}, {"row": 1}, {"n": 301}])
def test_another_seed_row_or_size_measures_on_other_samples(cyclotron: Task, changes: dict[str, Any]) -> None:
    assert of(cyclotron, **changes).data != of(cyclotron).data


def test_chunks_do_not_change_errors(cyclotron: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = of(cyclotron).errors
    monkeypatch.setattr(scores, "CHUNK", 7)
    for name, errors in of(cyclotron).errors.items():
        torch.testing.assert_close(errors, whole[name], rtol=1e-12, atol=0)


def test_a_predictor_sees_inputs_in_the_wanted_dtype(cyclotron: Task) -> None:
    seen = set()

    def spy(inputs: Inputs, context: Mapping[str, Tensor]) -> Tensor:
        assert isinstance(inputs, Tensor)
        seen.add((inputs.dtype, context["omega"].dtype))
        return zero(inputs, context)

    measure(cyclotron, {"spy": spy}, 0, n=10, seed=0, dtype=torch.float32)
    assert seen == {(torch.float32, torch.float64)}


def test_targets_stay_exact_when_inputs_are_cast(cyclotron: Task) -> None:
    batch = cyclotron.sample(20, generator=stream(1), omega=1.0)
    exact = errors_of(cyclotron, lambda inputs, context: batch.targets, batch.to(torch.float32))
    assert exact.tolist() == [0.0] * 20


def test_an_accuracy_counts_samples_that_are_right_in_every_output() -> None:
    class Bits(Task):
        def sample(self, n: int, *, generator: torch.Generator, **where: Any) -> Batch:
            raise NotImplementedError

        def oracle(self, inputs: Inputs, context: Mapping[str, Tensor]) -> Tensor:
            raise NotImplementedError

    task = Bits(TaskSpec("bits", Signature([], []), target="a:b", metric="accuracy"))
    target = torch.tensor([[0.0, 1.0], [1.0, 1.0], [0.0, 0.0]])
    guess = torch.tensor([[0.1, 0.9], [0.9, 0.4], [0.0, 0.0]])
    assert task.error(guess, target).tolist() == [1.0, 0.0, 1.0]


# -- digests -------------------------------------------------------------------------------------------------------


def test_a_digest_tells_data_sets_apart() -> None:
    x, y = torch.rand(3, 2), torch.rand(3, 1)
    nudged = y.clone()
    nudged[0] += 1e-6
    digests = {
        batch_digest(b) for b in (Batch(x, y), Batch(x, nudged), Batch(x.flip(0), y), Batch({"a": x, "b": x}, y))
    }
    assert len(digests) == 4


def test_a_digest_does_not_depend_on_memory_layout() -> None:
    x, y = torch.rand(3, 2), torch.rand(3, 1)
    assert batch_digest(Batch(x.T.contiguous().T, y)) == batch_digest(Batch(x, y))


def test_complex_and_conjugated_data_have_a_digest() -> None:
    x, y = torch.rand(3, dtype=torch.complex64), torch.rand(3)
    assert batch_digest(Batch(x, y)) == batch_digest(Batch(x.conj().resolve_conj().conj(), y))
