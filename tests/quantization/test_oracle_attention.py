"""Quantized attention against recorded results of Q-Diffusion's layers (tests/data/qdiffusion)."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hqdm_bench.models.attention import QKVAttention, TokenAttention
from hqdm_bench.quantization import (
    LearnedStep,
    MinMaxObserver,
    QuantizedAttention,
    StepIndex,
    UnsignedStep,
    quantize_attention,
)

DATA = Path(__file__).parents[1] / "data" / "qdiffusion" / "attention.json"
RELATIVE = 1e-8  # ten digits are recorded
# Recorded with wider steps: exactly on a limit of the range their rounding errors decide.
WIDER = 1.3
CASES = ("pixels", "pixels_symmetric", "tokens")


@pytest.fixture(scope="module")
def recorded() -> dict[str, Any]:
    return json.loads(DATA.read_text())


def tensor(value: Any) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def build(case: dict[str, Any], heads: int) -> tuple[QuantizedAttention, dict[str, Tensor]]:
    """Ours, not calibrated, and its inputs."""
    inputs = {name: tensor(value).requires_grad_() for name, value in case["inputs"].items()}
    pixels = "qkv" in inputs
    width = next(iter(inputs.values())).shape[1 if pixels else 2] // heads
    source = QKVAttention(heads) if pixels else TokenAttention(width**-0.5)
    holder, step = nn.Sequential(source, nn.Linear(1, 1)).double(), StepIndex([0])
    step.set(0)
    symmetric = case["symmetric"]
    quantize_attention(
        holder, lambda: LearnedStep(4, symmetric=symmetric), lambda: UnsignedStep(8), step
    )
    return holder[0], inputs


def run(attention: QuantizedAttention, inputs: dict[str, Tensor], heads: int) -> Tensor:
    if "qkv" in inputs:
        return attention(inputs["qkv"])
    split = (x.unflatten(2, (heads, -1)).transpose(1, 2) for x in inputs.values())
    return attention(*split).transpose(1, 2).flatten(2)


def calibrate(attention: QuantizedAttention, inputs: dict[str, Tensor], heads: int) -> None:
    """As a first call does there: each grid from what the operand is, those before quantized."""

    def observe(operand: nn.Module, given: tuple[Tensor, ...]) -> None:
        quantizer = operand.activation
        if quantizer.zero is None and quantizer.bits == 4:
            observer = MinMaxObserver()
            observer.observe(given[0])
            observer.store(quantizer)
        else:
            quantizer.calibrate(given[0])

    hooks = [operand.register_forward_pre_hook(observe) for operand in attention.operands]
    with torch.no_grad():
        run(attention, inputs, heads)
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize("name", CASES)
def test_the_first_call_sets_the_same_grids(recorded: dict[str, Any], name: str) -> None:
    case, heads = recorded["cases"][name], recorded["heads"]
    attention, inputs = build(case, heads)
    calibrate(attention, inputs, heads)
    for own, operand in attention.named_operands().items():
        quantizer = operand.activation
        if own == "probabilities" and case["symmetric"]:
            continue  # their range by extremes is less the minimum, which the codes do not follow
        expected = case["delta"][own]
        assert quantizer.scale.item() == pytest.approx(expected, rel=RELATIVE), own
        zero = 0 if quantizer.zero is None else quantizer.zero.item()
        assert zero == case["zero"][own], own


@pytest.mark.parametrize("name", CASES)
def test_outputs_and_gradients_are_the_same(recorded: dict[str, Any], name: str) -> None:
    case, heads = recorded["cases"][name], recorded["heads"]
    attention, inputs = build(case, heads)
    for own, operand in attention.named_operands().items():
        operand.activation.initialise(WIDER * case["delta"][own], case["zero"][own])
    out = run(attention, inputs, heads)
    close(out, tensor(case["out"]))
    scales = {
        f"delta/{own}": operand.activation.scale
        for own, operand in attention.named_operands().items()
    }
    wanted = {**inputs, **scales}
    gradients = torch.autograd.grad(out.square().sum(), list(wanted.values()))
    for key, gradient in zip(wanted, gradients, strict=True):
        expected = tensor(case["gradients"][key])
        close(gradient.view(expected.shape), expected)


def close(found: Tensor, expected: Tensor) -> None:
    """Relative to the largest entry."""
    assert (found - expected).abs().max() <= RELATIVE * expected.abs().max()
