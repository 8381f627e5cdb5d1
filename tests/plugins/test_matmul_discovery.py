"""How integer algorithms for the product of matrices are found: training, polish, gauge, rounding, exact check."""

from __future__ import annotations

import ast
import itertools
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from grokkit_matmul import als, discovery, gauge
from grokkit_matmul.als import Als
from grokkit_matmul.attraction import Attraction, attract
from grokkit_matmul.descent import Descent
from grokkit_matmul.discovery import Discovery, discover_als, settle
from grokkit_matmul.factors import Factors, drawn
from grokkit_matmul.scheme import Format, Scheme, slot_set

from grokkit_core.errors import CheckFailed, UsageError
from grokkit_core.streams import stream

SQUARE = Format(2, 2, 2)
ROUNDING = 1e-9
"""More than float64 loses in a sandwich of condition 10, less than any entry that matters."""

TRAINED = 1e-4
"""Tensor error of an ALS run after its polish; most seeds come to 1e-10, the slowest of a hundred to 1e-5."""


@pytest.fixture(scope="module")
def found() -> Discovery:
    return discover_als(SQUARE, 7, 0)


def same(left: Factors, right: Factors) -> bool:
    """Equal to the bit."""
    return all(torch.equal(tensor, right.named()[name]) for name, tensor in left.named().items())


# -- factors -----------------------------------------------------------------------------------------------------------


def test_factors_that_do_not_fit_are_refused_with_their_shapes() -> None:
    with pytest.raises(UsageError, match=r"\[7, 2, 3\], \[7, 2, 2\], \[7, 2, 2\]"):
        Factors(torch.zeros(7, 2, 3), torch.zeros(7, 2, 2), torch.zeros(7, 2, 2))


def test_zero_factors_are_as_far_from_a_product_as_its_tensor_is_long() -> None:
    zeros = Factors(torch.zeros(3, 4, 2, 3), torch.zeros(3, 4, 3, 5), torch.zeros(3, 4, 2, 5))
    assert zeros.residual().tolist() == pytest.approx([math.sqrt(2 * 3 * 5)] * 3)


def test_slot_order_and_scales_keep_the_tensor(found: Discovery, orbit: ModuleType) -> None:
    generator = stream(0, "order")
    scales = orbit.random_scales(7, generator)
    for order in itertools.islice(itertools.permutations(range(7)), 0, None, 500):
        assert float(found.raw.slots(torch.tensor(order)).scaled(scales).residual()) < ROUNDING


def test_a_scale_without_its_inverse_changes_the_tensor(found: Discovery) -> None:
    assert float(Factors(2 * found.raw.u, found.raw.v, found.raw.w).residual()) > 1


def test_equalised_slots_have_equal_norms_and_the_same_tensor() -> None:
    factors = drawn(Format(2, 3, 4), 5, 6, 1.0, stream(1))
    factors.v[2, 3] = 0
    level = factors.equalised()
    norms = torch.stack([factor.flatten(-2).norm(dim=-1) for factor in (level.u, level.v, level.w)])
    alive = norms[1] > 0
    assert torch.allclose(norms[0][alive], norms[1][alive]) and torch.allclose(norms[1][alive], norms[2][alive])
    assert torch.allclose(level.tensor(), factors.tensor())


# -- the sandwich ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [SQUARE, Format(2, 3, 4)], ids=str)
def test_a_sandwich_keeps_what_is_computed(shape: Format, orbit: ModuleType) -> None:
    generator = stream(2)
    factors = drawn(shape, 9, 1, 1.0, generator).select(0)
    x, y, z = (orbit.invertible(size, generator) for size in (shape.m, shape.k, shape.n))
    left = torch.randn(shape.m, shape.k, generator=generator, dtype=torch.float64)
    right = torch.randn(shape.k, shape.n, generator=generator, dtype=torch.float64)

    def product(these: Factors, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch.einsum("rij,ij,rkl,kl,rpq->pq", these.u, a, these.v, b, these.w)

    inner = product(factors, torch.linalg.solve(x, left) @ y, torch.linalg.solve(y, right) @ z)
    moved = gauge.sandwich(factors, x, y, z)
    assert torch.allclose(product(moved, left, right), x @ inner @ torch.linalg.inv(z))


def test_a_sandwich_keeps_a_solution_and_on_u_alone_it_does_not(found: Discovery, orbit: ModuleType) -> None:
    generator = stream(3)
    moved = gauge.sandwich(found.raw, *(orbit.invertible(2, generator) for _ in range(3)))
    assert float(moved.residual()) < ROUNDING
    assert float(Factors(moved.u, found.raw.v, found.raw.w).residual()) > 0.1


# -- the gauge ---------------------------------------------------------------------------------------------------------


def test_twenty_random_gauges_lead_back_to_one_set_of_slots(found: Discovery, orbit: ModuleType) -> None:
    generator, exact = stream(4), orbit.as_floats(found.scheme)
    for _ in range(20):
        moved = orbit.noisy(orbit.elsewhere(exact, generator), 1e-4, generator)
        gauged = gauge.fix(moved)
        assert gauged is not None and gauged.scheme.is_exact
        assert gauged.delta < 0.1
        assert slot_set(gauged.scheme) == slot_set(found.scheme)
        assert not gauge.rounded(moved)[0].is_exact


def test_noise_that_drowns_the_solution_is_not_taken_for_one(found: Discovery, orbit: ModuleType) -> None:
    generator, exact = stream(5), orbit.as_floats(found.scheme)
    gauged = [gauge.fix(orbit.noisy(orbit.elsewhere(exact, generator), 1.0, generator)) for _ in range(20)]
    assert not any(each is not None and each.scheme.is_exact for each in gauged)


def test_the_slot_set_knows_neither_order_nor_sign_but_every_entry(found: Discovery) -> None:
    u, v, w = (factor.copy() for factor in (found.scheme.u, found.scheme.v, found.scheme.w))
    other = Scheme(-u[::-1], v[::-1], -w[::-1])
    assert slot_set(other) == slot_set(found.scheme)
    w[3, 0, 1] += 1
    assert slot_set(Scheme(u, v, w)) != slot_set(found.scheme)


def garbage() -> Iterator[Any]:
    wide = Factors(*(torch.randn(7, 2, 2, generator=stream(6, name)).double() for name in "uvw"))
    lines = torch.randn(7, 2, 1, generator=stream(7)).double()
    flat = lines @ lines.mT
    yield pytest.param(Factors(*(torch.zeros(7, 2, 2).double() for _ in range(3))), id="zeros")
    yield pytest.param(Factors(*(torch.ones(7, 2, 2).double() for _ in range(3))), id="ones")
    yield pytest.param(Factors(flat, flat, flat), id="all of rank one")
    yield pytest.param(Factors(*(torch.eye(2).double().expand(7, 2, 2) for _ in range(3))), id="all the identity")
    for value in (torch.inf, -torch.inf, torch.nan):
        yield pytest.param(Factors(torch.full_like(wide.u, value), wide.v, wide.w), id=f"{value} in U")
    yield pytest.param(Factors(wide.u * 1e300, wide.v * 1e300, wide.w), id="overflow")
    yield pytest.param(Factors(wide.u * 1e-300, wide.v, wide.w), id="underflow")
    yield pytest.param(wide.slots(torch.arange(6)), id="rank 6")
    yield pytest.param(drawn(Format(2, 3, 2), 7, 1, 1.0, stream(8)).select(0), id="another format")


@pytest.mark.parametrize("factors", list(garbage()))
def test_garbage_has_no_gauge(factors: Factors) -> None:
    assert gauge.fix(factors) is None
    assert settle(factors) is None


def test_random_factors_have_no_exact_gauge() -> None:
    factors = drawn(SQUARE, 7, 50, 1.0, stream(9))
    gauged = [gauge.fix(factors.select(index)) for index in range(50)]
    assert not any(each is not None and each.scheme.is_exact for each in gauged)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, 1e300])
def test_values_beyond_all_integers_round_to_something_wrong(value: float, found: Discovery) -> None:
    factors = Factors(found.raw.u.clone(), found.raw.v, found.raw.w)
    factors.u[0, 0, 0] = value
    scheme, delta = gauge.rounded(factors)
    assert delta == math.inf
    assert not scheme.is_exact


# -- discovery ---------------------------------------------------------------------------------------------------------


def test_ten_seeds_are_settled_by_the_gauge_and_none_by_rounding(found: Discovery) -> None:
    each = [discover_als(SQUARE, 7, seed) for seed in range(10)]
    assert all(one.scheme.is_exact for one in each)
    assert {slot_set(one.scheme) for one in each} == {slot_set(found.scheme)}
    assert max(one.residual for one in each) < TRAINED
    assert max(one.delta for one in each) < 10 * TRAINED
    assert not any(one.naive_exact for one in each)


TEXTBOOK = {
    "u": ("1001", "0011", "1000", "0001", "1100", "-1010", "010-1"),
    "v": ("1001", "1000", "010-1", "-1010", "0001", "1100", "0011"),
    "w": ("1001", "001-1", "0101", "1010", "-1100", "0001", "1000"),
}
"""Strassen 1969, Gaussian elimination is not optimal: a slot's entries 11, 12, 21, 22, for comparison in tests only."""


def test_what_is_found_is_the_textbook_form(found: Discovery) -> None:
    factors = {
        name: [[int(entry) for entry in re.findall(r"-?\d", row)] for row in rows] for name, rows in TEXTBOOK.items()
    }
    textbook = Scheme(*(np.array(factors[name], dtype=np.int64).reshape(7, 2, 2) for name in "uvw"))
    assert textbook.is_exact
    assert slot_set(found.scheme) == slot_set(textbook)


def test_a_seed_is_reproduced_to_the_bit(found: Discovery) -> None:
    again = discover_als(SQUARE, 7, 0)
    assert same(again.raw, found.raw)
    assert all(torch.equal(getattr(again, name), getattr(found, name)) for name in ("x", "y", "z", "scales"))


def test_the_recorded_way_leads_from_the_raw_factors_to_the_scheme(found: Discovery) -> None:
    scheme, delta = gauge.rounded(gauge.replay(found.raw, found.x, found.y, found.z, found.scales))
    assert delta == found.delta
    for name in ("u", "v", "w"):
        assert (getattr(scheme, name) == getattr(found.scheme, name)).all()


def test_other_raw_factors_do_not_replay_to_the_scheme(found: Discovery) -> None:
    other = discover_als(SQUARE, 7, 1)
    assert not gauge.rounded(gauge.replay(other.raw, found.x, found.y, found.z, found.scales))[0].is_exact


def test_rank_six_never_verifies() -> None:
    run = Als(SQUARE, 6, restarts=32, sweeps=discovery.SWEEPS, generator=stream(10))
    factors = run.run()
    assert float(run.residuals().min()) >= 0.999
    assert settle(factors) is None
    with pytest.raises(CheckFailed, match="none of 2 batches"):
        discover_als(SQUARE, 6, 0, batches=2)


def test_descent_on_samples_is_settled_like_everything_else(found: Discovery) -> None:
    learned = settle(Descent(SQUARE, 7, seed=0).run())
    assert learned is not None and learned.scheme.is_exact
    assert slot_set(learned.scheme) == slot_set(found.scheme)
    assert not learned.naive_exact


def test_attraction_needs_no_gauge() -> None:
    candidates = attract(SQUARE, 7, generator=stream(0))
    assert len(candidates.u) > 0
    assert all(gauge.rounded(candidates.select(index))[0].is_exact for index in range(len(candidates.u)))


def test_attraction_settles_a_format_without_a_gauge() -> None:
    shape = Format(1, 2, 2)
    settled = settle(attract(shape, 4, generator=stream(1)))
    assert settled is not None and settled.scheme.is_exact
    assert settled.scheme.format == shape
    replayed = gauge.replay(settled.raw, settled.x, settled.y, settled.z, settled.scales)
    assert gauge.rounded(replayed)[0].is_exact
    assert torch.equal(settled.y, torch.eye(2).double())


def test_networks_that_learned_nothing_are_not_settled_though_polish_alone_would_solve_some() -> None:
    untrained = drawn(SQUARE, 7, 40, 0.5, stream(12))
    polished = als.polish(untrained)
    gauged = [gauge.fix(polished.select(index)) for index in range(40)]
    assert any(each is not None and each.scheme.is_exact for each in gauged)
    assert settle(untrained) is None


def test_no_candidates_settle_nothing() -> None:
    assert settle(drawn(SQUARE, 7, 0, 1.0, stream(0))) is None


# -- failures stay failures --------------------------------------------------------------------------------------------


def test_where_the_exact_check_says_no_nothing_is_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Scheme, "is_exact", property(lambda self: False))
    with pytest.raises(CheckFailed, match="none of 2 batches"):
        discover_als(SQUARE, 7, 0, batches=2)


def test_where_training_returns_noise_nothing_is_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(als, "sweep", lambda factors, weight: drawn(SQUARE, 7, len(factors.u), 1.0, stream(0)))
    with pytest.raises(CheckFailed, match="none of 2 batches"):
        discover_als(SQUARE, 7, 0, batches=2)


def test_where_the_gauge_fails_nothing_is_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gauge, "fix", lambda factors: None)
    with pytest.raises(CheckFailed, match="none of 1 batches"):
        discover_als(SQUARE, 7, 0, batches=1)


# -- resume ------------------------------------------------------------------------------------------------------------


def started(kind: str) -> tuple[Any, Callable[[Any], None]]:
    if kind == "als":
        return Als(SQUARE, 7, restarts=4, sweeps=40, generator=stream(11)), Als.sweep
    if kind == "attraction":
        return Attraction(SQUARE, 7, restarts=4, generator=stream(11)), Attraction.sweep
    slots, batch = (8, 16) if kind == "pruned" else (7, 8)
    return Descent(SQUARE, 7, slots=slots, batch=batch, steps=30, seed=3, restarts=2), Descent.step


@pytest.mark.parametrize("kind", ["als", "attraction", "descent", "pruned"])
@pytest.mark.parametrize("at", [0, 17, 30])
def test_a_run_goes_on_from_its_state_equal_to_the_bit(kind: str, at: int) -> None:
    whole, step = started(kind)
    for _ in range(at):
        step(whole)
    state = whole.state()
    while not whole.done:
        step(whole)
    resumed, _ = started(kind)
    step(resumed)
    resumed.restore(state)
    while not resumed.done:
        step(resumed)
    assert same(resumed.factors, whole.factors)
    started_anew, _ = started(kind)
    assert not same(started_anew.factors, whole.factors)


def test_a_pruned_run_ends_with_as_many_slots_as_the_rank() -> None:
    run = Descent(SQUARE, 7, slots=9, batch=8, steps=3, restarts=2)
    assert run.factors.rank == 9
    assert run.run().rank == 7
    assert run.step_count == run.steps == 6


def test_the_slot_of_the_least_product_of_norms_is_dropped() -> None:
    run = Descent(SQUARE, 7, slots=8, batch=8, steps=1, lr=1e-4, restarts=2)
    run.step()
    run.parameters[0, 3] *= 0.01
    run.parameters[1, 5] *= 0.01
    before = run.parameters.clone()
    run.step()
    for restart, dropped in enumerate((3, 5)):
        kept = [slot for slot in range(8) if slot != dropped]
        assert torch.allclose(run.parameters[restart], before[restart, kept], atol=1e-3)


def test_a_restored_attraction_knows_what_was_found() -> None:
    run, resumed = (Attraction(SQUARE, 7, restarts=64, generator=stream(seed)) for seed in (0, 1))
    while not run.done:
        run.sweep()
    assert run.found
    resumed.restore(run.state())
    assert resumed.done
    assert same(resumed.candidates(), run.candidates())


def test_the_written_out_gradient_is_that_of_the_loss() -> None:
    shape = Format(2, 3, 4)
    run = Descent(shape, 5, batch=6, steps=10, lr=0.1, restarts=1)
    before = run.parameters.clone().requires_grad_()
    generator = torch.Generator()
    generator.set_state(run.generator.get_state())
    draw = torch.randn(1, 6, 18, generator=generator)[0]
    left, right = draw[:, :6].reshape(6, 2, 3), draw[:, 6:].reshape(6, 3, 4)
    u, v, w = (
        part.reshape(5, *size)
        for part, size in zip(before[0].split([6, 12, 8], -1), [(2, 3), (3, 4), (2, 4)], strict=True)
    )
    output = torch.einsum("rij,bij,rkl,bkl,rpq->bpq", u, left, v, right, w)
    loss = (output - left @ right).square().mean()
    loss.backward()
    optimiser = torch.optim.AdamW([before], lr=0.1, weight_decay=1e-4)
    optimiser.step()
    run.step()
    assert run.losses.item() == pytest.approx(loss.item(), rel=1e-5)
    assert torch.allclose(run.parameters, before.detach(), atol=1e-4)  # Adam divides small gradients by themselves


# -- what discovery can see --------------------------------------------------------------------------------------------

ALLOWED = {
    "__future__",
    "collections",
    "dataclasses",
    "math",
    "numpy",
    "torch",
    "typing",
    "grokkit_core",
    "grokkit_matmul",
}
CANONICAL = {"winograd"}
"""Modules of the package that hold coefficients that nobody learned."""


def imports_of(text: str) -> set[str]:
    """Every dotted name that a module imports, at any depth of its code."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports are not followed here"
            names |= {str(node.module)} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def closure(folder: Path, start: str) -> dict[str, str]:
    """The modules of a package that `start` reaches by imports, itself and `__init__` included: name and source."""
    reached: dict[str, str] = {}
    waiting = ["__init__", start]
    while waiting:
        name = waiting.pop()
        path = folder / f"{name}.py"
        if name in reached or not path.exists():
            continue
        reached[name] = path.read_text()
        waiting += [
            parts[1]
            for each in imports_of(reached[name])
            if len(parts := each.split(".")) > 1 and parts[0] == folder.name
        ]
    return reached


def coefficient_tables(text: str) -> list[int]:
    """Lines of literals with a dozen numbers or more that are all -1, 0 or 1, or of that many such digits in a string."""
    lines = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.List | ast.Tuple):
            numbers = [leaf.value for leaf in ast.walk(node) if isinstance(leaf, ast.Constant)]
            if len(numbers) >= 12 and all(number in (0, 1) for number in numbers):
                lines.append(node.lineno)
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            digits = [letter for letter in node.value if letter in "01"]
            if len(digits) >= 12:
                lines.append(node.lineno)
    return lines


@pytest.fixture(scope="module")
def training_path() -> dict[str, str]:
    folder = Path(discovery.__file__).parent
    return closure(folder, "discovery") | closure(folder, "descent") | closure(folder, "attraction")


def test_no_module_of_the_training_path_reaches_canonical_coefficients(training_path: dict[str, str]) -> None:
    assert {"discovery", "descent", "attraction", "als", "gauge", "factors", "scheme"} <= set(training_path)
    assert not CANONICAL & set(training_path)
    for name, text in training_path.items():
        assert {each.split(".")[0] for each in imports_of(text)} <= ALLOWED, name
        assert "importlib" not in text and "__import__" not in text, name
        assert not coefficient_tables(text), name


def test_an_import_deep_inside_a_function_would_be_seen(tmp_path: Path) -> None:
    folder = tmp_path / "package"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "discovery.py").write_text("from package import helper\n")
    (folder / "helper.py").write_text("def fall_back():\n    from package.winograd import TABLE\n    return TABLE\n")
    (folder / "winograd.py").write_text("TABLE = [[1, 0, 0, 1], [0, 0, -1, 1], [1, 1, 0, 0]]\n")
    reached = closure(folder, "discovery")
    assert set(reached) == {"__init__", "discovery", "helper", "winograd"}
    assert coefficient_tables(reached["winograd"]) == [1]
    assert coefficient_tables("TABLE = '1001 0011 1100'") == [1]
