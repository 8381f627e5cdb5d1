"""Every gate over ten pairs of cyclotron replicas: errors at the published frequencies and at others."""

from __future__ import annotations

from collections.abc import Sequence

from timing import Section

PAIRS = 10


def measure() -> tuple[str, Sequence[str]]:
    """The section; its bounds stand in the acceptance protocols of the gates."""
    import gate_sides
    import report
    from gate_sides import HELD_OUT, ORACLE, PERSISTENCE, SAMPLES
    from grokkit_cyclotron.law import TEST_OMEGAS

    lines = gate_sides.measured(PAIRS)
    heads = [f"{omega:g}" for omega in TEST_OMEGAS]
    text = [
        f"Mean squared error of every gate over {PAIRS} pairs of replicas (a 1-node and an 8-node network, seeds 0 to "
        f"{PAIRS - 1} and {gate_sides.OTHER} to {gate_sides.OTHER + PAIRS - 1}), {SAMPLES:,} paired test samples a frequency, "
        "float32. No time is measured here. Every gate is fitted as `grokkit compose` does it by default; *fitted on* names "
        "the frequencies of its calibration data, so that no figure there is taken for one elsewhere: the last block is "
        f"at {', '.join(f'{omega:g}' for omega in HELD_OUT)}, where nothing was fitted. *non-inferior* and *below both* count "
        "the pairs in which that holds at all five frequencies of a block, *wins* the significant ones of "
        f"{5 * PAIRS} (paired tests against each member, Holm within a pair), *worst* is the largest ratio to the better member.",
        "",
        f"| MSE at omega = | fitted on | {' | '.join(heads)} | mean | non-inferior | below both | wins | worst "
        "| held out: mean | non-inferior | below both | wins | worst |",
        "|---|---|" + "---|" * (len(heads) + 10),
    ]
    fixed = [PERSISTENCE, "1-node", "8-node"]
    order = [*fixed, *(name for name in lines if name not in (*fixed, ORACLE)), ORACLE]
    for name in order:
        line = lines[name]
        blocks = []
        for omegas in (TEST_OMEGAS, HELD_OUT):
            counted = bool(line.wins) or name == ORACLE
            pairs_of = (
                [f"{line.in_all(line.non_inferior, omegas)}/{PAIRS}", f"{line.in_all(line.strict, omegas)}/{PAIRS}"]
                if counted
                else ["-", "-"]
            )
            wins = str(sum(line.wins[omega] for omega in omegas)) if line.wins else "-"
            worst = f"{max(line.worst[omega] for omega in omegas):.3g}" if counted else "-"
            blocks += [f"{line.mean(omegas):.3g}", *pairs_of, wins, worst]
        cells = [f"{line.mean([omega]):.3g}" for omega in TEST_OMEGAS]
        text.append(f"| {name} | {line.fitted or '-'} | {' | '.join([*cells, *blocks])} |")
    learned = [line for name, line in lines.items() if name != PERSISTENCE]
    best = min(learned, key=lambda line: line.mean(TEST_OMEGAS))
    factor = best.mean(TEST_OMEGAS) / lines[PERSISTENCE].mean(TEST_OMEGAS)
    text += [
        "",
        f"Persistence, which copies the last state, is {factor:.3g} times better than the best line of this table "
        f"({best.name}): none of these fusions is a useful predictor of the cyclotron. The cassette `cyclotron` has 1e-14.",
        "",
        f"Machine: {report.machine()}.",
        "Command: `python tests/benchmarks/bench.py --only gates --write docs/benchmarks.md`",
    ]
    return "\n".join(text), ()


BENCHMARK = Section("gates", measure)
