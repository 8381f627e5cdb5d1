"""Makes `toys` importable whatever the import mode of pytest; fixtures with tiny cassettes and components of tests."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

import grokkit_core as gk
from grokkit_core import packing, saving
from grokkit_core.cassette import Cassette, draft
from grokkit_core.certify.sampled import SAMPLES
from grokkit_core.manifest import COMPOSITE
from grokkit_core.plugins import Plugin, PluginHost, host
from grokkit_core.specs import Component, settle
from grokkit_core.streams import stream
from grokkit_core.task import Batch
from grokkit_core.tensors import Signature

sys.path.append(str(Path(__file__).resolve().parent))

Made = Mapping[str, Cassette]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library with two hardly trained cyclotron cassettes, `one` (1 x 1) and `eight` (4 x 2). Tests only read it."""
    folder = tmp_path_factory.mktemp("tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        for name, seed, grid in (("one", 0, {}), ("eight", 1, {"angular": 4, "radial": 2})):
            gk.train("cyclotron", settings={"epochs": 1, "samples": 128, **grid}, seed=seed, name=name, library=folder)
    return folder


@pytest.fixture
def one(tiny: Path) -> Cassette:
    """The 1-node cassette, freshly loaded."""
    return gk.load("one", library=tiny)


@pytest.fixture
def eight(tiny: Path) -> Cassette:
    """The 8-node cassette, freshly loaded."""
    return gk.load("eight", library=tiny)


@pytest.fixture(scope="session")
def states() -> Tensor:
    """Seven windows "7 15 4" of the cyclotron at omega = 1.2, float32."""
    batch = host().task("cyclotron").sample(7, generator=stream(0, "tests"), omega=1.2)
    assert isinstance(batch.inputs, Tensor)
    return batch.inputs.float()


@pytest.fixture(scope="session")
def shipped() -> Made:
    """The shipped cassettes of one task each, by name."""
    entries = [entry for entry in gk.list() if entry.root.kind == "plugin"]
    found = [gk.load(entry) for entry in entries if entry.manifest and entry.manifest.task.id != COMPOSITE]
    return {cassette.manifest.name: cassette for cassette in found}


@pytest.fixture(scope="session")
def sampled_of(shipped: Made) -> Mapping[str, Batch]:
    """256 samples of the task of each shipped cassette, in its dtype."""
    import composites

    return {name: composites.samples(cassette) for name, cassette in shipped.items()}


@pytest.fixture(scope="session")
def fused_all(shipped: Made) -> Made:
    """All shipped cassettes of one task in a `router` and in a `superposition`."""
    import composites

    return {fusion: composites.assemble(fusion, shipped.values()) for fusion in composites.FUSIONS}


@pytest.fixture(scope="session")
def atlas(fused_all: Made) -> Cassette:
    """All shipped cassettes in a superposition, in memory."""
    return fused_all["superposition"]


@pytest.fixture
def few_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Certificates and tables of few samples, for tests in which figures do not matter."""
    for level in ("full", "quick"):
        monkeypatch.setitem(SAMPLES, level, 64)  # type: ignore[misc]


@pytest.fixture
def reissue(library: Path) -> Callable[..., str]:
    """Saves a cassette with other manifest fields or tensors, all digests fitting; returns its reference."""

    def save(cassette: Cassette, *, tensors: Mapping[str, Tensor] | None = None, **changes: Any) -> str:
        data = packing.pack(cassette.tensors if tensors is None else tensors)
        return saving.save(library, cassette.manifest.replace(**changes), data).ref

    return save


@pytest.fixture
def extended(monkeypatch: pytest.MonkeyPatch) -> Callable[..., PluginHost]:
    """A host with further components, as if a distribution `grokkit-probe` brought them; their code by name."""

    def make(*specs: Component, **code: object) -> PluginHost:
        module = ModuleType("grokkit_probe")
        vars(module).update(code)
        monkeypatch.setitem(sys.modules, "grokkit_probe", module)
        made = PluginHost()
        made.plugins = (*made.plugins, Plugin("probe", "grokkit-probe", "1.0", components=specs, module=module))
        return made

    return make


@pytest.fixture
def crafted(one: Cassette) -> Callable[..., Cassette]:
    """An unsaved cassette of the cyclotron task around a network of an architecture that a host knows."""

    def make(
        plugins: PluginHost,
        architecture: str,
        *,
        tensors: Mapping[str, Tensor] | None = None,
        config: Mapping[str, Any] | None = None,
        signature: Signature | None = None,
        name: str = "crafted",
    ) -> Cassette:
        rule = plugins.architecture(architecture)
        settled = settle(rule.spec.config, config or {}, architecture)
        with torch.random.fork_rng(devices=[]):
            state = rule.build(settled).state_dict() if tensors is None else tensors
        return draft(
            name,
            task=plugins.task("cyclotron"),
            architecture=rule.spec,
            config=settled,
            signature=signature or rule.signature(settled),
            tensors=state,
            provenance=one.manifest.provenance,
            summary="made by a test",
            plugins=plugins,
        )

    return make
