"""Expansion of the published 8-node network: what keeps its function, and what the published expansion was."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch
from grokkit_cyclotron.transfer import Network, duplicate_and_split, identity_copy
from torch import Tensor, nn

from grokkit_core.building import build_module
from grokkit_core.cassette import Cassette
from grokkit_core.plugins import host
from grokkit_core.streams import stream
from grokkit_core.training.train import train

ROUNDING = 5e-6
"""Float32 rounding of outputs of order one, summed over 64 nodes; facts of the cyclotron task, section 5."""

SAMPLES = 4_000
OMEGA = 2.0
GRID = {"angular": 4, "radial": 2}


def network(network: Network) -> nn.Module:
    return build_module(host().architecture("grokkit_cyclotron/topobrain"), *network)


def windows(omega: float = OMEGA, n: int = SAMPLES, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    batch = host().task("cyclotron").sample(n, generator=stream(0, "expansion"), omega=omega)
    assert isinstance(batch.inputs, Tensor)
    return batch.inputs.to(dtype), batch.targets


def untrained(angular: int, radial: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Network:
    config = {"angular": angular, "radial": radial}
    torch.manual_seed(seed)
    module = host().architecture("grokkit_cyclotron/topobrain").build(config).to(dtype)
    return config, {name: tensor + 0.3 * torch.randn_like(tensor) for name, tensor in module.state_dict().items()}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> list[Cassette]:
    """Two 8-node networks after the curriculum."""
    return curriculum(range(2), tmp_path_factory.mktemp("library"))


def curriculum(seeds: Sequence[int], library: Path) -> list[Cassette]:
    return [made.cassette for made in train("cyclotron", recipe="curriculum", seeds=seeds, library=library)]


def parts(cassette: Cassette) -> Network:
    return cassette.manifest.architecture.config, cassette.tensors


def mse(module: nn.Module, omega: float = OMEGA) -> float:
    inputs, targets = windows(omega)
    with torch.inference_mode():
        return (module(inputs).double() - targets).square().mean().item()


def difference(first: nn.Module, second: nn.Module, dtype: torch.dtype = torch.float32) -> float:
    inputs, _ = windows(dtype=dtype)
    with torch.inference_mode():
        return (first(inputs) - second(inputs)).abs().max().item()


def persistence(omega: float = OMEGA) -> float:
    inputs, targets = windows(omega)
    return (inputs[:, -1].double() - targets).square().mean().item()


# -- what keeps the function -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("grid", [(1, 1), (4, 2)])
def test_the_published_expansion_is_the_identity(grid: tuple[int, int]) -> None:
    before = untrained(*grid)
    after = identity_copy(*before)
    assert after[0] == before[0]
    assert difference(network(before), network(after)) == 0.0


@pytest.mark.parametrize("grid", [(1, 1), (4, 2), (3, 5)])
@pytest.mark.parametrize("copies", [2, 8])
def test_duplicate_and_split_keeps_the_function_of_an_untrained_network(grid: tuple[int, int], copies: int) -> None:
    before = untrained(*grid)
    assert difference(network(before), network(duplicate_and_split(*before, copies))) <= ROUNDING


def test_duplicate_and_split_is_exact_to_rounding_in_float64() -> None:
    before = untrained(4, 2, dtype=torch.float64)
    grown = network(duplicate_and_split(*before, 8))
    assert difference(network(before), grown, torch.float64) <= 1e-12


def test_eight_nodes_become_sixty_four(trained: list[Cassette]) -> None:
    grown = duplicate_and_split(*parts(trained[0]), 8)
    module: Any = network(grown)
    assert module.nodes == 64
    assert sum(t.numel() for name, t in grown[1].items() if name.startswith("readout")) == 18_556
    assert difference(network(parts(trained[0])), module) <= ROUNDING


def test_growing_twice_is_growing_by_the_product(trained: list[Cassette]) -> None:
    once = duplicate_and_split(*parts(trained[0]), 8)
    twice = duplicate_and_split(*duplicate_and_split(*parts(trained[0]), 2), 4)
    assert twice[0] == once[0]
    assert all(torch.equal(twice[1][name], tensor) for name, tensor in once[1].items())


def test_growing_leaves_the_source_as_it_was(trained: list[Cassette]) -> None:
    before = {name: tensor.clone() for name, tensor in trained[0].tensors.items()}
    duplicate_and_split(*parts(trained[0]), 8)
    assert all(torch.equal(before[name], tensor) for name, tensor in trained[0].tensors.items())


def test_mixing_of_copies_is_spread_evenly() -> None:
    config, tensors = untrained(4, 2)
    cells: Any = network((config, tensors))
    copies: Any = network(duplicate_and_split(config, tensors, 4))
    spread = torch.kron(cells.mixing(), torch.full((4, 4), 0.25))
    torch.testing.assert_close(copies.mixing(), spread, rtol=0, atol=1e-7)


# -- what does not: the published-style surgeries --------------------------------------------------------------------


def unsplit(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Network:
    """Duplicated, but every copy passes on everything."""
    grown, found = duplicate_and_split(config, tensors, 8)
    return grown, {**found, "readout_in.weight": found["readout_in.weight"] * 8}


def on_larger_grid(tensors: Mapping[str, Tensor], readout: Tensor) -> Network:
    """A true 8 x 8 grid whose 64 nodes are read out by `readout`; the logits are repeated."""
    logits = {
        "angular_logits": tensors["angular_logits"].repeat(2),
        "radial_logits": tensors["radial_logits"].repeat(4),
    }
    return {"angular": 8, "radial": 8}, {**tensors, **logits, "readout_in.weight": readout}


def tiled(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Network:
    return on_larger_grid(tensors, tensors["readout_in.weight"].repeat(1, 8))


def tiled_and_scaled(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Network:
    return on_larger_grid(tensors, tensors["readout_in.weight"].repeat(1, 8) / 8)


def filled_up_at_random(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Network:
    """New readout columns as PyTorch initialises them."""
    kept = tensors["readout_in.weight"]
    bound = (8 * kept.shape[1]) ** -0.5
    new = bound * (2 * torch.rand(kept.shape[0], 7 * kept.shape[1], generator=stream(0, "surgery")) - 1)
    return on_larger_grid(tensors, torch.cat((kept, new), 1))


SURGERIES = (tiled, tiled_and_scaled, filled_up_at_random, unsplit)


@pytest.mark.parametrize("surgery", SURGERIES, ids=lambda surgery: surgery.__name__)
def test_published_style_surgeries_do_not_keep_the_function(
    trained: list[Cassette], surgery: Callable[[Mapping[str, Any], Mapping[str, Tensor]], Network]
) -> None:
    for cassette in trained:
        before, after = network(parts(cassette)), network(surgery(*parts(cassette)))
        assert difference(before, after) > 0.1
        assert mse(after) > 5 * mse(before)


# -- the curriculum --------------------------------------------------------------------------------------------------


def test_the_curriculum_lands_near_the_published_figure_and_loses_to_persistence(trained: list[Cassette]) -> None:
    for cassette in trained:
        assert 0.01 <= mse(network(parts(cassette))) <= 0.04
        assert persistence() < 0.25 * mse(network(parts(cassette)))


def test_the_curriculum_forgets_its_first_frequency(trained: list[Cassette]) -> None:
    assert min(mse(network(parts(cassette)), 0.8) for cassette in trained) > 0.04


def test_a_stage_that_arrives_ends_the_training(library: Path) -> None:
    settings = {"samples": 128, "epochs": 2, "threshold": 1e9}
    (made,) = train("cyclotron", recipe="curriculum", settings=settings, library=library)
    assert made.steps == 4  # an epoch of two steps at the first frequency, one at the second, which suffices


def test_stages_that_do_not_arrive_use_all_their_epochs(library: Path) -> None:
    settings = {"samples": 128, "epochs": 2, "threshold": 0.0}
    (made,) = train("cyclotron", recipe="curriculum", settings=settings, library=library)
    assert made.steps == 3 * 2 * 2


@pytest.mark.acceptance
def test_the_expansion_experiment_over_eight_seeds(library: Path, figure: Callable[..., None]) -> None:
    made = curriculum(range(8), library)
    own = [mse(network(parts(cassette))) for cassette in made]
    copies = [network(identity_copy(*parts(cassette))) for cassette in made]
    same = max(difference(network(parts(c)), copy) for c, copy in zip(made, copies, strict=True))
    grown = max(difference(network(parts(c)), network(duplicate_and_split(*parts(c), 8))) for c in made)
    spread = f"{median(own):.4f} ({min(own):.4f} to {max(own):.4f})"
    figure("expansion, 8 seeds, omega = 2: MSE of the identity copy, median and range", spread, "median .010 to .025")
    figure("expansion: largest difference of outputs, identity copy", f"{same:g}", "0")
    figure("expansion: persistence on the same 4,000 windows", f"{persistence():.5f}", "reported")
    figure("expansion: largest difference of outputs, 8 to 64 nodes by duplicate and split", f"{grown:.1e}", "5e-6")
    forgotten = median(mse(network(parts(cassette)), 0.8) for cassette in made)
    figure("expansion: median MSE at omega = 0.8 after the curriculum", f"{forgotten:.3f}", "reported")
    for surgery in SURGERIES:
        errors = [mse(network(surgery(*parts(cassette)))) for cassette in made]
        figure(
            f"expansion, negative control `{surgery.__name__}`: median MSE and range",
            f"{median(errors):.2f} ({min(errors):.2f} to {max(errors):.2f})",
            "more than 5 x the identity",
        )
        assert all(after > 5 * before for after, before in zip(errors, own, strict=True))
    assert 0.010 <= median(own) <= 0.025
    assert same == 0.0
    assert grown <= ROUNDING
