"""Fusions of the 1-node and the 8-node network by the spectral gate: what holds for all, and the published claim."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from grokkit_cyclotron.law import GATE_OMEGAS, TEST_OMEGAS, Cyclotron
from torch import Tensor

from grokkit_core.cassette import Cassette, load
from grokkit_core.certify.compare import NON_INFERIORITY
from grokkit_core.errors import Incompatible, UsageError
from grokkit_core.fusion.compose import Composition, compose
from grokkit_core.fusion.gate import Calibration, GateState
from grokkit_core.fusion.gates import SpectralModule, mix
from grokkit_core.fusion.table import is_saturated
from grokkit_core.packing import tensor_digest
from grokkit_core.plugins import host
from grokkit_core.specs import GateSpec
from grokkit_core.streams import stream, stream_seed
from grokkit_core.task import Batch, Predictor
from grokkit_core.training.train import train

EIGHT_NODES = {"angular": 4, "radial": 2}
OTHER = 1_000
"""Added to the seed of the 8-node member, so that the members of a pair share no data."""

PUBLISHED_STEPS = 100
PUBLISHED_SAMPLES = 256
OMEGAS_UP_TO_5 = torch.linspace(0, 5, 501)

ROUNDING = 1e-6
"""Float32: weights, and predictions of size one, rounded a few times."""


@dataclass(frozen=True)
class Pair:
    """A composition by the published gate with its members, their digests before it, and every sample drawn.

    `drawn` maps the seed of each stream to its batches, from the trainings on.
    """

    one: Cassette
    eight: Cassette
    fused: Composition
    library: Path
    before: Mapping[str, str]
    drawn: Mapping[int, Sequence[Batch]]


def digests(*members: Cassette) -> dict[str, str]:
    return {member.manifest.name: tensor_digest(member.tensors) for member in members}


def trained_pair(seed: int, library: Path) -> tuple[Cassette, Cassette]:
    one = train("cyclotron", seed=seed, name="one", library=library)[0].cassette
    eight = train("cyclotron", seed=OTHER + seed, settings=EIGHT_NODES, name="eight", library=library)[0].cassette
    return one, eight


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """The pair of seed 0."""
    library = tmp_path_factory.mktemp("library")
    drawn: dict[int, list[Batch]] = {}
    original = Cyclotron.sample

    def sample(self: Cyclotron, n: int, *, generator: torch.Generator, **where: Any) -> Batch:
        batch = original(self, n, generator=generator, **where)
        drawn.setdefault(generator.initial_seed(), []).append(batch)
        return batch

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Cyclotron, "sample", sample)
        one, eight = trained_pair(0, library)
        before = digests(one, eight)
        fused = compose(one, eight, gate="spectral", seed=0, library=library)
    return Pair(one, eight, fused, library, before, drawn)


def gate_tensors(fused: Cassette) -> dict[str, Tensor]:
    return {name.removeprefix("gate."): t for name, t in fused.tensors.items() if name.startswith("gate.")}


def gate_weight(tensors: Mapping[str, Tensor], omega: Tensor) -> Tensor:
    """a(omega) = sigmoid(W2 tanh(W1 omega + b1) + b2), written out: "batch"."""
    hidden = torch.tanh(omega.unsqueeze(1) * tensors["hidden.weight"][:, 0] + tensors["hidden.bias"])
    return torch.sigmoid((hidden * tensors["output.weight"][0]).sum(1) + tensors["output.bias"])


def windows(n: int, omega: float, seed: int = 0) -> Batch:
    return host().task("cyclotron").sample(n, generator=stream(seed, "fusion"), omega=omega).to(torch.float32)


def test_the_fitted_gate_has_49_parameters(pair: Pair) -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in gate_tensors(pair.fused.cassette).items()}

    assert shapes == {"hidden.weight": (16, 1), "hidden.bias": (16,), "output.weight": (1, 16), "output.bias": (1,)}
    assert sum(tensor.numel() for tensor in gate_tensors(pair.fused.cassette).values()) == 49


def test_every_parameter_of_the_gate_enters_the_output(pair: Pair) -> None:
    module = SpectralModule("omega", 2)
    module.load_state_dict(gate_tensors(pair.fused.cassette))
    module.double()

    before = module.weights(OMEGAS_UP_TO_5)
    for parameter in module.parameters():
        for number in parameter.data.view(-1):
            kept = number.item()
            number.add_(0.1)
            assert not torch.equal(module.weights(OMEGAS_UP_TO_5), before)
            number.fill_(kept)
    assert torch.equal(module.weights(OMEGAS_UP_TO_5), before)


def test_a_new_gate_weighs_both_members_one_half_exactly() -> None:
    for seed in range(20):
        module = SpectralModule("omega", 2, generator=stream(seed))
        assert bool((module.weights(OMEGAS_UP_TO_5) == 0.5).all())


@pytest.mark.parametrize("members", [3, 4])
def test_a_new_gate_of_more_members_weighs_them_equally(members: int) -> None:
    weights = SpectralModule("omega", members, generator=stream(0)).weights(OMEGAS_UP_TO_5)

    assert weights.shape == (members, len(OMEGAS_UP_TO_5))
    assert bool((weights == weights[0, 0]).all())
    assert weights[0, 0].item() == pytest.approx(1 / members, abs=1e-7)


def constant_members(count: int) -> list[Predictor]:
    return [lambda inputs, context, k=k: torch.full((len(inputs), 4), float(k)) for k in range(count)]


def calibration(seed: int = 0, places: Sequence[float] = GATE_OMEGAS) -> Calibration:
    return Calibration(
        host().task("cyclotron"),
        [{"omega": omega} for omega in places],
        generator=stream(seed, "calibration"),
        dtype=torch.float32,
        variable="omega",
    )


@pytest.mark.parametrize("members", [2, 3, 4])
def test_fitting_starts_from_equal_weights(members: int) -> None:
    gate = host().gate("spectral", steps=1, lr=1e-30)

    state = gate.fit(constant_members(members), calibration(), generator=stream(0, "gate"))
    weights = gate.build(state)
    weights.load_state_dict(dict(state.tensors))
    found = weights((), {"omega": OMEGAS_UP_TO_5}, torch.zeros(members, 501, 4))
    assert bool((found == found[0, 0]).all())


@pytest.mark.parametrize("spec", host().specs(GateSpec), ids=lambda spec: spec.id)
@pytest.mark.parametrize("members", [2, 3, 4])
def test_weights_of_every_gate_sum_to_one(spec: GateSpec, members: int) -> None:
    gate = host().gate(spec.id, **{field.name: 5 for field in spec.options if field.name == "steps"})
    state = gate.fit(constant_members(members), calibration(), generator=stream(0, "gate"))
    module = gate.build(state)
    module.load_state_dict(dict(state.tensors))

    batch = windows(501, 1.5)
    inputs = (batch.inputs,)
    with torch.no_grad():
        weights = module(inputs, {"omega": OMEGAS_UP_TO_5}, torch.zeros(members, 501, 4))
    assert weights.shape[:2] == (members, 501)
    assert (weights.sum(0) - 1).abs().max().item() <= ROUNDING


@pytest.mark.parametrize("members", [2, 3, 4])
def test_any_spectral_gate_is_a_partition_of_unity(members: int) -> None:
    module = SpectralModule("omega", members, generator=stream(0))
    with torch.no_grad():
        for parameter in module.output.parameters():
            parameter.normal_(std=5.0, generator=stream(1))
        weights = module.weights(OMEGAS_UP_TO_5)

    assert bool((weights >= 0).all())
    assert weights.std(1).max().item() > 0.01
    assert (weights.sum(0) - 1).abs().max().item() <= ROUNDING


def test_the_fit_is_the_published_protocol_written_out(pair: Pair) -> None:
    start = SpectralModule("omega", 2, generator=stream(0, "gate"))
    tensors = {name: tensor.detach().clone().requires_grad_() for name, tensor in start.state_dict().items()}
    optimizer = torch.optim.Adam(tensors.values(), lr=0.1, betas=(0.9, 0.999))
    generator = stream(0, "calibration")
    for _ in range(PUBLISHED_STEPS):
        total = torch.zeros(())
        for omega in (1.5, 2.0, 2.2):
            batch = host().task("cyclotron").sample(PUBLISHED_SAMPLES, generator=generator, omega=omega)
            states = batch.to(torch.float32).inputs
            a = gate_weight(tensors, batch.context["omega"].float()).unsqueeze(1)
            fused = a * pair.one.predict(states).clone() + (1 - a) * pair.eight.predict(states).clone()
            total = total + (fused - batch.targets.float()).square().mean()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()

    fitted = gate_weight(gate_tensors(pair.fused.cassette), OMEGAS_UP_TO_5)
    assert (fitted - gate_weight(tensors, OMEGAS_UP_TO_5)).abs().max().item() <= 1e-4
    assert fitted.std().item() > 1e-3


def speeds(*batches: Batch) -> set[float]:
    """The speeds of samples: equal random numbers give equal speeds at any omega."""
    return {speed for batch in batches for speed in batch.inputs[:, 0, 2].tolist()}  # type: ignore[call-overload]


def test_training_calibration_and_test_data_share_no_random_numbers(pair: Pair) -> None:
    streams = {
        "training of one": stream_seed(0, "train"),
        "training of eight": stream_seed(OTHER, "train"),
        "calibration": stream_seed(0, "calibration"),
        **{f"test {row}": stream_seed(0, "test", row) for row in range(5)},
    }
    found = {name: speeds(*pair.drawn[seed]) for name, seed in streams.items()}

    assert len(found["calibration"]) == PUBLISHED_STEPS * 3 * PUBLISHED_SAMPLES
    assert len(found["test 0"]) == 20_000
    assert len(set().union(*found.values())) == sum(len(values) for values in found.values())


def test_equal_random_numbers_at_another_omega_would_be_noticed() -> None:
    assert speeds(windows(10, 0.9)) == speeds(windows(10, 2.2))


def test_the_published_gate_sees_256_fresh_samples_a_frequency_and_step(pair: Pair) -> None:
    seen = [(batch.context["omega"][0].item(), len(batch)) for batch in pair.drawn[stream_seed(0, "calibration")]]

    assert seen == [(omega, PUBLISHED_SAMPLES) for omega in (1.5, 2.0, 2.2)] * PUBLISHED_STEPS


def drawn_once(generator: torch.Generator) -> str:
    """The digest of one calibration batch from this generator."""
    batches = Calibration(
        host().task("cyclotron"), [{"omega": 1.5}], generator=generator, dtype=torch.float32, variable="omega"
    )
    batches.draw(PUBLISHED_SAMPLES, {"omega": 1.5})
    return batches.digest


def test_calibration_and_test_streams_have_different_digests() -> None:
    paths: list[tuple[str | int, ...]] = [("calibration",), *[("test", row) for row in range(5)], ("train",)]
    found = {drawn_once(stream(seed, *path)) for seed in (0, 1) for path in paths}

    assert len(found) == 2 * len(paths)
    assert drawn_once(stream(0, "calibration")) == drawn_once(stream(0, "calibration"))


def test_another_seed_calibrates_on_other_data(pair: Pair, library: Path) -> None:
    other = compose(pair.one, pair.eight, gate="spectral", seed=1, library=library).cassette.manifest.provenance.gate
    first = pair.fused.cassette.manifest.provenance.gate

    assert first is not None
    assert other is not None
    assert first["data"].startswith("sha256:")
    assert first["data"] != other["data"]
    assert {**first, "data": ""} == {**other, "data": ""}


def test_the_calibration_digest_is_a_function_of_the_seed(pair: Pair, library: Path) -> None:
    again = compose(pair.one, pair.eight, gate="spectral", seed=0, library=library).cassette

    assert again.manifest.provenance.gate == pair.fused.cassette.manifest.provenance.gate
    assert tensor_digest(again.tensors) == tensor_digest(pair.fused.cassette.tensors)


def test_composing_leaves_the_members_as_they_were(pair: Pair) -> None:
    assert digests(pair.one, pair.eight) == pair.before
    assert digests(*(load(name, library=pair.library) for name in ("one", "eight"))) == pair.before
    for member in (pair.one, pair.eight):
        module = member.module_for(torch.float32)
        assert not module.training
        assert not any(parameter.requires_grad or parameter.grad is not None for parameter in module.parameters())


@pytest.mark.parametrize("omega", [0.5, 0.9, 1.2, 2.2, 3.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_saved_fusion_is_the_weighted_sum_of_its_members(pair: Pair, omega: float, dtype: torch.dtype) -> None:
    fused = load(pair.fused.cassette.manifest.ref, library=pair.library)
    states = windows(1_000, omega).inputs
    assert isinstance(states, Tensor)
    states = states.to(dtype)

    cast = {name: tensor.to(dtype) for name, tensor in gate_tensors(fused).items()}
    a = gate_weight(cast, torch.full((1_000,), omega, dtype=dtype)).unsqueeze(1)
    expected = a * pair.one(states) + (1 - a) * pair.eight(states)
    found = fused(states, context={"omega": omega})
    assert found.dtype == dtype
    assert (found - expected).abs().max().item() <= ROUNDING
    assert (found - pair.one(states)).abs().max().item() > ROUNDING


def test_swapped_weights_are_another_fusion(pair: Pair) -> None:
    states = windows(1_000, 2.0).inputs
    assert isinstance(states, Tensor)
    a = gate_weight(gate_tensors(pair.fused.cassette), torch.full((1_000,), 2.0)).unsqueeze(1)

    swapped = (1 - a) * pair.one(states) + a * pair.eight(states)
    assert (pair.fused.cassette(states, context={"omega": 2.0}) - swapped).abs().max().item() > 1e-3


def test_members_keep_their_weight_whatever_their_order(pair: Pair, library: Path) -> None:
    turned = compose(pair.eight, pair.one, gate="spectral", seed=0, library=library)

    for there, here in zip(turned.table, pair.fused.table, strict=True):
        assert there.weights["one"] + there.weights["eight"] == pytest.approx(1, abs=ROUNDING)
        assert there.members == pytest.approx(here.members, rel=1e-9)
        assert there.fused == pytest.approx(here.fused, rel=0.01)


def test_the_fusion_needs_omega(pair: Pair) -> None:
    with pytest.raises(Incompatible):
        pair.fused.cassette(windows(4, 0.9).inputs)


def test_the_table_has_20000_paired_samples_at_the_five_test_frequencies(pair: Pair) -> None:
    assert [(row.where["omega"], row.n) for row in pair.fused.table] == [(omega, 20_000) for omega in TEST_OMEGAS]
    assert [row.fitted for row in pair.fused.table] == [omega in GATE_OMEGAS for omega in TEST_OMEGAS]


def test_the_table_is_measured_on_the_samples_of_the_certificates(pair: Pair) -> None:
    certified = {metric.where["omega"]: metric.value for metric in pair.fused.cassette.manifest.certificate.metrics}
    member = {metric.where["omega"]: metric.value for metric in pair.one.manifest.certificate.metrics}

    for row in pair.fused.table:
        assert row.fused == pytest.approx(certified[row.where["omega"]], rel=1e-6)
        assert row.members["one"] == pytest.approx(member[row.where["omega"]], rel=1e-6)


def test_weights_of_the_table_are_those_of_the_gate(pair: Pair) -> None:
    a = gate_weight(gate_tensors(pair.fused.cassette), torch.tensor(TEST_OMEGAS))

    assert [row.weights["one"] for row in pair.fused.table] == pytest.approx(a.tolist(), abs=1e-5)
    assert [sum(row.weights.values()) for row in pair.fused.table] == pytest.approx([1] * 5, abs=1e-5)


def test_a_fusion_is_never_worse_than_its_worst_member(pair: Pair) -> None:
    for row in pair.fused.table:
        assert row.fused <= max(row.members.values())


def test_the_fitted_gate_is_no_worse_than_equal_weights_where_it_was_fitted(pair: Pair, library: Path) -> None:
    equal = compose(pair.one, pair.eight, gate="uniform", seed=0, library=library)

    rows = [(row.fused, other.fused) for row, other in zip(pair.fused.table, equal.table, strict=True) if row.fitted]
    assert len(rows) == 3
    assert sum(fitted for fitted, _ in rows) <= 1.01 * sum(balanced for _, balanced in rows)


def test_the_fusion_is_worse_than_persistence_and_says_so(pair: Pair) -> None:
    said = pair.fused.to_json()["worse_than"]

    assert said["persistence"] == 5
    assert said["linear"] == 5
    assert "persistence (5 of 5)" in pair.fused.cassette.manifest.certificate.statement


def weighted(pair: Pair, weights: Sequence[float]) -> list[Any]:
    return [replace(row, weights={"one": a, "eight": 1 - a}) for row, a in zip(pair.fused.table, weights, strict=True)]


@pytest.mark.parametrize(
    ("weights", "saturated"),
    [
        ([0.005] * 5, True),
        ([0.995] * 5, True),
        ([0.005, 0.005, 0.005, 0.005, 0.02], False),
        ([0.5] * 5, False),
        ([0.02] * 5, False),
    ],
    ids=str,
)
def test_a_gate_that_always_takes_one_member_is_saturated(
    pair: Pair, weights: Sequence[float], saturated: bool
) -> None:
    assert is_saturated(weighted(pair, weights)) is saturated


def test_a_fusion_of_two_equals_is_not_saturated(pair: Pair) -> None:
    assert 0.01 < min(row.weights["one"] for row in pair.fused.table) < 0.99
    assert pair.fused.to_json()["saturated"] is False


def test_a_fusion_with_a_useless_member_is_flagged_as_saturated(pair: Pair, library: Path) -> None:
    settings = {**EIGHT_NODES, "samples": 64, "epochs": 1}
    useless = train("cyclotron", seed=9, settings=settings, name="useless", library=library)[0].cassette

    composed = compose(pair.one, useless, gate="spectral", seed=0, library=library)
    assert max(row.weights["useless"] for row in composed.table) < 0.01
    assert composed.to_json()["saturated"] is True


def test_mixing_follows_weights_of_samples_and_of_outputs() -> None:
    predictions = torch.arange(2 * 3 * 4, dtype=torch.float64).reshape(2, 3, 4)
    a = torch.rand(3, generator=stream(0), dtype=torch.float64)
    wide = torch.rand((3, 4), generator=stream(1), dtype=torch.float64)

    by_sample = mix(torch.stack((a, 1 - a)), predictions)
    by_output = mix(torch.stack((wide, 1 - wide)), predictions)
    assert torch.allclose(by_sample, a[:, None] * predictions[0] + (1 - a[:, None]) * predictions[1])
    assert torch.allclose(by_output, wide * predictions[0] + (1 - wide) * predictions[1])


def test_a_gate_state_without_tensors_builds_the_uniform_gate() -> None:
    module = host().gate("uniform").build(GateState({"members": 4}))

    assert bool((module((), {}, torch.zeros(4, 7, 4)) == 0.25).all())


@pytest.mark.acceptance
def test_published_fusions_of_twenty_pairs_are_not_inferior(tmp_path: Path, figure: Callable[..., None]) -> None:
    tables, counts, weights = [], Counter[str](), Counter[str]()
    for seed in range(20):
        library = tmp_path / str(seed)
        composed = compose(*trained_pair(seed, library), gate="spectral", seed=seed, library=library)
        table = composed.table
        tables.append(table)
        worst = max(row.fused / min(row.members.values()) for row in table)
        counts["non-inferior"] += worst <= NON_INFERIORITY == 1.005
        counts["strict"] += all(row.fused < min(row.members.values()) for row in table)
        counts["significant"] += composed.wins == 5
        counts["worse than persistence"] += all(row.fused > row.baselines["persistence"] for row in table)
        weights["saturated"] += composed.to_json()["saturated"]

    def mean(pick: Callable[[Any], float]) -> float:
        return sum(pick(row) for table in tables for row in table) / (5 * len(tables))

    fused, persistence = mean(lambda row: row.fused), mean(lambda row: row.baselines["persistence"])
    one, eight = mean(lambda row: row.members["one"]), mean(lambda row: row.members["eight"])
    ratio = max(row.fused / min(row.members.values()) for table in tables for row in table)
    figure("spectral gate, 20 pairs: mean fused MSE over five omegas", f"{fused:.4f}", ".055 to .08")
    figure("the same pairs: mean MSE of the 1-node, the 8-node member", f"{one:.4f}, {eight:.4f}", "reported")
    figure("the same pairs: mean MSE of persistence", f"{persistence:.5f}", "reported")
    figure(
        "pairs not inferior (<= 1.005 x better member) at all five omegas", f"{counts['non-inferior']} of 20", ">= 15"
    )
    figure("worst ratio to the better member in 100 rows", f"{ratio:.3f}", "reported")
    figure("pairs strictly better than both members at all five omegas", f"{counts['strict']} of 20", "reported")
    figure("pairs significantly better at all five (Holm)", f"{counts['significant']} of 20", "reported")
    figure("pairs worse than persistence at all five", f"{counts['worse than persistence']} of 20", "reported")
    figure("saturated gates", f"{weights['saturated']} of 20", "reported")
    assert 0.055 <= fused <= 0.08
    assert counts["non-inferior"] >= 15


def test_a_fusion_with_weights_of_two_dtypes_is_a_member_that_can_be_read(tmp_path: Path) -> None:
    """Its gate is float64, its networks are float32; what digests cover must not be cast."""
    inner = compose("cyclotron-1node", "cyclotron-8node", gate="interference", name="inner", library=tmp_path)
    dtypes = {tensor.dtype for tensor in inner.cassette.tensors.values()}
    outer = compose("inner", "cyclotron", gate="uniform", name="outer", library=tmp_path)
    top = compose("outer", "inner", gate="uniform", name="top", library=tmp_path)

    assert dtypes == {torch.float32, torch.float64}
    for made in (outer, top):
        read = load(made.cassette.manifest.name, library=tmp_path)
        for name, tensor in made.cassette.tensors.items():
            assert torch.equal(read.tensors[name], tensor), name
    batch = windows(64, 1.2)
    context = {"omega": batch.context["omega"]}
    assert isinstance(batch.inputs, Tensor)
    mean = (inner.cassette(batch.inputs, context=context) + load("cyclotron")(batch.inputs)) / 2
    assert torch.allclose(load("outer", library=tmp_path)(batch.inputs, context=context), mean, atol=1e-6)


def test_one_omega_for_all_samples_reaches_a_gate_of_knots_without_a_warning(
    tmp_path: Path, cli: Callable[..., Any]
) -> None:
    compose("cyclotron-1node", "cyclotron-8node", gate="interference", name="knots", library=tmp_path)
    given = tmp_path / "in.json"
    given.write_text(str(windows(3, 1.2).inputs.tolist()))  # type: ignore[union-attr]

    done = cli("--library", tmp_path, "run", "knots", "--input", given, "--context", "omega=1.2")
    assert done.code == 0
    assert "Warning" not in done.err


def test_a_context_given_twice_is_named_as_such(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="omega given twice"):
        compose(
            "cyclotron-1node",
            "cyclotron-8node",
            gate="interference",
            calibrate={"omega": [1.0, 1.0]},
            library=tmp_path,
        )
