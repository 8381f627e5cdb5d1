"""How many levels of recursion pay: measured once per device, dtype and thread count, kept in the user's cache folder.

Nothing is ever measured by a call: without an entry it takes the plain product.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from grokkit_core.devices import device_name

WORTHWHILE = 1.02
"""A level is chosen where it wins by 2 % over fewer levels, at that size and at every larger one that was measured."""

SCHEMA = 1


@dataclass(frozen=True)
class Measured:
    """The median ratio of the plain product's time to that of `levels` levels, for square matrices of size `n`.

    `steady` says that the recursion won every single pair; without that a level is not chosen.
    """

    n: int
    levels: int
    ratio: float
    steady: bool = True


@dataclass(frozen=True)
class Circumstances:
    """What an entry holds for."""

    form: str
    dtype: torch.dtype
    device: torch.device
    threads: int

    @property
    def key(self) -> str:
        """The entry's name in the file."""
        threads = f"{self.threads} threads" if self.device.type == "cpu" else "gpu"
        dtype = str(self.dtype).removeprefix("torch.")
        return f"{self.form} | {device_name(self.device)} | {dtype} | {threads} | torch {torch.__version__}"


_here: dict[str, tuple[Measured, ...]] = {}
"""What this process has measured, by key."""


def thresholds(measured: Sequence[Measured]) -> dict[int, int]:
    """By number of levels, the smallest size from which on it wins; levels that never win are absent."""
    ratios: dict[int, dict[int, float]] = {}
    for row in measured:
        ratios.setdefault(row.n, {0: 1.0})[row.levels] = row.ratio if row.steady else 0.0
    found: dict[int, int] = {}
    for levels in sorted({row.levels for row in measured}):
        for n in sorted((n for n in ratios if levels in ratios[n]), reverse=True):
            fewer = max(ratio for count, ratio in ratios[n].items() if count < levels)
            if ratios[n][levels] < WORTHWHILE * fewer:
                break
            found[levels] = n
    return found


def chosen(form: str, dtype: torch.dtype, device: torch.device, smallest: int) -> int:
    """The levels for a product whose smallest size is `smallest`: the most whose threshold it reaches, else none."""
    threads = torch.get_num_threads() if device.type == "cpu" else 0
    levels = 0
    for count, threshold in _known(form, dtype, device, threads):
        if smallest >= threshold:
            levels = max(levels, count)
    return levels


@cache
def _known(form: str, dtype: torch.dtype, device: torch.device, threads: int) -> tuple[tuple[int, int], ...]:
    entry = recorded(Circumstances(form, dtype, device, threads))
    return tuple(sorted(thresholds(entry).items())) if entry else ()


def recorded(circumstances: Circumstances) -> tuple[Measured, ...]:
    """What was measured before under these circumstances; nothing where the file is absent or not readable."""
    key = circumstances.key
    if key in _here:
        return _here[key]
    try:
        return tuple(map(_measured, _read().get(key) or ()))
    except (TypeError, KeyError, ValueError, OverflowError):
        return ()


def _measured(row: Mapping[str, Any]) -> Measured:
    """A row of the file; raises `ValueError` and others for what nobody can have measured."""
    found = Measured(int(row["n"]), int(row["levels"]), float(row["ratio"]), row["steady"] is True)
    if found.n < 1 or found.levels < 1 or not 0 < found.ratio < math.inf:
        raise ValueError(found)
    return found


def record(circumstances: Circumstances, measured: Sequence[Measured]) -> None:
    """Keep a measurement for later calls and processes; a folder that cannot be written keeps it for this process only."""
    _here[circumstances.key] = tuple(measured)
    _known.cache_clear()
    entries = {**_read(), circumstances.key: [vars(row) for row in measured]}
    with contextlib.suppress(OSError):
        _write(json.dumps({"schema": SCHEMA, "entries": entries}, indent=1, sort_keys=True))


def forget() -> None:
    """Read the file again at the next call."""
    _here.clear()
    _known.cache_clear()


def cache_file() -> Path:
    """Where measurements are kept."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("grokkit")) / "matmul-levels.json"


def _read() -> Mapping[str, Any]:
    try:
        data = json.loads(cache_file().read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    entries = data.get("entries") if isinstance(data, dict) and data.get("schema") == SCHEMA else None
    return entries if isinstance(entries, dict) else {}


def _write(text: str) -> None:
    """Replace the file in one step, so that a reader sees the old or the new one."""
    target = cache_file()
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=target.name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
        os.replace(name, target)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise
