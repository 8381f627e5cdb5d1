"""Tiny cassettes built without torch, files built by hand, and what the child processes of the tests do."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from grokkit_core import saving, store, strictjson
from grokkit_core.errors import GrokkitError
from grokkit_core.manifest import (
    WEIGHTS,
    ArchitectureRef,
    Baseline,
    Bound,
    Certificate,
    Curve,
    Manifest,
    Metric,
    Provenance,
    RecipeRef,
    Requires,
    Software,
    TaskRef,
    WeightsRef,
)
from grokkit_core.tensors import ContextSpec, TensorSpec

FOLDER = Path(__file__).resolve().parent
PT = '"__metadata__":{"format":"pt"}'


def certificate() -> Certificate:
    """A certificate with one entry in every list."""
    metric = Metric("mse", 0.5, "1", 0.1, (0.25, 0.75), 0.95, 100, {"k": 1})
    return Certificate(
        "estimated",
        "halves the baseline",
        "numbers",
        "sampled",
        ("y = k x",),
        (Bound("error", 1.0, "1"),),
        (metric,),
        (Baseline("zero", "mse", 1.0, {"k": 1}),),
        seed=0,
        dtype="float32",
        level="quick",
    )


def provenance() -> Provenance:
    """A provenance with a curve of one row."""
    return Provenance(
        "trained",
        RecipeRef("toys/plain", {"lr": 0.1}),
        seed=7,
        steps=10,
        grok_step=None,
        curve=Curve(("step", "loss"), ((0, 1.0),)),
        operator=None,
        gate=None,
        parents=(),
        software=Software("0.1.0", "2.6.0", {"toys": "1"}),
        created="2026-01-01T00:00:00Z",
    )


def manifest(name: str = "toy", data: bytes | None = None, **changes: Any) -> Manifest:
    """A valid manifest for `data` (by default the toy weights), of a task that no plugin brings."""
    stored = weights() if data is None else data
    made = Manifest(
        name=name,
        version=1,
        summary="a toy",
        license="Apache-2.0",
        tags=("toy",),
        task=TaskRef("toy", {"k": 2}),
        architecture=ArchitectureRef("toys/line", 1, {"width": 4}),
        inputs=(TensorSpec("x", ("batch", 4)),),
        outputs=(TensorSpec("y", ("batch",)),),
        context=(ContextSpec("k", "1", (0.0, 4.0)),),
        weights=WeightsRef("weights.safetensors", len(stored), hashlib.sha256(stored).hexdigest(), 4),
        certificate=certificate(),
        provenance=provenance(),
        requires=Requires(("toys",)),
        citation=("Toy et al.",),
    )
    return made.replace(**changes)


def weights(count: int = 4, fill: float = 1.5) -> bytes:
    """A weights file with `count` equal floats and a boolean."""
    size = 4 * count
    header = f'{{{PT},"w":{_entry("F32", [count], 0, size)},"ready":{_entry("BOOL", [1], size, size + 1)}}}'
    return raw(header, struct.pack("<f", fill) * count + b"\1")


def _entry(dtype: str, shape: Sequence[int], begin: int, end: int) -> str:
    return json.dumps({"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}, separators=(",", ":"))


def raw(header: str | bytes, data: bytes = b"", *, pad: bool = True) -> bytes:
    """A weights file with this header, filled up with spaces to a multiple of 8 bytes."""
    text = header.encode("utf-8", "surrogatepass") if isinstance(header, str) else header
    if pad:
        text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def sealed(value: Mapping[str, Any]) -> bytes:
    """The canonical bytes of a manifest with these fields, its digest made to fit."""
    body = {key: item for key, item in value.items() if key != "digest"}
    digest = "sha256:" + hashlib.sha256(strictjson.canonical(body)).hexdigest()
    return strictjson.canonical({**body, "digest": digest})


def put(root: Path, made: Manifest, data: bytes, *, folder: str = "") -> Path:
    """Write a version folder by plain means, without `saving`."""
    place = root / (folder or f"{made.name}/{made.version}")
    place.mkdir(parents=True)
    (place / store.MANIFEST).write_bytes(made.to_bytes())
    (place / WEIGHTS).write_bytes(data)
    return place


def toy(root: Path, name: str = "toy", version: int = 1, **changes: Any) -> Path:
    """The folder of a valid toy cassette below `root`."""
    return put(root, manifest(name, version=version, **changes), weights())


def versions(home: Path) -> list[int]:
    """The version numbers below the folder of a name, none if there is no such folder."""
    return sorted(int(entry.name) for entry in home.glob("*") if entry.name.isdigit())


def leftovers(home: Path) -> list[str]:
    """Staging and trash folders below the folder of a name."""
    return sorted(entry.name for entry in home.iterdir() if entry.name.startswith((".staging-", ".trash-")))


def child(call: str, *arguments: object, **options: Any) -> subprocess.Popen[str]:
    """A process that runs `toys.<call>(arguments)`; it imports no torch and so starts at once."""
    return subprocess.Popen(
        [sys.executable, "-c", f"import sys, toys; toys.{call}(*sys.argv[1:])", *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(FOLDER), *filter(None, [os.environ.get("PYTHONPATH")])])},
        **options,
    )


def say(text: object) -> None:
    """Tell the parent process, at once."""
    os.write(1, f"{text}\n".encode())


def save_forever(root: str, count: str) -> None:
    """Save `count` floats as `toy` again and again, reporting each version once its save has returned."""
    data = weights(int(count))
    made = manifest(data=data)
    saving.save(Path(root), made.replace(name="warm-up"), data)
    say("ready")
    while True:
        say(saving.save(Path(root), made, data).version)


def save_carelessly(root: str, count: str) -> None:
    """As `save_forever`, but synced straight into the folders of the versions: what `saving` must be better than."""
    data = weights(int(count))
    say("ready")
    for version in itertools.count(1 + max(versions(Path(root) / "toy"), default=0)):
        folder = Path(root) / "toy" / str(version)
        folder.mkdir(parents=True)
        for name, content in ((WEIGHTS, data), (store.MANIFEST, manifest(data=data, version=version).to_bytes())):
            with (folder / name).open("wb") as file:
                file.write(content)
                os.fsync(file.fileno())
        say(version)


def save_timed(root: str, count: str, times: str) -> None:
    """Report how long each of some saves took."""
    data = weights(int(count))
    made = manifest(data=data)
    for _ in range(int(times)):
        start = time.perf_counter()
        saving.save(Path(root), made, data)
        say(time.perf_counter() - start)


def save_some(root: str, writer: str, times: str) -> None:
    """Save distinct cassettes of one name, reporting version and mark of each."""
    for number in range(int(times)):
        data = weights(64, fill=float(number))
        mark = f"{writer}-{number}"
        made = manifest(data=data, summary=mark)
        say(f"{saving.save(Path(root), made, data).version} {mark}")


def read_forever(home: str, stop: str) -> None:
    """Read every version over and over until the file `stop` exists; report good reads and bad ones."""
    good, bad = 0, 0
    while not Path(stop).exists():
        for version in versions(Path(home)):
            try:
                store.read(Path(home) / str(version))
            except GrokkitError:
                bad += 1
            else:
                good += 1
    say(f"{good} {bad}")


def swap_forever(place: str, first: str, second: str) -> None:
    """Let `place` be one of two folders in turn, by renaming."""
    say("ready")
    while True:
        for source in (first, second):
            os.rename(source, place)
            os.rename(place, source)


def save_with_limit(root: str, count: str, limit: str) -> None:
    """Save under a limit on the size of a file; report the exit code that the error stands for."""
    import resource
    import signal

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
    data = weights(int(count))
    try:
        saving.save(Path(root), manifest(data=data), data)
    except GrokkitError as error:
        say(f"{error.exit_code} {error}")
    else:
        say("saved")


def import_with_limit(root: str, folder: str, limit: str) -> None:
    """Run `grokkit import` under a limit on the size of a file; exit with its code."""
    import resource

    from grokkit_cli.__main__ import run

    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
    sys.exit(run(["--no-plugins", "--library", root, "import", folder]))


def die_before(root: str, point: str) -> None:
    """Kill this process just before one of the system calls of a save; report how many there were if there was none."""
    import signal

    made = 0

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal made
            made += 1
            if made == int(point):
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **options)

        return call

    for name in ("mkdir", "listdir", "unlink", "open", "write", "fsync", "close", "rename"):
        setattr(os, name, counted(getattr(os, name)))
    saving.save(Path(root), manifest(), weights())
    calls, made = made, -1
    say(calls)
