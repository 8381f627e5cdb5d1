"""Rewrites the console transcripts of README and docs with what the commands print now.

`python tests/packaging/refresh_transcripts.py [PAGE ...]`; without pages, all of them.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pages
import workshop

Rerun = Callable[[pages.Block], Iterator[tuple[str, list[str]]]]


def rerun_alone(block: pages.Block) -> Iterator[tuple[str, list[str]]]:
    """The commands of a block with what they print, in a throw-away folder and library."""
    with tempfile.TemporaryDirectory() as folder:
        environ = pages.surroundings(Path(folder))
        for command, _ in block.commands():
            yield command, pages.printed_by(command, Path(folder), environ)


def rerun_in(place: workshop.Workshop) -> Rerun:
    """The same for the tutorial, whose blocks share one workshop; what is left out stays as it was."""

    def rerun(block: pages.Block) -> Iterator[tuple[str, list[str]]]:
        for command, expected, printed in place.follow([block]):
            yield command, expected if printed is None else printed

    return rerun


def refreshed(page: Path, rerun: Rerun) -> str:
    """The page with every `$ command` of a console block run again."""
    text = page.read_text()
    for block in pages.blocks(page):
        if block.language == "console":
            new = "".join("\n".join([f"$ {command}", *lines]) + "\n" for command, lines in rerun(block))
            text = text.replace(f"```console\n{block.text}```", f"```console\n{new}```", 1)
    return text


def main() -> None:
    """Refresh pages in place."""
    chosen = [Path(name).resolve() for name in sys.argv[1:]] or pages.PAGES
    with tempfile.TemporaryDirectory() as folder:
        for page in chosen:
            rerun: Rerun = rerun_alone
            if page == pages.TUTORIAL:
                place = workshop.Workshop(Path(folder) / "tutorial")
                place.borrow_packages(pages.ROOT)
                rerun = rerun_in(place)
            old, new = page.read_text(), refreshed(page, rerun)
            if new != old:
                page.write_text(new)
                print(f"refreshed {page.relative_to(pages.ROOT)}")


if __name__ == "__main__":
    main()
