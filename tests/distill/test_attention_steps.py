"""Learning the step sizes of quantized attention with the block it is in."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hqdm_bench.distill import calibrate_on_calls, reconstruct_steps, reconstruct_weights
from hqdm_bench.methods import RoundingFit, StepFit, Student, quantize
from hqdm_bench.models.attention import AttentionBlock, BasicTransformerBlock, TokenAttention

TIMES = (1, 501)
Calls = list[tuple[Tensor, int]]


class Pixels(nn.Module):
    """A layer before and after the attention block of the LSUN models."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 32, 1), nn.Conv2d(32, 3, 1)
        self.block = AttentionBlock(32, 2)

    def forward(self, x: Tensor, t: int) -> Tensor:
        return self.last(self.block(self.first(x * (1 + t / 500))))


class Tokens(nn.Module):
    """The transformer block of the class-conditional model."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 32), nn.Linear(32, 3)
        self.block = BasicTransformerBlock(32, 8, 2, 0.0)
        self.context = nn.Parameter(torch.zeros(1, 4, 8))

    def forward(self, x: Tensor, t: int) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2) * (1 + t / 500)
        return self.last(self.block(self.first(tokens), self.context.expand(len(x), -1, -1)))


class Bare(nn.Module):
    """Attention outside of any block."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.attention = nn.Linear(3, 24), TokenAttention(0.5)

    def forward(self, x: Tensor, t: int) -> Tensor:
        tokens = self.first(x.flatten(2).transpose(1, 2) * (1 + t / 500))
        return self.attention(*tokens[:, None].chunk(3, dim=-1))


def filled(network: nn.Module) -> nn.Module:
    random = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(0.4 * torch.randn(parameter.shape, generator=random))
    return network.eval()


@pytest.fixture
def calls() -> Calls:
    random = torch.Generator().manual_seed(4)
    return [(torch.randn(16, 3, 3, 3, generator=random), t) for t in TIMES]


def student_of(network: nn.Module, calls: Calls, policy: str, **options: Any) -> Student:
    options = {"attention": "quantized", "policy": policy, **options}
    student = quantize(network, "rtn", "w8a4", timesteps=TIMES, timestep_argument="t", **options)
    calibrate_on_calls(student, calls)
    return student


@pytest.mark.parametrize("tables", ["per_step", "shared"])
@pytest.mark.parametrize(
    ("make", "policy", "kind"),
    [
        (Pixels, "full; block.* = full_precision", "attention"),
        (Tokens, "full; block.* = full_precision", "transformer"),
        (Tokens, "full", "transformer"),
        (Bare, "full", "layer"),
    ],
)
def test_step_sizes_of_attention_are_learned_in_its_block(
    make: type[nn.Module], policy: str, kind: str, tables: str, calls: Calls
) -> None:
    network = filled(make())
    grids = {"activation_steps": tables, "activation_grid": "symmetric"}
    student = student_of(network, calls, policy, **grids)
    with torch.no_grad():  # so narrow that most is clipped
        for module in student.quantized_attention().values():
            for operand in module.operands[:3]:
                operand.activation.scale.mul_(0.4)
    before = {key: value.clone() for key, value in student.state_dict().items()}
    fit = StepFit(updates=100, batch=32, rate=3e-3, exponent=2.0)
    done = reconstruct_steps(student, network, calls, fit)
    attention = student.quantized_attention()
    (unit,) = (one for one in done if set(attention) <= set(one.unit.layers))
    assert unit.unit.kind == kind
    assert unit.after < 0.75 * unit.before
    for name, module in attention.items():
        for own, operand in module.named_operands().items():
            key = f"network.{name}.{own}.activation."
            scale = operand.activation.scale
            assert len(scale) == (2 if tables == "per_step" else 1)
            assert (scale != before[f"{key}scale"]).all(), key
            assert scale.grad is None
    assert not student.trainable


def test_only_what_was_chosen_is_learned(calls: Calls) -> None:
    network = filled(Tokens())
    student = student_of(network, calls, "full", softmax_bits=16)
    before = {key: value.clone() for key, value in student.state_dict().items()}
    chosen = ["block.attn1.attention", "block.ff.net.2"]
    fit = StepFit(updates=5, batch=8, rate=5e-3)
    (unit,) = reconstruct_steps(student, network, calls, fit, layers=chosen)
    assert sorted(unit.unit.layers) == sorted(chosen)
    moved = {
        key for key, value in student.state_dict().items() if not torch.equal(value, before[key])
    }
    # Probabilities at 16 bits keep their step.
    assert moved == {
        "network.block.ff.net.2.activation.scale",
        *(
            f"network.block.attn1.attention.{own}.activation.scale"
            for own in ("query", "key", "value")
        ),
    }


def test_rounding_is_learned_beside_exact_attention(calls: Calls) -> None:
    """Before calibration: the operands have no grid yet."""
    network = filled(Tokens())
    student = quantize(
        network,
        "rtn",
        "w3a4",
        timesteps=TIMES,
        timestep_argument="t",
        attention="quantized",
        policy="full",
    )
    fit = RoundingFit(updates=100, batch=8, rate=1e-2, penalty=1e-3)
    done = reconstruct_weights(student, network, calls, fit)
    held = [name for one in done for name in one.unit.layers]
    assert sorted(held) == sorted(student.low_bit_layers())
    (block,) = (one for one in done if one.unit.kind == "transformer")
    assert block.after < block.before
    assert not student.calibrated
