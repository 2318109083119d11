"""docs/add-a-method.md: its examples pass the contract, in a suite and as stages."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

import hqdm_bench
import hqdm_bench.distill
from hqdm_bench.catalogue import Bits, Scale, load_catalogue
from hqdm_bench.cli import main
from hqdm_bench.distill import post_training
from hqdm_bench.methods import CorrectNoise, Student, get_method

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "add-a-method.md").read_text()
# Loaded by pytest before it collects: the one new file joins the methods package.
PLUGIN = "import hqdm_bench.methods\nhqdm_bench.methods.__path__.append({folder!r})\n"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.M | re.S)


def install(folder: Path) -> None:
    """The two methods, by the names that the page gives their files."""
    trained, calibrated, *_ = blocks("python")
    names = re.findall(r"src/hqdm_bench/methods/(\w+\.py)", PAGE)
    for name, example in zip(names, (trained, calibrated), strict=True):
        (folder / name).write_text(example)


def test_the_examples_are_short_and_new() -> None:
    assert all(len(example.splitlines()) < 60 for example in blocks("python"))
    taken = {path.stem for path in (ROOT / "src/hqdm_bench/methods").iterdir()}
    assert taken.isdisjoint({"shifted", "bias_corrected"})
    assert not (ROOT / "src/hqdm_bench/distill/bias_correction.py").exists()


def test_the_examples_pass_every_test_of_the_contract(tmp_path: Path) -> None:
    folder = tmp_path / "methods"
    folder.mkdir()
    install(folder)
    (tmp_path / "with_the_example.py").write_text(PLUGIN.format(folder=str(folder)))
    tests = [str(path) for path in sorted((ROOT / "tests/methods").glob("test_contract*.py"))]
    command = [sys.executable, "-m", "pytest", *tests, "-p", "with_the_example"]
    command += [
        "-p",
        "no:cacheprovider",
        "-k",
        "[shifted or [bias_corrected or every_value",
        "-rA",
        "--tb=short",
    ]
    paths = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    passed = re.findall(
        r"^PASSED .*::(\w+)(?:\[((?:shifted|bias_corrected)[^\]]*)\])?$", done.stdout, re.M
    )
    sources = [Path(path).read_text() for path in tests]
    assert {name for name, _ in passed} == set(
        re.findall(r"^def (test_\w+)", "\n".join(sources), re.M)
    )
    cases = {case for _, case in passed if case}
    assert {"shifted", "bias_corrected"} <= cases
    assert any("integer" in case for case in cases)


def test_the_example_quantizes_any_module(extra_methods: Path) -> None:
    """What it says it does: of inputs that are all mean, nothing is lost."""
    install(extra_methods)
    module = nn.Sequential(*(nn.Linear(8, 8) for _ in range(6)))
    student = hqdm_bench.quantize(module, "shifted", "w4a4", policy="full", zero_point="integer")
    x = torch.randn(1, 8, generator=torch.Generator().manual_seed(1)).expand(5, 8) + 3
    hqdm_bench.calibrate(student, [(x,)])
    layer = student.quantized_layers()["0"]
    exact = nn.functional.linear(x, layer.weight(), module[0].bias)
    torch.testing.assert_close(layer(x), exact, rtol=0, atol=1e-5)


def test_the_entry_and_the_suite_are_valid(
    tmp_path: Path, extra_methods: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    install(extra_methods)
    root = tmp_path / "project"
    shutil.copytree(ROOT / "config", root / "config")
    entry, suite, calibrated = blocks("yaml")
    assert entry.startswith("# config/methods.yaml\n")
    assert calibrated.startswith("# config/methods.yaml\n")
    assert suite.startswith("# config/suites/shifted.yaml\n")
    with (root / "config/methods.yaml").open("a") as catalogue:
        catalogue.write(entry + calibrated)
    (root / "config/suites/shifted.yaml").write_text(suite)
    loaded = load_catalogue(root)
    spec = loaded.method("shifted")
    options = get_method(spec.implementation).options.read(spec.options, spec.name)
    assert options.resolved() | yaml.safe_load(entry)["shifted"]["options"] == {
        **options.resolved(),
        "preset": "as_code",
    }
    cell = loaded.suite("shifted").cell("mini-imagenet", "shifted", Bits(4, 4), 0)
    assert cell.method == "shifted"
    assert main(["plan", "shifted", "--root", str(root)]) == 0
    assert "shifted" in capsys.readouterr().out


def test_the_entry_of_the_calibrated_one_counts_its_stages(
    tmp_path: Path, extra_methods: Path
) -> None:
    install(extra_methods)
    root = tmp_path / "project"
    shutil.copytree(ROOT / "config", root / "config")
    with (root / "config/methods.yaml").open("a") as catalogue:
        catalogue.write(blocks("yaml")[2])
    spec = load_catalogue(root).method("bias-corrected")
    options = get_method(spec.implementation).options.read(spec.options, spec.name)
    rounding, _, correction = options.stages()
    assert spec.work is not None
    assert spec.work.rows == rounding.fit.updates * rounding.fit.batch
    assert (correction.name, correction.costly) == ("correct bias", True)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 6, bias=False))
        self.image = nn.Conv1d(6, 6, 1)

    def forward(self, x: torch.Tensor, t: int) -> torch.Tensor:
        return self.image(self.layers(x * (1 + t / 1000))[..., None])


@pytest.mark.parametrize("outlier_split", [0, 10])
def test_the_stage_takes_the_mean_error_away(
    extra_methods: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, outlier_split: int
) -> None:
    install(extra_methods)
    _, _, runs, entered = blocks("python")
    folder = tmp_path / "distill"
    folder.mkdir()
    (folder / "bias_correction.py").write_text(runs)
    package = hqdm_bench.distill
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder)])
    space = dict(vars(post_training))
    exec("from hqdm_bench.distill.bias_correction import correct_biases", space)
    exec("from hqdm_bench.methods.bias_corrected import CorrectBias", space)
    exec(entered, space)
    monkeypatch.setattr(post_training, "RUNNERS", space["RUNNERS"])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net, calls = Net(), [(torch.randn(64, 6), t) for t in (1, 501)]

    def mean_error(bias: str) -> float:
        options = {"bias": bias, "outlier_split": outlier_split, "policy": "full"}
        student = hqdm_bench.quantize(net, "bias_corrected", "w3a4", timesteps=(1, 501), **options)
        hqdm_bench.post_train(student, net, calls, Scale(updates=0.0005))
        return largest(student)

    @torch.no_grad()
    def largest(student: Student) -> float:
        errors = torch.cat([student(*call) - net(*call) for call in calls])
        return float(errors.mean((0, 2)).abs().max())

    assert mean_error("corrected") < 1e-5
    assert mean_error("kept") > 1e-3


def test_the_page_names_every_stage() -> None:
    listed = {stage.__name__ for stage in post_training.RUNNERS} | {
        CorrectNoise.__name__,
        "Distill",
    }
    (paragraph,) = re.findall(r"^\*\*Stages\.\*\*.*?\n\n", PAGE, re.M | re.S)
    assert listed == set(re.findall(r"`([A-Z]\w+)`", paragraph)) - {"Stage", "Scale"}
