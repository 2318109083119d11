"""Choosing the power-of-two factors of step sizes: DMQ (ICCV 2025, arXiv 2507.12933)."""

from collections import defaultdict
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.progress import Progress
from hqdm_bench.distill.calls import Call, run_call
from hqdm_bench.distill.capture import reach
from hqdm_bench.distill.scaling import step_row
from hqdm_bench.methods import Student
from hqdm_bench.quantization import QuantizedLayer, ShiftedTable
from hqdm_bench.quantization.blocks import Unit, in_call_order
from hqdm_bench.quantization.power_of_two import AGREEMENT

__all__ = ["choose_factors"]


@torch.no_grad()
def choose_factors(
    student: Student, calls: Sequence[Call], *, agreement: float = AGREEMENT
) -> None:
    """Let every sample vote on the factors of each quantizer that has them, in place.

    Layers follow each other as a call reaches them, so that each sees its input with the factors of
    the layers before it in place. Ranges stay as they are calibrated.

    Args:
        student: calibrated.
        calls: arguments of the module, each at one timestep of the student's tables.
        agreement: share of the samples that must agree on a factor other than 1.

    Raises:
        BenchError: no calls, a layer that no call runs, or a step that is not calibrated.
    """
    layers = {
        name: layer
        for name, layer in student.low_bit_layers().items()
        if isinstance(layer.activation, ShiftedTable)
    }
    if not layers:
        return
    if not calls:
        raise BenchError("choosing factors needs calibration calls; give at least one")
    student.unfreeze()
    units = [Unit(name, "layer", (name,)) for name in layers]
    order = in_call_order(student.network, units, lambda: run_call(student, calls[0]))
    votes = _by_vote(student, calls, layers)
    with Progress("choose factors", total=len(votes) * len(order)) as progress:
        for done, (row, taken) in enumerate(votes.items()):
            for place, unit in enumerate(order):
                table = layers[unit.name].activation
                assert isinstance(table, ShiftedTable)
                chosen = [_preferences(student, unit.name, call) for call in taken]
                table.choose_factors(torch.cat(chosen), row, agreement)
                progress.update(done * len(order) + place + 1)


def _by_vote(
    student: Student, calls: Sequence[Call], layers: dict[str, QuantizedLayer]
) -> dict[int, list[Call]]:
    """Calls that vote together: those of a step, or all where the factors are shared."""
    tables = [layer.activation for layer in layers.values()]
    shared = any(isinstance(table, ShiftedTable) and table.factor_rows == 1 for table in tables)
    votes = defaultdict(list)
    for call in calls:
        votes[0 if shared else step_row(student, call)].append(call)
    return dict(votes)


def _preferences(student: Student, name: str, call: Call) -> Tensor:
    """(N, C) votes of a call's samples at a layer."""
    arguments, _ = reach(student.network, name, partial(run_call, student, call))
    layer = student.network.get_submodule(name)
    assert isinstance(layer, QuantizedLayer)
    assert isinstance(layer.activation, ShiftedTable)
    row = 0 if student.step is None else student.step.index
    return layer.activation.preferences(layer.quantizer_input(arguments[0]), row)
