"""Ensembles for benchmarks: frozen members, their own networks, and the fused network, without a library."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

    from grokkit_core.cassette import Cassette

SPREAD = 0.01
"""Relative spread of the weights of members that are made of one cassette."""


def members(name: str, count: int, seed: int) -> list[Cassette]:
    """A shipped cassette and perturbations of it, all of one architecture."""
    import torch

    import grokkit_core as gk
    from grokkit_core.cassette import Cassette
    from grokkit_core.streams import stream

    start, generator = gk.load(name), stream(seed, "members")
    made = [start]
    for index in range(1, count):
        tensors = {
            n: t * (1 + SPREAD * torch.randn(t.shape, generator=generator)).to(t.dtype)
            for n, t in start.tensors.items()
        }
        made.append(Cassette(start.manifest.replace(summary=f"perturbed {index}"), tensors))
    return made


def fused(parts: Sequence[Cassette], gate: str, options: Mapping[str, Any], seed: int) -> Cassette:
    """Their fusion, neither certified nor saved."""
    from grokkit_core.fusion.gate import Calibration
    from grokkit_core.plugins import host
    from grokkit_core.streams import stream

    fusion, chosen = host().fusion("ensemble"), host().gate(gate, **options)
    plan = fusion.plan([part.manifest for part in parts], gate, **options)
    task = parts[0].task
    batches = Calibration(
        task, chosen.places(task), generator=stream(seed, "data"), dtype=parts[0].dtype, variable=plan.variable
    )
    return fusion.compose(parts, plan, gate=chosen, batches=batches, seed=seed, name="fused")


def inputs(cassette: Cassette, batch: int, seed: int) -> tuple[tuple[Tensor, ...], Mapping[str, Tensor]]:
    """Fresh inputs of the task at its first context, and that context as one number for all samples."""
    import torch

    from grokkit_core.streams import stream
    from grokkit_core.task import tensors_of

    place = next(iter(cassette.task.evaluation), {})
    drawn = cassette.task.sample(batch, generator=stream(seed, "inputs"), **place).to(cassette.dtype)
    context = {name: torch.tensor(values[0].item()).expand(batch) for name, values in drawn.context.items()}
    return tensors_of(drawn.inputs), context


def forwards(parts: Sequence[Cassette], whole: Cassette, batch: int, seed: int) -> tuple[Callable[[], Any], ...]:
    """The fused network's forward pass, and its members' own one after the other; both in inference mode."""
    import torch

    given, context = inputs(parts[0], batch, seed)
    network: nn.Module = whole.module_for(whole.dtype)
    own = [(part.module_for(whole.dtype), part.architecture.reads_context) for part in parts]

    def together() -> Tensor:
        with torch.inference_mode():
            result: Tensor = network(*given, context=context)
        return result

    def one_by_one() -> list[Tensor]:
        with torch.inference_mode():
            return [net(*given, context=context) if reads else net(*given) for net, reads in own]

    return together, one_by_one


def calls(parts: Sequence[Cassette], whole: Cassette, batch: int, seed: int) -> tuple[Callable[[], Any], ...]:
    """A call of the fused cassette, and calls of its members one after the other, as a user makes them: inputs are checked."""
    (given, *_), context = inputs(parts[0], batch, seed)

    def together() -> Tensor:
        return whole.predict(given, context)

    def one_by_one() -> list[Tensor]:
        return [part.predict(given, context) for part in parts]

    return together, one_by_one


def mean_apart(together: Callable[[], Tensor], one_by_one: Callable[[], list[Tensor]], bound: float) -> str:
    """Raise unless the fused prediction is the mean of the members'; says how far they are apart."""
    import torch

    expected = torch.stack(one_by_one()).double().mean(0)
    difference = ((together() - expected).abs() / expected.abs().clamp_min(1)).max().item()
    assert difference <= bound, f"outputs differ by {difference:.2g}"
    return f"outputs differ from the members' mean by at most {difference:.1e}"
