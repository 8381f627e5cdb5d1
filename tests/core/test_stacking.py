"""Gates that need no context variable: constant, stacking, and the one that reads the input."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from grokkit_core.errors import BadWeights, Incompatible, UsageError
from grokkit_core.fusion.gate import Calibration, GateState
from grokkit_core.fusion.optimum import affine_weights, error_covariance, simplex_weights
from grokkit_core.fusion.sequence import SequenceModule
from grokkit_core.plugins import host
from grokkit_core.streams import stream
from grokkit_core.task import Inputs, Predictor, Task

PLACES = ({"omega": 1.0}, {"omega": 2.0})


def cyclotron() -> Task:
    return host().task("cyclotron")


def drawn_from(task: Task, places: object = PLACES) -> Calibration:
    return Calibration(task, places, generator=stream(0, "data"), dtype=torch.float64)  # type: ignore[arg-type]


def off_by(shift: float, noise: int) -> Predictor:
    """The law with a constant and a random error; members of equal `noise` share it."""

    def predict(inputs: Inputs, context: Mapping[str, Tensor]) -> Tensor:
        assert isinstance(inputs, Tensor)
        exact = cyclotron().oracle(inputs, context)
        return exact + shift + 0.1 * torch.randn(exact.shape, generator=stream(noise, "noise"), dtype=torch.float64)

    return predict


def weights_of(name: str, members: list[Predictor], **options: object) -> Tensor:
    gate = host().gate(name, **options)
    return gate.fit(members, drawn_from(cyclotron()), generator=stream(0)).tensors["weights"]


def test_stacking_solves_the_pooled_covariance_on_the_simplex() -> None:
    members = [off_by(0.1, 1), off_by(-0.05, 2), off_by(0.5, 3)]
    batches = drawn_from(cyclotron())
    parts = [batches.draw(256, place, exact_targets=True) for place in PLACES]
    predictions = torch.cat([torch.stack([m(b.inputs, b.context) for m in members]) for b in parts], 1)
    covariance = error_covariance(predictions, torch.cat([batch.targets for batch in parts]))
    assert torch.allclose(weights_of("stacking", members), simplex_weights(covariance), atol=1e-9)
    assert torch.allclose(weights_of("stacking", members, free=True), affine_weights(covariance), atol=1e-6)


def test_free_weights_may_be_negative_and_those_of_the_simplex_may_not() -> None:
    members = [off_by(0.1, 1), off_by(0.3, 1)]
    assert float(weights_of("stacking", members, free=True).min()) < 0
    assert float(weights_of("stacking", members).min()) == 0


def test_free_weights_are_announced_as_a_regression() -> None:
    assert "regression" in host().gate("stacking", free=True).notes[0]
    assert host().gate("stacking").notes == ()


def test_constant_weights_are_those_that_are_given() -> None:
    members = [off_by(0.1, 1), off_by(0.2, 2)]
    assert weights_of("constant", members, weights=[0.25, 0.75]).tolist() == [0.25, 0.75]
    assert torch.equal(weights_of("constant", members), weights_of("stacking", members))


@pytest.mark.parametrize("given", [[1.0], [0.5, 0.6], [0.2, 0.3, 0.5]])
def test_weights_that_do_not_go_with_the_members_are_refused(given: list[float]) -> None:
    with pytest.raises(UsageError, match="2 numbers that sum to one"):
        weights_of("constant", [off_by(0.1, 1), off_by(0.2, 2)], weights=given)


def test_stored_weights_that_do_not_sum_to_one_are_no_weights() -> None:
    gate = host().gate("stacking")
    gate.check(GateState({"members": 2}, {"weights": torch.tensor([0.5, 0.5])}))
    with pytest.raises(BadWeights, match="sum to one but for"):
        gate.check(GateState({"members": 2}, {"weights": torch.tensor([0.5, 0.6])}))


@pytest.mark.parametrize("name", ["constant", "stacking", "sequence"])
def test_a_task_measured_by_accuracy_is_refused(name: str) -> None:
    with pytest.raises(Incompatible, match="measured by accuracy"):
        host().gate(name).fit([], drawn_from(host().task("parity"), ({},)), generator=stream(0))


def test_the_sequence_gate_has_the_published_size() -> None:
    assert sum(p.numel() for p in SequenceModule(2, 60, 0, 32).parameters()) == 1_985


def test_the_sequence_gate_prefers_the_member_that_is_right_for_each_input() -> None:
    """One member is right where the last x is positive, the other where it is negative: no context tells them apart."""

    def right_where(sign: float) -> Predictor:
        def predict(inputs: Inputs, context: Mapping[str, Tensor]) -> Tensor:
            assert isinstance(inputs, Tensor)
            exact = cyclotron().oracle(inputs, context).to(inputs.dtype)
            return exact + (sign * inputs[:, -1, :1] < 0).to(inputs.dtype)

        return predict

    members = [right_where(1.0), right_where(-1.0)]
    gate = host().gate("sequence", steps=150, samples=64)
    batches = drawn_from(cyclotron())
    state = gate.fit(members, batches, generator=stream(0))
    module = gate.build(GateState(state.config)).double()
    module.load_state_dict(dict(state.tensors))
    batch = cyclotron().sample(400, generator=stream(1), omega=1.5)
    assert isinstance(batch.inputs, Tensor)
    predictions = torch.stack([member(batch.inputs, batch.context) for member in members])
    first = module((batch.inputs,), batch.context, predictions)[0]
    clear = batch.inputs[:, -1, 0].abs() > 0.5
    right = (first > 0.5) == (batch.inputs[:, -1, 0] > 0)
    assert float(right[clear].double().mean()) > 0.95


@pytest.mark.parametrize(("members", "per_output"), [(2, False), (2, True), (4, False), (4, True)])
def test_the_sequence_gate_starts_with_equal_weights(members: int, per_output: bool) -> None:
    module = SequenceModule(members, 60, 4 if per_output else 0, 32, stream(0))
    predictions = torch.zeros(members, 7, 4)
    weights = module((torch.randn(7, 15, 4, generator=stream(0)),), {}, predictions)
    assert weights.shape == ((members, 7, 4) if per_output else (members, 7))
    assert torch.equal(weights, torch.full_like(weights, 1 / members))


def test_inputs_of_any_size_cannot_be_read_by_the_sequence_gate() -> None:
    with pytest.raises(Incompatible, match="any size"):
        host().gate("sequence").fit([], drawn_from(host().task("hpu"), ({},)), generator=stream(0))


def test_weights_are_checked_before_anything_is_read() -> None:
    import grokkit_core as gk

    with pytest.raises(UsageError, match="2 numbers that sum to one"):
        gk.plan("cyclotron-1node", "cyclotron-8node", gate="constant", options={"weights": [0.5, 0.6]})
