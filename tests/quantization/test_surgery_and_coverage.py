import pytest
import torch
from torch import nn

from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.seeds import generator as stream
from hqdm_bench.quantization import (
    AffineStatic,
    AffineTable,
    ChannelScaling,
    LoRAWeight,
    QuantizedLayer,
    Rotation,
    ShiftedTable,
    StaticWeight,
    StepIndex,
    SymmetricTable,
    coverage,
    replace,
)
from hqdm_bench.quantization.sizes import table_bytes


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
    with pytest.raises(BenchError, match="wrap it in nn.Sequential"):
        replace(model, "", nn.Identity())


def test_replace_in_every_place_that_holds_the_module():
    shared = nn.Linear(4, 4)
    model = nn.ModuleDict({"a": nn.Sequential(shared, nn.ReLU(), shared), "b": shared})
    new = nn.Identity()
    assert replace(model, "a.2", new) is shared
    assert model["a"][0] is model["a"][2] is model["b"] is new


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
    assert found["table_bytes"] == (4 + 1) + 4  # static scale and zero-point; symmetric table
    assert found["low_bit"] == {
        "mac_share": found["by_bits"]["w3a4"]["mac_share"],
        "weight_share": found["by_bits"]["w3a4"]["weight_share"],
    }
    assert found["uncounted_weights"] == 0
    assert coverage(model, {"x": torch.zeros(1, 3, 8, 8)}) == found


def test_coverage_leaves_no_hook_and_scales_with_the_batch():
    model = Model()
    one, three = (coverage(model, [torch.zeros(size, 3, 8, 8)]) for size in (1, 3))
    assert three["macs"] == 3 * one["macs"]
    assert set(one["by_bits"]) == {"w32a32"}
    assert one["bops"] == 1024 * one["macs"]
    assert not any(module._forward_hooks for module in model.modules())
    assert one["low_bit"] == {"mac_share": 0, "weight_share": 0}
    assert one["table_bytes"] == one["grid_bytes"] == 0
    with pytest.raises(BenchError, match="ran no convolution"):
        coverage(nn.ReLU(), [torch.zeros(1)])
    with pytest.raises(BenchError, match=r"coverage\(model, \(x,\)\)"):
        coverage(model, torch.zeros(1, 3, 8, 8))


def test_low_bit_is_a_role_not_a_width():
    """At w8a8 both kinds of layer are under one width."""
    step = StepIndex([1])
    step.set(1)
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 16))
    low = LoRAWeight.from_float(model[0].weight, 8, 4, stream("w"))
    table = SymmetricTable(8, 1)
    table.initialise(0.1)
    replace(model, "0", QuantizedLayer(model[0], low, table, step))
    static = AffineStatic(8)
    static.initialise(0.1, 100)
    fixed = StaticWeight.from_float(model[1].weight, 8)
    replace(model, "1", QuantizedLayer(model[1], fixed, static, step))
    found = coverage(model, (torch.zeros(1, 8),))
    assert found["by_bits"]["w8a8"]["mac_share"] == 0.5
    assert found["low_bit"] == {"mac_share": 0.25, "weight_share": 0.25}


class Zoo(nn.Module):
    """Layers that cannot be quantized, none of which may hide."""

    def __init__(self):
        super().__init__()
        self.grouped = nn.Conv1d(4, 8, 3, groups=2, padding=1)
        self.up = nn.ConvTranspose1d(8, 4, 2, stride=2)
        self.attention = nn.MultiheadAttention(4, 2, kdim=3, vdim=5, batch_first=True)
        self.encoder = nn.TransformerEncoderLayer(4, 2, 6, batch_first=True)
        self.embedding = nn.Embedding(10, 4)
        self.gru = nn.GRU(4, 4)

    def forward(self, x, memory):
        x = self.up(self.grouped(x)).transpose(1, 2)  # (B, 10, 4)
        x, _ = self.attention(x, key=memory[..., :3], value=memory)
        return self.gru(self.encoder(x) + self.embedding.weight)[0]


def test_what_cannot_be_quantized_is_counted_by_hand():
    model = Zoo().eval()
    found = coverage(model, (torch.zeros(1, 4, 5), torch.zeros(1, 7, 5)))
    grouped, up = 5 * 8 * 2 * 3, 5 * 8 * 4 * 2
    attention = 10 * 4 * 4 * 2 + 7 * 3 * 4 + 7 * 5 * 4
    encoder = 10 * (4 * 4 * 4 + 2 * 4 * 6)
    assert found["macs"] == grouped + up + attention + encoder
    weights = 8 * 2 * 3 + 8 * 4 * 2 + (4 * 4 * 2 + 3 * 4 + 5 * 4) + (4 * 4 * 4 + 2 * 4 * 6)
    assert found["weights"] == weights
    assert found["by_bits"]["w32a32"]["layers"] == 6
    assert found["uncounted_weights"] == 10 * 4 + 2 * 12 * 4
    assert found["weight_bytes"] == found["float_weight_bytes"] == 4 * weights
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.parametrize(
    ("activation", "expected"),
    [
        (SymmetricTable(4, 5), 4 * 5),
        (AffineTable(4, 5), 2 * 4 * 5),  # real zero-points
        (AffineTable(4, 5, integer_zero=True), (4 + 1) * 5),
        (ShiftedTable(4, 5, 12), (4 + 1) * 5 + 5 * 12 // 4),  # two bits a channel and step
        (ShiftedTable(4, 5, 12, symmetric=True, shared=True), 4 * 5 + 12 // 4),
    ],
)
def test_bytes_of_tables_centres_and_signs(activation, expected):
    source = nn.Linear(12, 6)
    step = StepIndex(range(5))
    weight = LoRAWeight.from_float(source.weight, 4, 2, stream("w"))
    assert table_bytes(QuantizedLayer(source, weight, activation, step)) == expected
    layer = QuantizedLayer(
        source,
        weight,
        activation,
        step,
        Rotation(2),
        signs=torch.ones(12),
        centred=True,
    )
    assert table_bytes(layer) == expected + 2 + 4 * 5 * 12


@pytest.mark.parametrize(("shifted", "expected"), [(False, 4 * 8), (True, 4 * (8 + 8 + 6 * 9))])
def test_bytes_of_scales_and_shifts(shifted, expected):
    source = nn.Conv2d(8, 6, 3)
    scaling = ChannelScaling(source.weight, False, shifted=shifted)
    weight = StaticWeight.from_float(source.weight, 4)
    layer = QuantizedLayer(source, weight, AffineStatic(8), StepIndex([1]), scaling=scaling)
    assert table_bytes(layer) == 5 + expected


@pytest.mark.parametrize(
    ("steps", "base", "expected"),
    [
        (1, "dequantized", 0),
        (3, "dequantized", 2 * 4 * 6 + 2 * (6 * 12 // 2)),  # codes of two more steps
        (9, "dequantized", 8 * 4 * 6 + 4 * (2 * 12 + 6 * 2)),  # factors are less than eight codes
        (9, "full_precision", 8 * 4 * 6 + 4 * 72 - 36),  # float weight in place of one set
    ],
)
def test_bytes_of_weights_with_a_step_size_for_every_step(steps, base, expected):
    source = nn.Linear(12, 6)
    weight = LoRAWeight.from_float(source.weight, 4, 2, stream("w"), base=base, steps=steps)
    layer = QuantizedLayer(source, weight, AffineStatic(8), StepIndex(range(steps)))
    assert table_bytes(layer) == 5 + expected
