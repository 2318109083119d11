"""Which layers hold weights, and which of them can be quantized."""

from torch import nn

__all__ = ["LAYERS", "TRANSPOSED", "obstacle"]

QUANTIZABLE = (nn.Conv1d, nn.Conv2d, nn.Linear)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
LAYERS = (*QUANTIZABLE, nn.Conv3d, *TRANSPOSED, nn.MultiheadAttention)
# These hand the weights of their children to fused functions.
READERS = (nn.MultiheadAttention, nn.TransformerEncoderLayer)


def obstacle(module: nn.Module, name: str) -> str | None:
    """Why a layer cannot be quantized, or None if it can.

    Can be: Conv1d, Conv2d and Linear, one group and zero padding, that compute what torch's classes
    of that name do. Cannot be: anything else, and the layers directly inside nn.MultiheadAttention
    and nn.TransformerEncoderLayer, which read their weights without calling them.
    """
    layer, parent = module.get_submodule(name), module.get_submodule(name.rpartition(".")[0])
    if name and isinstance(parent, READERS):
        return f"its {type(parent).__name__} reads its weight without calling it"
    kind = next((kind for kind in QUANTIZABLE if isinstance(layer, kind)), None)
    if kind is None:
        return f"it is a {type(layer).__name__}; Conv1d, Conv2d and Linear can be"
    if "forward" in vars(layer) or type(layer).forward is not kind.forward:
        return f"its class {type(layer).__name__} has a forward of its own"
    if isinstance(layer, nn.Linear):
        return None
    if layer.groups != 1:
        return f"it has {layer.groups} groups"
    return None if layer.padding_mode == "zeros" else f"it pads with '{layer.padding_mode}'"
