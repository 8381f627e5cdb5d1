"""The published training: it arrives, it is a function of its seed, and it goes on from a checkpoint bit for bit."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from grokkit_core.cassette import Cassette, load
from grokkit_core.plugins import host
from grokkit_core.specs import Event, settle
from grokkit_core.training.checkpoint import Checkpoint, RunFolder, circumstances
from grokkit_core.training.train import Trained, train
from grokkit_core.training.trainer import Interrupted, Outcome, Trainer

GRIDS: Mapping[str, Mapping[str, int]] = {"1-node": {}, "8-node": {"angular": 4, "radial": 2}}
EPOCH = 24
"""Steps an epoch: 1,500 windows in batches of 64, the last of 28."""

THRESHOLD = 5e-4
MOST_EPOCHS = 40
"""All of 114 trainings arrived within 37; facts of the cyclotron task, section 3."""

SHORT = {"epochs": 6, "threshold": 0.0}
"""144 steps, never stopped early."""

EARLY = {"threshold": 8e-3}
"""Stops after some ten epochs, at another one for each seed."""


def published(library: Path, *, seed: int = 0, net: str = "1-node", **settings: Any) -> Trained:
    return train("cyclotron", seed=seed, settings={**GRIDS[net], **settings}, library=library)[0]


def weights(trained: Trained | Cassette) -> Mapping[str, Tensor]:
    return (trained.cassette if isinstance(trained, Trained) else trained).tensors


def assert_equal(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    assert set(found) == set(expected)
    for name, tensor in found.items():
        assert torch.equal(tensor, expected[name]), name


def curve(trained: Trained) -> tuple[tuple[float, ...], ...]:
    return trained.cassette.manifest.provenance.curve.rows


@pytest.fixture(scope="module", params=GRIDS)
def arrived(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A training by the published protocol, of the 1-node and of the 8-node network."""
    return published(tmp_path_factory.mktemp("library"), net=request.param)


def test_training_reaches_the_threshold_and_stops_there(arrived: Trained) -> None:
    losses = [row[1] for row in curve(arrived)]

    assert arrived.steps <= MOST_EPOCHS * EPOCH
    assert losses[-1] <= THRESHOLD
    assert min(losses[:-1]) > THRESHOLD


def test_steps_and_curve_are_recorded_once_an_epoch(arrived: Trained) -> None:
    provenance = arrived.cassette.manifest.provenance

    assert provenance.curve.columns == ("step", "train", "validation")
    assert [row[0] for row in curve(arrived)] == list(range(EPOCH, arrived.steps + 1, EPOCH))
    assert arrived.steps == provenance.steps == curve(arrived)[-1][0]
    assert provenance.seed == 0
    assert provenance.recipe is not None
    assert provenance.recipe.id == "cyclotron/published"


def test_validation_follows_the_training_loss(arrived: Trained) -> None:
    first, *_, last = curve(arrived)

    assert last[2] < 2 * THRESHOLD < first[2]


def test_the_saved_cassette_is_the_trained_one(library: Path) -> None:
    trained = published(library, **SHORT)

    assert_equal(weights(load(trained.cassette.manifest.ref, library=library)), weights(trained))


def test_training_never_takes_more_epochs_than_allowed(library: Path) -> None:
    assert published(library, epochs=3).steps == 3 * EPOCH


def test_the_learning_rate_is_half_a_cosine_over_the_epochs() -> None:
    recipe = host().recipe("cyclotron/published")
    settings = settle(recipe.spec.parameters, {}, "test")

    rates = [recipe.learning_rate(step, settings) for step in (0, EPOCH - 1, EPOCH, 30 * EPOCH, 59 * EPOCH)]
    assert rates == pytest.approx([0.01, 0.01, 0.00999314767, 0.005, 6.852e-6], rel=1e-4)


@pytest.mark.parametrize("net", GRIDS)
def test_equal_seeds_give_equal_weights_to_the_bit(net: str, library: Path) -> None:
    first = published(library, net=net, seed=3, **SHORT)
    torch.rand(17)
    again = published(library, net=net, seed=3, **SHORT)

    assert_equal(weights(again), weights(first))
    assert curve(again) == curve(first)


def test_another_seed_gives_other_weights(library: Path) -> None:
    first, other = published(library, seed=3, **SHORT), published(library, seed=4, **SHORT)

    assert not torch.equal(weights(first)["encoder.0.weight"], weights(other)["encoder.0.weight"])


def test_training_leaves_the_global_generator_alone(library: Path) -> None:
    before = torch.get_rng_state()

    published(library, epochs=1)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("net", GRIDS)
def test_seeds_trained_together_equal_their_single_runs(net: str, library: Path) -> None:
    together = train("cyclotron", seeds=[5, 1], settings={**GRIDS[net], **SHORT}, library=library)

    assert [trained.seed for trained in together] == [5, 1]
    for trained in together:
        alone = published(library, net=net, seed=trained.seed, **SHORT)
        assert_equal(weights(trained), weights(alone))
        assert curve(trained) == curve(alone)


def after(steps: int) -> Callable[[], bool]:
    """An `interrupted` that is true once, after so many steps."""
    count = itertools.count(1)
    return lambda: next(count) == steps


def trainer(
    folder: Path,
    seeds: Sequence[int] = (0,),
    *,
    net: str = "1-node",
    interrupted: Callable[[], bool] = lambda: False,
    **settings: Any,
) -> Trainer:
    recipe = host().recipe("cyclotron/published")
    task = host().task("cyclotron")
    settled = settle(recipe.spec.parameters, {**GRIDS[net], **settings}, "test")
    kind: dict[str, Any] = {"dtype": torch.float32, "device": torch.device("cpu")}
    run = recipe.start(task, settled, seeds, **kind)
    return Trainer(
        run,
        recipe,
        task,
        settled,
        seeds,
        **kind,
        folder=RunFolder(folder),
        about={
            "task": "cyclotron",
            "recipe": "cyclotron/published",
            "settings": settled,
            "parameters": task.parameters,
            "seeds": list(seeds),
            "name": "test",
            "circumstances": circumstances(**kind),
        },
        emit=lambda event: None,
        interrupted=interrupted,
    )


def stopped_at(step: int, folder: Path, *arguments: Any, **settings: Any) -> Checkpoint:
    """The checkpoint that an interruption after `step` leaves."""
    with pytest.raises(Interrupted) as caught:
        trainer(folder, *arguments, interrupted=after(step), **settings).fit()
    assert caught.value.step == step
    return RunFolder(folder).load()


def assert_same_outcomes(found: Sequence[Outcome], expected: Sequence[Outcome]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert_equal(one.module.state_dict(), other.module.state_dict())
        assert (one.seed, one.steps, one.grok_step, one.curve) == (
            other.seed,
            other.steps,
            other.grok_step,
            other.curve,
        )


def test_seeds_that_stop_at_different_epochs_equal_their_single_runs(tmp_path: Path) -> None:
    together = trainer(tmp_path, (0, 1, 2), **EARLY).fit()

    assert len({outcome.steps for outcome in together}) > 1
    for outcome in together:
        assert_same_outcomes([outcome], trainer(tmp_path, (outcome.seed,), **EARLY).fit())


@pytest.mark.parametrize("step", [1, 23, 24, 25, 77, 143, 144])
def test_a_resumed_training_equals_one_that_was_not_interrupted(step: int, tmp_path: Path) -> None:
    kept = stopped_at(step, tmp_path / "run", **SHORT)

    resumed = trainer(tmp_path / "other", **SHORT)
    resumed.restore(kept)
    assert_same_outcomes(resumed.fit(), trainer(tmp_path / "whole", **SHORT).fit())


def test_a_training_may_be_interrupted_twice(tmp_path: Path) -> None:
    kept = stopped_at(31, tmp_path / "run", net="8-node", **SHORT)
    second = trainer(tmp_path / "run", net="8-node", interrupted=after(70), **SHORT)
    second.restore(kept)
    with pytest.raises(Interrupted) as caught:
        second.fit()
    assert caught.value.step == 101

    third = trainer(tmp_path / "run", net="8-node", **SHORT)
    third.restore(RunFolder(tmp_path / "run").load())
    assert_same_outcomes(third.fit(), trainer(tmp_path / "whole", net="8-node", **SHORT).fit())


def test_a_run_of_several_seeds_resumes_after_some_have_stopped(tmp_path: Path) -> None:
    whole = trainer(tmp_path / "whole", (0, 1, 2), **EARLY).fit()
    ends = sorted(outcome.steps for outcome in whole)
    assert ends[0] < ends[-1]

    kept = stopped_at(ends[0] + 5, tmp_path / "run", (0, 1, 2), **EARLY)
    resumed = trainer(tmp_path / "run", (0, 1, 2), **EARLY)
    resumed.restore(kept)
    assert_same_outcomes(resumed.fit(), whole)


def differs(one: nn.Module, other: nn.Module) -> bool:
    expected = other.state_dict()
    return any(not torch.equal(tensor, expected[name]) for name, tensor in one.state_dict().items())


def test_a_checkpoint_without_optimiser_state_leads_elsewhere(tmp_path: Path) -> None:
    kept = stopped_at(77, tmp_path / "run", **SHORT)
    tensors = {name: tensor for name, tensor in kept.tensors.items() if ".optimizer." not in name}
    assert len(tensors) < len(kept.tensors)

    resumed = trainer(tmp_path / "other", **SHORT)
    resumed.restore(replace(kept, tensors=tensors))
    assert differs(resumed.fit()[0].module, trainer(tmp_path / "whole", **SHORT).fit()[0].module)


@pytest.mark.parametrize("part", [".mean", ".square", ".step"])
def test_every_part_of_the_optimiser_state_counts(part: str, tmp_path: Path) -> None:
    kept = stopped_at(77, tmp_path / "run", **SHORT)
    touched = {name: torch.zeros_like(tensor) for name, tensor in kept.tensors.items() if name.endswith(part)}
    assert touched

    resumed = trainer(tmp_path / "other", **SHORT)
    resumed.restore(replace(kept, tensors={**kept.tensors, **touched}))
    assert differs(resumed.fit()[0].module, trainer(tmp_path / "whole", **SHORT).fit()[0].module)


def test_a_checkpoint_at_another_step_leads_elsewhere(tmp_path: Path) -> None:
    kept = stopped_at(77, tmp_path / "run", **SHORT)
    values = {**kept.values, "run": {**kept.values["run"], "step": 76}}

    resumed = trainer(tmp_path / "other", **SHORT)
    resumed.restore(replace(kept, values=values))
    assert differs(resumed.fit()[0].module, trainer(tmp_path / "whole", **SHORT).fit()[0].module)


def test_ctrl_c_saves_a_run_that_resume_takes_to_the_same_end(library: Path) -> None:
    def press(event: Event) -> None:
        if event.name == "train.evaluation" and event.data["step"] == 2 * EPOCH:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted) as caught:
        train("cyclotron", seed=6, settings=SHORT, library=library, on_event=press)
    assert caught.value.step == 2 * EPOCH

    resumed = train("cyclotron", resume=caught.value.run, library=library)[0]
    whole = published(library, seed=6, **SHORT)
    assert_equal(weights(resumed), weights(whole))
    assert (resumed.steps, curve(resumed)) == (whole.steps, curve(whole))


def mean_mse(trained: Trained) -> float:
    """The mean over the five test frequencies of the certificate, 20,000 samples each."""
    metrics = trained.cassette.manifest.certificate.metrics
    assert [metric.n for metric in metrics] == [20_000] * 5
    return sum(metric.value for metric in metrics) / 5


@pytest.mark.acceptance
@pytest.mark.parametrize("net", GRIDS)
def test_ten_seeds_arrive_within_forty_epochs_and_generalise_as_published(
    net: str, library: Path, figure: Callable[..., None]
) -> None:
    trained = train("cyclotron", seeds=range(10), settings=GRIDS[net], library=library)

    epochs = [one.steps / EPOCH for one in trained]
    arrived = sum(
        curve(one)[-1][1] <= THRESHOLD and count <= MOST_EPOCHS for one, count in zip(trained, epochs, strict=True)
    )
    figures = [mean_mse(one) for one in trained]
    mean = sum(figures) / len(figures)
    figure(
        f"{net}, 10 seeds: threshold reached within 40 epochs",
        f"{arrived} of 10, {min(epochs):g} to {max(epochs):g} epochs",
        "10 of 10",
    )
    figure(
        f"{net}, 10 seeds: mean MSE over five omegas, 20,000 samples",
        f"{mean:.4f} ({min(figures):.4f} to {max(figures):.4f})",
        ".055 to .11",
    )
    assert arrived == 10
    assert 0.055 <= mean <= 0.11
