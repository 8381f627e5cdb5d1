"""Every law of cassettes catches one that breaks it, and nothing in a healthy one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from probes import Mutant, assert_broken, bench_with, broken_laws

from grokkit_core import packing, saving
from grokkit_core.cassette import Cassette
from grokkit_core.certify.sampled import SAMPLES
from grokkit_core.library import Entry, Library, Root
from grokkit_core.manifest import Requires
from grokkit_core.testing import Workbench, check_cassette

Save = Callable[[Cassette], Entry]
UNREADABLE = frozenset(
    f"cassette.{name}" for name in ("readable", "loads", "certificate", "finite", "varies", "baselines", "requires")
)
"""Laws that need a cassette that can be loaded."""


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Workbench]:
    """A bench over the probe plugin, with certificates of few samples."""
    for level in ("full", "quick"):
        monkeypatch.setitem(SAMPLES, level, 256)  # type: ignore[misc]
    with bench_with() as made:
        yield made


@pytest.fixture
def healthy(bench: Workbench) -> Cassette:
    """An untrained network with an honest certificate."""
    return certified(bench.networks("grokkit_probe/net")[0])


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Writes a cassette, whatever its manifest says; the entry of its folder."""

    def write(cassette: Cassette) -> Entry:
        saving.save(tmp_path, cassette.manifest, packing.pack(cassette.tensors))
        return entry_in(tmp_path)

    return write


def entry_in(root: Path) -> Entry:
    (entry,) = Library([Root(root, "option", "tests")]).entries()
    return entry


def certified(cassette: Cassette) -> Cassette:
    return cassette.with_certificate(cassette.task.certify(cassette, level="quick", seed=0))


def constant(cassette: Cassette) -> Cassette:
    """A network of zeros, certified as it is."""
    tensors = {name: torch.zeros_like(tensor) for name, tensor in cassette.tensors.items()}
    return certified(Cassette(cassette.manifest, tensors, plugins=cassette.plugins))


def overflowing(cassette: Cassette) -> Cassette:
    """Finite weights, infinite sums, certified as it is."""
    tensors = {name: tensor.sign() * 3e38 for name, tensor in cassette.tensors.items()}
    return certified(Cassette(cassette.manifest, tensors, plugins=cassette.plugins))


def boasting(cassette: Cassette) -> Cassette:
    """A tenth of the error that it has."""
    certificate = cassette.manifest.certificate
    metrics = tuple(
        replace(m, value=m.value / 10, stderr=m.stderr / 10 if m.stderr else m.stderr, interval=m.interval)
        for m in certificate.metrics
    )
    return cassette.with_certificate(replace(certificate, metrics=metrics))


def silent(cassette: Cassette) -> Cassette:
    """It does not say that a baseline is better."""
    certificate = cassette.manifest.certificate
    return cassette.with_certificate(replace(certificate, statement="better than any baseline"))


def alone(cassette: Cassette) -> Cassette:
    """No baseline stands beside its figures."""
    return cassette.with_certificate(replace(cassette.manifest.certificate, baselines=()))


def of_another_version(cassette: Cassette) -> Cassette:
    reference = replace(cassette.manifest.architecture, version=2)
    return Cassette(cassette.manifest.replace(architecture=reference), cassette.tensors, plugins=cassette.plugins)


def miscounted(cassette: Cassette) -> Cassette:
    weights = replace(cassette.manifest.weights, parameters=cassette.manifest.weights.parameters + 1)
    return Cassette(cassette.manifest.replace(weights=weights), cassette.tensors, plugins=cassette.plugins)


def telling(cassette: Cassette) -> Cassette:
    return cassette.with_extra({"made from": "see /home/somebody/runs/7"})


def undemanding(cassette: Cassette) -> Cassette:
    manifest = cassette.manifest.replace(requires=Requires(("grokkit",)))
    return Cassette(manifest, cassette.tensors, plugins=cassette.plugins)


@dataclass(frozen=True)
class Forged(Mutant):
    """A cassette made wrong before it is saved."""

    make: Callable[[Cassette], Cassette] = silent


def forged(
    fault: str, law: str, says: str, make: Callable[[Cassette], Cassette], also: frozenset[str] = frozenset()
) -> Forged:
    return Forged(fault, law, says, also=also, make=make)


MUTANTS = [
    forged("parameters are miscounted", "cassette.weights", "parameters", miscounted),
    forged(
        "of a version that is not installed",
        "cassette.loads",
        "version 2",
        of_another_version,
        UNREADABLE - {"cassette.readable", "cassette.loads"},
    ),
    forged("a tenth of its error", "cassette.certificate", "mse", boasting),
    forged(
        "infinite outputs",
        "cassette.finite",
        "NaN or infinite",
        overflowing,
        frozenset({"cassette.certificate", "cassette.baselines"}),
    ),
    forged("one answer to everything", "cassette.varies", "get one answer", constant),
    forged("worse than a baseline in silence", "cassette.baselines", "better than any baseline", silent),
    forged("no baselines", "cassette.baselines", "no baseline is recorded", alone, frozenset({"cassette.certificate"})),
    forged("a path of somebody's machine", "cassette.portable", "/home/somebody", telling),
    forged("its plugin is not required", "cassette.requires", "grokkit-probe", undemanding),
]


def extra_file(entry: Entry) -> None:
    (entry.folder / "notes.txt").write_text("to do")


def edited(entry: Entry) -> None:
    manifest = entry.folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace("made to test", "made to show"))


def another_layout(entry: Entry) -> None:
    manifest = entry.folder / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text())))


def other_weights(entry: Entry) -> None:
    weights = entry.folder / "weights.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


DAMAGED: list[tuple[Mutant, Callable[[Entry], None]]] = [
    (Mutant("a file too many", "cassette.readable", "notes.txt", also=UNREADABLE - {"cassette.readable"}), extra_file),
    (Mutant("an edited manifest", "cassette.digest", "its hash is", also=UNREADABLE), edited),
    (Mutant("another layout", "cassette.digest", "canonical form", also=UNREADABLE), another_layout),
    (Mutant("other weights", "cassette.weights", "its sha256 is", also=UNREADABLE), other_weights),
]


def test_a_healthy_cassette_breaks_no_law(bench: Workbench, healthy: Cassette, save: Save) -> None:
    assert broken_laws("cassette", save(healthy), bench) == {}


def test_a_cassette_is_checked_by_the_path_of_its_folder(bench: Workbench, healthy: Cassette, save: Save) -> None:
    assert check_cassette(str(save(healthy).folder), bench) == {}


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_a_mutant_is_caught_by_its_law_alone(mutant: Forged, bench: Workbench, healthy: Cassette, save: Save) -> None:
    entry = save(mutant.make(healthy))
    assert_broken(mutant, entry.name, broken_laws("cassette", entry, bench))


@pytest.mark.parametrize(("mutant", "damage"), DAMAGED, ids=str)
def test_a_damaged_folder_is_caught_by_every_law_that_has_to_read_it(
    mutant: Mutant, damage: Callable[[Entry], None], bench: Workbench, healthy: Cassette, save: Save, tmp_path: Path
) -> None:
    damage(save(healthy))
    entry = entry_in(tmp_path)
    assert_broken(mutant, entry.name, broken_laws("cassette", entry, bench))
