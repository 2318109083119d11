"""Quantized products where a network calls PyTorch's fused attention, as diffusers does.

A diffusers attention leaves the work to its processor, whose call of `scaled_dot_product_attention`
is answered by quantized products; whatever else the processor does stays its own.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from hqdm_bench.common.errors import BenchError
from hqdm_bench.quantization.attention import QuantizedTokenAttention

__all__ = ["QuantizedProcessor", "has_processor"]

PARTS = ("processor", "set_processor", "to_q")  # of an attention of diffusers, whatever its class


def has_processor(module: nn.Module) -> bool:
    """Whether this is an attention with an exchangeable processor."""
    return all(hasattr(module, part) for part in PARTS)


class QuantizedProcessor(nn.Module):
    """A processor whose fused attention has quantized products.

    Args:
        processor: what it stands for.
        attention: the products.
    """

    def __init__(self, processor: Callable[..., Any], attention: QuantizedTokenAttention) -> None:
        super().__init__()
        self.processor = processor
        self.attention = attention
        # diffusers passes on what the signature found here has room for, and drops the rest. A call
        # goes by the class.
        vars(self)["__call__"] = getattr(processor, "__call__")  # noqa: B004, B009

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the processor returns."""
        with _Answering(self.attention):
            return self.processor(*args, **kwargs)


class _Answering(TorchFunctionMode):
    """Gives calls of fused attention to quantized products."""

    def __init__(self, attention: QuantizedTokenAttention) -> None:
        super().__init__()
        self.attention = attention

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is functional.scaled_dot_product_attention:
            return self._fused(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _fused(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        """PyTorch's arguments."""
        if is_causal or enable_gqa or dropout_p:
            raise BenchError(
                "quantized attention has no dropout, no causal mask and a key for every query "
                "head; take option attention 'full_precision'"
            )
        scale = query.shape[-1] ** -0.5 if scale is None else scale
        found: Tensor = self.attention(query, key, value, attn_mask, scale)
        return found
