"""What the cyclotron plugin brings. No torch here."""

from __future__ import annotations

from collections.abc import Iterator

from grokkit_core.hookspecs import hookimpl
from grokkit_core.specs import ArchitectureSpec, Component, Field, RecipeSpec, TaskSpec, TransferSpec
from grokkit_core.tensors import ContextSpec, Signature, TensorSpec

WINDOW = 15
STATES = TensorSpec("states", axes=("batch", WINDOW, 4), dtypes=("float32", "float64"))
STATE = TensorSpec("state", axes=("batch", 4), dtypes=("float32", "float64"))
OMEGA = ContextSpec("omega", unit="rad/s", domain=(0.0, 4.0))
SIGNATURE = Signature([STATES], [STATE], [OMEGA])


@hookimpl
def grokkit_components() -> Iterator[Component]:
    """The task, its architectures, their recipes and an operator."""
    yield from _task()
    yield from _published()
    yield from _two_state()


def _task() -> Iterator[Component]:
    """The law."""
    yield TaskSpec(
        "cyclotron",
        SIGNATURE,
        target="grokkit_cyclotron.law:Cyclotron",
        metric="mse",
        summary="next state [X, Y, VX, VY] of uniform circular motion from a window of 15 states",
        parameters=[Field("dt", "float", 0.05, low=1e-6, high=10.0, help="time between states [s]")],
        floor=1e-14,
        recipe="cyclotron/published",
        speed_baseline="euler",
    )


def _published() -> Iterator[Component]:
    """The network of supertopo3, how it was trained, and what makes it larger."""
    yield ArchitectureSpec(
        "grokkit_cyclotron/topobrain",
        version=1,
        target="grokkit_cyclotron.model:TopoBrainArchitecture",
        config=[
            Field("angular", "int", 1, low=1, high=64, help="nodes around"),
            Field("radial", "int", 1, low=1, high=64, help="nodes outwards"),
            Field("copies", "int", 1, low=1, high=64, help="nodes for each cell of the grid"),
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
    yield RecipeSpec(
        "cyclotron/curriculum",
        task="cyclotron",
        architecture="grokkit_cyclotron/topobrain",
        target="grokkit_cyclotron.curriculum:Curriculum",
        parameters=[
            Field("angular", "int", 4, low=1, high=64, help="nodes around"),
            Field("radial", "int", 2, low=1, high=64, help="nodes outwards"),
            Field("omegas", "floats", (0.8, 1.65, 2.5), low=1e-3, high=100.0, help="frequency of each stage [rad/s]"),
            Field("samples", "int", 2000, low=1, high=10**7, help="training windows a stage"),
            Field("batch", "int", 64, low=1, high=10**6, help="windows a step"),
            Field("epochs", "int", 26, low=1, high=10**6, help="at most, in each stage"),
            Field("lr", "float", 0.01, low=0.0, high=10.0, help="learning rate at a stage's start, cosine to 0"),
            Field("threshold", "float", 5e-4, low=0.0, help="a stage ends when an epoch's mean training MSE is below"),
        ],
        summary="the published expansion experiment: one frequency after the other",
    )
    yield TransferSpec(
        "grokkit_cyclotron/duplicate-and-split",
        target="grokkit_cyclotron.transfer:DuplicateAndSplit",
        guarantee="to rounding",
        summary="several nodes for each cell of the published network's grid, 8 to 64 for example",
    )


def _two_state() -> Iterator[Component]:
    """Networks that read two states: the exact rotor and its generic comparison."""
    yield ArchitectureSpec(
        "grokkit_cyclotron/rotor",
        version=1,
        target="grokkit_cyclotron.two_state:RotorArchitecture",
        summary="bilinear rotor of 28 numbers: learns to read the turn from two velocities and to apply it",
    )
    yield RecipeSpec(
        "cyclotron/rotor",
        task="cyclotron",
        architecture="grokkit_cyclotron/rotor",
        target="grokkit_cyclotron.least_squares:RotorRecipe",
        parameters=[
            Field("omegas", "floats", (0.8, 1.65, 2.5), low=1e-3, high=100.0, help="training frequencies [rad/s]"),
            Field("phase", "str", "random", choices=("random", "fixed"), help="sampler: start phase of each orbit"),
            Field("samples", "int", 400, low=1, high=10**6, help="windows at each frequency"),
            Field("restarts", "int", 5, low=0, high=100, help="further initial states where one does not arrive"),
        ],
        summary="the exact rotor for every frequency: Adam, then Levenberg-Marquardt, with a restart rule",
        dtypes=("float64",),
    )
    yield ArchitectureSpec(
        "grokkit_cyclotron/two-state-mlp",
        version=1,
        target="grokkit_cyclotron.two_state:TwoStateMlpArchitecture",
        config=[Field("width", "int", 48, low=1, high=4096, help="hidden units of both layers")],
        summary="generic comparison of the rotor: a residual tanh network of the last two states",
    )
    yield RecipeSpec(
        "cyclotron/generic",
        task="cyclotron",
        architecture="grokkit_cyclotron/two-state-mlp",
        target="grokkit_cyclotron.generic:Generic",
        parameters=[
            Field("omegas", "floats", (0.8, 1.65, 2.5), low=1e-3, high=100.0, help="training frequencies [rad/s]"),
            Field("phase", "str", "random", choices=("random", "fixed"), help="sampler: start phase of each orbit"),
            Field("samples", "int", 512, low=1, high=10**6, help="windows at each frequency"),
            Field("width", "int", 48, low=1, high=4096, help="hidden units of both layers"),
            Field("adam", "int", 300, low=0, high=10**6, help="full-batch Adam steps"),
            Field("lbfgs", "int", 150, low=0, high=10**6, help="L-BFGS iterations that follow"),
        ],
        summary="generic comparison of the rotor: Adam, then L-BFGS, on a residual tanh network",
        dtypes=("float64",),
    )
