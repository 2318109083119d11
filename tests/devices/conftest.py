"""A second device made of CPU memory: code that mixes devices fails on it as on a GPU."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

DEVICE = torch.device("meta")  # a device name that torch knows and initialises nothing for
INDEXING = {torch.ops.aten.index.Tensor, torch.ops.aten.index_put_.default}


class FarTensor(Tensor):
    """A tensor on the simulated device; its values are real and sit in `near`."""

    near: Tensor

    @staticmethod
    def __new__(cls, near: Tensor) -> "FarTensor":
        far = torch.Tensor._make_wrapper_subclass(
            cls,
            near.size(),
            strides=near.stride(),
            storage_offset=near.storage_offset(),
            dtype=near.dtype,
            device=DEVICE,
        )
        far.near = near
        return far

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return execute(func, args, kwargs or {})

    __torch_function__ = torch._C._disabled_torch_function_impl


class SimulatedDevice(TorchDispatchMode):
    """While active, tensors can be made on `DEVICE` and moved to it and back."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return execute(func, args, kwargs or {})


def execute(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run an operator on the values, refuse mixed devices, and put the result where it belongs."""
    tensors = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, Tensor)]
    far = any(isinstance(tensor, FarTensor) for tensor in tensors)
    if far:
        refuse_mixture(func, args, tensors)
    to_far = far
    if kwargs.get("device") is not None:
        to_far = torch.device(kwargs["device"]) == DEVICE
        kwargs = {**kwargs, "device": torch.device("cpu")}
    result = func(*tree_map(near, args), **tree_map(near, kwargs))
    if func._schema.name.endswith("_") and isinstance(args[0], Tensor):
        return args[0]  # in place
    if kwargs.get("out") is not None:
        return kwargs["out"]
    return tree_map(lambda value: place(value, to_far), result)


def refuse_mixture(func: Any, args: tuple[Any, ...], tensors: list[Tensor]) -> None:
    if func in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default):
        return
    strangers = [t for t in tensors if not isinstance(t, FarTensor) and t.dim()]
    if func in INDEXING:  # indices may stay on the CPU, what they index may not
        strangers = [] if isinstance(args[0], FarTensor) else [args[0]]
    if strangers:
        raise RuntimeError(f"{func} mixes devices: {[tuple(t.shape) for t in strangers]} on CPU")


def near(value: Any) -> Any:
    return value.near if isinstance(value, FarTensor) else value


def place(value: Any, far: bool) -> Any:
    plain = isinstance(value, Tensor) and not isinstance(value, FarTensor)
    return FarTensor(value) if far and plain else value


@pytest.fixture
def device() -> Iterator[torch.device]:
    swapping = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        with SimulatedDevice():
            yield DEVICE
    finally:
        torch.__future__.set_swap_module_params_on_conversion(swapping)
