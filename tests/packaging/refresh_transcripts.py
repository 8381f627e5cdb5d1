"""Rewrites the console transcripts of README and docs with what the commands print now: `python tests/packaging/refresh_transcripts.py`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def refreshed(text: str, environ: dict[str, str]) -> str:
    """The page with every `$ command` of a console block run again."""

    def block(match: re.Match[str]) -> str:
        commands = re.findall(r"^\$ (.*)$", match[1], flags=re.MULTILINE)
        parts = []
        for command in commands:
            done = subprocess.run(command, shell=True, capture_output=True, text=True, env=environ, check=True)
            lines = [line.rstrip() for line in done.stdout.rstrip().splitlines()]
            parts.append("\n".join([f"$ {command}", *lines]) + "\n")
        return "```console\n" + "".join(parts) + "```"

    return re.sub(r"^```console\n(.*?)^```", block, text, flags=re.MULTILINE | re.DOTALL)


def main() -> None:
    """Refresh every page in place, in one throw-away library."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        environ = {**os.environ, "PATH": path, "GROKKIT_LIBRARY": folder}
        for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
            old = page.read_text()
            new = refreshed(old, environ)
            if new != old:
                page.write_text(new)
                print(f"refreshed {page.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
