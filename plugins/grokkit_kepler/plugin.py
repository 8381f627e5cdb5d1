"""What the Kepler plugin brings. No torch here."""

from __future__ import annotations

from collections.abc import Iterator

from grokkit_core.hookspecs import hookimpl
from grokkit_core.specs import ArchitectureSpec, Component, Field, RecipeSpec, TaskSpec
from grokkit_core.tensors import Signature, TensorSpec

MOST_ECCENTRIC = 0.6
"""Largest eccentricity that is sampled, trained on and certified."""

BOTH = ("float32", "float64")
STATE = TensorSpec("state", axes=("batch", 4), dtypes=BOTH)
FLOW = Signature([STATE], [STATE])

MEAN_ANOMALY = TensorSpec("mean_anomaly", axes=("batch",), dtypes=BOTH, unit="rad")
ECCENTRICITY = TensorSpec("eccentricity", axes=("batch",), dtypes=BOTH, domain=(0.0, MOST_ECCENTRIC))
ECCENTRIC_ANOMALY = TensorSpec("eccentric_anomaly", axes=("batch",), dtypes=BOTH, unit="rad")
EQUATION = Signature([MEAN_ANOMALY, ECCENTRICITY], [ECCENTRIC_ANOMALY])

ORBIT = TensorSpec("orbit", axes=("batch", 5), dtypes=BOTH)
POSITION = TensorSpec("position", axes=("batch", 2), dtypes=BOTH)
LINEAR_ANGLE = Signature([ORBIT], [POSITION])

FLOOR = 1e-14
"""Mean squares below it are rounding of float32 outputs of order one, which every network here may be asked for."""

MU = Field("mu", "float", 1.0, low=1e-6, high=1e6, help="gravitational parameter [length^3/time^2]")
DT = Field("dt", "float", 0.1, low=1e-9, high=1e9, help="time step")
NEWTON = Field("newton", "int", 1, low=0, high=8, help="Newton steps after the network")


@hookimpl
def grokkit_components() -> Iterator[Component]:
    """Three tasks, their architectures and recipes."""
    yield from _flow()
    yield from _flow_mlp()
    yield from _equation()
    yield from _published()


def _flow() -> Iterator[Component]:
    """The flow map and the network that stays on the orbit."""
    yield TaskSpec(
        "kepler",
        FLOW,
        target="grokkit_kepler.law:Kepler",
        metric="mse",
        summary="state (x, y, vx, vy) of a bound planar two-body orbit after a time dt",
        parameters=[MU, DT],
        floor=FLOOR,
        recipe="kepler/on-orbit",
        speed_baseline="rk4",
    )
    yield ArchitectureSpec(
        "grokkit_kepler/on-orbit",
        version=1,
        target="grokkit_kepler.on_orbit:OnOrbitArchitecture",
        config=[
            Field("width", "int", 24, low=1, high=1024, help="units of each hidden layer"),
            Field("depth", "int", 2, low=1, high=8, help="hidden layers"),
            NEWTON,
            MU,
            DT,
            Field("least_turn", "float", 0.0543, low=1e-9, high=6.0, help="least n dt that was trained [rad]"),
            Field("most_turn", "float", 0.1711, low=1e-9, high=6.0, help="largest n dt that was trained [rad]"),
        ],
        summary="network of the three invariants (e cos E, e sin E, n dt); exact algebra moves along the same orbit",
    )
    yield RecipeSpec(
        "kepler/on-orbit",
        task="kepler",
        architecture="grokkit_kepler/on-orbit",
        target="grokkit_kepler.recipes:OnOrbitRecipe",
        parameters=[
            Field("samples", "int", 6000, low=1, high=10**7, help="training states"),
            Field("iterations", "int", 800, low=0, high=10**6, help="of L-BFGS"),
            Field("width", "int", 24, low=1, high=1024, help="units of each hidden layer"),
            Field("depth", "int", 2, low=1, high=8, help="hidden layers"),
            NEWTON,
        ],
        summary="L-BFGS on the logarithm of the step in eccentric anomaly; Newton steps are appended untrained",
        dtypes=("float64",),
    )


def _flow_mlp() -> Iterator[Component]:
    """The generic comparison."""
    yield ArchitectureSpec(
        "grokkit_kepler/mlp",
        version=1,
        target="grokkit_kepler.mlp:MlpArchitecture",
        config=[
            Field("width", "int", 128, low=1, high=2**20, help="units of both hidden layers"),
            MU,
            DT,
            Field("least_turn", "float", 0.0543, low=1e-9, high=6.0, help="least n dt that was trained [rad]"),
            Field("most_turn", "float", 0.1711, low=1e-9, high=6.0, help="largest n dt that was trained [rad]"),
        ],
        summary="generic comparison: a SiLU network of the state gives its rate of change",
    )
    yield RecipeSpec(
        "kepler/mlp",
        task="kepler",
        architecture="grokkit_kepler/mlp",
        target="grokkit_kepler.mlp:MlpRecipe",
        parameters=[
            Field("samples", "int", 50_000, low=1, high=10**7, help="training states, of either direction"),
            Field("batch", "int", 512, low=1, high=10**6, help="states a step"),
            Field("steps", "int", 3505, low=1, high=10**7, help="of Adam"),
            Field("lr", "float", 3e-3, low=0.0, high=10.0, help="learning rate at the start, cosine to 0"),
            Field("width", "int", 128, low=1, high=2**20, help="units of both hidden layers"),
        ],
        summary="generic comparison: Adam on 50,000 states",
    )


def _equation() -> Iterator[Component]:
    """Kepler's equation by itself."""
    yield TaskSpec(
        "kepler-equation",
        EQUATION,
        target="grokkit_kepler.equation:KeplerEquation",
        metric="mse",
        unit="rad^2",
        summary="eccentric anomaly E from mean anomaly M and eccentricity e: M = E - e sin E",
        floor=FLOOR,
        recipe="kepler-equation/anomaly",
        speed_baseline="newton-3",
    )
    yield ArchitectureSpec(
        "grokkit_kepler/anomaly",
        version=1,
        target="grokkit_kepler.anomaly:AnomalyArchitecture",
        config=[
            Field("width", "int", 24, low=1, high=1024, help="units of each hidden layer"),
            Field("depth", "int", 2, low=1, high=8, help="hidden layers"),
            NEWTON,
        ],
        summary="E = M + e sin M N(e, cos M): odd and periodic in M, exact at e = 0, M = 0 and M = pi",
    )
    yield RecipeSpec(
        "kepler-equation/anomaly",
        task="kepler-equation",
        architecture="grokkit_kepler/anomaly",
        target="grokkit_kepler.recipes:AnomalyRecipe",
        parameters=[
            Field("samples", "int", 3000, low=201, high=10**7, help="training pairs, 200 of them near periapsis"),
            Field("iterations", "int", 1500, low=0, high=10**6, help="of L-BFGS"),
            Field("width", "int", 24, low=1, high=1024, help="units of each hidden layer"),
            Field("depth", "int", 2, low=1, high=8, help="hidden layers"),
            NEWTON,
        ],
        summary="L-BFGS on (E - M)/(e sin M); Newton steps are appended untrained",
        dtypes=("float64",),
    )


def _published() -> Iterator[Component]:
    """The published network and the law that it was trained on, which is not Kepler's."""
    yield TaskSpec(
        "linear-angle",
        LINEAR_ANGLE,
        target="grokkit_kepler.linear_angle:LinearAngle",
        metric="mse",
        summary="published stand-in for Kepler: a point of a conic after its angle grew by 0.02 h, input (x, y, h, e, t)",
        parameters=[Field("noise", "float", 5e-4, low=0.0, high=1.0, help="relative noise of the input position")],
        recipe="linear-angle/published",
        speed_baseline="formula",
    )
    yield ArchitectureSpec(
        "grokkit_kepler/published",
        version=1,
        target="grokkit_kepler.published:PublishedArchitecture",
        config=[Field("width", "int", 128, low=1, high=2**20, help="units of both hidden layers")],
        summary="the 5-128-128-2 ReLU network of kepler_orbit_grokker",
    )
    yield RecipeSpec(
        "linear-angle/published",
        task="linear-angle",
        architecture="grokkit_kepler/published",
        target="grokkit_kepler.published:Published",
        parameters=[
            Field("width", "int", 128, low=1, high=2**20, help="units of both hidden layers"),
            Field("samples", "int", 2000, low=5, high=10**7, help="rows, four fifths of them for training"),
            Field("epochs", "int", 25_000, low=1, high=10**7, help="at most, full batch"),
            Field("lr", "float", 3e-3, low=0.0, high=10.0, help="learning rate of AdamW at the start"),
            Field("threshold", "float", 5e-5, low=0.0, help="stop when the validation MSE is below"),
        ],
        summary="the published protocol of kepler_orbit_grokker; validation rows, not test rows, decide",
        dtypes=("float32", "float64"),
    )
