"""What making a student took: time, memory and data, as the run that made it measured them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hqdm_bench.report.results import CellResult

__all__ = ["MethodCost", "method_cost"]


@dataclass(frozen=True)
class MethodCost:
    """Of the students of one method, model and bit-width; a field is None where not recorded.

    Attributes:
        seconds: wall-clock time by stage, mean over the seeds.
        cpu_seconds: of the processor, over all stages, mean over the seeds.
        peak_memory_mb: of the process (MiB), of the seed that took most.
        peak_gpu_memory_mb: of the GPU, alike.
        samples: inputs of the network that calibration and training saw, mean over the seeds.
        extra_parameters: numbers kept for inference beside weights and biases: step sizes and
            zero-points of every step, scaling vectors, correction tables.
    """

    seconds: Mapping[str, float]
    cpu_seconds: float | None
    peak_memory_mb: float | None
    peak_gpu_memory_mb: float | None
    samples: float | None
    extra_parameters: int | None

    @property
    def total_seconds(self) -> float | None:
        """Wall-clock time of all stages."""
        return sum(self.seconds.values()) if self.seconds else None


def method_cost(results: Sequence[CellResult]) -> MethodCost | None:
    """Costs over the seeds; None where no seed has recorded any, as for full precision."""
    found = [result.training.get("cost") for result in results if result.training is not None]
    costs: list[Mapping[str, Any]] = [cost for cost in found if cost]
    if not costs:
        return None
    timed = [cost["seconds"] for cost in costs if cost.get("seconds")]
    stages = dict.fromkeys(stage for seconds in timed for stage in seconds)
    extra = _known(costs, "extra_parameters")
    return MethodCost(
        {stage: _mean([seconds.get(stage, 0.0) for seconds in timed]) for stage in stages},
        _mean(_known(costs, "cpu_seconds")) if _known(costs, "cpu_seconds") else None,
        max(_known(costs, "peak_memory_mb"), default=None),
        max(_known(costs, "peak_gpu_memory_mb"), default=None),
        _mean(_known(costs, "samples")) if _known(costs, "samples") else None,
        int(max(extra)) if extra else None,
    )


def _known(costs: Sequence[Mapping[str, Any]], key: str) -> list[float]:
    return [float(cost[key]) for cost in costs if cost.get(key) is not None]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
