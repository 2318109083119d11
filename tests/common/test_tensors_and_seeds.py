import json
import os

import pytest
import torch
from safetensors.torch import save

from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.seeds import derive_seed, generator
from hqdm_bench.common.tensors import DTYPES, read_metadata, read_tensors, write_tensors


def test_tensors_and_metadata_round_trip_byte_identically(tmp_path):
    tensors = {"b": torch.arange(6.0).view(2, 3).T, "a": torch.tensor([1, 255], dtype=torch.uint8)}
    metadata = {"recipe": {"lr": 1e-6, "steps": [1, 2]}, "name": "x"}
    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    write_tensors(one, tensors, metadata)
    write_tensors(two, dict(reversed(tensors.items())), dict(reversed(metadata.items())))
    assert one.read_bytes() == two.read_bytes()
    read, header = read_tensors(one)
    assert header == metadata == read_metadata(one)
    assert all(torch.equal(read[key], tensors[key]) for key in tensors)
    assert read["a"].dtype == torch.uint8


def test_the_bytes_are_those_of_the_safetensors_library(tmp_path):
    numbers = torch.arange(-3, 30).view(3, 11)
    tensors = {f"“{dtype}” \\é": numbers.to(dtype)[:, :width] for width, dtype in enumerate(DTYPES)}
    tensors["number"] = torch.tensor(3.5)
    metadata = {"b": {"é": [1, 2.5, None]}, "a": "\n"}
    write_tensors(tmp_path / "ours.safetensors", tensors, metadata)
    header = {key: json.dumps(metadata[key], sort_keys=True) for key in ("a", "b")}
    contiguous = {key: value.contiguous() for key, value in tensors.items()}
    expected = save(contiguous, {"hqdm_bench": json.dumps(header, sort_keys=True)})
    assert (tmp_path / "ours.safetensors").read_bytes() == expected
    read, found = read_tensors(tmp_path / "ours.safetensors")
    assert found == metadata
    for key, value in tensors.items():
        assert read[key].dtype == value.dtype
        assert torch.equal(read[key], value)


def test_kinds_of_numbers_without_a_name_are_refused(tmp_path):
    with pytest.raises(BenchError, match="tensor x is torch.complex64"):
        write_tensors(tmp_path / "x.safetensors", {"x": torch.zeros(1, dtype=torch.complex64)}, {})
    assert os.listdir(tmp_path) == []


def test_whoever_may_read_the_folder_may_read_the_tensors(tmp_path):
    usual = os.umask(0o027)
    try:
        write_tensors(tmp_path / "x.safetensors", {"x": torch.zeros(1)}, {})
    finally:
        os.umask(usual)
    assert (tmp_path / "x.safetensors").stat().st_mode & 0o777 == 0o640


def test_missing_and_truncated_files_are_named(tmp_path):
    with pytest.raises(BenchError, match="does not exist"):
        read_tensors(tmp_path / "absent.safetensors")
    whole = tmp_path / "whole.safetensors"
    write_tensors(whole, {"x": torch.zeros(100)}, {})
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(whole.read_bytes()[:-40])
    with pytest.raises(BenchError, match=r"cut\.safetensors is not a whole safetensors file"):
        read_tensors(cut)


def test_streams_are_named_and_independent():
    assert derive_seed("noise", 0, 1) == derive_seed("noise", 0, 1)
    seeds = {derive_seed(name, seed, i) for name in "ab" for seed in range(3) for i in range(50)}
    assert len(seeds) == 300
    assert derive_seed("a", 11) != derive_seed("a", 1, 1)
    assert all(0 <= seed < 2**63 for seed in seeds)
    one = torch.randn(4, generator=generator("noise", 0, 1))
    assert torch.equal(one, torch.randn(4, generator=generator("noise", 0, 1)))
    assert not torch.equal(one, torch.randn(4, generator=generator("noise", 0, 2)))
