import subprocess
import sys
from pathlib import Path

import pytest

from hqdm_bench.cli import main

ROOT = Path(__file__).parents[2]
CELL = ["--model", "mini-imagenet", "--method", "hqdm", "--bits", "w4a4", "--root", str(ROOT)]


def error_of(capsys, *argv):
    assert main(argv) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    lines = captured.err.splitlines()
    assert len(lines) == 1
    return lines[0]


def test_help_has_examples(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert "examples:" in text
    assert "hqdm-bench train --suite mini" in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--method": "hadamard"}, "unknown method 'hadamard'"),
        ({"--bits": "w1a4"}, "w1a4 is not supported; weights take 2 to 8 bits"),
        ({"--bits": "4/4"}, "not of the form w4a4"),
        ({"--bits": "w2a8"}, "has no cell mini-imagenet/hqdm/w2a8/seed0"),
        ({"--model": "imagenet-mini"}, "unknown model 'imagenet-mini'"),
        ({"--model": "imagenet"}, "suite 'mini' has no model 'imagenet'"),
        ({"--suite": "maxi"}, "unknown suite 'maxi'"),
        ({"--root": "/nowhere"}, "/nowhere/config/models.yaml does not exist"),
    ],
)
@pytest.mark.parametrize("verb", ["train", "sample", "evaluate"])
def test_bad_options_are_one_line(capsys, verb, change, message):
    options = {
        "--suite": "mini",
        "--model": "mini-imagenet",
        "--method": "hqdm",
        "--bits": "w4a4",
        "--root": str(ROOT),
    } | change
    argv = [verb, *[word for pair in options.items() for word in pair]]
    assert message in error_of(capsys, *argv)


@pytest.mark.parametrize("images", ["0", "-3"])
def test_non_positive_image_count(capsys, images, tmp_path):
    line = error_of(
        capsys, "sample", "--suite", "mini", *CELL, "--images", images, "--output", str(tmp_path)
    )
    assert f"images is {images}; it must be positive" in line


def test_images_need_their_own_folder(capsys):
    line = error_of(capsys, "sample", "--suite", "mini", *CELL, "--images", "4")
    assert "--images needs --output" in line


def test_missing_inputs_are_named_with_their_command(capsys, tmp_path):
    (tmp_path / "config").symlink_to(ROOT / "config")
    options = ["--suite", "mini", *CELL[:-1], str(tmp_path)]
    for verb in ("train", "sample"):
        line = error_of(capsys, verb, *options)
        assert "teacher.safetensors does not exist; `snakemake" in line
    assert "shard0.npz does not exist" in error_of(capsys, "evaluate", *options)


def test_unknown_verb_lists_the_verbs(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["train-all"])
    assert stop.value.code == 2
    assert "invalid choice: 'train-all'" in capsys.readouterr().err


def test_list(capsys):
    assert main(["list", "methods", "--root", str(ROOT)]) == 0
    assert "hqdm-k3" in capsys.readouterr().out


def test_interrupt_says_that_nothing_is_lost(capsys, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("hqdm_bench.cli.plan.load_catalogue", stop)
    assert main(["plan", "mini"]) == 130
    assert "interrupted; nothing unfinished was kept" in capsys.readouterr().err


def test_catalogue_verbs_start_without_torch():
    code = (
        "import sys; from hqdm_bench.cli import main; "
        f"main(['list', 'suites', '--root', {str(ROOT)!r}]); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_missing_gpu_is_said(capsys, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    line = error_of(capsys, "sample", "--suite", "mini", *CELL, "--device", "cuda")
    assert "no CUDA device is visible" in line
