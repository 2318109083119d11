"""A student whose quantized layers multiply integers."""

from typing import Any

import torch
from torch import Tensor, nn

from hqdm_bench.common.errors import BenchError
from hqdm_bench.integer.attention import OneDNNRowProduct
from hqdm_bench.integer.layer import IntegerLayer
from hqdm_bench.integer.pointwise import PointwiseConvolution
from hqdm_bench.integer.report import ConversionReport
from hqdm_bench.methods import MethodOptions, Request, Student
from hqdm_bench.models.attention import RowProduct
from hqdm_bench.quantization import StepIndex, replace

__all__ = ["IntegerStudent"]


class IntegerStudent(Student):
    """Called like the student it was made from; for sampling only, nothing in it is trained.

    Args:
        network: with integer layers in place.
        step: the holder they refer to.
        options: of the method.
        request: what the student was built for.
        report: of the conversion.
    """

    def __init__(
        self,
        network: nn.Module,
        step: StepIndex,
        options: MethodOptions,
        request: Request,
        report: ConversionReport,
    ) -> None:
        # Bytes are multiplied channels-last; what lies between the layers follows suit.
        for name, layer in list(network.named_modules()):
            if isinstance(layer, nn.Conv2d):
                layer.to(memory_format=torch.channels_last)
            if PointwiseConvolution.fits(layer):
                replace(network, name, PointwiseConvolution(layer))
            if type(layer) is RowProduct and OneDNNRowProduct.available():
                replace(network, name, OneDNNRowProduct())
        super().__init__(network.requires_grad_(False).eval(), step, options, request)
        self.report = report

    def integer_layers(self) -> dict[str, IntegerLayer]:
        """Every integer layer by its name in the network, in module order."""
        return {
            name: layer
            for name, layer in self.network.named_modules()
            if isinstance(layer, IntegerLayer)
        }

    @torch.no_grad()
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the network returns for these arguments, at the timestep among them.

        Raises:
            BenchError: as `Student`; or an image among the arguments holds NaN or infinity, which
                integer codes would hide.
        """
        return super().forward(
            *(self._enter(value) for value in args),
            **{name: self._enter(value) for name, value in kwargs.items()},
        )

    def _enter(self, value: Any) -> Any:
        if not isinstance(value, Tensor) or not value.is_floating_point():
            return value
        if not bool(torch.isfinite(value).all()):
            raise BenchError(
                "an input of the student is NaN or infinite: the sampling before it diverged"
            )
        if value.dim() == 4:
            return value.contiguous(memory_format=torch.channels_last)
        return value
