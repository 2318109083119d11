"""The forms in which a student can be run, end to end."""

from typing import Any

import torch
from released_form import released_form
from timing import alternate, working_bytes
from torch import Tensor

from hqdm_bench.integer import IntegerStudent
from hqdm_bench.methods import Student
from hqdm_bench.models import UNet

__all__ = ["end_to_end"]


@torch.no_grad()
def end_to_end(
    unet: UNet, student: Student, integer: IntegerStudent, call: tuple[Any, ...], rounds: int
) -> dict[str, dict[str, float]]:
    """Seconds and working memory of a forward pass in each form.

    Args:
        unet: full precision.
        student: fake-quantized; it is frozen here, its weights built once.
        integer: made from it.
        call: arguments of all of them.
        rounds: of timing.
    """
    released = released_form(student)
    student.freeze()

    def half() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return unet(*call)

    forms = {
        "fake_released": lambda: released(*call),
        "fake_frozen": lambda: student(*call),
        "float32": lambda: unet(*call),
        "bfloat16": half,
        "integer": lambda: integer(*call),
    }
    times = alternate(forms, rounds)
    expected = student(*call)
    difference = float((integer(*call) - expected).norm() / expected.norm())
    found = {
        name: {"seconds": times[name], "working_bytes": working_bytes(form)}
        for name, form in forms.items()
    }
    found["integer"]["difference_to_fake_frozen"] = difference
    return found
