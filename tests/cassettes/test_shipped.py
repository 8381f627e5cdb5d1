"""The shipped cassettes: found, verified with other seeds, and reproduced by the commands that the documentation names.

Their files, their own certificates and what stands beside those are laws of `grokkit_core.testing`, which
`core/testing/test_builtin.py` checks.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import grokkit_core as gk
from grokkit_core.certify.agree import disagreements
from grokkit_core.library import Entry
from grokkit_core.workspace import Workspace

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "cassettes" / "grokkit_cassettes"
NAMES = sorted(path.name for path in FOLDER.iterdir() if (path / "1").is_dir())


def shipped() -> list[Entry]:
    return [entry for entry in Workspace.open().library.entries() if entry.root.kind == "plugin"]


def test_every_folder_is_listed_without_a_problem() -> None:
    assert [entry.name for entry in shipped()] == NAMES
    assert all(entry.problem is None for entry in shipped())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", [7, 8])
def test_certificates_agree_with_other_seeds(name: str, seed: int) -> None:
    assert gk.verify(name, level="quick", seed=seed).reasons == ()


def test_the_atlas_holds_every_other_shipped_cassette_as_it_is() -> None:
    atlas = gk.load("atlas")
    assert sorted(atlas.members) == [name for name in NAMES if name != "atlas"]
    for key in atlas.members:
        assert atlas.route(key=key).digest == gk.show(key).digest


def test_the_atlas_says_which_of_its_members_lose_to_a_baseline() -> None:
    told = gk.show("atlas").certificate.statement
    for name in NAMES:
        loses = name != "atlas" and "WORSE than" in gk.show(name).certificate.statement
        assert (f"{name} is WORSE than" in told) == loses


def test_the_command_of_the_page_gives_the_atlas_again(library: Path, cli: Callable[..., object]) -> None:
    page = (ROOT / "docs" / "composition.md").read_text()
    (command,) = re.findall(r"^grokkit (compose .*--name atlas)$", page, flags=re.MULTILINE)
    cli("--library", library, *command.split())
    made, recorded = gk.load(str(library / "atlas" / "1")), gk.load("atlas", library=[FOLDER])
    assert made.manifest.architecture == recorded.manifest.architecture
    assert made.manifest.weights == recorded.manifest.weights


def test_an_exact_cassette_names_the_solvers_that_are_as_good() -> None:
    for name in ("parity-3of64", "parity-3of64-grokked"):
        certificate = gk.show(name).certificate
        assert certificate.verdict == "exact"
        assert "walsh-scan and elimination" in certificate.statement
        assert {b.name for b in certificate.baselines if b.value == 1.0} == {"walsh-scan", "elimination"}


def test_retraining_a_shipped_cassette_gives_a_certificate_that_agrees(
    library: Path, cli: Callable[..., object]
) -> None:
    page = (ROOT / "docs" / "cyclotron.md").read_text()
    command = re.findall(r"^grokkit (train .*--name cyclotron-1node)$", page, flags=re.MULTILINE)[0]
    cli("--library", library, *command.split())
    recorded, made = gk.show("cyclotron-1node"), gk.show(str(library / "cyclotron-1node" / "1"))
    assert made.provenance.seed == recorded.provenance.seed
    assert made.provenance.recipe == recorded.provenance.recipe
    assert disagreements(recorded.certificate, made.certificate) == ()


def test_the_commands_of_the_matmul_page_find_the_shipped_schemes_again(
    library: Path, cli: Callable[..., object]
) -> None:
    page = (ROOT / "docs" / "matmul.md").read_text()
    commands = re.findall(r"^grokkit ((?:train|grow) .*--name (matmul-\S+))$", page, flags=re.MULTILINE)
    assert [name for _, name in commands] == ["matmul-2x2", "matmul-2x2x3", "matmul-4x4"]
    for command, name in commands:
        cli("--library", library, *command.split())
        shipped, made = gk.load(name, library=[FOLDER]), gk.load(str(library / name / "1"))
        floor = shipped.task.spec.floor
        assert disagreements(shipped.manifest.certificate, made.manifest.certificate, floor=floor) == ()
        assert all(torch.equal(made.tensors[factor], shipped.tensors[factor]) for factor in "UVW")


def test_the_published_sizes_are_exact() -> None:
    sizes = {name: gk.show(name).weights.parameters for name in ("cyclotron-1node", "cyclotron-8node")}
    assert sizes == {"cyclotron-1node": 1821, "cyclotron-8node": 3841}
