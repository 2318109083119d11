"""Full-precision 1x1 convolutions between integer layers."""

import torch
from torch import Tensor, nn

__all__ = ["PointwiseConvolution"]


class PointwiseConvolution(nn.Module):
    """A 1x1 convolution in float32 that goes to oneDNN whatever the batch.

    On one thread PyTorch sends 1x1 convolutions of fewer than 16 images to the BLAS, which takes
    more than twice as long on some processors. The numbers are the same up to rounding.

    Args:
        source: the layer; its parameters are shared.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(self, source: nn.Conv2d) -> None:
        super().__init__()
        self.weight = source.weight
        self.bias = source.bias
        self.stride = list(source.stride)

    @staticmethod
    def fits(layer: nn.Module) -> bool:
        """Whether a layer is such a convolution, and oneDNN is there."""
        return (
            type(layer) is nn.Conv2d
            and layer.kernel_size == (1, 1)
            and layer.padding == (0, 0)
            and layer.groups == 1
            and layer.weight.dtype == torch.float32
            and layer.weight.device.type == "cpu"
            and torch.backends.mkldnn.is_available()
        )

    def plain(self) -> nn.Conv2d:
        """The same layer as PyTorch's own; its parameters are shared."""
        c_out, c_in = self.weight.shape[:2]
        layer = nn.Conv2d(c_in, c_out, 1, (self.stride[0], self.stride[1]), device="meta")
        layer.weight = self.weight
        layer.bias = self.bias
        return layer

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', H', W')."""
        return torch.mkldnn_convolution(
            x, self.weight, self.bias, [0, 0], self.stride, [1, 1], groups=1
        )
