"""`grokkit export`: artefacts that were read back and compared, or one clear reason and nothing left behind."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import grokkit_core as gk
from grokkit_core import exporting
from grokkit_core.errors import Incompatible
from grokkit_core.streams import stream
from grokkit_core.workspace import Workspace

Cli = Callable[..., Any]
KEYS = {"name", "version", "to", "path", "max_abs_difference", "compared", "dtype", "inputs", "notes"}
BOUND = 1e-5
SHIPPED = [entry.name for entry in Workspace.open().library.entries() if entry.root.kind == "plugin"]
SOME = ["cyclotron", "cyclotron-fused", "parity-3of64", "hpu-free"]
needs_onnx = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("onnx", "onnxscript", "onnxruntime")),
    reason="the extra grokkit[export] is not installed",
)


def is_complex(name: str) -> bool:
    return any(spec.dtypes[0].startswith("complex") for spec in gk.load(name).signature.inputs)


@pytest.mark.parametrize("name", SHIPPED)
def test_an_exported_folder_is_the_cassette(name: str, cli: Cli, tmp_path: Path) -> None:
    made = cli("export", name, tmp_path / "out", "--to", "folder", "--json")
    assert (made.code, made.err) == (0, "")
    assert set(made.json) == KEYS
    assert made.json["max_abs_difference"] == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "README.md",
        "manifest.json",
        "weights.safetensors",
    ]
    assert gk.load(str(tmp_path / "out")).manifest.digest == gk.load(name).manifest.digest


def test_an_exported_folder_can_be_imported_and_verified(cli: Cli, library: Path, tmp_path: Path) -> None:
    assert cli("export", "parity-3of64", tmp_path / "out", "--to", "folder").code == 0
    assert cli("import", tmp_path / "out", "--library", library).code == 0
    assert cli("verify", "parity-3of64", "--level", "quick", "--library", library).code == 0


@pytest.mark.parametrize("name", SOME)
def test_a_program_of_torch_gives_the_outputs_of_the_cassette(name: str, cli: Cli, tmp_path: Path) -> None:
    made = cli("export", name, tmp_path / "net.pt2", "--to", "pt2", "--json")
    assert (made.code, made.err) == (0, "")
    assert made.json["max_abs_difference"] <= BOUND
    assert (tmp_path / "net.pt2").stat().st_size > 0
    assert [path.name for path in tmp_path.iterdir()] == ["net.pt2"]


@needs_onnx
@pytest.mark.parametrize("name", [name for name in SOME if not is_complex(name)])
def test_an_onnx_model_gives_the_outputs_of_the_cassette(name: str, cli: Cli, tmp_path: Path) -> None:
    made = cli("export", name, tmp_path / "net.onnx", "--to", "onnx", "--json")
    assert (made.code, made.err) == (0, "")
    assert made.json["max_abs_difference"] <= BOUND


@needs_onnx
def test_an_onnx_model_takes_context_as_an_input_and_any_batch(cli: Cli, tmp_path: Path) -> None:
    import onnxruntime

    path = tmp_path / "net.onnx"
    assert cli("export", "cyclotron-fused", path, "--to", "onnx").code == 0
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    assert [item.name for item in session.get_inputs()] == ["states", "omega"]
    cassette = gk.load("cyclotron-fused")
    batch = cassette.task.sample(77, generator=stream(5), omega=1.7).to(torch.float32)
    assert isinstance(batch.inputs, torch.Tensor)
    feed = {"states": batch.inputs.numpy(), "omega": np.full(77, 1.7)}
    expected = cassette(batch.inputs, context={"omega": 1.7})
    np.testing.assert_allclose(session.run(None, feed)[0], expected.numpy(), atol=BOUND)


def test_complex_fields_are_refused_by_onnx_with_the_reason(cli: Cli, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    made = cli("export", "hpu-free", tmp_path / "net.onnx", "--to", "onnx")
    assert made.code == 4
    assert "complex numbers" in made.err
    assert "--to pt2" in made.err
    assert list(tmp_path.iterdir()) == []


def test_without_the_extra_its_name_is_told(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "NEEDED", ("a_package_that_is_not_there",))
    made = cli("export", "parity-3of64", tmp_path / "net.onnx", "--to", "onnx")
    assert made.code == 2
    assert "grokkit[export]" in made.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["folder", "pt2"])
def test_nothing_is_overwritten(kind: str, cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "there"
    path.write_text("mine")
    made = cli("export", "parity-3of64", path, "--to", kind)
    assert made.code == 2
    assert "exists" in made.err
    assert path.read_text() == "mine"


def test_a_folder_that_is_not_there_is_a_storage_error(cli: Cli, tmp_path: Path) -> None:
    made = cli("export", "parity-3of64", tmp_path / "no" / "net.pt2", "--to", "pt2")
    assert made.code == 6
    assert "make the folder first" in made.err


def test_an_artefact_that_differs_is_not_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "_write_pt2", lambda traced, staging: lambda given: traced.network(*given) + 1e-3)
    with pytest.raises(Incompatible, match="as pt2 differs by 0.001"):
        gk.export("parity-3of64", "pt2", tmp_path / "net.pt2")
    assert list(tmp_path.iterdir()) == []


def test_a_cassette_still_works_after_it_was_traced(tmp_path: Path) -> None:
    """What a network keeps between calls must not be a tracer's."""
    for name in ("cyclotron-fused", "hpu-potential", "matmul-2x2"):
        cassette, fresh = gk.load(name), gk.load(name)
        gk.export(cassette, "pt2", tmp_path / name)
        place = cassette.task.evaluation[0]
        batch = cassette.task.sample(3, generator=stream(1), **place).to(torch.float32)
        found = cassette.predict(batch.inputs, batch.context)
        assert torch.equal(found, fresh.predict(batch.inputs, batch.context))


def test_a_network_that_cannot_be_traced_is_refused_in_one_line(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Torch writes the whole graph to stderr where a branch depends on data."""
    plain = exporting._Plain.forward
    monkeypatch.setattr(
        exporting._Plain,
        "forward",
        lambda self, *given: plain(self, *given) if float(given[0].sum()) > -1e9 else given[0],
    )
    done = cli("export", "kepler", "--to", "pt2", str(tmp_path / "net.pt2"))
    assert done.code == 4
    (line,) = done.err.splitlines()
    assert "cannot be traced" in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.acceptance
@pytest.mark.parametrize("kind", ["pt2", "onnx"])
@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_cassette_is_exported_or_refused_with_a_reason(
    name: str, kind: str, tmp_path: Path, figure: Callable[..., None]
) -> None:
    if kind == "onnx":
        pytest.importorskip("onnxruntime")
    try:
        made = gk.export(name, kind, tmp_path / "net")
    except Incompatible as refused:
        reason = "answers several tasks" if gk.load(name).members else "complex numbers"
        may_refuse = (kind == "onnx" and is_complex(name)) or bool(gk.load(name).members)
        assert (may_refuse, reason in str(refused)) == (True, True)  # noqa: PT017
        figure(f"{name} as {kind}", f"refused: {refused}", "a reason")
        return
    assert made.max_abs_difference <= BOUND
    assert not gk.load(name).members
    figure(f"{name} as {kind}, largest difference", f"{made.max_abs_difference:.1e} ({made.dtype})", f"<= {BOUND:g}")


@pytest.mark.acceptance
@pytest.mark.parametrize("kind", ["pt2", "onnx"])
def test_every_member_of_the_atlas_is_exported_as_it_is_alone(
    kind: str, tmp_path: Path, figure: Callable[..., None]
) -> None:
    if kind == "onnx":
        pytest.importorskip("onnxruntime")
    apart, refused = 0.0, []
    for key in gk.load("atlas").members:
        try:
            apart = max(apart, gk.export("atlas", kind, tmp_path / key, key=key).max_abs_difference)
        except Incompatible:
            assert kind == "onnx"
            assert is_complex(key)
            refused.append(key)
    assert apart <= BOUND
    figure(
        f"members of atlas as {kind}, largest difference; refused",
        f"{apart:.1e}; {', '.join(refused) or 'none'}",
        f"<= {BOUND:g}",
    )
