"""One flat tensor for cassettes of several tasks: equal to the bit, isolated, alive; and what must not pass for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import composites
import pytest
import torch
from composites import BATCHES, FUSIONS, ROWS, assemble, rows, table, untrained
from torch import Tensor

import grokkit_core as gk
from grokkit_core import packing
from grokkit_core.cassette import Cassette
from grokkit_core.errors import BadManifest, BadWeights, GrokkitError
from grokkit_core.task import Batch

Made = Mapping[str, Cassette]
Sampled = Mapping[str, Batch]
NETS = ("parity-3of64", "parity-3of64-grokked", "pendulum-mlp", "kepler", "cyclotron-8node")


def same(found: Tensor, expected: Tensor) -> bool:
    """Equal to the bit; a NaN of an untrained network equals itself."""
    alike = found.dtype == expected.dtype and found.shape == expected.shape
    return alike and found.resolve_conj().numpy().tobytes() == expected.resolve_conj().numpy().tobytes()


def answer(cassette: Cassette, batch: Batch, size: int, key: str | None = None) -> Tensor:
    return cassette.predict(*rows(batch, size), key=key, force=True)


# -- equality ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fusion", FUSIONS)
def test_every_member_answers_as_it_does_alone_to_the_bit(
    fusion: str, fused_all: Made, shipped: Made, sampled_of: Sampled
) -> None:
    for name, alone in shipped.items():
        for size in BATCHES:
            found = answer(fused_all[fusion], sampled_of[name], size, name)
            assert torch.equal(found, answer(alone, sampled_of[name], size)), (name, size)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_so_does_every_untrained_one(fusion: str, shipped: Made, sampled_of: Sampled) -> None:
    raw = {name: untrained(cassette) for name, cassette in shipped.items()}
    made = assemble(fusion, raw.values())
    for name, alone in raw.items():
        for size in BATCHES:
            found = answer(made, sampled_of[name], size, name)
            assert same(found, answer(alone, sampled_of[name], size)), (name, size)


def test_untrained_members_are_other_functions(shipped: Made, sampled_of: Sampled) -> None:
    for name, cassette in shipped.items():
        assert not same(answer(untrained(cassette), sampled_of[name], 3), answer(cassette, sampled_of[name], 3)), name


def test_they_still_do_once_saved_and_read_back(
    atlas: Cassette, shipped: Made, sampled_of: Sampled, library: Path
) -> None:
    atlas.save(library)
    read = gk.load("atlas", library=library)
    assert {name: t.numpy().tobytes() for name, t in read.tensors.items()} == {
        name: t.numpy().tobytes() for name, t in atlas.tensors.items()
    }
    for name, alone in shipped.items():
        assert torch.equal(answer(read, sampled_of[name], 16, name), answer(alone, sampled_of[name], 16))


@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_rollout_by_key_is_that_of_the_member(
    fusion: str, fused_all: Made, shipped: Made, sampled_of: Sampled
) -> None:
    for name in ("pendulum", "kepler", "wave", "cyclotron"):
        inputs, context = rows(sampled_of[name], 3)
        found = list(fused_all[fusion].rollout(inputs, 4, context=context, key=name))
        expected = list(shipped[name].rollout(inputs, 4, context=context))
        assert [torch.equal(a, b) for a, b in zip(found, expected, strict=True)] == [True] * 4


# -- size and layout --------------------------------------------------------------------------------------------------


def test_one_flat_tensor_per_dtype_is_at_most_five_percent_above_the_members_files(
    atlas: Cassette, shipped: Made
) -> None:
    together = sum(cassette.manifest.weights.bytes for cassette in shipped.values())
    assert len(packing.pack(atlas.tensors)) == atlas.manifest.weights.bytes <= 1.05 * together
    assert atlas.manifest.weights.bytes < 2_000_000
    assert all(name == str(tensor.dtype).removeprefix("torch.") for name, tensor in atlas.tensors.items())
    assert all(tensor.ndim == 1 for tensor in atlas.tensors.values())


def test_four_cassettes_stay_below_a_megabyte(shipped: Made) -> None:
    chosen = [shipped[name] for name in ("parity-3of64", "kepler", "pendulum-mlp", "wave")]
    made = assemble("superposition", chosen)
    assert made.manifest.weights.bytes < 1_000_000
    assert made.manifest.weights.bytes <= 1.05 * sum(cassette.manifest.weights.bytes for cassette in chosen)
    assert made.manifest.weights.parameters == sum(cassette.manifest.weights.parameters for cassette in chosen)


def test_the_blocks_cover_the_tensors_without_gap_or_overlap(atlas: Cassette, shipped: Made) -> None:
    ends = dict.fromkeys(atlas.tensors, 0)
    for row in table(atlas):
        own = shipped[row["member"]].tensors[row["layer"]]
        assert row["offset"] == ends[row["dtype"]]
        begin, end = row["offset"], row["offset"] + own.numel()
        assert torch.equal(atlas.tensors[row["dtype"]][begin:end], own.reshape(-1))
        assert row["shape"] == list(own.shape)
        ends[row["dtype"]] = end
    assert ends == {name: len(tensor) for name, tensor in atlas.tensors.items()}


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("gone", [0, 1, 3])
def test_adding_or_removing_a_member_leaves_the_bytes_of_all_others(fusion: str, gone: int, shipped: Made) -> None:
    names = ["pendulum", "parity-3of64", "wave", "hpu-free"]
    whole = assemble(fusion, [shipped[name] for name in names])
    rest = assemble(fusion, [shipped[name] for name in names if name != names[gone]])
    for key in rest.members:
        assert (
            composites.blocks(rest, key) == composites.blocks(whole, key) == packing.tensor_digest(shipped[key].tensors)
        )
    digests = {entry["key"]: entry["digest"] for entry in whole.manifest.architecture.config["members"]}
    for entry in rest.manifest.architecture.config["members"]:
        assert entry["digest"] == digests[entry["key"]]


# -- isolation and life -----------------------------------------------------------------------------------------------


def alone_in_nan(made: Cassette, key: str) -> Cassette:
    """The composition with every number that is not a member's own NaN, whole ones the least; by its manifest alone."""
    config = made.manifest.architecture.config
    spoilt = {
        name: torch.full_like(t, torch.nan) if t.is_floating_point() else torch.full_like(t, torch.iinfo(t.dtype).min)
        for name, t in made.tensors.items()
    }
    if "table" in config:
        for row in config["table"]:
            if row["member"] == key:
                count = torch.Size(row["shape"]).numel()
                place = slice(row["offset"], row["offset"] + count)
                spoilt[row["dtype"]][place] = made.tensors[row["dtype"]][place]
    else:
        prefix = f"m{[entry['key'] for entry in config['members']].index(key)}."
        spoilt |= {name: tensor for name, tensor in made.tensors.items() if name.startswith(prefix)}
    return Cassette(made.manifest, spoilt, plugins=made.plugins)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_no_member_reads_a_number_of_another(fusion: str, fused_all: Made, shipped: Made, sampled_of: Sampled) -> None:
    for name, alone in shipped.items():
        apart = alone_in_nan(fused_all[fusion], name)
        for size in (1, 16):
            assert torch.equal(answer(apart, sampled_of[name], size, name), answer(alone, sampled_of[name], size)), name


def test_a_member_whose_own_numbers_are_nan_does_not_answer_as_before(
    atlas: Cassette, shipped: Made, sampled_of: Sampled
) -> None:
    apart = alone_in_nan(atlas, "kepler")
    for name in ("pendulum-mlp", "wave", "parity-3of64"):
        assert not same(answer(apart, sampled_of[name], 3, name), answer(shipped[name], sampled_of[name], 3))


def constant(outputs: Tensor) -> Tensor:
    """Which outputs are the same for the whole batch "batch *out"."""
    plain = torch.view_as_real(outputs) if outputs.is_complex() else outputs
    return plain.double().std(0) == 0


@pytest.mark.parametrize("fusion", FUSIONS)
def test_no_output_of_any_member_is_constant(fusion: str, fused_all: Made, shipped: Made, sampled_of: Sampled) -> None:
    for name in shipped:
        assert not constant(answer(fused_all[fusion], sampled_of[name], 256, name)).any(), name


@pytest.mark.acceptance
def test_superposition_of_all_shipped_cassettes(
    fused_all: Made, shipped: Made, sampled_of: Sampled, figure: Callable[..., None]
) -> None:
    made, raw = fused_all["superposition"], {name: untrained(cassette) for name, cassette in shipped.items()}
    wild = assemble("superposition", raw.values())
    unequal = leaks = dead = compared = 0
    for name, batch in sampled_of.items():
        for whole, alone in ((made, shipped[name]), (wild, raw[name])):
            apart = alone_in_nan(whole, name)
            for size in BATCHES:
                expected = answer(alone, batch, size)
                unequal += not same(answer(whole, batch, size, name), expected)
                leaks += not same(answer(apart, batch, size, name), expected)
                compared += 1
        dead += int(constant(answer(made, batch, ROWS, name)).sum())
    alone_bytes = sum(cassette.manifest.weights.bytes for cassette in shipped.values())
    share = made.manifest.weights.bytes / alone_bytes - 1
    figure(f"superposition: unequal of {compared} batches, trained and untrained", str(unequal), "0")
    figure(f"superposition: batches of {compared} that NaN in other blocks changes", str(leaks), "0")
    figure(f"superposition: constant outputs of {len(shipped)} members over {ROWS} inputs", str(dead), "0")
    figure(
        f"superposition: {made.manifest.weights.bytes:,} bytes against the members' files", f"{share:+.1%}", "<= +5 %"
    )
    assert (unequal, leaks, dead) == (0, 0, 0)
    assert share <= 0.05


# -- the published network, on purpose wrong --------------------------------------------------------------------------

Plan = Sequence[tuple[str, int, int, slice]]
"""Member, its column of inputs, its first hidden row, its outputs."""


def published(members: Mapping[str, Sequence[Tensor]], hidden: int) -> tuple[Callable[[Tensor], Tensor], Plan]:
    """Members in one network as published: three hidden layers for all, biases of the hidden ones alone, ReLU for all.

    Inputs stand at column 0, whatever the column that a member's first layer reads.
    """
    first, one, two, last = (torch.zeros(hidden, hidden) for _ in range(4))
    bias = [torch.zeros(hidden), torch.zeros(hidden)]
    row = column = out = 0
    plan = []
    for index, (name, (w1, w2, b2, w3)) in enumerate(members.items()):
        wide = slice(row, row + len(w1))
        first[wide, column : column + w1.shape[1]] = w1
        (one, two)[index % 2][wide, wide] = w2
        bias[index % 2][wide] = b2
        last[out : out + len(w3), wide] = w3
        plan.append((name, column, row, slice(out, out + len(w3))))
        row, column, out = row + len(w1), column + w1.shape[1], out + len(w3)

    def run(x: Tensor) -> Tensor:
        h = torch.relu(torch.nn.functional.pad(x, (0, hidden - x.shape[1])) @ first.T)
        h = torch.relu(h @ one.T + bias[0])
        return torch.relu(h @ two.T + bias[1]) @ last.T

    return run, plan


def test_the_network_that_was_published_is_constant_and_these_tests_say_so(shipped: Made, sampled_of: Sampled) -> None:
    parity, pendulum = shipped["parity-3of64"].tensors, shipped["pendulum-mlp"].tensors
    members = {
        "parity-3of64": [parity["first.weight"], parity["second.weight"], parity["second.bias"], parity["last.weight"]],
        "pendulum-mlp": [pendulum[f"layers.{n}"] for n in ("0.weight", "2.weight", "2.bias", "4.weight")],
    }
    run, plan = published(members, 320)
    for name, _, _, out in plan:
        inputs, _ = rows(sampled_of[name], 256)
        assert isinstance(inputs, Tensor)
        wide = members[name][0].shape[1]
        found = run(inputs.float()[:, :wide])[:, out]
        assert constant(found).all(), name
        assert not torch.equal(found, answer(shipped[name], sampled_of[name], 256).float()), name


# -- controls: each of these must be noticed --------------------------------------------------------------------------


def swapped(made: list[dict[str, Any]], one: int, two: int) -> list[dict[str, Any]]:
    """The same rows with the places of two exchanged."""
    made[one]["offset"], made[two]["offset"] = made[two]["offset"], made[one]["offset"]
    return made


def row_of(made: list[dict[str, Any]], member: str, layer: str) -> int:
    return next(i for i, row in enumerate(made) if (row["member"], row["layer"]) == (member, layer))


def act_changed(made: list[dict[str, Any]]) -> list[dict[str, Any]]:
    made[row_of(made, "pendulum-mlp", "layers.0.weight")]["act"] = "relu"
    return made


def offset_shifted(made: list[dict[str, Any]]) -> list[dict[str, Any]]:
    made[row_of(made, "pendulum-mlp", "layers.0.weight")]["offset"] += 1
    return made


def bias_dropped(made: list[dict[str, Any]]) -> list[dict[str, Any]]:
    del made[row_of(made, "pendulum-mlp", "layers.0.bias")]
    return made


def rows_swapped(made: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return swapped(made, row_of(made, "pendulum-mlp", "layers.2.weight"), row_of(made, "parity-3of64", "second.weight"))


def tensor_missing(made: list[dict[str, Any]]) -> list[dict[str, Any]]:
    made[row_of(made, "pendulum-mlp", "layers.0.bias")]["layer"] = "layers.9.bias"
    return made


def act_unknown(made: list[dict[str, Any]]) -> list[dict[str, Any]]:
    made[row_of(made, "pendulum-mlp", "layers.0.weight")]["act"] = "os.system"
    return made


def op_unknown(made: list[dict[str, Any]]) -> list[dict[str, Any]]:
    made[row_of(made, "pendulum-mlp", "layers.0.weight")]["op"] = "torch.hub:load"
    return made


def beyond_the_end(made: list[dict[str, Any]]) -> list[dict[str, Any]]:
    made[-1]["offset"] += 1
    return made


CHANGES = (
    act_changed,
    offset_shifted,
    bias_dropped,
    rows_swapped,
    tensor_missing,
    act_unknown,
    op_unknown,
    beyond_the_end,
)


@pytest.fixture(scope="module")
def pair(shipped: Made) -> Cassette:
    """A superposition of a ReLU and a tanh network of equal hidden width."""
    return assemble("superposition", [shipped["parity-3of64"], shipped["pendulum-mlp"]], "pair")


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_table_that_was_changed_is_refused(
    change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]],
    pair: Cassette,
    reissue: Callable[..., str],
    library: Path,
) -> None:
    forged = composites.with_config(pair, table=change(table(pair)))
    ref = reissue(forged, architecture=forged.manifest.architecture)
    with pytest.raises((BadManifest, BadWeights), match="table"):
        gk.load(ref, library=library)


def test_the_same_table_unchanged_is_not(pair: Cassette, reissue: Callable[..., str], library: Path) -> None:
    forged = composites.with_config(pair, table=table(pair))
    assert gk.load(reissue(forged), library=library).members


@pytest.mark.parametrize("change", [offset_shifted, rows_swapped], ids=lambda change: change.__name__)
def test_unchecked_it_would_answer_otherwise(
    change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]], pair: Cassette, shipped: Made, sampled_of: Sampled
) -> None:
    forged = composites.with_config(pair, table=change(table(pair)))
    expected = answer(shipped["pendulum-mlp"], sampled_of["pendulum-mlp"], 16)
    assert not same(answer(forged, sampled_of["pendulum-mlp"], 16, "pendulum-mlp"), expected)
    assert same(answer(pair, sampled_of["pendulum-mlp"], 16, "pendulum-mlp"), expected)


def test_unchecked_a_dropped_bias_finds_no_network(pair: Cassette, sampled_of: Sampled) -> None:
    forged = composites.with_config(pair, table=bias_dropped(table(pair)))
    with pytest.raises(GrokkitError, match=r"layers\.0\.bias"):
        answer(forged, sampled_of["pendulum-mlp"], 2, "pendulum-mlp")
