"""Layers split at the concatenation boundary: where, what they compute, and what else sees them."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hqdm_bench import integer
from hqdm_bench.catalogue import Scale
from hqdm_bench.common.errors import BenchError
from hqdm_bench.distill import calibrate_on_calls, post_train, reconstruct_weights
from hqdm_bench.distill.post_training import Work
from hqdm_bench.distill.stage_log import StageLog
from hqdm_bench.methods import RoundingFit, Student, load_student, quantize, save_student
from hqdm_bench.models.unet import UNet
from hqdm_bench.quantization import (
    QuantizedLayer,
    SplitLayer,
    StaticWeight,
    boundaries,
    coverage,
    float_weight,
    mse_grid,
    source_name,
)
from hqdm_bench.quantization.blocks import Unit, find_units

TIMES = (1, 501)
SHAPES: dict[str, dict[str, Any]] = {
    "transformer": {"use_spatial_transformer": True, "transformer_depth": 1, "context_dim": 16},
    "attention": {},
    "updown": {"resblock_updown": True, "use_scale_shift_norm": True},
}
Call = tuple[Tensor, ...]


def unet(shape: str) -> UNet:
    with torch.random.fork_rng():
        torch.manual_seed(4)
        network = UNet(
            image_size=8,
            in_channels=3,
            out_channels=3,
            model_channels=32,
            attention_resolutions=[2],
            num_res_blocks=1,
            channel_mult=[1, 2],
            num_heads=2,
            **SHAPES[shape],
        ).eval()
        for parameter in network.parameters():
            if not parameter.any():
                nn.init.normal_(parameter, std=0.05)
    return network


def calls_of(shape: str, dtype: torch.dtype = torch.float32) -> list[Call]:
    random = torch.Generator().manual_seed(9)
    calls: list[Call] = []
    for t in TIMES:
        call: Call = (torch.randn(2, 3, 8, 8, generator=random, dtype=dtype), torch.full((2,), t))
        if shape == "transformer":
            call = (*call, torch.randn(2, 3, 16, generator=random, dtype=dtype))
        calls.append(call)
    return calls


def student_of(shape: str, bits: str = "w4a8", policy: str = "full", **options: Any) -> Student:
    network = unet(shape)
    student = quantize(network, "rtn", bits, timesteps=TIMES, policy=policy, **options)
    calibrate_on_calls(student, calls_of(shape))
    return student


def concatenated(network: nn.Module, run: Callable[[], Any]) -> list[int]:
    """Widths of the first of two images wherever a call joins them along the channels."""
    found: list[int] = []
    join = torch.cat

    def record(tensors: Any, dim: int = 0) -> Tensor:
        if len(tensors) == 2 and dim == 1 and tensors[0].dim() == 4:
            found.append(tensors[0].shape[1])
        return join(tensors, dim)

    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(torch, "cat", record)
        run()
    return found


@pytest.mark.parametrize("shape", SHAPES)
def test_boundaries_are_where_a_call_concatenates(shape: str) -> None:
    network = unet(shape)
    widths = concatenated(network, lambda: network(*calls_of(shape)[0]))
    assert len(set(widths)) == 2  # of different levels
    found = boundaries(network, "all")
    for place, width in enumerate(widths):
        block = f"output_blocks.{place}.0"
        assert found.pop(f"{block}.in_layers.2") == width
        assert found.pop(f"{block}.skip_connection") == width
    assert not found
    shortcuts = boundaries(network, "skip")
    assert list(shortcuts) == [
        f"output_blocks.{place}.0.skip_connection" for place in range(len(widths))
    ]
    assert boundaries(network, "none") == {}


def test_boundaries_of_diffusers() -> None:
    diffusers = pytest.importorskip("diffusers")
    network = diffusers.UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        block_out_channels=(32, 64, 96),
        layers_per_block=2,
        cross_attention_dim=32,
        attention_head_dim=8,
        norm_num_groups=8,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D", "CrossAttnUpBlock2D"),
    ).eval()
    call = (torch.zeros(1, 4, 16, 16), 1, torch.zeros(1, 3, 32))
    widths = concatenated(network, lambda: network(*call))
    names = [f"up_blocks.{block}.resnets.{layer}" for block in range(3) for layer in range(3)]
    expected = {f"{name}.conv_shortcut": w for name, w in zip(names, widths, strict=True)}
    assert len(set(widths)) == 3
    assert boundaries(network, "skip") == expected
    assert boundaries(network, "all") == {
        f"{name}.{layer}": width
        for name, width in zip(names, widths, strict=True)
        for layer in ("conv1", "conv_shortcut")
    }
    image = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    given = [{"sample": image, "timestep": t, "encoder_hidden_states": call[2]} for t in TIMES]
    student = quantize(network, "rtn", "w16a16", timesteps=TIMES, policy="full", split="all")
    calibrate_on_calls(student, given)
    with torch.no_grad():
        expected = network(**given[1]).sample
        error = student(**given[1]).sample - expected  # of what the range search leaves out
        assert error.norm() < 0.05 * expected.norm()


def test_what_is_not_known_is_not_split() -> None:
    assert boundaries(nn.Sequential(nn.Conv2d(4, 4, 1)), "all") == {}
    network = unet("attention")
    network.output_blocks[1][0].skip_connection = nn.Conv2d(80, 64, 1)
    assert "output_blocks.1.0.skip_connection" not in boundaries(network, "all")
    assert "output_blocks.2.0.skip_connection" in boundaries(network, "all")


def test_a_split_layer_is_the_sum_of_two_quantized_halves() -> None:
    """By hand in float64: every half has a grid of its input, and one a channel of its weight."""
    student = student_of("attention", "w3a4", split="skip").double()
    name = "output_blocks.3.0.skip_connection"
    layer = student.network.get_submodule(name)
    source = unet("attention").get_submodule(name)
    assert isinstance(layer, SplitLayer)
    assert layer.boundary == 32
    random = torch.Generator().manual_seed(2)
    x = torch.randn(2, 64, 5, 5, generator=random, dtype=torch.float64)
    x[:, 32:] *= 7
    student.step.set(501)
    expected = source.bias.detach().double()[:, None, None]
    for part, half in ((layer.first, slice(0, 32)), (layer.second, slice(32, 64))):
        scale, zero = part.activation.scale[1].detach(), part.activation.zero[1]
        given = ((x[:, half] / scale).round() + zero).clamp(0, 15).sub(zero) * scale
        weight = source.weight.detach()[:, half]
        grid = mse_grid(weight, 3, per_channel=True).for_weight(weight)
        codes = ((weight / grid.scale).round() + grid.zero).clamp(0, 7)
        rounded = (codes - grid.zero).double() * grid.scale.double()
        expected = expected + nn.functional.conv2d(given, rounded)
    torch.testing.assert_close(layer(x), expected, rtol=1e-9, atol=1e-9)
    assert layer.second.bias is None


@pytest.mark.parametrize("shape", SHAPES)
def test_without_quantization_nothing_changes(shape: str) -> None:
    network = unet(shape)
    student = student_of(shape, "w16a16", split="all")
    splits = [one for one in student.network.modules() if isinstance(one, SplitLayer)]
    assert len(splits) == len(boundaries(network, "all")) == 8
    with torch.no_grad():
        for call in calls_of(shape):
            expected = network(*call)
            assert (student(*call) - expected).norm() <= 1e-3 * expected.norm()


def test_halves_of_different_ranges_profit() -> None:
    """One half ten times as large as the other, at 4 bits; the weight makes up for it."""
    network, name = unet("attention"), "output_blocks.3.0.skip_connection"
    source = network.get_submodule(name)
    source.weight.data[:, 32:] *= 0.1
    random = torch.Generator().manual_seed(1)
    x = torch.randn(2, 64, 8, 8, generator=random) * torch.tensor([1.0, 10.0]).repeat_interleave(
        32
    ).view(1, -1, 1, 1)
    errors = {}
    for split in ("none", "skip"):
        student = quantize(network, "rtn", "w8a4", policy="full", split=split)
        layer = student.network.get_submodule(name)
        if split == "skip":
            layer.first.activation.calibrate(x[:, :32], 0)
            layer.second.activation.calibrate(x[:, 32:], 0)
        else:
            layer.activation.calibrate(x, 0)
        with torch.no_grad():
            errors[split] = float((layer(x) - source(x)).square().mean())
    assert errors["skip"] < 0.3 * errors["none"]


def test_full_precision_layers_are_not_split() -> None:
    """The official policy exempts the skip connections."""
    student = student_of("attention", policy="official", split="skip")
    assert not any(isinstance(one, SplitLayer) for one in student.network.modules())
    assert isinstance(student.network.get_submodule("output_blocks.0.0.skip_connection"), nn.Conv2d)
    student = student_of("attention", policy="official", split="all")
    assert isinstance(student.network.get_submodule("output_blocks.0.0.in_layers.2"), SplitLayer)
    policy = "official; output_blocks.0.0.skip_connection = static_8bit"
    student = student_of("attention", policy=policy, split="skip")
    layer = student.network.get_submodule("output_blocks.0.0.skip_connection")
    assert (layer.first.weight.bits, layer.second.activation.bits) == (8, 8)
    assert not layer.first.low_bit


def test_coverage_counts_the_halves_as_one_layer_would() -> None:
    call = calls_of("attention")[0]
    plain, split = (
        coverage(student_of("attention", split=split), call) for split in ("none", "all")
    )
    for key in ("macs", "weights", "bops", "weight_bytes", "float_weight_bytes"):
        assert split[key] == plain[key]
    assert split["low_bit"] == plain["low_bit"]
    assert split["uncounted_weights"] == plain["uncounted_weights"] == 0
    # Two layers in each of four blocks have a second grid, 5 bytes a channel.
    assert split["grid_bytes"] - plain["grid_bytes"] == 5 * 2 * (64 + 64 + 32 + 32)
    # Two steps of a scale in 4 bytes and a zero-point in one.
    assert split["table_bytes"] - plain["table_bytes"] == 8 * 2 * 5


def test_a_file_gives_it_back(tmp_path: Path) -> None:
    student = student_of("attention", split="all")
    path = tmp_path / "student.safetensors"
    save_student(student, path)
    again = load_student(path, unet("attention"))
    with torch.no_grad():
        for call in calls_of("attention"):
            assert torch.equal(again(*call), student(*call))


@pytest.mark.parametrize("shape", SHAPES)
def test_it_multiplies_integers(shape: str, tmp_path: Path) -> None:
    student = student_of(shape, "w4a8", split="all")
    converted = integer.convert(student)
    assert not converted.report.kept
    assert list(converted.integer_layers()) == list(student.quantized_layers())
    integer.save(converted, tmp_path / "packed.safetensors")
    other = copy.deepcopy(unet(shape))
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    again = integer.load(tmp_path / "packed.safetensors", other)
    with torch.no_grad():
        for call in calls_of(shape):
            expected, found = student(*call), converted(*call)
            # A tie that falls to the other side moves a code; the rest is rounding.
            assert (found - expected).norm() < 0.02 * expected.norm()
            assert torch.equal(again(*call), found)


def test_the_halves_weights_and_units() -> None:
    network = unet("attention")
    student = student_of("attention", split="skip")
    name = "output_blocks.3.0.skip_connection"
    weight = network.get_submodule(name).weight.detach()
    for part, columns in (("first", weight[:, :32]), ("second", weight[:, 32:])):
        assert torch.equal(float_weight(student.network, network, f"{name}.{part}"), columns)
    conv = network.output_blocks[3][0].in_layers[2].weight
    assert torch.equal(
        float_weight(student.network, network, "output_blocks.3.0.in_layers.2"), conv.detach()
    )
    for wrong in (name, "output_blocks.9"):
        with pytest.raises(BenchError, match=f"UNet has no quantized layer '{wrong}'"):
            float_weight(student.network, network, wrong)
    block = next(
        unit
        for unit in find_units(student.network, list(student.low_bit_layers()))
        if unit.name == "output_blocks.3.0"
    )
    assert block.layers == tuple(
        f"output_blocks.3.0.{part}"
        for part in (
            "in_layers.2",
            "emb_layers.1",
            "out_layers.3",
            "skip_connection.first",
            "skip_connection.second",
        )
    )
    # Named by the layer it stands in for.
    assert find_units(student.network, [name]) == [
        Unit("output_blocks.3.0", "residual", (f"{name}.first", f"{name}.second"))
    ]
    shortcut = nn.ModuleDict({"shortcut": student.network.get_submodule(name)})
    assert find_units(shortcut, ["shortcut"]) == [
        Unit("shortcut", "layer", ("shortcut.first", "shortcut.second"))
    ]


def test_reconstruction_learns_the_halves() -> None:
    network, calls = unet("attention"), calls_of("attention")
    student = student_of("attention", "w3a8", split="skip")
    name = "output_blocks.3.0.skip_connection"
    before = student.network.get_submodule(name).second.weight.codes.clone()
    fit = RoundingFit(updates=40, batch=4, rate=3e-2, penalty=1e-4)
    (done,) = reconstruct_weights(student, network, calls, fit, layers=[name])
    assert done.unit.layers == (f"{name}.first", f"{name}.second")
    assert done.after < done.before
    for layer in student.quantized_layers().values():
        assert isinstance(layer, QuantizedLayer)
        assert isinstance(layer.weight, StaticWeight)
    assert not torch.equal(student.network.get_submodule(name).second.weight.codes, before)


def test_parts_are_left_out_by_the_layers_name() -> None:
    student = student_of("attention", split="skip", outlier_split=5)
    name = "output_blocks.3.0.skip_connection"
    assert source_name(student.network, f"{name}.first.layer") == name
    assert source_name(student.network, "time_embed.0.layer") == "time_embed.0"
    work = Work(student, unet("attention"), [], StageLog(student), Scale(), 0)
    layers = work.layers(["*skip_connection", "time_embed.0"])
    left_out = set(student.low_bit_layers()) - set(layers)
    assert left_out == {"time_embed.0.layer"} | {
        f"output_blocks.{place}.0.skip_connection.{part}.layer"
        for place in range(4)
        for part in ("first", "second")
    } | {"input_blocks.3.0.skip_connection.layer"}


@pytest.mark.parametrize("shape", SHAPES)
def test_everything_at_once_through_all_stages(shape: str, tmp_path: Path) -> None:
    """Q-Diffusion's stages, unit by unit, resumed from the file of an interrupted run."""
    network, calls = unet(shape), calls_of(shape)
    options: dict[str, Any] = {"split": "all", "outlier_split": 5, "mixed": "kurtosis"}
    scale = Scale(updates=2e-4, rates=10)

    def student() -> Student:
        return quantize(network, "qdiffusion", "w4a8", timesteps=TIMES, **options)

    made = student()
    post_train(made, network, calls, scale)
    path = tmp_path / "checkpoint.safetensors"
    post_train(student(), network, calls, scale, checkpoint=path)
    again = student()
    post_train(again, network, calls, scale, checkpoint=path)
    for call in calls:
        expected, found = network(*call), made(*call)
        assert (found - expected).norm() < 0.5 * expected.norm()
        assert torch.equal(again(*call), found)
