"""What the cyclotron benchmarks share: networks, data, and the published program as loops."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from grokkit_core.plugins import host
from grokkit_core.specs import settle
from grokkit_core.streams import stream
from grokkit_core.task import Task
from grokkit_core.training.gradient import GradientRecipe
from grokkit_core.training.recipe import Run

GRIDS = {"1-node": (1, 1), "8-node": (4, 2)}
TEST = Path(__file__).resolve().parent.parent / "plugins" / "cyclotron_reference.py"


def reference() -> ModuleType:
    """The loop reference of the tests."""
    name = "cyclotron_reference"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, TEST)
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


def network(grid: tuple[int, int], seed: int) -> nn.Module:
    """A new network on an angular x radial grid."""
    torch.manual_seed(seed)
    return host().architecture("grokkit_cyclotron/topobrain").build({"angular": grid[0], "radial": grid[1]})


def loop_of(module: nn.Module, grid: tuple[int, int]) -> Any:
    """The same network as loops."""
    return reference().LoopNetwork(module.state_dict(), *grid)


def windows(n: int, seed: int) -> Tensor:
    """Windows "n 15 4" in float32 at the training frequency."""
    states = host().task("cyclotron").sample(n, generator=stream(seed, "benchmark"), omega=0.8).inputs
    assert isinstance(states, Tensor)
    return states.float()


def started(grid: tuple[int, int], *seeds: int) -> tuple[GradientRecipe, Task, dict[str, Any], Run]:
    """A training by the published recipe that is about to take its first step."""
    recipe, task = host().recipe("cyclotron/published"), host().task("cyclotron")
    assert isinstance(recipe, GradientRecipe)
    settings = dict(settle(recipe.spec.parameters, {"angular": grid[0], "radial": grid[1]}, "benchmark"))
    run = recipe.start(task, settings, seeds, dtype=torch.float32, device=torch.device("cpu"))
    return recipe, task, settings, run
