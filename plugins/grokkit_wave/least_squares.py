"""Stencils by least squares, where the data are linear in what is sought, and when coefficients may be rounded."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from grokkit_core.errors import UsageError
from grokkit_core.streams import stream
from grokkit_core.task import Batch, Task, tensors_of
from grokkit_core.training.lanes import Lane, LanesRun
from grokkit_core.training.recipe import Recipe, Run, State
from grokkit_wave.law import Wave, design
from grokkit_wave.stencil import ConditionalStencil, Stencil

VALIDATION_FIELDS = 64
SIGMAS = 10.0
"""Standard errors by which a coefficient may miss what it is rounded to."""

ROUNDING = {torch.float64: 1e-12, torch.float32: 3e-7}
"""By which coefficients of order one miss the law after a fit in this precision has arrived, with some room."""

SPARSE = 100
"""Decimals of one length are this many times further apart than the error, or a coefficient could be one by chance."""

DIGITS = 12


def regression(batch: Batch, boundary: str) -> tuple[Tensor, Tensor]:
    """The best kernel "2 3" in float64 and the standard error of each coefficient, rounding included."""
    rows, wanted = design(tensors_of(batch.inputs)[0].double(), boundary), batch.targets.double().reshape(-1)
    if len(rows) <= 6:
        raise UsageError(f"{len(rows)} points for 6 coefficients", expected="more points or fields")
    gram = rows.T @ rows
    kernel = torch.linalg.lstsq(rows, wanted.unsqueeze(1), driver="gelsd").solution.squeeze(1)
    spread = (rows @ kernel - wanted).square().sum() / (len(rows) - 6)
    error = (spread * torch.linalg.pinv(gram, hermitian=True).diagonal().clamp_min(0)).sqrt()
    return kernel.view(2, 3), error.view(2, 3)


def shortest_decimal(value: float, error: float) -> float | None:
    """The shortest decimal within `error`, where it is no coincidence that there is one; None otherwise."""
    for digits in range(DIGITS + 1):
        if 10.0**-digits < SPARSE * error:
            return None
        near = round(value, digits)
        if abs(near - value) <= error:
            return near + 0.0  # no negative zero
    return None


def snapped(weight: Tensor, error: float) -> Tensor | None:
    """All coefficients of a tensor as short decimals in float64; None where one of them is not within `error` of any."""
    found = [shortest_decimal(value, error) for value in weight.double().flatten().tolist()]
    if any(value is None for value in found):
        return None
    return torch.tensor(found, dtype=torch.float64).view_as(weight)


def settled(weight: Tensor, *, snap: bool) -> Tensor:
    """The coefficients to store, in float64: snapped where asked for and possible, else as they were fitted."""
    plain = weight.detach().double()
    found = snapped(plain, ROUNDING[weight.dtype]) if snap else None
    return plain if found is None else found


def one_lam2(task: Task) -> Wave:
    """The task, which must have one lam2; raises `UsageError`."""
    assert isinstance(task, Wave)
    if task.lam2 is None:
        raise UsageError(
            "a stencil of one lam2 for a task whose lam2 is given with each input", expected="--set lam2=..."
        )
    return task


def fields(task: Task, settings: Mapping[str, Any], seed: int, purpose: str, **where: Any) -> Batch:
    """Random fields of the recipe's size, from the stream of this purpose."""
    count = int(settings["fields"]) if purpose == "train" else VALIDATION_FIELDS
    return task.sample(count, generator=stream(seed, purpose), grid=settings["grid"], **where)


class StencilRecipe(Recipe):
    """What the fits of 6 coefficients have in common: random fields, and decimals at the end."""

    def config(self, task: Task, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        """The law's boundary and lam2, and the grid of the fields."""
        law = one_lam2(task)
        return {"boundary": law.boundary, "lam2": law.lam2, "grid": parameters["grid"]}

    def validation(self, task: Task, parameters: Mapping[str, Any], seed: int) -> Batch:
        """Fresh random fields."""
        return fields(task, parameters, seed, "validation")

    def finish(
        self, task: Task, parameters: Mapping[str, Any], config: Mapping[str, Any], module: nn.Module
    ) -> tuple[Mapping[str, Any], Mapping[str, Tensor]]:
        """The coefficients in float64; as short decimals where each is one to the rounding of the fit."""
        assert isinstance(module, Stencil)
        return config, {"weight": settled(module.weight, snap=bool(parameters["snap"]))}

    def summary(self, task: Task, parameters: Mapping[str, Any]) -> str:
        """One line for the manifest."""
        law = one_lam2(task)
        return f"wave stencil at lam2 = {law.lam2:g}, {law.boundary} ends, by {self.spec.id.partition('/')[2]}"


class _Solved(Lane):
    """A fit in closed form: one step."""

    def __init__(self, module: nn.Module, parts: Sequence[Batch]) -> None:
        self._module, self._parts = module, parts
        self._figures: dict[str, Any] = {}

    @abstractmethod
    def solve(self, parts: Sequence[Batch]) -> tuple[Tensor, dict[str, Any]]:
        """The weight, and figures of the fit."""

    def step(self) -> tuple[float, bool]:
        """The fit; the training loss after it."""
        weight, self._figures = self.solve(self._parts)
        self._module.load_state_dict({"weight": weight})
        self.finished = True
        return float(self._figures["training_mse"]), True

    def network(self) -> nn.Module:
        """The network as it is."""
        return self._module

    def figures(self) -> Mapping[str, Any]:
        """How far the raw solution was from what is stored, and its own error."""
        return self._figures

    def state(self) -> State:
        """The weight and the figures."""
        return State({"weight": self._module.state_dict()["weight"]}, {"figures": self._figures})

    def restore(self, state: State) -> None:
        """Go on from there."""
        self._module.load_state_dict(dict(state.tensors))
        self._figures = dict(state.values["figures"])


class _OneFit(_Solved):
    """6 coefficients."""

    def solve(self, parts: Sequence[Batch]) -> tuple[Tensor, dict[str, Any]]:
        """The regression."""
        (batch,) = parts
        boundary = cast(Stencil, self._module).boundary
        kernel, error = regression(batch, boundary)
        return kernel, {"training_mse": _misfit(kernel, batch, boundary), "standard_error": float(error.max())}


class LeastSquares(StencilRecipe):
    """6 coefficients by least squares in float64 on 256 random fields."""

    def start(
        self,
        task: Task,
        parameters: Mapping[str, Any],
        seeds: Sequence[int],
        *,
        dtype: torch.dtype,
        device: torch.device,
    ) -> Run:
        """A run in which each seed is solved by itself."""
        law = one_lam2(task)
        return LanesRun(
            [_OneFit(Stencil(law.boundary).to(device), [fields(law, parameters, seed, "train")]) for seed in seeds]
        )


class _TwoFits(_Solved):
    """K0 and K1 from kernels at two values of lam2."""

    def __init__(self, module: nn.Module, parts: Sequence[Batch], lam2s: Sequence[float], snap: bool) -> None:
        super().__init__(module, parts)
        self._lam2s, self._snap = lam2s, snap

    def solve(self, parts: Sequence[Batch]) -> tuple[Tensor, dict[str, Any]]:
        """Two regressions, solved for K0 + lam2 K1; whole numbers where all are, to their own error."""
        boundary = cast(ConditionalStencil, self._module).boundary
        (first, one), (second, other) = (regression(part, boundary) for part in parts)
        low, high = self._lam2s
        slope = (second - first) / (high - low)
        raw = torch.stack((first - low * slope, slope))
        error = SIGMAS * float((one + other).max()) / abs(high - low) + ROUNDING[torch.float64]
        deviation = float((raw - raw.round()).abs().max())
        whole = self._snap and deviation <= error
        misfit = max(_misfit(kernel, part, boundary) for kernel, part in zip((first, second), parts, strict=True))
        figures = {"training_mse": misfit, "raw_deviation": deviation, "raw_error": error, "rounded": whole}
        return (raw.round() + 0.0 if whole else raw), figures


class Conditional(Recipe):
    """K0 and K1 from least squares at two values of lam2, 64 random fields each, in float64.

    A kernel that is linear in lam2 is known from two of its values. The raw coefficients are rounded to whole numbers only
    if every one lies within its own error of one; how far they were stays in the manifest.
    """

    def config(self, task: Task, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        """The law's boundary."""
        assert isinstance(task, Wave)
        return {"boundary": task.boundary}

    def start(
        self,
        task: Task,
        parameters: Mapping[str, Any],
        seeds: Sequence[int],
        *,
        dtype: torch.dtype,
        device: torch.device,
    ) -> Run:
        """A run in which each seed is solved by itself."""
        law, lam2s = self._law(task, parameters)
        snap = bool(parameters["snap"])
        return LanesRun(
            [
                _TwoFits(
                    ConditionalStencil(law.boundary).to(device),
                    self._parts(law, parameters, seed, "train"),
                    lam2s,
                    snap,
                )
                for seed in seeds
            ]
        )

    def validation(self, task: Task, parameters: Mapping[str, Any], seed: int) -> Batch:
        """Fresh random fields at both values."""
        one, other = self._parts(self._law(task, parameters)[0], parameters, seed, "validation")
        context = {name: torch.cat((one.context[name], other.context[name])) for name in one.context}
        pairs = torch.cat((tensors_of(one.inputs)[0], tensors_of(other.inputs)[0]))
        return Batch(pairs, torch.cat((one.targets, other.targets)), context)

    def finish(
        self, task: Task, parameters: Mapping[str, Any], config: Mapping[str, Any], module: nn.Module
    ) -> tuple[Mapping[str, Any], Mapping[str, Tensor]]:
        """The 12 coefficients."""
        return config, module.state_dict()

    def summary(self, task: Task, parameters: Mapping[str, Any]) -> str:
        """One line for the manifest."""
        law, lam2s = self._law(task, parameters)
        return (
            f"wave stencil for every lam2 and grid, {law.boundary} ends, fitted at lam2 = {lam2s[0]:g} and {lam2s[1]:g}"
        )

    def _law(self, task: Task, parameters: Mapping[str, Any]) -> tuple[Wave, tuple[float, float]]:
        """The law and the two values; raises `UsageError` where they are not two, or the law has only one."""
        assert isinstance(task, Wave)
        lam2s = tuple(float(value) for value in parameters["lam2s"])
        if len(set(lam2s)) != 2 or len(lam2s) != 2:
            raise UsageError(f"lam2s = {list(lam2s)}", expected="two different values")
        if task.lam2 is not None:
            raise UsageError(
                f"a conditional stencil for a task with lam2 = {task.lam2:g}",
                expected="a task whose lam2 is given with each input",
                hint="leave lam2 out, or use wave/least-squares",
            )
        return task, (lam2s[0], lam2s[1])

    def _parts(self, law: Wave, parameters: Mapping[str, Any], seed: int, purpose: str) -> list[Batch]:
        return [
            law.sample(
                int(parameters["fields"]),
                generator=stream(seed, purpose, index),
                grid=parameters["grid"],
                lam2=lam2,
            )
            for index, lam2 in enumerate(self._law(law, parameters)[1])
        ]


def _misfit(kernel: Tensor, batch: Batch, boundary: str) -> float:
    rows = design(tensors_of(batch.inputs)[0].double(), boundary)
    return float((rows @ kernel.reshape(-1) - batch.targets.reshape(-1)).square().mean())
