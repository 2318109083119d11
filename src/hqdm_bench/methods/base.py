"""A student: the UNet of a quantized model together with the step it is at."""

from typing import Any, Self

from torch import Tensor, nn

from hqdm_bench.catalogue import Bits, Recipe
from hqdm_bench.common.errors import BenchError
from hqdm_bench.methods.options import MethodOptions
from hqdm_bench.quantization import LoRAWeight, QuantizedLayer, StaticWeight, StepIndex

__all__ = ["Student"]


class Student(nn.Module):
    """Stands in for a teacher's UNet, and is told the timestep instead of counting its calls.

    Args:
        unet: network with quantized layers in place; for full precision the teacher's own.
        step: the holder its layers refer to, or None if nothing depends on the step.
        method: name of the method that built it.
        options: that method's resolved options.
        bits: of the low-bit layers.
        recipe: the recipe it was built for.
        seed: training seed of its initial low-rank factors.
    """

    def __init__(
        self,
        unet: nn.Module,
        step: StepIndex | None,
        method: str,
        options: MethodOptions,
        bits: Bits,
        recipe: Recipe,
        seed: int,
    ) -> None:
        super().__init__()
        self.unet = unet
        self.step = step
        self.method = method
        self.options = options
        self.bits = bits
        self.recipe = recipe
        self.seed = seed

    def forward(self, x: Tensor, timesteps: Tensor, context: Tensor | None = None) -> Tensor:
        """Predict the noise.

        Args:
            x: (B, C, h, w) latents.
            timesteps: (B,), all equal: a row of the step tables serves a whole batch.
            context: (B, L, D) tokens, or None.

        Raises:
            BenchError: rows with different timesteps, or a timestep the tables have no row for.
        """
        if self.step is not None:
            first = timesteps.flatten()[0]
            if bool((timesteps != first).any()):
                raise BenchError(
                    "a quantized student takes one timestep a batch; this batch mixes "
                    f"{sorted(set(timesteps.tolist()))}; split it by timestep"
                )
            self.step.set(int(first))
        return self.unet(x, timesteps, context)

    def quantized_layers(self) -> dict[str, QuantizedLayer]:
        """Every quantized layer by its name in the UNet, in module order."""
        return {
            name: layer
            for name, layer in self.unet.named_modules()
            if isinstance(layer, QuantizedLayer)
        }

    def low_bit_layers(self) -> dict[str, QuantizedLayer]:
        """The layers that are trained."""
        layers = self.quantized_layers().items()
        return {name: layer for name, layer in layers if isinstance(layer.weight, LoRAWeight)}

    def static_layers(self) -> dict[str, QuantizedLayer]:
        """The layers that are quantized once and never trained."""
        layers = self.quantized_layers().items()
        return {name: layer for name, layer in layers if isinstance(layer.weight, StaticWeight)}

    @property
    def trainable(self) -> bool:
        """Whether there is anything to train."""
        return bool(self.low_bit_layers())

    @property
    def calibrated(self) -> bool:
        """Whether every activation quantizer has its range."""
        return all(layer.activation.calibrated for layer in self.quantized_layers().values())

    def parameter_groups(self, recipe: Recipe) -> list[dict[str, Any]]:
        """Groups for ``torch.optim.AdamW`` at the rates of the first update.

        A layer's low-rank factors get the mean of its weight scale over ``lora_lr_divisor``
        (EfficientDM's scale-aware update, as coded). All other rates are shared by all layers, and
        so are their groups: the arithmetic per parameter does not see the grouping. The two weight
        scales of a layer share a storage and must be updated one after the other, quantizer first,
        hence two groups in this order.
        """
        weights = [_lora(layer) for layer in self.low_bit_layers().values()]
        groups: list[dict[str, Any]] = [
            {
                "name": "lora",
                "params": [weight.lora_A, weight.lora_B],
                "lr": float(weight.scale.detach().double().mean()) / recipe.lora_lr_divisor,
            }
            for weight in weights
        ]
        quantizer = [weight.scale for weight in weights]
        dequantizer = [
            weight.base_scale
            for weight in weights
            if weight.base_scale is not None and weight.base_scale is not weight.scale
        ]
        groups += [
            {"name": "weight_scale", "params": params, "lr": recipe.weight_scale_lr}
            for params in (quantizer, dequantizer)
            if params
        ]
        tables = [
            table
            for layer in self.low_bit_layers().values()
            for table in layer.activation.parameters()
        ]
        groups.append({"name": "activation", "params": tables, "lr": recipe.activation_lr})
        return [{**group, "weight_decay": recipe.weight_decay} for group in groups]

    def freeze(self) -> Self:
        """Keep effective weights for calls without gradients; the outputs stay the same."""
        for layer in self.quantized_layers().values():
            layer.freeze()
        return self

    def unfreeze(self) -> Self:
        """Drop the kept weights."""
        for layer in self.quantized_layers().values():
            layer.unfreeze()
        return self


def _lora(layer: QuantizedLayer) -> LoRAWeight:
    assert isinstance(layer.weight, LoRAWeight)
    return layer.weight
