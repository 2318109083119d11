"""Building a QALoRA-type student: what EfficientDM, HQ-DM and their relatives have in common."""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.seeds import generator
from hqdm_bench.hadamard import fold
from hqdm_bench.methods.base import Student
from hqdm_bench.methods.options import QatOptions
from hqdm_bench.methods.request import Request
from hqdm_bench.quantization import (
    ActivationQuantizer,
    AffineStatic,
    ExactInput,
    LoRAWeight,
    QuantizedLayer,
    Rotation,
    StaticWeight,
    StepIndex,
    replace,
    roles,
)

__all__ = ["STATIC_BITS", "InputTransform", "MakeActivation", "build_qat_student"]

STATIC_BITS = 8

MakeActivation = Callable[[int, int], ActivationQuantizer]


@dataclass(frozen=True)
class InputTransform:
    """What happens to the input of a low-bit layer before it is quantized, and undone after.

    Attributes:
        rotation: which inputs are rotated, or None.
        random_signs: of the channels, drawn once for each layer, before the rotation.
        rotate_weight: quantize the rotated weight instead of rotating the input back (Double
            Hadamard).
        centre: subtract the mean of each channel at each step, measured in calibration, and add it
            again after the quantizer.
        measured_scope: calibration decides, layer by layer, whether to rotate.
    """

    rotation: Rotation | None = None
    random_signs: bool = False
    rotate_weight: bool = False
    centre: bool = False
    measured_scope: bool = False

    def __post_init__(self) -> None:
        turned = self.random_signs or self.rotate_weight or self.measured_scope
        if turned and (self.rotation is None or not self.rotation.foldable):
            raise BenchError(
                "random signs, a rotated weight and a measured scope need a rotation along the "
                "channels; set axis to 'channel' and scope to something other than 'none'"
            )


PLAIN = InputTransform()


def build_qat_student(
    options: QatOptions,
    module: nn.Module,
    request: Request,
    activation: MakeActivation,
    transform: InputTransform = PLAIN,
) -> Student:
    """Copy a module and put quantized layers in.

    Args:
        options: common options.
        module: any module with Linear, Conv1d or Conv2d layers; not changed.
        request: bits, step table, rank and seed.
        activation: makes an input quantizer from (bits, steps).
        transform: of the low-bit layers' inputs; static layers and exact inputs have none.

    Raises:
        BenchError: full-precision bits, or a layer the policy selects cannot be quantized.
    """
    if request.bits.full_precision:
        raise BenchError(f"this method quantizes; {request.bits} goes with method 'fp'")
    step = StepIndex(request.timesteps, options.steps)
    network = copy.deepcopy(module).requires_grad_(False).eval()
    for name, role in roles(options.policy, network).items():
        if role == "full_precision":
            continue
        source = network.get_submodule(name)
        assert isinstance(source, (nn.Conv1d, nn.Conv2d, nn.Linear))
        if role == "static_8bit":
            layer = _static_layer(source, options, step)
        elif role == "weight_only":
            layer = _low_bit_layer(name, source, options, request, ExactInput(), PLAIN, step)
        else:
            bits = STATIC_BITS if role == "input_8bit" else request.bits.activation
            quantizer = activation(bits, request.steps)
            layer = _low_bit_layer(name, source, options, request, quantizer, transform, step)
        replace(network, name, layer.to(source.weight))
    return Student(network, step, options, request).eval()


def _low_bit_layer(
    name: str,
    source: nn.Conv1d | nn.Conv2d | nn.Linear,
    options: QatOptions,
    request: Request,
    quantizer: ActivationQuantizer,
    transform: InputTransform,
    step: StepIndex,
) -> QuantizedLayer:
    weight, channels = source.weight.detach(), source.weight.shape[1]
    rotation = transform.rotation
    # A weight is rotated before anybody has seen an input: its rank must not matter.
    order = rotation.block_order(channels, rank=2) if rotation and rotation.foldable else 0
    signs = None
    if transform.random_signs and order:
        signs = _random_signs(channels, generator("hadamard-signs", request.seed, name)).to(weight)
    rotate_weight = transform.rotate_weight and order > 0
    lora = LoRAWeight.from_float(
        fold(weight, order, signs) if rotate_weight else weight,
        request.bits.weight,
        request.rank,
        generator("lora", request.seed, name),
        rule=options.weight_init,
        base=options.base,
        scale_updates=options.weight_scale_updates,
        steps=request.steps if options.weight_scales == "per_step" else None,
    )
    return QuantizedLayer(
        source,
        lora,
        quantizer,
        step,
        rotation,
        signs=signs,
        weight_is_rotated=rotate_weight,
        centred=transform.centre,
        chooses=transform.measured_scope and order > 0,
    )


def _random_signs(channels: int, random: torch.Generator) -> Tensor:
    return 2.0 * torch.randint(2, (channels,), generator=random) - 1.0


def _static_layer(
    source: nn.Conv1d | nn.Conv2d | nn.Linear, options: QatOptions, step: StepIndex
) -> QuantizedLayer:
    weight = StaticWeight.from_float(source.weight, STATIC_BITS, options.weight_init)
    return QuantizedLayer(source, weight, AffineStatic(STATIC_BITS), step)
