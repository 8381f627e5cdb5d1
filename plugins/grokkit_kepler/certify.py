"""Certificates of the Kepler networks: what is proved for every input of their range, beside sampled figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from grokkit_core.cassette import Cassette
from grokkit_core.certify.bounds import round_up
from grokkit_core.certify.sampled import certify_sampled
from grokkit_core.manifest import Bound, Certificate, Level
from grokkit_core.streams import stream
from grokkit_core.task import tensors_of
from grokkit_kepler.anomaly import Anomaly
from grokkit_kepler.enclosure import anomaly_bound, on_orbit_bound
from grokkit_kepler.equation import KeplerEquation
from grokkit_kepler.law import EITHER, Kepler
from grokkit_kepler.on_orbit import OnOrbit
from grokkit_kepler.orbit import in_words, orbit_of
from grokkit_kepler.plugin import MOST_ECCENTRIC
from grokkit_kepler.quadrature import baselines_at

USEFUL = 0.05
"""A larger bound of an eccentric anomaly [rad] proves nothing worth the word."""

MARGIN = 1.02
"""On recorded bounds: the last bits of another processor may have other cells halved."""

ALGEBRA = (
    "a = 1/(2/|r| - |v|^2/mu), n = sqrt(mu/a^3), ec = 1 - |r|/a, es = r.v/(n a^2)",
    "d = n dt/(1 - ec) exp(N(ec, es, n dt))",
    "{newton}",
    "R = 1 - ec cos d + es sin d, q = 1 - cos d, m = 1 - ec",
    "r' = (1 - q/m) r + (m sin d + es q)/n v",
    "v' = -n sin d/(m R) r + (1 - q/R) v",
)
STEP = "d <- d - (d - ec sin d + es (1 - cos d) - n dt)/(1 - ec cos d + es sin d), {count}"

EQUATION = ("E = M + e sin M N(2 e/0.6 - 1, cos M)", "{newton}")
STEP_OF_EQUATION = "E <- E - (E - e sin E - M)/(1 - e cos E), {count}"

SHARE_SAMPLES = 4_096


def certify_flow(task: Kepler, cassette: Cassette, *, level: Level, seed: int) -> Certificate:
    """A sampled certificate whose baselines are means over the whole distribution, by quadrature."""
    sampled = certify_sampled(task, cassette, level=level, seed=seed)
    found = [
        baseline
        for row, where in enumerate(task.evaluation)
        for baseline in baselines_at(task, where, row, *task.quadrature(where["direction"]), seed)
    ]
    return replace(sampled, baselines=tuple(found))


def certify_on_orbit(task: Kepler, cassette: Cassette, *, level: Level, seed: int) -> Certificate:
    """`bounded` where the error in eccentric anomaly is proved to be small over the whole range, else `estimated`.

    The baseline `classical-start` takes as many Newton steps as the network.
    """
    module = cassette.to("cpu").module_for(torch.float64)
    assert isinstance(module, OnOrbit)
    sampled = certify_flow(task.with_start_steps(module.newton), cassette, level=level, seed=seed)
    proved = "energy and angular momentum conserved, rotations and reflections commute, for any weights"
    beyond = _share_beyond(task, module, seed)
    refused = (
        f"{beyond:.0%} of the task's states lie outside the trained range: refused, or iterated when forced, as here; "
    )
    sampled = replace(
        sampled,
        statement=f"{refused if beyond else ''}{sampled.statement}; {proved}",
        formula=_formula(ALGEBRA, STEP, module.newton),
    )
    bound = MARGIN * on_orbit_bound(module, useful=USEFUL)
    if sampled.verdict == "failed" or bound > USEFUL:
        return sampled
    least, most = module.trained.least, module.trained.most
    return replace(
        sampled,
        verdict="bounded",
        method="interval",
        statement=f"error in eccentric anomaly proved <= {round_up(bound):.1e} rad; {sampled.statement}",
        domain=f"every bound state with e <= {MOST_ECCENTRIC:g} and {least:.4g} <= n dt <= {most:.4g} rad, of any size, "
        "place on the orbit, orientation and direction, before the rounding of the algebra",
        bounds=(
            Bound("anomaly_error", round_up(bound), "rad"),
            Bound("position_error_over_axis", round_up(bound), "1"),
            Bound("velocity_error_over_mean_speed", round_up(bound / (1 - MOST_ECCENTRIC)), "1"),
        ),
    )


def certify_anomaly(task: KeplerEquation, cassette: Cassette, *, level: Level, seed: int) -> Certificate:
    """`bounded` where the error is proved to be small for every M and every e of the range, else `estimated`."""
    module = cassette.to("cpu").module_for(torch.float64)
    assert isinstance(module, Anomaly)
    sampled = replace(
        certify_sampled(task, cassette, level=level, seed=seed),
        baselines=tuple(baselines_at(task, {}, 0, *task.quadrature(), seed)),
        formula=_formula(EQUATION, STEP_OF_EQUATION, module.newton),
    )
    bound = MARGIN * anomaly_bound(module, useful=USEFUL)
    if sampled.verdict == "failed" or bound > USEFUL:
        return sampled
    return replace(
        sampled,
        verdict="bounded",
        method="interval",
        statement=f"error proved <= {round_up(bound):.1e} rad; {sampled.statement}",
        domain=f"every M and 0 <= e <= {MOST_ECCENTRIC:g}, before the rounding of the Newton steps",
        bounds=(Bound("anomaly_error", round_up(bound), "rad"),),
    )


def _formula(lines: tuple[str, ...], step: str, count: int) -> tuple[str, ...]:
    """The lines with the Newton steps in their place, if there are any."""
    filled: Mapping[str, str] = {"newton": step.format(count=in_words(count)) if count else ""}
    return tuple(text for line in lines if (text := line.format(**filled)))


def _share_beyond(task: Kepler, module: OnOrbit, seed: int) -> float:
    """The share of the task's states that a call refuses: none, unless constants were changed after training."""
    batch = task.sample(SHARE_SAMPLES, generator=stream(seed, "range"), direction=EITHER)
    state: Tensor = tensors_of(batch.inputs)[0]
    return 1 - module.trained.covers(orbit_of(state, task.mu)).double().mean().item()
