"""Teachers can be trained on request instead of taken from the package; variants share them."""

import shutil
from pathlib import Path

import pytest
import yaml

from hqdm_bench.artefacts import embedded_weights
from hqdm_bench.catalogue import load_catalogue
from hqdm_bench.cli import main
from hqdm_bench.common.files import read_json, sha256_of
from hqdm_bench.models.mini import recipe_digest

ROOT = Path(__file__).parents[2]
OPTIONS = ["--suite", "smoke", "--model", "mini-bedrooms"]


@pytest.fixture
def tiny(tmp_path):
    """A project whose embedded models are trained for a few updates."""
    shutil.copytree(ROOT / "config", tmp_path / "config")
    path = tmp_path / "config" / "models.yaml"
    models = yaml.safe_load(path.read_text())
    for spec in models.values():
        if spec["source"] == "embedded":
            spec["teacher"] = {
                "seed": 0,
                "validation_images": 4,
                "first_stage": {"images": 16, "iterations": 3, "batch": 4, "learning_rate": 1e-3},
                "unet": {"images": 16, "iterations": 3, "batch": 4, "learning_rate": 1e-3},
            }
    path.write_text(yaml.safe_dump(models))
    return tmp_path


def test_trains_from_the_recipe_and_says_so(tiny, capsys):
    argv = ["teacher", *OPTIONS, "--root", str(tiny), "--teachers", "trained"]
    assert main(argv) == 0, capsys.readouterr().err
    folder = tiny / "results" / "smoke" / "mini-bedrooms"
    record = read_json(folder / "teacher.json")
    assert record["origin"] == "trained"
    assert record["recipe"]["unet"]["iterations"] == 3
    assert not (folder / "teacher-checkpoints").exists()
    first = sha256_of(folder / "teacher.safetensors")
    assert main(argv) == 0
    assert sha256_of(folder / "teacher.safetensors") == first


def test_shipped_weights_of_another_recipe_are_refused(tiny, capsys):
    assert main(["teacher", *OPTIONS, "--root", str(tiny)]) == 2
    assert "train them with --teachers trained" in capsys.readouterr().err
    assert not (tiny / "results").exists()


def test_a_variant_takes_the_weights_of_its_base(tmp_path, capsys):
    (tmp_path / "config").symlink_to(ROOT / "config")
    name = "mini-imagenet-outliers-4"
    argv = ["teacher", "--suite", "outliers", "--model", name, "--root", str(tmp_path)]
    assert main(argv) == 0, capsys.readouterr().err
    folder = tmp_path / "results" / "outliers" / name
    base = load_catalogue(ROOT).model("mini-imagenet")
    shipped = embedded_weights(base.name, recipe_digest(base))
    assert sha256_of(folder / "teacher.safetensors") == sha256_of(shipped)
    record = read_json(folder / "teacher.json")
    assert record["origin"] == "shipped"
    assert record["recipe_digest"] == recipe_digest(base)
    assert record["weights_of"] == base.name
    assert record["outliers"] == {"factor": 4, "share": 0.03, "seed": 0}


def test_a_trained_variant_is_its_base_trained(tiny, capsys):
    teachers = []
    for suite, name in (("smoke", "mini-imagenet"), ("outliers", "mini-imagenet-outliers-4")):
        argv = ["teacher", "--suite", suite, "--model", name, "--root", str(tiny)]
        assert main([*argv, "--teachers", "trained"]) == 0, capsys.readouterr().err
        teachers.append(tiny / "results" / suite / name / "teacher.safetensors")
    first, second = (sha256_of(path) for path in teachers)
    assert first == second


def test_a_published_checkpoint_is_not_trained(capsys):
    argv = ["teacher", "--suite", "paper", "--model", "imagenet", "--root", str(ROOT)]
    assert main(argv) == 2
    assert "is a published checkpoint, it is not trained here" in capsys.readouterr().err
