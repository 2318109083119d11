"""The authors' trainer, update by update, in float64 (what the data are: their manifest).

The output layer is a static 8-bit one, so predictions live on a grid: a trainer that is right gives
the recorded losses to the last digits, one that is wrong misses them by per cents.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from hqdm_bench.catalogue import Bits, MethodSpec, ModelSpec, Recipe
from hqdm_bench.distill import Optimiser, Trajectories, calibrate_on_batch, guided_loss, roll
from hqdm_bench.methods import Student, build_student
from hqdm_bench.models import DDIM, LatentDiffusion, build_latent_diffusion

TRAINER = Path(__file__).parents[1] / "data" / "trainer"
METHODS = ("efficientdm", "hqdm")
RECIPE = Recipe(
    name="oracle",
    steps=20,
    trajectories=5,
    pool=5,
    batch=2,
    eta=1.0,
    guidance=1.5,
    seed=0,
    lora_rank=32,
    lora_lr_divisor=2500,
    weight_scale_lr=1e-6,
    activation_lr=5e-4,
    weight_decay=0.01,
    calibration="single_batch",
    calibration_images=32,
    validation_trajectories=1,
)
FIRST_STAGE = {
    "kind": "vq",
    "embed_dim": 3,
    "n_embed": 8,
    "ddconfig": {
        "double_z": False,
        "z_channels": 3,
        "resolution": 16,
        "in_channels": 3,
        "out_ch": 3,
        "ch": 32,
        "ch_mult": [1, 2],
        "num_res_blocks": 1,
        "attn_resolutions": [],
        "dropout": 0.0,
    },
}


@dataclass(frozen=True)
class Oracle:
    manifest: dict[str, Any]
    setup: dict[str, Tensor]
    results: dict[str, dict[str, Tensor]]
    teacher: LatentDiffusion  # float32
    trajectories: Trajectories  # float64

    @property
    def low_bit(self) -> list[str]:
        static = self.manifest["static_8bit_layers"]
        return [name for name in self.manifest["layers_in_order"] if name not in static]


@pytest.fixture(scope="module")
def oracle() -> Oracle:
    manifest = json.loads((TRAINER / "manifest.json").read_text())
    setup = load_file(TRAINER / "setup.safetensors")
    results = {name: load_file(TRAINER / f"{name}.safetensors") for name in METHODS}
    rows = setup["class_rows"].float()
    condition = {"n_classes": len(rows), "embed_dim": rows.shape[1]}
    spec = ModelSpec(
        name="oracle",
        title="Oracle",
        paper_dataset="imagenet",
        source="embedded",
        unet=manifest["unet"],
        first_stage=FIRST_STAGE,
        condition=condition,
        scale_factor=1.0,
        beta_start=0.0015,
        beta_end=0.0195,
    )
    teacher = build_latent_diffusion(spec).eval()
    weights = load_file(TRAINER / "unet.safetensors")
    teacher.unet.load_state_dict({key: value.float() for key, value in weights.items()})
    teacher.embedder.load_state_dict({"embedding.weight": rows})
    return Oracle(manifest, setup, results, teacher, draw(teacher, setup))


def draw(teacher: LatentDiffusion, setup: dict[str, Tensor]) -> Trajectories:
    """The recorded noise along the teacher, with the recorded constants, in float64."""
    names = ("t", "a", "a_prev", "sigma", "sqrt_1ma")
    ddim = DDIM(1.0, *(setup[f"ddim/{name}"] for name in names))
    x_t, eps, branches = zip(
        *(
            roll(teacher.double(), ddim, start.double(), list(noise.double()), labels, 1.5)
            for start, noise, labels in zip(
                setup["x_T"], setup["noise"], setup["labels"], strict=True
            )
        ),
        strict=True,
    )
    teacher.float()
    times = tuple(setup["ddim/t"].tolist())
    x_t, eps, branches = torch.stack(x_t), torch.stack(eps), torch.stack(branches)
    return Trajectories(x_t, eps, setup["labels"], times, 1.5, 5, {}, branches)


def starting_student(oracle: Oracle, name: str) -> Student:
    """A float64 student with the recorded initial factors, calibrated as recorded."""
    spec = MethodSpec(name, name, name, {})
    student = build_student(spec, oracle.teacher, Bits(4, 4), RECIPE, 0)
    for layer_name, layer in student.low_bit_layers().items():
        with torch.no_grad():
            layer.weight.lora_A.copy_(oracle.setup[f"init/{layer_name}/lora_A"])
    calib = [oracle.setup[f"calib/{key}"] for key in ("x", "t", "context")]
    calibrate_on_batch(student, *calib)
    return student.double()


def test_the_layers_are_those_of_the_released_code(oracle: Oracle) -> None:
    student = build_student(MethodSpec("h", "H", "hqdm", {}), oracle.teacher, Bits(4, 4), RECIPE, 0)
    assert list(student.quantized_layers()) == oracle.manifest["layers_in_order"]
    assert list(student.static_layers()) == oracle.manifest["static_8bit_layers"]
    full_precision = oracle.manifest["full_precision_layers"]
    assert not set(full_precision) & set(student.quantized_layers())
    rates = [group["lr"] for group in student.parameter_groups(RECIPE) if group["name"] == "lora"]
    assert rates == pytest.approx(list(oracle.manifest["lora_lr0"].values()), rel=1e-12)


@pytest.mark.parametrize("name", METHODS)
def test_sequential_initialisation_is_exact(oracle: Oracle, name: str) -> None:
    student = starting_student(oracle, name)
    for row, layer in enumerate(student.quantized_layers().values()):
        assert (layer.activation.scale == oracle.setup["init/act_delta"][row]).all()
        if layer.activation.zero is not None:
            assert (layer.activation.zero == oracle.setup["init/act_zero_point"][row]).all()


def test_trajectories_follow_the_teacher(oracle: Oracle) -> None:
    last, said = oracle.trajectories.x_t[4, 0], oracle.trajectories.eps[4, 0]
    torch.testing.assert_close(last, oracle.setup["x_t_last"], rtol=0, atol=1e-13)
    torch.testing.assert_close(said, oracle.setup["teacher_guided_last"], rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", METHODS)
def test_first_gradients(oracle: Oracle, name: str) -> None:
    expected = oracle.results[name]
    student = starting_student(oracle, name)
    model = oracle.teacher.double().with_unet(student)
    guided_loss(model, oracle.trajectories, 0, 19).backward()
    oracle.teacher.float()
    skip = oracle.manifest["layers_without_true_gradient"]
    for row, layer_name in enumerate(oracle.low_bit):
        if layer_name in skip:
            continue
        layer = student.low_bit_layers()[layer_name]
        assert not layer.weight.lora_A.grad.any()
        close(layer.activation.scale.grad, expected["grad_update1/act_delta_list"][row])
        if layer.activation.zero is not None:
            close(layer.activation.zero.grad, expected["grad_update1/act_zp_list"][row])
        statistics = expected["grad_update1_stats/lora_B"][row]
        close(summary(layer.weight.lora_B.grad), statistics)
        quantizer = expected.get(f"grad_update1/{layer_name}/weight_delta_quantizer")
        if quantizer is not None:
            close(layer.weight.scale.grad, quantizer)
            dequantizer = expected[f"grad_update1/{layer_name}/weight_delta_dequantizer"]
            close(layer.weight.base_scale.grad, dequantizer)


@pytest.mark.parametrize("name", METHODS)
def test_one_hundred_updates(oracle: Oracle, name: str) -> None:
    expected = oracle.results[name]
    student = starting_student(oracle, name)
    model = oracle.teacher.double().with_unet(student)
    optimiser = Optimiser(student, RECIPE)
    losses = []
    for done in range(100):
        loss = guided_loss(model, oracle.trajectories, done // 20, 19 - done % 20)
        losses.append(optimiser.update(loss))
        if done + 1 in (20, 100):
            check_parameters(oracle, student, expected, done + 1)
    oracle.teacher.float()
    torch.testing.assert_close(
        torch.tensor(losses, dtype=torch.float64), expected["loss_float64"], rtol=1e-9, atol=0
    )


def check_parameters(
    oracle: Oracle, student: Student, expected: dict[str, Tensor], updates: int
) -> None:
    skip = oracle.manifest["layers_without_true_gradient"]
    for row, name in enumerate(oracle.low_bit):
        layer = student.low_bit_layers()[name]
        if name in skip:
            continue
        close(layer.activation.scale, expected[f"after{updates}/act_delta_list"][row], 1e-8)
        if layer.activation.zero is not None:
            close(layer.activation.zero, expected[f"after{updates}/act_zp_list"][row], 1e-8)
        start = oracle.setup[f"init/{name}/lora_A"].double()
        change = summary(layer.weight.lora_A.detach() - start)
        close(change, expected[f"change_after{updates}_stats/lora_A"][row], 1e-8)
        change = summary(layer.weight.lora_B.detach())
        close(change, expected[f"change_after{updates}_stats/lora_B"][row], 1e-8)
        scale = expected.get(f"after{updates}/{name}/weight_delta")
        if scale is not None:
            close(layer.weight.scale, scale, 1e-8)
            assert torch.equal(layer.weight.scale, layer.weight.base_scale)


def test_rates_fall_as_recorded(oracle: Oracle) -> None:
    student = starting_student(oracle, "hqdm")
    rates = [group["lr"] for group in student.parameter_groups(RECIPE)]
    first = torch.tensor([rates[0], rates[-2], rates[-1]], dtype=torch.float64)
    factors = 1 - torch.arange(100, dtype=torch.float64) / RECIPE.updates
    used = oracle.results["hqdm"]["lr_used"]
    torch.testing.assert_close(factors[:, None] * first, used, rtol=1e-12, atol=0)


def summary(tensor: Tensor) -> Tensor:
    """Sum, Euclidean norm and sum of x_i cos(i)."""
    flat = tensor.flatten()
    phase = torch.arange(len(flat), dtype=flat.dtype).cos()
    return torch.stack([flat.sum(), flat.norm(), flat @ phase])


def close(found: Tensor, expected: Tensor, tolerance: float = 1e-9) -> None:
    """Agreement relative to the largest entry; some recorded gradients are rounding noise of 0."""
    limit = tolerance * max(expected.abs().max().item(), 1e-4)
    torch.testing.assert_close(found.detach(), expected, rtol=0, atol=limit)
