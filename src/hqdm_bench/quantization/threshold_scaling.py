"""Channel scales from one searched threshold: Outlier Suppression+ (arXiv 2304.09145).

Wei et al., EMNLP 2023, Section 4.2: channels whose largest magnitude exceeds a threshold t are
scaled down to it, tau_j = max(1, max|X_j| / t), the others are left alone; t is the one whose
quantized layer output is closest to the exact output.
"""

import torch
from torch import Tensor, nn

from hqdm_bench.common.errors import BenchError
from hqdm_bench.quantization.equivalent_scaling import channel_axis
from hqdm_bench.quantization.learned_scaling import sample_losses, scaled_output

__all__ = ["THRESHOLDS", "search_threshold", "threshold_scale"]

THRESHOLDS = 100
SMALLEST = 1e-5


def threshold_scale(input_max: Tensor, threshold: Tensor | float) -> Tensor:
    """(channels,) tau_j = max(1, max|X_j| / t).

    Args:
        input_max: (channels,) largest magnitudes.
        threshold: t.
    """
    return (input_max / threshold).clamp(min=1)


@torch.no_grad()
def search_threshold(
    source: nn.Conv1d | nn.Conv2d | nn.Linear,
    inputs: Tensor,
    input_max: Tensor,
    bits: tuple[int, int],
    weight: Tensor | None = None,
    *,
    thresholds: int = THRESHOLDS,
    batch: int = 32,
) -> Tensor:
    """Find the scales with the least error of a layer's output.

    The thresholds are even shares of the largest magnitude, down to 1 / ``thresholds`` of it. (The
    released code goes down to 1, which suits the inputs of language models.) Of equal errors the
    largest threshold wins.

    Args:
        source: the full-precision layer.
        inputs: (N, ...) of its inputs, shifted if it will be.
        input_max: (c_in,) largest magnitudes of its input channels.
        bits: of weight and input.
        weight: of a part of the layer, whose inputs are given; None for the layer's.
        thresholds: how many are tried.
        batch: samples at a time.

    Returns:
        (c_in,) tau.

    Raises:
        BenchError: a layer whose channels cannot be scaled, or no inputs.
    """
    axis, weight = channel_axis(source), source.weight.detach() if weight is None else weight
    if not len(inputs):
        raise BenchError("got no inputs to search a threshold on")

    def operate(x: Tensor, w: Tensor) -> Tensor:
        return torch.func.functional_call(source, {"weight": w}, (x,))

    input_max = input_max.to(weight)
    largest = input_max.max().clamp(min=SMALLEST)
    scales = [
        threshold_scale(input_max, largest * (1 - index / thresholds))
        for index in range(thresholds)
    ]
    errors = torch.zeros(thresholds, dtype=torch.float64)
    for part in inputs.split(batch):
        x = part.to(weight)
        target = operate(x, weight)
        for index, tau in enumerate(scales):
            found = scaled_output(operate, x, weight, tau, bits, axis)
            errors[index] += float(sample_losses(found, target).double().sum())
    return scales[int(errors.argmin())]
