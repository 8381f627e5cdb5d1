"""Gates solved in closed form: what is solved where, how it is interpolated, and what a composition says about it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import grokkit_core as gk
from grokkit_core.cassette import Cassette
from grokkit_core.errors import BadWeights, GrokkitError, HashMismatch, Incompatible, UsageError
from grokkit_core.fusion.closed_form import Knots
from grokkit_core.fusion.compose import Composition, compose
from grokkit_core.fusion.gate import Calibration, Gate, GateState
from grokkit_core.fusion.gates import mix
from grokkit_core.fusion.optimum import best_weights
from grokkit_core.fusion.table import standing
from grokkit_core.plugins import host
from grokkit_core.streams import stream
from grokkit_core.strictjson import canonical
from grokkit_core.task import Batch, Inputs, Predictor, Task

Reissue = Callable[..., str]
Cli = Callable[..., Any]
few = pytest.mark.usefixtures("few_samples")
LAW = settings(max_examples=15, deadline=None, derandomize=True)
SEEDS = st.integers(0, 2**32)
CLOSED = ("interference", "interference-per-output", "simplex")
KNOTS = (0.85, 1.0, 1.35, 1.8, 2.5)
TESTS = (0.9, 1.2, 1.5, 2.0, 2.2)


def cyclotron() -> Task:
    return host().task("cyclotron")


def member(seed: int) -> Predictor:
    """A random map of the last state that also depends on omega; not linear, so that no five of them are dependent."""
    matrices = torch.randn((2, 4, 4), generator=stream(seed, "member"), dtype=torch.float64)

    def predict(inputs: Inputs, context: Mapping[str, Tensor]) -> Tensor:
        assert isinstance(inputs, Tensor)
        first, second = matrices.to(inputs.dtype)
        omega = context["omega"].to(inputs.dtype).unsqueeze(1)
        return torch.tanh(inputs[:, -1] @ first + omega * (inputs[:, -1] @ second))

    return predict


def members(count: int, seed: int = 0) -> list[Predictor]:
    return [member(10 * seed + k) for k in range(count)]


def calibration(knots: Sequence[float] = KNOTS, seed: int = 0, dtype: torch.dtype = torch.float32) -> Calibration:
    places = [{"omega": knot} for knot in knots]
    return Calibration(cyclotron(), places, generator=stream(seed, "data"), dtype=dtype, variable="omega")


def fitted(name: str, predictors: Sequence[Predictor], batches: Calibration, **options: Any) -> tuple[Gate, Knots]:
    """A gate and the module that a cassette would build of it."""
    gate = host().gate(name, **{"samples": 32, **options})
    state = gate.fit(predictors, batches, generator=stream(0))
    module = gate.build(GateState(state.config))
    assert isinstance(module, Knots)
    module.load_state_dict(dict(state.tensors))
    return gate, module


def weights_at(module: Knots, omega: Sequence[float] | Tensor) -> Tensor:
    values = torch.as_tensor(omega, dtype=torch.float64)
    count = module.weights.shape[1]
    weights: Tensor = module((), {"omega": values}, torch.zeros(count, len(values), 4))
    return weights


def table(weights: Sequence[Sequence[float]], knots: Sequence[float]) -> Knots:
    """A module with given weights "knot member"."""
    module = Knots("omega", knots, len(weights[0]), ())
    module.weights.copy_(torch.tensor(weights))
    return module


CONVEX: list[tuple[str, dict[str, Any]]] = [("interference", {}), ("interference-per-output", {}), ("simplex", {})]
FREE: list[tuple[str, dict[str, Any]]] = [("interference", {"free": True}), ("interference-per-output", {"free": True})]


# -- partitions of unity -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "options"), CONVEX + FREE, ids=str)
def test_weights_sum_to_one_at_every_omega(name: str, options: dict[str, Any]) -> None:
    omega = torch.cat((torch.linspace(-5, 5, 101, dtype=torch.float64), torch.tensor([1e-9, -1e9, 1e9])))
    for count in (2, 3, 4, 5):
        weights = weights_at(fitted(name, members(count), calibration(), **options)[1], omega)
        assert weights.shape == ((count, 104, 4) if name == "interference-per-output" else (count, 104))
        assert float((weights.sum(0) - 1).abs().max()) <= 1e-12 * float(weights.abs().max())
        if not options:
            assert bool((weights >= 0).all())


def test_free_weights_may_be_negative() -> None:
    common = member(0)

    def doubled(inputs: Inputs, context: Mapping[str, Tensor]) -> Tensor:
        return 2 * common(inputs, context) + 0.01 * member(1)(inputs, context)

    for name in ("interference", "interference-per-output"):
        clipped, free = (fitted(name, [common, doubled], calibration(), free=f)[1].weights for f in (False, True))
        assert bool((free < -0.1).any())
        assert bool((clipped >= 0).all())


def test_the_simplex_gate_has_no_free_weights() -> None:
    with pytest.raises(UsageError, match="gate simplex has no setting 'free'"):
        host().gate("simplex", free=True)


# -- what is solved ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "options"), CONVEX + FREE, ids=str)
@pytest.mark.parametrize("count", [2, 3])
def test_weights_at_a_knot_are_the_best_on_the_samples_drawn_there(
    name: str, options: dict[str, Any], count: int
) -> None:
    predictors = members(count)
    module = fitted(name, predictors, calibration(), **options)[1]
    generator = stream(0, "data")
    for knot, weights in zip(KNOTS, module.weights, strict=True):
        batch = cyclotron().sample(32, generator=generator, omega=knot)
        cast = batch.to(torch.float32)
        predictions = torch.stack([predict(cast.inputs, cast.context) for predict in predictors])
        combine: Any = "outputs" if name.endswith("output") else "members"
        expected = best_weights(predictions, batch.targets, combine=combine, **options)
        torch.testing.assert_close(weights, expected, rtol=1e-12, atol=1e-14)


def test_two_members_have_the_clipped_weight_of_the_formula() -> None:
    predictors = members(2)
    clipped, free = (fitted("interference", predictors, calibration(), free=f)[1].weights[:, 0] for f in (False, True))
    generator = stream(0, "data")
    for knot, found, unbounded in zip(KNOTS, clipped.tolist(), free.tolist(), strict=True):
        batch = cyclotron().sample(32, generator=generator, omega=knot)
        cast = batch.to(torch.float32)
        first, second = (predict(cast.inputs, cast.context).double() for predict in predictors)
        own = [(e - batch.targets).square().mean().item() for e in (first, second)]
        share = 0.5 + (own[1] - own[0]) / (2 * (first - second).square().mean().item())
        assert unbounded == pytest.approx(share, rel=1e-9)
        assert found == pytest.approx(min(1.0, max(0.0, share)), rel=1e-9)


def test_two_members_are_weighted_alike_by_interference_and_simplex() -> None:
    first, second = (fitted(name, members(2), calibration())[1].weights for name in ("interference", "simplex"))
    assert torch.equal(first, second)
    assert not torch.equal(first, fitted("interference", members(2), calibration(seed=1))[1].weights)


@pytest.mark.parametrize("name", CLOSED)
@pytest.mark.parametrize("count", [2, 3, 5])
def test_convex_weights_are_on_their_samples_not_worse_than_the_best_member(name: str, count: int) -> None:
    predictors = members(count)
    module = fitted(name, predictors, calibration(dtype=torch.float64))[1]
    generator = stream(0, "data")
    for knot in KNOTS:
        batch = cyclotron().sample(32, generator=generator, omega=knot)
        predictions = torch.stack([predict(batch.inputs, batch.context) for predict in predictors])
        fused = mix(weights_at(module, [knot] * 32), predictions)
        own = (predictions - batch.targets).square().mean((1, 2))
        assert float((fused - batch.targets).square().mean()) <= float(own.min()) * (1 + 1e-12)


def test_targets_are_compared_in_float64() -> None:
    """A float32 member that is as exact as float32 can be is told from one that is ten times worse."""

    def noisy(scale: float) -> Predictor:
        def predict(inputs: Inputs, context: Mapping[str, Tensor]) -> Tensor:
            assert isinstance(inputs, Tensor)
            exact = cyclotron().oracle(inputs, context)
            return (exact + scale * torch.randn(exact.shape, generator=stream(3), dtype=torch.float64)).float()

        return predict

    weights = fitted("simplex", [noisy(1e-6), noisy(1e-7)], calibration())[1].weights
    assert bool((weights[:, 1] > 0.9).all())


@LAW
@given(seed=SEEDS, count=st.integers(2, 5), order=SEEDS)
def test_the_order_of_members_only_permutes_their_weights(seed: int, count: int, order: int) -> None:
    predictors = members(count, seed)
    turned = torch.randperm(count, generator=stream(order)).tolist()
    for name, options in CONVEX + FREE:
        here = fitted(name, predictors, calibration([1.0, 2.0]), **options)[1].weights
        there = fitted(name, [predictors[k] for k in turned], calibration([1.0, 2.0]), **options)[1].weights
        torch.testing.assert_close(there, here[:, turned], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", CLOSED)
def test_a_gate_draws_its_samples_at_each_knot_once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, float]] = []
    original = type(cyclotron()).sample

    def noted(self: Task, n: int, *, generator: torch.Generator, **where: Any) -> Batch:
        seen.append((n, where["omega"]))
        return original(self, n, generator=generator, **where)

    monkeypatch.setattr(type(cyclotron()), "sample", noted)
    host().gate(name).fit(members(2), calibration(), generator=stream(0))
    assert seen == [(256, knot) for knot in KNOTS]


@pytest.mark.parametrize("name", CLOSED)
def test_the_default_knots_leave_test_and_training_omegas_out(name: str) -> None:
    knots = [place["omega"] for place in host().gate(name).places(cyclotron())]
    assert knots == list(KNOTS)
    assert not {*TESTS, 0.8} & set(knots)


def test_a_task_without_knots_is_solved_where_it_calibrates(monkeypatch: pytest.MonkeyPatch) -> None:
    task = cyclotron()
    monkeypatch.setattr(task, "knots", ())
    assert [place["omega"] for place in host().gate("simplex").places(task)] == [1.5, 2.0, 2.2]


@pytest.mark.parametrize("name", CLOSED)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_members_that_predict_no_numbers_are_refused_with_the_place(name: str, value: float) -> None:
    def broken(inputs: Inputs, context: Mapping[str, Tensor]) -> Tensor:
        return member(0)(inputs, context) * (value if context["omega"][0] == 1.35 else 1.0)

    with pytest.raises(Incompatible, match=r"at omega = 1.35 are not finite; verify the members first"):
        fitted(name, [member(1), broken], calibration())


# -- interpolation -------------------------------------------------------------------------------------------------


@LAW
@given(seed=SEEDS, share=st.floats(0, 1), where=st.integers(0, 3), name=st.sampled_from(CLOSED))
def test_weights_are_linear_between_knots(seed: int, share: float, where: int, name: str) -> None:
    module = fitted(name, members(3, seed), calibration(seed=seed))[1]
    left, right = KNOTS[where], KNOTS[where + 1]
    found = weights_at(module, [left + share * (right - left)])[:, 0]
    expected = (1 - share) * module.weights[where] + share * module.weights[where + 1]
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", CLOSED)
def test_weights_at_knots_are_those_solved_there(name: str) -> None:
    module = fitted(name, members(3), calibration())[1]
    found = weights_at(module, KNOTS).movedim(1, 0)
    torch.testing.assert_close(found, module.weights, rtol=0, atol=1e-15)
    assert not torch.allclose(weights_at(module, [0.9, 1.2, 1.5, 2.0, 2.4]).movedim(1, 0), module.weights, atol=1e-4)


@pytest.mark.parametrize("name", CLOSED)
def test_weights_are_constant_beyond_the_outermost_knots(name: str) -> None:
    module = fitted(name, members(3), calibration())[1]
    below, above = weights_at(module, [0.85, 0.849, 0.1, -7.0, -1e300]), weights_at(module, [2.5, 2.51, 4.0, 1e300])
    assert bool((below == module.weights[0].unsqueeze(1)).all())
    torch.testing.assert_close(above, module.weights[-1].unsqueeze(1).expand(above.shape), rtol=0, atol=1e-15)
    assert not torch.equal(below[:, 0], above[:, 0])


def test_weights_written_out_are_interpolated_by_hand() -> None:
    module = table([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]], [1.0, 2.0, 4.0])
    found = weights_at(module, [0.0, 1.0, 1.25, 2.0, 3.0, 4.0, 9.0])[0]
    assert found.tolist() == [1.0, 1.0, 0.75, 0.0, 0.25, 0.5, 0.5]


@pytest.mark.parametrize("name", CLOSED)
def test_with_one_knot_weights_are_the_same_everywhere(name: str) -> None:
    module = fitted(name, members(3), calibration([1.2]))[1]
    found = weights_at(module, [0.0, 1.2, 5.0])
    assert bool((found == module.weights[0].unsqueeze(1)).all())


@pytest.mark.parametrize("name", CLOSED)
def test_knots_may_be_given_in_any_order(name: str) -> None:
    states = [
        host().gate(name).fit(members(2), calibration(knots), generator=stream(0))
        for knots in ([2.0, 0.9, 1.5], [0.9, 1.5, 2.0])
    ]
    assert states[0].config == states[1].config
    assert states[0].config["knots"] == [0.9, 1.5, 2.0]
    assert torch.equal(states[0].tensors["weights"], states[1].tensors["weights"])


@pytest.mark.parametrize("name", CLOSED)
def test_repeated_knots_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="calibration context omega given twice; expected different values"):
        fitted(name, members(2), calibration([0.9, 1.5, 0.9]))


@pytest.mark.parametrize("name", CLOSED)
def test_no_knots_are_refused(name: str) -> None:
    with pytest.raises(Incompatible, match=f"no calibration contexts for gate {name}; give them: --calibrate omega="):
        fitted(name, members(2), calibration([]))


def test_knots_close_together_do_not_divide_by_nothing() -> None:
    near = math.nextafter(1.0, 2.0)
    module = table([[1.0, 0.0], [0.0, 1.0]], [1.0, near])
    assert weights_at(module, [0.5, 1.0, near, 1.5])[0].tolist() == [1.0, 1.0, 0.0, 0.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_omega_may_be_a_number_spread_over_the_batch(dtype: torch.dtype) -> None:
    module = table([[1.0, 0.0], [0.0, 1.0]], [1.0, 2.0])
    spread = module((), {"omega": torch.tensor(1.25, dtype=dtype).expand(3)}, torch.zeros(2, 3, 4))
    assert spread.tolist() == [[0.75] * 3, [0.25] * 3]


# -- states from outside -------------------------------------------------------------------------------------------

GOOD: dict[str, Any] = {"members": 2, "variable": "omega", "knots": [1.0, 2.0], "outputs": [4]}
HOSTILE: list[dict[str, Any]] = [
    {"knots": [2.0, 1.0]},
    {"knots": [1.0, 1.0]},
    {"knots": [1.0, math.nan]},
    {"knots": [1.0, math.inf]},
    {"knots": []},
    {"knots": "1, 2"},
    {"knots": 1.0},
    {"knots": [[1.0], [2.0]]},
    {"knots": ["1", "2"]},
    {"knots": [False, True]},
    {"knots": [1, 10**400]},
    {"knots": list(range(1_001))},
    {"members": 0},
    {"members": -2},
    {"members": 2.0},
    {"members": True},
    {"members": "2"},
    {"members": 10**7},
    {"variable": 3},
    {"variable": None},
    {"outputs": None},
    {"outputs": 4},
    {"outputs": "4"},
    {"outputs": [0]},
    {"outputs": [-1]},
    {"outputs": [4.0]},
    {"outputs": ["4"]},
    {"outputs": [True]},
    {"outputs": [1] * 9},
    {"outputs": [2**31]},
    {"outputs": [2**31 - 1] * 8},
    {"outputs": [2**30, 2**30]},
    {"outputs": {"4": 4}},
    {"width": 16},
]


@pytest.mark.parametrize("change", HOSTILE, ids=lambda change: str(change)[:40])
def test_a_config_that_no_fit_writes_is_refused(change: dict[str, Any]) -> None:
    for name in CLOSED:
        with torch.device("meta"), pytest.raises(UsageError):
            host().gate(name).build(GateState({**GOOD, **change}))


@pytest.mark.parametrize("name", CLOSED)
def test_a_config_that_lacks_something_is_refused(name: str) -> None:
    for missing in GOOD:
        config = {key: value for key, value in GOOD.items() if key != missing}
        with pytest.raises(UsageError, match=f"needs a value for '{missing}'"):
            host().gate(name).build(GateState(config))


@pytest.mark.parametrize("name", CLOSED)
def test_a_config_that_a_fit_may_write_is_built(name: str) -> None:
    module = host().gate(name).build(GateState(GOOD))
    assert {key: tuple(tensor.shape) for key, tensor in module.state_dict().items()} == {"weights": (2, 2, 4)}


# -- saved fusions -------------------------------------------------------------------------------------------------

Fuse = Callable[..., Composition]


@pytest.fixture
def fuse(library: Path, tiny: Path, few_samples: None) -> Fuse:
    """Composes `one` and `eight` (or others) with few samples into a library of its own."""

    def make(*refs: str, gate: str = "interference", **given: Any) -> Composition:
        options = {"samples": 16, **given.pop("options", {})} if gate != "uniform" else {}
        return compose(*(refs or ("one", "eight")), gate=gate, options=options, library=[library, tiny], **given)

    return make


def windows(n: int = 6, omega: float = 1.2) -> Tensor:
    inputs = cyclotron().sample(n, generator=stream(0, "closed"), omega=omega).inputs
    assert isinstance(inputs, Tensor)
    return inputs


@pytest.mark.parametrize(("name", "options"), CONVEX + FREE, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_reloaded_fusion_is_the_weighted_sum_of_its_members(
    fuse: Fuse, library: Path, one: Cassette, eight: Cassette, name: str, options: dict[str, Any], dtype: torch.dtype
) -> None:
    made = fuse(gate=name, options=options).cassette
    loaded = gk.load(made.manifest.ref, library=library)
    gate = host().gate(name).build(GateState(made.manifest.architecture.config["gate"]["config"]))
    assert isinstance(gate, Knots)
    gate.load_state_dict({"weights": made.tensors["gate.weights"]})
    for omega in (0.3, 0.85, 1.2, 2.5, 3.9):
        x = windows(omega=omega).to(dtype)
        predictions = torch.stack((one(x), eight(x))).double()
        expected = mix(weights_at(gate, [omega] * 6), predictions)
        found = loaded(x, context={"omega": omega})
        assert found.dtype == dtype
        assert torch.equal(found, made(x, context={"omega": omega}))
        tolerance = 1e-13 if dtype == torch.float64 else 1e-5
        assert float((found.double() - expected).abs().max()) <= tolerance * max(1, float(gate.weights.abs().max()))


def test_a_fusion_reads_its_own_omega(fuse: Fuse) -> None:
    made = fuse().cassette
    x = windows()
    assert not torch.equal(made(x, context={"omega": 0.85}), made(x, context={"omega": 2.5}))
    mixed = made(x, context={"omega": torch.tensor([0.85, 2.5] * 3, dtype=torch.float64)})
    torch.testing.assert_close(mixed[0], made(x, context={"omega": 0.85})[0], rtol=0, atol=1e-14)
    with pytest.raises(Incompatible):
        made(x)


@pytest.mark.parametrize("name", CLOSED)
def test_the_order_in_which_members_are_named_does_not_matter(
    fuse: Fuse, one: Cassette, eight: Cassette, name: str
) -> None:
    here, there = fuse("one", "eight", gate=name), fuse("eight", "one", gate=name)
    for first, second in zip(here.table, there.table, strict=True):
        assert first.weights == pytest.approx(second.weights, rel=1e-9)
        assert first.fused == pytest.approx(second.fused, rel=1e-6)
    x = windows().double()
    torch.testing.assert_close(*(made.cassette(x, context={"omega": 1.2}) for made in (here, there)))


def test_a_changed_byte_of_the_weights_file_is_refused(fuse: Fuse, library: Path) -> None:
    made = fuse().cassette
    file = library / made.manifest.name / "1" / "weights.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.chmod(0o644)
    file.write_bytes(data)
    with pytest.raises(HashMismatch):
        gk.load(made.manifest.ref, library=library)


def changed(made: Cassette, **changes: Any) -> dict[str, Any]:
    """Manifest fields with another config of the gate."""
    config = dict(made.manifest.architecture.config)
    config["gate"] = {**config["gate"], "config": {**config["gate"]["config"], **changes}}
    return {"architecture": replace(made.manifest.architecture, config=config)}


@pytest.mark.parametrize(
    "changes",
    [
        {"knots": [1.0]},
        {"knots": [2.5, 1.8, 1.35, 1.0, 0.85]},
        {"outputs": [4]},
        {"outputs": [2**31 - 1] * 8},
        {"members": 3},
        {"variable": "mass"},
        {"outputs": "4"},
    ],
    ids=str,
)
def test_a_manifest_whose_gate_does_not_fit_is_refused(
    fuse: Fuse, reissue: Reissue, library: Path, changes: dict[str, Any]
) -> None:
    made = fuse().cassette
    with pytest.raises(GrokkitError):
        gk.load(reissue(made, **changed(made, **changes)), library=library)


@pytest.mark.parametrize("outputs", [[3], [1], [2, 2], [4, 4]], ids=str)
def test_a_gate_for_other_outputs_is_refused_when_it_is_used(
    fuse: Fuse, reissue: Reissue, library: Path, outputs: list[int]
) -> None:
    made = fuse().cassette
    tensors = {**made.tensors, "gate.weights": torch.full((5, 2, *outputs), 0.5, dtype=torch.float64)}
    loaded = gk.load(reissue(made, tensors=tensors, **changed(made, outputs=outputs)), library=library)
    with pytest.raises(Incompatible, match="weights of shape"):
        loaded(windows(), context={"omega": 1.2})


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_no_numbers_are_refused(fuse: Fuse, reissue: Reissue, library: Path, value: float) -> None:
    made = fuse().cassette
    tensors = {**made.tensors, "gate.weights": made.tensors["gate.weights"] * value}
    with pytest.raises(BadWeights):
        gk.load(reissue(made, tensors=tensors), library=library)


# -- calibration data ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CLOSED)
def test_provenance_names_the_knots_and_the_data(fuse: Fuse, name: str) -> None:
    gate = fuse(gate=name, seed=5).cassette.manifest.provenance.gate
    assert gate is not None
    assert list(gate["contexts"]) == [{"omega": knot} for knot in KNOTS]
    batches = Calibration(cyclotron(), [], generator=stream(5, "calibration"), dtype=torch.float32)
    for knot in KNOTS:
        batches.draw(16, {"omega": knot})
    assert gate["data"] == batches.digest


def speeds(generator: torch.Generator, n: int, *omegas: float) -> set[float]:
    """The random numbers behind samples: the speed of each, which omega does not change."""
    drawn = [cyclotron().sample(n, generator=generator, omega=omega).inputs for omega in omegas]
    return {speed for inputs in drawn for speed in inputs[:, 0, 2].tolist()}  # type: ignore[index]


def test_calibration_and_test_data_share_no_random_numbers() -> None:
    found = [speeds(stream(0, "calibration"), 256, *KNOTS)]
    found += [speeds(stream(0, "test", row), 20_000, omega) for row, omega in enumerate(TESTS)]
    assert len(set().union(*found)) == sum(map(len, found)) == 5 * 256 + 5 * 20_000
    assert found[0] & speeds(stream(0, "calibration"), 1, 3.0)


def test_digests_of_calibration_and_test_data_differ(fuse: Fuse) -> None:
    digests = [made.cassette.manifest.provenance.gate["data"] for made in (fuse(seed=0), fuse(seed=1))]  # type: ignore[index]
    for seed, path in itertools.product((0, 1), [("test", row) for row in range(5)]):
        batches = Calibration(cyclotron(), [], generator=stream(seed, *path), dtype=torch.float32)
        for knot in KNOTS:
            batches.draw(16, {"omega": knot})
        digests.append(batches.digest)
    assert len(set(digests)) == len(digests)


@pytest.mark.parametrize("omega", [0.8, 2.5])
def test_calibration_at_the_ends_of_the_range_is_admitted(fuse: Fuse, omega: float) -> None:
    made = fuse(calibrate={"omega": [omega]})
    assert made.cassette.manifest.architecture.config["gate"]["config"]["knots"] == [omega]


@pytest.mark.parametrize("omega", [0.0, 0.79, math.nextafter(0.8, 0), math.nextafter(2.5, 3), 2.51, 4.0])
def test_calibration_outside_the_range_of_the_task_is_refused(fuse: Fuse, library: Path, omega: float) -> None:
    with pytest.raises(Incompatible, match=r"calibration context omega = .*; expected from 0.8 to 2.5"):
        fuse(calibrate={"omega": [1.0, omega]})
    assert not list(library.rglob("manifest.json"))


@few
@pytest.mark.parametrize(
    ("values", "code"), [("0.79", 4), ("1,2.51", 4), ("nan", 4), ("1,1", 2), ("1,x", 2), ("1,2", 0)]
)
def test_the_command_line_answers_bad_calibration_contexts_with_exit_codes(
    cli: Cli, library: Path, tiny: Path, values: str, code: int
) -> None:
    folders = ("--library", library, "--library", tiny)
    done = cli("compose", "one", "eight", "--gate", "interference", "--calibrate", f"omega={values}", *folders)
    assert done.code == code
    assert bool(done.err) == (code != 0)
    assert bool(list(library.rglob("manifest.json"))) == (code == 0)


# -- the table -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("knots", "expected"),
    [
        (None, ["interpolated"] * 5),
        ([0.9, 1.5, 2.2], ["fitted", "interpolated", "fitted", "interpolated", "fitted"]),
        ([1.2, 1.6], ["extrapolated", "fitted", "interpolated", "extrapolated", "extrapolated"]),
        ([2.5], ["extrapolated"] * 5),
        (list(TESTS), ["fitted"] * 5),
    ],
    ids=str,
)
def test_the_table_says_where_the_gate_was_fitted(fuse: Fuse, knots: list[float] | None, expected: list[str]) -> None:
    made = fuse(calibrate={"omega": knots} if knots else None)
    assert [row.calibration for row in made.table] == expected
    assert [row.to_json()["calibration"] for row in made.table] == expected
    assert [row.fitted for row in made.table] == [standing == "fitted" for standing in expected]


def test_a_gate_that_reads_no_context_stands_nowhere(fuse: Fuse) -> None:
    made = fuse(gate="uniform")
    assert {row.calibration for row in made.table} == {""}
    assert {row.to_json()["calibration"] for row in made.table} == {None}


def test_standing_is_that_of_the_variable_read() -> None:
    seen = {canonical(place): place for place in ({"omega": 1.0}, {"omega": 2.0})}
    found = [standing({"omega": omega}, seen, "omega") for omega in (0.9, 1.0, 1.5, 2.0, 2.1)]
    assert found == ["extrapolated", "fitted", "interpolated", "fitted", "extrapolated"]
    assert standing({"mass": 1.5}, seen, "omega") == standing({"omega": 1.5}, {}, "omega") == ""


@pytest.fixture(scope="module")
def replicas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library with replicas trained for a few epochs: `one`, `eight` and `other` (1-node)."""
    folder = tmp_path_factory.mktemp("replicas")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        grids = {"one": {}, "eight": {"angular": 4, "radial": 2}, "other": {}}
        for seed, (name, grid) in enumerate(grids.items()):
            gk.train("cyclotron", settings={"epochs": 6, "samples": 512, **grid}, seed=seed, name=name, library=folder)
    return folder


def samples_of(row: int, n: int, omega: float) -> Batch:
    return cyclotron().sample(n, generator=stream(0, "test", row), omega=omega)


@few
@pytest.mark.parametrize("names", [("one", "eight"), ("one", "eight", "other")], ids=str)
def test_the_analysis_is_that_of_the_test_samples(replicas: Path, library: Path, names: tuple[str, ...]) -> None:
    made = compose(*names, gate="simplex", library=[library, replicas])
    for row, line in enumerate(made.table):
        batch = samples_of(row, line.n, line.where["omega"])
        assert isinstance(batch.inputs, Tensor)
        x = batch.inputs.float()
        assert line.analysis is not None
        order = line.analysis.members
        errors = [gk.load(name, library=replicas)(x).double() - batch.targets for name in order]
        for (i, first), (j, second) in itertools.product(enumerate(errors), repeat=2):
            product, gap = (first * second).mean().item(), (first - second).square().mean().item()
            assert line.analysis.covariance[i][j] == pytest.approx(product, rel=1e-9)
            assert line.analysis.disagreement[i][j] == pytest.approx(gap, rel=1e-9, abs=1e-15)
            scale = (first.square().mean() * second.square().mean()).sqrt().item()
            assert line.analysis.correlation[i][j] == pytest.approx(product / scale, rel=1e-9)
            assert line.analysis.covariance[i][i] == pytest.approx(line.members[order[i]], rel=1e-9)
        equal = torch.stack(errors).mean(0).square().mean().item()
        assert line.analysis.uniform == pytest.approx(equal, rel=1e-9)
        own = [error.square().mean().item() for error in errors]
        assert line.analysis.gain == pytest.approx(min(own) - line.fused, rel=1e-6, abs=1e-12)
        best = torch.einsum(
            "m,m...->...", torch.tensor(line.analysis.best_weights, dtype=torch.float64), torch.stack(errors)
        )
        assert line.analysis.best == pytest.approx(best.square().mean().item(), rel=1e-9)
        assert line.analysis.predicted_gain == pytest.approx(min(own) - line.analysis.best, rel=1e-9, abs=1e-15)


@few
def test_the_predicted_gain_of_a_pair_is_the_formula(replicas: Path, library: Path) -> None:
    inside = 0
    for row in compose("one", "eight", gate="interference", library=[library, replicas]).table:
        assert row.analysis is not None
        (c11, c12), (_, c22) = row.analysis.covariance
        best, interaction = min(c11, c22), row.analysis.disagreement[0][1]
        share = 0.5 + (c22 - c11) / (2 * interaction)
        assert row.analysis.free_optimum == pytest.approx(share, rel=1e-9)
        interior = c12 < best
        inside += interior
        expected = (best - c12) ** 2 / interaction if interior else 0.0
        assert row.analysis.predicted_gain == pytest.approx(expected, rel=1e-9, abs=1e-15)
        assert row.analysis.best_weights[0] == pytest.approx(min(1.0, max(0.0, share)), rel=1e-9)
    assert inside > 0


@few
@pytest.mark.parametrize("names", [("one", "eight"), ("one", "eight", "other")], ids=str)
def test_no_convex_gate_of_omega_is_better_than_the_best_fitted_on_test(
    replicas: Path, library: Path, names: tuple[str, ...]
) -> None:
    for gate, options in (("uniform", {}), ("interference", {}), ("simplex", {}), ("spectral", {"steps": 20})):
        for row in compose(*names, gate=gate, options=options, library=[library, replicas]).table:
            assert row.analysis is not None
            assert row.analysis.best <= row.fused * (1 + 1e-6)
            assert row.analysis.best <= min(row.members.values()) * (1 + 1e-12)
            assert row.analysis.gain <= row.analysis.predicted_gain + 1e-6 * row.fused
            if gate == "uniform":
                assert row.analysis.uniform == pytest.approx(row.fused, rel=1e-6)


@few
def test_a_gate_per_output_can_be_better_than_that(replicas: Path, library: Path) -> None:
    made = compose("one", "eight", gate="interference-per-output", options={"free": True}, library=[library, replicas])
    assert any(row.analysis is not None and row.fused < row.analysis.best for row in made.table)


@few
def test_more_than_two_members_have_no_single_free_optimum(replicas: Path, library: Path) -> None:
    made = compose("one", "eight", "other", gate="simplex", library=[library, replicas])
    found = [row.analysis for row in made.table]
    assert all(item is not None and item.free_optimum is None for item in found)
    assert all(item is not None and sum(item.best_weights) == pytest.approx(1, abs=1e-12) for item in found)


@few
def test_the_analysis_is_printed_with_its_label(replicas: Path, library: Path) -> None:
    row = compose("one", "eight", gate="simplex", library=[library, replicas]).table[0].to_json()
    assert set(row["analysis"]) == {
        "members",
        "covariance",
        "disagreement",
        "correlation",
        "best_weights_fitted_on_test",
        "best_fitted_on_test",
        "uniform",
        "free_optimum",
        "predicted_gain",
        "gain",
    }
