import pytest
import torch
from torch import nn

from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.seeds import generator as stream
from hqdm_bench.quantization import (
    AffineStatic,
    LoRAWeight,
    QuantizedLayer,
    Rotation,
    StaticWeight,
    StepIndex,
    SymmetricTable,
    coverage,
    replace,
)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, padding=1)
        self.blocks = nn.Sequential(nn.SiLU(), nn.Conv2d(32, 8, 3, stride=2, padding=1))
        self.qkv = nn.Conv1d(8, 24, 1)
        self.head = nn.Linear(24, 10)
        self.unused = nn.Linear(10, 10)

    def forward(self, x):
        x = self.blocks(self.stem(x))  # (B, 8, 4, 4)
        return self.head(self.qkv(x.flatten(2)).mean(2))


def quantize(model):
    step = StepIndex([1])
    step.set(1)
    weight = LoRAWeight.from_float(model.blocks[1].weight, 3, 4, stream("w"))
    activation = SymmetricTable(4, 1)
    activation.initialise(0.1)
    layer = QuantizedLayer(model.blocks[1], weight, activation, step, Rotation(5))
    old = replace(model, "blocks.1", layer)
    assert isinstance(old, nn.Conv2d)
    static = AffineStatic(8)
    static.initialise(0.1, 100)
    weight = StaticWeight.from_float(model.stem.weight, 8)
    replace(model, "stem", QuantizedLayer(model.stem, weight, static, step))


def test_replace_by_name():
    model = Model().eval()
    quantize(model)
    assert isinstance(model.blocks[1], QuantizedLayer)
    assert isinstance(model.stem, QuantizedLayer)
    assert not model.stem.training
    assert model(torch.ones(2, 3, 8, 8)).shape == (2, 10)
    assert [name for name, _ in model.blocks.named_children()] == ["0", "1"]
    for name in ("blocks.7", "nothing", "blocks.1.nothing.deep"):
        with pytest.raises(BenchError, match=f"no module '{name}'"):
            replace(model, name, nn.Identity())
    with pytest.raises(BenchError, match="empty"):
        replace(model, "", nn.Identity())


def test_coverage_by_hand():
    model = Model().eval()
    quantize(model)
    found = coverage(model, [torch.zeros(1, 3, 8, 8)])
    stem, down, qkv, head = 64 * 32 * 27, 16 * 8 * 288, 16 * 24 * 8, 10 * 24
    weights = {"w8a8": 32 * 27, "w3a4": 8 * 288, "w32a32": 24 * 8 + 240 + 100}
    macs = {"w8a8": stem, "w3a4": down, "w32a32": qkv + head}
    assert found["macs"] == stem + down + qkv + head
    assert found["weights"] == sum(weights.values())
    assert set(found["by_bits"]) == set(weights)
    for bits, group in found["by_bits"].items():
        assert group["macs"] == macs[bits]
        assert group["weights"] == weights[bits]
        assert group["mac_share"] == pytest.approx(macs[bits] / found["macs"])
        assert group["weight_share"] == pytest.approx(weights[bits] / found["weights"])
    assert [group["layers"] for group in found["by_bits"].values()] == [1, 1, 3]
    assert found["bops"] == stem * 64 + down * 12 + (qkv + head) * 1024
    assert found["weight_bytes"] == 32 * 27 + 8 * 288 * 3 / 8 + 4 * weights["w32a32"]
    assert found["float_weight_bytes"] == 4 * found["weights"]
    assert found["grid_bytes"] == 5 * (32 + 8)


def test_coverage_leaves_no_hook_and_scales_with_the_batch():
    model = Model()
    one, three = (coverage(model, [torch.zeros(size, 3, 8, 8)]) for size in (1, 3))
    assert three["macs"] == 3 * one["macs"]
    assert set(one["by_bits"]) == {"w32a32"}
    assert one["bops"] == 1024 * one["macs"]
    assert not any(module._forward_hooks for module in model.modules())
    with pytest.raises(BenchError, match="ran no convolution"):
        coverage(nn.ReLU(), [torch.zeros(1)])
