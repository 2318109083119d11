"""Replacing a layer of a model by its dotted name."""

from torch import nn

from hqdm_bench.common.errors import BenchError

__all__ = ["replace"]


def replace(root: nn.Module, name: str, layer: nn.Module) -> nn.Module:
    """Put ``layer`` where ``name`` is and return what was there.

    Args:
        root: model that is changed in place.
        name: dotted path, for example ``input_blocks.4.0.in_layers.2``.
        layer: the new module; it takes over the training mode of the old one.

    Raises:
        BenchError: the model has no such module.
    """
    parent_name, _, own_name = name.rpartition(".")
    try:
        parent = root.get_submodule(parent_name)
        old = parent.get_submodule(own_name)
    except AttributeError:
        raise BenchError(f"{type(root).__name__} has no module '{name}' to replace") from None
    if old is root:
        raise BenchError("cannot replace a model by name within itself; the name is empty")
    layer.train(old.training)
    setattr(parent, own_name, layer)
    return old
