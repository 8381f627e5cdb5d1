"""Saving: atomic, lock-free, synced in order, safe against kills, rivals and a file system that says no."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import random
import signal
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import toys

from grokkit_core import saving, store
from grokkit_core.errors import BadName, BadWeights, GrokkitError, Incompatible, NotFound, StoreError
from grokkit_core.manifest import WEIGHTS, Bound, Manifest

FLOATS = 50_000
"""Weights of 200 KB."""

OLD = saving.STALE_SECONDS + 60
YOUNG = saving.STALE_SECONDS - 60
Event = tuple[str, str]


def save(root: Path, name: str = "toy", **changes: Any) -> Manifest:
    """Save a toy as the next version of its name."""
    return saving.save(root, toys.manifest(name, **changes), toys.weights())


def age(folder: Path, seconds: float) -> Path:
    """Let a folder look that old."""
    then = time.time() - seconds
    os.utime(folder, (then, then))
    return folder


class SystemCalls:
    """Records the calls by which a save changes the disk, with the file they are about; fails one of them on demand."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.made: list[Event] = []
        self.fault: Event | None = None
        self.code = errno.EIO
        self._paths: dict[int, str] = {}
        for name in ("mkdir", "open", "write", "fsync", "rename"):
            patch.setattr(os, name, self._watched(name, getattr(os, name)))

    def _watched(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(target: Any, *arguments: Any, **options: Any) -> Any:
            event = (name, self._file(target))
            self.made.append(event)
            if event == self.fault:
                self.fault = None
                raise OSError(self.code, os.strerror(self.code))
            result = real(target, *arguments, **options)
            if name == "open":
                self._paths[result] = os.fspath(target)
            return result

        return call

    def _file(self, target: Any) -> str:
        path = self._paths.get(target, "") if isinstance(target, int) else os.fspath(target)
        name = os.path.basename(path)
        return "staging" if name.startswith(".staging-") else name

    def of(self, *names: str) -> list[Event]:
        """The recorded calls of these kinds."""
        return [event for event in self.made if event[0] in names]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[SystemCalls]:
    """Watches the system calls until the test has ended."""
    with monkeypatch.context() as patch:
        yield SystemCalls(patch)


# -- what a save does ------------------------------------------------------------------------------------------------


def test_versions_count_from_one(library: Path) -> None:
    assert [save(library).version for _ in range(3)] == [1, 2, 3]


def test_what_was_saved_can_be_read(library: Path) -> None:
    saved = save(library, summary="mine")
    assert store.read(library / "toy" / "1") == store.Stored(library / "toy" / "1", saved, toys.weights())


def test_a_later_save_changes_no_earlier_version(library: Path) -> None:
    save(library)
    before = store.files_of(library / "toy" / "1")
    save(library, summary="another")
    assert store.files_of(library / "toy" / "1") == before


def test_size_and_hash_are_those_of_the_weights(library: Path) -> None:
    wrong = dataclasses.replace(toys.manifest().weights, bytes=1, sha256="0" * 64)
    assert save(library, weights=wrong).weights == toys.manifest().weights


def test_names_count_on_their_own(library: Path) -> None:
    save(library)
    assert save(library, "other").version == 1


def test_nothing_but_the_version_is_left(library: Path) -> None:
    save(library)
    assert os.listdir(library / "toy") == ["1"]
    assert sorted(os.listdir(library / "toy" / "1")) == [store.MANIFEST, WEIGHTS]


@pytest.mark.parametrize("entry", ["09", "1a", "0", "-7", "7.tmp", "99999999999"])
def test_a_folder_that_is_no_version_does_not_count(library: Path, entry: str) -> None:
    (library / "toy" / entry).mkdir(parents=True)
    assert save(library).version == 1


@pytest.mark.parametrize(("umask", "file_mode", "folder_mode"), [(0o022, 0o644, 0o755), (0o077, 0o600, 0o700)])
def test_modes_follow_the_umask(library: Path, umask: int, file_mode: int, folder_mode: int) -> None:
    before = os.umask(umask)
    try:
        save(library)
    finally:
        os.umask(before)
    place = library / "toy" / "1"
    assert {path.stat().st_mode & 0o777 for path in place.iterdir()} == {file_mode}
    assert {path.stat().st_mode & 0o777 for path in (library, library / "toy", place)} == {folder_mode}


def test_a_write_that_takes_only_a_few_bytes_is_continued(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda descriptor, data: real(descriptor, bytes(data[:100])))
        save(library)
    assert store.read(library / "toy" / "1").weights == toys.weights()


# -- what is refused before anything is written ----------------------------------------------------------------------


def test_a_bad_name_is_refused(library: Path) -> None:
    with pytest.raises(BadName):
        save(library, "a..b")
    assert not library.exists()


def test_malformed_weights_are_refused(library: Path) -> None:
    with pytest.raises(BadWeights):
        saving.save(library, toys.manifest(), toys.raw("{}"))
    assert not library.exists()


UNREADABLE: dict[str, dict[str, Any]] = {
    "control character": {"summary": "\x1b[31m"},
    "lone surrogate": {"summary": "\ud800"},
    "not a number": {"extra": {"x": float("nan")}},
    "infinity in the certificate": {
        "certificate": dataclasses.replace(toys.certificate(), bounds=(Bound("error", float("inf"), "1"),))
    },
    "too many parts": {"extra": {"x": [0] * 10_000}},
    "more parameters than bytes": {"weights": dataclasses.replace(toys.manifest().weights, parameters=10**6)},
}


@pytest.mark.parametrize("changes", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_what_no_reader_would_take_is_not_written(library: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(GrokkitError):
        save(library, **changes)
    assert not library.exists()


# -- order and failure -----------------------------------------------------------------------------------------------

SYNCED = [
    ("fsync", WEIGHTS),
    ("fsync", store.MANIFEST),
    ("fsync", "staging"),
    ("rename", "staging"),
    ("fsync", "toy"),
]


def test_files_are_synced_before_the_rename_and_the_folder_after_it(library: Path, calls: SystemCalls) -> None:
    save(library)
    assert calls.of("fsync", "rename") == [("fsync", "library"), *SYNCED]


def test_a_save_that_forgets_to_sync_is_noticed(
    library: Path, calls: SystemCalls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saving, "_sync_folder", lambda folder: None)
    save(library)
    assert calls.of("fsync", "rename") != [("fsync", "library"), *SYNCED]


def test_nothing_is_written_after_its_sync(library: Path, calls: SystemCalls) -> None:
    save(library)
    for name in (WEIGHTS, store.MANIFEST):
        own = [call for call, file in calls.made if file == name]
        assert own == ["open", *["write"] * own.count("write"), "fsync"]


def test_an_installed_cassette_is_synced_in_the_same_order(library: Path, tmp_path: Path, calls: SystemCalls) -> None:
    save(library, "other")
    folder = toys.toy(tmp_path)
    calls.made.clear()
    saving.install(library, folder)
    assert calls.of("fsync", "rename") == [("fsync", "library"), *SYNCED]


MOMENTS: list[Event] = [
    ("mkdir", "staging"),
    ("open", WEIGHTS),
    ("write", WEIGHTS),
    ("fsync", WEIGHTS),
    ("open", store.MANIFEST),
    ("write", store.MANIFEST),
    ("fsync", store.MANIFEST),
    ("open", "staging"),
    ("fsync", "staging"),
    ("rename", "staging"),
    ("open", "toy"),
    ("fsync", "toy"),
]
codes = pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO], ids=["ENOSPC", "EIO"])
moments = pytest.mark.parametrize("moment", MOMENTS, ids="-".join)


def test_the_moments_are_all_that_a_second_save_does(library: Path, calls: SystemCalls) -> None:
    save(library)
    calls.made.clear()
    save(library)
    done = [event for event in calls.made if event != ("mkdir", "library")]
    assert list(dict.fromkeys(done)) == MOMENTS


@codes
@moments
def test_a_failure_at_any_moment_is_a_declared_error(
    library: Path, calls: SystemCalls, moment: Event, code: int
) -> None:
    save(library)
    calls.fault, calls.code = moment, code
    with pytest.raises(StoreError, match=errno.errorcode[code]) as caught:
        save(library)
    assert calls.fault is None
    assert caught.value.exit_code == 6


@codes
@moments
def test_a_failure_at_any_moment_leaves_the_old_version_alone(
    library: Path, calls: SystemCalls, moment: Event, code: int
) -> None:
    save(library)
    before = store.files_of(library / "toy" / "1")
    calls.fault, calls.code = moment, code
    with contextlib.suppress(StoreError):
        save(library)
    assert store.files_of(library / "toy" / "1") == before


@codes
@moments
def test_a_failure_at_any_moment_leaves_nothing_new(
    library: Path, calls: SystemCalls, moment: Event, code: int
) -> None:
    save(library)
    calls.fault, calls.code = moment, code
    with contextlib.suppress(StoreError):
        save(library)
    assert os.listdir(library / "toy") == ["1"]


@moments
def test_a_save_after_a_failure_works(library: Path, calls: SystemCalls, moment: Event) -> None:
    calls.fault = moment
    with contextlib.suppress(StoreError):
        save(library)
    assert store.read(library / "toy" / str(save(library).version)).weights == toys.weights()


@pytest.mark.parametrize("moment", [("mkdir", "library"), ("mkdir", "toy"), ("fsync", "library")], ids="-".join)
def test_a_first_save_that_fails_leaves_no_version(library: Path, calls: SystemCalls, moment: Event) -> None:
    calls.fault = moment
    with pytest.raises(StoreError, match="EIO"):
        save(library)
    assert not library.exists() or not list(library.glob("*/*"))


@moments
def test_an_import_that_fails_leaves_nothing_new(
    library: Path, tmp_path: Path, calls: SystemCalls, moment: Event
) -> None:
    folder = toys.toy(tmp_path, version=2)
    save(library)
    calls.fault = moment
    with pytest.raises(StoreError, match="EIO"):
        saving.install(library, folder)
    assert os.listdir(library / "toy") == ["1"]


def test_an_interrupt_leaves_nothing_new(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(descriptor: int) -> None:
        raise KeyboardInterrupt

    save(library)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", interrupt)
        with pytest.raises(KeyboardInterrupt):
            save(library)
    assert os.listdir(library / "toy") == ["1"]


@pytest.mark.parametrize("root", [Path("/proc/grokkit-library"), Path("/dev/null/library"), Path("/dev/null")])
def test_a_place_that_takes_no_folders_is_a_matter_of_storage(root: Path) -> None:
    with pytest.raises(StoreError) as caught:
        save(root)
    assert caught.value.exit_code == 6


# -- limits of the system --------------------------------------------------------------------------------------------


def test_a_limit_on_file_size_is_a_declared_error(library: Path) -> None:
    save(library)
    with toys.child("save_with_limit", library, FLOATS, 100_000) as limited:
        told, _ = limited.communicate(timeout=60)
    assert told.startswith("6 ")
    assert "EFBIG" in told
    assert os.listdir(library / "toy") == ["1"]


def test_the_same_save_fits_under_a_larger_limit(library: Path) -> None:
    with toys.child("save_with_limit", library, FLOATS, 300_000) as limited:
        assert limited.communicate(timeout=60)[0] == "saved\n"


def test_an_import_under_a_limit_on_file_size_ends_with_one_line(library: Path, tmp_path: Path) -> None:
    data = toys.weights(FLOATS)
    folder = toys.put(tmp_path, toys.manifest(data=data), data)
    with toys.child("import_with_limit", library, folder, 100_000, stderr=subprocess.PIPE) as limited:
        out, err = limited.communicate(timeout=60)
    assert (limited.returncode, out, len(err.splitlines())) == (6, "", 1)
    assert "EFBIG" in err
    assert os.listdir(library / "toy") == []


# -- staging folders -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [".staging-0123456789abcdef", ".trash-0123456789abcdef"])
def test_the_remains_of_a_killed_save_are_removed_by_the_next(library: Path, name: str) -> None:
    save(library)
    remains = library / "toy" / name
    remains.mkdir()
    (remains / WEIGHTS).write_bytes(b"half")
    age(remains, OLD)
    save(library)
    assert not remains.exists()


def test_a_young_staging_folder_is_kept(library: Path) -> None:
    save(library)
    rival = library / "toy" / ".staging-0123456789abcdef"
    rival.mkdir()
    age(rival, YOUNG)
    save(library)
    assert rival.exists()


def test_only_staging_folders_are_cleaned_away(library: Path) -> None:
    save(library)
    age(library / "toy" / "1", OLD)
    save(library)
    assert toys.versions(library / "toy") == [1, 2]


# -- rivals ----------------------------------------------------------------------------------------------------------


def before_rename(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Do something once, just before the next version is renamed to its number."""
    real = os.rename
    pending = [act]

    def rename(source: Any, target: Any) -> None:
        if pending:
            pending.pop()()
        real(source, target)

    monkeypatch.setattr(os, "rename", rename)


def test_a_number_taken_by_a_rival_moves_the_save_to_the_next(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before_rename(monkeypatch, lambda: save(library, summary="rival"))
    assert save(library, summary="mine").version == 2
    summaries = [store.read(library / "toy" / number).manifest.summary for number in ("1", "2")]
    assert summaries == ["rival", "mine"]


def test_a_number_taken_and_removed_by_a_rival_is_not_used_again(
    library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def come_and_go() -> None:
        save(library, summary="rival")
        saving.remove(library / "toy" / "1")

    real = saving._sync_folder
    pending = [come_and_go]

    def sync(folder: Path) -> None:
        real(folder)
        if folder.name.startswith(".staging-") and pending:
            pending.pop()()

    monkeypatch.setattr(saving, "_sync_folder", sync)
    assert save(library).version == 2


def test_an_import_that_loses_to_the_same_bytes_is_fine(
    library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = toys.toy(tmp_path)
    before_rename(monkeypatch, lambda: saving.install(library, folder))
    assert saving.install(library, folder) == toys.manifest()


def test_an_import_that_loses_to_other_bytes_is_refused(
    library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = toys.toy(tmp_path)
    before_rename(monkeypatch, lambda: save(library, summary="rival"))
    with pytest.raises(Incompatible):
        saving.install(library, folder)
    assert store.read(library / "toy" / "1").manifest.summary == "rival"


# -- removal and tombstones ------------------------------------------------------------------------------------------


def test_a_removed_number_is_never_used_again(library: Path) -> None:
    save(library)
    save(library)
    saving.remove(library / "toy" / "2")
    assert save(library).version == 3


def test_numbers_go_on_after_all_versions_are_removed(library: Path) -> None:
    save(library)
    saving.remove(library / "toy" / "1")
    assert save(library).version == 2


def test_a_removal_leaves_an_empty_tombstone_alone(library: Path) -> None:
    save(library)
    saving.remove(library / "toy" / "1")
    assert os.listdir(library / "toy") == [".removed-1"]
    assert (library / "toy" / ".removed-1").read_bytes() == b""


def test_a_removal_keeps_the_other_versions(library: Path) -> None:
    save(library)
    save(library)
    saving.remove(library / "toy" / "1")
    assert store.read(library / "toy" / "2").manifest.version == 2


def test_the_tombstone_is_synced_before_the_folder_goes(library: Path, calls: SystemCalls) -> None:
    save(library)
    calls.made.clear()
    saving.remove(library / "toy" / "1")
    assert calls.of("fsync", "rename") == [("fsync", "toy"), ("rename", "1"), ("fsync", "toy")]


def test_a_removal_that_fails_keeps_the_version(library: Path, calls: SystemCalls) -> None:
    save(library)
    calls.fault = ("rename", "1")
    with pytest.raises(StoreError):
        saving.remove(library / "toy" / "1")
    assert store.read(library / "toy" / "1").weights == toys.weights()


def test_removing_what_is_not_there_says_so(library: Path) -> None:
    with pytest.raises(NotFound):
        saving.remove(library / "toy" / "1")


@pytest.mark.parametrize("version", [999_999_998, 999_999_999])
def test_a_save_after_the_last_numbers_ends(library: Path, version: int) -> None:
    def give_up(number: int, frame: object) -> None:
        raise AssertionError("the save goes on for ever")

    toys.toy(library, version=version)
    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(5)
    try:
        with contextlib.suppress(GrokkitError):
            save(library)
            save(library)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    assert max(toys.versions(library / "toy")) == 999_999_999


# -- import ----------------------------------------------------------------------------------------------------------


def test_an_import_keeps_bytes_name_and_version(library: Path, tmp_path: Path) -> None:
    folder = toys.toy(tmp_path, version=7)
    assert saving.install(library, folder).ref == "toy@7"
    assert store.files_of(library / "toy" / "7") == store.files_of(folder)


def test_the_name_of_the_folder_does_not_matter_to_an_import(library: Path, tmp_path: Path) -> None:
    folder = toys.put(tmp_path, toys.manifest(), toys.weights(), folder="download")
    assert saving.install(library, folder).ref == "toy@1"


def test_an_import_of_the_same_bytes_twice_is_fine(library: Path, tmp_path: Path) -> None:
    folder = toys.toy(tmp_path)
    assert saving.install(library, folder) == saving.install(library, folder)
    assert os.listdir(library / "toy") == ["1"]


def test_an_import_of_other_bytes_at_a_taken_number_is_refused(library: Path, tmp_path: Path) -> None:
    save(library, summary="first")
    with pytest.raises(Incompatible, match="--as") as caught:
        saving.install(library, toys.toy(tmp_path))
    assert caught.value.exit_code == 4
    assert store.read(library / "toy" / "1").manifest.summary == "first"


def test_an_import_of_a_removed_number_is_refused(library: Path, tmp_path: Path) -> None:
    folder = toys.toy(tmp_path)
    saving.install(library, folder)
    saving.remove(library / "toy" / "1")
    with pytest.raises(Incompatible, match="removed"):
        saving.install(library, folder)
    assert toys.versions(library / "toy") == []


def test_an_import_under_a_name_reissues_it(library: Path, tmp_path: Path) -> None:
    folder = toys.toy(tmp_path, version=7)
    reissued = saving.install(library, folder, name="other")
    assert reissued.ref == "other@1"
    assert reissued.digest != toys.manifest(version=7).digest
    assert store.read(library / "other" / "1").weights == toys.weights()


def test_an_import_under_a_bad_name_is_refused(library: Path, tmp_path: Path) -> None:
    with pytest.raises(BadName):
        saving.install(library, toys.toy(tmp_path), name="../other")


def test_a_bad_cassette_is_not_imported(library: Path, tmp_path: Path) -> None:
    folder = toys.toy(tmp_path)
    (folder / WEIGHTS).write_bytes(toys.weights(fill=2.0))
    with pytest.raises(GrokkitError) as caught:
        saving.install(library, folder)
    assert caught.value.exit_code == 3
    assert not library.exists()


# -- folders outside a library ---------------------------------------------------------------------------------------


def test_files_are_written_as_one_folder(tmp_path: Path) -> None:
    saving.write_files(tmp_path / "made", {"a": b"1", "b": b"2"})
    assert {path.name: path.read_bytes() for path in (tmp_path / "made").iterdir()} == {"a": b"1", "b": b"2"}


def test_a_folder_that_holds_something_is_not_overwritten(tmp_path: Path) -> None:
    saving.write_files(tmp_path / "made", {"a": b"1"})
    with pytest.raises(StoreError):
        saving.write_files(tmp_path / "made", {"a": b"2"})
    assert (tmp_path / "made" / "a").read_bytes() == b"1"
    assert os.listdir(tmp_path) == ["made"]


@pytest.mark.parametrize("call", ["mkdir", "open", "write", "fsync", "rename"])
def test_a_folder_that_cannot_be_written_does_not_appear(tmp_path: Path, calls: SystemCalls, call: str) -> None:
    calls.fault = (call, "a" if call in ("open", "write", "fsync") else "staging")
    with pytest.raises(StoreError, match="EIO"):
        saving.write_files(tmp_path / "made", {"a": b"1"})
    assert os.listdir(tmp_path) == []


# -- kills -----------------------------------------------------------------------------------------------------------


@dataclass
class Kills:
    """What many kills left behind. `silent` are versions that were there although their save had not returned."""

    count: int
    median: float
    hit: int = 0
    silent: int = 0
    torn: int = 0
    lost: int = 0
    staged: int = 0
    versions: int = 0


def median_save(root: Path) -> float:
    """The median time of a save of 200 KB, in seconds."""
    with toys.child("save_timed", root, FLOATS, 40) as timed:
        told, _ = timed.communicate(timeout=120)
    return statistics.median(float(line) for line in told.split())


def torn(home: Path, versions: Sequence[int]) -> int:
    """How many of these versions cannot be read."""
    count = 0
    for version in versions:
        try:
            count += store.read(home / str(version)).weights != toys.weights(FLOATS)
        except GrokkitError:
            count += 1
    return count


def kill_savers(root: Path, kills: Kills, seed: int, saver_call: str = "save_forever") -> Kills:
    """Kill that many saving processes, each at a moment uniform in 0 to 1.5 times the median save time."""
    chance, home = random.Random(seed), root / "toy"
    known: set[int] = set()
    for _ in range(kills.count):
        with toys.child(saver_call, root, FLOATS) as saver:
            assert saver.stdout is not None
            assert saver.stdout.readline() == "ready\n"
            time.sleep(chance.uniform(0, 1.5 * kills.median))
            saver.kill()
            reported = {int(line) for line in saver.stdout.read().split()}
        new = set(toys.versions(home)) - known
        kills.lost += len(reported - new)
        kills.silent += len(new - reported)
        kills.torn += torn(home, sorted(new))
        kills.hit += bool(new)
        known |= new
    kills.lost += len(known - set(toys.versions(home)))
    kills.torn += torn(home, toys.versions(home))
    kills.staged, kills.versions = len(toys.leftovers(home)), len(known)
    return kills


def check_kills(root: Path, kills: Kills) -> None:
    """Nothing is torn or lost, both sides of the rename were met, and the next save clears the remains."""
    assert (kills.torn, kills.lost) == (0, 0)
    assert 0 < kills.hit < kills.count
    assert kills.staged > 0
    for name in toys.leftovers(root / "toy"):
        age(root / "toy" / name, OLD)
    save(root)
    assert toys.leftovers(root / "toy") == []


def test_kills_tear_nothing_and_lose_nothing(library: Path, tmp_path: Path) -> None:
    kills = kill_savers(library, Kills(40, median_save(tmp_path / "timed")), seed=1)
    while not kills.hit and kills.median < 1:  # a machine that became busy after the timing
        kills = kill_savers(library, Kills(40, 2 * kills.median), seed=1)
    check_kills(library, kills)


def test_kills_do_tear_what_a_careless_save_writes(library: Path) -> None:
    assert kill_savers(library, Kills(10, median=0.02), seed=3, saver_call="save_carelessly").torn > 0


@pytest.mark.acceptance
def test_300_kills_tear_nothing_and_lose_nothing(library: Path, tmp_path: Path, figure: Callable[..., None]) -> None:
    kills = kill_savers(library, Kills(300, median_save(tmp_path / "timed")), seed=2)
    figure("torn versions after 300 SIGKILLs in a save of 200 KB", str(kills.torn), "0")
    figure("reported versions lost after 300 SIGKILLs", str(kills.lost), "0")
    figure("kills that left a new version", f"{kills.hit} of {kills.count}", "some, not all")
    figure("versions complete though their save had not returned", str(kills.silent), "any number")
    figure("staging folders left by kills, removed by the next save", str(kills.staged), "more than 0")
    figure("median time of a save of 200 KB", f"{1000 * kills.median:.1f} ms", "none")
    check_kills(library, kills)
    assert kills.silent > 0


def test_a_kill_before_any_system_call_leaves_whole_versions(library: Path) -> None:
    save(library)
    seen: list[int] = []
    for point in range(1, 200):
        with toys.child("die_before", library, point) as saver:
            told, _ = saver.communicate(timeout=60)
        versions = toys.versions(library / "toy")
        assert all(store.read(library / "toy" / str(number)).weights == toys.weights() for number in versions)
        seen.append(len(versions))
        if told:
            break
    assert saver.returncode == 0
    assert seen[0] == 1
    assert seen[-1] - seen[-2] == 1
    assert len(set(seen)) >= 4


# -- many writers ----------------------------------------------------------------------------------------------------


def compete(root: Path, writers: int, times: int) -> tuple[int, int]:
    """Let processes save one name side by side while two others read; returns good and bad reads."""
    home, stop = root / "toy", root.parent / "stop"
    readers = [toys.child("read_forever", home, stop) for _ in range(2)]
    savers = [toys.child("save_some", root, number, times) for number in range(writers)]
    marks: dict[int, str] = {}
    for process in savers:
        with process:
            for line in process.communicate(timeout=120)[0].splitlines():
                version, mark = line.split()
                assert int(version) not in marks
                marks[int(version)] = mark
        assert process.returncode == 0
    stop.touch()
    good, bad = 0, 0
    for process in readers:
        with process:
            told = process.communicate(timeout=120)[0].split()
        good, bad = good + int(told[0]), bad + int(told[1])
    assert toys.versions(home) == sorted(marks) == list(range(1, writers * times + 1))
    assert {number: store.read(home / str(number)).manifest.summary for number in marks} == marks
    assert toys.leftovers(home) == []
    return good, bad


def test_writers_side_by_side_lose_nothing(library: Path) -> None:
    good, bad = compete(library, writers=8, times=6)
    assert good > 0
    assert bad == 0


@pytest.mark.acceptance
def test_16_writers_of_25_saves_lose_nothing(library: Path, figure: Callable[..., None]) -> None:
    good, bad = compete(library, writers=16, times=25)
    figure("versions of 16 processes x 25 saves of one name", "1 to 400, each as its writer reported it", "1 to 400")
    figure("bad reads of two readers meanwhile", f"{bad} of {good + bad:,}", "0")
    assert good > 0
    assert bad == 0
