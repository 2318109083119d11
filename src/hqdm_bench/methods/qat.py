"""Building a QALoRA-type student: what EfficientDM and HQ-DM have in common."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from hqdm_bench.catalogue import Bits, Recipe
from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.seeds import generator
from hqdm_bench.methods.base import Student
from hqdm_bench.methods.options import QatOptions
from hqdm_bench.models import DDIM, LatentDiffusion
from hqdm_bench.quantization import (
    ActivationQuantizer,
    AffineStatic,
    LoRAWeight,
    QuantizedLayer,
    Rotation,
    StaticWeight,
    StepIndex,
    replace,
    roles,
)

__all__ = ["STATIC_BITS", "build_qat_student"]

STATIC_BITS = 8

MakeActivation = Callable[[int, int], ActivationQuantizer]


def build_qat_student(
    method: str,
    options: QatOptions,
    teacher: LatentDiffusion,
    bits: Bits,
    recipe: Recipe,
    seed: int,
    activation: MakeActivation,
    rotation: Rotation | None = None,
) -> Student:
    """Copy the teacher's UNet and put quantized layers in.

    Args:
        method: name for the record.
        options: common options.
        teacher: not changed.
        bits: of the low-bit layers.
        recipe: gives the step table and the rank.
        seed: of the low-rank factors; every layer has its own stream.
        activation: makes a table from (bits, steps).
        rotation: of the low-bit layers' inputs; the static layers are never rotated.

    Raises:
        BenchError: full-precision bits.
    """
    if bits.full_precision:
        raise BenchError(f"method '{method}' quantizes; {bits} goes with method 'fp'")
    timesteps = DDIM.from_schedule(teacher.schedule, recipe.steps, recipe.eta).timesteps
    step = StepIndex(timesteps.tolist())
    unet = copy.deepcopy(teacher.unet).requires_grad_(False).eval()
    for name, role in roles(options.policy, unet).items():
        if role == "full_precision":
            continue
        source = unet.get_submodule(name)
        assert isinstance(source, (nn.Conv1d, nn.Conv2d, nn.Linear))
        if role == "static_8bit":
            layer = _static_layer(source, options, step)
        else:
            random = generator("lora", seed, name)
            weight = _low_bit_weight(source.weight, options, bits, recipe, random)
            table = activation(bits.activation, recipe.steps)
            layer = QuantizedLayer(source, weight, table, step, rotation)
        replace(unet, name, layer.to(source.weight))
    return Student(unet, step, method, options, bits, recipe, seed).eval()


def _low_bit_weight(
    weight: Tensor, options: QatOptions, bits: Bits, recipe: Recipe, random: torch.Generator
) -> LoRAWeight:
    return LoRAWeight.from_float(
        weight,
        bits.weight,
        recipe.lora_rank,
        random,
        rule=options.weight_init,
        base=options.base,
        scale_updates=options.weight_scale_updates,
    )


def _static_layer(
    source: nn.Conv1d | nn.Conv2d | nn.Linear, options: QatOptions, step: StepIndex
) -> QuantizedLayer:
    weight = StaticWeight.from_float(source.weight, STATIC_BITS, options.weight_init)
    return QuantizedLayer(source, weight, AffineStatic(STATIC_BITS), step)
