"""The record, beside a shard, of how the student that drew it computed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.files import read_json, write_json

__all__ = ["read_engine", "write_engine"]

KEPT = ("engine", "backend", "why")  # of a metrics file; the layers stay with the images


def write_engine(shard: Path, record: dict[str, Any] | None) -> None:
    """Write the record of a shard; None, for full precision, leaves none there.

    Args:
        shard: the .npz.
        record: at least ``engine`` and ``why``.
    """
    path = _path(shard)
    if record is None:
        path.unlink(missing_ok=True)
    else:
        write_json(path, record)


def read_engine(shards: Sequence[Path]) -> dict[str, str] | None:
    """How a set was drawn, or None where nothing is recorded.

    Raises:
        BenchError: its shards were drawn in different ways.
    """
    found = [read_json(_path(path)) if _path(path).exists() else None for path in shards]
    names = [None if record is None else record["engine"] for record in found]
    if len(set(names)) > 1:
        said = ", ".join(
            f"{path.name} by '{name}'" for path, name in zip(shards, names, strict=True)
        )
        raise BenchError(
            f"{shards[0].parent}: {said}; images of one cell are drawn by one engine, delete the "
            "shards and draw them again"
        )
    first = found[0]
    return None if first is None else {key: first[key] for key in KEPT if key in first}


def _path(shard: Path) -> Path:
    return shard.with_suffix(".engine.json")
