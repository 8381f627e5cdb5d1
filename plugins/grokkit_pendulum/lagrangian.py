"""A Lagrangian over a trigonometric basis, and the flow that it generates.

With phi(d) = (1, cos d, sin d, cos 2d), d = a - b, and the known products of masses and lengths as units,
T = (m1+m2) l1^2 (c . phi) w^2/2 + m2 l1 l2 (k . phi) w z + m2 l2^2 (1 + e . phi') z^2/2,
V = (m1+m2) g l1 (v1 cos a + v2 sin a + v3 cos 2a) + m2 g l2 (v4 cos b + v5 sin b + v6 cos 2b + v7 cos d + v8 sin(a+b)),
phi' being phi without 1. The constant 1 fixes the scale of L, which its equations leave free. In these units the law is
c = (1, 0, 0, 0), k = (0, 1, 0, 0), e = 0, v1 = v4 = -1 and all else 0, whatever the masses and lengths.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from grokkit_core.architecture import Architecture
from grokkit_core.errors import BadWeights, Incompatible
from grokkit_core.tensors import Signature
from grokkit_pendulum.integrators import Field, gauss_legendre, iterated, rk4, stages, substeps
from grokkit_pendulum.law import Rods
from grokkit_pendulum.plugin import SIGNATURE

SIZES = {"upper": 4, "mixed": 4, "lower": 3, "potential": 8}
"""The coefficients c, k, e and v by tensor: 19 numbers."""

LAW = {
    "upper": (1.0, 0.0, 0.0, 0.0),
    "mixed": (0.0, 1.0, 0.0, 0.0),
    "lower": (0.0, 0.0, 0.0),
    "potential": (-1.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 0.0),
}
"""The coefficients of the law."""

DECIMALS = 2
"""Of snapped coefficients, at most."""

RESOLVED = 0.5
"""Largest turn in one step of the integrator [rad] that is answered without being forced; stages then converge."""

Number = Tensor | float
Coefficients = Mapping[str, Sequence[Number]]
"""Coefficients by tensor: numbers, or tensors of no axes where they are fitted."""


class Lagrangian:
    """The equations of motion of coefficients for given rods, on states "4 batch". Terms of coefficient 0.0 cost nothing."""

    def __init__(self, coefficients: Coefficients, rods: Rods) -> None:
        scales = dict(zip(("upper", "mixed", "lower"), rods.inertia, strict=True))
        self._mass = {name: [scale * c for c in coefficients[name]] for name, scale in scales.items()}
        self._mass["lower"].insert(0, rods.inertia[2])
        first, second = rods.weight
        self._first = [first * c for c in coefficients["potential"][:3]]
        self._second = [second * c for c in coefficients["potential"][3:6]]
        self._apart, self._both = (second * c for c in coefficients["potential"][6:])

    def field(self, state: Tensor) -> Tensor:
        """(a', b', w', z') at (a, b, w, z)."""
        a, b, w, z = state
        waves = _Waves(a, b)
        slopes = self._slopes(waves)
        first, second = self._force(waves, slopes, w, z)
        turn = w - z
        first = first - _times(turn, _dot(slopes[:2], (lambda: w, lambda: z)))
        second = second - _times(turn, _dot(slopes[1:], (lambda: w, lambda: z)))
        return torch.stack((w, z, *self._solved(waves, first, second)))

    def canonical_field(self, state: Tensor) -> Tensor:
        """Hamilton's equations: (a', b', p1', p2') at (a, b, p1, p2)."""
        a, b, p, q = state
        waves = _Waves(a, b)
        w, z = self._solved(waves, p, q)
        return torch.stack((w, z, *self._force(waves, self._slopes(waves), w, z)))

    def momenta(self, state: Tensor) -> Tensor:
        """(a, b, p1, p2) of (a, b, w, z): p = M(d) (w, z)."""
        a, b, w, z = state
        upper, mixed, lower = self._masses(_Waves(a, b))
        return torch.stack((a, b, upper * w + mixed * z, mixed * w + lower * z))

    def velocities(self, state: Tensor) -> Tensor:
        """(a, b, w, z) of (a, b, p1, p2)."""
        a, b, p, q = state
        return torch.stack((a, b, *self._solved(_Waves(a, b), p, q)))

    def _masses(self, waves: _Waves) -> list[Number]:
        """M11, M12 and M22."""
        terms = (waves.one, waves.cos_d, waves.sin_d, waves.cos_2d)
        return [_dot(coefficients, terms) for coefficients in self._mass.values()]

    def _solved(self, waves: _Waves, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """M^-1 (first, second)."""
        upper, mixed, lower = self._masses(waves)
        determinant = upper * lower - mixed * mixed
        return (
            (_times(lower, first) - mixed * second) / determinant,
            (_times(upper, second) - mixed * first) / determinant,
        )

    def _slopes(self, waves: _Waves) -> list[Number]:
        """The derivatives of M11, M12 and M22 by d."""
        terms = (waves.minus_sin_d, waves.cos_d, waves.minus_two_sin_2d)
        return [_dot(coefficients[1:], terms) for coefficients in self._mass.values()]

    def _force(self, waves: _Waves, slopes: Sequence[Number], w: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """The derivatives of L by a and by b."""
        kinetic = _dot(slopes, (lambda: w * w / 2, lambda: w * z, lambda: z * z / 2))
        inner = _plus(kinetic, _dot((self._apart,), (waves.sin_d,)))
        common = _dot((self._both,), (waves.minus_cos_of_sum,))
        first = _plus(_dot(self._first, (waves.sin_a, waves.minus_cos_a, waves.two_sin_2a)), common)
        second = _plus(_dot(self._second, (waves.sin_b, waves.minus_cos_b, waves.two_sin_2b)), common)
        return _full(_plus(first, inner), w), _full(second - inner, w)


class _Waves:
    """The basis at angles "batch"; each term when it is asked for, since few coefficients of a snapped law are not zero."""

    def __init__(self, a: Tensor, b: Tensor) -> None:
        self._a, self._b = a, b
        self._d = a - b
        self._cd = torch.cos(self._d)

    def one(self) -> float:
        return 1.0

    def cos_d(self) -> Tensor:
        return self._cd

    def sin_d(self) -> Tensor:
        return torch.sin(self._d)

    def minus_sin_d(self) -> Tensor:
        return -torch.sin(self._d)

    def cos_2d(self) -> Tensor:
        return 2 * self._cd * self._cd - 1

    def minus_two_sin_2d(self) -> Tensor:
        return -4 * torch.sin(self._d) * self._cd

    def sin_a(self) -> Tensor:
        return torch.sin(self._a)

    def minus_cos_a(self) -> Tensor:
        return -torch.cos(self._a)

    def two_sin_2a(self) -> Tensor:
        return 2 * torch.sin(2 * self._a)

    def sin_b(self) -> Tensor:
        return torch.sin(self._b)

    def minus_cos_b(self) -> Tensor:
        return -torch.cos(self._b)

    def two_sin_2b(self) -> Tensor:
        return 2 * torch.sin(2 * self._b)

    def minus_cos_of_sum(self) -> Tensor:
        return -torch.cos(self._a + self._b)


def _dot(coefficients: Sequence[Number], terms: Sequence[Callable[[], Number]]) -> Number:
    """The combination of terms, of which those with the number 0.0 are not computed."""
    found: Number = 0.0
    for coefficient, term in zip(coefficients, terms, strict=True):
        if not _is(coefficient, 0.0):
            found = _plus(found, _times(coefficient, term()))
    return found


def _plus(first: Number, second: Number) -> Number:
    """The sum; nothing is computed where one of them is the number 0.0."""
    if _is(first, 0.0):
        return second
    return first if _is(second, 0.0) else first + second


def _times(first: Number, second: Number) -> Number:
    """The product; nothing is computed where one of them is the number 0.0 or 1.0."""
    if _is(first, 0.0) or _is(second, 0.0):
        return 0.0
    if _is(first, 1.0):
        return second
    return first if _is(second, 1.0) else first * second


def _is(value: Number, number: float) -> bool:
    return not isinstance(value, Tensor) and value == number


def _full(value: Number, like: Tensor) -> Tensor:
    return value if isinstance(value, Tensor) else torch.full_like(like, value)


class Wrapping(Architecture):
    """Networks that set whole turns of the angles aside and add them again."""

    def remarks(self, inputs: Sequence[Tensor]) -> Sequence[str]:
        """That angles were wrapped, where some were."""
        wrapped = int((inputs[0][:, :2].abs() > math.pi).any(1).sum())
        if not wrapped:
            return ()
        return (f"angles of {wrapped} states lie outside one turn: wrapped, and their whole turns added back",)


class LagrangianArchitecture(Wrapping):
    """`grokkit_pendulum/lagrangian`: config `dt`, the constants of the law, `integrator`, `step` and `snapped`."""

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        """A network with small random coefficients, in float64."""
        return LagrangianFlow(config)

    def signature(self, config: Mapping[str, Any]) -> Signature:
        """`state` "batch 4" to `state` "batch 4"."""
        return SIGNATURE

    def constants(self, config: Mapping[str, Any]) -> Sequence[str]:
        """Time step, and longest step of the integrator, of any vector field; masses, lengths and gravity where the law was identified."""
        known = ("m1", "m2", "l1", "l2", "g") if config["snapped"] else ()
        return ("dt", "step", *known)

    def with_constants(
        self, config: Mapping[str, Any], tensors: Mapping[str, Tensor], constants: Mapping[str, Any]
    ) -> Mapping[str, Tensor]:
        """The same coefficients; raises `Incompatible` for other masses where these are not those of the law.

        Coefficients that merely fit one pendulum say nothing of another.
        """
        moved = [name for name in ("m1", "m2", "l1", "l2", "g") if constants.get(name, config[name]) != config[name]]
        if moved and not is_law(tensors):
            raise Incompatible(
                f"other values of {', '.join(moved)} for coefficients that are not those of the law",
                hint="change dt alone, or train on a pendulum with these constants",
            )
        return dict(tensors)

    def check_tensors(self, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Snapped coefficients are decimals of two places at most."""
        for name, tensor in tensors.items() if config["snapped"] else ():
            if not all(round(value, DECIMALS) == value for value in tensor.double().tolist()):
                raise BadWeights(f"tensor '{name}' of a snapped law", expected=f"decimals of {DECIMALS} places at most")

    def check_inputs(
        self, module: nn.Module, inputs: Sequence[Tensor], context: Mapping[str, Tensor], *, force: bool
    ) -> None:
        """Raise `Incompatible` for states that turn further in one step of the integrator than it resolves."""
        assert isinstance(module, LagrangianFlow)
        (state,) = inputs
        fastest = float(state[:, 2:].detach().abs().max()) if len(state) else 0.0
        if not force and fastest * module.inner > RESOLVED:
            raise Incompatible(
                f"a state turns at {fastest:.3g} rad/s, {fastest * module.inner:.2g} rad in one step of the integrator",
                expected=f"at most {RESOLVED:g} rad",
                hint="a cassette with a shorter step: grokkit grow REF --to step=...; or --force",
            )

    def rollout(self, module: nn.Module, inputs: Sequence[Tensor], context: Mapping[str, Tensor]) -> Iterator[Tensor]:
        """The flow in float64, whose canonical variables (of the symplectic integrator) are kept between steps."""
        assert isinstance(module, LagrangianFlow)
        return module.flow(inputs[0])


class LagrangianFlow(nn.Module):
    """`forward` maps states "batch 4" to those after dt: 19 coefficients, and an integrator in between."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.rods, self.dt = Rods.of(config), float(config["dt"])
        self.count = substeps(self.dt, float(config["step"]))
        self.inner = self.dt / self.count
        self.symplectic = config["integrator"] == "gauss-legendre-4"
        for name, size in SIZES.items():
            self.register_parameter(name, nn.Parameter(0.1 * torch.randn(size, dtype=torch.float64)))

    def forward(self, state: Tensor) -> Tensor:
        """The next states "batch 4"; whole turns of the angles are set aside and added again."""
        wrapped, turns = split_turns(state)
        law, moved = self.law(), wrapped.T.contiguous()
        if not self.symplectic:
            return self._method(law.field, moved).T + turns
        canonical = self._method(law.canonical_field, law.momenta(moved))
        return law.velocities(canonical).T + turns

    def flow(self, state: Tensor) -> Iterator[Tensor]:
        """The states "batch 4" after dt, 2 dt, ... in the dtype of the first; integrated in float64."""
        wrapped, turns = split_turns(state.double())
        law, moved = self.law(), wrapped.T.contiguous()
        field = law.canonical_field if self.symplectic else law.field
        moved = law.momenta(moved) if self.symplectic else moved
        while True:
            moved = self._method(field, moved)
            found = law.velocities(moved) if self.symplectic else moved
            yield (found.T + turns).to(state.dtype)

    def law(self) -> Lagrangian:
        """The equations of motion of the coefficients as they are; differentiable by them where they are trained."""

        def values(parameter: nn.Parameter) -> Sequence[Number]:
            trained = parameter.requires_grad and torch.is_grad_enabled()
            as_tensors = trained or torch.compiler.is_compiling()
            numbers: Sequence[Number] = parameter.unbind() if as_tensors else parameter.tolist()
            return numbers

        return Lagrangian({name: values(self.get_parameter(name)) for name in SIZES}, self.rods)

    def unsolved(self, canonical: Tensor) -> float:
        """By how much one more iteration would move a stage value of a step from (a, b, p1, p2) "4 batch"."""
        field = self.law().canonical_field
        found = stages(field, canonical, self.inner)
        moved = iterated(field, canonical, self.inner, *found)
        return self.inner * max(float((new - old).abs().max()) for old, new in zip(found, moved, strict=True))

    def canonical_step(self, canonical: Tensor) -> Tensor:
        """(a, b, p1, p2) "4 batch" after dt, by the configured integrator in these variables."""
        return self._method(self.law().canonical_field, canonical)

    def _method(self, field: Field, state: Tensor) -> Tensor:
        return (gauss_legendre if self.symplectic else rk4)(field, state, self.dt, self.count)


def split_turns(state: Tensor) -> tuple[Tensor, Tensor]:
    """States "batch 4" with angles in [-pi, pi], and the whole turns [rad] that were set aside, zero for velocities."""
    turns = torch.zeros_like(state)
    turns[:, :2] = 2 * math.pi * torch.round(state[:, :2].detach() / (2 * math.pi))
    return state - turns, turns


def is_law(tensors: Mapping[str, Tensor]) -> bool:
    """Whether the coefficients are exactly those of the law."""
    return all(tensors[name].double().tolist() == list(values) for name, values in LAW.items())
