"""The verb `compose`: plan, fit, measure, save; or refuse and leave nothing behind."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import grokkit_core as gk
from grokkit_core.cassette import Cassette
from grokkit_core.certify.compare import NON_INFERIORITY
from grokkit_core.certify.sampled import SAMPLES
from grokkit_core.errors import BadName, GrokkitError, Incompatible, NotFound, StoreError, UsageError
from grokkit_core.fusion.compose import Composition, compose, default_name, plan_composition
from grokkit_core.fusion.table import Row, better_baselines, is_saturated
from grokkit_core.manifest import TaskRef
from grokkit_core.tensors import ContextSpec, TensorSpec
from grokkit_core.workspace import Workspace

Reissue = Callable[..., str]
BOTH = ("float32", "float64")
WINDOW = TensorSpec("states", ("batch", 15, 4), BOTH)
few = pytest.mark.usefixtures("few_samples")


def files(folder: Path) -> dict[str, str]:
    """The hash of every file below a folder."""
    found = [path for path in folder.rglob("*") if path.is_file()] if folder.exists() else []
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


@pytest.fixture(scope="module")
def spectral(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Composition:
    """A spectral fusion at full size, in a library of its own."""
    return compose("one", "eight", gate="spectral", library=[tmp_path_factory.mktemp("spectral"), tiny])


# -- the result ----------------------------------------------------------------------------------------------------


@few
def test_a_composition_is_saved_under_a_default_name(library: Path, tiny: Path) -> None:
    made = compose("one", "eight", gate="spectral", options={"steps": 1}, library=[library, tiny])
    assert made.cassette.manifest.ref == "one-spectral@1"
    assert gk.load("one-spectral", library=library).manifest == made.cassette.manifest


@few
def test_a_composition_is_saved_under_a_given_name(library: Path, tiny: Path) -> None:
    made = [compose("one", "eight", name="both", library=[library, tiny]) for _ in range(2)]
    assert [item.cassette.manifest.ref for item in made] == ["both@1", "both@2"]


@few
def test_a_long_first_name_is_shortened(one: Cassette, eight: Cassette) -> None:
    long = Cassette(one.manifest.replace(name="a" * 60 + "-b-c"), one.tensors)
    name = default_name(plan_composition(long, eight, gate="spectral"))
    assert name == "a" * 55 + "-spectral"
    assert len(name) == 64


@few
def test_the_gate_is_uniform_unless_another_is_named(library: Path, tiny: Path) -> None:
    made = compose("one", "eight", library=[library, tiny])
    assert made.plan.gate == "uniform"
    assert {weight for row in made.table for weight in row.weights.values()} == {0.5}


@few
def test_members_stay_as_they_are(library: Path, tiny: Path) -> None:
    before = files(tiny)
    compose("one", "eight", gate="spectral", options={"steps": 2}, library=[library, tiny])
    assert files(tiny) == before


@few
def test_only_the_new_version_is_written(library: Path, tiny: Path) -> None:
    compose("one", "eight", name="both", library=[library, tiny])
    assert set(files(library)) == {"both/1/manifest.json", "both/1/weights.safetensors"}


@few
def test_cassettes_and_references_compose_alike(library: Path, tiny: Path, one: Cassette, eight: Cassette) -> None:
    made = [compose(*members, library=[library, tiny]) for members in (("one", "eight"), (one, eight), (one, "eight"))]
    assert len({item.cassette.manifest.weights.sha256 for item in made}) == 1
    assert made[0].table == made[1].table == made[2].table


@few
def test_equal_seeds_give_equal_weights_and_tables(library: Path, tiny: Path) -> None:
    first, same, other = (
        compose("one", "eight", gate="spectral", options={"steps": 2}, seed=seed, library=[library, tiny])
        for seed in (3, 3, 4)
    )
    assert first.cassette.manifest.weights == same.cassette.manifest.weights != other.cassette.manifest.weights
    assert first.table == same.table != other.table


@few
def test_composing_leaves_the_global_generator_alone(library: Path, tiny: Path) -> None:
    before = torch.get_rng_state()
    compose("one", "eight", gate="spectral", options={"steps": 2}, library=[library, tiny])
    assert torch.equal(torch.get_rng_state(), before)


@few
def test_a_fusion_can_be_measured_in_float64(library: Path, tiny: Path) -> None:
    made = compose("one", "eight", gate="spectral", options={"steps": 2}, dtype="float64", library=[library, tiny])
    assert made.cassette.manifest.certificate.dtype == "float64"
    assert gk.verify(made.cassette, library=library).agrees


@few
def test_a_fusion_can_be_verified_in_float64(library: Path, tiny: Path) -> None:
    made = compose("one", "eight", library=[library, tiny])
    assert gk.verify(made.cassette, dtype="float64", library=library).certificate.verdict == "estimated"


@few
def test_members_with_one_dtype_in_common_are_fused_in_it(
    library: Path, one: Cassette, eight: Cassette, reissue: Reissue
) -> None:
    for cassette, dtypes in ((one, ("float64", "float32")), (eight, ("float32",))):
        reissue(cassette, inputs=(TensorSpec("states", ("batch", 15, 4), dtypes),))
    made = compose("one", "eight", gate="spectral", options={"steps": 2}, library=library)
    assert made.cassette.manifest.certificate.dtype == "float32"


@few
def test_a_fusion_can_be_composed_again(library: Path, tiny: Path) -> None:
    inner = compose("one", "eight", name="inner", library=[library, tiny])
    outer = compose("inner", "one", name="outer", library=[library, tiny])
    x = inner.cassette.task.sample(3, generator=torch.Generator(), omega=1.0).inputs
    assert isinstance(x, torch.Tensor)
    expected = 0.75 * gk.load("one", library=tiny)(x) + 0.25 * gk.load("eight", library=tiny)(x)
    torch.testing.assert_close(outer.cassette(x), expected)


@few
def test_a_repeat_is_a_member_of_its_own(library: Path, tiny: Path) -> None:
    made = compose("one", "eight", "one", library=[library, tiny])
    assert made.plan.members == ("one", "one#2", "eight")
    assert made.notes == ("one@1 is a member more than once; repeats share one opinion",)
    assert list(made.table[0].members) == list(made.table[0].weights) == ["one", "one#2", "eight"]


@few
def test_versions_of_one_name_are_told_apart(library: Path, tiny: Path, one: Cassette) -> None:
    for factor in (1.0, 0.5):
        Cassette(one.manifest, {name: factor * tensor for name, tensor in one.tensors.items()}).save(library)
    made = compose("one@1", "one@2", library=library)
    assert made.plan.members == ("one@1", "one@2")
    assert made.table[0].members["one@1"] != made.table[0].members["one@2"]


@few
def test_the_gate_is_fitted_where_it_was_asked_to(library: Path, tiny: Path) -> None:
    made = compose(
        "one", "eight", gate="spectral", options={"steps": 1}, calibrate={"omega": [0.9, 1]}, library=[library, tiny]
    )
    gate = made.cassette.manifest.provenance.gate
    assert gate is not None
    assert list(gate["contexts"]) == [{"omega": 0.9}, {"omega": 1.0}]
    assert [row.fitted for row in made.table] == [True, False, False, False, False]


@few
def test_the_gate_is_fitted_where_the_task_says_otherwise(library: Path, tiny: Path) -> None:
    made = compose("one", "eight", gate="spectral", options={"steps": 1}, library=[library, tiny])
    assert [row.fitted for row in made.table] == [False, False, True, True, True]


@few
def test_provenance_names_the_members(library: Path, tiny: Path, one: Cassette, eight: Cassette) -> None:
    found = compose("one", "eight", library=[library, tiny]).cassette.manifest.provenance
    assert [(p.name, p.version, p.digest) for p in found.parents] == [
        (c.manifest.name, 1, c.manifest.digest) for c in (one, eight)
    ]


# -- the table -----------------------------------------------------------------------------------------------------


def test_the_table_has_a_row_for_every_context_of_the_task(spectral: Composition) -> None:
    assert [row.where for row in spectral.table] == [{"omega": omega} for omega in (0.9, 1.2, 1.5, 2.0, 2.2)]
    assert {row.n for row in spectral.table} == {SAMPLES["full"]}


def test_the_table_and_the_certificate_show_the_same_figures(spectral: Composition) -> None:
    found = spectral.cassette.manifest.certificate
    assert [row.fused for row in spectral.table] == [metric.value for metric in found.metrics]
    assert [row.interval for row in spectral.table] == [metric.interval for metric in found.metrics]
    for row in spectral.table:
        assert row.baselines == {b.name: b.value for b in found.baselines if b.where == row.where}


def test_members_are_measured_on_the_samples_of_the_fusion(spectral: Composition, tiny: Path) -> None:
    for name in ("one", "eight"):
        own = gk.verify(name, library=tiny, seed=0).certificate
        assert [row.members[name] for row in spectral.table] == [metric.value for metric in own.metrics]


def test_a_fusion_is_never_worse_than_its_worst_member(spectral: Composition) -> None:
    assert all(row.fused <= max(row.members.values()) * (1 + 1e-6) for row in spectral.table)


def test_the_weights_of_a_row_sum_to_one(spectral: Composition) -> None:
    assert [sum(row.weights.values()) for row in spectral.table] == pytest.approx([1.0] * 5, abs=1e-6)


def test_verdicts_follow_from_the_figures(spectral: Composition) -> None:
    for row in spectral.table:
        best = min(row.members.values())
        assert row.ratio == pytest.approx(row.fused / best)
        assert row.strict == (row.fused < best)
        assert row.non_inferior == (row.fused <= NON_INFERIORITY * best)
        assert not row.wins or (row.strict and row.p < 0.05)


def test_baselines_that_beat_the_fusion_are_counted(spectral: Composition) -> None:
    assert spectral.worse_than == better_baselines(spectral.table)
    assert spectral.worse_than["persistence"] == 5


def test_a_verified_fusion_agrees_at_another_seed(spectral: Composition) -> None:
    for seed in (1, 2):
        assert gk.verify(spectral.cassette, seed=seed, level="quick").reasons == ()


def test_json_counts_what_the_rows_say(spectral: Composition) -> None:
    found = spectral.to_json()
    rows = found["table"]
    assert found["wins"] == sum(row["wins"] for row in rows) == spectral.wins
    assert found["strict"] == sum(row["strict"] for row in rows)
    assert found["non_inferior"] == sum(row["non_inferior"] for row in rows)
    assert (found["of"], found["gate"], found["members"]) == (5, "spectral", ["one", "eight"])
    assert found["digest"] == spectral.cassette.manifest.digest


def row(**changes: Any) -> Row:
    fields: dict[str, Any] = {
        "where": {},
        "metric": "mse",
        "n": 100,
        "members": {"a": 1.0, "b": 2.0},
        "fused": 0.5,
        "interval": (0.4, 0.6),
        "baselines": {"zero": 0.6, "copy": 0.4},
        "weights": {"a": 0.5, "b": 0.5},
        "p": 0.01,
        "wins": True,
        "strict": True,
        "non_inferior": True,
    }
    return Row(**(fields | changes))


@pytest.mark.parametrize(
    ("weights", "saturated"),
    [([0.5, 0.5], False), ([0.995, 0.995], True), ([0.995, 0.5], False), ([0.001, 0.999], True)],
)
def test_a_gate_is_saturated_where_one_weight_is_extreme_in_every_row(weights: list[float], saturated: bool) -> None:
    assert is_saturated([row(weights={"a": w, "b": 1 - w}) for w in weights]) is saturated


def test_a_fusion_without_weights_is_not_saturated() -> None:
    assert not is_saturated([row(weights={})])
    assert not is_saturated([])


@pytest.mark.parametrize(("higher", "found"), [(False, {"copy": 2}), (True, {"zero": 2})])
def test_better_baselines_flip_where_higher_is_better(higher: bool, found: dict[str, int]) -> None:
    assert better_baselines([row(), row()], higher_is_better=higher) == found


@pytest.mark.parametrize(("members", "fused", "ratio"), [({"a": 2.0, "b": 4.0}, 1.0, 0.5), ({"a": 0.0}, 0.0, 1.0)])
def test_a_ratio_is_over_the_best_member(members: dict[str, float], fused: float, ratio: float) -> None:
    assert row(members=members, fused=fused).ratio == ratio


# -- plans ---------------------------------------------------------------------------------------------------------


def test_a_plan_reads_no_weights(library: Path, tiny: Path, one: Cassette, eight: Cassette) -> None:
    for cassette in (one, eight):
        cassette.save(library)
        (library / cassette.manifest.name / "1" / "weights.safetensors").write_bytes(b"broken")
    assert plan_composition("one", "eight", library=library).members == ("one", "eight")


def test_a_plan_writes_nothing(library: Path, tiny: Path) -> None:
    plan_composition("one", "eight", gate="spectral", library=[library, tiny])
    assert not library.exists()


def test_a_plan_says_what_will_be_done(tiny: Path, one: Cassette, eight: Cassette) -> None:
    found = plan_composition("one", "eight", gate="spectral", options={"lr": 0.5}, library=tiny).to_json()
    assert (found["fusion"], found["gate"], found["variable"]) == ("ensemble", "spectral", "omega")
    assert found["members"] == ["one", "eight"]
    assert found["digests"] == [one.manifest.digest, eight.manifest.digest]
    assert found["options"] == {"lr": 0.5}
    assert found["context"][0]["required"] is True


# -- refusals ------------------------------------------------------------------------------------------------------


def variable(**changes: Any) -> dict[str, Any]:
    return {"context": (ContextSpec(**({"name": "omega", "unit": "rad/s", "domain": (0.0, 4.0)} | changes)),)}


MISFITS: list[tuple[dict[str, Any], str]] = [
    ({"inputs": (TensorSpec("states", ("batch", 14, 4), BOTH),)}, "axis 1 of input 'states' is 15 against 14"),
    ({"inputs": (TensorSpec("states", ("batch", 60), BOTH),)}, r"3 axes \[batch, 15, 4\] against 2 axes"),
    ({"inputs": (TensorSpec("states", ("batch", 15, 4), BOTH, "km"),)}, "unit of input 'states' is 1 against km"),
    ({"inputs": (TensorSpec("states", ("batch", 15, 4), ("complex64",)),)}, "dtypes of input 'states'"),
    ({"inputs": (TensorSpec("windows", ("batch", 15, 4), BOTH),)}, "'states' against 'windows'"),
    ({"inputs": (WINDOW, TensorSpec("more", ()))}, "1 inputs against 2"),
    ({"outputs": (TensorSpec("state", ("batch", 5), BOTH),)}, "axis 1 of output 'state' is 4 against 5"),
    ({"task": TaskRef("pendulum", {"dt": 0.05})}, "one computes task cyclotron, misfit computes pendulum"),
    ({"task": TaskRef("cyclotron", {"dt": 0.1})}, r"one has dt = 0\.05, misfit has 0\.1; expected the same constants"),
    ({"task": TaskRef("cyclotron", {})}, r"one has dt = 0\.05, misfit has None"),
]


@pytest.mark.parametrize(("changes", "words"), MISFITS)
@pytest.mark.parametrize("call", [compose, plan_composition])
def test_members_that_do_not_fit_are_refused_by_axis_unit_or_law(
    library: Path,
    tiny: Path,
    one: Cassette,
    reissue: Reissue,
    call: Callable[..., Any],
    changes: dict[str, Any],
    words: str,
) -> None:
    reissue(one, name="misfit", **changes)
    before = files(library)
    with pytest.raises(Incompatible, match=words):
        call("one", "misfit", library=[library, tiny])
    assert files(library) == before


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"context": ()}, "gate spectral reads a scalar context variable, but misfit has none"),
        (variable(unit="Hz"), "different units or domains"),
        (variable(domain=(5.0, 6.0)), "different units or domains"),
        (variable(name="phi"), "different units or domains"),
    ],
)
def test_a_gate_that_reads_what_members_lack_is_refused(
    library: Path, tiny: Path, one: Cassette, reissue: Reissue, changes: dict[str, Any], words: str
) -> None:
    reissue(one, name="misfit", **changes)
    before = files(library)
    with pytest.raises(Incompatible, match=words):
        compose("one", "misfit", gate="spectral", library=[library, tiny])
    assert files(library) == before


def test_a_gate_must_be_told_which_of_several_variables_to_read(
    library: Path, one: Cassette, eight: Cassette, reissue: Reissue
) -> None:
    two = (*one.manifest.context, ContextSpec("phi"))
    for cassette in (one, eight):
        reissue(cassette, context=two)
    with pytest.raises(Incompatible, match=r"share omega, phi; choose with --set variable=omega"):
        plan_composition("one", "eight", gate="spectral", library=library)
    chosen = plan_composition("one", "eight", gate="spectral", options={"variable": "phi"}, library=library)
    assert chosen.variable == "phi"
    assert [v.required for v in chosen.signature.context] == [False, True]


REFUSALS: list[tuple[tuple[str, ...], dict[str, Any], type[GrokkitError], str]] = [
    (("one",), {}, UsageError, r"1 cassette\(s\) to compose; expected two or more"),
    ((), {}, UsageError, r"0 cassette\(s\)"),
    (("one", "nine"), {}, NotFound, "no cassette is named 'nine'"),
    (("one", "eight@7"), {}, NotFound, "'eight' has no version 7"),
    (("one", "Eight"), {}, BadName, "'Eight' is not a cassette name"),
    (("one", "eight"), {"gate": "spectrol"}, NotFound, "no gate is named 'spectrol'; did you mean 'spectral'"),
    (("one", "eight"), {"fusion": "ensemblr"}, NotFound, "did you mean 'ensemble'"),
    (("one", "eight"), {"gate": "spectral", "options": {"stepz": 1}}, UsageError, "did you mean 'steps'"),
    (("one", "eight"), {"gate": "spectral", "options": {"steps": -1}}, UsageError, "steps=-1 of gate spectral"),
    (("one", "eight"), {"gate": "spectral", "options": {"steps": True}}, UsageError, "steps=True"),
    (("one", "eight"), {"gate": "spectral", "options": {"variable": "phi"}}, Incompatible, "variable 'phi'"),
    (("one", "eight"), {"options": {"steps": 1}}, UsageError, "gate uniform has no setting 'steps'"),
    (("one", "eight"), {"name": "Both"}, BadName, "'Both' is not a cassette name"),
    (("one", "eight"), {"device": "tpu"}, UsageError, "device 'tpu'"),
    (("one", "eight"), {"dtype": "float16"}, Incompatible, "does not take dtype 'float16'"),
    (
        ("one", "eight"),
        {"calibrate": {"phi": [1.0]}},
        UsageError,
        "contexts for phi; expected one context variable of omega",
    ),
    (("one", "eight"), {"calibrate": {"omega": [1.0], "phi": [1.0]}}, UsageError, "contexts for omega, phi"),
    (("one", "eight"), {"calibrate": {"omega": [1.0, 4.5]}}, Incompatible, r"omega = 4\.5; expected in \[0, 4\]"),
    (("one", "eight"), {"calibrate": {"omega": [float("nan")]}}, Incompatible, "omega = nan"),
    (("one", "eight"), {"gate": "spectral", "calibrate": {"omega": [0.0]}}, Incompatible, "from 0.8 to 2.5"),
    (("one", "eight"), {"gate": "spectral", "calibrate": {"omega": []}}, Incompatible, "no calibration contexts"),
]


@few
@pytest.mark.parametrize(("refs", "arguments", "kind", "words"), REFUSALS)
def test_a_wrong_call_says_what_is_wrong_and_writes_nothing(
    library: Path,
    tiny: Path,
    refs: tuple[str, ...],
    arguments: Mapping[str, Any],
    kind: type[GrokkitError],
    words: str,
) -> None:
    before = files(tiny)
    with pytest.raises(kind, match=words):
        compose(*refs, library=[library, tiny], **arguments)
    assert files(library) == {}
    assert files(tiny) == before


def test_a_member_that_was_tampered_with_is_refused_and_nothing_is_written(
    library: Path, tiny: Path, one: Cassette
) -> None:
    one.save(library)
    weights = library / "one" / "1" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x00")
    before = files(library)
    with pytest.raises(GrokkitError) as caught:
        compose("one", "eight", library=[library, tiny])
    assert caught.value.exit_code == 3
    assert files(library) == before


def test_a_library_that_cannot_be_written_is_found_before_the_work(tmp_path: Path, tiny: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    place = Workspace.open(blocked)
    with pytest.raises(StoreError):
        compose(*(gk.load(name, library=tiny) for name in ("one", "eight")), library=place)
    assert blocked.read_text() == "not a folder"


def test_a_failure_while_certifying_writes_nothing(library: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("grokkit_core.fusion.compose.make_table", fail)
    with pytest.raises(KeyboardInterrupt):
        compose("one", "eight", library=[library, tiny])
    assert files(library) == {}


def test_a_member_named_by_path_is_as_good_as_any(tiny: Path, one: Cassette) -> None:
    found = plan_composition(str(tiny / "one" / "1"), "eight", library=tiny)
    assert found.manifests[0] == replace(one.manifest)
