"""The verb `pack`: a cell's student becomes one file of integers, and an ONNX file."""

import importlib.util
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from hqdm_bench.catalogue import Bits, Cell, Layout, load_catalogue
from hqdm_bench.cli import main
from hqdm_bench.common.tensors import read_metadata
from hqdm_bench.distill import calibrate_on_calls
from hqdm_bench.integer import convert, load
from hqdm_bench.methods import build_student, save_student
from hqdm_bench.models import build_latent_diffusion, load_latent_diffusion, save_latent_diffusion
from hqdm_bench.quantization import NoiseError

ROOT = Path(__file__).parents[2]
MODEL = "mini-imagenet"
EXPORTS = all(map(importlib.util.find_spec, ("onnx", "onnxscript", "onnxruntime")))
# What a method may do to a layer besides grids: halves, channels given twice, bits by channel.
OWN = {
    "rtn-all": {"policy": "full", "split": "all", "outlier_split": 5, "mixed": "kurtosis"},
    "qdiffusion-small": {"policy": "official"},
}
METHODS = ["hqdm", "ptqd", *OWN]


def edit(path, change):
    entries = yaml.safe_load(path.read_text())
    change(entries)
    path.write_text(yaml.safe_dump(entries))


def narrow(models):
    models[MODEL]["unet"] |= {"model_channels": 32}
    models[MODEL]["first_stage"]["ddconfig"] |= {"ch": 32, "ch_mult": [1, 1, 1]}


def add_methods(methods):
    for name, options in OWN.items():
        implementation = name.partition("-")[0]
        entry = {"title": name, "implementation": implementation, "options": options, "work": {}}
        methods[name] = entry


def add_cells(suite):
    cells = suite["models"][0]["cells"]
    cells.append({"methods": [*OWN, "smoothquant"], "bits": ["w4a4"], "seeds": [0]})


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """The real catalogue with a narrow model, its teacher drawn."""
    root = tmp_path_factory.mktemp("project")
    config = root / "config"
    shutil.copytree(ROOT / "config", config)
    edit(config / "models.yaml", narrow)
    edit(config / "methods.yaml", add_methods)
    edit(config / "suites" / "smoke.yaml", add_cells)
    model = build_latent_diffusion(load_catalogue(root).models[MODEL], seed=1)
    random = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.unet.parameters():
            if parameter.dim() > 1 and not parameter.any():
                parameter.uniform_(-0.1, 0.1, generator=random)
    save_latent_diffusion(model, Layout(root).teacher("smoke", MODEL), {})
    return root


def teacher_of(project):
    spec = load_catalogue(project).models[MODEL]
    return load_latent_diffusion(spec, Layout(project).teacher("smoke", MODEL))


def calls_at(teacher, timesteps):
    random = torch.Generator().manual_seed(2)
    context = teacher.context(torch.arange(2)).detach()
    shape = (2, *teacher.latent_shape)
    return [(torch.randn(shape, generator=random), torch.full((2,), t), context) for t in timesteps]


@pytest.fixture
def student_of(project):
    """Calibrate a method's student and write it where its cell has it."""

    def make(name):
        catalogue, teacher = load_catalogue(project), teacher_of(project)
        cell = Cell("smoke", MODEL, name, Bits(4, 4), 0, "smoke-imagenet")
        method = catalogue.method(name).on("imagenet")
        student = build_student(method, teacher, cell.bits, catalogue.recipe("smoke"), 0)
        calls = calls_at(teacher, student.step.timesteps)
        calibrate_on_calls(student, calls)
        if student.noise_correction is not None:
            errors = {int(call[1][0]): NoiseError() for call in calls}
            with torch.no_grad():
                for call in calls:
                    errors[int(call[1][0])].add(teacher.unet(*call), student(*call))
            student.noise_correction.fit(errors)
        path = Layout(project).student(cell)
        save_student(student, path, {"cell": cell.asdict()})
        return student, calls, path

    return make


@torch.no_grad()
def typical_error(packed, student, calls):
    """The median over images; in one, a value at the border of two codes may take the other."""
    pairs = [(packed(*call).flatten(1), student(*call).flatten(1)) for call in calls]
    return torch.cat([(a - b).norm(dim=1) / b.norm(dim=1) for a, b in pairs]).median()


def pack(project, method, *options):
    named = ["--suite", "smoke", "--model", MODEL, "--method", method, "--bits", "w4a4"]
    return main(["pack", *named, "--root", str(project), *map(str, options)])


@pytest.mark.parametrize("method", METHODS)
def test_the_file_computes_what_the_student_does(project, student_of, capsys, method):
    student, calls, path = student_of(method)
    assert pack(project, method) == 0
    target = path.with_name("model.safetensors")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert f"{target}: " in captured.err.splitlines()[-1]
    assert read_metadata(target)["cell"]["method"] == method
    assert target.stat().st_size < path.stat().st_size
    # Random weights instead of the teacher's: the file needs only the structure.
    module = build_latent_diffusion(load_catalogue(project).models[MODEL], seed=8).unet
    packed, integer = load(target, module), convert(student)
    assert all(torch.equal(packed(*call), integer(*call)) for call in calls)
    assert typical_error(packed, student, calls) < 1e-4
    assert (packed.noise_correction is None) == (student.noise_correction is None)
    if student.noise_correction is not None:
        found = packed.noise_correction.state_dict()
        for key, table in student.noise_correction.state_dict().items():
            assert torch.equal(found[key], table), key


def test_a_student_that_is_not_integer_is_one_message_and_no_file(project, student_of, capsys):
    _, _, path = student_of("smoothquant")
    target = project / "never.safetensors"
    assert pack(project, "smoothquant", "--output", target) == 2
    assert "integer throughout; these layers are not: " in capsys.readouterr().err
    assert not target.exists()
    assert not path.with_name("model.safetensors").exists()


def test_a_student_that_is_not_there_is_named(project, capsys):
    assert pack(project, "efficientdm") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "student.safetensors does not exist" in line


@pytest.mark.skipif(not EXPORTS, reason="hqdm-bench[onnx] is not installed")
def test_the_onnx_file_computes_it_too(project, student_of, tmp_path):
    import onnxruntime

    student, calls, _ = student_of("hqdm")
    path = tmp_path / "student.onnx"
    assert pack(project, "hqdm", "--output", tmp_path / "packed.safetensors", "--onnx", path) == 0
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]

    def run(*call):
        feed = {name: value.numpy() for name, value in zip(names, call, strict=True)}
        return torch.from_numpy(session.run(None, feed)[0])

    assert typical_error(run, student, calls) < 1e-4


@pytest.mark.skipif(EXPORTS, reason="hqdm-bench[onnx] is installed")
def test_without_the_packages_onnx_is_one_message(project, student_of, capsys, tmp_path):
    student_of("hqdm")
    path = tmp_path / "student.onnx"
    assert pack(project, "hqdm", "--output", tmp_path / "packed.safetensors", "--onnx", path) == 2
    assert "hqdm-bench[onnx]" in capsys.readouterr().err
    assert not path.exists()
