"""Routers and superpositions as cassettes: nested, moved, saved, verified; and every way in which they may be tampered with."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import composites
import pytest
import torch
from composites import FUSIONS, assemble, rows, with_config
from torch import Tensor

import grokkit_core as gk
from grokkit_core import packing
from grokkit_core.cassette import Cassette
from grokkit_core.errors import (
    Ambiguous,
    BadManifest,
    BadWeights,
    CassetteError,
    GrokkitError,
    HashMismatch,
    Incompatible,
    NotFound,
    TooLarge,
    UsageError,
)
from grokkit_core.manifest import VERDICTS, WEIGHTS
from grokkit_core.task import Batch

Made = Mapping[str, Cassette]
Sampled = Mapping[str, Batch]
SMALL = ("cyclotron", "pendulum", "parity-3of64-grokked")


@pytest.fixture(params=FUSIONS)
def trio(request: pytest.FixtureRequest, shipped: Made) -> Cassette:
    """Three small cassettes in a router, then in a superposition."""
    return assemble(request.param, [shipped[name] for name in SMALL], "trio")


def members_of(cassette: Cassette) -> list[dict[str, Any]]:
    """The entries of the members as JSON, to be changed."""
    found = json.loads(json.dumps(cassette.manifest.to_json()["architecture"]["config"]["members"]))
    assert isinstance(found, list)
    return found


# -- plans ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("count", [0, 1])
def test_one_cassette_is_no_composition(fusion: str, count: int) -> None:
    with pytest.raises(UsageError, match="two or more"):
        gk.plan(*["pendulum"] * count, fusion=fusion)


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize(
    "settings", [{"gate": "uniform"}, {"options": {"free": True}}, {"calibrate": {"omega": [1.0]}}], ids=str
)
def test_nothing_is_fitted_so_no_settings_are_taken(fusion: str, settings: dict[str, Any], library: Path) -> None:
    for verb in (gk.plan, gk.compose):
        with pytest.raises(UsageError, match=fusion):
            verb("pendulum", "wave", fusion=fusion, library=library, **settings)
    assert not library.exists() or not any(library.rglob("*.json"))


def test_a_gate_of_a_package_that_is_not_installed_is_named() -> None:
    with pytest.raises(Incompatible, match="grokkit_elsewhere"):
        gk.plan("cyclotron-1node", "cyclotron-8node", gate="grokkit_elsewhere/best")


def test_a_plan_names_the_pairs_between_which_only_a_key_can_choose() -> None:
    plan = gk.plan("pendulum", "kepler", "wave", fusion="router")
    assert plan.to_json()["collisions"] == [{"members": ["pendulum", "kepler"], "by_name": False}]
    assert "need a key" in plan.notes[0]
    assert "no key is ever needed" in gk.plan("pendulum", "wave", fusion="router").notes[0]


@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_repeated_cassette_has_a_key_of_its_own(fusion: str, shipped: Made) -> None:
    made = assemble(fusion, [shipped["pendulum"], shipped["pendulum"]])
    assert list(made.members) == ["pendulum", "pendulum#2"]
    state = torch.ones(2, 4, dtype=torch.float64)
    assert torch.equal(made(state, key="pendulum#2"), shipped["pendulum"](state))
    with pytest.raises(Ambiguous):
        made(state)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_members_may_differ_in_unit_domain_and_law(fusion: str, shipped: Made) -> None:
    found = gk.plan(
        shipped["hpu-free"], shipped["hpu-potential"], shipped["kepler"], shipped["pendulum"], fusion=fusion
    )
    assert found.task == "composite"
    assert not found.signature.inputs


@pytest.mark.parametrize("fusion", FUSIONS)
def test_too_many_members_are_refused_in_the_plan(fusion: str, shipped: Made) -> None:
    with pytest.raises(Incompatible, match="at most 256"):
        gk.plan(*[shipped["pendulum"]] * 257, fusion=fusion)


def test_members_whose_certificates_fill_a_manifest_are_refused_before_anything_is_written(shipped: Made) -> None:
    with pytest.raises(Incompatible, match=r"30 members make a manifest.*compose fewer"):
        assemble("superposition", [*shipped.values()] * 2)


def test_a_manifest_that_could_not_be_read_again_is_not_saved(shipped: Made, library: Path) -> None:
    kepler = shipped["kepler"]
    told = kepler.with_extra({f"note {index}": "x" * 4_000 for index in range(70)})
    with pytest.raises(TooLarge, match="262144"):
        told.save(library)
    assert not any(path.is_file() for path in library.rglob("*"))


def test_a_composition_is_no_member_of_an_ensemble(trio: Cassette, shipped: Made) -> None:
    for pair in ((trio, shipped["cyclotron"]), (shipped["cyclotron"], trio), (trio, trio)):
        with pytest.raises(Incompatible, match="several tasks"):
            gk.plan(*pair)


# -- nesting ----------------------------------------------------------------------------------------------------------


def nested(first: Cassette, other: Cassette, depth: int) -> Cassette:
    """`first` under that many names, routers and superpositions in turn."""
    made = assemble("router", [first, other], "n1")
    for level in range(2, depth + 1):
        made = assemble(FUSIONS[level % 2], [made, other], f"n{level}")
    return made


def test_compositions_nest_eight_deep_and_answer_as_ever(shipped: Made, sampled_of: Sampled, library: Path) -> None:
    made = nested(shipped["cyclotron"], shipped["wave"], 8)
    key = "/".join(f"n{level}" for level in range(7, 0, -1)) + "/cyclotron"
    assert key in made.members
    made.save(library)
    read = gk.load("n8", library=library)
    inputs, context = rows(sampled_of["cyclotron"], 7)
    assert torch.equal(read.predict(inputs, context, key=key), shipped["cyclotron"].predict(inputs, context))
    assert read.route(key="cyclotron").key == key
    assert read.route(key=key).digest == shipped["cyclotron"].manifest.digest
    with pytest.raises(Incompatible, match="nested 9 deep"):
        assemble("router", [read, shipped["wave"]])


def test_an_ensemble_inside_counts_as_a_level(shipped: Made) -> None:
    made = nested(shipped["cyclotron-fused"], shipped["wave"], 7)
    with pytest.raises(Incompatible, match="nested 9 deep"):
        assemble("superposition", [made, shipped["wave"]])
    assert len(made.members) == 8


def test_a_manifest_nested_nine_deep_is_refused(shipped: Made, reissue: Callable[..., str], library: Path) -> None:
    made = assemble("router", [shipped["cyclotron"], shipped["wave"]])
    for depth, refused in ((8, False), (9, True)):
        entries = members_of(made)
        entries[0]["key"] = "a/" * (depth - 1) + "cyclotron"
        ref = reissue(made, architecture=with_config(made, members=entries).manifest.architecture)
        if refused:
            with pytest.raises(BadManifest, match="nested 9 deep"):
                gk.load(ref, library=library)
        else:
            assert len(gk.load(ref, library=library).members) == 2


def test_members_of_a_composition_take_its_place_with_their_bytes(trio: Cassette, shipped: Made) -> None:
    outer = assemble("superposition", [trio, shipped["wave"]], "outer")
    assert list(outer.members) == [*(f"trio/{name}" for name in SMALL), "wave"]
    for name in SMALL:
        assert composites.blocks(outer, f"trio/{name}") == packing.tensor_digest(shipped[name].tensors)


# -- certificates -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fusion", FUSIONS)
def test_each_member_keeps_its_certificate_and_the_weakest_is_that_of_all(
    fusion: str, fused_all: Made, shipped: Made
) -> None:
    made = fused_all[fusion]
    verdicts = [cassette.manifest.certificate.verdict for cassette in shipped.values()]
    assert made.manifest.certificate.verdict == max(verdicts, key=VERDICTS.index)
    assert made.manifest.certificate.method == "inherited"
    for name, member in made.members.items():
        assert member.manifest.certificate == shipped[name].manifest.certificate
        assert member.manifest.signature == shipped[name].manifest.signature
        assert member.manifest.task == shipped[name].manifest.task
    digests = {parent.digest for parent in made.manifest.provenance.parents}
    assert digests == {cassette.manifest.digest for cassette in shipped.values()}


def improved_bound(entries: list[dict[str, Any]]) -> None:
    for bound in entries[0]["certificate"]["bounds"]:
        bound["value"] /= 1e6


def improved_verdict(entries: list[dict[str, Any]]) -> None:
    entries[0]["certificate"]["verdict"] = "exact"


def improved_metric(entries: list[dict[str, Any]]) -> None:
    for metric in entries[0]["certificate"]["metrics"]:
        metric["value"] /= 2
        metric["interval"] = [end / 2 for end in metric["interval"]]


def untouched(entries: list[dict[str, Any]]) -> None:
    pass


@pytest.mark.parametrize(("change", "agrees"), [(untouched, True), (improved_bound, False), (improved_verdict, False)])
def test_a_members_certificate_cannot_be_improved_by_hand(
    change: Callable[[list[dict[str, Any]]], None],
    agrees: bool,
    trio: Cassette,
    reissue: Callable[..., str],
    library: Path,
) -> None:
    entries = members_of(trio)
    change(entries)
    ref = reissue(trio, architecture=with_config(trio, members=entries).manifest.architecture)
    found = gk.verify(ref, level="quick", library=library)
    assert found.agrees == agrees, found.reasons
    assert agrees or "cyclotron" in str(found.reasons)


def test_neither_can_a_figure_that_was_sampled(shipped: Made, reissue: Callable[..., str], library: Path) -> None:
    made = assemble("router", [shipped["cyclotron-8node"], shipped["cyclotron"]])
    entries = members_of(made)
    improved_metric(entries)
    ref = reissue(made, architecture=with_config(made, members=entries).manifest.architecture)
    assert not gk.verify(ref, level="quick", library=library).agrees


def test_nor_that_of_the_whole(trio: Cassette, reissue: Callable[..., str], library: Path) -> None:
    ref = reissue(trio, certificate=replace(trio.manifest.certificate, verdict="exact"))
    found = gk.verify(ref, level="quick", library=library)
    assert found.certificate.verdict == "bounded"
    assert not found.agrees


# -- tampering --------------------------------------------------------------------------------------------------------


def test_a_byte_that_was_flipped_is_noticed(trio: Cassette, library: Path) -> None:
    trio.save(library)
    place = library / "trio" / "1" / WEIGHTS
    data = bytearray(place.read_bytes())
    data[-1] ^= 1
    place.write_bytes(data)
    with pytest.raises(HashMismatch):
        gk.load("trio", library=library)
    place.unlink()
    with pytest.raises(CassetteError):
        gk.load("trio", library=library)


def test_so_is_one_under_a_manifest_that_was_made_to_fit(
    trio: Cassette, reissue: Callable[..., str], library: Path
) -> None:
    for name in trio.tensors:
        flipped = {key: tensor.clone() for key, tensor in trio.tensors.items()}
        flipped[name].view(-1)[0] += 1
        with pytest.raises(BadWeights, match="digest"):
            gk.load(reissue(trio, tensors=flipped), library=library)


CHANGES: dict[str, Callable[[list[dict[str, Any]]], object]] = {
    "digest": lambda e: e[1].update(digest="sha256:" + "0" * 64),
    "digests exchanged": lambda e: (e[0].update(digest=e[1]["digest"]), e[1].update(digest=e[0]["digest"])),
    "inputs": lambda e: e[1]["inputs"][0].update(axes=["batch", 5]),
    "dtypes": lambda e: e[1]["inputs"][0].update(dtypes=["float16"]),
    "architecture": lambda e: e[1].update(architecture="grokkit_pendulum/elsewhere"),
    "version": lambda e: e[1].update(version=99),
    "config": lambda e: e[2]["config"].update(live=[1, 2, 3, 4]),
    "config twice": lambda e: e[2].update(config={**e[2]["config"], "command": "run"}),
    "task": lambda e: e[1].update(task={"id": "composite", "parameters": {}}),
    "no key": lambda e: e[1].pop("key"),
    "same key": lambda e: e[1].update(key=e[0]["key"]),
    "key of a path": lambda e: e[1].update(key="../wave"),
    "one member less": lambda e: e.pop(),
    "no members": lambda e: e.clear(),
    "more": lambda e: e[0].update(target="os:system"),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_a_members_entry_that_was_changed_is_refused(
    name: str, trio: Cassette, reissue: Callable[..., str], library: Path
) -> None:
    entries = members_of(trio)
    CHANGES[name](entries)
    ref = reissue(trio, architecture=with_config(trio, members=entries).manifest.architecture)
    with pytest.raises(GrokkitError) as caught:
        gk.load(ref, library=library)
    assert caught.value.exit_code in (3, 4), caught.value


@pytest.mark.parametrize("value", [None, 7, "text", [], [7], {"a": 1}], ids=repr)
def test_members_that_are_no_entries_are_refused(
    value: object, trio: Cassette, reissue: Callable[..., str], library: Path
) -> None:
    ref = reissue(trio, architecture=with_config(trio, members=value).manifest.architecture)
    with pytest.raises(CassetteError):
        gk.load(ref, library=library)


# -- what else a cassette can do --------------------------------------------------------------------------------------


def test_the_api_saves_what_it_planned_and_says_how_it_compared(library: Path, few_samples: None) -> None:
    made = gk.compose("pendulum", "wave", "parity-3of64-grokked", fusion="superposition", name="three", library=library)
    told = made.to_json()
    assert [(c["equal"], c["isolated"], c["live"]) for c in told["checks"]] == [(True, True, True)] * 3
    assert gk.load("three", library=library).manifest.digest == told["digest"]
    assert made.cassette.manifest.weights.bytes <= 1.05 * made.alone_bytes


@pytest.mark.parametrize("name", SMALL)
def test_another_precision_reaches_the_members(name: str, trio: Cassette, shipped: Made, sampled_of: Sampled) -> None:
    inputs, context = rows(sampled_of[name], 3)
    assert isinstance(inputs, Tensor)
    inputs = inputs.float() if inputs.is_floating_point() else inputs
    expected = shipped[name].to("cpu", "float32").predict(inputs, context)
    assert torch.equal(trio.predict(inputs, context, key=name), expected)


def test_a_composition_has_no_law_samples_or_rollout_of_its_own(trio: Cassette) -> None:
    with pytest.raises(Incompatible, match="key"):
        trio.task.sample(1, generator=torch.Generator())
    with pytest.raises(Incompatible, match="key"):
        trio.task.oracle(torch.zeros(1), {})
    with pytest.raises(Incompatible, match="parity"):
        list(trio.rollout(torch.zeros(2, 64), 2))
    with pytest.raises(NotFound):
        list(trio.rollout(torch.zeros(2, 64), 2, key="kepler"))


@pytest.mark.parametrize("operator", [None, "zero-pad", "regrid", "change-constants"])
def test_a_composition_does_not_grow(operator: str | None, trio: Cassette, library: Path) -> None:
    trio.save(library)
    with pytest.raises(GrokkitError):
        gk.grow("trio", to={"hidden": 256}, operator=operator, library=library)
    assert [entry.name for entry in gk.list(library=library) if entry.root.kind != "plugin"] == ["trio"]


def test_nobody_can_train_one(library: Path) -> None:
    with pytest.raises(GrokkitError):
        gk.train("composite", library=library)


def test_answers_can_be_differentiated_as_those_of_the_member(
    trio: Cassette, shipped: Made, sampled_of: Sampled
) -> None:
    inputs, context = rows(sampled_of["cyclotron"], 2)
    assert isinstance(inputs, Tensor)
    found = []
    for cassette, key in ((trio, "cyclotron"), (shipped["cyclotron"], None)):
        x = inputs.clone().requires_grad_()
        cassette.predict(x, context, key=key).sum().backward()
        found.append(x.grad)
    assert torch.equal(*found)  # type: ignore[arg-type]
