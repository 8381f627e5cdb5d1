"""Matmul: the law and its baselines, the recipes from end to end, what is proved, and products of schemes."""

from __future__ import annotations

import itertools
import re
import shutil
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from grokkit_matmul import hunts, recipes, winograd
from grokkit_matmul.certify import formulas, growth
from grokkit_matmul.law import SCALES, MatrixProduct
from grokkit_matmul.mlp import Mlp, corner_copy, within
from grokkit_matmul.replay import replayed
from grokkit_matmul.scheme import Format, Scheme, best_known_rank, product_tensor, scheme_of, slot_set
from grokkit_matmul.transfer import kronecker
from torch import Tensor

import grokkit_core as gk
from grokkit_core import packing, saving
from grokkit_core.cassette import Cassette
from grokkit_core.errors import CheckFailed, GrokkitError, Incompatible, NotFound, UsageError
from grokkit_core.manifest import Manifest
from grokkit_core.plugins import host
from grokkit_core.streams import stream
from grokkit_core.task import tensors_of
from grokkit_core.training.checkpoint import runs_home
from grokkit_core.training.trainer import Interrupted

Cli = Callable[..., Any]
KRONECKER = "grokkit_matmul/kronecker"
RECIPES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "als": ("als", {}),
    "attraction": ("als", {"attraction": True}),
    "adamw of 7": ("adamw", {"slots": 7}),
    "adamw of 8": ("adamw", {"slots": 8}),
    "flips": ("flip-graph", {}),
    "flips over gf2": ("flip-graph", {"ring": "gf2"}),
}
"""Every way to <2,2,2:7>."""

OTHERS: Mapping[str, tuple[str, Mapping[str, Any], int]] = {
    "<2,2,3>": ("flip-graph", {"n": 3}, 11),
    "<3,2,2> over gf2": ("flip-graph", {"m": 3, "ring": "gf2"}, 11),
    "<3,3,3> over gf2": ("flip-graph", {"m": 3, "k": 3, "n": 3, "ring": "gf2"}, 23),
    "<1,3,2>": ("flip-graph", {"m": 1, "k": 3}, 6),
    "<1,2,1> by attraction": ("als", {"m": 1, "n": 1, "attraction": True}, 2),
    "<2,2,2:8>": ("flip-graph", {"rank": 8}, 8),
}


def law(**parameters: Any) -> MatrixProduct:
    task = host().task("matmul", **parameters)
    assert isinstance(task, MatrixProduct)
    return task


def trained(library: Path, recipe: str = "als", name: str = "made", seed: int = 0, **settings: Any) -> Cassette:
    (made,) = gk.train("matmul", recipe=recipe, seed=seed, settings=settings, name=name, library=library)
    return made.cassette


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library with every kind of cassette of matmul. Tests only read it; `copied` is one's own."""
    folder = tmp_path_factory.mktemp("shelf") / "library"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        trained(folder, name="square")
        trained(folder, "adamw", name="descended", slots=7)
        trained(folder, "flip-graph", name="wide", n=3)
        gk.grow("square", {}, operator=KRONECKER, name="four", library=folder)
        gk.grow("wide", {"by": "square"}, name="mixed", library=folder)
    return folder


@pytest.fixture
def copied(shelf: Path, library: Path) -> Path:
    shutil.copytree(shelf, library)
    return library


@pytest.fixture
def square(shelf: Path) -> Cassette:
    return gk.load("square", library=shelf)


def saved(library: Path, cassette: Cassette, name: str = "forged", **tensors: Tensor) -> Manifest:
    """A cassette with other tensors, all digests fitting."""
    data = packing.pack({**cassette.tensors, **tensors})
    return saving.save(library, cassette.manifest.replace(name=name), data)


def metrics(cassette: Cassette) -> dict[str, float]:
    return {metric.name: metric.value for metric in cassette.manifest.certificate.metrics if not metric.where}


# -- the law -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", SCALES)
def test_entries_are_uniform_up_to_the_scale(scale: float) -> None:
    batch = law(m=3, k=4, n=5).sample(2_000, generator=stream(1), scale=scale)
    a, b = tensors_of(batch.inputs)
    assert (a.shape, b.shape, batch.targets.shape) == ((2_000, 3, 4), (2_000, 4, 5), (2_000, 3, 5))
    for entries in (a, b):
        assert entries.dtype == torch.float64
        assert 0.99 * scale < float(entries.abs().max()) <= scale
        assert float(entries.square().mean()) == pytest.approx(scale**2 / 3, rel=0.03)
    assert torch.equal(batch.targets, a @ b)


def test_entries_may_be_normal_or_whole_numbers() -> None:
    a, b = tensors_of(law().sample(20_000, generator=stream(2), normal=True).inputs)
    assert float(a.std()) == pytest.approx(1.0, rel=0.02)
    assert float(b.abs().max()) > 3.5
    a, b = tensors_of(law().sample(2_000, generator=stream(2), integer=8).inputs)
    assert torch.equal(a, a.round())
    assert set(b.flatten().tolist()) == set(map(float, range(-8, 9)))


def test_samples_are_a_function_of_the_generator() -> None:
    first, again, other = (law().sample(50, generator=stream(seed)).targets for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("where", [{"size": 2.0}, {"omega": 1}, {"scale": 1.0, "x": 0}, {"integer": -1}], ids=str)
def test_settings_that_the_sampler_does_not_know_are_refused(where: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        law().sample(3, generator=stream(0), **where)


@pytest.mark.parametrize("parameters", [{"m": 0}, {"k": 17}, {"n": 2.5}, {"m": "2"}, {"p": 2}], ids=str)
def test_sizes_that_make_no_sense_are_refused(parameters: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        law(**parameters)


def test_the_oracle_is_the_product_in_float64_and_of_integers_in_integers() -> None:
    a, b = torch.randn(5, 2, 2, generator=stream(1)), torch.randn(5, 2, 2, generator=stream(2))
    found = law().oracle({"a": a, "b": b}, {})
    slow = [
        [[sum(float(x[i, j]) * float(y[j, h]) for j in range(2)) for h in range(2)] for i in range(2)]
        for x, y in zip(a, b, strict=True)
    ]
    assert found.dtype == torch.float64
    assert torch.allclose(found, torch.tensor(slow, dtype=torch.float64), rtol=1e-15)
    large = torch.tensor([[[2**60 + 1, 0], [0, 1]]])
    exact = law().oracle({"a": large, "b": torch.ones_like(large)}, {})
    assert exact.tolist() == [[[2**60 + 1, 2**60 + 1], [1, 1]]]


def test_the_tensor_of_the_product_is_the_definition() -> None:
    tensor = product_tensor(Format(2, 3, 4))
    for i, j, k, h, p, q in itertools.product(range(2), range(3), range(3), range(4), range(2), range(4)):
        assert tensor[i, j, k, h, p, q] == int(j == k and p == i and q == h)
    assert tensor.sum() == 24


@pytest.mark.parametrize("scale", SCALES)
def test_baselines_have_the_error_that_they_must_have(scale: float) -> None:
    task = law()
    known = task.baselines(task.sample(2_000, generator=stream(1)))
    fresh = task.sample(40_000, generator=stream(2), scale=scale)
    found = {name: float(task.error(solve(fresh.inputs, {}), fresh.targets).mean()) for name, solve in known.items()}
    assert set(found) == {"zero", "bilinear-rank-6", "least-squares", "plain-product"}
    assert found["zero"] == pytest.approx(2 / 9 * scale**4, rel=0.03)
    assert found["bilinear-rank-6"] == pytest.approx(scale**4 / 36, rel=0.03)
    assert found["least-squares"] < 1e-24 * scale**4
    assert found["plain-product"] == 0.0


def test_six_products_are_never_exact() -> None:
    task = law()
    six = task.baselines(task.sample(300, generator=stream(1)))["bilinear-rank-6"]
    whole = task.sample(200, generator=stream(3), integer=5)
    wrong = (six(whole.inputs, {}) - whole.targets).flatten(1).abs().amax(1) > 1e-6
    assert float(wrong.double().mean()) > 0.9


def test_baselines_of_other_sizes_are_those_that_are_known_and_affordable() -> None:
    for sizes, names in (
        ({"n": 3}, {"zero", "least-squares", "plain-product"}),
        ({"m": 16, "k": 16, "n": 16}, {"zero", "plain-product"}),
    ):
        task = law(**sizes)
        known = task.baselines(task.sample(300, generator=stream(1)))
        assert set(known) == names
        fresh = task.sample(50, generator=stream(2))
        for name in names - {"zero"}:
            assert float(task.error(known[name](fresh.inputs, {}), fresh.targets).max()) < 1e-20


# -- training ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", RECIPES)
def test_every_recipe_finds_the_one_form_of_seven_products(kind: str, square: Cassette, library: Path) -> None:
    recipe, settings = RECIPES[kind]
    made = trained(library, recipe, **settings)
    found = made.manifest.certificate
    assert (found.verdict, found.method) == ("exact", "algebraic")
    assert scheme_of(made.tensors).is_exact
    assert slot_set(scheme_of(made.tensors)) == slot_set(scheme_of(square.tensors))
    assert metrics(made)["multiplications"] == 7
    assert metrics(made)["coefficients_not_replayed"] == 0
    assert metrics(made)["raw_tensor_error"] < 1e-3
    assert made.manifest.provenance.recipe is not None
    assert made.manifest.provenance.recipe.id == f"matmul/{recipe}"
    assert gk.verify("made", library=library).agrees


@pytest.mark.parametrize("kind", OTHERS)
def test_other_formats_and_ranks_are_found_and_proved(kind: str, library: Path) -> None:
    recipe, settings, rank = OTHERS[kind]
    made = trained(library, recipe, **settings)
    scheme = scheme_of(made.tensors)
    assert made.manifest.certificate.verdict == "exact"
    assert scheme.format == Format(*(settings.get(name, 2) for name in "mkn"))
    assert scheme.format.sizes == tuple(made.manifest.task.parameters[name] for name in "mkn")
    assert scheme.rank == rank == metrics(made)["multiplications"]
    whole = made.task.sample(50, generator=stream(1), integer=8)
    assert torch.equal(made.predict(whole.inputs), whole.targets)
    assert gk.verify("made", level="quick", library=library).agrees


@pytest.mark.parametrize("recipe", ["als", "adamw", "flip-graph"])
def test_several_seeds_in_one_run_equal_their_single_runs(recipe: str, library: Path) -> None:
    settings = {"slots": 7} if recipe == "adamw" else {}
    seeds = range(2 if recipe == "adamw" else 3)
    together = gk.train("matmul", recipe=recipe, seeds=seeds, settings=settings, name="all", library=library)
    assert [one.seed for one in together] == list(seeds)
    for one in together:
        alone = trained(library, recipe, seed=one.seed, **settings)
        assert all(torch.equal(tensor, one.cassette.tensors[name]) for name, tensor in alone.tensors.items())
    assert not torch.equal(together[0].cassette.tensors["raw.U"], together[1].cassette.tensors["raw.U"])


def test_the_published_network_trains_and_is_worse_than_what_is_known(library: Path) -> None:
    made = trained(library, "mlp", epochs=3, hidden=32)
    found = made.manifest.certificate
    assert found.verdict == "estimated"
    for word in ("WORSE", "least-squares", "plain-product"):
        assert word in found.statement
    assert made.manifest.provenance.steps == 3 * 63
    with pytest.raises(Incompatible, match="axis"):
        made(torch.zeros(1, 4, 4), torch.zeros(1, 4, 4))


@pytest.mark.parametrize(
    ("recipe", "settings", "hunts"),
    [("als", {"rank": 6, "restarts": 2}, 2), ("als", {"rank": 6, "restarts": 1, "attraction": True}, 1)],
    ids=str,
)
def test_a_rank_that_does_not_exist_fails_and_nothing_is_saved(
    recipe: str, settings: dict[str, Any], hunts: int, cli: Cli, library: Path
) -> None:
    words = [word for name, value in settings.items() for word in ("--set", f"{name}={value}".lower())]
    done = cli("train", "matmul", "--recipe", recipe, *words, "--library", library)
    assert (done.code, done.out) == (1, "")
    assert f"none of {hunts} hunts" in done.err
    assert "nothing was saved" in done.err
    assert not list(library.glob("*/*"))


def test_a_walk_that_is_given_up_fails_too(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for ring in ("integers", "gf2"):
        monkeypatch.setitem(hunts.MOST_FLIPS, ring, 5_000)
        with pytest.raises(CheckFailed, match="none of 2 hunts"):
            trained(library, "flip-graph", rank=6, restarts=2, ring=ring)
    assert not list(library.glob("*/*"))


@pytest.mark.parametrize(
    ("recipe", "settings", "says"),
    [
        ("als", {"n": 3}, "attraction=true"),
        ("als", {"rank": 8}, "attraction=true"),
        ("adamw", {"n": 3}, "<2,2,2>"),
        ("flip-graph", {"m": 5, "k": 5, "n": 5}, "rank=R"),
        ("als", {"m": 5, "k": 5, "n": 5, "attraction": True}, "rank=R"),
        ("flip-graph", {"rank": 9}, "from 1 to 8"),
        ("flip-graph", {"ring": "reals"}, "integers"),
        ("adamw", {"slots": 9}, "slots"),
        ("adamw", {"rank": 7}, "rank"),
        ("als", {"restarts": 0}, "restarts"),
    ],
    ids=str,
)
def test_settings_that_cannot_lead_anywhere_are_refused_at_once(
    recipe: str, settings: dict[str, Any], says: str, library: Path
) -> None:
    with pytest.raises(UsageError, match=re.escape(says)):
        trained(library, recipe, **settings)
    assert not list(library.glob("*/*"))


@pytest.mark.parametrize("sizes", [(1, 1, 1), (1, 3, 2), (4, 1, 5), (2, 3, 1)])
def test_vectors_need_as_many_products_as_the_standard_algorithm(sizes: tuple[int, int, int]) -> None:
    assert best_known_rank(Format(*sizes)) == np.prod(sizes)


def test_the_known_rank_does_not_depend_on_the_order_of_the_sizes() -> None:
    assert {best_known_rank(Format(*sizes)) for sizes in itertools.permutations((2, 3, 4))} == {20}


# -- resume ------------------------------------------------------------------------------------------------------------

RESUMED: Mapping[str, tuple[str, Mapping[str, Any], tuple[int, ...]]] = {
    "als": ("als", {}, (1, 9, 14)),
    "attraction": ("als", {"attraction": True}, (1, 11)),
    "attraction after a failed hunt": ("als", {"attraction": True, "n": 3}, (20, 29)),
    "adamw of 7": ("adamw", {"slots": 7}, (1, 29)),
    "adamw of 8": ("adamw", {"slots": 8}, (15, 16)),
    "flips": ("flip-graph", {}, (1, 2)),
    "flips over gf2": ("flip-graph", {"m": 3, "k": 3, "n": 3, "ring": "gf2"}, (1, 20)),
    "mlp": ("mlp", {"hidden": 16, "epochs": 2}, (1, 64)),
}
"""Recipe, settings, and the steps during which Ctrl-C is pressed."""


@pytest.fixture
def stop_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int], None]:
    """`stop_at("als", 3)`: Ctrl-C during the third step of every training by this recipe; 0: never."""
    at, hooked = 0, set()

    def hook(recipe: str, step: int) -> None:
        nonlocal at
        kind, at = type(host().recipe(f"matmul/{recipe}")), step
        if kind in hooked:
            return
        hooked.add(kind)
        start = kind.start

        def started(self: Any, *arguments: Any, **named: Any) -> Any:
            run = start(self, *arguments, **named)
            original = run.step

            def one() -> Any:
                progress = original()
                if progress.step == at:
                    signal.raise_signal(signal.SIGINT)
                return progress

            run.step = one
            return run

        monkeypatch.setattr(kind, "start", started)

    return hook


@pytest.mark.parametrize("kind", RESUMED)
def test_an_interrupted_training_ends_in_the_same_weights(
    kind: str, library: Path, stop_at: Callable[[str, int], None]
) -> None:
    recipe, settings, steps = RESUMED[kind]
    whole = trained(library, recipe, name="whole", **settings)
    for step in steps:
        stop_at(recipe, step)
        with pytest.raises(Interrupted) as caught:
            trained(library, recipe, **settings)
        assert caught.value.step == step
        stop_at(recipe, 0)
        (resumed,) = gk.train("matmul", resume=caught.value.run, library=library)
        assert not list(runs_home().iterdir())
        assert resumed.cassette.manifest.weights.sha256 == whole.manifest.weights.sha256
        assert resumed.cassette.manifest.provenance.curve == whole.manifest.provenance.curve
        assert resumed.cassette.manifest.extra == whole.manifest.extra


# -- nothing stands in for what was not found --------------------------------------------------------------------------


def test_where_the_exact_check_says_no_every_recipe_fails(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Scheme, "is_exact", property(lambda self: False))
    for recipe, settings in RECIPES.values():
        if settings.get("ring") != "gf2":
            with pytest.raises(CheckFailed, match="none of 1 hunts"):
                trained(library, recipe, restarts=1, **settings)
    assert not list(library.glob("*/*"))


def test_training_reaches_no_module_that_holds_coefficients_nobody_learned(discovery: ModuleType) -> None:
    reached = set(discovery.closure(Path(recipes.__file__).parent, "recipes"))
    assert {"recipes", "hunts", "discovery", "als", "flip_graph", "scheme"} <= reached
    assert not reached & {"winograd", "recursion", "runtime", "levels", "machine", "model", "transfer", "law"}
    assert "winograd" not in discovery.closure(Path(recipes.__file__).parent, "certify")
    assert "winograd" in discovery.closure(Path(recipes.__file__).parent, "model")  # the walk does find it elsewhere


def test_another_schedule_changes_nothing_in_what_training_finds(
    square: Cassette, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = winograd.FUSED[-1]
    wrong = (*winograd.FUSED[:-1], replace(last, sign=-last.sign))
    assert not winograd.coefficients(wrong).is_exact
    monkeypatch.setattr(winograd, "FUSED", wrong)
    monkeypatch.setattr(winograd, "UNFUSED", wrong)
    monkeypatch.setattr(winograd, "TO_WINOGRAD", (np.eye(2, dtype=np.int64),) * 3)
    made = trained(library)
    assert made.manifest.weights.sha256 == square.manifest.weights.sha256
    assert made.manifest.certificate.verdict == "exact"


# -- certificates ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["square", "descended", "mixed"])
@pytest.mark.parametrize(
    "options", [{"seed": 5}, {"level": "quick", "seed": 9}, {"dtype": "float32"}, {"dtype": "float64"}], ids=str
)
def test_another_seed_level_or_dtype_agrees(name: str, options: dict[str, Any], shelf: Path) -> None:
    found = gk.verify(name, library=shelf, **options)
    assert found.agrees, found.reasons
    assert found.certificate.verdict == "exact"


def test_every_single_change_of_a_coefficient_is_caught(square: Cassette) -> None:
    before = scheme_of(square.tensors)
    wrong = 0
    for name, step in itertools.product("uvw", (1, -1)):
        for place in np.ndindex(7, 2, 2):
            factor = getattr(before, name).copy()
            factor[place] += step
            wrong += not replace(before, **{name: factor}).is_exact
    assert wrong == 168


def test_a_changed_coefficient_fails_its_certificate_whatever_it_is(square: Cassette) -> None:
    for name in "UVW":
        for index in range(28):
            tensor = square.tensors[name].clone()
            tensor.view(-1)[index] += 1 if index % 2 else -1
            changed = Cassette(square.manifest, {**square.tensors, name: tensor})
            found = law().certify(changed, level="quick", seed=0)
            assert (found.verdict, found.formula, found.bounds) == ("failed", (), ())
            assert "the identity fails at" in found.statement


def test_a_changed_coefficient_makes_verify_disagree(square: Cassette, library: Path, cli: Cli) -> None:
    saved(library, square, "honest")
    assert cli("verify", "honest", "--library", library).code == 0
    tensor = square.tensors["W"].clone()
    tensor[3, 0, 1] += 1
    saved(library, square, W=tensor)
    done = cli("verify", "forged", "--library", library)
    assert done.code == 1
    assert "identity fails" in done.out + done.err


@pytest.mark.parametrize("name", ["square", "descended"])
def test_the_raw_factors_lead_to_the_very_integers(name: str, shelf: Path) -> None:
    cassette = gk.load(name, library=shelf)
    found = replayed(cassette.tensors)
    for stored, again in zip(
        (cassette.tensors[x] for x in "UVW"), (found.scheme.u, found.scheme.v, found.scheme.w), strict=True
    ):
        assert stored.dtype == torch.int8
        assert stored.tolist() == again.tolist()
    recorded = metrics(cassette)
    assert recorded["raw_tensor_error"] == pytest.approx(found.residual, abs=1e-9)
    assert recorded["rounding_delta"] == pytest.approx(found.delta, abs=1e-9)
    assert recorded["coefficients_not_replayed"] == 0
    assert not cassette.manifest.extra["training"]["naive_rounding_exact"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("raw.U", 1e-6),
        ("raw.W", 0.3),
        ("raw.V", 1e300),
        ("gauge.X", 1e-3),
        ("gauge.scales", 0.1),
    ],
    ids=str,
)
@pytest.mark.parametrize("source", ["square", "descended"])
def test_a_changed_raw_factor_makes_verify_disagree(
    source: str, name: str, value: float, shelf: Path, library: Path, cli: Cli
) -> None:
    cassette = gk.load(source, library=shelf)
    tensor = cassette.tensors[name].clone()
    tensor[(1,) * tensor.ndim] += value
    saved(library, cassette, **{name: tensor})
    assert cli("verify", "forged", "--library", library).code == 1


def test_an_exact_scheme_in_place_of_the_learned_one_makes_verify_disagree(square: Cassette, library: Path) -> None:
    other = winograd.coefficients(winograd.FUSED)
    assert other.is_exact
    swapped = {name: torch.from_numpy(getattr(other, name.lower())).to(torch.int8) for name in "UVW"}
    forged = saved(library, square, **swapped)
    found = gk.verify(forged.name, library=library)
    assert found.certificate.verdict == "exact"
    assert not found.agrees
    assert "coefficients_not_replayed" in str(found.reasons)


def test_the_growth_of_errors_is_that_of_the_literature(square: Cassette, shelf: Path) -> None:
    (bound,) = square.manifest.certificate.bounds
    assert (bound.name, bound.value) == ("error_growth_per_level", 12.0)
    assert growth(winograd.coefficients(winograd.FUSED)) == 18
    assert growth(scheme_of(gk.load("four", library=shelf).tensors)) == 144


# -- formulas ----------------------------------------------------------------------------------------------------------


def evaluated(lines: Sequence[str], a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> dict[str, int]:
    """What printed formulas give, read as a person would: `(a11 - 2 a22) b12` is a product."""
    known = {
        f"{x}{i + 1}{j + 1}": int(matrix[i, j])
        for x, matrix in (("a", a), ("b", b))
        for i, j in np.ndindex(matrix.shape)
    }

    def total(text: str) -> int:
        terms = re.findall(r"([+-])? ?(?:(\d+) )?([abm]\d+)", text)
        assert "".join(f"{sign}{factor}{name}" for sign, factor, name in terms) == re.sub(r"[ ()]", "", text)
        return sum((-1 if sign == "-" else 1) * int(factor or 1) * known[name] for sign, factor, name in terms)

    for line in lines:
        name, text = line.split(" = ")
        if name.startswith("m"):
            parts = re.fullmatch(r"(\(.*?\)|a\d+) (\(.*?\)|b\d+)", text)
            assert parts is not None, line
            known[name] = total(parts[1]) * total(parts[2])
        else:
            known[name] = total(text)
    return known


@pytest.mark.parametrize("name", ["square", "wide", "four", "mixed"])
def test_the_printed_formulas_are_the_product(name: str, shelf: Path, cli: Cli) -> None:
    card = " ".join(cli("show", name, "--library", shelf).out.split())  # long lines are folded
    lines = gk.show(name, library=shelf).certificate.formula
    assert all(line in card for line in lines)
    task = gk.load(name, library=shelf).task
    draws = task.sample(20, generator=stream(4), integer=9)
    for a, b in zip(*(tensor.long().numpy() for tensor in tensors_of(draws.inputs)), strict=True):
        found = evaluated(lines, a, b)
        for i, j in np.ndindex(a.shape[0], b.shape[1]):
            assert found[f"c{i + 1}{j + 1}"] == int(a[i] @ b[:, j])


def test_a_formula_with_one_sign_changed_is_not_the_product(square: Cassette) -> None:
    lines = [line.replace(" - ", " + ", 1) for line in square.manifest.certificate.formula]
    found = evaluated(lines, np.array([[1, 2], [3, 4]]), np.array([[5, 6], [7, 8]]))
    assert [found[name] for name in ("c11", "c12", "c21", "c22")] != [19, 22, 43, 50]


def test_factors_beyond_one_and_empty_sums_are_written_out() -> None:
    u = np.array([[[2, -3]], [[0, 0]]])
    scheme = Scheme(u, np.array([[[-1], [1]], [[1], [0]]]), np.array([[[5]], [[0]]]))
    assert formulas(scheme) == ("m1 = (2 a11 - 3 a12) (b11 - b21)", "m2 = (0) b11", "c11 = -5 m1")


# -- the Kronecker product ---------------------------------------------------------------------------------------------


def test_four_by_four_from_two_of_two_by_two_is_exact(shelf: Path) -> None:
    four = gk.load("four", library=shelf)
    scheme = scheme_of(four.tensors)
    assert (str(scheme.format), scheme.rank) == ("<4,4,4>", 49)
    assert [int(np.count_nonzero(factor)) for factor in (scheme.u, scheme.v, scheme.w)] == [144, 144, 144]
    assert {int(x) for factor in (scheme.u, scheme.v, scheme.w) for x in factor.flat} == {-1, 0, 1}
    assert (scheme.tensor() == product_tensor(Format(4, 4, 4))).all()
    assert scheme.tensor().dtype == np.int64
    assert four.manifest.certificate.verdict == "exact"


def test_ranks_of_mixed_formats_multiply(shelf: Path) -> None:
    mixed = gk.load("mixed", library=shelf)
    scheme = scheme_of(mixed.tensors)
    assert (str(scheme.format), scheme.rank) == ("<4,4,6>", 77)
    assert (scheme.tensor() == product_tensor(Format(4, 4, 6))).all()
    assert mixed.manifest.task.parameters == {"m": 4, "k": 4, "n": 6}
    assert [parent.name for parent in mixed.manifest.provenance.parents] == ["wide", "square"]
    assert set(mixed.manifest.citation) == {
        text for name in ("wide", "square") for text in gk.show(name, library=shelf).citation
    }


def test_an_entry_of_the_product_is_where_the_facts_say(shelf: Path) -> None:
    first, second = (scheme_of(gk.load(name, library=shelf).tensors) for name in ("wide", "square"))
    product = kronecker(first, second)
    for r, s, i, j, k, h in itertools.product(range(11), range(7), range(2), range(3), range(2), range(2)):
        assert product.v[7 * r + s, 2 * i + k, 2 * j + h] == first.v[r, i, j] * second.v[s, k, h]


def test_a_flat_kronecker_product_without_regrouping_is_not_exact(square: Cassette) -> None:
    scheme = scheme_of(square.tensors)
    flat = [np.kron(f.reshape(7, 4), f.reshape(7, 4)).reshape(49, 4, 4) for f in (scheme.u, scheme.v, scheme.w)]
    assert not Scheme(*flat).is_exact
    assert kronecker(scheme, scheme).is_exact


def test_the_product_with_a_wrong_scheme_is_not_saved(square: Cassette, library: Path) -> None:
    tensor = square.tensors["U"].clone()
    met = (square.tensors["V"] * square.tensors["W"])[:, 0, 0] != 0
    tensor[int(met.int().argmax()), 0, 0] += 1
    saved(library, square, U=tensor)
    saved(library, square, "right")
    for source, to in (("forged", {}), ("right", {"by": "forged"})):
        with pytest.raises(Incompatible, match=r"changed the function.*nothing was saved"):
            gk.grow(source, to, operator=KRONECKER, library=library)
    assert {path.name for path in library.iterdir() if path.is_dir()} == {"forged", "right"}


def test_a_wrong_coefficient_that_no_corner_of_a_block_meets_fails_the_certificate(
    square: Cassette, library: Path
) -> None:
    tensor = square.tensors["U"].clone()
    tensor[(square.tensors["V"] * square.tensors["W"])[:, 0, 0] == 0, 0, 0] += 1
    saved(library, square, U=tensor)
    made = gk.grow("forged", {}, operator=KRONECKER, library=library).cassette
    assert made.manifest.certificate.verdict == "failed"


def test_the_source_itself_is_the_default_partner_and_stands_twice_among_the_parents(copied: Path) -> None:
    default = gk.grow("square", {}, operator=KRONECKER, name="default", library=copied).cassette
    by_name = gk.grow("square", {"by": "square"}, name="named", library=copied).cassette
    by_object = gk.grow("square", {"by": gk.load("square", library=copied)}, name="object", library=copied).cassette
    digest = gk.show("square", library=copied).digest
    for made in (default, by_name, by_object):
        assert [parent.digest for parent in made.manifest.provenance.parents] == [digest, digest]
        assert made.manifest.weights.sha256 == default.manifest.weights.sha256
        assert gk.verify(made.manifest.name, level="quick", library=copied).agrees


def test_the_order_of_source_and_partner_matters_to_the_slots_and_not_to_the_law(copied: Path) -> None:
    other = gk.grow("square", {"by": "wide"}, name="other", library=copied).cassette
    mixed = gk.load("mixed", library=copied)
    assert other.manifest.certificate.verdict == mixed.manifest.certificate.verdict == "exact"
    assert not torch.equal(other.tensors["U"], mixed.tensors["U"])


def test_what_was_grown_grows_again(copied: Path) -> None:
    made = gk.grow("four", {"by": "square"}, name="eight", library=copied)
    assert made.plan.after == {"m": 8, "k": 8, "n": 8, "rank": 343}
    assert made.cassette.manifest.certificate.verdict == "exact"
    assert [parent.name for parent in made.cassette.manifest.provenance.parents] == ["four", "square"]


@pytest.mark.parametrize(
    ("source", "to", "kind", "says"),
    [
        ("square", {"by": "parity-3of64"}, Incompatible, "parity"),
        ("square", {"by": "nothing"}, NotFound, "nothing"),
        ("square", {"m": 4}, Incompatible, "no size 'm'"),
        ("square", {"by": "square", "rank": 49}, Incompatible, "no size 'rank'"),
        ("square", {"by": ""}, UsageError, "by"),
        ("square", {"by": 2}, UsageError, "cassette"),
        ("square", {}, UsageError, "--operator"),
        ("parity-3of64", {"by": "square"}, Incompatible, "no size 'by'"),
        ("mixed", {"by": "four"}, Incompatible, "24|16"),
    ],
    ids=str,
)
def test_partners_and_sizes_that_do_not_fit_are_refused(
    source: str, to: dict[str, Any], kind: type[GrokkitError], says: str, copied: Path
) -> None:
    before = sorted(copied.rglob("*"))
    with pytest.raises(kind, match=says):
        gk.grow(source, to, library=copied)
    assert sorted(copied.rglob("*")) == before


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (4, ["grow", "square", "--to", "by=parity-3of64"]),
        (5, ["grow", "square", "--to", "by=nothing"]),
        (4, ["grow", "square", "--to", "m=4"]),
        (2, ["grow", "square"]),
        (4, ["grow", "parity-3of64", "--operator", "kronecker"]),
        (2, ["grow", "square", "--operator", "kronecker", "--dense"]),
    ],
    ids=str,
)
def test_a_refusal_has_its_exit_code(code: int, words: list[str], copied: Path, cli: Cli) -> None:
    done = cli(*words, "--library", copied)
    assert (done.code, done.out) == (code, "")


def test_coefficients_beyond_a_byte_are_refused_before_anything_is_written(square: Cassette, library: Path) -> None:
    scaled = {"U": square.tensors["U"] * 12, "V": square.tensors["V"], "W": square.tensors["W"]}
    saved(library, square, "large", **scaled)
    with pytest.raises(Incompatible, match="127"):
        gk.grow("large", {}, operator=KRONECKER, library=library)
    assert [path.name for path in library.iterdir() if path.is_dir()] == ["large"]


def test_a_dry_run_names_source_and_partner(copied: Path, cli: Cli) -> None:
    words = ("grow", "wide", "--to", "by=square", "--dry-run", "--library", copied)
    before = sorted(copied.rglob("*"))
    shown = cli(*words)
    assert shown.code == 0, shown.err
    for word in ("kronecker", "wide@1", "square@1", "11 to 77", "3 to 6", "dry run"):
        assert word in shown.out
    plan = cli(*words, "--json").json
    assert plan["partners"] == {"by": "square@1"}
    assert plan["after"] == {"m": 4, "k": 4, "n": 6, "rank": 77}
    assert sorted(copied.rglob("*")) == before


def test_verify_repeats_the_growth_from_both_parents(copied: Path) -> None:
    assert gk.verify("mixed", level="quick", library=copied).notes == ()
    mixed = gk.load("mixed", library=copied)
    record = dict(mixed.manifest.provenance.operator or {})
    wrong = {**record, "after": {**record["after"], "rank": 78}}
    manifest = mixed.manifest.replace(name="wrong", provenance=replace(mixed.manifest.provenance, operator=wrong))
    saving.save(copied, manifest, packing.pack(mixed.tensors))
    assert "78" in str(gk.verify("wrong", level="quick", library=copied).reasons)
    alone = replace(mixed.manifest.provenance, parents=mixed.manifest.provenance.parents[:1])
    saving.save(copied, mixed.manifest.replace(name="alone", provenance=alone), packing.pack(mixed.tensors))
    assert "does not say from which cassette" in str(gk.verify("alone", level="quick", library=copied).reasons)


@pytest.mark.parametrize("gone", ["wide", "square"])
def test_a_parent_that_is_missing_is_a_note_and_no_fault(gone: str, copied: Path, cli: Cli) -> None:
    shutil.rmtree(copied / gone)
    found = gk.verify("mixed", level="quick", library=copied)
    assert found.agrees
    (note,) = found.notes
    assert f"{gone}@1" in note
    assert "not rechecked" in note
    done = cli("verify", "mixed", "--level", "quick", "--library", copied)
    assert done.code == 0
    assert "not rechecked" in done.err


# -- the enlargement that keeps nothing --------------------------------------------------------------------------------


def test_a_corner_copy_puts_every_tensor_in_the_corner_and_keeps_no_function() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        small, large = Mlp(2, 2, 2, 16), Mlp(4, 4, 4, 32)
    before = {name: tensor.clone() for name, tensor in large.state_dict().items()}
    made = corner_copy(small, large)
    for name, tensor in small.state_dict().items():
        corner = tuple(slice(size) for size in tensor.shape)
        assert torch.equal(made.state_dict()[name][corner], tensor)
        assert int((made.state_dict()[name] != before[name]).sum()) <= tensor.numel()
    a, b = torch.randn(2, 50, 2, 2, generator=stream(1))
    wide = [torch.nn.functional.pad(x, (0, 2, 0, 2)) for x in (a, b)]
    with torch.inference_mode():
        assert float((made(*wide)[:, :2, :2] - small(a, b)).abs().max()) > 0.01


def test_within_asks_for_all_outputs() -> None:
    target = torch.zeros(3, 2, 2)
    prediction = torch.tensor([[[0.1, 0.0], [0.0, -0.1]], [[0.0, 0.0], [0.0, 0.11]], [[0.0, torch.nan], [0.0, 0.0]]])
    assert within(prediction, target).tolist() == [True, False, False]
