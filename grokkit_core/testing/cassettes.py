"""Laws of cassettes: the files are what they claim to be, the network answers, and the certificate can be computed again."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from typing import Any

import torch

from grokkit_core import packing, weights
from grokkit_core.cassette import Cassette, load
from grokkit_core.certify.verify import verify
from grokkit_core.library import Entry
from grokkit_core.manifest import WEIGHTS
from grokkit_core.specs import ArchitectureSpec, Component, TaskSpec
from grokkit_core.store import MANIFEST, read
from grokkit_core.streams import stream
from grokkit_core.testing.laws import Laws, applies, require
from grokkit_core.testing.workbench import Workbench, same_bits

LAWS = Laws("cassette")

ROWS = 8
PATH = re.compile(r"(?:^|[\s'\"=:])(?:/(?:home|Users|root|tmp|var|mnt|work|data|opt)/|[A-Za-z]:\\|~/|file://)")
"""Where somebody's machine shows through."""


def cassette_of(entry: Entry, bench: Workbench) -> Cassette:
    """The cassette, loaded with the plugins of the bench."""
    with bench.workspace() as place:
        return load(entry, library=place)


@LAWS(
    "readable",
    "the folder is read by the strict reader",
    mend="copy what `Cassette.save` or `grokkit train` wrote, byte for byte: see what the message names",
)
def _(entry: Entry, bench: Workbench) -> None:
    require(entry.problem is None, f"{entry.problem}", "a cassette that `grokkit list` shows without a problem")
    read(entry.folder)


@LAWS(
    "digest",
    "the manifest is in canonical form and carries the hash of itself",
    mend="never edit a manifest by hand: save the cassette again",
)
def _(entry: Entry, bench: Workbench) -> None:
    data = (entry.folder / MANIFEST).read_bytes()
    value = json.loads(data)
    require(
        _canonical(value) == data, "the bytes are not those of the canonical form", "sorted keys, two spaces, UTF-8"
    )
    recorded = value.pop("digest")
    found = "sha256:" + hashlib.sha256(_canonical(value)).hexdigest()
    require(found == recorded, f"its hash is {found[:23]}..., it says {recorded[:23]}...", "the same")


def _canonical(value: Any) -> bytes:
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return text.encode() + b"\n"


@LAWS(
    "weights",
    "the weights file has the size, the hash and the number of parameters that the manifest records",
    mend="save the cassette again, so that both files are written together",
)
def _(entry: Entry, bench: Workbench) -> None:
    data = (entry.folder / WEIGHTS).read_bytes()
    recorded = json.loads((entry.folder / MANIFEST).read_bytes())["weights"]
    require(len(data) == recorded["bytes"], f"it has {len(data)} bytes", f"{recorded['bytes']}")
    found = hashlib.sha256(data).hexdigest()
    require(found == recorded["sha256"], f"its sha256 is {found[:16]}...", f"{recorded['sha256'][:16]}...")
    weights.read_header(data)
    count = packing.count_parameters(packing.unpack(data))
    require(count == recorded["parameters"], f"it holds {count} parameters", f"{recorded['parameters']}")


@LAWS(
    "loads",
    "it is built by an installed architecture, whose signature is the recorded one",
    mend="raise the `version` of an architecture whose networks changed, and train anew",
)
def _(entry: Entry, bench: Workbench) -> None:
    cassette_of(entry, bench).module.eval()


@LAWS(
    "certificate",
    "its certificate is computed again and agrees",
    mend="`grokkit verify NAME --level quick` prints what differs; certify and save it again",
)
def _(entry: Entry, bench: Workbench) -> None:
    with bench.workspace() as place:
        found = verify(load(entry, library=place), level="quick", library=place)
    require(found.agrees, "; ".join(found.reasons), "a recomputed certificate that supports the recorded one")


@LAWS(
    "finite",
    "its outputs are finite on samples of its law",
    mend="see which inputs give NaN or infinity; a network that cannot answer refuses in `check_inputs`",
)
def _(entry: Entry, bench: Workbench) -> None:
    for _, outputs in _answers(cassette_of(entry, bench)):
        require(bool(torch.isfinite(outputs).all()), "some are NaN or infinite", "finite numbers")


@LAWS(
    "varies",
    "its outputs depend on its inputs",
    mend="a network that answers one constant has learned nothing: do not ship it",
)
def _(entry: Entry, bench: Workbench) -> None:
    for where, outputs in _answers(cassette_of(entry, bench)):
        constant = all(same_bits(outputs[:1], outputs[row : row + 1]) for row in range(1, len(outputs)))
        require(not constant, f"{len(outputs)} samples at {where} get one answer", "several")


def _answers(cassette: Cassette) -> Iterator[tuple[dict[str, Any], torch.Tensor]]:
    """Outputs for samples at every place of its task's tables."""
    applies(bool(cassette.signature.inputs), "it answers several tasks by key and has no inputs of its own")
    task = cassette.task
    for index, where in enumerate(task.evaluation):
        batch = task.sample(ROWS, generator=stream(0, "testing", index), **where).to(cassette.dtype)
        yield dict(where), cassette.predict(batch.inputs, batch.context, force=True)


@LAWS(
    "baselines",
    "baselines stand beside its figures, and where one of them is better the statement says so",
    mend="certify it again: `Task.certify` writes baselines, and WORSE where one is better",
)
def _(entry: Entry, bench: Workbench) -> None:
    manifest = cassette_of(entry, bench).manifest
    certificate = manifest.certificate
    applies(bool(manifest.inputs), "it answers several tasks by key; its members carry their certificates")
    require(bool(certificate.metrics), "its certificate holds no figures", "at least one metric")
    first = certificate.metrics[0]
    rivals = [b.value for b in certificate.baselines if b.where == first.where and b.metric == first.name]
    require(bool(certificate.baselines), "no baseline is recorded", "at least one")
    spec = bench.plugins.spec(TaskSpec, manifest.task.id)
    floor = spec.floor if certificate.verdict == "exact" else 0.0
    beaten = [r for r in rivals if (first.value < r if spec.higher_is_better else first.value > max(r, floor))]
    worse = bool(beaten)
    said = "WORSE than" in certificate.statement
    wanted = "WORSE than ..." if worse else "no WORSE"
    require(worse == said, f"{first.name} {first.value:.3g}, baselines {rivals}: '{certificate.statement}'", wanted)


@LAWS(
    "portable",
    "nothing of the machine that made it shows in its manifest",
    mend="leave paths, hosts and user names out of names, settings and `extra`",
)
def _(entry: Entry, bench: Workbench) -> None:
    for text in _texts(json.loads((entry.folder / MANIFEST).read_bytes())):
        require(PATH.search(text) is None, f"it says '{text[:80]}'", "no path of a machine")


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _texts(key)
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)


@LAWS(
    "requires",
    "it requires the distributions that bring its task and its architecture",
    mend="save it with the plugins installed as users install them",
)
def _(entry: Entry, bench: Workbench) -> None:
    manifest = cassette_of(entry, bench).manifest
    host = bench.plugins
    specs: list[Component] = [host.spec(ArchitectureSpec, manifest.architecture.id)]
    if manifest.inputs:  # one that answers by key belongs to no task of its own
        specs.append(host.spec(TaskSpec, manifest.task.id))
    lost = {host.owner(spec).distribution for spec in specs} - set(manifest.requires.plugins)
    require(not lost, f"it does not require {', '.join(sorted(lost))}", "every distribution that it needs")
