import pytest
import torch

from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.seeds import derive_seed, generator
from hqdm_bench.common.tensors import read_metadata, read_tensors, write_tensors


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
