"""How far predictions of equal students are apart when float32 is rounded otherwise.

    OMP_NUM_THREADS=1 python benchmarks/agreement.py

The W4A4 HQ-DM student of mini-imagenet, calibrated and not trained, on a 20-step trajectory of 8
images: as integers, frozen, and in another memory layout, each against the fake-quantized student
as it is; and the error of quantization itself.
"""

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hqdm_bench.catalogue import Bits, MethodSpec, load_catalogue
from hqdm_bench.distill import calibrate_on_calls
from hqdm_bench.integer import compare_codes, convert
from hqdm_bench.methods import build_student
from hqdm_bench.models import DDIM, load_latent_diffusion

ROOT = Path(__file__).resolve().parents[1]
STEPS, IMAGES, CLOSE = 20, 8, 1e-4


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@torch.no_grad()
def main() -> None:
    catalogue = load_catalogue(ROOT)
    weights = ROOT / "src/hqdm_bench/artefacts/embedded/mini-imagenet.safetensors"
    teacher = load_latent_diffusion(catalogue.model("mini-imagenet"), weights)
    spec = MethodSpec("hqdm", "HQ-DM", "hqdm", {})
    student = build_student(spec, teacher, Bits(4, 4), catalogue.recipe("mini"), 0)
    random = torch.Generator().manual_seed(4)
    context = teacher.context(torch.arange(IMAGES))
    ddim = DDIM.from_schedule(teacher.schedule, STEPS, 0.0)
    x = torch.randn(IMAGES, *teacher.latent_shape, generator=random)
    calls: list[tuple[Any, ...]] = []
    for index in reversed(range(STEPS)):
        calls.append((x, torch.full((IMAGES,), int(ddim.timesteps[index])), context))
        x = ddim.step(x, teacher.unet(*calls[-1]), index)
    calibrate_on_calls(student, calls[::-1])
    agreement = compare_codes(student, convert(student), calls)
    print(f"codes: {sum(agreement.different.values())} of {agreement.total:,} differ")
    expected = [student(*call) for call in calls]
    errors = [relative(out, teacher.unet(*call)) for out, call in zip(expected, calls, strict=True)]
    print(f"quantization error: {min(errors):.3f} to {max(errors):.3f}")
    forms = {
        "integer": convert(student),
        "other layout": copy.deepcopy(student).to(memory_format=torch.channels_last),
        "frozen": copy.deepcopy(student).freeze(),
    }
    for name, form in forms.items():
        found = []
        for call, own in zip(calls, expected, strict=True):
            image = call[0].contiguous(memory_format=torch.channels_last)
            given = image if name == "other layout" else call[0]
            found.append(relative(form(given, *call[1:]), own))
        close = sum(difference < CLOSE for difference in found)
        print(f"{name}: {close} of {STEPS} within {CLOSE:g}, the worst {max(found):.3f}")


if __name__ == "__main__":
    main()
