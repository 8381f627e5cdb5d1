"""Exhaustive certificates: every input of a finite domain once, and one wrong input is enough."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from grokkit_parity.solvers import logits_of
from torch import Tensor

import grokkit_core as gk
from grokkit_core.cassette import Cassette
from grokkit_core.certify.finite import certify_exhaustive, domain_rows, rounds_right
from grokkit_core.errors import UsageError
from grokkit_core.task import Inputs
from grokkit_core.tensors import Signature, TensorSpec
from grokkit_core.training.train import train

TRITS = TensorSpec("trits", axes=("batch", 2), dtypes=("float32",), domain={-1.0, 0.0, 1.0})
BIT = TensorSpec("bit", axes=("batch", 1), dtypes=("uint8",), domain={0.0, 1.0})
OUT = TensorSpec("out", axes=("batch", 1), dtypes=("float32",))


def test_every_input_of_a_domain_comes_once_in_counting_order() -> None:
    rows = domain_rows(Signature([TRITS, BIT], [OUT]), 0, 18, torch.float64)
    found = [(*trits, bit) for trits, (bit,) in zip(rows["trits"].tolist(), rows["bit"].tolist(), strict=True)]
    assert found == [(a, b, c) for (a, b), c in itertools.product(itertools.product((-1, 0, 1), repeat=2), (0, 1))]
    assert (rows["trits"].dtype, rows["bit"].dtype) == (torch.float32, torch.uint8)


@pytest.mark.parametrize("cut", [1, 7, 17])
def test_pieces_of_a_domain_are_the_whole(cut: int) -> None:
    signature = Signature([TRITS, BIT], [OUT])
    whole = domain_rows(signature, 0, 18, torch.float32)
    parts = [domain_rows(signature, *span, torch.float32) for span in ((0, cut), (cut, 18))]
    for name, tensor in whole.items():
        assert torch.equal(torch.cat([part[name] for part in parts]), tensor)


def test_the_margin_of_rounding_is_positive_just_below_one_half() -> None:
    exact = torch.tensor([[0.0, 1.0]] * 3)
    given = torch.tensor([[0.49, 1.0], [0.0, 0.4], [0.0, 1.0]])
    assert [bool(value > 0) for value in rounds_right(given, exact)] == [True, False, True]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Cassette:
    """A parity of three among ten bits: 1,024 inputs."""
    settings = {"n": 10, "support": (1, 4, 8), "steps": 150, "batch": 256, "lr": 1e-2, "hidden": 64}
    return train("parity", settings=settings, library=tmp_path_factory.mktemp("library"))[0].cassette


def margins(predictions: Tensor, exact: Tensor) -> Tensor:
    """Of the right class over the other."""
    return ((predictions[:, 0] - predictions[:, 1]) * (1 - 2 * exact.argmax(1))).double()


def test_a_network_that_is_right_everywhere_is_exact(small: Cassette) -> None:
    found = certify_exhaustive(small.task, small, level="quick", seed=0, margin=margins)
    assert (found.verdict, found.method) == ("exact", "exhaustive")
    assert found.statement.startswith("right on all 1,024 inputs")
    assert found.metrics[-1].name == "least_margin"
    assert found.metrics[-1].n == 1_024
    recorded = {metric.name: metric.value for metric in small.manifest.certificate.metrics}
    assert found.metrics[-1].value == pytest.approx(recorded["margin"], rel=1e-4)


@dataclass
class Altered:
    """The task with the oracle's answer on one input turned round."""

    task: Any
    number: int

    def __getattr__(self, name: str) -> Any:
        return getattr(self.task, name)

    def oracle(self, inputs: Inputs, context: Mapping[str, Tensor]) -> Tensor:
        assert isinstance(inputs, Tensor)
        labels = self.task.oracle(inputs, context).argmax(1)
        weights = 2 ** torch.arange(9, -1, -1)
        return logits_of(torch.where((inputs.long() * weights).sum(1) == self.number, 1 - labels, labels))


@pytest.mark.parametrize("number", [0, 517, 1_023])
def test_one_wrong_input_is_found_wherever_it_is(small: Cassette, number: int) -> None:
    altered: Any = Altered(small.task, number)
    found = certify_exhaustive(altered, small, level="quick", seed=0, margin=margins)
    assert found.verdict == "failed"
    assert found.statement == f"wrong on 1 of 1,024 inputs, first on number {number}"
    assert found.metrics == ()


def test_a_domain_that_is_not_finite_cannot_be_exhausted() -> None:
    cassette = gk.load("cyclotron-1node")
    with pytest.raises(UsageError, match="finite sets of values"):
        certify_exhaustive(cassette.task, cassette, level="quick", seed=0)


def test_a_domain_that_is_too_large_is_refused_before_anything_is_tried() -> None:
    cassette = gk.load("parity-3of64")
    with pytest.raises(UsageError, match="2\\^64"):
        certify_exhaustive(cassette.task, cassette, level="quick", seed=0, margin=margins)
