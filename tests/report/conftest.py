"""A browser where there is one, pages on shipped cassettes, and a manifest in which every text is hostile."""

from __future__ import annotations

import copy
import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import grokkit_core as gk
from grokkit_core import strictjson
from grokkit_core.manifest import Manifest

sys.path.append(str(Path(__file__).resolve().parent))

from chromium import Chromium, find_chromium

SHOWN = ("cyclotron-fused", "parity-3of64-grokked", "matmul-4x4", "pendulum-mlp", "kepler", "wave")
EVIL = (
    "\"'><script>document.title='pwned'</script><img src=x onerror=\"document.title='pwned'\"><svg onload=alert(1)>"
    "</style></title></script><!-- ]]> javascript:alert(1) \u202egpj\u2066\u200b &amp; ${7*7} 漢"
)
"""A little of everything that breaks pages."""


@pytest.fixture(scope="session")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report on six shipped cassettes. Not to be changed."""
    target = tmp_path_factory.mktemp("report") / "report.html"
    gk.report(SHOWN, target)
    return target


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    """One headless Chromium for all tests; they are skipped where there is none."""
    program = find_chromium()
    if program is None:
        pytest.skip("no Chromium on this machine (apt-get install chromium)")
    with Chromium(program, tmp_path_factory.mktemp("profile")) as started:
        yield started


def poisoned(value: Any, path: tuple[Any, ...] = ()) -> Any:
    """A JSON value with every free text, and every free key, replaced."""
    fixed = {
        "name",
        "version",
        "kind",
        "verdict",
        "method",
        "level",
        "file",
        "sha256",
        "digest",
        "axes",
        "dtypes",
        "schema",
    }
    if isinstance(value, dict):
        free = path and path[-1] in ("parameters", "config", "where", "extra", "operator", "gate", "plugins")
        return {
            (EVIL if free and index == 0 else key): poisoned(item, (*path, key))
            for index, (key, item) in enumerate(value.items())
        }
    if isinstance(value, list):
        return [poisoned(item, path) for item in value]
    metric = len(path) > 1 and path[-2] in ("metrics", "baselines", "bounds")
    return EVIL if isinstance(value, str) and (path[-1] not in fixed or metric) else value


@pytest.fixture(scope="session")
def hostile() -> Manifest:
    """A manifest that the format allows and whose every free text tries to break out of a page."""
    body = copy.deepcopy(gk.show("cyclotron-1node").to_json())
    del body["digest"]
    certificate, provenance = body["certificate"], body["provenance"]
    certificate["formula"] = ["y = x", "z"]
    certificate["bounds"] = [{"name": "max error", "value": 1.0, "unit": "m"}]
    provenance["operator"], provenance["gate"] = {"id": "grow", "note": "text"}, {"id": "flat", "note": "text"}
    provenance["parents"] = [{"name": "alpha", "version": 1, "digest": "sha256:" + "0" * 64}]
    body["tags"], body["extra"], body["citation"] = ["tag"], {"note": "text"}, ["source"]
    member = {"key": "k", "architecture": "a", "digest": "d", "task": {"id": "t"}, "certificate": {"verdict": "v"}}
    body["architecture"]["config"] = {"note": "text", "members": [member]}
    evil = poisoned(body)
    evil["architecture"]["config"]["members"] = [json.loads(json.dumps(member).replace('"k"', json.dumps(EVIL)))]
    raw = strictjson.canonical(evil)
    digest = "sha256:" + hashlib.sha256(raw).hexdigest()
    return Manifest.parse(strictjson.canonical({**evil, "digest": digest}))
