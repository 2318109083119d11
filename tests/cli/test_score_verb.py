"""Verbs score and export: anybody's archives, and our shards as one of them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from hqdm_bench.artefacts import embedded_weights
from hqdm_bench.catalogue import Bits, Cell, Layout, load_catalogue
from hqdm_bench.cli import main
from hqdm_bench.common.files import sha256_of
from hqdm_bench.evaluate.class_scores import inception_score
from hqdm_bench.evaluate.extractors import MiniExtractor
from hqdm_bench.evaluate.features import extract
from hqdm_bench.evaluate.frechet import frechet_distance
from hqdm_bench.evaluate.frechet_bias import fid_infinity, frechet_bias
from hqdm_bench.evaluate.inception import PUBLISHED_SHA256, InceptionExtractor, convert_inception
from hqdm_bench.evaluate.kernel import kernel_distance
from hqdm_bench.evaluate.moments import Moments
from hqdm_bench.evaluate.neighbours import precision_recall
from hqdm_bench.evaluate.stand_in import (
    random_pictures,
    write_stand_in_batch,
    write_stand_in_inception,
)
from hqdm_bench.models.mini import ClassifierRecipe
from hqdm_bench.sample import Samples, write_shard

ROOT = Path(__file__).parents[2]
MINI = ("--extractor", "mini-classifier")


@pytest.fixture(scope="module")
def extractor():
    return MiniExtractor(embedded_weights("mini-classifier", ClassifierRecipe().digest))


@pytest.fixture
def archives(tmp_path):
    """40 generated images of four classes in turn, 50 real ones."""
    paths = tmp_path / "generated.npz", tmp_path / "reference.npz"
    np.savez(paths[0], random_pictures(range(40), 32, 32, 1).numpy(), np.arange(40) % 4)
    np.savez(paths[1], random_pictures(range(50), 32, 32, 2).numpy())
    return paths


def features(path, extractor):
    with np.load(path) as file:
        images = torch.from_numpy(file["arr_0"])
    return extract([images], extractor, path.name, len(images))


def test_values_are_those_of_the_functions(archives, extractor, tmp_path, capsys):
    out = tmp_path / "scores" / "out.json"
    more = ("--split-size", "16", "--kid", "--fid-infinity", "--bootstrap", "20", "--batch", "7")
    assert main(["score", *map(str, archives), *MINI, *more, "--json", str(out)]) == 0
    made, real = (features(path, extractor) for path in archives)
    found = json.loads(out.read_text())
    shares = precision_recall(made.pool, real.pool)
    assert found["values"] == {
        "fid": pytest.approx(frechet_distance(made.pool, real.pool), rel=1e-4),
        "sfid": pytest.approx(frechet_distance(made.spatial, real.spatial), rel=1e-4),
        "is": pytest.approx(inception_score(made.logits, 16), rel=1e-4),
        "is_shuffled": pytest.approx(inception_score(made.logits, 16, "shuffled"), rel=1e-4),
        "kid": pytest.approx(kernel_distance(made.pool, real.pool), abs=1e-6),
        "precision": shares.precision,
        "recall": shares.recall,
    }
    bias = frechet_bias(Moments.of(real.pool).gaussian, 40)
    assert found["bias"]["fid"] == pytest.approx(bias, rel=1e-4)
    fit = fid_infinity(made.pool, real.pool)
    assert found["fid_infinity"]["intercept"] == pytest.approx(fit.intercept, rel=1e-3)
    low, high = found["intervals"]["fid"]
    assert low < found["values"]["fid"]
    assert found["standard_errors"]["fid"] > 0
    assert (found["split_size"], found["k"], found["replicates"]) == (16, 3, 20)
    assert found["extractor"] == {"name": "mini-classifier", "sha256": extractor.sha256}
    assert found["generated"]["images"] == 40
    assert found["reference"] == {"name": "reference.npz", "images": 50, "stored_moments": []}
    page = capsys.readouterr().out
    assert "FID-like ↓" in page
    assert "KID-like ↓" in page
    assert "shuffled IS-like ↑" in page
    assert "Precision ↑ (%, mini features)" in page
    assert f"{found['values']['fid']:.4f}" in page
    assert f"{low:.4f} to {high:.4f}" in page
    assert f"{bias:.4f}" in page
    assert "of infinitely many images" in page
    assert "warning: 40 images: a Frechet distance of 40 images is another quantity" in page
    assert "last split of IS holds 8 images" in page
    assert "sorted by class" not in page


def test_sorted_labels_are_told(archives, capsys):
    generated, reference = archives
    with np.load(generated) as file:
        images = file["arr_0"]
    np.savez(generated, images, np.repeat([3, 1, 2, 0], 10))
    assert main(["score", str(generated), str(reference), *MINI, "--split-size", "10"]) == 0
    assert "warning: images are sorted by class (arr_1)" in capsys.readouterr().out
    assert main(["score", str(generated), str(reference), *MINI]) == 0  # one split holds them all
    assert "sorted by class" not in capsys.readouterr().out


def test_images_of_two_sizes_are_told(archives, tmp_path, capsys):
    other = tmp_path / "other.npz"
    np.savez(other, random_pictures(range(50), 64, 64, 2).numpy())
    assert main(["score", str(archives[0]), str(other), *MINI]) == 0
    text = "warning: generated images are 32 x 32, those of the reference 64 x 64"
    assert text in capsys.readouterr().out
    assert main(["score", *map(str, archives), *MINI]) == 0
    assert "those of the reference" not in capsys.readouterr().out


def test_a_set_against_itself_is_at_zero_without_a_sign(archives, capsys):
    assert main(["score", str(archives[0]), str(archives[0]), *MINI]) == 0
    page = capsys.readouterr().out
    assert "0.0000" in page
    assert "-0.0000" not in page


def scores_of(tmp_path, *arguments):
    out = tmp_path / "out.json"
    assert main(["score", *map(str, arguments), "--json", str(out)]) == 0
    return json.loads(out.read_text())


def test_stored_moments_are_used_and_may_stand_alone(archives, extractor, tmp_path):
    generated, _ = archives
    batch = tmp_path / "batch.npz"
    write_stand_in_batch(batch, extractor, images=50, resolution=32, seed=3)
    with np.load(batch) as file:
        arrays = dict(file)
    arrays["mu"] = arrays["mu"] + 0.5  # others than the images'
    np.savez(batch, **arrays)
    found = scores_of(tmp_path, generated, batch, *MINI)
    made, real = features(generated, extractor), features(batch, extractor)
    moments = Moments.of(real.pool)
    shifted = Moments(moments.count, moments.mean + 0.5, moments.scatter)
    assert found["values"]["fid"] == pytest.approx(frechet_distance(made.pool, shifted), rel=1e-3)
    assert found["values"]["precision"] == precision_recall(made.pool, real.pool).precision
    assert found["reference"]["stored_moments"] == ["fid", "sfid"]

    np.savez(tmp_path / "alone.npz", **{key: arrays[key] for key in ("mu", "sigma")})
    alone = scores_of(tmp_path, generated, tmp_path / "alone.npz", *MINI)
    assert alone["values"]["fid"] == pytest.approx(found["values"]["fid"], rel=1e-9)
    assert alone["values"].keys() == {"fid", "is", "is_shuffled"}
    assert alone["reference"]["images"] == 0


def test_moments_with_generated_images_are_not_used(archives, extractor, tmp_path, capsys):
    generated, reference = archives
    plain = scores_of(tmp_path, generated, reference, *MINI)
    with np.load(generated) as file:
        np.savez(generated, mu=np.zeros(64), sigma=np.eye(64), **file)
    found = scores_of(tmp_path, generated, reference, *MINI)
    assert found["values"] == plain["values"]
    assert "holds moments (mu), which the ADM evaluator would take" in capsys.readouterr().out


def test_inception_comes_from_a_file_that_is_checked(archives, tmp_path, capsys):
    assert load_catalogue(ROOT).artefact("inception").sha256 == PUBLISHED_SHA256
    command = ["score", *map(str, archives)]
    assert main(command) == 2
    assert "not downloaded unasked; `hqdm-bench fetch inception`" in capsys.readouterr().err
    weights = tmp_path / "weights.pth"
    write_stand_in_inception(weights, seed=0)
    assert main([*command, "--weights", str(weights)]) == 2
    assert f"expected {PUBLISHED_SHA256}" in capsys.readouterr().err
    sha256 = sha256_of(weights)
    converted = tmp_path / "inception.safetensors"
    convert_inception(weights, sha256, converted)
    assert main([*command, "--weights", str(converted)]) == 2
    assert f"weights of sha256 {sha256}, expected {PUBLISHED_SHA256}" in capsys.readouterr().err
    found = [
        scores_of(tmp_path, *archives, "--weights", path, "--sha256", sha256)
        for path in (weights, converted)
    ]
    assert found[0] == found[1]
    assert found[0]["extractor"] == {"name": "inception", "sha256": sha256}
    page = capsys.readouterr().out
    assert "FID ↓" in page
    assert "FID-like" not in page
    made, real = (features(path, InceptionExtractor(converted)) for path in archives)
    wanted = frechet_distance(made.pool, real.pool)
    assert found[0]["values"]["fid"] == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.npz", "{reference}"], "missing.npz does not exist"),
        (["{generated}", "{cut}"], "cut.npz is not a whole .npz"),
        (["{generated}", "{other}"], "holds neither images (arr_0) nor moments"),
        (["{other}", "{reference}"], "holds no images under arr_0; there is nothing to score"),
        (["{single}", "{reference}"], "single.npz holds one image; a covariance needs"),
        (["{generated}", "{single}"], "single.npz holds one image; a covariance needs"),
        (["{generated}", "{wide}"], "features of this extractor need floats of shape (64,)"),
        (["{generated}", "{reference}", "--k", "60"], "need at least 61 generated images"),
        (["{generated}", "{reference}", "--k", "0"], "--k is 0"),
        (["{generated}", "{reference}", "--bootstrap", "1"], "at least 2 replicates"),
        (["{generated}", "{reference}", "--clean-fid"], "clean-fid is defined on Inception"),
    ],
)
def test_one_message_for_what_cannot_be_scored(archives, tmp_path, capsys, arguments, message):
    generated, reference = archives
    names = {"generated": generated, "reference": reference}
    for name in ("cut", "other", "wide", "single"):
        names[name] = tmp_path / f"{name}.npz"
    names["cut"].write_bytes(reference.read_bytes()[:1000])
    np.savez(names["other"], images=np.zeros(3))
    np.savez(names["single"], random_pictures(range(1), 32, 32, 1).numpy())
    np.savez(names["wide"], mu=np.zeros(2048), sigma=np.eye(2048))
    assert main(["score", *(text.format(**names) for text in arguments), *MINI]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert message in error


def test_a_cell_becomes_an_archive(tmp_path, capsys):
    shutil.copytree(ROOT / "config", tmp_path / "config")
    cell = Cell("smoke", "mini-imagenet", "fp", Bits(32, 32), 0, "smoke-imagenet")
    layout = Layout(tmp_path)
    pictures = random_pictures(range(32), 32, 32, 0).numpy()
    target = tmp_path / "out" / "cell.npz"
    command = ["export", "--root", str(tmp_path), "--suite", "smoke", "--model", "mini-imagenet"]
    command += ["--method", "fp", "--bits", "w32a32", "--output", str(target)]
    assert main(command) == 2
    assert "shard0.npz does not exist; `snakemake " in capsys.readouterr().err
    for shard, rows in enumerate((slice(0, 16), slice(16, 32))):
        index = np.arange(32)[rows]
        latents = np.zeros((16, 3, 8, 8), np.float32)
        write_shard(layout.shard(cell, shard), Samples(pictures[rows], index % 3, index, latents))
    assert main(command) == 0
    with np.load(target) as file:
        assert sorted(file) == ["arr_0", "arr_1"]
        assert np.array_equal(file["arr_0"], pictures)
        assert file["arr_1"].tolist() == [i % 3 for i in range(32)]
    assert main([*command[:-1], "cell.npy"]) == 2
    assert "ends in .npz" in capsys.readouterr().err
