"""Packed students on disk: weights at their true width, everything else in the same file."""

import copy
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.tensors import read_tensors, write_tensors
from hqdm_bench.integer.backends import Backend, choose_kernel
from hqdm_bench.integer.layer import IntegerLayer
from hqdm_bench.integer.report import ConversionReport, describe
from hqdm_bench.integer.spec import LayerSpec
from hqdm_bench.integer.student import IntegerStudent
from hqdm_bench.methods import get_method, read_request, student_header
from hqdm_bench.methods.ptq import PtqOptions, quantize_products
from hqdm_bench.methods.storage import CORRECTION
from hqdm_bench.quantization import (
    NoiseCorrection,
    QuantizedAttention,
    RepeatedChannels,
    StepIndex,
    composites,
    make_composite,
    replace,
)

__all__ = ["byte_report", "load", "save"]

FORMAT = 1
BYTES = {"float32": 4, "bfloat16": 2}


def save(student: IntegerStudent, path: Path | str, **metadata: Any) -> dict[str, int]:
    """Write an integer student, and return its `byte_report`.

    The file needs nothing else: besides packed weights it holds the layers in full precision
    (float32), and its header says how to put all of it together.

    Args:
        student: from `convert` or `load`.
        path: a .safetensors file.
        metadata: further header entries.

    Raises:
        BenchError: a quantized layer is not integer, or the file cannot be written.
    """
    if student.report.kept:
        raise BenchError(
            "a packed student is integer throughout; these layers are not: "
            + ", ".join(layer.name for layer in student.report.kept)
        )
    if student.precision != torch.float32:
        raise BenchError(
            f"this student computes in {student.precision} between its integer layers; pack it "
            "before use_precision"
        )
    assert student.step is not None
    header = {
        "packed_format": FORMAT,
        **student_header(student),
        "between": student.step.between,
        "composites": {
            name: layer.description() for name, layer in composites(student.network).items()
        },
        "layers": {name: layer.spec.asdict() for name, layer in student.integer_layers().items()},
    }
    tensors = student.network.state_dict()
    if student.noise_correction is not None:
        tensors |= student.noise_correction.state_dict(prefix=CORRECTION)
        header["noise_correction"] = student.noise_correction.settings()
    write_tensors(Path(path), tensors, {**metadata, **header})
    return byte_report(student)


def load(path: Path | str, module: nn.Module, backend: Backend = "auto") -> IntegerStudent:
    """Read a packed student back; it computes the same, bit for bit.

    Args:
        path: file of `save`.
        module: a module of the same structure; only its structure counts, it is not changed.
        backend: see `choose_kernel`; ``cuda`` puts the student on the current GPU.

    Raises:
        BenchError: the file is missing, damaged, not a packed student, or of another structure.
    """
    path = Path(path)
    tensors, header = read_tensors(path)
    if header.get("packed_format") != FORMAT:
        raise BenchError(f"{path} is not a packed student of this version; pack it again")
    request = read_request(header)
    kernel, why = choose_kernel(backend, "cuda" if backend == "cuda" else "cpu")
    step = StepIndex(request.timesteps, header["between"])
    tensors = {key: value.to(kernel.device) for key, value in tensors.items()}
    correction = _correction(tensors, header.get("noise_correction"))
    network = copy.deepcopy(module).to(kernel.device)
    for name, entry in header.get("composites", {}).items():
        replace(network, name, make_composite(entry))
    options = get_method(header["method"]).options.read(header["options"], header["method"])
    if isinstance(options, PtqOptions):
        quantize_products(options, network, request, step)
    layers: dict[str, IntegerLayer] = {}
    for name, entry in header["layers"].items():
        own = _below(tensors, f"{name}.")
        layers[name] = IntegerLayer(LayerSpec.read(entry), own, step, kernel, name)
        replace(network, name, layers[name])
    _fill(network, tensors, path)
    attention = tuple(
        name for name, module in network.named_modules() if isinstance(module, QuantizedAttention)
    )
    report = ConversionReport(kernel.name, why, describe(layers), attention)
    student = IntegerStudent(network, step, options, request, report)
    student.method, student.noise_correction = header["method"], correction
    return student


def _correction(
    tensors: dict[str, Tensor], settings: dict[str, Any] | None
) -> NoiseCorrection | None:
    """The noise correction in a file, whose tensors are taken out."""
    if settings is None:
        return None
    correction = NoiseCorrection(**settings)
    correction.load_state_dict(_below(tensors, CORRECTION))
    for key in [key for key in tensors if key.startswith(CORRECTION)]:
        del tensors[key]
    return correction


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)
    }


def _fill(network: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    try:
        network.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        raise BenchError(
            f"{path} does not fit this {type(network).__name__}: {str(error).splitlines()[1]}"
        ) from None


def byte_report(student: IntegerStudent) -> dict[str, int]:
    """Bytes of a packed student, and of the same network unquantized.

    Returns:
        ``weights``: packed codes; ``grids``: step sizes and zero-points of the weights;
        ``tables``: step sizes, zero-points, centres and signs of the inputs, and of the operands
        of quantized attention, corrections of the predictions; ``biases``;
        ``full_precision``: everything that is not quantized, in float32; ``packed``: the sum;
        ``float32`` and ``bfloat16``: the network with all of its weights in these.
    """
    found = dict.fromkeys(("weights", "grids", "tables", "biases"), 0)
    parts = {"packed": "weights", "weight_scale": "grids", "weight_zero": "grids", "bias": "biases"}
    entries = 0
    layers = student.integer_layers()
    for layer in layers.values():
        for key, tensor in layer.state_dict().items():
            found[parts.get(key, "tables")] += tensor.numel() * tensor.element_size()
        entries += layer.weight_codes().numel() + (0 if layer.bias is None else len(layer.bias))
    for name, repeated in composites(student.network).items():
        if isinstance(repeated, RepeatedChannels):  # the network itself has these channels once
            shape = layers[f"{name}.layer"].spec.shape
            entries -= len(repeated.channels) * (math.prod(shape) // shape[1] + 1)
    attention = student.quantized_attention()
    for module in attention.values():
        found["tables"] += sum(x.numel() * x.element_size() for x in module.state_dict().values())
    rest = {
        key: tensor
        for key, tensor in student.network.state_dict().items()
        if not key.startswith(tuple(f"{name}." for name in (*layers, *attention)))
    }
    if student.noise_correction is not None:
        corrections = student.noise_correction.buffers()
        found["tables"] += sum(x.numel() * x.element_size() for x in corrections)
    found["full_precision"] = sum(x.numel() * x.element_size() for x in rest.values())
    found["packed"] = sum(found.values())
    entries += sum(tensor.numel() for tensor in rest.values())
    return found | {name: size * entries for name, size in BYTES.items()}
