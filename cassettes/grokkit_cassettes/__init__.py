"""The cassettes that ship with Grokkit: `<name>/<version>/{manifest.json, weights.safetensors}` beside this file."""

from __future__ import annotations

from collections.abc import Iterator

from grokkit_core.hookspecs import hookimpl
from grokkit_core.specs import CassetteRoot, Component


@hookimpl
def grokkit_components() -> Iterator[Component]:
    """This package is a cassette root."""
    yield CassetteRoot("grokkit_cassettes")
