"""What the wave plugin brings. No torch here."""

from __future__ import annotations

from collections.abc import Iterator

from grokkit_core.hookspecs import hookimpl
from grokkit_core.specs import ArchitectureSpec, Component, Field, RecipeSpec, TaskSpec, TransferSpec
from grokkit_core.tensors import ContextSpec, Signature, TensorSpec

REFERENCE = 0.0961
"""lam2 of the published system: c = 1, dt = 0.01, dx = 1/31, so that the Courant number is 0.31."""

DOUBLE_FIRST, SINGLE_FIRST = ("float64", "float32"), ("float32", "float64")
BOUNDARY = Field("boundary", "str", "dirichlet", choices=("dirichlet", "periodic"), help="zero ghost values, or a ring")
LAM2 = Field("lam2", "float", REFERENCE, low=0.0, high=1.0, help="Courant number squared, (c dt / dx)^2, of the law")
GRID = Field(
    "grid", "int", 32, low=1, high=2**31 - 1, help="interior points that it was made for; no tensor depends on it"
)
SNAP = Field("snap", "bool", True, help="short decimals instead of coefficients that lie within rounding of them")
GRID_OF_FIELDS = Field("grid", "int", 32, low=1, high=2**20, help="interior points of the training fields")


def signature(dtypes: tuple[str, ...], *context: ContextSpec) -> Signature:
    """`pair` "batch 2 grid" (u now, then v one step earlier) to `field` "batch grid", one step later."""
    pair = TensorSpec("pair", axes=("batch", 2, "grid"), dtypes=dtypes)
    return Signature([pair], [TensorSpec("field", axes=("batch", "grid"), dtypes=dtypes)], context)


def lam2_context(*, required: bool, only: float | None = None) -> ContextSpec:
    """The context variable `lam2`: any stable value, or a single one."""
    return ContextSpec("lam2", unit="1", domain=(0.0, 1.0) if only is None else {only}, required=required)


@hookimpl
def grokkit_components() -> Iterator[Component]:
    """The task, three architectures, their recipes and operators."""
    yield TaskSpec(
        "wave",
        signature(DOUBLE_FIRST, lam2_context(required=False)),
        target="grokkit_wave.law:Wave",
        metric="mse",
        summary="next field of the wave equation in one dimension, by leapfrog on interior points",
        parameters=[
            BOUNDARY,
            Field(
                "lam2",
                "json",
                None,
                help="Courant number squared, (c dt / dx)^2, in [0, 1]; null: given with each input",
            ),
        ],
        floor=1e-13,
        recipe="wave/conditional",
        speed_baseline="least-squares",
    )
    yield from _conditional()
    yield from _fixed()
    yield from _nonlinear()
    yield from _operators()


def _conditional() -> Iterator[Component]:
    """The stencil for every lam2."""
    yield ArchitectureSpec(
        "grokkit_wave/conditional-stencil",
        version=1,
        target="grokkit_wave.stencil:ConditionalStencilArchitecture",
        config=[BOUNDARY],
        summary="12 numbers, the stencil K0 + lam2 K1: linear, without bias, for every grid and every lam2",
    )
    yield RecipeSpec(
        "wave/conditional",
        task="wave",
        architecture="grokkit_wave/conditional-stencil",
        target="grokkit_wave.least_squares:Conditional",
        parameters=[
            Field("lam2s", "floats", (0.05, 0.6), low=0.0, high=1.0, help="two values of lam2 to fit at"),
            Field("fields", "int", 64, low=1, high=10**6, help="random fields at each"),
            GRID_OF_FIELDS,
            Field("snap", "bool", True, help="whole numbers where all lie within their own error of one"),
        ],
        summary="least squares at two values of lam2, solved for K0 and K1",
        dtypes=("float64",),
    )


def _fixed() -> Iterator[Component]:
    """The stencil of one lam2, and three ways to fit it."""
    yield ArchitectureSpec(
        "grokkit_wave/stencil",
        version=1,
        target="grokkit_wave.stencil:StencilArchitecture",
        config=[BOUNDARY, LAM2, GRID],
        summary="6 numbers, the stencil of one lam2: a convolution without bias or activation",
    )
    for name, target, dtypes, extra, summary in (
        ("least-squares", "least_squares:LeastSquares", ("float64",), [], "6 coefficients by least squares"),
        (
            "lbfgs",
            "recipes:QuasiNewton",
            DOUBLE_FIRST,
            [_steps(1_000, "iterations at most")],
            "6 coefficients by L-BFGS",
        ),
        (
            "adam",
            "recipes:FullBatchAdam",
            DOUBLE_FIRST,
            [_steps(2_000, "full-batch steps"), _rate(3e-2)],
            "6 coefficients by Adam",
        ),
    ):
        yield RecipeSpec(
            f"wave/{name}",
            task="wave",
            architecture="grokkit_wave/stencil",
            target=f"grokkit_wave.{target}",
            parameters=[
                Field("fields", "int", 256, low=1, high=10**6, help="random training fields"),
                GRID_OF_FIELDS,
                SNAP,
                *extra,
            ],
            summary=summary,
            dtypes=dtypes,
            law={"lam2": REFERENCE},
        )


def _steps(default: int, what: str) -> Field:
    return Field("steps", "int", default, low=1, high=10**7, help=what)


def _rate(default: float) -> Field:
    return Field("lr", "float", default, low=0.0, high=10.0, help="largest learning rate")


def _nonlinear() -> Iterator[Component]:
    """The published network: right shape, wrong class of functions."""
    yield ArchitectureSpec(
        "grokkit_wave/sine-conv",
        version=1,
        target="grokkit_wave.sine_conv:SineConvArchitecture",
        config=[
            BOUNDARY,
            LAM2,
            Field("channels", "int", 64, low=1, high=65_536, help="channels of both hidden layers"),
            Field(
                "amplitude",
                "float",
                0.3,
                low=0.0,
                high=1e6,
                help="of the training fields, nowhere else is it certified",
            ),
            Field("ends", "bool", False, help="its grid holds the two end points, as the published one"),
        ],
        summary="two convolutions with sines and a readout, as published: 12,865 numbers at 64 channels",
    )
    yield RecipeSpec(
        "wave/sine",
        task="wave",
        architecture="grokkit_wave/sine-conv",
        target="grokkit_wave.recipes:Sine",
        parameters=[
            Field("channels", "int", 64, low=1, high=4_096, help="channels of both hidden layers"),
            Field("amplitude", "float", 0.3, low=1e-6, high=1e6, help="standard deviation of the random fields"),
            GRID_OF_FIELDS,
            Field("batch", "int", 64, low=1, high=10**6, help="fresh fields a step"),
            _steps(10_000, "fixed number"),
            _rate(3e-3),
        ],
        summary="nonlinear comparison: the published network on fresh random fields",
        law={"lam2": REFERENCE},
    )
    yield RecipeSpec(
        "wave/published",
        task="wave",
        architecture="grokkit_wave/sine-conv",
        target="grokkit_wave.published:Published",
        parameters=[
            Field("points", "int", 32, low=3, high=10**6, help="grid points, the two ends among them"),
            Field("rows", "int", 2_000, low=1, high=10**7, help="steps of the one training trajectory"),
            _steps(50_000, "at most, each on all rows"),
            Field("check", "int", 2_000, low=1, high=10**7, help="steps between evaluations"),
            _rate(3e-3),
            Field("threshold", "float", 1e-6, low=0.0, help="stop when the training MSE is below"),
        ],
        summary="replica of the published training: one trajectory, with its defects, which the certificate shows",
        dtypes=("float32",),
        law={"lam2": REFERENCE},
    )


def _operators() -> Iterator[Component]:
    """What keeps the function, and what makes a stencil of one lam2 from that of all."""
    yield TransferSpec(
        "grokkit_wave/reuse-stencil",
        target="grokkit_wave.transfer:ReuseStencil",
        guarantee="bit-exact",
        summary="the same stencil on another grid, at equal lam2 and boundary",
    )
    yield TransferSpec(
        "grokkit_wave/fix-lambda",
        target="grokkit_wave.transfer:FixLambda",
        guarantee="to rounding",
        summary="the stencil of one lam2 from a conditional one",
    )
    yield TransferSpec(
        "grokkit_wave/pad-channels",
        target="grokkit_wave.transfer:PadChannels",
        guarantee="to rounding",
        summary="more channels of a sine convolution, all of them dead",
    )
