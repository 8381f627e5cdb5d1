"""Files that are replaced as a whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from grokkit_core.errors import StoreError
from grokkit_core.text import printable


def replace_file(path: Path, data: bytes) -> None:
    """Write a file beside `path` and put it in its place; what stood there stays until then. Raises `StoreError`."""
    staging = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with staging.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(staging, path)
    except OSError as error:
        raise StoreError.from_os(error, f"writing {printable(path, 160)}", keeping=False) from None
    finally:
        with contextlib.suppress(OSError):
            staging.unlink(missing_ok=True)
