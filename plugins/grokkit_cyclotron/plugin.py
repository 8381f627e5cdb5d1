"""What the cyclotron plugin brings. No torch here."""

from __future__ import annotations

from collections.abc import Iterator

from grokkit_core.hookspecs import hookimpl
from grokkit_core.specs import ArchitectureSpec, Component, Field, RecipeSpec, TaskSpec
from grokkit_core.tensors import ContextSpec, Signature, TensorSpec

WINDOW = 15
STATES = TensorSpec("states", axes=("batch", WINDOW, 4), dtypes=("float32", "float64"))
STATE = TensorSpec("state", axes=("batch", 4), dtypes=("float32", "float64"))
OMEGA = ContextSpec("omega", unit="rad/s", domain=(0.0, 4.0))
SIGNATURE = Signature([STATES], [STATE], [OMEGA])


@hookimpl
def grokkit_components() -> Iterator[Component]:
    """The task, the published architecture and its recipe."""
    yield TaskSpec(
        "cyclotron",
        SIGNATURE,
        target="grokkit_cyclotron.law:Cyclotron",
        metric="mse",
        summary="next state [X, Y, VX, VY] of uniform circular motion from a window of 15 states",
        parameters=[Field("dt", "float", 0.05, low=1e-6, high=10.0, help="time between states [s]")],
        floor=1e-14,
        recipe="cyclotron/published",
    )
    yield ArchitectureSpec(
        "grokkit_cyclotron/topobrain",
        version=1,
        target="grokkit_cyclotron.model:TopoBrainArchitecture",
        config=[
            Field("angular", "int", 1, low=1, high=64, help="nodes around"),
            Field("radial", "int", 1, low=1, high=64, help="nodes outwards"),
        ],
        summary="encoder of the last state, scatter onto an angular x radial grid, node network, readout",
    )
    yield RecipeSpec(
        "cyclotron/published",
        task="cyclotron",
        architecture="grokkit_cyclotron/topobrain",
        target="grokkit_cyclotron.recipes:Published",
        parameters=[
            Field("angular", "int", 1, low=1, high=64, help="nodes around"),
            Field("radial", "int", 1, low=1, high=64, help="nodes outwards"),
            Field("omega", "float", 0.8, low=1e-3, high=100.0, help="training frequency [rad/s]"),
            Field("samples", "int", 1500, low=1, high=10**7, help="training windows"),
            Field("batch", "int", 64, low=1, high=10**6, help="windows a step"),
            Field("epochs", "int", 60, low=1, high=10**6, help="at most"),
            Field("lr", "float", 0.01, low=0.0, high=10.0, help="learning rate at the start, cosine to 0"),
            Field(
                "threshold",
                "float",
                5e-4,
                low=0.0,
                help="stop when the mean training MSE of an epoch is below",
            ),
        ],
        summary="the published protocol of supertopo3: one frequency, OrthogonalAdamW, stop at training MSE 5e-4",
    )
