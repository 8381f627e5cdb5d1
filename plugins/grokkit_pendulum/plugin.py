"""What the pendulum plugin brings. No torch here."""

from __future__ import annotations

from collections.abc import Iterator

from grokkit_core.hookspecs import hookimpl
from grokkit_core.specs import ArchitectureSpec, Component, Field, RecipeSpec, TaskSpec
from grokkit_core.tensors import Signature, TensorSpec

STATE = TensorSpec(
    "state", axes=("batch", 4), dtypes=("float64", "float32"), unit="theta1 rad, theta2 rad, omega1 rad/s, omega2 rad/s"
)
SIGNATURE = Signature([STATE], [STATE])
STEP = Field("dt", "float", 0.02, low=1e-4, high=0.1, help="time step [s]")
CONSTANTS = (
    STEP,
    Field("m1", "float", 1.0, low=0.1, high=10.0, help="upper mass [kg]"),
    Field("m2", "float", 1.0, low=0.1, high=10.0, help="lower mass [kg]"),
    Field("l1", "float", 1.0, low=0.1, high=10.0, help="upper rod [m]"),
    Field("l2", "float", 1.0, low=0.1, high=10.0, help="lower rod [m]"),
    Field("g", "float", 9.81, low=0.1, high=100.0, help="gravity [m/s^2]"),
)
"""Constants of the law, and of the networks that hold the law."""

INTEGRATORS = ("gauss-legendre-4", "rk4")


@hookimpl
def grokkit_components() -> Iterator[Component]:
    """The task, its architectures and their recipes."""
    yield TaskSpec(
        "pendulum",
        SIGNATURE,
        target="grokkit_pendulum.law:Pendulum",
        metric="mse",
        summary="state of a double pendulum (theta1, theta2, omega1, omega2) a time step later",
        parameters=CONSTANTS,
        floor=1e-14,
        recipe="pendulum/lagrangian",
        speed_baseline="rk4",
    )
    yield from _lagrangian()
    yield from _symplectic()
    yield from _mlp()
    yield from _published()


def _lagrangian() -> Iterator[Component]:
    """The law, identified."""
    chosen = (
        Field("integrator", "str", "gauss-legendre-4", choices=INTEGRATORS, help="symplectic, or cheaper"),
        Field("step", "float", 0.02, low=1e-4, high=0.1, help="longest step of the integrator [s]"),
    )
    yield ArchitectureSpec(
        "grokkit_pendulum/lagrangian",
        version=1,
        target="grokkit_pendulum.lagrangian:LagrangianArchitecture",
        config=[
            *CONSTANTS,
            *chosen,
            Field("snapped", "bool", False, help="the coefficients are short decimals, so that the law is known"),
        ],
        summary="19 coefficients of a Lagrangian over a trigonometric basis, integrated over the time step",
    )
    yield RecipeSpec(
        "pendulum/lagrangian",
        task="pendulum",
        architecture="grokkit_pendulum/lagrangian",
        target="grokkit_pendulum.identify:Identify",
        parameters=[
            Field("pairs", "int", 300, low=10, high=10**6, help="states with their successors"),
            Field("noise", "float", 0.0, low=0.0, high=1.0, help="relative noise on both states of each pair"),
            Field("substeps", "int", 2, low=1, high=64, help="RK4 steps of the prediction that is fitted"),
            Field("restarts", "int", 5, low=0, high=100, help="further initial states where one does not arrive"),
            Field("snap", "bool", True, help="round the coefficients where they are known well enough"),
            *chosen,
        ],
        summary="the law from state pairs: Levenberg-Marquardt through the integrator, coefficients rounded",
        dtypes=("float64",),
    )


def _symplectic() -> Iterator[Component]:
    """A network that cannot but be symplectic."""
    sizes = (
        Field("shears", "int", 4, low=1, high=64, help="alternating shears"),
        Field("width", "int", 48, low=1, high=4096, help="units of each shear"),
    )
    yield ArchitectureSpec(
        "grokkit_pendulum/symplectic",
        version=1,
        target="grokkit_pendulum.symplectic:SymplecticArchitecture",
        config=[*CONSTANTS, *sizes],
        summary="alternating shears of angles and momenta, symplectic for all weights",
    )
    yield RecipeSpec(
        "pendulum/symplectic",
        task="pendulum",
        architecture="grokkit_pendulum/symplectic",
        target="grokkit_pendulum.recipes:SymplecticRecipe",
        parameters=[
            *sizes,
            Field("pairs", "int", 30_000, low=1, high=10**7, help="states with their successors"),
            Field("batch", "int", 256, low=1, high=10**6, help="pairs a step"),
            Field("steps", "int", 2_500, low=1, high=10**7, help="fixed number"),
            Field("lr", "float", 1e-2, low=0.0, high=10.0, help="learning rate of Adam, cosine to a thousandth"),
        ],
        summary="comparison: energy stays bounded, states are far less accurate",
        dtypes=("float64", "float32"),
    )


def _mlp() -> Iterator[Component]:
    """The generic network."""
    width = Field("width", "int", 128, low=1, high=2**20, help="units of both hidden layers")
    yield ArchitectureSpec(
        "grokkit_pendulum/mlp",
        version=1,
        target="grokkit_pendulum.networks:MlpArchitecture",
        config=[width],
        summary="residual SiLU network of the sines and cosines of the angles and of the velocities",
    )
    yield RecipeSpec(
        "pendulum/mlp",
        task="pendulum",
        architecture="grokkit_pendulum/mlp",
        target="grokkit_pendulum.recipes:MlpRecipe",
        parameters=[
            width,
            Field("pairs", "int", 200_000, low=1, high=10**7, help="states with their successors"),
            Field("batch", "int", 512, low=1, high=10**6, help="pairs a step"),
            Field("steps", "int", 8_000, low=1, high=10**7, help="fixed number"),
            Field("lr", "float", 3e-3, low=0.0, high=10.0, help="learning rate of Adam, cosine to a thousandth"),
        ],
        summary="comparison: a generic network of one time step, without the law",
    )


def _published() -> Iterator[Component]:
    """The published network and how it was trained."""
    width = Field("width", "int", 128, low=1, high=2**20, help="units of both hidden layers")
    yield ArchitectureSpec(
        "grokkit_pendulum/published",
        version=1,
        target="grokkit_pendulum.networks:PublishedArchitecture",
        config=[width],
        summary="the tanh network of chaotic_pendulum_grokked, angles in half turns and not wrapped",
    )
    yield RecipeSpec(
        "pendulum/published",
        task="pendulum",
        architecture="grokkit_pendulum/published",
        target="grokkit_pendulum.published:Published",
        parameters=[
            width,
            Field("states", "int", 1_800, low=10, high=10**6, help="initial states, four fifths to train on"),
            Field("threshold", "float", 0.02, low=0.0, help="stop at this validation MSE; persistence is below it"),
            Field("epochs", "int", 25_000, low=1, high=10**7, help="at most"),
        ],
        summary="the published protocol on the last two points of an adaptive solver: time step undefined",
    )
