"""Arrays of result files without torch, which figures do not need."""

import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.files import require_file

__all__ = ["first_images", "read_arrays"]

Array = npt.NDArray[Any]


def read_arrays(
    path: Path, keys: Sequence[str] | None = None
) -> tuple[dict[str, Array], dict[str, Any]]:
    """Read tensors and the decoded metadata of a file of ``common.tensors``.

    Args:
        path: of the file.
        keys: which tensors; None reads all.

    Raises:
        BenchError: the file is missing or damaged, or lacks a key.
    """
    require_file(path)
    try:
        with safe_open(path, framework="numpy") as handle:
            held = set(handle.keys())
            keys = sorted(held) if keys is None else keys
            lacking = [key for key in keys if key not in held]
            if lacking:
                known = ", ".join(sorted(held))
                raise BenchError(f"{path} holds no '{lacking[0]}'; it holds {known}")
            header = json.loads((handle.metadata() or {}).get("hqdm_bench", "{}"))
            metadata = {key: json.loads(value) for key, value in header.items()}
            return {key: handle.get_tensor(key) for key in keys}, metadata
    except (SafetensorError, OSError) as error:
        raise BenchError(
            f"{path} is not a whole safetensors file ({error}); delete it and run again"
        ) from error


def first_images(paths: Sequence[Path], count: int) -> tuple[Array, Array]:
    """Images 0 to count - 1 of a sharded set and their labels.

    Args:
        paths: shards in order.
        count: how many.

    Returns:
        (count, H, W, 3) uint8 and (count,) int64; labels are -1 for unconditional models.

    Raises:
        BenchError: a shard is missing or damaged, or the set is too small.
    """
    images: list[Array] = []
    labels: list[Array] = []
    held = 0
    for path in paths:
        shard = _read_shard(path)
        if not np.array_equal(shard["index"], np.arange(held, held + len(shard["index"]))):
            raise BenchError(f"{path} does not go on with image {held}; draw the shards again")
        held += len(shard["index"])
        images.append(shard["arr_0"])
        labels.append(shard["arr_1"])
        if held >= count:
            return np.concatenate(images)[:count], np.concatenate(labels)[:count]
    raise BenchError(f"{paths[0].parent} holds {held} images, the figure shows {count}; show fewer")


def _read_shard(path: Path) -> Mapping[str, Array]:
    require_file(path)
    try:
        with np.load(path, allow_pickle=False) as file:
            return {key: file[key] for key in ("arr_0", "arr_1", "index")}
    except (zipfile.BadZipFile, KeyError, ValueError, OSError, EOFError) as error:
        raise BenchError(
            f"{path} is not a whole sample shard ({error}); delete it and run again"
        ) from error
