"""The verb `export`: a cassette as a folder, as ONNX, or as an exported program of torch; read back and compared.

What is written is loaded again and run on fresh samples of the task beside the cassette itself. Where the two differ by
more than rounding, or the format cannot express the network, nothing is left and the error says why.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import os
import secrets
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from grokkit_core import store
from grokkit_core.cassette import Cassette, from_stored, load
from grokkit_core.dtypes import cast
from grokkit_core.errors import GrokkitError, Incompatible, StoreError, UsageError
from grokkit_core.loading import describe
from grokkit_core.manifest import WEIGHTS, Manifest
from grokkit_core.store import MANIFEST, README
from grokkit_core.streams import stream
from grokkit_core.task import Batch, tensors_of
from grokkit_core.tensors import LEADING
from grokkit_core.text import printable
from grokkit_core.workspace import Where, workspace

KINDS = ("folder", "onnx", "pt2")
ROUNDING = {torch.float32: 1e-5, torch.float64: 1e-10}
"""Largest difference of outputs of order one, by precision: other kernels sum in another order."""

BATCHES = (2, 1, 33)
"""Samples on which the artefact is compared; the network is traced with the first."""

NEEDED = ("onnx", "onnxscript", "onnxruntime")
"""Packages of the extra `grokkit[export]`."""

Run = Callable[[Sequence[Tensor]], Tensor]


@dataclass(frozen=True)
class Exported:
    """An artefact at `path`, and the largest difference of its outputs from the cassette's on `compared` samples.

    `inputs` names what it takes, in order; `notes` say what was fixed.
    """

    manifest: Manifest
    kind: str
    path: str
    max_abs_difference: float
    compared: int
    dtype: str
    inputs: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The object of `grokkit export --json`."""
        return {
            "name": self.manifest.name,
            "version": self.manifest.version,
            "to": self.kind,
            "path": self.path,
            "max_abs_difference": self.max_abs_difference,
            "compared": self.compared,
            "dtype": self.dtype,
            "inputs": list(self.inputs),
            "notes": list(self.notes),
        }


def export(
    ref: str | Cassette,
    to: str,
    path: str | Path,
    *,
    key: str | None = None,
    dtype: str | None = None,
    seed: int = 0,
    library: Where = None,
) -> Exported:
    """Write a cassette to `path`, which must not exist, in the format `to`; raises before anything is left behind.

    `folder` holds the cassette's own files and can be imported. `key` takes one member out of a router or a superposition. `onnx` needs the extra `grokkit[export]` and is checked in
    onnxruntime. `pt2` is a `torch.export` archive; it contains a pickled sample input, so load only files that you made.
    """
    if to not in KINDS:
        raise UsageError(f"format '{printable(to, 40)}'", expected=", ".join(KINDS))
    cassette = ref if isinstance(ref, Cassette) else load(ref, library=workspace(library))
    if key is not None:
        cassette = cassette.route(key=key).cassette
    target = Path(path)
    if target.exists() or target.is_symlink():
        raise UsageError(f"{printable(target, 160)} exists", expected="a path where nothing is yet")
    if cassette.members:
        return _export_composition(cassette, to, target, seed)
    traced = _Traced.of(cassette.to("cpu", dtype or _preferred(cassette)), seed)
    with _staged(target) as staging:
        if to == "folder":
            run = _beside(_write_folder(cassette, staging))
        else:
            run = _write_onnx(traced, staging) if to == "onnx" else _write_pt2(traced, staging)
        apart, compared = traced.compare(run, to)
        os.replace(staging, target)
    return Exported(
        cassette.manifest,
        to,
        str(target),
        apart,
        compared,
        str(traced.cassette.dtype).removeprefix("torch."),
        traced.names,
        traced.notes if to != "folder" else (),
    )


def _export_composition(cassette: Cassette, to: str, target: Path, seed: int) -> Exported:
    """A cassette of several tasks, which is no single graph; each member of the copy is compared."""
    from grokkit_core.fusion.isolation import BATCHES as COMPARED
    from grokkit_core.fusion.isolation import same, sampled

    manifest = cassette.manifest
    if to != "folder":
        raise Incompatible(
            f"{manifest.ref} answers several tasks, and {to} holds one graph",
            expected="one member, chosen with --key",
            hint=f"it has {', '.join(cassette.members)}",
        )
    with _staged(target) as staging:
        copy = _write_folder(cassette, staging)
        for name, member in cassette.members.items():
            for size in COMPARED:
                batch = sampled(member, size, seed)
                given = batch.inputs, batch.context
                expected = member.predict(*given, force=True)
                if not same(copy.predict(*given, key=name, force=True), expected):
                    raise Incompatible(f"member '{name}' of the copy differs", hint="nothing was written")
        os.replace(staging, target)
    compared = sum(COMPARED) * len(cassette.members)
    return Exported(manifest, to, str(target), 0.0, compared, manifest.certificate.dtype, tuple(cassette.members))


def _preferred(cassette: Cassette) -> str | None:
    """float32 where the cassette takes it, which every runtime does."""
    listed = {name for spec in cassette.signature.inputs for name in spec.dtypes}
    return "float32" if "float32" in listed else None


class _Plain(nn.Module):
    """A network whose context variables are further inputs, "batch" each."""

    def __init__(self, module: nn.Module, variables: Sequence[str], *, reads_context: bool) -> None:
        super().__init__()
        self.module = module
        self.variables, self.reads_context = tuple(variables), reads_context

    def forward(self, *given: Tensor) -> Tensor:
        """The outputs "batch *out"."""
        count = len(given) - len(self.variables)
        if not self.reads_context:
            result: Tensor = self.module(*given)
        else:
            result = self.module(*given[:count], context=dict(zip(self.variables, given[count:], strict=True)))
        return result


@dataclass
class _Traced:
    """A cassette with its network in the form that is traced, and samples of its task."""

    cassette: Cassette
    network: _Plain
    variables: tuple[str, ...]
    seed: int
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, cassette: Cassette, seed: int) -> _Traced:
        """The network as `Architecture.exportable` gives it."""
        architecture = cassette.architecture
        module = architecture.exportable(cassette.module_for(cassette.dtype))
        reads = architecture.reads_context
        drawn = cassette.task.sample(1, generator=stream(seed, "export"), **_place(cassette)).context if reads else {}
        variables = tuple(variable.name for variable in cassette.signature.context if variable.name in drawn)
        return cls(cassette, _Plain(module, variables, reads_context=reads).eval(), variables, seed)

    @property
    def names(self) -> tuple[str, ...]:
        """The inputs in order."""
        return (*(spec.name for spec in self.cassette.signature.inputs), *self.variables)

    def batch(self, size: int) -> Batch:
        """Samples of the task in the dtype of the export."""
        task = self.cassette.task
        drawn = task.sample(size, generator=stream(self.seed, "export", size), **_place(self.cassette))
        batch = drawn.to(self.cassette.dtype)
        specs = {spec.name: spec for spec in self.cassette.signature.inputs}
        found = dict(zip(specs, tensors_of(batch.inputs), strict=True))
        kind = str(self.cassette.dtype).removeprefix("torch.")
        moved = {name: t.to(self.cassette.dtype) if kind in specs[name].dtypes else t for name, t in found.items()}
        return Batch(next(iter(moved.values())) if len(moved) == 1 else moved, batch.targets, batch.context)

    def given(self, batch: Batch) -> tuple[Tensor, ...]:
        """What the traced network is called with."""
        context = [batch.context[name].to(torch.float64) for name in self.variables]
        return (*tensors_of(batch.inputs), *context)

    def program(self) -> torch.export.ExportedProgram:
        """The network as a graph, with every axis free that a signature names; else with the batch alone.

        Raises `Incompatible` where it cannot be traced.
        """
        example = self.given(self.batch(BATCHES[0]))
        with torch.no_grad():
            self.network(
                *example
            )  # what a network builds when it is first used must not be built of a tracer's tensors
        problem: Exception | None = None
        for axes in (self._free(only=None), self._free(only="batch")):
            try:
                with torch.no_grad():
                    program = torch.export.export(self.network, example, dynamic_shapes={"given": axes})
            except Exception as error:  # whatever a tracer raises
                problem = problem or error
                continue
            fixed = self._fixed(axes, example)
            self.notes = (f"sizes of {fixed} are fixed, only the batch is free",) if fixed else ()
            return program
        raise Incompatible(
            f"{self.cassette.manifest.ref} cannot be traced: {printable(_first_line(problem), 200)}",
            hint="grokkit export --to folder keeps it as it is",
        ) from problem

    def _free(self, *, only: str | None) -> tuple[dict[int, Any], ...]:
        """By input, the axes that stay free: those with a name (or that name)."""
        found: list[dict[int, Any]] = []
        made: dict[str, Any] = {}
        for spec in self.cassette.signature.inputs:
            axes = [axis for axis in spec.axes if axis != LEADING]
            names = {index: axis for index, axis in enumerate(axes) if isinstance(axis, str)}
            if LEADING in spec.axes:
                names = {index + 1: axis for index, axis in names.items()} | {0: "batch"}
            kept = {index: axis for index, axis in names.items() if only in (None, axis)}
            found.append({i: made.setdefault(axis, torch.export.Dim(axis)) for i, axis in kept.items()})
        found += [{0: made.setdefault("batch", torch.export.Dim("batch"))} for _ in self.variables]
        return tuple(found)

    def _fixed(self, axes: Sequence[Mapping[int, Any]], example: Sequence[Tensor]) -> str:
        """The inputs whose named axes were fixed after all."""
        wanted = self._free(only=None)
        lost = [name for name, own, free in zip(self.names, axes, wanted, strict=True) if set(own) != set(free)]
        return ", ".join(lost)

    def compare(self, run: Run, kind: str) -> tuple[float, int]:
        """The largest difference from the cassette; raises `Incompatible` where it is more than rounding."""
        apart = 0.0
        for size in BATCHES:
            batch = self.batch(size)
            expected = self.cassette.predict(batch.inputs, batch.context, force=True)
            found = run(self.given(batch))
            difference = (cast(found, torch.float64) - cast(expected, torch.float64)).abs().max().item()
            scale = max(1.0, expected.abs().max().item())
            allowed = (
                0.0 if kind == "folder" else ROUNDING[torch.empty(0, dtype=self.cassette.dtype).real.dtype] * scale
            )
            if not difference <= allowed:
                raise Incompatible(
                    f"{self.cassette.manifest.ref} as {kind} differs by {difference:.2g}",
                    expected=f"at most {allowed:.2g}",
                    hint="nothing was written; please report it",
                )
            apart = max(apart, difference)
        return apart, sum(BATCHES)


def _place(cassette: Cassette) -> Mapping[str, Any]:
    return next(iter(cassette.task.evaluation), {})


def _first_line(error: Exception | None) -> str:
    return describe(error).splitlines()[0] if error is not None else ""


# -- formats ---------------------------------------------------------------------------------------------------------


def _write_folder(cassette: Cassette, staging: Path) -> Cassette:
    """The cassette's own two files and a page that says what they are; the cassette as it is read from there."""
    from grokkit_core import packing, saving

    data = packing.pack(cassette.tensors)
    manifest = cassette.manifest
    if manifest.weights.bytes != len(data):  # drafted and never saved
        manifest = saving.with_weights(manifest, data)
    staging.mkdir()
    (staging / MANIFEST).write_bytes(manifest.to_bytes())
    (staging / WEIGHTS).write_bytes(data)
    (staging / README).write_text(_readme(manifest), "utf-8")
    stored = store.read(staging)
    return from_stored(stored.manifest, stored.weights, plugins=cassette.plugins)


def _beside(copy: Cassette) -> Run:
    """The copy called with its inputs in order, then its context variables."""
    names = [spec.name for spec in copy.signature.inputs]
    variables = [v.name for v in copy.signature.context]

    def run(given: Sequence[Tensor]) -> Tensor:
        context = dict(zip(variables, given[len(names) :], strict=False))
        return copy.predict(dict(zip(names, given, strict=False)), context, force=True)

    return run


def _readme(manifest: Manifest) -> str:
    certificate = manifest.certificate
    return (
        f"# {manifest.ref}\n\n{printable(manifest.summary, 300)}\n\nCertificate: {certificate.verdict}. "
        f"{printable(certificate.statement, 1000)}\n\nDigest: `{manifest.digest}`\n\n"
        "A cassette of [grokkit](https://pypi.org/project/grokkit/): `grokkit import` puts it into a library, "
        "`grokkit verify` recomputes the certificate.\n"
    )


def _write_pt2(traced: _Traced, staging: Path) -> Run:
    """An archive of torch; the file just written is the only one that is loaded, since it holds a pickled sample."""
    with _quiet():
        program = traced.program()
        torch.export.save(program, io_target := io.BytesIO())
        staging.write_bytes(io_target.getvalue())
        module = torch.export.load(io.BytesIO(staging.read_bytes())).module()

    def run(given: Sequence[Tensor]) -> Tensor:
        with torch.no_grad():
            result: Tensor = module(*given)
        return result

    return run


def _write_onnx(traced: _Traced, staging: Path) -> Run:
    """An ONNX model, run by onnxruntime on the CPU."""
    for package in NEEDED:
        if importlib.util.find_spec(package) is None:
            raise UsageError(f"--to onnx without {package}", expected="pip install 'grokkit[export]'")
    specs = (*traced.cassette.signature.inputs, *traced.cassette.signature.outputs)
    if any(traced.cassette.dtype.is_complex for _ in specs):
        raise Incompatible(
            f"{traced.cassette.manifest.ref} computes with complex numbers, which onnxruntime does not know",
            hint="--to pt2 or --to folder",
        )
    import onnxruntime  # type: ignore[import-untyped,unused-ignore]

    with _quiet():
        program = traced.program()
        try:
            made = torch.onnx.export(program, dynamo=True, verbose=False, input_names=list(traced.names))
            assert made is not None
            staging.write_bytes(made.model_proto.SerializeToString())
            session = onnxruntime.InferenceSession(staging.read_bytes(), providers=["CPUExecutionProvider"])
        except Exception as error:  # whatever a converter or a runtime raises
            raise Incompatible(
                f"{traced.cassette.manifest.ref} cannot be written as ONNX: {printable(_first_line(error), 200)}",
                hint="--to pt2 or --to folder",
            ) from error
    names = [item.name for item in session.get_inputs()]

    def run(given: Sequence[Tensor]) -> Tensor:
        feed = {name: tensor.numpy() for name, tensor in zip(traced.names, given, strict=True) if name in names}
        return torch.from_numpy(session.run(None, feed)[0])

    return run


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings and log lines of tracers, which say nothing about the cassette."""
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        said = io.StringIO()
        with warnings.catch_warnings(), contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


@contextlib.contextmanager
def _staged(target: Path) -> Iterator[Path]:
    """A path beside the target that is gone afterwards unless it was moved there."""
    staging = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        yield staging
    except OSError as error:
        raise StoreError.from_os(error, f"writing {printable(target, 160)}", keeping=False) from None
    except GrokkitError:
        raise
    finally:
        with contextlib.suppress(OSError):
            shutil.rmtree(staging) if staging.is_dir() else staging.unlink(missing_ok=True)
