"""Transfer: every operator keeps the function of every architecture that it grows, and what does not is caught."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toys import provenance

import grokkit_core as gk
from grokkit_core import packing
from grokkit_core.architecture import Architecture, Layer
from grokkit_core.building import build_module
from grokkit_core.cassette import Cassette, draft, from_stored, load
from grokkit_core.errors import GrokkitError, Incompatible, UsageError
from grokkit_core.manifest import ArchitectureRef, Manifest, Parent
from grokkit_core.plugins import PluginHost, host
from grokkit_core.specs import ArchitectureSpec, Field, RecipeSpec, TaskSpec, TransferSpec
from grokkit_core.streams import stream
from grokkit_core.task import Batch, Inputs, Task, tensors_of
from grokkit_core.tensors import Signature, TensorSpec
from grokkit_core.transfer.grow import construct, grow, plan_growth
from grokkit_core.transfer.operator import ROUNDING, Sizes, TransferPlan
from grokkit_core.transfer.regrid import resampled
from grokkit_core.transfer.widen import Widen, widened
from grokkit_core.transfer.zero_pad import EMBEDDED, padded
from grokkit_core.workspace import Workspace

OPERATORS = [spec.id for spec in host().specs(TransferSpec)]
ARCHITECTURES = [spec.id for spec in host().specs(ArchitectureSpec)]
DTYPES = [torch.float32, torch.float64]
DOUBLE = 1e-12
"""What "to rounding" allows outputs of order one to differ in float64."""

DENSE = {torch.float32: 1e-6, torch.float64: DOUBLE}
KEPT = 4_096
"""Bytes by which the files of an implicitly grown cassette may exceed those of its base."""

EXTREME = (1e30, -1e30, math.nan, math.inf, -math.inf)
MLP = "grokkit_parity/mlp"
COMPOSITES = ("grokkit_core/router", "grokkit_core/superposition")


# -- sources: random networks of every architecture, and what ships ----------------------------------------------------


def draw(field: Field, generator: torch.Generator) -> Any:
    """A small value of a declared setting, for a few rows of bits as indices."""
    if field.choices:
        return field.choices[int(torch.randint(len(field.choices), (), generator=generator))]
    if field.type == "int":
        return int(torch.randint(int(max(field.low, 1)), int(min(field.high, 9)) + 1, (), generator=generator))
    if field.type == "bool":
        return bool(torch.randint(2, (), generator=generator))
    if field.type == "ints":
        return tuple(sorted(torch.randperm(9, generator=generator)[:3].tolist()))
    return field.default


def laws_of(architecture: str) -> list[str]:
    """The tasks that some recipe trains the architecture on."""
    return sorted({spec.task for spec in host().specs(RecipeSpec) if spec.architecture == architecture})


def random_state(module: nn.Module, dtype: torch.dtype, generator: torch.Generator, *, like_trained: bool) -> Any:
    """Default initialisation, or what training leaves: large weights of very different sizes and units that died.

    Integers are drawn from -1, 0 and 1.
    """
    state = {
        name: tensor.to(dtype)
        if tensor.is_floating_point()
        else torch.randint(-1, 2, tensor.shape, generator=generator).to(tensor.dtype)
        for name, tensor in module.state_dict().items()
    }
    if not like_trained:
        return state
    for name, tensor in state.items():
        if tensor.is_floating_point():
            scale = torch.rand(tensor.shape[:1], generator=generator).to(dtype).mul(2.5)
            scale[: len(scale) // 4] = 0
            state[name] = tensor * scale.view(-1, *[1] * (tensor.ndim - 1))
    return state


def drawn(identifier: str, seed: int, dtype: torch.dtype, *, like_trained: bool) -> Cassette | None:
    """A random network of a random small config; None where the architecture has no config that can be drawn."""
    spec = host().spec(ArchitectureSpec, identifier)
    if any(field.type == "json" for field in spec.config) or not laws_of(identifier):
        return None
    generator, architecture = stream(seed, "config"), host().architecture(identifier)
    task_name = laws_of(identifier)[0]
    for _ in range(200):
        config = {field.name: draw(field, generator) for field in spec.config}
        shared = [field.name for field in host().spec(TaskSpec, task_name).parameters if field.name in config]
        try:
            settled = architecture.settled(config)
            architecture.check(settled)
            task = host().task(task_name, **{name: config[name] for name in shared})
        except UsageError:
            continue
        return made(architecture, settled, task, seed, dtype, like_trained=like_trained)
    raise AssertionError(f"no valid config of {identifier} was drawn")


def made(
    architecture: Architecture,
    config: Mapping[str, Any],
    task: Task,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    *,
    like_trained: bool = False,
    plugins: PluginHost | None = None,
) -> Cassette:
    """An unsaved cassette of this architecture with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = architecture.build(config)
    return draft(
        "random",
        task=task,
        architecture=architecture.spec,
        config=config,
        signature=architecture.signature(config),
        tensors=random_state(module, dtype, stream(seed, "trained"), like_trained=like_trained),
        provenance=provenance(),
        summary="random weights",
        plugins=plugins or host(),
    )


def parity(seed: int = 0, dtype: torch.dtype = torch.float32, **config: Any) -> Cassette:
    """A random parity network; its law fits its config."""
    architecture = host().architecture(MLP)
    settled = architecture.settled(config)
    task = host().task("parity", n=settled["n"], **({"support": settled["live"]} if len(settled["live"]) == 3 else {}))
    return made(architecture, settled, task, seed, dtype)


@functools.cache
def shipped(architecture: str) -> tuple[Cassette, ...]:
    """Really trained networks of an architecture."""
    found = [entry for entry in Workspace.open().library.entries() if entry.root.kind == "plugin" and entry.manifest]
    return tuple(load(entry) for entry in found if entry.manifest and entry.manifest.architecture.id == architecture)


def retyped(cassette: Cassette, dtype: torch.dtype) -> Cassette:
    """The same network with weights of another dtype."""
    tensors = {
        name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in cassette.tensors.items()
    }
    return Cassette(cassette.manifest, tensors, plugins=cassette.plugins)


@functools.cache
def sources(architecture: str, dtype: torch.dtype) -> list[Cassette]:
    """Untrained, trained-like and trained networks; of the embedding, those that growth makes."""
    found = [
        cassette
        for seed in range(2)
        for like_trained in (False, True)
        if (cassette := drawn(architecture, seed, dtype, like_trained=like_trained))
    ]
    if architecture == EMBEDDED:
        for inner in ARCHITECTURES:
            for base in sources(inner, dtype) if inner != EMBEDDED else []:
                found += [grown_by("zero-pad", base, plan.after)[0] for plan in plans_for("zero-pad", base)[-1:]]
    if architecture in COMPOSITES:
        return [composition(architecture), *shipped(architecture)]
    return found + [retyped(cassette, dtype) for cassette in shipped(architecture)]


@functools.cache
def composition(architecture: str) -> Cassette:
    """Two networks of different tasks in one cassette."""
    fusion = host().fusion(architecture.rpartition("/")[2])
    members = [load("cyclotron"), load("pendulum")]
    plan = fusion.plan([member.manifest for member in members], None)
    return fusion.compose(members, plan, gate=None, batches=None, seed=0, name="both")


@functools.cache
def partner() -> Cassette:
    """What operators that read a second cassette are given: the standard algorithm for products <1,2,2>, by hand."""
    architecture = host().architecture("grokkit_matmul/bilinear")
    config = architecture.settled({"m": 1, "k": 2, "n": 2, "rank": 4, "raw": False})
    source = made(architecture, config, host().task("matmul", m=1, k=2, n=2))
    tensors = {name: torch.zeros_like(tensor) for name, tensor in source.tensors.items()}
    for slot, (k, n) in enumerate((k, n) for k in range(2) for n in range(2)):
        tensors["U"][slot, 0, k] = tensors["V"][slot, k, n] = tensors["W"][slot, 0, n] = 1
    return Cassette(source.manifest.replace(name="partner"), tensors, plugins=source.plugins)


def partners_of(operator: str, plugins: PluginHost | None = None) -> dict[str, Cassette]:
    """A cassette for each that the operator reads beside its source."""
    spec = (plugins or host()).spec(TransferSpec, operator)
    return {field.name: partner() for field in spec.parameters if field.type == "cassette"}


def sizes_in(config: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """Every integer of a config by name, those of an embedding too."""
    for name, value in config.items():
        if type(value) is int:
            yield name, value
        elif name == "sizes":
            yield from sizes_in(value)


def plans_for(operator: str, source: Cassette) -> list[TransferPlan]:
    """Plans to the same size, to a little more, to odd and even multiples, of each size and of all at once."""
    found: dict[str, list[int]] = {}
    plans = []
    if partners := partners_of(operator):
        manifests = {name: cassette.manifest for name, cassette in partners.items()}
        try:
            return [host().operator(operator).plan(source.manifest, {}, partners=manifests)]
        except Incompatible:
            return []
    for name, value in sizes_in(source.manifest.architecture.config):
        for wanted in (value, value + 1, 2 * value, 3 * value + 2):
            try:
                plans.append(host().operator(operator).plan(source.manifest, {name: wanted}))
            except Incompatible:
                continue
            found.setdefault(name, []).append(wanted)
    if found:
        plans.append(
            host().operator(operator).plan(source.manifest, {name: sizes[-1] for name, sizes in found.items()})
        )
    return plans


def grown_by(
    operator: str, source: Cassette, to: Sizes, *, place: Workspace | None = None, **options: Any
) -> tuple[Cassette, TransferPlan]:
    """The grown cassette, not certified, and its plan. An operator that reads partners has no sizes to be told."""
    partners = partners_of(operator, source.plugins)
    if partners:
        to, options = {}, {**options, "partners": {name: cassette.manifest for name, cassette in partners.items()}}
    plan = source.plugins.operator(operator).plan(source.manifest, to, **options)
    place = place or Workspace.open(plugins=source.plugins)
    return construct(source, plan, partners=partners, name="grown", seed=0, place=place), plan


def inputs_for(cassette: Cassette, dtype: torch.dtype, scale: float = 1.0) -> Inputs:
    """Random numbers in the shape of the inputs, beyond the domain too."""
    generator = stream(3, "inputs")
    values = {
        spec.name: scale
        * torch.randn([axis if isinstance(axis, int) else 24 for axis in spec.axes], generator=generator, dtype=dtype)
        for spec in cassette.manifest.inputs
    }
    return next(iter(values.values())) if len(values) == 1 else values


def apart(source: Cassette, grown: Cassette, plan: TransferPlan, inputs: Inputs) -> float:
    """The largest difference of outputs, relative to one or to the largest output; infinite for NaN."""
    operator = source.plugins.operator(plan.operator)
    context = {variable.name: 1.2 for variable in source.manifest.context}
    before = source.predict(inputs, context, force=True)
    after = operator.project(grown.predict(operator.lift(inputs, plan), context, force=True), plan)
    assert after.shape == before.shape
    assert after.dtype == before.dtype
    difference = float((after - before).abs().max() / before.abs().max().clamp(min=1.0))
    return math.inf if math.isnan(difference) else difference


def samples_for(source: Cassette, dtype: torch.dtype) -> list[Inputs]:
    """Random numbers, large ones, and rows of the law."""
    sampled = source.task.sample(24, generator=stream(5, "law"), **source.task.evaluation[0]).to(dtype).inputs
    return [inputs_for(source, dtype), inputs_for(source, dtype, 1e3), sampled]


def allowed(plan: TransferPlan, dtype: torch.dtype) -> float:
    return min(plan.tolerance, ROUNDING if dtype == torch.float32 else DOUBLE)


# -- the law, for all that is registered -------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_has_networks_to_test_with(architecture: str) -> None:
    assert sources(architecture, torch.float32)


@pytest.mark.parametrize(
    "operator", [name for name in OPERATORS if name not in ("change-constants", "grokkit_wave/fix-lambda")]
)
def test_every_operator_grows_some_architecture(operator: str) -> None:
    assert any(plans_for(operator, source) for name in ARCHITECTURES for source in sources(name, torch.float32)[:1])


@pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("operator", OPERATORS)
def test_the_function_is_kept_as_the_plan_says(operator: str, architecture: str, dtype: torch.dtype) -> None:
    for source in sources(architecture, dtype):
        before = {name: tensor.clone() for name, tensor in source.tensors.items()}
        digest = source.manifest.digest
        for plan in plans_for(operator, source):
            try:
                grown, _ = grown_by(operator, source, plan.after)
            except Incompatible:  # weights that the operator refuses, as grow-modes does with phases of no relation
                assert source.manifest.name == "random"
                continue
            assert {
                name: grown.manifest.architecture.config.get(name, plan.after[name]) for name in plan.after
            } == plan.after
            if math.isfinite(plan.tolerance):
                for inputs in samples_for(source, dtype):
                    assert apart(source, grown, plan, inputs) <= allowed(plan, dtype), (plan.before, plan.after)
        assert source.manifest.digest == digest
        assert all(torch.equal(tensor, before[name]) for name, tensor in source.tensors.items())


def test_a_partner_that_does_not_keep_its_guarantee_breaks_the_law() -> None:
    """The standard algorithm with one coefficient zero, in place of itself."""
    partners = partners_of("grokkit_matmul/kronecker")
    wrong = {name: tensor.clone() for name, tensor in partner().tensors.items()}
    wrong["W"][0, 0, 0] = 0
    for source in sources("grokkit_matmul/bilinear", torch.float64):
        for plan in plans_for("grokkit_matmul/kronecker", source):
            place = Workspace.open()
            for tensors, keeps in ((partner().tensors, True), (wrong, False)):
                given = {name: Cassette(found.manifest, tensors, plugins=host()) for name, found in partners.items()}
                grown = construct(source, plan, partners=given, name="grown", seed=0, place=place)
                apart_by = [apart(source, grown, plan, inputs) for inputs in samples_for(source, torch.float64)]
                assert (max(apart_by) <= allowed(plan, torch.float64)) == keeps


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("operator", OPERATORS)
def test_an_operator_that_does_not_apply_says_so_and_does_nothing(operator: str, architecture: str) -> None:
    (source, *_) = sources(architecture, torch.float32)
    if not plans_for(operator, source):
        for name in ("n", "width", "grid", "no-such-size"):
            with pytest.raises(Incompatible) as caught:
                host().operator(operator).plan(source.manifest, {name: 64})
            assert str(caught.value)


@pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_dense_form_keeps_the_function_and_its_classes(architecture: str, dtype: torch.dtype) -> None:
    for source in sources(architecture, dtype):
        for plan in plans_for("zero-pad", source):
            grown, dense = grown_by("zero-pad", source, plan.after, dense=True)
            assert grown.manifest.architecture.id != EMBEDDED
            operator, inputs = host().operator("zero-pad"), samples_for(source, dtype)[-1]
            context = {variable.name: 1.2 for variable in source.manifest.context}
            before = source.predict(inputs, context, force=True)
            after = grown.predict(operator.lift(inputs, dense), context, force=True)
            assert float((after - before).abs().max()) <= DENSE[dtype] * max(1.0, float(before.abs().max()))
            assert torch.equal(after.argmax(-1), before.argmax(-1))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_dense_growth_keeps_rank_and_number_of_weights_that_are_not_zero(architecture: str) -> None:
    for source in sources(architecture, torch.float64):
        if source.manifest.architecture.id != EMBEDDED:
            for plan in plans_for("zero-pad", source)[-1:]:
                grown, _ = grown_by("zero-pad", source, plan.after, dense=True)
                for name, tensor in source.tensors.items():
                    larger = grown.tensors[name]
                    assert torch.count_nonzero(larger) == torch.count_nonzero(tensor)
                    if tensor.ndim == 2:
                        assert torch.linalg.matrix_rank(larger) == torch.linalg.matrix_rank(tensor)
                assert sum(t.numel() for t in grown.tensors.values()) > sum(t.numel() for t in source.tensors.values())


@pytest.mark.parametrize("dense", [False, True], ids=["implicit", "dense"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_growing_twice_is_growing_once(architecture: str, dense: bool) -> None:
    for source in sources(architecture, torch.float32):
        for plan in plans_for("zero-pad", source)[-1:]:
            first, _ = grown_by("zero-pad", source, plan.after, dense=dense)
            again, _ = grown_by("zero-pad", first, plan.after, dense=dense)
            assert_same(again, first)
            larger = {name: size + 5 for name, size in plan.after.items() if size + 5 <= 4096}
            if larger:
                hop, _ = grown_by("zero-pad", first, larger, dense=dense)
                direct, straight = grown_by("zero-pad", source, larger, dense=dense)
                assert_same(hop, direct)
                inputs = samples_for(source, torch.float32)[-1]
                assert apart(source, hop, straight, inputs) <= allowed(straight, torch.float32)


def assert_same(one: Cassette, other: Cassette) -> None:
    """Equal in all that is stored, and in outputs."""
    assert one.manifest.architecture == other.manifest.architecture
    assert one.manifest.task == other.manifest.task
    assert one.manifest.signature == other.manifest.signature
    assert one.manifest.weights.sha256 == other.manifest.weights.sha256
    assert set(one.tensors) == set(other.tensors)
    assert all(torch.equal(tensor, other.tensors[name]) for name, tensor in one.tensors.items())
    inputs = inputs_for(one, torch.float32)
    context = {variable.name: 1.2 for variable in one.manifest.context}
    assert torch.equal(one.predict(inputs, context, force=True), other.predict(inputs, context, force=True))


def test_the_dense_form_of_an_implicit_growth_is_the_dense_form() -> None:
    source = parity(n=11, hidden=6, live=(2, 3, 9))
    implicit, _ = grown_by("zero-pad", source, {"n": 17, "hidden": 9})
    assert_same(
        grown_by("zero-pad", implicit, {"n": 20, "hidden": 12}, dense=True)[0],
        grown_by("zero-pad", source, {"n": 20, "hidden": 12}, dense=True)[0],
    )


# -- dead inputs and live bits -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_whatever_stands_in_dead_inputs_is_never_touched(architecture: str, dtype: torch.dtype) -> None:
    for source in sources(architecture, dtype):
        inputs = inputs_for(source, dtype)
        context = {"context": {}} if source.architecture.reads_context else {}
        for plan in plans_for("zero-pad", source):
            width, wanted = (int(spec.inputs[0].axes[-1]) for spec in (source.signature, plan.signature))
            grown, _ = grown_by("zero-pad", source, plan.after)
            assert isinstance(inputs, Tensor)
            noise = torch.randn(*inputs.shape[:-1], wanted - width, generator=stream(9), dtype=dtype)
            with torch.inference_mode():
                before = source.module_for(dtype)(inputs, **context)
                for dead in (noise, *(torch.full_like(noise, fill) for fill in EXTREME)):
                    assert torch.equal(grown.module_for(dtype)(torch.cat((inputs, dead), -1), **context), before)


@pytest.mark.parametrize("fill", [1e30, math.nan, math.inf])
def test_the_dead_bits_of_a_pruned_network_stay_dead_when_it_grows(fill: float) -> None:
    source = parity(n=40, hidden=8, live=(3, 17, 38))
    grown, _ = grown_by("zero-pad", source, {"n": 100, "hidden": 20})
    rows = torch.randint(0, 2, (1_000, 100), generator=stream(1)).float()
    filled = torch.full_like(rows, fill)
    live = torch.tensor([3, 17, 38])
    filled[:, live] = rows[:, live]
    with torch.inference_mode():
        assert torch.equal(grown.module(filled), source.module(rows[:, :40]))
    assert list(grown.architecture.live_columns(grown.manifest.architecture.config, grown.tensors) or ()) == [3, 17, 38]


def test_the_dense_form_does_not_promise_that_and_nan_shows() -> None:
    source = parity(n=10, hidden=8)
    grown, _ = grown_by("zero-pad", source, {"n": 14}, dense=True)
    rows = torch.zeros(3, 14)
    rows[:, 12] = math.nan
    with torch.inference_mode():
        assert grown.module(rows).isnan().all()


@pytest.mark.parametrize("live", [(0, 1, 2), (3, 17, 38), (0, 20, 39), (37, 38, 39)])
@pytest.mark.parametrize("dense", [False, True], ids=["implicit", "dense"])
def test_live_bits_may_stand_anywhere(live: tuple[int, ...], dense: bool) -> None:
    source = parity(seed=5, n=40, hidden=8, live=live)
    grown, _ = grown_by("zero-pad", source, {"n": 71, "hidden": 13}, dense=dense)
    rows = torch.randint(0, 2, (1_000, 40), generator=stream(2), dtype=torch.uint8)
    noise = torch.randint(0, 2, (1_000, 31), generator=stream(3), dtype=torch.uint8)
    before, after = source(rows), grown(torch.cat((rows, noise), 1))
    assert float((after - before).abs().max()) <= (DENSE[torch.float32] if dense else 0.0)
    assert torch.equal(after.argmax(1), before.argmax(1))
    read = grown.architecture.live_columns(grown.manifest.architecture.config, grown.tensors)
    assert tuple(read or ()) == live


# -- widen -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [7, 8, 12, 14, 15, 20, 50])
def test_units_are_copied_evenly_and_copies_share_what_a_unit_passed_on(width: int) -> None:
    source = parity(n=5, hidden=7, dtype=torch.float64)
    grown, _ = grown_by("widen", source, {"hidden": width})
    copies = [sum(unit % 7 == old for unit in range(width)) for old in range(7)]
    assert max(copies) - min(copies) <= 1
    old, new = source.tensors, grown.tensors
    for unit in range(width):
        kept = unit % 7
        assert torch.equal(new["first.weight"][unit], old["first.weight"][kept])
        assert torch.equal(new["first.bias"][unit], old["first.bias"][kept])
        assert torch.equal(new["last.weight"][:, unit], old["last.weight"][:, kept] / copies[kept])
        for other in range(width):
            assert new["second.weight"][unit, other] == old["second.weight"][kept, other % 7] / copies[other % 7]


def test_inputs_do_not_widen() -> None:
    with pytest.raises(Incompatible, match="hidden"):
        host().operator("widen").plan(parity(n=5, hidden=7).manifest, {"n": 10})


def test_widened_units_can_learn_and_padded_ones_cannot() -> None:
    source = parity(n=6, hidden=5)
    for operator, learns in (("zero-pad", False), ("widen", True)):
        options = {} if learns else {"dense": True}
        grown, _ = grown_by(operator, source, {"hidden": 9}, **options)
        module = copy.deepcopy(grown.module).requires_grad_(True)
        rows = torch.randint(0, 2, (64, 6), generator=stream(4)).float()
        nn.functional.cross_entropy(module(rows), rows.sum(1).long() % 2).backward()
        gradient = module.get_parameter("first.weight").grad
        assert gradient is not None
        assert bool(gradient[5:].any()) == learns


# -- what does not keep the function must fail the law -----------------------------------------------------------------


def violates(source: Cassette, tensors: Mapping[str, Tensor], plan: TransferPlan, config: Mapping[str, Any]) -> bool:
    """Whether a network made by hand breaks the law that the plan's operator keeps."""
    reference = ArchitectureRef(plan.architecture.id, plan.architecture.version, config)
    manifest = source.manifest.replace(architecture=reference, inputs=plan.signature.inputs)
    wrong = Cassette(manifest, tensors, plugins=source.plugins)
    rows = source.task.sample(1_000, generator=stream(7)).inputs
    return apart(source, wrong, plan, rows) > max(allowed(plan, torch.float32), DENSE[torch.float32])


@pytest.fixture
def base() -> Cassette:
    return shipped(MLP)[0]


def dense_copy(base: Cassette, to: Sizes) -> tuple[dict[str, Tensor], TransferPlan, dict[str, Any]]:
    grown, plan = grown_by("zero-pad", base, to, dense=True)
    return dict(grown.tensors), plan, dict(plan.architecture.config)


def test_the_law_admits_what_it_should(base: Cassette) -> None:
    tensors, plan, config = dense_copy(base, {"n": 128, "hidden": 256})
    assert not violates(base, tensors, plan, config)


def test_noise_of_a_thousandth_in_the_zero_blocks_breaks_the_law(base: Cassette) -> None:
    tensors, plan, config = dense_copy(base, {"n": 128, "hidden": 256})
    generator = stream(1, "noise")
    noisy = {
        name: torch.where(tensor == 0, 1e-3 * torch.randn(tensor.shape, generator=generator), tensor)
        for name, tensor in tensors.items()
    }
    assert violates(base, noisy, plan, config)


def test_live_bits_shifted_by_one_break_the_law(base: Cassette) -> None:
    grown, plan = grown_by("zero-pad", base, {"n": 128})
    config = copy.deepcopy(plan.architecture.config["base"])
    moved = {**config, "config": {**config["config"], "live": [bit + 1 for bit in config["config"]["live"]]}}
    assert not violates(base, grown.tensors, plan, plan.architecture.config)
    assert violates(base, grown.tensors, plan, {**plan.architecture.config, "base": moved})


def test_copies_that_do_not_share_break_the_law(base: Cassette) -> None:
    grown, plan = grown_by("widen", base, {"hidden": 256})
    assert not violates(base, grown.tensors, plan, plan.architecture.config)
    for name in ("second.weight", "last.weight"):
        whole = {**grown.tensors, name: grown.tensors[name] * 2}
        assert violates(base, whole, plan, plan.architecture.config)


def test_other_weights_break_the_law(base: Cassette) -> None:
    other, plan = grown_by("zero-pad", parity(seed=9, **base.manifest.architecture.config), {"n": 128})
    assert violates(base, other.tensors, plan, plan.architecture.config)


def growing(
    layers: Sequence[Layer], tensors: Mapping[str, Tensor], new: int, seed: int, kind: str
) -> dict[str, Tensor]:
    """The published growth of a network of three layers by `new` hidden units: neither keeps the function.

    `correlated` is the replica of the kepler network (angle and distance "preserved"), `null-space` the surgery of the
    pendulum network. Both leave the new output columns random (PyTorch's default, 1 / sqrt(fan-in)).
    """
    generator = stream(seed, kind)
    names = [layer.weight for layer in layers]
    first, second, last = (tensors[name] for name in names)
    old = len(first)
    source = torch.arange(new) % old

    def orthogonal(size: int) -> Tensor:
        return torch.linalg.qr(torch.randn(size, size, generator=generator)).Q

    grown = dict(tensors)
    share = (torch.arange(new) / new).unsqueeze(1)
    if kind == "correlated":
        rows = (0.8 + 0.2 * share) * first[source]
        cross = 0.3 * second[:, source], 0.3 * second[source]
        diagonal = 0.1 * torch.eye(new)
        bias = (0.9 + 0.1 * share[:, 0]) * tensors[layers[0].bias or ""][source], 0.01 * torch.arange(new)
    else:
        rows = 0.01 * orthogonal(new) @ first[source]
        cross = 0.1 * orthogonal(max(old, new))[:old, :new], 0.1 * orthogonal(max(old, new))[:new, :old]
        diagonal = 0.01 * torch.eye(new)
        bias = 0.01 * torch.randn(new, generator=generator), 0.01 * torch.randn(new, generator=generator)
    grown[names[0]] = torch.cat((first, rows))
    grown[names[1]] = torch.cat((torch.cat((second, cross[0]), 1), torch.cat((cross[1], diagonal), 1)))
    columns = (2 * torch.rand(len(last), new, generator=generator) - 1) / math.sqrt(old + new)
    grown[names[2]] = torch.cat((last, columns), 1)
    for layer, extra in zip(layers, bias, strict=False):
        grown[layer.bias or ""] = torch.cat((tensors[layer.bias or ""], extra))
    return grown


class _Published(Widen):
    """A published operator under the plan, and the promise, of `widen`."""

    kind = ""

    def apply(self, source: Cassette, plan: TransferPlan) -> Mapping[str, Tensor]:
        """Base blocks and the published new ones."""
        architecture, config = self.architecture_of(source.manifest)
        layers = architecture.layers(config) or ()
        (hidden,) = (name for name in plan.after if plan.after[name] != plan.before[name])
        return growing(layers, source.tensors, plan.after[hidden] - plan.before[hidden], 0, self.kind)


class CorrelatedReplica(_Published):
    """Of the published kepler network."""

    kind = "correlated"


class NullSpaceSurgery(_Published):
    """Of the published pendulum network."""

    kind = "null-space"


PUBLISHED = ("correlated-replica", "null-space-surgery")


@pytest.fixture
def published(extended: Callable[..., PluginHost]) -> PluginHost:
    """A host with the two published operators that do not keep the function."""
    specs = [
        TransferSpec(f"grokkit_probe/{name}", target=f"grokkit_probe:{kind.__name__}", guarantee="to rounding")
        for name, kind in zip(PUBLISHED, (CorrelatedReplica, NullSpaceSurgery), strict=True)
    ]
    return extended(*specs, CorrelatedReplica=CorrelatedReplica, NullSpaceSurgery=NullSpaceSurgery)


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("architecture", [MLP, "grokkit_cyclotron/two-state-mlp"])
def test_the_published_operators_break_the_law(published: PluginHost, name: str, architecture: str) -> None:
    rule = published.architecture(architecture)
    task = published.task(laws_of(architecture)[0])
    for seed in range(3):
        source = made(rule, rule.settled({}), task, seed, like_trained=bool(seed), plugins=published)
        (hidden,) = published.operator("widen").plan(source.manifest, same(source)).before
        size = 2 * source.manifest.architecture.config[hidden]
        grown, plan = grown_by(f"grokkit_probe/{name}", source, {hidden: size})
        kept, right = grown_by("widen", source, {hidden: size})
        samples = samples_for(source, torch.float32)
        assert max(apart(source, grown, plan, inputs) for inputs in samples) > 10 * plan.tolerance
        assert max(apart(source, kept, right, inputs) for inputs in samples) <= right.tolerance


def same(source: Cassette) -> dict[str, int]:
    """A size that widens, as it is."""
    return {name: value for name, value in sizes_in(source.manifest.architecture.config) if name in ("hidden", "width")}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_growth_that_changed_the_function_is_not_saved(published: PluginHost, name: str, library: Path) -> None:
    place = Workspace.open(library, plugins=published)
    with pytest.raises(Incompatible, match=r"changed the function.*nothing was saved"):
        grow("parity-3of64", {"hidden": 256}, operator=f"grokkit_probe/{name}", library=place)
    assert not list(library.glob("*/*"))


def test_net2wider_without_its_shares_is_not_saved(extended: Callable[..., PluginHost], library: Path) -> None:
    class Undivided(Widen):
        def apply(self, source: Cassette, plan: TransferPlan) -> Mapping[str, Tensor]:
            architecture, config = self.architecture_of(source.manifest)
            grown = widened(architecture.layers(config) or (), source.tensors, plan.before, plan.after)
            return {**grown, "last.weight": 2 * grown["last.weight"]}

    spec = TransferSpec("grokkit_probe/undivided", target="grokkit_probe:Undivided")
    place = Workspace.open(library, plugins=extended(spec, Undivided=Undivided))
    with pytest.raises(Incompatible, match="changed the function"):
        grow("parity-3of64", {"hidden": 256}, operator="grokkit_probe/undivided", library=place)
    assert not list(library.glob("*/*"))


# -- regrid ------------------------------------------------------------------------------------------------------------

FIELD = TensorSpec("field", ("batch", "grid"), ("float32", "float64"))


class Convolution(nn.Module):
    """A periodic convolution: each of the lowest modes of a field is multiplied by a weight of its own."""

    def __init__(self, modes: int) -> None:
        super().__init__()
        self.multipliers = nn.Parameter(torch.randn(modes, 2))

    def forward(self, field: Tensor) -> Tensor:
        """The filtered field "batch grid"."""
        spectrum = torch.fft.rfft(field)
        kept = min(len(self.multipliers), spectrum.shape[-1])
        factors = torch.view_as_complex(self.multipliers)[:kept]
        filtered = torch.cat((spectrum[..., :kept] * factors, torch.zeros_like(spectrum[..., kept:])), -1)
        return torch.fft.irfft(filtered, n=field.shape[-1])


class ConvolutionArchitecture(Architecture):
    """Config: `grid`, which no tensor depends on, and `modes`."""

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        return Convolution(config["modes"])

    def check(self, config: Mapping[str, Any]) -> None:
        if config["grid"] < 2 * config["modes"]:
            raise UsageError(f"grid = {config['grid']}", expected="two points for each mode")

    def signature(self, config: Mapping[str, Any]) -> Signature:
        field = TensorSpec("field", ("batch", int(config["grid"])), FIELD.dtypes)
        return Signature([field], [TensorSpec("filtered", field.axes, FIELD.dtypes)])

    def grids(self, config: Mapping[str, Any]) -> Sequence[str]:
        return ("grid",)


class Filtering(Task):
    """Fields of a few modes on a grid; the law leaves them as they are."""

    def sample(self, n: int, *, generator: torch.Generator, **where: Any) -> Batch:
        field = band_limited(n, int(self.parameters["grid"]), 3, generator)
        return Batch(field, field)

    def oracle(self, inputs: Inputs, context: Mapping[str, Tensor]) -> Tensor:
        return tensors_of(inputs)[0].double()


def band_limited(n: int, grid: int, modes: int, generator: torch.Generator) -> Tensor:
    """Random periodic fields "n grid" of the modes 0 to `modes`, float64."""
    angle = 2 * math.pi * torch.arange(grid, dtype=torch.float64) / grid
    factors = torch.randn(2, n, modes + 1, generator=generator, dtype=torch.float64)
    waves = torch.arange(modes + 1).unsqueeze(1) * angle
    return factors[0] @ waves.cos() + factors[1] @ waves.sin()


@pytest.fixture
def filtering(extended: Callable[..., PluginHost]) -> PluginHost:
    """A host with a task on a periodic grid and a network that convolves."""
    grid = Field("grid", "int", 16, low=2, high=4_096)
    return extended(
        TaskSpec(
            "filtering",
            Signature([FIELD], [TensorSpec("filtered", FIELD.axes, FIELD.dtypes)]),
            target="grokkit_probe:Filtering",
            parameters=[grid],
        ),
        ArchitectureSpec(
            "grokkit_probe/convolution",
            version=1,
            target="grokkit_probe:ConvolutionArchitecture",
            config=[grid, Field("modes", "int", 6, low=1, high=64)],
        ),
        Filtering=Filtering,
        ConvolutionArchitecture=ConvolutionArchitecture,
    )


def convolution(plugins: PluginHost, grid: int = 16, modes: int = 6) -> Cassette:
    rule = plugins.architecture("grokkit_probe/convolution")
    config = rule.settled({"grid": grid, "modes": modes})
    return made(rule, config, plugins.task("filtering", grid=grid), 3, torch.float64, plugins=plugins)


@pytest.mark.parametrize(("coarse", "fine"), [(16, 16), (16, 17), (16, 32), (17, 18), (17, 40), (16, 33), (17, 51)])
def test_what_the_coarse_grid_resolves_is_kept_on_a_finer_one(filtering: PluginHost, coarse: int, fine: int) -> None:
    source = convolution(filtering, coarse)
    grown, plan = grown_by("regrid", source, {"grid": fine})
    assert plan.tolerance == math.inf
    assert grown.manifest.inputs[0].axes == ("batch", fine)
    assert grown.manifest.task.parameters["grid"] == fine
    assert all(torch.equal(tensor, source.tensors[name]) for name, tensor in grown.tensors.items())
    resolved = band_limited(50, coarse, (coarse - 1) // 2, stream(1))
    assert apart(source, grown, plan, resolved) <= DOUBLE
    assert apart(source, grown, plan, resolved.float()) <= ROUNDING


def test_what_lies_beyond_the_coarse_grid_is_not_kept(filtering: PluginHost) -> None:
    source = convolution(filtering, 16)
    grown, _ = grown_by("regrid", source, {"grid": 32})
    fine = band_limited(50, 32, 15, stream(1))
    beyond = grown.predict(fine)
    assert float((resampled(beyond, {1: 16}) - source.predict(fine[:, ::2].contiguous())).abs().max()) > 1e-2
    within = band_limited(50, 32, 7, stream(1))
    found = resampled(grown.predict(within), {1: 16}) - source.predict(within[:, ::2].contiguous())
    assert float(found.abs().max()) <= 1e-11


def test_a_grid_grows_through_the_verb_and_its_certificate_is_made_anew(filtering: PluginHost, library: Path) -> None:
    place = Workspace.open(library, plugins=filtering)
    convolution(filtering).save(place)
    made = grow("random", {"grid": 48}, library=place)
    assert made.plan.operator == "regrid"
    assert made.max_abs_difference <= ROUNDING
    assert made.cassette.manifest.inputs[0].axes == ("batch", 48)
    assert gk.verify("random-regrid", library=place).agrees


def test_a_grid_that_the_architecture_refuses_and_a_coarser_one_are_refused(filtering: PluginHost) -> None:
    source = convolution(filtering)
    for size in (8, 15, 5_000):
        with pytest.raises(Incompatible):
            filtering.operator("regrid").plan(source.manifest, {"grid": size})
    for name in ("zero-pad", "widen"):
        with pytest.raises(Incompatible):
            filtering.operator(name).plan(source.manifest, {"grid": 32})


@pytest.mark.parametrize("kind", [torch.float64, torch.complex128], ids=["real", "complex"])
@pytest.mark.parametrize("old", [1, 2, 3, 4, 7, 8, 15, 16])
def test_refining_and_coarsening_again_gives_the_field_back(old: int, kind: torch.dtype) -> None:
    field = torch.randn(5, old, 3, generator=stream(old), dtype=kind)
    for new in (old, old + 1, old + 2, 2 * old, 2 * old + 1, 3 * old + 2):
        fine = resampled(field, {1: new})
        assert fine.shape == (5, new, 3)
        assert fine.dtype == kind
        assert float((resampled(fine, {1: old}) - field).abs().max()) <= 1e-13
        assert float((fine.mean(1) - field.mean(1)).abs().max()) <= 1e-13


@pytest.mark.parametrize(("old", "factor"), [(4, 2), (5, 3), (7, 2), (8, 3)])
def test_a_refined_field_passes_through_the_values_it_had(old: int, factor: int) -> None:
    for kind in (torch.float64, torch.complex128):
        field = torch.randn(5, old, generator=stream(old), dtype=kind)
        assert float((resampled(field, {1: factor * old})[:, ::factor] - field).abs().max()) <= 1e-13


@pytest.mark.parametrize("new", [8, 9, 12, 13, 31])
def test_resampling_is_the_trigonometric_interpolation_of_the_textbook(new: int) -> None:
    exact = [band_limited(4, grid, 3, stream(2)) for grid in (8, new)]
    assert float((resampled(exact[0], {1: new}) - exact[1]).abs().max()) <= 1e-13


def test_several_axes_are_resampled_one_after_the_other() -> None:
    field = torch.randn(2, 6, 9, generator=stream(1), dtype=torch.complex128)
    both = resampled(field, {1: 11, 2: 16})
    assert torch.allclose(both, resampled(resampled(field, {2: 16}), {1: 11}), atol=1e-14)
    assert torch.allclose(resampled(both, {1: 6, 2: 9}), field, atol=1e-13)


# -- files, certificates and tampering ---------------------------------------------------------------------------------


def footprint(cassette: Cassette, library: Path) -> int:
    """Bytes of all files of a saved version."""
    folder = library / cassette.manifest.name / str(cassette.manifest.version)
    return sum(path.stat().st_size for path in folder.iterdir())


@pytest.mark.parametrize("name", ["parity-3of64", "parity-3of64-grokked"])
@pytest.mark.parametrize("to", [{"n": 128, "hidden": 2_048}, {"n": 10**6, "hidden": 2**24}], ids=["128", "million"])
def test_a_grown_file_is_hardly_larger_than_its_base(name: str, to: Sizes, library: Path, few_samples: None) -> None:
    made = grow(name, to, library=library)
    source = gk.load(name).save(library)
    assert made.max_abs_difference == 0.0
    assert made.cassette.manifest.weights.bytes <= source.manifest.weights.bytes + KEPT
    assert footprint(made.cassette, library) <= footprint(source, library) + KEPT
    assert made.cassette.manifest.certificate.verdict == "exact"
    assert gk.verify(made.cassette.manifest.ref, library=library).reasons == ()


@pytest.fixture
def family(few_samples: None, library: Path) -> tuple[Cassette, Cassette]:
    """A parent of no plugin's and what was grown from it, both in the library."""
    parent = gk.load("parity-3of64").with_extra({"own": 1}).save(library)
    return parent, grow(
        str(library / "parity-3of64" / str(parent.manifest.version)), {"n": 80}, name="child", library=library
    ).cassette


def test_provenance_of_a_growth_names_parent_sizes_and_guarantee(family: tuple[Cassette, Cassette]) -> None:
    parent, child = family
    record = child.manifest.provenance.operator
    assert record is not None
    assert child.manifest.provenance.kind == "grown"
    assert child.manifest.provenance.parents == (
        Parent(parent.manifest.name, parent.manifest.version, parent.manifest.digest),
    )
    assert (record["id"], record["before"]["n"], record["after"]["n"]) == ("zero-pad", 64, 80)
    assert "bit-exact" in record["guarantee"]
    assert child.manifest.extra["preservation"]["max_abs_difference"] == 0.0


def test_growth_is_rechecked_against_the_parent_where_it_is_found(
    family: tuple[Cassette, Cassette], library: Path
) -> None:
    found = gk.verify("child", library=library)
    assert (found.reasons, found.notes) == ((), ())


def test_without_its_parent_a_grown_cassette_is_verified_and_the_gap_is_said(
    family: tuple[Cassette, Cassette], library: Path
) -> None:
    gk.remove(family[0].manifest.ref, library=library)
    found = gk.verify("child", library=library)
    assert found.agrees
    assert len(found.notes) == 1
    assert "not rechecked" in found.notes[0]


@pytest.mark.parametrize("factor", [1.0005, -1.0])
def test_a_tampered_grown_cassette_is_caught_by_its_parent(
    family: tuple[Cassette, Cassette], library: Path, reissue: Callable[..., str], factor: float
) -> None:
    name = "base.last.weight"
    ref = reissue(family[1], tensors={**family[1].tensors, name: family[1].tensors[name] * factor})
    found = gk.verify(ref, library=library)
    assert any("differs from its parent" in reason for reason in found.reasons)


def test_a_growth_that_names_another_parent_is_caught(
    family: tuple[Cassette, Cassette], library: Path, reissue: Callable[..., str]
) -> None:
    other = gk.show("parity-3of64-grokked").parent()
    provenance = family[1].manifest.provenance
    assert not gk.verify(reissue(family[1], provenance=replace(provenance, parents=(other,))), library=library).agrees
    assert not gk.verify(reissue(family[1], provenance=replace(provenance, parents=())), library=library).agrees


@pytest.mark.parametrize(
    "record",
    [
        None,
        {},
        {"id": "zero-pad"},
        {"id": "no-such", "after": {"n": 80}, "settings": {}},
        {"id": "zero-pad", "after": {"n": "80"}, "settings": {}},
        {"id": "zero-pad", "after": {"n": 70}, "settings": {}},
        {"id": "zero-pad", "after": [1], "settings": {}},
        {"id": "zero-pad", "after": {"n": 80}, "settings": 3},
        {"id": "zero-pad", "after": {"n": 80}, "settings": {"source": 1}},
        {"id": ["zero-pad"], "after": None, "settings": None},
        {"id": "widen", "after": {"hidden": 128}, "settings": {}},
    ],
    ids=str,
)
def test_a_record_of_growth_that_makes_no_sense_does_not_agree(
    family: tuple[Cassette, Cassette], library: Path, reissue: Callable[..., str], record: Any
) -> None:
    provenance = replace(family[1].manifest.provenance, operator=record)
    assert not gk.verify(reissue(family[1], provenance=provenance), library=library).agrees


# -- hostile manifests -------------------------------------------------------------------------------------------------

INNER: Mapping[str, Any] = {"n": 64, "hidden": 128, "depth": 2, "readout": "logits", "live": [50, 58, 62]}
BASE: Mapping[str, Any] = {"architecture": MLP, "version": 1, "config": INNER}
SIZES: Mapping[str, Any] = {"n": 80, "hidden": 128}

HOSTILE: Mapping[str, Any] = {
    "nothing": {},
    "no-base": {"sizes": SIZES},
    "no-sizes": {"base": BASE},
    "extra-key": {"base": BASE, "sizes": SIZES, "more": 1},
    "base-null": {"base": None, "sizes": SIZES},
    "base-list": {"base": [BASE], "sizes": SIZES},
    "base-text": {"base": MLP, "sizes": SIZES},
    "base-extra-key": {"base": {**BASE, "more": 1}, "sizes": SIZES},
    "base-without-config": {"base": {"architecture": MLP, "version": 1}, "sizes": SIZES},
    "base-without-version": {"base": {"architecture": MLP, "config": INNER}, "sizes": SIZES},
    "base-unknown": {"base": {**BASE, "architecture": "grokkit_parity/none"}, "sizes": SIZES},
    "base-nonsense": {"base": {**BASE, "architecture": "../../etc/passwd"}, "sizes": SIZES},
    "base-number": {"base": {**BASE, "architecture": 5}, "sizes": SIZES},
    "base-embedded": {
        "base": {"architecture": EMBEDDED, "version": 1, "config": {"base": BASE, "sizes": SIZES}},
        "sizes": SIZES,
    },
    "base-embedded-spelt-otherwise": {
        "base": {"architecture": "embedded", "version": 1, "config": {"base": BASE, "sizes": SIZES}},
        "sizes": {},
    },
    "base-ensemble": {"base": {"architecture": "grokkit_core/ensemble", "version": 1, "config": {}}, "sizes": {}},
    "base-that-does-not-grow": {
        "base": {"architecture": "grokkit_cyclotron/rotor", "version": 1, "config": {}},
        "sizes": {},
    },
    "base-version-2": {"base": {**BASE, "version": 2}, "sizes": SIZES},
    "base-version-text": {"base": {**BASE, "version": "1"}, "sizes": SIZES},
    "base-version-true": {"base": {**BASE, "version": True}, "sizes": SIZES},
    "base-version-0": {"base": {**BASE, "version": 0}, "sizes": SIZES},
    "inner-list": {"base": {**BASE, "config": [1]}, "sizes": SIZES},
    "inner-null": {"base": {**BASE, "config": None}, "sizes": SIZES},
    "inner-extra-key": {"base": {**BASE, "config": {**INNER, "more": 1}}, "sizes": SIZES},
    "inner-text": {"base": {**BASE, "config": {**INNER, "n": "64"}}, "sizes": SIZES},
    "inner-huge": {"base": {**BASE, "config": {**INNER, "n": 2**40}}, "sizes": SIZES},
    "inner-live-unsorted": {"base": {**BASE, "config": {**INNER, "live": [58, 50, 62]}}, "sizes": SIZES},
    "inner-live-twice": {"base": {**BASE, "config": {**INNER, "live": [50, 50, 62]}}, "sizes": SIZES},
    "inner-live-beyond": {"base": {**BASE, "config": {**INNER, "live": [50, 58, 64]}}, "sizes": SIZES},
    "inner-live-text": {"base": {**BASE, "config": {**INNER, "live": "abc"}}, "sizes": SIZES},
    "sizes-null": {"base": BASE, "sizes": None},
    "sizes-list": {"base": BASE, "sizes": [80, 128]},
    "sizes-pairs": {"base": BASE, "sizes": [["n", 80], ["hidden", 128]]},
    "sizes-number": {"base": BASE, "sizes": 80},
    "sizes-text": {"base": BASE, "sizes": "n"},
    "sizes-empty": {"base": BASE, "sizes": {}},
    "sizes-lacking": {"base": BASE, "sizes": {"n": 80}},
    "sizes-extra": {"base": BASE, "sizes": {**SIZES, "depth": 2}},
    "sizes-below": {"base": BASE, "sizes": {**SIZES, "n": 63}},
    "sizes-hidden-below": {"base": BASE, "sizes": {**SIZES, "hidden": 127}},
    "sizes-negative": {"base": BASE, "sizes": {**SIZES, "n": -80}},
    "sizes-zero": {"base": BASE, "sizes": {**SIZES, "n": 0}},
    "size-text": {"base": BASE, "sizes": {**SIZES, "n": "80"}},
    "size-float": {"base": BASE, "sizes": {**SIZES, "n": 80.0}},
    "size-true": {"base": BASE, "sizes": {**SIZES, "n": True}},
    "size-null": {"base": BASE, "sizes": {**SIZES, "n": None}},
    "size-list": {"base": BASE, "sizes": {**SIZES, "n": [80]}},
    "size-overflow": {"base": BASE, "sizes": {**SIZES, "n": 2**31}},
    "size-largest-that-json-holds": {"base": BASE, "sizes": {**SIZES, "n": 2**53 - 1}},
    "another-width": {"base": BASE, "sizes": {**SIZES, "n": 81}},
}


@functools.cache
def eighty() -> Cassette:
    """The shipped network grown to 80 bits, neither certified nor saved."""
    return grown_by("zero-pad", shipped(MLP)[0], {"n": 80})[0]


def hostile(config: Any) -> Manifest:
    """The manifest of a grown cassette with this config."""
    return eighty().manifest.replace(architecture=ArchitectureRef(EMBEDDED, 1, config))


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_config_of_a_grown_cassette_is_refused(case: str) -> None:
    with pytest.raises(GrokkitError) as caught:
        from_stored(hostile(HOSTILE[case]), packing.pack(eighty().tensors), plugins=host())
    assert caught.value.exit_code in (3, 4, 5)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("case", [case for case in HOSTILE if case != "another-width"])
def test_a_growth_is_not_planned_from_a_hostile_config_either(case: str, library: Path) -> None:
    source = Cassette(hostile(HOSTILE[case]), eighty().tensors)
    for operator in (None, *OPERATORS):
        with pytest.raises(GrokkitError) as caught:
            plan_growth(source, {"n": 200}, operator=operator, library=library)
        assert caught.value.exit_code in (3, 4, 5)


def test_a_hostile_cassette_in_a_library_is_refused_by_every_verb(
    library: Path, reissue: Callable[..., str], cli: Callable[..., Any]
) -> None:
    for case in ("sizes-list", "sizes-below", "base-embedded", "inner-live-unsorted", "no-base"):
        ref = reissue(eighty(), architecture=ArchitectureRef(EMBEDDED, 1, HOSTILE[case]))
        for words in (["verify", ref], ["grow", ref, "--to", "n=200"], ["grow", ref, "--to", "n=200", "--dry-run"]):
            done = cli(*words, "--library", library)
            assert done.code == 3, (case, done.err)
            assert done.err.startswith("grokkit: ")
            assert "internal error" not in done.err


def test_the_config_that_the_hostile_ones_were_made_from_is_right(library: Path) -> None:
    manifest = hostile({"base": BASE, "sizes": SIZES})
    assert from_stored(manifest, packing.pack(eighty().tensors), plugins=host()).dtype == torch.float32
    planned = plan_growth(Cassette(manifest, eighty().tensors), {"n": 200}, library=library)
    assert planned.after == {"n": 200, "hidden": 128}


def test_nothing_of_the_size_of_an_embedding_is_allocated_when_it_is_built() -> None:
    source = shipped(MLP)[0]
    config = {"base": BASE, "sizes": {"n": 2**31 - 1, "hidden": 2**31 - 1}}
    tensors = {f"base.{name}": tensor for name, tensor in source.tensors.items()}
    module = build_module(host().architecture(EMBEDDED), config, tensors)
    assert sum(tensor.numel() for tensor in module.state_dict().values()) == source.manifest.weights.parameters


# -- bad targets -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("to", "options", "kind", "says"),
    [
        ({}, {}, UsageError, "no new size"),
        ({"n": 32}, {}, Incompatible, "below the 64"),
        ({"n": 63, "hidden": 4_096}, {}, Incompatible, "below the 64"),
        ({"n": -1}, {}, Incompatible, "below"),
        ({"n": 2**31}, {}, Incompatible, "2147483648"),
        ({"n": 10**30}, {}, Incompatible, "at|from"),
        ({"n": 10**400}, {}, GrokkitError, "n"),
        ({"n": 80.0}, {}, UsageError, "whole number"),
        ({"n": "80"}, {}, UsageError, "whole number"),
        ({"n": True}, {}, UsageError, "whole number"),
        ({"n": None}, {}, UsageError, "whole number"),
        ({"widht": 80}, {}, Incompatible, "no size"),
        ({"n": 10**6, "hidden": 2**24}, {"dense": True}, Incompatible, "dense form"),
        ({"n": 80}, {"operator": "widen"}, Incompatible, "zero-pad"),
        ({"n": 80}, {"operator": "regrid"}, Incompatible, "these operators apply: zero-pad"),
        ({"hidden": 256}, {"operator": "regrid"}, Incompatible, "widen, zero-pad"),
        ({"hidden": 256}, {"operator": "widen", "dense": True}, UsageError, "--dense"),
        ({"n": 80}, {"operator": "no-such"}, GrokkitError, "no-such"),
        ({"n": 80}, {"name": "Not a name"}, UsageError, "name"),
        ({"n": 80}, {"device": "tpu"}, UsageError, "tpu"),
        ({"n": 80}, {"dtype": "float16"}, Incompatible, "float16"),
    ],
    ids=str,
)
def test_a_bad_target_is_refused_with_the_reason_and_nothing_is_saved(
    to: Any, options: Any, kind: type[GrokkitError], says: str, library: Path
) -> None:
    with pytest.raises(kind, match=says):
        grow("parity-3of64", to, library=library, **options)
    assert not list(library.glob("*/*"))


def test_padding_a_network_that_gathers_needs_no_column_of_its_own() -> None:
    """`padded` puts gathered columns where they belong."""
    source = parity(n=6, hidden=4, live=(1, 5))
    layers = source.architecture.layers(source.manifest.architecture.config) or ()
    first = padded(layers, source.tensors, {"n": 9, "hidden": 4})["first.weight"]
    assert first.shape == (4, 9)
    assert torch.equal(first[:, [1, 5]], source.tensors["first.weight"])
    assert int(torch.count_nonzero(first[:, [0, 2, 3, 4, 6, 7, 8]])) == 0
