"""The leapfrog law of the wave equation in one dimension, its samplers, its energy and its baselines.

u is the field now, v one step earlier, lam2 = (c dt / dx)^2 the squared Courant number. On interior points i = 1..N
u+_i = 2 u_i - v_i + lam2 (u_(i+1) - 2 u_i + u_(i-1)), with ghost values 0 at both ends (dirichlet) or on a ring
(periodic). Stable for lam2 <= 1. A grid of P points *with* ends has N = P - 2 unknowns and dx = 1 / (N + 1).
Source of the trajectories: the public repository grisuno/1d_wave_equation_grokker.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from grokkit_core.certify.sampled import SAMPLES
from grokkit_core.errors import Incompatible, UsageError
from grokkit_core.specs import TaskSpec
from grokkit_core.task import Batch, Inputs, Place, Predictor, Task, tensors_of
from grokkit_wave.plugin import REFERENCE

if TYPE_CHECKING:
    from grokkit_core.cassette import Cassette
    from grokkit_core.manifest import Certificate, Level

Kind = Literal["random", "smooth", "trajectory"]
KINDS = ("random", "smooth", "trajectory")
SIZES = (30, 254, 4094)
"""Interior points of the tables: grids of 32, 256 and 4096 points with their ends."""

OTHER_LAM2S = (0.3, 1.0)
"""Further rows where lam2 is context: within and at the edge of stability."""

FEWEST_SAMPLES = 20
MODES = 5
"""Of smooth fields, with amplitudes that fall as 1/k."""

EARLY = 20
"""States of the trajectory of the published tables."""

MOST_ROWS = 65_536
"""That least squares looks at."""


class Wave(Task):
    """One leapfrog step. Inputs `pair` "batch 2 grid" (u, then v), targets `field` "batch grid", context `lam2`.

    The order of the two channels cannot be seen from the numbers: a swapped pair is a wave that runs backwards.
    """

    training_range: Mapping[str, tuple[float, float]] = {"lam2": (0.0, 1.0)}

    def __init__(self, spec: TaskSpec, **parameters: Any) -> None:
        super().__init__(spec, **parameters)
        given = self.parameters["lam2"]
        if given is not None and not (type(given) in (int, float) and 0 <= given <= 1):
            raise UsageError(
                f"lam2 = {given!r} of task wave",
                expected="a number in [0, 1], above which leapfrog is unstable, or null: given with each input",
            )
        self.lam2 = None if given is None else float(given)
        self.parameters["lam2"] = self.lam2
        self.boundary = str(self.parameters["boundary"])
        own = REFERENCE if self.lam2 is None else self.lam2
        rows: list[Place] = [{"grid": size, "lam2": own} for size in SIZES]
        if self.lam2 is None:
            rows += [{"grid": SIZES[0], "lam2": other} for other in OTHER_LAM2S]
        self.evaluation = (*rows, {"grid": SIZES[1], "lam2": own, "field": "smooth"})
        self.calibration = rows[:1]

    def test_samples(self, level: Level, where: Place) -> int:
        """As many numbers in every row: fewer fields on larger grids."""
        return max(FEWEST_SAMPLES, SAMPLES[level] * SIZES[0] // max(SIZES[0], int(where.get("grid", 32))))

    def sample(
        self,
        n: int,
        *,
        generator: torch.Generator,
        grid: int = 32,
        amplitude: float = 1.0,
        lam2: float | None = None,
        field: Kind = "random",
        ends: bool = False,
        **where: Any,
    ) -> Batch:
        """`n` pairs of fields on `grid` interior points in float64, and the step that follows.

        `field` random: u and v independent standard normal at every point; smooth: u = v, a few modes and a bump, drawn
        for each sample; trajectory: one of the first 20 states of the published demonstration, at this lam2. With `ends`
        (of a trajectory) the grid holds the two end points, which are set to 0 after each step, as published.
        `amplitude` scales all. Raises `UsageError` for settings that the law does not have.
        """
        if where:
            raise UsageError(f"sampler setting '{next(iter(where))}'", expected="grid, amplitude, lam2, field or ends")
        if field not in KINDS or type(grid) is not int or grid < (3 if ends else 1):
            raise UsageError(
                f"a {field} field on {grid} points", expected=f"{' or '.join(KINDS)} on at least 1 (with ends 3)"
            )
        if (ends and field != "trajectory") or (field == "trajectory" and self.boundary != "dirichlet"):
            raise UsageError(
                f"field {field} with ends={ends}, {self.boundary}", expected="ends of a dirichlet trajectory"
            )
        own = self._lam2(lam2)
        context = {"lam2": torch.full((n,), own, dtype=torch.float64)}
        if field == "trajectory":
            pairs, targets = early_states(grid if ends else grid + 2, own)
            which = torch.randint(EARLY, (n,), generator=generator)
            inner = slice(None) if ends else slice(1, -1)
            return Batch(amplitude * pairs[which][..., inner], amplitude * targets[which][..., inner], context)
        if field == "random":
            pairs = torch.randn((n, 2, grid), generator=generator, dtype=torch.float64)
        else:
            pairs = smooth(n, grid, self.boundary, generator).unsqueeze(1).repeat(1, 2, 1)
        pairs = amplitude * pairs
        return Batch(pairs, self.oracle(pairs, context), context)

    def _lam2(self, given: float | None) -> float:
        """The lam2 of a sample: the law's own, or the one that was asked for."""
        if self.lam2 is None:
            wanted = REFERENCE if given is None else float(given)
            if not 0 <= wanted <= 1:
                raise UsageError(f"lam2 = {wanted:g}", expected="a number in [0, 1]: leapfrog is unstable above")
            return wanted
        if given is not None and given != self.lam2:
            raise UsageError(f"lam2 = {given:g} of a task with lam2 = {self.lam2:g}", expected="the task's own")
        return self.lam2

    def oracle(self, inputs: Inputs, context: Mapping[str, Tensor]) -> Tensor:
        """The exact next field "batch grid" in float64. lam2 is the law's own, or stands in the context."""
        u, v = _pair(inputs).double().unbind(1)
        return 2 * u - v + self._courant(context) * laplacian(u, self.boundary)

    def _courant(self, context: Mapping[str, Tensor] | None) -> Tensor:
        """lam2 "batch 1", or one number for all."""
        if self.lam2 is not None:
            return torch.tensor(self.lam2, dtype=torch.float64)
        if not context or "lam2" not in context:
            raise Incompatible("context variable 'lam2' is missing", expected="lam2 [1] in [0, 1]")
        return context["lam2"].double().unsqueeze(1)

    def baselines(self, calibration: Batch) -> Mapping[str, Predictor]:
        """Persistence, extrapolation 2u - v, and least squares on the 6 numbers that the law reads, which finds it."""
        kernel = regressed(_pair(calibration.inputs).double(), calibration.targets.double(), self.boundary)
        return {
            "persistence": lambda pair, context: _pair(pair)[:, 0],
            "extrapolation": lambda pair, context: 2 * _pair(pair)[:, 0] - _pair(pair)[:, 1],
            "least-squares": lambda pair, context: convolved(
                kernel.to(_pair(pair)), padded(_pair(pair), self.boundary)
            ),
        }

    def advance(self, inputs: Inputs, outputs: Tensor) -> Inputs:
        """The predicted field becomes u, u becomes v."""
        return torch.stack((outputs, _pair(inputs)[:, 0]), 1)

    def state(self, inputs: Inputs) -> Tensor:
        """The pair itself: one field alone does not tell how fast it moves."""
        return _pair(inputs)

    def invariants(self, state: Tensor, context: Mapping[str, Tensor] | None = None) -> Mapping[str, Tensor]:
        """The discrete energy, sum (u - v)^2 + lam2 sum (Du)(Dv), D: forward differences including the ghost points."""
        wide = padded(state, self.boundary)
        edges = wide.diff() if self.boundary == "dirichlet" else wide[..., 1:].diff()
        lam2 = self._courant(context).reshape(-1).to(state)
        return {"energy": (state[:, 0] - state[:, 1]).square().sum(1) + lam2 * (edges[:, 0] * edges[:, 1]).sum(1)}

    def certify(self, cassette: Cassette, *, level: Level, seed: int) -> Certificate:
        """A proof for stencils, samples for networks."""
        from grokkit_wave.certify import certify_wave

        return certify_wave(self, cassette, level=level, seed=seed)


def _pair(inputs: Inputs) -> Tensor:
    return tensors_of(inputs)[0]


def padded(fields: Tensor, boundary: str) -> Tensor:
    """Fields "... grid" with one ghost value at each side: "... grid+2"."""
    if boundary == "periodic":
        return torch.cat((fields[..., -1:], fields, fields[..., :1]), -1)
    return torch.nn.functional.pad(fields, (1, 1))


def laplacian(u: Tensor, boundary: str) -> Tensor:
    """u_(i+1) - 2 u_i + u_(i-1) of "... grid", as the difference of differences, which loses least."""
    return padded(u, boundary).diff().diff()


def convolved(kernel: Tensor, wide: Tensor) -> Tensor:
    """sum_(c,j) kernel[c, j] wide[:, c, i+j] with a kernel "2 3" or "batch 2 3": "batch 2 grid+2" to "batch grid"."""
    grid = wide.shape[-1] - 2
    total = kernel[..., 0, 0, None] * wide[:, 0, :grid]
    for channel, shift in ((0, 1), (0, 2), (1, 0), (1, 1), (1, 2)):
        total = torch.addcmul(total, kernel[..., channel, shift, None], wide[:, channel, shift : shift + grid])
    return total


def design(pairs: Tensor, boundary: str) -> Tensor:
    """The 6 numbers that the law reads at each point of pairs "batch 2 grid": "batch*grid 6"."""
    return padded(pairs, boundary).unfold(-1, 3, 1).permute(0, 2, 1, 3).reshape(-1, 6)


def regressed(pairs: Tensor, targets: Tensor, boundary: str) -> Tensor:
    """The kernel "2 3" that fits best, by least squares on at most 65,536 points."""
    rows, wanted = design(pairs, boundary)[:MOST_ROWS], targets.reshape(-1, 1)[:MOST_ROWS]
    solution: Tensor = torch.linalg.lstsq(rows, wanted, driver="gelsd").solution
    return solution.view(2, 3)


def smooth(n: int, grid: int, boundary: str, generator: torch.Generator) -> Tensor:
    """Random smooth fields "n grid": modes with amplitudes N(0, 1)/k that fit the boundary, and a bump somewhere."""
    weights = torch.randn((n, 2 * MODES), generator=generator, dtype=torch.float64)
    height, centre = torch.rand((2, n, 1), generator=generator, dtype=torch.float64).unbind(0)
    k = torch.arange(1, MODES + 1, dtype=torch.float64).unsqueeze(1)
    if boundary == "periodic":
        x = torch.arange(grid, dtype=torch.float64) / grid
        waves = torch.cat((torch.sin(2 * math.pi * k * x) / k, torch.cos(2 * math.pi * k * x) / k))
        return weights @ waves + height * torch.exp(2.5 * (torch.cos(2 * math.pi * (x - centre)) - 1))
    x = torch.arange(1, grid + 1, dtype=torch.float64) / (grid + 1)
    bump = torch.exp(-50 * (x - (0.3 + 0.4 * centre)).square()) * torch.sin(math.pi * x)
    return weights[:, :MODES] @ (torch.sin(math.pi * k * x) / k) + height * bump


def with_ends_step(u: Tensor, v: Tensor, lam2: float) -> Tensor:
    """One step on a grid "... points" with its ends, which are set to 0."""
    new = torch.zeros_like(u)
    new[..., 1:-1] = 2 * u[..., 1:-1] - v[..., 1:-1] + lam2 * u.diff().diff()
    return new


def early_states(points: int, lam2: float) -> tuple[Tensor, Tensor]:
    """The first 20 pairs "20 2 points" of the published demonstration, exp(-50 (x - 1/2)^2) from rest, and what follows."""
    start = torch.exp(-50 * (torch.linspace(0, 1, points, dtype=torch.float64) - 0.5).square())
    start[0] = start[-1] = 0
    states = [start, start]
    for _ in range(EARLY):
        states.append(with_ends_step(states[-1], states[-2], lam2))
    kept = torch.stack(states)
    return torch.stack((kept[1:-1], kept[:-2]), 1), kept[2:]
