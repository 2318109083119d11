"""Outlier channel splitting: exact before rounding, the paper's identities after it, its costs."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from hqdm_bench import integer
from hqdm_bench.distill import calibrate_on_calls, reconstruct_weights
from hqdm_bench.methods import RoundingFit, Student, load_student, quantize, save_student
from hqdm_bench.quantization import (
    QuantizedLayer,
    RepeatedChannels,
    SplitLayer,
    coverage,
    float_weight,
    outlier_channels,
    split_channels,
)

# "made_by" in the file says how.
RELEASED = Path(__file__).parents[1] / "data" / "oracle" / "outliers.json"
LAYERS = [
    (nn.Linear(12, 6), (4, 5, 12), -1),
    (nn.Conv1d(12, 6, 1), (4, 12, 5), 1),
    (nn.Conv2d(12, 6, 3, padding=1, stride=2), (4, 12, 5, 5), 1),
]


def normal(*shape: int, seed: int = 0) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=random, dtype=torch.float64)


def with_outliers(*shape: int) -> Tensor:
    weight = normal(*shape)
    weight[:, 3] *= 11
    weight[:, 7] *= 4
    return weight


def one_by_one(weight: Tensor, count: int) -> tuple[Tensor, list[int]]:
    """The paper's procedure on the widened weight: find the largest column, halve it, append it."""
    origin = list(range(weight.shape[1]))
    for _ in range(count):
        largest = int(weight.abs().transpose(0, 1).flatten(1).amax(1).argmax())
        weight = weight.clone()
        weight[:, largest] /= 2
        weight = torch.cat([weight, weight[:, largest : largest + 1]], 1)
        origin.append(origin[largest])
    return weight, origin[-count:]


@pytest.mark.parametrize("count", [1, 2, 5, 9])
@pytest.mark.parametrize("shape", [(6, 12), (6, 12, 3, 3)])
def test_channels_are_those_of_splitting_one_by_one(count: int, shape: tuple[int, ...]) -> None:
    weight = with_outliers(*shape)
    expected, channels = one_by_one(weight, count)
    found = outlier_channels(weight, count)
    assert found.dtype == torch.int32
    assert found.tolist() == channels
    assert channels[0] == 3
    assert len(set(channels)) < len(channels) or count < 3  # some more than once
    halves = split_channels(weight, found)
    # The copies of a channel are the same ones, in some order.
    place = [*range(12), *channels]
    for channel in range(12):
        copies = [column for column, own in enumerate(place) if own == channel]
        size = lambda one, w: float(w[:, one].abs().max())  # noqa: E731
        assert sorted(size(c, halves) for c in copies) == sorted(size(c, expected) for c in copies)


def test_channels_are_the_released_ones() -> None:
    """The released code halves what is above half of a maximum, which halves the maximum."""
    released = json.loads(RELEASED.read_text())["ocs"]
    weight = torch.tensor(released["weight"], dtype=torch.float64)
    channels = outlier_channels(weight, len(released["channels"]))
    assert channels.tolist() == released["channels"]
    found = split_channels(weight, channels).abs().amax(0)
    expected = torch.tensor(released["maxima"], dtype=torch.float64)
    torch.testing.assert_close(found.sort().values, expected.sort().values)


def test_no_split_is_the_weight_itself() -> None:
    weight = normal(3, 4)
    assert outlier_channels(weight, 0).tolist() == []
    assert split_channels(weight, outlier_channels(weight, 0)) is weight


@pytest.mark.parametrize("step", [None, 0.37])
@pytest.mark.parametrize(("layer", "shape", "dim"), LAYERS)
def test_it_is_exact_before_rounding(
    layer: nn.Module, shape: tuple[int, ...], dim: int, step: float | None
) -> None:
    """In float64: the layer of the longer input computes what the layer computed."""
    weight = with_outliers(*layer.weight.shape)
    delta = None
    if step is not None:
        delta = step * normal(6, *[1] * (weight.dim() - 1), seed=2).abs()
    channels = outlier_channels(weight, 5)
    wide = split_channels(weight, channels, delta)
    assert wide.shape == (6, 17, *weight.shape[2:])
    x = normal(*shape, seed=1)
    longer = torch.cat([x, x.index_select(dim, channels)], dim)

    def operate(given: Tensor, w: Tensor) -> Tensor:
        if dim == -1:
            return nn.functional.linear(given, w)
        convolve = nn.functional.conv1d if w.dim() == 3 else nn.functional.conv2d
        return convolve(given, w, None, layer.stride, layer.padding)

    torch.testing.assert_close(operate(longer, wide), operate(x, weight), rtol=1e-12, atol=1e-12)


def test_the_roundings_of_the_parts_add_up_to_the_rounding() -> None:
    """Q(w) = Q((w - delta/2)/2) + Q((w + delta/2)/2), again and again."""
    weight = with_outliers(6, 12, 3, 3)
    delta = 0.3 * (1 + normal(6, 1, 1, 1, seed=3).abs())
    channels = outlier_channels(weight, 9)
    codes = (split_channels(weight, channels, delta) / delta).round()
    total = codes[:, :12].index_add(1, channels, codes[:, 12:])
    assert torch.equal(total, (weight / delta).round())
    plain = (split_channels(weight, channels) / delta).round()  # halves are not as exact
    total = plain[:, :12].index_add(1, channels, plain[:, 12:])
    assert not torch.equal(total, (weight / delta).round())


def network() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        layers = nn.Sequential(
            nn.Conv2d(3, 40, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(40, 8, 3, padding=1),
            nn.Conv2d(8, 5, 1),
        )
    with torch.no_grad():
        layers[2].weight[:, 7] *= 12
    return layers.eval()


def calls() -> list[tuple[Tensor]]:
    return [(normal(4, 3, 6, 6, seed=5).float(),)]


def student_of(bits: str = "w4a8", percent: int = 5, **options: str) -> Student:
    student = quantize(network(), "rtn", bits, policy="full", outlier_split=percent, **options)
    calibrate_on_calls(student, calls())
    return student


def test_students_repeat_a_share_of_every_layers_channels() -> None:
    student = student_of()
    assert list(student.quantized_layers()) == ["0.layer", "2.layer", "3.layer"]
    counts = [len(student.network[place].channels) for place in (0, 2, 3)]
    assert counts == [1, 2, 1]  # 5 % of 3, 40 and 8, rounded up
    middle = student.network[2]
    assert isinstance(middle, RepeatedChannels)
    assert middle.channels.tolist() == [7, 7]
    assert middle.layer.weight.shape == (8, 42, 3, 3)
    # On its grid, the codes of the copies add up to those of the channel: the identity again.
    weight, static = network()[2].weight.detach(), middle.layer.weight
    codes = static.codes.double() - static.zero
    total = codes[:, 7] + codes[:, 40] + codes[:, 41]
    expected = (weight[:, 7] / static.scale[:, 0]).round().double()
    inside = (static.codes[:, [7, 40, 41]] % 15 != 0).all(1)  # what the grid clips is not exact
    assert inside.double().mean() > 0.5
    assert torch.equal(total[inside], expected[inside])


def test_the_student_is_nearer_to_the_network() -> None:
    (call,), net = calls(), network()
    with torch.no_grad():
        plain, split = (
            (student_of(percent=percent, weight_init="max")(*call) - net(*call)).norm()
            for percent in (0, 5)
        )
        assert split < 0.6 * plain
        exact = student_of("w16a16")(*call)
        assert (exact - net(*call)).norm() < 1e-3 * net(*call).norm()


def test_costs_are_counted() -> None:
    (call,) = calls()
    plain, split = coverage(student_of(percent=0), call), coverage(student_of(), call)
    extra = {"0": 40 * 9, "2": 2 * 8 * 9, "3": 5}
    assert split["weights"] - plain["weights"] == sum(extra.values())
    assert split["macs"] - plain["macs"] == 4 * 36 * sum(extra.values())
    assert split["bops"] == 4 * 8 * split["macs"]
    assert split["weight_bytes"] == plain["weight_bytes"] + 180 + 72 + 3  # 95 nibbles more in all
    assert split["float_weight_bytes"] == plain["float_weight_bytes"]
    assert split["table_bytes"] - plain["table_bytes"] == 4 * (1 + 2 + 1)
    assert split["grid_bytes"] == plain["grid_bytes"]


def test_a_file_gives_it_back(tmp_path: Path) -> None:
    student = student_of()
    path = tmp_path / "student.safetensors"
    save_student(student, path)
    other = network()
    with torch.no_grad():
        other[2].weight[:, 7] /= 100  # it would choose other channels
    again = load_student(path, other)
    assert again.network[2].channels.tolist() == [7, 7]
    (call,) = calls()
    with torch.no_grad():
        assert torch.equal(again(*call), student(*call))


@torch.no_grad()
def test_it_multiplies_integers(tmp_path: Path) -> None:
    student = student_of()
    converted = integer.convert(student)
    assert list(converted.integer_layers()) == ["0.layer", "2.layer", "3.layer"]
    sizes = integer.save(converted, tmp_path / "packed.safetensors")
    numbers = sum(parameter.numel() for parameter in network().parameters())
    assert sizes["float32"] == 4 * numbers
    again = integer.load(tmp_path / "packed.safetensors", network())
    (call,) = calls()
    expected, found = student(*call), converted(*call)
    assert (found - expected).norm() < 0.02 * expected.norm()
    assert torch.equal(again(*call), found)


def test_reconstruction_starts_from_the_parts() -> None:
    student, net = student_of("w3a8"), network()
    layer = student.network[2].layer
    source = float_weight(student.network, net, "2.layer")
    assert source.shape == layer.weight.shape
    total = source[:, 7] + source[:, 40] + source[:, 41]
    torch.testing.assert_close(total, net[2].weight[:, 7].detach())
    before = layer.weight.codes.clone()
    reconstruct_weights(student, net, calls(), RoundingFit(updates=0), layers=["2.layer"])
    assert torch.equal(layer.weight.codes, before)  # rounding to nearest is where it starts
    fit = RoundingFit(updates=60, batch=4, rate=3e-2, penalty=1e-4)
    done = reconstruct_weights(student, net, calls(), fit)
    assert [one.unit.layers for one in done] == [("0.layer",), ("2.layer",), ("3.layer",)]
    assert all(one.after <= one.before for one in done)


def test_within_a_split_layer() -> None:
    """Both at once: every half has outliers of its own."""
    unet = nn.ModuleDict(
        {
            "input_blocks": nn.ModuleList([nn.Conv2d(3, 8, 1)]),
            "middle_block": nn.Conv2d(8, 16, 1),
            "output_blocks": nn.ModuleList(
                [nn.ModuleList([nn.ModuleDict({"skip_connection": nn.Conv2d(24, 5, 1)})])]
            ),
        }
    ).double()
    name = "output_blocks.0.0.skip_connection"
    source = unet.get_submodule(name)
    student = quantize(unet, "rtn", "w16a16", policy="full", split="skip", outlier_split=10)
    layer = student.network.get_submodule(name)
    assert isinstance(layer, SplitLayer)
    parts = [layer.first, layer.second]
    assert [len(part.channels) for part in parts] == [2, 1]
    x = normal(2, 24, 4, 4)
    for part, given in zip(parts, x.split([16, 8], 1), strict=True):
        assert isinstance(part.layer, QuantizedLayer)
        part.layer.activation.calibrate(given, 0)
    torch.testing.assert_close(layer(x), source(x), rtol=1e-3, atol=1e-3)
    weight = float_weight(student.network, unet, f"{name}.second.layer")
    channel = int(layer.second.channels[0])
    whole = source.weight.detach()[:, 16 + channel]
    torch.testing.assert_close(weight[:, channel] + weight[:, 8], whole)
