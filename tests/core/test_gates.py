"""Gates: partitions of unity, the published spectral gate, and the exact law of mixing two members.

What every gate must keep besides is a law of `grokkit_core.testing`, which `testing/test_builtin.py` checks.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from grokkit_core.errors import Incompatible, UsageError
from grokkit_core.fusion.gate import Calibration, Gate, GateState
from grokkit_core.fusion.gates import SpectralModule, mix
from grokkit_core.plugins import host
from grokkit_core.specs import GateSpec
from grokkit_core.streams import stream
from grokkit_core.task import Batch, Inputs, Predictor, Task

LAW = settings(max_examples=60, deadline=None, derandomize=True)
GATES = [spec.id for spec in host().specs(GateSpec)]
SEEDS = st.integers(0, 2**32)
IDENTITY = 1e-12
"""Both sides are sums of the same float64 products in another order."""
UNITY = {torch.float32: 1e-5, torch.float64: 1e-12}
"""Rounding of a sum of a few weights."""


@functools.cache
def cyclotron() -> Task:
    return host().task("cyclotron")


def calibration(seed: int = 0, dtype: torch.dtype = torch.float32, **changes: Any) -> Calibration:
    task = changes.pop("task", cyclotron())
    places = changes.pop("places", task.calibration)
    return Calibration(task, places, generator=stream(seed, "data"), dtype=dtype, variable="omega", **changes)


def member(seed: int) -> Predictor:
    """A random linear map of the last state."""
    matrix = torch.randn((4, 4), generator=stream(seed, "member"), dtype=torch.float64)

    def predict(inputs: Inputs, context: Mapping[str, Tensor]) -> Tensor:
        assert isinstance(inputs, Tensor)
        return inputs[:, -1] @ matrix.to(inputs.dtype)

    return predict


def exact(inputs: Inputs, context: Mapping[str, Tensor]) -> Tensor:
    """A member that knows the law."""
    assert isinstance(inputs, Tensor)
    return cyclotron().oracle(inputs, context).to(inputs.dtype)


def gate(name: str, **options: Any) -> Gate:
    """A gate with those of the options that it declares."""
    declared = {field.name for field in host().spec(GateSpec, name).options}
    return host().gate(name, **{key: value for key, value in options.items() if key in declared})


def rebuilt(made: Gate, state: GateState) -> nn.Module:
    """The module of a fitted gate, as a cassette builds it."""
    module = made.build(GateState(state.config))
    module.load_state_dict(dict(state.tensors))
    return module


def weights_of(module: nn.Module, members: int, omega: Tensor, dtype: torch.dtype) -> Tensor:
    inputs = torch.randn((len(omega), 15, 4), generator=stream(0, "inputs"), dtype=dtype)
    predictions = torch.randn((members, len(omega), 4), generator=stream(0, "predictions"), dtype=dtype)
    with torch.no_grad():
        result: Tensor = module.to(dtype)((inputs,), {"omega": omega}, predictions)
    return result


def is_partition(weights: Tensor, members: int, batch: int, tolerance: float) -> bool:
    """Whether weights "member batch" or "member batch *out" are finite and sum to one over members."""
    shaped = weights.shape[:2] == (members, batch) and weights.ndim in (2, 3)
    total = weights.double().sum(0)
    return shaped and bool(torch.isfinite(weights).all()) and bool(((total - 1).abs() <= tolerance).all())


# -- every gate ----------------------------------------------------------------------------------------------------


def test_the_core_brings_its_gates() -> None:
    assert {"uniform", "spectral"} <= set(GATES)


@pytest.mark.parametrize("name", GATES)
@settings(LAW, max_examples=15)
@given(
    seed=SEEDS,
    members=st.sampled_from([2, 3, 5]),
    lr=st.sampled_from([0.01, 1.0, 10.0]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_every_gate_is_a_partition_of_unity(name: str, seed: int, members: int, lr: float, dtype: torch.dtype) -> None:
    made = gate(name, steps=4, samples=8, lr=lr)
    state = made.fit([member(seed + k) for k in range(members)], calibration(seed, dtype), generator=stream(seed))
    omega = torch.cat((torch.linspace(0, 4, 9, dtype=torch.float64), torch.tensor([1e-9, -50.0, 1e4])))
    assert is_partition(weights_of(rebuilt(made, state), members, omega, dtype), members, 12, UNITY[dtype])


@LAW
@given(seed=SEEDS, members=st.sampled_from([2, 3, 5]), scale=st.sampled_from([0.1, 1.0, 30.0, 1e4]))
def test_a_spectral_gate_in_any_state_is_a_convex_partition(seed: int, members: int, scale: float) -> None:
    module = SpectralModule("omega", members)
    for k, parameter in enumerate(module.parameters()):
        parameter.data = scale * torch.randn(parameter.shape, generator=stream(seed, k))
    weights = weights_of(module, members, torch.linspace(0, 4, 9, dtype=torch.float64), torch.float32)
    assert is_partition(weights, members, 9, 1e-5)
    assert bool((weights >= 0).all())


def test_weights_that_are_no_partition_are_told_apart() -> None:
    good = torch.tensor([[0.5, 0.2], [0.5, 0.8]])
    assert is_partition(good, 2, 2, 1e-6)
    for bad in (good * 1.001, good.T, torch.sigmoid(good), good * torch.nan, good[:1], torch.cat((good, good))):
        assert not is_partition(bad, 2, 2, 1e-6)


# -- uniform -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("members", [2, 3, 5])
def test_the_uniform_gate_weights_all_alike(members: int) -> None:
    state = gate("uniform").fit([member(k) for k in range(members)], calibration(), generator=stream(0))
    weights = weights_of(gate("uniform").build(state), members, torch.ones(4), torch.float64)
    assert weights.tolist() == [[1 / members] * 4] * members


def test_the_uniform_gate_draws_no_samples() -> None:
    batches = calibration()
    untouched = batches.digest
    assert gate("uniform").fit([member(1), member(2)], batches, generator=stream(0)).tensors == {}
    assert batches.digest == untouched


def test_the_uniform_gate_has_no_settings() -> None:
    with pytest.raises(UsageError, match="gate uniform has no setting 'lr'"):
        host().gate("uniform", lr=0.1)


# -- spectral ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("members", "parameters"), [(2, 49), (3, 32 + 17 * 3), (5, 32 + 17 * 5)])
def test_a_spectral_gate_has_the_published_number_of_parameters(members: int, parameters: int) -> None:
    assert sum(p.numel() for p in SpectralModule("omega", members).parameters()) == parameters


def test_a_balanced_start_is_one_half_exactly() -> None:
    omega = torch.linspace(0, 5, 5_001, dtype=torch.float64)
    assert bool((SpectralModule("omega", 2, generator=stream(3)).weights(omega) == 0.5).all())


@pytest.mark.parametrize("members", [3, 5])
def test_a_balanced_start_favours_nobody_among_many(members: int) -> None:
    weights = SpectralModule("omega", members, generator=stream(3)).weights(torch.linspace(0, 5, 101))
    assert bool((weights == weights[0, 0]).all())
    assert weights[0, 0].item() == pytest.approx(1 / members, rel=1e-6)


def test_the_first_layer_starts_from_the_generator_it_was_given() -> None:
    first, same, other = (SpectralModule("omega", 2, generator=stream(seed)).hidden.weight for seed in (1, 1, 2))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(("members", "steps", "lr"), [(2, 100, 0.1), (3, 300, 0.02)])
def test_left_out_settings_mean_the_published_protocol(members: int, steps: int, lr: float) -> None:
    predictors = [member(k) for k in range(members)]
    states = [
        gate("spectral", **options).fit(predictors, calibration(), generator=stream(0))
        for options in ({"samples": 1}, {"samples": 1, "steps": steps, "lr": lr})
    ]
    assert all(torch.equal(tensor, states[1].tensors[key]) for key, tensor in states[0].tensors.items())


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_spectral_gate_finds_the_member_that_is_right(place: int) -> None:
    members = [member(1), member(2)] if place < 2 else [member(1), member(2), member(3)]
    members[place] = exact
    made = gate("spectral", samples=32)
    state = made.fit(members, calibration(), generator=stream(0))
    weights = weights_of(rebuilt(made, state), len(members), torch.tensor([1.5, 2.0, 2.2]), torch.float32)
    assert bool((weights[place] > 0.9).all())


def test_a_spectral_gate_prefers_nobody_among_equals() -> None:
    made = gate("spectral", samples=8)
    state = made.fit([member(1), member(1)], calibration(), generator=stream(0))
    weights = weights_of(rebuilt(made, state), 2, torch.tensor([1.5, 2.0, 2.2]), torch.float32)
    assert weights[0].tolist() == pytest.approx([0.5] * 3, abs=1e-4)


Seen = list[tuple[int, float]]


@pytest.fixture
def diary(monkeypatch: pytest.MonkeyPatch) -> tuple[Task, Seen]:
    """A cyclotron, and where it was sampled with how many samples."""
    task, seen = host().task("cyclotron"), []
    sample = task.sample

    def noted(n: int, *, generator: torch.Generator, **where: Any) -> Batch:
        seen.append((n, where["omega"]))
        return sample(n, generator=generator, **where)

    monkeypatch.setattr(task, "sample", noted)
    return task, seen


def test_two_members_are_fitted_where_the_task_says(diary: tuple[Task, Seen]) -> None:
    task, seen = diary
    gate("spectral", steps=2).fit([member(1), member(2)], calibration(task=task), generator=stream(0))
    assert seen == [(256, 1.5), (256, 2.0), (256, 2.2)] * 2


def test_more_members_are_fitted_on_contexts_drawn_from_the_training_range(diary: tuple[Task, Seen]) -> None:
    task, seen = diary
    gate("spectral", steps=5).fit([member(k) for k in range(3)], calibration(task=task), generator=stream(0))
    omegas = [omega for _, omega in seen]
    assert len(set(omegas)) == 15
    assert all(0.8 <= omega <= 2.5 for omega in omegas)


def test_contexts_that_the_user_chose_are_kept(diary: tuple[Task, Seen]) -> None:
    task, seen = diary
    batches = calibration(task=task, places=[{"omega": 1.0}], fixed=True)
    gate("spectral", steps=2).fit([member(k) for k in range(3)], batches, generator=stream(0))
    assert seen == [(256, 1.0)] * 2


def test_a_spectral_gate_needs_contexts_to_be_fitted_on() -> None:
    with pytest.raises(Incompatible, match=r"names no calibration contexts for gate spectral; give them: --calibrate"):
        gate("spectral").fit([member(1), member(2)], calibration(places=()), generator=stream(0))


@pytest.mark.parametrize("options", [{"width": 0}, {"steps": -1}, {"samples": 0}, {"lr": -0.1}, {"width": 1.5}])
def test_settings_outside_their_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="of gate spectral; expected"):
        host().gate("spectral", **options)


# -- calibration ---------------------------------------------------------------------------------------------------


def test_a_digest_tells_what_was_drawn() -> None:
    first, same, other = calibration(1), calibration(1), calibration(2)
    for batches in (first, same, other):
        batches.draw(4, {"omega": 1.0})
    assert first.digest == same.digest != other.digest
    same.draw(4, {"omega": 1.0})
    assert first.digest != same.digest


def test_every_draw_is_fresh() -> None:
    batches = calibration()
    first, second = (batches.draw(4, {"omega": 1.0}) for _ in range(2))
    assert not torch.equal(first.targets, second.targets)


def test_samples_and_targets_have_the_dtype_of_the_fusion() -> None:
    batch = calibration(dtype=torch.float32).draw(4, {"omega": 1.0})
    assert isinstance(batch.inputs, Tensor)
    assert (batch.inputs.dtype, batch.targets.dtype) == (torch.float32, torch.float32)


def test_contexts_come_from_between_the_given_ones_where_the_task_names_no_range(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    task = host().task("cyclotron")
    monkeypatch.setattr(task, "training_range", {})
    batches = calibration(task=task, places=[{"omega": 1.0}, {"omega": 1.5}])
    assert all(1.0 <= batches.random_place()["omega"] <= 1.5 for _ in range(50))


# -- the law of mixing ---------------------------------------------------------------------------------------------


def two_errors(seed: int, n: int = 64) -> tuple[Tensor, Tensor]:
    """Correlated errors "n 4" of two members, in float64."""
    draw = torch.randn((3, n, 4), generator=stream(seed, "errors"), dtype=torch.float64)
    return draw[0] + draw[2], 2 * draw[1] + draw[2]


def mixed(share: float, first: Tensor, second: Tensor) -> Tensor:
    weights = torch.tensor([share, 1 - share], dtype=torch.float64).unsqueeze(1).expand(2, len(first))
    return mix(weights, torch.stack((first, second)))


def predicted(share: float, c11: Tensor, c88: Tensor, interference: Tensor) -> Tensor:
    return share * c11 + (1 - share) * c88 - share * (1 - share) * interference


@LAW
@given(SEEDS, st.sampled_from([-1.0, 0.0, 0.37, 1.0, 2.0]) | st.floats(-3, 3))
def test_the_error_of_a_mixture_follows_from_the_disagreement(seed: int, share: float) -> None:
    first, second = two_errors(seed)
    disagreement = (first - second).square().mean()
    found = mixed(share, first, second).square().mean()
    expected = predicted(share, first.square().mean(), second.square().mean(), disagreement)
    size = abs(share) * first.square().mean() + abs(1 - share) * second.square().mean() + disagreement
    assert abs(found - expected) <= IDENTITY * (1 + share * share) * size


@LAW
@given(SEEDS, st.sampled_from([-1.0, 0.37, 2.0]))
def test_the_cross_covariance_in_its_place_is_wrong(seed: int, share: float) -> None:
    first, second = two_errors(seed)
    found = mixed(share, first, second).square().mean()
    wrong = predicted(share, first.square().mean(), second.square().mean(), (first * second).mean())
    assert abs(found - wrong) > 1e-3 * found


@LAW
@given(SEEDS, st.sampled_from([-1.0, 0.0, 0.37, 1.0, 2.0]))
def test_the_same_law_holds_for_every_entry_of_the_error_matrix(seed: int, share: float) -> None:
    def matrix(e: Tensor) -> Tensor:
        return e.T @ e / len(e)

    first, second = two_errors(seed)
    expected = predicted(share, matrix(first), matrix(second), matrix(first - second))
    torch.testing.assert_close(matrix(mixed(share, first, second)), expected, rtol=0, atol=1e-11)


@LAW
@given(SEEDS, st.integers(2, 5))
def test_a_convex_mixture_is_nowhere_worse_than_its_worst_member(seed: int, members: int) -> None:
    errors = torch.randn((members, 32, 4), generator=stream(seed), dtype=torch.float64)
    weights = torch.softmax(3 * torch.randn((members, 32), generator=stream(seed, "w"), dtype=torch.float64), 0)
    worst = errors.square().sum(2).amax(0)
    assert bool((mix(weights, errors).square().sum(1) <= worst * (1 + 1e-12)).all())


def test_a_free_mixture_may_be_worse_than_its_worst_member() -> None:
    errors = torch.tensor([[[1.0]], [[-1.0]]], dtype=torch.float64)
    assert mix(torch.tensor([[2.0], [-1.0]]), errors).item() == 3.0


def test_weights_may_differ_from_output_to_output() -> None:
    predictions = torch.tensor([[[1.0, 10.0]], [[2.0, 20.0]]])
    weights = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])
    assert mix(weights, predictions).tolist() == [[1.0, 20.0]]


def test_a_mixture_has_the_dtype_of_its_members() -> None:
    assert mix(torch.full((2, 3), 0.5, dtype=torch.float64), torch.ones(2, 3, 4)).dtype == torch.float32


def test_scalar_outputs_can_be_mixed() -> None:
    assert mix(torch.tensor([[0.25], [0.75]]), torch.tensor([[4.0], [8.0]])).tolist() == [7.0]
