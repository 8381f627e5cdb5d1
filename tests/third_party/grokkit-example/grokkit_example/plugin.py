"""What this package brings, as plain values. No torch here: `grokkit list` imports this file."""

from __future__ import annotations

from collections.abc import Iterator

from grokkit_core import hookimpl
from grokkit_core.specs import ArchitectureSpec, CassetteRoot, Component, Field, GateSpec, RecipeSpec, TaskSpec
from grokkit_core.tensors import Signature, TensorSpec

CELLS = 8
"""Cells of the ring: 256 states, few enough to check every one."""

STATE = TensorSpec("state", axes=("batch", CELLS), dtypes=("float32", "float64"), domain={0.0, 1.0})
NEXT = TensorSpec("next", axes=("batch", CELLS), dtypes=("float32", "float64"), domain=(0.0, 1.0))
SIGNATURE = Signature([STATE], [NEXT])

HIDDEN = Field("hidden", "int", 16, low=1, high=1024, help="hidden units")


@hookimpl
def grokkit_components() -> Iterator[Component]:
    """One of each kind that most plugins need."""
    yield TaskSpec(
        "automaton",
        SIGNATURE,
        target="grokkit_example.law:Automaton",
        metric="accuracy",
        summary="next state of an elementary cellular automaton on a ring of 8 cells",
        parameters=[Field("rule", "int", 110, low=0, high=255, help="Wolfram's number of the rule")],
    )
    yield ArchitectureSpec(
        "grokkit_example/local",
        version=1,
        target="grokkit_example.model:LocalArchitecture",
        config=[HIDDEN],
        summary="one small network that sees a cell and its two neighbours",
    )
    yield RecipeSpec(
        "automaton/adam",
        task="automaton",
        architecture="grokkit_example/local",
        target="grokkit_example.recipes:SomeStates",
        parameters=[
            HIDDEN,
            Field("states", "int", 64, low=1, high=255, help="training states; the others of the 256 validate"),
            Field("batch", "int", 32, low=1, high=256, help="states a step"),
            Field("lr", "float", 0.03, low=0.0, high=1.0, help="learning rate of Adam"),
            Field("steps", "int", 2_000, low=1, high=10**6, help="at most"),
        ],
        summary="Adam on some of the states, until all others stay right",
    )
    yield GateSpec(
        "grokkit_example/inverse-error",
        target="grokkit_example.gates:InverseError",
        needs="any-scalar",
        options=[
            Field("power", "float", 1.0, low=0.0, high=16.0, help="weights are error^-power; 0: equal weights"),
            Field("samples", "int", 1_024, low=1, high=100_000, help="samples at each calibration context"),
            Field("variable", "str", "", help="the context variable to read, where members share several"),
        ],
        summary="inverse error of each member, interpolated between the calibration contexts",
    )
    yield CassetteRoot("grokkit_example", "cassettes")
