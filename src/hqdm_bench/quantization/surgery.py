"""Replacing a layer of a model by its dotted name."""

from torch import nn

from hqdm_bench.common.errors import BenchError

__all__ = ["replace"]


def replace(root: nn.Module, name: str, layer: nn.Module) -> nn.Module:
    """Put ``layer`` where ``name`` is and return what was there.

    A module that the model holds in several places is replaced in all of them.

    Args:
        root: model that is changed in place.
        name: dotted path, for example ``input_blocks.4.0.in_layers.2``.
        layer: the new module; it takes over the training mode of the old one.

    Raises:
        BenchError: the model has no such module.
    """
    try:
        old = root.get_submodule(name)
    except AttributeError:
        raise BenchError(f"{type(root).__name__} has no module '{name}' to replace") from None
    if old is root:
        raise BenchError(
            f"cannot replace a {type(root).__name__} within itself, its name there is empty; "
            "wrap it in nn.Sequential"
        )
    layer.train(old.training)
    holders = [
        (module, own_name)
        for module in root.modules()
        for own_name, child in module._modules.items()  # named_children() skips a second place
        if child is old
    ]
    for module, own_name in holders:
        setattr(module, own_name, layer)
    return old
