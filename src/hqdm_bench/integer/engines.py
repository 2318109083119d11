"""How a student computes when it draws images: by name, or in integers where that is exact."""

from typing import Any

import torch

from hqdm_bench.common.errors import BenchError
from hqdm_bench.integer.backends import choose_kernel
from hqdm_bench.integer.convert import convert
from hqdm_bench.integer.onednn import OneDNNKernel
from hqdm_bench.methods import Student

__all__ = ["student_engine"]


def student_engine(
    student: Student, engine: str, device: torch.device
) -> tuple[Student, dict[str, Any]]:
    """A student ready to draw, and what is recorded beside its images.

    Args:
        student: trained.
        engine: ``fake`` is floating point on quantized values, ``integer`` their integers in int8,
            ``float`` the same integers in floating point; ``auto`` is ``integer`` where every
            quantized layer converts and this processor multiplies bytes exactly, else ``fake``.
        device: where it draws.

    Returns:
        The student, and ``engine``, what it is: ``fake``, ``integer`` or ``float``; ``why``; and
        for the last two the report of the conversion.

    Raises:
        BenchError: an engine that this student or device cannot have.
    """
    if engine == "auto":
        return _automatic(student, device)
    if engine == "fake":
        return student.freeze(), {"engine": "fake", "why": "it was asked for"}
    if engine == "float" and device.type != "cpu":
        raise BenchError("--engine float runs on the CPU; add --device cpu")
    made = convert(student, "auto" if engine == "integer" else "exact_float")
    return made, {"engine": engine, **made.report.asdict()}


def _automatic(student: Student, device: torch.device) -> tuple[Student, dict[str, Any]]:
    """In integers if nothing speaks against it; what does is recorded."""
    if device.type != "cpu":
        return _fake(student, f"images are drawn on {device.type}")
    kernel, why = choose_kernel("auto")
    if kernel is not OneDNNKernel:
        return _fake(student, why)
    try:
        made = convert(student)
    except BenchError as error:
        return _fake(student, str(error))
    if made.report.kept:
        first = made.report.kept[0]
        return _fake(student, f"layer '{first.name}' cannot be integer: {first.reason}")
    return made, {"engine": "integer", **made.report.asdict()}


def _fake(student: Student, why: str) -> tuple[Student, dict[str, Any]]:
    return student.freeze(), {"engine": "fake", "why": why}
