"""Many seeds at once: a seed's numbers do not depend on who trains beside it, who stops, or where it was resumed."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from grokkit_core.plugins import host
from grokkit_core.specs import settle
from grokkit_core.training.recipe import Run, State

SEEDS = (3, 11, 0, 7, 5)
GRIDS = [(1, 1), (4, 2), (3, 3), (5, 1), (1, 3), (2, 7)]
"""The published two, and some whose mixing matrices are of odd size."""

FEW: Mapping[str, Mapping[str, Any]] = {
    "published": {"samples": 100, "batch": 33},
    "curriculum": {"samples": 70, "epochs": 3, "threshold": 5e-4},
    "generic": {"samples": 32, "adam": 12, "lbfgs": 25},
    "rotor": {"samples": 32},
}
STEPS = {"published": 40, "curriculum": 18, "generic": 37, "rotor": 320}
LONG_STEPS = 20

Settings = Mapping[str, Any]
Numbers = tuple[tuple[float, ...], Mapping[str, Tensor]]


def start(recipe: str, seeds: Sequence[int], settings: Settings, dtype: torch.dtype = torch.float64) -> Run:
    found = host().recipe(f"cyclotron/{recipe}")
    settled = settle(found.spec.parameters, {**FEW[recipe], **settings}, recipe)
    return found.start(host().task("cyclotron"), settled, seeds, dtype=dtype, device=torch.device("cpu"))


def steps(run: Run, count: int) -> list[list[float]]:
    return [list(run.step().losses) for _ in range(count)]


def weights_of(run: Run, index: int) -> Mapping[str, Tensor]:
    return {name: tensor.clone() for name, tensor in run.result()[index].state_dict().items()}


def assert_equal(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], what: object) -> None:
    assert set(found) == set(expected)
    for name, tensor in found.items():
        assert torch.equal(tensor, expected[name]), (what, name)


def written_and_read(state: State) -> State:
    """As a checkpoint keeps it."""
    return State({name: t.clone() for name, t in state.tensors.items()}, json.loads(json.dumps(dict(state.values))))


@functools.cache
def alone(seed: int, grid: tuple[int, int], batch: int, dtype: torch.dtype) -> Numbers:
    """Losses and weights of one seed by itself after a few steps."""
    run = start("published", [seed], {"angular": grid[0], "radial": grid[1], "batch": batch}, dtype)
    losses = steps(run, LONG_STEPS)
    return tuple(loss for (loss,) in losses), weights_of(run, 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("batch", [7, 33])
@pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: f"{grid[0]}x{grid[1]}")
def test_a_seed_among_others_has_the_numbers_that_it_has_alone(
    grid: tuple[int, int], batch: int, dtype: torch.dtype
) -> None:
    run = start("published", SEEDS, {"angular": grid[0], "radial": grid[1], "batch": batch}, dtype)
    losses = steps(run, LONG_STEPS)

    for index, seed in enumerate(SEEDS):
        expected, weights = alone(seed, grid, batch, dtype)
        assert tuple(row[index] for row in losses) == expected, seed
        assert_equal(weights_of(run, index), weights, seed)


@pytest.mark.parametrize("grid", [(1, 1), (4, 2), (3, 3)], ids=lambda grid: f"{grid[0]}x{grid[1]}")
def test_neither_who_stops_nor_a_checkpoint_between_changes_a_seed(grid: tuple[int, int]) -> None:
    settings = {"angular": grid[0], "radial": grid[1]}
    run = start("published", SEEDS, settings, torch.float32)
    for step in range(LONG_STEPS):
        if step == 4:
            run.stop(0)
        if step == 11:
            state = written_and_read(run.state())
            run = start("published", SEEDS, settings, torch.float32)
            run.restore(state)
        if step == 17:
            run.stop(2)
            run.stop(4)
        run.step()

    for index in (1, 3):
        assert_equal(weights_of(run, index), alone(SEEDS[index], grid, 33, torch.float32)[1], SEEDS[index])
    early = start("published", [SEEDS[0]], settings, torch.float32)
    steps(early, 4)
    assert_equal(weights_of(run, 0), weights_of(early, 0), "the one that stopped first")


def test_another_seed_has_other_numbers() -> None:
    """Negative control: equality of the tests before is not that of constants."""
    first, second = (alone(seed, (1, 1), 33, torch.float32) for seed in SEEDS[:2])

    assert first[0] != second[0]
    assert not torch.equal(first[1]["readout_out.weight"], second[1]["readout_out.weight"])


@pytest.mark.parametrize("recipe", ["curriculum", "generic", "rotor"])
def test_seeds_that_are_stepped_in_turn_do_not_meet_either(recipe: str) -> None:
    together = start(recipe, (4, 0), {})
    steps(together, STEPS[recipe])
    for index, seed in enumerate((4, 0)):
        single = start(recipe, [seed], {})
        steps(single, STEPS[recipe])
        assert_equal(weights_of(together, index), weights_of(single, 0), seed)


@pytest.mark.parametrize(
    ("recipe", "settings", "cuts"),
    [
        ("published", {}, (0, 1, 3, 20)),
        ("curriculum", {}, (0, 1, 5, 6, 7, 12, 13)),
        ("generic", {}, (0, 1, 11, 12, 13, 14, 20, 36)),
        ("generic", {"adam": 0, "lbfgs": 37}, (0, 1, 2)),
    ],
    ids=["published", "curriculum", "generic", "L-BFGS from the start"],
)
def test_a_run_goes_on_bit_for_bit_from_any_step(recipe: str, settings: Settings, cuts: Sequence[int]) -> None:
    run, kept = start(recipe, (4, 0), settings), {}
    losses = []
    for step in range(STEPS[recipe]):
        if step in cuts:
            kept[step] = written_and_read(run.state())
        losses.append(list(run.step().losses))

    for cut, state in kept.items():
        again = start(recipe, (4, 0), settings)
        again.restore(state)
        assert steps(again, STEPS[recipe] - cut) == losses[cut:], cut
        for index in range(2):
            assert_equal(weights_of(again, index), weights_of(run, index), cut)


@pytest.mark.parametrize("recipe", sorted(FEW))
def test_a_state_that_was_restored_is_not_changed_by_going_on(recipe: str) -> None:
    """So that one state in memory can start several runs."""
    run = start(recipe, [4], {})
    steps(run, 14)
    state = run.state()
    before = {name: tensor.clone() for name, tensor in state.tensors.items()}
    again = start(recipe, [4], {})
    again.restore(state)
    steps(again, 3)

    assert_equal(state.tensors, before, recipe)
