"""Parity: the law, its solvers, what is proved of a network, and trainings that resume to the bit."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from grokkit_parity.certify import LEAST_MARGIN, truth_table
from grokkit_parity.law import Parity, draw_support
from grokkit_parity.recipes import strongest_columns
from grokkit_parity.solvers import eliminate, labels_of, logits_of, walsh_scan
from torch import Tensor

import grokkit_core as gk
from grokkit_core import packing, saving
from grokkit_core.cassette import Cassette, draft
from grokkit_core.errors import GrokkitError, Incompatible, UsageError
from grokkit_core.manifest import ArchitectureRef, Certificate
from grokkit_core.plugins import host
from grokkit_core.specs import settle
from grokkit_core.streams import stream
from grokkit_core.training.checkpoint import RunFolder, circumstances
from grokkit_core.training.train import Trained, train
from grokkit_core.training.trainer import Interrupted, Outcome, Trainer

MLP = "grokkit_parity/mlp"
SMALL: Mapping[str, Any] = {"n": 16, "hidden": 64, "steps": 160, "batch": 512, "lr": 1e-2}
"""A training of a moment, long enough for a margin that the certificate accepts."""


def law(**parameters: Any) -> Parity:
    task = host().task("parity", **parameters)
    assert isinstance(task, Parity)
    return task


def rows_of(seed: int, count: int, width: int) -> Tensor:
    return torch.randint(0, 2, (count, width), generator=stream(seed, "rows"), dtype=torch.uint8)


# -- the law -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("support", [(0,), (3, 9), (0, 1, 2), (2, 7, 11), (1, 2, 3, 5, 8)])
def test_labels_are_the_sum_of_the_chosen_bits_modulo_two(support: tuple[int, ...]) -> None:
    bits = rows_of(0, 500, 12)
    slow = [sum(int(row[index]) for index in support) % 2 for row in bits]
    assert labels_of(bits, support).tolist() == slow
    signs = 1 - 2 * bits.double()
    assert torch.equal(signs[:, list(support)].prod(1), 1 - 2 * torch.tensor(slow).double())


def test_the_oracle_is_the_law_and_the_exact_network_of_the_facts() -> None:
    task = law(support=(4, 30, 61))
    batch = task.sample(300, generator=stream(1))
    assert isinstance(batch.inputs, Tensor)
    total = batch.inputs[:, [4, 30, 61]].double().sum(1)
    network = total - 2 * (total - 1).relu() + 2 * (total - 2).relu()
    assert torch.equal(network, batch.targets.double())
    assert torch.equal(task.oracle(batch.inputs, {}), logits_of(batch.targets))
    assert task.error(task.oracle(batch.inputs, {}), batch.targets).mean() == 1.0
    assert task.error(1 - task.oracle(batch.inputs, {}), batch.targets).mean() == 0.0


def test_bits_are_uniform_independent_and_a_function_of_the_generator() -> None:
    task = law()
    first, again, other = (task.sample(20_000, generator=stream(seed)) for seed in (3, 3, 4))
    assert isinstance(first.inputs, Tensor)
    assert first.inputs.dtype == torch.uint8
    assert torch.equal(first.inputs, again.inputs)
    assert not torch.equal(first.inputs, other.inputs)
    signs = 1 - 2 * first.inputs.double()
    correlations = signs.T @ signs / len(signs) - torch.eye(64, dtype=torch.float64)
    assert correlations.abs().max() < 0.04
    assert signs.mean(0).abs().max() < 0.04


def test_a_row_that_is_not_finite_is_wrong() -> None:
    target = torch.tensor([0, 0, 1, 1])
    nan, inf = float("nan"), float("inf")
    found = law().error(torch.tensor([[1.0, nan], [inf, 0.0], [0.0, 1.0], [nan, 1.0]]), target)
    assert found.tolist() == [0.0, 0.0, 1.0, 0.0]


@pytest.mark.parametrize(
    "parameters",
    [
        {"n": 2},
        {"n": 8, "k": 9},
        {"support": (1, 2)},
        {"support": (1, 2, 2)},
        {"support": (1, 2, 64)},
        {"support": (1, 2, -1)},
        {"support": (1, 2, 3.0)},
        {"support": "abc"},
        {"n": 0, "k": 1},
        {"k": 0},
        {"n": 2**31},
    ],
    ids=str,
)
def test_a_law_that_makes_no_sense_is_refused(parameters: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        law(**parameters)


def test_a_support_is_kept_in_rising_order_and_a_drawn_one_is_stored() -> None:
    assert law(support=(60, 2, 33)).support == (2, 33, 60)
    task = law()
    assert task.is_drawn
    assert task.parameters["support"] == task.support == draw_support(64, 3, 0)


def test_every_seed_has_a_support_of_its_own_and_no_bit_is_preferred() -> None:
    drawn = [draw_support(64, 3, seed) for seed in range(400)]
    assert len(set(drawn)) > 390
    assert all(len(set(support)) == 3 and list(support) == sorted(support) for support in drawn)
    counts = np.bincount([bit for support in drawn for bit in support], minlength=64)
    assert counts.min() > 3
    assert counts.max() < 45
    wide = draw_support(2**31 - 1, 20, 1)
    assert len(set(wide)) == 20
    assert 2**20 < max(wide) < 2**31 - 1


# -- solvers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_a_walsh_scan_finds_three_of_sixty_four_bits_in_sixty_four_rows(seed: int) -> None:
    support = draw_support(64, 3, seed)
    bits = rows_of(seed, 64, 64)
    assert walsh_scan(bits, labels_of(bits, support), 3) == support


@pytest.mark.parametrize("k", [1, 2, 3, 4, 5])
def test_both_solvers_find_supports_of_every_size(k: int) -> None:
    for seed in range(5):
        support = draw_support(20, k, seed)
        bits = rows_of(seed, 80, 20)
        assert walsh_scan(bits, labels_of(bits, support), k) == support
        assert eliminate(bits, labels_of(bits, support)) == support


@pytest.mark.parametrize("k", [1, 2, 3, 4, 5, 20, 64])
def test_elimination_needs_a_few_rows_more_than_bits_for_every_k(k: int) -> None:
    for seed in range(10):
        support = draw_support(64, k, seed)
        bits = rows_of(seed, 80, 64)
        assert eliminate(bits, labels_of(bits, support)) == support


@pytest.mark.parametrize("width", [1, 2, 7, 8, 9, 15, 16, 31, 63, 65])
def test_elimination_works_for_every_width_of_the_packed_rows(width: int) -> None:
    support = draw_support(width, min(3, width), 1)
    bits = rows_of(width, width + 40, width)
    assert eliminate(bits, labels_of(bits, support)) == support


def test_elimination_gives_nothing_where_rows_contradict_each_other() -> None:
    bits = rows_of(0, 100, 32)
    labels = labels_of(bits, (1, 2, 3))
    assert eliminate(bits, labels) == (1, 2, 3)
    labels[70] = 1 - labels[70]
    assert eliminate(bits, labels) is None
    assert eliminate(bits, 1 - labels_of(bits, (1, 2, 3))) is None


def test_elimination_gives_nothing_where_rows_leave_a_choice() -> None:
    bits = rows_of(0, 31, 32)
    assert eliminate(bits, labels_of(bits, (1, 2, 3))) is None
    same = rows_of(0, 1, 32).repeat(200, 1)
    assert eliminate(same, labels_of(same, (1, 2, 3))) is None
    assert eliminate(torch.zeros(50, 4, dtype=torch.uint8), torch.zeros(50)) is None


def test_a_scan_of_too_many_subsets_is_not_begun() -> None:
    bits = rows_of(0, 64, 64)
    assert walsh_scan(bits, labels_of(bits, (1, 2, 3, 4, 5)), 5) is None


def test_a_scan_sees_through_some_wrong_labels_which_elimination_does_not() -> None:
    bits = rows_of(0, 500, 64)
    labels = labels_of(bits, (5, 6, 60))
    labels[::10] = 1 - labels[::10]
    assert walsh_scan(bits, labels, 3) == (5, 6, 60)
    assert eliminate(bits, labels) is None


def test_baselines_are_at_chance_or_exact() -> None:
    task = law(support=(4, 30, 61))
    known = task.baselines(task.sample(2_000, generator=stream(1)))
    fresh = task.sample(5_000, generator=stream(2))
    found = {name: float(task.error(solve(fresh.inputs, {}), fresh.targets).mean()) for name, solve in known.items()}
    assert set(found) == {"constant", "linear", "walsh-scan", "elimination"}
    assert found["walsh-scan"] == found["elimination"] == 1.0
    assert abs(found["constant"] - 0.5) < 0.03
    assert abs(found["linear"] - 0.5) < 0.03


@pytest.mark.parametrize(
    ("parameters", "names"),
    [
        ({"k": 5}, {"constant", "linear", "elimination"}),
        ({"n": 513}, {"constant"}),
        ({"n": 3}, {"constant", "linear", "walsh-scan", "elimination"}),
    ],
    ids=str,
)
def test_solvers_that_cannot_be_afforded_are_left_out(parameters: dict[str, Any], names: set[str]) -> None:
    task = law(**parameters)
    assert set(task.baselines(task.sample(1_500, generator=stream(1)))) == names


# -- certificates ------------------------------------------------------------------------------------------------------

SUPPORT = (5, 20, 40)
TABLE = tuple(sum(row) % 2 for row in itertools.product((0, 1), repeat=3))


def lookup(table: Sequence[int] = TABLE, size: float = 1.0, shift: float = 0.0, **changes: Any) -> Cassette:
    """A network of one unit for each row of three bits: any truth table, every margin `size`.

    `shift` goes through both layers and cancels, but for the rounding that it causes.
    """
    signs = torch.tensor([[1.0 - 2 * bit for bit in row] for row in itertools.product((0, 1), repeat=3)])
    values = torch.tensor([[size / 2 if label == 0 else -size / 2 for label in table]])
    tensors = {
        "first.weight": torch.cat((signs, torch.zeros(1, 3))),
        "first.bias": torch.tensor([-2.0] * 8 + [shift]),
        "last.weight": torch.cat((torch.cat((values, -values)), torch.tensor([[1.0], [0.0]])), 1),
        "last.bias": torch.tensor([-shift, 0.0]),
    }
    config = {"n": 64, "hidden": 9, "depth": 1, "readout": "logits", "live": SUPPORT}
    return network(config, tensors, changes.pop("support", SUPPORT), **changes)


def network(config: Mapping[str, Any], tensors: Mapping[str, Tensor], support: tuple[int, ...]) -> Cassette:
    """An unsaved cassette of parity."""
    architecture = host().architecture(MLP)
    settled = architecture.settled(config)
    return draft(
        "made",
        task=law(n=settled["n"], k=len(support), support=support),
        architecture=architecture.spec,
        config=settled,
        signature=architecture.signature(settled),
        tensors=tensors,
        provenance=gk.show("parity-3of64").provenance,
        summary="made by a test",
        plugins=host(),
    )


def certificate(cassette: Cassette) -> Certificate:
    return cassette.task.certify(cassette, level="quick", seed=0)


def test_a_network_that_is_right_on_every_row_is_certified_for_all_inputs() -> None:
    found = certificate(lookup())
    assert (found.verdict, found.method) == ("exact", "exhaustive")
    assert "all 2^64 inputs" in found.statement
    assert found.formula[0] == "y = b5 xor b20 xor b40"
    assert found.formula[1:] == tuple(f"{index:03b} -> {label}" for index, label in enumerate(TABLE))
    figures = {metric.name: metric.value for metric in found.metrics}
    assert (figures["margin"], figures["gap"]) == (1.0, 0.0)
    assert 0.999 < figures["margin_float32_any_order"] < 1.0  # a lower bound of what rounding leaves


@pytest.mark.parametrize("row", range(8))
def test_one_wrong_row_of_the_truth_table_is_caught(row: int) -> None:
    wrong = [label if index != row else 1 - label for index, label in enumerate(TABLE)]
    found = certificate(lookup(wrong))
    assert found.verdict == "failed"
    assert "wrong on 1 of the 8 rows" in found.statement
    assert (found.bounds, found.formula) == ((), ())


@pytest.mark.parametrize(("size", "verdict"), [(10.0, "exact"), (0.2, "exact"), (0.09, "failed"), (1e-6, "failed")])
def test_a_margin_below_a_tenth_is_not_accepted(size: float, verdict: str) -> None:
    assert certificate(lookup(size=size)).verdict == verdict


def test_a_margin_that_rounding_could_cross_is_not_accepted() -> None:
    small, large = lookup(size=1 / 3, shift=10.0), lookup(size=1 / 3, shift=1e5)
    table = truth_table(large, SUPPORT)
    assert table is not None
    assert table.margin > LEAST_MARGIN
    assert table.gap > 1e-4 * table.margin
    assert not table.holds
    assert certificate(large).verdict == "failed"
    assert "does not exceed rounding" in certificate(large).statement
    assert certificate(small).verdict == "exact"


@pytest.mark.parametrize("support", [(4, 20, 40), (5, 20, 41), (0, 1, 2), (5, 20)])
def test_a_network_that_reads_other_bits_than_the_law_is_caught(support: tuple[int, ...]) -> None:
    assert certificate(lookup(support=support)).verdict == "failed"


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_network_that_is_not_finite_is_caught(bad: float) -> None:
    made = lookup()
    weight = made.tensors["last.weight"].clone()
    weight[0, 3] = bad
    tensors = {**made.tensors, "last.weight": weight}
    assert certificate(Cassette(made.manifest, tensors)).verdict == "failed"


def test_a_column_of_zeros_is_dead_and_a_bit_that_cancels_is_checked() -> None:
    made = lookup()
    wide = torch.zeros(9, 64)
    wide[:, list(SUPPORT)] = made.tensors["first.weight"]
    config = {**made.manifest.architecture.config, "live": ()}
    dense = network(config, {**made.tensors, "first.weight": wide}, SUPPORT)
    table = truth_table(dense, SUPPORT)
    assert table is not None
    assert (table.live, table.checked.checked) == (SUPPORT, 8)
    wide = wide.clone()
    wide[8, 10] = 0.25
    more = network(config, {**made.tensors, "first.weight": wide, "first.bias": made.tensors["first.bias"]}, SUPPORT)
    table = truth_table(more, SUPPORT)
    assert table is not None
    assert (table.live, table.checked.checked) == ((5, 10, 20, 40), 16)
    assert certificate(more).formula == ("y = b5 xor b20 xor b40",)


def test_a_network_that_reads_more_than_twenty_bits_is_estimated_at_best() -> None:
    made = lookup()
    wide = torch.full((9, 64), 1e-9)
    wide[:, list(SUPPORT)] = made.tensors["first.weight"]
    config = {**made.manifest.architecture.config, "live": ()}
    found = certificate(network(config, {**made.tensors, "first.weight": wide}, SUPPORT))
    assert (found.verdict, found.method) == ("estimated", "sampled")
    assert found.metrics[0].value == 1.0
    assert found.metrics[0].interval[0] < 1.0


@pytest.mark.parametrize("name", ["parity-3of64", "parity-3of64-grokked"])
def test_the_recorded_margin_is_that_of_plain_arithmetic(name: str) -> None:
    cassette = gk.load(name)
    w = {key: tensor.double().numpy() for key, tensor in cassette.tensors.items()}
    margins = []
    for row in itertools.product((0, 1), repeat=3):
        values = np.maximum(w["first.weight"] @ (1 - 2 * np.array(row)) + w["first.bias"], 0)
        if "second.weight" in w:
            values = np.maximum(w["second.weight"] @ values + w["second.bias"], 0)
        out = w["last.weight"] @ values + w.get("last.bias", 0)
        even = out[0] - (out[1] if len(out) == 2 else 0)
        margins.append(even * (1 - 2 * (sum(row) % 2)))
    figures = {metric.name: metric.value for metric in cassette.manifest.certificate.metrics}
    assert figures["margin"] == pytest.approx(min(margins), abs=2e-6)
    assert figures["margin"] > (5 if name == "parity-3of64" else 0.1)
    assert figures["margin"] / figures["gap"] > 1e4


@pytest.mark.parametrize("name", ["parity-3of64", "parity-3of64-grokked"])
def test_the_support_of_what_ships_is_that_of_both_solvers(name: str) -> None:
    cassette = gk.load(name)
    bits = rows_of(17, 500, 64)
    predicted = cassette(bits).argmax(1)
    live = tuple(cassette.manifest.architecture.config["live"])
    assert walsh_scan(bits, predicted, 3) == eliminate(bits, predicted) == live == cassette.task.parameters["support"]


def test_dead_bits_do_not_move_a_single_logit_of_a_pruned_network() -> None:
    cassette = gk.load("parity-3of64")
    bits = rows_of(1, 2_000, 64)
    filled = 1 - bits
    live = list(cassette.manifest.architecture.config["live"])
    filled[:, live] = bits[:, live]
    assert torch.equal(cassette(bits), cassette(filled))


@pytest.mark.parametrize("name", ["parity-3of64", "parity-3of64-grokked"])
def test_an_output_layer_that_was_negated_is_caught(name: str, library: Path, cli: Callable[..., Any]) -> None:
    cassette = gk.load(name)
    tensors = {key: -tensor if key.startswith("last.") else tensor for key, tensor in cassette.tensors.items()}
    made = saving.save(library, cassette.manifest.replace(name="negated"), packing.pack(tensors))
    done = cli("verify", made.name, "--library", library)
    assert done.code == 1
    assert "wrong on 8 of the 8 rows" in done.out + done.err
    honest = saving.save(library, cassette.manifest.replace(name="honest"), packing.pack(cassette.tensors))
    assert cli("verify", honest.name, "--library", library).code == 0
    (library / "honest" / "1" / "weights.safetensors").write_bytes(packing.pack(tensors))
    done = cli("verify", honest.name, "--library", library)
    assert done.code == 3
    assert "altered" in done.err


@pytest.mark.parametrize(
    "live",
    [[58, 50, 62], [50, 50, 62], [50, 58, 64], [-1, 58, 62], [50, 58], [50.0, 58, 62], "abc", None, [[50, 58, 62]]],
)
def test_live_bits_that_are_not_in_rising_order_below_n_are_refused(live: Any, library: Path) -> None:
    cassette = gk.load("parity-3of64")
    config = {**cassette.manifest.architecture.config, "live": live}
    manifest = cassette.manifest.replace(architecture=ArchitectureRef(MLP, 1, config))
    saved = saving.save(library, manifest, packing.pack(cassette.tensors))
    with pytest.raises(GrokkitError) as caught:
        gk.load(f"{saved.name}@{saved.digest}", library=library)
    assert caught.value.exit_code == 3


# -- training ----------------------------------------------------------------------------------------------------------


def trained(library: Path, recipe: str = "fast", seed: int = 0, **settings: Any) -> Trained:
    return train("parity", recipe=recipe, seed=seed, settings={**SMALL, **settings}, library=library)[0]


def support_of(cassette: Cassette) -> tuple[int, ...]:
    return tuple(cassette.manifest.task.parameters["support"])


def test_every_seed_learns_a_support_of_its_own_and_is_certified(library: Path) -> None:
    made = train("parity", seeds=range(3), settings=SMALL, library=library)
    supports = {support_of(one.cassette) for one in made}
    assert len(supports) == 3
    for one in made:
        manifest = one.cassette.manifest
        assert manifest.certificate.verdict == "exact"
        assert tuple(manifest.architecture.config["live"]) == support_of(one.cassette)
        assert support_of(one.cassette) == draw_support(16, 3, one.seed)
        bits = rows_of(one.seed, 200, 16)
        predicted = one.cassette(bits).argmax(1)
        assert walsh_scan(bits, predicted, 3) == eliminate(bits, predicted) == support_of(one.cassette)


def test_a_support_that_was_given_is_learned_whatever_the_seed(library: Path, cli: Callable[..., Any]) -> None:
    words = [word for name, value in SMALL.items() for word in ("--set", f"{name}={value}")]
    done = cli("train", "parity", *words, "--set", "support=13,1,9", "--seeds", "3-4", "--library", library, "--json")
    assert done.code == 0, done.err
    for run in done.json["runs"]:
        shown = gk.show(f"{run['name']}@{run['version']}", library=library)
        assert run["verdict"] == "exact"
        assert list(shown.task.parameters["support"]) == list(shown.architecture.config["live"]) == [1, 9, 13]


@pytest.mark.parametrize("value", ["1,2", "1,2,2", "1,2,16", "1,2,x", "1,2,3.5", "-1,2,3"])
def test_a_support_that_makes_no_sense_is_refused(value: str, library: Path, cli: Callable[..., Any]) -> None:
    done = cli("train", "parity", "--set", "n=16", "--set", f"support={value}", "--library", library)
    assert (done.code, done.out) == (2, "")
    assert "support" in done.err
    assert not list(library.glob("*/*"))


def test_an_unpruned_network_is_only_estimated(library: Path) -> None:
    made = trained(library, n=24, prune=False).cassette
    assert not made.manifest.architecture.config["live"]
    assert made.manifest.certificate.verdict == "estimated"
    assert made.manifest.certificate.metrics[0].name == "accuracy"
    assert made.manifest.certificate.metrics[0].value > 0.99
    assert strongest_columns(made.tensors["first.weight"], 3) == support_of(made)


def test_one_hidden_layer_learns_too(library: Path) -> None:
    made = trained(library, depth=1, steps=300)
    assert "second.weight" not in made.cassette.tensors
    assert made.cassette.manifest.certificate.verdict == "exact"


def test_the_published_curriculum_is_ten_bits_and_zeros(library: Path) -> None:
    (made,) = train("parity", recipe="published", settings={"hidden": 256}, library=library)
    tensors, manifest = made.cassette.tensors, made.cassette.manifest
    assert manifest.certificate.verdict == "exact"
    assert support_of(made.cassette) == (0, 1, 2)
    assert tensors["first.weight"].shape == (256, 64)
    assert tensors["second.weight"].shape == (256, 256)
    assert not tensors["first.weight"][128:].any()
    assert not tensors["first.weight"][:, 10:].any()
    assert not tensors["second.weight"][128:].any()
    assert not tensors["second.weight"][:, 128:].any()
    assert not tensors["last.weight"][:, 128:].any()
    assert not tensors["first.bias"][128:].any()
    assert "no step after padding" in manifest.summary
    assert made.cassette.architecture.live_columns(manifest.architecture.config, tensors) == list(range(10))


def test_equal_seeds_give_equal_weights_to_the_bit(library: Path) -> None:
    first = trained(library, seed=5, steps=30).cassette
    torch.rand(11)
    again, other = (trained(library, seed=seed, steps=30).cassette for seed in (5, 6))
    assert all(torch.equal(tensor, again.tensors[name]) for name, tensor in first.tensors.items())
    assert not torch.equal(first.tensors["last.weight"], other.tensors["last.weight"])


def test_the_curve_of_the_grokked_cassette_shows_the_delay() -> None:
    curve = gk.show("parity-3of64-grokked").provenance.curve
    assert curve.columns == ("step", "train", "validation", "train_metric")
    memorised = next(row for row in curve.rows if row[3] == 1.0)
    generalised = next(row for row in curve.rows if row[2] == 1.0)
    assert generalised[0] - memorised[0] >= 1_000
    assert memorised[2] < 0.95
    assert gk.show("parity-3of64-grokked").provenance.grok_step == generalised[0]
    assert [row[0] for row in curve.rows] == list(range(57, 57 * (len(curve.rows) + 1), 57))


# -- resume ------------------------------------------------------------------------------------------------------------

RECIPES: Mapping[str, tuple[Mapping[str, Any], int]] = {
    "fast": ({"hidden": 16, "steps": 50, "batch": 64}, 50),
    "grokking": ({"hidden": 16, "rows": 70, "steps": 65}, 65),
    "published": ({"hidden": 140, "steps": 25}, 25),
}
"""Settings of short trainings, and how many steps they take."""


def trainer(folder: Path, recipe_name: str, *, seeds: Sequence[int] = (1,), stop: int | None = None) -> Trainer:
    recipe, task = host().recipe(f"parity/{recipe_name}"), law(n=12)
    settled = settle(recipe.spec.parameters, RECIPES[recipe_name][0], "test")
    kind: dict[str, Any] = {"dtype": torch.float32, "device": torch.device("cpu")}
    count = itertools.count(1)
    return Trainer(
        recipe.start(task, settled, seeds, **kind),
        recipe,
        task,
        settled,
        seeds,
        **kind,
        folder=RunFolder(folder),
        about={
            "task": "parity",
            "recipe": recipe.spec.id,
            "settings": settled,
            "parameters": task.parameters,
            "seeds": list(seeds),
            "name": "test",
            "circumstances": circumstances(**kind),
        },
        emit=lambda event: None,
        interrupted=lambda: stop is not None and next(count) == stop,
    )


def assert_same(found: Sequence[Outcome], expected: Sequence[Outcome]) -> None:
    for one, other in zip(found, expected, strict=True):
        state = other.module.state_dict()
        assert all(torch.equal(tensor, state[name]) for name, tensor in one.module.state_dict().items())
        assert (one.seed, one.steps, one.grok_step, one.curve) == (
            other.seed,
            other.steps,
            other.grok_step,
            other.curve,
        )


@pytest.mark.parametrize("seeds", [(1,), (1, 4)], ids=str)
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_resumed_training_equals_one_that_was_not_interrupted(
    recipe: str, seeds: tuple[int, ...], tmp_path: Path
) -> None:
    whole = trainer(tmp_path / "whole", recipe, seeds=seeds).fit()
    last = RECIPES[recipe][1]
    for step in (1, 10, 23, last):
        folder = tmp_path / str(step)
        with pytest.raises(Interrupted):
            trainer(folder, recipe, seeds=seeds, stop=step).fit()
        resumed = trainer(tmp_path / "other", recipe, seeds=seeds)
        resumed.restore(RunFolder(folder).load())
        assert_same(resumed.fit(), whole)


@pytest.mark.parametrize("recipe", RECIPES)
def test_seeds_trained_together_equal_their_single_runs(recipe: str, tmp_path: Path) -> None:
    together = trainer(tmp_path / "together", recipe, seeds=(2, 0, 7)).fit()
    for outcome in together:
        (alone,) = trainer(tmp_path / f"alone-{outcome.seed}", recipe, seeds=(outcome.seed,)).fit()
        assert alone.steps == outcome.steps
        expected = alone.module.state_dict()
        for name, tensor in outcome.module.state_dict().items():
            assert torch.allclose(tensor, expected[name], rtol=1e-4, atol=1e-5), name


# -- fusion and bad input ----------------------------------------------------------------------------------------------


def test_two_parity_cassettes_are_fused_and_verified(library: Path) -> None:
    made = gk.compose("parity-3of64", "parity-3of64-grokked", library=library)
    (row,) = made.table
    assert (row.metric, row.fused) == ("accuracy", 1.0)
    assert made.cassette.manifest.certificate.dtype == "float32"
    assert gk.verify(made.cassette.manifest.name, level="quick", library=library).agrees


def test_the_best_member_by_accuracy_is_the_one_that_is_right_more_often(library: Path) -> None:
    (poor,) = gk.train("parity", settings={"steps": 20, "prune": False}, name="poor", library=library)
    made = gk.compose("parity-3of64", poor.cassette, library=library)
    assert made.table[0].best_member == "parity-3of64"
    assert made.table[0].members["poor"] < 0.9


@pytest.mark.parametrize("settings", [{"n": 5}, {"support": (3, 20, 60)}])
def test_the_published_curriculum_says_which_bits_it_can_learn(settings: dict[str, Any], library: Path) -> None:
    with pytest.raises(UsageError, match="published curriculum"):
        gk.train("parity", recipe="published", settings=settings, library=library)
    assert not library.exists() or not list(library.iterdir())


def test_whole_numbers_only_are_no_dtype_to_compute_in() -> None:
    with pytest.raises(Incompatible, match="float32 or float64"):
        gk.load("parity-3of64").to("cpu", "uint8")
    assert gk.load("parity-3of64").dtype == torch.float32
