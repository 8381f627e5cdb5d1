"""The verb `run`: inputs from tensors and files, rollouts with the drift of invariants, outputs handed on or written."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

import grokkit_core as gk
from grokkit_core.architecture import Architecture
from grokkit_core.cassette import Cassette
from grokkit_core.errors import Incompatible, NotFound, UsageError
from grokkit_core.files import SUFFIXES
from grokkit_core.plugins import PluginHost, host
from grokkit_core.prediction import Drift, nested, run
from grokkit_core.specs import ArchitectureSpec, TaskSpec
from grokkit_core.task import Batch, Inputs, Task
from grokkit_core.tensors import Signature

Crafted = Callable[..., Cassette]


class Grow(nn.Module):
    """The last state times a number."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor([1.0]))

    def forward(self, states: Tensor) -> Tensor:
        result: Tensor = states[:, -1] * self.factor
        return result


class Exact(Grow):
    """The law itself."""

    def forward(self, states: Tensor) -> Tensor:
        from grokkit_cyclotron.law import window_map

        return window_map(states * self.factor)


class GrowRule(Architecture):
    network: type[nn.Module] = Grow

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        return self.network()

    def signature(self, config: Mapping[str, Any]) -> Signature:
        return self.plugins.task("cyclotron").spec.signature


class ExactRule(GrowRule):
    network = Exact


@pytest.fixture
def plugins(extended: Callable[..., PluginHost]) -> PluginHost:
    specs = [
        ArchitectureSpec("probe/grow", version=1, target="grokkit_probe:GrowRule"),
        ArchitectureSpec("probe/exact", version=1, target="grokkit_probe:ExactRule"),
    ]
    return extended(*specs, GrowRule=GrowRule, ExactRule=ExactRule)


@pytest.fixture
def diverging(plugins: PluginHost, crafted: Crafted) -> Cassette:
    """A cassette whose rollout overflows float32 in the third step."""
    return crafted(plugins, "probe/grow", tensors={"factor": torch.tensor([1e15])})


@pytest.fixture
def source(tmp_path: Path, states: Tensor) -> Callable[[str], Path]:
    """Writes the windows to a file of that kind."""

    def write(suffix: str) -> Path:
        path = tmp_path / f"states{suffix}"
        if suffix == ".npy":
            np.save(path, states.numpy())
        elif suffix == ".npz":
            np.savez(path, states=states.numpy())
        elif suffix == ".csv":
            np.savetxt(path, states.flatten(1).numpy(), delimiter=",", fmt="%.17g")
        elif suffix == ".json":
            path.write_text(json.dumps(states.tolist()))
        else:
            safetensors.torch.save_file({"states": states}, path)
        return path

    return write


def archive(tmp_path: Path, **arrays: Any) -> Path:
    path = tmp_path / "arrays.npz"
    np.savez(path, **arrays)
    return path


def written(path: Path) -> np.ndarray[Any, Any]:
    """What an output file holds, one row a sample and step."""
    readers: dict[str, Callable[[], Any]] = {
        ".npy": lambda: np.load(path),
        ".npz": lambda: np.load(path)["outputs"],
        ".csv": lambda: np.loadtxt(path, delimiter=","),
        ".json": lambda: json.loads(path.read_text()),
        ".safetensors": lambda: safetensors.torch.load_file(path)["outputs"].numpy(),
    }
    return np.asarray(readers[path.suffix](), dtype="f4").reshape(-1, 4)


# -- one step ------------------------------------------------------------------------------------------------------


def test_a_tensor_gives_what_a_call_gives(one: Cassette, states: Tensor) -> None:
    found = run(one, states)
    assert found.outputs is not None
    assert torch.equal(found.outputs, one(states))
    assert (found.shape, found.dtype, found.drift, found.path) == ((7, 4), "float32", None, None)


def test_a_reference_gives_what_its_cassette_gives(tiny: Path, one: Cassette, states: Tensor) -> None:
    by_name, by_cassette = run("one", states, library=tiny).outputs, run(one, states).outputs
    assert by_name is not None
    assert by_cassette is not None
    assert torch.equal(by_name, by_cassette)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_input_format_gives_the_same_outputs(
    one: Cassette, states: Tensor, source: Callable[[str], Path], suffix: str
) -> None:
    found = run(one, source(suffix)).outputs
    assert found is not None
    assert torch.equal(found, one(states))


@pytest.mark.parametrize("suffix", [".csv", ".json"])
def test_a_wanted_dtype_is_read_from_text(one: Cassette, source: Callable[[str], Path], suffix: str) -> None:
    assert run(one, source(suffix), dtype="float64").dtype == "float64"


@pytest.mark.parametrize("omega", [np.float64(1.5), np.full(7, 1.5)])
def test_a_file_may_bring_its_context(one: Cassette, states: Tensor, tmp_path: Path, omega: Any) -> None:
    found = run(one, archive(tmp_path, states=states.numpy(), omega=omega))
    assert found.shape == (7, 4)


def test_context_of_a_file_is_checked_and_given_context_wins(one: Cassette, states: Tensor, tmp_path: Path) -> None:
    path = archive(tmp_path, states=states.numpy(), omega=np.full(7, 9.0))
    with pytest.raises(Incompatible, match="'omega' holds 9"):
        run(one, path)
    assert run(one, path, context={"omega": 1.0}).shape == (7, 4)


@pytest.mark.parametrize("steps", [None, 2])
@pytest.mark.parametrize("names", [(), ("windows",), ("states", "windows"), ("omega",)])
def test_a_file_with_other_names_than_the_signature_is_refused(
    one: Cassette, states: Tensor, tmp_path: Path, names: tuple[str, ...], steps: int | None
) -> None:
    path = archive(tmp_path, **dict.fromkeys(names, states.numpy()))
    with pytest.raises(Incompatible):
        run(one, path, steps=steps)


@pytest.mark.parametrize(
    ("name", "text"),
    [("nan.csv", ",".join(["nan"] * 60)), ("short.csv", "1,2,3"), ("flat.json", "[1, 2]"), ("empty.json", "[]")],
)
def test_a_file_that_does_not_fit_the_signature_is_incompatible(
    one: Cassette, tmp_path: Path, name: str, text: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(Incompatible):
        run(one, tmp_path / name)


def test_force_admits_what_lies_outside_the_domain(one: Cassette, states: Tensor) -> None:
    with pytest.raises(Incompatible, match="omega"):
        run(one, states, context={"omega": 9.0})
    assert run(one, states, context={"omega": 9.0}, force=True).shape == (7, 4)


@pytest.mark.parametrize("steps", [None, 2])
def test_a_key_is_refused_by_a_cassette_of_one_task(one: Cassette, states: Tensor, steps: int | None) -> None:
    with pytest.raises(Incompatible, match="has no member 'left'"):
        run(one, states, key="left", steps=steps)


@pytest.mark.parametrize("steps", [0, -1])
def test_less_than_one_step_is_a_usage_error(one: Cassette, states: Tensor, steps: int) -> None:
    with pytest.raises(UsageError, match="expected at least 1"):
        run(one, states, steps=steps)


def test_an_unknown_cassette_is_not_found(tiny: Path, states: Tensor) -> None:
    with pytest.raises(NotFound, match="no cassette is named 'nobody'"):
        run("nobody", states, library=tiny)


# -- rollouts ------------------------------------------------------------------------------------------------------


def test_a_rollout_stacks_its_steps(one: Cassette, states: Tensor) -> None:
    found = run(one, states, steps=3)
    assert found.outputs is not None
    assert found.shape == tuple(found.outputs.shape) == (3, 7, 4)
    assert torch.equal(found.outputs, torch.stack(list(one.rollout(states, 3))))


def test_a_rollout_of_one_step_keeps_its_step_axis(one: Cassette, states: Tensor) -> None:
    assert run(one, states, steps=1).shape == (1, 7, 4)


@pytest.mark.parametrize(("steps", "count"), [(None, 1), (3, 3)])
def test_outputs_are_handed_on_and_not_kept(one: Cassette, states: Tensor, steps: int | None, count: int) -> None:
    taken: list[Tensor] = []
    found = run(one, states, steps=steps, on_outputs=taken.append)
    assert found.outputs is None
    assert [tuple(item.shape) for item in taken] == [(7, 4)] * count
    assert found.shape == ((7, 4) if steps is None else (3, 7, 4))


def test_the_exact_map_keeps_its_invariant(plugins: PluginHost, crafted: Crafted, states: Tensor) -> None:
    found = run(crafted(plugins, "probe/exact"), states.double(), steps=200)
    assert found.drift is not None
    assert 0 <= found.drift["speed"] < 1e-12


def test_a_replica_does_not_keep_it(one: Cassette, states: Tensor) -> None:
    found = run(one, states.double(), steps=5)
    assert found.drift is not None
    assert found.drift["speed"] > 0.01


def test_drift_is_the_largest_move_over_the_mean_size(one: Cassette, states: Tensor) -> None:
    found = run(one, states, steps=4)
    assert found.outputs is not None
    assert found.drift is not None
    outputs = found.outputs.double().numpy()
    speed = np.hypot(outputs[:, :, 2], outputs[:, :, 3])
    last = states.double().numpy()[:, -1]
    start = np.hypot(last[:, 2], last[:, 3])
    assert found.drift == {"speed": pytest.approx(np.abs(speed - start).max() / start.mean(), rel=1e-9)}


def test_drift_is_counted_from_the_inputs_of_the_first_step(one: Cassette, states: Tensor) -> None:
    drift = run(one, states, steps=1).drift
    assert drift is not None
    assert drift["speed"] > 0.001


def test_outputs_that_are_no_numbers_are_not_called_free_of_drift() -> None:
    drift = Drift(host().task("cyclotron"), torch.ones(2, 15, 4))
    drift.observe(torch.ones(2, 4))
    drift.observe(torch.full((2, 4), torch.nan))
    assert not drift.worst["speed"] < 1


def test_a_task_that_is_no_flow_map_cannot_be_rolled_out(states: Tensor) -> None:
    class Still(Task):
        def sample(self, n: int, *, generator: torch.Generator, **where: Any) -> Batch:
            raise NotImplementedError

        def oracle(self, inputs: Inputs, context: Mapping[str, Tensor]) -> Tensor:
            raise NotImplementedError

    task = Still(TaskSpec("still", Signature([], []), target="a:b"))
    with pytest.raises(Incompatible, match="task still is not a flow map"):
        task.advance(states, states)
    assert task.invariants(states) == {}


# -- output files --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("steps", [None, 3])
def test_an_output_file_holds_the_outputs(
    one: Cassette, states: Tensor, tmp_path: Path, suffix: str, steps: int | None
) -> None:
    path = tmp_path / f"out{suffix}"
    found, kept = run(one, states, steps=steps, output=path), run(one, states, steps=steps)
    assert kept.outputs is not None
    assert (found.outputs, found.path, found.shape) == (None, str(path), kept.shape)
    assert found.drift == kept.drift
    np.testing.assert_array_equal(written(path), kept.outputs.reshape(-1, 4).numpy())


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("before", [None, "precious"])
def test_a_rollout_that_fails_midway_leaves_no_file_and_no_traces(
    diverging: Cassette, states: Tensor, tmp_path: Path, suffix: str, before: str | None
) -> None:
    path = tmp_path / "folder" / f"out{suffix}"
    path.parent.mkdir()
    if before:
        path.write_text(before)
    with pytest.raises(Incompatible, match="NaN or infinity"):
        run(diverging, states, steps=5, output=path)
    assert [item.read_text() for item in path.parent.iterdir()] == ([before] if before else [])


def test_the_same_rollout_of_fewer_steps_is_written(diverging: Cassette, states: Tensor, tmp_path: Path) -> None:
    run(diverging, states, steps=2, output=tmp_path / "out.npy")
    assert np.load(tmp_path / "out.npy").shape == (2, 7, 4)


@pytest.mark.parametrize("name", ["out", "out.txt"])
def test_an_output_of_an_unknown_ending_is_refused(one: Cassette, states: Tensor, tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="output file"):
        run(one, states, output=tmp_path / name)


def test_an_input_that_does_not_fit_leaves_no_output(one: Cassette, states: Tensor, tmp_path: Path) -> None:
    with pytest.raises(Incompatible):
        run(one, states[:, 1:], output=tmp_path / "out.npy")
    assert list(tmp_path.glob("*out*")) == []


def test_an_output_can_be_read_as_an_input_again(
    plugins: PluginHost, crafted: Crafted, states: Tensor, tmp_path: Path
) -> None:
    for suffix in SUFFIXES:
        path = tmp_path / f"again{suffix}"
        run(crafted(plugins, "probe/grow"), states, output=path)
        assert written(path).shape == (7, 4)


# -- JSON ----------------------------------------------------------------------------------------------------------


def test_json_holds_the_outputs(one: Cassette, states: Tensor) -> None:
    found = run(one, states).to_json()
    assert found["outputs"] == one(states).tolist()
    assert (found["shape"], found["dtype"], found["drift"], found["routed"]) == ([7, 4], "float32", None, None)
    assert found["seconds"] >= 0
    json.dumps(found, allow_nan=False)


def test_json_names_the_file_that_holds_the_outputs(one: Cassette, states: Tensor, tmp_path: Path) -> None:
    path = tmp_path / "out.npy"
    found = run(one, states, steps=2, output=path).to_json()
    assert found["outputs"] == str(path)
    assert set(found["drift"]) == {"speed"}


@pytest.mark.parametrize("conjugated", [False, True])
def test_complex_numbers_are_nested_as_pairs(conjugated: bool) -> None:
    z = torch.tensor([1 + 2j, 3 - 4j])
    sign = -1 if conjugated else 1
    assert nested(z.conj() if conjugated else z) == [[1.0, sign * 2.0], [3.0, sign * -4.0]]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_outputs_that_are_not_finite_are_json_all_the_same(diverging: Cassette, states: Tensor, value: float) -> None:
    found = run(diverging, torch.full_like(states, value), force=True)
    json.dumps(found.to_json(), allow_nan=False)


def test_the_public_verb_is_this_one() -> None:
    assert gk.run is run
