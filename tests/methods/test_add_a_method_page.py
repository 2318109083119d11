"""docs/add-a-method.md: its example is a method, in a suite, that passes the contract."""

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
from hqdm_bench.catalogue import Bits, load_catalogue
from hqdm_bench.cli import main
from hqdm_bench.methods import get_method

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "add-a-method.md").read_text()
# Loaded by pytest before it collects: the one new file joins the methods package.
PLUGIN = "import hqdm_bench.methods\nhqdm_bench.methods.__path__.append({folder!r})\n"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.M | re.S)


def install(folder: Path) -> None:
    (example,) = blocks("python")
    (name,) = re.findall(r"src/hqdm_bench/methods/(\w+\.py)", PAGE)
    (folder / name).write_text(example)


def test_the_example_is_short_and_new() -> None:
    (example,) = blocks("python")
    assert len(example.splitlines()) < 60
    assert "shifted" not in {path.stem for path in (ROOT / "src/hqdm_bench/methods").iterdir()}


def test_the_example_passes_every_test_of_the_contract(tmp_path: Path) -> None:
    folder = tmp_path / "methods"
    folder.mkdir()
    install(folder)
    (tmp_path / "with_the_example.py").write_text(PLUGIN.format(folder=str(folder)))
    tests = [str(path) for path in sorted((ROOT / "tests/methods").glob("test_contract*.py"))]
    command = [sys.executable, "-m", "pytest", *tests, "-p", "with_the_example"]
    command += ["-p", "no:cacheprovider", "-k", "[shifted or every_value", "-rA", "--tb=short"]
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
    passed = re.findall(r"^PASSED .*::(\w+)(?:\[(shifted[^\]]*)\])?$", done.stdout, re.M)
    sources = [Path(path).read_text() for path in tests]
    assert {name for name, _ in passed} == set(
        re.findall(r"^def (test_\w+)", "\n".join(sources), re.M)
    )
    cases = {case for _, case in passed if case}
    assert "shifted" in cases
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
    entry, suite = blocks("yaml")
    assert entry.startswith("# config/methods.yaml\n")
    assert suite.startswith("# config/suites/shifted.yaml\n")
    with (root / "config/methods.yaml").open("a") as catalogue:
        catalogue.write(entry)
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
