"""Recompute a certificate from the oracle and the weights, and compare it with what the manifest says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from grokkit_core.cassette import Cassette, load
from grokkit_core.certify.agree import disagreements
from grokkit_core.devices import choose_device, fitting_threads
from grokkit_core.manifest import Certificate, Level, Manifest
from grokkit_core.notebook import Sheet, Shown
from grokkit_core.records import to_json
from grokkit_core.specs import Event
from grokkit_core.workspace import Where, workspace


@dataclass(frozen=True)
class Verification(Shown):
    """A cassette's recorded certificate beside the recomputed one; `reasons` say why they do not agree.

    `notes` say what could not be checked.
    """

    manifest: Manifest
    certificate: Certificate
    reasons: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def agrees(self) -> bool:
        """Whether the recomputed certificate supports the recorded one."""
        return not self.reasons

    def _sheet(self) -> Sheet:
        found, agrees = self.certificate, "agrees" if self.agrees else "does NOT agree"
        rows = [
            ("recorded", self.manifest.certificate.verdict),
            ("recomputed", f"{found.verdict} ({found.level}, {found.dtype}, seed {found.seed})"),
            ("statement", found.statement),
            *(("because", reason) for reason in self.reasons),
            *(("note", note) for note in self.notes),
        ]
        return Sheet(f"{self.manifest.ref}: the certificate {agrees}", ("field", "value"), tuple(rows))

    def to_json(self) -> dict[str, Any]:
        """The row of `grokkit verify --json`; the figures are the recomputed ones."""
        found = self.certificate
        return {
            "name": self.manifest.name,
            "version": self.manifest.version,
            "verdict": found.verdict,
            "bounds": to_json(found.bounds),
            "metrics": to_json(found.metrics),
            "baselines": to_json(found.baselines),
            "agrees": self.agrees,
            "reasons": list(self.reasons),
            "notes": list(self.notes),
            "seed": found.seed,
            "level": found.level,
            "dtype": found.dtype,
        }


def verify(
    ref: str | Cassette,
    *,
    level: Level = "full",
    seed: int | None = None,
    device: str = "auto",
    dtype: str | None = None,
    library: Where = None,
) -> Verification:
    """Recompute the certificate of a cassette; seed and dtype default to the recorded ones, and others must agree too.

    Reading problems raise; a certificate that does not hold is reported in the result.
    """
    place = workspace(library)
    cassette = ref if isinstance(ref, Cassette) else load(ref, library=place)
    recorded = cassette.manifest.certificate
    own_dtype = None if cassette.members else recorded.dtype
    cassette = cassette.to(choose_device(device, cassette.manifest.weights.parameters), dtype or own_dtype)
    task = cassette.task
    with fitting_threads(cassette.manifest.weights.parameters):
        recomputed = task.certify(cassette, level=level, seed=recorded.seed if seed is None else seed)
    reasons = disagreements(recorded, recomputed, floor=task.spec.floor)
    notes: tuple[str, ...] = ()
    if cassette.manifest.provenance.kind == "grown":
        from grokkit_core.transfer.recheck import recheck_growth

        changed, notes = recheck_growth(cassette, place)
        reasons += changed
    place.plugins.emit(Event("certificate", {"name": cassette.manifest.ref, "agrees": not reasons}))
    return Verification(cassette.manifest, recomputed, reasons, notes)
