"""Which states a network of the flow map answers: bound ones, of the eccentricities and time steps that it was trained on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from grokkit_core.errors import Incompatible
from grokkit_kepler.orbit import Orbit, orbit_of
from grokkit_kepler.plugin import MOST_ECCENTRIC

SLACK = 1e-6
"""By which a state rounded to float32 may leave the range of eccentricities."""

NEARLY_RADIAL = 1e-9
"""An orbit whose eccentricity is this close to 1 runs into the centre, as far as float64 can tell."""

ORDER = "a state is (x, y, vx, vy), in this order"


@dataclass(frozen=True)
class Range:
    """The trained range: e <= 0.6 and n dt from `least` to `most` [rad]."""

    mu: float
    dt: float
    least: float
    most: float

    def covers(self, orbit: Orbit) -> Tensor:
        """Whether each orbit "batch" lies in the range."""
        turn, square = orbit.motion * self.dt, orbit.ec.square() + orbit.es.square()
        return (square <= (MOST_ECCENTRIC + SLACK) ** 2) & (turn >= self.least) & (turn <= self.most)

    def check(self, state: Tensor, *, unbound: bool = False, beyond: bool = False) -> None:
        """Raise `Incompatible` for the first state "batch 4" that is not covered; `unbound` and `beyond` let such pass.

        An orbit that is not bound, or runs into the centre, has no answer here; one that is merely beyond the range
        has another.
        """
        orbit = orbit_of(state, self.mu)
        covered = self.covers(orbit)
        if bool(covered.all()):
            return
        whole = (orbit.axis > 0) & torch.isfinite(orbit.axis) & (orbit.eccentricity < 1 - NEARLY_RADIAL)
        if not unbound:
            _refuse(whole, lambda row: self._unbound(state[row]))
        if not beyond:
            _refuse(covered | ~whole, lambda row: self._beyond(orbit, row))

    def _unbound(self, state: Tensor) -> Incompatible:
        """The error for a state "4" without a bound orbit."""
        shown = ", ".join(f"{value:g}" for value in state.tolist())
        reason = "is not on a bound orbit that stays away from the centre"
        return Incompatible(f"the state ({shown}) {reason}", expected=f"|v|^2/2 < {self.mu:g}/|r|", hint=ORDER)

    def _beyond(self, orbit: Orbit, row: int) -> Incompatible:
        eccentricity, turn = orbit.eccentricity[row].item(), orbit.motion[row].item() * self.dt
        if eccentricity > MOST_ECCENTRIC + SLACK:
            given, expected = f"an orbit of eccentricity {eccentricity:.3g}", f"at most {MOST_ECCENTRIC:g}"
        else:
            given = f"n dt = {turn:.3g} rad (semi-major axis {orbit.axis[row].item():.3g}, dt = {self.dt:g})"
            expected = f"{self.least:.3g} to {self.most:.3g} rad, which was trained"
        return Incompatible(given, expected=expected, hint=f"--force skips this check; {ORDER}")


def _refuse(good: Tensor, error: Callable[[int], Incompatible]) -> None:
    if not bool(good.all()):
        raise error(int(torch.nonzero(~good)[0].item()))
