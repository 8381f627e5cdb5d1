"""Checkpoints of a run: safetensors and canonical JSON in a folder of their own, written atomically, resumed bit-equal."""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from grokkit_core import packing, saving, strictjson
from grokkit_core.errors import BadManifest, GrokkitError, HashMismatch, Incompatible, NotFound, StoreError
from grokkit_core.names import expanded
from grokkit_core.records import at_least, from_json, to_json
from grokkit_core.text import printable

STATE = "state.json"
TENSORS = "state.safetensors"


@dataclass(frozen=True)
class Checkpoint:
    """A saved moment of a training: what is trained (`about`), its counters (`values`) and its tensors."""

    about: Mapping[str, Any]
    values: Mapping[str, Any]
    tensors: Mapping[str, Tensor]


@dataclass(frozen=True)
class Circumstances:
    """What must be equal for a resume to be equal to the bit."""

    dtype: Literal["float32", "float64"]
    device: str
    threads: int
    torch: str
    matmul: str


@dataclass(frozen=True)
class About:
    """What a run trains."""

    task: str
    recipe: str
    settings: Mapping[str, Any]
    parameters: Mapping[str, Any]
    seeds: tuple[Annotated[int, at_least(0)], ...]
    name: str
    circumstances: Circumstances


@dataclass(frozen=True)
class LaneValues:
    """The counters of one seed."""

    total: float
    count: int
    steps: int
    seconds: float
    stopped: bool


@dataclass(frozen=True)
class Values:
    """The counters of a run."""

    run: Mapping[str, Any]
    lanes: tuple[LaneValues, ...]
    step: int
    elapsed: float


class RunFolder:
    """The checkpoints of one run: a folder a step, of which the last two are kept."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def new(cls, label: str) -> RunFolder:
        """A folder for a new run; nothing is written yet."""
        moment = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
        return cls(runs_home() / f"{label}-{moment}-{secrets.token_hex(2)}")

    @classmethod
    def find(cls, text: str) -> RunFolder:
        """The run of this id or path; raises `NotFound`."""
        given = expanded(text)
        for path in (runs_home() / text, given):
            if path.is_dir():
                return cls(path)
        known = sorted(entry.name for entry in runs_home().iterdir()) if runs_home().is_dir() else []
        raise NotFound(f"there is no run '{printable(text, 120)}'", hint=f"known: {', '.join(known[-5:]) or 'none'}")

    @property
    def id(self) -> str:
        """What `--resume` finds it by: its name, or its path where it lies elsewhere."""
        path = self.path.absolute()
        return path.name if path.parent == runs_home().absolute() else str(path)

    def save(self, step: int, checkpoint: Checkpoint) -> None:
        """Write the state after `step`; the previous one is kept, older ones go. Raises `StoreError`.

        A state of that step that is there already is kept if it can be read.
        """
        data = packing.pack(checkpoint.tensors)
        state = {
            "about": dict(checkpoint.about),
            "values": dict(checkpoint.values),
            "sha256": hashlib.sha256(data).hexdigest(),
        }
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if step in self._steps():
                with contextlib.suppress(GrokkitError):
                    _read(self.path / str(step))
                    return
                shutil.rmtree(self.path / str(step))
            saving.write_files(self.path / str(step), {STATE: strictjson.canonical(state), TENSORS: data})
            for old in self._steps()[:-2]:
                shutil.rmtree(self.path / str(old), ignore_errors=True)
        except OSError as error:
            raise StoreError.from_os(error, f"writing a checkpoint to {printable(self.path, 160)}") from None

    def prepare(self) -> None:
        """Make the folder of runs; raises `StoreError` where that is refused, before hours of training."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError.from_os(error, f"writing checkpoints to {printable(self.path.parent, 160)}") from None

    def load(self) -> Checkpoint:
        """The newest state that can be read; raises a child of `CassetteError` or `NotFound`."""
        steps = self._steps()
        if not steps:
            raise NotFound(f"run '{printable(self.id, 120)}' holds no checkpoint")
        try:
            return _read(self.path / str(steps[-1]))
        except GrokkitError:
            if len(steps) == 1:
                raise
            return _read(self.path / str(steps[-2]))

    def delete(self) -> None:
        """Remove the run; its results are cassettes now."""
        shutil.rmtree(self.path, ignore_errors=True)

    def _steps(self) -> list[int]:
        return sorted(int(entry.name) for entry in self.path.iterdir() if entry.name.isdigit())


def runs_home() -> Path:
    """The folder of all runs."""
    from platformdirs import user_state_path

    return user_state_path("grokkit", appauthor=False) / "runs"


def circumstances(dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
    """What must be equal for a resume to be equal to the bit."""
    return {
        "dtype": str(dtype).removeprefix("torch."),
        "device": device.type,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "matmul": torch.get_float32_matmul_precision(),
    }


def check_circumstances(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise `Incompatible` where a resume would not be bit-equal."""
    differing = [name for name in sorted(set(recorded) | set(now)) if recorded.get(name) != now.get(name)]
    if differing:
        name = differing[0]
        raise Incompatible(
            f"the checkpoint was made with {name} = {printable(recorded.get(name), 60)}, here it is {printable(now.get(name), 60)}",
            hint="--allow-inexact resumes all the same, not equal to the bit",
        )


def _read(folder: Path) -> Checkpoint:
    try:
        state = strictjson.parse((folder / STATE).read_bytes(), "checkpoint")
        data = (folder / TENSORS).read_bytes()
    except FileNotFoundError as error:
        name = Path(str(error.filename)).name
        raise BadManifest(f"{name} of {printable(folder, 160)} is missing", expected=f"{STATE} and {TENSORS}") from None
    except OSError as error:
        raise StoreError.from_os(error, f"reading {printable(folder, 160)}") from None
    if not isinstance(state, dict) or set(state) != {"about", "values", "sha256"}:
        raise BadManifest("the checkpoint has other fields than about, values and sha256")
    if hashlib.sha256(data).hexdigest() != state["sha256"]:
        raise HashMismatch(f"{TENSORS} of {printable(folder, 160)} was altered")
    about = to_json(from_json(About, state["about"], "checkpoint.about"))
    values = to_json(from_json(Values, state["values"], "checkpoint.values"))
    return Checkpoint(about, values, packing.unpack(data))
