"""Entry point: runs the command line and turns every failure into one line on stderr and an exit code."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any

import click

from grokkit_cli.pipes import ReaderGone
from grokkit_core.errors import GrokkitError, StoreError
from grokkit_core.text import printable

INTERRUPTED = 130
RETRY_SECONDS = 0.02
MESSAGE_CAP = 1_000
NO_ARGUMENTS: Any = getattr(click.exceptions, "NoArgsIsHelpError", ())
"""What click from 8.2 raises for `grokkit` alone; its message is the help page."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `grokkit` and exit with its code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    _open_missing_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    code = run(given)
    # What is left to do takes a moment; one more Ctrl-C would cut it with a traceback of some exit handler.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _discard_stdout()
    except OSError as error:
        _discard_stdout()
        code = code or _failed(error, debug=False)
    sys.exit(code)


def run(arguments: Sequence[str]) -> int:
    """The exit code of a command line; see `cli.md` in the documentation for its meaning."""
    with _noticing_interrupts() as interrupts:
        return _run(arguments, interrupts)


class Interrupts:
    """Handles Ctrl-C as Python does, but not while something is imported: libraries that are interrupted there swallow
    it, end in another error or abort the process. It is then delivered as soon as the import is done.
    """

    def __init__(self) -> None:
        self.pressed = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        again, self.pressed = self.pressed and number == signal.SIGINT, True
        if again or not _is_importing(frame) or not hasattr(signal, "setitimer"):
            raise KeyboardInterrupt
        signal.signal(signal.SIGALRM, self)
        signal.setitimer(signal.ITIMER_REAL, RETRY_SECONDS)


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


@contextlib.contextmanager
def _noticing_interrupts() -> Iterator[Interrupts]:
    interrupts = Interrupts()
    if threading.current_thread() is not threading.main_thread():
        yield interrupts
        return
    before = signal.signal(signal.SIGINT, interrupts)
    try:
        yield interrupts
    finally:
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGINT, before)


def _run(arguments: Sequence[str], interrupts: Interrupts) -> int:
    debug = "--debug" in arguments
    try:
        from grokkit_cli.main import cli

        result = cli.main(args=list(arguments), prog_name="grokkit", standalone_mode=False)
    except click.Abort as abort:
        return _interrupted(abort.__cause__ or abort.__context__)
    except KeyboardInterrupt as interrupt:
        return _interrupted(interrupt)
    except ReaderGone:
        _discard_stdout()
        return 0
    except Exception as error:
        return _interrupted(None) if interrupts.pressed else _failed(error, debug)
    return result if isinstance(result, int) else 0


def _failed(error: Exception, debug: bool) -> int:
    if debug:
        for line in "".join(traceback.format_exception(error)).splitlines():
            print(printable(line, MESSAGE_CAP), file=sys.stderr)
    if isinstance(error, NO_ARGUMENTS):
        print(error.format_message(), file=sys.stderr)
        return 2
    if isinstance(error, click.UsageError):
        command = error.ctx.command_path if error.ctx else "grokkit"
        return _say(f"{error.format_message()} (see `{command} --help`)", 2)
    if isinstance(error, click.ClickException):
        return _say(error.format_message(), error.exit_code)
    if isinstance(error, OSError):
        error = StoreError.from_os(error, "writing the output or reading a file", keeping=False)
    if isinstance(error, GrokkitError):
        return _say(str(error), error.exit_code)
    if isinstance(error, MemoryError) or _is_out_of_memory(error):
        return _say("out of memory", StoreError.exit_code)
    kind = type(error).__name__
    return _say(f"internal error, {kind}: {error}; please report it with the output of --debug", 1)


def _is_out_of_memory(error: Exception) -> bool:
    """Whether torch found too little memory; on a CPU it says so in words only."""
    text = str(error)
    return isinstance(error, RuntimeError) and ("can't allocate memory" in text or "out of memory" in text)


def _interrupted(cause: BaseException | None) -> int:
    return _say(str(cause) if cause is not None and str(cause) else "interrupted", INTERRUPTED)


def _open_missing_streams() -> None:
    """A process may be started with closed streams (`>&-`); Python then has None in their place."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115


def _discard_stdout() -> None:
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno() if sys.__stdout__ else 1)


def _say(message: str, code: int) -> int:
    print(f"grokkit: {printable(' '.join(message.split()), MESSAGE_CAP)}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
