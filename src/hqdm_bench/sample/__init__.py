"""Drawing images: DDIM, labels, per-image noise, shards."""

from hqdm_bench.sample.archive import ImageArchive, export_shards, open_archive
from hqdm_bench.sample.ddim import Trace, ddim_sample
from hqdm_bench.sample.labels import NO_LABEL, image_labels
from hqdm_bench.sample.noise import ImageNoise
from hqdm_bench.sample.pixels import to_uint8
from hqdm_bench.sample.shards import (
    Samples,
    draw_shard,
    iterate_shards,
    read_shard,
    sample_shard,
    shard_batches,
    write_shard,
)

__all__ = [
    "NO_LABEL",
    "ImageArchive",
    "ImageNoise",
    "Samples",
    "Trace",
    "ddim_sample",
    "draw_shard",
    "export_shards",
    "image_labels",
    "iterate_shards",
    "open_archive",
    "read_shard",
    "sample_shard",
    "shard_batches",
    "to_uint8",
    "write_shard",
]
