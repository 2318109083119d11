"""HQ-DM Bench: reproducibility suite for low-bit latent diffusion models.

The functions for any module, loaded with torch when they are first asked for:

    student = hqdm_bench.quantize(module, "hqdm", "w4a4", timesteps=range(1, 1000, 50))
    hqdm_bench.calibrate(student, calls)
    hqdm_bench.save_student(student, "student.safetensors")
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hqdm_bench.distill import calibrate_on_calls as calibrate
    from hqdm_bench.distill import post_train
    from hqdm_bench.methods import load_student, quantize, save_student

__version__ = "0.1.0"
__all__ = ["calibrate", "load_student", "post_train", "quantize", "save_student"]

_PLACES = {
    "calibrate": ("hqdm_bench.distill", "calibrate_on_calls"),
    "post_train": ("hqdm_bench.distill", "post_train"),
    "load_student": ("hqdm_bench.methods", "load_student"),
    "quantize": ("hqdm_bench.methods", "quantize"),
    "save_student": ("hqdm_bench.methods", "save_student"),
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    module, attribute = _PLACES[name]
    return getattr(importlib.import_module(module), attribute)
