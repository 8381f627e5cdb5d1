"""What the benchmarks of growth share: the two forms of block-zero growth, constructed from tensors in memory."""

from __future__ import annotations

import os
from typing import Any

from timing import Comparison, Side

SOURCE = "parity-3of64"
PUBLISHED = {
    (128, 2_048): 0.14,
    (256, 4_096): 0.42,
    (512, 8_192): 1.34,
    (1_024, 16_384): 8.25,
    (2_048, 32_768): 44.14,
}
"""Published seconds by inputs and hidden units: construction with random initialisation, copy and evaluation."""

LARGEST = (2_048, 32_768)
ENOUGH = 8 * 2**30
"""Free memory [byte] for the dense form of the largest size, 4.6 GB, and for what is checked before timing."""

ROWS = 8
DENSE = 1e-6
LESS_MEMORY = 1_000


def free_memory() -> int:
    """Memory that can be had without swapping [byte]."""
    try:
        with open("/proc/meminfo") as file:
            rows = dict(line.split(":", 1) for line in file)
        return int(rows["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")


def comparison(size: tuple[int, int], calls: int) -> Comparison:
    """The dense form against the implicit one, from the tensors of the base to a network that can be called."""
    import torch

    from grokkit_core.building import build_module
    from grokkit_core.cassette import load
    from grokkit_core.streams import stream
    from grokkit_core.transfer.zero_pad import padded

    source = load(SOURCE)
    after = dict(zip(("n", "hidden"), size, strict=True))
    operator = source.plugins.operator("zero-pad")
    architecture, own = source.architecture, source.manifest.architecture.config
    larger = architecture.without_gather({**own, **after})
    layers = architecture.layers(own) or ()
    bits = torch.randint(0, 2, (ROWS, size[0]), generator=stream(0, "benchmark"), dtype=torch.uint8)

    def implicit() -> Any:
        plan = operator.plan(source.manifest, after)
        found = source.plugins.architecture(plan.architecture.id)
        return build_module(found, plan.architecture.config, operator.apply(source, plan))

    def dense() -> Any:
        return build_module(architecture, larger, padded(layers, source.tensors, after))

    def stored(module: Any) -> int:
        return sum(tensor.numel() * tensor.element_size() for tensor in module.state_dict().values())

    def check() -> str:
        with torch.inference_mode():
            base, gathered = source.module(bits[:, :64]), implicit()
            assert torch.equal(gathered(bits), base)
            full = dense()
            difference = (full(bits) - base).abs().max().item()
        assert difference <= DENSE, f"outputs differ by {difference:.2g}"
        memory = stored(full), stored(gathered)
        if size == LARGEST:
            assert memory[0] >= LESS_MEMORY * memory[1]
        return (
            f"implicit outputs equal the base's to the bit, dense ones to {difference:.1e}; "
            f"dense {memory[0] / 1e6:,.1f} MB, implicit {memory[1] / 1e6:.3f} MB, {memory[0] / memory[1]:,.0f} times less"
        )

    label = f"{size[0]}/{size[1]} (published {PUBLISHED[size]} s)"
    return Comparison(label, Side("dense", dense), Side("implicit", implicit, calls), check)
