"""Tensors on disk: safetensors with the resolved configuration in the header."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.files import atomic_path, require_file

__all__ = ["read_metadata", "read_tensors", "write_tensors"]


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write tensors atomically; every metadata value is stored as JSON in the header.

    Tensors are made contiguous and detached. The header is written in sorted order, so equal
    content gives equal bytes.
    """
    flat = {key: tensors[key].detach().cpu().contiguous() for key in sorted(tensors)}
    header = {key: json.dumps(metadata[key], sort_keys=True) for key in sorted(metadata)}
    with atomic_path(path) as temporary:
        # One JSON entry: the library does not keep the order of several header keys.
        save_file(flat, temporary, metadata={"hqdm_bench": json.dumps(header, sort_keys=True)})


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read every tensor (on the CPU) and the decoded metadata.

    Raises:
        BenchError: the file is missing, truncated, or not safetensors.
    """
    with _opened(path) as handle:
        tensors = {key: handle.get_tensor(key) for key in handle.keys()}  # noqa: SIM118
        return tensors, _decode(handle.metadata())


def read_metadata(path: Path) -> dict[str, Any]:
    """Read the decoded metadata only."""
    with _opened(path) as handle:
        return _decode(handle.metadata())


def _opened(path: Path) -> Any:
    require_file(path)
    try:
        return safe_open(path, framework="pt", device="cpu")
    except (SafetensorError, OSError) as error:
        raise BenchError(
            f"{path} is not a whole safetensors file ({error}); delete it and run again"
        ) from error


def _decode(header: dict[str, str] | None) -> dict[str, Any]:
    entries = json.loads((header or {}).get("hqdm_bench", "{}"))
    return {key: json.loads(value) for key, value in entries.items()}
