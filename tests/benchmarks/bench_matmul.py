"""Products by the learned coefficients beside `torch.mm(out=)`, on one thread of the CPU, up to size 4096."""

from __future__ import annotations

from collections.abc import Sequence

from timing import Section

ABOUT = """Seven learned products instead of eight: `matmul-2x2` beside `torch.mm(a, b, out=c)` on the same matrices, both
sides with preallocated results. The ratio is the median of the ratios of alternating pairs, above 1 the cassette is faster;
the error is that of `torch.mm` relative to the product, then how many times as large the cassette's is (Frobenius, 16
rows); workspace is relative to the three matrices. `auto` is a plain call after calibration."""


def measure() -> tuple[str, Sequence[str]]:
    """Calibrate anew and measure."""
    import matmul_sides

    text, missed = matmul_sides.cpu_section("matmul", ABOUT, (256, 512, 1024, 2048, 4096), anew=True)
    return f"{text}\n\n{matmul_sides.PUBLISHED}", missed


BENCHMARK = Section("matmul", measure)
