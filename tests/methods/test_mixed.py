"""Students with mixed precision: files, integers, reconstruction, what excludes it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hqdm_bench import integer
from hqdm_bench.common.errors import BenchError
from hqdm_bench.distill import calibrate_on_calls, reconstruct_weights
from hqdm_bench.methods import RoundingFit, Student, load_student, quantize, save_student
from hqdm_bench.quantization import MixedWeight, RepeatedChannels, StaticWeight, coverage


def network() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        layers = nn.Sequential(
            nn.Conv2d(3, 20, 3, padding=1), nn.SiLU(), nn.Conv2d(20, 30, 3, padding=1)
        )
    with torch.no_grad():
        layers[2].weight[4:7] *= 0.1
        for channel in (3, 8, 20):
            layers[2].weight[channel, channel % 20, 1, 1] = 1.5
    return layers.eval()


def calls() -> list[tuple[Tensor]]:
    return [(torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(5)),)]


def student_of(bits: str = "w4a8", **options: Any) -> Student:
    student = quantize(network(), "rtn", bits, policy="full", **{"mixed": "kurtosis", **options})
    calibrate_on_calls(student, calls())
    return student


@torch.no_grad()
def test_a_student_is_nearer_and_costs_the_same() -> None:
    (call,), net = calls(), network()
    plain, mixed = student_of(mixed="none"), student_of()
    weight = mixed.network[2].weight
    assert isinstance(weight, MixedWeight)
    assert (weight.channel_bits == 5).nonzero().flatten().tolist() == [3, 8, 20]
    errors = [(student(*call) - net(*call)).norm() for student in (plain, mixed)]
    assert errors[1] < errors[0]
    left, right = coverage(plain, call), coverage(mixed, call)
    assert left.pop("table_bytes") == right.pop("table_bytes") - 50
    assert left == right


@pytest.mark.parametrize("bits", ["w2a8", "w8a8", "w16a16"])
def test_where_there_is_no_bit_less_or_more_nothing_changes(bits: str) -> None:
    student, plain = student_of(bits), student_of(bits, mixed="none")
    for name, layer in student.quantized_layers().items():
        assert type(layer.weight) is StaticWeight
        assert torch.equal(layer.weight.codes, plain.quantized_layers()[name].weight.codes)


def test_a_grid_a_tensor_excludes_it() -> None:
    with pytest.raises(BenchError, match="mixed 'kurtosis'.* set weight_grids 'channel'"):
        student_of(weight_grids="tensor")


def test_a_file_gives_it_back(tmp_path: Path) -> None:
    student = student_of()
    save_student(student, tmp_path / "student.safetensors")
    again = load_student(tmp_path / "student.safetensors", network())
    (call,) = calls()
    with torch.no_grad():
        assert torch.equal(again(*call), student(*call))
    for layer, twin in zip(
        student.quantized_layers().values(), again.quantized_layers().values(), strict=True
    ):
        assert torch.equal(layer.weight.channel_bits, twin.weight.channel_bits)


@torch.no_grad()
def test_it_multiplies_integers(tmp_path: Path) -> None:
    student = student_of()
    converted = integer.convert(student)
    assert not converted.report.kept
    stored = {layer.name: layer.weight_bits for layer in converted.report.layers}
    assert stored["2"] == 5  # of the widest channel
    for name, layer in student.quantized_layers().items():
        codes = layer.weight.effective_codes().long() - layer.weight.zero.long()
        assert torch.equal(converted.integer_layers()[name].weight_codes().long(), codes)
    integer.save(converted, tmp_path / "packed.safetensors")
    again = integer.load(tmp_path / "packed.safetensors", network())
    (call,) = calls()
    expected, found = student(*call), converted(*call)
    assert (found - expected).norm() < 0.02 * expected.norm()
    assert torch.equal(again(*call), found)


def test_reconstruction_keeps_the_bits() -> None:
    student, net = student_of("w3a8"), network()
    before = student.network[2].weight
    fit = RoundingFit(updates=60, batch=4, rate=3e-2, penalty=1e-4)
    done = reconstruct_weights(student, net, calls(), fit)
    assert all(one.after <= one.before for one in done)
    weight = student.network[2].weight
    assert isinstance(weight, MixedWeight)
    assert torch.equal(weight.channel_bits, before.channel_bits)
    assert not torch.equal(weight.codes, before.codes)
    highest = 2 ** weight.channel_bits.long() - 1
    assert (weight.codes.flatten(1).amax(1) <= highest).all()


def test_together_with_split_outliers() -> None:
    student, (call,) = student_of("w4a8", outlier_split=10), calls()
    layer = student.network[2]
    assert isinstance(layer, RepeatedChannels)
    assert isinstance(layer.layer.weight, MixedWeight)
    assert layer.layer.weight.shape == (30, 22, 3, 3)
    assert student(*call).isfinite().all()
