"""How schemes are found: each recipe hunts for one that passes the exact check, and begins again where none does.

Nothing here knows a right answer. A hunt that fails everywhere is an error, never another scheme in its place.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from grokkit_core.errors import CheckFailed, UsageError
from grokkit_core.streams import stream
from grokkit_core.task import Batch, Task
from grokkit_core.training.lanes import Lane, LanesRun
from grokkit_core.training.recipe import Recipe, Run, State
from grokkit_matmul.discovery import Discovery
from grokkit_matmul.factors import Factors
from grokkit_matmul.gauge import RANK, SQUARE
from grokkit_matmul.hunts import AlsHunt, AttractionHunt, DescentHunt, FlipHunt, Hunt
from grokkit_matmul.scheme import Format, best_known_rank

VALIDATION_SAMPLES = 2_000


class TrainedFactors(nn.Module):
    """A bilinear network with real coefficients, as training leaves it; `found` is set once it is proved."""

    def __init__(self, factors: Factors, dtype: torch.dtype, found: Discovery | None) -> None:
        super().__init__()
        self.u, self.v, self.w = (nn.Parameter(t.to(dtype)) for t in (factors.u, factors.v, factors.w))
        self.found = found

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """ "batch m k" times "batch k n"."""
        products = torch.einsum("rij,bij->br", self.u, a) * torch.einsum("rij,bij->br", self.v, b)
        result: Tensor = torch.einsum("br,rij->bij", products, self.w)
        return result


class SchemeLane(Lane):
    """The hunts of one seed, one after the other."""

    def __init__(self, hunt: Callable[[int], Hunt], restarts: int, dtype: torch.dtype, what: str) -> None:
        self._make, self._restarts, self._dtype, self._what = hunt, restarts, dtype, what
        self.number, self.hunt = 0, hunt(0)
        self.found: Discovery | None = None

    def step(self) -> tuple[float, bool]:
        """A piece of a hunt; at its end the exact check. Raises `CheckFailed` after the last one."""
        loss = self.hunt.advance()
        if not self.hunt.ended:
            return loss, self.hunt.due
        self.found = self.hunt.discovery()
        self.finished = self.found is not None
        if not self.finished:
            self.number += 1
            if self.number >= self._restarts:
                raise CheckFailed(
                    f"{self._what}: none of {self._restarts} hunts ended with an exact scheme",
                    hint="give another seed, more restarts or a higher rank; nothing was saved",
                )
            self.hunt = self._make(self.number)
        return loss, True

    def network(self) -> nn.Module:
        """The best factors so far; those that were proved once there are any."""
        return TrainedFactors(self.found.raw if self.found else self.hunt.factors(), self._dtype, self.found)

    def figures(self) -> Mapping[str, Any]:
        """How many hunts failed before, and whether plain rounding would have been enough."""
        exact = {} if self.found is None else {"naive_rounding_exact": self.found.naive_exact}
        return {"failed_hunts": self.number, **exact}

    def state(self) -> State:
        """The hunt in progress."""
        inner = self.hunt.state()
        return State(inner.tensors, {"number": self.number, "found": self.found is not None, "hunt": inner.values})

    def restore(self, state: State) -> None:
        """Go on with it; a found scheme is found once more."""
        self.number = int(state.values["number"])
        self.hunt = self._make(self.number)
        self.hunt.restore(State(state.tensors, state.values["hunt"]))
        self.found = self.hunt.discovery() if state.values["found"] else None


class SchemeRecipe(Recipe):
    """What the recipes share: the network's config, validation on normal entries, and the tensors of the result."""

    @abstractmethod
    def hunt(self, shape: Format, parameters: Mapping[str, Any], seed: int, number: int) -> Hunt:
        """The hunt of this number, from 0."""

    def rank(self, shape: Format, parameters: Mapping[str, Any]) -> int:
        """As set, or the best known."""
        return int(parameters.get("rank", 0)) or best_known_rank(shape)

    def keeps_raw(self, shape: Format, rank: int) -> bool:
        """Whether there are factors before rounding that are worth keeping."""
        return True

    def start(
        self,
        task: Task,
        parameters: Mapping[str, Any],
        seeds: Sequence[int],
        *,
        dtype: torch.dtype,
        device: torch.device,
    ) -> Run:
        """Seeds in turn."""
        shape = _format(task)
        what = f"{self.spec.id} for {shape} of rank {self.rank(shape, parameters)}"
        return LanesRun([self._lane(shape, parameters, seed, dtype, what) for seed in seeds])

    def _lane(
        self, shape: Format, parameters: Mapping[str, Any], seed: int, dtype: torch.dtype, what: str
    ) -> SchemeLane:
        def hunt(number: int) -> Hunt:
            return self.hunt(shape, parameters, seed, number)

        return SchemeLane(hunt, int(parameters["restarts"]), dtype, what)

    def config(self, task: Task, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        """The sizes of the task and the rank."""
        shape = _format(task)
        rank = self.rank(shape, parameters)
        return {"m": shape.m, "k": shape.k, "n": shape.n, "rank": rank, "raw": self.keeps_raw(shape, rank)}

    def validation(self, task: Task, parameters: Mapping[str, Any], seed: int) -> Batch:
        """2,000 pairs with standard normal entries."""
        return task.sample(VALIDATION_SAMPLES, generator=stream(seed, "validation"), normal=True)

    def finish(
        self, task: Task, parameters: Mapping[str, Any], config: Mapping[str, Any], module: nn.Module
    ) -> tuple[Mapping[str, Any], Mapping[str, Tensor]]:
        """The integers that were proved and, where they are kept, the raw factors and what was done to them."""
        assert isinstance(module, TrainedFactors)
        found = module.found
        if found is None:
            raise CheckFailed(f"{self.spec.id} ended before it had found an exact scheme", hint="nothing was saved")
        tensors = {
            name: torch.from_numpy(factor.astype(np.int8))
            for name, factor in zip("UVW", (found.scheme.u, found.scheme.v, found.scheme.w), strict=True)
        }
        if config["raw"]:
            tensors |= {f"raw.{name.upper()}": tensor.double() for name, tensor in found.raw.named().items()}
            gauge = {"X": found.x, "Y": found.y, "Z": found.z, "scales": found.scales}
            tensors |= {f"gauge.{name}": tensor.double() for name, tensor in gauge.items()}
        return config, tensors

    def summary(self, task: Task, parameters: Mapping[str, Any]) -> str:
        """One line for the manifest."""
        shape = _format(task)
        return f"{shape} matrix product by {self.rank(shape, parameters)} multiplications, found by {self.spec.id}"


def _format(task: Task) -> Format:
    """By the constants of the task: the law's module reaches, through its certificates, what runs a known schedule."""
    return Format(*(int(task.parameters[name]) for name in "mkn"))


class AlternatingLeastSquares(SchemeRecipe):
    """Proximal ALS on the tensor of the product, eight restarts at a time; with `attraction` pulled to integers."""

    citation = ("Smirnov 2013, The bilinear complexity and practical algorithms for matrix multiplication",)

    def hunt(self, shape: Format, parameters: Mapping[str, Any], seed: int, number: int) -> Hunt:
        """A batch of restarts."""
        rank = self.rank(shape, parameters)
        if parameters["attraction"]:
            return AttractionHunt(shape, rank, seed, number)
        if shape != SQUARE or rank > RANK:
            raise UsageError(
                f"recipe {self.spec.id} for {shape} of rank {rank}",
                expected="attraction=true, or recipe flip-graph: only <2,2,2:7> has a gauge that leads to integers",
            )
        return AlsHunt(shape, rank, seed, number)


class SampledDescent(SchemeRecipe):
    """AdamW on sampled products, four restarts at a time; eight slots are pruned to seven halfway, as published."""

    citation = ("grisuno/strass_strassen",)

    def rank(self, shape: Format, parameters: Mapping[str, Any]) -> int:
        """Seven."""
        if shape != SQUARE:
            raise UsageError(f"recipe {self.spec.id} for {shape}", expected="<2,2,2>, whose gauge leads to integers")
        return RANK

    def hunt(self, shape: Format, parameters: Mapping[str, Any], seed: int, number: int) -> Hunt:
        """A stack of restarts."""
        return DescentHunt(shape, RANK, int(parameters["slots"]), seed, number)


class FlipGraphSearch(SchemeRecipe):
    """A random walk over exact schemes from the standard one (Kauers & Moosbauer 2022); no training."""

    citation = ("Kauers & Moosbauer 2022, Flip graphs for matrix multiplication",)

    def hunt(self, shape: Format, parameters: Mapping[str, Any], seed: int, number: int) -> Hunt:
        """A walk."""
        return FlipHunt(shape, self.rank(shape, parameters), parameters["ring"], seed, number)

    def keeps_raw(self, shape: Format, rank: int) -> bool:
        """Only where a gauge takes the scheme that was found to another one."""
        return shape == SQUARE and rank == RANK
