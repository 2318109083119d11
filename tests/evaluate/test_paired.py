import dataclasses
import math

import numpy as np
import pytest

from hqdm_bench.common.errors import BenchError
from hqdm_bench.evaluate.paired import latent_errors, paired_errors, peak_signal_to_noise
from hqdm_bench.sample import Samples, write_shard


def shard(first, count, seed=0):
    random = np.random.default_rng(seed)
    return Samples(
        random.integers(0, 200, (count, 4, 4, 3), dtype=np.uint8),
        np.arange(count, dtype=np.int64) % 3,
        np.arange(first, first + count, dtype=np.int64),
        random.normal(size=(count, 3, 2, 2)).astype(np.float32),
    )


def write(folder, parts):
    paths = [folder / f"shard{k}.npz" for k in range(len(parts))]
    for path, part in zip(paths, parts, strict=True):
        write_shard(path, part)
    return paths


def test_a_known_shift_of_grey_levels():
    images = np.full((3, 4, 4, 3), 100, np.uint8)
    shifted = images + np.array([1, 5, 20], np.uint8)[:, None, None, None]
    closed_form = [20 * math.log10(255 / level) for level in (1, 5, 20)]
    assert peak_signal_to_noise(images, shifted) == pytest.approx(closed_form, rel=1e-12)
    assert peak_signal_to_noise(shifted, images) == pytest.approx(closed_form, rel=1e-12)


def test_identical_images_have_a_finite_cap_that_nothing_else_exceeds():
    images = np.zeros((2, 32, 32, 3), np.uint8)
    other = images.copy()
    other[1, 0, 0, 0] = 1
    cap = 10 * math.log10(255**2 * 32 * 32 * 3)
    assert peak_signal_to_noise(images, other) == pytest.approx([cap, cap], rel=1e-12)
    assert cap == pytest.approx(83.0, abs=0.05)


def test_latent_errors_are_per_image():
    a = np.zeros((300, 3, 2, 2), np.float32)
    b = a + np.arange(300, dtype=np.float32)[:, None, None, None]
    assert latent_errors(a, b) == pytest.approx(np.arange(300.0) ** 2)


def test_mean_and_median_over_all_shards(tmp_path):
    base = [shard(0, 4), shard(4, 3, seed=1)]
    levels, offsets = (1, 2, 4, 8, 16, 32, 50), (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 10.0)
    moved, start = [], 0
    for part in base:
        rows = slice(start, start + len(part))
        step = np.array(levels[rows], np.uint8)[:, None, None, None]
        offset = np.array(offsets[rows], np.float32)[:, None, None, None]
        moved.append(
            dataclasses.replace(part, images=part.images + step, latents=part.latents + offset)
        )
        start += len(part)
    found = paired_errors(write(tmp_path / "a", moved), write(tmp_path / "b", base))
    ratios = [20 * math.log10(255 / level) for level in levels]
    assert found.psnr_mean == pytest.approx(np.mean(ratios), rel=1e-12)
    assert found.psnr_median == pytest.approx(20 * math.log10(255 / 8), rel=1e-12)
    assert found.latent_mse_mean == pytest.approx(np.mean(np.square(offsets)), rel=1e-5)
    assert found.latent_mse_median == pytest.approx(0.09, rel=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.zeros(4, np.int64)}, "differ in labels"),
        ({"images": np.zeros((4, 8, 8, 3), np.uint8)}, "images of shapes"),
        ({"latents": np.zeros((4, 3, 4, 4), np.float32)}, "latents of shapes"),
    ],
)
def test_sets_that_do_not_pair_are_refused(tmp_path, change, message):
    own = write(tmp_path / "a", [shard(0, 4)])
    other = write(tmp_path / "b", [dataclasses.replace(shard(0, 4), **change)])
    with pytest.raises(BenchError, match=message):
        paired_errors(own, other)


def test_other_shards_are_refused(tmp_path):
    two = write(tmp_path / "a", [shard(0, 2), shard(2, 2)])
    with pytest.raises(BenchError, match="2 shards cannot be paired with 1"):
        paired_errors(two, two[:1])
    longer = write(tmp_path / "b", [shard(0, 3)])
    with pytest.raises(BenchError, match="differ in index"):
        paired_errors(two[:1], longer)
    with pytest.raises(BenchError, match="starts with image 2, expected 0"):
        paired_errors(two[::-1], two[::-1])
