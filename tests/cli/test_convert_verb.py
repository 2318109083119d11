"""The verb `convert`: a checkpoint of the catalogue becomes a teacher."""

import shutil
from pathlib import Path

import pytest
import yaml

from hqdm_bench.catalogue import load_catalogue
from hqdm_bench.cli import main
from hqdm_bench.common.tensors import read_metadata
from hqdm_bench.models.checkpoint import load_latent_diffusion
from hqdm_bench.models.stand_in import write_stand_in_checkpoint

ROOT = Path(__file__).parents[2]
WIDTH = {"model_channels": 32, "num_res_blocks": 1}


@pytest.fixture
def project(tmp_path):
    """The real catalogue with the three models made narrow."""
    shutil.copytree(ROOT / "config", tmp_path / "config")
    path = tmp_path / "config" / "models.yaml"
    models = yaml.safe_load(path.read_text())
    for model in models.values():
        if model["source"] == "checkpoint":
            model["unet"] |= WIDTH
            model["first_stage"]["ddconfig"] |= {"ch": 32, "num_res_blocks": 1}
    path.write_text(yaml.safe_dump(models))
    return tmp_path


def convert(project, model, *options, suite="paper"):
    return main(
        ["convert", "--suite", suite, "--model", model, "--root", str(project), *map(str, options)]
    )


@pytest.mark.parametrize(
    ("model", "file", "style", "words"),
    [
        ("imagenet", "cin256-v2.ckpt", "bare", "raw weights (model.*, no EMA)"),
        ("churches", "lsun_churches.zip", "zip", "averaged weights (model_ema.*)"),
    ],
)
def test_the_fetched_file_becomes_the_teacher(project, capsys, model, file, style, words):
    spec = load_catalogue(project).models[model]
    source = project / "artefacts" / file
    write_stand_in_checkpoint(spec, source, seed=0, style=style)
    assert convert(project, model) == 0
    target = project / "results" / "paper" / model / "teacher.safetensors"
    load_latent_diffusion(spec, target)
    assert read_metadata(target)["source"] == file
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith(f"{model}: {words}; ")
    assert "parameters: unet " in line
    assert line.endswith(f"from {source} to {target}")
    assert [path.name for path in target.parent.iterdir()] == ["teacher.safetensors"]


def test_a_named_copy_and_a_named_target(project, capsys):
    spec = load_catalogue(project).models["imagenet"]
    source, target = project / "copy.ckpt", project / "elsewhere" / "model.safetensors"
    write_stand_in_checkpoint(spec, source, seed=0)
    assert convert(project, "imagenet", "--from", source, "--output", target) == 0
    load_latent_diffusion(spec, target)
    assert not (project / "results").exists()


@pytest.mark.parametrize(
    ("suite", "model", "options", "words"),
    [
        (
            "mini",
            "mini-imagenet",
            [],
            "is embedded, it has no checkpoint to convert; `hqdm-bench t",
        ),
        (
            "paper",
            "imagenet",
            [],
            "cin256-v2.ckpt does not exist; `hqdm-bench fetch ldm4-imagenet`",
        ),
        ("paper", "bedrooms", ["--from", "no.ckpt"], "no.ckpt does not exist; name the check"),
    ],
)
def test_what_cannot_be_converted_is_one_line(project, capsys, suite, model, options, words):
    assert convert(project, model, *options, suite=suite) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line


def test_another_models_checkpoint_is_one_line_and_leaves_nothing(project, capsys):
    specs = load_catalogue(project).models
    source = project / "artefacts" / "cin256-v2.ckpt"
    write_stand_in_checkpoint(specs["bedrooms"], source, seed=0)
    assert convert(project, "imagenet") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "is not this model" in line
    assert not list((project / "results").rglob("*.*"))


def test_another_file_than_the_recorded_one_is_not_converted(project, capsys):
    """A file put there by hand is checked like a download, and one of another digest set aside."""
    spec = load_catalogue(project).models["imagenet"]
    source = project / "artefacts" / "cin256-v2.ckpt"
    write_stand_in_checkpoint(spec, source, seed=0)
    assert convert(project, "imagenet") == 0
    write_stand_in_checkpoint(spec, source, seed=1)
    target = project / "results" / "paper" / "imagenet" / "teacher.safetensors"
    before = target.read_bytes()
    assert convert(project, "imagenet") == 2
    assert "sha256" in capsys.readouterr().err
    assert target.read_bytes() == before
    assert not source.exists()
