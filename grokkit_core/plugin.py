"""What the core itself brings, through the same hook as everybody else."""

from __future__ import annotations

from collections.abc import Iterator

from grokkit_core.hookspecs import hookimpl
from grokkit_core.specs import ArchitectureSpec, Component, Field, FusionSpec, GateSpec, TaskSpec, TransferSpec
from grokkit_core.tensors import Signature


@hookimpl
def grokkit_components() -> Iterator[Component]:
    """Fusions, gates and transfer operators of general use, and the architectures that they make."""
    yield from _fusions()
    yield from _learned_gates()
    yield from _solved_gates()
    yield from _gates_of_any_task()
    yield from _operators()


def _fusions() -> Iterator[Component]:
    """Fusions, and the architecture of a fused cassette."""
    yield FusionSpec(
        "ensemble",
        target="grokkit_core.fusion.ensemble:EnsembleFusion",
        gated=True,
        summary="weighted sum of the predictions of frozen members of one task",
    )
    yield ArchitectureSpec(
        "grokkit_core/ensemble",
        version=1,
        target="grokkit_core.fusion.ensemble:EnsembleArchitecture",
        config=[Field("members", "json"), Field("gate", "json"), Field("nested", "json", ())],
        summary="members with a gate",
    )
    yield from _composites()


def _composites() -> Iterator[Component]:
    """Compositions of several tasks: their task, and for each fusion the architecture of what it makes."""
    yield TaskSpec(
        "composite",
        Signature([], []),
        target="grokkit_core.fusion.composite_task:CompositeTask",
        summary="what the members of a router or a superposition compute, each its own task",
    )
    yield FusionSpec(
        "router",
        target="grokkit_core.fusion.router:RouterFusion",
        summary="cassettes of different tasks behind one, chosen by key or by exact signature",
    )
    yield ArchitectureSpec(
        "grokkit_core/router",
        version=1,
        target="grokkit_core.fusion.router:RouterArchitecture",
        config=[Field("members", "json")],
        summary="members with tensors of their own",
    )
    yield FusionSpec(
        "superposition",
        target="grokkit_core.fusion.superposition:SuperpositionFusion",
        summary="the same with all weights in one flat tensor per dtype, each member bit-exact and isolated",
    )
    yield ArchitectureSpec(
        "grokkit_core/superposition",
        version=1,
        target="grokkit_core.fusion.superposition:SuperpositionArchitecture",
        config=[Field("members", "json"), Field("table", "json")],
        summary="members in one flat tensor per dtype, with a table of their blocks",
    )


def _learned_gates() -> Iterator[Component]:
    """The baseline of every comparison, and gates that are trained."""
    yield GateSpec("uniform", target="grokkit_core.fusion.gates:Uniform", summary="equal weights")
    yield GateSpec(
        "spectral",
        target="grokkit_core.fusion.gates:Spectral",
        needs="any-scalar",
        options=[
            Field("width", "int", 16, low=1, high=1024, help="hidden units"),
            Field(
                "steps",
                "int",
                0,
                low=0,
                high=100_000,
                help="Adam steps; 0: 100 for two members, 300 for more",
            ),
            Field(
                "lr",
                "float",
                0.0,
                low=0.0,
                high=10.0,
                help="learning rate; 0: 0.1 for two members, 0.02 for more",
            ),
            Field("samples", "int", 256, low=1, high=100_000, help="fresh samples per context and step"),
            Field("variable", "str", "", help="the context variable to read, where members share several"),
        ],
        summary="a small network of one scalar context variable, trained on fresh samples (1-16-1 for two members)",
    )


def _solved_gates() -> Iterator[Component]:
    """Gates whose weights are solved in closed form."""
    samples = Field("samples", "int", 256, low=2, high=10**6, help="fresh samples per context")
    free = Field("free", "bool", False, help="weights of either sign: a regression, which may extrapolate")
    variable = Field("variable", "str", "", help="the context variable to read, where members share several")
    yield GateSpec(
        "interference",
        target="grokkit_core.fusion.closed_form:Interference",
        needs="any-scalar",
        options=[samples, free, variable],
        summary="the best weights at some contexts in closed form, linear in between; clipped to [0, 1] unless free",
    )
    yield GateSpec(
        "interference-per-output",
        target="grokkit_core.fusion.closed_form:InterferencePerOutput",
        needs="any-scalar",
        options=[samples, free, variable],
        summary="the same for each output by itself, which breaks symmetries between outputs",
    )
    yield GateSpec(
        "simplex",
        target="grokkit_core.fusion.closed_form:Simplex",
        needs="any-scalar",
        options=[samples, variable],
        summary="the best non-negative weights of any number of members at some contexts, linear in between",
    )


def _gates_of_any_task() -> Iterator[Component]:
    """Gates that need no context variable."""
    samples = Field("samples", "int", 256, low=2, high=10**6, help="fresh samples per context")
    yield GateSpec(
        "constant",
        target="grokkit_core.fusion.stacking:Constant",
        options=[samples, Field("weights", "floats", (), help="one a member, sum one; none: fitted on the simplex")],
        summary="the same weights everywhere, given or fitted once over all contexts",
    )
    yield GateSpec(
        "stacking",
        target="grokkit_core.fusion.stacking:Stacking",
        options=[samples, Field("free", "bool", False, help="weights of either sign: a regression")],
        summary="the best non-negative weights over all contexts at once",
    )
    yield GateSpec(
        "sequence",
        target="grokkit_core.fusion.sequence:SequenceGate",
        options=[
            Field("width", "int", 32, low=1, high=1024, help="hidden units"),
            Field("steps", "int", 300, low=1, high=100_000, help="Adam steps"),
            Field("lr", "float", 0.01, low=0.0, high=10.0, help="learning rate"),
            Field("samples", "int", 256, low=1, high=100_000, help="fresh samples per context and step"),
            Field("per_output", "bool", False, help="weights for every output by itself"),
        ],
        summary="a small network of the input: weights for every sample",
    )


def _operators() -> Iterator[Component]:
    """Transfer operators, and the architecture of an embedded network."""
    yield TransferSpec(
        "zero-pad",
        target="grokkit_core.transfer.zero_pad:ZeroPad",
        guarantee="bit-exact (implicit), to rounding (dense)",
        summary="block-zero growth of inputs and hidden layers; stores the base and the new sizes only",
    )
    yield TransferSpec(
        "widen",
        target="grokkit_core.transfer.widen:Widen",
        guarantee="to rounding",
        summary="Net2Wider: hidden units duplicated, their outgoing weights shared out",
    )
    yield TransferSpec(
        "regrid",
        target="grokkit_core.transfer.regrid:Regrid",
        guarantee="to rounding, on inputs that the coarse grid resolves",
        summary="the same weights on a finer grid",
    )
    yield TransferSpec(
        "change-constants",
        target="grokkit_core.transfer.change_constants:ChangeConstants",
        guarantee="the law with other constants, e.g. another time step; not the same function",
        summary="new constants of the law for networks that hold the law itself",
    )
    yield ArchitectureSpec(
        "grokkit_core/embedded",
        version=1,
        target="grokkit_core.transfer.zero_pad:EmbeddedArchitecture",
        config=[Field("base", "json"), Field("sizes", "json")],
        summary="a network that reads the leading columns of a wider input",
    )
