"""The network that stays on the orbit: three invariants in, a step in eccentric anomaly out, exact algebra for the rest.

Whatever the network says, the new state lies on the orbit of the old one: energy and angular momentum are conserved and
the map commutes with rotations, reflections and changes of scale, for any weights. All error is along the orbit.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from grokkit_core.architecture import Architecture
from grokkit_core.cassette import Cassette
from grokkit_core.errors import UsageError
from grokkit_core.tensors import Signature
from grokkit_kepler.orbit import TURN, Orbit, error_bound, moved, newton, orbit_of, solved
from grokkit_kepler.plugin import FLOW, MOST_ECCENTRIC
from grokkit_kepler.range_check import Range


@dataclass(frozen=True)
class OrbitAnswer:
    """The next `state` "batch 4" and what is proved of it, each "batch" in float64, before the rounding of the algebra.

    The step in eccentric anomaly is off by at most `anomaly_error` [rad], hence the position by `position_error` and the
    velocity by `velocity_error` (Euclidean). `iterated` marks states outside the trained range, which were answered by
    Newton's method to convergence and not by the network.
    """

    state: Tensor
    anomaly_error: Tensor
    position_error: Tensor
    velocity_error: Tensor
    iterated: Tensor


class OnOrbitArchitecture(Architecture):
    """`grokkit_kepler/on-orbit`: config `width`, `depth`, `newton`, `mu`, `dt`, `least_turn`, `most_turn`.

    The verb `solve_with_bound` gives an answer with its proved error.
    """

    verbs = ("solve_with_bound",)

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        """The network with PyTorch's default initialisation, in float64."""
        trained = Range(config["mu"], config["dt"], config["least_turn"], config["most_turn"])
        return OnOrbit(config["width"], config["depth"], config["newton"], trained)

    def signature(self, config: Mapping[str, Any]) -> Signature:
        """`state` "batch 4" to `state` "batch 4"."""
        return FLOW

    def check(self, config: Mapping[str, Any]) -> None:
        """The range of n dt is not empty."""
        check_turns(config)

    def constants(self, config: Mapping[str, Any]) -> Sequence[str]:
        """The time step and mu: the network sees them through n dt alone."""
        return ("dt", "mu")

    def check_inputs(
        self, module: nn.Module, inputs: Sequence[Tensor], context: Mapping[str, Tensor], *, force: bool
    ) -> None:
        """Unbound states are always refused; eccentricity and n dt outside the trained range unless forced.

        A forced state is answered by Newton's method to convergence, from the classical start.
        """
        assert isinstance(module, OnOrbit)
        module.trained.check(inputs[0], beyond=force)

    def rollout(
        self, module: nn.Module, inputs: Sequence[Tensor], context: Mapping[str, Tensor]
    ) -> Iterator[Tensor] | None:
        """States from the first one and the sum of all steps: rounding does not add up in energy and angular momentum."""
        assert isinstance(module, OnOrbit)
        return module.rollout(inputs[0])

    def solve_with_bound(self, cassette: Cassette, state: Tensor, *, force: bool = False) -> OrbitAnswer:
        """The next state "batch 4" of each `state` "batch 4" with a proved bound of its error; raises as a call does."""
        answer = cassette.predict(state, force=force)
        module = cassette.module_for(state.dtype)
        assert isinstance(module, OnOrbit)
        with torch.inference_mode():
            orbit = orbit_of(state, module.trained.mu)
            turn = orbit.motion * module.trained.dt
            error = error_bound(module.step(orbit), orbit.ec, orbit.es, turn)
            fastest = orbit.motion * orbit.axis / (1 - orbit.eccentricity)
            return OrbitAnswer(answer, error, orbit.axis * error, fastest * error, ~module.trained.covers(orbit))


class OnOrbit(nn.Module):
    """d = n dt/(1 - ec) exp(N(ec, es, n dt)), then `newton` Newton steps; N is an MLP with tanh. 721 parameters by default."""

    def __init__(self, width: int, depth: int, newton: int, trained: Range) -> None:
        super().__init__()
        self.newton, self.trained = newton, trained
        self.layers = tanh_network(3, width, depth)

    def forward(self, state: Tensor) -> Tensor:
        """The next state "batch 4", computed in float64 and given in the dtype of `state`."""
        orbit = orbit_of(state, self.trained.mu)
        return moved(state.double(), orbit, self.step(orbit)).to(state.dtype)

    def features(self, ec: Tensor, es: Tensor, turn: Tensor) -> Tensor:
        """What the network reads: the invariants brought to [-1, 1], "batch 3"."""
        least, most = self.trained.least, self.trained.most
        return torch.stack((ec / MOST_ECCENTRIC, es / MOST_ECCENTRIC, (2 * turn - (least + most)) / (most - least)), 1)

    def raw_step(self, ec: Tensor, es: Tensor, turn: Tensor) -> Tensor:
        """The network's step in eccentric anomaly "batch" [rad], before any correction."""
        features = self.features(ec, es, turn).to(next(self.parameters()).dtype)
        return turn / (1 - ec) * torch.exp(self.layers(features).squeeze(1).double())

    def step(self, orbit: Orbit) -> Tensor:
        """The step "batch" [rad] after all corrections; to convergence for orbits outside the trained range."""
        ec, es, turn = orbit.ec, orbit.es, orbit.motion * self.trained.dt
        step = self.raw_step(ec, es, turn)
        for _ in range(self.newton):
            step = newton(step, ec, es, turn)
        if torch.compiler.is_compiling():
            return step  # a graph has no way out for orbits beyond the range, which nothing checks there
        covered = self.trained.covers(orbit)
        return step if bool(covered.all()) else torch.where(covered, step, solved(ec, es, turn))

    def rollout(self, state: Tensor) -> Iterator[Tensor]:
        """The states "batch 4" of successive steps, without end."""
        start, first = state.double(), orbit_of(state, self.trained.mu)
        now, total = first, torch.zeros_like(first.axis)
        while True:
            step = self.step(now)
            total = torch.remainder(total + step, TURN)
            sine, cosine = torch.sin(total), torch.cos(total)
            now = Orbit(
                first.axis, first.motion, first.ec * cosine - first.es * sine, first.es * cosine + first.ec * sine
            )
            yield moved(start, first, total).to(state.dtype)


def tanh_network(inputs: int, width: int, depth: int) -> nn.Sequential:
    """An MLP with `depth` hidden layers of `width` tanh units and one output, in float64."""
    sizes = [inputs, *[width] * depth]
    hidden = [
        module
        for entering, leaving in itertools.pairwise(sizes)
        for module in (nn.Linear(entering, leaving, dtype=torch.float64), nn.Tanh())
    ]
    return nn.Sequential(*hidden, nn.Linear(width, 1, dtype=torch.float64))


def check_turns(config: Mapping[str, Any]) -> None:
    """Raise `UsageError` for an empty range of n dt."""
    if not config["least_turn"] < config["most_turn"]:
        raise UsageError(f"n dt from {config['least_turn']:g} to {config['most_turn']:g}", expected="least < most")
