"""What is kept beside a shard of how it was drawn."""

from pathlib import Path

import pytest

from hqdm_bench.common.errors import BenchError
from hqdm_bench.sample.engine_record import read_engine, write_engine

INTEGER = {"engine": "integer", "backend": "onednn", "why": "exact here", "layers": [1, 2]}


def test_the_record_goes_with_the_shard(tmp_path: Path) -> None:
    shards = [tmp_path / "shard0.npz", tmp_path / "shard1.npz"]
    assert read_engine(shards) is None
    for shard in shards:
        write_engine(shard, INTEGER)
    kept = {key: INTEGER[key] for key in ("engine", "backend", "why")}
    assert read_engine(shards) == kept
    for shard in shards:
        write_engine(shard, None)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("other", [None, {"engine": "fake", "why": "asked for"}])
def test_a_set_is_drawn_by_one_engine(tmp_path: Path, other: dict[str, str] | None) -> None:
    shards = [tmp_path / "shard0.npz", tmp_path / "shard1.npz"]
    write_engine(shards[0], INTEGER)
    write_engine(shards[1], other)
    with pytest.raises(BenchError, match="draw them again"):
        read_engine(shards)
