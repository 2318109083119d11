import importlib.util
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from hqdm_bench.catalogue import Bits, load_catalogue
from hqdm_bench.catalogue.costs import Machine, load_costs
from hqdm_bench.catalogue.jobs import suite_jobs
from hqdm_bench.catalogue.plan import make_plan
from hqdm_bench.catalogue.work import (
    Work,
    feature_bytes,
    reference_bytes,
    sample_bytes,
    sampling_work,
    student_bytes,
    teacher_bytes,
    training_work,
    trajectory_bytes,
    trajectory_work,
)
from hqdm_bench.common.errors import BenchError

ROOT = Path(__file__).parents[2]
# Multiply-accumulates in units of 1e9: convolutions and linear layers by enumeration of the public
# configurations, products inside attention beside them.
ENUMERATED = {"imagenet": (99.8, 4.5), "bedrooms": (96.0, 5.2), "churches": (18.6, 2.3)}


@pytest.fixture(scope="module")
def catalogue():
    return load_catalogue(ROOT)


@pytest.fixture(scope="module")
def costs():
    return load_costs(ROOT)


@pytest.fixture(scope="module")
def counter():
    path = ROOT / "benchmarks" / "count_operations.py"
    spec = importlib.util.spec_from_file_location("count_operations", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def config(tmp_path):
    shutil.copytree(ROOT / "config", tmp_path / "config")
    return tmp_path


def test_counts_are_those_of_the_public_configurations(costs):
    for name, parts in ENUMERATED.items():
        assert costs.models[name].unet_macs / 1e9 == pytest.approx(sum(parts), rel=0.005)
    assert costs.models["imagenet"].unet_macs / 1e9 == pytest.approx(104.2, abs=0.05)
    assert costs.models["imagenet"].decode_macs / 1e9 == pytest.approx(335, abs=0.5)
    assert costs.extractors["inception"].macs / 1e9 == pytest.approx(5.7, abs=0.05)
    lora = {name: costs.models[name].lora_per_rank * 32 / 1e6 for name in ENUMERATED}
    assert lora == pytest.approx({"imagenet": 22.5, "bedrooms": 11.8, "churches": 15.6}, abs=0.06)


def test_every_model_is_counted_as_it_is_now(catalogue, costs, counter):
    for name, spec in catalogue.models.items():
        counted = costs.operations(spec)
        for key, value in counter.forward(spec).items():
            assert getattr(counted, key) == value, (name, key)
    assert counter.inception() == vars(costs.extractors["inception"])
    assert counter.mini() == vars(costs.extractors["mini-classifier"])


@pytest.mark.parametrize("name", ["mini-imagenet", "mini-churches"])
def test_launches_are_counted_as_they_are_now(name, catalogue, costs, counter):
    for key, value in counter.calls(catalogue, catalogue.models[name]).items():
        # PyTorch's versions differ by a few.
        assert getattr(costs.models[name], key) == pytest.approx(value, rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(ENUMERATED))
def test_launches_of_full_models(name, catalogue, costs, counter):
    test_launches_are_counted_as_they_are_now(name, catalogue, costs, counter)


def test_an_update_multiplies_what_its_formula_says(catalogue, costs, counter):
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from hqdm_bench.common.seeds import generator
    from hqdm_bench.models import build_latent_diffusion

    spec = catalogue.model("mini-bedrooms")
    model = build_latent_diffusion(spec).eval()
    student = counter.hadamard_student(catalogue, model)
    x = torch.randn(8, *model.latent_shape, generator=generator("update-count"))
    with FlopCounterMode(display=False) as flops:
        student(x, torch.full((8,), 1)).square().sum().backward()
    work = Work(spec.name, "update", rows=8, passes=1, rank=32)
    # Rotations come on top; the first layers' inputs need no gradient.
    assert flops.get_total_flops() / 2 / work.macs(costs) == pytest.approx(1, abs=0.15)


def test_work_of_the_paper(catalogue, costs):
    spec, protocol = catalogue.model("imagenet"), catalogue.protocol("imagenet")
    recipe = catalogue.recipe("released")
    forwards, decodes = sampling_work(spec, protocol, student=True)
    # 20 steps, each twice under guidance: 40 forward passes of 104.2 G and a decoding of 335 G.
    assert forwards.rows == 50_000 * 40
    assert forwards.passes == 500 * 20
    assert decodes.rows == 50_000
    per_image = (forwards.macs(costs) + decodes.macs(costs)) / 50_000
    assert per_image / 1e9 == pytest.approx(4503, rel=0.001)
    update, validation = training_work(spec, recipe, catalogue.method("hqdm"))
    assert (update.rows, update.passes) == (16_000 * 4, 16_000)
    assert validation.rows == 32 + 4 * 100 * 4
    (rollout,) = trajectory_work(spec, recipe)
    assert rollout.rows == 164 * 100 * 2 * 2
    unguided = sampling_work(catalogue.model("bedrooms"), catalogue.protocol("bedrooms"), True)[0]
    assert unguided.rows == 50_000 * 100


def test_bfloat16_teachers_are_another_unit(catalogue):
    spec = catalogue.model("bedrooms")
    protocol = replace(catalogue.protocol("bedrooms"), teacher_precision="bfloat16")
    assert sampling_work(spec, protocol, student=False)[0].unit == "teacher-bfloat16"
    assert sampling_work(spec, protocol, student=True)[0].unit == "student"


def test_file_sizes_are_those_of_real_files(catalogue, costs, tmp_path):
    """Every kind of file a run leaves, written by the code that writes it."""
    import numpy as np
    import torch

    from hqdm_bench.distill import save_trajectories
    from hqdm_bench.distill.trajectories import Trajectories
    from hqdm_bench.methods import build_student, save_student
    from hqdm_bench.models import build_latent_diffusion, save_latent_diffusion
    from hqdm_bench.sample import Samples, write_shard

    spec = catalogue.model("mini-imagenet")
    counted, recipe = costs.operations(spec), catalogue.recipe("smoke")
    model = build_latent_diffusion(spec)
    path = tmp_path / "file.safetensors"

    save_latent_diffusion(model, path, {}, dtype=torch.float16)
    assert path.stat().st_size == pytest.approx(teacher_bytes(spec, counted), rel=0.01)
    for name in ("hqdm", "hqdm-as-paper", "efficientdm", "efficientdm-as-paper"):
        method = catalogue.method(name)
        save_student(build_student(method, model, Bits(4, 4), recipe, 0), path, {})
        assert path.stat().st_size == pytest.approx(
            student_bytes(counted, method, recipe), rel=0.08
        )

    protocol = replace(catalogue.protocol("smoke-imagenet"), images=16, shards=1)
    size, channels = spec.unet["image_size"], spec.unet["in_channels"]
    numbers = np.arange(16)
    latents = np.zeros((16, channels, size, size), np.float32)
    shard = tmp_path / "shard0.npz"
    traced = protocol.trace_images, protocol.steps, *latents.shape[1:]
    trace = np.zeros(traced, np.float32)
    images = np.zeros((16, 32, 32, 3), np.uint8)
    write_shard(shard, Samples(images, numbers, numbers, latents, trace))
    assert shard.stat().st_size == pytest.approx(sample_bytes(spec, protocol), rel=0.05)

    count = recipe.pool + recipe.validation_trajectories
    x = torch.zeros(count, recipe.steps, recipe.batch, channels, size, size)
    branches = torch.zeros(count, recipe.steps, 2, *x.shape[2:]) if recipe.guidance != 1 else None
    fields = (recipe.guidance, recipe.pool, {}, branches)
    save_trajectories(path, Trajectories(x, x.clone(), None, (), *fields))
    assert path.stat().st_size == pytest.approx(trajectory_bytes(spec, recipe), rel=0.05)


def test_features_and_references_by_hand(catalogue, costs):
    protocol, inception = catalogue.protocol("imagenet"), costs.extractors["inception"]
    assert feature_bytes(protocol, inception) == 50_000 * (4 * (2048 + 2023 + 1008) + 8)
    moments = 8 * (2048**2 + 2048 + 2023**2 + 2023)
    assert reference_bytes(protocol, inception) == moments + 4 * 10_000 * 2048


def test_tables_and_figures_are_made_of_what_the_report_reads(catalogue):
    from hqdm_bench.catalogue import Layout
    from hqdm_bench.report import table_models
    from hqdm_bench.report.figures import figure_inputs

    layout = Layout(Path())
    for suite in catalogue.suites.values():
        jobs = suite_jobs(catalogue, suite)
        made = {layout.outliers(suite.name, model) for model in jobs.outliers}
        for cell in jobs.students:
            made |= {layout.history(cell), layout.training(cell)}
        for cell in jobs.scored:
            made |= {layout.metrics(cell), layout.replicates(cell)}
        for cell in jobs.images:
            made |= {layout.shard(cell, k) for k in range(catalogue.protocol(cell.protocol).shards)}
        for name in suite.figures:
            assert set(figure_inputs(name, Path(), suite, catalogue)) <= made
        for number in suite.tables:
            for spec in table_models(number, suite, catalogue):
                assert set(suite.model(spec.name).cells) <= set(jobs.scored)


def test_measured_time_is_rows_times_unit_costs(catalogue, costs, tmp_path):
    models, units = ("imagenet", "bedrooms", "churches"), ("teacher", "student", "update", "decode")
    seconds = {(f"mini-{model}", unit): 1.0 for model in models for unit in units}
    seconds |= {("mini-classifier", "features"): 0.5, ("", "start"): 2.0}
    machine = Machine("a machine", "cpu", "2", "by hand", seconds)
    plan = make_plan(
        catalogue, catalogue.suite("mini"), replace(costs, machines=(machine,)), tmp_path
    )
    measured = plan.timings[0]
    cells = 44 + 24  # the post-training methods and lsq at three bit-widths
    images = cells * 384
    assert measured.stages["score"] == (0.5 * (images + 3 * 4096) + 2 * (cells + 3),) * 2
    rows = 384 * 20 * ((28 + 24) * 2 + 11 + 5)
    assert measured.stages["sample"] == (rows + images + 2 * cells,) * 2
    assert [timing.basis for timing in plan.timings].count("published run") == 0


def test_models_of_one_architecture_share_their_unit_costs(costs):
    machine = Machine("a machine", "cpu", "2", "by hand", {("bedrooms", "student"): 3.0})
    assert costs.seconds(machine, "bedrooms-raw", "student") == 3.0
    assert costs.seconds(machine, "bedrooms-raw", "update") is None
    assert costs.seconds(machine, "churches", "student") is None
    assert costs.seconds(machine, "inception", "features") is None


def test_a_machine_without_a_unit_is_left_out(catalogue, costs, tmp_path):
    machine = Machine("a machine", "cpu", "2", "by hand", {("imagenet", "teacher"): 1.0})
    plan = make_plan(
        catalogue, catalogue.suite("paper"), replace(costs, machines=(machine,)), tmp_path
    )
    assert {timing.basis for timing in plan.timings} == {"estimated"}


def test_estimates_are_bounded_by_arithmetic_and_by_launches(catalogue, costs, tmp_path):
    suite = catalogue.suite("paper")
    plan = make_plan(catalogue, suite, replace(costs, machines=()), tmp_path)
    gpu, timing = costs.gpus[0], plan.timings[0]
    macs = sum(work.macs(costs) for work in plan.work["sample"])
    assert timing.stages["sample"][0] >= macs / gpu.rates["float32"][1]
    # An update of ImageNet launches some 17 000 operations: at 5 us each, 85 ms, whatever the GPU.
    fast = replace(gpu, rates={name: (1e18, 1e19) for name in gpu.rates})
    quick = make_plan(catalogue, suite, replace(costs, machines=(), gpus=(fast,)), tmp_path)
    updates = [work for work in plan.work["train"] if work.unit == "update"]
    launches = sum(work.launches(costs) for work in updates)
    assert launches > 55 * 16_000 * 4_000
    assert quick.timings[0].stages["train"][0] == pytest.approx(launches * 5e-6, rel=0.01)


def test_a_measured_gpu_takes_the_place_of_its_estimate(catalogue, costs, tmp_path):
    machine = Machine("NVIDIA A100-SXM4-80GB", "cuda", "2", "by hand", {})
    plan = make_plan(
        catalogue, catalogue.suite("paper"), replace(costs, machines=(machine,)), tmp_path
    )
    names = [timing.device for timing in plan.timings if timing.basis == "estimated"]
    assert "NVIDIA A100" not in names
    assert "NVIDIA H200" in names


def test_a_changed_architecture_is_refused(config):
    path = config / "config" / "models.yaml"
    models = yaml.safe_load(path.read_text())
    models["imagenet"]["unet"]["model_channels"] = 64
    path.write_text(yaml.safe_dump(models))
    catalogue = load_catalogue(config)
    with pytest.raises(BenchError, match=r"'imagenet' as config/models.yaml describes it; `python"):
        make_plan(catalogue, catalogue.suite("paper"), load_costs(config), config)


@pytest.mark.parametrize(
    "change",
    [
        lambda value: value.pop("kind"),
        lambda value: value.update(kind="tpu"),
        lambda value: value["entries"][0].update(seconds=0),
        lambda value: value["entries"][0].update(seconds="fast"),
        lambda value: value["entries"][0].update(unit="guess"),
        lambda value: value.update(entries=3),
    ],
)
def test_a_damaged_measurement_is_refused(config, change):
    path = next((config / "config" / "costs" / "machines").glob("*.json"))
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))
    with pytest.raises(BenchError, match=rf"{path.name}: not a list of positive unit costs"):
        load_costs(config)


def test_shipped_measurements_cover_the_suites(catalogue, costs, tmp_path):
    assert costs.machines
    for name in ("paper", "search", "mini", "smoke"):
        plan = make_plan(catalogue, catalogue.suite(name), costs, tmp_path)
        measured = [timing for timing in plan.timings if timing.basis == "measured"]
        assert measured
        assert all(math.isfinite(timing.total[0]) and timing.total[0] > 0 for timing in measured)
    for machine in costs.machines:
        for name in ENUMERATED:
            teacher, student, update = (
                machine.seconds[name, unit] for unit in ("teacher", "student", "update")
            )
            assert 0.8 * teacher < student < update / 2
