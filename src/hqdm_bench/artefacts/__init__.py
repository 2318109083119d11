"""Files that come from outside a run: downloads, and the weights shipped inside the package."""

from typing import TYPE_CHECKING, Any

from hqdm_bench.artefacts.download import Fetched, fetch_artefact, verify_artefact
from hqdm_bench.artefacts.lockfile import Record, read_lock
from hqdm_bench.artefacts.selection import suite_artefacts
from hqdm_bench.artefacts.status import Status, artefact_status, reachable
from hqdm_bench.artefacts.web import Transfer

if TYPE_CHECKING:
    from hqdm_bench.artefacts.embedded import embedded_names, embedded_weights

__all__ = [
    "Fetched",
    "Record",
    "Status",
    "Transfer",
    "artefact_status",
    "embedded_names",
    "embedded_weights",
    "fetch_artefact",
    "reachable",
    "read_lock",
    "suite_artefacts",
    "verify_artefact",
]


def __getattr__(name: str) -> Any:
    """The shipped weights are read with torch, which a download does not need."""
    if name in ("embedded_names", "embedded_weights"):
        from hqdm_bench.artefacts import embedded

        return getattr(embedded, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
