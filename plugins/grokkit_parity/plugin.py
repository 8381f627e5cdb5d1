"""What the parity plugin brings. No torch here."""

from __future__ import annotations

from collections.abc import Iterator

from grokkit_core.hookspecs import hookimpl
from grokkit_core.specs import ArchitectureSpec, Component, Field, RecipeSpec, TaskSpec
from grokkit_core.tensors import Signature, TensorSpec

LARGEST = 2**31 - 1
BITS = TensorSpec("bits", axes=("batch", "n"), dtypes=("uint8", "float32", "float64"), domain={0.0, 1.0})
LOGITS = TensorSpec("logits", axes=("batch", 2), dtypes=("float32", "float64"))
SIGNATURE = Signature([BITS], [LOGITS])


@hookimpl
def grokkit_components() -> Iterator[Component]:
    """The task, its network and three recipes."""
    yield from _network()
    yield from _recipes()


def _network() -> Iterator[Component]:
    """The law and the network that learns it."""
    yield TaskSpec(
        "parity",
        SIGNATURE,
        target="grokkit_parity.law:Parity",
        metric="accuracy",
        summary="whether an odd number of k chosen bits among n is set",
        parameters=[
            Field("n", "int", 64, low=1, high=LARGEST, help="bits"),
            Field("k", "int", 3, low=1, high=64, help="bits that count"),
            Field("support", "ints", (), low=0, high=LARGEST, help="which ones; empty: drawn from the seed"),
        ],
        recipe="parity/fast",
        speed_baseline="elimination",
    )
    yield ArchitectureSpec(
        "grokkit_parity/mlp",
        version=1,
        target="grokkit_parity.model:ParityMlpArchitecture",
        config=[
            Field("n", "int", 64, low=1, high=LARGEST, help="bits"),
            Field("hidden", "int", 128, low=1, high=LARGEST, help="units of each hidden layer"),
            Field("depth", "int", 2, low=1, high=2, help="hidden layers"),
            Field("readout", "str", "logits", choices=("logits", "sign"), help="two logits, or one signed number"),
            Field("live", "ints", (), low=0, high=LARGEST, help="the bits that are read; empty: all"),
        ],
        summary="ReLU network of bits as +1 and -1; a pruned one reads its live bits only",
    )


def _recipes() -> Iterator[Component]:
    """How it is trained."""
    yield RecipeSpec(
        "parity/fast",
        task="parity",
        architecture="grokkit_parity/mlp",
        target="grokkit_parity.recipes:Fast",
        parameters=[
            Field("hidden", "int", 128, low=1, high=2**20, help="units of each hidden layer"),
            Field("depth", "int", 2, low=1, high=2, help="hidden layers"),
            Field("batch", "int", 1024, low=1, high=10**6, help="fresh rows a step"),
            Field("lr", "float", 3e-3, low=0.0, high=10.0, help="learning rate of AdamW"),
            Field("steps", "int", 600, low=1, high=10**6, help="fixed number; the first 100 % is too early"),
            Field("prune", "bool", True, help="drop the bits that do not count at the end"),
        ],
        summary="fresh rows at every step; learns in about 100 steps and goes on until the margin is wide",
    )
    yield RecipeSpec(
        "parity/grokking",
        task="parity",
        architecture="grokkit_parity/mlp",
        target="grokkit_parity.recipes:Delayed",
        parameters=[
            Field("hidden", "int", 128, low=1, high=2**20, help="hidden units"),
            Field("rows", "int", 1806, low=1, high=10**7, help="training rows, drawn once"),
            Field("batch", "int", 32, low=1, high=10**6, help="rows a step"),
            Field("lr", "float", 0.1, low=0.0, high=10.0, help="learning rate of SGD"),
            Field("steps", "int", 60_000, low=1, high=10**8, help="at most"),
            Field("prune", "bool", True, help="drop the bits that do not count at the end"),
        ],
        summary="a fixed training set, memorised long before the rule is found: generalisation comes late",
    )
    yield RecipeSpec(
        "parity/published",
        task="parity",
        architecture="grokkit_parity/mlp",
        target="grokkit_parity.published:Curriculum",
        parameters=[
            Field("hidden", "int", 1024, low=128, high=2**20, help="hidden units after padding"),
            Field("steps", "int", 2_000, low=1, high=10**6, help="at most, on 10 bits"),
        ],
        summary="the published curriculum of algebra-de-grok: 10 bits learned, the rest padded with zeros",
    )
