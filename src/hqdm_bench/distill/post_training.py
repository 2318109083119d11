"""The stages of a post-training student: everything that needs no more than calls of a module."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hqdm_bench.catalogue import Scale
from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.files import digest
from hqdm_bench.distill.calls import Call, call_timestep
from hqdm_bench.distill.factors import choose_factors
from hqdm_bench.distill.finetune import fine_tune
from hqdm_bench.distill.observe import calibrate_on_calls
from hqdm_bench.distill.reconstruction import reconstruct_steps, reconstruct_weights
from hqdm_bench.distill.scaling import learn_scalings, search_thresholds
from hqdm_bench.distill.stage_log import StageLog
from hqdm_bench.distill.temporal import reconstruct_temporal
from hqdm_bench.methods import (
    Calibrate,
    Commit,
    FineTune,
    LearnSteps,
    RoundTemporal,
    RoundWeights,
    Stage,
    Student,
)
from hqdm_bench.methods.stage_scaling import ChooseFactors, LearnScaling, SearchThresholds
from hqdm_bench.quantization import source_name

__all__ = ["RUNNERS", "Work", "post_train", "run_stage"]


@dataclass(frozen=True)
class Work:
    """What a stage has at hand.

    Attributes:
        student: is changed in place.
        module: the full-precision module it was made of.
        calls: arguments of the module, grouped by timestep, ascending, each at one timestep.
        log: which parts of the stage are done.
        scale: of the released settings.
        seed: of everything random.
    """

    student: Student
    module: nn.Module
    calls: Sequence[Call]
    log: StageLog
    scale: Scale
    seed: int

    def chosen_calls(self, timesteps: int) -> list[Call]:
        """The calls at this many timesteps, evenly chosen from the first to the last.

        Args:
            timesteps: how many; all calls if there are no more.
        """
        if self.student.step is None:
            return list(self.calls)
        times = [call_timestep(self.student, call) for call in self.calls]
        distinct = sorted(set(times))
        if len(distinct) <= timesteps:
            return list(self.calls)
        last, gaps = len(distinct) - 1, max(1, timesteps - 1)
        kept = {distinct[round(place * last / gaps)] for place in range(timesteps)}
        return [call for call, time in zip(self.calls, times, strict=True) if time in kept]

    @property
    def memory(self) -> int:
        """Bytes of a block's inputs and targets that are kept."""
        return int(self.scale.memory * 2**30)

    @property
    def settings(self) -> dict[str, Any]:
        """Arguments of everything that is fitted part by part."""
        return {"seed": self.seed, "memory": self.memory, "log": self.log}

    def layers(self, leave_out: Sequence[str]) -> list[str]:
        """Names of the low-bit layers that match none of the patterns.

        Parts of a layer go by its name in the module.
        """
        network = self.student.network
        sources = {name: source_name(network, name) for name in self.student.low_bit_layers()}
        return [
            name
            for name, source in sources.items()
            if not any(fnmatchcase(source, pattern) for pattern in leave_out)
        ]

    def attentions(self, leave_out: Sequence[str]) -> list[str]:
        """Names of the attentions with quantized products that match none of the patterns."""
        names = self.student.quantized_attention()
        return [name for name in names if not any(fnmatchcase(name, p) for p in leave_out)]


def post_train(
    student: Student,
    module: nn.Module,
    calls: Sequence[Call],
    scale: Scale | None = None,
    seed: int = 0,
    checkpoint: Path | str | None = None,
) -> None:
    """Run the stages of a post-training method on any module, in place.

    Args:
        student: of `quantize`.
        module: what it was made of.
        calls: example arguments, a sequence of positional ones or a mapping by name; calls at the
            same timestep follow each other, and every timestep of the tables occurs.
        scale: of the released settings, which take many GPU-hours; None leaves them as they are.
        seed: of batches.
        checkpoint: file to continue from if it exists, and to write; delete it once all is saved.

    Raises:
        BenchError: no calls, a stage that needs more than calls (distillation, or the correction of
            a sampler), or a checkpoint of another run.
    """
    if not calls:
        raise BenchError("post-training needs calibration calls; give at least one")
    stages = student.options.stages()
    for stage in stages:
        if type(stage) not in RUNNERS:
            raise BenchError(
                f"method '{student.method}' has a stage '{stage.name}', which needs a diffusion "
                "model around the module; train it in a suite"
            )
    scale = scale or Scale()
    identity = digest(
        {
            "student": [
                student.method,
                student.options.resolved(),
                str(student.bits),
                student.seed,
            ],
            "stages": [repr(stage) for stage in stages],
            "scale": repr(scale),
            "seed": seed,
            "module": _fingerprint(module, calls),
        }
    )
    log = StageLog(student, None if checkpoint is None else Path(checkpoint), identity)
    work = Work(student, module, calls, log, scale, seed)
    for index, stage in enumerate(stages):
        with log.running(index, stage) as open_:
            if open_:
                run_stage(stage, work)


@torch.no_grad()
def _fingerprint(module: nn.Module, calls: Sequence[Call]) -> list[float]:
    """Sums that tell other weights and other calls apart."""
    weights = [float(value.double().sum()) for value in module.parameters()]
    given = [call.values() if isinstance(call, Mapping) else call for call in calls]
    tensors = [value for values in given for value in values if isinstance(value, Tensor)]
    inputs = [float(value.double().sum()) for value in tensors]
    return [sum(weights), sum(map(abs, weights)), sum(inputs), float(len(calls))]


def run_stage(stage: Stage, work: Work) -> None:
    """Run one stage.

    Raises:
        BenchError: a stage that needs more than calls.
    """
    if type(stage) not in RUNNERS:
        raise BenchError(f"stage '{stage.name}' needs more than calls of the module")
    RUNNERS[type(stage)](stage, work)


def _calibrate(stage: Calibrate, work: Work) -> None:
    calibrate_on_calls(work.student, work.calls)


def _round_weights(stage: RoundWeights, work: Work) -> None:
    reconstruct_weights(
        work.student,
        work.module,
        work.chosen_calls(stage.timesteps),
        stage.fit.scaled(work.scale),
        layers=work.layers(stage.leave_out),
        blocks=stage.blocks,
        **work.settings,
    )


def _round_temporal(stage: RoundTemporal, work: Work) -> None:
    reconstruct_temporal(
        work.student,
        work.module,
        work.chosen_calls(stage.timesteps),
        stage.fit.scaled(work.scale),
        seed=work.seed,
    )


def _learn_steps(stage: LearnSteps, work: Work) -> None:
    reconstruct_steps(
        work.student,
        work.module,
        work.chosen_calls(stage.timesteps),
        stage.fit.scaled(work.scale),
        layers=[*work.layers(stage.leave_out), *work.attentions(stage.leave_out)],
        blocks=stage.blocks,
        **work.settings,
    )


def _learn_scaling(stage: LearnScaling, work: Work) -> None:
    learn_scalings(
        work.student,
        work.module,
        work.chosen_calls(stage.timesteps),
        stage.scaled(work.scale),
        **work.settings,
    )


def _search_thresholds(stage: SearchThresholds, work: Work) -> None:
    search_thresholds(
        work.student,
        work.module,
        work.calls,
        stage.samples,
        **work.settings,
    )


def _choose_factors(stage: ChooseFactors, work: Work) -> None:
    choose_factors(work.student, work.calls, agreement=stage.agreement)


def _fine_tune(stage: FineTune, work: Work) -> None:
    calls = work.chosen_calls(stage.timesteps)
    fine_tune(work.student, work.module, calls, stage.scaled(work.scale), work.seed)


def _commit(stage: Commit, work: Work) -> None:
    work.student.commit()


RUNNERS: Mapping[type[Stage], Callable[[Any, Work], None]] = {
    Calibrate: _calibrate,
    ChooseFactors: _choose_factors,
    LearnScaling: _learn_scaling,
    Commit: _commit,
    FineTune: _fine_tune,
    LearnSteps: _learn_steps,
    RoundTemporal: _round_temporal,
    RoundWeights: _round_weights,
    SearchThresholds: _search_thresholds,
}
