"""Closed-form gates over trained replicas of the cyclotron: the acceptance protocols, and the same with two pairs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from grokkit_cyclotron.law import KNOT_OMEGAS, TEST_OMEGAS
from torch import Tensor, nn

import grokkit_core as gk
from grokkit_core.cassette import Cassette
from grokkit_core.certify.compare import NON_INFERIORITY, holm, win_p_value
from grokkit_core.certify.scores import measure
from grokkit_core.fusion.gate import Calibration, GateState
from grokkit_core.fusion.gates import mix
from grokkit_core.fusion.optimum import fit_weights
from grokkit_core.plugins import host
from grokkit_core.streams import stream
from grokkit_core.task import Inputs, Predictor, Task

EIGHT_NODES = {"angular": 4, "radial": 2}
OTHER = 1_000
"""Added to the seeds of 8-node members, so that the members of a pair share no data."""

SAMPLES = 20_000
CALIBRATED = 256
Figure = Callable[..., None]


@dataclass(frozen=True)
class Cell:
    """One fusion of one set of members at one omega, on paired samples."""

    fused: float
    members: tuple[float, ...]
    persistence: float
    p: float

    @property
    def ratio(self) -> float:
        """Fused error over that of the best member."""
        return self.fused / min(self.members)


Column = tuple[Cell, ...]
"""A fusion at the five test omegas."""


def is_non_inferior(column: Column) -> bool:
    return all(cell.ratio <= NON_INFERIORITY == 1.005 for cell in column)


def is_strict(column: Column) -> bool:
    """Below every member at all five omegas."""
    return all(cell.ratio < 1 for cell in column)


def is_significant(column: Column) -> bool:
    """A win at all five omegas by Holm's procedure over paired tests."""
    return all(holm([cell.p for cell in column]))


def worst(columns: Sequence[Column]) -> float:
    return max(cell.ratio for column in columns for cell in column)


def mean(columns: Sequence[Column], pick: Callable[[Cell], float]) -> float:
    return sum(pick(cell) for column in columns for cell in column) / (5 * len(columns))


def cyclotron() -> Task:
    return host().task("cyclotron")


def persistence(inputs: Inputs, context: Mapping[str, Tensor]) -> Tensor:
    assert isinstance(inputs, Tensor)
    return inputs[:, -1]


def weighted(gate: nn.Module, members: Sequence[Predictor]) -> Predictor:
    """The fusion of members by the module of a gate."""

    def predict(inputs: Inputs, context: Mapping[str, Tensor]) -> Tensor:
        predictions = torch.stack([member(inputs, context) for member in members])
        return mix(gate((inputs,), context, predictions), predictions)

    return predict


def constant(weights: Tensor, members: Sequence[Predictor]) -> Predictor:
    """The fusion of members by the same weights "member" everywhere."""

    def predict(inputs: Inputs, context: Mapping[str, Tensor]) -> Tensor:
        predictions = torch.stack([member(inputs, context) for member in members])
        return mix(weights.unsqueeze(1).expand(-1, predictions.shape[1]), predictions)

    return predict


def solved(name: str, members: Sequence[Predictor], omegas: Sequence[float], seed: int) -> nn.Module:
    """The module of a closed-form gate, fitted as `compose` does it."""
    gate = host().gate(name, samples=CALIBRATED)
    places = [{"omega": omega} for omega in omegas]
    batches = Calibration(
        cyclotron(), places, generator=stream(seed, "calibration"), dtype=torch.float32, variable="omega"
    )
    state = gate.fit(members, batches, generator=stream(seed, "gate"))
    module = gate.build(GateState(state.config))
    module.load_state_dict(dict(state.tensors))
    return module


def measured(
    members: Sequence[Predictor], fusions: Mapping[str, Callable[[float], Predictor]], seed: int, n: int = SAMPLES
) -> dict[str, Column]:
    """Fusions (by omega) and their members on the same test samples."""
    table: dict[str, list[Cell]] = {name: [] for name in fusions}
    for row, omega in enumerate(TEST_OMEGAS):
        everyone = {f"member {k}": member for k, member in enumerate(members)}
        everyone |= {name: make(omega) for name, make in fusions.items()}
        scores = measure(cyclotron(), everyone, row, n=n, seed=seed, dtype=torch.float32)
        rivals = {name: errors for name, errors in scores.errors.items() if name.startswith("member ")}
        for name in fusions:
            cell = Cell(
                scores.mean(name),
                tuple(scores.mean(rival) for rival in rivals),
                scores.mean("baseline:persistence"),
                win_p_value(scores.errors[name], rivals),
            )
            table[name].append(cell)
    return {name: tuple(cells) for name, cells in table.items()}


def always(predictor: Predictor) -> Callable[[float], Predictor]:
    return lambda omega: predictor


def of_pair(one: Cassette, eight: Cassette, seed: int) -> dict[str, Column]:
    """The gates of two members: calibrated on the test omegas, at the default knots, per output; and controls."""
    members = [one.predict, eight.predict]
    fusions = {
        "calibrated there": weighted(solved("interference", members, TEST_OMEGAS, seed), members),
        "held out": weighted(solved("interference", members, KNOT_OMEGAS, seed), members),
        "per output": weighted(solved("interference-per-output", members, TEST_OMEGAS, seed), members),
        "swapped": weighted(solved("interference", members, TEST_OMEGAS, seed), members[::-1]),
        "first alone": constant(torch.tensor([1.0, 0.0]), members),
    }
    return measured(members, {name: always(fusion) for name, fusion in fusions.items()}, seed)


def of_four(members: Sequence[Cassette], seed: int) -> Column:
    """The simplex over two 1-node and two 8-node members, calibrated on the test omegas."""
    predictors = [member.predict for member in members]
    fused = weighted(solved("simplex", predictors, TEST_OMEGAS, seed), predictors)
    return measured(predictors, {"simplex": always(fused)}, seed)["simplex"]


def with_persistence(members: Sequence[Cassette], seed: int) -> tuple[Column, list[float]]:
    """The simplex over four members and persistence, and the weight of persistence at each omega."""
    predictors = [*(member.predict for member in members), persistence]
    weights = {}
    for index, omega in enumerate(TEST_OMEGAS):
        batch = cyclotron().sample(CALIBRATED, generator=stream(seed, "calibration", index), omega=omega)
        weights[omega] = fit_weights(predictors, batch.to(torch.float32))
    fused = measured(predictors, {"simplex": lambda omega: constant(weights[omega], predictors)}, seed)["simplex"]
    return fused, [weights[omega][-1].item() for omega in TEST_OMEGAS]


def with_exact(rotor: Cassette, one: Cassette, eight: Cassette, seed: int) -> tuple[dict[str, Column], float]:
    """The simplex gate at its default knots and equal weights over an exact member and two others; its least weight."""
    members = [one.predict, rotor.predict, eight.predict]
    module = solved("simplex", members, KNOT_OMEGAS, seed)
    omegas = {"omega": torch.linspace(0, 4, 401, dtype=torch.float64)}
    least = module((), omegas, torch.zeros(3, 401, 4))[1].min().item()
    equal = constant(torch.full((3,), 1 / 3), members)
    return measured(members, {"simplex": always(weighted(module, members)), "equal": always(equal)}, seed), least


def trained(library: Path, name: str, seeds: Sequence[int], **settings: int) -> list[Cassette]:
    made = gk.train("cyclotron", seeds=seeds, settings=settings, name=name, library=library)
    return [item.cassette for item in made]


Pairs = list[tuple[Cassette, Cassette]]


def trained_pairs(folder: Path, count: int) -> Pairs:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(folder / "state"))
        ones = trained(folder, "one", range(count))
        eights = trained(folder, "eight", range(OTHER, OTHER + count), **EIGHT_NODES)
    return list(zip(ones, eights, strict=True))


def trained_rotors(folder: Path, count: int) -> list[Cassette]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(folder / "state"))
        made = gk.train("cyclotron", recipe="rotor", seeds=range(count), name="rotor", library=folder)
    return [item.cassette for item in made]


def fours(pairs: Pairs) -> list[tuple[Cassette, ...]]:
    """Sets of two 1-node and two 8-node members, none of them in two sets."""
    return [(*pairs[k], *pairs[k + 1]) for k in range(0, len(pairs), 2)]


# -- two pairs -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Pairs:
    """The pairs of seeds 0 and 1."""
    return trained_pairs(tmp_path_factory.mktemp("two"), 2)


@pytest.fixture(scope="module")
def columns(two: Pairs) -> list[dict[str, Column]]:
    return [of_pair(one, eight, seed) for seed, (one, eight) in enumerate(two)]


@pytest.mark.parametrize("gate", ["calibrated there", "held out", "per output"])
def test_two_pairs_are_not_inferior_to_their_better_member(columns: list[dict[str, Column]], gate: str) -> None:
    assert all(is_non_inferior(column[gate]) for column in columns)


def test_two_pairs_with_their_weights_exchanged_are_inferior(columns: list[dict[str, Column]]) -> None:
    assert not any(is_non_inferior(column["swapped"]) for column in columns)


def test_weights_of_each_output_win_significantly_everywhere(columns: list[dict[str, Column]]) -> None:
    assert all(is_significant(column["per output"]) and is_strict(column["per output"]) for column in columns)
    assert all(
        there.fused < here.fused
        for column in columns
        for there, here in zip(column["per output"], column["calibrated there"], strict=True)
    )


def test_a_member_does_not_win_against_itself(columns: list[dict[str, Column]]) -> None:
    assert not any(is_significant(column["first alone"]) or is_strict(column["first alone"]) for column in columns)


def test_every_fusion_of_two_replicas_is_worse_than_persistence(columns: list[dict[str, Column]]) -> None:
    cells = [cell for column in columns for name in column for cell in column[name] if name != "per output"]
    assert sum(cell.fused for cell in cells) > 19 * sum(cell.persistence for cell in cells)


def test_four_members_are_better_than_the_best_of_them(two: Pairs, columns: list[dict[str, Column]]) -> None:
    four = of_four(fours(two)[0], 0)
    assert is_strict(four)
    assert all(a.fused < b.fused for a, b in zip(four, columns[0]["calibrated there"], strict=True))


def test_persistence_as_a_member_is_not_spoiled(two: Pairs, columns: list[dict[str, Column]]) -> None:
    column, weights = with_persistence(fours(two)[0], 0)
    assert all(cell.fused <= 1.005 * cell.persistence for cell in column)
    assert min(weights[1:]) > 0.9
    assert not any(cell.fused <= 1.005 * cell.persistence for cell in columns[0]["calibrated there"])


def test_an_exact_member_is_not_spoiled(two: Pairs, tmp_path: Path) -> None:
    found, least = with_exact(trained_rotors(tmp_path, 1)[0], *two[0], 0)
    assert least >= 1 - 1e-6
    assert max(cell.fused for cell in found["simplex"]) <= 2e-14
    assert is_non_inferior(found["simplex"])
    assert min(cell.fused for cell in found["equal"]) > 2e-14


# -- the full protocols --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def twenty(tmp_path_factory: pytest.TempPathFactory) -> Pairs:
    """The pairs of seeds 0 to 19."""
    return trained_pairs(tmp_path_factory.mktemp("twenty"), 20)


@pytest.fixture(scope="module")
def all_columns(twenty: Pairs) -> list[dict[str, Column]]:
    return [of_pair(one, eight, seed) for seed, (one, eight) in enumerate(twenty)]


def report(figure: Figure, what: str, columns: Sequence[Column], count: int, bound: str) -> None:
    figure(what, f"{count} of {len(columns)}", bound)
    figure(f"{what}: worst ratio to the best member", f"{worst(columns):.4f}", "reported")
    fused, strict = mean(columns, lambda cell: cell.fused), sum(map(is_strict, columns))
    figure(f"{what}: mean fused MSE", f"{fused:.4f}", "reported")
    figure(f"{what}: sets strictly below every member at all five omegas", f"{strict} of {len(columns)}", "reported")


@pytest.mark.acceptance
def test_the_closed_form_of_twenty_pairs_is_not_inferior(all_columns: list[dict[str, Column]], figure: Figure) -> None:
    columns = [column["calibrated there"] for column in all_columns]
    count = sum(map(is_non_inferior, columns))
    report(figure, "closed form, clipped, 256 samples at each test omega: pairs not inferior", columns, count, ">= 19")
    assert count >= 19
    exchanged = sum(is_non_inferior(column["swapped"]) for column in all_columns)
    figure("the same with the two weights exchanged (control)", f"{exchanged} of 20", "< 19")
    assert exchanged < 19


@pytest.mark.acceptance
def test_the_default_knots_of_twenty_pairs_are_not_inferior_where_held_out(
    all_columns: list[dict[str, Column]], figure: Figure
) -> None:
    columns = [column["held out"] for column in all_columns]
    count = sum(map(is_non_inferior, columns))
    knots = ", ".join(f"{knot:g}" for knot in KNOT_OMEGAS)
    report(figure, f"closed form at knots {knots}, held-out omegas: pairs not inferior", columns, count, ">= 18")
    assert count >= 18


@pytest.mark.acceptance
def test_weights_of_each_output_win_significantly_in_ten_pairs(
    all_columns: list[dict[str, Column]], figure: Figure
) -> None:
    columns = [column["per output"] for column in all_columns[:10]]
    count = sum(map(is_significant, columns))
    report(figure, "per output, clipped, calibrated on these omegas: significant 5/5", columns, count, "10 of 10")
    assert count == 10


@pytest.mark.acceptance
def test_the_simplex_of_four_members_is_strictly_better(twenty: Pairs, figure: Figure) -> None:
    columns = [of_four(members, seed) for seed, members in enumerate(fours(twenty))]
    count = sum(map(is_strict, columns))
    report(figure, "simplex of four members: sets strictly better at all five omegas", columns, count, ">= 9 of 10")
    assert count >= 9


@pytest.mark.acceptance
def test_persistence_as_a_member_is_spoiled_in_no_set(twenty: Pairs, figure: Figure) -> None:
    found = [with_persistence(members, seed) for seed, members in enumerate(fours(twenty))]
    columns, weights = [column for column, _ in found], [weight for _, weight in found]
    ratio = max(cell.fused / cell.persistence for column in columns for cell in column)
    figure("simplex with persistence: worst ratio to persistence in 50 rows", f"{ratio:.5f}", "<= 1.005")
    first, rest = sum(w[0] for w in weights) / 10, min(min(w[1:]) for w in weights)
    figure("weight of persistence: mean at omega = 0.9, least elsewhere", f"{first:.3f}, {rest:.3f}", "reported")
    assert ratio <= 1.005


@pytest.mark.acceptance
def test_an_exact_member_is_spoiled_in_no_set(twenty: Pairs, tmp_path: Path, figure: Figure) -> None:
    rotors = trained_rotors(tmp_path, 5)
    found = [with_exact(rotor, *twenty[seed], seed) for seed, rotor in enumerate(rotors)]
    largest = max(cell.fused for table, _ in found for cell in table["simplex"])
    least = min(weight for _, weight in found)
    figure("simplex with an exact member, 5 seeds: largest fused MSE (float32)", f"{largest:.1e}", "<= 2e-14")
    figure("simplex with an exact member: 1 - its weight, largest", f"{1 - least:.1e}", "<= 1e-6")
    assert len(found) == 5
    assert largest <= 2e-14
    assert least >= 1 - 1e-6
