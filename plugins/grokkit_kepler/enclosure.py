"""Proved error bounds of the networks of invariants, for every input of their range, by subdivision.

On each cell the residual of (*) (see `orbit.py`) at the network's step is bounded by the mean value theorem: its value at
the centre, plus the sum over inputs of the largest slope times half a side, slopes by interval arithmetic. The slope of
(*) in the step, s, is at least 1 - e, its second derivative, c, at most e; with the limits that hold in the cell, the error
in eccentric anomaly is at most the residual over s, and each Newton step turns a bound x into c/(2 s) x^2. Roundings of the
network's evaluation are counted; those of the Newton steps and of the algebra that follow are not.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from grokkit_core.certify.intervals import Affine, output_box, rounding_margin
from grokkit_kepler.anomaly import Anomaly
from grokkit_kepler.intervals import Interval, outwards, slopes
from grokkit_kepler.on_orbit import OnOrbit
from grokkit_kepler.orbit import residual
from grokkit_kepler.plugin import MOST_ECCENTRIC
from grokkit_kepler.range_check import SLACK

REACH = MOST_ECCENTRIC + SLACK

WIDENED = 1 + 1e-12
"""Cells overlap by this factor, so that rounding leaves no gap between them."""

ELEMENTARY = 32 * torch.finfo(torch.float64).eps
"""What the roundings of features, exponential and residual come to, relative to a step or to an angle of order one."""

CELLS = (16, 16, 8)
"""Of ec, es and n dt, to begin with."""

CELLS_OF_EQUATION = (16, 32)
"""Of e and M, to begin with."""

CLOSE = 1.25
"""Cells are halved until their bound is within this factor of the largest error found at any centre."""

ROUNDS, MOST_CELLS = 8, 2**18
AT_ONCE = 8_192


@dataclass(frozen=True)
class Cells:
    """Boxes: centre and half side of each variable, both "cell variable"."""

    centre: Tensor
    half: Tensor

    def variable(self, index: int) -> Interval:
        """The range of one variable in each cell."""
        return Interval.around(self.centre[:, index], self.half[:, index])

    def kept(self, rows: Tensor) -> Cells:
        """Some of the cells."""
        return Cells(self.centre[rows], self.half[rows])

    def halved(self) -> Cells:
        """Every cell cut in two along each variable."""
        half = self.half / 2 * WIDENED
        corners = itertools.product((-1.0, 1.0), repeat=half.shape[1])
        signs = [torch.tensor(corner, dtype=torch.float64) for corner in corners]
        return Cells(torch.cat([self.centre + sign * half for sign in signs]), half.repeat(len(signs), 1))

    def parts(self) -> Iterator[Cells]:
        """Pieces that fit the processor's memory."""
        for start in range(0, len(self.centre), AT_ONCE):
            rows = slice(start, start + AT_ONCE)
            yield Cells(self.centre[rows], self.half[rows])


SlopeWithin = Callable[[Tensor], tuple[Interval, Interval]]
"""Slope and second derivative of (*) in the step, for steps within a distance "cell" [rad] of the network's."""

Errors = tuple[Tensor, Tensor]
"""Bounds "cell" of the error [rad] after all Newton steps over the cells, and what is found at their centres."""


def on_orbit_bound(module: OnOrbit, *, useful: float = math.inf) -> float:
    """The largest error [rad] in eccentric anomaly of a network of the flow map over its whole range; infinite if unproved.

    One that is seen to exceed `useful` is only bounded coarsely.
    """
    ends = ((-REACH, REACH), (-REACH, REACH), (module.trained.least, module.trained.most))
    return _subdivided(_in_reach(_grid(ends, CELLS)), partial(_flow_errors, module), useful, _in_reach)


def anomaly_bound(module: Anomaly, *, useful: float = math.inf) -> float:
    """The largest error [rad] of a network of Kepler's equation for any M and e in [0, 0.6]; infinite if unproved.

    M from 0 to pi is enough: the network is odd and periodic in it. One that is seen to exceed `useful` is only bounded
    coarsely.
    """
    return _subdivided(
        _grid(((0.0, REACH), (0.0, math.pi)), CELLS_OF_EQUATION), partial(_equation_errors, module), useful
    )


def _subdivided(
    cells: Cells,
    errors: Callable[[Cells], Errors],
    useful: float,
    admitted: Callable[[Cells], Cells] = lambda cells: cells,
) -> float:
    """The largest bound over cells that are halved where it is not close to what is found at centres."""
    proved = found = 0.0
    for count in range(ROUNDS):
        parts = [errors(part) for part in cells.parts()]
        bounds, centres = (
            torch.cat(side).nan_to_num(nan=math.inf, posinf=math.inf) for side in zip(*parts, strict=True)
        )
        found = max(found, centres.max().item())
        far = bounds > CLOSE * found
        many = int(far.sum()) << cells.half.shape[1] > MOST_CELLS
        if count == ROUNDS - 1 or many or found > useful:
            proved = max(proved, bounds.max().item())
            break
        proved = max(proved, bounds[~far].max().item() if not bool(far.all()) else 0.0)
        if not bool(far.any()):
            break
        cells = admitted(cells.kept(far).halved())
    return proved


def _in_reach(cells: Cells) -> Cells:
    """The cells that hold some eccentricity of the range."""
    nearest = (cells.centre[:, :2].abs() - cells.half[:, :2]).clamp_min(0.0)
    return cells.kept(nearest.square().sum(1) <= REACH**2)


def _errors(bound: Tensor, value: Tensor, e: Tensor, steps: int, slope_within: SlopeWithin) -> Errors:
    """Errors [rad] after Newton steps from bounds "cell" of |residual| and its values at centres; e "cell" is the largest.

    Solution and iterates lie within twice the first error of the step, where the limits of slope and curvature are taken.
    """
    slope, curvature = slope_within(2 * bound / (1 - e))
    least, most = torch.maximum(slope.low, 1 - e), torch.minimum(curvature.size(), e)
    error, found = bound / least, value / least
    bend = torch.where(error <= 1, most / (2 * least), e / (2 * (1 - e)))  # Newton's method closes in from there
    for _ in range(steps):
        error, found = bend * error.square(), bend * found.square()
    return error * WIDENED, found


def _flow_errors(module: OnOrbit, cells: Cells) -> Errors:
    """Of the flow map; the variables are ec, es and n dt."""
    ec, es, turn = (cells.variable(index) for index in range(3))
    scale = (1 / MOST_ECCENTRIC, 1 / MOST_ECCENTRIC, 2 / (module.trained.most - module.trained.least))
    values, gradient = _network(module, module.features(*cells.centre.unbind(1)), cells.half, scale)
    step = turn * (-ec + 1.0).reciprocal() * values.exp()
    logarithmic = [gradient[0] + (-ec + 1.0).reciprocal(), gradient[1], gradient[2] + turn.reciprocal()]
    with torch.no_grad():
        middle = module.raw_step(*cells.centre.unbind(1))
    reach = _summed([(step * slope).size() for slope in logarithmic], cells.half)
    slack = step.size() * (_margin(module) + ELEMENTARY)
    step = step.intersected(Interval.around(middle, reach + slack))
    sine, cosine = step.sin(), step.cos()
    steepness = -(ec * cosine) + es * sine + 1.0
    own = (-sine, -cosine + 1.0, Interval.of(middle, -1.0))
    sizes = [(steepness * step * slope + direct).size() for slope, direct in zip(logarithmic, own, strict=True)]
    value = residual(middle, *cells.centre.unbind(1)).abs()
    corner = cells.centre[:, :2].abs() + cells.half[:, :2]
    e = torch.hypot(*corner.unbind(1)).clamp_max(REACH)

    def slope_within(gap: Tensor) -> tuple[Interval, Interval]:
        sine, cosine = _waves(step, gap)
        return -(ec * cosine) + es * sine + 1.0, ec * sine + es * cosine

    return _errors(value + _summed(sizes, cells.half) + 4 * slack, value, e, module.newton, slope_within)


def _equation_errors(module: Anomaly, cells: Cells) -> Errors:
    """Of Kepler's equation; the variables are e and M."""
    e, mean = cells.variable(0), cells.variable(1)
    centre = cells.centre[:, 0], cells.centre[:, 1]
    sine, cosine = mean.sin(), mean.cos()
    features = module.features(centre[1], centre[0])
    widest = torch.maximum(cosine.high - features[:, 1], features[:, 1] - cosine.low)
    half = torch.stack((cells.half[:, 0], widest), 1)
    factor, (by_e, by_cosine) = _network(module, features, half, (2 / MOST_ECCENTRIC, 1.0))
    found = mean + e * sine * factor
    own_slopes = (sine * (factor + e * by_e), e * cosine * factor - e * sine * sine * by_cosine + 1.0)
    with torch.no_grad():
        middle = centre[1] + centre[0] * torch.sin(centre[1]) * module.factor(centre[1], centre[0])
    reach = _summed([slope.size() for slope in own_slopes], cells.half)
    slack = _margin(module) + math.pi * ELEMENTARY
    found = found.intersected(Interval.around(middle, reach + slack))
    steepness = -(e * found.cos()) + 1.0
    direct = (-found.sin(), Interval.of(middle, -1.0))
    sizes = [(steepness * slope + part).size() for slope, part in zip(own_slopes, direct, strict=True)]
    value = residual(middle, centre[0], torch.zeros_like(middle), centre[1]).abs()
    most = (cells.centre[:, 0] + cells.half[:, 0]).clamp_max(REACH)

    def slope_within(gap: Tensor) -> tuple[Interval, Interval]:
        sine, cosine = _waves(found, gap)
        return -(e * cosine) + 1.0, e * sine

    return _errors(value + _summed(sizes, cells.half) + 4 * slack, value, most, module.newton, slope_within)


def _waves(step: Interval, gap: Tensor) -> tuple[Interval, Interval]:
    """Sine and cosine of a step that is known to within `gap`."""
    wide = outwards(step.low - gap, step.high + gap)
    return wide.sin(), wide.cos()


def _network(
    module: OnOrbit | Anomaly, features: Tensor, half: Tensor, scale: Sequence[float]
) -> tuple[Interval, list[Interval]]:
    """The values "cell" of N over the cells, and its slopes by the variables of which features are multiples by `scale`."""
    layers = _affine(module.layers)
    radius = half * torch.tensor(scale, dtype=torch.float64) * WIDENED + ELEMENTARY
    low, high = features - radius, features + radius
    values = output_box(layers, low, high, dtype=torch.float64)
    found = slopes(layers, low, high)
    gradient = [Interval(found.low[:, i], found.high[:, i]) * factor for i, factor in enumerate(scale)]
    return Interval(values[0].squeeze(1), values[1].squeeze(1)), gradient


def _margin(module: OnOrbit | Anomaly) -> float:
    """By how much rounding changes N, anywhere in its range."""
    layers = _affine(module.layers)
    edge = torch.full((1, layers[0].weight.shape[1]), 1.0 + SLACK / MOST_ECCENTRIC * 2, dtype=torch.float64)
    return rounding_margin(layers, -edge, edge, dtype=torch.float64).max().item()


def _affine(network: nn.Sequential) -> list[Affine]:
    """The layers of a tanh network."""
    found = [layer for layer in network if isinstance(layer, nn.Linear)]
    return [
        Affine(layer.weight.detach(), layer.bias.detach(), "identity" if layer is found[-1] else "tanh")
        for layer in found
    ]


def _summed(sizes: Sequence[Tensor], half: Tensor) -> Tensor:
    """sum size x half side "cell", from above."""
    total = sum((size * half[:, index] for index, size in enumerate(sizes)), torch.zeros_like(half[:, 0]))
    return total * WIDENED


def _grid(ranges: Sequence[tuple[float, float]], counts: Sequence[int]) -> Cells:
    """Equal cells that cover a box."""
    axes, sides = [], []
    for (low, high), count in zip(ranges, counts, strict=True):
        side = (high - low) / count
        axes.append(low + side * (torch.arange(count, dtype=torch.float64) + 0.5))
        sides.append(side / 2 * WIDENED)
    centre = torch.tensor(list(itertools.product(*(axis.tolist() for axis in axes))), dtype=torch.float64)
    return Cells(centre, torch.tensor(sides, dtype=torch.float64).expand_as(centre))
