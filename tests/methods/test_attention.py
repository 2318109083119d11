"""Students with quantized attention, of the three latent diffusion structures."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hqdm_bench.common.errors import BenchError
from hqdm_bench.distill import calibrate_on_calls, exact_activations
from hqdm_bench.distill.calibrate import calibrate_on_batch
from hqdm_bench.methods import Student, load_student, quantize, save_student
from hqdm_bench.models.attention import QKVAttention, TokenAttention
from hqdm_bench.models.unet import UNet
from hqdm_bench.quantization import (
    QuantizedAttention,
    UnsignedStep,
    coverage,
    mse_grid,
    unsigned_mse_scale,
)

TIMES = (1, 501)
SHAPES: dict[str, dict[str, Any]] = {
    "transformer": {"use_spatial_transformer": True, "transformer_depth": 1, "context_dim": 16},
    "attention": {},
    "updown": {"resblock_updown": True, "use_scale_shift_norm": True},
}
Calls = list[tuple[Tensor, ...]]


def unet(shape: str) -> UNet:
    """Nothing in it is zero, so all reacts."""
    made = UNet(
        image_size=4,
        in_channels=3,
        out_channels=3,
        model_channels=32,
        attention_resolutions=[1, 2],
        num_res_blocks=1,
        channel_mult=[1, 2],
        num_heads=2,
        **SHAPES[shape],
    ).eval()
    random = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.dim() > 1:
                bound = parameter[0].numel() ** -0.5
                parameter.uniform_(-bound, bound, generator=random)
    return made


def calls_of(shape: str) -> Calls:
    random = torch.Generator().manual_seed(6)
    calls = []
    for row, t in enumerate(TIMES):
        x = torch.randn(2, 3, 4, 4, generator=random) * (1 + 0.3 * row)
        context = torch.randn(2, 3, 16, generator=random)
        call = x, torch.full((2,), t)
        calls.append((*call, context) if shape == "transformer" else call)
    return calls


def student_of(network: nn.Module, calls: Calls, bits: str = "w4a4", **options: Any) -> Student:
    student = quantize(network, "rtn", bits, timesteps=TIMES, attention="quantized", **options)
    calibrate_on_calls(student, calls)
    return student


def seen_by_operands(student: Student, calls: Calls) -> dict[str, list[Tensor]]:
    """What every operand is given, call after call, while no activation is quantized."""
    seen: dict[str, list[Tensor]] = {}
    hooks = [
        attention.named_operands()[own].register_forward_pre_hook(
            lambda _, args, key=f"{name}.{own}": seen.setdefault(key, []).append(args[0])
        )
        for name, attention in student.quantized_attention().items()
        for own in attention.named_operands()
    ]
    with exact_activations(student), torch.no_grad():
        for call in calls:
            student(*call)
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.parametrize("tables", ["per_step", "shared"])
@pytest.mark.parametrize("shape", SHAPES)
def test_ranges_are_the_searches_over_exact_operands(shape: str, tables: str) -> None:
    network, calls = unet(shape), calls_of(shape)
    student = student_of(network, calls, activation_steps=tables)
    seen = seen_by_operands(student, calls)
    assert len(seen) == 4 * len(student.quantized_attention()) > 0
    for name, inputs in seen.items():
        quantizer = student.quantized_inputs()[name].activation
        rows = [torch.cat([x.flatten() for x in inputs])] if tables == "shared" else inputs
        assert len(quantizer.scale) == len(rows)
        for row, x in enumerate(rows):
            if name.endswith("probabilities"):
                assert (quantizer.bits, quantizer.zero) == (8, None)
                expected = unsigned_mse_scale(x, 8)
            else:
                grid = mse_grid(x, 4, per_channel=False)
                expected = grid.scale
                assert quantizer.zero[row] == grid.zero
            torch.testing.assert_close(quantizer.scale[row].detach(), expected)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_student_keeps_what_it_was_made_of(shape: str) -> None:
    network, calls = unet(shape), calls_of(shape)
    keys, kinds = list(network.state_dict()), [type(module) for module in network.modules()]
    with torch.no_grad():
        before = [network(*call) for call in calls]
        student = student_of(network, calls)
        assert all(torch.equal(a, network(*b)) for a, b in zip(before, calls, strict=True))
    assert list(network.state_dict()) == keys
    assert [type(module) for module in network.modules()] == kinds
    plain = quantize(network, "rtn", "w4a4", timesteps=TIMES)
    # The same layers in the same order: policies count them.
    assert list(student.quantized_layers()) == list(plain.quantized_layers())
    names = [
        name
        for name, module in network.named_modules()
        if isinstance(module, (QKVAttention, TokenAttention))
    ]
    assert list(student.quantized_attention()) == names
    assert not student.trainable
    assert student.parameter_groups() == []


@pytest.mark.parametrize("shape", SHAPES)
def test_fine_grids_change_little_and_coarse_ones_something(shape: str) -> None:
    network, calls = unet(shape), calls_of(shape)
    fine = student_of(network, calls, "w16a16", policy="full", softmax_bits=16)
    coarse = student_of(network, calls, "w8a4", policy="full")
    plain = quantize(network, "rtn", "w8a4", timesteps=TIMES, policy="full")
    calibrate_on_calls(plain, calls)
    with torch.no_grad():
        for call in calls:
            exact = network(*call)
            assert (fine(*call) - exact).norm() < 1e-3 * exact.norm()
            assert (coarse(*call) - plain(*call)).norm() > 1e-3 * exact.norm()


def test_a_row_serves_its_timestep() -> None:
    calls = calls_of("attention")
    student = student_of(unet("attention"), calls)
    with torch.no_grad():
        before = [student(*call) for call in calls]
        for attention in student.quantized_attention().values():
            for operand in attention.operands:
                operand.activation.scale[1] *= 1.5
        after = [student(*call) for call in calls]
    assert torch.equal(after[0], before[0])
    assert not torch.equal(after[1], before[1])


@pytest.mark.parametrize("options", [{}, {"activation_grid": "symmetric", "softmax_bits": 16}])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_file_holds_it_bit_for_bit(shape: str, options: dict[str, Any], tmp_path: Path) -> None:
    network, calls = unet(shape), calls_of(shape)
    student = student_of(network, calls, **options)
    save_student(student, tmp_path / "student.safetensors")
    loaded = load_student(tmp_path / "student.safetensors", network)
    assert loaded.calibrated
    assert loaded.state_dict().keys() == student.state_dict().keys()
    for key, value in student.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value), key
    with torch.no_grad():
        for call in calls:
            assert torch.equal(loaded(*call), student(*call))


def test_calibrated_is_every_operand() -> None:
    calls = calls_of("transformer")
    student = quantize(unet("transformer"), "rtn", "w4a4", timesteps=TIMES, attention="quantized")
    assert not student.calibrated
    with pytest.raises(BenchError, match="at timestep 501; add calls there"):
        calibrate_on_calls(student, calls[:1])
    calibrate_on_calls(student, calls)
    assert student.calibrated
    attention = next(iter(student.quantized_attention().values()))
    attention.probabilities.activation.forget()
    assert not student.calibrated
    with pytest.raises(BenchError, match="calibrate the student"), torch.no_grad():
        student(*calls[0])


def test_trained_operands_are_in_the_groups() -> None:
    student = student_of(unet("attention"), calls_of("attention"))
    attention = student.quantized_attention().values()
    scales = [scale for each in attention for scale in each.step_sizes()]
    for scale in scales:
        scale.requires_grad_(True)
    assert student.trainable
    (group,) = student.parameter_groups()
    assert group["name"] == "activation"
    assert [id(entry) for entry in group["params"]] == [id(scale) for scale in scales]


def test_a_single_batch_sets_the_ranges_in_the_order_of_execution() -> None:
    """Probabilities that lie far from zero keep a grid that starts there."""
    student = quantize(unet("transformer"), "rtn", "w8a8", timesteps=TIMES, attention="quantized")
    x, _, context = calls_of("transformer")[0]
    calibrate_on_batch(student, x, torch.tensor([1, 501]), context)
    assert student.calibrated
    for name, attention in student.quantized_attention().items():
        quantizer = attention.probabilities.activation
        assert isinstance(quantizer, UnsignedStep)
        tokens = 3 if "attn2" in name else 16
        assert (255 * quantizer.scale > 0.9 / tokens).all()  # one has at least its share
        assert (255 * quantizer.scale < 1.001).all()


def test_coverage_says_so() -> None:
    network, calls = unet("transformer"), calls_of("transformer")
    student = student_of(network, calls)
    found = coverage(student, calls[0])
    attention = student.quantized_attention()
    assert found["attention"]["products"] == 2 * len(attention)
    assert found["attention"]["bits"] == ["a4a4", "a8a4"]
    plain = quantize(network, "rtn", "w4a4", timesteps=TIMES)
    calibrate_on_calls(plain, calls)
    without = coverage(plain, calls[0])
    assert without["attention"]["products"] == 0
    assert (found["macs"], found["bops"]) == (without["macs"], without["bops"])
    tables = len(attention) * len(TIMES) * (3 * 4.5 + 4)  # a zero-point of four bits takes a byte
    assert tables < found["table_bytes"] - without["table_bytes"] <= 1.1 * tables


def test_what_cannot_be_is_said() -> None:
    layers = nn.Sequential(*(nn.Linear(8, 8) for _ in range(6)))
    assert not quantize(layers, "rtn", "w4a4", attention="quantized").quantized_attention()
    layers.append(nn.MultiheadAttention(8, 1))
    with pytest.raises(BenchError, match="Sequential has no attention .* QKVAttention"):
        quantize(layers, "rtn", "w4a4", attention="quantized")
    with pytest.raises(BenchError, match="add option attention 'quantized'"):
        quantize(unet("attention"), "rtn", "w4a4", timesteps=TIMES, softmax_bits=16)
    student = quantize(unet("attention"), "rtn", "w4a4", timesteps=TIMES)
    assert not any(isinstance(module, QuantizedAttention) for module in student.modules())
