"""What making a student took, measured by the run itself."""

import resource
import sys
from dataclasses import asdict, dataclass
from typing import Any

import torch

from hqdm_bench.distill.stage_log import StageLog
from hqdm_bench.methods import Student, student_state

__all__ = ["TrainingCost", "extra_parameters", "measured_cost"]

MEBIBYTE = 1024**2
MACHINE = ("seconds", "cpu_seconds", "peak_memory_mb", "peak_gpu_memory_mb")


@dataclass(frozen=True)
class TrainingCost:
    """Time, memory, data and what the student carries besides its weights.

    Attributes:
        seconds: wall-clock time of each stage, runs that were resumed included.
        cpu_seconds: of all of them, on the processor.
        peak_memory_mb: largest resident size of the process (MiB), libraries included.
        peak_gpu_memory_mb: largest allocation on the GPU (MiB); None without one.
        samples: inputs of the network that were drawn or read to calibrate, train and correct.
        fitted: fewest of them that a block was fitted on, which memory bounds; None for a method
            that fits no blocks.
        extra_parameters: numbers that inference needs besides the weights' codes and grids and the
            biases: step sizes and zero-points of the inputs, centres, scales, corrections.
    """

    seconds: dict[str, float]
    cpu_seconds: float
    peak_memory_mb: float
    peak_gpu_memory_mb: float | None
    samples: int
    fitted: int | None
    extra_parameters: int

    def repeatable(self) -> dict[str, Any]:
        """What a repetition finds again, for ``training.json``."""
        return {key: value for key, value in asdict(self).items() if key not in MACHINE}

    def of_the_machine(self) -> dict[str, Any]:
        """What differs from run to run, for ``cost.json``."""
        return {key: value for key, value in asdict(self).items() if key in MACHINE}


def measured_cost(student: Student, log: StageLog, samples: int) -> TrainingCost:
    """Cost of a student whose stages are done.

    Args:
        student: finished.
        log: of its stages.
        samples: inputs of the network.
    """
    on_gpu = next(student.network.parameters()).is_cuda
    return TrainingCost(
        {stage: round(spent, 2) for stage, spent in log.seconds.items()},
        round(log.cpu_seconds, 2),
        round(_peak_memory() / MEBIBYTE, 1),
        round(torch.cuda.max_memory_allocated() / MEBIBYTE, 1) if on_gpu else None,
        samples,
        log.fitted,
        extra_parameters(student),
    )


def extra_parameters(student: Student) -> int:
    """Numbers besides weights and biases, see `TrainingCost`."""
    return sum(
        value.numel()
        for key, value in student_state(student).items()
        if ".weight." not in key and not key.endswith(".bias")
    )


def _peak_memory() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # bytes there, KiB elsewhere
