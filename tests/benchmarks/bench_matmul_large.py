"""The same as `bench_matmul` at size 8192, which takes a quarter of an hour."""

from __future__ import annotations

from collections.abc import Sequence

from timing import Section

ABOUT = "As above, at size 8192, with the levels that were calibrated before."


def measure() -> tuple[str, Sequence[str]]:
    """Measure, by the calibration that there is."""
    import matmul_sides

    return matmul_sides.cpu_section("matmul-large", ABOUT, (8192,), anew=False)


BENCHMARK = Section("matmul-large", measure)
