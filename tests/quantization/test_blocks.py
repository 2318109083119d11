"""Reconstruction units of the three latent diffusion UNets and of a network of another package."""

import pytest
import torch
from torch import Tensor, nn

from hqdm_bench.common.errors import BenchError
from hqdm_bench.models import LatentDiffusion
from hqdm_bench.models.unet import UNet
from hqdm_bench.quantization import full
from hqdm_bench.quantization.blocks import Unit, find_units, in_call_order

SHAPES = {
    "transformer": {"use_spatial_transformer": True, "transformer_depth": 1, "context_dim": 16},
    "attention": {},
    "updown": {"resblock_updown": True, "use_scale_shift_norm": True},
}


def unet(shape: str) -> UNet:
    return UNet(
        image_size=8,
        in_channels=3,
        out_channels=3,
        model_channels=32,
        attention_resolutions=[1, 2],
        num_res_blocks=1,
        channel_mult=[1, 2],
        num_heads=2,
        **SHAPES[shape],
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_units_hold_every_layer_once_and_are_the_blocks(shape: str) -> None:
    network = unet(shape)
    layers = list(full(network))
    units = find_units(network, layers)
    held = [name for unit in units for name in unit.layers]
    assert sorted(held) == sorted(layers)
    kinds = {unit.name: unit.kind for unit in units}
    blocks = {type(network.get_submodule(name)).__name__: kind for name, kind in kinds.items()}
    assert blocks["ResBlock"] == "residual"
    if shape == "transformer":
        assert blocks["BasicTransformerBlock"] == "transformer"
        assert kinds["middle_block.1.proj_in"] == "layer"
    else:
        assert blocks["AttentionBlock"] == "attention"
    assert kinds["time_embed.0"] == kinds["out.2"] == kinds["input_blocks.0.0"] == "layer"
    residual = next(unit for unit in units if unit.name == "output_blocks.0.0")
    assert residual.layers == tuple(
        f"output_blocks.0.0.{name}"
        for name in ("in_layers.2", "emb_layers.1", "out_layers.3", "skip_connection")
    )


def test_only_the_layers_asked_for() -> None:
    network = unet("attention")
    units = find_units(network, ["middle_block.0.in_layers.2", "out.2"])
    assert units == [
        Unit("middle_block.0", "residual", ("middle_block.0.in_layers.2",)),
        Unit("out.2", "layer", ("out.2",)),
    ]
    with pytest.raises(BenchError, match="UNet has no layer 'out.7' to reconstruct"):
        find_units(network, ["out.7"])


@pytest.mark.parametrize("shape", ["transformer", "updown"])
def test_a_call_reaches_the_units_in_module_order(shape: str) -> None:
    network = unet(shape)
    units = find_units(network, list(full(network)))
    context = torch.zeros(1, 1, 16) if shape == "transformer" else None
    with torch.no_grad():
        found = in_call_order(
            network,
            reversed(units),
            lambda: network(torch.zeros(1, 3, 8, 8), torch.ones(1), context),
        )
    assert found == units


class Other(nn.Module):
    """Blocks by other names, defined in another order than they run, one in two places."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(4, 4)
        self.attention = nn.ModuleDict({key: nn.Linear(4, 4) for key in ("to_q", "to_k", "to_v")})
        self.block = nn.Module()
        self.block.conv1, self.block.conv2 = nn.Linear(4, 4), nn.Linear(4, 4)
        self.block.forward = lambda x: self.block.conv2(self.block.conv1(x))
        self.again = self.block

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.block(x))


def test_blocks_are_known_by_their_parts() -> None:
    network = Other()
    names = [name for name, layer in network.named_modules() if isinstance(layer, nn.Linear)]
    units = find_units(network, names)
    assert [(unit.name, unit.kind) for unit in units] == [
        ("last", "layer"),
        ("attention", "attention"),
        ("block", "residual"),
    ]
    called = [units[0], units[2]]
    assert in_call_order(network, called, lambda: network(torch.zeros(4))) == called[::-1]
    with pytest.raises(BenchError, match="no call ran 'attention'"):
        in_call_order(network, units, lambda: network(torch.zeros(4)))
    assert not any(module._forward_pre_hooks for module in network.modules())


def test_the_toy_of_the_suite_has_units(shared_toy: LatentDiffusion) -> None:
    units = find_units(shared_toy.unet, list(full(shared_toy.unet)))
    assert {"residual", "transformer", "layer"} == {unit.kind for unit in units}
