"""The block-diagonal form of a superposition: one pass over all members, exact to rounding, isolated from finite numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import composites
import pytest
import torch
from composites import BATCHES, assemble, table
from torch import Tensor, nn

from grokkit_core.architecture import Architecture, Layer
from grokkit_core.cassette import Cassette, draft
from grokkit_core.errors import Incompatible
from grokkit_core.fusion.dense import ACTIVATIONS, BlockDiagonal
from grokkit_core.plugins import PluginHost
from grokkit_core.specs import ArchitectureSpec, Field, TaskSpec
from grokkit_core.streams import stream
from grokkit_core.task import Batch, Task
from grokkit_core.tensors import Signature, TensorSpec

DTYPES = ("float32", "float64")
BOUNDS = {"float32": 1e-6, "float64": 1e-12}
SIZES = {"relu": (9, 32, 32, 3), "tanh": (4, 24, 4), "sin": (5, 40, 40, 40, 2)}
"""Members by activation: networks of two, one and three hidden layers."""


class Zeros(Task):
    """Rows of numbers, to each of which the answer is zero."""

    def sample(self, n: int, *, generator: torch.Generator, **where: Any) -> Batch:
        x = torch.randn(n, self.parameters["width"], generator=generator, dtype=torch.float64)
        return Batch(x, torch.zeros(n, 1, dtype=torch.float64))

    def oracle(self, inputs: object, context: object) -> Tensor:
        assert isinstance(inputs, Tensor)
        return torch.zeros(len(inputs), 1, dtype=torch.float64)


class Affine(nn.Module):
    """Affine layers with one activation between them."""

    def __init__(self, sizes: Sequence[int], act: str) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(a, b) for a, b in zip(sizes, sizes[1:], strict=False)])
        self.act = ACTIVATIONS[act]

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = self.act(layer(x))
        return self.layers[-1](x)  # type: ignore[no-any-return]


class AffineArchitecture(Architecture):
    """Such networks, which say what their layers are."""

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        return Affine(config["sizes"], config["act"])

    def signature(self, config: Mapping[str, Any]) -> Signature:
        first, last = config["sizes"][0], config["sizes"][-1]
        return Signature([TensorSpec("x", ("batch", first), DTYPES)], [TensorSpec("y", ("batch", last), DTYPES)])

    def layers(self, config: Mapping[str, Any]) -> Sequence[Layer]:
        last = len(config["sizes"]) - 2
        acts = [config["act"] if k < last else "identity" for k in range(last + 1)]
        return [Layer(f"layers.{k}.weight", f"layers.{k}.bias", act) for k, act in enumerate(acts)]


@pytest.fixture
def chains(extended: Callable[..., PluginHost], shipped: Mapping[str, Cassette]) -> Iterator[Callable[..., Cassette]]:
    """Makes a cassette of a plain network: `chains("tanh", torch.float64)`."""
    rows = Signature([TensorSpec("x", ("batch", "n"), DTYPES)], [TensorSpec("y", ("batch", "m"), DTYPES)])
    plugins = extended(
        TaskSpec("zeros", rows, target="grokkit_probe:Zeros", parameters=[Field("width", "int", low=1, high=99)]),
        ArchitectureSpec(
            "grokkit_probe/affine", 1, "grokkit_probe:AffineArchitecture", [Field("sizes", "ints"), Field("act", "str")]
        ),
        Zeros=Zeros,
        AffineArchitecture=AffineArchitecture,
    )

    def make(act: str, dtype: torch.dtype) -> Cassette:
        config = {"sizes": SIZES[act], "act": act}
        generator = stream(0, "chains", act)
        shapes = Affine(**config).state_dict()
        state = {
            name: torch.randn(like.shape, generator=generator, dtype=torch.float64)
            .div((2 * like.shape[-1]) ** 0.5)
            .to(dtype)
            for name, like in shapes.items()
        }
        rule = plugins.architecture("grokkit_probe/affine")
        return draft(
            act,
            task=plugins.task("zeros", width=SIZES[act][0]),
            architecture=rule.spec,
            config=config,
            signature=rule.signature(config),
            tensors=state,
            provenance=next(iter(shipped.values())).manifest.provenance,
            summary="made by a test",
            plugins=plugins,
        )

    return make


def together(chains: Callable[..., Cassette], dtype: torch.dtype) -> tuple[Cassette, BlockDiagonal]:
    made = assemble("superposition", [chains(act, dtype) for act in SIZES])
    return made, made.dense()


def inputs_of(size: int, dtype: torch.dtype) -> dict[str, Tensor]:
    return {
        act: torch.randn(size, sizes[0], generator=stream(size, act), dtype=torch.float64).to(dtype)
        for act, sizes in SIZES.items()
    }


def apart(dense: BlockDiagonal, made: Cassette, given: Mapping[str, Tensor]) -> float:
    """The largest difference of any member in one pass from itself alone."""
    found = dense(given)
    return max((found[key] - made.predict(given[key], key=key)).abs().max().item() for key in given)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_one_pass_gives_what_the_members_give_up_to_rounding(
    dtype: torch.dtype, chains: Callable[..., Cassette]
) -> None:
    made, dense = together(chains, dtype)
    bound = BOUNDS[str(dtype).removeprefix("torch.")]
    assert dense.members == tuple(SIZES)
    for size in BATCHES:
        assert apart(dense, made, inputs_of(size, dtype)) <= bound, size


@pytest.mark.acceptance
def test_the_dense_form_over_all_batch_sizes(chains: Callable[..., Cassette], figure: Callable[..., None]) -> None:
    for name, bound in BOUNDS.items():
        dtype: torch.dtype = getattr(torch, name)
        made, dense = together(chains, dtype)
        worst = max(apart(dense, made, inputs_of(size, dtype)) for size in BATCHES)
        figure(f"largest difference of the dense form, {name}", f"{worst:.2g}", f"<= {bound:g}")
        assert worst <= bound
        packed = sum(tensor.numel() for tensor in made.tensors.values())
        figure(f"numbers of the dense form against packed, {name}", f"{dense.parameters_stored} / {packed}", "> 1")
        assert dense.parameters_stored > packed


@pytest.mark.parametrize("act", SIZES)
def test_finite_numbers_elsewhere_change_nothing(act: str, chains: Callable[..., Cassette]) -> None:
    _, dense = together(chains, torch.float32)
    given = inputs_of(16, torch.float32)
    before = dense(given)[act]
    _spoil_others(dense, act, lambda like: torch.rand(like.shape, generator=stream(9, "noise")) * 20 - 10)
    loud = {key: tensor if key == act else torch.full_like(tensor, 1e30) for key, tensor in given.items()}
    assert torch.equal(dense(given)[act], before)
    assert torch.equal(together(chains, torch.float32)[1](loud)[act], before)


@pytest.mark.parametrize("act", SIZES)
def test_nan_elsewhere_does_not_stay_there_as_documented(act: str, chains: Callable[..., Cassette]) -> None:
    made, dense = together(chains, torch.float32)
    given = inputs_of(4, torch.float32)
    infinite = {key: tensor if key == act else torch.full_like(tensor, torch.inf) for key, tensor in given.items()}
    assert dense(infinite)[act].isnan().all()
    _spoil_others(dense, act, lambda like: torch.full_like(like, torch.nan))
    assert dense(given)[act].isnan().all()
    assert not made.predict(given[act], key=act).isnan().any()


def _spoil_others(dense: BlockDiagonal, act: str, fill: Callable[[Tensor], Tensor]) -> None:
    """Overwrite the blocks of all other members, in place."""
    for layer in range(len(dense.rows)):
        weight, bias = dense.get_buffer(f"weight{layer}"), dense.get_buffer(f"bias{layer}")
        row = column = 0
        for key, rows in zip(dense.members, dense.rows[layer], strict=True):
            columns = len(dense.live[key]) if layer == 0 else dense.rows[layer - 1][dense.members.index(key)]
            if key != act:
                block = weight[row : row + rows, column : column + columns]
                block.copy_(fill(block))
                bias[row : row + rows].copy_(fill(bias[row : row + rows]))
            row, column = row + rows, column + columns


def test_another_activation_in_the_table_is_another_function(chains: Callable[..., Cassette]) -> None:
    made, _ = together(chains, torch.float32)
    changed = table(made)
    for row in changed:
        if row["member"] == "tanh" and row["act"] == "tanh":
            row["act"] = "relu"
    forged = composites.with_config(made, table=changed)
    with pytest.raises(Incompatible, match="tanh"):
        forged.dense("tanh")


@pytest.mark.parametrize("key", ["parity-3of64", "pendulum-mlp", "wave", "matmul-2x2", "hpu-free"])
def test_a_member_with_code_around_its_layers_has_no_dense_form(key: str, atlas: Cassette) -> None:
    with pytest.raises(Incompatible, match=key):
        atlas.dense(key)


def test_a_pass_over_members_needs_an_input_of_each_of_one_size(chains: Callable[..., Cassette]) -> None:
    _, dense = together(chains, torch.float32)
    given = inputs_of(4, torch.float32)
    with pytest.raises(Incompatible, match="sin"):
        dense({key: tensor for key, tensor in given.items() if key != "sin"})
    with pytest.raises(Incompatible, match=r"\[3, 4\]"):
        dense({**given, "tanh": given["tanh"][:3]})


def test_a_pass_neither_cuts_nor_casts_an_input(chains: Callable[..., Cassette]) -> None:
    _, dense = together(chains, torch.float32)
    given = inputs_of(4, torch.float32)
    for wrong in (torch.ones(4, 7), torch.ones(4, 3), torch.ones(4, 4, 1), given["tanh"].double()):
        with pytest.raises(Incompatible, match=r"'tanh'.*\[batch, 4\]"):
            dense({**given, "tanh": wrong})


def test_members_of_two_precisions_are_not_mixed(chains: Callable[..., Cassette]) -> None:
    made = assemble("superposition", [chains("relu", torch.float32), chains("tanh", torch.float64)])
    with pytest.raises(Incompatible, match="dtypes"):
        made.dense()
    assert made.dense("tanh").members == ("tanh",)
