"""One update of QuEST's fine-tuning against numbers from its released layers (tests/data/quest)."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hqdm_bench.distill.finetune import fine_tuning_loss
from hqdm_bench.methods.stage_finetune import attention_tuning, temporal_tuning
from hqdm_bench.quantization import (
    ChannelStep,
    Grid,
    LearnedStep,
    QuantizedLayer,
    StepIndex,
    TrainedWeight,
)
from hqdm_bench.quantization.observers import MinMaxObserver, observer_for

DATA = json.loads((Path(__file__).parents[1] / "data" / "quest" / "fine_tuning.json").read_text())
CLOSE = {"rtol": 1e-5, "atol": 1e-8}


def tensor(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


class Net(nn.Module):
    """The network that the numbers are of: two projections of an embedding into a convolution."""

    def __init__(self, layers: dict[str, nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleDict(layers)

    def forward(self, emb: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        first, second = self.layers["first"](emb), self.layers["second"](emb)
        out = self.layers["conv"](x * (1 + first[:, :, None, None]))
        return first, second, out + second[:, :, None, None]


def exact(entry: dict[str, Any]) -> nn.Linear | nn.Conv2d:
    weight = tensor(entry["weight"])
    layer: nn.Linear | nn.Conv2d
    if weight.dim() == 2:
        layer = nn.Linear(weight.shape[1], weight.shape[0])
    else:
        layer = nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1)
    layer = layer.double()
    with torch.no_grad():
        layer.weight.copy_(weight)
        assert layer.bias is not None
        layer.bias.copy_(tensor(entry["bias"]))
    return layer


def quantized(entry: dict[str, Any]) -> QuantizedLayer:
    source = exact(entry)
    shape = (-1, *[1] * (source.weight.dim() - 1))
    grid = Grid(tensor(entry["delta"]).view(shape), tensor(entry["zero"]).view(shape))
    sides = torch.tensor(entry["up"], dtype=torch.uint8)
    step = StepIndex((501,))
    step.set(501)
    quantizer = LearnedStep(4, symmetric=True).double()
    quantizer.initialise(entry["step"])
    layer = QuantizedLayer(
        source, TrainedWeight(tensor(entry["tuned"]), grid, 4, sides), quantizer, step
    )
    assert layer.bias is not None
    layer.bias.requires_grad_(True)
    return layer


@pytest.mark.parametrize("part", ["temporal", "attention"])
def test_an_update_of_the_released_code(part: str) -> None:
    stage = temporal_tuning() if part == "temporal" else attention_tuning()
    emb, x = tensor(DATA["emb"]), tensor(DATA["x"])
    teacher = Net({name: exact(entry) for name, entry in DATA["layers"].items()})
    student = Net({name: quantized(entry) for name, entry in DATA["layers"].items()})
    for name, layer in student.layers.items():
        torch.testing.assert_close(
            layer.weight(0), tensor(DATA["layers"][name]["quantized"]), **CLOSE
        )
    with torch.no_grad():
        *wanted, target = teacher(emb, x)
    *found, output = student(emb, x)
    names = ("first", "second")
    loss = fine_tuning_loss(
        dict(zip(names, found, strict=True)),
        dict(zip(names, wanted, strict=True)),
        output,
        target,
        stage,
    )
    loss.backward()
    assert loss.item() == pytest.approx(DATA[part]["loss"], rel=1e-5)
    for name, gradients in DATA[part]["gradients"].items():
        layer = student.layers[name]
        assert tensor(gradients["weight"]).count_nonzero() > 4
        torch.testing.assert_close(layer.weight.weight.grad, tensor(gradients["weight"]), **CLOSE)
        torch.testing.assert_close(layer.bias.grad, tensor(gradients["bias"]), **CLOSE)
        step = layer.activation.scale.grad.squeeze()
        torch.testing.assert_close(step, tensor(gradients["step"]), **CLOSE)
    assert all(layer.weight.scale.grad is None for layer in student.layers.values())


@pytest.mark.parametrize("entry", DATA["channels"])
def test_inputs_by_channel_as_released(entry: dict[str, Any]) -> None:
    x, channels = tensor(entry["x"]), len(entry["delta"])
    quantizer = ChannelStep(
        4, 1, channels, linear=entry["linear"], symmetric=entry["symmetric"]
    ).double()
    observer = observer_for(quantizer, MinMaxObserver)
    observer.observe(quantizer.by_channel(x))
    observer.store(quantizer)
    torch.testing.assert_close(quantizer.scale[0].detach(), tensor(entry["delta"]), **CLOSE)
    if quantizer.zero is not None:
        torch.testing.assert_close(quantizer.zero[0], tensor(entry["zero"]), rtol=0, atol=0)
    with torch.no_grad():
        quantizer.scale.mul_(0.7)  # as there, so that values are clipped
    out = quantizer(x, 0)
    (out * tensor(entry["g"])).sum().backward()
    torch.testing.assert_close(out, tensor(entry["out"]), **CLOSE)
    assert quantizer.scale.grad is not None
    torch.testing.assert_close(quantizer.scale.grad[0], tensor(entry["gradient"]), **CLOSE)
