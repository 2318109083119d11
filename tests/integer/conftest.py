"""Quantized layers of every kind, with the grids of a trained student."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hqdm_bench.catalogue import Bits, MethodSpec, Recipe
from hqdm_bench.distill import calibrate_on_calls
from hqdm_bench.integer import IntegerLayer
from hqdm_bench.integer.convert import _spec, _tensors
from hqdm_bench.integer.kernels import Kernel
from hqdm_bench.methods import Student, build_student
from hqdm_bench.models import LatentDiffusion
from hqdm_bench.quantization import (
    ActivationQuantizer,
    AffineStatic,
    AffineTable,
    LoRAWeight,
    QuantizedLayer,
    Rotation,
    StaticWeight,
    StepIndex,
    SymmetricTable,
)

STEPS = (1, 501)
Make = Callable[..., tuple[QuantizedLayer, Tensor]]
TIMES = (1, 501)


def quantizer(kind: str, bits: int) -> ActivationQuantizer:
    if kind == "static":
        return AffineStatic(bits)
    if kind == "affine":
        return AffineTable(bits, len(STEPS), integer_zero=True)
    return SymmetricTable(bits, len(STEPS), full_range=kind == "full_range")


@pytest.fixture(scope="session")
def make_layer() -> Make:
    """A layer, and an input that spans its grid: ``make(source, shape, ...)``."""

    def make(
        source: nn.Module,
        shape: tuple[int, ...],
        *,
        weight_bits: int = 4,
        bits: int = 4,
        grid: str = "symmetric",
        rotation: Rotation | None = None,
        signs: bool = False,
        centred: bool = False,
        per_step: bool = False,
        seed: int = 0,
    ) -> tuple[QuantizedLayer, Tensor]:
        random = torch.Generator().manual_seed(seed)
        weight = torch.randn(source.weight.shape, generator=random)  # type: ignore[arg-type]
        step = StepIndex(STEPS)
        if grid == "static":
            made: Any = StaticWeight.from_float(weight, weight_bits)
        else:
            made = LoRAWeight.from_float(
                weight, weight_bits, 2, random, steps=len(STEPS) if per_step else None
            )
            made.lora_B.data.normal_(0, 0.3, generator=random)
            if per_step:
                made.scale.data[1] *= 1.3
        channels = weight.shape[1]
        flip = torch.randint(2, (channels,), generator=random) * 2.0 - 1 if signs else None
        activation = quantizer(grid, bits)
        layer = QuantizedLayer(
            source, made, activation, step, rotation, signs=flip, centred=centred
        ).eval()
        if layer.centre is not None:
            layer.centre.normal_(generator=random)
        x = torch.randn(shape, generator=random) + 0.4
        for row, t in enumerate(STEPS):
            step.set(t)
            with torch.no_grad():
                activation.calibrate(layer.quantizer_input(x * (1 + 0.2 * row)), row)
        step.set(STEPS[1])
        return layer, x

    return make


@pytest.fixture(scope="session")
def integer_of() -> Callable[[QuantizedLayer, type[Kernel]], IntegerLayer]:
    """The integer layer of a quantized one."""

    def make(layer: QuantizedLayer, kernel: type[Kernel]) -> IntegerLayer:
        return IntegerLayer(_spec(layer), _tensors(layer), layer.step, kernel, "layer")

    return make


@pytest.fixture(scope="session")
def calls(shared_toy: LatentDiffusion) -> list[tuple[Tensor, Tensor, Tensor]]:
    random = torch.Generator().manual_seed(9)
    context = shared_toy.context(torch.arange(2))
    assert context is not None
    return [
        (torch.randn(2, 3, 4, 4, generator=random), torch.full((2,), t), context.detach())
        for t in TIMES
    ]


@pytest.fixture(scope="session")
def make(shared_toy: LatentDiffusion, recipe: Recipe, calls: Any) -> Callable[..., Student]:
    """A calibrated toy student, as if it were trained."""

    def build(method: str, bits: str, options: dict[str, Any], disturb: bool = True) -> Student:
        spec = MethodSpec(method, method, method, options)
        assert recipe.post_training is not None
        sampler = dataclasses.replace(recipe.post_training, steps=len(TIMES))
        recipe_ = dataclasses.replace(recipe, steps=len(TIMES), post_training=sampler)
        student = build_student(spec, shared_toy, Bits.parse(bits), recipe_, 0)
        if disturb:
            _move(student)
        calibrate_on_calls(student, calls)
        return student

    return build


def _move(student: Student) -> None:
    random = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for layer in student.low_bit_layers().values():
            if not isinstance(layer.weight, LoRAWeight):
                continue
            update = layer.weight.lora_B
            update.copy_(0.05 * torch.randn(update.shape, generator=random))
