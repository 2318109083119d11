import dataclasses

import pytest
import torch

from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.tensors import read_tensors, write_tensors
from hqdm_bench.evaluate.features import extract
from hqdm_bench.evaluate.frechet import frechet_distance
from hqdm_bench.evaluate.moments import Gaussian, Moments, RunningMoments, streaming_moments
from hqdm_bench.evaluate.reference import (
    Reference,
    read_reference,
    reference_from_images,
    write_reference,
)
from hqdm_bench.evaluate.stand_in import random_pictures


@pytest.fixture(scope="module")
def pictures():
    return random_pictures(range(20), 32, 32, 0)


@pytest.fixture(scope="module")
def whole(pictures, toy):
    return extract([pictures], toy, "pictures", 20)


def test_moments_and_kept_features_are_those_of_all_features(pictures, whole, toy, toy_protocol):
    for size in (1, 3, 20):
        found = reference_from_images(pictures.split(size), toy_protocol, toy)
        for part in ("pool", "spatial"):
            wanted, gaussian = Moments.of(getattr(whole, part)), getattr(found, part)
            torch.testing.assert_close(gaussian.mean, wanted.mean, rtol=0, atol=1e-12)
            torch.testing.assert_close(gaussian.covariance, wanted.covariance, rtol=0, atol=1e-12)
            assert gaussian.mean.dtype == torch.float64
        torch.testing.assert_close(found.pr_pool, whole.pool[:6])
        assert (found.name, found.images, found.extractor) == ("pictures", 20, "toy")
        assert found.extractor_sha256 == toy.sha256
        assert found.source_sha256 == whole.images_sha256


@pytest.mark.parametrize("size", [1, 7, 20])
def test_chosen_images_are_kept_in_their_order(pictures, whole, toy, toy_protocol, size):
    chosen = torch.tensor([0, 2, 6, 7, 13, 19])
    found = reference_from_images(pictures.split(size), toy_protocol, toy, chosen)
    torch.testing.assert_close(found.pr_pool, whole.pool[chosen])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reference_images": 21}, "holds 20 images, expected 21"),
        ({"reference_images": 19}, "holds more than 19 images"),
        ({"pr_reference_images": 21}, "choose 1 to 20"),
        ({"pr_reference_images": 0}, "choose 1 to 20"),
        ({"reference_images": None}, "does not say how many images"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(pictures, toy, toy_protocol, change, message):
    protocol = dataclasses.replace(toy_protocol, **change)
    with pytest.raises(BenchError, match=message):
        reference_from_images(pictures.split(8), protocol, toy)


@pytest.mark.parametrize("images", [20, None])
def test_round_trip(pictures, toy, toy_protocol, tmp_path, images):
    path = tmp_path / "reference.safetensors"
    made = reference_from_images([pictures], toy_protocol, toy)
    reference = dataclasses.replace(made, images=images)
    write_reference(path, reference)
    back = read_reference(path)
    for field in dataclasses.fields(Reference):
        own, other = getattr(reference, field.name), getattr(back, field.name)
        if isinstance(own, Gaussian):
            assert torch.equal(own.mean, other.mean)
            assert torch.equal(own.covariance, other.covariance)
        else:
            assert torch.equal(own, other) if isinstance(own, torch.Tensor) else own == other
    distance = frechet_distance(back.pool, reference.pool)
    assert distance == pytest.approx(0, abs=1e-9)


def test_other_files_are_refused(pictures, toy, toy_protocol, tmp_path):
    path = tmp_path / "reference.safetensors"
    write_reference(path, reference_from_images([pictures], toy_protocol, toy))
    tensors, header = read_tensors(path)
    del tensors["spatial_mean"]
    write_tensors(path, tensors, header)
    with pytest.raises(BenchError, match="holds no reference .no 'spatial_mean'"):
        read_reference(path)


@pytest.mark.parametrize("block", [1, 5, 64, 4096])
def test_running_moments_do_not_depend_on_the_cut(block):
    points = torch.randn(101, 3, generator=torch.Generator().manual_seed(0))
    reference = Moments.of(points)
    found = []
    for size in (1, 8, 101):
        moments = RunningMoments(block)
        for batch in points.split(size):
            moments.update(batch)
        found.append(moments.result())
    for each in found:
        assert each.count == 101
        assert torch.equal(each.mean, found[0].mean)
        assert torch.equal(each.scatter, found[0].scatter)
    torch.testing.assert_close(found[0].mean, reference.mean, rtol=0, atol=1e-14)
    torch.testing.assert_close(found[0].scatter, reference.scatter, rtol=0, atol=1e-11)
    assert torch.equal(streaming_moments([points], block).scatter, found[0].scatter)
