"""Full-precision 1x1 convolutions between integer layers."""

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["PointwiseConvolution"]

FEW_TOKENS = 64  # up to here a convolution over one axis gains little from the detour


class PointwiseConvolution(nn.Module):
    """A 1x1 convolution in float32, over one axis or two, that goes to oneDNN whatever the batch.

    On one thread PyTorch sends 1x1 convolutions of fewer than 16 images to the BLAS, which takes
    more than twice as long on some processors. The numbers are the same up to rounding.

    Args:
        source: the layer; its parameters are shared.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(self, source: nn.Conv1d | nn.Conv2d) -> None:
        super().__init__()
        self.weight = source.weight
        self.bias = source.bias
        self.stride = list(source.stride)

    @staticmethod
    def fits(layer: nn.Module) -> bool:
        """Whether a layer is such a convolution, and oneDNN is there."""
        return (
            type(layer) in (nn.Conv1d, nn.Conv2d)
            and isinstance(layer, nn.Conv1d | nn.Conv2d)
            and set(layer.kernel_size) == {1}
            and layer.padding in ((0,), (0, 0))
            and layer.groups == 1
            and layer.weight.dtype == torch.float32
            and layer.weight.device.type == "cpu"
            and torch.backends.mkldnn.is_available()
        )

    def plain(self) -> nn.Conv1d | nn.Conv2d:
        """The same layer as PyTorch's own; its parameters are shared."""
        c_out, c_in = self.weight.shape[:2]
        layer: nn.Conv1d | nn.Conv2d
        if len(self.stride) == 1:
            layer = nn.Conv1d(c_in, c_out, 1, self.stride[0], device="meta")
        else:
            layer = nn.Conv2d(c_in, c_out, 1, (self.stride[0], self.stride[1]), device="meta")
        layer.weight = self.weight
        layer.bias = self.bias
        return layer

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', H', W'), or (B, C, L) to (B, C', L')."""
        if len(self.stride) == 2:
            return self._convolve(x, self.weight, self.stride)
        if x.shape[2] <= FEW_TOKENS:
            return functional.conv1d(x, self.weight, self.bias, self.stride)
        # Channels-last input stays so: what comes before is.
        image = x.unsqueeze(2).contiguous(memory_format=torch.channels_last)
        return self._convolve(image, self.weight.unsqueeze(2), [1, *self.stride]).squeeze(2)

    def _convolve(self, x: Tensor, weight: Tensor, stride: list[int]) -> Tensor:
        return torch.mkldnn_convolution(x, weight, self.bias, [0, 0], stride, [1, 1], groups=1)
