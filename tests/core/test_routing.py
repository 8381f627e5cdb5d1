"""Which member answers: every input goes to the one whose signature it satisfies, or is refused; nothing is guessed."""

from __future__ import annotations

import functools
import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import composites
import numpy as np
import pytest
import torch
from composites import admits, assemble, held, rows, shapes_fit
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from grokkit_core.cassette import Cassette
from grokkit_core.errors import Ambiguous, Incompatible, NoMatch, NotFound, UsageError
from grokkit_core.fusion import routing
from grokkit_core.fusion.isolation import same
from grokkit_core.fusion.routing import collisions, takes
from grokkit_core.task import Batch
from grokkit_core.tensors import DTYPES, Signature, TensorSpec

Made = Mapping[str, Cassette]
Sampled = Mapping[str, Batch]
CONTEXT = {"omega": 1.0, "lam2": 0.5}
REFUSALS = (NoMatch, Ambiguous)


@functools.lru_cache
def entries(composition: Cassette) -> dict[str, Any]:
    """The members of a composition as its manifest states them, by key."""
    return {entry["key"]: entry for entry in composition.manifest.to_json()["architecture"]["config"]["members"]}


# -- generated inputs -------------------------------------------------------------------------------------------------

Given = tuple[Tensor, ...]


def _valid(rng: random.Random, base: Given) -> Given:
    return base


def _wrong_rank(rng: random.Random, base: Given) -> Given:
    return (rng.choice([base[0][0], base[0].unsqueeze(rng.randrange(2)), base[0].flatten(), base[0].sum()]), *base[1:])


def _width(rng: random.Random, base: Given) -> Given:
    dtype = rng.choice([torch.float32, torch.float64, torch.uint8])
    return (torch.ones(rng.choice([1, 3]), rng.choice([2, 4, 5, 6, 20, 64, 65]), dtype=dtype),)


def _other_size(rng: random.Random, base: Given) -> Given:
    axis = rng.randrange(base[0].ndim)
    one = base[0].narrow(axis, 0, max(1, base[0].shape[axis] - 1))
    return (rng.choice([one, torch.cat([base[0], base[0].narrow(axis, 0, 1)], axis)]), *base[1:])


def _not_finite(rng: random.Random, base: Given) -> Given:
    first = base[0].clone() if base[0].is_floating_point() or base[0].is_complex() else base[0].float()
    first.view(-1)[rng.randrange(first.numel())] = rng.choice([torch.nan, torch.inf, -torch.inf])
    return (first, *base[1:])


def _no_bit(rng: random.Random, base: Given) -> Given:
    bits = torch.randint(0, 2, (rng.choice([1, 5]), 64), generator=torch.Generator().manual_seed(rng.randrange(99)))
    kind, odd = rng.choice([(torch.float32, 0.5), (torch.uint8, 2), (torch.float64, -1.0), (torch.float32, 1 + 1e-6)])
    wrong = bits.to(kind)
    wrong[-1, rng.randrange(64)] = odd
    return (wrong if rng.random() < 0.8 else bits.to(kind),)


def _wrong_dtype(rng: random.Random, base: Given) -> Given:
    kinds = [torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.uint8, torch.bool, torch.complex64]
    kinds += [torch.float32, torch.float64, torch.complex128]
    kind = rng.choice(kinds)
    plain = base[0].real if base[0].is_complex() and not kind.is_complex else base[0]
    return (plain.to(kind), *base[1:])


def _empty(rng: random.Random, base: Given) -> Given:
    return tuple(tensor[:0] for tensor in base)


def _mixed(rng: random.Random, base: Given) -> Given:
    """Rows of which one belongs elsewhere: an outlier, which stays in its signature, or one with a value outside."""
    doubled = torch.cat([base[0], base[0]])
    doubled[-1] = rng.choice([7, 1, 0])
    return (doubled, *base[1:])


def _other_count(rng: random.Random, base: Given) -> Given:
    return rng.choice([(*base, base[0]), (), base[:1]])


def _precisions(rng: random.Random, base: Given) -> Given:
    square = torch.eye(rng.choice([2, 3, 4]))
    kinds = [torch.float32, torch.float64, torch.int64]
    return (square.to(rng.choice(kinds)), square[:, : rng.choice([1, 2])].to(rng.choice(kinds)))


MUTATIONS = (
    _valid, _wrong_rank, _width, _other_size, _not_finite, _no_bit, _wrong_dtype, _empty, _mixed, _other_count, _precisions,
)  # fmt: skip


def generated(count: int, seed: int, sampled_of: Sampled) -> Iterator[tuple[str, Given]]:
    """Inputs with the kind of each: samples of all tasks, then changed."""
    rng = random.Random(seed)
    names = sorted(sampled_of)
    for number in range(count):
        batch, mutate = sampled_of[rng.choice(names)], MUTATIONS[number % len(MUTATIONS)]
        inputs, _ = rows(batch, rng.choice([1, 2, 5]))
        base = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs.values())
        yield mutate.__name__, mutate(rng, base)


def misrouted(composition: Cassette, alone: Made, inputs: Given) -> tuple[str, str]:
    """What became of an input, and what is wrong with that: nothing, where it is as the oracle of signatures says."""
    fitting = [key for key, entry in entries(composition).items() if admits(entry["inputs"], inputs)]
    try:
        route = composition.route(*inputs)
    except REFUSALS as error:
        wanted = NoMatch if not fitting else Ambiguous
        told = all(key in str(error) for key in fitting)
        return type(error).__name__, "" if len(fitting) != 1 and type(error) is wanted and told else f"{error}"
    if fitting != [route.key] or route.rule != "signature":
        return "routed", f"to {route.key} by {route.rule}, {fitting} fit"
    return "routed", _otherwise(composition, alone[route.key], inputs)


def _otherwise(composition: Cassette, member: Cassette, inputs: Given) -> str:
    """How a composition's answer differs from its member's, refusals of the member included."""
    named = dict(zip([spec.name for spec in member.signature.inputs], inputs, strict=True))
    try:
        expected = member.predict(named, CONTEXT)
    except Incompatible as refused:
        try:
            composition(*inputs, context=CONTEXT)
        except Incompatible as error:
            return "" if type(error) is type(refused) and str(error) == str(refused) else f"{error}, not {refused}"
        return "answered what the member refuses"
    found = composition(*inputs, context=CONTEXT)
    return "" if same(found, expected) else "other outputs"


@pytest.fixture(scope="module")
def apart(shipped: Made) -> Cassette:
    """A router of one cassette a task; two of the tasks take rows of four numbers."""
    tasks = {cassette.manifest.task.id: cassette for cassette in shipped.values()}
    return assemble("router", tasks.values(), "apart")


@pytest.mark.parametrize("which", ["atlas", "apart"])
def test_no_generated_input_is_misrouted(
    which: str, request: pytest.FixtureRequest, shipped: Made, sampled_of: Sampled
) -> None:
    composition, outcomes, kinds = request.getfixturevalue(which), Counter[str](), Counter[str]()
    for kind, inputs in generated(1_100, 3, sampled_of):
        outcome, problem = misrouted(composition, shipped, inputs)
        assert not problem, f"{kind} {routing.shapes(inputs, {})}: {problem}"
        outcomes[outcome] += 1
        kinds[kind] += 1
    assert min(outcomes[name] for name in ("routed", "NoMatch", "Ambiguous")) > 20, outcomes
    assert len(kinds) == len(MUTATIONS)


@pytest.mark.acceptance
def test_routing_of_twenty_thousand_generated_inputs(
    atlas: Cassette, apart: Cassette, shipped: Made, sampled_of: Sampled, figure: Callable[..., None]
) -> None:
    outcomes, wrong = Counter[str](), 0
    for seed, composition in enumerate((atlas, apart)):
        for _, inputs in generated(10_000, seed, sampled_of):
            outcome, problem = misrouted(composition, shipped, inputs)
            outcomes[outcome] += 1
            wrong += bool(problem)
    told = ", ".join(f"{count:,} {name}" for name, count in sorted(outcomes.items()))
    figure(f"misroutes of {outcomes.total():,} generated inputs ({told})", str(wrong), "0")
    assert wrong == 0


def test_the_oracle_notices_a_router_that_guesses(atlas: Cassette, shipped: Made, sampled_of: Sampled) -> None:
    def by_shape(inputs: Given) -> str:
        """The published rule."""
        width = inputs[0].shape[-1] if inputs and inputs[0].ndim == 2 else 0
        return "wave" if inputs and inputs[0].ndim == 3 else "parity-3of64" if width > 20 else "pendulum"

    wrong = 0
    for _, inputs in generated(220, 4, sampled_of):
        fitting = [key for key, entry in entries(atlas).items() if admits(entry["inputs"], inputs)]
        wrong += fitting != [by_shape(inputs)]
    assert wrong > 100


ODD = {
    "sparse": lambda: torch.zeros(3, 64).to_sparse(),
    "without values": lambda: torch.zeros(3, 64, device="meta"),
    "an array": lambda: np.zeros((3, 64), dtype=np.float32),
    "a list": lambda: [[0.0] * 64],
    "nothing": lambda: None,
    "a scalar": lambda: torch.tensor(1.0),
    "half": lambda: torch.zeros(3, 64, dtype=torch.float16),
    "eight axes": lambda: torch.zeros([1] * 8),
}


@pytest.mark.parametrize("name", ODD)
def test_what_is_no_tensor_of_numbers_matches_nobody(name: str, apart: Cassette) -> None:
    with pytest.raises(NoMatch):
        apart(ODD[name]())
    with pytest.raises(Incompatible):
        apart(ODD[name](), key="parity")


def test_no_member_answers_a_call_without_inputs(apart: Cassette) -> None:
    with pytest.raises(NoMatch, match="without inputs"):
        apart()


def test_a_refusal_names_every_member_with_the_first_rule_that_failed(apart: Cassette) -> None:
    with pytest.raises(NoMatch) as caught:
        apart(torch.zeros(3, 65))
    for key in apart.members:
        assert key in str(caught.value)
    assert "65" in str(caught.value)
    assert "64" in str(caught.value)


# -- keys -------------------------------------------------------------------------------------------------------------


def test_a_key_is_taken_whatever_else_would_fit(atlas: Cassette, shipped: Made, sampled_of: Sampled) -> None:
    for name, cassette in shipped.items():
        inputs, context = rows(sampled_of[name], 3)
        named = {"x": inputs} if isinstance(inputs, Tensor) else inputs
        route = atlas.route(*named.values(), key=name)
        assert (route.key, route.rule, route.digest) == (name, "key", cassette.manifest.digest)
        found = atlas(*named.values(), key=name, context=context)
        assert torch.equal(found, cassette.predict(inputs, context))


def test_a_keyed_input_that_does_not_fit_goes_to_nobody_else(
    atlas: Cassette, shipped: Made, sampled_of: Sampled
) -> None:
    stated = entries(atlas)
    refused = 0
    for _, inputs in generated(330, 5, sampled_of):
        for key in shipped:
            if not admits(stated[key]["inputs"], inputs):
                with pytest.raises(Incompatible) as caught:
                    atlas(*inputs, key=key, context=CONTEXT)
                assert not isinstance(caught.value, REFUSALS)
                refused += 1
    assert refused > 1_000


def test_a_task_is_a_key_where_it_has_one_member(apart: Cassette, atlas: Cassette) -> None:
    for key, member in apart.members.items():
        route = apart.route(key=member.manifest.task.id)
        assert route.key == key
        assert route.rule == ("key" if key == member.manifest.task.id else "task")
    with pytest.raises(Ambiguous, match="parity-3of64, parity-3of64-grokked"):
        atlas.route(key="parity")


@pytest.mark.parametrize(("key", "said"), [("pendulumm", "pendulum"), ("matmul2x2x3", "matmul-2x2x3"), ("", "known")])
def test_a_key_of_nothing_is_not_found_and_the_nearest_is_offered(key: str, said: str, atlas: Cassette) -> None:
    with pytest.raises(NotFound, match=said):
        atlas(torch.zeros(2, 4), key=key)


def test_a_cassette_of_one_task_has_no_members_to_choose(shipped: Made) -> None:
    with pytest.raises(Incompatible, match="leave the key out"):
        shipped["pendulum"](torch.zeros(2, 4), key="pendulum")
    assert shipped["pendulum"].route(torch.zeros(2, 4)).digest == shipped["pendulum"].manifest.digest


def test_several_named_inputs_are_answered_each_by_its_member(
    apart: Cassette, shipped: Made, sampled_of: Sampled
) -> None:
    by_task = {member.manifest.task.id: key for key, member in apart.members.items()}
    bits, field, pair = (rows(sampled_of[by_task[task]], 2)[0] for task in ("parity", "hpu", "wave"))
    found = apart(bits=bits, hpu=field, wave=pair, context=CONTEXT)
    assert list(found) == ["bits", "hpu", "wave"]
    expected = {"bits": ("parity", bits), "hpu": ("hpu", field), "wave": ("wave", pair)}
    for name, (task, inputs) in expected.items():
        assert torch.equal(found[name], shipped[by_task[task]].predict(inputs, CONTEXT))


def test_a_name_that_two_members_read_is_not_guessed(apart: Cassette) -> None:
    with pytest.raises(Ambiguous, match=r"kepler.*pendulum|pendulum.*kepler"):
        apart(bits=torch.zeros(2, 64), state=torch.zeros(2, 4))
    with pytest.raises(NotFound, match="bits"):
        apart(bist=torch.zeros(2, 64))


def test_ranges_refuse_and_do_not_choose() -> None:
    """One row outside an interval must not send the batch to the member without one."""
    narrow = Signature([TensorSpec("x", ("batch", 4), domain=(0.0, 1.0))], [])
    wide = Signature([TensorSpec("x", ("batch", 4))], [])
    far = torch.full((2, 4), 5.0)
    takes(narrow, (far,), {})
    takes(wide, (far,), {})
    assert [pair.first for pair in collisions({"narrow": narrow, "wide": wide})] == ["narrow"]


# -- what can collide -------------------------------------------------------------------------------------------------


def drawn(stated: Sequence[Mapping[str, Any]], rng: random.Random) -> Given:
    """Tensors that satisfy the inputs of a manifest, of sizes that other members may want."""
    sizes: dict[object, int] = {}
    lead = [rng.choice([1, 2, 64]) for _ in range(rng.randrange(3))]
    precision = rng.choice(["single", "double"])
    made = []
    for spec in stated:
        axes = [*lead, *spec["axes"][1:]] if spec["axes"][0] == "..." else spec["axes"]
        shape = [sizes.setdefault(a, rng.choice([1, 2, 3, 4, 15, 64])) if isinstance(a, str) else a for a in axes]
        kinds = [name for name in spec["dtypes"] if composites.precision(name) in ("", precision)]
        kind: torch.dtype = getattr(torch, rng.choice(kinds))
        values = spec["domain"].get("values", [0.0, 1.0, 2.0])
        made.append(torch.full(shape, rng.choice(values)).to(kind))
    return tuple(made)


def test_the_collisions_of_all_shipped_pairs_are_those_found_by_sampling(atlas: Cassette) -> None:
    stated, rng, found = entries(atlas), random.Random(0), set()
    for key, entry in stated.items():
        for _ in range(300):
            inputs = drawn(entry["inputs"], rng)
            assert admits(entry["inputs"], inputs)
            found |= {
                frozenset((key, other)) for other in stated if other != key and admits(stated[other]["inputs"], inputs)
            }
    listed = collisions({key: member.signature for key, member in atlas.members.items()})
    assert {frozenset((pair.first, pair.second)) for pair in listed} == found
    assert found


VALUES = (-1.0, 0.0, 0.1, 0.10000000149011612, 0.5, 1.0, 2.0, 300.0, 1e300)
axes = st.one_of(st.integers(1, 3), st.sampled_from(["b", "n", "m"]))
domains = st.one_of(
    st.sampled_from(["any", "finite"]), st.sets(st.sampled_from(VALUES), min_size=1, max_size=3), st.just((-1.0, 1.0))
)


@st.composite
def signatures(draw: st.DrawFn, most: int = 2) -> Signature:
    """One or two inputs with fixed, named, shared and leading axes, any dtypes, and every kind of domain."""
    names = draw(st.permutations(["a", "c", "d"]))
    specs = []
    count = draw(st.integers(1, most))
    for name in names[:count]:
        own = draw(st.lists(axes, min_size=1, max_size=4 - count))  # so that no common shape has more than three axes
        own = ["...", *own[1:]] if draw(st.integers(0, 3)) == 0 else own
        dtypes = draw(st.lists(st.sampled_from(DTYPES), min_size=1, max_size=3, unique=True))
        specs.append(TensorSpec(name, own, dtypes, domain=draw(domains)))
    return Signature(specs, [])


SHAPES = [shape for rank in range(4) for shape in itertools.product((1, 2, 3), repeat=rank)]


def common_input(one: Sequence[Mapping[str, Any]], two: Sequence[Mapping[str, Any]]) -> Given | None:
    """Tensors that both admit, looked for among all small shapes, all dtypes and all values that could matter."""
    shapes = next(
        (c for c in itertools.product(SHAPES, repeat=len(one)) if shapes_fit(one, c) and shapes_fit(two, c)), None
    )
    if len(one) != len(two) or shapes is None:
        return None
    fills = [(name, value) for name in DTYPES for value in sorted({v for x in VALUES for v in held([x], name)} | {7.0})]
    ranges = [[f for f in fills if _both(a, b, *f)] for a, b in zip(one, two, strict=True)]
    for chosen in itertools.product(*ranges):
        inputs = tuple(_full(shape, *fill) for shape, fill in zip(shapes, chosen, strict=True))
        if admits(one, inputs) and admits(two, inputs):
            return inputs
    return None


def _full(shape: Sequence[int], dtype: str, value: float) -> Tensor:
    kind: torch.dtype = getattr(torch, dtype)
    if kind.is_complex:
        return torch.complex(*[torch.full(shape, value, dtype=kind.to_real())] * 2)
    return torch.full(shape, value).to(kind) if kind == torch.bool else torch.full(shape, value, dtype=kind)


def _both(a: Mapping[str, Any], b: Mapping[str, Any], dtype: str, value: float) -> bool:
    ones = [{**spec, "axes": ["b"]} for spec in (a, b)]
    if dtype == "bool" and value not in (0.0, 1.0):
        return False
    return all(admits([spec], (_full((1,), dtype, value),)) for spec in ones)


def stated(signature: Signature) -> list[Any]:
    """The inputs as a manifest has them."""
    return list(signature.to_json()["inputs"])


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(signatures(), signatures())
def test_signatures_collide_exactly_where_some_input_fits_both(one: Signature, two: Signature) -> None:
    listed = collisions({"one": one, "two": two})
    found = common_input(stated(one), stated(two)) if len(one.inputs) == len(two.inputs) else None
    assert bool(listed) == (found is not None)
    if found is not None:
        for signature in (one, two):
            takes(signature, found, {})
        _check_names(one, two, listed[0].by_name)


def _check_names(one: Signature, two: Signature, by_name: bool) -> None:
    """Names tell two members apart exactly where no named input fits both."""
    other = {spec["name"]: spec for spec in stated(two)}
    if set(other) != {spec.name for spec in one.inputs}:
        assert by_name
        return
    assert by_name == (common_input(stated(one), [other[spec.name] for spec in one.inputs]) is None)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(signatures(), st.integers(0, 10**6))
def test_a_signature_takes_exactly_what_its_manifest_admits(signature: Signature, seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(20):
        fills = [(name, value) for name in DTYPES for value in (*held(VALUES, name), 7.0 if name != "bool" else 1.0)]
        inputs = tuple(_full(rng.choice(SHAPES), *rng.choice(fills)) for _ in signature.inputs)
        try:
            takes(signature, inputs, {})
        except Incompatible:
            assert not admits(stated(signature), inputs)
        else:
            assert admits(stated(signature), inputs)


@pytest.mark.parametrize("key", [3, ["pendulum"], b"pendulum"])
def test_a_key_that_is_no_name_is_a_usage_error(key: object, atlas: Cassette) -> None:
    with pytest.raises(UsageError, match="key"):
        atlas(torch.zeros(1, 4), key=key)
