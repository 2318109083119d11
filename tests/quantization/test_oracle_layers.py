"""Our layers against recorded results of the authors' released layers (tests/data/oracle)."""

import pytest
import torch
from torch import nn

from hqdm_bench.quantization import (
    AffineTable,
    Grid,
    LoRAWeight,
    QuantizedLayer,
    Rotation,
    StepIndex,
    SymmetricTable,
)

LAYERS = (
    "conv3x3_s1",
    "conv3x3_s2",
    "conv1x1",
    "linear_rank2",
    "linear_rank3",
    "conv3x3_cin48",
)
# Relative to the largest entry. Some gradients were stored rounded to float32.
FLOAT64 = {"out": 2e-14, "scale": 5e-14, "table": 5e-12, "large": 1e-7}
FLOAT32 = {"out": 2e-6, "scale": 1e-5, "table": 4e-4, "large": 2e-6}


def build(method, geometry, values, bits, dtype):
    """The layer under test, and the input that asks for a gradient."""
    weight_bits, activation_bits = bits
    if geometry["kind"] == "linear":
        source = nn.Linear(geometry["c_in"], geometry["c_out"])
    else:
        keys = ("c_in", "c_out", "kernel", "stride", "padding")
        source = nn.Conv2d(*(geometry[key] for key in keys))
    source = source.to(dtype)
    source.bias.data = values("bias")
    grid = Grid(values(f"w{weight_bits}/delta"), values(f"w{weight_bits}/zero_point"))
    codes = values(f"w{weight_bits}/codes").to(torch.uint8)
    weight = LoRAWeight(codes, grid, weight_bits, values("lora_A"), values("lora_B"))
    prefix = f"a{activation_bits}/"
    if method == "effdm":
        activation = AffineTable(activation_bits, 20).to(dtype)
        activation.initialise(values(prefix + "asym_delta_list"), values(prefix + "asym_zp_list"))
    else:
        activation = SymmetricTable(activation_bits, 20).to(dtype)
        activation.initialise(values(prefix + "sym_delta_list"))
    rotation = Rotation() if method == "hqdm" else None
    return QuantizedLayer(source, weight, activation, StepIndex(range(1, 1000, 50)), rotation)


def run(layer, x, cotangent, step):
    layer.step.set(layer.step.timesteps[step])
    x = x.requires_grad_()
    out = layer(x)
    (out * cotangent).sum().backward()
    results = {
        "out": (out, "out"),
        "grad_x": (x.grad, "large"),
        "grad_delta_quantizer": (layer.weight.scale.grad, "scale"),
        "grad_delta_dequantizer": (layer.weight.base_scale.grad, "scale"),
        "grad_act_delta_list": (layer.activation.scale.grad, "table"),
        "grad_lora_A": (layer.weight.lora_A.grad, "large"),
        "grad_lora_B": (layer.weight.lora_B.grad, "large"),
    }
    if layer.activation.zero is not None:
        results["grad_act_zp_list"] = (layer.activation.zero.grad, "table")
    return results


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("layer_name", LAYERS)
@pytest.mark.parametrize("method", ["effdm", "hqdm"])
def test_outputs_and_gradients(oracle, manifest, method, layer_name, dtype):
    geometry = manifest["layers"][layer_name]
    tolerance = FLOAT64 if dtype == torch.float64 else FLOAT32
    compared = 0
    for bits in manifest["bits"]:
        for step in manifest["steps"]:
            prefix = f"{layer_name}/w{bits[0]}a{bits[1]}/step{step}/"
            if prefix + "out" not in oracle[method]:
                continue

            def values(key):
                return oracle["common"][f"{layer_name}/{key}"].to(dtype).clone()

            layer = build(method, geometry, values, bits, dtype)
            for key, (ours, kind) in run(layer, values("x"), values("G"), step).items():
                expected = oracle[method].get(prefix + key)
                if expected is None:
                    continue
                error = (ours.double() - expected.double()).abs().max()
                assert error <= tolerance[kind] * expected.abs().max(), prefix + key
                compared += 1
    assert compared >= 24


@pytest.mark.parametrize("layer_name", LAYERS)
def test_frozen_layers_give_the_same_output(oracle, manifest, layer_name):
    """With the back rotation folded into the weight, in float64."""
    prefix = f"{layer_name}/"

    def values(key):
        return oracle["common"][prefix + key].double()

    layer = build("hqdm", manifest["layers"][layer_name], values, (4, 4), torch.float64).freeze()
    layer.step.set(layer.step.timesteps[7])
    with torch.no_grad():
        out = layer(values("x"))
    expected = oracle["hqdm"][f"{prefix}w4a4/step7/out"]
    assert (out - expected).abs().max() <= 2e-14 * expected.abs().max()
