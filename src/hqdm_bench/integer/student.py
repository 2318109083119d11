"""A student whose quantized layers multiply integers."""

from typing import Any, Self

import torch
from torch import Tensor, nn

from hqdm_bench.common.errors import BenchError
from hqdm_bench.integer.attention import faster_attention
from hqdm_bench.integer.graphs import StepGraphs
from hqdm_bench.integer.layer import IntegerLayer
from hqdm_bench.integer.pointwise import PointwiseConvolution
from hqdm_bench.integer.report import ConversionReport
from hqdm_bench.methods import MethodOptions, Request, Student
from hqdm_bench.quantization import ActivationQuantizer, StepIndex, replace

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
            attention = faster_attention(layer)
            if attention is not None:
                replace(network, name, attention)
        super().__init__(network.requires_grad_(False).eval(), step, options, request)
        self.report = report
        self.precision = torch.float32
        self._graphs: StepGraphs | None = None

    def use_precision(self, dtype: torch.dtype) -> Self:
        """Compute what lies between the integer layers in another type; their sums stay exact.

        The inputs of the layers are then other numbers and so are many of their codes: the result
        is not that of the fake-quantized student. Arguments are cast on their way in, the result to
        float32 on its way out.

        Raises:
            BenchError: the kernels of the integer layers cannot return this type.
        """
        for name, layer in self.integer_layers().items():
            if dtype not in layer.kernel.dtypes:
                raise BenchError(
                    f"layer '{name}' ({layer.kernel.name}) cannot return {dtype}; that takes a "
                    "student on a GPU, and float16 or bfloat16"
                )
        for module in self.network.modules():
            # The step sizes of fake-quantized attention stay exact.
            if not isinstance(module, (IntegerLayer, ActivationQuantizer)):
                for parameter in module.parameters(recurse=False):
                    parameter.data = parameter.data.to(dtype)
        self.precision, self._graphs = dtype, None
        return self

    def use_graphs(self) -> Self:
        """Record the network once for every step and shape of its inputs, and replay it after.

        Raises:
            BenchError: the student is not on a GPU, or has weights of its own for every step.
        """
        for name, layer in self.integer_layers().items():
            if layer.spec.weight_steps is not None:
                raise BenchError(
                    f"layer '{name}' has weights for every step and keeps those of one at a time; "
                    "a CUDA graph would hold on to the others: sample without graphs"
                )
        assert self.step is not None
        self._graphs = StepGraphs(self.network, self.step)
        return self

    def _run(self, *args: Any, **kwargs: Any) -> Any:
        if self._graphs is None:
            return super()._run(*args, **kwargs)
        return self._graphs(*args, **kwargs)

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
        found = super().forward(
            *(self._enter(value) for value in args),
            **{name: self._enter(value) for name, value in kwargs.items()},
        )
        return found if self.precision == torch.float32 else found.float()

    def _enter(self, value: Any) -> Any:
        if not isinstance(value, Tensor) or not value.is_floating_point():
            return value
        if not bool(torch.isfinite(value).all()):
            raise BenchError(
                "an input of the student is NaN or infinite: the sampling before it diverged"
            )
        if self.precision != torch.float32 and value.dim() > 1:
            value = value.to(self.precision)
        if value.dim() == 4:
            return value.contiguous(memory_format=torch.channels_last)
        return value
