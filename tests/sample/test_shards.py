import dataclasses

import numpy as np
import pytest
import torch

from hqdm_bench.common.errors import BenchError
from hqdm_bench.sample import (
    Samples,
    draw_shard,
    image_labels,
    iterate_shards,
    read_shard,
    sample_shard,
    shard_batches,
    write_shard,
)

ARRAYS = ("images", "labels", "index", "latents")


def whole(parts):
    parts = list(parts)
    return {key: np.concatenate([getattr(part, key) for part in parts]) for key in ARRAYS}


def draw_all(model, protocol, folder):
    paths = [folder / f"shard{k}.npz" for k in range(protocol.shards)]
    for k in reversed(range(protocol.shards)):  # the order in which jobs run must not matter
        sample_shard(model, protocol, k, paths[k])
    return paths


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_images_are_byte_identical_whatever_the_number_of_shards(
    conditional, make_protocol, tmp_path, eta
):
    sets = []
    for shards in (1, 3, 6):
        protocol = make_protocol(eta=eta, shards=shards)
        sets.append(whole(iterate_shards(draw_all(conditional, protocol, tmp_path / str(shards)))))
    for other in sets[1:]:
        for key in ARRAYS:
            assert sets[0][key].tobytes() == other[key].tobytes()
    assert sets[0]["images"].shape == (11, 8, 8, 3)
    assert sets[0]["images"].std() > 10  # the images are not flat
    assert sets[0]["index"].tolist() == list(range(11))
    assert sets[0]["labels"].tolist() == image_labels(make_protocol(), 3).tolist()


def test_the_same_file_twice(unconditional, make_protocol, tmp_path):
    protocol = make_protocol(labels="none", images=2)
    for name in ("a", "b"):
        sample_shard(unconditional, protocol, 0, tmp_path / name / "shard0.npz")
    first, second = (tmp_path / name / "shard0.npz" for name in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()
    assert [path.name for path in first.parent.iterdir()] == ["shard0.npz"]


def test_rounding_and_latents_are_what_the_first_stage_gives(unconditional, make_protocol):
    protocol = make_protocol(labels="none", images=2, rounding="floor")
    samples = draw_shard(unconditional, protocol, 0)
    decoded = unconditional.decode(torch.from_numpy(samples.latents)).clamp(-1, 1)
    floor = ((decoded + 1) * 127.5).floor().permute(0, 2, 3, 1)
    assert np.array_equal(samples.images, floor.numpy().astype(np.uint8))
    assert samples.labels.tolist() == [-1, -1]


@pytest.mark.parametrize(("images", "batch", "shards"), [(11, 2, 1), (11, 2, 4), (64, 8, 3)])
def test_shards_hold_whole_batches_in_order(make_protocol, images, batch, shards):
    protocol = make_protocol(images=images, batch=batch, shards=shards)
    dealt = [shard_batches(protocol, k) for k in range(shards)]
    flat = [part for shard in dealt for part in shard]
    assert [i for part in flat for i in part] == list(range(images))
    assert all(len(part) == batch for part in flat[:-1])
    counts = [len(shard) for shard in dealt]
    assert max(counts) - min(counts) <= 1


@pytest.mark.parametrize(
    "change", [{"images": 0}, {"batch": 0}, {"shards": 7}, {"shards": 0}, {"trace_images": 12}]
)
def test_impossible_counts_are_refused(make_protocol, change):
    with pytest.raises(BenchError, match="test"):
        make_protocol(**change)


@pytest.mark.parametrize("shard", [-1, 2])
def test_a_shard_that_does_not_exist(make_protocol, shard):
    with pytest.raises(BenchError, match="shards 0 to 1"):
        shard_batches(make_protocol(shards=2), shard)


@pytest.fixture
def samples():
    index = np.arange(4, dtype=np.int64)
    pixels = np.arange(4 * 2 * 2 * 3, dtype=np.uint8).reshape(4, 2, 2, 3)
    return Samples(pixels, index % 2, index, np.ones((4, 3, 1, 1), np.float32))


def test_round_trip(samples, tmp_path):
    write_shard(tmp_path / "shard0.npz", samples)
    back = read_shard(tmp_path / "shard0.npz")
    for key in ARRAYS:
        assert np.array_equal(getattr(back, key), getattr(samples, key))
    with np.load(tmp_path / "shard0.npz") as file:
        assert set(file) == {"arr_0", "arr_1", "index", "latents"}
        assert file["arr_1"].dtype == np.int64


def test_a_trace_is_kept_where_there_is_one(samples, tmp_path):
    trace = np.random.default_rng(0).normal(size=(2, 5, 3, 1, 1)).astype(np.float32)
    write_shard(tmp_path / "shard0.npz", dataclasses.replace(samples, trace=trace))
    assert np.array_equal(read_shard(tmp_path / "shard0.npz").trace, trace)
    write_shard(tmp_path / "shard0.npz", samples)
    assert read_shard(tmp_path / "shard0.npz").trace is None


def test_the_first_images_are_traced_whatever_the_shards(conditional, make_protocol, tmp_path):
    """Batches of 4: the trace of 6 images ends within the second batch."""
    traces = []
    for shards, untraced in ((1, [False]), (3, [False, False, True])):
        protocol = make_protocol(shards=shards, batch=4, trace_images=6)
        parts = list(iterate_shards(draw_all(conditional, protocol, tmp_path / str(shards))))
        traces.append(np.concatenate([part.trace for part in parts if part.trace is not None]))
        latents = np.concatenate([part.latents for part in parts])
        assert [part.trace is None for part in parts] == untraced
    assert np.array_equal(*traces)
    assert traces[0].shape == (6, protocol.steps, *conditional.latent_shape)
    assert traces[0].dtype == np.float32
    assert np.array_equal(traces[0][:, -1], latents[:6])  # the last step ends where decoding starts
    differences = np.abs(np.diff(traces[0], axis=1)).max((0, 2, 3, 4))
    assert differences.min() > 1e-3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.zeros(3, np.int64)}, "3 labels for 4 images"),
        ({"index": np.array([0, 1, 3, 4])}, "not consecutive"),
        ({"index": np.array([0, 1, 1, 2])}, "not consecutive"),
        ({"latents": np.zeros((4, 3, 1, 1))}, "latents is float64"),
        ({"images": np.zeros((4, 2, 2, 3), np.float32)}, "images is float32"),
        ({"trace": np.zeros((2, 5, 3, 2, 1), np.float32)}, r"trace is float32 of shape \(2, 5, 3"),
        ({"trace": np.zeros((2, 5, 3, 1, 1))}, "trace is float64"),
        ({"trace": np.zeros((5, 5, 3, 1, 1), np.float32)}, r"trace is .* of shape \(5, 5"),
        ({"trace": np.zeros((2, 5), np.float32)}, r"trace is .* of shape \(2, 5\)"),
    ],
)
def test_inconsistent_files_are_refused(samples, tmp_path, change, message):
    write_shard(tmp_path / "shard0.npz", dataclasses.replace(samples, **change))
    with pytest.raises(BenchError, match=message):
        read_shard(tmp_path / "shard0.npz")


def test_damaged_files_are_refused(samples, tmp_path):
    path = tmp_path / "shard0.npz"
    with pytest.raises(BenchError, match="does not exist"):
        read_shard(path)
    write_shard(path, samples)
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(BenchError, match="not a whole sample shard"):
        read_shard(path)
    np.savez(path, arr_0=samples.images)
    with pytest.raises(BenchError, match="arr_1 is not a file in the archive"):
        read_shard(path)
    np.savez(path, arr_0=np.array([{"a": 1}], dtype=object))
    with pytest.raises(BenchError, match="not a whole sample shard"):
        read_shard(path)


def test_gaps_between_shards_are_refused(samples, tmp_path):
    paths = [tmp_path / f"shard{k}.npz" for k in range(2)]
    for path in paths:
        write_shard(path, samples)
    with pytest.raises(BenchError, match="expected 4"):
        list(iterate_shards(paths))
