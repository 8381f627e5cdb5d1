"""Products of large matrices on a GPU beside `torch.mm`: `python tests/benchmarks/gpu_matmul.py --out FOLDER [--quick]`.

Writes one JSON file a dtype with every row of `grokkit bench matmul-2x2 --device cuda`, losses included.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
from grokkit_matmul.bench import measure

import grokkit_core as gk
from grokkit_core.benchmark import Row

SIZES = {
    "float32": (4096, 8192, 16384, 32768),
    "float64": (4096, 8192, 16384),
    "bfloat16": (8192, 16384, 32768),
}
PAIRS = 7


def main() -> int:
    """Measure every dtype; 1 if a row cannot be right."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--quick", action="store_true", help="smallest sizes only")
    chosen = parser.parse_args()
    cassette = gk.load("matmul-2x2", device="cuda")
    problems: list[str] = []
    for dtype, sizes in SIZES.items():
        settings = {"sizes": list(sizes[:2] if chosen.quick else sizes), "pairs": PAIRS, "levels": [1, 2]}
        rows = measured(cassette, dtype, settings)
        about = {"torch": torch.__version__, "device": torch.cuda.get_device_name(), "cuda": torch.version.cuda}
        (chosen.out / f"{dtype}.json").write_text(
            json.dumps({**about, "rows": [row.to_json() for row in rows]}, indent=1)
        )
        problems += [row.problem for row in rows if row.problem]
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


def measured(cassette: gk.Cassette, dtype: str, settings: dict[str, Any]) -> list[Row]:
    """The rows of one dtype, printed as they come; bfloat16 is never chosen by itself and has nothing to calibrate."""
    if dtype == "bfloat16":
        runtime = cassette.architecture.runtime(cassette)
        each = (
            measure(runtime, torch.bfloat16, cassette.device, n, {**settings, "entries": "normal"})
            for n in settings["sizes"]
        )
        rows = (row for some in each for row in some)
        return [row for row in rows if not print(row.to_json(), flush=True)]
    found = gk.bench(
        cassette,
        recalibrate=True,
        settings=settings,
        device="cuda",
        dtype=dtype,
        on_row=lambda row: print(row.to_json(), flush=True),
    )
    return list(found.rows)


if __name__ == "__main__":
    sys.exit(main())
