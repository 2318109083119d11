"""Single precision that means single precision."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["exact_float32"]


@contextmanager
def exact_float32() -> Iterator[None]:
    """Products and convolutions in full float32, by the same algorithm every time.

    TF32 convolutions, PyTorch's default on recent GPUs, keep 10 bits of each factor. The settings
    before are restored.
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=True, allow_tf32=False
        ):
            yield
    finally:
        torch.set_float32_matmul_precision(before)
