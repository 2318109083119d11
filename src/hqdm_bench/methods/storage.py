"""Students on disk: the quantized layers as tensors, everything that made them in the header."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from hqdm_bench.catalogue import Bits, MethodSpec
from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.tensors import read_tensors, write_tensors
from hqdm_bench.methods.base import Student
from hqdm_bench.methods.registry import get_method
from hqdm_bench.methods.request import Request
from hqdm_bench.quantization import composites

__all__ = [
    "CORRECTION",
    "load_state",
    "load_student",
    "read_request",
    "save_student",
    "student_header",
    "student_state",
]

CORRECTION = "noise_correction."  # no layer of a network is called so


def save_student(
    student: Student, path: Path | str, metadata: Mapping[str, Any] | None = None
) -> None:
    """Write a student.

    Layers in full precision are the module's and are not written; a full-precision student is a
    header.

    Args:
        student: calibrated, usually trained.
        path: a .safetensors file.
        metadata: further header entries, for example the cell.
    """
    write_tensors(
        Path(path), student_state(student), {**(metadata or {}), **student_header(student)}
    )


def student_header(student: Student) -> dict[str, Any]:
    """What a file says of the student in it: enough to build it again."""
    request = student.request
    return {
        "method": student.method,
        "options": student.options.resolved(),
        "bits": str(request.bits),
        "timesteps": list(request.timesteps),
        "timestep_argument": request.timestep_argument,
        "lora_rank": request.rank,
        "seed": request.seed,
        "committed": student.committed,
    }


def read_request(header: Mapping[str, Any]) -> Request:
    """What a student was built for, from `student_header`."""
    return Request(
        Bits.parse(header["bits"]),
        tuple(header["timesteps"]),
        header["lora_rank"],
        header["seed"],
        header["timestep_argument"],
    )


def load_student(path: Path | str, module: nn.Module, method: MethodSpec | None = None) -> Student:
    """Read a student back, exactly.

    Args:
        path: file of `save_student`.
        module: what the student was made of; gives the full-precision layers.
        method: catalogue entry the student must come from; None takes what the header says.

    Raises:
        BenchError: the file is missing or damaged, is another method's or was made with other
            options, or does not fit the module.
    """
    path = Path(path)
    tensors, header = read_tensors(path)
    try:
        request = read_request(header)
        found = (header["method"], header["options"])
    except KeyError as error:
        raise BenchError(
            f"{path} is not a student of this version (no {error} in its header); make it again"
        ) from None
    if method is not None:
        _require(path, found, method)
    entry = get_method(found[0])
    student = entry.build(entry.options.read(found[1], found[0]), module, request)
    if header.get("committed"):
        student.commit()
    try:
        load_state(student, tensors)
    except BenchError:
        raise BenchError(
            f"{path} does not fit this {type(module).__name__}; it was made of another model"
        ) from None
    return student


def _require(path: Path, found: tuple[str, dict[str, Any]], method: MethodSpec) -> None:
    options = get_method(method.implementation).options.read(method.options, method.name)
    # Read rather than compared as it stands: an option that is newer than the file is at its
    # default there.
    made = get_method(found[0]).options.read(found[1], found[0])
    if (found[0], made.resolved()) != (method.implementation, options.resolved()):
        raise BenchError(
            f"{path} holds a student of method '{found[0]}' with options {found[1]}; the "
            f"catalogue's '{method.name}' is '{method.implementation}' with "
            f"{options.resolved()}; train it again"
        )


def load_state(student: Student, tensors: Mapping[str, Tensor]) -> None:
    """Give a student the state of another one that was built alike, in place.

    Args:
        student: of the same method, options and request.
        tensors: of `student_state`.

    Raises:
        BenchError: names or shapes are not this student's.
    """
    shapes = {key: value.shape for key, value in tensors.items()}
    if {key: value.shape for key, value in student_state(student).items()} != shapes:
        raise BenchError("the tensors are not those of a student that was built alike")
    student.network.load_state_dict(dict(tensors), strict=False)
    if student.noise_correction is not None:
        tables = {key: tensors[CORRECTION + key] for key in student.noise_correction.state_dict()}
        student.noise_correction.load_state_dict(tables)


def student_state(student: Student) -> dict[str, Tensor]:
    """State of what is quantized by its names in the network, and the noise correction's.

    What holds several of these layers has buffers of its own.

    Args:
        student: any.
    """
    state = {
        key: value
        for name, holder in student.quantized_inputs().items()
        for key, value in holder.state_dict(prefix=f"{name}.").items()
    }
    for name, composite in composites(student.network).items():
        state |= {f"{name}.{key}": value for key, value in composite.named_buffers(recurse=False)}
    if student.noise_correction is not None:
        state |= student.noise_correction.state_dict(prefix=CORRECTION)
    return state
