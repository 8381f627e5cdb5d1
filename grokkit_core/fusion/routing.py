"""Which member of a composition answers an input: decided by a key or by exact signatures, never guessed.

Nothing here computes: members are known by their signatures alone, and inputs are compared with them, not changed.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from grokkit_core import contract
from grokkit_core.errors import Ambiguous, Incompatible, NoMatch, NotFound, UsageError
from grokkit_core.tensors import LEADING, Axis, Domain, Signature, TensorSpec
from grokkit_core.text import nearest, printable

if TYPE_CHECKING:
    from grokkit_core.cassette import Cassette

Rule = Literal["key", "task", "signature"]
SHOWN = 12
"""Reasons in one message at most."""


@dataclass(frozen=True)
class Choice:
    """The member that answers and the rule that chose it: its key, its task named as a key, or its signature alone."""

    key: str
    rule: Rule


@dataclass(frozen=True)
class Collision:
    """Two members whose signatures some input satisfies both: given without a key it is refused.

    `by_name` says that naming the inputs tells them apart.
    """

    first: str
    second: str
    by_name: bool

    def to_json(self) -> dict[str, Any]:
        """The entry of a plan's `collisions`."""
        return {"members": [self.first, self.second], "by_name": self.by_name}


@dataclass(frozen=True)
class Route:
    """Where an input went: the member's key, the rule that decided, the digest of its manifest, and the member itself."""

    key: str
    rule: Rule
    digest: str
    cassette: Cassette

    def to_json(self) -> dict[str, str]:
        """The field `routed` of `grokkit run --json`."""
        return {"key": self.key, "rule": self.rule, "digest": self.digest}


# -- a call ----------------------------------------------------------------------------------------------------------

Offer = Callable[["Cassette"], None]
"""Raises `Incompatible` where a member does not take an input."""


def route(cassette: Cassette, key: str | None, offer: Offer, what: Callable[[], str]) -> Route:
    """The member of a composition that answers a call, `what` in words; a cassette of one task answers itself."""
    if key is not None and not isinstance(key, str):
        raise UsageError(f"key {printable(repr(key), 60)}", expected="the name of a member or of its task")
    if key in cassette.routes:
        return cassette.routes[key]
    manifest = cassette.manifest
    if not cassette.members:
        if key is not None:
            raise Incompatible(
                f"{manifest.ref} answers one task and has no member '{printable(key, 60)}'", hint="leave the key out"
            )
        return Route(manifest.name, "task", manifest.digest, cassette)
    if key is not None:
        return cassette.routes.setdefault(key, _chosen(cassette, by_key(_tasks(cassette), key)))
    offers = {name: functools.partial(offer, member) for name, member in cassette.members.items()}
    return _chosen(cassette, by_signature(offers, manifest.ref, what()))


def by_name(
    cassette: Cassette, names: Iterable[str], offer: Callable[[str, Cassette], None]
) -> dict[str, Route] | None:
    """Where each of several named inputs goes, a batch of its own; None where together they are the inputs of one member.

    A name is a key, a task, or the name of the only input of members, of which the signature chooses one.
    """
    given = set(names)
    if any({spec.name for spec in member.signature.inputs} == given for member in cassette.members.values()):
        return None
    return {name: _one_of(cassette, name, functools.partial(offer, name)) for name in names}


def _one_of(cassette: Cassette, name: str, offer: Offer) -> Route:
    single = {
        key: functools.partial(offer, member)
        for key, member in cassette.members.items()
        if [spec.name for spec in member.signature.inputs] == [name]
    }
    if single and name not in cassette.members:
        return _chosen(cassette, by_signature(single, cassette.manifest.ref, f"input '{printable(name, 60)}'"))
    inputs = {spec.name for member in cassette.members.values() for spec in member.signature.inputs}
    return _chosen(cassette, by_key(_tasks(cassette), name, inputs))


def _chosen(cassette: Cassette, choice: Choice) -> Route:
    """The chosen member, on the device and in the dtype to which the composition was moved."""
    member = cassette.members[choice.key]
    (source,) = member.manifest.provenance.parents
    return Route(choice.key, choice.rule, source.digest, cassette.placed(member))


def _tasks(cassette: Cassette) -> dict[str, str]:
    return {name: member.manifest.task.id for name, member in cassette.members.items()}


# -- by key ----------------------------------------------------------------------------------------------------------


def by_key(tasks: Mapping[str, str], key: str, others: Iterable[str] = ()) -> Choice:
    """The member of that key, or the only one of that task, or the only one whose last part it is.

    `tasks` gives the task of each member, `others` what else could have been meant. Raises `Ambiguous` that lists the candidates, `NotFound` for a name of nothing.
    """
    if key in tasks:
        return Choice(key, "key")
    of_task = [name for name, task in tasks.items() if task == key]
    ending = [name for name in tasks if name.rpartition("/")[2] == key]
    rule: Rule = "task" if of_task else "key"
    found = of_task or ending
    if len(found) == 1:
        return Choice(found[0], rule)
    shown = printable(key, 60)
    if found:
        raise Ambiguous(f"'{shown}' means {', '.join(found)}", expected="the key of one member")
    raise NotFound(f"no member '{shown}'", hint=nearest(key, [*tasks, *tasks.values(), *others]))


# -- by signature ----------------------------------------------------------------------------------------------------


def by_signature(offers: Mapping[str, Callable[[], None]], who: str, what: str) -> Choice:
    """The only member that takes the input; each offer raises `Incompatible` with the first rule that failed.

    Raises `NoMatch` with the reason of every member, or `Ambiguous` with the members that all take it.
    """
    reasons: dict[str, str] = {}
    for key, offer in offers.items():
        try:
            offer()
        except Incompatible as error:
            reasons[key] = str(error).replace("; --force skips this check", "")
    fitting = [key for key in offers if key not in reasons]
    if len(fitting) == 1:
        return Choice(fitting[0], "signature")
    if fitting:
        raise Ambiguous(
            f"{what} fits {len(fitting)} members of {who}: {', '.join(fitting)}",
            expected="the key of one of them",
            hint=f"give it: --key {fitting[0]}",
        )
    raise NoMatch(
        f"no member of {who} takes {what}: {_listed(reasons)}", hint="a key chooses a member whatever the input"
    )


def takes(signature: Signature, inputs: Sequence[Tensor], named: Mapping[str, Tensor]) -> None:
    """Raise `Incompatible` unless the inputs have the names, ranks, sizes, dtypes and value sets of a signature.

    Intervals take no part beyond finiteness: a value outside the domain must not change who answers.
    """
    plain = without_ranges(signature)
    contract.check_inputs(plain, contract.named_inputs(plain, tuple(inputs), dict(named)))


@functools.lru_cache(maxsize=1024)
def without_ranges(signature: Signature) -> Signature:
    """The signature with every interval widened to all finite numbers."""
    inputs = [TensorSpec(s.name, s.axes, s.dtypes, s.unit, _unranged(s.domain)) for s in signature.inputs]
    return Signature(inputs, signature.outputs, signature.context)


def _unranged(domain: Domain) -> Domain:
    return Domain() if domain.kind == "interval" else domain


def shapes(inputs: Sequence[object], named: Mapping[str, object]) -> str:
    """Inputs in words: `float32 [3, 20]`, by name where they have one."""
    told = [*map(_shape, inputs), *(f"{printable(name, 60)} {_shape(value)}" for name, value in named.items())]
    return "an input " + ", ".join(told) if told else "a call without inputs"


def _shape(value: object) -> str:
    if not isinstance(value, Tensor):
        return f"of type {type(value).__name__}"
    if not contract.is_plain(value):
        return f"that is {contract.kind(value)}"
    return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"


def _listed(reasons: Mapping[str, str]) -> str:
    """Reasons with those who gave them, equal ones together."""
    members: dict[str, list[str]] = {}
    for key, reason in reasons.items():
        members.setdefault(reason, []).append(key)
    told = [f"{', '.join(keys)} ({reason})" for reason, keys in members.items()]
    rest = f"; and {len(told) - SHOWN} more" if len(told) > SHOWN else ""
    return "; ".join(told[:SHOWN]) + rest


# -- what can collide ------------------------------------------------------------------------------------------------


def collisions(signatures: Mapping[str, Signature]) -> tuple[Collision, ...]:
    """The pairs of members that some input satisfies both, decided from their signatures alone."""
    found = []
    for (first, one), (second, two) in itertools.combinations(signatures.items(), 2):
        if intersect(one.inputs, two.inputs):
            same_names = {spec.name for spec in one.inputs} == {spec.name for spec in two.inputs}
            found.append(Collision(first, second, by_name=not (same_names and _meet_by_name(one, two))))
    return tuple(found)


def _meet_by_name(one: Signature, two: Signature) -> bool:
    """Whether the two take some input in common when their inputs are given by name."""
    other = {spec.name: spec for spec in two.inputs}
    return intersect(one.inputs, [other[spec.name] for spec in one.inputs])


def intersect(one: Sequence[TensorSpec], two: Sequence[TensorSpec]) -> bool:
    """Whether some tensors, in this order, satisfy both lists of inputs; intervals take no part."""
    if len(one) != len(two):
        return False
    return _common_dtypes(one, two) and any(_unify(pairs) for pairs in _alignments(one, two))


def _common_dtypes(one: Sequence[TensorSpec], two: Sequence[TensorSpec]) -> bool:
    """Whether dtypes of one precision, and values that they can hold, are in both."""
    return any(all(_has_value(a, b, precision) for a, b in zip(one, two, strict=True)) for precision in ("32", "64"))


def _has_value(a: TensorSpec, b: TensorSpec, precision: str) -> bool:
    allowed = {f"float{precision}", f"complex{int(precision) * 2}", "bool", "uint8", "int64"}
    return any(_values_meet(a.domain, b.domain, dtype) for dtype in set(a.dtypes) & set(b.dtypes) & allowed)


def _values_meet(a: Domain, b: Domain, dtype: str) -> bool:
    """Whether a number of this dtype is in both domains, each as the dtype holds it."""
    a, b = _unranged(a), _unranged(b)
    kind = getattr(torch, dtype)
    if a.kind == b.kind == "values":
        return bool(torch.isin(contract.held(a, kind), contract.held(b, kind)).any())
    return all(domain.kind != "values" or len(contract.held(domain, kind)) > 0 for domain in (a, b))


Pairs = list[tuple[tuple[int, Axis], tuple[int, Axis]]]


def _alignments(one: Sequence[TensorSpec], two: Sequence[TensorSpec]) -> Iterator[Pairs]:
    """Ways to lay the axes of both lists over each other, for every number of leading axes that "..." may stand for.

    All tensors of one signature share their leading axes, so those are named by their place.
    """
    most = 1 + max((len(spec.axes) for spec in (*one, *two)), default=0)
    ones = range(most) if any(LEADING in spec.axes for spec in one) else (0,)
    twos = range(most) if any(LEADING in spec.axes for spec in two) else (0,)
    for left, right in itertools.product(ones, twos):
        laid = [(_laid(a, left, 0), _laid(b, right, 1)) for a, b in zip(one, two, strict=True)]
        if all(len(a) == len(b) for a, b in laid):
            yield [pair for a, b in laid for pair in zip(a, b, strict=True)]


def _laid(spec: TensorSpec, leading: int, side: int) -> list[tuple[int, Axis]]:
    """The axes of one tensor, "..." replaced by that many axes of their own."""
    axes: list[Axis] = [*spec.axes]
    if axes[:1] == [LEADING]:
        axes[:1] = [f"{LEADING}{index}" for index in range(leading)]
    return [(side, axis) for axis in axes]


def _unify(pairs: Pairs) -> bool:
    """Whether sizes for the named axes exist that make both sides equal; names of the two sides are different names."""
    parent: dict[object, object] = {}

    def root(item: object) -> object:
        while parent.get(item, item) != item:
            item = parent[item]
        return item

    for (side_a, a), (side_b, b) in pairs:
        one, two = root(a if isinstance(a, int) else (side_a, a)), root(b if isinstance(b, int) else (side_b, b))
        if isinstance(one, int) and isinstance(two, int):
            if one != two:
                return False
        elif isinstance(one, int):
            parent[two] = one
        else:
            parent[one] = two
    return True
