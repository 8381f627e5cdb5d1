"""The conformance kit as an author meets it: `check_plugin` in a test file, and `pytest --grokkit NAME`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "third_party" / "grokkit-example"
HOOKED = [point.value for point in entry_points(group="pytest11") if point.name == "grokkit"]


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package as pip leaves it: its modules and what its entry points are found by."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(
        SOURCE / "grokkit_example", folder / "grokkit_example", ignore=shutil.ignore_patterns("__pycache__")
    )
    metadata = folder / "grokkit_example-0.1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: grokkit-example\nVersion: 0.1.0\n")
    (metadata / "entry_points.txt").write_text("[grokkit]\nexample = grokkit_example.plugin\n")
    return folder


EDITABLE = "ignore:Module already imported so cannot be rewritten; _editable_impl_grokkit"
"""Of every editable install with a pytest plugin: the module behind it is imported before pytest."""


def run_pytest(*arguments: object, at: Path, packages: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Pytest in a process of its own, warnings being errors, with a folder of packages in front."""
    path = os.pathsep.join(filter(None, [str(packages or ""), os.environ.get("PYTHONPATH", "")]))
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-W",
        "error",
        "-W",
        EDITABLE,
        "-p",
        "no:cacheprovider",
        *map(str, arguments),
    ]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=at, timeout=300, check=False)


def test_pytest_finds_the_kit_where_grokkit_is_installed() -> None:
    assert HOOKED == ["grokkit_core.testing.pytest_plugin"]


def test_the_example_passes_its_own_conformance_test(example: Path, tmp_path: Path) -> None:
    shutil.copy(SOURCE / "tests" / "test_conformance.py", tmp_path)
    done = run_pytest(tmp_path, at=tmp_path, packages=example)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


def test_each_law_is_a_line_of_the_report(example: Path, tmp_path: Path) -> None:
    done = run_pytest("--grokkit", "grokkit_example", "-v", "-rs", at=tmp_path, packages=example)
    assert done.returncode == 0, done.stdout + done.stderr
    for sentence in (
        "grokkit_example/local: the output of a sample does not depend on the others in its batch PASSED",
        "automaton: the oracle computes in float64, whatever the dtype of its inputs PASSED",
        "rule-110: its certificate is computed again and agrees PASSED",
        "example: describing it imports neither torch nor numpy PASSED",
    ):
        assert sentence in done.stdout
    assert "it declares no layers" in done.stdout


def test_a_broken_law_is_told_without_a_traceback_and_the_run_fails(example: Path, tmp_path: Path) -> None:
    shutil.copytree(example, tmp_path / "site")
    law = tmp_path / "site" / "grokkit_example" / "law.py"
    healthy = law.read_text()
    assert healthy.count("index) & 1).double()") == 1
    law.write_text(healthy.replace("index) & 1).double()", "index) & 1).float()"))
    done = run_pytest("--grokkit", "example", "-k", "float64", at=tmp_path, packages=tmp_path / "site")
    assert done.returncode == 1
    assert "automaton breaks the law task.oracle-float64" in done.stdout
    assert "seen: its answer has dtype torch.float32" in done.stdout
    assert "to mend it: begin the oracle with" in done.stdout
    assert "Traceback" not in done.stdout


def test_without_paths_only_laws_are_collected_and_with_paths_both(example: Path, tmp_path: Path) -> None:
    (tmp_path / "test_own.py").write_text("def test_own():\n    pass\n")
    arguments = ("--grokkit", "example", "--collect-only", "-q")
    alone, beside = (run_pytest(*arguments, *paths, at=tmp_path, packages=example) for paths in ((), ("test_own.py",)))
    assert "test_own" not in alone.stdout
    assert "test_own" in beside.stdout
    assert all("automaton: the oracle answers each sample by itself" in done.stdout for done in (alone, beside))


def test_a_plugin_that_is_not_installed_is_a_usage_error(tmp_path: Path) -> None:
    done = run_pytest("--grokkit", "grokkit-nothing", at=tmp_path)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "no plugin is installed as 'grokkit-nothing'" in done.stderr


def test_a_run_that_does_not_ask_for_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "test_own.py").write_text(
        "import sys\n\ndef test_own():\n    assert not {'torch', 'grokkit_core.testing.conformance'} & set(sys.modules)\n"
    )
    done = run_pytest(at=tmp_path)
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout
