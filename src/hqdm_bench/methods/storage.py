"""Students on disk: the quantized layers as tensors, everything that made them in the header."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from hqdm_bench.catalogue import Bits, MethodSpec, Recipe
from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.tensors import read_tensors, write_tensors
from hqdm_bench.methods.base import Student
from hqdm_bench.methods.registry import build_student, get_method
from hqdm_bench.models import LatentDiffusion

__all__ = ["load_student", "save_student"]


def save_student(student: Student, path: Path, metadata: Mapping[str, Any]) -> None:
    """Write a student.

    Layers in full precision are the teacher's and are not written; a full-precision student is a
    header.

    Args:
        student: calibrated, usually trained.
        path: a .safetensors file.
        metadata: further header entries, for example the cell.
    """
    header = {
        "method": student.method,
        "options": student.options.resolved(),
        "bits": str(student.bits),
        "recipe": student.recipe.asdict(),
        "seed": student.seed,
    }
    write_tensors(path, _state(student), {**metadata, **header})


def load_student(path: Path, method: MethodSpec, teacher: LatentDiffusion) -> Student:
    """Read a student back, exactly.

    Args:
        path: file of `save_student`.
        method: catalogue entry the student must come from.
        teacher: the model it was made of; gives the full-precision layers.

    Raises:
        BenchError: the file is missing or damaged, is another method's or was made with other
            options, or does not fit the teacher.
    """
    tensors, header = read_tensors(path)
    options = get_method(method.implementation).options.read(method.options, method.name)
    found = (header.get("method"), header.get("options"))
    if found != (method.implementation, options.resolved()):
        raise BenchError(
            f"{path} holds a student of method '{found[0]}' with options {found[1]}; the "
            f"catalogue's '{method.name}' is '{method.implementation}' with "
            f"{options.resolved()}; train it again"
        )
    bits, recipe = Bits.parse(header["bits"]), Recipe(**header["recipe"])
    student = build_student(method, teacher, bits, recipe, header["seed"])
    expected = _state(student)
    if {key: value.shape for key, value in expected.items()} != {
        key: value.shape for key, value in tensors.items()
    }:
        raise BenchError(f"{path} does not fit model '{teacher.spec.name}'; it is another model's")
    student.unet.load_state_dict(tensors, strict=False)
    return student


def _state(student: Student) -> dict[str, Tensor]:
    """State of the quantized layers by their names in the UNet."""
    return {
        key: value
        for name, layer in student.quantized_layers().items()
        for key, value in layer.state_dict(prefix=f"{name}.").items()
    }
