"""How long a prediction can hold: the largest Lyapunov exponent, by the method of Benettin and others (1980)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from grokkit_pendulum.integrators import rk4
from grokkit_pendulum.law import Rods

APART = 1e-7
"""Distance of the twin states after each renormalisation."""

STEP = 0.02
RENORMALISED = 10
"""Steps between renormalisations."""

SECONDS = 40.0
SETTLING = 4.0
"""Time before growth is counted, in which the separation turns to the direction that grows [s]."""

MOST_STATES = 256


def lyapunov_exponents(rods: Rods, states: Tensor, seconds: float = SECONDS) -> Tensor:
    """The largest Lyapunov exponent [1/s] "batch" of the motion from each state "batch 4", over a finite time.

    Twin states 1e-7 apart are integrated together and brought back to that distance every 0.2 s; the exponent is the mean
    rate of growth. Of a regular motion, whose exponent is zero, a finite time T gives about log(T)/T.
    """
    state = states.double().T.contiguous()
    twin = state + APART / 2
    grown = torch.zeros_like(state[0])
    counted = 0.0
    for block in range(math.ceil(seconds / (STEP * RENORMALISED))):
        both = rk4(rods.field, torch.cat((state, twin), 1), STEP * RENORMALISED, RENORMALISED)
        state, twin = both.chunk(2, 1)
        distance = (twin - state).norm(dim=0)
        twin = state + (twin - state) * (APART / distance)
        if (block + 1) * STEP * RENORMALISED > SETTLING:
            grown += torch.log(distance / APART)
            counted += STEP * RENORMALISED
    return grown / counted


def lyapunov_time(rods: Rods, states: Tensor) -> float:
    """The shortest time [s] in which a small error grows e-fold, of these states (at most 256 of them)."""
    fastest = float(lyapunov_exponents(rods, states[:MOST_STATES]).max())
    if math.isnan(fastest):
        return math.nan  # a motion that could not be integrated says nothing
    return 1 / fastest if fastest > 0 else math.inf
