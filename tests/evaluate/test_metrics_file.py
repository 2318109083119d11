import dataclasses
import json

import numpy as np
import pytest
import torch

from hqdm_bench.catalogue import Bits, Cell, Protocol
from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.files import sha256_of
from hqdm_bench.evaluate.bootstrap import draw_images, read_replicates
from hqdm_bench.evaluate.class_scores import inception_score
from hqdm_bench.evaluate.extractors import Features, MiniExtractor, load_extractor
from hqdm_bench.evaluate.features import (
    extract,
    read_features,
    sample_features,
    write_features,
)
from hqdm_bench.evaluate.frechet import frechet_distance
from hqdm_bench.evaluate.frechet_bias import frechet_bias
from hqdm_bench.evaluate.kernel import kernel_distance
from hqdm_bench.evaluate.metrics import distribution_metrics, measure, write_metrics
from hqdm_bench.evaluate.moments import Moments
from hqdm_bench.evaluate.neighbours import covered, precision_recall, squared_radii
from hqdm_bench.evaluate.paired import PairedErrors
from hqdm_bench.evaluate.reference import reference_from_images
from hqdm_bench.models.mini.classifier import ClassifierRecipe, initialised, save_classifier
from hqdm_bench.sample import Samples, write_shard

IMAGES, REFERENCES = 24, 40
PAIRED = PairedErrors(*(np.linspace(0, top, IMAGES) for top in (0.1, 30.0, 1.0)))


@pytest.fixture(scope="module")
def extractor(tmp_path_factory):
    path = tmp_path_factory.mktemp("extractor") / "extractor.safetensors"
    save_classifier(initialised(ClassifierRecipe()), path, {})
    return load_extractor("mini-classifier", path)


@pytest.fixture(scope="module")
def protocol():
    return Protocol(
        name="mini20",
        steps=20,
        eta=0.0,
        guidance=1.5,
        labels="balanced",
        order="shuffled",
        rounding="nearest",
        images=IMAGES,
        batch=4,
        shards=2,
        seed=0,
        reference="scenes",
        reference_images=REFERENCES,
        pr_reference_images=20,
        extractor="mini-classifier",
        is_split=12,
        pr_k=3,
    )


def pixels(count, seed):
    random = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 32, 32, 3), generator=random, dtype=torch.uint8)


@pytest.fixture(scope="module")
def samples(extractor, protocol):
    return extract(pixels(IMAGES, 0).split(4), extractor, "cell", IMAGES)


@pytest.fixture(scope="module")
def reference(extractor, protocol):
    return reference_from_images(pixels(REFERENCES, 1).split(16), protocol, extractor)


@pytest.fixture(scope="module")
def real(extractor):
    """Features of the same reference images, all of them kept."""
    return extract(pixels(REFERENCES, 1).split(16), extractor, "scenes", REFERENCES)


def cell(method="hqdm", bits="w4a4"):
    return Cell("mini", "mini-imagenet", method, Bits.parse(bits), 0, "mini20")


def test_the_extractor_gives_what_the_classifier_gives(tmp_path):
    classifier = initialised(ClassifierRecipe())
    path = tmp_path / "extractor.safetensors"
    save_classifier(classifier, path, {})
    extractor = MiniExtractor(path)
    images = pixels(5, 2)
    found = extractor(images)
    with torch.no_grad():
        wanted = classifier.eval()(images)
    assert isinstance(found, Features)
    assert [part.shape[1] for part in found[:3]] == [64, 448, 12]
    assert found.clean is None
    for part, other in zip(found[:3], wanted, strict=True):
        assert torch.equal(part, other)
        assert not part.requires_grad
    assert extractor.sha256 == sha256_of(path)


def test_an_unknown_extractor_names_the_known(tmp_path):
    with pytest.raises(BenchError, match=r"no feature extractor 'vgg'.*inception, mini-classifier"):
        load_extractor("vgg", tmp_path / "x")


def write_shards(folder, images, cuts):
    paths = []
    for number, (start, stop) in enumerate(cuts):
        index = np.arange(start, stop, dtype=np.int64)
        latents = np.zeros((len(index), 3, 8, 8), np.float32)
        paths.append(folder / f"shard{number}.npz")
        write_shard(paths[-1], Samples(images[start:stop].numpy(), index % 3, index, latents))
    return paths


def test_features_do_not_depend_on_the_shards(extractor, protocol, samples, tmp_path):
    images = pixels(IMAGES, 0)
    for cuts in ([(0, 24)], [(0, 8), (8, 12), (12, 24)]):
        paths = write_shards(tmp_path, images, cuts)
        found = sample_features(paths, protocol, extractor, "cell")
        for name in ("pool", "spatial", "logits", "index"):
            assert torch.equal(getattr(found, name), getattr(samples, name))
        assert found.images_sha256 == samples.images_sha256
    changed = images.clone()
    changed[-1, -1, -1, -1] ^= 1
    paths = write_shards(tmp_path, changed, [(0, 24)])
    assert sample_features(paths, protocol, extractor, "cell").images_sha256 != (
        samples.images_sha256
    )


def test_an_incomplete_set_is_refused(extractor, protocol, tmp_path):
    paths = write_shards(tmp_path, pixels(IMAGES, 0), [(0, 8), (8, 12)])
    with pytest.raises(BenchError, match="holds 12 images, expected 24"):
        sample_features(paths, protocol, extractor, "cell")
    with pytest.raises(BenchError, match="expected 40"):
        reference_from_images([], protocol, extractor)
    with pytest.raises(BenchError, match="uint8"):
        reference_from_images([torch.zeros(2, 3, 32, 32)], protocol, extractor)
    with pytest.raises(BenchError, match="more than 24 images"):
        extract(pixels(25, 0).split(5), extractor, "cell", IMAGES)


def test_features_round_trip(samples, tmp_path):
    path = tmp_path / "features.safetensors"
    write_features(path, samples)
    back = read_features(path)
    for field in dataclasses.fields(samples):
        own, other = getattr(samples, field.name), getattr(back, field.name)
        assert torch.equal(own, other) if isinstance(own, torch.Tensor) else own == other


def test_files_that_are_no_features_are_refused(samples, tmp_path):
    path = tmp_path / "other.safetensors"
    save_classifier(initialised(ClassifierRecipe()), path, {})
    with pytest.raises(BenchError, match="holds no features"):
        read_features(path)
    write_features(path, dataclasses.replace(samples, index=samples.index + 1))
    with pytest.raises(BenchError, match="gaps"):
        read_features(path)


def test_values_are_those_of_the_metric_functions(protocol, samples, reference, real):
    scores = distribution_metrics(protocol, samples, reference)
    points = real.pool[:20]
    fid = frechet_distance(Moments.of(samples.pool), Moments.of(real.pool))
    sfid = frechet_distance(Moments.of(samples.spatial), Moments.of(real.spatial))
    assert scores.values == {
        "fid": pytest.approx(fid, rel=1e-9),
        "sfid": pytest.approx(sfid, rel=1e-9),
        "is": inception_score(samples.logits, 12),
        "is_shuffled": inception_score(samples.logits, 12, "shuffled"),
        "kid": pytest.approx(kernel_distance(samples.pool, points), abs=1e-7),
        "precision": precision_recall(samples.pool, points, 3).precision,
        "recall": precision_recall(samples.pool, points, 3).recall,
    }
    assert scores.bias == {
        "fid": pytest.approx(frechet_bias(reference.pool, IMAGES), rel=1e-9),
        "sfid": pytest.approx(frechet_bias(reference.spatial, IMAGES), rel=1e-9),
    }
    assert scores.replicates == {}
    assert scores.standard_errors == dict.fromkeys(scores.values)


def test_replicates_are_the_metrics_of_drawn_images(protocol, samples, reference, real):
    protocol = dataclasses.replace(protocol, bootstrap=3)
    scores = distribution_metrics(protocol, samples, reference)
    assert scores.replicates.keys() == scores.values.keys()
    draws, others = draw_images(IMAGES, 3), draw_images(20, 3, "reference")
    points = real.pool[:20]
    inside = covered(samples.pool, points, squared_radii(points, 3))
    around = covered(points, samples.pool, squared_radii(samples.pool, 3))
    for number, (rows, drawn) in enumerate(zip(draws, others, strict=True)):
        wanted = {
            "fid": frechet_distance(samples.pool[rows], reference.pool),
            "sfid": frechet_distance(samples.spatial[rows], reference.spatial),
            "is": inception_score(samples.logits[rows.sort().values], 12),
            "is_shuffled": inception_score(samples.logits[rows], 12),
            "precision": float(inside[rows].double().mean()),
            "recall": float(around[drawn].double().mean()),
        }
        for key, value in wanted.items():
            assert float(scores.replicates[key][number]) == pytest.approx(value, rel=1e-5)
    errors = scores.standard_errors
    assert errors["fid"] == pytest.approx(float(scores.replicates["fid"].std()), rel=1e-12)
    assert all(error >= 0 for error in errors.values())


def test_two_cells_have_the_same_images_drawn(protocol, samples, reference):
    """So that the difference of their replicates is the bootstrap of their difference."""
    protocol = dataclasses.replace(protocol, bootstrap=40)
    first = distribution_metrics(protocol, samples, reference).replicates["fid"]
    near = dataclasses.replace(samples, pool=samples.pool * 1.01)
    second = distribution_metrics(protocol, near, reference).replicates["fid"]
    assert (first - second).std() < 0.1 * first.std()


def test_the_files_hold_every_number_and_the_whole_protocol(
    protocol, samples, reference, extractor, tmp_path
):
    protocol = dataclasses.replace(protocol, bootstrap=5)
    path, beside = tmp_path / "metrics.json", tmp_path / "replicates.safetensors"
    write_metrics(path, beside, measure(cell(), protocol, samples, reference, PAIRED))
    report = json.loads(path.read_text())
    assert report["cell"] == {
        "suite": "mini",
        "model": "mini-imagenet",
        "method": "hqdm",
        "bits": "w4a4",
        "seed": 0,
        "protocol": "mini20",
    }
    assert Protocol(**report["protocol"]) == protocol
    assert report["extractor"] == {"name": "mini-classifier", "sha256": extractor.sha256}
    assert report["images"] == IMAGES
    keys = ["fid", "sfid", "is", "is_shuffled", "kid", "precision", "recall"]
    assert list(report["values"]) == keys
    assert list(report["standard_errors"]) == keys
    assert list(report["bias"]) == ["fid", "sfid"]
    assert report["paired"] == {
        "latent_mse_mean": pytest.approx(0.05),
        "latent_mse_median": pytest.approx(0.05),
        "psnr_mean": pytest.approx(15),
        "psnr_median": pytest.approx(15),
        "ssim_mean": pytest.approx(0.5),
        "ssim_median": pytest.approx(0.5),
    }
    assert report["images_sha256"] == samples.images_sha256
    assert report["engine"] is None  # nothing was recorded beside these images
    assert list(report) == [
        "cell",
        "protocol",
        "extractor",
        "images",
        "values",
        "standard_errors",
        "bias",
        "paired",
        "images_sha256",
        "engine",
    ]
    replicates = read_replicates(beside)
    assert set(replicates) == {*keys, *report["paired"]}
    assert all(value.shape == (5,) for value in replicates.values())
    for key, error in report["standard_errors"].items():
        assert error == pytest.approx(float(replicates[key].std()), rel=1e-12)


def test_without_a_bootstrap_the_replicates_are_empty(protocol, samples, reference, tmp_path):
    path, beside = tmp_path / "metrics.json", tmp_path / "replicates.safetensors"
    write_metrics(path, beside, measure(cell(), protocol, samples, reference, PAIRED))
    assert set(json.loads(path.read_text())["standard_errors"].values()) == {None}
    assert read_replicates(beside) == {}


def test_full_precision_is_not_paired_with_itself(protocol, samples, reference):
    baseline = cell("fp", "w32a32")
    assert measure(baseline, protocol, samples, reference, None).asdict()["paired"] is None
    with pytest.raises(BenchError, match="quantized"):
        measure(baseline, protocol, samples, reference, PAIRED)
    with pytest.raises(BenchError, match="quantized"):
        measure(cell(), protocol, samples, reference, None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reference": "others"}, "asks for reference 'others'"),
        ({"images": 25}, "25 sample images, got 24"),
        ({"reference_images": 41}, "41 reference images, got 40"),
        ({"reference_images": None}, "the publisher's number of reference images, got 40"),
        ({"pr_reference_images": 19}, "19 reference images for precision and recall, got 20"),
        ({"pr_k": 20}, "at least 21 reference images"),
        ({"extractor": "inception"}, "asks for extractor 'inception'"),
        ({"clean_fid": True}, "asks for clean-fid's distance, which reference 'scenes'"),
        ({"name": "other"}, "scored under 'mini20'"),
    ],
)
def test_contradictions_are_refused(protocol, samples, reference, change, message):
    with pytest.raises(BenchError, match=message):
        measure(cell(), dataclasses.replace(protocol, **change), samples, reference, PAIRED)


def test_a_published_batch_does_not_say_its_number_of_images(protocol, samples, reference):
    published = dataclasses.replace(reference, images=None)
    by_moments = dataclasses.replace(protocol, reference_images=None)
    values = distribution_metrics(by_moments, samples, published).values
    assert values == distribution_metrics(protocol, samples, reference).values
    with pytest.raises(BenchError, match="40 reference images, got the publisher's number"):
        distribution_metrics(protocol, samples, published)


def test_features_of_different_weights_are_refused(protocol, samples, reference):
    other = dataclasses.replace(reference, extractor_sha256="0" * 64)
    with pytest.raises(BenchError, match="different weights"):
        distribution_metrics(protocol, samples, other)
