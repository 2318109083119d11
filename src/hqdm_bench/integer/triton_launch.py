"""Where Triton's kernels run: on the GPU of their tensors, or in Triton's interpreter."""

import contextlib

import torch
from torch import Tensor

__all__ = ["on_device", "processors"]


def on_device(tensor: Tensor) -> contextlib.AbstractContextManager[None]:
    """Make a tensor's GPU the current one: Triton launches there whatever its arguments."""
    if tensor.device.type != "cuda" or tensor.device.index == torch.cuda.current_device():
        return contextlib.nullcontext()
    return torch.cuda.device(tensor.device)


def processors(device: torch.device) -> int:
    """Multiprocessors to keep busy; 1 in the interpreter."""
    if device.type != "cuda":
        return 1
    return torch.cuda.get_device_properties(device).multi_processor_count
