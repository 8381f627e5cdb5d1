"""What the wave cassette is given: any grid, any stable lam2, and everything else refused with the reason."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import grokkit_core as gk
from grokkit_core.errors import Incompatible


def pair(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.ones(shape or (2, 2, 8), dtype=dtype)


def test_a_lam2_beyond_stability_is_refused_and_forced() -> None:
    cassette = gk.load("wave")
    with pytest.raises(Incompatible, match=r"lam2.*holds 1\.21.*\[0, 1\]") as caught:
        cassette(pair(), context={"lam2": 1.21})
    assert "--force" in str(caught.value)
    assert cassette.predict(pair(), {"lam2": 1.21}, force=True).shape == (2, 8)
    with pytest.raises(Incompatible, match="lam2"):
        list(cassette.rollout(pair(), 3, context={"lam2": 1.21}))
    assert len(list(cassette.rollout(pair(), 3, context={"lam2": 1.21}, force=True))) == 3


def test_each_sample_may_have_a_lam2_of_its_own() -> None:
    cassette = gk.load("wave")
    lam2 = torch.tensor([0.1, 0.9], dtype=torch.float64)
    both = cassette(pair(), context={"lam2": lam2})
    for index, value in enumerate(lam2.tolist()):
        assert torch.equal(both[index], cassette(pair(1, 2, 8), context={"lam2": value})[0])


@pytest.mark.parametrize("grid", [1, 2, 3])
@pytest.mark.parametrize("boundary", ["dirichlet", "periodic"])
def test_the_smallest_grids_work(grid: int, boundary: str, library: Path) -> None:
    (made,) = gk.train("wave", settings={"boundary": boundary}, library=library)
    found = made.cassette(pair(1, 2, grid), context={"lam2": 0.25})
    expected = made.cassette.task.oracle(pair(1, 2, grid), {"lam2": torch.tensor([0.25], dtype=torch.float64)})
    assert torch.equal(found, expected)


@pytest.mark.parametrize(
    ("given", "context", "says"),
    [
        (pair(), {}, "lam2"),
        (pair(), {"lam2": float("nan")}, "NaN"),
        (pair(), {"lam2": [0.1, 0.2, 0.3]}, "shape"),
        (pair(), {"lam2": "half"}, "a number"),
        (pair(2, 8), {"lam2": 0.1}, "axes"),
        (pair(2, 3, 8), {"lam2": 0.1}, "axis 1"),
        (pair(3, 7, 9), {"lam2": 0.1}, "axis 1"),
        (pair(2, 2, 0), {"lam2": 0.1}, "size 0"),
        (pair(dtype=torch.complex128), {"lam2": 0.1}, "complex128"),
        (pair(dtype=torch.float16), {"lam2": 0.1}, "float16"),
        (pair(dtype=torch.int64), {"lam2": 0.1}, "int64"),
        (pair() * float("nan"), {"lam2": 0.1}, "NaN"),
        (pair() * float("inf"), {"lam2": 0.1}, "infinity"),
    ],
    ids=lambda value: str(tuple(value.shape)) if isinstance(value, torch.Tensor) else str(value),
)
def test_what_does_not_fit_is_refused(given: Any, context: Any, says: str) -> None:
    with pytest.raises(Incompatible, match=says):
        gk.load("wave")(given, context=context)


def test_the_command_line_rolls_out_and_reports_the_energy(cli: Callable[..., Any], tmp_path: Path) -> None:
    file = tmp_path / "start.npy"
    np.save(file, np.random.default_rng(0).standard_normal((1, 2, 20)))
    words = ["run", "wave", "--input", file, "--steps", 200]
    found = cli(*words, "--context", "lam2=0.5", "--json")
    assert found.code == 0, found.err
    assert found.json["drift"]["energy"] < 1e-12
    assert found.json["shape"] == [200, 1, 20]
    for context, code in ((["--context", "lam2=1.1"], 4), ([], 4)):
        refused = cli(*words, *context)
        assert refused.code == code
        assert "lam2" in refused.err
    forced = cli(*words, "--context", "lam2=1.1", "--force", "--json")
    assert forced.code == 0
    assert json.loads(forced.out)["drift"]["energy"] is None or forced.json["drift"]["energy"] > 1


def test_a_file_may_bring_its_lam2_along(cli: Callable[..., Any], tmp_path: Path) -> None:
    file = tmp_path / "start.npz"
    np.savez(file, pair=np.random.default_rng(0).standard_normal((2, 2, 9)), lam2=np.array([0.1, 0.7]))
    found = cli("run", "wave", "--input", file, "--steps", 50, "--json")
    assert found.code == 0, found.err
    assert found.json["drift"]["energy"] < 1e-12
