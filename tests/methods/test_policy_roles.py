"""What the builders make of each role, and what measures and converts the result."""

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

import hqdm_bench
from hqdm_bench import integer
from hqdm_bench.distill import reconstruct_steps, reconstruct_weights
from hqdm_bench.distill.calibrate import calibrate_on_batch
from hqdm_bench.methods import RoundingFit, StepFit, Student
from hqdm_bench.quantization import AffineStatic, ExactInput, LearnedStep, coverage

TIMES = (1, 501)
POLICY = "official; 3 = weight_only; 4 = input_8bit"
CALLS = [(torch.randn(8, 8, generator=torch.Generator().manual_seed(t)), t) for t in TIMES]


class Net(nn.Sequential):
    """Eight linear layers, which react to the time."""

    def __init__(self) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            super().__init__(*(nn.Linear(8, 8) for _ in range(8)))

    def forward(
        self, x: torch.Tensor, t: int | torch.Tensor, context: torch.Tensor | None = None
    ) -> torch.Tensor:
        return super().forward(x * (1 + torch.as_tensor(t).reshape(-1, 1) / 1000))


def student_of(method: str, bits: str = "w4a4", policy: str = POLICY) -> Student:
    return hqdm_bench.quantize(Net(), method, bits, timesteps=TIMES, policy=policy)


@pytest.mark.parametrize("method", ["rtn", "efficientdm", "hqdm", "smoothquant"])
def test_every_role_is_built_measured_and_kept(method: str, tmp_path: Path) -> None:
    student = student_of(method)
    hqdm_bench.calibrate(student, CALLS)
    layers = student.quantized_layers()
    widths = {name: (layer.weight.bits, layer.activation.bits) for name, layer in layers.items()}
    assert widths == {
        **dict.fromkeys("0127", (8, 8)),
        "3": (4, 32),
        "4": (4, 8),
        **dict.fromkeys("56", (4, 4)),
    }
    assert list(student.low_bit_layers()) == list("3456")
    assert isinstance(layers["0"].activation, AffineStatic)
    assert isinstance(layers["4"].activation, type(layers["5"].activation))
    assert len(layers["4"].activation.scale) == 2
    exact = layers["3"].activation
    assert isinstance(exact, ExactInput)
    x = CALLS[0][0]
    torch.testing.assert_close(layers["3"](x), nn.functional.linear(x, *_weight(layers["3"])))
    found = coverage(student, (x[:1], 1))
    shares = {bits: group["mac_share"] for bits, group in found["by_bits"].items()}
    assert shares == {"w8a8": 0.5, "w4a32": 0.125, "w4a8": 0.125, "w4a4": 0.25}
    assert found["bops"] == 64 * (4 * 64 + 4 * 32 + 4 * 8 + 2 * 16)
    hqdm_bench.save_student(student, tmp_path / "student.safetensors")
    again = hqdm_bench.load_student(tmp_path / "student.safetensors", Net())
    for call in CALLS:
        assert torch.equal(again(*call), student(*call))
    twin = copy.deepcopy(student)
    assert torch.equal(twin(*CALLS[0]), student(*CALLS[0]))


def _weight(layer: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    assert isinstance(layer.weight, nn.Module)
    assert isinstance(layer.bias, torch.Tensor)
    return layer.weight(0), layer.bias


def test_an_exact_input_adds_no_bytes() -> None:
    """But its weight is packed, as are those of the others."""
    student = student_of("rtn", policy="full; 3 = weight_only")
    other = student_of("rtn", policy="full")
    for one in (student, other):
        hqdm_bench.calibrate(one, CALLS)
    exact, usual = (coverage(one, CALLS[0]) for one in (student, other))
    assert exact["weight_bytes"] == usual["weight_bytes"]
    assert exact["table_bytes"] == usual["table_bytes"] * 7 // 8


def test_a_layer_with_an_exact_input_is_not_made_integer() -> None:
    student = student_of("rtn")
    hqdm_bench.calibrate(student, CALLS)
    made = integer.convert(student, "reference")
    kept = {layer.name: layer.reason for layer in made.report.kept}
    assert kept == {"3": "its input is not quantized"}
    for call in CALLS:
        torch.testing.assert_close(made(*call), student(*call), rtol=1e-4, atol=1e-5)


def test_one_batch_calibrates_around_an_exact_input() -> None:
    student = student_of("efficientdm")
    calibrate_on_batch(student, torch.cat([x for x, _ in CALLS]), torch.tensor([1, 501] * 8), None)
    assert student.calibrated


def test_rounding_is_learned_for_all_and_steps_for_quantized_inputs() -> None:
    student = student_of("rtn", "w3a4")
    done = reconstruct_weights(student, Net(), CALLS, RoundingFit(updates=20))
    assert [unit.unit.name for unit in done] == list("3456")
    hqdm_bench.calibrate(student, CALLS)
    before = {name: layer.activation.scale.clone() for name, layer in _learned(student).items()}
    done = reconstruct_steps(student, Net(), CALLS, StepFit(updates=20))
    assert [unit.unit.name for unit in done] == list("456")
    for name, layer in _learned(student).items():
        assert not torch.equal(layer.activation.scale, before[name])


def _learned(student: Student) -> dict[str, nn.Module]:
    layers = student.low_bit_layers().items()
    return {name: layer for name, layer in layers if isinstance(layer.activation, LearnedStep)}
