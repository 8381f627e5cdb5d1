"""What the HPU plugin brings. No torch here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from grokkit_core.hookspecs import hookimpl
from grokkit_core.specs import ArchitectureSpec, Component, Field, RecipeSpec, TaskSpec, TransferSpec
from grokkit_core.tensors import Signature, TensorSpec

COMPLEX = ("complex128", "complex64")
FIELD = TensorSpec("field", axes=("batch", "grid", "grid"), dtypes=COMPLEX)
SIGNATURE = Signature([FIELD], [FIELD])
REAL_FIELD = TensorSpec("field", axes=("batch", "grid", "grid"), dtypes=("float32", "float64"))
REAL_SIGNATURE = Signature([REAL_FIELD], [REAL_FIELD])

LARGEST_GRID = 16_384
POTENTIAL_GRID = 32
"""Training grid of the potential variant, and the coarsest that its cassettes accept."""
LARGEST_BAND = 1_024
_POTENTIAL = {"variant": "potential"}


@hookimpl
def grokkit_components() -> Iterator[Component]:
    """The task, its architectures, recipes and operators."""
    yield TaskSpec(
        "hpu",
        SIGNATURE,
        target="grokkit_hpu.law:Propagator",
        metric="relative_l2",
        floor=1e-6,
        summary="one step of the Schroedinger equation on a torus",
        parameters=[
            Field(
                "variant", "str", "free", choices=("free", "potential", "published"), help="V = 0; a fixed V; heat flow"
            ),
            Field(
                "dt", "float", 0.0, low=-1.0, high=1.0, help="time step, below 0 backwards; 0: .01, for potential .05"
            ),
        ],
        recipe="hpu/phase-table",
        speed_baseline="identity",
    )
    yield from _propagators()
    yield from _comparisons()
    yield from _lbfgs_recipes()
    yield from _gradient_recipes()
    yield from _operators()


def _common(grid: int, dt: float) -> list[Field]:
    return [
        Field("dt", "float", dt, low=-1.0, high=1.0, help="time step, not 0"),
        Field("grid", "int", grid, low=3, high=LARGEST_GRID, help="grid that it was trained on; any other will do"),
    ]


def _propagators() -> Iterator[Component]:
    yield ArchitectureSpec(
        "grokkit_hpu/phase-table",
        version=1,
        target="grokkit_hpu.model:PhaseTableArchitecture",
        config=[
            *_common(16, 0.01),
            Field("band", "int", 5, low=0, high=LARGEST_BAND, help="largest wavenumber"),
            Field("kept", "int", -1, low=-1, high=LARGEST_BAND, help="modes beyond are dropped; -1: none"),
            Field(
                "outside", "str", "refuse", choices=("refuse", "project"), help="what to do with modes beyond the band"
            ),
        ],
        summary="one learned phase for each Fourier mode: unitary by construction",
    )
    yield ArchitectureSpec(
        "grokkit_hpu/dispersion",
        version=1,
        target="grokkit_hpu.model:DispersionArchitecture",
        config=[*_common(16, 0.01), Field("band", "int", 5, low=0, high=LARGEST_BAND, help="band of the certificate")],
        summary="phases as a polynomial of |k|^2: three numbers for every grid",
    )
    yield ArchitectureSpec(
        "grokkit_hpu/split-step",
        version=1,
        target="grokkit_hpu.model:SplitStepArchitecture",
        config=[
            *_common(POTENTIAL_GRID, 0.05),
            Field("band", "int", 5, low=0, high=LARGEST_BAND, help="band of the certificate"),
            Field("potential_band", "int", 3, low=0, high=64, help="largest wavenumber of the potential"),
            Field("order", "int", 4, low=2, high=4, help="2 (Strang) or 4"),
            Field("substeps", "int", 4, low=1, high=1_024, help="a step"),
            Field("n_min", "int", POTENTIAL_GRID, low=3, high=LARGEST_GRID, help="coarser grids are refused"),
        ],
        summary="learned potential and kinetic slope inside a split-step integrator: unitary for any of them",
    )


def _comparisons() -> Iterator[Component]:
    yield ArchitectureSpec(
        "grokkit_hpu/fno",
        version=1,
        target="grokkit_hpu.fno:FnoArchitecture",
        config=[
            Field("width", "int", 16, low=1, high=1_024, help="channels"),
            Field("modes", "int", 6, low=0, high=256, help="largest wavenumber of the spectral layers"),
            Field("depth", "int", 3, low=1, high=16, help="spectral layers"),
        ],
        summary="a small Fourier neural operator, the comparison that a reader expects",
    )
    yield ArchitectureSpec(
        "grokkit_hpu/published",
        version=1,
        target="grokkit_hpu.published:PublishedArchitecture",
        config=[Field("channels", "int", 32, low=1, high=1_024, help="of the spectral layers")],
        summary="the spectral network of HPU-Core: kernels averaged over one axis, resized bilinearly",
    )


def _lbfgs_recipes() -> Iterator[Component]:
    free: dict[str, Any] = {"task": "hpu", "dtypes": ("float64", "float32"), "law": {"variant": "free"}}

    def settings(fields: int, iterations: int, grid: int) -> list[Field]:
        return [
            Field("fields", "int", fields, low=1, high=10**5, help="training fields"),
            Field("iterations", "int", iterations, low=1, high=10**6, help="of L-BFGS, at most"),
            Field("grid", "int", grid, low=3, high=LARGEST_GRID, help="points along an axis"),
            Field("band", "int", 5, low=0, high=64, help="largest wavenumber of the fields"),
        ]

    yield RecipeSpec(
        "hpu/phase-table",
        architecture="grokkit_hpu/phase-table",
        target="grokkit_hpu.recipes:PhaseTableRecipe",
        parameters=settings(64, 300, 16),
        summary="121 phases fitted to fields of 16 x 16 points",
        **free,
    )
    yield RecipeSpec(
        "hpu/dispersion",
        architecture="grokkit_hpu/dispersion",
        target="grokkit_hpu.recipes:DispersionRecipe",
        parameters=settings(64, 100, 16),
        summary="three coefficients fitted to fields of 16 x 16 points",
        **free,
    )
    yield RecipeSpec(
        "hpu/split-step",
        architecture="grokkit_hpu/split-step",
        target="grokkit_hpu.recipes:SplitStepRecipe",
        parameters=[
            *settings(32, 250, POTENTIAL_GRID),
            Field("order", "int", 4, low=2, high=4, help="of the integrator: 2 or 4"),
            Field("substeps", "int", 4, low=1, high=1_024, help="a step"),
        ],
        summary="potential and kinetic slope fitted through the integrator",
        **{**free, "law": _POTENTIAL},
    )


def _gradient_recipes() -> Iterator[Component]:
    yield RecipeSpec(
        "hpu/adam",
        task="hpu",
        architecture="grokkit_hpu/phase-table",
        target="grokkit_hpu.recipes:AdamRecipe",
        parameters=[
            Field("fields", "int", 64, low=1, high=10**5, help="training fields"),
            Field("steps", "int", 1_500, low=1, high=10**6, help="batches of 16"),
            Field("grid", "int", 16, low=3, high=LARGEST_GRID, help="points along an axis"),
            Field("band", "int", 5, low=0, high=64, help="largest wavenumber of the fields"),
        ],
        summary="the phase table by Adam, rate .03 to 3e-6",
        dtypes=("float64", "float32"),
    )
    yield RecipeSpec(
        "hpu/fno",
        task="hpu",
        architecture="grokkit_hpu/fno",
        target="grokkit_hpu.recipes:FnoRecipe",
        parameters=[
            Field("fields", "int", 512, low=1, high=10**5, help="training fields"),
            Field("steps", "int", 1_500, low=1, high=10**6, help="batches of 16"),
            Field("grid", "int", 16, low=13, high=1_024, help="points along an axis"),
        ],
        summary="the generic comparison; with variant=potential use grid=32",
    )
    yield RecipeSpec(
        "hpu/published",
        task="hpu",
        architecture="grokkit_hpu/published",
        target="grokkit_hpu.published:PublishedRecipe",
        parameters=[
            Field("epochs", "int", 200, low=1, high=10**5, help="of the first stage, which learns"),
            Field(
                "crystallise", "int", 1_500, low=0, high=10**5, help="epochs of the second, which leads towards zero"
            ),
        ],
        summary="HPU-Core on its own law, a renormalised heat step of real noise",
        law={"variant": "published"},
    )


def _operators() -> Iterator[Component]:
    yield TransferSpec(
        "grokkit_hpu/grow-modes",
        target="grokkit_hpu.transfer:GrowModes",
        guarantee="equal on the old band; beyond it the dispersion relation that was learned, refused where it is none",
        summary="more modes from a fit of the phases by a + b |k|^2",
    )
    for name, what in (("pad-modes", "multiplied by zero"), ("pad-modes-identity", "left as they are")):
        yield TransferSpec(
            f"grokkit_hpu/{name}",
            target="grokkit_hpu.transfer:" + ("PadModes" if name == "pad-modes" else "PadModesIdentity"),
            guarantee="none beyond the old band: a negative control",
            summary=f"more modes, {what}: wrong on purpose",
            control=True,
        )
