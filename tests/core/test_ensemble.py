"""Ensembles as cassettes: frozen members and a gate in one file, equal to the weighted sum by hand, checked on load."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import grokkit_core as gk
from grokkit_core.architecture import Architecture
from grokkit_core.cassette import Cassette, torch_dtype
from grokkit_core.errors import BadManifest, BadWeights, CassetteError, GrokkitError, Incompatible
from grokkit_core.fusion.ensemble import Ensemble, parse_config
from grokkit_core.fusion.fusion import FusionPlan, labels
from grokkit_core.fusion.gate import Calibration, Gate, GateState
from grokkit_core.fusion.nesting import MAX_NESTING, expanded, flat, nesting
from grokkit_core.manifest import ArchitectureRef, Manifest
from grokkit_core.plugins import PluginHost, host
from grokkit_core.specs import ArchitectureSpec, Field, GateSpec
from grokkit_core.streams import stream
from grokkit_core.task import Predictor
from grokkit_core.tensors import ContextSpec, Signature, TensorSpec
from grokkit_core.workspace import Workspace

Reissue = Callable[..., str]
Crafted = Callable[..., Cassette]
Extended = Callable[..., PluginHost]
OMEGA = {"omega": 1.2}


def plan(*manifests: Manifest, gate: str = "uniform", **options: Any) -> FusionPlan:
    return host().fusion("ensemble").plan(manifests, gate, **options)


def fuse(*members: Cassette, gate: str = "uniform", name: str = "fused", **options: Any) -> Cassette:
    """A fusion that is neither certified nor saved."""
    plugins = members[0].plugins
    fusion = plugins.fusion("ensemble")
    made = fusion.plan([m.manifest for m in members], gate, **options)
    ordered = [next(m for m in members if m.manifest.digest == wanted.digest) for wanted in made.manifests]
    task = members[0].task
    batches = Calibration(
        task,
        task.calibration,
        generator=stream(0, "data"),
        dtype=torch_dtype(made.signature.inputs[0].dtypes[0]),
        variable=made.variable,
    )
    return fusion.compose(ordered, made, gate=plugins.gate(gate, **options), batches=batches, seed=0, name=name)


def variant(cassette: Cassette, factor: float, **changes: Any) -> Cassette:
    """The same architecture with other weights."""
    tensors = {name: factor * tensor for name, tensor in cassette.tensors.items()}
    changes.setdefault("summary", f"times {factor}")
    return Cassette(cassette.manifest.replace(**changes), tensors, plugins=cassette.plugins)


def network(cassette: Cassette) -> Ensemble:
    module = cassette.module
    assert isinstance(module, Ensemble)
    return module


def parts(cassette: Cassette, states: Tensor) -> tuple[Tensor, Tensor]:
    """Predictions and weights, computed by the same kernels as a call."""
    with torch.inference_mode():
        return network(cassette).parts(states, context={})


def loaded(cassette: Cassette, library: Path) -> Cassette:
    place = Workspace.open(library, plugins=cassette.plugins)
    return gk.load(cassette.save(place).manifest.ref, library=place)


# -- what it computes ----------------------------------------------------------------------------------------------


def test_a_uniform_fusion_is_the_mean_of_its_members(one: Cassette, eight: Cassette, states: Tensor) -> None:
    torch.testing.assert_close(fuse(one, eight)(states), (one(states) + eight(states)) / 2)


def test_a_gated_fusion_is_the_weighted_sum_of_its_members(one: Cassette, eight: Cassette, states: Tensor) -> None:
    fused = fuse(one, eight, gate="spectral", steps=20, samples=16)
    share = network(fused).gate.weights(torch.full((7,), 1.2))[0].unsqueeze(1)  # type: ignore[operator]
    assert 0.01 < (share - 0.5).abs().max() < 0.5
    expected = share * one(states) + (1 - share) * eight(states)
    torch.testing.assert_close(fused(states, context=OMEGA), expected.detach())


def test_a_gate_that_reads_context_makes_it_required(one: Cassette, eight: Cassette, states: Tensor) -> None:
    fused = fuse(one, eight, gate="spectral", steps=1)
    with pytest.raises(Incompatible, match="context variable 'omega' is missing"):
        fused(states)
    assert fuse(one, eight)(states).shape == (7, 4)


def test_context_decides_sample_by_sample(one: Cassette, eight: Cassette, states: Tensor) -> None:
    fused = fuse(one, eight, gate="spectral", steps=20, samples=16)
    omega = torch.linspace(0.5, 3.5, 7)
    alone = [fused(states[i : i + 1], context={"omega": omega[i].item()}) for i in range(7)]
    torch.testing.assert_close(fused(states, context={"omega": omega}), torch.cat(alone))


def test_a_fusion_is_nowhere_worse_than_its_worst_member(one: Cassette, eight: Cassette, states: Tensor) -> None:
    truth = one.task.oracle(states, {})
    fused = fuse(one, eight, gate="spectral", steps=20, samples=16)
    members = torch.stack([one.task.error(m(states), truth) for m in (one, eight)])
    assert bool((one.task.error(fused(states, context=OMEGA), truth) <= members.amax(0) * (1 + 1e-5)).all())


def test_a_fusion_is_the_same_once_saved_and_loaded(
    one: Cassette, eight: Cassette, states: Tensor, library: Path
) -> None:
    fused = fuse(one, eight, gate="spectral", steps=2)
    assert torch.equal(loaded(fused, library)(states, context=OMEGA), fused(states, context=OMEGA))


def test_a_fusion_needs_none_of_its_parents(one: Cassette, eight: Cassette, states: Tensor, library: Path) -> None:
    fuse(one, eight).save(library)
    assert [path.name for path in library.iterdir()] == ["fused"]
    assert gk.load("fused", library=library)(states).shape == (7, 4)


def test_composing_does_not_change_the_members(one: Cassette, eight: Cassette, states: Tensor) -> None:
    before = [(m.manifest.digest, {n: t.clone() for n, t in m.tensors.items()}) for m in (one, eight)]
    fuse(one, eight, gate="spectral", steps=5)(states, context=OMEGA)
    for member, (digest, tensors) in zip((one, eight), before, strict=True):
        assert member.manifest.digest == digest
        assert all(torch.equal(member.tensors[name], tensor) for name, tensor in tensors.items())


def test_composing_leaves_the_global_generator_alone(one: Cassette, eight: Cassette, states: Tensor) -> None:
    before = torch.get_rng_state()
    fuse(one, eight, gate="spectral", steps=2)(states, context=OMEGA)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_fusion_does_not_depend_on_the_global_generator(one: Cassette, eight: Cassette) -> None:
    made = []
    for seed in (1, 2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            made.append(fuse(one, eight, gate="spectral", steps=2))
    assert made[0].manifest.weights == made[1].manifest.weights


# -- precision and gradients ---------------------------------------------------------------------------------------


def test_a_fusion_computes_in_float64(one: Cassette, eight: Cassette, states: Tensor) -> None:
    fine = fuse(one, eight)(states.double())
    assert fine.dtype == torch.float64
    torch.testing.assert_close(fine, (one(states.double()) + eight(states.double())) / 2, rtol=1e-12, atol=1e-12)


def test_a_fusion_computes_in_float64_in_inference_mode(one: Cassette, eight: Cassette, states: Tensor) -> None:
    fused = fuse(one, eight)
    expected = fuse(one, eight)(states.double())
    with torch.inference_mode():
        assert torch.equal(fused(states.double()), expected)


def test_weights_in_float64_are_kept_in_float64(one: Cassette, eight: Cassette, states: Tensor) -> None:
    fine = Cassette(one.manifest, {name: tensor.double() + 1e-12 for name, tensor in one.tensors.items()})
    fused = fuse(fine, eight)
    assert fused.tensors["m0.node_in.bias"].dtype == torch.float64
    expected = (fine(states.double()) + eight(states.double())) / 2
    torch.testing.assert_close(fused(states.double()), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_gradient_flows_through_every_member(
    one: Cassette, eight: Cassette, states: Tensor, dtype: torch.dtype
) -> None:
    def gradient(cassette: Cassette) -> Tensor:
        x = states.to(dtype).clone().requires_grad_()
        cassette(x).sum().backward()  # type: ignore[no-untyped-call]
        assert x.grad is not None
        return x.grad

    fused = fuse(one, eight)
    fused(states.to(dtype))
    torch.testing.assert_close(gradient(fused), (gradient(one) + gradient(eight)) / 2)


# -- how it is stored ----------------------------------------------------------------------------------------------


def test_members_of_one_architecture_are_one_entry_of_stacked_tensors(one: Cassette) -> None:
    members = [variant(one, factor) for factor in (1.0, 0.5, -1.0)]
    fused = fuse(*members)
    ((entry,), gate) = parse_config(fused.manifest.architecture.config)
    assert (entry.key, entry.count, entry.architecture) == ("one", 3, "grokkit_cyclotron/topobrain")
    assert gate.id == "uniform"
    for name, tensor in one.tensors.items():
        assert torch.equal(fused.tensors[entry.prefix + name], torch.stack([tensor, 0.5 * tensor, -tensor]))


def test_stacked_members_give_what_a_loop_over_them_gives(one: Cassette, states: Tensor, library: Path) -> None:
    members = [variant(one, factor) for factor in (1.0, 0.5, -1.0)]
    expected = torch.stack([member(states) for member in members])
    for fused in (fuse(*members), loaded(fuse(*members), library)):
        predictions, weights = parts(fused, states)
        torch.testing.assert_close(predictions, expected, rtol=0, atol=1e-6)
        torch.testing.assert_close(fused(states), (weights.unsqueeze(2) * expected).sum(0))


def test_members_of_different_architectures_are_entries_of_their_own(one: Cassette, eight: Cassette) -> None:
    entries = parse_config(fuse(one, eight).manifest.architecture.config)[0]
    assert [(entry.key, entry.count) for entry in entries] == [("one", 1), ("eight", 1)]
    assert len({entry.prefix for entry in entries}) == 2


def test_members_of_one_architecture_are_put_next_to_each_other(one: Cassette, eight: Cassette, states: Tensor) -> None:
    half = variant(one, 0.5, name="half")
    made = plan(one.manifest, eight.manifest, half.manifest)
    assert made.members == ("one", "half", "eight")
    predictions = parts(fuse(one, eight, half), states)[0]
    expected = torch.stack([one(states), half(states), eight(states)])
    torch.testing.assert_close(predictions, expected, rtol=0, atol=1e-6)


def test_a_fusion_counts_the_parameters_of_its_members_and_its_gate(one: Cassette, eight: Cassette) -> None:
    members = one.manifest.weights.parameters + eight.manifest.weights.parameters
    assert fuse(one, eight).manifest.weights.parameters == members
    assert fuse(one, eight, gate="spectral", steps=1).manifest.weights.parameters == members + 49


def test_provenance_names_parents_and_gate(one: Cassette, eight: Cassette) -> None:
    found = fuse(one, eight, gate="spectral", steps=2).manifest.provenance
    assert found.kind == "composed"
    assert [parent.digest for parent in found.parents] == [one.manifest.digest, eight.manifest.digest]
    assert found.gate is not None
    assert (found.gate["id"], found.gate["variable"], found.gate["options"]["steps"]) == ("spectral", "omega", 2)
    assert found.gate["contexts"] == [{"omega": 1.5}, {"omega": 2.0}, {"omega": 2.2}]
    assert found.gate["data"].startswith("sha256:")


# -- labels --------------------------------------------------------------------------------------------------------


def label_case(one: Cassette, *members: tuple[str, int]) -> tuple[str, ...]:
    return labels([one.manifest.replace(name=name, version=version) for name, version in members])


def test_members_are_labelled_by_name(one: Cassette) -> None:
    assert label_case(one, ("a", 1), ("b", 7)) == ("a", "b")


def test_repeats_are_numbered(one: Cassette) -> None:
    assert label_case(one, ("a", 1), ("a", 1), ("b", 1), ("a", 1)) == ("a", "a#2", "b", "a#3")


def test_versions_are_told_apart(one: Cassette) -> None:
    assert label_case(one, ("a", 1), ("a", 2), ("b", 1), ("a", 2)) == ("a@1", "a@2", "b", "a@2#2")


def test_a_repeat_among_others_is_labelled_and_noted(one: Cassette, eight: Cassette) -> None:
    made = plan(one.manifest, eight.manifest, one.manifest)
    assert made.members == ("one", "one#2", "eight")
    assert made.notes == ("one@1 is a member more than once; repeats share one opinion",)


def test_a_repeat_counts_twice(one: Cassette, eight: Cassette, states: Tensor) -> None:
    torch.testing.assert_close(fuse(one, eight, one)(states), (2 * one(states) + eight(states)) / 3)


# -- nesting -------------------------------------------------------------------------------------------------------


def test_a_fusion_can_be_a_member(one: Cassette, eight: Cassette, states: Tensor, library: Path) -> None:
    inner = fuse(one, eight)
    expected = 0.75 * one(states) + 0.25 * eight(states)
    torch.testing.assert_close(loaded(fuse(inner, one, name="outer"), library)(states), expected)


def test_a_gated_fusion_can_be_a_member(one: Cassette, eight: Cassette, states: Tensor, library: Path) -> None:
    inner = fuse(one, eight, gate="spectral", steps=10, samples=16)
    outer = loaded(fuse(inner, one, name="outer"), library)
    torch.testing.assert_close(outer(states, context=OMEGA), (inner(states, context=OMEGA) + one(states)) / 2)
    with pytest.raises(Incompatible, match="'omega' is missing"):
        outer(states)


def test_fusions_of_one_shape_but_different_members_are_kept_apart(
    one: Cassette, eight: Cassette, states: Tensor
) -> None:
    first, second = fuse(one, eight), fuse(variant(one, 0.5), eight, name="other")
    torch.testing.assert_close(fuse(first, second, name="outer")(states), (first(states) + second(states)) / 2)


def test_a_fusion_that_is_twice_a_member_keeps_the_ranks_of_its_tensors(
    one: Cassette, eight: Cassette, states: Tensor, library: Path
) -> None:
    inner = fuse(one, variant(one, 0.5), name="inner")
    outer = fuse(inner, inner, eight, name="outer")
    torch.testing.assert_close(loaded(outer, library)(states), (2 * inner(states) + eight(states)) / 3)
    assert outer.tensors["m0.m0.encoder.0.weight"].ndim == inner.tensors["m0.encoder.0.weight"].ndim


def test_nesting_is_counted(one: Cassette, eight: Cassette) -> None:
    inner = fuse(one, eight)
    outer = fuse(one, fuse(one, inner, name="middle"), name="outer")
    assert [nesting(expanded(c.manifest.architecture.config)) for c in (inner, outer)] == [1, 3]
    assert len(outer.manifest.architecture.config["nested"]) == 2


def nested_manifest(one: Cassette, depth: int) -> Manifest:
    config: dict[str, Any] = {"members": [], "gate": {}}
    for _ in range(depth - 1):
        config = {"members": [{"config": config}], "gate": {}}
    return one.manifest.replace(architecture=ArchitectureRef("grokkit_core/ensemble", 1, config))


def test_nesting_has_a_limit(one: Cassette) -> None:
    assert plan(nested_manifest(one, MAX_NESTING - 1), one.manifest).members == ("one", "one#2")
    with pytest.raises(Incompatible, match=f"nested {MAX_NESTING + 1} deep; expected at most {MAX_NESTING}"):
        plan(nested_manifest(one, MAX_NESTING), one.manifest)


def test_every_nesting_that_a_plan_admits_can_be_saved_and_loaded(one: Cassette, states: Tensor, library: Path) -> None:
    cassette = one
    for depth in range(1, MAX_NESTING + 1):
        cassette = fuse(cassette, one, name=f"depth-{depth}")
        torch.testing.assert_close(loaded(cassette, library)(states), one(states))


def test_a_flat_config_unfolds_to_the_tree_that_it_came_from(one: Cassette) -> None:
    config = fuse(fuse(fuse(one, one, name="a"), one, name="b"), one, name="c").manifest.architecture.config
    assert [entry["config"] for entry in config["members"] if "nested" in entry["config"]] == [{"nested": 0}]
    assert "nested" not in expanded(config)
    assert flat(expanded(config)) == config


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda c: c["members"][0]["config"].update(nested=7), "refer to nested 7"),
        (lambda c: c["members"][0]["config"].update(nested=-1), "refer to nested -1"),
        (lambda c: c["members"][0]["config"].update(nested=True), "refer to nested True"),
        (lambda c: c["nested"][0]["members"][0]["config"].update(nested=0), "refer to nested 0"),
        (lambda c: c["nested"].append(c["nested"][0]), "belong to no member"),
        (lambda c: c.update(nested=3), "no table of configs"),
        (lambda c: c["nested"].__setitem__(0, {"gate": {}}), "config.members is no list"),
    ],
)
def test_a_table_that_is_no_tree_is_refused(
    change: Callable[[dict[str, Any]], None], says: str, one: Cassette, reissue: Reissue, library: Path
) -> None:
    outer = fuse(fuse(fuse(one, one, name="a"), one, name="b"), one, name="c")
    with pytest.raises(BadManifest, match=says):
        gk.load(reissue(outer, **altered(outer, change)), library=library)


def of_grids(one: Cassette, count: int) -> list[Manifest]:
    """Manifests of members that differ in their config."""
    grid = one.manifest.architecture
    return [
        one.manifest.replace(name=f"m{k}", architecture=replace(grid, config={"angular": k + 1, "radial": 1}))
        for k in range(count)
    ]


def test_a_plan_admits_no_more_entries_than_a_reader(one: Cassette, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("grokkit_core.fusion.ensemble.MAX_ENTRIES", 4)
    assert len(plan(*of_grids(one, 4)).members) == 4
    with pytest.raises(Incompatible, match=r"5 .*at most 4"):
        plan(*of_grids(one, 5))


def test_many_members_of_one_architecture_are_one_entry(one: Cassette, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("grokkit_core.fusion.ensemble.MAX_ENTRIES", 1)
    assert len(plan(*(one.manifest.replace(name=f"m{k}") for k in range(9))).members) == 9


def test_planning_does_not_take_the_square_of_the_members(one: Cassette, monkeypatch: pytest.MonkeyPatch) -> None:
    digest, asked = Manifest.digest, []

    def noted(manifest: Manifest) -> str:
        asked.append(manifest.name)
        found: str = digest.__get__(manifest)
        return found

    monkeypatch.setattr(Manifest, "digest", property(noted))
    plan(*(one.manifest.replace(name=f"m{k}") for k in range(30)))
    assert len(asked) <= 3 * 30


# -- what does not fit ---------------------------------------------------------------------------------------------


def with_dtypes(cassette: Cassette, *dtypes: str) -> Manifest:
    inputs = [TensorSpec(s.name, s.axes, dtypes, s.unit, s.domain) for s in cassette.manifest.inputs]
    return cassette.manifest.replace(inputs=tuple(inputs))


def test_three_members_must_have_something_in_common(one: Cassette) -> None:
    pairs = (("float32", "float64"), ("float32",), ("float64",))
    with pytest.raises(Incompatible, match="dtypes of input 'states'"):
        plan(*(with_dtypes(one, *dtypes) for dtypes in pairs))


def test_context_that_a_member_requires_is_not_lost(one: Cassette, eight: Cassette, states: Tensor) -> None:
    inner = fuse(one, eight, gate="spectral", steps=1)
    blind = Cassette(one.manifest.replace(context=()), one.tensors)
    with pytest.raises(Incompatible, match="omega"):
        fuse(inner, blind, name="outer")(states)


def test_context_in_another_unit_is_not_read_by_a_gate(one: Cassette, eight: Cassette) -> None:
    other = eight.manifest.replace(context=(ContextSpec("omega", "Hz", (0.0, 4.0)),))
    with pytest.raises(Incompatible, match="different units or domains"):
        plan(one.manifest, other, gate="spectral")


# -- altered cassettes ---------------------------------------------------------------------------------------------


def altered(fused: Cassette, change: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Manifest changes for another config of the ensemble."""
    config = copy.deepcopy({key: value for key, value in fused.manifest.architecture.config.items()})
    change(config)
    return {"architecture": replace(fused.manifest.architecture, config=config)}


def member_entry(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda config: config["members"][0].update(changes)


def gate_entry(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda config: config["gate"].update(changes)


def test_an_altered_member_digest_is_refused(one: Cassette, eight: Cassette, reissue: Reissue, library: Path) -> None:
    fused = fuse(one, eight)
    ref = reissue(fused, **altered(fused, member_entry(digest="sha256:" + "0" * 64)))
    with pytest.raises(BadWeights, match="tensors of member 'one' differ from their recorded digest"):
        gk.load(ref, library=library)


def test_altered_member_weights_are_refused(one: Cassette, eight: Cassette, reissue: Reissue, library: Path) -> None:
    fused = fuse(one, eight)
    tensors = {**fused.tensors, "m1.node_in.bias": fused.tensors["m1.node_in.bias"] + 1}
    with pytest.raises(BadWeights, match="tensors of member 'eight'"):
        gk.load(reissue(fused, tensors=tensors), library=library)


def test_altered_digests_inside_a_nested_member_are_refused(
    one: Cassette, eight: Cassette, reissue: Reissue, library: Path
) -> None:
    outer = fuse(fuse(one, eight), one, name="outer")
    change = altered(outer, lambda c: c["nested"][0]["members"][0].update(digest="sha256:" + "0" * 64))
    with pytest.raises(BadWeights, match="member 'one'"):
        gk.load(reissue(outer, **change), library=library)


def test_an_unaltered_copy_is_accepted(
    one: Cassette, eight: Cassette, states: Tensor, reissue: Reissue, library: Path
) -> None:
    fused = fuse(one, eight)
    assert torch.equal(
        gk.load(reissue(fused, **altered(fused, lambda c: None)), library=library)(states), fused(states)
    )


def grid(**changes: Any) -> dict[str, Any]:
    return {"config": {"angular": 1, "radial": 1} | changes}


def shape(**changes: Any) -> dict[str, Any]:
    return {"config": {"members": 2, "variable": "omega", "width": 16} | changes}


def nest(*members: Any) -> dict[str, Any]:
    return {"config": {"members": list(members), "gate": {}}}


def entry_id(changes: Any) -> str:
    return str(changes)


@pytest.mark.parametrize(
    "changes",
    [{"members": []}, {"members": "m0."}, {"members": [{}]}, {"gate": None}, {"gate": {}}, {"more": 1}],
    ids=entry_id,
)
def test_an_altered_config_is_a_fault_of_the_cassette(
    one: Cassette, eight: Cassette, reissue: Reissue, library: Path, changes: dict[str, Any]
) -> None:
    fused = fuse(one, eight, gate="spectral", steps=1)
    with pytest.raises(CassetteError):
        gk.load(reissue(fused, **altered(fused, lambda config: config.update(changes))), library=library)


@pytest.mark.parametrize(
    "changes",
    [
        *({"prefix": prefix} for prefix in ("m1.", "gate.", "m0", "a.b.", "training.", "")),
        *({"count": count} for count in (0, 2, 2**53 - 1, True)),
        {"version": 0},
        {"digest": "sha256:0"},
        {"more": 1},
        *(nest(member) for member in ({}, "m0.", {"config": 1})),
        *(grid(angular=angular) for angular in ("x", 0, 65)),
        grid(rings=1),
    ],
    ids=entry_id,
)
def test_an_altered_member_is_a_fault_of_the_cassette(
    one: Cassette, eight: Cassette, reissue: Reissue, library: Path, changes: dict[str, Any]
) -> None:
    fused = fuse(one, eight)
    with pytest.raises(CassetteError):
        gk.load(reissue(fused, **altered(fused, member_entry(**changes))), library=library)


@pytest.mark.parametrize(
    "changes",
    [
        {"id": 1},
        {"variable": 1},
        {"config": {}},
        *(shape(members=members) for members in ("x", 1, 3)),
        *(shape(width=width) for width in (-1, 17, "16")),
        shape(variable="phi"),
    ],
    ids=entry_id,
)
def test_an_altered_gate_is_a_fault_of_the_cassette(
    one: Cassette, eight: Cassette, reissue: Reissue, library: Path, changes: dict[str, Any]
) -> None:
    fused = fuse(one, eight, gate="spectral", steps=1)
    with pytest.raises(CassetteError):
        gk.load(reissue(fused, **altered(fused, gate_entry(**changes))), library=library)


def test_a_context_variable_that_the_gate_reads_must_be_required(
    one: Cassette, eight: Cassette, reissue: Reissue, library: Path
) -> None:
    fused = fuse(one, eight, gate="spectral", steps=1)
    with pytest.raises(BadManifest):
        gk.load(reissue(fused, context=one.manifest.context), library=library)


@pytest.mark.parametrize("members", [1, 3, 5])
def test_a_uniform_gate_for_another_number_of_members_is_refused(
    one: Cassette, eight: Cassette, reissue: Reissue, library: Path, members: int
) -> None:
    fused = fuse(one, eight)
    with pytest.raises(BadManifest):
        gk.load(reissue(fused, **altered(fused, gate_entry(config={"members": members}))), library=library)


@pytest.mark.parametrize("config", [{}, {"angular": 1}])
def test_a_member_config_has_the_same_defaults_as_anywhere(
    one: Cassette, eight: Cassette, states: Tensor, reissue: Reissue, library: Path, config: dict[str, Any]
) -> None:
    fused = fuse(one, eight)
    found = gk.load(reissue(fused, **altered(fused, member_entry(config=config))), library=library)
    assert torch.equal(found(states), fused(states))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (member_entry(architecture="nobody/knows"), "no installed plugin brings the architecture nobody/knows"),
        (member_entry(architecture="grokkit_core/nothing"), "no architecture is named"),
        (member_entry(version=2), "member 'one' needs version 2 of grokkit_cyclotron/topobrain"),
        (gate_entry(id="grokkit_nobody/gate"), "no installed plugin brings the gate"),
        (gate_entry(id="unifrom"), "no gate is named 'unifrom'"),
    ],
)
def test_a_part_that_is_not_installed_is_named(
    one: Cassette,
    eight: Cassette,
    reissue: Reissue,
    library: Path,
    change: Callable[[dict[str, Any]], None],
    words: str,
) -> None:
    fused = fuse(one, eight)
    with pytest.raises(GrokkitError, match=words):
        gk.load(reissue(fused, **altered(fused, change)), library=library)


# -- parts of third parties ----------------------------------------------------------------------------------------


class Plain(nn.Module):
    """The last state times a number that stands in a submodule of a chosen name."""

    def __init__(self, name: str = "inner") -> None:
        super().__init__()
        self.name = name
        inner = nn.Module()
        inner.register_parameter("factor", nn.Parameter(torch.tensor([2.0])))
        self.add_module(name, inner)

    def forward(self, states: Tensor) -> Tensor:
        result: Tensor = states[:, -1] * self.get_parameter(f"{self.name}.factor")
        return result


class PlainRule(Architecture):
    def build(self, config: Mapping[str, Any]) -> nn.Module:
        return Plain(config["name"])

    def signature(self, config: Mapping[str, Any]) -> Signature:
        return self.plugins.task("cyclotron").spec.signature

    def check_tensors(self, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        if any(bool((tensor < 0).any()) for tensor in tensors.values()):
            raise BadWeights("a negative factor")


class Fixed(Gate):
    """Weights that the user gives."""

    def fit(self, members: Sequence[Predictor], batches: Calibration, *, generator: torch.Generator) -> GateState:
        return GateState({"share": self.options["share"]})

    def build(self, state: GateState) -> nn.Module:
        return FixedModule(state.config["share"])


class FixedModule(nn.Module):
    def __init__(self, share: float) -> None:
        super().__init__()
        self.register_buffer("shares", torch.tensor([share, 1 - share]), persistent=False)

    def forward(self, inputs: Sequence[Tensor], context: Mapping[str, Tensor], predictions: Tensor) -> Tensor:
        return self.get_buffer("shares").unsqueeze(1).expand(predictions.shape[:2])


@pytest.fixture
def plugins(extended: Extended) -> PluginHost:
    """A host that knows the architecture `probe/plain` and the gate `fixed`."""
    name = Field("name", "str", "inner")
    return extended(
        ArchitectureSpec("probe/plain", version=1, target="grokkit_probe:PlainRule", config=[name]),
        GateSpec("fixed", target="grokkit_probe:Fixed", options=[Field("share", "float", low=0.0, high=1.0)]),
        PlainRule=PlainRule,
        Fixed=Fixed,
    )


@pytest.mark.parametrize(
    "name", ["inner", "m0", "gate", "stacks", "architecture", "entry", "networks", "count", "prefix", "tensors"]
)
def test_a_member_may_name_its_parts_as_it_likes(
    plugins: PluginHost, crafted: Crafted, states: Tensor, library: Path, name: str
) -> None:
    first = crafted(plugins, "probe/plain", config={"name": name})
    second = variant(first, 2.0, name="second")
    fused = loaded(fuse(first, second), library)
    torch.testing.assert_close(fused(states), 3 * states[:, -1])


def test_a_gate_with_a_required_setting_can_be_loaded_again(
    plugins: PluginHost, crafted: Crafted, states: Tensor, library: Path
) -> None:
    first = crafted(plugins, "probe/plain")
    fused = fuse(first, variant(first, 2.0, name="second"), gate="fixed", share=0.25)
    torch.testing.assert_close(loaded(fused, library)(states), (0.25 * 2 + 0.75 * 4) * states[:, -1])


def test_members_are_checked_as_if_they_stood_alone(plugins: PluginHost, crafted: Crafted, library: Path) -> None:
    good = crafted(plugins, "probe/plain")
    assert loaded(fuse(good, variant(good, 0.5, name="half")), library)
    with pytest.raises(BadWeights, match="a negative factor"):
        loaded(fuse(good, variant(good, -1.0, name="negative"), name="bad"), library)


def test_a_fusion_requires_the_distributions_of_its_parts(plugins: PluginHost, crafted: Crafted) -> None:
    first = crafted(plugins, "probe/plain")
    fused = fuse(first, variant(first, 2.0, name="second"), gate="fixed", share=0.5)
    assert {"grokkit", "grokkit-probe"} <= set(fused.manifest.requires.plugins)
