"""A cassette that can be called: immutable, exact about inputs, strict about what its architecture builds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import grokkit_core as gk
from grokkit_core.architecture import Architecture
from grokkit_core.cassette import Cassette
from grokkit_core.errors import BadManifest, BadWeights, CassetteError, Incompatible, UsageError
from grokkit_core.plugins import PluginHost
from grokkit_core.specs import ArchitectureSpec, Field
from grokkit_core.tensors import Signature, TensorSpec
from grokkit_core.workspace import Workspace

Crafted = Callable[..., Cassette]
Extended = Callable[..., PluginHost]
BOTH = ("float32", "float64")
WINDOW = Signature([TensorSpec("states", ("batch", 15, 4), BOTH)], [TensorSpec("state", ("batch", 4), BOTH)])


class Scaled(nn.Module):
    """Has a constant that is computed while it is built and is not in its state."""

    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.register_buffer("scale", torch.linspace(1.0, 2.0, 4), persistent=False)

    def forward(self, states: Tensor) -> Tensor:
        result: Tensor = self.linear(states[:, -1]) * self.scale
        return result


class Turned(Scaled):
    """The same with complex weights."""

    def __init__(self) -> None:
        super().__init__()
        self.turn = nn.Parameter(torch.tensor([1j, 0.5 + 1j], dtype=torch.complex64))

    def forward(self, states: Tensor) -> Tensor:
        pairs = torch.view_as_complex(super().forward(states).unflatten(1, (2, 2)).contiguous())
        return torch.view_as_real(pairs * self.turn).flatten(1)


class Gap(nn.Module):
    """Twice the first input less the second."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor([2.0]))

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.factor * a - b


class ScaledRule(Architecture):
    network: type[nn.Module] = Scaled
    takes = WINDOW

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        return self.network()

    def signature(self, config: Mapping[str, Any]) -> Signature:
        return self.takes


class TurnedRule(ScaledRule):
    network = Turned


class GapRule(ScaledRule):
    network = Gap
    takes = Signature([TensorSpec(name, ("batch",)) for name in "ab"], [TensorSpec("gap", ("batch",))])


@pytest.fixture
def plugins(extended: Extended) -> PluginHost:
    """A host that knows the networks of this file as `probe/scaled`, `probe/turned` and `probe/gap`."""
    rules = {"scaled": ScaledRule, "turned": TurnedRule, "gap": GapRule}
    specs = [
        ArchitectureSpec(f"probe/{name}", version=1, target=f"grokkit_probe:{rule.__name__}")
        for name, rule in rules.items()
    ]
    return extended(*specs, **{rule.__name__: rule for rule in rules.values()})


def config(cassette: Cassette, **changes: Any) -> dict[str, Any]:
    """Manifest changes that give the architecture another config."""
    return {"architecture": dataclasses.replace(cassette.manifest.architecture, config=changes)}


# -- calling -------------------------------------------------------------------------------------------------------


def test_a_call_is_the_network(one: Cassette, states: Tensor) -> None:
    with torch.inference_mode():
        assert torch.equal(one(states), one.module(states))


def test_a_call_gives_one_output_a_sample(one: Cassette, states: Tensor) -> None:
    assert one(states).shape == (7, 4)
    assert one(states[:1]).shape == (1, 4)


def test_an_input_may_be_named(one: Cassette, states: Tensor) -> None:
    assert torch.equal(one(states=states), one(states))


def test_samples_do_not_see_each_other(one: Cassette, states: Tensor) -> None:
    alone = torch.cat([one(states[i : i + 1]) for i in range(7)])
    torch.testing.assert_close(alone, one(states), rtol=1e-6, atol=1e-7)


def test_a_call_does_not_change_its_input(one: Cassette, states: Tensor) -> None:
    before = states.clone()
    one(states, context={"omega": 1.2})
    assert torch.equal(states, before)


@pytest.mark.parametrize("wrong", [(), ("states", "states"), ("numpy",), ("short",), ("int",)])
def test_a_wrong_call_is_incompatible(one: Cassette, states: Tensor, wrong: tuple[str, ...]) -> None:
    kinds: dict[str, Any] = {
        "states": states,
        "numpy": states.numpy(),
        "short": states[:, 1:],
        "int": states.long(),
    }
    with pytest.raises(Incompatible):
        one(*(kinds[name] for name in wrong))


def test_context_is_checked_though_the_network_does_not_read_it(one: Cassette, states: Tensor) -> None:
    with pytest.raises(Incompatible, match="omega"):
        one(states, context={"omega": 5.0})
    assert torch.equal(one(states, context={"omega": 1.0, "phi": 9.0}), one(states))


def test_a_key_is_refused_by_a_cassette_of_one_task(one: Cassette, states: Tensor) -> None:
    with pytest.raises(Incompatible, match="has no member 'left'"):
        one(states, key="left")


def test_only_force_admits_what_lies_outside_the_domain(one: Cassette, states: Tensor) -> None:
    with pytest.raises(Incompatible):
        one.predict(states, {"omega": 5.0})
    assert torch.equal(one.predict(states, {"omega": 5.0}, force=True), one(states))


def test_inputs_of_a_mapping_are_taken_by_name(plugins: PluginHost, crafted: Crafted) -> None:
    gap = crafted(plugins, "probe/gap")
    a, b = torch.tensor([1.0]), torch.tensor([5.0])
    assert gap(a, b).item() == gap.predict({"a": a, "b": b}).item() == gap.predict({"b": b, "a": a}).item() == -3.0


@pytest.mark.parametrize("given", [(), ("a",), ("a", "c"), ("a", "b", "c")])
def test_a_mapping_of_other_inputs_is_incompatible(
    plugins: PluginHost, crafted: Crafted, given: tuple[str, ...]
) -> None:
    with pytest.raises(Incompatible, match="input"):
        crafted(plugins, "probe/gap").predict(dict.fromkeys(given, torch.zeros(1)))


# -- precision and gradients ---------------------------------------------------------------------------------------


def test_a_float64_call_computes_in_float64(one: Cassette, states: Tensor) -> None:
    fine = one(states.double())
    assert fine.dtype == torch.float64
    assert 0 < (fine - one(states)).abs().max() < 1e-5


def test_a_float64_call_leaves_the_weights_as_they_are(one: Cassette, states: Tensor) -> None:
    before = {name: tensor.clone() for name, tensor in one.tensors.items()}
    coarse = one(states)
    one(states.double())
    assert all(one.tensors[name].dtype == torch.float32 for name in before)
    assert all(torch.equal(one.tensors[name], tensor) for name, tensor in before.items())
    assert torch.equal(one(states), coarse)


def test_a_cassette_is_measured_in_the_dtype_it_was_moved_to(one: Cassette) -> None:
    assert (one.dtype, one.to("cpu", "float64").dtype) == (torch.float32, torch.float64)


@pytest.mark.parametrize("dtype", ["float16", "int64", "double", ""])
def test_a_dtype_that_is_not_listed_is_refused(one: Cassette, dtype: str) -> None:
    with pytest.raises(Incompatible, match="expected float32 or float64"):
        one.to("cpu", dtype)


def test_the_network_is_frozen_and_in_evaluation_mode(one: Cassette) -> None:
    assert not one.module.training
    assert not any(parameter.requires_grad for parameter in one.module.parameters())


def test_a_plain_call_runs_in_inference_mode(one: Cassette, states: Tensor) -> None:
    assert one(states).is_inference()


def test_a_gradient_flows_to_an_input_that_asks_for_it(one: Cassette, states: Tensor) -> None:
    x = states[:2].double().requires_grad_()
    assert torch.autograd.gradcheck(one, (x,), eps=1e-6, atol=1e-6)


@pytest.mark.parametrize("steps", [-1, 1.5, "2"])
def test_a_rollout_of_no_number_of_steps_is_refused(steps: Any) -> None:
    state = torch.tensor([[0.1, 0.2, 0.0, 0.0]])
    for name in ("pendulum", "pendulum-mlp"):
        with pytest.raises(UsageError, match="expected a whole number from 0 on"):
            list(gk.load(name).rollout(state, steps))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_named() -> None:
    with pytest.raises(UsageError, match="torch sees no GPU here"):
        gk.load("kepler", device="cuda")


def test_no_gradient_flows_to_the_weights(one: Cassette, states: Tensor) -> None:
    one(states.clone().requires_grad_()).sum().backward()  # type: ignore[no-untyped-call]
    assert all(parameter.grad is None for parameter in one.module.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_gradient_flows_after_a_call_in_inference_mode(one: Cassette, states: Tensor, dtype: torch.dtype) -> None:
    with torch.inference_mode():
        one(states.to(dtype))
    x = states.to(dtype).clone().requires_grad_()
    one(x).sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert x.grad.abs().sum() > 0


def test_a_gradient_flows_after_loading_in_inference_mode(tiny: Path, states: Tensor) -> None:
    with torch.inference_mode():
        cassette = gk.load("one", library=tiny)
    x = states.clone().requires_grad_()
    cassette(x).sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None


# -- rollouts ------------------------------------------------------------------------------------------------------


def test_a_rollout_is_repeated_calls_on_a_sliding_window(one: Cassette, states: Tensor) -> None:
    window, expected = states, []
    for _ in range(4):
        expected.append(one(window))
        window = torch.cat((window[:, 1:], expected[-1].unsqueeze(1)), 1)
    rolled = list(one.rollout(states, 4, context={"omega": 1.2}))
    assert len(rolled) == 4
    assert all(torch.equal(a, b) for a, b in zip(rolled, expected, strict=True))


def test_a_rollout_is_made_step_by_step(one: Cassette, states: Tensor) -> None:
    assert torch.equal(next(one.rollout(states, 10**9)), one(states))


def test_a_rollout_of_no_steps_gives_nothing(one: Cassette, states: Tensor) -> None:
    assert list(one.rollout(states, 0)) == []


def test_a_rollout_takes_the_inputs_that_a_prediction_takes(one: Cassette, states: Tensor) -> None:
    (rolled,) = one.rollout({"states": states}, 1)
    assert torch.equal(rolled, one.predict({"states": states}))


def test_a_rollout_checks_its_start(one: Cassette, states: Tensor) -> None:
    with pytest.raises(Incompatible, match="axis 1"):
        next(one.rollout(states[:, 1:], 2))


# -- immutability --------------------------------------------------------------------------------------------------


def test_the_manifest_cannot_be_changed(one: Cassette) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.manifest.name = "other"  # type: ignore[misc]


def test_the_tensors_cannot_be_exchanged(one: Cassette) -> None:
    with pytest.raises(TypeError):
        one.tensors["angular_logits"] = torch.zeros(1)  # type: ignore[index]
    with pytest.raises(TypeError):
        del one.tensors["angular_logits"]  # type: ignore[attr-defined]


def test_the_mapping_it_was_made_from_is_not_kept(one: Cassette, states: Tensor) -> None:
    given = dict(one.tensors)
    cassette = Cassette(one.manifest, given)
    given.clear()
    assert torch.equal(cassette(states), one(states))


def mappings(cassette: Cassette) -> list[Mapping[str, Any]]:
    manifest = cassette.manifest
    recipe = manifest.provenance.recipe
    assert recipe is not None
    return [manifest.task.parameters, manifest.architecture.config, recipe.parameters, manifest.extra]


def test_the_mappings_of_a_loaded_manifest_cannot_be_changed(one: Cassette) -> None:
    for mapping in mappings(one):
        with pytest.raises(TypeError):
            mapping["dt"] = 1.0  # type: ignore[index]


def test_the_mappings_of_a_saved_manifest_cannot_be_changed(
    plugins: PluginHost, crafted: Crafted, library: Path
) -> None:
    for mapping in mappings(crafted(plugins, "probe/scaled").save(library)):
        with pytest.raises(TypeError):
            mapping["dt"] = 1.0  # type: ignore[index]


def test_moving_a_cassette_leaves_it_where_it_is(one: Cassette) -> None:
    moved = one.to("cpu", "float64")
    assert moved is not one
    assert one.dtype == torch.float32
    assert moved.manifest.digest == one.manifest.digest


def test_another_certificate_makes_another_cassette(one: Cassette, states: Tensor) -> None:
    before = one.manifest.digest
    other = one.with_certificate(dataclasses.replace(one.manifest.certificate, statement="changed"))
    assert other.manifest.digest != before == one.manifest.digest
    assert torch.equal(other(states), one(states))


# -- saving and loading --------------------------------------------------------------------------------------------


def test_a_saved_cassette_is_loaded_as_it_was(one: Cassette, states: Tensor, library: Path) -> None:
    saved = one.save(library)
    loaded = gk.load("one", library=library)
    assert loaded.manifest == saved.manifest
    assert torch.equal(loaded(states), one(states))


def test_every_save_is_a_new_version(one: Cassette, library: Path) -> None:
    assert [one.save(library).manifest.ref for _ in range(3)] == ["one@1", "one@2", "one@3"]


def test_a_cassette_shows_its_name_task_and_verdict(one: Cassette) -> None:
    assert repr(one) == "<Cassette one@1: cyclotron, estimated>"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"angular": 1, "radial": 1, "rings": 2}, "no setting 'rings'"),
        ({"angular": 0, "radial": 1}, "angular=0 .*expected an integer from 1 to 64"),
        ({"angular": 65, "radial": 1}, "angular=65"),
        ({"angular": 1.0, "radial": 1}, r"angular=1\.0"),
        ({"angular": True, "radial": 1}, "angular=True"),
        ({"angular": "1", "radial": 1}, "angular='1'"),
        ({"angular": None, "radial": 1}, "angular=None"),
    ],
)
def test_a_config_that_was_tampered_with_is_a_bad_manifest(
    one: Cassette, reissue: Callable[..., str], library: Path, changes: dict[str, Any], words: str
) -> None:
    ref = reissue(one, **config(one, **changes))
    with pytest.raises(BadManifest, match=words) as caught:
        gk.load(ref, library=library)
    assert caught.value.exit_code == 3


def test_a_missing_required_config_field_is_a_bad_manifest(
    extended: Extended, crafted: Crafted, library: Path, reissue: Callable[..., str]
) -> None:
    spec = ArchitectureSpec("probe/scaled", version=1, target="grokkit_probe:Rule", config=[Field("width", "int")])
    plugins = extended(spec, Rule=ScaledRule)
    ref = reissue(made := crafted(plugins, "probe/scaled", config={"width": 4}), **config(made))
    with pytest.raises(BadManifest, match="needs a value for 'width'"):
        gk.load(ref, library=Workspace.open(library, plugins=plugins))


def without(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key: tensor for key, tensor in tensors.items() if key != name}


@pytest.mark.parametrize(
    ("tamper", "words"),
    [
        (lambda t: without(t, "node_in.bias"), "lacks tensor 'node_in.bias'"),
        (lambda t: {**t, "more": torch.zeros(1)}, "holds the unexpected tensor 'more'"),
        (lambda t: {**t, "node_in.bias": torch.zeros(25)}, r"'node_in.bias' has shape \[25\]; expected \[24\]"),
        (lambda t: {**t, "node_in.bias": torch.zeros(24, 1)}, r"shape \[24, 1\]"),
        (lambda t: {**t, "node_in.bias": torch.zeros(24, 2)}, r"shape \[24, 2\]"),
        (
            lambda t: {**t, "node_in.bias": torch.zeros(24, dtype=torch.int64)},
            "dtype torch.int64; expected torch.float32",
        ),
        (lambda t: {**t, "node_in.bias": torch.zeros(24, dtype=torch.bool)}, "dtype torch.bool"),
    ],
)
def test_tensors_that_the_architecture_does_not_build_are_bad_weights(
    one: Cassette,
    reissue: Callable[..., str],
    library: Path,
    tamper: Callable[[Mapping[str, Tensor]], dict[str, Tensor]],
    words: str,
) -> None:
    ref = reissue(one, tensors=tamper(one.tensors))
    with pytest.raises(BadWeights, match=words) as caught:
        gk.load(ref, library=library)
    assert caught.value.exit_code == 3


def test_a_config_of_another_size_does_not_fit_the_weights(
    one: Cassette, reissue: Callable[..., str], library: Path
) -> None:
    with pytest.raises(BadWeights, match="shape"):
        gk.load(reissue(one, **config(one, angular=64, radial=64)), library=library)


@pytest.mark.parametrize(
    "changes",
    [
        {"inputs": (TensorSpec("states", ("batch", 14, 4), BOTH),)},
        {"inputs": (TensorSpec("states", ("batch", 15, 4), BOTH, unit="km"),)},
        {"inputs": (TensorSpec("states", ("batch", 15, 4), ("complex64",)),)},
        {"outputs": (TensorSpec("state", ("batch", 5), BOTH),)},
        {"outputs": ()},
    ],
)
def test_a_signature_that_is_not_the_networks_is_a_bad_manifest(
    one: Cassette, reissue: Callable[..., str], library: Path, changes: dict[str, Any]
) -> None:
    with pytest.raises(BadManifest):
        gk.load(reissue(one, **changes), library=library)


def test_float64_weights_fit_where_float32_is_built(
    one: Cassette, states: Tensor, reissue: Callable[..., str], library: Path
) -> None:
    ref = reissue(one, tensors={name: tensor.double() for name, tensor in one.tensors.items()})
    torch.testing.assert_close(gk.load(ref, library=library)(states), one(states), rtol=1e-6, atol=1e-7)


def test_another_version_of_the_architecture_is_incompatible(
    one: Cassette, reissue: Callable[..., str], library: Path
) -> None:
    ref = reissue(one, architecture=dataclasses.replace(one.manifest.architecture, version=2))
    with pytest.raises(Incompatible, match=r"needs version 2 .*expected version 1"):
        gk.load(ref, library=library)


def test_the_architecture_may_refuse_tensors_of_the_right_shapes(
    extended: Extended, crafted: Crafted, library: Path
) -> None:
    class Picky(ScaledRule):
        def check_tensors(self, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
            raise BadWeights("not these")

    spec = ArchitectureSpec("probe/picky", version=1, target="grokkit_probe:Picky")
    place = Workspace.open(library, plugins=extended(spec, Picky=Picky))
    crafted(place.plugins, "probe/picky").save(place)
    with pytest.raises(CassetteError, match="not these"):
        gk.load("crafted", library=place)


# -- constants and complex weights ---------------------------------------------------------------------------------


def by_hand(network: nn.Module, cassette: Cassette, states: Tensor) -> Tensor:
    """What a network gives with the tensors of a cassette, without any of the cassette's machinery."""
    network.load_state_dict(dict(cassette.tensors))
    with torch.no_grad():
        result: Tensor = network(states)
    return result


@pytest.mark.parametrize(("name", "network"), [("scaled", Scaled), ("turned", Turned)])
def test_a_constant_that_is_computed_while_building_is_there(
    plugins: PluginHost, crafted: Crafted, states: Tensor, name: str, network: type[nn.Module]
) -> None:
    cassette = crafted(plugins, f"probe/{name}")
    torch.testing.assert_close(cassette(states), by_hand(network(), cassette, states))


@pytest.mark.parametrize(("name", "network"), [("scaled", Scaled), ("turned", Turned)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_such_a_cassette_is_the_same_once_saved_and_loaded(
    plugins: PluginHost,
    crafted: Crafted,
    states: Tensor,
    library: Path,
    name: str,
    network: type[nn.Module],
    dtype: torch.dtype,
) -> None:
    cassette = crafted(plugins, f"probe/{name}")
    cassette.save(library)
    found = gk.load("crafted", library=Workspace.open(library, plugins=plugins))(states.to(dtype))
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), by_hand(network(), cassette, states))


@pytest.mark.parametrize(("name", "network"), [("scaled", Scaled), ("turned", Turned)])
def test_such_a_cassette_computes_in_float64_before_it_is_saved(
    plugins: PluginHost, crafted: Crafted, states: Tensor, name: str, network: type[nn.Module]
) -> None:
    cassette = crafted(plugins, f"probe/{name}")
    fine = cassette(states.double())
    assert fine.dtype == torch.float64
    torch.testing.assert_close(fine.float(), by_hand(network(), cassette, states))


# -- randomness ----------------------------------------------------------------------------------------------------


def test_loading_and_calling_leave_the_global_generator_alone(
    tiny: Path, states: Tensor, plugins: PluginHost, crafted: Crafted
) -> None:
    before = torch.get_rng_state()
    gk.load("eight", library=tiny)(states)
    crafted(plugins, "probe/scaled")(states)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.usefixtures("few_samples")
def test_training_leaves_the_global_generator_alone(library: Path) -> None:
    before = torch.get_rng_state()
    gk.train("cyclotron", settings={"epochs": 1, "samples": 64}, library=library)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.usefixtures("few_samples")
def test_the_global_generator_does_not_change_what_is_trained(library: Path) -> None:
    made = []
    for seed in (1, 2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            made.append(gk.train("cyclotron", settings={"epochs": 1, "samples": 64}, library=library)[0].cassette)
    assert made[0].manifest.weights == made[1].manifest.weights
