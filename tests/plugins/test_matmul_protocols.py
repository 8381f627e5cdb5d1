"""Full protocols of matmul: the published network and its enlargement fail where they did; ten seeds from end to end."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from grokkit_matmul.law import SCALES, MatrixProduct
from grokkit_matmul.mlp import Mlp, corner_copy, within
from grokkit_matmul.scheme import scheme_of, slot_set

import grokkit_core as gk
from grokkit_core.cassette import Cassette
from grokkit_core.plugins import host
from grokkit_core.streams import stream
from grokkit_core.task import Batch, tensors_of

pytestmark = pytest.mark.acceptance
FRESH = 10_000
TRAINED_ON = 2
PUBLISHED_SEED = 42
HIDDEN = {4: 512, 8: 1024}
"""Units of the enlarged networks by size of the matrices: larger in every layer, as published."""


def fresh(size: int, scale: float) -> Batch:
    """Pairs that no training has seen, float32."""
    task = host().task("matmul", m=size, k=size, n=size)
    assert isinstance(task, MatrixProduct)
    return task.sample(FRESH, generator=stream(7, "fresh", size, scale), scale=scale).to(torch.float32)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Cassette:
    """The published network, retrained in full."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        (made,) = gk.train("matmul", recipe="mlp", seed=PUBLISHED_SEED, library=tmp_path_factory.mktemp("library"))
    return made.cassette


def test_the_published_network_is_near_where_it_was_trained_and_nowhere_else(
    published: Cassette, figure: Callable[..., None]
) -> None:
    shares = {}
    for scale in SCALES:
        batch = fresh(TRAINED_ON, scale)
        shares[scale] = float(within(published.predict(batch.inputs), batch.targets).double().mean())
    told = " / ".join(f"{share:.2%}" for share in shares.values())
    figure("published MLP, seed 42: fresh samples within 0.1 at scale 1 / 2 / 4", told, ">= 98 % / <= 20 % / <= 1 %")
    assert shares[1.0] >= 0.98
    assert shares[2.0] <= 0.20
    assert shares[4.0] <= 0.01


def test_the_certificate_of_the_published_network_names_what_is_better(
    published: Cassette, figure: Callable[..., None]
) -> None:
    found = published.manifest.certificate
    figure("verdict of the published MLP", f"{found.verdict}: {found.statement}", "estimated, WORSE")
    assert found.verdict == "estimated"
    assert "WORSE" in found.statement
    for name in ("least-squares", "plain-product"):
        assert name in found.statement
    for metric in found.metrics:
        known = [b.value for b in found.baselines if b.name == "least-squares" and dict(b.where) == dict(metric.where)]
        assert metric.value > 1e6 * known[0]


@pytest.mark.parametrize("size", HIDDEN)
def test_the_published_enlargement_is_worse_than_predicting_zero(
    published: Cassette, size: int, figure: Callable[..., None]
) -> None:
    small = published.module
    assert isinstance(small, Mlp)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        large = corner_copy(small, Mlp(size, size, size, HIDDEN[size]))
    assert torch.equal(large.second.weight[:256, :256], small.second.weight)
    batch = fresh(size, 1.0)
    with torch.inference_mode():
        predicted = large(*tensors_of(batch.inputs))
    share = float(within(predicted, batch.targets).double().mean())
    error, zero = (float((guess - batch.targets).square().mean()) for guess in (predicted, torch.zeros(())))
    figure(
        f"corner copy to {size} x {size}: within 0.1, MSE (of zero)",
        f"{share:.3f}, {error:.3f} ({zero:.3f})",
        "0, above",
    )
    assert share == 0.0
    assert error > zero


def test_ten_seeds_from_training_to_a_saved_proof(library: Path, figure: Callable[..., None]) -> None:
    forms, seconds, naive = set(), [], 0
    for seed in range(10):
        started = time.process_time()
        (made,) = gk.train("matmul", seed=seed, name="ten", library=library)
        seconds.append(time.process_time() - started)
        assert made.cassette.manifest.certificate.verdict == "exact"
        forms.add(slot_set(scheme_of(made.cassette.tensors)))
        naive += bool(made.cassette.manifest.extra["training"]["naive_rounding_exact"])
    told = f"10 of 10 exact, {len(forms)} form, {naive} by rounding alone, median {sorted(seconds)[5]:.2f} s"
    figure("gk.train('matmul') on ten seeds, with certificate and save", told, "10 exact, 1 form, 0, <= 2 s")
    assert (len(forms), naive) == (1, 0)
    assert sorted(seconds)[5] <= 2
