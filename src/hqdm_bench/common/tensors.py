"""Tensors on disk: safetensors with the resolved configuration in the header."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.files import atomic_path, require_file

__all__ = ["read_metadata", "read_tensors", "write_tensors"]

# Names in the format, in the order in which the safetensors library lays tensors out.
DTYPES = {
    torch.int64: "I64",
    torch.float64: "F64",
    torch.float32: "F32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write tensors atomically; every metadata value is stored as JSON in the header.

    Names are sorted, so equal content gives equal bytes: those that the safetensors library writes.
    The file is written here because the library goes through a temporary file of its own, which
    nobody can find again after a kill, which only its owner may read, and whose errors (a full
    disk) come without a number.

    Raises:
        BenchError: the file cannot be written, or a tensor is of a kind safetensors has no name
            for.
    """
    order = list(DTYPES)
    for key, tensor in tensors.items():
        if tensor.dtype not in DTYPES:
            raise BenchError(f"{path}: tensor {key} is {tensor.dtype}, which is not stored here")
    names = sorted(tensors, key=lambda key: (order.index(tensors[key].dtype), key))
    header = _header({key: tensors[key] for key in names}, metadata)
    with atomic_path(path) as temporary, temporary.open("wb") as handle:
        handle.write(len(header).to_bytes(8, "little"))
        handle.write(header)
        for key in names:
            flat = tensors[key].detach().cpu().contiguous().reshape(-1)
            handle.write(flat.view(torch.uint8).numpy().data)


def _header(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> bytes:
    """JSON with the place of every tensor, padded to a multiple of 8 bytes."""
    encoded = {key: json.dumps(metadata[key], sort_keys=True) for key in sorted(metadata)}
    # One entry: the library does not keep the order of several.
    header: dict[str, Any] = {"__metadata__": {"hqdm_bench": json.dumps(encoded, sort_keys=True)}}
    end = 0
    for key, tensor in tensors.items():
        start, end = end, end + tensor.numel() * tensor.element_size()
        shape = list(tensor.shape)
        entry = {"dtype": DTYPES[tensor.dtype], "shape": shape, "data_offsets": [start, end]}
        header[key] = entry
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    return text + b" " * (-len(text) % 8)


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
