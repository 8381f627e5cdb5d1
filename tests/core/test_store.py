"""Reading a cassette folder: every flipped bit is noticed, nothing but regular files is opened, every byte is read once."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import toys

from grokkit_core import store
from grokkit_core.errors import (
    BadManifest,
    BadWeights,
    CassetteError,
    GrokkitError,
    HashMismatch,
    NotFound,
    NotRegularFile,
    StoreError,
    TooLarge,
)
from grokkit_core.manifest import MAX_BYTES, WEIGHTS

FILES = (store.MANIFEST, WEIGHTS)
Kind = Callable[[Path], None]


def flips(path: Path, places: Iterator[tuple[int, int]] | None = None) -> Iterator[tuple[int, int]]:
    """Flip one bit of the file at a time, in place; yields byte and bit while it is flipped."""
    original = path.read_bytes()
    every = ((byte, bit) for byte in range(len(original)) for bit in range(8))
    descriptor = os.open(path, os.O_WRONLY)
    try:
        for byte, bit in every if places is None else places:
            os.pwrite(descriptor, bytes([original[byte] ^ 1 << bit]), byte)
            yield byte, bit
            os.pwrite(descriptor, original[byte : byte + 1], byte)
    finally:
        os.close(descriptor)


def count_refused(folder: Path) -> tuple[int, int]:
    """How many single-bit flips of both files are refused as they must be, and how many there are."""
    refused = total = 0
    for name in FILES:
        for _ in flips(folder / name):
            total += 1
            try:
                store.read(folder)
            except GrokkitError as error:
                refused += error.exit_code == 3 and len(str(error).splitlines()) == 1
    return refused, total


def sample(path: Path, count: int, seed: int) -> Iterator[tuple[int, int]]:
    """Random bits of a file."""
    chance, size = random.Random(seed), path.stat().st_size
    return ((chance.randrange(size), chance.randrange(8)) for _ in range(count))


def count_refused_by(cli: Callable[..., Any], verb: str, folder: Path, name: str, count: int) -> int:
    """How many flips of a file a command refuses with exit code 3, one line on stderr and nothing on stdout."""
    refused = 0
    for _ in flips(folder / name, sample(folder / name, count, seed=count)):
        done = cli(verb, folder)
        one_line = len(done.err.splitlines()) == 1 and "Traceback" not in done.err
        refused += done.code == 3 and done.out == "" and one_line
    return refused


# -- flipped bits ----------------------------------------------------------------------------------------------------


def test_every_flipped_bit_is_refused(tmp_path: Path) -> None:
    folder = toys.toy(tmp_path)
    refused, total = count_refused(folder)
    assert total == 8 * sum((folder / name).stat().st_size for name in FILES)
    assert refused == total
    assert store.read(folder).manifest == toys.manifest()


def test_a_reader_that_only_parses_would_miss_many_flipped_bits(tmp_path: Path) -> None:
    path = toys.toy(tmp_path) / store.MANIFEST
    fields, missed = set(json.loads(path.read_bytes())), 0
    for _ in flips(path):
        with contextlib.suppress(ValueError):
            missed += set(json.loads(path.read_bytes())) == fields
    assert missed > 1_000


@pytest.mark.parametrize(("verb", "name"), [("show", store.MANIFEST), ("verify", store.MANIFEST), ("verify", WEIGHTS)])
def test_a_flipped_bit_ends_a_command_with_one_line(
    tmp_path: Path, cli: Callable[..., Any], verb: str, name: str
) -> None:
    assert count_refused_by(cli, verb, toys.toy(tmp_path), name, 40) == 40


def test_a_command_takes_the_cassette_that_nobody_altered(tmp_path: Path, cli: Callable[..., Any]) -> None:
    assert cli("show", toys.toy(tmp_path)).code == 0


def test_verifying_what_nobody_altered_is_no_matter_of_integrity(tmp_path: Path, cli: Callable[..., Any]) -> None:
    assert cli("verify", toys.toy(tmp_path)).code != 3


@pytest.mark.acceptance
def test_every_flipped_bit_is_refused_in_figures(
    tmp_path: Path, cli: Callable[..., Any], figure: Callable[..., None]
) -> None:
    folder = toys.toy(tmp_path)
    refused, total = count_refused(folder)
    figure("single-bit flips of a cassette that are refused", f"{refused:,} of {total:,}", "all")
    assert refused == total
    spoken = count_refused_by(cli, "show", folder, store.MANIFEST, 250)
    spoken += count_refused_by(cli, "verify", folder, WEIGHTS, 250)
    figure("flips that end a command with exit code 3 and one line", f"{spoken} of 500", "all")
    assert spoken == 500


# -- what is read ----------------------------------------------------------------------------------------------------


def test_a_valid_folder_is_read(tmp_path: Path) -> None:
    folder = toys.toy(tmp_path)
    read = store.read(folder)
    assert (read.folder, read.manifest, read.weights) == (folder, toys.manifest(), toys.weights())


def test_the_files_of_a_folder_are_its_exact_bytes(tmp_path: Path) -> None:
    folder = toys.toy(tmp_path)
    assert store.files_of(folder) == {name: (folder / name).read_bytes() for name in FILES}


def test_a_readme_may_lie_beside_them(tmp_path: Path) -> None:
    folder = toys.toy(tmp_path)
    (folder / store.README).write_text("# toy\n")
    assert store.read(folder).manifest.name == "toy"


def test_hard_links_are_read(tmp_path: Path) -> None:
    folder = toys.toy(tmp_path)
    for name in FILES:
        os.link(folder / name, tmp_path / name)
    assert store.read(folder).weights == toys.weights()


def test_the_manifest_is_read_without_the_weights(tmp_path: Path) -> None:
    folder = toys.toy(tmp_path)
    (folder / WEIGHTS).unlink()
    assert store.read_manifest(folder) == toys.manifest()


def test_each_file_is_opened_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = toys.toy(tmp_path)
    opened: list[str] = []
    real = os.open

    def record(path: Any, *arguments: Any, **options: Any) -> int:
        opened.append(os.fspath(path))
        return real(path, *arguments, **options)

    monkeypatch.setattr(os, "open", record)
    store.read(folder)
    assert opened == [str(folder), store.MANIFEST, WEIGHTS]


# -- what is refused -------------------------------------------------------------------------------------------------


def as_link(path: Path) -> None:
    target = path.with_name(f"{path.name}.target").rename(path.parent.parent / f"real-{path.name}")
    path.symlink_to(target)


def as_dangling_link(path: Path) -> None:
    path.symlink_to(path.parent / "nowhere")


def as_folder(path: Path) -> None:
    path.mkdir()


def as_socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path.name)
    finally:
        os.chdir(here)


def as_device(path: Path) -> None:
    try:
        os.mknod(path, 0o600 | 0o020000, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("devices can be made by root alone")


KINDS: dict[str, Kind] = {
    "link": as_link,
    "dangling link": as_dangling_link,
    "FIFO": os.mkfifo,
    "folder": as_folder,
    "socket": as_socket,
    "device": as_device,
}


def replaced(root: Path, name: str, kind: Kind) -> Path:
    """A toy folder in which something else stands for one file."""
    folder = toys.toy(root)
    (folder / name).rename(folder / f"{name}.target")
    kind(folder / name)
    (folder / f"{name}.target").unlink(missing_ok=True)
    return folder


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
@pytest.mark.parametrize("name", FILES)
def test_only_regular_files_are_read_and_nothing_is_waited_for(tmp_path: Path, name: str, kind: Kind) -> None:
    folder = replaced(tmp_path, name, kind)
    start = time.perf_counter()
    with pytest.raises(NotRegularFile) as caught:
        store.read(folder)
    assert caught.value.exit_code == 3
    assert time.perf_counter() - start < 1.0


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
@pytest.mark.parametrize("name", FILES)
def test_a_refused_file_leaves_no_descriptor_open(tmp_path: Path, name: str, kind: Kind) -> None:
    folder = replaced(tmp_path, name, kind)
    before = os.listdir("/proc/self/fd")
    for _ in range(3):
        with pytest.raises((GrokkitError, OSError)):
            store.read(folder)
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_a_link_to_a_version_folder_is_refused(tmp_path: Path) -> None:
    folder = toys.toy(tmp_path)
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(NotRegularFile):
        store.read(tmp_path / "link")


@pytest.mark.parametrize("kind", [os.mkfifo, as_socket, Path.touch], ids=["FIFO", "socket", "file"])
def test_something_else_than_a_folder_is_refused_at_once(tmp_path: Path, kind: Kind) -> None:
    kind(tmp_path / "1")
    start = time.perf_counter()
    with pytest.raises(NotRegularFile):
        store.read(tmp_path / "1")
    assert time.perf_counter() - start < 1.0


def test_a_missing_folder_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        store.read(tmp_path / "1")


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_a_fault_of_the_cassette(tmp_path: Path, name: str) -> None:
    folder = toys.toy(tmp_path)
    (folder / name).unlink()
    with pytest.raises(BadManifest, match=name):
        store.read(folder)


@pytest.mark.parametrize("name", [".git", "weights.bin", "readme.md", "manifest.json~", "\x1b[31m", "\udcff"])
def test_an_unknown_entry_is_refused_in_one_safe_line(tmp_path: Path, name: str) -> None:
    folder = toys.toy(tmp_path)
    (folder / name).mkdir()
    with pytest.raises(BadManifest, match="unknown entry") as caught:
        store.read(folder)
    assert str(caught.value).isprintable()


def test_a_path_with_a_null_byte_is_a_declared_error(tmp_path: Path) -> None:
    with pytest.raises(GrokkitError):
        store.read(tmp_path / "a\0b")


def test_a_manifest_beyond_its_cap_is_not_read(tmp_path: Path) -> None:
    folder = toys.toy(tmp_path)
    os.truncate(folder / store.MANIFEST, MAX_BYTES + 1)
    with pytest.raises(TooLarge):
        store.read(folder)


def test_weights_beyond_the_given_cap_are_not_read(tmp_path: Path) -> None:
    with pytest.raises(TooLarge):
        store.read(toys.toy(tmp_path), cap=100)


def test_weights_larger_than_the_manifest_says_are_not_read(tmp_path: Path) -> None:
    folder = toys.toy(tmp_path)
    os.truncate(folder / WEIGHTS, 1 << 40)
    with pytest.raises(TooLarge):
        store.read(folder)


def test_weights_shorter_than_the_manifest_says_are_refused(tmp_path: Path) -> None:
    folder = toys.toy(tmp_path)
    os.truncate(folder / WEIGHTS, len(toys.weights()) - 1)
    with pytest.raises(HashMismatch):
        store.read(folder)


def test_other_weights_of_the_same_size_are_refused(tmp_path: Path) -> None:
    folder = toys.toy(tmp_path)
    (folder / WEIGHTS).write_bytes(toys.weights(fill=2.0))
    with pytest.raises(HashMismatch):
        store.read(folder)


def test_malformed_weights_are_refused_though_the_manifest_vouches_for_them(tmp_path: Path) -> None:
    data = toys.raw("{}")
    with pytest.raises(BadWeights):
        store.read(toys.put(tmp_path, toys.manifest(data=data), data))


def test_more_parameters_than_there_are_bytes_are_refused(tmp_path: Path) -> None:
    made = toys.manifest()
    claimed = made.to_json()
    claimed["weights"]["parameters"] = 10**6
    folder = toys.put(tmp_path, made, toys.weights())
    (folder / store.MANIFEST).write_bytes(toys.sealed(claimed))
    with pytest.raises(BadWeights):
        store.read(folder)


def test_a_file_that_grows_while_it_is_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = toys.toy(tmp_path)
    real = os.fstat

    def grow(descriptor: int) -> os.stat_result:
        status = real(descriptor)
        with (folder / store.MANIFEST).open("ab") as file:
            file.write(b" ")
        return status

    monkeypatch.setattr(os, "fstat", grow)
    with pytest.raises(CassetteError):
        store.read(folder)


@pytest.mark.parametrize(
    ("call", "name"),
    [("open", "EIO"), ("open", "EACCES"), ("open", "EMFILE"), ("listdir", "EIO"), ("fstat", "EIO")],
)
def test_a_failing_system_call_is_a_matter_of_storage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, name: str
) -> None:
    folder, code = toys.toy(tmp_path), getattr(errno, name)

    def fail(*arguments: Any, **options: Any) -> Any:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(StoreError, match=name) as caught:
            store.read(folder)
    assert caught.value.exit_code == 6


# -- a folder that is swapped while it is read -----------------------------------------------------------------------


def test_a_pair_is_never_mixed_while_folders_are_swapped(tmp_path: Path) -> None:
    data = {"first": toys.weights(fill=1.0), "second": toys.weights(fill=2.0)}
    for name, each in data.items():
        toys.put(tmp_path, toys.manifest(data=each, summary=name), each, folder=name)
    place = tmp_path / "1"
    read = {"first": 0, "second": 0}
    with toys.child("swap_forever", place, tmp_path / "first", tmp_path / "second") as swapper:
        assert swapper.stdout is not None
        assert swapper.stdout.readline() == "ready\n"
        deadline = time.monotonic() + 20
        while min(read.values()) < 100 and time.monotonic() < deadline:
            try:
                found = store.read(place)
            except NotFound:
                continue
            assert found.weights == data[found.manifest.summary]
            read[found.manifest.summary] += 1
        swapper.kill()
    assert min(read.values()) > 0
