"""Initial ranges of the activation quantizers.

Both variants start from weights that are already quantized (their ranges need no data) with
low-rank updates that are still zero.
"""

import functools
import sys

import torch
from torch import Tensor, nn

from hqdm_bench.catalogue import Recipe
from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.seeds import generator
from hqdm_bench.distill.observe import calibrate_on_calls, observer_of
from hqdm_bench.distill.probes import probing
from hqdm_bench.distill.trajectories import Trajectories
from hqdm_bench.hadamard import BlockRotation
from hqdm_bench.methods import Student
from hqdm_bench.models import LatentDiffusion
from hqdm_bench.quantization import (
    AffineStatic,
    ExactInput,
    LearnedStep,
    MakeObserver,
    QuantizedInput,
)
from hqdm_bench.quantization.observers import observer_for

__all__ = ["calibrate", "calibrate_on_batch"]

EVERYTHING = sys.maxsize  # values of an input that a search looks at


def calibrate(
    student: Student,
    teacher: LatentDiffusion,
    trajectories: Trajectories,
    recipe: Recipe,
    seed: int,
) -> None:
    """Set every activation range from the training trajectories, in place.

    ``single_batch`` (released code): one batch of ``calibration_images`` rows drawn from all steps;
    layer after layer, in the order of execution, takes an asymmetric mean-error range of its
    unrotated input, which has gone through the quantized layers before it; all rows of a table
    start from that one scale (HQ-DM too, which drops the zero-point). Step sizes of a grid of their
    own (`LearnedStep`) take the range on it that the student's options ask for.

    ``per_step``: for every step, ``calibration_images`` rows of that step, each table row from its
    own step (`calibrate_on_calls`).

    Args:
        student: a full-precision student is left alone.
        teacher: gives the class embedder.
        trajectories: only the training part is used.
        recipe: variant and number of rows.
        seed: training seed, which draws the rows.

    Raises:
        BenchError: the trajectories do not fit the recipe or hold too few rows.
    """
    trajectories.require(recipe)
    if student.step is None:
        return
    student.unfreeze()
    variants = {"single_batch": _single_batch, "per_step": _per_step}
    if recipe.calibration not in variants:
        raise BenchError(
            f"recipe '{recipe.name}': calibration is '{recipe.calibration}'; allowed: "
            + ", ".join(variants)
        )
    variants[recipe.calibration](student, teacher, trajectories.training, recipe, seed)


def _single_batch(
    student: Student, teacher: LatentDiffusion, training: Trajectories, recipe: Recipe, seed: int
) -> None:
    guided = _guided(training)
    count, steps, batch = training.x_t.shape[:3]
    rows = _draw(count * steps * batch * (2 if guided else 1), recipe.calibration_images, seed)
    if guided:
        rows, conditional = rows // 2, rows % 2 == 1
    trajectory, rest = rows // (steps * batch), rows % (steps * batch)
    step, image = rest // batch, rest % batch
    context = None
    if training.labels is not None:
        labels = training.labels[trajectory, image]
        if guided:
            labels = torch.where(conditional, labels, _null(teacher))
        context = _context(teacher, labels)
    x = training.x_t[trajectory, step, image].to(_device(student))
    times = torch.tensor(training.timesteps)[step].to(_device(student))
    calibrate_on_batch(student, x, times, context)


@torch.no_grad()
def calibrate_on_batch(
    student: Student, x: Tensor, timesteps: Tensor, context: Tensor | None
) -> None:
    """Sequential initialisation on one batch, whose rows may be of different timesteps.

    Args:
        student: its tables are filled.
        x: (rows, C, h, w).
        timesteps: (rows,).
        context: (rows, L, D), or None.

    Raises:
        BenchError: a layer has something to measure at every step.
    """
    assert student.step is not None
    for name, layer in student.quantized_layers().items():
        measures = layer.scaling is not None or layer.centre is not None
        if measures or layer.rotates_input is not None:
            raise BenchError(
                f"'{name}' measures its input at every step, which one batch cannot show; take a "
                "recipe with calibration: per_step"
            )
    student.step.set(student.step.timesteps[0])  # layers ask for a step; the probes ignore it
    make = observer_of(student, EVERYTHING)
    with probing(student, functools.partial(_SequentialProbe, make=make)):
        student.network(x, timesteps, context)


@torch.no_grad()
def _per_step(
    student: Student, teacher: LatentDiffusion, training: Trajectories, recipe: Recipe, seed: int
) -> None:
    guided = _guided(training)
    images = -(-recipe.calibration_images // 2) if guided else recipe.calibration_images
    count, _, batch = training.x_t.shape[:3]
    rows = _draw(count * batch, images, seed)
    trajectory, image = rows // batch, rows % batch
    context = None
    if training.labels is not None:
        labels = training.labels[trajectory, image]
        if guided:
            labels = torch.cat([torch.full_like(labels, _null(teacher)), labels])
        context = _context(teacher, labels)
    calls = []
    for step, timestep in enumerate(training.timesteps):
        x = training.x_t[trajectory, step, image].to(_device(student))
        x = torch.cat([x, x]) if guided else x
        calls.append((x, torch.full((len(x),), timestep, device=x.device), context))
    calibrate_on_calls(student, calls)


class _SequentialProbe(nn.Module):
    """Take the range of the first input, then act as the naive quantizer with that range."""

    def __init__(self, holder: QuantizedInput, make: MakeObserver) -> None:
        super().__init__()
        self.quantizer = holder.activation
        self.make: MakeObserver = make

    def forward(self, x: Tensor, row: int, rotation: BlockRotation | None = None) -> Tensor:
        if isinstance(self.quantizer, ExactInput):
            return x
        if isinstance(self.quantizer, LearnedStep):  # of no released code that starts like this
            observer = observer_for(self.quantizer, self.make)
            observer.observe(x)
            observer.store(self.quantizer)
            return self.quantizer(x, row)
        naive = AffineStatic(self.quantizer.bits).to(x)
        naive.calibrate(x)
        self.quantizer.initialise(naive.scale, naive.zero)
        return naive(x, 0)


def _draw(available: int, wanted: int, seed: int) -> Tensor:
    if wanted > available:
        raise BenchError(
            f"calibration wants {wanted} rows but the training trajectories hold {available}; "
            "lower calibration_images or raise pool"
        )
    return torch.randperm(available, generator=generator("calibration", seed))[:wanted]


def _guided(training: Trajectories) -> bool:
    return training.labels is not None and training.guidance != 1


def _null(teacher: LatentDiffusion) -> int:
    assert teacher.null_label is not None
    return teacher.null_label


def _context(teacher: LatentDiffusion, labels: Tensor) -> Tensor | None:
    return teacher.context(labels.to(next(teacher.parameters()).device))


def _device(student: Student) -> torch.device:
    return next(student.parameters()).device
