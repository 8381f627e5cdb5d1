"""The vectorised network against the published one as plain loops, and what the published oddities imply."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest
import torch
from grokkit_cyclotron.model import TopoBrain
from grokkit_cyclotron.recipes import OrthogonalAdamW
from torch import Tensor

from grokkit_core.cassette import Cassette
from grokkit_core.plugins import host
from grokkit_core.streams import stream
from grokkit_core.training.train import train

GRIDS = [(1, 1), (4, 2), (1, 2), (3, 3)]
PUBLISHED = [(1, 1), (4, 2)]
SAMPLES = 512

FORWARD = 2e-6
"""Sums of float32 numbers in another order; facts of the cyclotron task, section 7."""

LARGE = 5.0
"""Trained networks give up to 3. With tripled weights they give 12; there rounding is counted in shares of the largest."""

GRADIENT = 1e-6
"""The same for gradients of size one at most."""

GRADIENT_SHARE = 4e-6
"""The same for larger gradients, as a share of the largest: sums over 512 samples that cancel."""

STEPS = 1e-6
"""The same for weights after twenty steps of the optimiser."""

DOUBLE = 1e-12
"""The same in float64, where rounding cannot hide a wrong formula."""

Change = Callable[[TopoBrain], None]


def windows(n: int, seed: int = 0, omega: float = 0.8) -> tuple[Tensor, Tensor]:
    """States "n 15 4" and next states "n 4" in float32."""
    batch = host().task("cyclotron").sample(n, generator=stream(seed, "model"), omega=omega)
    assert isinstance(batch.inputs, Tensor)
    return batch.inputs.float(), batch.targets.float()


def batches(steps: int, dtype: torch.dtype = torch.float32) -> Iterator[tuple[Tensor, Tensor]]:
    for step in range(steps):
        states, target = windows(64, seed=step)
        yield states.to(dtype), target.to(dtype)


def fit(network: TopoBrain, steps: int, lr: float = 0.01) -> TopoBrain:
    """Steps of the published optimiser on batches of 64."""
    optimizer = OrthogonalAdamW(network.parameters(), lr=lr)
    for states, target in batches(steps, network.angular_logits.dtype):
        optimizer.zero_grad()
        (network(states) - target).square().mean().backward()
        optimizer.step()
    return network


@cache
def _network(angular: int, radial: int, steps: int) -> TopoBrain:
    torch.manual_seed(angular + 10 * radial)
    return fit(TopoBrain(angular, radial), steps)


def network(angular: int, radial: int, *, steps: int = 0, scale: float = 1.0) -> TopoBrain:
    """A network after `steps` of training, its weights times `scale`; a fresh copy."""
    made = copy.deepcopy(_network(angular, radial, steps))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(scale)
    return made


@torch.no_grad()
def shifted_to_both_sides_of_zero(made: TopoBrain) -> TopoBrain:
    """The network with phi moved so that half of the samples lie at p < 0."""
    phi = made.encoder(windows(SAMPLES)[0][:, -1])[:, 1]
    made.encoder[-1].bias[1] -= phi.median() + math.pi
    return made


def on_edge(angular: int, half_turns: int) -> float:
    """The float32 angle phi near `half_turns` pi whose position on the grid is a whole or half number of turns exactly."""
    phi = torch.tensor(half_turns * math.pi)
    near = phi * (1 + torch.arange(-2, 3) * torch.finfo(phi.dtype).eps)
    exact = (near + math.pi) / (2 * math.pi) * angular == angular * (half_turns + 1) / 2
    return near[exact][0].item()


@torch.no_grad()
def held_at(made: TopoBrain, log_radius: float, phi: float) -> TopoBrain:
    """The network with logR and phi the same for all samples; vnorm still follows the state."""
    made.encoder[-1].weight[:2] = 0
    made.encoder[-1].bias[:2] = torch.tensor([log_radius, phi])
    return made


def check_equal_to_loop(made: TopoBrain, loop_kind: Callable[..., Callable[[Tensor], Tensor]]) -> None:
    """Outputs and gradients of the network are those of the loop with the same weights."""
    double = made.angular_logits.dtype == torch.float64
    states, target = windows(SAMPLES)
    states, target = states.to(made.angular_logits.dtype), target.to(made.angular_logits.dtype)
    loop = loop_kind(made.state_dict(), made.angular, made.radial)

    expected, found = loop(states), made(states)
    largest = expected.abs().max().item()
    size = largest if largest > LARGE else 1.0
    assert (found - expected).abs().max().item() <= (DOUBLE if double else FORWARD) * size
    with torch.inference_mode():
        assert (made(states) - expected).abs().max().item() <= (DOUBLE if double else FORWARD) * size

    made.zero_grad()
    (found - target).square().mean().backward()
    gradients = loop.gradients((expected - target).square().mean())  # type: ignore[attr-defined]
    size = max(gradient.abs().max().item() for gradient in gradients.values())
    tolerance = GRADIENT if size <= 1 else GRADIENT_SHARE * size
    for name, parameter in made.named_parameters():
        assert parameter.grad is not None
        difference = (parameter.grad - gradients[name]).abs().max().item()
        assert difference <= (DOUBLE * max(size, 1.0) if double else tolerance), name


@pytest.mark.parametrize(("grid", "count"), [((1, 1), 1821), ((4, 2), 3841)])
def test_published_grids_have_the_published_number_of_parameters(grid: tuple[int, int], count: int) -> None:
    assert sum(parameter.numel() for parameter in TopoBrain(*grid).parameters()) == count


@pytest.mark.parametrize("grid", [*GRIDS, (8, 8), (2, 5)], ids=str)
def test_other_grids_grow_the_readout_and_the_logits(grid: tuple[int, int]) -> None:
    nodes = grid[0] * grid[1]
    encoder, node, readout = 795, 612, 12 * nodes * 24 + 24 + 24 * 4 + 4

    found = sum(parameter.numel() for parameter in TopoBrain(*grid).parameters())
    assert found == encoder + node + readout + sum(grid)


def test_mixing_logits_start_at_zero() -> None:
    made = TopoBrain(4, 2)

    assert not made.angular_logits.any()
    assert not made.radial_logits.any()


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("steps", [0, 60], ids=["untrained", "trained"])
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_outputs_and_gradients_are_those_of_the_loop(
    reference: ModuleType, grid: tuple[int, int], steps: int, scale: float
) -> None:
    check_equal_to_loop(network(*grid, steps=steps, scale=scale), reference.LoopNetwork)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_outputs_and_gradients_are_those_of_the_loop_in_float64(
    reference: ModuleType, grid: tuple[int, int], scale: float
) -> None:
    check_equal_to_loop(network(*grid, steps=60, scale=scale).double(), reference.LoopNetwork)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("steps", [0, 60], ids=["untrained", "trained"])
def test_angles_below_zero_are_truncated_as_in_the_loop(
    reference: ModuleType, grid: tuple[int, int], steps: int
) -> None:
    made = shifted_to_both_sides_of_zero(network(*grid, steps=steps, scale=3.0))

    loop = reference.LoopNetwork(made.state_dict(), *grid)
    angles = loop.positions(made.encoder(windows(SAMPLES)[0][:, -1]))[1]
    assert int((angles < 0).sum()) > SAMPLES // 3
    assert int((angles > 0).sum()) > SAMPLES // 3
    check_equal_to_loop(made, reference.LoopNetwork)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("half_turns", [-2, -1, 0, 1, 3])
@pytest.mark.parametrize("log_radius", [0.0, 40.0, -200.0], ids=["inside", "outermost", "innermost"])
def test_positions_on_the_edge_of_a_cell_are_those_of_the_loop(
    reference: ModuleType, grid: tuple[int, int], half_turns: int, log_radius: float
) -> None:
    made = held_at(network(*grid, steps=60), log_radius, on_edge(grid[0], half_turns))

    loop = reference.LoopNetwork(made.state_dict(), *grid)
    radius, angle = (part[0].item() for part in loop.positions(made.encoder(torch.zeros(1, 4))))
    assert angle == grid[0] * (half_turns + 1) / 2
    assert log_radius == 0 or radius in (0, grid[1] - 1)
    check_equal_to_loop(made, reference.LoopNetwork)


class Geometric(TopoBrain):
    """A mutant that reads the grid as it is stored: `kron(I_R, Ahat)`."""

    def mixing(self) -> Tensor:
        a, r = self.angular, self.radial
        swapped = torch.arange(self.nodes).reshape(a, r).T.flatten()
        identity = torch.eye(self.nodes)
        outward = TopoBrain(1, r).mixing() - 2 * torch.eye(r)
        around = super().mixing() - identity - torch.kron(outward, torch.eye(a))
        return identity + around[swapped][:, swapped] + torch.kron(outward, torch.eye(a))


class Weighted(TopoBrain):
    """A mutant that multiplies the code by the weight of the corner."""

    def scatter(self, code: Tensor) -> tuple[Tensor, Tensor]:
        shares = super().scatter(code)[1]
        return shares, shares


class Unmixed(TopoBrain):
    """A mutant without exchange between nodes."""

    def mixing(self) -> Tensor:
        return 3 * torch.eye(self.nodes)


@pytest.mark.parametrize("mutant", [Geometric, Weighted, Unmixed])
def test_a_mutated_network_differs_from_the_loop(reference: ModuleType, mutant: type[TopoBrain]) -> None:
    made = mutant(4, 2)
    made.load_state_dict(network(4, 2, steps=60).state_dict())

    with pytest.raises(AssertionError):
        check_equal_to_loop(made, reference.LoopNetwork)


def test_rounding_down_instead_of_towards_zero_is_noticed(reference: ModuleType) -> None:
    made = shifted_to_both_sides_of_zero(network(4, 2, steps=60, scale=3.0))

    with pytest.raises(AssertionError):
        check_equal_to_loop(made, reference.FloorLoopNetwork)


def test_the_mutant_wiring_is_the_geometric_one(reference: ModuleType) -> None:
    made = Geometric(4, 2)
    loop = reference.LoopNetwork(made.state_dict(), 4, 2)
    around, outwards = loop.neighbours(made.angular_logits), loop.neighbours(made.radial_logits)

    expected = torch.eye(8) + torch.kron(torch.eye(2), around) + torch.kron(outwards, torch.eye(4))
    assert torch.allclose(made.mixing(), expected)
    assert not torch.allclose(TopoBrain(4, 2).mixing(), expected)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_only_the_last_state_matters(grid: tuple[int, int]) -> None:
    states = windows(SAMPLES)[0]
    noisy = torch.cat((torch.randn(SAMPLES, 14, 4, generator=stream(0, "noise")), states[:, 14:]), 1)

    made = network(*grid, steps=60)
    with torch.no_grad():
        assert (made(noisy) - made(states)).abs().max().item() == 0.0
        assert (made(noisy.flip(1)) - made(states)).abs().max().item() > 0.0


@torch.no_grad()
def plain_perceptron(made: TopoBrain, states: Tensor) -> Tensor:
    """The 1-node network as a multilayer perceptron: its node sees [6 z, 3, 0, ...]."""
    code = made.encoder(states[:, -1])
    seen = torch.cat((6 * code, torch.full((len(code), 1), 3.0), torch.zeros(len(code), 8)), 1)
    node = made.node_out(torch.tanh(made.node_in(seen)))
    found: Tensor = made.readout_out(torch.tanh(made.readout_in(node)))
    return found


@pytest.mark.parametrize("steps", [0, 60], ids=["untrained", "trained"])
def test_the_one_node_network_is_a_plain_perceptron_where_p_is_positive(steps: int) -> None:
    made, states = network(1, 1, steps=steps), windows(SAMPLES)[0]

    with torch.no_grad():
        assert bool((made.encoder(states[:, -1])[:, 1] > -math.pi).all())
        assert (made(states) - plain_perceptron(made, states)).abs().max().item() <= FORWARD


@pytest.mark.parametrize("phi", [-math.pi, -3.5], ids=["p = 0", "p < 0"])
def test_the_one_node_network_is_another_perceptron_where_p_is_not_positive(phi: float) -> None:
    made, states = held_at(network(1, 1, steps=60), 0.0, phi), windows(SAMPLES)[0]

    with torch.no_grad():
        assert (made(states) - plain_perceptron(made, states)).abs().max().item() > 1e-3


def gradients(made: TopoBrain) -> dict[str, Tensor]:
    states, target = windows(SAMPLES)
    (made(states) - target).square().mean().backward()
    return {name: parameter.grad for name, parameter in made.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize(
    ("grid", "name"),
    [((4, 2), "radial_logits"), ((1, 2), "radial_logits"), ((1, 1), "radial_logits"), ((1, 1), "angular_logits")],
    ids=str,
)
@pytest.mark.parametrize("steps", [0, 60], ids=["untrained", "trained"])
def test_some_logits_never_have_a_gradient(grid: tuple[int, int], name: str, steps: int) -> None:
    found = gradients(network(*grid, steps=steps))[name]

    assert found.shape == (grid[name == "radial_logits"],)
    assert found.abs().max().item() == 0.0


def test_angular_logits_of_the_eight_node_network_have_a_gradient() -> None:
    assert gradients(network(4, 2, steps=60))["angular_logits"].abs().max().item() > 1e-7


def test_eight_input_columns_of_the_node_network_are_dead() -> None:
    made, states = network(4, 2, steps=60), windows(SAMPLES)[0]
    columns = gradients(made)["node_in.weight"].abs().amax(0)
    assert int((columns == 0).sum()) == 8

    with torch.no_grad():
        before = made(states)
        made.node_in.weight[:, 4:] += 1
        assert torch.equal(made(states), before)


def test_the_optimiser_moves_dead_columns_all_the_same() -> None:
    before, after = network(4, 2), network(4, 2, steps=60)

    assert (after.node_in.weight - before.node_in.weight)[:, 4:].abs().max().item() > 1e-4


LOGITS = 1e-5
"""Gradients of the angular logits start at 1e-7 and are mostly rounding, and the optimiser divides by their size."""


@pytest.mark.parametrize("grid", PUBLISHED, ids=["1-node", "8-node"])
def test_twenty_steps_of_training_are_those_of_the_loop(reference: ModuleType, grid: tuple[int, int]) -> None:
    made = network(*grid)
    loop = reference.LoopNetwork(made.state_dict(), *grid)
    reference.loop_training(loop, reference.LoopOrthogonalAdamW(loop.weights.values()), batches(20), 0.01)

    fit(made, 20)
    for name, tensor in made.state_dict().items():
        tolerance = LOGITS if name == "angular_logits" else STEPS
        assert (tensor - loop.weights[name]).abs().max().item() <= tolerance, name


@pytest.mark.parametrize("grid", [*PUBLISHED, (3, 3)], ids=str)
def test_twenty_steps_of_training_are_those_of_the_loop_in_float64(
    reference: ModuleType, grid: tuple[int, int]
) -> None:
    made = network(*grid).double()
    loop = reference.LoopNetwork(made.state_dict(), *grid)
    optimizer = reference.LoopOrthogonalAdamW(loop.weights.values())
    reference.loop_training(loop, optimizer, batches(20, torch.float64), 0.01)

    fit(made, 20)
    for name, tensor in made.state_dict().items():
        assert (tensor - loop.weights[name]).abs().max().item() <= 1e3 * DOUBLE, name


def test_twenty_steps_without_the_projection_lead_elsewhere(reference: ModuleType) -> None:
    made = network(4, 2)
    loop = reference.LoopNetwork(made.state_dict(), 4, 2)
    reference.loop_training(loop, reference.LoopOrthogonalAdamW(loop.weights.values()), batches(20), 0.01)

    plain = torch.optim.AdamW(made.parameters(), lr=0.01, betas=(0.9, 0.99), eps=1e-8, weight_decay=1e-4)
    for states, target in batches(20):
        plain.zero_grad()
        (made(states) - target).square().mean().backward()
        plain.step()
    differences = [(made.state_dict()[name] - weight).abs().max().item() for name, weight in loop.weights.items()]
    assert max(differences) > 1e-3


def test_an_optimiser_without_gradients_changes_nothing() -> None:
    made = network(1, 1)
    before = copy.deepcopy(made.state_dict())

    OrthogonalAdamW(made.parameters(), lr=0.01).step()
    assert all(torch.equal(tensor, before[name]) for name, tensor in made.state_dict().items())


@pytest.mark.parametrize("count", [0, 1, 3])
def test_small_batches_have_their_shape(count: int) -> None:
    with torch.no_grad():
        assert network(4, 2)(windows(3)[0][:count]).shape == (count, 4)


def test_gradients_reach_the_input_states() -> None:
    states = windows(8)[0].requires_grad_()
    network(4, 2)(states).sum().backward()

    assert states.grad is not None
    assert states.grad[:, -1].abs().min().item() > 0.0
    assert states.grad[:, :-1].abs().max().item() == 0.0


@pytest.fixture
def cassette(library: Path) -> Cassette:
    """A barely trained 8-node cassette."""
    settings = {"angular": 4, "radial": 2, "samples": 128, "epochs": 1}
    return train("cyclotron", settings=settings, library=library)[0].cassette


def test_a_cassette_answers_float64_in_float64_with_cast_weights(cassette: Cassette, reference: ModuleType) -> None:
    states = windows(SAMPLES)[0].double()
    loop = reference.LoopNetwork({name: tensor.double() for name, tensor in cassette.tensors.items()}, 4, 2)

    answer = cassette(states)
    assert answer.dtype == torch.float64
    assert (answer - loop(states)).abs().max().item() <= DOUBLE
    assert (answer - cassette(states.float())).abs().max().item() <= FORWARD


def test_a_float64_call_leaves_the_float32_weights_alone(cassette: Cassette) -> None:
    states = windows(SAMPLES)[0]
    before = cassette(states)

    cassette(states.double())
    assert torch.equal(cassette(states), before)
    assert {tensor.dtype for tensor in cassette.tensors.values()} == {torch.float32}
