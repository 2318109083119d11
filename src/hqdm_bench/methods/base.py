"""A student: a network with quantized layers together with the step it is at."""

import inspect
from collections.abc import Sequence
from typing import Any, Self

from torch import Tensor, nn

from hqdm_bench.catalogue import Bits, Recipe
from hqdm_bench.common.errors import BenchError
from hqdm_bench.hadamard import Transform
from hqdm_bench.methods.options import MethodOptions, QatOptions
from hqdm_bench.methods.request import Rates, Request
from hqdm_bench.quantization import (
    LoRAWeight,
    NoiseCorrection,
    QuantizedAttention,
    QuantizedInput,
    QuantizedLayer,
    StepIndex,
    TrainedWeight,
)

__all__ = ["Student"]


class Student(nn.Module):
    """Stands in for a module: called like it, and told the timestep instead of counting its calls.

    Attributes that it does not have itself are those of the network.

    Args:
        network: network with quantized layers in place; for full precision the module itself.
        step: the holder its layers refer to, or None if nothing depends on the step.
        options: the method's resolved options.
        request: what it was built for.
        noise_correction: of its predictions, which the sampler applies after guidance; None for a
            method without one.
    """

    noise_correction: NoiseCorrection | None

    def __init__(
        self,
        network: nn.Module,
        step: StepIndex | None,
        options: MethodOptions,
        request: Request,
        noise_correction: NoiseCorrection | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.step = step
        self.options = options
        self.request = request
        self.noise_correction = noise_correction
        self.method = ""  # the registry fills in the name
        self._signature = inspect.signature(type(network).forward)
        if step is not None and request.timestep_argument is None:
            step.set(step.timesteps[0])

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the network returns for these arguments, at the timestep among them.

        The timestep is a number or a tensor whose entries are all equal: a row of the step tables
        serves a whole batch.

        Raises:
            BenchError: no timestep, rows with different timesteps, or a timestep the tables have no
                row for.
        """
        if self.step is not None and self.request.timestep_argument is not None:
            self.step.set(self.timestep_of(*args, **kwargs))
        return self._run(*args, **kwargs)

    def timestep_of(self, *args: Any, **kwargs: Any) -> float:
        """The timestep among the arguments of a call; 0 for a module without one.

        Raises:
            BenchError: no timestep, or rows with different timesteps.
        """
        name = self.request.timestep_argument
        if name is None:
            return 0.0
        given = self._signature.bind_partial(self.network, *args, **kwargs).arguments
        return _one_timestep(given.get(name), name)

    def _run(self, *args: Any, **kwargs: Any) -> Any:
        """What the network returns at the step that is set."""
        return self.network(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            # Not through self.network, which comes back here while the student is being built.
            network = self.__dict__.get("_modules", {}).get("network")
            if network is None:
                raise
            return getattr(network, name)

    @property
    def bits(self) -> Bits:
        """Bits of the low-bit layers."""
        return self.request.bits

    @property
    def seed(self) -> int:
        """Training seed of its initial low-rank factors."""
        return self.request.seed

    def quantized_layers(self) -> dict[str, QuantizedLayer]:
        """Every quantized layer by its name in the network, in module order."""
        return {
            name: layer
            for name, layer in self.network.named_modules()
            if isinstance(layer, QuantizedLayer)
        }

    def low_bit_layers(self) -> dict[str, QuantizedLayer]:
        """The layers at the student's low bits, trained or calibrated."""
        layers = self.quantized_layers().items()
        return {name: layer for name, layer in layers if layer.low_bit}

    def static_layers(self) -> dict[str, QuantizedLayer]:
        """The layers at a fixed width, quantized once and never trained."""
        layers = self.quantized_layers().items()
        return {name: layer for name, layer in layers if not layer.low_bit}

    def quantized_attention(self) -> dict[str, QuantizedAttention]:
        """Every attention with quantized products by its name in the network, in module order."""
        return {
            name: module
            for name, module in self.network.named_modules()
            if isinstance(module, QuantizedAttention)
        }

    def quantized_inputs(self) -> dict[str, QuantizedInput]:
        """What has an activation quantizer: the layers, then the operands of the attentions."""
        return {
            **self.quantized_layers(),
            **{
                f"{name}.{own_name}": operand
                for name, attention in self.quantized_attention().items()
                for own_name, operand in attention.named_operands().items()
            },
        }

    @property
    def trainable(self) -> bool:
        """Whether there is anything to train."""
        return any(parameter.requires_grad for _, parameter in self._quantized_parameters())

    @property
    def calibrated(self) -> bool:
        """Whether every activation quantizer has its range."""
        return all(holder.activation.calibrated for holder in self.quantized_inputs().values())

    def parameter_groups(self, rates: Rates | Recipe | None = None) -> list[dict[str, Any]]:
        """Groups for ``torch.optim.AdamW`` at the rates of the first update.

        A layer's low-rank factors get the mean of its weight scale over ``lora_lr_divisor``
        (EfficientDM's scale-aware update, as coded); with ``scale_aware: gradient`` all layers get
        the mean of these rates and their gradients a factor, the mean of the layer's weight scale.
        A weight trained in full precision gets a share of what low-rank factors would
        (`MethodOptions.full_weight_share`).
        All other rates are shared by all layers, and so are their groups: the arithmetic per
        parameter does not see the grouping. The two weight scales of a layer share a storage and
        must be updated one after the other, quantizer first, hence two groups in this order.

        Keys that torch does not know: ``name``; ``gradient_factor`` for the gradients; ``rows``
        where the rows of a table are parameters of their own (``scale_table: separate``).

        Args:
            rates: those of the released training scripts if None.
        """
        rates = rates or Rates()
        layers = list(self.low_bit_layers().values())
        weights = [layer.weight for layer in layers if isinstance(layer.weight, LoRAWeight)]
        separate = self._option("scale_table") == "separate"
        groups = self._lora_groups(weights, rates.lora_lr_divisor)
        trained = [layer.weight for layer in layers if isinstance(layer.weight, TrainedWeight)]
        groups += [
            {
                "name": "weight",
                "params": [weight.weight],
                "lr": self.options.full_weight_share * _mean(weight.scale) / rates.lora_lr_divisor,
            }
            for weight in trained
        ]
        quantizer = [weight.scale for weight in weights]
        quantizer += [weight.scale for weight in trained if isinstance(weight.scale, nn.Parameter)]
        dequantizer = [
            weight.base_scale
            for weight in weights
            if weight.base_scale is not None and weight.base_scale is not weight.scale
        ]
        rows = {"rows": True} if separate else {}
        weight_rows = rows if any(weight.steps is not None for weight in weights) else {}
        groups += [
            {"name": "weight_scale", "params": params, "lr": rates.weight_scale_lr, **weight_rows}
            for params in (quantizer, dequantizer)
            if params
        ]
        attention = self.quantized_attention().values()
        operands = [operand for each in attention for operand in each.operands]
        holders: list[QuantizedInput] = [*layers, *operands]
        tables = [
            table
            for holder in holders
            for table in holder.activation.parameters()
            if table.requires_grad
        ]
        if tables:
            groups.append(
                {"name": "activation", "params": tables, "lr": rates.activation_lr, **rows}
            )
        return [{**group, "weight_decay": rates.weight_decay} for group in groups]

    def _lora_groups(self, weights: Sequence[LoRAWeight], divisor: float) -> list[dict[str, Any]]:
        scales = [_mean(weight.scale) for weight in weights]
        by_gradient = self._option("scale_aware") == "gradient"
        shared = sum(scales) / max(1, len(scales)) / divisor
        return [
            {
                "name": "lora",
                "params": [weight.lora_A, weight.lora_B],
                "lr": shared if by_gradient else scale / divisor,
                **({"gradient_factor": scale} if by_gradient else {}),
            }
            for weight, scale in zip(weights, scales, strict=True)
        ]

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

    def commit(self) -> Self:
        """Round every weight that is trained in full precision for good: codes instead of floats.

        The student then computes what it did, takes a byte a weight on disk, and cannot be trained
        on.
        """
        for layer in self.quantized_layers().values():
            if isinstance(layer.weight, TrainedWeight):
                layer.weight = layer.weight.commit()
        return self

    @property
    def committed(self) -> bool:
        """Whether no weight is in full precision behind its quantizer."""
        layers = self.quantized_layers().values()
        return not any(isinstance(layer.weight, TrainedWeight) for layer in layers)

    def use_transform(self, transform: Transform) -> Self:
        """Choose how layer inputs are rotated, see `Rotation`; part of no file."""
        for layer in self.quantized_layers().values():
            layer.use_transform(transform)
        return self

    def _option(self, name: str) -> Any:
        return getattr(self.options, name) if isinstance(self.options, QatOptions) else None

    def _quantized_parameters(self) -> list[tuple[str, nn.Parameter]]:
        holders = self.quantized_inputs().values()
        return [entry for holder in holders for entry in holder.named_parameters()]


def _mean(scale: Tensor) -> float:
    return float(scale.detach().double().mean())


def _one_timestep(given: Any, name: str) -> float:
    if given is None:
        raise BenchError(f"a quantized student needs the timestep; give it as '{name}'")
    if not isinstance(given, Tensor):
        return float(given)
    first = given.flatten()[0]
    if given.dim() and bool((given != first).any()):
        raise BenchError(
            f"a quantized student takes one timestep a batch; this batch mixes "
            f"{sorted(set(given.tolist()))}; split it by timestep"
        )
    return float(first)
