"""Equivalent scaling: difficulty moved between a layer's input and its weight, channel by channel.

A layer computes the same from X / tau and tau W as from X and W, whatever its stride, padding or
dilation, since tau belongs to the input channels, over which every output sums. What tau should be
is for SmoothQuant a formula (Xiao et al., ICML 2023, arXiv 2211.10438, Eq. 4) and for DMQ (ICCV
2025, arXiv 2507.12933) learned, see `learn_scaling`.
"""

from torch import Tensor, nn

from hqdm_bench.common.errors import BenchError

__all__ = ["channel_axis", "channel_maxima", "divide_input", "multiply_weight", "smoothing_scale"]

SMALLEST = 1e-5  # SmoothQuant's released bound on the maxima and on the scales


def channel_axis(source: nn.Module) -> int:
    """Axis of the channels in a layer's input: the last of a Linear, the second of a convolution.

    Raises:
        BenchError: another kind of layer, or a grouped convolution, whose weight has only some of
            the input channels.
    """
    if isinstance(source, nn.Linear):
        return -1
    if isinstance(source, (nn.Conv1d, nn.Conv2d)) and source.groups == 1:
        return 1
    raise BenchError(
        f"cannot scale the input channels of {source}; a Linear, or a Conv1d or Conv2d without "
        "groups, can be"
    )


def divide_input(x: Tensor, tau: Tensor, axis: int) -> Tensor:
    """X / tau.

    Args:
        x: input of the layer.
        tau: (c_in,).
        axis: of the channels in x, see `channel_axis`.
    """
    return x / tau if axis in (-1, x.dim() - 1) else x / tau.view(-1, *[1] * (x.dim() - 2))


def multiply_weight(weight: Tensor, tau: Tensor) -> Tensor:
    """Return tau W.

    Args:
        weight: (c_out, c_in, ...).
        tau: (c_in,).
    """
    return weight * tau.view(1, -1, *[1] * (weight.dim() - 2))


def channel_maxima(x: Tensor, axis: int) -> Tensor:
    """(channels,) largest magnitude along every axis but one."""
    return x.detach().abs().movedim(axis, 0).flatten(1).amax(1)


def smoothing_scale(input_max: Tensor, weight_max: Tensor, alpha: float = 0.5) -> Tensor:
    """SmoothQuant's tau_j = max|X_j|^alpha / max|W_j|^(1 - alpha), at least 1e-5.

    Args:
        input_max: (c_in,) largest magnitude of every input channel in the calibration data.
        weight_max: (c_in,) that of the weights of the channel.
        alpha: share of the difficulty that moves to the weight, 0 to 1.

    Raises:
        BenchError: alpha is out of range.
    """
    if not 0 <= alpha <= 1:
        raise BenchError(f"smoothing takes an alpha from 0 to 1, not {alpha}")
    weight_max = weight_max.clamp(min=SMALLEST)
    return (input_max.pow(alpha) / weight_max.pow(1 - alpha)).clamp(min=SMALLEST)
