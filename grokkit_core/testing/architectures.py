"""Laws of architectures: configs are checked, networks are pure functions of their file, and samples do not mix."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from grokkit_core.architecture import Architecture
from grokkit_core.building import build_module
from grokkit_core.cassette import Cassette, load
from grokkit_core.dtypes import cast, is_inexact, real_dtype
from grokkit_core.errors import Incompatible, UsageError
from grokkit_core.records import to_json
from grokkit_core.specs import ArchitectureSpec
from grokkit_core.streams import stream
from grokkit_core.strictjson import canonical
from grokkit_core.task import Batch, map_tensors, tensors_of
from grokkit_core.testing.draws import COUNTS, SEEDS, admitted, bad_settings, for_all
from grokkit_core.testing.laws import Laws, applies, require
from grokkit_core.testing.workbench import (
    Workbench,
    answer,
    apart,
    copied,
    dtypes_of,
    equal_inputs,
    global_state,
    same_bits,
)

LAWS = Laws("architecture")

ROUNDING = {torch.float32: 1e-4, torch.float64: 1e-10}
"""What sums in another order may differ by, of outputs of order one, in deep networks with large weights."""


def settled_of(cassette: Cassette) -> tuple[Architecture, dict[str, Any]]:
    """The architecture of a network and its config with defaults."""
    architecture = cassette.architecture
    return architecture, architecture.settled(cassette.manifest.architecture.config)


def meta_state(architecture: Architecture, config: Mapping[str, Any]) -> dict[str, tuple[list[int], torch.dtype]]:
    """Shapes and dtypes of a network by tensor name, from the meta device."""
    with torch.device("meta"):
        state = architecture.build(config).state_dict()
    return {name: (list(tensor.shape), tensor.dtype) for name, tensor in state.items()}


def rounding(tensor: Tensor) -> float:
    """The tolerance for outputs of this dtype."""
    return ROUNDING.get(real_dtype(tensor.dtype), 0.0)


@LAWS(
    "config-json",
    "a config that went through JSON builds the same network",
    mend="declare every config field with its type, and accept lists where JSON has no tuples",
)
def _(spec: ArchitectureSpec, bench: Workbench) -> None:
    for cassette in bench.some_network(spec.id):
        architecture, config = settled_of(cassette)
        read = architecture.settled(json.loads(canonical(to_json(config))))
        same = canonical(to_json(read)) == canonical(to_json(config))
        require(same, f"{config} becomes {read}", "an equal config")
        built, again = meta_state(architecture, config), meta_state(architecture, read)
        require(built == again, f"tensors {built} become {again}", "equal names, shapes and dtypes")


@LAWS(
    "config-refused",
    "config fields of a wrong type, out of range or unknown are refused with a UsageError",
    mend="leave `settled` as it is and declare types and ranges as `Field`s; say the rest in `check`",
)
def _(spec: ArchitectureSpec, bench: Workbench) -> None:
    architecture = bench.plugins.architecture(spec.id)
    networks = bench.networks(spec.id)
    required = dict(networks[0].manifest.architecture.config) if networks else {}

    @for_all(2 * bench.examples, config=bad_settings(spec.config, required))
    def holds(config: dict[str, Any]) -> None:
        try:
            architecture.check(architecture.settled(config))
        except UsageError:
            return
        require(False, f"{config} was accepted", "UsageError")


@LAWS(
    "config-built",
    "every config that types and ranges admit is built, or refused by `check` with a UsageError",
    mend="raise `UsageError` in `check` for combinations that `build` or `signature` cannot serve",
)
def _(spec: ArchitectureSpec, bench: Workbench) -> None:
    drawn = [field for field in spec.config if field.type != "json"]
    applies(len(drawn) == len(spec.config), "its config holds parts that only its own makers can write")
    architecture = bench.plugins.architecture(spec.id)

    @for_all(2 * bench.examples, config=st.fixed_dictionaries({field.name: admitted(field) for field in drawn}))
    def holds(config: dict[str, Any]) -> None:
        settled = architecture.settled(config)
        try:
            architecture.check(settled)
        except UsageError:
            return
        meta_state(architecture, settled)
        found = architecture.signature(settled)
        require(bool(found.inputs and found.outputs), f"the signature of {settled} is empty", "inputs and outputs")


@LAWS(
    "meta",
    "a network built on the meta device has the names, shapes and dtypes of a real one",
    mend="let shapes depend on the config alone; make constants in `build` without reading other tensors' values",
)
def _(spec: ArchitectureSpec, bench: Workbench) -> None:
    for cassette in bench.some_network(spec.id):
        architecture, config = settled_of(cassette)
        with torch.random.fork_rng(devices=[]):
            state = architecture.build(config).state_dict()
        real = {name: (list(tensor.shape), tensor.dtype) for name, tensor in state.items()}
        virtual = meta_state(architecture, config)
        require(virtual == real, f"on the meta device {virtual}, else {real}", "the same")


@LAWS(
    "save-load",
    "a network that was saved and loaded gives the same outputs to the bit",
    mend="keep everything that outputs depend on in the config or in `state_dict()`: parameters and persistent buffers",
)
def _(spec: ArchitectureSpec, bench: Workbench) -> None:
    for cassette in bench.some_network(spec.id):
        with bench.workspace() as place:
            saved = cassette.save(place)
            loaded = load(saved.manifest.ref, library=place)
        equal = all(same_bits(tensor, loaded.tensors[name]) for name, tensor in cassette.tensors.items())
        require(equal and len(loaded.tensors) == len(cassette.tensors), "its tensors differ", "equal tensors")
        batch = bench.batch(cassette, 4)
        first, again = answer(cassette, batch), answer(loaded, batch)
        require(same_bits(first, again), f"outputs differ by {apart(again, first):.3g}", "equal bits")


@LAWS(
    "outputs",
    "outputs have the shape and dtype that the signature promises, for every batch size and listed dtype",
    mend="correct `signature`, or what `forward` returns; compute in the dtype of the inputs",
)
def _(spec: ArchitectureSpec, bench: Workbench) -> None:
    networks = bench.some_network(spec.id)

    @for_all(bench.examples, count=COUNTS, seed=SEEDS)
    def holds(count: int, seed: int) -> None:
        cassette = networks[seed % len(networks)]
        for dtype in dtypes_of(cassette):
            check_outputs(cassette, bench.batch(cassette, count, seed=seed).to(dtype), dtype)


def check_outputs(cassette: Cassette, batch: Batch, dtype: torch.dtype) -> None:
    """Compare rank, sizes and dtype of the answer with the output of the signature."""
    (promised,) = cassette.signature.outputs
    sizes: dict[str, int] = {}
    for given, tensor in zip(cassette.signature.inputs, tensors_of(batch.inputs), strict=True):
        axes = [axis for axis in given.axes if axis != "..."]
        shape = tensor.shape[tensor.ndim - len(axes) :]
        sizes |= {axis: size for axis, size in zip(axes, shape, strict=True) if isinstance(axis, str)}
    sizes["..."] = len(batch)
    wanted = [sizes.get(axis, -1) if isinstance(axis, str) else axis for axis in promised.axes]
    found = answer(cassette, batch)
    fits = len(found.shape) == len(wanted) and all(w in (-1, s) for w, s in zip(wanted, found.shape, strict=True))
    require(fits, f"{len(batch)} samples give {list(found.shape)}", f"{wanted}, that is {promised.shape}")
    kind = str(found.dtype).removeprefix("torch.")
    computed = is_inexact(found) and any(is_inexact(tensor) for tensor in tensors_of(batch.inputs))
    same_precision = not computed or real_dtype(found.dtype) == real_dtype(dtype)
    listed = kind in promised.dtypes and same_precision
    require(listed, f"inputs of {dtype} give {kind}", f"that precision, of {'|'.join(promised.dtypes)}")


@LAWS(
    "rows",
    "the output of a sample does not depend on the others in its batch",
    mend="normalise over the axes of a sample, never over the batch; no batch norm in training mode",
)
def _(spec: ArchitectureSpec, bench: Workbench) -> None:
    networks = bench.some_network(spec.id)

    @for_all(bench.examples, count=st.integers(2, 9), seed=SEEDS)
    def holds(count: int, seed: int) -> None:
        cassette = networks[seed % len(networks)]
        batch = bench.batch(cassette, count, seed=seed)
        together = answer(cassette, batch)
        row = seed % count
        alone = answer(cassette, batch[row : row + 1])
        if not bool(torch.isfinite(alone).all()):  # an untrained network need not stay finite
            return
        difference = apart(alone, together[row : row + 1])
        wanted = rounding(together)
        require(difference <= wanted, f"a sample alone differs by {difference:.3g}", f"at most {wanted:g}")


@LAWS(
    "inputs-kept",
    "inputs are not changed in place",
    mend="use the out-of-place form of every operation on inputs (`add`, not `add_`)",
)
def _(spec: ArchitectureSpec, bench: Workbench) -> None:
    for cassette in bench.some_network(spec.id):
        for dtype in dtypes_of(cassette):
            batch = bench.batch(cassette, 3).to(dtype)
            before = copied(batch.inputs)
            cassette.predict(batch.inputs, batch.context, force=True)
            require(equal_inputs(before, batch.inputs), "inputs were changed", "inputs as they were")


@LAWS(
    "repeats",
    "a network gives the same bits every time and leaves the global random generators alone",
    mend="keep no state in `forward`, and draw nothing there: dropout belongs to training mode",
)
def _(spec: ArchitectureSpec, bench: Workbench) -> None:
    for cassette in bench.some_network(spec.id):
        batch = bench.batch(cassette, 3)
        cassette.module  # noqa: B018  (building may draw initial weights)
        before = global_state()
        first, again = answer(cassette, batch), answer(cassette, batch)
        require(same_bits(first, again), f"two answers differ by {apart(again, first):.3g}", "equal bits")
        require(global_state() == before, "a global generator was used", "none")


@LAWS(
    "layers",
    "declared layers name tensors of the network, shaped as the config fields that they name say",
    mend="let `layers` name the keys of `state_dict()`, `inputs` and `outputs` the fields that give their sizes",
)
def _(spec: ArchitectureSpec, bench: Workbench) -> None:
    declared = False
    for cassette in bench.some_network(spec.id):
        architecture, config = settled_of(cassette)
        shapes = {name: list(tensor.shape) for name, tensor in cassette.tensors.items()}
        for layer in architecture.layers(config) or ():
            declared = True
            for name in filter(None, (layer.weight, layer.bias)):
                require(name in shapes, f"a layer names the tensor '{name}'", f"one of {', '.join(shapes)}")
            rows, columns = shapes[layer.weight][:2]
            wanted_columns = len(layer.live) or (config[layer.inputs] if layer.inputs else columns)
            wanted = [config[layer.outputs] if layer.outputs else rows, wanted_columns]
            require([rows, columns] == wanted, f"'{layer.weight}' is {[rows, columns]}", f"{wanted}, from the config")
            biased = layer.bias is None or shapes[layer.bias] == [rows]
            require(biased, f"'{layer.bias}' is {shapes.get(str(layer.bias))}", f"{[rows]}")
    applies(declared, "it declares no layers")


@LAWS(
    "stacked",
    "stacked networks compute what each network computes alone",
    mend="give every parameter and input of `stacked` a leading seed axis and use `torch.bmm`, or offer none",
)
def _(spec: ArchitectureSpec, bench: Workbench) -> None:
    offered = False
    for cassette in bench.some_network(spec.id):
        architecture, config = settled_of(cassette)
        forward = architecture.stacked(config)
        if forward is None:
            continue
        offered = True
        others = [
            {name: cast(t * scale, cassette.dtype) if is_inexact(t) else t for name, t in cassette.tensors.items()}
            for scale in (1.0, 0.5)
        ]
        batches = [bench.batch(cassette, 3, seed=seed) for seed in (1, 2)]
        inputs = [torch.stack(pair) for pair in zip(*(tensors_of(batch.inputs) for batch in batches), strict=True)]
        parameters = {name: torch.stack([tensors[name] for tensors in others]) for name in cassette.tensors}
        with torch.no_grad():
            together = forward(parameters, *inputs)
            for index, tensors in enumerate(others):
                module = build_module(architecture, config, tensors)
                alone = module(*tensors_of(batches[index].inputs))
                difference = apart(together[index], alone)
                wanted = rounding(alone)
                require(difference <= wanted, f"network {index} differs by {difference:.3g}", f"at most {wanted:g}")
    applies(offered, "it offers no stacked form")


@LAWS(
    "grids",
    "no tensor depends on a config field that only sets a discretisation",
    mend="name in `grids` only fields that no shape and no stored constant follows from",
)
def _(spec: ArchitectureSpec, bench: Workbench) -> None:
    declared = False
    for cassette in bench.some_network(spec.id):
        architecture, config = settled_of(cassette)
        for name in architecture.grids(config):
            declared = True
            require(name in config, f"`grids` names '{name}'", f"one of {', '.join(config)}")
            finer = {**config, name: 2 * config[name] + 1}
            same = meta_state(architecture, finer) == meta_state(architecture, config)
            require(same, f"tensors change with {name}", "the same names, shapes and dtypes")
    applies(declared, "it declares no grids")


@LAWS(
    "live-columns",
    "columns that are declared dead never change the output",
    mend="return None from `live_columns` unless it is provable which columns are read",
)
def _(spec: ArchitectureSpec, bench: Workbench) -> None:
    declared = False
    for cassette in bench.some_network(spec.id):
        architecture, config = settled_of(cassette)
        live = architecture.live_columns(config, cassette.tensors)
        if live is None:
            continue
        declared = True
        batch = bench.batch(cassette, 4)
        (inputs,) = tensors_of(batch.inputs)
        dead = torch.ones(inputs.shape[-1], dtype=torch.bool)
        dead[list(live)] = False
        noise = torch.randint(0, 2, inputs.shape, generator=stream(0, "dead")).to(inputs.dtype)
        changed = Batch(torch.where(dead, noise, inputs), batch.targets, batch.context)
        same = same_bits(answer(cassette, changed), answer(cassette, batch))
        require(same, f"columns other than {list(live)[:8]} change the output", "equal bits")
    applies(declared, "it declares no live columns")


@LAWS(
    "rollout",
    "a rollout of its own gives what repeated application gives",
    mend="yield new tensors, the first after one application; compare with feeding outputs back",
)
def _(spec: ArchitectureSpec, bench: Workbench) -> None:
    offered = False
    for cassette in bench.some_network(spec.id):
        batch = bench.batch(cassette, 2).to(dtypes_of(cassette)[0])
        module = cassette.module_for(real_dtype(dtypes_of(cassette)[0]))
        own = cassette.architecture.rollout(module, tensors_of(batch.inputs), batch.context)
        if own is None:
            continue
        offered = True
        task, inputs = cassette.task, batch.inputs
        with torch.inference_mode():
            for step, found in zip(range(3), own, strict=False):
                outputs = answer(cassette, Batch(inputs, batch.targets, batch.context))
                if not bool(torch.isfinite(outputs).all()):  # an untrained network need not stay finite
                    break
                difference, wanted = apart(found, outputs), rounding(outputs)
                require(difference <= wanted, f"step {step + 1} differs by {difference:.3g}", f"at most {wanted:g}")
                inputs = task.advance(inputs, outputs)
    applies(offered, "it has no rollout of its own")


@LAWS(
    "refusals",
    "inputs that do not fit are refused with Incompatible, and nothing else is raised",
    mend="raise `Incompatible` in `check_inputs` for what the signature admits and the network cannot answer",
)
def _(spec: ArchitectureSpec, bench: Workbench) -> None:
    networks = bench.some_network(spec.id)
    applies(bool(networks[0].signature.inputs), "it answers several tasks by key and has no inputs of its own")

    @for_all(bench.examples, seed=SEEDS, size=st.integers(1, 5))
    def holds(seed: int, size: int) -> None:
        cassette = networks[seed % len(networks)]
        generator, (dtype, *_) = stream(seed, "odd"), dtypes_of(cassette)
        given = {}
        for tensor in cassette.signature.inputs:
            shape = [axis if isinstance(axis, int) else size for axis in tensor.axes]
            given[tensor.name] = torch.randn(shape, generator=generator, dtype=dtype)
        context = {variable.name: 1.0 for variable in cassette.signature.context}
        for inputs in (given, map_tensors(given, lambda tensor: tensor[..., :0])):
            try:
                cassette.predict(inputs, context)
            except Incompatible:
                continue


@LAWS(
    "verbs",
    "every verb that it lists can be called",
    mend="list in `verbs` the names of methods that take a cassette first",
)
def _(spec: ArchitectureSpec, bench: Workbench) -> None:
    architecture = bench.plugins.architecture(spec.id)
    applies(bool(architecture.verbs), "it has no verbs of its own")
    cassette = bench.some_network(spec.id)[0]
    for name in architecture.verbs:
        require(not hasattr(Cassette, name), f"'{name}' is what every cassette has already", "another name")
        try:
            found = architecture.verb(name, cassette)
        except AttributeError as error:
            require(False, str(error), f"a method '{name}'")
        require(callable(found), f"'{name}' is {type(found).__name__}", "a method")
