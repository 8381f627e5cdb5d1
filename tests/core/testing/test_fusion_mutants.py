"""Every law of fusions catches one that breaks it, and nothing in a healthy one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from probes import SPECS, Mean, Mutant, assert_caught, bench_with, broken_laws

from grokkit_core.cassette import Cassette
from grokkit_core.fusion.fusion import FusionPlan, labels
from grokkit_core.manifest import Manifest
from grokkit_core.specs import ArchitectureSpec, RecipeSpec, TaskSpec
from grokkit_core.tensors import Signature
from grokkit_core.testing import Workbench, check_fusion
from grokkit_core.testing.fusing import fused_by


def scaled(cassette: Cassette, factor: float) -> Cassette:
    tensors = {name: tensor * factor for name, tensor in cassette.tensors.items()}
    return Cassette(cassette.manifest, tensors, plugins=cassette.plugins)


class Unprintable(Mean):
    def plan(self, members: Sequence[Manifest], gate: str | None, **options: Any) -> FusionPlan:
        return replace(super().plan(members, gate, **options), notes=(b"bytes",))


class AnyUnit(Mean):
    def plan(self, members: Sequence[Manifest], gate: str | None, **options: Any) -> FusionPlan:
        return super().plan([self._alike(members[0], member, "unit") for member in members], gate, **options)

    def _alike(self, first: Manifest, member: Manifest, what: str) -> Manifest:
        (mine,), (theirs,) = first.outputs, member.outputs
        axes = mine.axes if what == "axes" else theirs.axes
        unit = mine.unit if what == "unit" else theirs.unit
        return member.replace(outputs=(replace(theirs, **{**_fields(theirs), "axes": axes, "unit": unit}),))


def _fields(tensor: Any) -> dict[str, Any]:
    return {name: getattr(tensor, name) for name in tensor.__dataclass_fields__}


class AnyAxes(AnyUnit):
    def plan(self, members: Sequence[Manifest], gate: str | None, **options: Any) -> FusionPlan:
        alike = [self._alike(members[0], member, "axes") for member in members]
        return Mean.plan(self, alike, gate, **options)


class Lonely(Mean):
    def plan(self, members: Sequence[Manifest], gate: str | None, **options: Any) -> FusionPlan:
        return super().plan([*members, *members] if len(members) == 1 else members, gate, **options)


class Consuming(Mean):
    def compose(self, members: Sequence[Cassette], plan: FusionPlan, **options: Any) -> Cassette:
        made = super().compose([scaled(member, 1.0) for member in members], plan, **options)
        for member in members:
            for tensor in member.tensors.values():
                tensor.zero_()
        return made


class Altered(Mean):
    """The tensors are not those whose digests its config records."""

    def compose(self, members: Sequence[Cassette], plan: FusionPlan, **options: Any) -> Cassette:
        made = super().compose(members, plan, **options)
        changed = {name: tensor * (1 + 2**-20) for name, tensor in made.tensors.items()}
        return Cassette(made.manifest, changed, plugins=made.plugins)


class Louder(Mean):
    def compose(self, members: Sequence[Cassette], plan: FusionPlan, **options: Any) -> Cassette:
        return super().compose([scaled(member, 1.01) for member in members], plan, **options)


class Restless(Mean):
    def compose(self, members: Sequence[Cassette], plan: FusionPlan, **options: Any) -> Cassette:
        with torch.random.fork_rng(devices=[]):
            noise = 1e-6 * float(torch.seed() % 1009 / 1009)
        return super().compose([scaled(member, 1 + noise) for member in members], plan, **options)


class Orphaned(Mean):
    def compose(self, members: Sequence[Cassette], plan: FusionPlan, **options: Any) -> Cassette:
        made = super().compose(members, plan, **options)
        manifest = made.manifest.replace(provenance=replace(made.manifest.provenance, parents=()))
        return Cassette(manifest, made.tensors, plugins=made.plugins)


MUTANTS = [
    Mutant("bytes in a plan", "fusion.plan-json", "cannot be written as JSON", {"Mean": Unprintable}),
    Mutant("any unit", "fusion.refuses-units", "were fused", {"Mean": AnyUnit}),
    Mutant("any axes", "fusion.refuses-axes", "were fused", {"Mean": AnyAxes}),
    Mutant("one member", "fusion.refuses-one", "1 members were accepted", {"Mean": Lonely}),
    Mutant("members are consumed", "fusion.members-kept", "were changed", {"Mean": Consuming}),
    Mutant("other tensors than recorded", "fusion.save-load", "BadWeights", {"Mean": Altered}),
    Mutant("louder than its members", "fusion.copies", "differ from the member's", {"Mean": Louder}),
    Mutant("noise", "fusion.repeats", "different tensors", {"Mean": Restless}),
    Mutant("no parents", "fusion.parents", "0 of", {"Mean": Orphaned}),
]


def test_a_healthy_fusion_breaks_no_law() -> None:
    with bench_with() as bench:
        assert broken_laws("fusion", SPECS["fusion"], bench) == {}


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_a_mutant_is_caught_by_its_law_alone(mutant: Mutant) -> None:
    assert_caught(mutant, "fusion")


class Switch(Mean):
    """Members of any tasks: two signatures need not match."""

    def plan(self, members: Sequence[Manifest], gate: str | None, **options: Any) -> FusionPlan:
        if len({member.task.id for member in members}) < 2:
            return super().plan(members, gate, **options)
        empty = Signature([], [])
        return FusionPlan(self.spec.id, "uniform", labels(members), tuple(members), empty)


def test_a_fusion_of_several_tasks_need_not_refuse_other_signatures() -> None:
    task, architecture, recipe = (SPECS[name] for name in ("task", "architecture", "recipe"))
    assert isinstance(task, TaskSpec)
    assert isinstance(architecture, ArchitectureSpec)
    assert isinstance(recipe, RecipeSpec)
    second = {
        "spin": replace(task, id="spin"),
        "other": replace(architecture, id="grokkit_probe/other"),
        "spin/plain": replace(recipe, id="spin/plain", task="spin", architecture="grokkit_probe/other"),
    }
    reason = "it takes members of several tasks, whose signatures differ"
    for fusion, skipped in ((Mean, {}), (Switch, {"units": reason, "axes": reason})):
        with bench_with({"Mean": fusion}, second) as bench:
            found = check_fusion("grokkit_probe/mean", bench)
            assert found == {f"grokkit_probe/mean fusion.refuses-{what}": why for what, why in skipped.items()}


def test_what_a_fusion_makes_is_fed_copies_of_the_networks_of_the_bench() -> None:
    with bench_with({"Mean": Consuming}) as bench:
        before = weights(bench)
        fused_by(bench, bench.plugins.fusion("mean").spec)
        assert all(torch.equal(first, second) for first, second in zip(before, weights(bench), strict=True))


def weights(bench: Workbench) -> list[torch.Tensor]:
    networks = bench.networks("grokkit_probe/net")
    return [tensor.clone() for network in networks for tensor in network.tensors.values()]
