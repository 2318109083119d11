"""Outlier channel splitting (OCS, Zhao et al., ICML 2019, arXiv 1901.09504).

The input channel with the largest weight is given twice, each time with half of the weight: the
product stays the same and the range to quantize shrinks. This repeats on the widened weight, so
that a channel may be split several times.

Halves that are rounded alike double the error of one rounding. The quantization-aware split of the
paper (Section 3.3) moves them apart, w -> (w - delta/2)/2 and (w + delta/2)/2: the sum is still w,
and the sum of both roundings is the rounding of w.
"""

import torch
from torch import Tensor

__all__ = ["outlier_channels", "split_channels"]


def outlier_channels(weight: Tensor, count: int) -> Tensor:
    """(count,) int32 input channels to repeat, in the order in which they are split.

    Args:
        weight: (c_out, c_in, ...).
        count: of splits; each takes the copy with the largest magnitude then, the first of equals.
    """
    largest = weight.detach().abs().transpose(0, 1).flatten(1).amax(1)
    now, splits = largest.clone(), torch.zeros(len(largest), dtype=torch.int32)
    found = []
    for _ in range(count):
        channel = int(now.argmax())
        found.append(channel)
        splits[channel] += 1
        # After 2^k - 1 splits all copies of a channel are 2^-k of it; until then the last one is.
        now[channel] = largest[channel] / 2 ** (int(splits[channel] + 1).bit_length() - 1)
    return torch.tensor(found, dtype=torch.int32, device=weight.device)


def split_channels(weight: Tensor, channels: Tensor, step: Tensor | None = None) -> Tensor:
    """(c_out, c_in + count, ...) weight for an input with these channels repeated at its end.

    Args:
        weight: (c_out, c_in, ...).
        channels: of `outlier_channels`.
        step: delta of the grid, to broadcast over the weight, for the quantization-aware split;
            None for plain halves.
    """
    if not len(channels):
        return weight
    columns = list(weight.unbind(1))
    copies = {channel: [channel] for channel in range(len(columns))}
    shift = 0.0 if step is None else step.squeeze(1) / 2
    for channel in channels.tolist():
        own = copies[channel]
        place = own.pop(0)  # the least split copy
        whole = columns[place]
        columns[place] = (whole - shift) / 2
        columns.append((whole + shift) / 2)
        own += [place, len(columns) - 1]
    return torch.stack(columns, 1)
