"""Reading a run that is committed under ``results/published`` as if it lay under ``results``."""

import tempfile
from pathlib import Path

from hqdm_bench.common.errors import BenchError

__all__ = ["results_root"]


def results_root(root: Path, suite: str) -> Path:
    """The project folder whose ``results/{suite}`` is to be read.

    Args:
        root: project folder.
        suite: name of a suite.

    Returns:
        ``root`` if the suite has been run there. Otherwise a folder of links in which the
        published run of the suite has the place of its own results; it lasts as long as the
        system keeps temporary files.

    Raises:
        BenchError: the suite was neither run nor published.
    """
    own, published = (root / "results" / part for part in (suite, f"published/{suite}"))
    if own.is_dir():
        return root
    if not published.is_dir():
        raise BenchError(f"{own} does not exist and no run is published; `make {suite}` makes it")
    linked = Path(tempfile.mkdtemp(prefix="hqdm-bench-"))
    (linked / "results").mkdir()
    (linked / "results" / suite).symlink_to(published.resolve())
    for name in ("config", "paper"):
        (linked / name).symlink_to((root / name).resolve())
    return linked
