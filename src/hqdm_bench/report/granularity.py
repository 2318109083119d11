"""How finely a student's grids follow its weights and inputs, and what else sets it apart.

Read from the options a student was trained with, and from what was counted in it. A method without
an option has what the trained methods have: a grid for each output channel of a weight, and one a
tensor and step for an input.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hqdm_bench.report.results import CellResult

__all__ = ["GRIDS_NOTE", "Granularity", "granularity"]

GRIDS_NOTE = (
    "Grids: before the semicolon of a weight, one for each output channel or one a tensor; behind "
    "it of a layer's input, one a tensor or one for each channel, per step where denoising steps "
    "have their own, or share one with a few neighbours."
)
NOT_INTEGER = (
    "a grid for each input channel, which cannot be taken out of an integer dot product and is not "
    "comparable with one a tensor"
)
# Options that say "not at all"; of another value the remark is made.
ABSENT = (None, False, 0, "none", "off", "no", "full_precision")
# Option -> what it adds to a student.
REMARKS = {
    "attention": "products inside attention quantized too",
    "split": "inputs behind a concatenation in two parts, each with grids of its own",
    "mixed": "bits differ between the output channels of a layer",
    "outlier_split": "input channels with the largest weights given twice",
    "factors": "a power-of-two factor for each channel of a skip connection's input",
    "correction": "predictions corrected while sampling",
}
TEMPORAL = "ranges per step only in the layers that see nothing but the timestep"


@dataclass(frozen=True)
class Granularity:
    """Grids of a student's low-bit layers.

    Attributes:
        weights: of a weight, one for each output ``channel`` or one a ``tensor``.
        inputs: of a layer's input, one a ``tensor`` or one for each ``channel``.
        weight_steps: whether every denoising step has weight grids of its own.
        input_steps: the same of the inputs.
        remarks: what else sets the student apart, in words.
    """

    weights: str
    inputs: str
    weight_steps: bool
    input_steps: bool
    remarks: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = ((self.weights, self.weight_steps), (self.inputs, self.input_steps))
        return "; ".join(f"{name}, per step" if steps else name for name, steps in parts)


def granularity(results: tuple[CellResult, ...] | list[CellResult]) -> Granularity | None:
    """Of the students of one method, model and bit-width; None for full precision."""
    students = [result for result in results if result.training is not None]
    if not students:
        return None
    training = students[0].training
    assert training is not None
    inputs = _inputs(training["options"], training.get("coverage", {}))
    return _granularity(training["options"], inputs)


def _inputs(options: Mapping[str, Any], coverage: Mapping[str, Any]) -> str:
    """Counted where it was: an option may leave it to the bits."""
    counted = coverage.get("channel_steps")
    if counted is None:
        option = str(options.get("activation_channels", "tensor"))
        return "channel" if option.startswith("channel") else "tensor"
    return "channel" if counted["mac_share"] > 0 else "tensor"


def _granularity(options: Mapping[str, Any], inputs: str) -> Granularity:
    temporal = options.get("finite_set") == "temporal"
    remarks = [
        text + _detail(name, options)
        for name, text in REMARKS.items()
        if options.get(name) not in ABSENT
    ]
    return Granularity(
        weights=options.get("weight_grids", "channel"),
        inputs=inputs,
        weight_steps=options.get("weight_scales") == "per_step",
        input_steps=options.get("activation_steps", "per_step") == "per_step" and not temporal,
        remarks=(
            *([NOT_INTEGER] if inputs == "channel" else []),
            *([TEMPORAL] if temporal else []),
            *remarks,
        ),
    )


def _detail(name: str, options: Mapping[str, Any]) -> str:
    """What another option adds to a remark."""
    bits = options.get("softmax_bits")
    return f", softmax at {bits} bits" if name == "attention" and bits is not None else ""
