"""Members as one computation: the same predictions as one after the other, chosen by size alone, and what mixes members up
is caught.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from grokkit_cyclotron.model import TopoBrainArchitecture
from grokkit_parity.model import ParityMlp, ParityMlpArchitecture
from test_ensemble import fuse, loaded, network
from test_transfer import ARCHITECTURES, drawn, parity, random_state
from torch import Tensor

import grokkit_core as gk
from grokkit_core.architecture import BatchedForward
from grokkit_core.cassette import Cassette, torch_dtype
from grokkit_core.errors import Incompatible
from grokkit_core.fusion import batched
from grokkit_core.fusion.batched import LEAST_VECTORISED, MOST_ROWS, Batched, rows
from grokkit_core.fusion.ensemble import Stack
from grokkit_core.fusion.gates import mix
from grokkit_core.plugins import host
from grokkit_core.specs import GateSpec
from grokkit_core.streams import stream
from grokkit_core.task import Batch, map_tensors, tensors_of
from grokkit_core.tensors import computing_dtypes
from grokkit_core.workspace import Workspace

BATCHES = (1, 7, 64)
ROUNDING = {torch.float32: 1e-6, torch.float64: 1e-12, torch.complex64: 1e-6, torch.complex128: 1e-12}
"""Largest difference relative to max(1, |f|)."""

SHIPPED = [entry.name for entry in Workspace.open().library.entries() if entry.root.kind == "plugin"]
COMPOSED = {"grokkit_core/embedded", "grokkit_core/ensemble", "grokkit_core/router", "grokkit_core/superposition"}
"""Architectures that only hold networks of others."""

OFFERED = {
    "grokkit_cyclotron/rotor": "batched",
    "grokkit_cyclotron/topobrain": "batched",
    "grokkit_cyclotron/two-state-mlp": "batched",
    "grokkit_hpu/fno": "vectorised",
    "grokkit_kepler/mlp": "batched",
    "grokkit_kepler/published": "batched",
    "grokkit_matmul/mlp": "vectorised",
    "grokkit_parity/mlp": "batched",
    "grokkit_pendulum/mlp": "batched",
    "grokkit_pendulum/published": "batched",
    "grokkit_wave/conditional-stencil": "vectorised",
    "grokkit_wave/sine-conv": "vectorised",
    "grokkit_wave/stencil": "vectorised",
}


# -- networks of every architecture ------------------------------------------------------------------------------------


def siblings(cassette: Cassette, count: int, *, like_trained: bool) -> list[Cassette]:
    """Networks of the same config with other random weights."""
    config, made = cassette.architecture.settled(cassette.manifest.architecture.config), []
    dtypes = [tensor.dtype for tensor in cassette.tensors.values() if tensor.is_floating_point()]
    for seed in range(count):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module = cassette.architecture.build(config)
        dtype = dtypes[0] if dtypes else torch.float32
        tensors = random_state(module, dtype, stream(seed, "siblings"), like_trained=like_trained)
        made.append(Cassette(cassette.manifest.replace(summary=f"seed {seed}"), tensors, plugins=cassette.plugins))
    return made


def perturbed(cassette: Cassette, count: int) -> list[Cassette]:
    """A cassette and networks near it."""
    made = [cassette]
    for step in range(1, count):
        tensors = {
            n: (1 + 0.01 * step) * t if t.is_floating_point() else t.roll(step, 0) for n, t in cassette.tensors.items()
        }
        made.append(Cassette(cassette.manifest.replace(summary=f"step {step}"), tensors, plugins=cassette.plugins))
    return made


def stack_of(members: list[Cassette], dtype: torch.dtype) -> Stack:
    """The members' stack in a dtype."""
    stack = fuse(*members).module_for(dtype).get_submodule("m0")
    assert isinstance(stack, Stack)
    return stack


def samples(cassette: Cassette, count: int, dtype: torch.dtype) -> Batch:
    """Fresh samples of the task; for a network of real fields the real part of complex ones."""
    place = next(iter(cassette.task.evaluation), {})
    batch = cassette.task.sample(count, generator=stream(count, "batched"), **place).to(dtype)
    real = not any(name.startswith("complex") for name in cassette.signature.inputs[0].dtypes)
    if not real or not any(tensor.is_complex() for tensor in tensors_of(batch.inputs)):
        return batch
    return Batch(map_tensors(batch.inputs, lambda tensor: tensor.real.clone()), batch.targets, batch.context)


def one_by_one(stack: Stack, batch: Batch) -> Tensor:
    """What the members' own networks give, "member batch *out"."""
    given = {"context": batch.context} if stack._architecture.reads_context else {}
    return torch.stack([net(*tensors_of(batch.inputs), **given) for net in stack._networks()])


def together(stack: Stack, batch: Batch) -> Tensor | None:
    """What their batched computation gives, whether it wins or not; None where there is none."""
    found, inputs = stack._batched(), tensors_of(batch.inputs)
    given = {"context": batch.context} if stack._architecture.reads_context else {}
    return None if found is None else found.run(rows(stack._signature, inputs), inputs, given)


def apart(found: Tensor, expected: Tensor) -> float:
    """The largest difference relative to max(1, |f|)."""
    assert found.shape == expected.shape
    return ((found - expected).abs() / expected.abs().clamp_min(1)).max().item()


def law(members: list[Cassette]) -> bool:
    """Whether a batched computation of the members is offered; then it gives what they give, in every dtype and batch."""
    offered = False
    for name in computing_dtypes(members[0].signature):
        dtype = torch_dtype(name)
        stack = stack_of(members, dtype)
        for count in BATCHES:
            batch = samples(members[0], count, dtype)
            with torch.inference_mode():
                found, expected = together(stack, batch), one_by_one(stack, batch)
                assert apart(stack(tensors_of(batch.inputs), batch.context), expected) <= ROUNDING[dtype]
            if found is not None:
                offered = True
                assert apart(found, expected) <= ROUNDING[dtype], f"{name}, batch {count}"
    return offered


# -- the law -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("like_trained", [False, True], ids=["untrained", "like trained"])
@pytest.mark.parametrize("architecture", [name for name in ARCHITECTURES if name not in COMPOSED])
def test_members_together_are_members_one_by_one(architecture: str, like_trained: bool) -> None:
    start = drawn(architecture, 1, torch.float64, like_trained=like_trained)
    assert start is not None, "a network to test with"
    assert law(siblings(start, 3, like_trained=like_trained)) is (architecture in OFFERED)


@pytest.mark.parametrize("name", [name for name in SHIPPED if gk.load(name).architecture.spec.id not in COMPOSED])
def test_trained_members_together_are_members_one_by_one(name: str) -> None:
    cassette = gk.load(name)
    assert law(perturbed(cassette, 3)) is (cassette.architecture.spec.id in OFFERED)


def test_a_computation_that_mixes_members_up_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = ParityMlpArchitecture.batched

    def mixed(self: Any, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> BatchedForward:
        run = honest(self, config, tensors)
        return lambda *inputs, **context: run(*inputs, **context).roll(1, 0)

    monkeypatch.setattr(ParityMlpArchitecture, "batched", mixed)
    with pytest.raises(AssertionError):
        law(perturbed(gk.load("parity-3of64-grokked"), 3))


def test_a_network_that_computes_something_beforehand_does_not_vectorise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every member would get what was computed of the first one's tensors."""
    load, forward = ParityMlp.load_state_dict, ParityMlp.forward

    def loaded_with_scale(self: Any, state: Mapping[str, Tensor], **options: Any) -> Any:
        self.scale = float(state["last.weight"].abs().sum())
        return load(self, state, **options)

    monkeypatch.setattr(ParityMlp, "load_state_dict", loaded_with_scale)
    monkeypatch.setattr(ParityMlp, "forward", lambda self, bits: self.scale * forward(self, bits))
    for name in ("batched", "stacked"):
        monkeypatch.setattr(ParityMlpArchitecture, name, lambda self, *given: None)
    monkeypatch.setattr(ParityMlpArchitecture, "vectorises", True)
    with pytest.raises(AssertionError, match="batch 1"):
        law(perturbed(gk.load("parity-3of64-grokked"), 3))


@pytest.mark.parametrize("name", ["cyclotron-8node", "wave", "pendulum-mlp"])
def test_a_batch_in_parts_is_the_batch(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    members = perturbed(gk.load(name), 3)
    stack, batch = stack_of(members, torch.float32), samples(members[0], 11, torch.float32)
    sizes = []
    found = stack._batched()
    assert found is not None
    whole = together(stack, batch)

    def seen(*inputs: Tensor, **context: Any) -> Tensor:
        sizes.append(len(inputs[0]))
        return found.forward(*inputs, **context)

    monkeypatch.setattr(batched, "TOGETHER", 3 * 4 * rows(stack._signature, tensors_of(batch.inputs)) // 11)
    stack._together = replace(found, forward=seen)
    parts = together(stack, batch)
    assert whole is not None and parts is not None
    assert len(sizes) > 1 and sum(sizes) == 11
    assert apart(parts, whole) <= ROUNDING[torch.float32]


@pytest.mark.parametrize("name", ["cyclotron-8node", "parity-3of64-grokked", "wave", "pendulum-mlp"])
def test_gradients_pass_through_a_batched_computation(name: str) -> None:
    members = perturbed(gk.load(name), 3)
    stack, batch = stack_of(members, torch.float32), samples(members[0], 5, torch.float32)
    found = []
    for call in (together, one_by_one):
        inputs = tensors_of(batch.inputs)[0].float().requires_grad_()
        out = call(stack, Batch(inputs, batch.targets, batch.context))
        assert out is not None
        out.square().sum().backward()  # type: ignore[no-untyped-call]
        assert inputs.grad is not None
        found.append(inputs.grad)
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-5)


# -- the choice --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", sorted(OFFERED))
def test_an_architecture_runs_together_in_its_own_way(architecture: str) -> None:
    start = drawn(architecture, 0, torch.float64, like_trained=False)
    assert start is not None
    found = stack_of(siblings(start, 2, like_trained=False), start.dtype)._batched()
    assert found is not None and found.kind == OFFERED[architecture]


def test_a_stacked_forward_for_training_serves_where_there_is_no_better(monkeypatch: pytest.MonkeyPatch) -> None:
    for owner in (ParityMlpArchitecture, TopoBrainArchitecture):
        monkeypatch.setattr(owner, "batched", lambda self, config, tensors: None)
    dense = parity(0, n=9, hidden=8, depth=2, readout="logits", live=())
    for start in (dense, gk.load("cyclotron-8node")):
        members = perturbed(start, 3)
        found = stack_of(members, torch.float32)._batched()
        assert found is not None and found.kind == "stacked"
        assert law(members)


def test_the_choice_depends_on_sizes_alone() -> None:
    def made(kind: str, members: int, least: int) -> Batched:
        return Batched(kind, lambda *inputs, **context: inputs[0], members, least, True)

    assert made("batched", 2, 2).wins(1) and made("batched", 2, 2).wins(MOST_ROWS)
    assert not made("batched", 2, 2).wins(MOST_ROWS + 1) and not made("batched", 2, 2).wins(0)
    assert not made("vectorised", LEAST_VECTORISED - 1, LEAST_VECTORISED).wins(1)
    assert made("vectorised", LEAST_VECTORISED, LEAST_VECTORISED).wins(1)
    whole = replace(made("batched", 1000, 2), divisible=False)
    assert whole.wins(16) and not whole.wins(17)


def test_rows_of_fields_are_counted_with_their_points() -> None:
    field = gk.load("hpu-free").signature
    assert rows(field, [torch.zeros(3, 16, 16)]) == 3 * 16 * 16
    assert rows(gk.load("cyclotron-8node").signature, [torch.zeros(3, 15, 4)]) == 3


def test_large_batches_are_the_loop_to_the_bit() -> None:
    members = perturbed(gk.load("cyclotron-8node"), 2)
    stack, batch = stack_of(members, torch.float32), samples(members[0], MOST_ROWS + 1, torch.float32)
    with torch.inference_mode():
        assert torch.equal(stack(tensors_of(batch.inputs), batch.context), one_by_one(stack, batch))


# -- whole ensembles ---------------------------------------------------------------------------------------------------


def test_many_members_are_loaded_and_called_without_a_network_of_each(library: Path) -> None:
    members = perturbed(gk.load("cyclotron-1node"), 40)
    fused = loaded(fuse(*members), library)
    batch = samples(members[0], 3, torch.float32)
    expected = torch.stack([m.predict(batch.inputs, batch.context) for m in members]).mean(0)
    assert apart(fused.predict(batch.inputs, batch.context), expected) <= ROUNDING[torch.float32]
    stack = network(fused).get_submodule("m0")
    assert isinstance(stack, Stack) and stack._built is None


def test_what_a_member_refuses_is_refused_of_many() -> None:
    fused = fuse(*perturbed(gk.load("kepler"), 3))
    with pytest.raises(Incompatible, match="not on a bound orbit"):
        fused(torch.tensor([[1.0, 0.0, 0.0, 9.0]]))


def test_inner_ensembles_run_their_own_members_together() -> None:
    first, second = perturbed(gk.load("cyclotron-8node"), 2)
    inner = [fuse(first, second, name="inner"), fuse(second, first, name="other")]
    outer = fuse(*inner, name="outer")
    batch = samples(first, 7, torch.float32)
    both = torch.stack([m.predict(batch.inputs, batch.context) for m in (first, second)]).mean(0)
    assert apart(outer.predict(batch.inputs, batch.context), both) <= ROUNDING[torch.float32]


def test_a_tracer_sees_members_one_by_one_even_after_they_ran_together(tmp_path: Path) -> None:
    fused = fuse(*perturbed(gk.load("cyclotron-8node"), 2))
    batch = samples(fused, 3, torch.float32)
    before = fused.predict(batch.inputs, batch.context)
    assert gk.export(fused, "pt2", tmp_path / "net.pt2").max_abs_difference <= 1e-5
    assert torch.equal(fused.predict(batch.inputs, batch.context), before)


# -- gates that fuse by themselves -------------------------------------------------------------------------------------

GATES: dict[str, dict[str, Any]] = {
    "uniform": {},
    "constant": {},
    "stacking": {},
    "interference": {},
    "interference-per-output": {},
    "simplex": {},
    "spectral": {"steps": 5, "samples": 16},
    "sequence": {"steps": 5, "samples": 16},
}
NAMES = ("cyclotron-1node", "cyclotron-8node", "cyclotron")
CONTEXTS = (0.3, 0.5, 1.7, 3.9)


@functools.cache
def gated(gate: str, count: int) -> Cassette:
    return fuse(*map(gk.load, NAMES[:count]), gate=gate, **GATES[gate])


def test_every_gate_that_fuses_by_itself_is_tested() -> None:
    assert set(GATES) <= {spec.id for spec in host().specs(GateSpec)}
    for gate in GATES:
        assert hasattr(network(gated(gate, 2)).gate, "fused")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("gate", sorted(GATES))
def test_a_gate_fuses_as_its_weights_say(gate: str, count: int, dtype: torch.dtype) -> None:
    cassette = gated(gate, count)
    module = cassette.module_for(dtype)
    for samples_ in BATCHES:
        states = samples(cassette, samples_, dtype).inputs
        assert isinstance(states, Tensor)
        values = [torch.tensor(value).expand(samples_) for value in CONTEXTS]
        for omega in (*values, torch.linspace(0.3, 3.9, samples_)):
            with torch.inference_mode():
                predictions, weights = module.parts(states, context={"omega": omega})  # type: ignore[operator]
                found = module(states, context={"omega": omega})
            assert apart(found, mix(weights, predictions)) <= ROUNDING[dtype]


def test_weights_changed_in_place_are_seen() -> None:
    cassette = fuse(*map(gk.load, NAMES[:2]), gate="constant", weights=(0.25, 0.75))
    module, states = network(cassette), samples(cassette, 1, torch.float32).inputs
    assert isinstance(states, Tensor)
    with torch.no_grad():
        before = module(states, context={})
        module.gate.weights.copy_(torch.tensor([0.75, 0.25]))  # type: ignore[operator, union-attr]
        assert not torch.equal(module(states, context={}), before)
