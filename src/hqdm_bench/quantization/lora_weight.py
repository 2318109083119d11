"""A weight with a trained low-rank update, re-quantized (EfficientDM's QALoRA)."""

import math
from collections.abc import Callable
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from hqdm_bench.common.errors import BenchError
from hqdm_bench.quantization.functional import lora_codes, lora_fake_quantize
from hqdm_bench.quantization.grid import Grid, check_weight_bits
from hqdm_bench.quantization.step import Row, row_of
from hqdm_bench.quantization.weight import GridRule, code_type, encode, weight_grid

__all__ = ["LoRAWeight"]

Base = Literal["dequantized", "full_precision"]
ScaleUpdates = Literal["twice", "once"]


class LoRAWeight(nn.Module):
    """W_hat = Q(W_b + B A): a frozen base, a trained low-rank update, a trained step size.

    The base W_b is (codes - z) * base_scale with frozen integers, as EfficientDM and HQ-DM release
    it, or the frozen float weight, as their papers write it. The quantizer is per output channel
    and asymmetric, its zero-point a frozen integer.

    With ``share_scale`` the step size of the quantizer (``scale``) and of the base
    (``base_scale``) are one number. How often an optimiser moves it is ``scale_updates``:

    - "twice" (as released): two parameters on one storage, each with its own gradient and
      optimiser state; both updates land on the same numbers.
    - "once": one parameter under both names; its gradient is the sum, the total derivative.

    With ``steps`` there is a step size for every denoising step (HQ-DM's text); the zero-points and
    codes stay the same.

    The sharing survives ``to``, ``double``, ``deepcopy`` and ``load_state_dict``, and the number
    is stored once in the state.

    Args:
        base: (c_out, c_in, ...) integer codes, or the float weight (which selects that base).
        grid: scale and zero-point shaped (c_out, 1, ...).
        bits: b, 2 to 8.
        lora_A: (rank, c_in, ...), the kernel of the layer.
        lora_B: (c_out, rank, 1...).
        share_scale: whether the two step sizes are one number; dequantized base only.
        scale_updates: see above; only with ``share_scale``.
        steps: S for step sizes shaped (S, c_out, 1, ...), or None for one that all steps share.
    """

    scale: nn.Parameter
    base_scale: nn.Parameter | None
    codes: Tensor | None
    base_weight: Tensor | None
    zero: Tensor

    def __init__(
        self,
        base: Tensor,
        grid: Grid,
        bits: int,
        lora_A: Tensor,
        lora_B: Tensor,
        *,
        share_scale: bool = True,
        scale_updates: ScaleUpdates = "twice",
        steps: int | None = None,
    ) -> None:
        super().__init__()
        if scale_updates not in ("twice", "once"):
            raise BenchError(
                f"scale_updates '{scale_updates}' is unknown; choose 'twice' or 'once'"
            )
        self.bits = check_weight_bits(bits)
        self.share_scale = share_scale
        self.scale_updates = scale_updates
        self.steps = steps
        integer = not base.is_floating_point()
        self.base: Base = "dequantized" if integer else "full_precision"
        self.register_buffer("codes", base.detach().clone() if integer else None)
        self.register_buffer("base_weight", None if integer else base.detach().clone())
        self.register_buffer("zero", grid.zero.detach().clone())
        scale = grid.scale.detach()
        scale = scale.clone() if steps is None else torch.stack([scale] * steps)
        self.scale = nn.Parameter(scale)
        self.register_parameter("base_scale", None)
        if integer:
            self.base_scale = nn.Parameter(scale.clone())
        self.lora_A = nn.Parameter(lora_A.detach().clone())
        self.lora_B = nn.Parameter(lora_B.detach().clone())
        self._tie()

    @classmethod
    def from_float(
        cls,
        weight: Tensor,
        bits: int,
        rank: int,
        generator: torch.Generator,
        *,
        rule: GridRule = "max",
        base: Base = "dequantized",
        share_scale: bool = True,
        scale_updates: ScaleUpdates = "twice",
        steps: int | None = None,
    ) -> Self:
        """Quantize a float weight and attach a low-rank update that starts at zero.

        A is uniform in +-1/sqrt(fan_in) (Kaiming with a = sqrt 5), B is zero.

        Args:
            weight: (c_out, c_in, ...).
            bits: b, 2 to 8.
            rank: r.
            generator: source of A (CPU).
            rule: grid of the base, "max" or "mse".
            base: "dequantized" or "full_precision".
            share_scale: see the class.
            scale_updates: see the class.
            steps: see the class.
        """
        if base not in ("dequantized", "full_precision"):
            raise BenchError(f"base '{base}' is unknown; choose 'dequantized' or 'full_precision'")
        grid = weight_grid(weight, bits, rule)
        bound = 1 / math.sqrt(weight[0].numel())
        lora_A = torch.empty(rank, *weight.shape[1:]).uniform_(-bound, bound, generator=generator)
        lora_B = weight.new_zeros(len(weight), rank, *[1] * (weight.dim() - 2))
        return cls(
            encode(weight, grid, bits) if base == "dequantized" else weight.detach(),
            grid,
            bits,
            lora_A.to(weight),
            lora_B,
            share_scale=share_scale,
            scale_updates=scale_updates,
            steps=steps,
        )

    @property
    def shape(self) -> torch.Size:
        """(c_out, c_in, ...)."""
        return self._base().shape

    @property
    def rank(self) -> int:
        """Rank r of the update."""
        return len(self.lora_A)

    def effective_codes(self, row: Row = 0) -> Tensor:
        """Integer codes 0..2^b - 1 of the effective weight at a step, shaped like it."""
        with torch.no_grad():
            return lora_codes(*self._arguments(row)).to(code_type(self.bits)).view(self.shape)

    def forward(self, row: Row = 0) -> Tensor:
        """The effective weight at a step, (c_out, c_in, ...)."""
        return lora_fake_quantize(*self._arguments(row))

    def _arguments(
        self, row: Row
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor | None, int]:
        scale: Tensor = self.scale
        base_scale: Tensor | None = self.base_scale
        if self.steps is not None:
            scale = row_of(scale, row)
            base_scale = None if base_scale is None else row_of(base_scale, row)
        levels = 2**self.bits - 1
        return self.lora_A, self.lora_B, scale, self.zero, self._base(), base_scale, levels

    def _base(self) -> Tensor:
        base = self.base_weight if self.codes is None else self.codes
        assert base is not None
        return base

    @property
    def _tied(self) -> bool:
        return self.share_scale and self.base == "dequantized"

    def _tie(self) -> None:
        """Put both step sizes on one storage again, after anything that may copy them apart."""
        if not self._tied or self.base_scale is None:
            return
        if self.scale_updates == "once":
            self.base_scale = self.scale
        else:
            self.base_scale.data = self.scale.data

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)
        self._tie()
        return self

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._tie()

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self._tied:
            destination.pop(prefix + "base_scale", None)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        key = prefix + "base_scale"
        if self._tied and prefix + "scale" in state_dict:
            state_dict = {**state_dict, key: state_dict[prefix + "scale"]}
        super()._load_from_state_dict(state_dict, prefix, *args)
        self._tie()

    def extra_repr(self) -> str:
        """Shown by print()."""
        return f"{tuple(self.shape)}, bits={self.bits}, rank={self.rank}, base={self.base}"
