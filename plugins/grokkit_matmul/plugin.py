"""What the matmul plugin brings. No torch here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from grokkit_core.hookspecs import hookimpl
from grokkit_core.specs import ArchitectureSpec, Component, Field, RecipeSpec, TaskSpec, TransferSpec
from grokkit_core.tensors import Signature, TensorSpec

DTYPES = ("float32", "float64", "int64")
LARGEST = 16
SIGNATURE = Signature(
    [
        TensorSpec("a", axes=("...", "m", "k"), dtypes=DTYPES, domain="any"),
        TensorSpec("b", axes=("...", "k", "n"), dtypes=DTYPES, domain="any"),
    ],
    [TensorSpec("c", axes=("...", "m", "n"), dtypes=DTYPES, domain="any")],
)


@hookimpl
def grokkit_components() -> Iterator[Component]:
    """The task, two architectures, four recipes and an operator."""
    yield _task()
    yield from _architectures()
    yield from _recipes()
    yield TransferSpec(
        "grokkit_matmul/kronecker",
        target="grokkit_matmul.transfer:Kronecker",
        guarantee="the same product on larger blocks; exact where both schemes are",
        parameters=[Field("by", "cassette", "", help="the second scheme; default: the source itself")],
        summary="the Kronecker product of two schemes: <4,4,4:49> from two of <2,2,2:7>",
    )


def _sizes() -> Iterator[Field]:
    for name, what in (("m", "rows of a"), ("k", "columns of a, rows of b"), ("n", "columns of b")):
        yield Field(name, "int", 2, low=1, high=LARGEST, help=what)


def _task() -> TaskSpec:
    return TaskSpec(
        "matmul",
        SIGNATURE,
        target="grokkit_matmul.law:MatrixProduct",
        metric="mse",
        floor=1e-9,
        summary="the product of two matrices",
        parameters=tuple(_sizes()),
        recipe="matmul/als",
        speed_baseline="plain-product",
    )


def _architectures() -> Iterator[Component]:
    yield ArchitectureSpec(
        "grokkit_matmul/bilinear",
        version=1,
        target="grokkit_matmul.model:Bilinear",
        config=[
            *_sizes(),
            Field("rank", "int", 7, low=1, high=LARGEST**3, help="multiplications"),
            Field(
                "raw", "bool", False, help="whether the factors before rounding are kept, with what was done to them"
            ),
        ],
        summary="a bilinear scheme in integers, applied to blocks of matrices of any size",
    )
    yield ArchitectureSpec(
        "grokkit_matmul/mlp",
        version=1,
        target="grokkit_matmul.mlp:ProductMlp",
        config=[
            *_sizes(),
            Field("hidden", "int", 256, low=1, high=2**14, help="units of both hidden layers"),
        ],
        summary="the published ReLU network of flattened matrices, for comparison only",
    )


def _rank() -> Field:
    return Field(
        "rank", "int", 0, low=0, high=LARGEST**3, help="multiplications; 0: the best known where it is in reach"
    )


def _restarts(default: int) -> Field:
    return Field("restarts", "int", default, low=1, high=10_000, help="fresh starts before giving up")


def _recipes() -> Iterator[Component]:
    bilinear: dict[str, Any] = {"task": "matmul", "architecture": "grokkit_matmul/bilinear"}
    yield RecipeSpec(
        "matmul/als",
        **bilinear,
        target="grokkit_matmul.recipes:AlternatingLeastSquares",
        parameters=[
            _rank(),
            Field("attraction", "bool", False, help="pull the factors to integers, as every format but <2,2,2> needs"),
            _restarts(20),
        ],
        summary="alternating least squares on the tensor, gauge fixing, rounding, exact check",
        dtypes=("float64",),
    )
    yield RecipeSpec(
        "matmul/adamw",
        **bilinear,
        target="grokkit_matmul.recipes:SampledDescent",
        parameters=[
            Field("slots", "int", 8, low=7, high=8, help="products at the start; 8 are pruned to 7"),
            _restarts(20),
        ],
        summary="AdamW on sampled products, then polished, gauge-fixed, rounded and checked",
        dtypes=("float32",),
    )
    yield RecipeSpec(
        "matmul/flip-graph",
        **bilinear,
        target="grokkit_matmul.recipes:FlipGraphSearch",
        parameters=[
            _rank(),
            Field("ring", "str", "integers", choices=("integers", "gf2"), help="gf2: signs are lifted afterwards"),
            _restarts(50),
        ],
        summary="a random walk on schemes that are always right, from the standard one to fewer products",
        dtypes=("float64",),
    )
    yield RecipeSpec(
        "matmul/mlp",
        task="matmul",
        architecture="grokkit_matmul/mlp",
        target="grokkit_matmul.mlp:PublishedMlp",
        parameters=[
            Field("hidden", "int", 256, low=1, high=2**14, help="units of both hidden layers"),
            Field("epochs", "int", 1000, low=1, high=10**6, help="at most, over 8,000 pairs"),
        ],
        summary="the published network of matrixgrokker, for comparison only; it does not learn the rule",
    )
