import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from hqdm_bench.common.errors import BenchError
from hqdm_bench.evaluate.clean_fid import clean_pool, resize_as_clean_fid
from hqdm_bench.evaluate.features import extract, read_features, write_features
from hqdm_bench.evaluate.frechet import frechet_distance
from hqdm_bench.evaluate.moments import Moments
from hqdm_bench.evaluate.reference import read_reference, reference_from_images, write_reference
from hqdm_bench.evaluate.scores import ReferenceSide, ScoreSettings, score_images
from hqdm_bench.evaluate.stand_in import random_pictures

pytestmark = pytest.mark.filterwarnings("ignore:'mode' parameter is deprecated")


@pytest.fixture(scope="module")
def images():
    return random_pictures(range(4), 40, 48, seed=5)


def test_the_resize_is_pillows_bicubic_on_floats(images):
    resized = resize_as_clean_fid(images)
    assert resized.shape == (4, 3, 299, 299)
    assert resized.dtype == torch.float32
    for channel in range(3):
        plane = Image.fromarray(images[1, :, :, channel].numpy().astype(np.float32))
        wanted = np.asarray(plane.resize((299, 299), Image.Resampling.BICUBIC)).clip(0, 255)
        assert np.array_equal(resized[1, channel], wanted)


def test_without_a_resize_the_network_sees_what_it_always_sees(inception):
    """At 299 pixels both resizes change nothing, so the two features must be the same."""
    images = random_pictures(range(2), 299, 299, seed=6)
    torch.testing.assert_close(
        clean_pool(inception, images), inception(images).pool, rtol=0, atol=1e-5
    )


def test_features_references_and_scores_carry_it(inception, images, toy_protocol, tmp_path):
    protocol = dataclasses.replace(
        toy_protocol, images=4, reference_images=4, pr_reference_images=4, clean_fid=True
    )
    features = extract(images.split(3), inception, "cell", 4, clean=True)
    assert features.clean.shape == (4, 2048)
    assert (features.clean - features.pool).abs().max() > 1e-3
    write_features(tmp_path / "features.safetensors", features)
    assert torch.equal(read_features(tmp_path / "features.safetensors").clean, features.clean)
    others = random_pictures(range(10, 14), 40, 48, seed=5)
    reference = reference_from_images(others.split(2), protocol, inception)
    write_reference(tmp_path / "reference.safetensors", reference)
    reference = read_reference(tmp_path / "reference.safetensors")
    side = ReferenceSide(None, None, None, reference.clean)
    scores = score_images(features.features, side, ScoreSettings(4, replicates=2), "cell")
    real = Moments.of(clean_pool(inception, others))
    wanted = frechet_distance(Moments.of(features.clean), real)
    assert scores.values["clean_fid"] == pytest.approx(wanted, rel=1e-6)
    assert scores.replicates["clean_fid"].shape == (2,)
    assert list(scores.values) == ["is", "is_shuffled", "clean_fid"]
    assert scores.bias.keys() == {"clean_fid"}


def test_other_extractors_have_none(toy, images):
    with pytest.raises(BenchError, match="not on 'toy'; set clean_fid: false"):
        clean_pool(toy, images)
