"""What a constant added to every input channel contributes to a convolution.

HQ-DM Plus subtracts a mean from each channel before the quantizer and adds it after. The product
of such a constant with the weight is the same at every pixel of the output, except where the
kernel reaches into the padding, which stays zero: there only the taps inside the image count.
"""

import functools

import torch
from torch import Tensor

from hqdm_bench.integer.geometry import Geometry

__all__ = ["add_constant", "tap_products"]


def tap_products(weight: Tensor, scale: Tensor, constant: Tensor) -> Tensor:
    """Sums over the input channels of each tap.

    Args:
        weight: integers n - z, (c_out, c_in, ...).
        scale: (c_out,) step sizes.
        constant: (c_in,).

    Returns:
        float64, (c_out, taps) or (c_out, kh, kw).
    """
    products = torch.tensordot(constant.double(), weight.double(), dims=([0], [1]))
    return products * scale.double().view(-1, *[1] * (products.dim() - 1))


def add_constant(out: Tensor, taps: Tensor, geometry: Geometry, size: tuple[int, int]) -> Tensor:
    """Add the contribution to an output, in place.

    Args:
        out: (B, c_out, H', W').
        taps: of `tap_products`, (c_out, kh, kw) float64.
        geometry: of the convolution.
        size: height and width of its input.
    """
    kernel = (taps.shape[1], taps.shape[2])
    (rows, row_class), (columns, column_class) = (
        _classes(geometry, axis, size[axis], kernel[axis], out.device) for axis in (0, 1)
    )
    table = torch.einsum("ri,oij,cj->orc", rows, taps, columns).to(out)
    # Pixels that miss the same taps share a value; there are few such classes.
    return out.add_(table[:, row_class][:, :, column_class])


@functools.lru_cache(maxsize=1024)
def _classes(
    geometry: Geometry, axis: int, length: int, kernel: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Which taps meet the image, for each class of places, and the class of each place.

    Remembered: a GPU would wait for it in every call.
    """
    with torch.inference_mode(False), torch.no_grad():
        inside = _inside(geometry, axis, length, kernel)
        classes, which = torch.unique(inside, dim=0, return_inverse=True)
        return classes.double().to(device), which.to(device)


def _inside(geometry: Geometry, axis: int, length: int, kernel: int) -> Tensor:
    """Which taps meet the image and not its padding: (output length, kernel) of 0 and 1."""
    count = geometry.output_length(axis, length, kernel)
    starts = torch.arange(count) * geometry.stride[axis] - geometry.padding[axis]
    places = starts[:, None] + torch.arange(kernel) * geometry.dilation[axis]
    return ((places >= 0) & (places < length)).to(torch.int8)
