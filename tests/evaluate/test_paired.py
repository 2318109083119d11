import dataclasses
import math

import numpy as np
import pytest
import torch

from hqdm_bench.common.errors import BenchError
from hqdm_bench.evaluate.paired import (
    PairedErrors,
    latent_errors,
    paired_errors,
    paired_replicates,
    peak_signal_to_noise,
)
from hqdm_bench.evaluate.structural_similarity import structural_similarity
from hqdm_bench.models import DDIM, NoiseSchedule
from hqdm_bench.sample import Samples, write_shard

SIDE = 12


def shard(first, count, seed=0):
    random = np.random.default_rng(seed)
    return Samples(
        random.integers(0, 200, (count, SIDE, SIDE, 3), dtype=np.uint8),
        np.arange(count, dtype=np.int64) % 3,
        np.arange(first, first + count, dtype=np.int64),
        random.normal(size=(count, 3, 2, 2)).astype(np.float32),
    )


@pytest.fixture(scope="module")
def paired_protocol(toy_protocol):
    """Seven images, no trace."""
    return dataclasses.replace(toy_protocol, images=7)


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


def plain_similarity(a, b):
    """Wang et al. 2004, window by window, of one channel."""
    weights = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    window = np.outer(weights, weights)
    window /= window.sum()
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    found = []
    for row in range(a.shape[0] - 10):
        for column in range(a.shape[1] - 10):
            x, y = (image[row : row + 11, column : column + 11].astype(float) for image in (a, b))
            mean_x, mean_y = (window * x).sum(), (window * y).sum()
            variance_x = (window * (x - mean_x) ** 2).sum()
            variance_y = (window * (y - mean_y) ** 2).sum()
            covariance = (window * (x - mean_x) * (y - mean_y)).sum()
            found.append(
                (2 * mean_x * mean_y + c1)
                * (2 * covariance + c2)
                / ((mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2))
            )
    return np.mean(found)


def test_similarity_is_the_published_formula():
    random = np.random.default_rng(3)
    a = random.integers(0, 256, (3, 17, 14, 3), dtype=np.uint8)
    b = np.clip(a + random.integers(-40, 40, a.shape), 0, 255).astype(np.uint8)
    b[2] = random.integers(0, 256, b[2].shape, dtype=np.uint8)
    found = structural_similarity(torch.from_numpy(a), torch.from_numpy(b)).numpy()
    wanted = [
        np.mean([plain_similarity(x[..., c], y[..., c]) for c in range(3)])
        for x, y in zip(a, b, strict=True)
    ]
    assert found == pytest.approx(wanted, abs=1e-12)
    assert found[2] < 0.2 < 0.6 < found[0] < 0.99
    assert structural_similarity(*(torch.from_numpy(a),) * 2).tolist() == pytest.approx([1] * 3)


def test_flat_images_have_a_closed_form():
    levels = torch.tensor([100, 130], dtype=torch.uint8)
    a, b = (level.expand(1, 11, 11, 3) for level in levels)
    c1 = (0.01 * 255) ** 2
    wanted = (2 * 100 * 130 + c1) / (100**2 + 130**2 + c1)
    assert float(structural_similarity(a, b)) == pytest.approx(wanted, rel=1e-9)
    with pytest.raises(BenchError, match="at least 11 x 11 pixels; these are 10 x 11"):
        structural_similarity(a[:, 1:], b[:, 1:])
    with pytest.raises(BenchError, match="cannot be compared"):
        structural_similarity(a, b[:, :, 1:])


def with_trace(part, rows, errors):
    """A trace whose step s is off by errors[s], and an equal one without errors."""
    base = np.zeros((rows, len(errors), 3, 2, 2), np.float32)
    shift = np.asarray(errors, np.float32)[:, None, None, None]
    scale = np.arange(1, rows + 1, dtype=np.float32)[:, None, None, None, None]
    return (
        dataclasses.replace(part, trace=base + scale * shift),
        dataclasses.replace(part, trace=base),
    )


def test_growth_along_the_trajectory(tmp_path, paired_protocol):
    protocol = dataclasses.replace(paired_protocol, steps=4, trace_images=3)
    own, other = with_trace(shard(0, 4), 3, [0.0, 0.5, 1.0, 2.0])
    paths = write(tmp_path / "a", [own, shard(4, 3)]), write(tmp_path / "b", [other, shard(4, 3)])
    found = paired_errors(*paths, protocol)
    assert found.growth == pytest.approx(np.outer([1, 4, 9], [0, 0.25, 1, 4]))
    growth = found.summary()["growth"]
    assert [entry["step"] for entry in growth] == [0, 1, 2, 3]
    ddim = DDIM.from_schedule(NoiseSchedule(0.0015, 0.0195), 4, 0.0)
    assert [entry["timestep"] for entry in growth] == ddim.timesteps.tolist()[::-1]
    means = [entry["latent_mse_mean"] for entry in growth]
    assert means == pytest.approx([0, 0.25 * 14 / 3, 14 / 3, 4 * 14 / 3])
    assert [entry["latent_mse_median"] for entry in growth] == pytest.approx([0, 1, 4, 16])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"trace_images": 4, "steps": 4}, r"\(3, 4\), protocol .* asks for \(4, 4\)"),
        ({"trace_images": 3, "steps": 5}, r"\(3, 4\), protocol .* asks for \(3, 5\)"),
    ],
)
def test_another_trace_than_the_protocols_is_refused(tmp_path, paired_protocol, change, message):
    own, other = with_trace(shard(0, 7), 3, [0.0, 0.5, 1.0, 2.0])
    protocol = dataclasses.replace(paired_protocol, **change)
    with pytest.raises(BenchError, match=message):
        paired_errors(write(tmp_path / "a", [own]), write(tmp_path / "b", [other]), protocol)


def test_a_trace_on_one_side_is_refused(tmp_path, paired_protocol):
    own, other = with_trace(shard(0, 7), 3, [0.0, 0.5])
    bare = dataclasses.replace(other, trace=None)
    with pytest.raises(BenchError, match=r"trace of shapes \(3, 2, 3, 2, 2\) and None"):
        paired_errors(write(tmp_path / "a", [own]), write(tmp_path / "b", [bare]), paired_protocol)


def test_a_trace_that_no_one_asks_for_is_left_alone(tmp_path, paired_protocol):
    own, other = with_trace(shard(0, 7), 3, [0.0, 0.5])
    paths = write(tmp_path / "a", [own]), write(tmp_path / "b", [other])
    assert "growth" not in paired_errors(*paths, paired_protocol).summary()


def test_replicates_are_those_of_the_drawn_images():
    values = np.array([1.0, 2.0, 4.0, 8.0])
    errors = PairedErrors(values, 10 * values, 0.1 * values)
    found = paired_replicates(errors, np.array([[0, 1, 2, 3], [3, 3, 0, 0], [2, 2, 2, 2]]))
    assert found["latent_mse_mean"].tolist() == [3.75, 4.5, 4]
    assert found["psnr_median"].tolist() == [30, 45, 40]
    assert found["ssim_mean"] == pytest.approx([0.375, 0.45, 0.4])
    assert set(found) == set(errors.summary())


def test_mean_and_median_over_all_shards(tmp_path, paired_protocol):
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
    paths = write(tmp_path / "a", moved), write(tmp_path / "b", base)
    found = paired_errors(*paths, paired_protocol).summary()
    ratios = [20 * math.log10(255 / level) for level in levels]
    assert found["psnr_mean"] == pytest.approx(np.mean(ratios), rel=1e-12)
    assert found["psnr_median"] == pytest.approx(20 * math.log10(255 / 8), rel=1e-12)
    assert found["latent_mse_mean"] == pytest.approx(np.mean(np.square(offsets)), rel=1e-5)
    assert found["latent_mse_median"] == pytest.approx(0.09, rel=1e-5)
    similar = [
        float(structural_similarity(*(torch.from_numpy(x.images[i : i + 1]) for x in pair)))
        for pair in zip(moved, base, strict=True)
        for i in range(len(pair[0]))
    ]
    assert found["ssim_mean"] == pytest.approx(np.mean(similar), rel=1e-12)
    assert found["ssim_median"] == pytest.approx(np.median(similar), rel=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.zeros(4, np.int64)}, "differ in labels"),
        ({"images": np.zeros((4, 16, 16, 3), np.uint8)}, "images of shapes"),
        ({"latents": np.zeros((4, 3, 4, 4), np.float32)}, "latents of shapes"),
    ],
)
def test_sets_that_do_not_pair_are_refused(tmp_path, paired_protocol, change, message):
    own = write(tmp_path / "a", [shard(0, 4)])
    other = write(tmp_path / "b", [dataclasses.replace(shard(0, 4), **change)])
    with pytest.raises(BenchError, match=message):
        paired_errors(own, other, paired_protocol)


def test_other_shards_are_refused(tmp_path, paired_protocol):
    two = write(tmp_path / "a", [shard(0, 2), shard(2, 2)])
    with pytest.raises(BenchError, match="2 shards cannot be paired with 1"):
        paired_errors(two, two[:1], paired_protocol)
    longer = write(tmp_path / "b", [shard(0, 3)])
    with pytest.raises(BenchError, match="differ in index"):
        paired_errors(two[:1], longer, paired_protocol)
    with pytest.raises(BenchError, match="starts with image 2, expected 0"):
        paired_errors(two[::-1], two[::-1], paired_protocol)
